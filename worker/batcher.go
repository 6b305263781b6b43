package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// batcher lets many goroutines share one transaction: each hands in its row and
// waits until that row is durable. A flush begins when the one before it has
// ended, so an idle worker waits for nobody and a busy one fills its batches; while
// one is under way another begins only for a crowd.
type batcher[In, Out any] struct {
	flush func(context.Context, []In) ([]Out, error)
	limit int

	mu      sync.Mutex
	waiting []*entry[In, Out]
	running int
	most    int // flushes at the same time
}

type entry[In, Out any] struct {
	in   In
	out  Out
	err  error
	done chan struct{}
}

// crowd is how many rows are worth a transaction of their own while another is
// under way. What a transaction costs beside its rows is shared by them.
const crowd = 64

// newBatcher runs flush with at most limit rows, at most most flushes at once.
// flush must give one result a row, in order, and must not return before what
// it did is durable.
func newBatcher[In, Out any](limit, most int, flush func(context.Context, []In) ([]Out, error)) *batcher[In, Out] {
	return &batcher[In, Out]{flush: flush, limit: limit, most: most}
}

// Do hands in one row and waits for its result. A caller that gives up takes its
// row out, unless its batch is under way: what has become of it is then not known.
// The error is the context's in both cases.
func (b *batcher[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	e := &entry[In, Out]{in: in, done: make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, e)
	start := b.running == 0 || b.running < b.most && len(b.waiting) >= crowd
	if start {
		b.running++
	}
	b.mu.Unlock()
	if start {
		// Without the caller's cancellation: the batch has other people's rows too.
		go b.run(context.WithoutCancel(ctx))
	}
	select {
	case <-e.done:
		return e.out, e.err
	case <-ctx.Done():
		b.mu.Lock()
		b.waiting = slices.DeleteFunc(b.waiting, func(w *entry[In, Out]) bool { return w == e })
		b.mu.Unlock()
		var none Out
		return none, context.Cause(ctx)
	}
}

var errShortBatch = errors.New("worker: a batch came back with another number of results")

func (b *batcher[In, Out]) run(ctx context.Context) {
	for {
		b.mu.Lock()
		n := min(len(b.waiting), b.limit)
		if n == 0 {
			b.running--
			b.mu.Unlock()
			return
		}
		batch := b.waiting[:n:n]
		b.waiting = b.waiting[n:]
		b.mu.Unlock()

		rows := make([]In, n)
		for i, e := range batch {
			rows[i] = e.in
		}
		results, err := b.flush(ctx, rows)
		if err == nil && len(results) != n {
			err = errShortBatch
		}
		for i, e := range batch {
			if e.err = err; err == nil {
				e.out = results[i]
			}
			close(e.done)
		}
	}
}
