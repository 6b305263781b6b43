package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/singil/singil/bench/naive"
	"github.com/singil/singil/bench/stub"
)

// textbook is the naive worker with a database of its own.
type textbook struct {
	*rig
	pool   *pgxpool.Pool
	river  *river.Client[pgx.Tx]
	seeded int
	batch  int
}

func newTextbook(ctx context.Context, r *rig) (*textbook, error) {
	t := &textbook{rig: r}
	var err error
	if t.pool, err = r.database(ctx, "naive", "template1"); err != nil {
		return nil, err
	}
	if err := migrateRiver(ctx, t.pool); err != nil {
		return nil, err
	}
	if _, err := t.pool.Exec(ctx, naive.Schema); err != nil {
		return nil, err
	}
	t.river, err = river.NewClient(riverpgxv5.New(t.pool), &river.Config{})
	return t, err
}

func migrateRiver(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func (t *textbook) name() string                { return "textbook" }
func (t *textbook) books() *pgxpool.Pool        { return t.pool }
func (t *textbook) jobs() *river.Client[pgx.Tx] { return t.river }
func (t *textbook) queue() string               { return river.QueueDefault }
func (t *textbook) close()                      { t.pool.Close() }

var textbookRuns = regexp.MustCompile(`(textbook worker) runs\n`)

func (t *textbook) start(ctx context.Context) (*process, error) {
	worker, err := t.role("textbook", databaseName+"="+t.pg.DSN("naive"), providerName+"="+t.provider+"/v1")
	if err != nil {
		return nil, err
	}
	_, err = worker.says(ctx, textbookRuns)
	return worker, err
}

// runTextbook is the role: the naive worker until it is told to go.
func runTextbook(ctx context.Context) error {
	config, err := pgxpool.ParseConfig(os.Getenv(databaseName))
	if err != nil {
		return err
	}
	config.MaxConns = naive.Connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := naive.Client(pool, os.Getenv(providerName))
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "textbook worker runs")
	stop, cancel := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer cancel()
	<-stop.Done()
	return client.Stop(ctx)
}

// prepare adds n invoices, and a job for each.
func (t *textbook) prepare(ctx context.Context, n int) error {
	t.batch = t.seeded
	for _, sql := range []string{
		`INSERT INTO cards (id, provider_id) SELECT i, 'pm_' || i FROM generate_series($1::bigint + 1, $1 + $2) AS i`,
		`INSERT INTO invoices (id, card_id, amount) SELECT i, i, 49900 FROM generate_series($1::bigint + 1, $1 + $2) AS i`,
	} {
		if _, err := t.pool.Exec(ctx, sql, t.seeded, n); err != nil {
			return err
		}
	}
	for n > 0 {
		jobs := make([]river.InsertManyParams, min(n, 10_000))
		for i := range jobs {
			t.seeded++
			jobs[i].Args = naive.ChargeArgs{InvoiceID: int64(t.seeded)}
		}
		if _, err := t.river.InsertManyFast(ctx, jobs); err != nil {
			return err
		}
		n -= len(jobs)
	}
	_, err := t.pool.Exec(ctx, "VACUUM (ANALYZE)")
	return err
}

func (t *textbook) enqueued(context.Context) (bool, error) { return true, nil }

func (t *textbook) nothingOpen(ctx context.Context) (yes bool, err error) {
	err = t.pool.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM invoices WHERE status = 'open')`).Scan(&yes)
	return yes, err
}

func (t *textbook) paid(ctx context.Context) ([]stub.Payment, error) {
	rows, err := t.pool.Query(ctx, `SELECT id::text, payment_id, amount FROM invoices WHERE id > $1 AND status = 'paid'`, t.batch)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[stub.Payment])
}
