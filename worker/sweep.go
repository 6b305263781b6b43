package worker

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/singil/singil/billing"
)

// Swept is what one sweep did.
type Swept struct {
	billing.Opened
	Enqueued int
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
	for {
		var opened billing.Opened
		err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			instance, err := billing.LoadInstance(ctx, tx)
			if err != nil {
				return err
			}
			opened, err = billing.OpenDue(ctx, tx, w.environment, w.livemode, instance.Now(w.realNow()), w.sweepSize)
			return err
		})
		if err != nil {
			return swept, fmt.Errorf("sweep: %w", err)
		}
		swept.Subscriptions += opened.Subscriptions
		swept.Invoices += opened.Invoices
		swept.Skipped += opened.Skipped
		swept.Parked += opened.Parked
		if opened.Subscriptions < w.sweepSize {
			break
		}
	}
	for {
		n, err := w.enqueueDue(ctx, jobs)
		swept.Enqueued += n
		if err != nil {
			return swept, fmt.Errorf("sweep: %w", err)
		}
		if n < w.sweepSize {
			return swept, nil
		}
	}
}

func (w *Collector) enqueueDue(ctx context.Context, jobs *river.Client[pgx.Tx]) (n int, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		instance, err := billing.LoadInstance(ctx, tx)
		if err != nil {
			return err
		}
		// Nothing may be charged: reconciling goes on, the rest waits where it is.
		reconcileOnly := w.mayCharge(instance) != nil
		claimed, err := billing.ClaimDue(ctx, tx, instance.Now(w.realNow()), w.sweepSize, reconcileOnly)
		if err != nil || len(claimed) == 0 {
			return err
		}
		n = len(claimed)
		_, err = jobs.InsertManyFastTx(ctx, tx, jobsFor(claimed))
		return err
	})
	return n, err
}

func jobsFor(claimed []billing.Claimed) []river.InsertManyParams {
	params := make([]river.InsertManyParams, len(claimed))
	for i, c := range claimed {
		if c.Reconcile {
			params[i].Args = ReconcileArgs{InvoiceID: c.InvoiceID}
		} else {
			params[i].Args = ChargeArgs{InvoiceID: c.InvoiceID}
		}
	}
	return params
}
