package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func (d *desk) why(subscription string) (why billing.Why, kinds string) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.step(0, "", "why", subscription, "-o", "json")), &why); err != nil {
		d.t.Fatal(err)
	}
	for _, r := range why.Reasons {
		kinds += " " + r.Kind
	}
	return why, kinds + " "
}

func TestWhy(t *testing.T) {
	d := newDesk(t, 7)
	d.attempt("s0", d.now.Add(-30*time.Minute), "do_not_honor")
	d.attempt("s1", d.now.Add(-30*time.Minute), "")
	d.attempt("s2", d.now.Add(-30*time.Minute), "lost_card")
	d.step(0, "", "subscriptions", "pause", "s3", "--reason", "a drill")
	d.step(0, "", "retry", d.invoice("s4"), "--reason", "a drill")
	d.step(0, "", "invoices", "void", d.invoice("s5"), "--reason", "a drill")
	if _, err := d.pool.Exec(t.Context(), `UPDATE singil.subscriptions SET anchor_at = '2026-01-31T08:00:00+08', next_period_no = 1, next_due_at = '2026-02-28T08:00:00+08' WHERE external_id = 's5'`); err != nil {
		t.Fatal(err)
	}
	d.tx(func(tx pgx.Tx) error {
		return billing.ParkSubscription(t.Context(), tx, uuid.MustParse(d.text(`SELECT id::text FROM singil.subscriptions WHERE external_id = 's6'`)), "a drill")
	})
	for subscription, want := range map[string]string{
		"s0": "dunning", "s1": "outcome", "s2": "customer", "s3": "paused", "s4": "enqueued", "s5": "clamp", "s6": "parked",
	} {
		if _, kinds := d.why(subscription); !strings.Contains(kinds, " "+want+" ") {
			t.Errorf("%s: %s, want %s", subscription, kinds, want)
		}
	}
	why, _ := d.why("s5")
	if want := time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC); !why.Next.Equal(want) {
		t.Errorf("the next charge of s5 is at %s", why.Next)
	}
	// What it says of a retry is what the books say.
	why, _ = d.why("s0")
	if next := d.text(`SELECT next_attempt_at::text FROM singil.invoices WHERE id = $1 AND next_attempt_at = $2`, d.invoice("s0"), why.Next.Time); next == "" {
		t.Errorf("the next charge of s0 is at %s", why.Next)
	}
	if why, _ := d.why("s3"); !why.Next.IsZero() {
		t.Errorf("a paused one is charged at %s", why.Next)
	}
	d.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "a drill") })
	d.step(0, "! frozen", "why", "s0")
	d.step(3, "not found", "why", "s9")
	if _, err := d.pool.Exec(t.Context(), `UPDATE singil.charge_budget SET max_count = used_count WHERE day = $1::date`, d.now); err != nil {
		t.Fatal(err)
	}
	d.step(0, "! budget", "why", "s4")
}

func TestRunDueDryRunIsWhatASweepDoes(t *testing.T) {
	d := newDesk(t, 5)
	d.attempt("s0", d.now.Add(-24*time.Hour), "do_not_honor")
	d.attempt("s1", d.now.Add(-30*time.Minute), "")
	d.step(0, "", "subscriptions", "pause", "s2", "--reason", "a drill")
	for _, args := range []string{"run-due", "run-due --dry-run --as-of yesterday", "run-due --dry-run --limit 0"} {
		d.step(2, "", strings.Fields(args)...)
	}
	asOf := time.Date(2026, 3, 15, 1, 0, 0, 0, time.UTC)
	var run billing.DryRun
	if err := json.Unmarshal([]byte(d.step(0, "", "run-due", "--dry-run", "--as-of", asOf.Format(time.RFC3339), "-o", "json")), &run); err != nil {
		t.Fatal(err)
	}
	opens := map[string]bool{}
	counted := map[string]int{}
	for _, s := range run.Steps {
		counted[s.Action]++
		if s.Action == "open" {
			opens[s.Subscription] = true
		}
	}
	// s0 to s4 have an invoice each; March is opened for all but the one that is paused.
	if counted["open"] != 4 || counted["look"] != 1 || counted["hold"] != 1 || counted["charge"] != 7 || run.Charges != 7 {
		t.Errorf("%v, %d charges", counted, run.Charges)
	}
	if n := d.text(`SELECT count(*)::text FROM singil.invoices`); n != "5" {
		t.Errorf("%s invoices after a dry run", n)
	}
	d.tx(func(tx pgx.Tx) error {
		opened, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, asOf, 100)
		if opened.Invoices != len(opens) {
			t.Errorf("a sweep opens %d, and the dry run said %v", opened.Invoices, opens)
		}
		return err
	})
	d.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "a drill") })
	d.step(0, "Nothing is charged: frozen: a drill", "run-due", "--dry-run")
}

func TestForecast(t *testing.T) {
	d := newDesk(t, 4)
	d.attempt("s0", d.now.Add(-30*time.Minute), "do_not_honor") // again tomorrow at nine
	d.step(0, "", "subscriptions", "cancel", "s1", "--reason", "a drill")
	d.step(0, "", "subscriptions", "pause", "s2", "--reason", "a drill")
	d.step(2, "--days", "forecast", "--days", "0")
	t.Setenv("PAYMONGO_RATE", "2")
	var f billing.Forecast
	if err := json.Unmarshal([]byte(d.step(0, "", "forecast", "--days", "60", "-o", "json")), &f); err != nil {
		t.Fatal(err)
	}
	byDay := map[string]billing.ForecastDay{}
	for _, day := range f.Days {
		byDay[day.Day] = day
	}
	// Today the first invoices of s1 and s3; tomorrow the retry of s0; in March and
	// April the periods of s0 and s3.
	for day, want := range map[string]billing.ForecastDay{
		"2026-02-15": {Charges: 2, Retries: 2, AmountMinor: 99800, Seconds: 2},
		"2026-02-16": {Charges: 1, Retries: 1, AmountMinor: 49900, Seconds: 1},
		"2026-02-17": {},
		"2026-03-15": {Charges: 2, AmountMinor: 99800, Seconds: 2},
		"2026-04-15": {Charges: 2, AmountMinor: 99800, Seconds: 2},
	} {
		if want.Day = day; byDay[day] != want {
			t.Errorf("%+v, want %+v", byDay[day], want)
		}
	}
	if len(f.Days) != 60 {
		t.Errorf("%d days", len(f.Days))
	}
	d.step(0, "day,charges", "forecast", "--days", "2", "-o", "csv")
}
