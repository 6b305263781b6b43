package scale

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Size of a data set.
type Size struct {
	Subscriptions int // one customer and one card each
	Periods       int // old invoices of each subscription, all paid
	Settled       int // old invoices, the newest, that have their intent, attempt, payment and event
	Due           int // subscriptions that are due at Start, all over the table
}

// Start is the business time of a data set. From then on subscriptions fall due
// evenly over Span, and again a month later.
var Start = time.Date(2026, 2, 1, 4, 0, 0, 0, time.UTC)

// Span is shorter than the shortest month, so that every day of it is in all.
const Span = 27 * 24 * time.Hour

// spread is a prime. Multiplied by it, modulo the number of subscriptions, the
// order in which they fall due becomes the order in which they signed up: those
// that are due together lie far apart in the tables, as they do in life.
const spread = 7368787

// Fill loads a data set into an empty database: without indexes, which are built
// afterwards, and without the guards. When it returns every index and every
// constraint is there again and was checked against all rows.
func (w *World) Fill(ctx context.Context, s Size) error {
	if s.Subscriptions%spread == 0 || s.Subscriptions < 1 {
		return fmt.Errorf("%d subscriptions: want 1 or more, and no multiple of %d", s.Subscriptions, spread)
	}
	put, back, err := w.strip(ctx)
	if err != nil {
		return err
	}
	if err := w.exec(ctx, put); err != nil {
		return err
	}
	for _, load := range loads(s) {
		began := w.now()
		if err := pgx.BeginFunc(ctx, w.Pool, func(tx pgx.Tx) error {
			// What is written to a table that was truncated in the same transaction needs
			// no log, if wal_level is minimal.
			sql := `SET LOCAL session_replication_role = replica; SET LOCAL timezone = 'Asia/Manila';`
			if load.name != "functions" {
				sql += "TRUNCATE singil." + load.name + ";"
			}
			_, err := tx.Exec(ctx, sql+load.sql)
			return err
		}); err != nil {
			return fmt.Errorf("fill %s: %w", load.name, err)
		}
		w.log.Info("filled", "what", load.name, "took", w.now().Sub(began).Round(time.Millisecond))
	}
	for _, group := range back {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(3)
		for _, statements := range group {
			g.Go(func() error {
				began := w.now()
				for _, sql := range statements {
					if err := pgx.BeginFunc(ctx, w.Pool, func(tx pgx.Tx) error {
						_, err := tx.Exec(ctx, `SET LOCAL maintenance_work_mem = '1GB'; SET LOCAL work_mem = '1GB'; SET LOCAL timezone = 'UTC';`+sql)
						return err
					}); err != nil {
						return fmt.Errorf("%s: %w", sql, err)
					}
					w.log.Info("built", "what", sql, "took", w.now().Sub(began).Round(time.Millisecond))
					began = w.now()
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	if err := w.exec(ctx, `VACUUM (ANALYZE)`); err != nil {
		return err
	}
	return w.exec(ctx, `CHECKPOINT`)
}

// filled are the tables that Fill loads.
const filled = `'customers', 'payment_methods', 'subscriptions', 'invoices', 'payment_intents', 'attempts', 'payments', 'events'`

// Foreign keys go first and come last, other constraints the other way round.
const sqlRules = `
SELECT c.relname, r.name, r.def, r.kind
FROM (
  SELECT k.conrelid AS rel, k.confrelid AS to_rel, k.conname AS name, pg_get_constraintdef(k.oid) AS def, k.contype::text AS kind
  FROM pg_constraint k WHERE k.contype IN ('p', 'u', 'x', 'f')
  UNION ALL
  SELECT i.indrelid, 0, x.relname, pg_get_indexdef(i.indexrelid), 'i'
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
  WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
) r
JOIN pg_class c ON c.oid = r.rel
LEFT JOIN pg_class t ON t.oid = r.to_rel
WHERE c.relnamespace = 'singil'::regnamespace AND (c.relname IN (` + filled + `) OR t.relname IN (` + filled + `))
ORDER BY r.kind = 'f' DESC, r.kind = 'i' DESC, c.relname, r.name`

// strip returns the statements that drop every index and every constraint which
// has one, and those that build them again: groups one after the other, of which
// the lists may run side by side.
func (w *World) strip(ctx context.Context) (drop string, back [2][][]string, err error) {
	rows, err := w.Pool.Query(ctx, sqlRules)
	if err != nil {
		return "", back, err
	}
	var drops []string
	var table, name, def, kind string
	indexes := map[string][]string{}
	var keys []string
	_, err = pgx.ForEachRow(rows, []any{&table, &name, &def, &kind}, func() error {
		if kind == "i" {
			drops = append(drops, "DROP INDEX singil."+name)
			indexes[table] = append(indexes[table], def)
			return nil
		}
		drops = append(drops, fmt.Sprintf("ALTER TABLE singil.%s DROP CONSTRAINT %s", table, name))
		add := fmt.Sprintf("ALTER TABLE singil.%s ADD CONSTRAINT %s %s", table, name, def)
		if kind == "f" {
			keys = append(keys, add)
		} else {
			indexes[table] = append([]string{add}, indexes[table]...)
		}
		return nil
	})
	if err != nil {
		return "", back, err
	}
	// A foreign key locks both its tables: one list.
	back[0], back[1] = slices.Collect(maps.Values(indexes)), [][]string{keys}
	return strings.Join(drops, ";"), back, nil
}

type load struct{ name, sql string }

// loads are the statements that fill the tables. Slot is the order of falling
// due, n that of signing up.
func loads(s Size) []load {
	n := int64(s.Subscriptions)
	back := new(big.Int).ModInverse(big.NewInt(spread%n), big.NewInt(n))
	inverse := int64(0)
	if back != nil {
		inverse = back.Int64()
	}
	r := strings.NewReplacer(
		"{n}", fmt.Sprint(n), "{spread}", fmt.Sprint(spread%n), "{inverse}", fmt.Sprint(inverse), "{periods}", fmt.Sprint(s.Periods),
		"{due}", fmt.Sprint(s.Due), "{start}", Start.Format(time.RFC3339), "{step}", fmt.Sprint(int64(Span/time.Microsecond)/n+1),
		"{settled}", fmt.Sprint(min(s.Settled, s.Subscriptions*min(s.Periods, 1))),
	)
	list := []load{
		{"functions", `
			CREATE OR REPLACE FUNCTION singil.bench_uuid(ms bigint, salt bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
			$$ SELECT encode(int8send(ms << 16 | 28672) || int8send(hashint8extended(salt, 0) & 4611686018427387903 | -9223372036854775808), 'hex')::uuid $$;
			CREATE OR REPLACE FUNCTION singil.bench_due(slot bigint) RETURNS timestamptz LANGUAGE sql STABLE AS
			$$ SELECT '{start}'::timestamptz + interval '1 microsecond' * CASE WHEN slot < {due} THEN -slot - 1 ELSE slot * {step} END $$;
			CREATE OR REPLACE FUNCTION singil.bench_id(kind bigint, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
			$$ SELECT singil.bench_uuid(1700000000000 + n, kind) $$;
			CREATE OR REPLACE FUNCTION singil.bench_invoice(kind bigint, period int, slot bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
			$$ SELECT singil.bench_uuid(1750000000000 + period * 2592000000 + slot * 2400 / ({n} / 1000000 + 1), kind + slot) $$;
			INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
			VALUES (singil.bench_id(0, 0), 'pro', 49900, 'PHP', 'month', 1, '{"offsets_days":[1,3,5,7],"hour":9,"end":"cancel"}', 'bill_all');`},
		{"customers", `
			INSERT INTO singil.customers (id, external_id, name, email)
			SELECT singil.bench_id(1, n), 'customer-' || n, 'Customer ' || n, 'customer' || n || '@example.com' FROM generate_series(0::bigint, {n} - 1) n`},
		{"payment_methods", `
			INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, last4, exp_month, exp_year)
			SELECT singil.bench_id(2, n), singil.bench_id(1, n), 'pm_' || substr(md5('pm' || n), 1, 24), 'visa', '4345', 12, 2030
			FROM generate_series(0::bigint, {n} - 1) n`},
		{"subscriptions", `
			INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			  anchor_at, time_zone, next_period_no, next_due_at, bill_from, last_charge_at, dunning, catch_up)
			SELECT singil.bench_id(3, n), 'subscription-' || n, singil.bench_id(1, n), singil.bench_id(0, 0), 'active', 49900, 'PHP', 'month', 1,
			  due - interval '1 month' * {periods}, 'Asia/Manila', {periods}, due, due - interval '1 month' * {periods},
			  due - interval '1 month', '{"offsets_days":[1,3,5,7],"hour":9,"end":"cancel"}', 'bill_all'
			FROM (SELECT n, singil.bench_due(n * {inverse} % {n}) AS due FROM generate_series(0::bigint, {n} - 1) n) d`},
	}
	var invoices strings.Builder
	for period := range s.Periods {
		fmt.Fprintf(&invoices, `
			INSERT INTO singil.invoices (id, subscription_id, customer_id, period_no, period, amount_minor, currency, livemode, status, due_at,
			  attempt_count, first_attempt_at, payment_method_id, paid_at, payment_id)
			SELECT singil.bench_invoice(0, %[1]d, slot), singil.bench_id(3, n), singil.bench_id(1, n), %[1]d,
			  tstzrange(at, due - interval '1 month' * ({periods} - 1 - %[1]d)), 49900, 'PHP', false, 'paid', at,
			  1, at, NULL, at, 'pay_' || substr(md5('%[1]d/' || slot), 1, 24)
			FROM (SELECT slot, slot * {spread} %% {n} AS n, singil.bench_due(slot) AS due, singil.bench_due(slot) - interval '1 month' * ({periods} - %[1]d) AS at
			      FROM generate_series(0::bigint, {n} - 1) slot) d;`, period)
	}
	list = append(list, load{"invoices", invoices.String()})
	// The newest period's last invoices, up to Settled.
	const newest = `
			FROM (SELECT slot, slot * {spread} % {n} AS n, singil.bench_due(slot) - interval '1 month' AS at
			      FROM generate_series({n}::bigint - {settled}, {n} - 1) slot) d`
	list = append(list, []load{
		{"payment_intents", `
			INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key, provider_intent_id, state, fence)
			SELECT singil.bench_invoice(1000000000000, {periods} - 1, slot), singil.bench_invoice(0, {periods} - 1, slot), 49900, 'PHP', false, 1,
			  'singil/dev/' || singil.bench_id(3, n) || '/' || {periods} - 1 || '/1', 'pi_' || substr(md5('pi' || slot), 1, 24), 'succeeded', 1` + newest},
		{"attempts", `
			INSERT INTO singil.attempts (id, payment_intent_id, invoice_id, no, fence, payment_method_id, provider_payment_method_id, trigger, state,
			  armed_at, send_before, settled_after, settled_at, payment_id, evidence)
			SELECT singil.bench_invoice(2000000000000, {periods} - 1, slot), singil.bench_invoice(1000000000000, {periods} - 1, slot), singil.bench_invoice(0, {periods} - 1, slot),
			  1, 1, singil.bench_id(2, n), 'pm_' || substr(md5('pm' || n), 1, 24), 'schedule', 'succeeded',
			  at, at + interval '1 minute', at + interval '15 minutes', at + interval '1 second', 'pay_' || substr(md5({periods} - 1 || '/' || slot), 1, 24),
			  '{"kind": "attach"}'` + newest},
		{"payments", `
			INSERT INTO singil.payments (payment_id, provider_intent_id, invoice_id, status, amount_minor, currency, livemode, source, provider_at, seen_at)
			SELECT 'pay_' || substr(md5({periods} - 1 || '/' || slot), 1, 24), 'pi_' || substr(md5('pi' || slot), 1, 24), singil.bench_invoice(0, {periods} - 1, slot),
			  'paid', 49900, 'PHP', false, 'attach', at, at` + newest},
		{"events", `
			INSERT INTO singil.events (id, type, subscription_id, customer_id, data, occurred_at)
			SELECT singil.bench_invoice(3000000000000, {periods} - 1, slot), 'invoice.paid', singil.bench_id(3, n), singil.bench_id(1, n),
			  jsonb_build_object('invoice_id', singil.bench_invoice(0, {periods} - 1, slot), 'subscription', 'subscription-' || n, 'period_no', {periods} - 1,
			                     'amount_minor', 49900, 'currency', 'PHP', 'payment_id', 'pay_' || substr(md5({periods} - 1 || '/' || slot), 1, 24)), at` + newest},
	}...)
	for i := range list {
		list[i].sql = r.Replace(list[i].sql)
	}
	return list
}
