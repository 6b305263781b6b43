package billing

import (
	"fmt"
	"slices"
	"time"
)

// CatchUp is a plan's policy for several periods that were missed: after an
// outage, or when a merchant moves in late.
type CatchUp string

// The catch-up policies.
const (
	// CatchUpBillAll opens every missed period, oldest first, and charges a customer
	// at most one a day: three charges at once look like a fault to the customer and
	// like fraud to the issuer.
	CatchUpBillAll CatchUp = "bill_all"
	// CatchUpBillCurrent opens the period that is running and forgoes those that are over.
	CatchUpBillCurrent CatchUp = "bill_current"
	// CatchUpAsk opens nothing until a person has decided.
	CatchUpAsk CatchUp = "ask"
)

// ParseCatchUp refuses what is not one of the three.
func ParseCatchUp(s string) (CatchUp, error) {
	switch c := CatchUp(s); c {
	case CatchUpBillAll, CatchUpBillCurrent, CatchUpAsk:
		return c, nil
	}
	return "", fmt.Errorf("catch-up policy %q is not one of bill_all, bill_current, ask", clip(s))
}

// Pause is a time in which no period that starts is billed. To is zero while the
// subscription is still paused.
type Pause struct {
	From, To time.Time
}

func (p Pause) contains(t time.Time) bool {
	return !t.Before(p.From) && (p.To.IsZero() || t.Before(p.To))
}

// Billable is what decides which periods of a subscription are due. A period is
// billed in advance: it is due when it starts. Zero times mean that there is no
// such thing.
type Billable struct {
	Schedule Schedule
	// NextPeriodNo is the first period that was neither opened nor skipped yet.
	NextPeriodNo int
	// BillFrom is the first instant to charge for. A period that starts earlier was
	// billed elsewhere, by the system a merchant comes from, and is skipped.
	BillFrom time.Time
	// TrialEnd ends a trial. A period that starts within it is free as a whole.
	TrialEnd time.Time
	// Pauses may be in any order and overlap.
	Pauses []Pause
	// CancelAt ends the subscription: periods that start then or later never are.
	CancelAt time.Time
	// LastChargeAt is the latest ChargeNotBefore that a plan gave to an invoice of
	// this subscription, whatever became of it. It keeps a second call from charging
	// on the same day.
	LastChargeAt time.Time
}

// SkipReason says why a period got no invoice. P2 wants every one recorded.
type SkipReason string

// The reasons.
const (
	SkipReasonBillFrom SkipReason = "before_bill_from"
	SkipReasonTrial    SkipReason = "trial"
	SkipReasonPaused   SkipReason = "paused"
	SkipReasonMissed   SkipReason = "missed" // CatchUpBillCurrent
	SkipReasonEmpty    SkipReason = "empty"  // no time passes in it, see Period
)

// Skip is a run of periods, First to Last inclusive, that get no invoice.
type Skip struct {
	First, Last int
	Reason      SkipReason
}

// DuePeriod is a period to open an invoice for.
type DuePeriod struct {
	Period
	// ChargeNotBefore is the invoice's first next_attempt_at.
	ChargeNotBefore time.Time
}

// catchUp is what a plan opens of a subscription that catches up.
type catchUp struct {
	billable Billable
	open     []DuePeriod
}

// spread gives every period of one customer's catch-ups a day of its own, the
// oldest first, behind the day that was last given to one of them. It returns the
// last day it gave. Each subscription counts the days in its own zone.
func spread(all []catchUp, last, now time.Time) time.Time {
	next := make([]int, len(all))
	for {
		oldest := -1
		for i, c := range all {
			if next[i] < len(c.open) && (oldest < 0 || c.open[next[i]].Start.Before(all[oldest].open[next[oldest]].Start)) {
				oldest = i
			}
		}
		if oldest < 0 {
			return last
		}
		b := all[oldest].billable
		if b.LastChargeAt.Before(last) {
			b.LastChargeAt = last
		}
		last = b.firstSlot(now)
		all[oldest].open[next[oldest]].ChargeNotBefore = last
		next[oldest]++
	}
}

// PlanState says what a subscription waits for after a plan.
type PlanState string

// The states of a plan.
const (
	PlanStateScheduled PlanState = "scheduled" // the next period, at NextDueAt
	PlanStateMore      PlanState = "more"      // the limit was reached: plan again, NextDueAt has come
	PlanStatePaused    PlanState = "paused"    // the end of the pause
	PlanStateAsk       PlanState = "ask"       // a person: Missed periods are due
	PlanStateEnded     PlanState = "ended"     // nothing: it was cancelled
)

// Plan is which periods to open now, which to skip, and when to look again.
type Plan struct {
	Open []DuePeriod // oldest first
	// CatchUp tells that Open is charged over several days, or later: one charge a
	// day, and the customer may have other subscriptions that catch up.
	CatchUp bool
	Skipped []Skip // in order
	// NextPeriodNo is the Billable's after this plan was carried out.
	NextPeriodNo int
	// NextDueAt is zero unless State is scheduled or more.
	NextDueAt time.Time
	State     PlanState
	// Missed is how many periods wait, in PlanStateAsk.
	Missed int
}

// PlanDue decides which periods are due at now. It is computed from what is
// stored and never from when it was last asked: a tick that did not come loses
// nothing. It opens at most limit periods, and skips in runs, so that its cost is
// bounded however long the outage was.
//
// It fails when the schedule or the policy is not valid, when limit is not
// positive, and with ErrPeriodRange.
func PlanDue(b Billable, policy CatchUp, now time.Time, limit int) (Plan, error) {
	if err := b.Schedule.Validate(); err != nil {
		return Plan{}, err
	}
	if _, err := ParseCatchUp(string(policy)); err != nil {
		return Plan{}, err
	}
	if limit < 1 || b.NextPeriodNo < 0 {
		return Plan{}, fmt.Errorf("plan for period %d with limit %d: want 0 or more, and 1 or more", b.NextPeriodNo, limit)
	}
	due, err := b.due(now)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{NextPeriodNo: b.NextPeriodNo}
	wanted := due.count()
	switch {
	case policy == CatchUpAsk && !due.ordinary(now):
		plan.State, plan.Missed = PlanStateAsk, wanted
		return plan, nil
	case policy == CatchUpBillCurrent:
		due.forgo(now)
	}
	if err := b.open(&plan, due, now, limit); err != nil {
		return Plan{}, err
	}
	plan.CatchUp = len(plan.Open) > 0 && (!due.ordinary(now) || plan.Open[0].ChargeNotBefore.After(now))
	return plan, b.wait(&plan, now)
}

// run is periods in a row with one fate; an empty reason means they are to be billed.
type run struct {
	first, last int
	reason      SkipReason
}

// dueRuns covers every period that has begun and is neither opened nor skipped.
type dueRuns struct {
	runs   []run
	newest Period // the last of them
}

// due cuts what has begun into runs.
func (b Billable) due(now time.Time) (dueRuns, error) {
	end, cancelled := now, !b.CancelAt.IsZero() && !b.CancelAt.After(now)
	if cancelled {
		end = b.CancelAt.Add(-1) // what starts at CancelAt does not start
	}
	if end.Before(b.Schedule.Anchor.At) {
		return dueRuns{}, nil
	}
	newest, ok := b.Schedule.PeriodAt(end)
	if !ok {
		return dueRuns{}, fmt.Errorf("%w: at %s", ErrPeriodRange, end.UTC().Format(time.RFC3339))
	}
	if newest.No < b.NextPeriodNo {
		return dueRuns{}, nil
	}
	var due dueRuns
	for no := b.NextPeriodNo; no <= newest.No; {
		r, err := b.runFrom(no)
		if err != nil {
			return dueRuns{}, err
		}
		r.last = min(r.last, newest.No)
		if r.reason == SkipReasonPaused && b.openPause(r.first) && !cancelled {
			// It may be billed or not once the pause has an end; until then it waits.
			// Of a cancelled subscription the pause cannot end in time any more.
			break
		}
		due.runs = append(due.runs, r)
		no = r.last + 1
	}
	if len(due.runs) > 0 {
		newest, err := b.Schedule.Period(due.runs[len(due.runs)-1].last)
		if err != nil {
			return dueRuns{}, err
		}
		due.newest = newest
	}
	return due, nil
}

// runFrom is the fate of period no and of those after it that share it.
func (b Billable) runFrom(no int) (run, error) {
	start, err := b.Schedule.Boundary(no)
	if err != nil {
		return run{}, err
	}
	// until is when the fate changes, as far as is known here.
	until := func(t time.Time, reason SkipReason) (run, error) {
		next, err := b.Schedule.FirstNo(t)
		return run{no, max(no, next-1), reason}, err
	}
	if start.Before(b.BillFrom) {
		return until(b.BillFrom, SkipReasonBillFrom)
	}
	if start.Before(b.TrialEnd) {
		return until(b.TrialEnd, SkipReasonTrial)
	}
	next := time.Time{}
	for _, pause := range b.Pauses {
		switch {
		case pause.contains(start) && pause.To.IsZero():
			return run{no, MaxPeriodNo, SkipReasonPaused}, nil
		case pause.contains(start):
			return until(pause.To, SkipReasonPaused)
		case pause.From.After(start) && (next.IsZero() || pause.From.Before(next)):
			next = pause.From
		}
	}
	if next.IsZero() {
		return run{first: no, last: MaxPeriodNo}, nil
	}
	return until(next, "")
}

// openPause reports whether period no starts in a pause that has no end yet.
func (b Billable) openPause(no int) bool {
	start, err := b.Schedule.Boundary(no)
	return err == nil && slices.ContainsFunc(b.Pauses, func(p Pause) bool { return p.To.IsZero() && p.contains(start) })
}

// count is how many periods are to be billed.
func (d dueRuns) count() int {
	count := 0
	for _, r := range d.runs {
		if r.reason == "" {
			count += r.last - r.first + 1
		}
	}
	return count
}

// ordinary means there is nothing to catch up with: no more than one period, and
// that one is running.
func (d dueRuns) ordinary(now time.Time) bool {
	count := d.count()
	return count == 0 || count == 1 && d.runs[len(d.runs)-1].reason == "" && d.newest.Contains(now)
}

// forgo skips what is over.
func (d *dueRuns) forgo(now time.Time) {
	var runs []run
	for _, r := range d.runs {
		switch {
		case r.reason != "":
			runs = append(runs, r)
		case r.last != d.newest.No || !d.newest.Contains(now):
			runs = append(runs, run{r.first, r.last, SkipReasonMissed})
		default:
			if r.first < r.last {
				runs = append(runs, run{r.first, r.last - 1, SkipReasonMissed})
			}
			runs = append(runs, run{first: r.last, last: r.last})
		}
	}
	d.runs = runs
}

// open goes through the runs until the limit is reached.
func (b Billable) open(plan *Plan, due dueRuns, now time.Time, limit int) error {
	slot := b.firstSlot(now)
	for _, r := range due.runs {
		if r.reason != "" {
			plan.Skipped = append(plan.Skipped, Skip{r.first, r.last, r.reason})
			plan.NextPeriodNo = r.last + 1
			continue
		}
		for no := r.first; no <= r.last; no++ {
			p, err := b.Schedule.Period(no)
			if err != nil {
				return err
			}
			if p.Empty() {
				plan.Skipped = append(plan.Skipped, Skip{no, no, SkipReasonEmpty})
				plan.NextPeriodNo = no + 1
				continue
			}
			if len(plan.Open) == limit {
				plan.State, plan.NextDueAt = PlanStateMore, p.Start
				return nil
			}
			plan.Open = append(plan.Open, DuePeriod{Period: p, ChargeNotBefore: slot})
			plan.NextPeriodNo = no + 1
			slot = b.slotAfter(slot)
		}
	}
	return nil
}

// firstSlot is now, unless the customer is charged today or later anyway.
func (b Billable) firstSlot(now time.Time) time.Time {
	zone := b.Schedule.Anchor.Zone
	if b.LastChargeAt.IsZero() || dateOf(wallOf(b.LastChargeAt, zone)).before(dateOf(wallOf(now, zone))) {
		return now
	}
	return b.slotAfter(b.LastChargeAt)
}

// slotAfter is the next day, at the time of day at which the subscription is
// charged anyway.
func (b Billable) slotAfter(slot time.Time) time.Time {
	zone := b.Schedule.Anchor.Zone
	date := dateOf(wallOf(slot, zone)).plus(1)
	anchor := wallOf(b.Schedule.Anchor.At, zone)
	return resolve(time.Date(date.year, date.month, date.day, anchor.Hour(), anchor.Minute(), anchor.Second(), 0, time.UTC), zone)
}

// wait says what comes after the plan, if the limit did not end it.
func (b Billable) wait(plan *Plan, now time.Time) error {
	if plan.State != "" {
		return nil
	}
	no := plan.NextPeriodNo
	for {
		start, err := b.Schedule.Boundary(no)
		if err != nil {
			return err
		}
		if !b.CancelAt.IsZero() && !start.Before(b.CancelAt) {
			plan.State = PlanStateEnded
			return nil
		}
		r, err := b.runFrom(no)
		if err != nil {
			return err
		}
		switch {
		case r.reason == SkipReasonPaused && b.openPause(no):
			plan.State = PlanStatePaused
			return nil
		case r.reason == "":
			plan.State, plan.NextDueAt = PlanStateScheduled, start
			return nil
		}
		no = r.last + 1
	}
}
