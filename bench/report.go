package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Report is everything that was measured, and on what.
type Report struct {
	Began      time.Time         `json:"began"`
	Took       string            `json:"took"`
	Commit     string            `json:"commit"`
	Machine    string            `json:"machine"`
	Load       [2]string         `json:"load"` // before and behind: what else runs here
	Quick      bool              `json:"quick,omitempty"`
	Processors int               `json:"processors"`
	Go         string            `json:"go"`
	PostgreSQL string            `json:"postgresql"`
	Settings   map[string]string `json:"postgresql_settings"`
	Singil     []string          `json:"singil_settings"` // beside those that every part needs
	Charges    []Charges         `json:"charges,omitempty"`
	Waiting    []Waiting         `json:"waiting,omitempty"`
	Sweeps     []Sweeping        `json:"sweeps,omitempty"`
	Delays     *Delays           `json:"delays,omitempty"`
	Daemons    []Charges         `json:"daemons,omitempty"`
	Deadlocks  int64             `json:"deadlocks_of_several_daemons"`
	Intake     *Intake           `json:"intake,omitempty"`
	Statements []Statement       `json:"statements,omitempty"`
	Targets    []Target          `json:"targets,omitempty"`
	PutOff     []string          `json:"put_off,omitempty"` // what was not charged when it was due
}

func newReport(ctx context.Context, r *rig) (*Report, error) {
	report := &Report{Began: time.Now().UTC().Truncate(time.Second), Processors: runtime.NumCPU(), Go: runtime.Version(), Machine: machine(),
		Load: [2]string{load()}, Quick: r.options.quick, Singil: append([]string{}, r.options.settings...)}
	commit := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12")
	commit.Dir = r.root
	out, err := commit.Output()
	if err != nil {
		out = []byte("unknown") // not a checkout
	}
	report.Commit = strings.TrimSpace(string(out))
	if err := r.admin.QueryRow(ctx, "SHOW server_version").Scan(&report.PostgreSQL); err != nil {
		return nil, err
	}
	report.Settings = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(postgresSettings)) {
		var value string
		if err := r.admin.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return nil, err
		}
		report.Settings[name] = value
	}
	return report, nil
}

// machine is the processor's name and the memory, as Linux tells them.
func machine() string {
	var facts []string
	for _, fact := range []struct{ file, line string }{{"/proc/cpuinfo", "model name"}, {"/proc/meminfo", "MemTotal"}} {
		content, err := os.ReadFile(fact.file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == fact.line {
				facts = append(facts, strings.TrimSpace(value))
				break
			}
		}
	}
	return strings.Join(append(facts, runtime.GOOS+"/"+runtime.GOARCH), ", ")
}

// load is how many wanted a processor in the last minute.
func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	minute, _, _ := strings.Cut(string(content), " ")
	return minute
}

// finish holds what was measured against what is wanted.
func (r *Report) finish() {
	r.Took, r.Load[1] = time.Since(r.Began).Round(time.Second).String(), load()
	r.Targets = targets(r)
}

// spread is a median with what lay around it.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return spread{median, sorted[0], sorted[len(sorted)-1]}
}

// figure writes a spread; a single value has none.
func (s spread) figure(decimals int) string {
	if s.least == s.most {
		return number(s.median, decimals)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.median, decimals), number(s.least, decimals), number(s.most, decimals))
}

// number has a comma between thousands.
func number(v float64, decimals int) string {
	text := fmt.Sprintf("%.*f", decimals, v)
	whole, rest, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}

// row is the rounds of one side under the same conditions.
type row struct {
	side      string
	latency   int64
	processes int
	rounds    []Charges
}

func rowsOf(all []Charges) []row {
	var rows []row
	for _, c := range all {
		i := slices.IndexFunc(rows, func(r row) bool { return r.side == c.Side && r.latency == c.LatencyMS && r.processes == c.Processes })
		if i < 0 {
			i = len(rows)
			rows = append(rows, row{side: c.Side, latency: c.LatencyMS, processes: c.Processes})
		}
		rows[i].rounds = append(rows[i].rounds, c)
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.latency, b.latency) })
	return rows
}

func (r row) of(figure func(Charges) float64) spread {
	values := make([]float64, len(r.rounds))
	for i, c := range r.rounds {
		values[i] = figure(c)
	}
	return spreadOf(values)
}

func (r row) perSecond() spread { return r.of(func(c Charges) float64 { return c.PerSecond }) }

var sideNames = map[string]string{
	"singil": "singil", "limited": "singil, limited to 400 calls/s", "textbook": "textbook River worker", "calls": "ceiling: two HTTP calls", "jobs": "ceiling: empty River jobs",
}

// write is the report as a person reads it.
func (r *Report) write(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "# Benchmark\n\n%s, commit %s, took %s. %d processors: %s. %s, PostgreSQL %s", r.Began.Format(time.DateOnly), r.Commit, r.Took,
		r.Processors, r.Machine, r.Go, r.PostgreSQL)
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		fmt.Fprintf(w, ", %s=%s", name, r.Settings[name])
	}
	for _, setting := range r.Singil {
		fmt.Fprintf(w, ", %s", setting)
	}
	fmt.Fprintf(w, ".\nLoad %s before and %s behind. All of it runs on this machine at once: the worker, PostgreSQL and the provider's stub. "+
		"Medians, with the least and the most of the rounds.\n", r.Load[0], r.Load[1])
	if r.Quick {
		fmt.Fprintf(w, "\n**Small numbers: they tell whether it works, not how fast it is.**\n")
	}
	if len(r.Targets) > 0 {
		fmt.Fprintf(w, "\n## Targets\n\n| target | wanted | measured | |\n|---|---|---|---|\n")
		for _, t := range r.Targets {
			fmt.Fprintf(w, "| %s | %s | %s | %s |\n", t.Name, t.Wanted, t.Measured, met(t.Met))
		}
	}
	if len(r.PutOff) > 0 {
		fmt.Fprintf(w, "\n## Put off\n\nSingil's time stands still but where it is moved. Of these nothing came any more until it was:\n\n```\n%s\n```\n",
			strings.Join(r.PutOff, "\n"))
	}
	if len(r.Charges) > 0 {
		writeCharges(w, r.Charges)
	}
	writeWaiting(w, r.Waiting)
	writeSweeps(w, r.Sweeps)
	writeDelays(w, r.Delays)
	writeDaemons(w, r.Daemons, r.Deadlocks)
	writeIntake(w, r.Intake)
	writeStatements(w, r.Statements)
	return w.Flush()
}

func met(yes bool) string {
	if yes {
		return "met"
	}
	return "**missed**"
}

func writeCharges(w io.Writer, all []Charges) {
	fmt.Fprintf(w, `
## Charges from end to end

From the moment the jobs may be fetched to the last invoice that is paid and durable. After each round the books were
compared with the provider's ledger: every invoice paid exactly once. CPU is in seconds per 1,000 charges. Where the
provider takes no time singil has SINGIL_IN_FLIGHT=%d, and otherwise what it has by itself.

| | latency | rounds of | charges/s | its own limit | CPU worker | CPU PostgreSQL | transactions | of those writing | WAL bytes | peak memory |
|---|---|---|---|---|---|---|---|---|---|---|
`, busyInFlight)
	for _, r := range rowsOf(all) {
		limit := ""
		if allowed := r.rounds[0].Allowed; allowed > 0 {
			limit = number(allowed, 0)
		}
		fmt.Fprintf(w, "| %s | %d ms | %d | %s | %s | %s |", sideNames[r.side], r.latency, r.rounds[0].Charges, r.perSecond().figure(0), limit,
			r.of(func(c Charges) float64 { return c.WorkerCPU }).figure(2))
		if r.side == "calls" || r.side == "jobs" {
			fmt.Fprintf(w, " | | | | |\n")
			continue
		}
		fmt.Fprintf(w, " %s | %s | %s | %s | %s MB |\n",
			r.of(func(c Charges) float64 { return c.PostgresCPU }).figure(2),
			r.of(func(c Charges) float64 { return c.Transactions }).figure(3),
			r.of(func(c Charges) float64 { return c.Writes }).figure(3),
			r.of(func(c Charges) float64 { return c.WAL }).figure(0),
			r.of(func(c Charges) float64 { return float64(c.PeakBytes) / 1e6 }).figure(0))
	}
}

// save writes both files.
func (r *Report) save(prefix string) error {
	if err := os.MkdirAll(filepath.Dir(prefix), 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(prefix+".json", append(content, '\n'), 0o644); err != nil {
		return err
	}
	var text strings.Builder
	if err := r.write(&text); err != nil {
		return err
	}
	return os.WriteFile(prefix+".md", []byte(text.String()), 0o644)
}
