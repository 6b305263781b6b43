package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// An open invoice of a paused subscription waits, without asking the provider
// again and again, and goes on when the subscription does.
func TestPausedInvoiceWaitsAndGoesOn(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := p.subscribe("s1", "4400000000000016") // declines
	p.tick()
	act := func() billing.Act { return billing.Act{Actor: "ana", Reason: "a break", Now: p.now} }
	p.tx(func(tx pgx.Tx) error { return billing.PauseSubscription(context.Background(), tx, id, act()) })
	before := p.box.Counters().Requests
	p.until(noon.AddDate(0, 0, 10))
	if asked := p.box.Counters().Requests - before; asked > 0 {
		t.Errorf("PayMongo was asked %d times about an invoice that waits", asked)
	}
	if got := p.text(`SELECT status || ' ' || attempt_count || ': ' || reason FROM singil.invoices`); got != "open 1: the subscription is paused" {
		t.Error(got)
	}
	p.tx(func(tx pgx.Tx) error { return billing.ResumeSubscription(context.Background(), tx, id, act()) })
	p.until(p.now.Add(time.Minute))
	if got := p.number(`SELECT attempt_count FROM singil.invoices`); got != 2 {
		t.Errorf("%d attempts a minute after it was resumed, want the second", got)
	}
	p.checkBooks()
}
