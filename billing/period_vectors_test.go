package billing

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// dateVector is a case from another billing system or an RFC: what its own tests
// or pages expect, as data.
type dateVector struct {
	ID            string `json:"id"`
	Source        string `json:"source"`
	Kind          string `json:"kind"`
	Granularity   string `json:"granularity"`
	IntervalUnit  string `json:"interval_unit"`
	IntervalCount int    `json:"interval_count"`
	// Anchor is missing where only AnchorDay is known; the start of service, or
	// else the instant asked about, then says which month the count begins in.
	Anchor       *time.Time `json:"anchor"`
	AnchorDay    int        `json:"anchor_day"`
	TimeZone     string     `json:"timezone"`
	ServiceStart *time.Time `json:"service_start"`
	ServiceEnd   *time.Time `json:"service_end"`
	// NowOrIndex is an instant, and 0 for sequences.
	NowOrIndex json.RawMessage `json:"now_or_index"`
	// StepFrom is in flexprice's cases only: the instant asked about is the start
	// of a period there, which may lie off the grid. Ours then starts there too,
	// as a stub, and ends on the grid.
	StepFrom          string `json:"step_from"`
	ExpectedPeriods   []span `json:"expected_periods"`
	ExpectedBoundary  *bool  `json:"expected_boundary"`
	ExpectedCount     *int   `json:"expected_count"`
	ExpectedAnchorDay *int   `json:"expected_anchor_day"`
	Agrees            bool   `json:"agrees_with_anchored_clamp"`
	Disagreement      string `json:"disagreement"`
}

// span is a period of which a source may tell only one end.
type span struct {
	Start *time.Time `json:"start"`
	End   *time.Time `json:"end"`
}

// TestPeriodVectors is the gate of design section 4: every case that agrees with
// the anchored, clamped rule must come out of Schedule, and the others must come
// out otherwise and stand in the golden file.
func TestPeriodVectors(t *testing.T) {
	t.Parallel()
	var vectors []dateVector
	readJSON(t, "testdata/billing-dates.json", &vectors)

	checked := map[string]int{}
	var disagreeing strings.Builder
	for _, v := range vectors {
		want, got := v.want(t), v.got(t)
		if v.Agrees {
			checked[v.Kind+" "+v.Granularity]++
			if got != want {
				t.Errorf("%s (%s, %s)\n got %s\nwant %s", v.ID, v.Source, v.Kind, got, want)
			}
			continue
		}
		checked["disagreeing"]++
		if got == want {
			t.Errorf("%s (%s) agrees after all: %s", v.ID, v.Source, got)
		}
		if v.Disagreement == "" {
			t.Errorf("%s (%s) does not say why it disagrees", v.ID, v.Source)
		}
		fmt.Fprintf(&disagreeing, "%s | %s | theirs %s | ours %s | %s\n", v.ID, v.Source, want, got, v.Disagreement)
	}

	// Counted, so that a kind the switch below forgets, or a file that lost its
	// second half, is seen.
	want := map[string]int{
		"anchor_day_from_instant date":       3,
		"boundary_on date":                   32,
		"completed_count date":               14,
		"first_boundary_on_or_after date":    18,
		"first_boundary_on_or_after instant": 1,
		"next_after date":                    7,
		"next_after instant":                 58,
		"next_boundary_strictly_after date":  2,
		"period_at date":                     30,
		"period_at instant":                  19,
		"previous_period date":               21,
		"sequence date":                      1,
		"sequence instant":                   11,
		"wall_clock_resolution instant":      2,
		"disagreeing":                        26,
	}
	if diff := cmp.Diff(want, checked); diff != "" {
		t.Errorf("cases checked (-want +got):\n%s", diff)
	}
	golden(t, "billing-dates-disagree.golden", disagreeing.String())
}

// TestPeriodVectorsCanFail keeps the gate honest: an answer that is off by the
// least a vector can tell must differ from what is wanted.
func TestPeriodVectorsCanFail(t *testing.T) {
	t.Parallel()
	var vectors []dateVector
	readJSON(t, "testdata/billing-dates.json", &vectors)

	for _, v := range vectors {
		if !v.Agrees {
			continue
		}
		right := v.got(t)
		switch {
		case v.ExpectedBoundary != nil:
			*v.ExpectedBoundary = !*v.ExpectedBoundary
		case v.ExpectedCount != nil:
			*v.ExpectedCount++
		case v.ExpectedAnchorDay != nil:
			*v.ExpectedAnchorDay++
		default:
			last := &v.ExpectedPeriods[len(v.ExpectedPeriods)-1]
			for _, at := range []*time.Time{last.Start, last.End} {
				if at != nil {
					*at = at.Add(time.Second)
				}
			}
		}
		if v.want(t) == right {
			t.Errorf("%s (%s): a wrong answer would pass", v.ID, v.Kind)
		}
	}
}

// want renders the expectation as got renders ours.
func (v dateVector) want(t *testing.T) string {
	switch {
	case v.ExpectedBoundary != nil:
		return fmt.Sprintf("boundary=%t", *v.ExpectedBoundary)
	case v.ExpectedCount != nil:
		return fmt.Sprintf("count=%d", *v.ExpectedCount)
	case v.ExpectedAnchorDay != nil:
		return fmt.Sprintf("day=%d", *v.ExpectedAnchorDay)
	case len(v.ExpectedPeriods) == 0:
		t.Fatalf("%s expects nothing", v.ID)
	}
	return renderSpans(v.ExpectedPeriods)
}

// got asks Schedule. Every kind has a case; an unknown one fails.
func (v dateVector) got(t *testing.T) string {
	s, start := v.schedule(t)
	switch v.Kind {
	case "anchor_day_from_instant":
		return fmt.Sprintf("day=%d", wallOf(s.Anchor.At, s.Anchor.Zone).Day())
	case "boundary_on":
		p, _ := s.PeriodAt(v.now(t))
		return fmt.Sprintf("boundary=%t", p.Start.Equal(v.now(t)))
	case "completed_count":
		// Periods that ended between the start, which may lie in a stub, and now.
		first, _ := s.PeriodAt(start)
		last, _ := s.PeriodAt(v.now(t))
		return fmt.Sprintf("count=%d", max(0, last.No-first.No))
	case "first_boundary_on_or_after":
		p, _ := s.PeriodAt(v.now(t))
		if p.Start.Equal(v.now(t)) {
			p.End = p.Start
		}
		return v.like(span{Start: new(v.now(t)), End: &p.End})
	case "next_boundary_strictly_after":
		next, err := s.Next(v.now(t))
		if err != nil {
			t.Fatal(v.ID, err)
		}
		return v.like(span{End: &next})
	case "next_after", "wall_clock_resolution":
		if from := v.StepFrom; from != "" && from != "current_period_start" {
			t.Fatalf("%s steps from %q", v.ID, from)
		}
		next, err := s.Next(v.now(t))
		if err != nil {
			t.Fatal(v.ID, err)
		}
		if v.ServiceEnd != nil && v.ServiceEnd.Before(next) {
			next = *v.ServiceEnd
		}
		return v.like(span{Start: new(v.now(t)), End: &next})
	case "period_at", "previous_period":
		p, ok := s.PeriodAt(v.now(t))
		if v.Kind == "previous_period" && ok {
			p, _ = s.Period(p.No - 1)
		}
		if v.ServiceStart != nil && !p.End.After(*v.ServiceStart) {
			return "none: before the service starts"
		}
		if v.ServiceStart != nil && p.Start.Before(*v.ServiceStart) {
			p.Start = *v.ServiceStart
		}
		return v.like(span{Start: &p.Start, End: &p.End})
	case "sequence":
		if string(v.NowOrIndex) != "0" {
			t.Fatalf("%s starts at %s", v.ID, v.NowOrIndex)
		}
		first, _ := s.PeriodAt(start)
		var spans []span
		for i := range v.ExpectedPeriods {
			p, err := s.Period(first.No + i)
			if err != nil {
				t.Fatal(v.ID, err)
			}
			if i == 0 {
				p.Start = start
			}
			spans = append(spans, span{&p.Start, &p.End})
		}
		return renderSpans(spans)
	}
	t.Fatalf("%s is of a kind this test does not know: %s", v.ID, v.Kind)
	return ""
}

// schedule is ours for the vector, and when its service starts. Where a source
// stores the anchor's day apart (31, for an anchor on 30 April), the anchor moves
// back along the grid to a month that has the day: our anchor is one instant.
func (v dateVector) schedule(t *testing.T) (Schedule, time.Time) {
	interval, err := NewInterval(IntervalUnit(v.IntervalUnit), v.IntervalCount)
	if err != nil {
		t.Fatal(v.ID, err)
	}
	var start time.Time
	switch {
	case v.ServiceStart != nil:
		start = *v.ServiceStart
	case v.Anchor != nil:
		start = *v.Anchor
	default:
		start = v.now(t)
	}
	at := start
	if v.Anchor != nil {
		at = *v.Anchor
	}
	zone, err := LoadZone(v.TimeZone)
	if err != nil {
		t.Fatal(v.ID, err)
	}
	if local := at.In(zone); v.AnchorDay != 0 && local.Day() != v.AnchorDay {
		year, month := local.Year(), local.Month()
		for tries := 0; lastDay(year, month) < v.AnchorDay; tries++ {
			if tries == 12 {
				t.Fatalf("%s: no month of the grid has a day %d", v.ID, v.AnchorDay)
			}
			moved := time.Date(year, month-time.Month(interval.months()), 1, 0, 0, 0, 0, time.UTC)
			year, month = moved.Year(), moved.Month()
		}
		at = time.Date(year, month, v.AnchorDay, local.Hour(), local.Minute(), local.Second(), 0, zone)
	}
	anchor, err := NewAnchor(at, v.TimeZone)
	if err != nil {
		t.Fatal(v.ID, err)
	}
	return Schedule{Anchor: anchor, Interval: interval}, start
}

func (v dateVector) now(t *testing.T) time.Time {
	var now time.Time
	if err := json.Unmarshal(v.NowOrIndex, &now); err != nil {
		t.Fatalf("%s: now is %s", v.ID, v.NowOrIndex)
	}
	return now
}

// like renders s without the end that the source does not tell.
func (v dateVector) like(s span) string {
	if len(v.ExpectedPeriods) == 1 {
		if v.ExpectedPeriods[0].Start == nil {
			s.Start = nil
		}
		if v.ExpectedPeriods[0].End == nil {
			s.End = nil
		}
	}
	return renderSpans([]span{s})
}

func renderSpans(spans []span) string {
	render := func(t *time.Time) string {
		if t == nil {
			return "?"
		}
		return strings.TrimSuffix(t.UTC().Format(time.RFC3339), "T00:00:00Z")
	}
	parts := make([]string, len(spans))
	for i, s := range spans {
		parts[i] = render(s.Start) + ".." + render(s.End)
	}
	return strings.Join(parts, " ")
}

// zoneNames is every zone of the tz database, from a list, so that the tests need
// no Go sources beside them.
func zoneNames(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/zones.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(text[strings.IndexByte(string(text), '\n'):]))
	if len(names) < 500 || !slices.Contains(names, "Asia/Manila") {
		t.Fatalf("%d zones in testdata/zones.txt", len(names))
	}
	return names
}

func readJSON(t testing.TB, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
