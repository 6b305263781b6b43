package worker

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The calls that a daemon makes; every other one is counted as other.
var pspOps = []string{"payment_intents.create", "payment_intents.retrieve", "payment_intents.attach", otherLabel}

// Classes of status codes.
const (
	class2xx   = "2xx"
	class4xx   = "4xx"
	class429   = "429" // apart from the other 4xx: we are too fast
	class5xx   = "5xx"
	classNone  = "none" // no answer
	classOther = otherLabel
)

const (
	pspOK       = "ok"
	pspDeclined = "declined" // why is in charge_declines_total
)

// pspCodes are the words for what a try came to that a metric may name, with the
// class that they come with; see package paymongo for what they mean.
var pspCodes = map[string][]string{
	class2xx: {pspOK, "answer_cut", "answer_html", "answer_too_large", "answer_undecodable", "answer_other_resource"},
	class4xx: {
		pspDeclined, "api_key_invalid", "organization_not_allowed", "payment_method_not_allowed", "livemode_mismatched", "resource_not_found",
		"parameter_invalid", "parameter_required", "resource_failed_state", "resource_succeeded_state", "resource_processing_state",
		"idempotency_in_progress", "http_408", "http_409", "no_errors_body", "unlisted_code", "unlisted_sub_code", otherLabel,
	},
	class429: {"http_429"},
	class5xx: {"http_5xx"},
	classNone: {
		"timeout", "canceled", "connection_lost", "dns", "connect", "tls", "waiting_for_connection", "body_not_sent", "past_send_before", otherLabel,
	},
	classOther: {"http_3xx", "http_status", otherLabel},
}

// pspRetryable are the words that the client may try again after.
var pspRetryable = []string{
	"answer_cut", "http_429", "http_5xx", "timeout", "connection_lost", "dns", "connect", "tls", "waiting_for_connection", "body_not_sent", otherLabel,
}

// pspMetrics are of the calls to the provider, try by try.
type pspMetrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	wait     prometheus.Histogram
}

func newPSPMetrics() pspMetrics {
	m := pspMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "singil", Name: "psp_requests_total",
			Help: "Requests to the provider, by call, class of the status (none: no answer) and what they came to (a closed list, else other).",
		}, []string{"op", "status_class", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "singil", Name: "psp_request_duration_seconds", Help: "How long a request to the provider takes, by call.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60},
		}, []string{"op"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "singil", Name: "psp_retries_total", Help: "Requests to the provider that repeat one, by call and what that one came to.",
		}, []string{"op", "reason"}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "singil", Name: "psp_ratelimit_wait_seconds", Help: "How long a request waited for our own rate limit, or for the end of a 429's hold.",
			Buckets: []float64{.001, .01, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	for _, op := range pspOps {
		for class, codes := range pspCodes {
			for _, code := range codes {
				m.requests.WithLabelValues(op, class, code)
			}
		}
		for _, reason := range pspRetryable {
			m.retries.WithLabelValues(op, reason)
		}
		m.duration.WithLabelValues(op)
	}
	return m
}

func (m pspMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.retries, m.wait}
}

// pspTry is one request, as the gateway's client tells of it.
type pspTry struct {
	op             string
	status         int
	code           string
	again          bool // it repeats one
	duration, wait time.Duration
}

func (m pspMetrics) observe(ctx context.Context, t pspTry) {
	op := t.op
	if !slices.Contains(pspOps, op) {
		op = otherLabel
	}
	class := statusClass(t.status)
	code := t.code
	if !slices.Contains(pspCodes[class], code) {
		code = otherLabel
	}
	m.requests.WithLabelValues(op, class, code).Inc()
	m.duration.WithLabelValues(op).Observe(t.duration.Seconds())
	m.wait.Observe(t.wait.Seconds())

	before, remembered := ctx.Value(lastTryKey{}).(*string)
	if t.again {
		reason := otherLabel
		if remembered && slices.Contains(pspRetryable, *before) {
			reason = *before
		}
		m.retries.WithLabelValues(op, reason).Inc()
	}
	if remembered {
		*before = code
	}
}

func statusClass(status int) string {
	switch {
	case status == 0:
		return classNone
	case status >= 200 && status < 300:
		return class2xx
	case status == http.StatusTooManyRequests:
		return class429
	case status >= 400 && status < 500:
		return class4xx
	case status >= 500:
		return class5xx
	}
	return classOther
}

type lastTryKey struct{}

// rememberTries is the context of one call: its tries know what the one before
// came to. They follow one another in one goroutine.
func rememberTries(ctx context.Context) context.Context {
	return context.WithValue(ctx, lastTryKey{}, new(string))
}
