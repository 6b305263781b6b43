package billing

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the tests must not depend on the machine's zones

	"pgregory.net/rapid"
)

func mustZone(t testing.TB, name string) *time.Location {
	t.Helper()
	zone, err := LoadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func mustSchedule(t testing.TB, at, zone string, unit IntervalUnit, count int) Schedule {
	t.Helper()
	instant, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := NewAnchor(instant, zone)
	if err != nil {
		t.Fatal(err)
	}
	interval, err := NewInterval(unit, count)
	if err != nil {
		t.Fatal(err)
	}
	return Schedule{Anchor: anchor, Interval: interval}
}

func TestAnchor(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 9, 0, 0, 999, time.FixedZone("", 8*3600))

	t.Run("IsAnInstantAndAZone", func(t *testing.T) {
		t.Parallel()
		a, err := NewAnchor(at, "Asia/Manila")
		if err != nil {
			t.Fatal(err)
		}
		if got := a.At.Format(time.RFC3339Nano); got != "2026-01-31T01:00:00Z" || a.Zone.String() != "Asia/Manila" {
			t.Errorf("got %s in %s", got, a.Zone)
		}
	})

	t.Run("RefusesWhatIsNoZoneOfTheDatabase", func(t *testing.T) {
		t.Parallel()
		for name, why := range map[string]string{
			"":                            "is empty",
			"Local":                       "every machine",
			"Factory":                     "every machine",
			"Asia/Quezon":                 "not in the tz database",
			"Manila":                      "not in the tz database",
			"asia/manila":                 "not written like",
			"Asia/manila":                 "not written like",
			"localtime":                   "not written like",
			"posixrules":                  "not written like",
			"right/Asia/Manila":           "not written like",
			"posix/Asia/Manila":           "not written like",
			"../../etc/passwd":            "not written like",
			"/Asia/Manila":                "not written like",
			"Asia/../Manila":              "not written like",
			"Asia\\Manila":                "not written like",
			"Asia/Manila\x00":             "not written like",
			"+08:00":                      "not written like",
			"UTC+8":                       "not in the tz database",
			"A" + strings.Repeat("a", 99): "not written like",
		} {
			_, err := NewAnchor(at, name)
			if !errors.Is(err, ErrAnchor) || !strings.Contains(err.Error(), why) {
				t.Errorf("%q: %v; want %s", name, err, why)
			}
		}
	})

	t.Run("RefusesYearsThatAreMistakes", func(t *testing.T) {
		t.Parallel()
		for _, year := range []int{-1, 1, 26, 1969, 9989, 20260} {
			if _, err := NewAnchor(time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC), "UTC"); !errors.Is(err, ErrAnchor) {
				t.Errorf("year %d: %v", year, err)
			}
		}
		if _, err := NewAnchor(time.Time{}, "UTC"); !errors.Is(err, ErrAnchor) {
			t.Errorf("zero time: %v", err)
		}
	})

	t.Run("TakesEveryZoneOfTheDatabase", func(t *testing.T) {
		t.Parallel()
		for _, name := range zoneNames(t) {
			if _, err := NewAnchor(at, name); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestInterval(t *testing.T) {
	t.Parallel()
	for _, bad := range []Interval{
		{}, {"fortnight", 1}, {"Month", 1}, {IntervalUnitMonth, 0}, {IntervalUnitMonth, -1}, {IntervalUnitMonth, 121},
		{IntervalUnitDay, 3653}, {IntervalUnitWeek, 522}, {IntervalUnitYear, 11}, {IntervalUnitYear, math.MaxInt},
	} {
		if _, err := NewInterval(bad.Unit, bad.Count); !errors.Is(err, ErrInterval) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if got := (Interval{IntervalUnitMonth, 1}).String(); got != "every month" {
		t.Error(got)
	}
	if got := (Interval{IntervalUnitWeek, 2}).String(); got != "every 2 weeks" {
		t.Error(got)
	}
}

// TestSchedule tells the rule in examples. Boundaries are local wall times.
func TestSchedule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		at    string
		zone  string
		unit  IntervalUnit
		count int
		from  int
		want  string
	}{
		{"DayThirtyOneComesBack", "2026-01-31T09:00:00+08:00", "Asia/Manila", IntervalUnitMonth, 1, 0,
			"31 Jan 09:00, 28 Feb 09:00, 31 Mar 09:00, 30 Apr 09:00"},
		{"GridReachesBeforeTheAnchor", "2026-01-31T09:00:00+08:00", "Asia/Manila", IntervalUnitMonth, 1, -3,
			"31 Oct 09:00, 30 Nov 09:00, 31 Dec 09:00, 31 Jan 09:00"},
		{"LeapDayComesBackAfterFourYears", "2024-02-29T00:00:00Z", "UTC", IntervalUnitYear, 1, 1,
			"28 Feb 00:00, 28 Feb 00:00, 28 Feb 00:00, 29 Feb 00:00"},
		{"LocalDayCountsNotUTC", "2026-01-30T23:00:00Z", "Asia/Manila", IntervalUnitMonth, 1, 0,
			"31 Jan 07:00, 28 Feb 07:00, 31 Mar 07:00, 30 Apr 07:00"},
		{"QuartersKeepTheirMonths", "2025-11-30T12:00:00+01:00", "Europe/Berlin", IntervalUnitMonth, 3, 0,
			"30 Nov 12:00, 28 Feb 12:00, 30 May 12:00, 30 Aug 12:00"},
		{"WallTimeStaysOverSummerTime", "2026-03-28T09:00:00+01:00", "Europe/Berlin", IntervalUnitDay, 1, 0,
			"28 Mar 09:00, 29 Mar 09:00, 30 Mar 09:00, 31 Mar 09:00"},
		{"WeeksAreSevenCivilDays", "2026-03-01T01:30:00-05:00", "America/New_York", IntervalUnitWeek, 1, 0,
			"01 Mar 01:30, 08 Mar 01:30, 15 Mar 01:30, 22 Mar 01:30"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := mustSchedule(t, tt.at, tt.zone, tt.unit, tt.count)
			var got []string
			for k := tt.from; k < tt.from+4; k++ {
				b, err := s.Boundary(k)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b.In(s.Anchor.Zone).Format("02 Jan 15:04"))
			}
			if joined := strings.Join(got, ", "); joined != tt.want {
				t.Errorf("\n got %s\nwant %s", joined, tt.want)
			}
		})
	}

	t.Run("AnchorInASecondHourStays", func(t *testing.T) {
		t.Parallel()
		// 06:30Z is the second 01:30 of that night. The next day has only one.
		s := mustSchedule(t, "2007-11-04T06:30:00Z", "America/New_York", IntervalUnitDay, 1)
		wantBoundaries(t, s, -1, "2007-11-03T05:30:00Z", "2007-11-04T06:30:00Z", "2007-11-05T06:30:00Z")
	})

	t.Run("EmptyPeriodIsNeverFound", func(t *testing.T) {
		t.Parallel()
		// 30 December 2011 did not happen in Apia: period 1 keeps its number and is empty.
		s := mustSchedule(t, "2011-12-29T10:00:00-10:00", "Pacific/Apia", IntervalUnitDay, 1)
		wantBoundaries(t, s, 0, "2011-12-29T20:00:00Z", "2011-12-30T20:00:00Z", "2011-12-30T20:00:00Z", "2011-12-31T20:00:00Z")
		if p, err := s.Period(1); err != nil || !p.Empty() || p.Contains(p.Start) {
			t.Errorf("got %v, %v", p, err)
		}
		at := time.Date(2011, 12, 30, 20, 0, 0, 0, time.UTC)
		if p, ok := s.PeriodAt(at); !ok || p.No != 2 {
			t.Errorf("got %v, %t", p, ok)
		}
		if p, ok := s.PeriodAt(at.Add(-1)); !ok || p.No != 0 {
			t.Errorf("got %v, %t", p, ok)
		}
		if next, err := s.Next(at); err != nil || !next.Equal(at.Add(24*time.Hour)) {
			t.Errorf("got %v, %v", next, err)
		}
		if no, err := s.FirstNo(at); err != nil || no != 2 {
			t.Errorf("got %d, %v", no, err)
		}
	})

	t.Run("FirstNoIsNeverBelowZero", func(t *testing.T) {
		t.Parallel()
		s := mustSchedule(t, "2026-01-31T00:00:00Z", "UTC", IntervalUnitMonth, 1)
		for at, want := range map[string]int{
			"1999-01-01T00:00:00Z": 0, "2026-01-31T00:00:00Z": 0, "2026-01-31T00:00:01Z": 1,
			"2026-02-28T00:00:00Z": 1, "2026-02-28T00:00:01Z": 2,
		} {
			instant, err := time.Parse(time.RFC3339, at)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := s.FirstNo(instant); err != nil || got != want {
				t.Errorf("%s: got %d, %v; want %d", at, got, err, want)
			}
		}
	})

	t.Run("RangeHasAnEnd", func(t *testing.T) {
		t.Parallel()
		for _, unit := range []IntervalUnit{IntervalUnitDay, IntervalUnitWeek, IntervalUnitMonth, IntervalUnitYear} {
			for _, count := range []int{1, maxIntervalCount[unit]} {
				s := mustSchedule(t, "2026-01-31T09:00:00+08:00", "Asia/Manila", unit, count)
				for _, k := range []int{MaxPeriodNo, -MaxPeriodNo, MaxPeriodNo + 1, math.MaxInt, math.MinInt, math.MaxInt / 2} {
					if b, err := s.Boundary(k); !errors.Is(err, ErrPeriodRange) {
						t.Errorf("%s, %d: got %v, %v", s.Interval, k, b, err)
					}
				}
				for _, at := range []time.Time{{}, time.Unix(0, 0).AddDate(20000, 0, 0), time.Unix(math.MaxInt64/2, 0), time.Unix(math.MinInt64/2, 0)} {
					if p, ok := s.PeriodAt(at); ok && !p.Contains(at) {
						t.Errorf("%s at %v: got %v", s.Interval, at, p)
					}
				}
			}
		}
	})

	t.Run("ZeroValueAnswersWithErrors", func(t *testing.T) {
		t.Parallel()
		var s Schedule
		if _, err := s.Period(1); !errors.Is(err, ErrAnchor) || !errors.Is(err, ErrInterval) {
			t.Error(err)
		}
		if _, err := s.Next(time.Unix(0, 0)); err == nil {
			t.Error("no error")
		}
		if _, err := s.FirstNo(time.Unix(0, 0)); err == nil {
			t.Error("no error")
		}
		if _, ok := s.PeriodAt(time.Unix(0, 0)); ok {
			t.Error("a period")
		}
	})
}

func wantBoundaries(t *testing.T, s Schedule, from int, want ...string) {
	t.Helper()
	for i, w := range want {
		got, err := s.Boundary(from + i)
		if err != nil || got.Format(time.RFC3339) != w {
			t.Errorf("boundary %d: got %s, %v; want %s", from+i, got.Format(time.RFC3339), err, w)
		}
	}
}

// TestResolve is the table of wall times that do not exist or exist twice, worked
// out by hand from the tz database's rules.
func TestResolve(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ zone, wall, want, why string }{
		{"America/New_York", "2026-03-08 01:59", "2026-03-08T06:59:00Z", "before the gap"},
		{"America/New_York", "2026-03-08 02:00", "2026-03-08T07:00:00Z", "first minute of the gap, by -5"},
		{"America/New_York", "2026-03-08 02:30", "2026-03-08T07:30:00Z", "in the gap, by -5: shown as 03:30"},
		{"America/New_York", "2026-03-08 03:00", "2026-03-08T07:00:00Z", "after the gap, by -4"},
		{"America/New_York", "2026-11-01 00:59", "2026-11-01T04:59:00Z", "before the overlap"},
		{"America/New_York", "2026-11-01 01:30", "2026-11-01T05:30:00Z", "the first of two"},
		{"America/New_York", "2026-11-01 02:00", "2026-11-01T07:00:00Z", "after both"},
		{"Europe/Berlin", "2026-03-29 02:30", "2026-03-29T01:30:00Z", "in the gap, by +1"},
		{"Europe/Berlin", "2026-10-25 02:30", "2026-10-25T00:30:00Z", "the first, by +2"},
		{"Europe/Dublin", "2026-03-29 01:30", "2026-03-29T01:30:00Z", "summer is the standard there"},
		{"Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03T15:45:00Z", "a gap of half an hour, by +10:30"},
		{"Australia/Lord_Howe", "2026-04-05 01:45", "2026-04-04T14:45:00Z", "half an hour twice: the first, by +11"},
		{"Australia/Lord_Howe", "2026-04-05 02:00", "2026-04-04T15:30:00Z", "after both, by +10:30"},
		{"Pacific/Apia", "2011-12-29 23:59", "2011-12-30T09:59:00Z", "the last minute before the lost day"},
		{"Pacific/Apia", "2011-12-30 00:00", "2011-12-30T10:00:00Z", "the lost day, by -10"},
		{"Pacific/Apia", "2011-12-30 12:00", "2011-12-30T22:00:00Z", "the lost day, by -10"},
		{"Pacific/Apia", "2011-12-31 00:00", "2011-12-30T10:00:00Z", "the day after, by +14"},
		{"Pacific/Kwajalein", "1993-08-21 12:00", "1993-08-22T00:00:00Z", "another lost day, by -12"},
		{"Africa/Casablanca", "2024-03-10 02:30", "2024-03-10T01:30:00Z", "back for Ramadan: the first, by +1"},
		{"Africa/Casablanca", "2024-04-14 02:30", "2024-04-14T02:30:00Z", "on after Ramadan: in the gap, by +0"},
		{"Asia/Manila", "2026-06-12 09:00", "2026-06-12T01:00:00Z", "no summer time today"},
		{"Asia/Manila", "1978-03-22 00:30", "1978-03-21T16:30:00Z", "in the gap of 1978, by +8"},
		{"Asia/Manila", "1844-12-31 12:00", "1845-01-01T03:56:08Z", "the day lost on joining Asia, by -15:56:08"},
		{"America/Juneau", "1867-10-18 12:00", "1867-10-17T20:57:41Z", "a day twice on joining America: the first, by +15:02:19"},
		// On 31 December of a leap year ZoneBounds ends before it begins.
		{"America/New_York", "2048-12-31 12:00", "2048-12-31T17:00:00Z", "end of a leap year computed from a rule"},
		{"America/New_York", "2052-03-10 02:30", "2052-03-10T07:30:00Z", "a gap computed from a rule"},
		{"America/New_York", "2052-11-03 01:30", "2052-11-03T05:30:00Z", "an overlap computed from a rule"},
		{"Australia/Sydney", "2048-12-31 23:30", "2048-12-31T12:30:00Z", "the same in southern summer"},
	} {
		wall, err := time.Parse("2006-01-02 15:04", tt.wall)
		if err != nil {
			t.Fatal(err)
		}
		if got := resolve(wall, mustZone(t, tt.zone)).Format(time.RFC3339); got != tt.want {
			t.Errorf("%s %s: got %s, want %s (%s)", tt.zone, tt.wall, got, tt.want, tt.why)
		}
	}
}

// transition is a change of a zone's offset, found by looking at its clock.
type transition struct {
	at            time.Time
	before, after time.Duration
}

// transitions looks at a zone's clock every day and searches where it changed:
// not with ZoneBounds, which resolve uses.
func transitions(zone *time.Location, from, to time.Time) []transition {
	var found []transition
	const step = 24 * time.Hour
	for a := from; a.Before(to); a = a.Add(step) {
		before, after := offsetAt(a, zone), offsetAt(a.Add(step), zone)
		if before == after {
			continue
		}
		lo, hi := a, a.Add(step)
		for hi.Sub(lo) > time.Second {
			if mid := lo.Add(hi.Sub(lo) / 2).Truncate(time.Second); offsetAt(mid, zone) == before {
				lo = mid
			} else {
				hi = mid
			}
		}
		found = append(found, transition{hi, before, after})
	}
	return found
}

// TestResolveAtEveryTransition proves the rule: around each change of each zone's
// clock, what a wall time must become follows from the change alone.
func TestResolveAtEveryTransition(t *testing.T) {
	t.Parallel()
	from, to := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2061, 1, 1, 0, 0, 0, 0, time.UTC)
	names := zoneNames(t)
	if testing.Short() {
		names = []string{"America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "Asia/Manila"}
	}
	var gaps, overlaps int
	for _, name := range names {
		zone := mustZone(t, name)
		all := transitions(zone, from, to)
		for i, tr := range all {
			if i > 0 && tr.at.Sub(all[i-1].at) < 2*reach {
				t.Logf("%s: changes at %s and %s are close", name, all[i-1].at, tr.at)
			}
			width := (tr.after - tr.before).Abs()
			// The walls shown right before the change, and if time went on as before it.
			wall := tr.at.Add(tr.before)
			check := func(wall time.Time, want time.Time) {
				if got := resolve(wall, zone); !got.Equal(want) {
					t.Errorf("%s: change at %s from %s to %s: wall %s became %s, want %s", name,
						tr.at, tr.before, tr.after, wall.Format(time.DateTime), got, want)
				}
			}
			check(wall.Add(-width-time.Second), tr.at.Add(-width-time.Second))
			check(wall.Add(width), wall.Add(width-tr.after))
			inside := []time.Duration{0, time.Second, width / 2, width - time.Second}
			if tr.after > tr.before {
				gaps++
				check(wall.Add(-time.Second), tr.at.Add(-time.Second))
				for _, d := range inside { // not shown by any clock: the offset before
					check(wall.Add(d), tr.at.Add(d))
				}
			} else {
				overlaps++
				check(wall, tr.at.Add(tr.before-tr.after))
				for _, d := range inside { // shown twice: the first
					check(wall.Add(d-width), tr.at.Add(d-width))
				}
			}
		}
	}
	t.Logf("%d zones, %d gaps, %d overlaps", len(names), gaps, overlaps)
	if gaps < 100 || overlaps < 100 {
		t.Errorf("only %d gaps and %d overlaps were found", gaps, overlaps)
	}
}

// drawSchedule draws anchors from 1990 to 2060, more often than not near a change
// of the clock or at a month's end, where the rule is difficult.
func drawSchedule(t *rapid.T, zone *time.Location, changes []transition) Schedule {
	year := rapid.IntRange(1990, 2060).Draw(t, "year")
	month := time.Month(rapid.IntRange(1, 12).Draw(t, "month"))
	at := time.Date(year, month, rapid.IntRange(1, lastDay(year, month)).Draw(t, "day"), 0, 0,
		rapid.IntRange(0, secondsPerDay-1).Draw(t, "second"), 0, time.UTC)
	if len(changes) > 0 && rapid.Bool().Draw(t, "nearChange") {
		change := rapid.SampledFrom(changes).Draw(t, "change")
		at = change.at.Add(time.Duration(rapid.IntRange(-3*3600, 3*3600).Draw(t, "off")) * time.Second)
		at = at.AddDate(0, 0, -rapid.IntRange(0, 40).Draw(t, "daysBefore"))
	}
	unit := rapid.SampledFrom([]IntervalUnit{IntervalUnitDay, IntervalUnitWeek, IntervalUnitMonth, IntervalUnitYear}).Draw(t, "unit")
	count := rapid.IntRange(1, 4).Draw(t, "count")
	if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
		count = maxIntervalCount[unit]
	}
	anchor, err := NewAnchor(at, zone.String())
	if err != nil {
		t.Fatal(err)
	}
	return Schedule{Anchor: anchor, Interval: Interval{unit, count}}
}

// TestPeriodsTileTheTimeLine is the property of the rule, for every zone.
func TestPeriodsTileTheTimeLine(t *testing.T) {
	t.Parallel()
	from, to := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2061, 1, 1, 0, 0, 0, 0, time.UTC)
	names := zoneNames(t)
	if testing.Short() {
		names = []string{"America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "Asia/Manila"}
	}
	for _, name := range names {
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			zone := mustZone(t, name)
			changes := transitions(zone, from, to)
			rapid.Check(t, func(t *rapid.T) {
				s := drawSchedule(t, zone, changes)
				checkTiles(t, s, rapid.IntRange(-30, 900).Draw(t, "k"), rapid.Uint64().Draw(t, "within"))
			})
		})
	}
}

// fataler is what testing.T and rapid.T have in common here.
type fataler interface {
	Fatalf(format string, args ...any)
}

// checkTiles looks at period k and its neighbours.
func checkTiles(t fataler, s Schedule, k int, within uint64) {
	p, err := s.Period(k)
	q, errNext := s.Period(k + 1)
	if err := errors.Join(err, errNext); errors.Is(err, ErrPeriodRange) {
		return
	} else if err != nil {
		t.Fatalf("%v", err)
	}
	if !p.End.Equal(q.Start) {
		t.Fatalf("period %d ends %s, the next starts %s", k, p.End, q.Start)
	}
	// Asked for alone, and computed on from the anchor as the rule says.
	if alone, err := s.Boundary(k); err != nil || !alone.Equal(p.Start) {
		t.Fatalf("boundary %d is %s alone and %s before: %v", k, alone, p.Start, err)
	}
	checkWall(t, s, p)

	if p.End.Before(p.Start) {
		t.Fatalf("period %d runs backwards: %s to %s", k, p.Start, p.End)
	}
	if p.Empty() {
		// Only where a civil day never happened, and then by the rule.
		local := wallOf(p.Start, s.Anchor.Zone)
		if s.Interval != (Interval{IntervalUnitDay, 1}) || dateOf(local) == dateOf(wallOf(p.Start.Add(-24*time.Hour), s.Anchor.Zone)).plus(1) {
			t.Fatalf("period %d of %s is empty at %s", k, s.Interval, local)
		}
		if found, ok := s.PeriodAt(p.Start); !ok || found.No <= k {
			t.Fatalf("PeriodAt found %v for the end of the empty period %d", found, k)
		}
		return
	}
	at := p.Start.Add(time.Duration(within % uint64(p.End.Sub(p.Start))))
	for _, at := range []time.Time{p.Start, at, p.End.Add(-1)} {
		if found, ok := s.PeriodAt(at); !ok || found != p {
			t.Fatalf("PeriodAt(%s) is %v, want %v", at, found, p)
		}
		if next, err := s.Next(at); err != nil || !next.Equal(p.End) {
			t.Fatalf("Next(%s) is %s, %v; want %s", at, next, err, p.End)
		}
		if off := s.estimate(at) - k; off < -2 || off > 2 {
			t.Fatalf("the estimate for %s is off by %d: PeriodAt is not O(1)", at, off)
		}
	}
	if found, ok := s.PeriodAt(p.Start.Add(-1)); !ok || found.No >= k {
		t.Fatalf("PeriodAt right before period %d is %v, %t", k, found, ok)
	}
}

// checkWall compares the wall time of a boundary with the anchor's, by other
// means than addTo.
func checkWall(t fataler, s Schedule, p Period) {
	if p.No == 0 {
		if !p.Start.Equal(s.Anchor.At) {
			t.Fatalf("period 0 starts %s, not at the anchor %s", p.Start, s.Anchor.At)
		}
		return
	}
	anchor, wall := wallOf(s.Anchor.At, s.Anchor.Zone), wallOf(p.Start, s.Anchor.Zone)
	if resolve(wall, s.Anchor.Zone) != p.Start {
		t.Fatalf("boundary %d, %s, is the second of two", p.No, p.Start)
	}
	var want time.Time
	if n := p.No * s.Interval.days(); n != 0 {
		want = anchor.Add(time.Duration(n) * 24 * time.Hour)
		if n > 100_000 || n < -100_000 {
			want = anchor.AddDate(0, 0, n)
		}
	} else {
		first := time.Date(anchor.Year(), anchor.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, p.No*s.Interval.months(), 0)
		day := min(anchor.Day(), first.AddDate(0, 1, -1).Day())
		want = first.AddDate(0, 0, day-1).Add(anchor.Sub(anchor.Truncate(24 * time.Hour)))
	}
	if wall.Equal(want) {
		return
	}
	// A wall time that does not exist shows as later by the width of the gap.
	shift := wall.Sub(want)
	if shift < 0 || shift > 24*time.Hour || offsetAt(p.Start, s.Anchor.Zone)-offsetAt(p.Start.Add(-shift-1), s.Anchor.Zone) != shift {
		t.Fatalf("boundary %d shows %s, want %s", p.No, wall.Format(time.DateTime), want.Format(time.DateTime))
	}
}

func FuzzPeriods(f *testing.F) {
	f.Add(int64(1769821200), "Asia/Manila", "month", 1, 5, uint64(7))
	f.Add(int64(1325203200), "Pacific/Apia", "day", 1, 1, uint64(0))
	f.Add(int64(1194157800), "America/New_York", "day", 1, -1, uint64(1))
	f.Add(int64(253370764800), "UTC", "year", 10, MaxPeriodNo, uint64(1))
	f.Fuzz(func(t *testing.T, unix int64, zoneName, unit string, count, k int, within uint64) {
		anchor, err := NewAnchor(time.Unix(unix, 0), zoneName)
		if err != nil {
			return
		}
		interval, err := NewInterval(IntervalUnit(unit), count)
		if err != nil {
			return
		}
		checkTiles(t, Schedule{Anchor: anchor, Interval: interval}, k, within)
	})
}

func BenchmarkPeriodAt(b *testing.B) {
	s := mustSchedule(b, "1990-01-31T09:00:00+08:00", "America/New_York", IntervalUnitDay, 1)
	at := time.Date(2060, 3, 14, 7, 30, 0, 0, time.UTC)
	for b.Loop() {
		if _, ok := s.PeriodAt(at); !ok {
			b.Fatal("no period")
		}
	}
}

func ExampleSchedule() {
	anchor, err := NewAnchor(time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC), "Asia/Manila")
	if err != nil {
		panic(err)
	}
	monthly := Schedule{Anchor: anchor, Interval: Interval{IntervalUnitMonth, 1}}
	for k := range 3 {
		p, err := monthly.Period(k)
		if err != nil {
			panic(err)
		}
		fmt.Println(p.No, p.Start.In(anchor.Zone).Format("2 Jan 15:04"), "to", p.End.In(anchor.Zone).Format("2 Jan 15:04"))
	}
	// Output:
	// 0 31 Jan 09:00 to 28 Feb 09:00
	// 1 28 Feb 09:00 to 31 Mar 09:00
	// 2 31 Mar 09:00 to 30 Apr 09:00
}
