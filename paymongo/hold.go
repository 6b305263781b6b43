package paymongo

import (
	"context"
	"errors"
	"sync"
	"time"
)

// hold is the pause that a 429 imposes on every call of a client.
type hold struct {
	mu    sync.Mutex
	until time.Time
	since time.Time // when the latest pause that we chose ourselves began
	steps int       // how many of those came one after the other
}

// A 429 of PayMongo carries no Retry-After. The pause is then 1 s, doubled by
// every 429 that follows, up to the minute within which PayMongo says it lifts
// a block.
const (
	firstPause = time.Second
	maxPause   = time.Minute
)

func (h *hold) end() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until
}

func (h *hold) extend(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until.IsZero() || until.After(h.until) {
		h.until = until
	}
}

// rateLimited takes note of a 429 to a request sent at sent. Of the many calls
// in flight when PayMongo starts to refuse, only the first lengthens the pause.
func (h *hold) rateLimited(sent, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sent.Before(h.since) {
		return
	}
	pause := min(firstPause<<min(h.steps, 10), maxPause)
	h.steps++
	h.since = now
	if until := now.Add(pause); until.After(h.until) {
		h.until = until
	}
}

// answered takes note of any other answer: the next 429 starts small again.
func (h *hold) answered(sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.steps > 0 && !sent.Before(h.since) {
		h.steps = 0
	}
}

// HoldUntil makes every call of this client that has not been sent yet wait
// until t, as a 429 does. It never shortens a hold, so that several processes
// can share theirs in any order; the zero time lifts it for calls to come.
func (c *Client) HoldUntil(t time.Time) { c.hold.extend(t) }

// HeldUntil returns the end of the present hold, or the zero time if calls go through.
func (c *Client) HeldUntil() time.Time {
	if until := c.hold.end(); time.Now().Before(until) {
		return until
	}
	return time.Time{}
}

// admit waits for the hold and for the rate limit, and returns how long that
// took. A call that could not go before its context's deadline or its
// SendBefore fails at once instead of waiting in vain.
func (c *Client) admit(ctx context.Context, r *Request) (time.Duration, error) {
	start := time.Now()
	for {
		if err := r.alive(ctx); err != nil {
			return time.Since(start), err
		}
		now := time.Now()
		if pause := c.hold.end().Sub(now); pause > 0 {
			if err := r.fits(ctx, now.Add(pause), reasonHold); err != nil {
				return time.Since(start), err
			}
			sleep(ctx, pause)
			continue
		}
		if c.shared != nil {
			if err := r.await(ctx, c.shared); err != nil {
				return time.Since(start), err
			}
			now := time.Now()
			if c.hold.end().After(now) { // as below
				continue
			}
			return time.Since(start), r.fits(ctx, now, reasonLimiter)
		}
		if c.limiter == nil {
			return time.Since(start), r.fits(ctx, now, reasonLimiter)
		}
		turn := c.limiter.ReserveN(now, 1)
		pause := turn.DelayFrom(now)
		if err := r.fits(ctx, now.Add(pause), reasonLimiter); err != nil {
			turn.CancelAt(now)
			return time.Since(start), err
		}
		if pause <= 0 {
			return time.Since(start), nil
		}
		if !sleep(ctx, pause) {
			turn.Cancel()
			continue
		}
		// A hold that came meanwhile takes the turn away: otherwise all who
		// waited would go at once when it ends.
		if c.hold.end().After(time.Now()) {
			continue
		}
		return time.Since(start), r.alive(ctx)
	}
}

// await waits for the turn that a [Limiter] gives. Whatever its error is, the
// call was never sent.
func (r *Request) await(ctx context.Context, l Limiter) error {
	waiting, fenced := ctx, false
	if !r.SendBefore.IsZero() {
		var cancel context.CancelFunc
		waiting, cancel = context.WithDeadline(ctx, r.SendBefore)
		defer cancel()
		deadline, _ := waiting.Deadline()
		fenced = deadline.Equal(r.SendBefore) // and not ctx's own, before it
	}
	switch err := l.Wait(waiting); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return refuse(r.Op, reasonContextDone, "before sending: %w", quiet(err))
	case !errors.Is(err, context.DeadlineExceeded):
		return refuse(r.Op, reasonLimiterFailed, "the limiter let nothing go: %w", quiet(err))
	case fenced:
		return refuse(r.Op, reasonPastSendBefore, "%w: %w", errPastSendBefore, quiet(err))
	default:
		return refuse(r.Op, reasonLimiter, "may go only after the context's deadline; give it more time or call later: %w", quiet(err))
	}
}

func (r *Request) alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return refuse(r.Op, reasonContextDone, "before sending: %w", err)
	}
	return nil
}

// fits reports, as an error, that a call which may go at the given moment would go too late.
func (r *Request) fits(ctx context.Context, at time.Time, reason string) error {
	if deadline, ok := ctx.Deadline(); ok && !at.Before(deadline) {
		return refuse(r.Op, reason, "may go at %s, after the context's deadline; give it more time or call later: %w",
			at.UTC().Format(time.RFC3339), context.DeadlineExceeded)
	}
	if !r.SendBefore.IsZero() && !at.Before(r.SendBefore) {
		return refuse(r.Op, reasonPastSendBefore, "%w", errPastSendBefore)
	}
	return nil
}

// sleep waits for d and reports whether it did so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
