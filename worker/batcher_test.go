package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestBatcher(t *testing.T) {
	t.Parallel()

	t.Run("CallerThatLeavesTakesNothingOutOfTheBatch", func(t *testing.T) {
		t.Parallel()
		release, flushed := make(chan struct{}), make(chan []int, 1)
		b := newBatcher(10, 1, func(ctx context.Context, rows []int) ([]int, error) {
			<-release
			if err := ctx.Err(); err != nil {
				t.Errorf("the batch was cancelled with its caller: %v", err)
			}
			flushed <- rows
			return rows, nil
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		cancel(gone)
		if _, err := b.Do(ctx, 1); !errors.Is(err, gone) {
			t.Errorf("error %v", err)
		}
		close(release)
		if rows := <-flushed; len(rows) != 1 {
			t.Errorf("flushed %v", rows)
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
