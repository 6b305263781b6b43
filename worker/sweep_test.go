package worker_test

import (
	"fmt"
	"testing"

	"github.com/singil/singil/worker"
)

// many makes n monthly subscriptions that are due at noon.
func (p *plant) many(n int) {
	p.t.Helper()
	p.subscribe("the first", "4343434343434345")
	p.exec(fmt.Sprintf(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
		SELECT gen_random_uuid(), 's' || n, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up
		FROM singil.subscriptions CROSS JOIN generate_series(2, %d) n`, n))
}

// TestSweepSideBySide: several transactions of one sweep share what is due. Every
// period gets one invoice, every invoice one job and its lease.
func TestSweepSideBySide(t *testing.T) {
	t.Parallel()
	p := setup(t, func(c *worker.Config) { c.SweepSize = 7 })
	if err := p.jobs.StopAndCancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.many(200)
	swept, err := p.collector.Sweep(t.Context(), p.jobs)
	if err != nil {
		t.Fatal(err)
	}
	if swept.Subscriptions != 200 || swept.Invoices != 200 || swept.Enqueued != 200 {
		t.Errorf("%+v", swept)
	}
	for query, want := range map[string]int{
		`SELECT count(*) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
		 WHERE i.claimed AND i.next_attempt_at = (SELECT virtual_now + interval '5 minutes' FROM singil.instance) AND s.next_period_no = 1`: 200,
		`SELECT count(*) FROM singil.invoices`: 200,
		`SELECT count(DISTINCT j.args ->> 'invoice_id') FROM river.river_job j JOIN singil.invoices i ON i.id::text = j.args ->> 'invoice_id'`: 200,
		`SELECT count(*) FROM river.river_job`: 200,
	} {
		if got := p.number(query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

// TestSweepOpensWhenNothingMayBeCharged: the invoice is there, unclaimed, and the
// sweep after the freeze enqueues it.
func TestSweepOpensWhenNothingMayBeCharged(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("waits", "4343434343434345")
	p.exec(`UPDATE singil.instance SET frozen = true, frozen_reason = 'drill'`)
	if swept := p.tick(); swept.Invoices != 1 || swept.Enqueued != 0 {
		t.Errorf("frozen: %+v", swept)
	}
	if got := p.number(`SELECT count(*) FROM singil.invoices WHERE NOT claimed`); got != 1 {
		t.Errorf("%d invoices wait unclaimed", got)
	}
	p.exec(`UPDATE singil.instance SET frozen = false, frozen_reason = NULL`)
	if swept := p.tick(); swept.Invoices != 0 || swept.Enqueued != 1 {
		t.Errorf("after the freeze: %+v", swept)
	}
	if got := p.text(`SELECT string_agg(status, ' ') FROM singil.invoices`); got != "paid" {
		t.Errorf("the invoice is %s", got)
	}
}
