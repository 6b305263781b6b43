package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// RetryRequest asks for one more attempt on an invoice, by hand.
type RetryRequest struct {
	Invoice string
	// PaymentMethod is PayMongo's id of a card of the customer, or empty: the
	// first that may be charged.
	PaymentMethod string
	Act           // Now is business time
}

// RefusalKind is why a retry is refused, or the removal of a card, in one word: to
// count by.
type RefusalKind string

// The kinds. The first two are about everything, the others about one invoice.
const (
	RefusalFrozen       RefusalKind = "frozen"
	RefusalBreaker      RefusalKind = "breaker_open"
	RefusalReview       RefusalKind = "in_review"
	RefusalNotOpen      RefusalKind = "not_open"
	RefusalCustomer     RefusalKind = "waits_for_customer"
	RefusalInFlight     RefusalKind = "in_flight"
	RefusalEnqueued     RefusalKind = "enqueued_already"
	RefusalPaused       RefusalKind = "paused"
	RefusalHardDecline  RefusalKind = "hard_decline"
	RefusalNoCard       RefusalKind = "no_card"
	RefusalNetworkLimit RefusalKind = "network_limit"
	RefusalBudget       RefusalKind = "budget"              // not of RetryPlan, which has OverBudget
	RefusalRecent       RefusalKind = "attempted_recently"  // of RetryPlan alone
	RefusalLastMethod   RefusalKind = "last_payment_method" // of RemoveUnusedMethod alone
)

func refusedAs(kind RefusalKind, format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...), Kind: kind}
}

// Retried is an attempt that was asked for.
type Retried struct {
	Invoice       string    `json:"invoice"`
	Subscription  string    `json:"subscription"`
	PeriodNo      int       `json:"period_no"`
	AmountMinor   int64     `json:"amount_minor"`
	Currency      Currency  `json:"currency"`
	PaymentMethod string    `json:"payment_method"`
	NextAttemptAt time.Time `json:"next_attempt_at"`
}

const sqlRetryLock = `
SELECT i.status, COALESCE(i.reason, ''), i.attempt_trigger, i.claimed, s.status
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.id = $1
FOR UPDATE OF i`

const sqlRetry = `
UPDATE singil.invoices
SET next_attempt_at = $2, attempt_trigger = 'manual', payment_method_id = $3, waiting_for = 'schedule', claimed = false,
    updated_at = clock_timestamp()
WHERE id = $1 AND status = 'open'`

// Retry makes an open invoice due now, for the card that is named or the first
// that will do. It sends nothing: the next sweep finds it, and it passes every
// guard of the usual path once more. What a guard would refuse is refused here
// already, as a *RefusedError that says why; an invoice that is not there is
// ErrNotFound. A second retry before the first was tried is refused too, unless it
// names another card and no worker has the invoice yet: of two operators who ask
// at once, one is told.
func Retry(ctx context.Context, tx pgx.Tx, r RetryRequest, limits CardLimits, holidays Holidays) (Retried, error) {
	id, err := uuid.Parse(r.Invoice)
	if err != nil {
		return Retried{}, fmt.Errorf("invoice %q: %w", clip(r.Invoice), ErrNotFound)
	}
	instance, err := LoadInstance(ctx, tx)
	if err != nil {
		return Retried{}, err
	}
	var now retryStanding
	switch err := tx.QueryRow(ctx, sqlRetryLock, id).Scan(&now.status, &now.reason, &now.trigger, &now.claimed, &now.subscription); {
	case errors.Is(err, pgx.ErrNoRows):
		return Retried{}, fmt.Errorf("invoice %s: %w", id, ErrNotFound)
	case err != nil:
		return Retried{}, fmt.Errorf("retry invoice %s: %w", id, err)
	}
	// Read behind the lock: nothing can be armed or settled until tx ends.
	found, err := Load(ctx, tx, []uuid.UUID{id}, r.Now)
	if err != nil {
		return Retried{}, err
	}
	c := found[id]
	if c == nil {
		return Retried{}, fmt.Errorf("invoice %s has no payment intent on record", id)
	}
	if err := c.mayRetry(instance, now, r); err != nil {
		return Retried{}, err
	}
	card, err := c.retryCard(r, limits, holidays)
	if err != nil {
		return Retried{}, err
	}
	if err := c.mayRetryToday(ctx, tx, r.Now); err != nil {
		return Retried{}, err
	}
	if _, err := tx.Exec(ctx, sqlRetry, id, r.Now, card.ID); err != nil {
		return Retried{}, fmt.Errorf("retry invoice %s: %w", id, err)
	}
	if err := Audit(ctx, tx, AuditEntry{
		Actor: r.Actor, Action: "retry_invoice", Subject: id.String(), Reason: r.Reason,
		Before: fields{"next_attempt_at": c.NextAttemptAt.UTC(), "trigger": now.trigger, "waiting_for": c.WaitingFor, "attempt_count": c.AttemptCount},
		After:  fields{"next_attempt_at": r.Now.UTC(), "trigger": TriggerManual, "waiting_for": WaitingForSchedule, "payment_method": card.ProviderID},
	}); err != nil {
		return Retried{}, err
	}
	return Retried{
		Invoice: id.String(), Subscription: c.SubscriptionNo, PeriodNo: c.PeriodNo, AmountMinor: c.Amount.Minor, Currency: c.Amount.Currency,
		PaymentMethod: card.ProviderID, NextAttemptAt: r.Now.UTC(),
	}, nil
}

// retryStanding is what is true of the invoice when its row is locked.
type retryStanding struct {
	status, reason string
	trigger        Trigger
	claimed        bool
	subscription   string // its status
}

// mayRetry says why the invoice may not be attempted, whatever the card.
func (c *Collection) mayRetry(instance Instance, now retryStanding, r RetryRequest) error {
	if err := instance.mayRetry(); err != nil {
		return err
	}
	switch {
	case now.status == InvoiceReview:
		return refusedAs(RefusalReview, "the invoice is in review: %s; what happened must be settled first", now.reason)
	case now.status != InvoiceOpen:
		return refusedAs(RefusalNotOpen, "the invoice is %s, only an open one is charged", now.status)
	case c.Open != nil && c.Open.State == AttemptNeedsAction:
		return refusedAs(RefusalCustomer, "the customer has to confirm the attempt of %s first; until then another could charge twice", rfc3339(c.Open.ArmedAt))
	case c.Open != nil:
		return refusedAs(RefusalInFlight, "the outcome of the attempt of %s is not known yet; it is reconciled first, the next look is at %s",
			rfc3339(c.Open.ArmedAt), rfc3339(c.NextAttemptAt))
	case c.WaitingFor == WaitingForProvider:
		return refusedAs(RefusalInFlight, "the provider has not told the outcome yet; the next look is at %s", rfc3339(c.NextAttemptAt))
	case c.IntentState != IntentCreating && c.IntentState != IntentReady:
		return refusedAs(RefusalInFlight, "its payment intent is %s; what happened must be settled first", c.IntentState)
	case c.HeldUntil.After(r.Now):
		return refusedAs(RefusalCustomer, "the customer has the payment page open until %s; it passes by itself", rfc3339(c.HeldUntil))
	case now.subscription == SubscriptionPaused:
		return refusedAs(RefusalPaused, "subscription %s is paused; resume it first", c.SubscriptionNo)
	}
	return c.mayRetryAgain(now, r)
}

// mayRetry says why nothing at all may be retried. The provider's block passes by
// itself, and a retry waits for it.
func (i Instance) mayRetry() error {
	switch {
	case i.Frozen:
		return refusedAs(RefusalFrozen, "charging is frozen: %s; retry when singil unfreeze has let it go on", i.FrozenReason)
	case i.BreakerOpen:
		return refusedAs(RefusalBreaker, "the breaker is open, nothing is charged: %s; mend that, then singil unfreeze, then retry", i.BreakerReason)
	}
	return nil
}

// mayRetryAgain says whether a retry that was asked for is still to be tried.
func (c *Collection) mayRetryAgain(now retryStanding, r RetryRequest) error {
	waits := now.trigger == TriggerManual && c.ChosenMethod != uuid.Nil && (now.claimed || !c.NextAttemptAt.After(r.Now))
	if !waits {
		return nil
	}
	card := c.card(c.ChosenMethod.String()).ProviderID
	switch {
	case now.claimed:
		return refusedAs(RefusalEnqueued, "a retry with %s was asked for already, and a worker has it: look at the invoice in a minute", card)
	case r.PaymentMethod == "" || r.PaymentMethod == card:
		return refusedAs(RefusalEnqueued, "a retry with %s was asked for already, and waits for the next sweep: look at the invoice in a minute", card)
	}
	return nil
}

// mayRetryToday refuses what the day's budget does not cover: it would only be
// held back when it is tried.
func (c *Collection) mayRetryToday(ctx context.Context, q Querier, now time.Time) error {
	left, err := BudgetLeft(ctx, q, now)
	if err != nil {
		return err
	}
	if left.LeftCount < 1 || left.LeftMinor < c.Amount.Minor {
		return refusedAs(RefusalBudget, "the day's budget has %d charges and %s left, and this is %s; retry it after %s, when a new day begins in UTC",
			left.LeftCount, Money{left.LeftMinor, c.Amount.Currency}.Display(), c.Amount.Display(), rfc3339(now.UTC().Truncate(24*time.Hour).Add(24*time.Hour)))
	}
	return nil
}

// retryCard is the card to charge, past the guards of every attempt.
func (c *Collection) retryCard(r RetryRequest, limits CardLimits, holidays Holidays) (Card, error) {
	c.Trigger, c.ChosenMethod = TriggerManual, uuid.Nil
	if r.PaymentMethod != "" {
		zone, err := LoadZone(c.TimeZone)
		if err != nil {
			return Card{}, fmt.Errorf("time zone of subscription %s: %w", c.SubscriptionNo, err)
		}
		var named *Card
		for i := range c.Cards {
			if c.Cards[i].ProviderID == r.PaymentMethod {
				named = &c.Cards[i]
			}
		}
		switch {
		case named == nil:
			return Card{}, refusedAs(RefusalNoCard, "payment method %s is none of this customer's; name one that is, or none", clip(r.PaymentMethod))
		case named.Status == "blocked":
			return Card{}, refusedAs(RefusalHardDecline, "payment method %s is blocked: %s; take another", named.ProviderID, named.Blocked)
		case named.Status != "active":
			return Card{}, refusedAs(RefusalNoCard, "payment method %s is %s; take another", named.ProviderID, named.Status)
		case named.saved().Expired(r.Now, zone):
			return Card{}, refusedAs(RefusalNoCard, "payment method %s expired %02d/%d; take another", named.ProviderID, named.ExpMonth, named.ExpYear)
		}
		c.ChosenMethod = named.ID
	}
	choice, err := c.Choose(r.Now, limits, holidays)
	if err != nil {
		return Card{}, err
	}
	if d := choice.Decision; d != nil {
		if d.Action == DunningActionHold {
			return Card{}, refusedAs(RefusalNetworkLimit, "%s; possible again at %s", d.Reason, rfc3339(d.At))
		}
		return Card{}, refusedAs(c.noCard(r.Now), "no card can be charged: %s; the customer has to save another, or to pay it themselves", d.Reason)
	}
	return choice.Card, nil
}

// noCard is why none of the cards may be charged at all.
func (c *Collection) noCard(now time.Time) RefusalKind {
	zone, err := LoadZone(c.TimeZone)
	if err != nil {
		return RefusalNoCard
	}
	if _, usable := c.facts().Card(now, zone); usable {
		return RefusalNetworkLimit // for good: a limit that does not pass
	}
	for _, card := range c.Cards {
		if card.Status == "blocked" {
			return RefusalHardDecline
		}
	}
	return RefusalNoCard
}

const sqlLatestAttempt = `SELECT max(armed_at) FROM singil.attempts`

// MoveClock sets the virtual clock. Business time does not go back: a dunning
// day that was counted would be counted again, and a period reopened. Of act the
// actor and the reason count, which may be empty.
func MoveClock(ctx context.Context, tx pgx.Tx, to time.Time, act Act) error {
	instance, err := LoadInstance(ctx, tx)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return refused("this database belongs to no installation yet; start singil run once")
	case err != nil:
		return err
	case instance.Livemode:
		return refused("there is no virtual clock with live money")
	case to.Before(instance.VirtualNow):
		return refused("the clock stands at %s and does not go back", rfc3339(instance.VirtualNow))
	}
	var latest *time.Time
	if err := tx.QueryRow(ctx, sqlLatestAttempt).Scan(&latest); err != nil {
		return fmt.Errorf("look for the latest attempt: %w", err)
	}
	if latest != nil && to.Before(*latest) {
		return refused("there is an attempt of %s, and the clock does not go behind it", rfc3339(*latest))
	}
	if err := SetVirtualClock(ctx, tx, to); err != nil {
		return err
	}
	before := fields{}
	if !instance.VirtualNow.IsZero() {
		before["now"] = instance.VirtualNow.UTC()
	}
	return Audit(ctx, tx, AuditEntry{Actor: act.Actor, Action: "set_clock", Subject: "instance", Reason: act.Reason, Before: before, After: fields{"now": to.UTC()}})
}
