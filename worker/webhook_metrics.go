package worker

import "github.com/prometheus/client_golang/prometheus"

// webhookMetrics are the inbox's. A delivery is counted once: when it was turned
// away, or when it is processed.
type webhookMetrics struct {
	events   *prometheus.CounterVec
	lag      prometheus.Histogram
	received prometheus.Gauge
	unknown  *prometheus.CounterVec
}

func newWebhookMetrics() webhookMetrics {
	m := webhookMetrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "singil", Name: "webhook_events_total",
			Help: "Webhook deliveries, by type (a closed list, else other) and result.",
		}, []string{"type", "result"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "singil", Name: "webhook_lag_seconds", Help: "From what happened at the provider to the receipt of its webhook.",
			Buckets: []float64{.5, 1, 2.5, 5, 15, 60, 300, 900, 3600, 10800},
		}),
		received: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "singil", Name: "webhook_last_received_timestamp_seconds",
			Help: "When this process last received an authentic webhook, unix time; 0: never.",
		}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "singil", Name: "unknown_payments_total",
			Help: "Payments the provider took that we did not ask for, by their metadata: ours names this installation, none is of the merchant's other programs and ignored.",
		}, []string{"metadata"}),
	}
	labels := []string{otherEvent}
	for _, kind := range eventLabels {
		labels = append(labels, string(kind))
	}
	for _, label := range labels {
		for _, result := range webhookResults {
			m.events.WithLabelValues(label, result)
		}
	}
	for _, metadata := range []string{metadataOurs, metadataNone} {
		m.unknown.WithLabelValues(metadata)
	}
	return m
}

func (m webhookMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.events, m.lag, m.received, m.unknown}
}
