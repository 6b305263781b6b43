package billing_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
)

func reserve(t *testing.T, q billing.Querier, span time.Duration) billing.Slots {
	t.Helper()
	s, err := billing.ReserveSlots(t.Context(), q, span)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Until.Sub(s.From); got != span {
		t.Errorf("a stretch of %s, want %s", got, span)
	}
	return s
}

func TestReserveSlots(t *testing.T) {
	t.Parallel()

	t.Run("FollowOneAnother", func(t *testing.T) {
		t.Parallel()
		tx := pgtest.Tx(t)
		first := reserve(t, tx, 10*time.Second)
		if first.In > 0 || first.In < -5*time.Second {
			t.Errorf("the first one begins in %s, want now", first.In)
		}
		second := reserve(t, tx, 1234567*time.Microsecond)
		if !second.From.Equal(first.Until) || second.In <= 5*time.Second || second.In > 10*time.Second {
			t.Errorf("the second begins at %s, in %s; the first ended at %s", second.From, second.In, first.Until)
		}
	})
	t.Run("TimeThatPassedIsLost", func(t *testing.T) {
		t.Parallel()
		tx := pgtest.Tx(t)
		if _, err := tx.Exec(t.Context(), `UPDATE singil.provider_state SET next_slot_at = clock_timestamp() - interval '1 day'`); err != nil {
			t.Fatal(err)
		}
		if s := reserve(t, tx, time.Second); s.In < -5*time.Second {
			t.Errorf("begins %s ago", -s.In)
		}
	})
	t.Run("ClockThatWasSetBackIsNotWaitedFor", func(t *testing.T) {
		t.Parallel()
		for _, tt := range []struct {
			span time.Duration
			left string
			want time.Duration // at most
		}{
			{100 * time.Millisecond, "55 seconds", 55 * time.Second}, // 550 daemons, perhaps
			{100 * time.Millisecond, "2 minutes", 0},
			{10 * time.Second, "2 minutes", 2 * time.Minute}, // twelve calls of a slow rate
			{10 * time.Second, "1 hour", 0},
		} {
			tx := pgtest.Tx(t)
			if _, err := tx.Exec(t.Context(), `UPDATE singil.provider_state SET next_slot_at = clock_timestamp() + $1::text::interval`, tt.left); err != nil {
				t.Fatal(err)
			}
			if s := reserve(t, tx, tt.span); s.In > tt.want || s.In < tt.want-20*time.Second {
				t.Errorf("%s left behind: %s begins in %s, want %s", tt.left, tt.span, s.In, tt.want)
			}
			if err := tx.Rollback(t.Context()); err != nil { // the next one has the same row
				t.Fatal(err)
			}
		}
	})
	t.Run("NoTwoOverlap", func(t *testing.T) {
		t.Parallel()
		pool := pgtest.DB(t)
		const daemons, each, span = 8, 50, 10 * time.Millisecond
		var mu sync.Mutex
		var got []billing.Slots
		var all sync.WaitGroup
		for range daemons {
			all.Go(func() {
				for range each {
					s, err := billing.ReserveSlots(t.Context(), pool, span)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					got = append(got, s)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		slices.SortFunc(got, func(a, b billing.Slots) int { return a.From.Compare(b.From) })
		for i := 1; i < len(got); i++ {
			if got[i].From.Before(got[i-1].Until) {
				t.Errorf("%v overlaps %v", got[i], got[i-1])
			}
		}
		if len(got) != daemons*each {
			t.Errorf("%d stretches, want %d", len(got), daemons*each)
		}
	})
}
