package worker_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// checkInvariants is of a plant at rest: everything due was swept, every job is done.
func (p *plant) checkInvariants() {
	p.t.Helper()
	err := pgx.BeginTxFunc(context.Background(), p.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		broken, err := billing.Invariants(context.Background(), tx, time.Now())
		for _, b := range broken {
			p.t.Errorf("at %s: %s", p.now, b)
		}
		return err
	})
	if err != nil {
		p.t.Error(err)
	}
}

// TestInvariantsHoldThroughALife: cards that pay, decline, want 3DS and change,
// lost answers, a freeze, a pause, a cancellation and a month of all of it.
func TestInvariantsHoldThroughALife(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("pays", "4343434343434345")
	p.subscribe("declined", "5100000000000198")
	p.subscribe("moves on", "5400000000000195", "4343434343434345")
	p.subscribe("wants 3DS", "4120000000000007")
	p.subscribe("has no card")
	paused := p.subscribe("pauses", "4343434343434345")
	cancelled := p.subscribe("cancels", "4343434343434345")
	for _, f := range []sandbox.Fault{
		{Kind: sandbox.TimeoutAfter, Endpoint: "payment_intents.attach", Times: 2},
		{Kind: sandbox.TimeoutBefore, Endpoint: "payment_intents.attach", Times: 1},
		{Kind: sandbox.TimeoutAfter, Endpoint: "payment_intents.create", Times: 1},
	} {
		p.fault(f)
	}
	tx := func(do func(tx pgx.Tx) error) {
		t.Helper()
		if err := pgx.BeginFunc(t.Context(), p.pool, do); err != nil {
			t.Fatal(err)
		}
	}
	act := func() billing.Act { return billing.Act{Actor: "ana", Reason: "test", Now: p.now} }
	for day := range 100 {
		p.until(noon.AddDate(0, 0, day))
		p.tick()
		switch day {
		case 10:
			tx(func(tx pgx.Tx) error { return billing.PauseSubscription(t.Context(), tx, paused, act()) })
			tx(func(tx pgx.Tx) error {
				return billing.CancelSubscription(t.Context(), tx, cancelled, billing.CancelAtPeriodEnd, act())
			})
		case 40:
			tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "drill") })
			p.tick()
			tx(func(tx pgx.Tx) error { return billing.Unfreeze(t.Context(), tx, "ana", "drill over") })
			p.tick()
		case 50:
			tx(func(tx pgx.Tx) error { return billing.ResumeSubscription(t.Context(), tx, paused, act()) })
			p.tick()
		}
		p.checkInvariants()
	}
	p.checkBooks()
	if n := p.number(`SELECT count(DISTINCT status) FROM singil.invoices`); n < 2 {
		t.Errorf("%d states of invoices: nothing has happened", n)
	}
	if n := p.number(`SELECT count(*) FROM singil.skipped_periods`); n == 0 {
		t.Error("nothing was skipped in the pause")
	}
}

func TestInvariantsAsMetrics(t *testing.T) {
	t.Parallel()
	p := setup(t)
	g := newGauges(t, worker.StatsConfig{Pool: p.pool})
	p.subscribe("pays", "4343434343434345")
	p.tick()
	got := g.now()
	for _, i := range billing.AllInvariants() {
		if n, found := got["singil_invariant_violations "+i.Name]; !found || n != 0 {
			t.Errorf("%s is %v (%t)", i.Name, n, found)
		}
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := p.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO singil.payments (payment_id, invoice_id, status, amount_minor, currency, livemode, source, seen_at)
		SELECT 'pay_' || days, id, 'paid', amount_minor, currency, livemode, 'webhook', now() - days * interval '1 day'
		FROM singil.invoices CROSS JOIN (VALUES (0), (2)) AS t (days)`)
	exec(`INSERT INTO singil.payments (payment_id, status, amount_minor, currency, livemode, source, seen_at)
		VALUES ('pay_old', 'paid', 1, 'PHP', false, 'webhook', now() - interval '1 year')`)
	if n := g.fresh()["singil_invariant_violations double_payment"]; n != 0 {
		t.Errorf("a check is kept for minutes, and there are %v", n)
	}
	later := func() map[string]float64 {
		g.ahead.Add(int64(5 * time.Minute))
		return g.now()
	}
	wantSamples(t, later(), map[string]float64{
		"singil_invariant_violations double_payment": 1, "singil_invariant_violations payment_without_invoice": 1,
		"singil_invariant_violations wrong_payment": 0, "singil_invariant_check_errors_total": 0,
	})

	// What cannot be checked is not known, and the others are.
	exec(`ALTER TABLE singil.endpoints RENAME TO away`)
	got = later()
	wantSamples(t, got, map[string]float64{"singil_invariant_violations double_payment": 1, "singil_invariant_check_errors_total": 1})
	if n, found := got["singil_invariant_violations stuck_events"]; !found || !math.IsNaN(n) {
		t.Errorf("stuck_events is %v (%t)", n, found)
	}
	exec(`ALTER TABLE singil.away RENAME TO endpoints`)
	wantSamples(t, later(), map[string]float64{"singil_invariant_violations stuck_events": 0, "singil_invariant_check_errors_total": 1})
}
