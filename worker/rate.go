package worker

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/singil/singil/billing"
)

const (
	// reservedSpan is how much time a daemon reserves at once under load: the
	// database is asked ten times a second by all of them together.
	reservedSpan = 100 * time.Millisecond
	// reserveAhead is how long before its reserved time is over a daemon whose
	// calls wait asks for more: longer than the database needs to answer.
	reserveAhead = 50 * time.Millisecond
	// reserveTimeout bounds one question to the database.
	reserveTimeout = 5 * time.Second
	// Pauses between questions that fail.
	firstReservePause = 100 * time.Millisecond
	maxReservePause   = 2 * time.Second

	// A slot of the fastest rate is 1 µs, the finest that PostgreSQL has; one of
	// the slowest is as long as PayMongo's longest hold.
	maxRate = 1e6
	minRate = 1.0 / 600
)

// RateLimiterConfig configures a RateLimiter. All of it is required.
type RateLimiterConfig struct {
	// PerSecond is the rate that all daemons on one database share.
	PerSecond float64
	// Reserve reserves a stretch of time for calls: billing.ReserveSlots on the
	// database that the daemons share.
	Reserve func(ctx context.Context, span time.Duration) (billing.Slots, error)
	// Now is the real clock of this process, with its monotonic reading.
	Now func() time.Time
	Log *slog.Logger
}

// RateLimiter keeps the calls of all daemons on one database under one rate.
//
// Time is cut into slots of 1/rate, and a call goes in a slot. The database
// gives every slot to one daemon, in blocks; a daemon hands those of its block
// out to its calls, first come first served, by its monotonic clock. A slot that
// passed unused is lost. So no call goes before its slot's moment, and no two
// calls of all daemons share a slot: where calls are late by at most L after the
// moments of their slots, at most rate*(W+L)+1 of them go in any W seconds.
// A daemon that stood still has at most the calls of two blocks to catch up with.
//
// Safe for concurrent use. No lock is held while waiting.
type RateLimiter struct {
	rate    float64
	most    int // slots of a block
	reserve func(context.Context, time.Duration) (billing.Slots, error)
	now     func() time.Time
	log     *slog.Logger

	mu      sync.Mutex
	block   block
	queue   list.List // of *turn: calls that no slot of the block was left for
	dealing bool      // a goroutine gets blocks for the queue
	until   time.Time // where our last reservation ended, by the database's clock
	shared  bool      // others had reserved between our last two
	failed  error     // of the last reservation
}

// turn is a call's place in the queue.
type turn struct {
	deadline time.Time     // of the call; zero: none
	given    chan struct{} // closed once at or err is set
	at       time.Time
	err      error
}

// NewRateLimiter makes a RateLimiter, or says what is wrong with the rate. It
// panics on a config that lacks what is required: that is a mistake of the program.
func NewRateLimiter(cfg RateLimiterConfig) (*RateLimiter, error) {
	if cfg.Reserve == nil || cfg.Now == nil || cfg.Log == nil {
		panic("worker: RateLimiterConfig needs Reserve, Now and Log")
	}
	if !(cfg.PerSecond >= minRate && cfg.PerSecond <= maxRate) { // nor NaN
		return nil, fmt.Errorf("rate %v cannot be kept; use %.4f to %.0f calls a second, or inf for no limit", cfg.PerSecond, minRate, maxRate)
	}
	return &RateLimiter{
		rate: cfg.PerSecond, most: int(math.Ceil(cfg.PerSecond * reservedSpan.Seconds())),
		reserve: cfg.Reserve, now: cfg.Now, log: cfg.Log,
	}, nil
}

// Wait waits for the next slot of this daemon. An error is the end of ctx, or
// that the slot would come only after its deadline, which is told at once; it
// then wraps context.DeadlineExceeded. While the database cannot be asked, calls
// wait.
func (l *RateLimiter) Wait(ctx context.Context) error {
	_, err := l.wait(ctx)
	return err
}

// wait returns the moment of the slot that it waited for.
func (l *RateLimiter) wait(ctx context.Context) (time.Time, error) {
	if ctx.Err() != nil {
		return time.Time{}, l.ended(ctx)
	}
	deadline, _ := ctx.Deadline()
	l.mu.Lock()
	now := l.now()
	if l.queue.Len() == 0 {
		if at, left := l.block.peek(now); left {
			if tooLate(at, deadline) {
				l.mu.Unlock()
				return time.Time{}, lateError(at, deadline)
			}
			l.block.taken++
			l.mu.Unlock()
			return at, l.sleepUntil(ctx, at)
		}
	}
	// Those before us have a slot each.
	first := l.block.end()
	if first.Before(now) {
		first = now
	}
	if at := first.Add(l.span(l.queue.Len())); tooLate(at, deadline) {
		l.mu.Unlock()
		return time.Time{}, lateError(at, deadline)
	}
	t := &turn{deadline: deadline, given: make(chan struct{})}
	place := l.queue.PushBack(t)
	if !l.dealing {
		l.dealing = true
		// Without the caller's cancellation: the slots are for others too.
		go l.deal(context.WithoutCancel(ctx))
	}
	l.mu.Unlock()

	select {
	case <-t.given:
	case <-ctx.Done():
		// A slot that was given at the same moment is lost.
		l.mu.Lock()
		l.queue.Remove(place)
		l.mu.Unlock()
		return time.Time{}, l.ended(ctx)
	}
	if t.err != nil {
		return time.Time{}, t.err
	}
	return t.at, l.sleepUntil(ctx, t.at)
}

// deal gets blocks for as long as somebody is in the queue.
func (l *RateLimiter) deal(ctx context.Context) {
	pause := firstReservePause
	for {
		l.mu.Lock()
		waiting := l.queue.Len()
		if waiting == 0 {
			l.dealing = false
			l.mu.Unlock()
			return
		}
		n := l.size(waiting)
		early := l.block.end().Add(-min(reserveAhead, l.block.span/2)).Sub(l.now())
		l.mu.Unlock()
		if early > 0 {
			sleep(ctx, early)
			continue
		}

		span := l.span(n)
		asking, cancel := context.WithTimeout(ctx, reserveTimeout)
		slots, err := l.reserve(asking, span)
		cancel()
		if err != nil {
			l.fail(err)
			sleep(ctx, pause)
			pause = min(2*pause, maxReservePause)
			continue
		}
		pause = firstReservePause
		l.give(n, span, slots)
	}
}

// size is how many slots to reserve. While others want slots too, those that
// nobody here waits for would be taken from them. It is still an eighth of a
// block, lest the database be asked for every call of a high rate.
func (l *RateLimiter) size(waiting int) int {
	if !l.shared {
		return l.most
	}
	return min(l.most, max(waiting, (l.most+7)/8))
}

// span is the time of n calls. It is rounded up to what PostgreSQL can count:
// the rate is never exceeded.
func (l *RateLimiter) span(n int) time.Duration {
	return time.Duration(math.Ceil(float64(n)/l.rate*1e6)) * time.Microsecond
}

// give takes a block into use and gives its slots to those who wait.
func (l *RateLimiter) give(n int, span time.Duration, slots billing.Slots) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		l.failed = nil
		l.log.Info("slots for calls to the provider can be reserved again")
	}
	l.shared = slots.In > 0 && !slots.From.Equal(l.until)
	l.until = slots.Until

	now := l.now()
	from := now.Add(max(slots.In, 0))
	// An answer that came sooner than the one before must not let two blocks overlap.
	if end := l.block.end(); from.Before(end) {
		from = end
	}
	l.block = block{from: from, span: span, n: n}
	for first := l.queue.Front(); first != nil; first = l.queue.Front() {
		at, left := l.block.peek(now)
		if !left {
			return
		}
		t := first.Value.(*turn)
		l.queue.Remove(first)
		if tooLate(at, t.deadline) {
			t.err = lateError(at, t.deadline) // the slot goes to the next
		} else {
			t.at = at
			l.block.taken++
		}
		close(t.given)
	}
}

// fail notes that slots could not be reserved, and tells of the first failure.
func (l *RateLimiter) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.log.Error("no slots for calls to the provider: calls wait", "error", err)
	}
	l.failed = err
}

// ended is the error of a call whose context ended while it waited.
func (l *RateLimiter) ended(ctx context.Context) error {
	l.mu.Lock()
	failed := l.failed
	l.mu.Unlock()
	if failed != nil {
		return fmt.Errorf("wait for the rate limit: %w, and no slots could be reserved: %w", ctx.Err(), failed)
	}
	return fmt.Errorf("wait for the rate limit: %w", ctx.Err())
}

func (l *RateLimiter) sleepUntil(ctx context.Context, at time.Time) error {
	if pause := at.Sub(l.now()); pause > 0 && !sleep(ctx, pause) {
		return l.ended(ctx)
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

var errTooLate = errors.New("the next free slot is after the deadline")

func tooLate(at, deadline time.Time) bool { return !deadline.IsZero() && !at.Before(deadline) }

func lateError(at, deadline time.Time) error {
	return fmt.Errorf("wait for the rate limit: %w, by %s: %w", errTooLate, at.Sub(deadline), context.DeadlineExceeded)
}

// block is a run of slots, by this process's clock. The zero block has none.
type block struct {
	from  time.Time
	span  time.Duration
	n     int // slots, each span/n long
	taken int // given away, or lost
}

// peek returns the moment of the next slot, and false if none is left. Slots
// that are over at now are lost.
func (b *block) peek(now time.Time) (at time.Time, left bool) {
	if b.taken < b.n && now.After(b.from) {
		passed := now.Sub(b.from)
		if passed >= b.span {
			b.taken = b.n
		} else {
			b.taken = max(b.taken, int(int64(passed)*int64(b.n)/int64(b.span)))
		}
	}
	if b.taken >= b.n {
		return time.Time{}, false
	}
	return b.from.Add(b.span * time.Duration(b.taken) / time.Duration(b.n)), true
}

func (b *block) end() time.Time { return b.from.Add(b.span) }
