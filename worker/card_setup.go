package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/singil/singil/billing"
)

// CardSetupArgs asks to look at one card setup that nobody has finished.
type CardSetupArgs struct {
	CardSetupID uuid.UUID `json:"card_setup_id"`
}

// Kind implements river.JobArgs.
func (CardSetupArgs) Kind() string { return "card_setup" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (CardSetupArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueReconcile, MaxAttempts: maxAttempts}
}

type cardSetupWorker struct {
	river.WorkerDefaults[CardSetupArgs]
	collector *Collector
}

func (w *cardSetupWorker) Work(ctx context.Context, job *river.Job[CardSetupArgs]) error {
	defer w.collector.metrics.jobs.work(QueueReconcile)()
	return w.collector.finishCardSetup(ctx, job.Args.CardSetupID)
}

// finishCardSetup is for a browser that never came back. A gateway that keeps no
// customers has no card setups.
func (w *Collector) finishCardSetup(ctx context.Context, id uuid.UUID) error {
	gateway, keeps := w.gateway.(OnSessionGateway)
	if !keeps {
		return nil
	}
	instance, err := billing.LoadInstance(ctx, w.pool)
	if err != nil {
		return err
	}
	flows := OnSession{Pool: w.pool, Gateway: gateway, Environment: w.environment, Livemode: w.livemode, Now: w.realNow, Log: w.log, collector: w}
	var s billing.CardSetup
	err = retry(ctx, func() (err error) {
		s, err = flows.FinishCardSetup(ctx, id, billing.Act{Actor: "singil", Reason: "nobody has finished it", Now: instance.Now(w.realNow())})
		return err
	})
	var e *GatewayError
	if errors.As(err, &e) {
		w.log.WarnContext(ctx, "card setup not looked at", "card_setup", id, "reason", e.Reason, "error", err)
		return nil // the sweep comes again when its lease is over
	}
	if err != nil {
		return fmt.Errorf("finish card setup %s: %w", id, err)
	}
	w.log.InfoContext(ctx, "card setup", "card_setup", id, "customer", s.Customer, "status", s.Status)
	return nil
}

// enqueueCardSetups finds the setups whose next look has come.
func (w *Collector) enqueueCardSetups(ctx context.Context, jobs *river.Client[pgx.Tx]) (n int, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		instance, err := billing.LoadInstance(ctx, tx)
		if err != nil {
			return err
		}
		ids, err := billing.ClaimCardSetups(ctx, tx, instance.Now(w.realNow()), w.sweepSize)
		if err != nil || len(ids) == 0 {
			return err
		}
		params := make([]river.InsertManyParams, len(ids))
		for i, id := range ids {
			params[i].Args = CardSetupArgs{CardSetupID: id}
		}
		n = len(ids)
		_, err = jobs.InsertManyFastTx(ctx, tx, params)
		return err
	})
	return n, err
}
