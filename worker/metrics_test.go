package worker

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/singil/singil/billing"
)

// TestDuplicateChargePrevented: each guard is counted, and nothing else is.
func TestDuplicateChargePrevented(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		count func(m *Metrics)
		guard string // which one is counted; none: nothing was prevented
	}{
		{"AnotherWorkerHasArmed", func(m *Metrics) { m.notArmed(billing.ErrInFlight) }, guardState},
		{"ConstraintRefusesTheArming", func(m *Metrics) { m.notArmed(fmt.Errorf("arm: %w", &pgconn.PgError{Code: "23505"})) }, guardDB},
		{"DatabaseIsAway", func(m *Metrics) { m.notArmed(errors.New("connection refused")) }, ""},
		{"InvoiceIsNotOpenAnyMore", func(m *Metrics) { m.notArmed(billing.ErrNotOpen) }, ""},
		{"PaymentIsNew", func(m *Metrics) {
			m.count(&billing.Collection{}, billing.Judgement{Ruling: billing.Paid}, billing.Settled{Applied: true, InvoiceStatus: billing.InvoicePaid})
		}, ""},
		{"PaymentIsOnRecord", func(m *Metrics) {
			m.count(&billing.Collection{}, billing.Judgement{Ruling: billing.Paid}, billing.Settled{InvoiceStatus: billing.InvoicePaid})
		}, guardIdempotency},
		{"SerializationFailure", func(m *Metrics) { m.notArmed(&pgconn.PgError{Code: "40001"}) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := NewMetrics()
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(m.prevented)
			tt.count(m)
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			series := families[0].GetMetric()
			if len(series) != 3 {
				t.Errorf("%d series, want one a guard", len(series))
			}
			for _, s := range series {
				guard, want := s.GetLabel()[0].GetValue(), 0.0
				if guard == tt.guard {
					want = 1
				}
				if got := s.GetCounter().GetValue(); got != want {
					t.Errorf("%s: %v, want %v", guard, got, want)
				}
			}
		})
	}
}

// TestLabelsOfSettlements: which retry paid, what made us look, and why dunning gave up.
func TestLabelsOfSettlements(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.recovered, m.recoveredSum, m.resolutions, m.uncollected)
	c := &billing.Collection{Trigger: billing.TriggerDunning, Standing: billing.Standing{Amount: billing.Money{Minor: 49900, Currency: billing.CurrencyPHP}}}
	for _, retry := range []int{1, 3, 4, 9} {
		m.count(c, billing.Judgement{Ruling: billing.Paid}, billing.Settled{Applied: true, Recovered: true, Retry: retry})
	}
	m.count(c, billing.Judgement{Ruling: billing.Declined}, billing.Settled{Applied: true, Final: true, Cause: billing.EndCauseHard})
	m.count(c, billing.Judgement{Ruling: billing.Deferred}, billing.Settled{Applied: true, Final: true})
	seen := billing.Settlement{Source: "retrieve", Judgement: billing.Judgement{Ruling: billing.Wait}}
	m.settled(seen, billing.Settled{}, c, lookWebhook)
	m.settled(seen, billing.Settled{}, c, lookPoll)
	m.settled(billing.Settlement{Source: "attach", Judgement: seen.Judgement}, billing.Settled{}, c, lookPoll)

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	series := 0
	for _, f := range families {
		for _, s := range f.GetMetric() {
			series++
			name := f.GetName()
			for _, l := range s.GetLabel() {
				name += " " + l.GetValue()
			}
			if v := s.GetCounter().GetValue(); v != 0 {
				got[name] = v
			}
		}
	}
	want := map[string]float64{
		"singil_recovered_charges_total 1 dunning": 1, "singil_recovered_charges_total 3 dunning": 1, "singil_recovered_charges_total 4plus dunning": 2,
		"singil_recovered_amount_centavos_total 1 dunning": 49900, "singil_recovered_amount_centavos_total 3 dunning": 49900,
		"singil_recovered_amount_centavos_total 4plus dunning": 99800,
		"singil_invoices_uncollectible_total hard_decline":     1, "singil_invoices_uncollectible_total other": 1,
		"singil_reconcile_resolutions_total wait webhook": 1, "singil_reconcile_resolutions_total wait poll": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if all := 2*4*len(triggers) + 2*len(rulings) + len(billing.EndCauses()) + 1; series != all {
		t.Errorf("%d series, want %d from the start and no more", series, all)
	}
}

// TestFoundPaidLater: what was answered stays, each attempt once; what is collected
// is counted when it is known.
func TestFoundPaidLater(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.attempts, m.amount, m.collected)
	c := &billing.Collection{Trigger: billing.TriggerSchedule, Standing: billing.Standing{Amount: billing.Money{Minor: 49900, Currency: billing.CurrencyPHP}}}
	became := billing.Settled{Applied: true, InvoiceStatus: billing.InvoicePaid}
	paid := billing.Judgement{Ruling: billing.Paid}
	m.attempted(c, paid, became, time.Second)
	for _, answer := range []billing.Ruling{billing.Unknown, billing.Wait} {
		m.attempted(c, billing.Judgement{Ruling: answer}, billing.Settled{Applied: true, InvoiceStatus: billing.InvoiceOpen}, time.Second)
		m.settled(billing.Settlement{Source: "retrieve", Judgement: paid}, became, c, lookWebhook)
		m.settled(billing.Settlement{Source: "retrieve", Judgement: paid}, billing.Settled{InvoiceStatus: billing.InvoicePaid}, c, lookPoll) // again
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			if v := s.GetCounter().GetValue(); v != 0 {
				name := f.GetName()
				for _, l := range s.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = v
			}
		}
	}
	want := map[string]float64{
		"singil_charge_attempts_total paid schedule": 1, "singil_charge_attempts_total unknown schedule": 1, "singil_charge_attempts_total wait schedule": 1,
		"singil_charge_amount_centavos_total PHP paid": 49900, "singil_charge_amount_centavos_total PHP unknown": 49900, "singil_charge_amount_centavos_total PHP wait": 49900,
		"singil_collected_amount_centavos_total PHP": 3 * 49900,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBusyWorkers(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.jobs.busy, m.jobs.most)
	m.HasWorkers(map[string]int{QueueCharge: 200})
	first, second := m.jobs.work(QueueCharge), m.jobs.work(QueueCharge)
	for _, tt := range []struct {
		done func()
		busy float64
	}{{func() {}, 2}, {second, 1}, {first, 0}} {
		tt.done()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, s := range f.GetMetric() {
				got[f.GetName()+" "+s.GetLabel()[0].GetValue()] = s.GetGauge().GetValue()
			}
		}
		want := map[string]float64{}
		for _, queue := range queues {
			want["singil_workers_busy "+queue], want["singil_workers_max "+queue] = 0, 0
		}
		want["singil_workers_busy charge"], want["singil_workers_max charge"] = tt.busy, 200
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestCollectedAmount: what became paid is counted once, however it was found out.
func TestCollectedAmount(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	c := &billing.Collection{Standing: billing.Standing{Amount: billing.Money{Minor: 49900, Currency: billing.CurrencyPHP}}}
	paid := billing.Judgement{Ruling: billing.Paid}
	m.attempted(c, paid, billing.Settled{Applied: true, InvoiceStatus: billing.InvoicePaid}, 0)
	m.attempted(c, billing.Judgement{Ruling: billing.Unknown}, billing.Settled{Applied: true, InvoiceStatus: billing.InvoiceOpen}, 0)
	m.settled(billing.Settlement{Source: "retrieve", Judgement: paid}, billing.Settled{Applied: true, InvoiceStatus: billing.InvoicePaid}, c, lookPoll)
	m.settled(billing.Settlement{Source: "retrieve", Judgement: paid}, billing.Settled{InvoiceStatus: billing.InvoicePaid}, c, lookWebhook) // on record already
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.collected)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if got := families[0].GetMetric()[0].GetCounter().GetValue(); got != 2*49900 {
		t.Errorf("%v centavos, want those of two invoices", got)
	}
}
