// Package scale measures what the number of subscriptions and of old invoices
// costs: the sweep, the plans of all statements on the path of a charge, and a
// month of bloat. It fills databases of its own with Fill, up to ten million
// subscriptions, and runs the real worker on them, against a provider that
// answers at once.
package scale

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/devpg"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/worker"
)

// Settings of the servers that are measured, beside fsync: what one would set on
// a machine with 8 GB for this alone.
func Settings() map[string]string {
	return map[string]string{
		"shared_buffers": "2GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min",
		"shared_preload_libraries": "pg_stat_statements,auto_explain", "pg_stat_statements.track": "all", "pg_stat_statements.max": "2000",
		"track_io_timing": "on", "random_page_cost": "1.1", "effective_cache_size": "6GB", "jit": "off",
	}
}

// FillSettings are Settings for a server that only loads.
func FillSettings() map[string]string {
	s := Settings()
	s["wal_level"], s["max_wal_senders"], s["shared_buffers"] = "minimal", "0", "4GB"
	return s
}

// World is a server with one database, and a worker on it.
type World struct {
	Server *devpg.Server
	Pool   *pgxpool.Pool

	collector *worker.Collector
	jobs      *river.Client[pgx.Tx]
	log       *slog.Logger
	now       func() time.Time
}

// Config of a World. Now and Log are required.
type Config struct {
	Dir      string            // of the cluster; "": one that goes with the world
	Settings map[string]string // nil: Settings()
	Log      *slog.Logger
	Now      func() time.Time
}

// Open starts the server, brings the schema up to date, and binds the database
// to a test environment with a virtual clock. What is in it stays.
func Open(ctx context.Context, cfg Config) (_ *World, err error) {
	w := &World{log: cfg.Log, now: cfg.Now}
	settings := cfg.Settings
	if settings == nil {
		settings = Settings()
	}
	if w.Server, err = devpg.Start(ctx, devpg.Options{DataDir: cfg.Dir, Durable: true, Settings: settings}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if err := migrations.Up(ctx, w.Server.DSN(""), slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	if _, err := w.Pool.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`); err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, w.Pool, func(tx pgx.Tx) error {
		err := billing.Bind(ctx, tx, billing.EnvironmentDev, false)
		if errors.Is(err, billing.ErrOtherCluster) {
			return nil
		}
		return err
	})
	return w, err
}

// connect makes the pool, as singil run does, and the worker. The statement
// limit is not there: filling takes as long as it takes.
func (w *World) connect(ctx context.Context) error {
	pc, err := pgxpool.ParseConfig(w.Server.DSN(""))
	if err != nil {
		return err
	}
	pc.MaxConns = 40
	pc.ConnConfig.RuntimeParams["enable_seqscan"] = "off" // as the daemon has it for its charges
	if w.Pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return err
	}
	quiet := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	w.collector = worker.NewCollector(worker.Config{
		Pool: w.Pool, Gateway: provider{w.now}, Environment: billing.EnvironmentDev, Log: quiet, Now: w.now,
	})
	w.jobs, err = river.NewClient(riverpgxv5.New(w.Pool), &river.Config{
		Schema: migrations.RiverSchema, Workers: w.collector.Workers(), Logger: quiet,
		Queues:     map[string]river.QueueConfig{worker.QueueCharge: {MaxWorkers: 200}, worker.QueueReconcile: {MaxWorkers: 20}},
		JobTimeout: worker.JobTimeout, RescueStuckJobsAfter: worker.RescueAfter, CompletedJobRetentionPeriod: time.Hour,
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond, ReindexerIndexNames: worker.ReindexedIndexes(),
	})
	return err
}

// Close stops the server. A cluster without a Dir goes with it.
func (w *World) Close() error {
	if w.Pool != nil {
		w.Pool.Close()
	}
	if w.Server == nil {
		return nil
	}
	return w.Server.Stop()
}

// SetClock moves the database's virtual clock.
func (w *World) SetClock(ctx context.Context, at time.Time) error {
	return pgx.BeginFunc(ctx, w.Pool, func(tx pgx.Tx) error { return billing.SetVirtualClock(ctx, tx, at) })
}

func (w *World) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := w.Pool.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(strings.Fields(sql), " "), err)
	}
	return nil
}

// provider takes every charge at once: what is measured here is the database.
type provider struct{ now func() time.Time }

func name(prefix, of string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(of)) // it cannot fail
	return prefix + strconv.FormatUint(h.Sum64(), 36)
}

func (p provider) Create(_ context.Context, r worker.CreateRequest) (billing.ProviderIntent, error) {
	return billing.ProviderIntent{ID: name("pi_", r.Key) + "_" + strconv.FormatInt(r.Amount.Minor, 10), Status: billing.ProviderAwaitingMethod, Amount: r.Amount}, nil
}

func (p provider) Retrieve(_ context.Context, id string) (billing.ProviderIntent, error) {
	return p.paid(id)
}

func (p provider) Attach(_ context.Context, armed billing.Armed, _ time.Time) billing.Answer {
	intent, err := p.paid(armed.ProviderIntentID)
	if err != nil {
		return billing.Answer{Kind: billing.AnswerUnknown, Reason: "id"}
	}
	return billing.Answer{Kind: billing.AnswerIntent, Intent: intent, Reason: "succeeded"}
}

func (provider) CloseCheckout(context.Context, string) (bool, error) { return false, nil } // there are none

func (provider) Cancel(context.Context, string) error { return nil }

func (provider) HeldUntil() time.Time { return time.Time{} }

// paid reads the amount from the id, so that nothing has to be remembered.
func (p provider) paid(id string) (billing.ProviderIntent, error) {
	_, amount, _ := strings.Cut(strings.TrimPrefix(id, "pi_"), "_")
	minor, err := strconv.ParseInt(amount, 10, 64)
	if err != nil {
		return billing.ProviderIntent{}, err
	}
	money := billing.Money{Minor: minor, Currency: billing.CurrencyPHP}
	return billing.ProviderIntent{
		ID: id, Status: billing.ProviderSucceeded, Amount: money,
		Payments: []billing.ProviderPayment{{ID: name("pay_", id), Status: "paid", Amount: money, At: p.now()}},
	}, nil
}
