package billing

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// IntervalUnit is what an interval counts.
type IntervalUnit string

// Units of an interval. A day is a civil day in the anchor's zone, not 24 hours,
// and a week is seven of them.
const (
	IntervalUnitDay   IntervalUnit = "day"
	IntervalUnitWeek  IntervalUnit = "week"
	IntervalUnitMonth IntervalUnit = "month"
	IntervalUnitYear  IntervalUnit = "year"
)

// maxIntervalCount is about ten years of each unit: more than any of the billing
// systems compared in testdata/billing-dates.json uses, and too little to overflow.
var maxIntervalCount = map[IntervalUnit]int{
	IntervalUnitDay:   3652,
	IntervalUnitWeek:  521,
	IntervalUnitMonth: 120,
	IntervalUnitYear:  10,
}

var (
	// ErrInterval is at the root of every refused interval.
	ErrInterval = errors.New("not a billing interval")
	// ErrAnchor is at the root of every refused anchor, and so of every refused zone.
	ErrAnchor = errors.New("not an anchor")
	// ErrPeriodRange means a period beyond MaxPeriodNo or beyond the years 2 to 9998.
	ErrPeriodRange = errors.New("period out of range")
)

// Interval is how long a period is: Count times Unit.
type Interval struct {
	Unit  IntervalUnit
	Count int
}

// NewInterval refuses, with ErrInterval, unknown units and counts outside one to
// about ten years.
func NewInterval(unit IntervalUnit, count int) (Interval, error) {
	i := Interval{Unit: unit, Count: count}
	if err := i.Validate(); err != nil {
		return Interval{}, err
	}
	return i, nil
}

// Validate is for intervals that did not come from NewInterval.
func (i Interval) Validate() error {
	most, ok := maxIntervalCount[i.Unit]
	if !ok {
		return fmt.Errorf("%w: unit %q, want day, week, month or year", ErrInterval, clip(string(i.Unit)))
	}
	if i.Count < 1 || i.Count > most {
		return fmt.Errorf("%w: %d %ss, want 1 to %d", ErrInterval, i.Count, i.Unit, most)
	}
	return nil
}

// String reads "every month" or "every 3 months".
func (i Interval) String() string {
	if i.Count == 1 {
		return "every " + string(i.Unit)
	}
	return fmt.Sprintf("every %d %ss", i.Count, i.Unit)
}

// Years in which an anchor may lie. An anchor before 1970 is a zero value or a
// typing error; after the last year there is room for the longest interval.
const (
	firstAnchorYear = 1970
	lastAnchorYear  = 9988
)

// Anchor is the instant period 0 starts at and the zone in which the others are
// counted from it. At is in UTC.
type Anchor struct {
	At   time.Time
	Zone *time.Location
}

// NewAnchor needs an IANA zone name such as "Asia/Manila"; see LoadZone. Fractions
// below a microsecond, which PostgreSQL cannot store, are cut.
func NewAnchor(at time.Time, zoneName string) (Anchor, error) {
	zone, err := LoadZone(zoneName)
	if err != nil {
		return Anchor{}, err
	}
	a := Anchor{At: at.UTC().Truncate(time.Microsecond), Zone: zone}
	if err := a.Validate(); err != nil {
		return Anchor{}, err
	}
	return a, nil
}

// Validate is for anchors that did not come from NewAnchor.
func (a Anchor) Validate() error {
	if a.Zone == nil {
		return fmt.Errorf("%w: no time zone", ErrAnchor)
	}
	if y := a.At.Year(); a.At.IsZero() || y < firstAnchorYear || y > lastAnchorYear {
		return fmt.Errorf("%w: year %d, want %d to %d", ErrAnchor, y, firstAnchorYear, lastAnchorYear)
	}
	return nil
}

// zones remembers what LoadZone found: readZone reads a file every time,
// and a sweep asks for the same zone thousands of times. It holds at most the tz
// database, because only names found there get in.
var zones sync.Map // string to *time.Location

// LoadZone finds a zone of the embedded tz database, and refuses with ErrAnchor what would
// mean another zone on another machine: no name, "Local", and the helper files of
// a zoneinfo directory ("localtime", "posixrules", "right/..." whose clock counts
// leap seconds). Zone names begin with a capital in every part; the helpers do not.
func LoadZone(name string) (*time.Location, error) {
	if zone, ok := zones.Load(name); ok {
		return zone.(*time.Location), nil
	}
	refuse := func(why string) (*time.Location, error) {
		return nil, fmt.Errorf("%w: time zone %q %s", ErrAnchor, clip(name), why)
	}
	switch {
	case name == "":
		return refuse("is empty; write an IANA name such as Asia/Manila")
	case name == "Local" || name == "Factory":
		return refuse("is not a place: every machine would read it differently")
	case !isZoneName(name):
		return refuse("is not written like an IANA name such as Asia/Manila")
	}
	zone, found, err := readZone(name)
	switch {
	case !found:
		return refuse("is not in the tz database")
	case err != nil:
		return refuse("cannot be read: " + err.Error())
	}
	zones.Store(name, zone)
	return zone, nil
}

func isZoneName(name string) bool {
	if len(name) > 64 {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] < 'A' || part[0] > 'Z' {
			return false
		}
		for _, c := range []byte(part) {
			letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
			if !letter && (c < '0' || c > '9') && c != '_' && c != '+' && c != '-' {
				return false
			}
		}
	}
	return true
}

// Period is the half-open interval [Start, End), in UTC, that one invoice covers.
//
// It is empty where its only day never happened: in a daily schedule for the
// 30 December 2011 in Apia, which went from the 29th to the 31st. Such a period
// keeps its number and must not be charged.
type Period struct {
	No         int
	Start, End time.Time
}

// Contains reports whether t lies in the period. The end belongs to the next one.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start) && t.Before(p.End) }

// Empty reports that no time passes in the period.
func (p Period) Empty() bool { return !p.Start.Before(p.End) }

// MaxPeriodNo bounds the number of a period, counted from the anchor either way.
// Daily periods stay below it until the year 9998.
const MaxPeriodNo = 4_000_000

// Schedule is the periods of a subscription. Boundary k is the anchor's local
// wall-clock time plus k intervals, always counted from the anchor and never from
// the boundary before, so that a short month does not move the ones after it. A
// day the month does not have becomes its last day (31 January, 28 February, 31
// March). A wall time that does not exist takes the offset before the gap, and
// one that exists twice is the first of the two, as in RFC 5545 section 3.3.5.
//
// Boundary 0 is the anchor itself, even if that is the second of two. Numbers
// below 0 are the same grid before the anchor. They let PeriodAt and Next answer
// for any instant; nothing is ever charged for them.
//
// Boundaries never decrease, and two are equal only around an empty Period.
type Schedule struct {
	Anchor   Anchor
	Interval Interval
}

// Validate says what is wrong with the anchor or the interval.
func (s Schedule) Validate() error {
	return errors.Join(s.Anchor.Validate(), s.Interval.Validate())
}

// Boundary is the instant, in UTC, at which period k starts and period k-1 ends.
// It fails with ErrPeriodRange, or when the schedule is not valid.
func (s Schedule) Boundary(k int) (time.Time, error) {
	if err := s.Validate(); err != nil {
		return time.Time{}, err
	}
	return s.boundary(k)
}

func (s Schedule) boundary(k int) (time.Time, error) {
	if k > MaxPeriodNo || k < -MaxPeriodNo {
		return time.Time{}, fmt.Errorf("%w: number %d", ErrPeriodRange, k)
	}
	if k == 0 {
		return s.Anchor.At.UTC(), nil
	}
	wall, ok := s.Interval.addTo(wallOf(s.Anchor.At, s.Anchor.Zone), k)
	if !ok {
		return time.Time{}, fmt.Errorf("%w: boundary %d is not in the years 2 to 9998", ErrPeriodRange, k)
	}
	return resolve(wall, s.Anchor.Zone), nil
}

// Period is the period from Boundary(k) to Boundary(k+1). It fails as Boundary does.
func (s Schedule) Period(k int) (Period, error) {
	start, err := s.Boundary(k)
	if err != nil {
		return Period{}, err
	}
	end, err := s.boundary(k + 1)
	if err != nil {
		return Period{}, err
	}
	return Period{No: k, Start: start, End: end}, nil
}

// PeriodAt is the one period that contains t, which is never an empty one. Its No
// is negative if t is before the anchor. ok is false outside the range of
// Boundary and when the schedule is not valid. The cost does not depend on the
// distance from the anchor.
func (s Schedule) PeriodAt(t time.Time) (p Period, ok bool) {
	if s.Validate() != nil || t.Year() < 1 || t.Year() > 9999 {
		return Period{}, false
	}
	// The estimate is off by one where t is earlier in its day or month than the
	// anchor is in its own, and by one more around a skipped day.
	p, err := s.Period(s.estimate(t))
	for err == nil && t.Before(p.Start) {
		p, err = s.Period(p.No - 1)
	}
	for err == nil && !t.Before(p.End) {
		p, err = s.Period(p.No + 1)
	}
	return p, err == nil
}

// estimate divides what lies between the anchor and t, on the local calendar, by
// the interval.
func (s Schedule) estimate(t time.Time) int {
	from, to := wallOf(s.Anchor.At, s.Anchor.Zone), wallOf(t, s.Anchor.Zone)
	if months := s.Interval.months(); months != 0 {
		between := (to.Year()-from.Year())*12 + int(to.Month()) - int(from.Month())
		return floorDiv(between, months)
	}
	// Not with Sub, which ends at 292 years.
	return floorDiv(int((to.Unix()-from.Unix())/secondsPerDay), s.Interval.days())
}

// Next is the first boundary after t, strictly. It fails with ErrPeriodRange.
func (s Schedule) Next(t time.Time) (time.Time, error) {
	if err := s.Validate(); err != nil {
		return time.Time{}, err
	}
	p, ok := s.PeriodAt(t)
	if !ok {
		return time.Time{}, fmt.Errorf("%w: after %s", ErrPeriodRange, t.UTC().Format(time.RFC3339))
	}
	return p.End, nil
}

// FirstNo is the lowest number, from 0 on, of a period that starts at t or later.
// It fails with ErrPeriodRange.
func (s Schedule) FirstNo(t time.Time) (int, error) {
	if err := s.Validate(); err != nil {
		return 0, err
	}
	if !t.After(s.Anchor.At) {
		return 0, nil
	}
	p, ok := s.PeriodAt(t)
	if !ok {
		return 0, fmt.Errorf("%w: at %s", ErrPeriodRange, t.UTC().Format(time.RFC3339))
	}
	if p.Start.Equal(t) {
		return p.No, nil
	}
	return p.No + 1, nil
}

const secondsPerDay = 24 * 60 * 60

// months is 0 for intervals of days, days is 0 for intervals of months.
func (i Interval) months() int {
	switch i.Unit {
	case IntervalUnitMonth:
		return i.Count
	case IntervalUnitYear:
		return i.Count * 12
	default:
		return 0
	}
}

func (i Interval) days() int {
	switch i.Unit {
	case IntervalUnitDay:
		return i.Count
	case IntervalUnitWeek:
		return i.Count * 7
	default:
		return 0
	}
}

// addTo is k intervals after a wall time. It is calendar arithmetic, in which no
// zone takes part. ok is false outside the years 2 to 9998: whatever the
// offset, UTC then stays in the years 1 to 9999 that RFC 3339 can write.
func (i Interval) addTo(wall time.Time, k int) (_ time.Time, ok bool) {
	year, month, day := wall.Date()
	hour, minute, second := wall.Clock()
	if months := i.months(); months != 0 {
		// Counted from January of year 0; the year is checked before time.Date
		// sees it, and k is bounded, so that nothing overflows.
		total := year*12 + int(month) - 1 + k*months
		year, month = floorDiv(total, 12), time.Month(floorMod(total, 12)+1)
		if year < 2 || year > 9998 {
			return time.Time{}, false
		}
		day = min(day, lastDay(year, month))
	}
	// Days before or after the month are carried, also over centuries.
	sum := time.Date(year, month, day+k*i.days(), hour, minute, second, wall.Nanosecond(), time.UTC)
	return sum, sum.Year() >= 2 && sum.Year() <= 9998
}

// lastDay of a month: day 0 of the month after it.
func lastDay(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func floorDiv(a, b int) int {
	if a%b != 0 && (a < 0) != (b < 0) {
		return a/b - 1
	}
	return a / b
}

func floorMod(a, b int) int { return a - floorDiv(a, b)*b }

// wallOf is what a clock in the zone shows at t, kept as if it were UTC: a wall
// time has no instant of its own before resolve gives it one.
func wallOf(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// reach is more than any offset from UTC has ever been, 15:56:08 in Manila until
// 1844 being the largest, so that the instants of a wall time lie within reach of it.
const reach = 24 * time.Hour

// resolve gives a wall time its instant: the first of two, and in a gap the one
// that the offset before the gap makes of it. time.Date leaves both cases open
// ("it does not guarantee which"), so the offsets are tried one by one.
func resolve(wall time.Time, zone *time.Location) time.Time {
	offsets := offsetsAround(wall, zone)
	var first time.Time
	for _, offset := range offsets {
		t := wall.Add(-offset)
		if offsetAt(t, zone) == offset && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if !first.IsZero() {
		return first
	}
	// No offset shows this wall time. In the gap that swallowed it the clock went
	// from offset before to offset after: read with the one, it is already the
	// other's time, and the other way round.
	for i := 1; i < len(offsets); i++ {
		before, after := offsets[i-1], offsets[i]
		if after > before && offsetAt(wall.Add(-before), zone) == after && offsetAt(wall.Add(-after), zone) == before {
			return wall.Add(-before)
		}
	}
	// Only if two transitions lay closer together than the gap is wide, which the
	// tests rule out for the tz database. Still the offset from before.
	return wall.Add(-offsets[0])
}

func offsetAt(t time.Time, zone *time.Location) time.Duration {
	_, offset := t.In(zone).Zone()
	return time.Duration(offset) * time.Second
}

// offsetsAround is the offsets in force within reach of a wall time, in the order
// of time. It has one element but for the days around a transition.
func offsetsAround(wall time.Time, zone *time.Location) []time.Duration {
	t, last := wall.Add(-reach).In(zone), wall.Add(reach)
	offsets := make([]time.Duration, 0, 2)
	for {
		if offset := offsetAt(t, zone); len(offsets) == 0 || offsets[len(offsets)-1] != offset {
			offsets = append(offsets, offset)
		}
		_, end := t.ZoneBounds()
		if end.IsZero() || end.After(last) {
			return offsets
		}
		// ZoneBounds takes every year to have 365 days where it computes from a
		// rule (time/zoneinfo.go, tzset): on 31 December of a leap year the end is
		// not after t. An hour on, it is a new year.
		if !end.After(t) {
			end = t.Add(time.Hour)
		}
		if t = end; t.After(last) {
			return offsets
		}
	}
}
