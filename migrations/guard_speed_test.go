package migrations_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestGuardsAreNotQuadratic: PL/pgSQL keeps the plan of a guard's first call in a
// session. One that was made behind a statement which changed no row must do for
// a big batch as well.
func TestGuardsAreNotQuadratic(t *testing.T) {
	t.Parallel()
	const rows = 3000
	pool := attacked(t)
	do(t, pool, fmt.Sprintf(`
		INSERT INTO singil.invoices (id, subscription_id, customer_id, period_no, period, amount_minor, currency, livemode, due_at, next_attempt_at)
		SELECT gen_random_uuid(), %s, %s, 100 + n, tstzrange('2030-01-01Z'::timestamptz + interval '1 day' * n, '2030-01-02Z'::timestamptz + interval '1 day' * n),
		       49900, 'PHP', false, now(), now() FROM generate_series(1, %d) n`, id(1), id(1), rows))
	do(t, pool, `
		INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key, state, provider_intent_id)
		SELECT gen_random_uuid(), id, amount_minor, currency, livemode, 1, 'key of ' || id, 'ready', 'pi_' || id FROM singil.invoices WHERE period_no > 100`)
	do(t, pool, fmt.Sprintf(`
		INSERT INTO singil.attempts (id, payment_intent_id, invoice_id, no, fence, payment_method_id, provider_payment_method_id, trigger, armed_at, send_before, settled_after)
		SELECT gen_random_uuid(), id, invoice_id, 1, 0, %s, 'pm_1', 'schedule', '2026-02-01Z', '2026-02-01 00:01Z', '2026-02-01 00:15Z'
		FROM singil.payment_intents WHERE create_key LIKE 'key of %%'`, id(1)))

	for change, sql := range map[string]string{
		"invoices updated":        `UPDATE singil.invoices SET updated_at = now() WHERE period_no BETWEEN 101 AND 100 + %d`,
		"payment intents updated": `UPDATE singil.payment_intents SET updated_at = now() WHERE invoice_id IN (SELECT id FROM singil.invoices WHERE period_no BETWEEN 101 AND 100 + %d)`,
		"attempts updated":        `UPDATE singil.attempts SET written_at = now() WHERE invoice_id IN (SELECT id FROM singil.invoices WHERE period_no BETWEEN 101 AND 100 + %d)`,
		"invoices inserted": `
			INSERT INTO singil.invoices (id, subscription_id, customer_id, period_no, period, amount_minor, currency, livemode, due_at, next_attempt_at)
			SELECT gen_random_uuid(), subscription_id, customer_id, 5000 + period_no, tstzrange(lower(period) + interval '20 years', upper(period) + interval '20 years'),
			       49900, 'PHP', false, now(), now() FROM singil.invoices WHERE period_no BETWEEN 101 AND 100 + %d`,
		"payment intents inserted": `
			INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key, state, death_proof)
			SELECT gen_random_uuid(), id, amount_minor, currency, livemode, 2, 'second key of ' || id, 'dead', ` + proof + ` FROM singil.invoices WHERE period_no BETWEEN 101 AND 100 + %d`,
	} {
		took := func(n int) (least time.Duration) {
			for range 3 { // each in a session of its own
				conn, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range []int{0, n} {
					began := time.Now()
					tx, err := conn.Begin(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					tag, err := tx.Exec(t.Context(), fmt.Sprintf(sql, n))
					if err != nil || tag.RowsAffected() != int64(n) {
						t.Fatalf("%s: %v, %d rows", change, err, tag.RowsAffected())
					}
					if err := tx.Rollback(t.Context()); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(began); n > 0 && (least == 0 || took < least) {
						least = took
					}
				}
				if err := conn.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return least
		}
		small, big := took(rows/10), took(rows)
		t.Logf("%s: %d rows in %s, %d in %s", change, rows/10, small, rows, big)
		if big > 30*small {
			t.Errorf("%s: ten times as many rows take %d times as long", change, big/small)
		}
	}
}
