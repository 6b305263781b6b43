package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/internal/failpoint"
)

// MinimumAmount is the least that PayMongo takes, in centavos: 2000 in the
// reference and in real output. A smaller invoice is opened and parked.
const MinimumAmount = 2000

// periodsAtOnce bounds the invoices one subscription gets in one sweep; the
// next sweep goes on.
const periodsAtOnce = 12

// Opened is what a sweep did about due subscriptions.
type Opened struct {
	Subscriptions int // looked at; as many as the limit: there may be more that can be worked on
	Invoices      int
	Skipped       int // periods that get no invoice, by policy
	Parked        int // subscriptions and invoices that a human must look at
	// Claimed are the invoices that OpenAndClaim has claimed.
	Claimed []Claimed
}

const sqlDueColumns = `
SELECT s.id, s.customer_id, s.external_id, s.status, s.quantity, s.amount_minor, s.currency, s.interval_unit, s.interval_count,
       s.anchor_at, s.anchor_no, s.time_zone, s.next_period_no, s.next_due_at, s.bill_from, s.last_charge_at, s.pauses::text,
       s.trial_end, s.cancel_at, s.catch_up, s.catch_up_once,
       np.id, np.amount_minor, np.interval_unit, np.interval_count, np.catch_up, np.dunning::text
FROM singil.subscriptions s
LEFT JOIN singil.plans np ON np.id = s.next_plan_id`

const sqlDueSubscriptions = sqlDueColumns + `
WHERE s.next_due_at <= $1 AND ($3::uuid IS NULL OR s.id = $3)
ORDER BY s.next_due_at
LIMIT $2
FOR NO KEY UPDATE OF s SKIP LOCKED`

// dueSubscription is a subscription whose time has come.
type dueSubscription struct {
	ID, CustomerID uuid.UUID
	ExternalID     string
	Status         string
	Quantity       int64
	Amount         Money
	Interval       Interval
	AnchorAt       time.Time
	AnchorNo       int
	TimeZone       string
	NextPeriodNo   int
	NextDueAt      *time.Time
	BillFrom       time.Time
	LastChargeAt   *time.Time
	Pauses         []byte
	TrialEnd       *time.Time
	CancelAt       *time.Time
	CatchUp        CatchUp
	CatchUpOnce    *CatchUp // in its place, until the periods that are due are opened

	NextPlan *nextPlan

	// What PlanDue made of it.
	billable Billable
	planned  Plan
	failed   error

	cancelledAt *time.Time
	parked      string
}

// nextPlan takes effect with the next period.
type nextPlan struct {
	ID       uuid.UUID
	Minor    int64
	Interval Interval
	CatchUp  CatchUp
	Dunning  []byte
}

// OpenDue opens an invoice, with its payment intent's record, for every period
// that is due at now, for at most limit subscriptions, all in tx: the cursor
// moves with the invoices or not at all. Subscriptions that another sweep has
// locked are left to it. A subscription that cannot be planned is parked with
// its reason, and the others go on.
func OpenDue(ctx context.Context, tx pgx.Tx, environment Environment, livemode bool, now time.Time, limit int) (Opened, error) {
	return openDue(ctx, tx, opening{environment: environment, livemode: livemode, now: now}, limit, nil)
}

// OpenAndClaim is OpenDue, and claims what may be charged at once as ClaimDue
// would: enqueue a job for each of Opened.Claimed in the same transaction. That
// an invoice is born claimed saves writing it, and all its index entries, twice.
// Call it only when charging is allowed.
func OpenAndClaim(ctx context.Context, tx pgx.Tx, environment Environment, livemode bool, now time.Time, limit int) (Opened, error) {
	return openDue(ctx, tx, opening{environment: environment, livemode: livemode, now: now, claim: true}, limit, nil)
}

// OpenDueOne is OpenDue for one subscription, if it is due: for when a batch
// fails as a whole, and the row that makes it fail has to be found.
func OpenDueOne(ctx context.Context, tx pgx.Tx, environment Environment, livemode bool, now time.Time, subscription uuid.UUID) (Opened, error) {
	return openDue(ctx, tx, opening{environment: environment, livemode: livemode, now: now}, 1, &subscription)
}

const sqlDueIDs = `
SELECT s.id FROM singil.subscriptions s WHERE s.next_due_at <= $1 ORDER BY s.next_due_at LIMIT $2`

// DueIDs lists subscriptions that are due, and locks nothing.
func DueIDs(ctx context.Context, q Querier, now time.Time, limit int) ([]uuid.UUID, error) {
	rows, err := q.Query(ctx, sqlDueIDs, now, limit)
	if err != nil {
		return nil, fmt.Errorf("list due subscriptions: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("list due subscriptions: %w", err)
	}
	return ids, nil
}

// ParkSubscription takes a subscription out of the sweep until somebody has mended it.
func ParkSubscription(ctx context.Context, tx pgx.Tx, subscription uuid.UUID, reason string) error {
	if _, err := tx.Exec(ctx, sqlParkSubscriptions, []uuid.UUID{subscription}, []string{reason}); err != nil {
		return fmt.Errorf("park subscription %s: %w", subscription, err)
	}
	return nil
}

func openDue(ctx context.Context, tx pgx.Tx, o opening, limit int, only *uuid.UUID) (Opened, error) {
	due, err := dueSubscriptions(ctx, tx, o.now, limit, only)
	if err != nil {
		return Opened{}, fmt.Errorf("read due subscriptions: %w", err)
	}
	if len(due) == 0 {
		return Opened{}, nil
	}
	failpoint.Hit("cp01")
	for _, s := range due {
		s.planned, s.failed = s.planDue(o.now)
	}
	ours, err := o.shareDays(ctx, tx, due)
	if err != nil {
		return Opened{}, fmt.Errorf("spread the charges of %d subscriptions: %w", len(due), err)
	}
	for _, s := range ours {
		o.plan(s)
	}
	if err := o.store(ctx, tx, ours); err != nil {
		return Opened{}, fmt.Errorf("open invoices of %d subscriptions: %w", len(ours), err)
	}
	if len(ours) > 0 { // else there is no use in coming back at once
		o.result.Subscriptions = len(due)
	}
	failpoint.Hit("cp02")
	return o.result, nil
}

func dueSubscriptions(ctx context.Context, tx pgx.Tx, now time.Time, limit int, only *uuid.UUID) ([]*dueSubscription, error) {
	rows, err := tx.Query(ctx, sqlDueSubscriptions, now, limit, only)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanDue)
}

func scanDue(row pgx.CollectableRow) (*dueSubscription, error) {
	s := &dueSubscription{}
	var planID *uuid.UUID
	var minor *int64
	var unit, catchUp *string
	var count *int
	var dunning *string
	var pauses string
	err := row.Scan(&s.ID, &s.CustomerID, &s.ExternalID, &s.Status, &s.Quantity, &s.Amount.Minor, &s.Amount.Currency, &s.Interval.Unit, &s.Interval.Count,
		&s.AnchorAt, &s.AnchorNo, &s.TimeZone, &s.NextPeriodNo, &s.NextDueAt, &s.BillFrom, &s.LastChargeAt, &pauses,
		&s.TrialEnd, &s.CancelAt, &s.CatchUp, &s.CatchUpOnce, &planID, &minor, &unit, &count, &catchUp, &dunning)
	s.Pauses = []byte(pauses)
	if err == nil && planID != nil {
		s.NextPlan = &nextPlan{*planID, *minor, Interval{IntervalUnit(*unit), *count}, CatchUp(*catchUp), []byte(*dunning)}
	}
	return s, err
}

// opening is one OpenDue on its way.
type opening struct {
	environment Environment
	livemode    bool
	now         time.Time
	claim       bool // what may be charged at now
	result      Opened
	events      []Event

	invoices []newInvoice
	skips    []newSkip
	lastDays map[uuid.UUID]time.Time // by customer: the last day given to a catch-up
}

type newInvoice struct {
	ID             uuid.UUID
	Subscription   *dueSubscription
	Period         Period
	NextAttemptAt  time.Time
	Claimed        bool
	Status, Reason string
}

type newSkip struct {
	subscription uuid.UUID
	Skip
}

// plan decides what becomes of one subscription.
func (o *opening) plan(s *dueSubscription) {
	plan := s.planned
	if s.failed != nil {
		s.park(s.failed.Error())
		o.result.Parked++
		return
	}
	for _, skip := range plan.Skipped {
		skip.First, skip.Last = skip.First+s.AnchorNo, skip.Last+s.AnchorNo
		o.skips = append(o.skips, newSkip{s.ID, skip})
		o.result.Skipped += skip.Last - skip.First + 1
	}
	for _, due := range plan.Open {
		due.No += s.AnchorNo
		inv := newInvoice{ID: newID(), Subscription: s, Period: due.Period, NextAttemptAt: due.ChargeNotBefore, Status: InvoiceOpen}
		if s.Amount.Minor < MinimumAmount {
			inv.Status, inv.Reason = InvoiceReview, fmt.Sprintf("%s is below the provider's minimum of %s", s.Amount, Money{MinimumAmount, s.Amount.Currency})
			o.result.Parked++
		} else if o.claim && !inv.NextAttemptAt.After(o.now) {
			inv.Claimed, inv.NextAttemptAt = true, o.now.Add(Lease)
		}
		o.invoices = append(o.invoices, inv)
		s.LastChargeAt = &due.ChargeNotBefore
	}
	s.NextPeriodNo = plan.NextPeriodNo + s.AnchorNo
	s.NextDueAt = nil
	if plan.State != PlanStateMore {
		s.CatchUpOnce = nil
	}
	switch plan.State {
	case PlanStateScheduled, PlanStateMore:
		s.NextDueAt = &plan.NextDueAt
	case PlanStateAsk:
		s.park(fmt.Sprintf("%d periods are due at once and the plan's catch-up policy is ask", plan.Missed))
		o.result.Parked++
	case PlanStateEnded:
		s.Status, s.cancelledAt = SubscriptionCancelled, s.CancelAt
		o.emit(s, "subscription.cancelled")
	}
	if s.Status == SubscriptionTrialing && len(plan.Open) > 0 {
		s.Status = SubscriptionActive
		o.emit(s, "subscription.active")
	}
}

func (o *opening) emit(s *dueSubscription, kind string) {
	o.events = append(o.events, Event{
		Type: kind, SubscriptionID: s.ID, CustomerID: s.CustomerID, OccurredAt: o.now,
		Data: fields{"subscription": s.ExternalID, "status": s.Status},
	})
}

// park takes a subscription out of the sweep until somebody has mended it.
func (s *dueSubscription) park(reason string) {
	s.parked, s.NextDueAt = reason, nil
}

func (s *dueSubscription) planDue(now time.Time) (Plan, error) {
	if err := s.changePlan(); err != nil {
		return Plan{}, err
	}
	anchor, err := NewAnchor(s.AnchorAt, s.TimeZone)
	if err != nil {
		return Plan{}, err
	}
	var pauses []Pause
	if err := json.Unmarshal(s.Pauses, &pauses); err != nil {
		return Plan{}, fmt.Errorf("pauses: %w", err)
	}
	s.billable = Billable{
		Schedule: Schedule{Anchor: anchor, Interval: s.Interval}, NextPeriodNo: s.NextPeriodNo - s.AnchorNo,
		BillFrom: s.BillFrom, TrialEnd: orZero(s.TrialEnd), Pauses: pauses, CancelAt: orZero(s.CancelAt), LastChargeAt: orZero(s.LastChargeAt),
	}
	policy := s.CatchUp
	if s.CatchUpOnce != nil {
		policy = *s.CatchUpOnce
	}
	return PlanDue(s.billable, policy, now, periodsAtOnce)
}

// changePlan takes a plan over from the period that is due. Another interval
// counts from that period's beginning: a new anchor, and the numbers go on.
func (s *dueSubscription) changePlan() error {
	p := s.NextPlan
	if p == nil {
		return nil
	}
	amount, err := Money{p.Minor, s.Amount.Currency}.Mul(s.Quantity)
	if err != nil {
		return err
	}
	if p.Interval != s.Interval {
		anchor, err := NewAnchor(s.AnchorAt, s.TimeZone)
		if err != nil {
			return err
		}
		boundary, err := Schedule{Anchor: anchor, Interval: s.Interval}.Boundary(s.NextPeriodNo - s.AnchorNo)
		if err != nil {
			return err
		}
		s.AnchorAt, s.AnchorNo, s.Interval = boundary, s.NextPeriodNo, p.Interval
	}
	s.Amount, s.CatchUp = amount, p.CatchUp
	return nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// A period that is on record is passed over. What was passed over is not in
// RETURNING, and its subscription is parked: a period must not be lost in silence.
// One that overlaps its neighbours fails the batch, which then goes one by one.
const sqlOpenInvoices = `
WITH opened AS (
  INSERT INTO singil.invoices (id, subscription_id, customer_id, period_no, period, amount_minor, currency, livemode,
                               status, reason, due_at, next_attempt_at, claimed)
  SELECT r.id, r.subscription, r.customer, r.no, tstzrange(r.start_at, r.end_at), r.amount, r.currency, $10,
         r.status, NULLIF(r.reason, ''), r.start_at, r.next_attempt_at, r.claimed
  FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::timestamptz[], $6::timestamptz[], $7::bigint[], $8::text[], $9::timestamptz[],
              $11::text[], $12::text[], $15::boolean[])
    AS r (id, subscription, customer, no, start_at, end_at, amount, currency, next_attempt_at, status, reason, claimed)
  ON CONFLICT DO NOTHING
  RETURNING id, amount_minor, currency, livemode
), intents AS (
  INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key)
  SELECT r.intent, o.id, o.amount_minor, o.currency, o.livemode, 1, r.create_key
  FROM opened o
  JOIN unnest($1::uuid[], $13::uuid[], $14::text[]) AS r (id, intent, create_key) ON r.id = o.id
)
SELECT id FROM opened`

const sqlOpenSkips = `
INSERT INTO singil.skipped_periods (subscription_id, first_no, last_no, reason)
SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[])
ON CONFLICT DO NOTHING`

const sqlOpenSubscriptions = `
UPDATE singil.subscriptions s
SET status = r.status, amount_minor = r.amount, interval_unit = r.unit, interval_count = r.count, catch_up = r.catch_up,
    catch_up_once = r.catch_up_once, anchor_at = r.anchor_at, anchor_no = r.anchor_no, next_period_no = r.no, next_due_at = r.due_at,
    last_charge_at = r.last_charge_at, cancelled_at = r.cancelled_at, parked_reason = NULLIF(r.parked, ''),
    paused_at = CASE WHEN r.status = 'paused' THEN s.paused_at END,
    plan_id = COALESCE(s.next_plan_id, s.plan_id), next_plan_id = NULL,
    dunning = COALESCE((SELECT np.dunning FROM singil.plans np WHERE np.id = s.next_plan_id), s.dunning),
    updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::int[], $6::text[], $7::timestamptz[], $8::int[], $9::int[],
            $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[])
  AS r (id, status, amount, unit, count, catch_up, anchor_at, anchor_no, no, due_at, last_charge_at, cancelled_at, parked, catch_up_once)
WHERE s.id = r.id`

const sqlParkSubscriptions = `
UPDATE singil.subscriptions s
SET parked_reason = r.reason, next_due_at = NULL, updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[]) AS r (id, reason)
WHERE s.id = r.id`

func (o *opening) store(ctx context.Context, tx pgx.Tx, due []*dueSubscription) error {
	if err := o.storeInvoices(ctx, tx); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	if n := len(o.skips); n > 0 {
		ids, first, last, reasons := make([]uuid.UUID, n), make([]int32, n), make([]int32, n), make([]string, n)
		for i, s := range o.skips {
			ids[i], first[i], last[i], reasons[i] = s.subscription, int32(s.First), int32(s.Last), string(s.Reason)
		}
		batch.Queue(sqlOpenSkips, ids, first, last, reasons)
	}
	o.queueSubscriptions(batch, due)
	o.queueLastDays(batch)
	if batch.Len() > 0 {
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
	}
	return WriteEvents(ctx, tx, o.events)
}

func (o *opening) storeInvoices(ctx context.Context, tx pgx.Tx) error {
	n := len(o.invoices)
	if n == 0 {
		return nil
	}
	ids, subscriptions, customers, nos := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n), make([]int32, n)
	starts, ends, amounts, currencies, next := make([]time.Time, n), make([]time.Time, n), make([]int64, n), make([]string, n), make([]time.Time, n)
	statuses, reasons, intents, keys, claimed := make([]string, n), make([]string, n), make([]uuid.UUID, n), make([]string, n), make([]bool, n)
	for i, inv := range o.invoices {
		s := inv.Subscription
		ids[i], subscriptions[i], customers[i], nos[i] = inv.ID, s.ID, s.CustomerID, int32(inv.Period.No)
		starts[i], ends[i], amounts[i], currencies[i], next[i] = inv.Period.Start, inv.Period.End, s.Amount.Minor, string(s.Amount.Currency), inv.NextAttemptAt
		statuses[i], reasons[i], claimed[i] = inv.Status, inv.Reason, inv.Claimed
		intents[i], keys[i] = newID(), createKey(o.environment, s.ID, inv.Period.No, 1)
	}
	opened := make(map[uuid.UUID]bool, n)
	rows, err := tx.Query(ctx, sqlOpenInvoices, ids, subscriptions, customers, nos, starts, ends, amounts, currencies, next, o.livemode,
		statuses, reasons, intents, keys, claimed)
	if err != nil {
		return err
	}
	var id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error {
		opened[id] = true
		return nil
	}); err != nil {
		return err
	}
	o.result.Invoices = len(opened)
	for _, inv := range o.invoices {
		switch {
		case !opened[inv.ID]:
			inv.Subscription.park(fmt.Sprintf("period %d, from %s, overlaps an invoice on record", inv.Period.No, inv.Period.Start.UTC().Format(time.RFC3339)))
			o.result.Parked++
		case inv.Claimed:
			o.result.Claimed = append(o.result.Claimed, Claimed{InvoiceID: inv.ID})
		}
	}
	return nil
}

// queueSubscriptions moves the cursors. A parked subscription keeps everything
// but its wake-up.
func (o *opening) queueSubscriptions(batch *pgx.Batch, due []*dueSubscription) {
	var ids, parkedIDs []uuid.UUID
	var statuses, units, catchUps, parked, reasons []string
	var amounts []int64
	var counts, anchorNos, nos []int32
	var anchors []time.Time
	var dueAt, lastCharge, cancelled []*time.Time
	var once []*CatchUp
	for _, s := range due {
		if s.parked != "" {
			parkedIDs, reasons = append(parkedIDs, s.ID), append(reasons, s.parked)
			continue
		}
		ids, statuses, amounts = append(ids, s.ID), append(statuses, s.Status), append(amounts, s.Amount.Minor)
		units, counts, catchUps = append(units, string(s.Interval.Unit)), append(counts, int32(s.Interval.Count)), append(catchUps, string(s.CatchUp))
		anchors, anchorNos, nos = append(anchors, s.AnchorAt), append(anchorNos, int32(s.AnchorNo)), append(nos, int32(s.NextPeriodNo))
		dueAt, lastCharge, cancelled, parked = append(dueAt, s.NextDueAt), append(lastCharge, s.LastChargeAt), append(cancelled, s.cancelledAt), append(parked, s.parked)
		once = append(once, s.CatchUpOnce)
	}
	if len(ids) > 0 {
		batch.Queue(sqlOpenSubscriptions, ids, statuses, amounts, units, counts, catchUps, anchors, anchorNos, nos, dueAt, lastCharge, cancelled, parked, once)
	}
	if len(parkedIDs) > 0 {
		batch.Queue(sqlParkSubscriptions, parkedIDs, reasons)
	}
}

// Claimed is an invoice that is due.
type Claimed struct {
	InvoiceID uuid.UUID
	// Reconcile tells that an outcome is open: look, and charge nothing.
	Reconcile bool
}

const sqlClaimDue = `
UPDATE singil.invoices i
SET claimed = true, next_attempt_at = $2, updated_at = clock_timestamp()
FROM (
  SELECT id FROM singil.invoices
  WHERE status = 'open' AND next_attempt_at <= $1 AND (NOT $4 OR waiting_for = 'provider')
  ORDER BY next_attempt_at
  LIMIT $3
  FOR UPDATE SKIP LOCKED
) due
WHERE i.id = due.id
RETURNING i.id, i.waiting_for = 'provider'`

// ClaimDue takes open invoices whose next attempt is due, and moves their
// wake-up one lease on: enqueue a job for each in the same transaction. A job
// that is lost is found again when the lease is over. With reconcileOnly it
// takes those whose outcome is open: looking goes on when nothing may be charged.
func ClaimDue(ctx context.Context, tx pgx.Tx, now time.Time, limit int, reconcileOnly bool) ([]Claimed, error) {
	rows, err := tx.Query(ctx, sqlClaimDue, now, now.Add(Lease), limit, reconcileOnly)
	if err != nil {
		return nil, fmt.Errorf("claim due invoices: %w", err)
	}
	claimed, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Claimed])
	if err != nil {
		return nil, fmt.Errorf("claim due invoices: %w", err)
	}
	return claimed, nil
}
