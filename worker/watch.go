package worker

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// usualFor is how long a look at what is usual is kept, in business time.
const usualFor = time.Hour

// usual is the last look at what is usual.
type usual struct {
	mu       sync.Mutex
	at       time.Time
	outcomes billing.Outcomes
}

// watch stops charging, in every daemon, when the last hour is far from what is
// usual. Webhooks and reconciling go on.
func (w *Collector) watch(ctx context.Context) error {
	if !w.watching {
		return nil
	}
	instance, err := billing.LoadInstance(ctx, w.pool)
	if err != nil {
		return err
	}
	if w.mayCharge(instance) != nil {
		return nil // it is stopped
	}
	now := instance.Now(w.realNow())
	watched, err := billing.LookWatched(ctx, w.pool, now)
	if err != nil {
		return err
	}
	if watched.Usual, err = w.lookUsual(ctx, now); err != nil {
		return err
	}
	anomaly := watched.Judge()
	if anomaly.Reason == "" {
		return nil
	}
	w.log.Error("charging stops", "reason", anomaly.Reason, "pause", anomaly.Pause, "next", "singil unfreeze, when you know why")
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if anomaly.Pause {
			return billing.Block(ctx, tx, w.realNow().Add(billing.WatchPause))
		}
		return billing.TripBreaker(ctx, tx, anomaly.Reason)
	})
}

func (w *Collector) lookUsual(ctx context.Context, now time.Time) (billing.Outcomes, error) {
	w.usual.mu.Lock()
	defer w.usual.mu.Unlock()
	if age := now.Sub(w.usual.at); age >= 0 && age < usualFor {
		return w.usual.outcomes, nil
	}
	o, err := billing.LookUsual(ctx, w.pool, now)
	if err == nil {
		w.usual.at, w.usual.outcomes = now, o
	}
	return o, err
}
