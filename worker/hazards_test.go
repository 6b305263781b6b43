package worker_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// poolLike is another pool on the same database.
func poolLike(t *testing.T, like *pgxpool.Pool, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config := like.Config()
	change(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func (p *plant) acquirerTakes(d time.Duration) {
	p.t.Helper()
	profile := p.box.Profile()
	profile.AcquirerLatency = sandbox.Duration(d)
	if err := p.box.SetProfile(profile); err != nil {
		p.t.Fatal(err)
	}
}

// TestTwinJobsChargeOnce: whatever the queue does, it may hand one invoice to many
// workers at once. One of them attaches.
func TestTwinJobsChargeOnce(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.acquirerTakes(50 * time.Millisecond) // so that the others come in the middle
	p.subscribe("s1", "4343434343434345")
	p.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, p.now, 10)
		return err
	})
	var claimed []billing.Claimed
	p.tx(func(tx pgx.Tx) (err error) {
		claimed, err = billing.ClaimDue(t.Context(), tx, p.now, 10, false)
		return err
	})
	var twins []river.InsertManyParams
	for range 5 {
		twins = append(twins, river.InsertManyParams{Args: worker.ChargeArgs{InvoiceID: claimed[0].InvoiceID}})
	}
	if _, err := p.jobs.InsertMany(t.Context(), twins); err != nil {
		t.Fatal(err)
	}
	p.tick()
	if p.attaches() != 1 || p.text(`SELECT status FROM singil.invoices`) != "paid" {
		t.Errorf("%d attaches, invoice %s", p.attaches(), p.text(`SELECT status || ' ' || COALESCE(reason, '') FROM singil.invoices`))
	}
	p.checkBooks()
}

// TestPoisonJobsStopNothing: a job of an invoice that is not there, and one that
// cannot be read.
func TestPoisonJobsStopNothing(t *testing.T) {
	t.Parallel()
	p := setup(t)
	for range 2 {
		if _, err := p.jobs.Insert(t.Context(), worker.ChargeArgs{InvoiceID: uuid.New()}, &river.InsertOpts{
			MaxAttempts: 1, ScheduledAt: time.Now().Add(time.Hour),
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.exec(`UPDATE river.river_job SET args = '{"invoice_id":7}' WHERE id = (SELECT min(id) FROM river.river_job)`)
	p.exec(`UPDATE river.river_job SET scheduled_at = now(), state = 'available'`)
	p.subscribe("s1", "4343434343434345")
	p.tick()
	if got := p.text(`SELECT string_agg(state::text, ' ') FROM river.river_job WHERE max_attempts = 1`); got != "discarded discarded" {
		t.Errorf("the poison is %s", got)
	}
	if got := p.text(`SELECT status FROM singil.invoices`); got != "paid" {
		t.Errorf("the invoice beside it is %s", got)
	}
}

// busyGateway counts how many attaches are under way at once.
type busyGateway struct {
	worker.Gateway
	now, most atomic.Int64
}

func (g *busyGateway) Attach(ctx context.Context, armed billing.Armed, sendBefore time.Time) billing.Answer {
	n := g.now.Add(1)
	defer g.now.Add(-1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
	return g.Gateway.Attach(ctx, armed, sendBefore)
}

// TestTwoConnectionsAreEnough: no connection is held while PayMongo is being asked.
// Were it otherwise, two connections would be two attaches at a time.
func TestTwoConnectionsAreEnough(t *testing.T) {
	t.Parallel()
	busy := &busyGateway{}
	p := setup(t, func(cfg *worker.Config) {
		cfg.Pool = poolLike(t, cfg.Pool, func(c *pgxpool.Config) { c.MaxConns = 2 })
		busy.Gateway = cfg.Gateway
		cfg.Gateway = busy
	})
	p.acquirerTakes(300 * time.Millisecond)
	p.manySubscriptions("s", 32)
	p.tick()
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 32 {
		t.Errorf("%d of 32 paid", n)
	}
	if most := busy.most.Load(); most <= 2 {
		t.Errorf("%d attaches at a time over two connections", most)
	}
	p.checkBooks()
}

// TestReadOnlyDatabaseChargesNothing: a primary that has become a standby, or a
// connection that was led to one.
func TestReadOnlyDatabaseChargesNothing(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4343434343434345")
	before := p.text(`SELECT s::text FROM singil.subscriptions s`)
	readOnly := worker.NewCollector(worker.Config{
		Pool:    poolLike(t, p.pool, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on" }),
		Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if _, err := readOnly.Sweep(t.Context(), p.jobs); err == nil {
		t.Error("a sweep of a read-only database says that all is well")
	}
	if after := p.text(`SELECT s::text FROM singil.subscriptions s`); after != before || p.attaches() > 0 {
		t.Errorf("%d attaches, subscription %s, it was %s", p.attaches(), after, before)
	}
	p.tick() // nothing is lost
	if err := readOnly.Charge(t.Context(), uuid.MustParse(p.text(`SELECT id::text FROM singil.invoices`))); err != nil {
		t.Errorf("a paid invoice needs no writing: %v", err)
	}
	p.set(noon.AddDate(0, 1, 0))
	p.tx(func(tx pgx.Tx) error {
		if _, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, p.now, 10); err != nil {
			return err
		}
		_, err := billing.ClaimDue(t.Context(), tx, p.now, 10, false)
		return err
	})
	if err := readOnly.Charge(t.Context(), uuid.MustParse(p.text(`SELECT id::text FROM singil.invoices WHERE status = 'open'`))); err == nil {
		t.Error("a charge that cannot be armed says that all is well")
	}
	if p.attaches() != 1 {
		t.Errorf("%d attaches, want the one of before", p.attaches())
	}
}
