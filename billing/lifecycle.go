package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrNotFound means that there is no such row.
var ErrNotFound = errors.New("not found")

// RefusedError is an act that this state does not allow. It says why, and what
// to do.
type RefusedError struct {
	Reason string
	Kind   RefusalKind // of a retry, or of the last card; else empty
}

func (e *RefusedError) Error() string { return e.Reason }

func refused(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// Act is who wants something done, why, and at which business time.
type Act struct {
	Actor  string
	Reason string
	Now    time.Time
}

// Cancellation says when a subscription ends.
type Cancellation string

// The cancellations.
const (
	CancelNow         Cancellation = "now"
	CancelAtPeriodEnd Cancellation = "period_end"
)

const sqlLifecycleLock = `
SELECT s.id, s.customer_id, s.external_id, s.status, s.quantity, s.currency, s.interval_unit, s.interval_count, s.anchor_at, s.anchor_no, s.time_zone,
       s.next_period_no, s.next_due_at, s.pauses::text, s.trial_end, s.cancel_at, COALESCE(s.parked_reason, ''), s.plan_id, s.next_plan_id,
       s.bill_from, s.catch_up, s.catch_up_once
FROM singil.subscriptions s
WHERE s.id = $1
FOR NO KEY UPDATE`

// lifecycle is a locked subscription.
type lifecycle struct {
	ID, Customer uuid.UUID
	ExternalID   string
	Status       string
	Quantity     int64
	Currency     Currency
	Interval     Interval
	AnchorAt     time.Time
	AnchorNo     int
	Zone         string
	NextPeriodNo int
	NextDueAt    *time.Time
	Pauses       []Pause
	TrialEnd     *time.Time
	CancelAt     *time.Time
	Parked       string
	Plan         uuid.UUID
	NextPlan     *uuid.UUID
	BillFrom     time.Time
	CatchUp      CatchUp
	CatchUpOnce  *CatchUp
}

func lockSubscription(ctx context.Context, tx pgx.Tx, id uuid.UUID) (*lifecycle, error) {
	var s lifecycle
	var pauses string
	err := tx.QueryRow(ctx, sqlLifecycleLock, id).Scan(&s.ID, &s.Customer, &s.ExternalID, &s.Status, &s.Quantity, &s.Currency, &s.Interval.Unit, &s.Interval.Count,
		&s.AnchorAt, &s.AnchorNo, &s.Zone, &s.NextPeriodNo, &s.NextDueAt, &pauses, &s.TrialEnd, &s.CancelAt, &s.Parked, &s.Plan, &s.NextPlan,
		&s.BillFrom, &s.CatchUp, &s.CatchUpOnce)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("subscription %s: %w", id, ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("lock subscription %s: %w", id, err)
	}
	if err := json.Unmarshal([]byte(pauses), &s.Pauses); err != nil {
		return nil, fmt.Errorf("pauses of subscription %s: %w", s.ExternalID, err)
	}
	return &s, nil
}

func (s *lifecycle) schedule() (Schedule, error) {
	anchor, err := NewAnchor(s.AnchorAt, s.Zone)
	return Schedule{Anchor: anchor, Interval: s.Interval}, err
}

// shown is what the audit log keeps of a subscription.
func (s *lifecycle) shown() fields {
	f := fields{"status": s.Status, "plan_id": s.Plan}
	for name, value := range map[string]any{"next_due_at": s.NextDueAt, "cancel_at": s.CancelAt} {
		if t := value.(*time.Time); t != nil {
			f[name] = t.UTC()
		}
	}
	if s.NextPlan != nil {
		f["next_plan_id"] = *s.NextPlan
	}
	if s.Parked != "" {
		f["parked_reason"] = s.Parked
	}
	if s.CatchUpOnce != nil {
		f["catch_up_once"] = *s.CatchUpOnce
	}
	return f
}

// wake lets the sweep look when the next period begins, or when the subscription
// ends, if that is earlier. Of a paused one, its end is all there is to come.
func (s *lifecycle) wake() error {
	if s.Status == SubscriptionPaused {
		s.NextDueAt = s.CancelAt
		return nil
	}
	schedule, err := s.schedule()
	if err != nil {
		return err
	}
	due, err := schedule.Boundary(s.NextPeriodNo - s.AnchorNo)
	if err != nil {
		return err
	}
	if s.CancelAt != nil && s.CancelAt.Before(due) {
		due = *s.CancelAt
	}
	s.NextDueAt = &due
	return nil
}

const sqlLifecycleStore = `
UPDATE singil.subscriptions
SET status = $2, next_due_at = $3, pauses = $4::jsonb, cancel_at = $5, next_plan_id = $6, parked_reason = NULLIF($7, ''), catch_up_once = $9,
    paused_at    = CASE WHEN $2 = 'paused' THEN COALESCE(paused_at, $8) END,
    cancelled_at = CASE WHEN $2 = 'cancelled' THEN COALESCE(cancelled_at, $8) END,
    updated_at = clock_timestamp()
WHERE id = $1`

// store writes the subscription, the audit entry and the event together.
func (s *lifecycle) store(ctx context.Context, tx pgx.Tx, act Act, action string, before fields, events ...Event) error {
	_, err := tx.Exec(ctx, sqlLifecycleStore, s.ID, s.Status, s.NextDueAt, pausesDocument(s.Pauses), s.CancelAt, s.NextPlan, s.Parked, act.Now, s.CatchUpOnce)
	if err != nil {
		return fmt.Errorf("%s %s: %w", action, s.ExternalID, err)
	}
	if err := Audit(ctx, tx, AuditEntry{Actor: act.Actor, Action: action, Subject: s.ExternalID, Reason: act.Reason, Before: before, After: s.shown()}); err != nil {
		return err
	}
	return WriteEvents(ctx, tx, events)
}

func (s *lifecycle) event(act Act, kind string, more fields) Event {
	data := fields{"subscription": s.ExternalID, "status": s.Status}
	for name, value := range more {
		data[name] = value
	}
	return Event{Type: kind, SubscriptionID: s.ID, CustomerID: s.Customer, Data: data, OccurredAt: act.Now}
}

// pausesDocument is the form in which the sweep reads pauses.
func pausesDocument(pauses []Pause) string {
	if pauses == nil {
		pauses = []Pause{}
	}
	document, err := json.Marshal(pauses)
	if err != nil {
		panic(err) // two instants each
	}
	return string(document)
}

const sqlLifecycleLockOpen = `
SELECT FROM singil.invoices WHERE subscription_id = $1 AND status = 'open' ORDER BY id FOR UPDATE`

// PauseSubscription stops billing: no period that starts from now on is billed, and open
// invoices wait. What is being charged at this moment has its outcome recorded.
func PauseSubscription(ctx context.Context, tx pgx.Tx, id uuid.UUID, act Act) error {
	s, err := lockSubscription(ctx, tx, id)
	if err != nil {
		return err
	}
	before := s.shown()
	switch {
	case s.Status == SubscriptionPaused:
		return refused("subscription %s is paused already", s.ExternalID)
	case s.Status == SubscriptionCancelled:
		return refused("subscription %s is cancelled", s.ExternalID)
	case s.CancelAt != nil:
		return refused("subscription %s ends at %s; cancel it now instead", s.ExternalID, rfc3339(*s.CancelAt))
	}
	// Who is arming one of them at this moment comes first; who comes later sees the pause.
	if _, err := tx.Exec(ctx, sqlLifecycleLockOpen, s.ID); err != nil {
		return fmt.Errorf("lock the invoices of %s: %w", s.ExternalID, err)
	}
	s.Status, s.NextDueAt, s.Pauses = SubscriptionPaused, nil, append(s.Pauses, Pause{From: act.Now})
	return s.store(ctx, tx, act, "pause_subscription", before, s.event(act, "subscription.paused", nil))
}

// ReasonPaused is why an open invoice of a paused subscription waits.
const ReasonPaused = "the subscription is paused"

const sqlLifecycleWakeInvoices = `
UPDATE singil.invoices
SET next_attempt_at = least(next_attempt_at, $2), updated_at = clock_timestamp()
WHERE subscription_id = $1 AND status = 'open' AND reason = $3`

const sqlLifecycleOwes = `
SELECT EXISTS (SELECT 1 FROM singil.invoices i
               WHERE i.subscription_id = $1
                 AND (i.status = 'open' AND i.decline_code IS NOT NULL OR i.status IN ('review', 'uncollectible')))`

// ResumeSubscription goes on with a paused subscription. Periods that started during the
// pause are skipped by the next sweep, which records them; the period after is
// billed when it starts.
func ResumeSubscription(ctx context.Context, tx pgx.Tx, id uuid.UUID, act Act) error {
	s, err := lockSubscription(ctx, tx, id)
	if err != nil {
		return err
	}
	before := s.shown()
	if s.Status != SubscriptionPaused {
		return refused("subscription %s is %s, not paused", s.ExternalID, s.Status)
	}
	for i, p := range s.Pauses {
		if p.To.IsZero() {
			s.Pauses[i].To = act.Now
		}
	}
	var owes bool
	if err := tx.QueryRow(ctx, sqlLifecycleOwes, s.ID).Scan(&owes); err != nil {
		return fmt.Errorf("resume %s: %w", s.ExternalID, err)
	}
	if _, err := tx.Exec(ctx, sqlLifecycleWakeInvoices, s.ID, act.Now, ReasonPaused); err != nil {
		return fmt.Errorf("wake the invoices of %s: %w", s.ExternalID, err)
	}
	s.Parked = ""
	switch {
	case owes:
		s.Status = SubscriptionPastDue
	case s.TrialEnd != nil && s.TrialEnd.After(act.Now):
		s.Status = SubscriptionTrialing
	default:
		s.Status = SubscriptionActive
	}
	if err := s.wake(); err != nil {
		return fmt.Errorf("resume %s: %w", s.ExternalID, err)
	}
	return s.store(ctx, tx, act, "resume_subscription", before, s.event(act, "subscription."+s.Status, nil))
}

// CancelSubscription ends a subscription: now, or with the period that is running, which is
// then the last one billed, but not before the end of what is billed already. Of a paused
// subscription none is billed any more.
//
// Now also voids the open invoices that were never attempted. One whose attempt
// is open keeps it: its outcome is recorded, whatever it is. One that was
// declined stays a debt, and its dunning goes on.
func CancelSubscription(ctx context.Context, tx pgx.Tx, id uuid.UUID, when Cancellation, act Act) error {
	s, err := lockSubscription(ctx, tx, id)
	if err != nil {
		return err
	}
	if s.Status == SubscriptionCancelled {
		return refused("subscription %s is cancelled already", s.ExternalID)
	}
	switch when {
	case CancelNow:
		return s.cancelNow(ctx, tx, act)
	case CancelAtPeriodEnd:
		return s.cancelAtPeriodEnd(ctx, tx, act)
	}
	return refused("a subscription is cancelled now or at its period_end, not %q", clip(string(when)))
}

// Never attempted is what no attempt row tells of, not what a counter says. An
// invoice that is paid, or whose intent may be, is not touched.
const sqlLifecycleVoid = `
WITH unattempted AS (
  SELECT i.id FROM singil.invoices i
  WHERE i.subscription_id = $1 AND i.status = 'open' AND i.attempt_count = 0
    AND NOT EXISTS (SELECT 1 FROM singil.attempts a WHERE a.invoice_id = i.id)
  ORDER BY i.id
  FOR UPDATE OF i
)
UPDATE singil.invoices i
SET status = 'void', reason = $2, next_attempt_at = NULL, claimed = false, updated_at = clock_timestamp()
FROM unattempted u
WHERE i.id = u.id AND i.attempt_count = 0
RETURNING i.id, i.period_no, i.amount_minor, i.currency`

func (s *lifecycle) cancelNow(ctx context.Context, tx pgx.Tx, act Act) error {
	before := s.shown()
	s.Status, s.NextDueAt, s.NextPlan = SubscriptionCancelled, nil, nil
	for i, p := range s.Pauses {
		if p.To.IsZero() {
			s.Pauses[i].To = act.Now
		}
	}
	rows, err := tx.Query(ctx, sqlLifecycleVoid, s.ID, "the subscription was cancelled before an attempt")
	if err != nil {
		return fmt.Errorf("void the invoices of %s: %w", s.ExternalID, err)
	}
	var events []Event
	var invoice uuid.UUID
	var no int
	var amount Money
	_, err = pgx.ForEachRow(rows, []any{&invoice, &no, &amount.Minor, &amount.Currency}, func() error {
		events = append(events, s.event(act, "invoice.void", fields{
			"invoice_id": invoice, "period_no": no, "amount_minor": amount.Minor, "currency": amount.Currency,
		}))
		return nil
	})
	if err != nil {
		return fmt.Errorf("void the invoices of %s: %w", s.ExternalID, err)
	}
	return s.store(ctx, tx, act, "cancel_subscription", before, append(events, s.event(act, "subscription.cancelled", nil))...)
}

// A clock that went back, by a failover say, makes a period run whose successor is
// billed already.
const sqlLifecycleBilledUntil = `
SELECT upper(i.period) FROM singil.invoices i
WHERE i.subscription_id = $1 AND i.status <> 'void'
ORDER BY i.period_no DESC
LIMIT 1`

func (s *lifecycle) cancelAtPeriodEnd(ctx context.Context, tx pgx.Tx, act Act) error {
	before := s.shown()
	switch {
	case s.Parked != "":
		return refused("subscription %s waits for a decision (%s); cancel it now", s.ExternalID, s.Parked)
	case s.CancelAt != nil:
		return refused("subscription %s ends at %s already", s.ExternalID, rfc3339(*s.CancelAt))
	}
	schedule, err := s.schedule()
	if err != nil {
		return fmt.Errorf("cancel %s: %w", s.ExternalID, err)
	}
	end, err := schedule.Next(act.Now)
	if err != nil {
		return fmt.Errorf("cancel %s: %w", s.ExternalID, err)
	}
	var billed time.Time
	if err := tx.QueryRow(ctx, sqlLifecycleBilledUntil, s.ID).Scan(&billed); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("cancel %s: %w", s.ExternalID, err)
	}
	if billed.After(end) {
		end = billed.UTC()
	}
	s.CancelAt = &end
	if s.NextDueAt == nil || s.NextDueAt.After(end) {
		s.NextDueAt = &end // a long trial, or a pause, would sleep past it
	}
	return s.store(ctx, tx, act, "cancel_subscription", before, s.event(act, "subscription.cancel_scheduled", fields{"cancel_at": end}))
}

// UnscheduleCancel takes back a cancellation at a period's end that has not come
// yet: the subscription goes on as if nobody had asked. A paused one stays paused.
func UnscheduleCancel(ctx context.Context, tx pgx.Tx, id uuid.UUID, act Act) error {
	s, err := lockSubscription(ctx, tx, id)
	if err != nil {
		return err
	}
	before := s.shown()
	switch {
	case s.Status == SubscriptionCancelled:
		return refused("subscription %s is cancelled; what is over begins as a new subscription", s.ExternalID)
	case s.CancelAt == nil:
		return refused("subscription %s is not to be cancelled", s.ExternalID)
	case !s.CancelAt.After(act.Now):
		return refused("subscription %s ended at %s", s.ExternalID, rfc3339(*s.CancelAt))
	}
	s.CancelAt, s.NextDueAt = nil, nil
	if s.Parked == "" {
		if err := s.wake(); err != nil {
			return fmt.Errorf("take back the cancellation of %s: %w", s.ExternalID, err)
		}
	}
	return s.store(ctx, tx, act, "unschedule_cancel", before, s.event(act, "subscription.cancel_unscheduled", nil))
}

// UnparkSubscription gives a subscription back to the sweep once what stopped it
// is mended: from its next period on, whatever has become due meanwhile. One that
// still cannot be planned is refused with the reason.
//
// decision is what to do about several periods that were missed, this once. Empty
// leaves it to the subscription's policy, which is refused if that is to ask.
func UnparkSubscription(ctx context.Context, tx pgx.Tx, id uuid.UUID, decision CatchUp, act Act) error {
	s, err := lockSubscription(ctx, tx, id)
	if err != nil {
		return err
	}
	before := s.shown()
	switch {
	case s.Status == SubscriptionCancelled:
		return refused("subscription %s is cancelled", s.ExternalID)
	case s.Parked == "":
		return refused("subscription %s is not parked", s.ExternalID)
	}
	policy := s.CatchUp
	if decision != "" {
		if decision != CatchUpBillAll && decision != CatchUpBillCurrent {
			return refused("the decision about missed periods is bill_all or bill_current, not %q", clip(string(decision)))
		}
		policy, s.CatchUpOnce = decision, &decision
	}
	if err := s.mayUnpark(policy, act.Now); err != nil {
		return err
	}
	s.Parked = ""
	if err := s.wake(); err != nil {
		return refused("subscription %s still cannot be billed: %s", s.ExternalID, err)
	}
	return s.store(ctx, tx, act, "unpark_subscription", before, s.event(act, "subscription.unparked", nil))
}

// mayUnpark plans as the sweep will.
func (s *lifecycle) mayUnpark(policy CatchUp, now time.Time) error {
	schedule, err := s.schedule()
	var plan Plan
	if err == nil {
		plan, err = PlanDue(Billable{
			Schedule: schedule, NextPeriodNo: s.NextPeriodNo - s.AnchorNo, BillFrom: s.BillFrom, TrialEnd: orZero(s.TrialEnd),
			Pauses: s.Pauses, CancelAt: orZero(s.CancelAt),
		}, policy, now, periodsAtOnce)
	}
	switch {
	case err != nil:
		return refused("subscription %s still cannot be billed: %s", s.ExternalID, err)
	case plan.State == PlanStateAsk:
		return refused("%d periods of subscription %s are due and its policy is to ask: decide for bill_all or bill_current", plan.Missed, s.ExternalID)
	}
	return nil
}

const sqlLifecyclePlan = `
SELECT p.external_id, p.amount_minor, p.currency
FROM singil.plans p
WHERE p.id = $1
FOR SHARE`

// ChangePlan takes another plan from the next period on. The price is copied
// when that period is opened. The plan that is held already takes back a change
// that was to come.
func ChangePlan(ctx context.Context, tx pgx.Tx, id, plan uuid.UUID, act Act) error {
	s, err := lockSubscription(ctx, tx, id)
	if err != nil {
		return err
	}
	before := s.shown()
	if s.Status == SubscriptionCancelled {
		return refused("subscription %s is cancelled", s.ExternalID)
	}
	var name string
	var amount Money
	switch err := tx.QueryRow(ctx, sqlLifecyclePlan, plan).Scan(&name, &amount.Minor, &amount.Currency); {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("plan %s: %w", plan, ErrNotFound)
	case err != nil:
		return fmt.Errorf("read plan %s: %w", plan, err)
	}
	if amount.Currency != s.Currency {
		return refused("plan %s is in %s and subscription %s in %s", name, amount.Currency, s.ExternalID, s.Currency)
	}
	if _, err := amount.Mul(s.Quantity); err != nil {
		return refused("plan %s for subscription %s: %s", name, s.ExternalID, err)
	}
	coming := []uuid.UUID{s.Plan}
	if s.NextPlan != nil {
		coming = []uuid.UUID{*s.NextPlan}
	}
	if slices.Contains(coming, plan) {
		return refused("subscription %s has plan %s already", s.ExternalID, name)
	}
	s.NextPlan = &plan
	if plan == s.Plan {
		s.NextPlan = nil
	}
	return s.store(ctx, tx, act, "change_plan", before, s.event(act, "subscription.plan_change_scheduled", fields{"plan": name, "from_period_no": s.NextPeriodNo}))
}
