package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/singil/singil/internal/failpoint"
)

// Queues of their own, so that a slow provider holds nothing up but charges.
const (
	QueueCharge    = "charge"
	QueueReconcile = "reconcile"
	QueueSweep     = "sweep"
	QueueWebhook   = "webhook"
)

// JobTimeout is longer than anything a job does; RescueAfter is longer than
// that, so that no job is rescued while it runs.
const (
	JobTimeout  = 90 * time.Second
	RescueAfter = 5 * time.Minute
)

// With so many invoices in a job the queue's share of a charge is small; with more
// it is hardly smaller, and a job that is lost costs more of them a lease.
const mostInBatch = 20

// ChargeJobs is how many jobs a daemon works on at a time that has inFlight
// charges under way at most. Twice as many invoices are at hand, so that none of
// them is waited for.
func ChargeJobs(inFlight int) int { return max(1, 2*inFlight/mostInBatch) }

// River's retries are for trouble of our own and end soon: the sweep finds the
// invoice again when its lease is over.
const maxAttempts = 3

// ChargeArgs asks to collect one invoice. Jobs carry ids and nothing else.
type ChargeArgs struct {
	InvoiceID uuid.UUID `json:"invoice_id"`
}

// Kind implements river.JobArgs.
func (ChargeArgs) Kind() string { return "charge" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (ChargeArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueCharge, MaxAttempts: maxAttempts}
}

// ChargeBatchArgs asks to collect several invoices at the same time: on a billing
// day the queue costs more than the charges. They have the job in common and
// nothing else; an invoice whose run failed is found again like one whose job
// was lost.
type ChargeBatchArgs struct {
	InvoiceIDs []uuid.UUID `json:"invoice_ids"`
}

// Kind implements river.JobArgs.
func (ChargeBatchArgs) Kind() string { return "charge_batch" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (ChargeBatchArgs) InsertOpts() river.InsertOpts { return ChargeArgs{}.InsertOpts() }

// ReconcileArgs asks to look at one invoice's open outcome.
type ReconcileArgs struct {
	InvoiceID uuid.UUID `json:"invoice_id"`
	// Webhook tells that a webhook asks for it; otherwise its time has come.
	Webhook bool `json:"webhook,omitempty"`
}

// Kind implements river.JobArgs.
func (ReconcileArgs) Kind() string { return "reconcile" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (ReconcileArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueReconcile, MaxAttempts: maxAttempts}
}

// SweepArgs asks to look what is due. It carries nothing: a tick means look.
type SweepArgs struct{}

// Kind implements river.JobArgs.
func (SweepArgs) Kind() string { return "sweep" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (SweepArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueSweep, MaxAttempts: 1}
}

// ReindexedIndexes are those of River's indexes that it shall build anew every
// night: without the two that our migrations drop.
func ReindexedIndexes() []string {
	return slices.DeleteFunc(river.ReindexerIndexNamesDefault(), func(name string) bool {
		return name == "river_job_args_index" || name == "river_job_metadata_index"
	})
}

// Workers are the collector's River workers.
func (w *Collector) Workers() *river.Workers {
	workers := river.NewWorkers()
	river.AddWorker(workers, &chargeWorker{collector: w})
	river.AddWorker(workers, &chargeBatchWorker{collector: w})
	river.AddWorker(workers, &reconcileWorker{collector: w})
	river.AddWorker(workers, &sweepWorker{collector: w})
	river.AddWorker(workers, &webhookWorker{collector: w})
	river.AddWorker(workers, &cardSetupWorker{collector: w})
	return workers
}

type chargeWorker struct {
	river.WorkerDefaults[ChargeArgs]
	collector *Collector
}

func (w *chargeWorker) Work(ctx context.Context, job *river.Job[ChargeArgs]) error {
	failpoint.Hit("cp05")
	err := w.collector.chargeInTurn(ctx, job.Args.InvoiceID)
	failpoint.Hit("cp20")
	return err
}

type chargeBatchWorker struct {
	river.WorkerDefaults[ChargeBatchArgs]
	collector *Collector
}

func (w *chargeBatchWorker) Work(ctx context.Context, job *river.Job[ChargeBatchArgs]) error {
	failpoint.Hit("cp05")
	errs := make([]error, len(job.Args.InvoiceIDs))
	var charges sync.WaitGroup
	for i, invoice := range job.Args.InvoiceIDs {
		charges.Go(func() {
			defer func() {
				// River sees only the panics of its own goroutines.
				if v := recover(); v != nil {
					errs[i] = fmt.Errorf("invoice %s: panic: %v\n%s", invoice, v, debug.Stack())
				}
			}()
			errs[i] = w.collector.chargeInTurn(ctx, invoice)
		})
	}
	charges.Wait()
	failpoint.Hit("cp20")
	return errors.Join(errs...)
}

type reconcileWorker struct {
	river.WorkerDefaults[ReconcileArgs]
	collector *Collector
}

func (w *reconcileWorker) Work(ctx context.Context, job *river.Job[ReconcileArgs]) error {
	defer w.collector.metrics.jobs.work(QueueReconcile)()
	source := lookPoll
	if job.Args.Webhook {
		source = lookWebhook
	}
	return w.collector.reconcile(ctx, job.Args.InvoiceID, source)
}

type sweepWorker struct {
	river.WorkerDefaults[SweepArgs]
	collector *Collector
}

func (w *sweepWorker) Work(ctx context.Context, _ *river.Job[SweepArgs]) error {
	defer w.collector.metrics.jobs.work(QueueSweep)()
	_, err := w.collector.Sweep(ctx, river.ClientFromContext[pgx.Tx](ctx))
	return err
}
