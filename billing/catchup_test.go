package billing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// localTime reads "01-31 09:00" of 2026 in Manila, or with a year in front; "" is
// the zero time.
func localTime(t testing.TB, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	if len(s) == len("01-31 09:00") {
		s = "2026-" + s
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", s, mustZone(t, "Asia/Manila"))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// planString writes a plan in one line: opened periods with their charge, skips,
// the next number and what comes.
func planString(p Plan, zone *time.Location) string {
	short := func(t time.Time) string { return t.In(zone).Format("01-02 15:04") }
	var parts []string
	for _, d := range p.Open {
		parts = append(parts, fmt.Sprintf("open %d from %s charge %s", d.No, short(d.Start), short(d.ChargeNotBefore)))
	}
	for _, s := range p.Skipped {
		parts = append(parts, fmt.Sprintf("skip %d-%d %s", s.First, s.Last, s.Reason))
	}
	next := fmt.Sprintf("next %d %s", p.NextPeriodNo, p.State)
	if !p.NextDueAt.IsZero() {
		next += " " + short(p.NextDueAt)
	}
	if p.Missed > 0 {
		next += fmt.Sprintf(" missed %d", p.Missed)
	}
	return strings.Join(append(parts, next), "; ")
}

func TestPlanDue(t *testing.T) {
	t.Parallel()
	type facts struct {
		anchor, billFrom, trialEnd, cancelAt, lastCharge string // anchor defaults to 01-31 09:00
		pauses                                           [][2]string
		unit                                             IntervalUnit // month by default
		zone                                             string       // Asia/Manila by default
		next                                             int
		limit                                            int // 10 by default
	}
	for _, tt := range []struct {
		name   string
		facts  facts
		policy CatchUp
		now    string
		want   string
	}{
		{"NothingBeforeTheAnchor", facts{}, CatchUpBillAll, "01-31 08:59", "next 0 scheduled 01-31 09:00"},
		{"FirstPeriodAtTheAnchor", facts{}, CatchUpBillAll, "01-31 09:00", "open 0 from 01-31 09:00 charge 01-31 09:00; next 1 scheduled 02-28 09:00"},
		{"NothingTwice", facts{next: 1}, CatchUpBillAll, "02-20 09:00", "next 1 scheduled 02-28 09:00"},
		{"LateTickLosesNothing", facts{next: 1}, CatchUpAsk, "03-30 23:00", "open 1 from 02-28 09:00 charge 03-30 23:00; next 2 scheduled 03-31 09:00"},

		// 95 days of outage: hazard A3.
		{"BillAllOldestFirstOneADay", facts{next: 1}, CatchUpBillAll, "05-06 12:00",
			"open 1 from 02-28 09:00 charge 05-06 12:00; open 2 from 03-31 09:00 charge 05-07 09:00; open 3 from 04-30 09:00 charge 05-08 09:00; next 4 scheduled 05-31 09:00"},
		{"BillAllStopsAtTheLimit", facts{next: 1, limit: 2}, CatchUpBillAll, "05-06 12:00",
			"open 1 from 02-28 09:00 charge 05-06 12:00; open 2 from 03-31 09:00 charge 05-07 09:00; next 3 more 04-30 09:00"},
		{"BillAllGoesOnTheDayAfter", facts{next: 3, limit: 2, lastCharge: "05-07 09:00"}, CatchUpBillAll, "05-06 12:01",
			"open 3 from 04-30 09:00 charge 05-08 09:00; next 4 scheduled 05-31 09:00"},
		{"ChargedTodayWaitsForTomorrow", facts{unit: IntervalUnitDay, next: 4, lastCharge: "02-04 00:10"}, CatchUpBillAll, "02-04 23:50",
			"open 4 from 02-04 09:00 charge 02-05 09:00; next 5 scheduled 02-05 09:00"},
		{"ChargedYesterdayIsChargedNow", facts{unit: IntervalUnitDay, next: 4, lastCharge: "02-03 23:59"}, CatchUpBillAll, "02-04 09:00",
			"open 4 from 02-04 09:00 charge 02-04 09:00; next 5 scheduled 02-05 09:00"},

		{"BillCurrentForgoesWhatIsOver", facts{next: 1}, CatchUpBillCurrent, "05-06 12:00",
			"open 3 from 04-30 09:00 charge 05-06 12:00; skip 1-2 missed; next 4 scheduled 05-31 09:00"},
		{"BillCurrentWithOneDue", facts{next: 1}, CatchUpBillCurrent, "03-01 00:00", "open 1 from 02-28 09:00 charge 03-01 00:00; next 2 scheduled 03-31 09:00"},
		{"BillCurrentOverCenturiesIsOneSkip", facts{anchor: "1971-01-01 00:00", unit: IntervalUnitDay}, CatchUpBillCurrent, "01-02 12:00",
			"open 20090 from 01-02 00:00 charge 01-02 12:00; skip 0-20089 missed; next 20091 scheduled 01-03 00:00"},
		{"BillCurrentForgoesTheLastPeriodOnceOver", facts{next: 1, cancelAt: "03-31 09:00"}, CatchUpBillCurrent, "05-06 12:00", "skip 1-1 missed; next 2 ended"},

		{"AskLeavesEverything", facts{next: 1}, CatchUpAsk, "05-06 12:00", "next 1 ask missed 3"},
		{"AskAlsoForOneThatIsOver", facts{next: 1, cancelAt: "03-31 09:00"}, CatchUpAsk, "05-06 12:00", "next 1 ask missed 1"},
		{"AskDoesNotAskAboutATrial", facts{trialEnd: "04-30 09:00"}, CatchUpAsk, "05-06 12:00",
			"open 3 from 04-30 09:00 charge 05-06 12:00; skip 0-2 trial; next 4 scheduled 05-31 09:00"},

		{"BillFromNeverBillsThePast", facts{anchor: "2025-01-31 09:00", billFrom: "02-28 09:00"}, CatchUpBillAll, "02-28 09:00",
			"open 13 from 02-28 09:00 charge 02-28 09:00; skip 0-12 before_bill_from; next 14 scheduled 03-31 09:00"},
		{"BillFromWithinAPeriodMeansTheNextBoundary", facts{billFrom: "02-15 00:00"}, CatchUpBillAll, "02-20 00:00", "skip 0-0 before_bill_from; next 1 scheduled 02-28 09:00"},
		{"BillFromInTheFutureSkipsOnlyWhatHasBegun", facts{billFrom: "05-31 09:00"}, CatchUpBillAll, "03-01 00:00", "skip 0-1 before_bill_from; next 2 scheduled 05-31 09:00"},
		{"TrialIsFree", facts{trialEnd: "03-31 09:00"}, CatchUpBillAll, "04-01 00:00",
			"open 2 from 03-31 09:00 charge 04-01 00:00; skip 0-1 trial; next 3 scheduled 04-30 09:00"},

		{"PausedWaits", facts{next: 1, pauses: [][2]string{{"02-10 00:00", ""}}}, CatchUpBillAll, "05-06 12:00", "next 1 paused"},
		{"DueBeforeThePauseIsStillBilled", facts{next: 1, pauses: [][2]string{{"03-10 00:00", ""}}}, CatchUpBillAll, "05-06 12:00",
			"open 1 from 02-28 09:00 charge 05-06 12:00; next 2 paused"},
		{"ResumedSkipsThePause", facts{next: 1, pauses: [][2]string{{"02-10 00:00", "04-15 00:00"}}}, CatchUpBillAll, "05-06 12:00",
			"open 3 from 04-30 09:00 charge 05-06 12:00; skip 1-2 paused; next 4 scheduled 05-31 09:00"},
		{"TwoPausesThatOverlap", facts{next: 1, pauses: [][2]string{{"04-10 00:00", "04-29 00:00"}, {"02-10 00:00", "03-15 00:00"}, {"03-01 00:00", "04-01 00:00"}}},
			CatchUpBillAll, "05-06 12:00", "open 3 from 04-30 09:00 charge 05-06 12:00; skip 1-1 paused; skip 2-2 paused; next 4 scheduled 05-31 09:00"},
		{"PauseFromABoundaryOnSkipsIt", facts{next: 1, pauses: [][2]string{{"02-28 09:00", "03-31 09:00"}}}, CatchUpBillAll, "03-31 09:00",
			"open 2 from 03-31 09:00 charge 03-31 09:00; skip 1-1 paused; next 3 scheduled 04-30 09:00"},
		{"PauseBetweenBoundariesSkipsNothing", facts{next: 1, pauses: [][2]string{{"03-01 00:00", "03-30 00:00"}}}, CatchUpBillAll, "03-31 09:00",
			"open 1 from 02-28 09:00 charge 03-31 09:00; open 2 from 03-31 09:00 charge 04-01 09:00; next 3 scheduled 04-30 09:00"},
		{"PauseAheadIsNotSkippedYet", facts{next: 1, pauses: [][2]string{{"03-15 00:00", "04-15 00:00"}}}, CatchUpBillAll, "03-01 00:00",
			"open 1 from 02-28 09:00 charge 03-01 00:00; next 2 scheduled 04-30 09:00"},
		{"BillCurrentAfterAPause", facts{next: 1, pauses: [][2]string{{"03-15 00:00", "04-15 00:00"}}}, CatchUpBillCurrent, "05-06 12:00",
			"open 3 from 04-30 09:00 charge 05-06 12:00; skip 1-1 missed; skip 2-2 paused; next 4 scheduled 05-31 09:00"},

		{"CancelledNow", facts{next: 1, cancelAt: "02-10 00:00"}, CatchUpBillAll, "02-10 00:00", "next 1 ended"},
		{"CancelledAtPeriodEnd", facts{next: 1, cancelAt: "03-31 09:00"}, CatchUpBillAll, "03-31 09:00",
			"open 1 from 02-28 09:00 charge 03-31 09:00; next 2 ended"},
		{"CancelledBeforeItBegan", facts{cancelAt: "01-01 00:00"}, CatchUpBillAll, "05-06 12:00", "next 0 ended"},
		{"CancelledLaterGoesOnUntilThen", facts{next: 1, cancelAt: "03-01 00:00"}, CatchUpBillAll, "02-28 09:00", "open 1 from 02-28 09:00 charge 02-28 09:00; next 2 ended"},
		{"CancelledWhilePaused", facts{next: 1, cancelAt: "04-01 00:00", pauses: [][2]string{{"02-10 00:00", ""}}}, CatchUpBillAll, "05-06 12:00", "skip 1-2 paused; next 3 ended"},

		{"EmptyPeriodIsSkipped", facts{anchor: "2011-12-30 04:00", unit: IntervalUnitDay, zone: "Pacific/Apia"}, CatchUpBillAll, "2011-12-31 23:00",
			"open 0 from 12-29 10:00 charge 01-01 05:00; open 2 from 12-31 10:00 charge 01-02 10:00; skip 1-1 empty; next 3 scheduled 01-01 10:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := tt.facts
			zone := orElse(f.zone, "Asia/Manila")
			anchor, err := NewAnchor(localTime(t, orElse(f.anchor, "01-31 09:00")), zone)
			if err != nil {
				t.Fatal(err)
			}
			b := Billable{
				Schedule:     Schedule{anchor, Interval{IntervalUnit(orElse(string(f.unit), "month")), 1}},
				NextPeriodNo: f.next, BillFrom: localTime(t, f.billFrom), TrialEnd: localTime(t, f.trialEnd),
				CancelAt: localTime(t, f.cancelAt), LastChargeAt: localTime(t, f.lastCharge),
			}
			for _, p := range f.pauses {
				b.Pauses = append(b.Pauses, Pause{localTime(t, p[0]), localTime(t, p[1])})
			}
			limit := f.limit
			if limit == 0 {
				limit = 10
			}
			plan, err := PlanDue(b, tt.policy, localTime(t, tt.now), limit)
			if err != nil {
				t.Fatal(err)
			}
			if got := planString(plan, anchor.Zone); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}

	t.Run("RefusesWhatItCannotPlan", func(t *testing.T) {
		t.Parallel()
		good := Billable{Schedule: mustSchedule(t, "2026-01-31T09:00:00+08:00", "Asia/Manila", IntervalUnitMonth, 1)}
		now := localTime(t, "02-01 00:00")
		if _, err := PlanDue(Billable{}, CatchUpBillAll, now, 1); !errors.Is(err, ErrAnchor) {
			t.Error(err)
		}
		if _, err := PlanDue(good, "bill_some", now, 1); err == nil {
			t.Error("an unknown policy")
		}
		if _, err := PlanDue(good, CatchUpBillAll, now, 0); err == nil {
			t.Error("no limit")
		}
		if _, err := PlanDue(Billable{Schedule: good.Schedule, NextPeriodNo: -1}, CatchUpBillAll, now, 1); err == nil {
			t.Error("a number below 0")
		}
		if _, err := PlanDue(good, CatchUpBillAll, now.AddDate(9000, 0, 0), 1); !errors.Is(err, ErrPeriodRange) {
			t.Error(err)
		}
	})
}

// TestPlansLoseNothing is P1 and P2 for the planner: whenever it is asked and
// however small the limit, every period that has begun is opened or skipped, each
// exactly once and in order, and no two charges of a catch-up fall on one day.
func TestPlansLoseNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"Asia/Manila", "America/New_York", "Pacific/Apia"}).Draw(t, "zone")
		start := time.Date(2011, 10, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 100*24*60).Draw(t, "start")) * time.Minute)
		anchor, err := NewAnchor(start, zone)
		if err != nil {
			t.Fatal(err)
		}
		unit := rapid.SampledFrom([]IntervalUnit{IntervalUnitDay, IntervalUnitWeek, IntervalUnitMonth}).Draw(t, "unit")
		hour := func(name string) time.Time {
			h := rapid.IntRange(-1, 200*24).Draw(t, name)
			if h < 0 {
				return time.Time{}
			}
			return start.Add(time.Duration(h) * time.Hour)
		}
		b := Billable{
			Schedule: Schedule{anchor, Interval{unit, rapid.IntRange(1, 3).Draw(t, "count")}},
			BillFrom: hour("billFrom"), TrialEnd: hour("trialEnd"), CancelAt: hour("cancelAt"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "pauses") {
			if from := hour("from"); !from.IsZero() {
				b.Pauses = append(b.Pauses, Pause{from, from.Add(time.Duration(rapid.IntRange(0, 60*24).Draw(t, "for")) * time.Hour)})
			}
		}
		policy := rapid.SampledFrom([]CatchUp{CatchUpBillAll, CatchUpBillCurrent}).Draw(t, "policy")
		now, end := start, start.AddDate(0, 0, 200)
		seen := map[int]SkipReason{}
		see := func(no int, reason SkipReason) {
			if no != len(seen) {
				t.Fatalf("period %d came after %d others", no, len(seen))
			}
			seen[no] = reason
		}
		for now.Before(end) {
			now = now.Add(time.Duration(rapid.IntRange(1, 40*24*60).Draw(t, "sleep")) * time.Minute)
			for range 10_000 {
				plan, err := PlanDue(b, policy, now, rapid.IntRange(1, 5).Draw(t, "limit"))
				if err != nil {
					t.Fatal(err)
				}
				checkPlan(t, b, plan, now, see)
				b.NextPeriodNo = plan.NextPeriodNo
				if len(plan.Open) > 0 {
					b.LastChargeAt = plan.Open[len(plan.Open)-1].ChargeNotBefore
				}
				if plan.State != PlanStateMore {
					break
				}
			}
			checkSeen(t, b, seen, policy, now)
		}
	})
}

// checkPlan walks through a plan in the order of the periods.
func checkPlan(t *rapid.T, b Billable, plan Plan, now time.Time, see func(int, SkipReason)) {
	open, skipped := plan.Open, plan.Skipped
	for no := b.NextPeriodNo; no < plan.NextPeriodNo; no++ {
		if len(open) > 0 && open[0].No == no {
			day := dateOf(wallOf(open[0].ChargeNotBefore, b.Schedule.Anchor.Zone))
			if open[0].Start.After(now) || open[0].ChargeNotBefore.Before(now) ||
				!b.LastChargeAt.IsZero() && !dateOf(wallOf(b.LastChargeAt, b.Schedule.Anchor.Zone)).before(day) {
				t.Fatalf("opened %+v at %s, after a charge at %s", open[0], now, b.LastChargeAt)
			}
			b.LastChargeAt, open = open[0].ChargeNotBefore, open[1:]
			see(no, "")
			continue
		}
		if len(skipped) == 0 || no < skipped[0].First || no > skipped[0].Last {
			t.Fatalf("period %d is neither opened nor skipped in %s", no, planString(plan, time.UTC))
		}
		see(no, skipped[0].Reason)
		if no == skipped[0].Last {
			skipped = skipped[1:]
		}
	}
	if len(open)+len(skipped) != 0 {
		t.Fatalf("left over: %v, %v of %s", open, skipped, planString(plan, time.UTC))
	}
	if (plan.State == PlanStateScheduled && !plan.NextDueAt.After(now)) || (plan.State == PlanStateMore && plan.NextDueAt.After(now)) {
		t.Fatalf("at %s: %s", now, planString(plan, time.UTC))
	}
}

// checkSeen asks of every period that has begun what its fate must be, by itself.
func checkSeen(t *rapid.T, b Billable, seen map[int]SkipReason, policy CatchUp, now time.Time) {
	for no := 0; ; no++ {
		p, err := b.Schedule.Period(no)
		if err != nil {
			t.Fatal(err)
		}
		reason, found := seen[no]
		if p.Start.After(now) || !b.CancelAt.IsZero() && !p.Start.Before(b.CancelAt) {
			if found {
				t.Fatalf("period %d was not due at %s", no, now)
			}
			return
		}
		paused := false
		for _, pause := range b.Pauses {
			paused = paused || pause.contains(p.Start)
		}
		want := SkipReason("")
		switch {
		case p.Start.Before(b.BillFrom):
			want = SkipReasonBillFrom
		case p.Start.Before(b.TrialEnd):
			want = SkipReasonTrial
		case paused:
			want = SkipReasonPaused
		case p.Empty():
			want = SkipReasonEmpty
		}
		if missed := policy == CatchUpBillCurrent && reason == SkipReasonMissed && (want == "" || want == SkipReasonEmpty); missed {
			want = SkipReasonMissed
		}
		if !found || reason != want {
			t.Fatalf("period %d at %s: found %t, %q; want %q", no, now, found, reason, want)
		}
	}
}

// TestSpread: whatever a customer's subscriptions have to catch up with, it is one
// charge a day, oldest first, and none on the day of one that was planned before.
func TestSpread(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zone, err := LoadZone("Asia/Manila")
		if err != nil {
			t.Fatal(err)
		}
		day := func(t time.Time) string { return t.In(zone).Format(time.DateOnly) }
		now := time.Date(2026, 5, 6, rapid.IntRange(0, 23).Draw(t, "hour"), 0, 0, 0, time.UTC)
		about := func(name string) time.Time {
			return now.Add(time.Duration(rapid.IntRange(-100*24, 20*24).Draw(t, name)) * time.Hour)
		}
		last := about("last")
		var all []catchUp
		for range rapid.IntRange(1, 4).Draw(t, "subscriptions") {
			anchor, err := NewAnchor(about("anchor"), "Asia/Manila")
			if err != nil {
				t.Fatal(err)
			}
			b := Billable{Schedule: Schedule{anchor, Interval{IntervalUnitWeek, 1}}, LastChargeAt: about("charged")}
			c := catchUp{billable: b}
			for no := range rapid.IntRange(0, 5).Draw(t, "periods") {
				p, err := b.Schedule.Period(no)
				if err != nil {
					t.Fatal(err)
				}
				c.open = append(c.open, DuePeriod{Period: p})
			}
			all = append(all, c)
		}
		got := spread(all, last, now)
		var charges []DuePeriod
		for _, c := range all {
			for i, p := range c.open {
				if at := p.ChargeNotBefore; at.Before(now) || day(at) <= day(last) || day(at) <= day(c.billable.LastChargeAt) && i == 0 {
					t.Fatalf("at %s, after %s: charge at %s", now, last, at)
				}
			}
			charges = append(charges, c.open...)
		}
		slices.SortFunc(charges, func(a, b DuePeriod) int { return a.ChargeNotBefore.Compare(b.ChargeNotBefore) })
		for i := 1; i < len(charges); i++ {
			if day(charges[i-1].ChargeNotBefore) == day(charges[i].ChargeNotBefore) || charges[i].Start.Before(charges[i-1].Start) {
				t.Fatalf("%+v", charges)
			}
		}
		if len(charges) > 0 && !got.Equal(charges[len(charges)-1].ChargeNotBefore) {
			t.Fatalf("the last is %s of %+v", got, charges)
		}
	})
}

func TestParseCatchUp(t *testing.T) {
	t.Parallel()
	var got []CatchUp
	for _, s := range []string{"bill_all", "bill_current", "ask", "", "BILL_ALL", "none"} {
		if c, err := ParseCatchUp(s); err == nil {
			got = append(got, c)
		}
	}
	if diff := cmp.Diff([]CatchUp{CatchUpBillAll, CatchUpBillCurrent, CatchUpAsk}, got); diff != "" {
		t.Error(diff)
	}
}
