package worker

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/singil/singil/billing"
)

// Metrics of the collector. Series exist at 0 from the start; no label holds an id.
type Metrics struct {
	attempts     *prometheus.CounterVec
	declines     *prometheus.CounterVec
	amount       *prometheus.CounterVec
	collected    *prometheus.CounterVec
	recovered    *prometheus.CounterVec
	recoveredSum *prometheus.CounterVec
	resolutions  *prometheus.CounterVec
	uncollected  *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	lag          prometheus.Histogram
	sweeps       *prometheus.CounterVec
	sweepTime    prometheus.Histogram
	sweepSuccess prometheus.Gauge
	enqueued     prometheus.Counter
	opened       prometheus.Counter
	parked       prometheus.Counter
	prevented    *prometheus.CounterVec

	webhooks webhookMetrics
	outbox   outboxMetrics
	psp      pspMetrics
	jobs     jobMetrics
}

// What kept an invoice from being charged, or a payment from being booked, twice.
const (
	guardDB          = "db"          // a constraint of the database refused the arming
	guardIdempotency = "idempotency" // a payment that was on record came again
	guardState       = "state"       // an attempt was open, or another worker had armed
)

// What made us look at an open outcome.
const (
	lookPoll    = "poll"
	lookWebhook = "webhook"
)

var (
	rulings  = []billing.Ruling{billing.Paid, billing.Declined, billing.NoEffect, billing.Wait, billing.Unknown, billing.Fault, billing.CardGone, billing.Park}
	triggers = []billing.Trigger{billing.TriggerSchedule, billing.TriggerDunning, billing.TriggerManual, billing.TriggerCardUpdate}
)

// NewMetrics makes the collectors; Collectors hands them to a registry.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "singil", Name: name, Help: help}, labels)
	}
	single := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "singil", Name: name, Help: help})
	}
	m := &Metrics{
		attempts:     counter("charge_attempts_total", "Attempts that were sent, by what the answer came to and trigger. One whose outcome was found out later stays where its answer put it.", "outcome", "trigger"),
		declines:     counter("charge_declines_total", "Declined attempts, by decline code (a closed list, else other) and class.", "code", "class"),
		amount:       counter("charge_amount_centavos_total", "Centavos that sent attempts were about, by what the answer came to and currency. Not what was collected: an unknown outcome that is found paid later counts there, and stays unknown here.", "outcome", "currency"),
		collected:    counter("collected_amount_centavos_total", "Centavos of invoices that became paid, by an attach or, found out later, by a look at an open outcome.", "currency"),
		recovered:    counter("recovered_charges_total", "Invoices paid after a decline, by the trigger of the attempt and which retry it was.", "trigger", "stage"),
		recoveredSum: counter("recovered_amount_centavos_total", "Centavos of invoices paid after a decline, by the trigger of the attempt and which retry it was.", "trigger", "stage"),
		resolutions:  counter("reconcile_resolutions_total", "What a look at an open outcome found, by ruling and what made us look: the schedule or a webhook.", "result", "source"),
		uncollected:  counter("invoices_uncollectible_total", "Invoices that dunning gave up on, by cause.", "reason"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "singil", Name: "charge_duration_seconds", Help: "From the commit of the arming to the commit of what the answer came to, by that.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60},
		}, []string{"outcome"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "singil", Name: "schedule_lag_seconds", Help: "From an invoice's due time to its first attempt.",
			Buckets: []float64{1, 5, 15, 60, 300, 900, 3600, 14400, 86400},
		}),
		sweeps: counter("scheduler_runs_total", "Sweeps, by result.", "result"),
		sweepTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "singil", Name: "scheduler_run_duration_seconds", Help: "How long a sweep takes.",
			Buckets: []float64{.005, .01, .05, .1, .5, 1, 5, 15, 60},
		}),
		sweepSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "singil", Name: "scheduler_last_success_timestamp_seconds", Help: "When a sweep of this process last succeeded, unix time.",
		}),
		enqueued: single("scheduler_enqueued_total", "Jobs enqueued by sweeps."),
		opened:   single("invoices_opened_total", "Invoices opened by sweeps."),
		parked:   single("parked_total", "Subscriptions and invoices put in front of a human."),
		prevented: counter("duplicate_charge_prevented_total",
			"Times an invoice was not charged, or a payment not booked, a second time, by the guard: a constraint, the record of the payment, or an open attempt.", "guard"),
		webhooks: newWebhookMetrics(),
		outbox:   newOutboxMetrics(),
		psp:      newPSPMetrics(),
		jobs:     newJobMetrics(),
	}
	for _, r := range rulings {
		for _, t := range triggers {
			m.attempts.WithLabelValues(string(r), string(t))
		}
		m.amount.WithLabelValues(string(r), string(billing.CurrencyPHP))
		m.duration.WithLabelValues(string(r))
		m.resolutions.WithLabelValues(string(r), lookPoll)
		m.resolutions.WithLabelValues(string(r), lookWebhook)
	}
	m.collected.WithLabelValues(string(billing.CurrencyPHP))
	for _, t := range triggers {
		for retry := range 4 {
			m.recovered.WithLabelValues(string(t), retryStage(retry+1))
			m.recoveredSum.WithLabelValues(string(t), retryStage(retry+1))
		}
	}
	for _, cause := range append(billing.EndCauses(), otherLabel) {
		m.uncollected.WithLabelValues(string(cause))
	}
	for _, code := range billing.DeclineCodes() {
		m.declines.WithLabelValues(string(code), string(billing.Classify(code).Class))
	}
	for _, guard := range []string{guardDB, guardIdempotency, guardState} {
		m.prevented.WithLabelValues(guard)
	}
	for _, result := range []string{"ok", "error"} {
		m.sweeps.WithLabelValues(result)
	}
	return m
}

// Collectors are what a registry registers.
func (m *Metrics) Collectors() []prometheus.Collector {
	own := []prometheus.Collector{
		m.attempts, m.declines, m.amount, m.collected, m.recovered, m.recoveredSum, m.resolutions, m.uncollected, m.duration, m.lag,
		m.sweeps, m.sweepTime, m.sweepSuccess, m.enqueued, m.opened, m.parked, m.prevented,
	}
	return slices.Concat(own, m.webhooks.collectors(), m.outbox.collectors(), m.psp.collectors(), m.jobs.collectors())
}

// retryStage is which retry paid an invoice, as a closed list.
func retryStage(retry int) string {
	if retry >= 4 {
		return "4plus"
	}
	return strconv.Itoa(retry)
}

// attempted counts one attempt, once, with what its answer came to. What is found
// out later moves nothing here: a counter cannot take an unknown back, and the
// attempt would be counted twice. Its money is collected then.
func (m *Metrics) attempted(c *billing.Collection, j billing.Judgement, settled billing.Settled, took time.Duration) {
	outcome := string(j.Ruling)
	m.attempts.WithLabelValues(outcome, string(c.Trigger)).Inc()
	m.amount.WithLabelValues(outcome, string(c.Amount.Currency)).Add(float64(c.Amount.Minor))
	m.duration.WithLabelValues(outcome).Observe(took.Seconds())
	m.count(c, j, settled)
}

// settled counts an outcome that was not brought by an attach.
func (m *Metrics) settled(s billing.Settlement, settled billing.Settled, c *billing.Collection, source string) {
	if s.Source == "retrieve" {
		m.resolutions.WithLabelValues(string(s.Judgement.Ruling), source).Inc()
	}
	m.count(c, s.Judgement, settled)
}

func (m *Metrics) count(c *billing.Collection, j billing.Judgement, settled billing.Settled) {
	if !settled.Applied {
		if j.Ruling == billing.Paid && settled.InvoiceStatus == billing.InvoicePaid {
			m.prevented.WithLabelValues(guardIdempotency).Inc()
		}
		return
	}
	if j.Ruling == billing.Declined {
		m.declines.WithLabelValues(string(j.Code.Label()), string(billing.Classify(j.Code.Label()).Class)).Inc()
	}
	if j.Ruling == billing.Paid && settled.InvoiceStatus == billing.InvoicePaid {
		m.collected.WithLabelValues(string(c.Amount.Currency)).Add(float64(c.Amount.Minor))
	}
	if settled.Recovered {
		stage := retryStage(settled.Retry)
		m.recovered.WithLabelValues(string(c.Trigger), stage).Inc()
		m.recoveredSum.WithLabelValues(string(c.Trigger), stage).Add(float64(c.Amount.Minor))
	}
	if settled.Final {
		m.uncollected.WithLabelValues(string(cmp.Or(settled.Cause, otherLabel))).Inc()
	}
	if settled.InvoiceStatus == billing.InvoiceReview && c.Status != billing.InvoiceReview { // not one that was there
		m.parked.Inc()
	}
}

// notArmed counts the guards that kept an attempt from being armed.
func (m *Metrics) notArmed(err error) {
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, billing.ErrInFlight):
		m.prevented.WithLabelValues(guardState).Inc()
	case errors.As(err, &pg) && strings.HasPrefix(pg.Code, "23"): // integrity constraint violation
		m.prevented.WithLabelValues(guardDB).Inc()
	}
}

// started notes how late a first attempt is.
func (m *Metrics) started(c *billing.Collection, now time.Time) {
	if c.AttemptCount == 0 {
		m.lag.Observe(max(0, now.Sub(c.DueAt).Seconds()))
	}
}

func (m *Metrics) swept(s Swept, err error, took time.Duration) {
	result := "ok"
	if err != nil {
		result = "error"
	} else {
		m.sweepSuccess.SetToCurrentTime()
	}
	m.sweeps.WithLabelValues(result).Inc()
	m.sweepTime.Observe(took.Seconds())
	m.enqueued.Add(float64(s.Enqueued))
	m.opened.Add(float64(s.Invoices))
	m.parked.Add(float64(s.Parked))
}
