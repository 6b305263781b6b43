package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var (
	singil  = flag.String("singil", "", "the program whose demo is watched; without it, nothing runs")
	preview = flag.String("preview", "", "a directory for pictures of the dashboards")
)

// empty are the queries that may have nothing to show after the demo, and why.
var empty = map[string]string{
	"From the event to its webhook: A": "the demo has no webhook secret, so none are received",
	"Since the last webhook: A":        "the demo has no webhook secret, so none are received",
	"Time of an API request: A":        "nobody calls the demo's API",
}

// TestDashboardsOnTheDemo has a Prometheus watch the demo, and asks it every
// query of every panel: at least one series, with a number in it.
func TestDashboardsOnTheDemo(t *testing.T) {
	if *singil == "" {
		t.Skip("needs -singil; make dashboards-check gives it")
	}
	metrics, web := freeAddress(t), freeAddress(t)
	prom := startPrometheus(t, metrics, web)
	demo := start(t, *singil, "demo", "--serve", "--listen", metrics)
	prom.until(t, "singil_build_info")
	begun := time.Now()
	said := demo.wait(t, "Still running")
	over := time.Now()
	prom.until(t, fmt.Sprintf(`timestamp(singil_build_info) > %d`, over.Add(3*time.Second).Unix())) // it has seen the end
	span := between{begun, time.Now(), time.Since(begun)}

	executed, answered, moved := 0, 0, 0
	for _, d := range readDashboards(t) {
		results := map[string][]series{}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				executed++
				found := prom.queryRange(t, strings.ReplaceAll(grafana(q.Expr), "[10m]", fmt.Sprintf("[%ds]", int(span.length.Seconds()))), span)
				name := p.Title + ": " + q.RefID
				results[name] = found
				switch why, mayBe := empty[name]; {
				case len(found) > 0:
					answered++
					if slices.ContainsFunc(found, series.moves) {
						moved++
					}
					if why != "" {
						t.Errorf("%s: %s has data after all; take it from the list", d.Title, name)
					}
				case !mayBe:
					t.Errorf("%s: %s: no data: %s", d.Title, name, q.Expr)
				}
			}
		}
		if *preview != "" {
			path := filepath.Join(*preview, "dashboard-"+strings.TrimPrefix(d.UID, "singil-")+".svg")
			if err := os.WriteFile(path, []byte(draw(d, results, span)), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	collected := regexp.MustCompile(`collected +PHP ([0-9.]+)`).FindStringSubmatch(said)
	if collected == nil {
		t.Fatalf("the demo does not say what it has collected:\n%s", said)
	}
	prom.until(t, "singil_collected_amount_centavos_total == 100 * "+collected[1])
	t.Logf("%d queries executed, %d with data, %d of those with more than zeros", executed, answered, moved)
	if moved < executed/2 {
		t.Errorf("only %d of %d queries show more than zeros: the demo was not watched", moved, executed)
	}
	prom.rules(t)
	prom.values(t)
}

// freeAddress is an address of this machine that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// program runs until the test is over.
type program struct {
	cmd   *exec.Cmd
	lines chan string // of stdout, closed at its end
}

func start(t *testing.T, name string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(name, args...), lines: make(chan string, 1000)}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout // the program logs on one of them
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			select {
			case p.lines <- in.Text():
			default: // nobody waits for it any more
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGINT)
		hung := time.AfterFunc(30*time.Second, func() { _ = p.cmd.Process.Kill() })
		defer hung.Stop()
		<-read
		_ = p.cmd.Wait()
	})
	return p
}

// wait is for a line that holds text. It returns what came before.
func (p *program) wait(t *testing.T, text string) string {
	t.Helper()
	var last []string
	for patience := time.After(5 * time.Minute); ; {
		select {
		case line, more := <-p.lines:
			if !more {
				t.Fatalf("%s ended:\n%s", p.cmd.Path, strings.Join(last, "\n"))
			}
			if strings.Contains(line, text) {
				return strings.Join(last, "\n")
			}
			last = append(last, line)
		case <-patience:
			t.Fatalf("%s never said %q:\n%s", p.cmd.Path, text, strings.Join(last, "\n"))
		}
	}
}

// prometheusServer is Debian's.
type prometheusServer struct{ url string }

func startPrometheus(t *testing.T, metrics, web string) prometheusServer {
	t.Helper()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, evaluation_interval: 5s}
rule_files: [%q]
scrape_configs:
  - job_name: singil
    static_configs: [{targets: [%q]}]
`, rules, metrics), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+web, "--log.level=error")
	p := prometheusServer{"http://" + web}
	p.until(t, "vector(1)")
	return p
}

// get asks the API, and decodes what is in data.
func (p prometheusServer) get(path string, args url.Values, data any) error {
	resp, err := http.Get(p.url + path + "?" + args.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status != "success" {
		return fmt.Errorf("%s: %s %w", resp.Status, answer.Error, err)
	}
	return json.Unmarshal(answer.Data, data)
}

// until waits for a query to yield something.
func (p prometheusServer) until(t *testing.T, query string) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var err error
	for patience := time.After(time.Minute); ; {
		var data struct{ Result []any }
		if err = p.get("/api/v1/query", url.Values{"query": {query}}, &data); err == nil && len(data.Result) > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("Prometheus never found %s: %v", query, err)
		}
	}
}

type between struct {
	from, to time.Time
	length   time.Duration
}

// series is one line: its labels, and what it was at each time.
type series struct {
	labels map[string]string
	points []point
}

type point struct {
	at    time.Time
	value float64
}

func (s series) moves() bool {
	return slices.ContainsFunc(s.points, func(p point) bool { return p.value != 0 })
}

func (s series) last() float64 { return s.points[len(s.points)-1].value }

// queryRange is what has numbers. NaN is none: a quantile of nothing, a ratio to nothing.
func (p prometheusServer) queryRange(t *testing.T, expr string, span between) (out []series) {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	err := p.get("/api/v1/query_range", url.Values{
		"query": {expr}, "start": {unix(span.from)}, "end": {unix(span.to)}, "step": {"1"},
	}, &data)
	if err != nil {
		t.Errorf("%s: %v", expr, err)
	}
	for _, r := range data.Result {
		s := series{labels: r.Metric}
		for _, v := range r.Values {
			value, err := strconv.ParseFloat(v[1].(string), 64)
			if err != nil {
				t.Fatal(err)
			}
			if !math.IsNaN(value) && !math.IsInf(value, 0) {
				s.points = append(s.points, point{time.UnixMilli(int64(v[0].(float64) * 1000)), value})
			}
		}
		if len(s.points) > 0 {
			out = append(out, s)
		}
	}
	return out
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// rules must all have been evaluated.
func (p prometheusServer) rules(t *testing.T) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.get("/api/v1/rules", nil, &data); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				t.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if want := len(readRules(t)); n != want {
		t.Errorf("Prometheus evaluated %d alerts, want %d", n, want)
	}
}

// values looks whether each value of a label that an alert or a panel names is one
// that a daemon has: a misspelt one would be silent for ever.
func (p prometheusServer) values(t *testing.T) {
	t.Helper()
	exprs := map[string]string{}
	for _, r := range readRules(t) {
		exprs[r.Alert] = r.Expr
	}
	for _, d := range readDashboards(t) {
		for _, panel := range d.Panels {
			for _, q := range panel.Targets {
				exprs[panel.Title+": "+q.RefID] = grafana(q.Expr)
			}
		}
	}
	looked := map[string]bool{}
	for name, expr := range exprs {
		for _, selector := range parser.ExtractSelectors(parse(t, expr)) {
			metric := ""
			for _, m := range selector {
				if m.Name == labels.MetricName {
					metric = m.Value
				}
			}
			for _, m := range selector {
				if m.Name == labels.MetricName || m.Name == "job" || m.Name == "instance" {
					continue
				}
				for _, value := range strings.Split(m.Value, "|") {
					query := fmt.Sprintf("count(%s{%s=%q}) > 0", metric, m.Name, value)
					if looked[query] {
						continue
					}
					looked[query] = true
					var data struct{ Result []any }
					if err := p.get("/api/v1/query", url.Values{"query": {query}}, &data); err != nil || len(data.Result) == 0 {
						t.Errorf("%s: no daemon has %s{%s=%q} %v", name, metric, m.Name, value, err)
					}
				}
			}
		}
	}
	if len(looked) < 20 {
		t.Errorf("only %d values of labels: the test looks at the wrong place", len(looked))
	}
}
