package billing_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// busy keeps armings going until the returned function is called: one begins before
// the one before it has ended, as with several daemons in a crowd.
func (l *ledger) busy() (stop func()) {
	l.t.Helper()
	const daemons = 4
	ctx, cancel := context.WithCancel(context.Background())
	var armed atomic.Int64
	var all sync.WaitGroup
	for range daemons {
		all.Go(func() {
			for ctx.Err() == nil {
				err := pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) error {
					request := billing.ArmRequest{InvoiceID: uuid.New(), IntentID: uuid.New()} // of no invoice: the locks matter here
					if _, err := billing.Arm(context.Background(), tx, []billing.ArmRequest{request}, noon); err != nil {
						return err
					}
					// Until somebody has armed later, or nobody can.
					mine, patience, tick := armed.Add(1), time.After(200*time.Millisecond), time.NewTicker(time.Millisecond)
					defer tick.Stop()
					for armed.Load() == mine && ctx.Err() == nil {
						select {
						case <-tick.C:
						case <-patience:
							return nil
						}
					}
					return nil
				})
				if err != nil {
					l.t.Error(err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// TestInstanceChangesWhileCharging: armings share a lock on the instance. Whoever
// waits to change it must not wait for a moment in which nobody charges.
func TestInstanceChangesWhileCharging(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(context.Context, pgx.Tx) error{
		"Freeze":   func(ctx context.Context, tx pgx.Tx) error { return billing.Freeze(ctx, tx, "tester", "stop it") },
		"Unfreeze": func(ctx context.Context, tx pgx.Tx) error { return billing.Unfreeze(ctx, tx, "tester", "go on") },
		"Clock":    func(ctx context.Context, tx pgx.Tx) error { return billing.SetVirtualClock(ctx, tx, noon) },
		"Bind": func(ctx context.Context, tx pgx.Tx) error {
			return billing.Bind(ctx, tx, billing.EnvironmentDev, false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			if name == "Unfreeze" {
				l.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "tester", "stop it") })
			}
			defer l.busy()()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error { return do(ctx, tx) }); err != nil {
				t.Errorf("not within 5 s while others charge: %v", err)
			}
		})
	}
}
