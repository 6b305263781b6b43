package billing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// WhyReason is one thing that has a say in when a subscription is charged next.
type WhyReason struct {
	// Kind is one word, to filter by: frozen, anchor, clamp, dunning and so on. Of
	// periods that get no invoice it is their SkipReason.
	Kind string `json:"kind"`
	Text string `json:"text"`
	// Holds: nothing is charged as long as this is so.
	Holds bool `json:"holds"`
}

// Why is why the next charge of a subscription is when it is.
type Why struct {
	Subscription string      `json:"subscription"`
	Status       string      `json:"status"`
	Now          Stamp       `json:"now"`
	Next         Stamp       `json:"next"` // of a charge; null: none is to come
	Reasons      []WhyReason `json:"reasons"`
}

const sqlWhySubscription = sqlDueColumns + `
WHERE s.id = $1`

const sqlWhyMore = `
SELECT COALESCE(s.parked_reason, ''), COALESCE(i.recovery_needed, '')
FROM singil.subscriptions s
LEFT JOIN singil.instance i ON true
WHERE s.id = $1`

const sqlWhyInvoices = `
SELECT i.id, i.status, COALESCE(i.reason, ''), i.attempt_trigger, i.claimed, s.status, COALESCE(i.decline_code, '')
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.subscription_id = $1 AND i.status IN ('open', 'review')
ORDER BY i.period_no`

// Explain says why the next charge of a subscription is when it is, by the rules
// that will decide; ErrNotFound. Give it a transaction with one snapshot.
func Explain(ctx context.Context, q Querier, name string, realNow time.Time, limits CardLimits, holidays Holidays) (Why, error) {
	id, err := FindSubscription(ctx, q, name)
	if err != nil {
		return Why{}, err
	}
	e := explanation{limits: limits, holidays: holidays}
	if err := e.load(ctx, q, id, realNow); err != nil {
		return Why{}, fmt.Errorf("explain subscription %q: %w", clip(name), err)
	}
	e.everything(realNow)
	for _, invoice := range e.invoices {
		if c := e.found[invoice.id]; c != nil {
			e.invoice(c, invoice)
		}
	}
	e.period()
	return e.Why, nil
}

// explanation is one Explain on its way.
type explanation struct {
	Why
	now      time.Time
	limits   CardLimits
	holidays Holidays

	instance         Instance
	budget           Budget
	s                *dueSubscription
	parked, recovery string
	invoices         []retryCandidate
	found            map[uuid.UUID]*Collection
	cards            []Card
	policy           []byte
}

func (e *explanation) load(ctx context.Context, q Querier, id uuid.UUID, realNow time.Time) (err error) {
	if e.instance, err = LoadInstance(ctx, q); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	e.now = e.instance.Now(realNow)
	if err == nil { // before the first singil run there is no budget
		if e.budget, err = BudgetLeft(ctx, q, e.now); err != nil {
			return err
		}
	}
	batch := &pgx.Batch{}
	batch.Queue(sqlWhySubscription, id).Query(func(rows pgx.Rows) (err error) {
		e.s, err = pgx.CollectExactlyOneRow(rows, scanDue)
		return err
	})
	batch.Queue(sqlWhyMore, id).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&e.parked, &e.recovery}, func() error { return nil })
		return err
	})
	batch.Queue(sqlWhyInvoices, id).Query(func(rows pgx.Rows) error {
		var c retryCandidate
		now := &c.standing
		_, err := pgx.ForEachRow(rows, []any{&c.id, &now.status, &now.reason, &now.trigger, &now.claimed, &now.subscription, &c.decline}, func() error {
			e.invoices = append(e.invoices, c)
			return nil
		})
		return err
	})
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	ids := make([]uuid.UUID, len(e.invoices))
	for i, invoice := range e.invoices {
		ids[i] = invoice.id
	}
	if e.found, err = Load(ctx, q, ids, e.now); err != nil {
		return err
	}
	cards, policies, err := loadCards(ctx, q, []*dueSubscription{e.s}, e.now)
	e.cards, e.policy = cards[e.s.CustomerID], policies[e.s.ID]
	e.Subscription, e.Status, e.Now, e.Reasons = e.s.ExternalID, e.s.Status, Stamp{e.now.UTC()}, []WhyReason{}
	return err
}

func (e *explanation) say(kind string, holds bool, format string, args ...any) {
	e.Reasons = append(e.Reasons, WhyReason{Kind: kind, Text: fmt.Sprintf(format, args...), Holds: holds})
}

// at takes the earliest time of a charge.
func (e *explanation) at(t time.Time) {
	if !t.IsZero() && (e.Next.IsZero() || t.Before(e.Next.Time)) {
		e.Next = Stamp{t.UTC()}
	}
}

// everything is what holds all charging.
func (e *explanation) everything(realNow time.Time) {
	if e.recovery != "" {
		e.say("recovery", true, "a recovery is needed before anything is charged: %s; run singil recover", e.recovery)
	}
	if e.instance.Frozen {
		e.say("frozen", true, "charging is frozen: %s; singil unfreeze lets it go on", e.instance.FrozenReason)
	}
	if e.instance.BreakerOpen {
		e.say("breaker_open", true, "the breaker is open: %s; mend that, then singil unfreeze", e.instance.BreakerReason)
	}
	if realNow.Before(e.instance.BlockedUntil) {
		e.say("blocked", true, "the provider wants us to wait until %s; it passes by itself", rfc3339(e.instance.BlockedUntil))
	}
	if e.instance.Environment != "" && (e.budget.LeftCount < 1 || e.budget.LeftMinor < e.s.Amount.Minor) {
		e.say("budget", true, "the day's budget has %d charges and %s left; a new day begins at midnight UTC",
			e.budget.LeftCount, Money{e.budget.LeftMinor, e.s.Amount.Currency}.Display())
	}
}

// invoice is one that is not paid yet.
func (e *explanation) invoice(c *Collection, i retryCandidate) {
	what := fmt.Sprintf("period %d (%s, invoice %s)", c.PeriodNo, c.Amount.Display(), c.InvoiceID)
	switch {
	case i.standing.status == InvoiceReview:
		e.say("review", true, "%s waits for a human: %s", what, i.standing.reason)
		return
	case c.Open != nil && c.Open.State == AttemptNeedsAction:
		e.say("customer", true, "%s: the customer has to authorise the attempt of %s; it is looked at again at %s", what, rfc3339(c.Open.ArmedAt), rfc3339(c.NextAttemptAt))
		return
	case c.Open != nil, c.WaitingFor == WaitingForProvider:
		e.say("outcome", true, "%s: the outcome of the last attempt is not known; PayMongo is asked at %s, or now with singil reconcile %s --reason ...", what, rfc3339(c.NextAttemptAt), c.InvoiceID)
		return
	case c.HeldUntil.After(e.now):
		e.at(c.HeldUntil)
		e.say("held", true, "%s: the customer has the payment page open; nothing is attempted before %s, and then it goes on by itself", what, rfc3339(c.HeldUntil))
		return
	case e.s.Status == SubscriptionPaused:
		e.say("paused", true, "%s waits until the subscription is resumed", what)
		return
	}
	e.at(c.NextAttemptAt)
	switch {
	case i.standing.claimed:
		e.say("enqueued", false, "%s: a worker has it, or had it: if nothing comes of it, it is enqueued again at %s", what, rfc3339(c.NextAttemptAt))
	case i.standing.trigger == TriggerManual:
		e.say("enqueued", false, "%s: a retry by hand waits for the next sweep", what)
	case c.WaitingFor == WaitingForCustomer:
		e.say("customer", true, "%s: %s; it is looked at again at %s", what, i.standing.reason, rfc3339(c.NextAttemptAt))
		return
	case len(c.Attempts) > 0:
		e.say("dunning", false, "%s: %d attempts so far, the last at %s was %s%s; the next is at %s: %s", what, len(c.Attempts),
			rfc3339(c.Attempts[len(c.Attempts)-1].ArmedAt), c.Attempts[len(c.Attempts)-1].State, inBrackets(i.decline), rfc3339(c.NextAttemptAt), i.standing.reason)
	case c.NextAttemptAt.After(c.DueAt) && c.NextAttemptAt.After(e.now):
		e.say("catch_up", false, "%s was due at %s and is charged at %s%s", what, rfc3339(c.DueAt), rfc3339(c.NextAttemptAt), because(i.standing.reason, "a customer is charged for one missed period a day"))
	default:
		e.say("invoice", false, "%s is open since %s and charged at the next sweep%s", what, rfc3339(c.DueAt), because(i.standing.reason, ""))
	}
	e.card(c, maxOf(c.NextAttemptAt, e.now))
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func because(reason, otherwise string) string {
	switch {
	case reason != "":
		return ": " + reason
	case otherwise != "":
		return ": " + otherwise
	}
	return ""
}

func maxOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// card says which card would be charged, or what keeps all of them from it.
func (e *explanation) card(c *Collection, at time.Time) {
	choice, err := c.Choose(at, e.limits, e.holidays)
	switch {
	case err != nil:
		e.say("no_card", true, "it cannot be charged: %s", err)
	case choice.Decision == nil:
		e.say("card", false, "with %s%s", choice.Card.ProviderID, inBrackets(strings.TrimSpace(choice.Card.Brand+" "+choice.Card.Last4)))
	case choice.Decision.Action == DunningActionHold:
		e.say("network_limit", true, "%s; possible again at %s", choice.Decision.Reason, rfc3339(choice.Decision.At))
	default:
		kind := string(RefusalNoCard)
		if c.noCard(at) == RefusalNetworkLimit {
			kind = string(RefusalNetworkLimit)
		}
		e.say(kind, true, "%s", choice.Decision.Reason)
	}
}

// period is the next one.
func (e *explanation) period() {
	s := e.s
	switch {
	case s.Status == SubscriptionCancelled:
		e.say("cancelled", true, "the subscription is cancelled: no period begins any more")
		return
	case s.Status == SubscriptionPaused:
		e.say("paused", true, "the subscription is paused: no period that begins until singil subscriptions resume is billed")
		return
	case e.parked != "":
		e.say("parked", true, "the subscription is parked: %s; mend that, then singil subscriptions unpark %s", e.parked, s.ExternalID)
		return
	}
	before := s.Amount
	plan, err := s.planDue(e.now)
	if err != nil {
		e.say("parked", true, "the next sweep parks it: %s", err)
		return
	}
	if plan.State == PlanStateAsk {
		e.say("missed", true, "%d periods are due at once and the plan's catch-up policy is ask: the next sweep parks it; then singil subscriptions unpark --missed", plan.Missed)
		return
	}
	if s.NextPlan != nil {
		e.say("plan_change", false, "another plan begins with period %d: %s instead of %s", s.NextPeriodNo, s.Amount.Display(), before.Display())
	}
	for _, skip := range plan.Skipped {
		e.say(string(skip.Reason), false, "periods %d to %d get no invoice: %s", skip.First+s.AnchorNo, skip.Last+s.AnchorNo, skip.Reason)
	}
	if len(plan.Open) > 0 {
		first := plan.Open[0]
		e.at(first.ChargeNotBefore)
		e.anchor(first.No, first.Start)
		if plan.CatchUp {
			e.say("catch_up", false, "%d periods are due, the oldest since %s; they are charged from %s on, one a day", len(plan.Open), rfc3339(first.Start), rfc3339(first.ChargeNotBefore))
		} else {
			e.say("due", false, "period %d has begun at %s: the next sweep opens it", first.No+s.AnchorNo, rfc3339(first.Start))
		}
		return
	}
	switch {
	case plan.State == PlanStateEnded:
		e.say("ends", true, "it ends at %s, before another period begins", rfc3339(orZero(s.CancelAt)))
		return
	case s.TrialEnd != nil && s.TrialEnd.After(e.now):
		e.say("trial", false, "the trial ends at %s; a period that begins within it is free", rfc3339(*s.TrialEnd))
	case s.BillFrom.After(e.now):
		e.say("bill_from", false, "it is billed from %s on; what begins earlier was billed elsewhere", rfc3339(s.BillFrom))
	}
	e.at(plan.NextDueAt)
	e.anchor(plan.NextPeriodNo, plan.NextDueAt)
	if s.CancelAt != nil {
		e.say("ends", false, "it ends at %s", rfc3339(*s.CancelAt))
	}
	c := &Collection{Cards: e.cards, DueAt: plan.NextDueAt, Trigger: TriggerSchedule, TimeZone: s.TimeZone, Dunning: e.policy, SubscriptionNo: s.ExternalID}
	e.card(c, maxOf(plan.NextDueAt, e.now))
}

// anchor says how the boundary is counted, and where the calendar bends it. no
// counts from the anchor.
func (e *explanation) anchor(no int, start time.Time) {
	a := e.s.billable.Schedule.Anchor
	anchor, begins := wallOf(a.At, a.Zone), wallOf(start, a.Zone)
	e.say("anchor", false, "period %d begins at %s: %d times %d %s after the anchor %s, counted in %s", no+e.s.AnchorNo,
		start.In(a.Zone).Format(time.RFC3339), no, e.s.Interval.Count, e.s.Interval.Unit, a.At.In(a.Zone).Format(time.RFC3339), e.s.TimeZone)
	monthly := e.s.Interval.months() > 0
	if monthly && anchor.Day() != begins.Day() {
		e.say("clamp", false, "the anchor is on day %d, which %s %d does not have: it becomes the last day, %d; the month after is counted from the anchor again",
			anchor.Day(), begins.Month(), begins.Year(), begins.Day())
	}
	if anchor.Hour() != begins.Hour() || anchor.Minute() != begins.Minute() {
		e.say("zone", false, "%s has no %s on that day: clocks change, and the offset from before counts", e.s.TimeZone, anchor.Format("15:04"))
	}
}
