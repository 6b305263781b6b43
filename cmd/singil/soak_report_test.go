//go:build unix

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/singil/singil/paymongo/sandbox"
)

// progress is one line for whoever watches.
func (s *soak) progress() {
	took := time.Since(s.began)
	faults := s.faults.snapshot()
	unknown := "?"
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var n int
	if s.pool.QueryRow(ctx, `SELECT count(*) FROM singil.attempts WHERE state = 'armed'`).Scan(&n) == nil {
		unknown = fmt.Sprint(n)
	}
	s.printf("%5s  %s  %d attaches (%.0f/min), %s armed, %d doubles; killed %d daemons, PostgreSQL %d times; %d stops, %d cuts, %d acts",
		took.Round(time.Second), s.clock().Format(time.DateTime), faults[attachesSeen], float64(faults[attachesSeen])/took.Minutes(), unknown, s.last.doubles,
		s.counted(sigkills), s.counted(databaseKills), s.counted(stopsAnywhere)+s.counted(stopsCommit)+s.counted(stopsCall),
		s.counted(commitsUnheard)+s.counted(repliesCut)+s.counted(resets), s.counted(retries)+s.counted(pauses)+s.counted(resumes)+s.counted(cancels))
}

// report is the markdown of a soak that is over.
func (s *soak) report() string {
	c := s.last
	first, last, samples := s.usageThirds()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	verdict := "clean"
	if s.t.Failed() {
		verdict = "FAILED"
	}
	line("# Soak: %s, %s, %s\n", time.Now().Format(time.DateOnly), s.length, verdict)
	line("Commit %s, seed %d. Machine: %s.\n", commit(), *soakSeed, s.machine())
	line("Three daemons (the real binary) on a PostgreSQL with fsync, %d subscriptions, %d virtual days, a sandbox where about one call", s.subscriptions, c.days)
	line("in five goes wrong. The ledger was compared with the books %d times.\n", s.checks)
	line("| | |\n|---|---|")
	row := func(what string, format string, args ...any) {
		line("| %s | "+format+" |", append([]any{what}, args...)...)
	}
	row("attaches executed", "%d, %d of them in the %s (%.0f a minute)", c.sum.AttachesExecuted, s.inTime, s.length, float64(s.inTime)/s.length.Minutes())
	row("intents, paid, declined", "%d, %d, %d", c.sum.Intents, c.sum.PaidPayments, c.sum.FailedPayments)
	row("**charged twice**", "**%d**", c.doubles)
	row("**lost** (periods without an invoice, payments not on record)", "**%d**", c.lost+s.counted(lostPeriods))
	row("**unknown left**", "**%d**", c.unknown)
	row("in front of a human, for a lie of PayMongo's", "%d", c.inReview)
	row("invoices", "%s", numbers(c.statuses))
	row("an unknown outcome's age, whole run", "%s", c.ages)
	row("the same, from when everything was well again", "%s", c.agesAfterRecovery)
	row("memory, first and last third", "%.1f MB, %.1f MB (median of %d samples of the daemon that is never ended)", first.memory/1e6, last.memory/1e6, samples)
	row("goroutines, first and last third", "%.0f, %.0f", first.goroutines, last.goroutines)
	for _, what := range troubleOrder {
		row(what, "%d", s.counted(what))
	}

	faults := s.faults.snapshot()
	requests, attaches := faults["request"], faults[attachesSeen]
	delete(faults, "request")
	delete(faults, attachesSeen)
	calls, deliveries := map[string]int{}, map[string]int{}
	bad := 0
	for what, n := range faults {
		if fate, ok := strings.CutPrefix(what, "webhook: "); ok {
			deliveries[fate] = n
			continue
		}
		calls[what] = n
		bad += n
	}
	line("\nFaults of %d calls (%d attaches), %.1f %%: %s.", requests, attaches, 100*float64(bad)/float64(max(1, requests)), numbers(calls))
	line("\nWebhooks: %s; %d events lost. Processed: %s.", numbers(deliveries), s.box.Counters().WebhooksLost, numbers(c.events))
	return b.String()
}

func numbers(of map[string]int) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprint(of[what], " ", what))
	}
	return strings.Join(parts, ", ")
}

// missingKinds lists the kinds of faults that the soak leaves out.
func missingKinds(used []sandbox.Fault) (missing []string) {
	for _, kind := range sandbox.FaultKinds() {
		if kind != string(sandbox.NoFault) && !slices.ContainsFunc(used, func(f sandbox.Fault) bool { return string(f.Kind) == kind }) {
			missing = append(missing, kind)
		}
	}
	return missing
}

func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

var (
	cpuModel    = regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`)
	totalMemory = regexp.MustCompile(`(?m)^MemTotal:\s*(\d+) kB$`)
)

func (s *soak) machine() string {
	parts := []string{fmt.Sprintf("%d processors", runtime.NumCPU())}
	for file, pattern := range map[string]*regexp.Regexp{"/proc/cpuinfo": cpuModel, "/proc/meminfo": totalMemory} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // not Linux
		}
		if found := pattern.FindSubmatch(text); found != nil {
			value := string(found[1])
			if pattern == totalMemory {
				value += " kB of memory"
			}
			parts = append(parts, value)
		}
	}
	slices.Sort(parts[1:])
	version := "PostgreSQL"
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var server string
	if s.pool.QueryRow(ctx, `SHOW server_version`).Scan(&server) == nil {
		version += " " + server
	}
	return strings.Join(append(parts, runtime.GOOS+"/"+runtime.GOARCH, runtime.Version(), version), ", ")
}
