package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
)

// slotSource gives slots as the database does, from the same clock.
type slotSource struct {
	mu    sync.Mutex
	next  time.Time
	spans []time.Duration
	took  time.Duration // how long an answer is on its way
	err   error
}

func (s *slotSource) reserve(ctx context.Context, span time.Duration) (billing.Slots, error) {
	s.mu.Lock()
	s.spans = append(s.spans, span)
	err, took, now := s.err, s.took, time.Now()
	from := s.next
	if from.Before(now) {
		from = now
	}
	if err == nil {
		s.next = from.Add(span)
	}
	s.mu.Unlock()
	sleep(ctx, took)
	if err != nil {
		return billing.Slots{}, err
	}
	return billing.Slots{In: from.Sub(now), From: from, Until: from.Add(span)}, nil
}

func (s *slotSource) breaks(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// asked is how often it was asked, and for how many calls of a rate.
func (s *slotSource) asked(perSecond int) (times, calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.spans {
		calls += int((span*time.Duration(perSecond) + time.Second/2) / time.Second)
	}
	return len(s.spans), calls
}

func newLimiter(t testing.TB, perSecond float64, reserve func(context.Context, time.Duration) (billing.Slots, error)) *RateLimiter {
	t.Helper()
	l, err := NewRateLimiter(RateLimiterConfig{PerSecond: perSecond, Reserve: reserve, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// grants are the moments at which calls went, and those of their slots.
type grants struct {
	mu   sync.Mutex
	at   []time.Time
	slot []time.Time
	late time.Duration // the most that a call was behind its slot
}

// take makes n calls, all of which wait at once, and returns when all went.
func (g *grants) take(t *testing.T, l *RateLimiter, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			slot, err := l.wait(t.Context())
			now := time.Now()
			if err != nil {
				t.Error(err)
				return
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			g.at, g.slot, g.late = append(g.at, now), append(g.slot, slot), max(g.late, now.Sub(slot))
			if now.Before(slot) {
				t.Errorf("a call went %s before its slot", slot.Sub(now))
			}
		})
	}
	all.Wait()
}

// most is how many of the moments lie in one window, at most.
func most(at []time.Time, window time.Duration) (n int) {
	slices.SortFunc(at, time.Time.Compare)
	first := 0
	for last := range at {
		for at[last].Sub(at[first]) >= window {
			first++
		}
		n = max(n, last-first+1)
	}
	return n
}

func TestRateLimiter(t *testing.T) {
	t.Parallel()
	bubble := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f(t)
				<-time.After(time.Minute) // until the last one who asks for slots has found nobody waiting
			})
		})
	}
	bubble("FullRateOneAfterTheOther", func(t *testing.T) {
		source := &slotSource{took: 20 * time.Millisecond}
		l, start := newLimiter(t, 80, source.reserve), time.Now()
		var g grants
		g.take(t, l, 400)
		slices.SortFunc(g.at, time.Time.Compare)
		for i := 1; i < len(g.at); i++ {
			if gap := g.at[i].Sub(g.at[i-1]); gap != 12500*time.Microsecond {
				t.Fatalf("call %d went %s after the one before, want 12.5 ms", i, gap)
			}
		}
		// The first answer takes 20 ms, and 399 slots follow the first.
		if took := time.Since(start); took != 20*time.Millisecond+399*12500*time.Microsecond {
			t.Errorf("400 calls took %s", took)
		}
		if asked, calls := source.asked(80); asked != 50 || calls != 400 {
			t.Errorf("the database was asked %d times for %d slots, want 50 times for 400", asked, calls)
		}
	})
	bubble("FirstComeFirstServed", func(t *testing.T) {
		l := newLimiter(t, 20, (&slotSource{}).reserve)
		var mu sync.Mutex
		var order []int
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if err := l.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait() // it waits now
		}
		all.Wait()
		if !slices.IsSorted(order) || len(order) != 50 {
			t.Errorf("calls went in this order: %v", order)
		}
	})
	bubble("IdleAsksForNothingAndSavesNothingUp", func(t *testing.T) {
		source := &slotSource{}
		l := newLimiter(t, 80, source.reserve)
		if err := l.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		if asked, _ := source.asked(80); asked != 1 {
			t.Errorf("asked %d times for one call", asked)
		}
		var g grants
		g.take(t, l, 100)
		if n := most(g.at, time.Second); n != 80 {
			t.Errorf("%d calls in a second after an hour's rest, want 80", n)
		}
		// Half of a block passes unused, so half of it is left.
		<-time.After(time.Hour)
		_ = l.Wait(t.Context())
		<-time.After(50 * time.Millisecond)
		g = grants{}
		g.take(t, l, 8)
		if n := most(g.at, 100*time.Millisecond); n != 8 || g.at[7].Sub(g.at[0]) != 7*12500*time.Microsecond {
			t.Errorf("calls in the middle of a block went at %v", g.at)
		}
	})
	bubble("SlowAndFastRates", func(t *testing.T) {
		for _, tt := range []struct {
			rate         float64
			calls, asked int
			took         time.Duration
		}{
			{0.5, 5, 5, 8 * time.Second},
			{1, 5, 5, 4 * time.Second},
			{11, 12, 6, 1000002 * time.Microsecond}, // two slots are 181819 µs: rounded up, six times, less half of one
			{5000, 5000, 10, 999800 * time.Microsecond},
		} {
			source := &slotSource{}
			l, start := newLimiter(t, tt.rate, source.reserve), time.Now()
			new(grants).take(t, l, tt.calls)
			took := time.Since(start)
			asked, _ := source.asked(1)
			if (took-tt.took).Abs() > 10*time.Microsecond || asked != tt.asked {
				t.Errorf("%v/s: %d calls took %s and asked %d times; want %s, %d times", tt.rate, tt.calls, took, asked, tt.took, tt.asked)
			}
		}
	})
	bubble("AnswersOfAnySpeedDoNotOverlap", func(t *testing.T) {
		source := &slotSource{}
		l := newLimiter(t, 80, func(ctx context.Context, span time.Duration) (billing.Slots, error) {
			source.mu.Lock()
			source.took = time.Duration(len(source.spans)%3) * 40 * time.Millisecond
			source.mu.Unlock()
			return source.reserve(ctx, span)
		})
		var g grants
		g.take(t, l, 200)
		slices.SortFunc(g.at, time.Time.Compare)
		for i := 1; i < len(g.at); i++ {
			if gap := g.at[i].Sub(g.at[i-1]); gap < 12500*time.Microsecond {
				t.Fatalf("call %d went %s after the one before", i, gap)
			}
		}
	})
	bubble("OthersGetWhatNobodyHereWaitsFor", func(t *testing.T) {
		source := &slotSource{}
		busy, sparse := newLimiter(t, 80, source.reserve), newLimiter(t, 80, source.reserve)
		ctx, stop := context.WithCancel(t.Context())
		var sent atomic.Int64
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				for busy.Wait(ctx) == nil {
					sent.Add(1)
				}
			})
		}
		<-time.After(time.Second)
		before, start := sent.Load(), time.Now()
		for range 20 {
			if err := sparse.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			<-time.After(500 * time.Millisecond)
		}
		got, want := int(sent.Load()-before), int(time.Since(start)*80/time.Second)-20
		stop()
		all.Wait()
		// The sparse one's first block may be a whole one.
		if got < want-16 || got > want+1 {
			t.Errorf("the busy daemon made %d calls, want the %d that the other did not", got, want)
		}
	})
	bubble("CancelledWaiterGivesNoSlotTwice", func(t *testing.T) {
		l := newLimiter(t, 80, (&slotSource{took: 5 * time.Millisecond}).reserve)
		var g grants
		var others sync.WaitGroup
		for i := range 300 {
			others.Go(func() { // ends at any point: in the queue, at the hand-over, asleep
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Duration(i*101%300)*3*time.Millisecond+time.Duration(i%7)*500*time.Microsecond, cancel)
				slot, err := l.wait(ctx)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				g.mu.Lock()
				defer g.mu.Unlock()
				g.slot = append(g.slot, slot)
			})
		}
		synctest.Wait() // they are before the hundred
		g.take(t, l, 100)
		others.Wait()
		slices.SortFunc(g.slot, time.Time.Compare)
		for i := 1; i < len(g.slot); i++ {
			if gap := g.slot[i].Sub(g.slot[i-1]); gap < 12500*time.Microsecond {
				t.Errorf("two calls in slots %s apart", gap)
			}
		}
		if len(g.slot) < 110 || len(g.slot) > 390 {
			t.Errorf("%d calls went; some of the others should have, and some not", len(g.slot))
		}
	})
	bubble("TooLongForADeadlineIsToldAtOnce", func(t *testing.T) {
		l := newLimiter(t, 10, (&slotSource{next: time.Now().Add(3 * time.Second)}).reserve)
		within := func(d time.Duration) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			start := time.Now()
			err := l.Wait(ctx)
			return time.Since(start), err
		}
		// Others have reserved the next 3 s. It is known once the database was asked.
		if took, err := within(2 * time.Second); !errors.Is(err, context.DeadlineExceeded) || took != 0 {
			t.Errorf("told after %s: %v", took, err)
		}
		// The slot was not lost with that.
		if took, err := within(4 * time.Second); err != nil || took != 3*time.Second {
			t.Errorf("went after %s: %v", took, err)
		}
		var waiting sync.WaitGroup
		for range 30 {
			waiting.Go(func() { _ = l.Wait(t.Context()) })
		}
		synctest.Wait()
		if took, err := within(2900 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || took != 0 {
			t.Errorf("behind 30 others, told after %s: %v", took, err)
		}
		if took, err := within(3200 * time.Millisecond); err != nil || took != 3100*time.Millisecond {
			t.Errorf("behind 30 others, went after %s: %v", took, err)
		}
		waiting.Wait()
	})
	bubble("DatabaseAway", func(t *testing.T) {
		away := errors.New("away")
		source := &slotSource{err: away}
		l := newLimiter(t, 80, source.reserve)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if err := l.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, away) {
					t.Errorf("error %v", err)
				}
			})
		}
		start := time.Now()
		all.Wait()
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("waited for %s", took)
		}
		if asked, _ := source.asked(80); asked < 10 || asked > 20 {
			t.Errorf("asked %d times in 20 s", asked)
		}
		<-time.After(time.Minute)
		if asked, _ := source.asked(80); asked > 20 {
			t.Errorf("asked %d times, for nobody", asked)
		}
		// A call that waits goes when the database is back.
		time.AfterFunc(3*time.Second, func() { source.breaks(nil) })
		start = time.Now()
		if err := l.Wait(t.Context()); err != nil || time.Since(start) > 6*time.Second {
			t.Errorf("went after %s: %v", time.Since(start), err)
		}
	})
	bubble("DatabaseHangs", func(t *testing.T) {
		var asked atomic.Int64
		l := newLimiter(t, 80, func(ctx context.Context, _ time.Duration) (billing.Slots, error) {
			asked.Add(1)
			<-ctx.Done()
			return billing.Slots{}, ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if err := l.Wait(ctx); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		<-time.After(time.Hour)
		if asked.Load() != 1 {
			t.Errorf("asked %d times for a call that has gone", asked.Load())
		}
	})
	t.Run("Rates", func(t *testing.T) {
		t.Parallel()
		zero := 0.0
		for _, rate := range []float64{0, -1, 1e-9, 2e6, 1 / zero, zero / zero} {
			if _, err := NewRateLimiter(RateLimiterConfig{PerSecond: rate, Reserve: (&slotSource{}).reserve, Now: time.Now, Log: slog.New(slog.DiscardHandler)}); err == nil {
				t.Errorf("rate %v is taken", rate)
			}
		}
	})
}

// onDatabase counts how late the answers of ReserveSlots are.
type onDatabase struct {
	pool  *pgxpool.Pool
	asked atomic.Int64
	mu    sync.Mutex
	late  time.Duration // the most that a block began after its reserved time
}

func (d *onDatabase) reserve(ctx context.Context, span time.Duration) (billing.Slots, error) {
	d.asked.Add(1)
	s, err := billing.ReserveSlots(ctx, d.pool, span)
	if err == nil {
		late := time.Since(s.From) + max(s.In, 0) // the database has this machine's clock
		d.mu.Lock()
		d.late = max(d.late, late)
		d.mu.Unlock()
	}
	return s, err
}

func TestRateLimiterOnPostgres(t *testing.T) {
	t.Parallel()
	const rate = 200
	db := &onDatabase{pool: pgtest.DB(t)}
	var limiters [4]*RateLimiter
	for i := range limiters {
		limiters[i] = newLimiter(t, rate, db.reserve)
	}
	if err := limiters[0].Wait(t.Context()); err != nil { // connects
		t.Fatal(err)
	}

	var g grants
	start := time.Now()
	var all sync.WaitGroup
	for _, l := range limiters {
		all.Go(func() { g.take(t, l, 100) })
	}
	all.Wait()
	took := time.Since(start)
	// A slot of the database is 1/rate long and belongs to one call. A call goes
	// no sooner than its slot begins and no later than L after that: the lateness
	// of its block, added to its own behind the block's slot. So the calls of a
	// window W have slots that begin in W+L, and those are at most rate*(W+L)+1.
	// Nothing in that depends on how many daemons there are. A slot is 5 ms exactly.
	late := db.late + g.late
	bound := int(rate*(time.Second+late)/time.Second) + 1
	if n := most(g.at, time.Second); n > bound {
		t.Errorf("%d of 400 calls went within a second, want at most %d: L is %s", n, bound, late)
	}
	t.Logf("4 daemons: 400 calls in %s, at most %d in a second (bound %d, lateness %s + %s), the database was asked %d times",
		took, most(g.at, time.Second), bound, db.late, g.late, db.asked.Load())
	if took < 399*5*time.Millisecond-100*time.Millisecond {
		t.Errorf("400 calls took %s: faster than the rate", took)
	}
	if took > 6*time.Second {
		t.Errorf("400 calls took %s, want about 2 s: slots are wasted", took)
	}

	// Three are idle now.
	db.asked.Store(0)
	g, start = grants{}, time.Now()
	g.take(t, limiters[3], 400)
	took = time.Since(start)
	t.Logf("alone: 400 calls in %s, the database was asked %d times", took, db.asked.Load())
	if took > 6*time.Second {
		t.Errorf("400 calls took %s, want about 2 s: an idle daemon keeps a share", took)
	}
	if n := db.asked.Load(); n > 25 { // the first may be small: it believes that others still want slots
		t.Errorf("the database was asked %d times for 400 calls, want 20", n)
	}
}

// BenchmarkRateLimiter is a call's cost where the rate hardly limits: 10 µs a
// call are the first rate itself, 1 µs the second.
func BenchmarkRateLimiter(b *testing.B) {
	for _, rate := range []float64{100_000, maxRate} {
		b.Run(fmt.Sprintf("%.0f", rate), func(b *testing.B) {
			l := newLimiter(b, rate, (&slotSource{}).reserve)
			b.SetParallelism(100)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := l.Wait(b.Context()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
