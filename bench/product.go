package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/bench/stub"
	"github.com/singil/singil/billing"
	"github.com/singil/singil/migrations"
)

// product is singil with a database of its own. Its business time is virtual and stands still but where we move it, so
// that subscriptions fall due when we say.
type product struct {
	*rig
	database string
	pool     *pgxpool.Pool
	river    *river.Client[pgx.Tx]
	now      time.Time // business time
	realTime bool      // instead of now
	rate     float64   // PAYMONGO_RATE; 0: none
	crowd    int       // SINGIL_IN_FLIGHT; 0: singil's own
	inFlight int       // how many charges a daemon has under way at most, as the last one says
	address  string    // of the last daemon
	batches  int
	prefix   string // of the names of the last batch
	seeded   int64
}

const planLine = `{"type":"plan","external_id":"bench","name":"Bench","amount_minor":49900,"currency":"PHP","interval":"month","interval_count":1}`

func newProduct(ctx context.Context, r *rig, database string) (_ *product, err error) {
	p := &product{rig: r, database: database, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	defer func() {
		if err != nil && p.pool != nil {
			p.pool.Close()
		}
	}()
	if err := r.migrate(ctx); err != nil {
		return nil, err
	}
	if p.pool, err = r.database(ctx, database, migrated); err != nil {
		return nil, err
	}
	if p.river, err = river.NewClient(riverpgxv5.New(p.pool), &river.Config{Schema: migrations.RiverSchema}); err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		if err := billing.Bind(ctx, tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		// A day's budget that does not run out.
		_, err := tx.Exec(ctx, `UPDATE singil.instance SET day_max_count = 2000000000, day_max_minor = 1000000000000000`)
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = billing.Import(ctx, p.pool, strings.NewReader(planLine), billing.ImportOptions{Now: p.now, Actor: "bench", Source: "bench"})
	if err != nil {
		return nil, err
	}
	return p, p.moveClock(ctx, p.now)
}

// migrated is the database that those of singil are copies of: migrating takes longer.
const migrated = "migrated"

func (r *rig) migrate(ctx context.Context) error {
	var there bool
	if err := r.admin.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, migrated).Scan(&there); err != nil || there {
		return err
	}
	pool, err := r.database(ctx, migrated, "template1")
	if err != nil {
		return err
	}
	pool.Close()
	return migrations.Up(ctx, r.pg.DSN(migrated), slog.New(slog.DiscardHandler))
}

func (p *product) name() string {
	if p.rate > 0 {
		return "limited"
	}
	return "singil"
}

func (p *product) books() *pgxpool.Pool        { return p.pool }
func (p *product) jobs() *river.Client[pgx.Tx] { return p.river }
func (p *product) queue() string               { return "charge" }
func (p *product) close()                      { p.pool.Close() }

// drop takes the database away, which makes room for the next. It gives the error that there was before.
func (p *product) drop(ctx context.Context, before error) error {
	p.pool.Close()
	if before != nil {
		return before // its daemon may still be there
	}
	_, err := p.admin.Exec(ctx, "DROP DATABASE "+pgx.Identifier{p.database}.Sanitize()+" WITH (FORCE)")
	return err
}

func (p *product) start(ctx context.Context) (*process, error) { return p.daemon(ctx) }

var (
	listens    = regexp.MustCompile(`"msg":"running","listen":"([^"]+)"`)
	maxWorkers = regexp.MustCompile(`(?m)^singil_workers_max\{queue="charge"\} (\d+)$`)
)

// daemon starts singil run with further settings, and returns when it runs.
func (p *product) daemon(ctx context.Context, settings ...string) (*process, error) {
	rate := "inf"
	if p.rate > 0 {
		rate = fmt.Sprint(p.rate)
	}
	if p.crowd > 0 {
		settings = append([]string{fmt.Sprint("SINGIL_IN_FLIGHT=", p.crowd)}, settings...)
	}
	env := append(append([]string{
		"PAYMONGO_RATE=" + rate, "DATABASE_URL=" + p.pg.DSN(p.database), "PAYMONGO_BASE_URL=" + p.provider + "/v1", "PAYMONGO_SECRET_KEY=sk_test_bench",
		"SINGIL_LISTEN=127.0.0.1:0", "SINGIL_WATCH=false", "PPROF_DIR=" + p.options.profiles,
	}, p.options.settings...), settings...)
	daemon, err := p.launch("singil", p.singil, []string{"run"}, env)
	if err != nil {
		return nil, err
	}
	if p.address, err = daemon.says(ctx, listens); err != nil {
		return nil, err
	}
	return daemon, p.readLimit(ctx)
}

func (p *product) readLimit(ctx context.Context) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	limit := maxWorkers.FindSubmatch(content)
	if limit == nil {
		return errors.New("singil does not tell how many charges it has under way at most")
	}
	p.inFlight, err = strconv.Atoi(string(limit[1]))
	return err
}

// One customer with one card and one subscription, n times. The ids are as version 7 makes them: the beginning rises, and
// the rest is noise.
var sqlSeed = []string{
	`INSERT INTO singil.customers (id, external_id, provider_customer_id, name, email)
	SELECT id, name, 'cus_' || name, 'Customer ' || i, 'customer' || i || '@example.com' FROM seed`,
	`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, last4, exp_month, exp_year)
	SELECT id, id, 'pm_' || name, 'visa', '4345', 12, 2040 FROM seed`,
	`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
	                                   anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
	SELECT seed.id, seed.name, seed.id, p.id, 'active', p.amount_minor, p.currency, p.interval_unit, p.interval_count,
	       seed.due, 'Asia/Manila', 0, seed.due, seed.due, p.dunning, p.catch_up
	FROM seed CROSS JOIN singil.plans p`,
}

const sqlSeedIDs = `
CREATE TEMP TABLE seed ON COMMIT DROP AS
SELECT i, $3 || i AS name, $4::timestamptz + ($5::timestamptz - $4) * (i::float8 / $2::int) AS due,
       (lpad(to_hex($1::bigint + i), 12, '0') || '7' || substr(md5($3 || i), 1, 3) || '8' || substr(md5($3 || i), 4, 15))::uuid AS id
FROM generate_series(1, $2::int) AS i`

// subscribe adds n subscriptions whose first periods begin between two business times.
func (p *product) subscribe(ctx context.Context, n int, first, last time.Time) error {
	p.batches++
	p.prefix = fmt.Sprintf("b%04d-", p.batches)
	err := pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sqlSeedIDs, 1_700_000_000_000+p.seeded, n, p.prefix, first, last); err != nil {
			return err
		}
		for _, sql := range sqlSeed {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add %d subscriptions: %w", n, err)
	}
	p.seeded += int64(n)
	_, err = p.pool.Exec(ctx, "VACUUM (ANALYZE)")
	return err
}

func (p *product) moveClock(ctx context.Context, to time.Time) error {
	p.now = to
	return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error { return billing.SetVirtualClock(ctx, tx, to) })
}

// prepare has n subscriptions fall due. A daemon that runs opens their invoices and enqueues their charges.
func (p *product) prepare(ctx context.Context, n int) error {
	due := p.now.Add(time.Hour)
	if err := p.subscribe(ctx, n, due, due); err != nil {
		return err
	}
	return p.moveClock(ctx, due)
}

// What has a job has its next attempt behind the job's lease.
const sqlEnqueued = `
SELECT NOT EXISTS (SELECT FROM singil.subscriptions WHERE next_due_at <= $1)
   AND NOT EXISTS (SELECT FROM singil.invoices WHERE status = 'open' AND next_attempt_at <= $1)`

func (p *product) enqueued(ctx context.Context) (yes bool, err error) {
	err = p.pool.QueryRow(ctx, sqlEnqueued, p.now).Scan(&yes)
	return yes, err
}

const sqlNothingOpen = `SELECT NOT EXISTS (SELECT FROM singil.invoices WHERE status = 'open')`

func (p *product) nothingOpen(ctx context.Context) (yes bool, err error) {
	err = p.pool.QueryRow(ctx, sqlNothingOpen).Scan(&yes)
	return yes, err
}

// Business time stands still: who waits for a later hour waits for ever.
const sqlWhyOpen = `
SELECT COALESCE(string_agg(format('%s %s, claimed %s, waiting for the %s, %s attempts, the last %s; reason: %s',
         o.n, o.status, o.claimed, o.waiting_for, o.attempt_count, o.attempt, o.reason), E'\n'), '')
FROM (SELECT count(*) AS n, i.status, i.claimed, i.waiting_for, i.attempt_count, i.reason,
             (SELECT a.state FROM singil.attempts a WHERE a.invoice_id = i.id ORDER BY a.no DESC LIMIT 1) AS attempt
      FROM singil.invoices i WHERE i.status NOT IN ('paid', 'void') GROUP BY 2, 3, 4, 5, 6, 7 LIMIT 10) o`

// whyOpen tells of the invoices that are not paid.
func (p *product) whyOpen(ctx context.Context) string {
	var why string
	if err := p.pool.QueryRow(ctx, sqlWhyOpen).Scan(&why); err != nil {
		return err.Error()
	}
	return why
}

const sqlPaid = `
SELECT i.id::text, i.payment_id, i.amount_minor
FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE s.external_id LIKE $1 || '%' AND i.status = 'paid'`

func (p *product) paid(ctx context.Context) ([]stub.Payment, error) {
	rows, err := p.pool.Query(ctx, sqlPaid, p.prefix)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[stub.Payment])
}
