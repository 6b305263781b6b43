package worker

import (
	"errors"
	"fmt"
	"testing"

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
