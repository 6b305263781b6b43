package worker_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// gauges is a registry with one Stats, and the real clock that the test moves.
type gauges struct {
	t        *testing.T
	registry *prometheus.Registry
	ahead    atomic.Int64
}

func newGauges(t *testing.T, cfg worker.StatsConfig) *gauges {
	t.Helper()
	g := &gauges{t: t, registry: prometheus.NewPedanticRegistry()}
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(g.ahead.Load())) }
	g.registry.MustRegister(worker.NewStats(cfg))
	return g
}

// fresh is what a scrape shows once the last look is too old.
func (g *gauges) fresh() map[string]float64 {
	g.t.Helper()
	g.ahead.Add(int64(11 * time.Second))
	return g.now()
}

func (g *gauges) now() map[string]float64 {
	g.t.Helper()
	return samples(g.t, g.registry)
}

// samples are what a registry has to tell: by name and the labels' values, in the order of the labels' names.
func samples(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if h := m.GetHistogram(); h != nil {
				out[name+"_count"] = float64(h.GetSampleCount())
				continue
			}
			out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func wantSamples(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if is, found := got[name]; !found || is != value {
			t.Errorf("%s is %v (%t), want %v", name, is, found, value)
		}
	}
}

func TestStatsOfTheBooks(t *testing.T) {
	t.Parallel()
	p := setup(t)
	g := newGauges(t, worker.StatsConfig{Pool: p.pool})
	wantSamples(t, g.now(), map[string]float64{
		"singil_due_charges": 0, "singil_oldest_due_age_seconds": 0, "singil_unknown_outcomes": 0, "singil_oldest_unknown_age_seconds": 0,
		"singil_dunning_invoices retrying": 0, "singil_dunning_backlog_centavos PHP waiting_for_customer": 0,
		"singil_psp_circuit_state closed": 1, "singil_psp_circuit_state open": 0, "singil_leader": 0, "singil_stats_errors_total": 0,
		"singil_frozen": 0, "singil_recovery_needed": 0, "singil_charge_budget_used_ratio count": 0, "singil_charge_budget_used_ratio amount": 0,
	})

	p.subscribe("pays", "4343434343434345")
	p.subscribe("declined", "5100000000000198")
	p.subscribe("wants 3DS", "4120000000000007")
	if due := g.now()["singil_due_charges"]; due != 0 {
		t.Errorf("a look is kept for a while, and there are %v due", due)
	}
	p.set(noon.Add(time.Hour))
	wantSamples(t, g.fresh(), map[string]float64{"singil_due_charges": 3, "singil_oldest_due_age_seconds": 3600})

	p.tick()
	wantSamples(t, g.fresh(), map[string]float64{
		"singil_due_charges": 0, "singil_oldest_due_age_seconds": 0, "singil_unknown_outcomes": 0,
		"singil_dunning_invoices retrying": 1, "singil_dunning_backlog_centavos PHP retrying": 49900,
		"singil_dunning_invoices waiting_for_customer": 1, "singil_dunning_backlog_centavos PHP waiting_for_customer": 49900,
	})

	p.subscribe("timeout", "4343434343434345")
	p.fault(sandbox.Fault{Kind: sandbox.TimeoutAfter, Endpoint: "payment_intents.attach", Times: 1})
	p.tick()
	p.set(p.now.Add(5 * time.Minute))
	wantSamples(t, g.fresh(), map[string]float64{"singil_unknown_outcomes": 1, "singil_oldest_unknown_age_seconds": 300})

	if err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error { return billing.TripBreaker(t.Context(), tx, "401") }); err != nil {
		t.Fatal(err)
	}
	wantSamples(t, g.fresh(), map[string]float64{
		"singil_psp_circuit_state closed": 0, "singil_psp_circuit_state open": 1, "singil_operator_actions_total close_breaker done": 0,
	})
	if err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error { return billing.CloseBreaker(t.Context(), tx, "ana", "mended") }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantSamples(t, g.fresh(), map[string]float64{"singil_operator_actions_total close_breaker done": 1, "singil_operator_actions_total other done": 0})
	}
}

// TestWhatMadeUsLook: a look that a webhook asks for is told from one whose time has come.
func TestWhatMadeUsLook(t *testing.T) {
	t.Parallel()
	for _, webhook := range []bool{false, true} {
		p := setup(t)
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(p.metrics.Collectors()...)
		p.subscribe("timeout", "4343434343434345")
		p.fault(sandbox.Fault{Kind: sandbox.TimeoutAfter, Endpoint: "payment_intents.attach", Times: 1})
		p.tick()
		var invoice uuid.UUID
		if err := p.pool.QueryRow(t.Context(), `SELECT id FROM singil.invoices WHERE waiting_for = 'provider'`).Scan(&invoice); err != nil {
			t.Fatal(err)
		}
		if _, err := p.jobs.Insert(t.Context(), worker.ReconcileArgs{InvoiceID: invoice, Webhook: webhook}, nil); err != nil {
			t.Fatal(err)
		}
		p.tick() // nothing is due: it waits for the job
		want := map[string]float64{
			"singil_reconcile_resolutions_total paid poll": 1, "singil_reconcile_resolutions_total paid webhook": 0,
			"singil_workers_busy reconcile": 0, "singil_workers_max reconcile": 0,
		}
		if webhook {
			want["singil_reconcile_resolutions_total paid poll"], want["singil_reconcile_resolutions_total paid webhook"] = 0, 1
		}
		wantSamples(t, samples(t, registry), want)
	}
}

// TestStatsOfTheInterlocks: what keeps the whole installation from charging.
func TestStatsOfTheInterlocks(t *testing.T) {
	t.Parallel()
	p := setup(t)
	g := newGauges(t, worker.StatsConfig{Pool: p.pool})
	exec := func(sql string) {
		t.Helper()
		if _, err := p.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE singil.instance SET day_max_count = 4, day_max_minor = 499000`)
	p.subscribe("pays", "4343434343434345")
	p.tick()
	wantSamples(t, g.fresh(), map[string]float64{"singil_charge_budget_used_ratio count": 0.25, "singil_charge_budget_used_ratio amount": 0.1})
	p.set(p.now.Add(24 * time.Hour))
	wantSamples(t, g.fresh(), map[string]float64{"singil_charge_budget_used_ratio count": 0, "singil_frozen": 0})
	exec(`UPDATE singil.instance SET day_max_count = 0`)
	wantSamples(t, g.fresh(), map[string]float64{"singil_charge_budget_used_ratio count": 1})

	if err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "to look") }); err != nil {
		t.Fatal(err)
	}
	wantSamples(t, g.fresh(), map[string]float64{"singil_frozen": 1, "singil_recovery_needed": 0})
	exec(`UPDATE singil.instance SET timeline_id = timeline_id + 1`)
	if err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
		_, err := billing.Guard(t.Context(), tx, billing.Memory{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	wantSamples(t, g.fresh(), map[string]float64{"singil_frozen": 1, "singil_recovery_needed": 1})
}

func TestStatsOfTheQueues(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `
			INSERT INTO river.river_job (args, kind, max_attempts, queue, state, scheduled_at, finalized_at)
			SELECT '{}', 'charge', 3, queue, state::river.river_job_state, now() - age, CASE WHEN state = 'completed' THEN now() END
			FROM (VALUES ('charge', 'available', interval '1 hour'), ('charge', 'available', '1 minute'), ('charge', 'completed', '1 day'),
			             ('sweep', 'scheduled', '-1 hour'), ('theirs', 'available', '2 hours')) AS j (queue, state, age)`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	g := newGauges(t, worker.StatsConfig{Pool: pool, RiverClient: "me", Pools: map[string]*pgxpool.Pool{"singil": pool}})
	got := g.now()
	wantSamples(t, got, map[string]float64{
		"singil_job_queue_depth charge available": 2, "singil_job_queue_depth sweep scheduled": 1, "singil_job_queue_depth webhook running": 0,
		"singil_job_queue_depth other available": 1, "singil_job_queue_oldest_age_seconds sweep": 0, "singil_leader": 0,
		"singil_db_pool_max_connections singil": float64(pool.Config().MaxConns),
	})
	if age := got["singil_job_queue_oldest_age_seconds charge"]; age < 3600 || age > 3700 {
		t.Errorf("the oldest charge has waited for %v s", age)
	}
	if _, err := pool.Exec(t.Context(), `
		INSERT INTO river.river_leader (elected_at, expires_at, leader_id) VALUES (now(), now() + interval '1 minute', 'me')`); err != nil {
		t.Fatal(err)
	}
	wantSamples(t, g.fresh(), map[string]float64{"singil_leader": 1})
}

// TestStatsWithoutADatabase: a scrape must go through, and must not show what
// was true some time ago.
func TestStatsWithoutADatabase(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return billing.Bind(t.Context(), tx, billing.EnvironmentDev, false)
	}); err != nil {
		t.Fatal(err)
	}
	g := newGauges(t, worker.StatsConfig{Pool: pool})
	wantSamples(t, g.now(), map[string]float64{"singil_due_charges": 0, "singil_stats_errors_total": 0})
	pool.Close()
	got := g.fresh()
	wantSamples(t, got, map[string]float64{"singil_stats_errors_total": 1})
	if _, found := got["singil_due_charges"]; found {
		t.Errorf("shown without a database: %v", got)
	}
	wantSamples(t, g.now(), map[string]float64{"singil_stats_errors_total": 1}) // not asked again at once
}
