package worker

import "github.com/prometheus/client_golang/prometheus"

// outboxMetrics are the outbox's.
type outboxMetrics struct {
	deliveries *prometheus.CounterVec
	oldest     prometheus.Gauge
	parked     prometheus.Gauge
}

func newOutboxMetrics() outboxMetrics {
	m := outboxMetrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "singil", Name: "outbox_deliveries_total", Help: "Events sent to the merchant's endpoints, by result.",
		}, []string{"result"}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "singil", Name: "outbox_oldest_undelivered_age_seconds",
			Help: "Age of the oldest event that an enabled endpoint has not acknowledged; 0: none.",
		}),
		parked: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "singil", Name: "outbox_parked_streams", Help: "Subscriptions' events that were given up for an endpoint, until an operator resumes them.",
		}),
	}
	for _, result := range []string{deliveryOK, deliveryRefused, deliveryUnreachable} {
		m.deliveries.WithLabelValues(result)
	}
	return m
}

func (m outboxMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.deliveries, m.oldest, m.parked}
}
