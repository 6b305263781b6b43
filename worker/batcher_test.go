package worker

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func TestBatcher(t *testing.T) {
	t.Parallel()

	t.Run("CallerThatLeavesTakesItsRowAlongUntilTheBatchIsUnderWay", func(t *testing.T) {
		t.Parallel()
		began, release, flushed := make(chan struct{}, 2), make(chan struct{}), make(chan []int, 2)
		b := newBatcher(10, 1, func(ctx context.Context, rows []int) ([]int, error) {
			began <- struct{}{}
			<-release
			if err := ctx.Err(); err != nil {
				t.Errorf("the batch was cancelled with its caller: %v", err)
			}
			flushed <- slices.Clone(rows)
			return rows, nil
		})
		ctx, leave := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		var callers sync.WaitGroup
		call := func(ctx context.Context, n int, want error) {
			callers.Go(func() {
				if _, err := b.Do(ctx, n); !errors.Is(err, want) {
					t.Errorf("%d: %v, want %v", n, err, want)
				}
			})
		}
		waiting := func(n int) {
			for have := -1; have != n; runtime.Gosched() {
				b.mu.Lock()
				have = len(b.waiting)
				b.mu.Unlock()
			}
		}
		call(ctx, 1, gone)
		<-began
		call(ctx, 2, gone)
		call(t.Context(), 3, nil)
		waiting(2)
		leave(gone)
		waiting(1)
		close(release)
		callers.Wait()
		if first, second := <-flushed, <-flushed; !slices.Equal(first, []int{1}) || !slices.Equal(second, []int{3}) {
			t.Errorf("flushed %v and %v", first, second)
		}
	})
	t.Run("EveryCallerGetsItsOwnResult", func(t *testing.T) {
		t.Parallel()
		var flushes atomic.Int64
		b := newBatcher(100, 2, func(_ context.Context, rows []int) ([]int, error) {
			flushes.Add(1)
			out := make([]int, len(rows))
			for i, n := range rows {
				out[i] = n * n
			}
			return out, nil
		})
		var wg sync.WaitGroup
		for i := range 2000 {
			wg.Go(func() {
				if got, err := b.Do(t.Context(), i); err != nil || got != i*i {
					t.Errorf("%d: %d %v", i, got, err)
				}
			})
		}
		wg.Wait()
		if n := flushes.Load(); n < 20 || n > 2000 {
			t.Errorf("%d flushes of at most 100 rows", n)
		}
	})
	t.Run("ErrorIsEverybodys", func(t *testing.T) {
		t.Parallel()
		broken := errors.New("broken")
		b := newBatcher(10, 1, func(context.Context, []int) ([]int, error) { return nil, broken })
		if _, err := b.Do(t.Context(), 1); !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("ShortBatchIsAnError", func(t *testing.T) {
		t.Parallel()
		b := newBatcher(10, 1, func(context.Context, []int) ([]int, error) { return nil, nil })
		if _, err := b.Do(t.Context(), 1); !errors.Is(err, errShortBatch) {
			t.Errorf("error %v", err)
		}
	})
}
