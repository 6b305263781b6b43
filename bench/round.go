package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/singil/singil/bench/stub"
)

// contender is a billing worker that can be measured: singil, or the textbook's.
type contender interface {
	name() string
	// start returns when the worker runs.
	start(ctx context.Context) (*process, error)
	// prepare has n more invoices wait to be charged; enqueued tells whether there is a job for each by now.
	prepare(ctx context.Context, n int) error
	enqueued(ctx context.Context) (bool, error)
	nothingOpen(ctx context.Context) (bool, error)
	// paid is what the books have of the last prepare.
	paid(ctx context.Context) ([]stub.Payment, error)

	books() *pgxpool.Pool
	jobs() *river.Client[pgx.Tx]
	queue() string
}

// Charges is what one round of charging came to.
type Charges struct {
	Side      string  `json:"side"`
	LatencyMS int64   `json:"latency_ms"`
	Processes int     `json:"processes"`
	Charges   int     `json:"charges"`
	Seconds   float64 `json:"seconds"` // from the first job that may be fetched to the last invoice that is paid, durable
	PerSecond float64 `json:"per_second"`
	Allowed   float64 `json:"allowed_per_second,omitempty"` // by its rate limit, and by how many it has under way at most

	WorkerCPU    float64 `json:"worker_cpu_seconds_per_1000"`
	PostgresCPU  float64 `json:"postgres_cpu_seconds_per_1000"`
	Transactions float64 `json:"transactions_per_charge"`
	Writes       float64 `json:"writing_transactions_per_charge"`
	WAL          float64 `json:"wal_bytes_per_charge"`
	PeakBytes    int64   `json:"peak_memory_bytes"`   // of one process, while it charges
	EnqueuedIn   float64 `json:"enqueued_in_seconds"` // before that; of singil also opening the invoices

	Calls stub.Counts `json:"calls"`
}

// warmUpCharges is how many charges come before those that count.
const warmUpCharges = 1000

// round charges n invoices, whose jobs are there when the clock begins. It is an error if the books and the provider's
// ledger then differ in anything.
func (r *rig) round(ctx context.Context, c contender, n, processes int, latency time.Duration) (_ Charges, err error) {
	var workers []*process
	defer func() {
		for _, w := range workers {
			err = errors.Join(err, w.stop())
		}
		if err != nil {
			err = fmt.Errorf("charge %d invoices with %s: %w", n, c.name(), err)
		}
	}()
	for range processes {
		w, err := c.start(ctx)
		if err != nil {
			return Charges{}, err
		}
		workers = append(workers, w)
	}
	if err := r.warmUp(ctx, c, min(n, warmUpCharges)); err != nil {
		return Charges{}, fmt.Errorf("warm up: %w", err)
	}
	prepared, err := r.makeWait(ctx, c, n)
	if err != nil {
		return Charges{}, err
	}
	if err := r.resetProvider(ctx, latency); err != nil {
		return Charges{}, err
	}
	if _, err := r.admin.Exec(ctx, "CHECKPOINT"); err != nil {
		return Charges{}, err
	}
	commits, err := transactions(ctx, c.books())
	if err != nil {
		return Charges{}, err
	}
	result, err := r.clock(ctx, c, workers, n, latency)
	if err != nil {
		return Charges{}, err
	}
	for len(workers) > 0 {
		if err := workers[0].stop(); err != nil {
			return Charges{}, err
		}
		workers = workers[1:]
	}
	// Backends tell what they have committed once a second, and when they end.
	committed, err := transactions(ctx, c.books())
	if err != nil {
		return Charges{}, err
	}
	result.EnqueuedIn, result.Transactions = prepared.Seconds(), float64(committed-commits)/float64(n)
	result.Allowed = allowed(c, n, processes, latency)
	if result.Calls, err = r.calls(ctx); err != nil {
		return Charges{}, err
	}
	return result, r.compare(ctx, c, n)
}

// warmUp charges n invoices that do not count.
func (r *rig) warmUp(ctx context.Context, c contender, n int) error {
	if err := r.resetProvider(ctx, 0); err != nil {
		return err
	}
	if err := c.prepare(ctx, n); err != nil {
		return err
	}
	return r.charged(ctx, c, n, 0)
}

// clock lets go of the queue, in which n jobs wait, and measures until all of them are paid in the books.
func (r *rig) clock(ctx context.Context, c contender, workers []*process, n int, latency time.Duration) (Charges, error) {
	for _, w := range workers {
		if err := forgetPeak(w.pid()); err != nil {
			return Charges{}, err
		}
	}
	if err := r.forgetStatements(ctx, c); err != nil {
		return Charges{}, err
	}
	r.profile(c, workers)
	before, err := r.usage(ctx, workers)
	if err != nil {
		return Charges{}, err
	}
	began := time.Now()
	if err := c.jobs().QueueResume(ctx, c.queue(), nil); err != nil {
		return Charges{}, err
	}
	if err := r.charged(ctx, c, n, latency); err != nil {
		return Charges{}, err
	}
	took, count := time.Since(began).Seconds(), float64(n)
	after, err := r.usage(ctx, workers)
	if err != nil {
		return Charges{}, err
	}
	r.profile(c, workers)
	if err := r.noteStatements(ctx, c); err != nil {
		return Charges{}, err
	}
	result := Charges{
		Side: c.name(), LatencyMS: latency.Milliseconds(), Processes: len(workers), Charges: n, Seconds: took, PerSecond: count / took,
		WorkerCPU: (after.workers - before.workers).Seconds() / count * 1000, PostgresCPU: (after.postgres - before.postgres).Seconds() / count * 1000,
		Writes: float64(after.writes-before.writes) / count, WAL: float64(after.wal-before.wal) / count,
	}
	for _, w := range workers {
		peak, err := peakMemory(w.pid())
		if err != nil {
			return Charges{}, err
		}
		result.PeakBytes = max(result.PeakBytes, peak)
	}
	return result, nil
}

// makeWait has n jobs wait in a queue that is paused. It tells how long they took to get there.
func (r *rig) makeWait(ctx context.Context, c contender, n int) (time.Duration, error) {
	if err := pause(ctx, c.jobs(), c.queue()); err != nil {
		return 0, err
	}
	if err := r.resetProvider(ctx, 0); err != nil {
		return 0, err
	}
	if err := c.prepare(ctx, n); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := until(ctx, 20*time.Millisecond, patienceFor(n), func() (bool, error) { return c.enqueued(ctx) }); err != nil {
		return 0, fmt.Errorf("enqueue %d jobs: %w", n, err)
	}
	took := time.Since(began)
	calls, err := r.calls(ctx)
	if err == nil && calls.Creates > 0 {
		err = errors.New("the queue was paused, and jobs were worked")
	}
	return took, err
}

// pause pauses a queue. Workers must have worked before: while they start they may miss it. They hear of it at once, but
// do not say so.
func pause(ctx context.Context, client *river.Client[pgx.Tx], queue string) error {
	if err := client.QueuePause(ctx, queue, nil); err != nil {
		return err
	}
	select {
	case <-time.After(300 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patienceFor is far more than anything takes that is done to n invoices.
func patienceFor(n int) time.Duration { return 2*time.Minute + time.Duration(n)*3*time.Millisecond }

// putOffAfter is how long nothing may happen before we take it that what is left was put off.
const putOffAfter = 20 * time.Second

// charged waits until n payments were taken, and then until all of it is in the books.
func (r *rig) charged(ctx context.Context, c contender, n int, latency time.Duration) error {
	patience := patienceFor(n) + time.Duration(n)*latency/20
	var calls stub.Counts
	moved := time.Now()
	err := until(ctx, 5*time.Millisecond, patience, func() (bool, error) {
		before := calls
		var err error
		if calls, err = r.calls(ctx); err != nil || calls.Paid >= int64(n) {
			return err == nil, err
		}
		if calls != before {
			moved = time.Now()
		} else if time.Since(moved) > putOffAfter {
			moved = time.Now()
			return false, r.putOff(ctx, c, int64(n)-calls.Paid)
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%d of %d are paid: %w\n%s", calls.Paid, n, err, strings.Join(r.why(ctx, c), "\n"))
	}
	if err := until(ctx, time.Millisecond, patience, func() (bool, error) { return c.nothingOpen(ctx) }); err != nil {
		return fmt.Errorf("all are paid, and not in the books: %w\n%s", err, strings.Join(r.why(ctx, c), "\n"))
	}
	return nil
}

// putOff moves singil's clock on when nothing happens any more: what it put off by some minutes would otherwise never
// come. The report tells of it, and the round is as slow as that made it.
func (r *rig) putOff(ctx context.Context, c contender, left int64) error {
	p, ours := c.(*product)
	if !ours || p.realTime {
		return nil
	}
	told := strings.Join(r.putOffs, "\n")
	fresh := slices.DeleteFunc(r.why(ctx, c), func(line string) bool { return strings.Contains(told, line) })
	note := fmt.Sprintf("%s: %d were put off, and the clock moved on to reach them:\n%s", p.database, left, strings.Join(fresh, "\n"))
	r.log.Warn(note)
	r.putOffs = append(r.putOffs, note)
	return p.moveClock(ctx, p.now.Add(5*time.Minute))
}

// why tells what singil's books and logs say of a round that does not end.
func (r *rig) why(ctx context.Context, c contender) []string {
	p, ours := c.(*product)
	if !ours {
		return nil
	}
	said := []string{p.whyOpen(ctx)}
	for _, process := range r.processes {
		said = append(said, process.warnings()...)
	}
	return said
}

// allowed is how many charges a second singil's own limits allow of n, each of two calls, if it takes no time itself. 0:
// nothing limits it.
func allowed(c contender, n, processes int, latency time.Duration) float64 {
	p, ours := c.(*product)
	if !ours || latency == 0 {
		return 0
	}
	inFlight := p.inFlight * processes
	turns := (n + inFlight - 1) / inFlight // each takes as long as two calls
	least := float64(turns) * 2 * latency.Seconds()
	if p.rate > 0 {
		least = max(least, 2*float64(n)/p.rate+latency.Seconds()) // the last call is answered, too
	}
	return float64(n) / least
}

// compare holds the books against the provider's ledger.
func (r *rig) compare(ctx context.Context, c contender, n int) error {
	ledger, err := r.ledger(ctx)
	if err != nil {
		return err
	}
	books, err := c.paid(ctx)
	if err != nil {
		return err
	}
	return agree(ledger, books, n)
}

// agree is an error unless there are n invoices, each paid exactly once, in both the same.
func agree(ledger, books []stub.Payment, n int) error {
	taken := make(map[string]stub.Payment, len(ledger))
	for _, p := range ledger {
		if first, twice := taken[p.Invoice]; twice {
			return fmt.Errorf("invoice %s was paid twice: %s and %s", p.Invoice, first.Payment, p.Payment)
		}
		taken[p.Invoice] = p
	}
	for _, p := range books {
		if taken[p.Invoice] != p {
			return fmt.Errorf("the books have %+v, and the ledger %+v", p, taken[p.Invoice])
		}
		delete(taken, p.Invoice)
	}
	if len(books) != n || len(ledger) != n {
		return fmt.Errorf("of %d invoices %d are paid in the books and %d in the ledger", n, len(books), len(ledger))
	}
	return nil
}

// profile begins or ends the CPU profile of a singil that was built for it.
func (r *rig) profile(c contender, workers []*process) {
	if _, ours := c.(*product); !ours || r.options.profiles == "" {
		return
	}
	for _, w := range workers {
		_ = w.cmd.Process.Signal(syscall.SIGUSR1) // its end is noticed elsewhere
	}
	r.log.Info("profile", "directory", filepath.Clean(r.options.profiles))
}
