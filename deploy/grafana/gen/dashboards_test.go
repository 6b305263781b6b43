package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	dashboards = "../dashboards"
	golden     = "../../../cmd/singil/testdata/metrics.golden"
)

// TestDashboardsAreGenerated: what is committed is what the generator writes.
func TestDashboardsAreGenerated(t *testing.T) {
	t.Parallel()
	want, err := files()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(dashboards + "/*")
	if err != nil || len(found) != len(want) {
		t.Errorf("%d files in %s, want %d: %v %v", len(found), dashboards, len(want), found, err)
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(dashboards, name))
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s is not what the generator writes (%v); in deploy/grafana/gen: go run . ../dashboards", name, err)
		}
	}
}

// shown is the JSON as Grafana reads it, as far as our rules look at it.
type shown struct {
	UID         string
	Title       string
	Description string
	Editable    *bool
	Templating  struct {
		List []struct {
			Name, Type string
			IncludeAll bool
		}
	}
	Panels []shownPanel
}

type shownPanel struct {
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	FieldConfig              struct {
		Defaults struct {
			Unit     string
			Mappings []struct {
				Options map[string]struct{ Text string }
			}
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
		}
	}
	Targets []shownTarget
	Panels  []shownPanel
}

type shownTarget struct{ RefID, Expr, LegendFormat string }

func readDashboards(t *testing.T) []shown {
	t.Helper()
	var out []shown
	for _, name := range []string{"singil-billing.json", "singil-engine.json"} {
		text, err := os.ReadFile(filepath.Join(dashboards, name))
		if err != nil {
			t.Fatal(err)
		}
		var d shown
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, d)
	}
	return out
}

// TestDashboardsDecode: a field that Grafana's schema does not know is refused.
// The schema knows no panel types, so these are our own list.
func TestDashboardsDecode(t *testing.T) {
	t.Parallel()
	plugins.RegisterDefaultPlugins()
	for _, name := range []string{"singil-billing.json", "singil-engine.json"} {
		text, err := os.ReadFile(filepath.Join(dashboards, name))
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard.Dashboard
		if err := d.UnmarshalJSONStrict(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var wrong dashboard.Dashboard
		if err := wrong.UnmarshalJSONStrict(bytes.Replace(text, []byte(`"legendFormat"`), []byte(`"legendFromat"`), 1)); err == nil {
			t.Errorf("%s: a field that is spelt wrongly is not seen", name)
		}
	}
}

// TestHouseRules are ours, for every panel.
func TestHouseRules(t *testing.T) {
	t.Parallel()
	for _, d := range readDashboards(t) {
		if !regexp.MustCompile(`^singil-[a-z]+$`).MatchString(d.UID) || d.Description == "" || d.Editable == nil || *d.Editable {
			t.Errorf("%s: uid %q, editable %v, description %q", d.Title, d.UID, d.Editable, d.Description)
		}
		var variables []string
		for _, v := range d.Templating.List {
			variables = append(variables, v.Name)
		}
		if !slices.Equal(variables, []string{"datasource", "job", "instance"}) {
			t.Errorf("%s has the variables %v", d.Title, variables)
		}
		titles := map[string]bool{}
		var places []shownPanel
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			if titles[p.Title] || p.Title == "" {
				t.Errorf("%s has two panels %q", d.Title, p.Title)
			}
			titles[p.Title] = true
			if !slices.Contains([]string{"timeseries", "stat", "bargauge"}, p.Type) {
				t.Errorf("%s: %q is a %q", d.Title, p.Title, p.Type)
			}
			if p.FieldConfig.Defaults.Unit == "" {
				t.Errorf("%s: %q has no unit", d.Title, p.Title)
			}
			if before, after, found := strings.Cut(p.Description, "**When it looks bad:** "); !found || len(before) < 10 || len(after) < 10 {
				t.Errorf("%s: %q does not say what to do: %q", d.Title, p.Title, p.Description)
			}
			if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
				t.Errorf("%s: %q has %d queries, of %q", d.Title, p.Title, len(p.Targets), p.Datasource.UID)
			}
			for _, q := range p.Targets {
				if q.LegendFormat == "" {
					t.Errorf("%s: %q has a query without a legend", d.Title, p.Title)
				}
			}
			for _, o := range places {
				a, b := p.GridPos, o.GridPos
				if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H || a.X+a.W > 24 {
					t.Errorf("%s: %q lies on %q, or outside", d.Title, p.Title, o.Title)
				}
			}
			places = append(places, p)
		}
		for _, match := range regexp.MustCompile(`Singil[A-Z]\w+`).FindAllString(describe(d), -1) {
			if _, err := os.Stat("../../../docs/runbooks/" + match + ".md"); err != nil {
				t.Errorf("%s speaks of a runbook that is not there: %s", d.Title, match)
			}
		}
	}
}

func describe(d shown) string {
	var all []string
	for _, p := range d.Panels {
		all = append(all, p.Description)
	}
	return strings.Join(all, "\n")
}

// metric is one that a daemon has.
type metric struct {
	kind   string
	labels []string
}

// registry has every metric by the names of its series.
func registry(t *testing.T) map[string]metric {
	t.Helper()
	file, err := os.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := map[string]metric{
		// Of Go's and the process's own collectors.
		"go_goroutines": {kind: "gauge"}, "process_cpu_seconds_total": {kind: "counter"}, "process_resident_memory_bytes": {kind: "gauge"},
	}
	line := regexp.MustCompile(`^(counter|gauge|histogram) (singil_\w+)\{(.*)\}$`)
	for in := bufio.NewScanner(file); in.Scan(); {
		m := line.FindStringSubmatch(in.Text())
		if m == nil {
			continue
		}
		names := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' })
		if m[1] != "histogram" {
			out[m[2]] = metric{m[1], names}
			continue
		}
		out[m[2]+"_bucket"] = metric{"counter", append(slices.Clone(names), "le")}
		out[m[2]+"_sum"], out[m[2]+"_count"] = metric{"counter", names}, metric{"counter", names}
	}
	if len(out) < 50 {
		t.Fatalf("%d metrics in %s", len(out), golden)
	}
	return out
}

// grafana puts values for Grafana's variables.
func grafana(expr string) string {
	return strings.NewReplacer("$__rate_interval", "15s", "$__range", "10m", `job="$job"`, `job="singil"`, `instance=~"$instance"`, `instance=~".*"`).Replace(expr)
}

func parse(t *testing.T, expr string) parser.Expr {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", expr, err)
		return nil
	}
	return e
}

// speaksOf tells what is wrong with the metrics and the labels that a query names.
func speaksOf(e parser.Expr, known map[string]metric) (wrong []string) {
	targets := []string{"job", "instance"} // Prometheus's own
	has := map[string]bool{}
	for _, name := range targets {
		has[name] = true
	}
	for _, selectors := range parser.ExtractSelectors(e) {
		name := ""
		for _, m := range selectors {
			if m.Name == labels.MetricName {
				name = m.Value
			}
		}
		m, found := known[name]
		if !found {
			wrong = append(wrong, "there is no metric "+name)
			continue
		}
		for _, label := range m.labels {
			has[label] = true
		}
		for _, l := range selectors {
			if l.Name != labels.MetricName && !slices.Contains(targets, l.Name) && !slices.Contains(m.labels, l.Name) {
				wrong = append(wrong, name+" has no label "+l.Name)
			}
		}
	}
	grouped := func(names []string) {
		for _, name := range names {
			if !has[name] {
				wrong = append(wrong, "no metric of it has the label "+name)
			}
		}
	}
	parser.Inspect(e, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			grouped(n.Grouping)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				grouped(n.VectorMatching.MatchingLabels)
			}
		case *parser.VectorSelector:
			counter := known[n.Name].kind == "counter"
			rated := slices.ContainsFunc(path, func(above parser.Node) bool {
				call, is := above.(*parser.Call)
				return is && slices.Contains([]string{"rate", "increase"}, call.Func.Name)
			})
			if counter != rated {
				wrong = append(wrong, "counters, and nothing else, belong inside rate or increase: "+n.Name)
			}
		}
		return nil
	})
	return wrong
}

// TestQueries: every query parses and names what a daemon has.
func TestQueries(t *testing.T) {
	t.Parallel()
	known := registry(t)
	queries, used := 0, map[string]bool{}
	for _, d := range readDashboards(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				queries++
				if n := strings.Count(q.Expr, `{job="$job",instance=~"$instance"`); n == 0 || n != strings.Count(q.Expr, "{") {
					t.Errorf("%s, %q: not every selector is of this job and instance: %s", d.Title, p.Title, q.Expr)
				}
				if window := regexp.MustCompile(`\[([^$][^\]]*)\]`).FindString(q.Expr); window != "" {
					t.Errorf("%s, %q: the window %s is not Grafana's", d.Title, p.Title, window)
				}
				e := parse(t, grafana(q.Expr))
				if e == nil {
					continue
				}
				for _, wrong := range speaksOf(e, known) {
					t.Errorf("%s, %q: %s", d.Title, p.Title, wrong)
				}
				parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
					if s, is := node.(*parser.VectorSelector); is {
						used[s.Name] = true
					}
					return nil
				})
			}
		}
	}
	if queries < 60 {
		t.Errorf("only %d queries: the test looks at the wrong place", queries)
	}
	for name := range known {
		family := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if !used[name] && !used[family+"_bucket"] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// TestWrongQueriesAreSeen keeps the test above from being green for the wrong reason.
func TestWrongQueriesAreSeen(t *testing.T) {
	t.Parallel()
	known := registry(t)
	for expr, wrong := range map[string]bool{
		`max(singil_frozen)`: false,
		`sum by (code) (rate(singil_charge_declines_total{class="hard"}[5m]))`:       false,
		`sum(singil_charge_declines_total)`:                                          true,
		`rate(singil_frozen[5m])`:                                                    true,
		`max(singil_frozzen)`:                                                        true,
		`max by (state) (singil_frozen)`:                                             true,
		`rate(singil_charge_declines_total{reason="hard"}[5m])`:                      true,
		`max(singil_frozen) + on (state) max(singil_recovery_needed)`:                true,
		`histogram_quantile(0.5, rate(singil_schedule_lag_seconds_bucket[5m])) > 60`: false,
	} {
		if got := speaksOf(parse(t, expr), known); (len(got) > 0) != wrong {
			t.Errorf("%s: %v", expr, got)
		}
	}
}
