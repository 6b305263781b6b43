package billing

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Choice is the card for the next attempt, or the reason why there is none.
type Choice struct {
	Card     Card
	Decision *Decision // nil: attempt Card
}

// Choose picks the card for an attempt that is due, and asks every guard that
// any path to an attach has to pass: the cards' states and expiries, the
// dunning policy, the networks' limits. The provider is not asked.
func (c *Collection) Choose(now time.Time, limits CardLimits, holidays Holidays) (Choice, error) {
	policy, zone, err := c.policy()
	if err != nil {
		return Choice{}, err
	}
	facts := c.facts()
	if c.Trigger == TriggerSchedule || c.Trigger == TriggerDunning {
		// What the last decision was counts as long as nobody has acted.
		if d, promised := policy.AttemptNow(facts, now, zone, holidays); !promised {
			return Choice{Decision: &d}, nil
		}
	}
	card, found := c.chosen(now, zone)
	if !found {
		saved, usable := facts.Card(now, zone)
		if !usable {
			d := policy.NextAttempt(facts, now, zone, holidays)
			return Choice{Decision: &d}, nil
		}
		card = c.card(saved.ID)
	}
	reached := 0 // attempts that may have reached a card
	for _, a := range c.Attempts {
		if a.State != AttemptNoEffect {
			reached++
		}
	}
	permit := limits.Permit(CardUse{Network: NetworkOf(card.Brand), Past: card.Past, InvoiceAttempts: reached}, now)
	switch {
	case permit.Allowed:
		return Choice{Card: card}, nil
	case permit.Until.IsZero():
		return Choice{Decision: &Decision{Action: DunningActionNeedsCustomer, At: now.Add(24 * time.Hour), Reason: permit.Reason}}, nil
	}
	return Choice{Decision: &Decision{Action: DunningActionHold, At: permit.Until, Reason: permit.Reason}}, nil
}

// chosen is the card an operator asked for, if it can be charged at all.
func (c *Collection) chosen(now time.Time, zone *time.Location) (Card, bool) {
	if c.ChosenMethod == uuid.Nil {
		return Card{}, false
	}
	card := c.card(c.ChosenMethod.String())
	return card, card.Status == "active" && !card.saved().Expired(now, zone)
}

func (c *Collection) card(id string) Card {
	for _, card := range c.Cards {
		if card.ID.String() == id {
			return card
		}
	}
	return Card{}
}

func (c *Collection) policy() (DunningPolicy, *time.Location, error) {
	if c.parsed == nil {
		c.parsed = &parsedPolicy{}
		c.parsed.policy, c.parsed.err = ParseDunningPolicy(c.Dunning)
	}
	if c.parsed.err != nil {
		return DunningPolicy{}, nil, fmt.Errorf("dunning policy of subscription %s: %w", c.SubscriptionNo, c.parsed.err)
	}
	zone, err := LoadZone(c.TimeZone)
	if err != nil {
		return DunningPolicy{}, nil, fmt.Errorf("time zone of subscription %s: %w", c.SubscriptionNo, err)
	}
	return c.parsed.policy, zone, nil
}

func (card Card) saved() SavedCard {
	return SavedCard{
		ID: card.ID.String(), HardDeclined: card.Status == "blocked", Gone: card.Status == "removed",
		ExpMonth: time.Month(card.ExpMonth), ExpYear: card.ExpYear,
	}
}

func (c *Collection) facts() DunningFacts {
	f := DunningFacts{InvoiceID: c.InvoiceID.String(), DueAt: c.DueAt}
	for _, card := range c.Cards {
		f.Cards = append(f.Cards, card.saved())
	}
	for _, a := range c.Attempts {
		f.Attempts = append(f.Attempts, DunningAttempt{
			At: a.ArmedAt, CardID: a.CardID.String(), State: a.State, Code: a.DeclineCode,
			// A settled decline is a confirmed one: what was not certain stays armed.
			Confirmed: a.State == AttemptDeclined,
		})
	}
	return f
}

// settleFact puts the attempt that is being settled into the facts: the
// collection may have been loaded before it was armed.
func (f *DunningFacts) settleFact(attempt PastAttempt) {
	fact := DunningAttempt{
		At: attempt.ArmedAt, CardID: attempt.CardID.String(), State: attempt.State, Code: attempt.DeclineCode,
		Confirmed: attempt.State == AttemptDeclined,
	}
	for i, a := range f.Attempts {
		if a.At.Equal(fact.At) && a.CardID == fact.CardID {
			f.Attempts[i] = fact
			return
		}
	}
	f.Attempts = append(f.Attempts, fact)
}

// dun stores what follows from a decline.
func (w *writes) dun(s Settlement, row lockedRow, code DeclineCode) Settled {
	w.declined(row, code)
	return w.decide(s, row, PastAttempt{CardID: row.card, ArmedAt: row.armedAt, State: AttemptDeclined, DeclineCode: code})
}

// declined is what a decline means for the card, and for the account.
func (w *writes) declined(row lockedRow, code DeclineCode) {
	switch Classify(code).Confirmed().Class {
	case DeclineClassHard:
		w.cards = append(w.cards, cardChange{ID: row.card, Code: string(code)})
	case DeclineClassConfig:
		w.breaker = fmt.Sprintf("the provider declines with %s: the merchant's account is set up wrongly", code)
	}
}

// dunNoEffect stores what follows from an attempt that never reached a card.
func (w *writes) dunNoEffect(s Settlement, row lockedRow) Settled {
	if s.Judgement.Ruling == CardGone {
		w.cards = append(w.cards, cardChange{ID: row.card, Code: "gone"})
	}
	return w.decide(s, row, PastAttempt{CardID: row.card, ArmedAt: row.armedAt, State: AttemptNoEffect})
}

func (w *writes) decide(s Settlement, row lockedRow, last PastAttempt) Settled {
	c := s.Collection
	policy, zone, err := c.policy()
	if err != nil {
		return w.park(s, row, err.Error())
	}
	facts := c.facts()
	facts.settleFact(last)
	return w.apply(s, row, policy.NextAttempt(facts, w.now, zone, w.holidays), last.DeclineCode)
}

// apply stores a dunning decision.
func (w *writes) apply(s Settlement, row lockedRow, d Decision, code DeclineCode) Settled {
	c := s.Collection
	change := invoiceChange{
		ID: c.InvoiceID, Status: InvoiceOpen, NextAttemptAt: &d.At, WaitingFor: WaitingForSchedule,
		Trigger: TriggerDunning, Code: string(code), Reason: d.Reason,
	}
	if code != "" {
		w.overdue = append(w.overdue, c.SubscriptionID)
	}
	switch d.Action {
	case DunningActionNeedsCustomer:
		change.WaitingFor = WaitingForCustomer
		if row.waitingFor != WaitingForCustomer {
			w.overdue = append(w.overdue, c.SubscriptionID)
			w.emit(c, "invoice.needs_action", fields{"decline_code": code, "reason": d.Reason, "next_look_at": d.At})
		}
	case DunningActionEnd:
		change.Status, change.NextAttemptAt = InvoiceUncollectible, nil
		w.emit(c, "invoice.uncollectible", fields{"decline_code": code, "reason": d.Reason})
		switch d.End {
		case EndActionCancel:
			w.ended[c.SubscriptionID] = SubscriptionCancelled
		case EndActionMarkUnpaid:
			w.ended[c.SubscriptionID] = SubscriptionUnpaid
		}
	case DunningActionReview:
		return w.park(s, row, d.Reason)
	case DunningActionHold:
		change.Trigger = ""
	default:
		if code != "" {
			w.emit(c, "invoice.payment_failed", fields{"decline_code": code, "next_attempt_at": d.At, "reason": d.Reason})
		}
	}
	w.invoices = append(w.invoices, change)
	settled := Settled{Applied: true, InvoiceStatus: change.Status, Final: d.Action == DunningActionEnd, Cause: d.Cause, Reason: d.Reason}
	if change.NextAttemptAt != nil {
		settled.NextAttemptAt = *change.NextAttemptAt
	}
	return settled
}
