package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
)

// desk is an operator's database: customers, cards and subscriptions, with
// invoices that were attempted, and no provider.
type desk struct {
	t    *testing.T
	dsn  string
	pool *pgxpool.Pool
	now  time.Time
}

// deskNow is a morning in Manila, an hour after the periods have begun.
var deskNow = time.Date(2026, 2, 15, 1, 0, 0, 0, time.UTC)

func newDesk(t *testing.T, subscriptions int) *desk {
	t.Helper()
	d := &desk{t: t, dsn: pgtest.DSN(t), now: deskNow}
	var err error
	if d.pool, err = pgxpool.New(t.Context(), d.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.pool.Close)
	d.tx(func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		return billing.SetVirtualClock(t.Context(), tx, d.now)
	})
	var lines strings.Builder
	for _, plan := range []string{"pro", "basic"} {
		fmt.Fprintf(&lines, `{"type":"plan","external_id":%q,"name":"Plan","amount_minor":49900,"currency":"PHP","interval":"month","interval_count":1}`+"\n", plan)
	}
	for i := range subscriptions {
		fmt.Fprintf(&lines, `{"type":"customer","external_id":"u%d","paymongo_customer_id":"cus_%d","name":"=1+1","email":"u%d@example.com"}
{"type":"payment_method","customer":"u%d","paymongo_payment_method_id":"pm_%d","brand":"visa","last4":"4345","exp_month":12,"exp_year":2030}
{"type":"subscription","external_id":"s%d","customer":"u%d","plan":"pro","anchor":"2026-02-15T08:00:00+08:00","time_zone":"Asia/Manila","bill_from":"2026-02-15T08:00:00+08:00"}
`, i, i, i, i, i, i, i)
	}
	result, err := billing.Import(t.Context(), d.pool, strings.NewReader(lines.String()), billing.ImportOptions{Now: d.now, Actor: "test", Source: "test"})
	if err != nil {
		t.Fatalf("%v %v", err, result.Errors)
	}
	d.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, d.now, 10_000)
		return err
	})
	return d
}

func (d *desk) tx(do func(pgx.Tx) error) {
	d.t.Helper()
	if err := pgx.BeginFunc(context.Background(), d.pool, do); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) text(sql string, args ...any) (s string) {
	d.t.Helper()
	if err := d.pool.QueryRow(context.Background(), sql, args...).Scan(&s); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// invoice is the first invoice of a subscription.
func (d *desk) invoice(subscription string) string {
	d.t.Helper()
	return d.text(`SELECT i.id::text FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
		WHERE s.external_id = $1 ORDER BY i.period_no LIMIT 1`, subscription)
}

// attempt has an invoice attempted at a time; with a code it is declined, and
// without one its outcome stays open.
func (d *desk) attempt(subscription string, at time.Time, code billing.DeclineCode) {
	d.t.Helper()
	id := uuid.MustParse(d.invoice(subscription))
	d.tx(func(tx pgx.Tx) error {
		if err := billing.SetVirtualClock(d.t.Context(), tx, at); err != nil {
			return err
		}
		_, err := tx.Exec(d.t.Context(), `UPDATE singil.invoices SET claimed = true WHERE id = $1`, id)
		if err != nil {
			return err
		}
		found, err := billing.Load(d.t.Context(), tx, []uuid.UUID{id}, at)
		if err != nil {
			return err
		}
		c := found[id]
		results, err := billing.Arm(d.t.Context(), tx, []billing.ArmRequest{{
			InvoiceID: id, IntentID: c.IntentID, ProviderIntentID: "pi_" + subscription, Fence: c.Fence,
			CardID: c.Cards[0].ID, ProviderCardID: c.Cards[0].ProviderID, Trigger: c.Trigger,
		}}, at)
		if err != nil || results[0].Err != nil {
			return fmt.Errorf("%w %w", err, results[0].Err)
		}
		if code != "" {
			armed := results[0].Armed
			_, err = billing.Settle(d.t.Context(), tx, []billing.Settlement{{
				Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
				Judgement: billing.Judgement{Ruling: billing.Declined, Code: code, Reason: string(code), Evidence: "attach"},
			}}, at, billing.BankHolidays())
		}
		if err != nil {
			return err
		}
		return billing.SetVirtualClock(d.t.Context(), tx, d.now)
	})
}

// step runs a command and looks for words in what it says.
func (d *desk) step(want int, contains string, args ...string) (stdout string) {
	d.t.Helper()
	code, stdout, stderr := command(d.t, d.dsn, args...)
	if code != want || !strings.Contains(stdout+stderr, contains) {
		d.t.Errorf("singil %.200s: exit code %d, want %d; %q not in:\n%.2000s%.2000s", strings.Join(args, " "), code, want, contains, stdout, stderr)
	}
	return stdout
}

func (d *desk) audited(action string) string {
	d.t.Helper()
	return d.text(`SELECT COALESCE(string_agg(actor || ': ' || reason || ' ' || COALESCE(before ->> 'status', '') || '>' || COALESCE(after ->> 'status', ''), ', ' ORDER BY id), '')
		FROM singil.audit_log WHERE action = $1`, action)
}

func TestSubscriptionsByHand(t *testing.T) {
	d := newDesk(t, 3)
	why := []string{"--reason", "they called", "--actor", "ana"}
	with := func(args ...string) []string { return append(args, why...) }

	d.step(0, "s2", "subscriptions", "list", "--status", "active", "--limit", "1")
	d.step(0, "s1", "subscriptions", "list", "--after", "s2", "--limit", "1")
	d.step(3, "not found", "subscriptions", "list", "--after", "s9")
	d.step(2, "not a status", "subscriptions", "list", "--status", "happy")
	d.step(2, "--limit", "subscriptions", "list", "--limit", "10001")
	d.step(0, "ending in 4345", "subscriptions", "show", "s1")
	d.step(3, "not found", "subscriptions", "show", "s9")
	d.step(3, "not found", "subscriptions", "show", "\xff")

	d.step(2, "--reason", "subscriptions", "pause", "s1")
	d.step(0, "Dry run", with("subscriptions", "pause", "s1", "--dry-run")...)
	d.step(4, "not paused", with("subscriptions", "resume", "s1")...)
	d.step(0, "is paused", with("subscriptions", "pause", "s1")...)
	d.step(4, "paused already", with("subscriptions", "pause", "s1")...)
	d.step(0, "is active", with("subscriptions", "resume", "s1")...)
	if got := d.audited("pause_subscription"); got != "ana: they called active>paused" {
		t.Errorf("the pause is audited as %q", got)
	}

	d.step(0, "ends", with("subscriptions", "cancel", "s1")...)
	d.step(4, "ends at", with("subscriptions", "cancel", "s1")...)
	d.step(0, "is active", with("subscriptions", "uncancel", "s1")...)
	d.step(4, "not to be cancelled", with("subscriptions", "uncancel", "s1")...)
	d.step(0, "next plan", with("subscriptions", "change-plan", "s1", "basic")...)
	d.step(3, "plan", with("subscriptions", "change-plan", "s1", "gold")...)
	d.step(4, "not parked", with("subscriptions", "unpark", "s1")...)
	d.step(0, "is cancelled", with("subscriptions", "cancel", "s1", "--now")...)
	if got := d.text(`SELECT status FROM singil.invoices WHERE id = $1`, d.invoice("s1")); got != "void" {
		t.Errorf("the invoice that was never attempted is %s", got)
	}
	d.tx(func(tx pgx.Tx) error {
		return billing.ParkSubscription(t.Context(), tx, uuid.MustParse(d.text(`SELECT id::text FROM singil.subscriptions WHERE external_id = 's2'`)), "a drill")
	})
	d.step(0, "a drill", "subscriptions", "list", "--parked")
	d.step(4, "bill_all or bill_current", with("subscriptions", "unpark", "s2", "--missed", "maybe")...)
	d.step(0, "is active", with("subscriptions", "unpark", "s2")...)

	d.step(0, "u1@example.com", "customers", "show", "cus_1")
	d.step(0, "'=1+1", "customers", "list", "-o", "csv")
	d.step(0, "", "customers", "list", "--email", "nobody@example.com")
	d.step(3, "not found", "customers", "show", "u9")
}

func TestInvoicesByHand(t *testing.T) {
	d := newDesk(t, 4)
	d.attempt("s0", d.now.Add(-30*time.Minute), "insufficient_funds")
	d.attempt("s1", d.now.Add(-30*time.Minute), "")
	declined, unknown, fresh := d.invoice("s0"), d.invoice("s1"), d.invoice("s2")

	// A customer's name must not steer whoever reads it.
	for _, want := range []string{"insufficient_funds", "attach: insufficient_funds", "visa 4345", "it is attempted"} {
		d.step(0, want, "invoices", "show", declined)
	}
	d.step(0, "none yet", "invoices", "show", unknown)
	d.step(0, "PayMongo is asked", "invoices", "show", unknown)
	d.step(0, declined, "invoices", "list", "--decline-code", "insufficient_funds,lost_card")
	d.step(0, unknown, "invoices", "list", "--waiting-for", "provider", "-o", "jsonl")
	d.step(2, "schedule, provider, customer", "invoices", "list", "--waiting-for", "godot")
	d.step(2, "not the id", "invoices", "list", "--after", "s1")
	d.step(2, "-o is", "invoices", "list", "-o", "xml")

	rows, err := csv.NewReader(strings.NewReader(d.step(0, "", "invoices", "list", "-o", "csv"))).ReadAll()
	if err != nil || len(rows) != 5 || rows[0][0] != "id" {
		t.Errorf("%v %v", rows, err)
	}
	var attempts []struct{ ID, State string }
	if err := json.Unmarshal([]byte(d.step(0, "", "attempts", "list", "--state", "armed", "-o", "json")), &attempts); err != nil || len(attempts) != 1 {
		t.Fatalf("%v %v", attempts, err)
	}
	d.step(0, "conclusive after", "attempts", "show", attempts[0].ID)
	d.step(3, "not found", "attempts", "show", uuid.NewString())
	d.step(2, "not an id", "attempts", "list", "--invoice", "s1")

	d.step(2, "--reason", "invoices", "void", declined)
	d.step(4, "outcome of its last attempt", "invoices", "void", unknown, "--reason", "wrong price")
	d.step(4, "outcome of its last attempt", "invoices", "mark-uncollectible", unknown, "--reason", "moved away")
	d.step(0, "Dry run", "invoices", "void", declined, "--reason", "wrong price", "--dry-run")
	if got := d.text(`SELECT s.status FROM singil.subscriptions s WHERE external_id = 's0'`); got != "past_due" {
		t.Errorf("the subscription is %s after a decline", got)
	}
	d.step(0, "is void", "invoices", "void", declined, "--reason", "wrong price", "--actor", "ana")
	if got := d.text(`SELECT s.status FROM singil.subscriptions s WHERE external_id = 's0'`); got != "active" {
		t.Errorf("the subscription that owes nothing is %s", got)
	}
	d.step(4, "void already", "invoices", "void", declined, "--reason", "wrong price")
	d.step(4, "final", "invoices", "mark-uncollectible", declined, "--reason", "moved away")
	d.step(0, "is uncollectible", "invoices", "mark-uncollectible", fresh, "--reason", "moved away", "--actor", "ana")
	d.step(3, "not found", "invoices", "void", uuid.NewString(), "--reason", "x")
	if got := d.audited("void_invoice") + d.audited("mark_uncollectible"); got != "ana: wrong price open>voidana: moved away open>uncollectible" {
		t.Errorf("audited: %q", got)
	}
	if n := d.text(`SELECT count(*)::text FROM singil.events WHERE type IN ('invoice.void', 'invoice.uncollectible')`); n != "2" {
		t.Errorf("%s events", n)
	}

	for _, args := range []string{"retry " + d.invoice("s3"), "invoices retry " + d.invoice("s3") + " --reason ", "reconcile", "reconcile " + unknown, "events replay 1 --endpoint " + uuid.NewString()} {
		d.step(2, "--reason is needed", strings.Split(args, " ")...)
	}
	// What is about a bulk alone is not ignored with ids: a dry run would charge.
	for _, flag := range []string{"--dry-run", "--rest=0", "--per-second=1"} {
		d.step(2, "in bulk", "retry", d.invoice("s3"), "--reason", "they called", flag)
	}
	if got := d.text(`SELECT count(*)::text FROM singil.audit_log WHERE action IN ('retry_invoice', 'reconcile', 'replay_events')`); got != "0" {
		t.Errorf("%s acts without a reason, or with a flag that is not theirs", got)
	}
	d.step(0, "with pm_3", "retry", d.invoice("s3"), "--reason", "they called")
	d.step(4, "was asked for already", "retry", d.invoice("s3"), "--reason", "they called")
}

// A megabyte of arguments is refused like any other name that nobody has.
func TestHugeArguments(t *testing.T) {
	d := newDesk(t, 1)
	huge := strings.Repeat("x", 1<<20)
	d.step(3, "not found", "subscriptions", "show", huge)
	d.step(3, "not found", "invoices", "show", huge)
	d.step(3, "not found", "retry", huge, "--reason", "they called")
	d.step(0, "", "invoices", "list", "--subscription", huge)
	d.step(0, "", "customers", "list", "--email", huge)
	d.step(2, "not a status", "invoices", "list", "--status", huge)
	many := append([]string{"retry", "--reason", "they called", "-o", "jsonl"}, strings.Fields(strings.Repeat("i1 ", 300_000/3))...)
	if stdout := d.step(3, "100000 invoices were refused", many...); strings.Count(stdout, "\n") != 100_000 {
		t.Errorf("%d results", strings.Count(stdout, "\n"))
	}
}

// Who may only read sees everything and changes nothing.
func TestViewer(t *testing.T) {
	d := newDesk(t, 2)
	d.attempt("s0", d.now.Add(-30*time.Minute), "do_not_honor")
	viewer := withSetting(t, d.dsn, "default_transaction_read_only", "on")
	for args, want := range map[string]int{
		"subscriptions list": 0, "customers show u0": 0, "invoices show " + d.invoice("s0"): 0, "attempts list": 0, "why s0": 0,
		"run-due --dry-run": 0, "forecast": 0, "audit list": 0, "webhooks list": 0, "payment-methods list": 0,
		"retry --status open --rest 0 --dry-run":           0,
		"subscriptions pause s0 --reason x":                4,
		"invoices void " + d.invoice("s0") + " --reason x": 4,
		"retry " + d.invoice("s1") + " --reason x":         4,
		"retry --status open --rest 0 --yes --reason x":    4,
	} {
		if code, stdout, stderr := command(t, viewer, strings.Fields(args)...); code != want || want == 4 && !strings.Contains(stderr, "may not do that") {
			t.Errorf("singil %s: exit code %d, want %d: %s%s", args, code, want, stdout, stderr)
		}
	}
}
