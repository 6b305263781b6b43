package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/failpoint"
)

// Config of a Collector. Pool, Gateway, Environment, Log and Now are required.
type Config struct {
	Pool        *pgxpool.Pool
	Gateway     Gateway
	Environment billing.Environment
	Livemode    bool
	Log         *slog.Logger
	Metrics     *Metrics           // nil: counted for nobody
	Limits      billing.CardLimits // zero: the networks'
	// MayCharge is an interlock of this process; nil: none. Those in the
	// database are always asked.
	MayCharge func() error
	// Watch lets a sweep compare the last hour with what is usual, and stop
	// charging when they are far apart.
	Watch bool
	// Witness remembers what was armed; nil: one of its own, without a file.
	Witness *Witness
	// Now is the real clock of this process, with its monotonic reading.
	Now func() time.Time
	// BatchSize bounds the rows of one transaction. 0: 500.
	BatchSize int
	// InFlight bounds the charges that are under way at the same time. 0: 200.
	InFlight int
	// SweepSize bounds the subscriptions or invoices of one sweep transaction. 0: 1000.
	SweepSize int
}

// Collector collects invoices. Safe for concurrent use.
type Collector struct {
	pool        *pgxpool.Pool
	gateway     Gateway
	environment billing.Environment
	livemode    bool
	log         *slog.Logger
	metrics     *Metrics
	limits      billing.CardLimits
	holidays    billing.Holidays
	realNow     func() time.Time
	interlock   func() error
	witness     *Witness
	sweepSize   int
	inFlight    chan struct{} // holds one for each charge under way
	watching    bool
	usual       usual
	shared      atomic.Int64 // the last hold that the others were told of, unix nanoseconds
	forgotten   atomic.Int64 // how far the events were looked through, see billing.Forget

	load    *batcher[uuid.UUID, loadedInvoice]
	arm     *batcher[billing.ArmRequest, billing.ArmResult]
	settled *batcher[billing.Settlement, billing.Settled]
}

// NewCollector makes a Collector. It panics on a config that lacks what is
// required: that is a mistake of the program.
func NewCollector(cfg Config) *Collector {
	if cfg.Pool == nil || cfg.Gateway == nil || cfg.Environment == "" || cfg.Log == nil || cfg.Now == nil {
		panic("worker: Config needs Pool, Gateway, Environment, Log and Now")
	}
	w := &Collector{
		pool: cfg.Pool, gateway: cfg.Gateway, environment: cfg.Environment, livemode: cfg.Livemode, log: cfg.Log,
		metrics: cfg.Metrics, limits: cfg.Limits, holidays: billing.BankHolidays(), realNow: cfg.Now, interlock: cfg.MayCharge,
		sweepSize: cmp.Or(cfg.SweepSize, 1000), inFlight: make(chan struct{}, cmp.Or(cfg.InFlight, 200)), watching: cfg.Watch, witness: cfg.Witness,
	}
	if w.witness == nil {
		w.witness = &Witness{}
	}
	if w.interlock == nil {
		w.interlock = func() error { return nil }
	}
	if w.metrics == nil {
		w.metrics = NewMetrics()
	}
	if w.limits == (billing.CardLimits{}) {
		w.limits = billing.DefaultCardLimits()
	}
	size := cmp.Or(cfg.BatchSize, 500)
	w.load = newBatcher(size, 2, w.loadBatch)
	w.arm = newBatcher(size, 2, w.armBatch)
	w.settled = newBatcher(size, 2, w.settleBatch)
	return w
}

// loadedInvoice is a collection with the time and the state of the instance
// that it was loaded under.
type loadedInvoice struct {
	*billing.Collection
	now time.Time
	may error
}

func (w *Collector) loadBatch(ctx context.Context, ids []uuid.UUID) ([]loadedInvoice, error) {
	instance, err := billing.LoadInstance(ctx, w.pool)
	if err != nil {
		return nil, err
	}
	now := instance.Now(w.realNow())
	found, err := billing.Load(ctx, w.pool, ids, now)
	if err != nil {
		return nil, err
	}
	out := make([]loadedInvoice, len(ids))
	for i, id := range ids {
		c := found[id]
		if c != nil && slices.Contains(ids[:i], id) {
			c = c.Copy() // two jobs of one invoice: each writes in its own
		}
		out[i] = loadedInvoice{Collection: c, now: now, may: w.mayCharge(instance)}
	}
	return out, nil
}

// mayCharge asks this process and the instance.
func (w *Collector) mayCharge(instance billing.Instance) error {
	if err := w.interlock(); err != nil {
		return err
	}
	return instance.MayCharge(w.realNow())
}

// armBatch is durable when it returns without an error: the commit was
// acknowledged. It is never tried again from here. After an error nobody knows
// whether it was committed, and nothing may be sent.
func (w *Collector) armBatch(ctx context.Context, requests []billing.ArmRequest) (results []billing.ArmResult, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		// In the same transaction: on a database that was exchanged under us, Arm
		// finds charging frozen.
		if _, err := w.witness.Check(ctx, tx); err != nil {
			return err
		}
		results, err = billing.Arm(ctx, tx, requests, w.realNow())
		failpoint.Hit("cp12")
		return err
	})
	failpoint.Hit("cp13")
	if err == nil {
		err = w.noteArmed(results)
	}
	switch {
	case err == nil, isConnection(err):
	case len(requests) > 1:
		// One bad row must not keep the others from being charged.
		return one(ctx, requests, w.armBatch, func(err error) billing.ArmResult { return billing.ArmResult{Err: err} })
	case errors.Is(err, billing.ErrOverBudget):
		return []billing.ArmResult{{Err: billing.ErrOverBudget}}, nil
	}
	return results, err
}

// noteArmed has the witness remember one attempt of the commit; they are there
// together or not at all.
func (w *Collector) noteArmed(results []billing.ArmResult) error {
	for _, r := range results {
		if r.Err == nil {
			return w.witness.Note(r.Armed.AttemptID)
		}
	}
	return nil
}

// settleBatch stores outcomes. A transaction that failed stored nothing, or
// stored it unacknowledged; doing it again is harmless: what is settled stays.
func (w *Collector) settleBatch(ctx context.Context, list []billing.Settlement) (results []billing.Settled, err error) {
	err = retry(ctx, func() error {
		return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			instance, err := billing.LoadInstance(ctx, tx)
			if err != nil {
				return err
			}
			results, err = billing.Settle(ctx, tx, list, instance.Now(w.realNow()), w.holidays)
			failpoint.Hit("cp18b")
			return err
		})
	})
	if err != nil && len(list) > 1 && !isConnection(err) {
		return one(ctx, list, w.settleBatch, nil)
	}
	return results, err
}

// one runs a batch row by row, after the whole of it failed on account of one
// row. Rows that fail alone get failed's result, or fail the rest if it is nil.
func one[In, Out any](ctx context.Context, rows []In, flush func(context.Context, []In) ([]Out, error), failed func(error) Out) ([]Out, error) {
	out := make([]Out, len(rows))
	var errs []error
	for i := range rows {
		result, err := flush(ctx, rows[i:i+1])
		switch {
		case err == nil:
			out[i] = result[0]
		case failed != nil:
			out[i] = failed(err)
		default:
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// retry does again what the database asked to have done again: deadlocks and
// serialization failures, three times.
func retry(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		var pg *pgconn.PgError
		if err == nil || try == 3 || !errors.As(err, &pg) || pg.Code != "40P01" && pg.Code != "40001" || ctx.Err() != nil {
			return err
		}
	}
}

// isConnection tells trouble with the database from trouble with a row.
func isConnection(err error) bool {
	var pg *pgconn.PgError
	return !errors.As(err, &pg)
}

// shareHold tells the other daemons of a 429 that this one has met. Once a
// hold: the database is not asked for every charge.
func (w *Collector) shareHold(ctx context.Context) {
	until := w.gateway.HeldUntil()
	if last := w.shared.Load(); !until.After(time.Unix(0, last)) || !w.shared.CompareAndSwap(last, until.UnixNano()) {
		return
	}
	w.log.Warn("the provider wants us to slow down", "until", until)
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error { return billing.Block(ctx, tx, until) })
	if err != nil {
		w.log.Error("the other daemons were not told to slow down", "error", err)
	}
}

func (w *Collector) trip(ctx context.Context, reason string) error {
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error { return billing.TripBreaker(ctx, tx, reason) })
	if err != nil {
		return fmt.Errorf("trip the breaker: %w", err)
	}
	return nil
}
