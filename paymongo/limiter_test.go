package paymongo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// limiterFunc is a limiter of another process's.
type limiterFunc func(context.Context) error

func (f limiterFunc) Wait(ctx context.Context) error { return f(ctx) }

// after is a limiter whose turn comes after d, and that knows it beforehand.
func after(d time.Duration) limiterFunc {
	return func(ctx context.Context) error {
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
			return fmt.Errorf("too late: %w", context.DeadlineExceeded)
		}
		if !sleep(ctx, d) {
			return ctx.Err()
		}
		return nil
	}
}

// silent is a limiter that knows nothing until the context ends.
func silent(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("the database is away: %w", ctx.Err())
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	bubble := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f)
		})
	}
	attachBefore := func(ctx context.Context, c *Client, sendBefore time.Time) error {
		_, err := c.PaymentIntents.Attach(ctx, "pi_1", &PaymentIntentAttachParams{PaymentMethod: "pm_1", SendBefore: sendBefore})
		return err
	}
	bubble("EveryTryWaits", func(t *testing.T) {
		var waits []time.Duration
		s := &script{steps: []roundTripFunc{answering(500, "{}"), answering(200, intentAnswer)}}
		c := inMemory(t, s, WithLimiter(after(3*time.Second)), WithObserver(func(_ context.Context, e Exchange) { waits = append(waits, e.Wait) }))
		if err := retrieve(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if len(waits) != 2 || waits[0] != 3*time.Second || waits[1] != 3*time.Second {
			t.Errorf("the tries waited for %v, want 3 s each", waits)
		}
	})
	bubble("TooLongForSendBeforeIsToldAtOnce", func(t *testing.T) {
		c, start := inMemory(t, untouchable(t), WithLimiter(after(time.Minute))), time.Now()
		checkVerdict(t, "attach", attachBefore(t.Context(), c, start.Add(10*time.Second)), VerdictNeverSent, reasonPastSendBefore)
		if time.Since(start) != 0 {
			t.Errorf("told after %s", time.Since(start))
		}
	})
	bubble("TooLongForTheContextIsToldAtOnce", func(t *testing.T) {
		c, start := inMemory(t, untouchable(t), WithLimiter(after(time.Minute))), time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		checkVerdict(t, "attach", attachBefore(ctx, c, start.Add(10*time.Second)), VerdictNeverSent, reasonLimiter)
		checkVerdict(t, "attach without SendBefore", attach(ctx, c, ""), VerdictNeverSent, reasonLimiter)
		if time.Since(start) != 0 {
			t.Errorf("told after %s", time.Since(start))
		}
	})
	bubble("WaitingEndsAtSendBefore", func(t *testing.T) {
		c, start := inMemory(t, untouchable(t), WithLimiter(limiterFunc(silent))), time.Now()
		checkVerdict(t, "attach", attachBefore(t.Context(), c, start.Add(10*time.Second)), VerdictNeverSent, reasonPastSendBefore)
		if time.Since(start) != 10*time.Second {
			t.Errorf("ended after %s", time.Since(start))
		}
	})
	bubble("WaitingEndsWithTheContext", func(t *testing.T) {
		c := inMemory(t, untouchable(t), WithLimiter(limiterFunc(silent)))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := attachBefore(ctx, c, time.Now().Add(10*time.Second))
		checkVerdict(t, "attach", err, VerdictNeverSent, reasonContextDone)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is no context.Canceled", err)
		}
	})
	bubble("TurnThatComesPastSendBeforeSendsNothing", func(t *testing.T) {
		deaf := limiterFunc(func(context.Context) error {
			sleep(context.Background(), time.Minute)
			return nil
		})
		c := inMemory(t, untouchable(t), WithLimiter(deaf))
		checkVerdict(t, "attach", attachBefore(t.Context(), c, time.Now().Add(10*time.Second)), VerdictNeverSent, reasonPastSendBefore)
	})
	bubble("ItsErrorSendsNothing", func(t *testing.T) {
		closed := errors.New("closed")
		c := inMemory(t, untouchable(t), WithLimiter(limiterFunc(func(context.Context) error { return closed })))
		err := attachBefore(t.Context(), c, time.Now().Add(10*time.Second))
		checkVerdict(t, "attach", err, VerdictNeverSent, reasonLimiterFailed)
		if !errors.Is(err, closed) {
			t.Errorf("%v does not wrap the limiter's error", err)
		}
	})
	bubble("HoldTakesTheTurnAway", func(t *testing.T) {
		var turns atomic.Int64
		s := &script{steps: []roundTripFunc{answering(200, intentAnswer)}}
		c := inMemory(t, s, WithLimiter(limiterFunc(func(ctx context.Context) error {
			turns.Add(1)
			return after(time.Second)(ctx)
		})))
		start := time.Now()
		time.AfterFunc(500*time.Millisecond, func() { c.HoldUntil(start.Add(10 * time.Second)) })
		if err := attach(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); turns.Load() != 2 || took != 11*time.Second {
			t.Errorf("%d turns, sent after %s; want one before the hold of 10 s and one after it", turns.Load(), took)
		}
	})
	bubble("LastOptionCounts", func(t *testing.T) {
		ok := answering(200, intentAnswer)
		start := time.Now()
		if err := attach(t.Context(), inMemory(t, ok, WithLimiter(after(time.Minute)), noLimit), ""); err != nil || time.Since(start) != 0 {
			t.Errorf("WithRate after WithLimiter: %s, %v", time.Since(start), err)
		}
		c := inMemory(t, ok, WithRate(0.001, 1), WithLimiter(after(time.Second)))
		for range 2 {
			if err := attach(t.Context(), c, ""); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(start) != 2*time.Second {
			t.Errorf("WithLimiter after WithRate: %s", time.Since(start))
		}
	})
}
