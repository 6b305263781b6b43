package billing

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// EndAction is what becomes of a subscription whose invoice dunning could not collect.
type EndAction string

// The end actions.
const (
	EndActionCancel       EndAction = "cancel"
	EndActionMarkUnpaid   EndAction = "mark_unpaid"
	EndActionLeavePastDue EndAction = "leave_past_due"
)

// DunningPolicy says when a declined invoice is attempted again, as data on a plan.
//
// Days are counted on the calendar of the subscription's zone, from the first
// attempt that the customer's card declined. Attempts that never reached a card
// do not use up days: an outage of ours or PayMongo's is not the customer's.
type DunningPolicy struct {
	// OffsetsDays are the days after that first decline, in rising order. Empty
	// means that the first decline is the end.
	OffsetsDays []int `json:"offsets_days"`
	// Hour is the local hour of an attempt, 0 to 23.
	Hour int `json:"hour"`
	// SpreadMinutes spreads the attempts of an hour, each invoice at a minute of
	// its own, so that not all of them arrive at an issuer at once. 0 to 59.
	SpreadMinutes int `json:"spread_minutes"`
	// CustomerDays is how long a customer who has to act is waited for at least.
	CustomerDays int `json:"customer_days"`
	// End is what happens after the last attempt.
	End EndAction `json:"end"`
	// Overrides are for single declines. The key is a decline code, or "unlisted"
	// for codes of no table, "payday" for those that mean no money, or the class
	// "soft" or "gateway"; the first that fits in this order counts.
	Overrides map[string]DunningOverride `json:"overrides"`
}

// DunningOverride replaces the schedule for some declines. With no field set the
// policy's own days hold.
type DunningOverride struct {
	// OffsetsDays in place of the policy's.
	OffsetsDays []int `json:"offsets_days,omitempty"`
	// Paydays is a number of paydays to attempt on, in place of days.
	Paydays int `json:"paydays,omitempty"`
	// DelaysMinutes are pauses before the days: after the first such decline the
	// first, and so on while they come in a row.
	DelaysMinutes []int `json:"delays_minutes,omitempty"`
	// Cap in place of the decline table's.
	Cap int `json:"cap,omitempty"`
}

// Keys of Overrides that are no decline codes.
const (
	overrideUnlisted = "unlisted"
	overridePayday   = string(AdvicePayday)
	overrideSoft     = string(DeclineClassSoft)
	overrideGateway  = string(DeclineClassGateway)
)

// DefaultDunningPolicy attempts again after 1, 3, 5 and 7 days; after a lack of
// money on the next two paydays, which is about a month; after a fault of the
// gateway within minutes to hours first.
func DefaultDunningPolicy() DunningPolicy {
	return DunningPolicy{
		OffsetsDays:   []int{1, 3, 5, 7},
		Hour:          9,
		SpreadMinutes: 30,
		CustomerDays:  3,
		End:           EndActionCancel,
		Overrides: map[string]DunningOverride{
			overridePayday:  {Paydays: 2},
			overrideGateway: {DelaysMinutes: []int{5, 30, 120, 360}},
		},
	}
}

// FieldError is a refused value and where it stands.
type FieldError struct {
	Field   string // as in JSON, "offsets_days[2]"
	Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// ParseDunningPolicy reads the JSON of a policy. What is missing is as in
// DefaultDunningPolicy; what is not known is refused with a *FieldError.
func ParseDunningPolicy(data []byte) (DunningPolicy, error) {
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' {
		return DunningPolicy{}, &FieldError{"dunning", "is not a JSON object"}
	}
	p := DefaultDunningPolicy()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return DunningPolicy{}, policyFieldError(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return DunningPolicy{}, &FieldError{"dunning", "has something after its end"}
	}
	if err := p.Validate(); err != nil {
		return DunningPolicy{}, err
	}
	return p, nil
}

// policyFieldError turns what encoding/json says into the name of a field.
func policyFieldError(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return &FieldError{cmp.Or(wrong.Field, "dunning"), "is a " + wrong.Value + ", which does not fit"}
	}
	if name, found := strings.CutPrefix(err.Error(), "json: unknown field "); found {
		return &FieldError{strings.Trim(clip(name), `"`), "is not a field of a dunning policy"}
	}
	return &FieldError{"dunning", "is not valid JSON: " + clip(err.Error())}
}

// Bounds of a policy: about a quarter of a year, and few enough attempts that
// CardLimits is a net below it and not a part of it.
const (
	maxDunningSteps = 10
	maxOffsetDays   = 90
	maxPaydays      = 6
	maxDelayMinutes = 48 * 60
)

// Validate names the first field that is wrong, in a *FieldError.
func (p DunningPolicy) Validate() error {
	if err := validRising("offsets_days", p.OffsetsDays, maxOffsetDays); err != nil {
		return err
	}
	for _, number := range []struct {
		field     string
		got, most int
	}{
		{"hour", p.Hour, 23},
		{"spread_minutes", p.SpreadMinutes, 59},
		{"customer_days", p.CustomerDays, maxOffsetDays},
	} {
		if err := within(number.field, number.got, number.most); err != nil {
			return err
		}
	}
	switch p.End {
	case EndActionCancel, EndActionMarkUnpaid, EndActionLeavePastDue:
	default:
		return &FieldError{"end", fmt.Sprintf("%q is not one of cancel, mark_unpaid, leave_past_due", clip(string(p.End)))}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Overrides)) {
		if err := p.Overrides[key].validate(key); err != nil {
			return err
		}
	}
	return nil
}

func (o DunningOverride) validate(key string) error {
	field := "overrides." + clip(key)
	switch d := Classify(DeclineCode(key)); {
	case key == overrideUnlisted, key == overridePayday, key == overrideSoft, key == overrideGateway:
	case !d.Listed:
		return &FieldError{field, "is neither a listed decline code nor unlisted, payday, soft or gateway"}
	case d.Class == DeclineClassHard, d.Class == DeclineClassAction, d.Class == DeclineClassConfig:
		return &FieldError{field, fmt.Sprintf("is a decline of class %s, which is never retried by itself", d.Class)}
	}
	if err := validRising(field+".offsets_days", o.OffsetsDays, maxOffsetDays); err != nil {
		return err
	}
	if err := within(field+".paydays", o.Paydays, maxPaydays); err != nil {
		return err
	}
	if o.Paydays > 0 && len(o.OffsetsDays) > 0 {
		return &FieldError{field, "has both paydays and offsets_days"}
	}
	if len(o.DelaysMinutes) > maxDunningSteps {
		return &FieldError{field + ".delays_minutes", fmt.Sprintf("has %d entries, at most %d", len(o.DelaysMinutes), maxDunningSteps)}
	}
	for i, minutes := range o.DelaysMinutes {
		if minutes < 1 || minutes > maxDelayMinutes {
			return &FieldError{fmt.Sprintf("%s.delays_minutes[%d]", field, i), fmt.Sprintf("%d is not within 1 to %d", minutes, maxDelayMinutes)}
		}
	}
	return within(field+".cap", o.Cap, maxDunningSteps)
}

func validRising(field string, days []int, most int) error {
	if len(days) > maxDunningSteps {
		return &FieldError{field, fmt.Sprintf("has %d entries, at most %d", len(days), maxDunningSteps)}
	}
	before := 0
	for i, day := range days {
		if day <= before || day > most {
			return &FieldError{fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%d is not within %d to %d", day, before+1, most)}
		}
		before = day
	}
	return nil
}

func within(field string, got, most int) error {
	if got < 0 || got > most {
		return &FieldError{field, fmt.Sprintf("%d is not within 0 to %d", got, most)}
	}
	return nil
}

// SavedCard is a payment method as far as dunning cares.
type SavedCard struct {
	ID string
	// HardDeclined means it was declined for good, on this invoice or any other.
	HardDeclined bool
	// Gone means it was deleted, here or at PayMongo.
	Gone bool
	// ExpMonth and ExpYear are what is printed on it, 0 where it is not known.
	ExpMonth time.Month
	ExpYear  int
}

// Expired reports whether the last day of the card's last month is over at t. An
// expiry that is not known is not over.
func (c SavedCard) Expired(t time.Time, zone *time.Location) bool {
	if c.ExpYear == 0 || c.ExpMonth == 0 {
		return false
	}
	local := wallOf(t, zone)
	return local.Year() > c.ExpYear || local.Year() == c.ExpYear && local.Month() > c.ExpMonth
}

// DunningAttempt is an attempt of the invoice in question.
type DunningAttempt struct {
	At     time.Time
	CardID string
	State  AttemptState
	// Code of a declined attempt.
	Code DeclineCode
	// Confirmed means PayMongo was asked after the attempt and shows that no money
	// moved. Without it a code of DeclineClassUnknown may be a payment.
	Confirmed bool
}

// DunningFacts is all that NextAttempt has to know of an invoice.
type DunningFacts struct {
	// InvoiceID gives the invoice its own minute.
	InvoiceID string
	// DueAt is when the invoice was first to be charged.
	DueAt time.Time
	// Attempts are all of the invoice's, oldest first.
	Attempts []DunningAttempt
	// Cards are the customer's, in the order in which they are to be used.
	Cards []SavedCard
}

// Card is the first card that may be charged at t without asking anybody: not
// gone, not expired, not declined for good.
func (f DunningFacts) Card(t time.Time, zone *time.Location) (SavedCard, bool) {
	for _, card := range f.Cards {
		if !card.Gone && !card.HardDeclined && !card.Expired(t, zone) && !f.declinedHard(card.ID) {
			return card, true
		}
	}
	return SavedCard{}, false
}

// declinedHard looks at the attempts too: a card's flag may not be written yet.
func (f DunningFacts) declinedHard(cardID string) bool {
	return slices.ContainsFunc(f.Attempts, func(a DunningAttempt) bool {
		return a.CardID == cardID && a.State == AttemptDeclined && a.decline().Class == DeclineClassHard
	})
}

func (a DunningAttempt) decline() Decline {
	if d := Classify(a.Code); !a.Confirmed {
		return d
	}
	return Classify(a.Code).Confirmed()
}

// DunningAction is what to do about an invoice that is not paid.
type DunningAction string

// The actions.
const (
	DunningActionRetryAt       DunningAction = "retry_at"       // attempt again at At, with DunningFacts.Card of then
	DunningActionNextCard      DunningAction = "next_card"      // attempt at once, with the card CardID
	DunningActionNeedsCustomer DunningAction = "needs_customer" // tell the customer; ask again at At
	DunningActionEnd           DunningAction = "end"            // give up: End tells what becomes of the subscription
	DunningActionHold          DunningAction = "hold"           // attempt nothing; look again at At
	DunningActionReview        DunningAction = "review"         // a human must decide: no attempt before that
)

// Decision is what NextAttempt came to.
type Decision struct {
	Action DunningAction
	// At is never zero: an open invoice always has a next time to be looked at.
	// Of an end it is now.
	At     time.Time
	CardID string    // of DunningActionNextCard
	End    EndAction // of DunningActionEnd
	Cause  EndCause  // of DunningActionEnd
	// Reason is for operators: what happened and what follows from it.
	Reason string
}

// EndCause is why dunning gave an invoice up, in one word.
type EndCause string

// The causes. What the customer was waited for is the cause, not the waiting.
const (
	EndCauseRetries  EndCause = "retries_exhausted"
	EndCauseHard     EndCause = "hard_decline"
	EndCauseNoCard   EndCause = "no_card"
	EndCauseCustomer EndCause = "customer_did_not_act"
)

// EndCauses are all of them.
func EndCauses() []EndCause {
	return []EndCause{EndCauseRetries, EndCauseHard, EndCauseNoCard, EndCauseCustomer}
}

// Pauses that no policy sets.
const (
	// minGap between two attempts that the days of a policy ask for: right after an
	// operator's retry nothing has changed.
	minGap = 8 * time.Hour
	// askAgain is when a held invoice is looked at while PayMongo has to be asked,
	// and holdFor while a human has to do something.
	askAgain = time.Minute
	holdFor  = time.Hour
)

// noEffectDelays are the pauses after attempts that never reached a card. The
// last one repeats: our own trouble must not end a subscription.
var noEffectDelays = []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, time.Hour}

// NextAttempt decides what to do after the last of the attempts, or before the
// first one if there is none. It depends on nothing but its arguments, so asking
// twice gives the same answer, and asking again at the At of a
// DunningActionNeedsCustomer gives its end.
//
// zone is the subscription's. The policy must be valid.
func (p DunningPolicy) NextAttempt(f DunningFacts, now time.Time, zone *time.Location, holidays Holidays) Decision {
	d := dunning{policy: p, facts: f, now: now, zone: zone, holidays: holidays}
	if len(f.Attempts) == 0 {
		if _, found := f.Card(now, zone); !found {
			return d.needsCustomer(f.DueAt, EndCauseNoCard, "no card that could be charged")
		}
		return Decision{Action: DunningActionRetryAt, At: now, Reason: "not attempted yet"}
	}
	d.last = f.Attempts[len(f.Attempts)-1]
	switch d.last.State {
	case AttemptDeclined:
		return d.declined(d.last.decline())
	case AttemptNeedsAction:
		return d.needsCustomer(d.last.At, EndCauseCustomer, "PayMongo wants the customer to authorise the payment")
	case AttemptNoEffect:
		return d.noEffect()
	case AttemptSucceeded:
		return Decision{Action: DunningActionHold, At: now.Add(askAgain), Reason: "the last attempt succeeded"}
	}
	return Decision{Action: DunningActionHold, At: now.Add(askAgain), Reason: "the outcome of the last attempt is not known: ask PayMongo first"}
}

// AttemptNow is for the moment an invoice has come due: it reports whether an
// attempt may be made that nobody asked for. If not, the decision says what to do
// instead, such as to end what a customer was waited for in vain. An attempt that
// the customer or an operator asks for need not ask here.
func (p DunningPolicy) AttemptNow(f DunningFacts, now time.Time, zone *time.Location, holidays Holidays) (Decision, bool) {
	if len(f.Attempts) == 0 {
		d := p.NextAttempt(f, now, zone, holidays)
		return d, d.Action == DunningActionRetryAt
	}
	// What the last attempt led to was decided right after it. Days that have
	// passed since, in an outage, were still promised then.
	last := f.Attempts[len(f.Attempts)-1]
	d := p.NextAttempt(f, last.At, zone, holidays)
	_, found := f.Card(now, zone)
	switch mended := last.State == AttemptDeclined && last.decline().Class == DeclineClassConfig; {
	case d.Action == DunningActionRetryAt, d.Action == DunningActionNextCard, mended:
		if found {
			return d, !d.At.After(now)
		}
	}
	return p.NextAttempt(f, now, zone, holidays), false
}

// dunning is one call of NextAttempt.
type dunning struct {
	policy   DunningPolicy
	facts    DunningFacts
	last     DunningAttempt
	now      time.Time
	zone     *time.Location
	holidays Holidays
}

func (d dunning) declined(decline Decline) Decision {
	what := fmt.Sprintf("%s (%s)", decline.Code, decline.Class)
	if !decline.Listed {
		what = fmt.Sprintf("%q (%s, unlisted)", clip(string(decline.Code)), decline.Class)
	}
	switch decline.Class {
	case DeclineClassConfig:
		return Decision{Action: DunningActionHold, At: d.now.Add(holdFor), Reason: what + ": the merchant's account is set up wrongly, charging must stop until that is mended"}
	case DeclineClassUnknown:
		return Decision{Action: DunningActionHold, At: d.now.Add(askAgain), Reason: what + ": money may have moved, ask PayMongo first"}
	case DeclineClassAction:
		return d.needsCustomer(d.last.At, EndCauseCustomer, what+": its holder must act")
	case DeclineClassHard:
		return d.nextCard(what + ": never this card again")
	}
	if most := d.limit(decline); most > 0 && d.sameDeclines(decline) >= most {
		return d.needsCustomer(d.last.At, EndCauseRetries, fmt.Sprintf("%s: %d times on this card, its holder must act", what, most))
	}
	at, which := d.next(decline)
	if at.IsZero() && decline.Class == DeclineClassGateway {
		return Decision{Action: DunningActionReview, At: d.now.Add(holdFor), Reason: what + ": faults of the gateway used up every attempt, which is not the customer's doing"}
	}
	if at.IsZero() {
		return d.end(EndCauseRetries, what+": no attempt is left")
	}
	if _, found := d.facts.Card(at, d.zone); !found {
		return d.needsCustomer(d.last.At, EndCauseNoCard, what+": no card will be left to charge at "+d.local(at))
	}
	return Decision{Action: DunningActionRetryAt, At: at, Reason: fmt.Sprintf("%s: %s, %s", what, which, d.local(at))}
}

// nextCard skips the dunning days: another card has nothing to do with why the
// last one was refused.
func (d dunning) nextCard(why string) Decision {
	card, found := d.facts.Card(d.now, d.zone)
	if !found {
		return d.needsCustomer(d.last.At, EndCauseHard, why+", and there is no other")
	}
	return Decision{Action: DunningActionNextCard, At: d.now, CardID: card.ID, Reason: why + ", on to the next"}
}

// needsCustomer waits for the customer until the last day of the policy, and
// CustomerDays from since at least. With no days at all nobody is waited for.
func (d dunning) needsCustomer(since time.Time, cause EndCause, why string) Decision {
	days := d.policy.OffsetsDays
	if len(days) == 0 {
		return d.end(cause, why)
	}
	until := d.onDay(d.firstDay().plus(days[len(days)-1]))
	if least := d.onDay(d.dayOf(since).plus(d.policy.CustomerDays)); least.After(until) {
		until = least
	}
	if !until.After(d.now) {
		return d.end(cause, why+"; the customer did nothing in time")
	}
	return Decision{Action: DunningActionNeedsCustomer, At: until, Reason: why + "; waiting for the customer until " + d.local(until)}
}

func (d dunning) end(cause EndCause, why string) Decision {
	return Decision{Action: DunningActionEnd, At: d.now, End: d.policy.End, Cause: cause, Reason: why + ": " + string(d.policy.End)}
}

func (d dunning) noEffect() Decision {
	row := 0
	for _, a := range slices.Backward(d.facts.Attempts) {
		if a.State != AttemptNoEffect {
			break
		}
		row++
	}
	at := d.notBefore(d.last.At.Add(noEffectDelays[min(row, len(noEffectDelays))-1]))
	if _, found := d.facts.Card(at, d.zone); !found {
		return d.needsCustomer(d.last.At, EndCauseNoCard, "the last attempt never reached the card, and there is none left to charge")
	}
	return Decision{Action: DunningActionRetryAt, At: at, Reason: "the last attempt never reached the card"}
}

// next is the time of the next attempt and what to call it, or the zero time if
// there is none.
func (d dunning) next(decline Decline) (time.Time, string) {
	rule := d.rule(decline)
	if row := d.inARow(decline.Class); row <= len(rule.DelaysMinutes) {
		delay := time.Duration(rule.DelaysMinutes[row-1]) * time.Minute
		at := d.last.At.Add(delay + d.spread(delay/5))
		return d.notBefore(at), fmt.Sprintf("attempt %d of %d soon after", row, len(rule.DelaysMinutes))
	}
	if rule.Paydays > 0 {
		return d.nextPayday(rule.Paydays)
	}
	days := d.policy.OffsetsDays
	if len(rule.OffsetsDays) > 0 {
		days = rule.OffsetsDays
	}
	return d.nextDay(days)
}

// nextDay is the first of the days that is still to come. Days that passed during
// an outage are not made up for.
func (d dunning) nextDay(days []int) (time.Time, string) {
	for i, day := range days {
		date := d.firstDay().plus(day)
		at := d.onDay(date)
		if at.After(d.now) && at.Sub(d.last.At) < minGap {
			at = d.onDay(date.plus(1)) // too close: put off, rather than lost
		}
		if at.After(d.now) && at.Sub(d.last.At) >= minGap {
			return at, fmt.Sprintf("day %d (%d of %d)", day, i+1, len(days))
		}
	}
	return time.Time{}, ""
}

// nextPayday is the first of the paydays that is still to come. If the card had no
// money on a payday, the first one is the day after: pay may arrive at noon.
func (d dunning) nextPayday(count int) (time.Time, string) {
	date := d.firstDay()
	onPayday := d.holidays.nextPayday(date.plus(-1)) == date
	for i := range count {
		what := "payday"
		if i == 0 && onPayday {
			date, what = date.plus(1), "the day after payday"
		} else {
			date = d.holidays.nextPayday(date)
		}
		if at := d.onDay(date); at.After(d.now) && at.Sub(d.last.At) >= minGap {
			return at, fmt.Sprintf("%s (%d of %d)", what, i+1, count)
		}
	}
	return time.Time{}, ""
}

// rule is the override for the decline, or the zero one.
func (d dunning) rule(decline Decline) DunningOverride {
	keys := []string{string(decline.Code)}
	if !decline.Listed {
		// Its own code is a stranger's text: it must not hit upon a key.
		keys = []string{overrideUnlisted}
	}
	if decline.Advice == AdvicePayday {
		keys = append(keys, overridePayday)
	}
	for _, key := range append(keys, string(decline.Class)) {
		if rule, found := d.policy.Overrides[key]; found {
			return rule
		}
	}
	return DunningOverride{}
}

func (d dunning) limit(decline Decline) int {
	if most := d.rule(decline).Cap; most > 0 {
		return most
	}
	return decline.Cap
}

// sameDeclines counts the attempts on the last card that ended as the last one
// did. Unlisted codes count as one: a refusal worded anew each time is still one.
func (d dunning) sameDeclines(decline Decline) int {
	count := 0
	for _, a := range d.facts.Attempts {
		if a.State == AttemptDeclined && a.CardID == d.last.CardID && a.Code.Label() == decline.Code.Label() {
			count++
		}
	}
	return count
}

// inARow counts the latest attempts that were declined with the class.
func (d dunning) inARow(class DeclineClass) int {
	row := 0
	for _, a := range slices.Backward(d.facts.Attempts) {
		if a.State != AttemptDeclined || a.decline().Class != class {
			break
		}
		row++
	}
	return row
}

// firstDay is the day of the first attempt that the customer's side refused. A
// fault of the gateway or of ours does not start the clock; if there was nothing
// else, the day the invoice was due does.
func (d dunning) firstDay() civilDate {
	for _, a := range d.facts.Attempts {
		if a.State == AttemptNeedsAction {
			return d.dayOf(a.At)
		}
		if a.State != AttemptDeclined {
			continue
		}
		switch a.decline().Class {
		case DeclineClassSoft, DeclineClassHard, DeclineClassAction:
			return d.dayOf(a.At)
		}
	}
	return d.dayOf(d.facts.DueAt)
}

func (d dunning) dayOf(t time.Time) civilDate { return dateOf(wallOf(t, d.zone)) }

// onDay is the invoice's own minute of the policy's hour, on a day.
func (d dunning) onDay(date civilDate) time.Time {
	minute := d.spread(time.Duration(d.policy.SpreadMinutes)*time.Minute) / time.Minute
	return resolve(date.at(d.policy.Hour, int(minute)), d.zone)
}

// spread is a duration from 0 to most, always the same for an invoice.
func (d dunning) spread(most time.Duration) time.Duration {
	hash := fnv.New64a()
	hash.Write([]byte(d.facts.InvoiceID))
	return time.Duration(hash.Sum64() % uint64(most/time.Minute+1) * uint64(time.Minute))
}

func (d dunning) notBefore(at time.Time) time.Time {
	if at.Before(d.now) {
		return d.now
	}
	return at
}

func (d dunning) local(t time.Time) string {
	return t.In(d.zone).Format("Mon 2 Jan 2006 15:04 ") + d.zone.String()
}
