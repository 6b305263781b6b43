package scale

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func open(t *testing.T) *World {
	t.Helper()
	w, err := Open(t.Context(), Config{Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *World) count(t *testing.T, sql string) (n int) {
	t.Helper()
	if err := w.Pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// TestPartitioning applies docs/partitioning.sql to a database with old invoices,
// sweeps and charges on it, and tries to bill a period twice from one part to the
// other.
func TestPartitioning(t *testing.T) {
	t.Parallel()
	w := open(t)
	size := Size{Subscriptions: 300, Periods: 2, Settled: 100, Due: 50}
	if err := w.Fill(t.Context(), size); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../../docs/partitioning.sql")
	if err != nil {
		t.Fatal(err)
	}
	var cut, month string
	if err := w.Pool.QueryRow(t.Context(), `
		SELECT rpad(lpad(to_hex((extract(epoch FROM date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0'), 32, '0')::uuid::text,
		       date_trunc('month', now() AT TIME ZONE 'UTC')::date::text`).Scan(&cut, &month); err != nil {
		t.Fatal(err)
	}
	if err := pgx.BeginFunc(t.Context(), w.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), strings.ReplaceAll(string(script), "{cut}", cut)+`;SELECT add_month('`+month+`')`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.Pool.Reset()

	swept, err := w.Sweep(t.Context(), Start)
	if err != nil || swept.Invoices != 50 || swept.Jobs != 50 {
		t.Fatalf("%+v %v", swept, err)
	}
	if err := w.jobs.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.jobs.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM singil.invoices_first`:                                                        600,
		`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`:                                        650,
		`SELECT count(*) FROM singil.attempts WHERE state = 'succeeded'`:                                    150,
		`SELECT count(*) FROM singil.attempts_first`:                                                        100,
		`SELECT count(*) FROM singil.events_rest WHERE type = 'invoice.paid'`:                               50,
		`SELECT count(*) FROM singil.billed_periods`:                                                        650,
		`SELECT count(*) FROM singil.invoices_rest`:                                                         0,
		`SELECT count(*) FROM singil.payments WHERE status = 'paid'`:                                        150,
		`SELECT count(*) FROM singil.payment_intents WHERE state = 'succeeded'`:                             150,
		`SELECT count(*) FROM pg_constraint WHERE conrelid = 'singil.invoices'::regclass AND contype = 'f'`: 2,
		`SELECT count(*) FROM pg_trigger WHERE tgrelid = 'singil.invoices'::regclass AND NOT tgisinternal`:  5,
		`SELECT count(*) FROM pg_trigger WHERE tgrelid = 'singil.attempts'::regclass AND NOT tgisinternal`:  4,
	} {
		if got := w.count(t, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}

	// A period of the old part, once more in the new one: by its number, and by its time.
	again := func(no, rule string) {
		_, err := w.Pool.Exec(t.Context(), `
			INSERT INTO singil.invoices (id, subscription_id, customer_id, period_no, period, amount_minor, currency, livemode, due_at, next_attempt_at)
			SELECT singil.first_id(now()), subscription_id, customer_id, `+no+`, period, amount_minor, currency, livemode, due_at, due_at
			FROM singil.invoices_first LIMIT 1`)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.ConstraintName != rule {
			t.Errorf("a period is billed again as number %s: %v, want %s", no, err, rule)
		}
	}
	again("period_no", "period_billed_once")
	again("period_no + 100", "periods_do_not_overlap")
	// And a second open attempt on an intent.
	_, err = w.Pool.Exec(t.Context(), `
		INSERT INTO singil.attempts (id, payment_intent_id, invoice_id, no, fence, payment_method_id, provider_payment_method_id, trigger, state, armed_at, send_before, settled_after, settled_at, evidence)
		SELECT gen_random_uuid(), payment_intent_id, invoice_id, no + 1, fence, payment_method_id, provider_payment_method_id, trigger, 'succeeded', armed_at, send_before, settled_after, settled_at, evidence
		FROM singil.attempts LIMIT 1`)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || !strings.HasPrefix(refused.ConstraintName, "attempts_") {
		t.Errorf("a second success of one intent: %v", err)
	}
}
