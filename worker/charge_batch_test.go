package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/worker"
)

// TestCrowdIsChargedInBatches: of many that are due at once a job has several, and
// no more are under way than may be.
func TestCrowdIsChargedInBatches(t *testing.T) {
	t.Parallel()
	busy := &busyGateway{}
	p := setup(t, func(cfg *worker.Config) {
		busy.Gateway = cfg.Gateway
		cfg.Gateway, cfg.InFlight = busy, 10
	})
	p.acquirerTakes(20 * time.Millisecond)
	p.manySubscriptions("s", 45)
	p.tick()
	got := p.text(`SELECT string_agg(kind || ' ' || jsonb_array_length(args -> 'invoice_ids'), ', ' ORDER BY id) FROM river.river_job`)
	if want := "charge_batch 20, charge_batch 20, charge_batch 5"; got != want {
		t.Errorf("jobs are %s, want %s", got, want)
	}
	if paid, attaches := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`), p.attaches(); paid != 45 || attaches != 45 {
		t.Errorf("%d of 45 paid with %d attaches", paid, attaches)
	}
	if most := busy.most.Load(); most < 2 || most > 10 {
		t.Errorf("%d attaches at a time, want several and at most 10", most)
	}
	p.checkBooks()

	p.manySubscriptions("t", 1)
	p.tick()
	if got := p.text(`SELECT kind FROM river.river_job ORDER BY id DESC LIMIT 1`); got != "charge" {
		t.Errorf("the job of one invoice is a %s", got)
	}
}

// strickenGateway panics at the first attach, and holds up the next one until the
// rest of the batch is paid.
type strickenGateway struct {
	worker.Gateway
	attaches atomic.Int64
	paid     func() int
}

func (g *strickenGateway) Attach(ctx context.Context, armed billing.Armed, sendBefore time.Time) billing.Answer {
	switch g.attaches.Add(1) {
	case 1:
		panic("stricken")
	case 2:
		for g.paid() < 10 && ctx.Err() == nil {
			<-time.After(time.Millisecond)
		}
	}
	return g.Gateway.Attach(ctx, armed, sendBefore)
}

// TestBatchHasOnlyTheJobInCommon: one charge of a batch panics, another is slow;
// ten others are paid meanwhile, and nothing is lost.
func TestBatchHasOnlyTheJobInCommon(t *testing.T) {
	t.Parallel()
	stricken := &strickenGateway{}
	p := setup(t, func(cfg *worker.Config) {
		stricken.Gateway = cfg.Gateway
		cfg.Gateway, cfg.InFlight = stricken, 12
	})
	stricken.paid = func() int { return p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`) }
	p.manySubscriptions("s", 12)
	p.tick()
	if paid := stricken.paid(); paid != 11 {
		t.Errorf("%d are paid, want all but the one that panicked", paid)
	}
	if got := p.text(`SELECT errors[1] ->> 'error' FROM river.river_job WHERE errors IS NOT NULL LIMIT 1`); !strings.Contains(got, "panic: stricken") {
		t.Errorf("the job says %q", got)
	}
	if open := p.number(`SELECT count(*) FROM singil.attempts WHERE state = 'armed'`); open != 1 {
		t.Errorf("%d attempts are open, want that of the charge that panicked", open)
	}
	p.until(noon.Add(time.Hour))
	if paid, attaches := stricken.paid(), p.attaches(); paid != 12 || attaches != 12 {
		t.Errorf("an hour later %d of 12 are paid with %d attaches", paid, attaches)
	}
	p.checkBooks()
}

// TestFullHouseWaits: a charge that does not get its turn in time has done nothing.
func TestFullHouseWaits(t *testing.T) {
	t.Parallel()
	busy := &waitingGateway{entered: make(chan struct{}), leave: make(chan struct{})}
	p := setup(t, func(cfg *worker.Config) {
		busy.Gateway = cfg.Gateway
		cfg.Gateway, cfg.InFlight = busy, 1
	})
	p.manySubscriptions("s", 2)
	if _, err := p.collector.Sweep(t.Context(), p.jobs); err != nil {
		t.Fatal(err)
	}
	<-busy.entered
	ids := p.text(`SELECT string_agg(id::text, ' ') FROM singil.invoices WHERE attempt_count = 0`)
	if len(strings.Fields(ids)) != 1 {
		t.Fatalf("not attempted while another is under way: %q, want one", ids)
	}
	close(busy.leave)
	p.tick()
	if got := p.text(fmt.Sprintf(`SELECT status FROM singil.invoices WHERE id = '%s'`, uuid.MustParse(ids))); got != "paid" {
		t.Errorf("the one that waited is %s", got)
	}
	p.checkBooks()
}

// waitingGateway holds the first attach until it is told.
type waitingGateway struct {
	worker.Gateway
	first          atomic.Bool
	entered, leave chan struct{}
}

func (g *waitingGateway) Attach(ctx context.Context, armed billing.Armed, sendBefore time.Time) billing.Answer {
	if g.first.CompareAndSwap(false, true) {
		close(g.entered)
		<-g.leave
	}
	return g.Gateway.Attach(ctx, armed, sendBefore)
}
