package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/failpoint"
)

// Swept is what one sweep did.
type Swept struct {
	billing.Opened
	Enqueued  int
	Webhooks  int // deliveries whose next try has come
	Forgotten int // rows of the inbox and the outbox that were past their retention
}

// Sweep opens an invoice for every period that is due and enqueues a job for
// every invoice whose next attempt has come, in bounded transactions, until
// there is nothing left. Sweeps may run at the same time, in any number of
// daemons: they share the work. jobs is River's client.
//
// A tick means look. What was missed while nobody ticked is found by the next
// one, because what is due is derived from what is stored.
func (w *Collector) Sweep(ctx context.Context, jobs *river.Client[pgx.Tx]) (swept Swept, err error) {
	begun := w.realNow()
	defer func() { w.metrics.swept(swept, err, w.realNow().Sub(begun)) }()
	if err := w.watch(ctx); err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	var mu sync.Mutex // of swept
	for _, phase := range []func(context.Context) (n int, err error){
		func(ctx context.Context) (int, error) {
			opened, err := w.openDue(ctx, jobs)
			mu.Lock()
			defer mu.Unlock()
			swept.Enqueued += len(opened.Claimed)
			swept.Subscriptions += opened.Subscriptions
			swept.Invoices += opened.Invoices
			swept.Skipped += opened.Skipped
			swept.Parked += opened.Parked
			return opened.Subscriptions, err
		},
		func(ctx context.Context) (int, error) {
			n, err := w.enqueueDue(ctx, jobs)
			mu.Lock()
			defer mu.Unlock()
			swept.Enqueued += n
			return n, err
		},
		func(ctx context.Context) (int, error) {
			n, err := w.enqueueWebhooks(ctx, jobs)
			mu.Lock()
			defer mu.Unlock()
			swept.Webhooks += n
			return n, err
		},
		func(ctx context.Context) (int, error) { return w.enqueueCardSetups(ctx, jobs) },
		w.notifyExpiring,
		func(ctx context.Context) (int, error) {
			n, err := w.forget(ctx)
			mu.Lock()
			defer mu.Unlock()
			swept.Forgotten += n
			return 0, err // once a sweep: what is left has time
		},
	} {
		if err := w.sweepOut(ctx, phase); err != nil {
			return swept, fmt.Errorf("sweep: %w", err)
		}
	}
	return swept, nil
}

// sweepers is how many transactions of one sweep run side by side when there is
// much to do. Each is at work in PostgreSQL most of its time, on one core.
const sweepers = 4

// sweepOut repeats a phase until there is nothing left. A full batch means that
// there may be more, and that others may help: they skip what is locked.
func (w *Collector) sweepOut(ctx context.Context, phase func(context.Context) (n int, err error)) error {
	n, err := phase(ctx)
	if err != nil || n < w.sweepSize {
		return err
	}
	errs := make([]error, sweepers)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for n := w.sweepSize; n >= w.sweepSize && errs[i] == nil; {
				n, errs[i] = phase(ctx)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// openDue opens what is due in one transaction, and enqueues a job for what may be
// charged at once. If the database refuses it on account of some row, each
// subscription gets a transaction of its own, and the ones that still fail are
// parked: one bad row must not stop all billing. Without jobs nothing is enqueued.
func (w *Collector) openDue(ctx context.Context, jobs *river.Client[pgx.Tx]) (opened billing.Opened, err error) {
	var now time.Time
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		instance, err := billing.LoadInstance(ctx, tx)
		if err != nil {
			return err
		}
		now = instance.Now(w.realNow())
		if jobs == nil || w.mayCharge(instance) != nil {
			opened, err = billing.OpenDue(ctx, tx, w.environment, w.livemode, now, w.sweepSize)
			return err
		}
		opened, err = billing.OpenAndClaim(ctx, tx, w.environment, w.livemode, now, w.sweepSize)
		if err != nil || len(opened.Claimed) == 0 {
			return err
		}
		_, err = jobs.InsertManyFastTx(ctx, tx, w.jobsFor(opened.Claimed))
		return err
	})
	if opened.Subscriptions > 0 {
		failpoint.Hit("cp03")
	}
	if len(opened.Claimed) > 0 {
		failpoint.Hit("cp06")
	}
	if err == nil || isConnection(err) || ctx.Err() != nil {
		return opened, err
	}
	w.log.Error("a batch of due subscriptions failed, going one by one", "error", err)
	due, err := billing.DueIDs(ctx, w.pool, now, w.sweepSize)
	if err != nil {
		return billing.Opened{}, err
	}
	opened = billing.Opened{Subscriptions: len(due)}
	for _, id := range due {
		var one billing.Opened
		err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) (err error) {
			one, err = billing.OpenDueOne(ctx, tx, w.environment, w.livemode, now, id)
			return err
		})
		if err != nil && isConnection(err) {
			return opened, err
		}
		if err != nil {
			w.log.Error("subscription parked", "subscription_id", id, "error", err)
			one = billing.Opened{Parked: 1}
			if err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
				return billing.ParkSubscription(ctx, tx, id, err.Error())
			}); err != nil {
				return opened, err
			}
		}
		opened.Invoices += one.Invoices
		opened.Skipped += one.Skipped
		opened.Parked += one.Parked
		failpoint.Hit("cp04")
	}
	return opened, nil
}

// notifyExpiring tells of cards that will expire.
func (w *Collector) notifyExpiring(ctx context.Context) (n int, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		instance, err := billing.LoadInstance(ctx, tx)
		if err != nil {
			return err
		}
		n, err = billing.NotifyExpiring(ctx, tx, instance.Now(w.realNow()), w.sweepSize)
		return err
	})
	return n, err
}

// forgetAtOnce bounds what one sweep deletes of each table: some milliseconds, and
// more than a million rows a day.
const forgetAtOnce = 1000

// forget deletes a little of what is past its retention.
func (w *Collector) forget(ctx context.Context) (n int, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		instance, err := billing.LoadInstance(ctx, tx)
		if err != nil {
			return err
		}
		f, err := billing.Forget(ctx, tx, instance.Now(w.realNow()), w.forgotten.Load(), forgetAtOnce)
		w.forgotten.Store(f.Next)
		n = int(f.Webhooks + f.Events + f.Requests)
		return err
	})
	return n, err
}

func (w *Collector) enqueueDue(ctx context.Context, jobs *river.Client[pgx.Tx]) (n int, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		instance, err := billing.LoadInstance(ctx, tx)
		if err != nil {
			return err
		}
		// Nothing may be charged: reconciling goes on, the rest waits where it is.
		reconcileOnly := w.mayCharge(instance) != nil
		now := instance.Now(w.realNow())
		claimed, err := billing.ClaimDue(ctx, tx, now, w.sweepSize, reconcileOnly)
		if err != nil {
			return err
		}
		back, err := billing.ClaimLookBacks(ctx, tx, now, w.sweepSize)
		if err != nil || len(claimed)+len(back) == 0 {
			return err
		}
		n = max(len(claimed), len(back))
		claimed = append(claimed, back...)
		_, err = jobs.InsertManyFastTx(ctx, tx, w.jobsFor(claimed))
		return err
	})
	if n > 0 {
		failpoint.Hit("cp06")
	}
	return n, err
}

// jobsFor makes a job of each invoice, or, of a crowd, batches.
func (w *Collector) jobsFor(claimed []billing.Claimed) []river.InsertManyParams {
	var params []river.InsertManyParams
	var charges []uuid.UUID
	for _, c := range claimed {
		if c.Reconcile {
			params = append(params, river.InsertManyParams{Args: ReconcileArgs{InvoiceID: c.InvoiceID}})
		} else {
			charges = append(charges, c.InvoiceID)
		}
	}
	atOnce := ChargeJobs(cap(w.inFlight))
	size := min((len(charges)+atOnce-1)/atOnce, mostInBatch)
	if size <= 1 {
		for _, invoice := range charges {
			params = append(params, river.InsertManyParams{Args: ChargeArgs{InvoiceID: invoice}})
		}
		return params
	}
	for batch := range slices.Chunk(charges, size) {
		params = append(params, river.InsertManyParams{Args: ChargeBatchArgs{InvoiceIDs: batch}})
	}
	return params
}
