package api

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	cardNumbers prometheus.Counter
}

// newMetrics registers them, with what every route may answer at zero: a rate needs
// a beginning.
func newMetrics(registry prometheus.Registerer, operations map[string]operation) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "singil", Name: "api_requests_total", Help: "Requests to the HTTP API, by route (other: no such path) and HTTP status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "singil", Name: "api_request_seconds", Help: "How long requests to the HTTP API took, by route.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"route"}),
		cardNumbers: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "singil", Name: "card_numbers_refused_total", Help: "Requests to the HTTP API that were refused because something in them looked like a card number.",
		}),
	}
	for _, op := range operations {
		m.requests.WithLabelValues(op.route(), strconv.Itoa(op.success()))
		m.seconds.WithLabelValues(op.route())
	}
	if registry != nil {
		registry.MustRegister(m.requests, m.seconds, m.cardNumbers)
	}
	return m
}

func (m *metrics) count(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}
