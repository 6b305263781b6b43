package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func (d *desk) bulk(want int, contains string, args ...string) (result bulkResult) {
	d.t.Helper()
	stdout := d.step(want, contains, append([]string{"retry", "-o", "json", "--reason", "payday", "--actor", "ana", "--per-second", "1000"}, args...)...)
	if stdout != "" {
		if err := json.Unmarshal([]byte(stdout), &result); err != nil {
			d.t.Fatalf("%v in %s", err, stdout)
		}
	}
	return result
}

func group1(groups []billing.RetryGroup) string {
	var parts []string
	for _, g := range groups {
		parts = append(parts, fmt.Sprintf("%s %d", g.Name, g.Count))
	}
	return strings.Join(parts, ", ")
}

func TestBulkRetry(t *testing.T) {
	d := newDesk(t, 10)
	yesterday := d.now.Add(-24 * time.Hour)
	for i, code := range []billing.DeclineCode{"insufficient_funds", "insufficient_funds", "insufficient_funds", "do_not_honor", "lost_card"} {
		d.attempt(fmt.Sprintf("s%d", i), yesterday, code)
	}
	d.attempt("s5", yesterday, "")                                    // in flight
	d.attempt("s6", d.now.Add(-10*time.Minute), "insufficient_funds") // too recent
	d.step(0, "is paused", "subscriptions", "pause", "s7", "--reason", "a drill")
	d.step(0, "is void", "invoices", "void", d.invoice("s8"), "--reason", "a drill")

	for _, tt := range []struct{ want, args string }{
		{"--reason", "retry --status open"},
		{"do not go together", "retry i1 --status open"},
		{"it takes ids, or a filter", "retry"},
		{"not a status", "retry --status happy --reason x"},
		{"--limit", "retry --limit 10001 --reason x"},
		{"--older-than", "retry --older-than tomorrow --reason x"},
		{"--max-amount", "retry --max-amount 10.5 --reason x"},
		{"--max-amount", "retry --max-amount -1 --reason x"},
		{"--per-second", "retry --limit 1 --per-second 0 --reason x"},
		{"--payment-method", "retry --limit 1 --payment-method pm_1 --reason x"},
	} {
		d.step(2, tt.want, strings.Fields(tt.args)...)
	}

	preview := d.bulk(0, "", "--status", "open", "--dry-run")
	if got := group1(preview.LeftOut); len(preview.Retries) != 5 || preview.AmountMinor != 5*49900 || preview.Looked != 9 ||
		!strings.Contains(got, "hard_decline 1") || !strings.Contains(got, "in_flight 1") || !strings.Contains(got, "attempted_recently 1") || !strings.Contains(got, "paused 1") {
		t.Errorf("%d retries of %d looked at, left out: %s", len(preview.Retries), preview.Looked, got)
	}
	if got := group1(preview.ByDecline); !strings.Contains(got, "insufficient_funds 3") || !strings.Contains(got, "do_not_honor 1") {
		t.Errorf("by decline code: %s", got)
	}
	if got := group1(d.bulk(0, "", "--status", "void", "--dry-run").LeftOut); got != "not_open 1" {
		t.Errorf("a void one: %s", got)
	}
	if n := len(d.bulk(0, "", "--decline-code", "insufficient_funds", "--dry-run").Retries); n != 3 {
		t.Errorf("%d by decline code", n)
	}
	if n := len(d.bulk(0, "", "--plan", "basic", "--dry-run").Retries) + len(d.bulk(0, "", "--older-than", "2d", "--dry-run").Retries); n != 0 {
		t.Errorf("%d of a plan that nobody has, or older than anything is", n)
	}
	if p := d.bulk(0, "", "--max-amount", "1,000.00", "--dry-run"); len(p.Retries) != 2 || !p.More {
		t.Errorf("%d for a thousand pesos", len(p.Retries))
	}
	d.bulk(4, "--yes where nobody can be asked", "--status", "open")

	d.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "a drill") })
	d.bulk(4, "charging is frozen: a drill", "--status", "open", "--yes")
	d.tx(func(tx pgx.Tx) error { return billing.Unfreeze(t.Context(), tx, "ana", "a drill") })
	if _, err := d.pool.Exec(t.Context(), `UPDATE singil.charge_budget SET max_count = used_count + 4 WHERE day = $1::date`, d.now); err != nil {
		t.Fatal(err)
	}
	if over := d.bulk(4, "over what is left of the day's budget", "--status", "open", "--yes"); len(over.Results) > 0 {
		t.Errorf("over the budget, and still: %v", over.Results)
	}
	if manual := d.text(`SELECT count(*)::text FROM singil.invoices WHERE attempt_trigger = 'manual'`); manual != "0" {
		t.Errorf("%s were retried before anybody said yes", manual)
	}

	// A spent day is no obstacle to fewer of them.
	first := d.bulk(0, "", "--status", "open", "--limit", "2", "--yes")
	if len(first.Results) != 2 || first.Done != 2 || first.Results[0].Retry == nil {
		t.Errorf("%+v", first.Results)
	}
	rest := d.bulk(0, "", "--status", "open", "--yes")
	if got := group1(rest.LeftOut); len(rest.Results) != 3 || !strings.Contains(got, "enqueued_already 2") {
		t.Errorf("%d on the second go, left out %s", len(rest.Results), got)
	}
	if again := d.bulk(0, "", "--status", "open", "--yes"); len(again.Retries) > 0 {
		t.Errorf("%d on the third go", len(again.Retries))
	}
	if got := d.text(`SELECT count(*) || ' ' || min(after ->> 'invoices') || ' ' || max(after ->> 'invoices') FROM singil.audit_log WHERE action = 'bulk_retry' AND reason = 'payday'`); got != "2 2 3" {
		t.Errorf("bulks audited: %s", got)
	}
	if got := d.text(`SELECT count(*)::text FROM singil.audit_log WHERE action = 'retry_invoice' AND reason LIKE 'payday (bulk %)' AND actor = 'ana'`); got != "5" {
		t.Errorf("retries audited: %s", got)
	}
}

// A bulk that is stopped says how far it got, and the same again goes on.
func TestBulkRetryIsInterrupted(t *testing.T) {
	d := newDesk(t, 30)
	var flags retryFlags
	flags.actor, flags.reason = "ana", "payday"
	flags.bulk.limit, flags.bulk.rest, flags.bulk.perSecond, flags.bulk.yes = 100, "8h", 1000, true
	var result bulkResult
	if err := flags.planBulk(t.Context(), d.pool, &result); err != nil || len(result.Retries) != 30 {
		t.Fatal(err, len(result.Retries))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var stderr watchedBuffer
	stderr.enough = func(int) { cancel() }
	// The first refusal is what it writes: somebody has taken that invoice.
	taken := result.Retries[9].Invoice
	d.step(0, "due now", "retry", taken, "--reason", "they called")
	err := flags.carryOut(ctx, d.pool, &stderr, &result)
	var code exitCode
	if !errors.As(err, &code) || code.code != 130 || result.Done != 10 || !strings.Contains(err.Error(), "10 of 30") {
		t.Fatalf("%v after %d", err, result.Done)
	}
	if !strings.Contains(stderr.String(), taken) {
		t.Errorf("nobody was told of %s: %s", taken, stderr.String())
	}
	var rest bulkResult
	if err := flags.planBulk(t.Context(), d.pool, &rest); err != nil || len(rest.Retries) != 20 {
		t.Fatalf("%d are left: %v", len(rest.Retries), err)
	}
	// Frozen on the way: it stops, and says so.
	d.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ben", "a drill") })
	err = flags.carryOut(t.Context(), d.pool, &stderr, &rest)
	if !errors.As(err, &code) || code.code != 4 || !strings.Contains(err.Error(), "stopped after 0 of 20: charging is frozen") {
		t.Errorf("%v", err)
	}
}

// watchedBuffer calls enough with each write.
type watchedBuffer struct {
	bytes.Buffer
	enough func(int)
}

func (b *watchedBuffer) Write(p []byte) (int, error) {
	b.enough(len(p))
	return b.Buffer.Write(p)
}

// Of operators who ask at once for the same invoice one gets it and each other
// one is told.
func TestTwoOperatorsRetryTheSame(t *testing.T) {
	t.Parallel()
	d := newDesk(t, 1)
	id := d.invoice("s0")
	const operators = 8
	results := make([]retryResult, operators)
	var wg sync.WaitGroup
	for i := range operators {
		wg.Go(func() {
			got, err := retryFlags{actor: fmt.Sprint("operator ", i), reason: "they called"}.run(t.Context(), d.pool, []string{id}, time.Now())
			if len(got) == 1 {
				results[i] = got[0]
			} else {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	won := 0
	for _, r := range results {
		switch {
		case r.Retry != nil:
			won++
		case r.kind != billing.RefusalEnqueued:
			t.Errorf("refused as %s: %s", r.kind, r.Error)
		}
	}
	if audited := d.text(`SELECT count(*)::text FROM singil.audit_log WHERE action = 'retry_invoice' AND subject = $1`, id); won != 1 || audited != "1" {
		t.Errorf("%d won, %s audited", won, audited)
	}
}

func TestBulkIsConfirmedByItsCount(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{"12\n": true, " 12 ": true, "11\n": false, "y\n": false, "": false, "\n": false} {
		if err := confirmed(strings.NewReader(in), 12); (err == nil) != want {
			t.Errorf("%q: %v", in, err)
		}
	}
	cmd := &cobra.Command{}
	cmd.SetIn(strings.NewReader("12\n"))
	if err := (bulkFlags{}).confirm(cmd, 12); err == nil {
		t.Error("confirmed by a pipe")
	}
	var bar bytes.Buffer
	b := progressBar{w: &bar, total: 3, live: true}
	for done := range 4 {
		b.step(done)
	}
	b.end()
	if !strings.Contains(bar.String(), "3 of 3\n") {
		t.Errorf("%q", bar.String())
	}
	for in, want := range map[string]int64{"499": 49900, "1,499.05": 149905, "₱2.00": 200, "0": 0, "1.5": 0, "-3": 0, "1e3": 0, "x": 0, ".50": 50, "99999999999999999999": 0} {
		if got, err := pesos(in); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d %v", in, got, err)
		}
	}
}
