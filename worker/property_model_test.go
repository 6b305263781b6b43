package worker_test

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
)

// terms are a plan's.
type terms struct {
	id       uuid.UUID
	name     string
	minor    int64
	interval billing.Interval
	catchUp  billing.CatchUp
}

// debt is what the model says about a period that must have an invoice.
type debt struct {
	start, end time.Time
	minor      int64
}

// agreement is the reference model of one subscription: which periods must have
// been opened or skipped by now. It knows period boundaries and nothing of the
// sweep.
type agreement struct {
	id       uuid.UUID
	name     string
	customer string

	terms    terms
	next     *terms // from the next period on
	anchor   time.Time
	anchorNo int
	trialEnd time.Time
	pauses   []billing.Pause
	cancelAt time.Time

	cursor int       // the first period that is neither opened nor skipped
	wake   time.Time // when a sweep must do something; zero: never
	paused bool
	ended  bool

	opened  map[int]debt
	skipped map[int]billing.SkipReason
}

func (a *agreement) clone() *agreement {
	c := *a
	c.pauses, c.opened, c.skipped = slices.Clone(a.pauses), maps.Clone(a.opened), maps.Clone(a.skipped)
	return &c
}

func (a *agreement) schedule() billing.Schedule {
	anchor, err := billing.NewAnchor(a.anchor, "Asia/Manila")
	if err != nil {
		panic(err) // a fixed zone
	}
	return billing.Schedule{Anchor: anchor, Interval: a.terms.interval}
}

func (a *agreement) boundary(no int) time.Time {
	at, err := a.schedule().Boundary(no - a.anchorNo)
	if err != nil {
		panic(fmt.Errorf("boundary %d: %w", no, err)) // a few months are no range
	}
	return at
}

// over tells that periods which start then never come.
func (a *agreement) over(start time.Time) bool {
	return !a.cancelAt.IsZero() && !start.Before(a.cancelAt)
}

func (a *agreement) free(start time.Time) billing.SkipReason {
	if start.Before(a.trialEnd) {
		return billing.SkipReasonTrial
	}
	for _, p := range a.pauses {
		// Without an end it goes on: until a cancellation that was asked for meanwhile.
		if !start.Before(p.From) && (p.To.IsZero() || start.Before(p.To)) {
			return billing.SkipReasonPaused
		}
	}
	return ""
}

// opensAtOnce is how many periods one sweep opens.
const opensAtOnce = 12

// sweep is what one sweep at now must do.
func (a *agreement) sweep(now time.Time) {
	if a.wake.IsZero() || a.wake.After(now) {
		return
	}
	if n := a.next; n != nil {
		if n.interval != a.terms.interval {
			a.anchor, a.anchorNo = a.boundary(a.cursor), a.cursor
		}
		a.terms, a.next = *n, nil
	}
	last := a.cursor - 1
	for start := a.boundary(a.cursor); !start.After(now) && !a.over(start); start = a.boundary(last + 1) {
		last++
	}
	forgo := a.terms.catchUp == billing.CatchUpBillCurrent
	running := a.boundary(last+1).After(now) && (a.cancelAt.IsZero() || a.cancelAt.After(now))
	opened := 0
	for ; a.cursor <= last; a.cursor++ {
		start := a.boundary(a.cursor)
		reason := a.free(start)
		if reason == "" && forgo && (a.cursor < last || !running) {
			reason = billing.SkipReasonMissed
		}
		if reason != "" {
			a.skipped[a.cursor] = reason
			continue
		}
		if opened == opensAtOnce {
			a.wake = start
			return
		}
		opened++
		a.opened[a.cursor] = debt{start, a.boundary(a.cursor + 1), a.terms.minor}
	}
	for no := a.cursor; ; no++ {
		start := a.boundary(no)
		switch {
		case a.over(start):
			a.end()
			return
		case a.free(start) == "":
			a.wake = start
			return
		}
	}
}

func (a *agreement) end() {
	a.ended, a.paused, a.wake, a.next = true, false, time.Time{}, nil
}

func (a *agreement) pause(now time.Time) {
	a.paused, a.wake = true, time.Time{}
	a.pauses = append(a.pauses, billing.Pause{From: now})
}

func (a *agreement) resume(now time.Time) {
	a.closePause(now)
	a.paused, a.wake = false, a.boundary(a.cursor)
	if !a.cancelAt.IsZero() {
		a.wake = minTime(a.wake, a.cancelAt) // what was skipped may lie behind it, where the clock went back
	}
}

func (a *agreement) closePause(now time.Time) {
	for i := range a.pauses {
		if a.pauses[i].To.IsZero() {
			a.pauses[i].To = now
		}
	}
}

func (a *agreement) cancelAtPeriodEnd(now time.Time) {
	end, err := a.schedule().Next(now)
	if err != nil {
		panic(err)
	}
	for _, billed := range a.opened { // more than runs, where the clock went back
		end = maxTime(end, billed.end)
	}
	a.cancelAt = end
	if a.wake.IsZero() || a.wake.After(end) {
		a.wake = end
	}
}

func (a *agreement) change(to terms) {
	a.next = &to
	if to.id == a.terms.id {
		a.next = nil
	}
}

// subscriptionRow is a subscription as the books have it.
type subscriptionRow struct {
	ID         uuid.UUID
	Status     string
	NextNo     int
	NextDueAt  *time.Time
	Plan       uuid.UUID
	NextPlan   *uuid.UUID
	ParkReason string
}

// differs says where the books are not as the model is.
func (a *agreement) differs(row subscriptionRow) string {
	due, plan := time.Time{}, uuid.Nil
	if row.NextDueAt != nil {
		due = *row.NextDueAt
	}
	if row.NextPlan != nil {
		plan = *row.NextPlan
	}
	want := uuid.Nil
	if a.next != nil {
		want = a.next.id
	}
	switch {
	case row.ParkReason != "":
		return "parked: " + row.ParkReason
	case row.NextNo != a.cursor:
		return fmt.Sprintf("next period %d, want %d", row.NextNo, a.cursor)
	case !due.Equal(a.wake):
		return fmt.Sprintf("due at %s, want %s", due.UTC(), a.wake.UTC())
	case row.Plan != a.terms.id || plan != want:
		return fmt.Sprintf("plan %s then %s, want %s then %s", row.Plan, plan, a.terms.id, want)
	case (row.Status == billing.SubscriptionCancelled) != a.ended || (row.Status == billing.SubscriptionPaused) != a.paused:
		return fmt.Sprintf("status %s, want ended %t, paused %t", row.Status, a.ended, a.paused)
	}
	return ""
}
