package worker_test

import (
	"context"
	"errors"
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

func newRegistry(m *worker.Metrics) *prometheus.Registry {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.Collectors()...)
	return registry
}

// TestPayMongoMetrics: a read that is tried again knows what the try before came to.
func TestPayMongoMetrics(t *testing.T) {
	t.Parallel()
	box, err := sandbox.New(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(box)
	defer server.Close()
	defer func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	}()
	m := worker.NewMetrics()
	client, err := paymongo.NewClient("sk_test_metrics", paymongo.WithBaseURL(server.URL+"/v1"), paymongo.WithRate(math.Inf(1), 0),
		paymongo.WithObserver(m.ObservePayMongo))
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if _, err := box.AddFault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.retrieve", Times: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := worker.NewPayMongo(client).Retrieve(t.Context(), "pi_none"); err == nil {
		t.Fatal("pi_none was found")
	}
	wantSamples(t, samples(t, newRegistry(m)), map[string]float64{
		"singil_psp_requests_total http_5xx payment_intents.retrieve 5xx":           1,
		"singil_psp_requests_total resource_not_found payment_intents.retrieve 4xx": 1,
		"singil_psp_requests_total ok payment_intents.attach 2xx":                   0,
		"singil_psp_retries_total payment_intents.retrieve http_5xx":                1,
		"singil_psp_request_duration_seconds payment_intents.retrieve_count":        2,
		"singil_psp_ratelimit_wait_seconds_count":                                   2,
	})
}

// TestPayMongoLabelsAreClosed: what PayMongo says can make no new series.
func TestPayMongoLabelsAreClosed(t *testing.T) {
	t.Parallel()
	m := worker.NewMetrics()
	before := len(samples(t, newRegistry(m)))
	declined := &paymongo.Error{StatusCode: 400, Code: "resource_failed_state", SubCode: "insufficient_funds"}
	for _, e := range []paymongo.Exchange{
		{Op: "payment_intents.attach", StatusCode: 400, Err: declined, Attempt: 1},
		{Op: "customers.create", StatusCode: 200, Attempt: 2},
		{Op: "pi_1", StatusCode: 418, Err: &paymongo.Error{StatusCode: 418, Code: "pi_2"}, Attempt: 1},
		{Op: "payment_intents.create", StatusCode: 302, Err: &paymongo.Error{StatusCode: 302}, Attempt: 1},
		{Op: "payment_intents.create", Err: errors.New("pi_3"), Attempt: 1},
	} {
		m.ObservePayMongo(context.Background(), e)
	}
	got := samples(t, newRegistry(m))
	wantSamples(t, got, map[string]float64{
		"singil_psp_requests_total declined payment_intents.attach 4xx":   1,
		"singil_psp_requests_total ok other 2xx":                          1,
		"singil_psp_requests_total unlisted_code other 4xx":               1,
		"singil_psp_requests_total http_3xx payment_intents.create other": 1,
		"singil_psp_requests_total other payment_intents.create none":     1,
		"singil_psp_retries_total other other":                            1,
	})
	if len(got) != before {
		t.Errorf("%d series, and %d at the start", len(got), before)
	}
}

func TestCountJobs(t *testing.T) {
	t.Parallel()
	m := worker.NewMetrics()
	events := make(chan *river.Event, 10)
	job := func(kind string, state rivertype.JobState) *rivertype.JobRow {
		return &rivertype.JobRow{Kind: kind, State: state}
	}
	stats := &river.JobStatistics{QueueWaitDuration: time.Second, RunDuration: time.Second}
	events <- &river.Event{Kind: river.EventKindJobCompleted, Job: job("charge", rivertype.JobStateCompleted), JobStats: stats}
	events <- &river.Event{Kind: river.EventKindJobFailed, Job: job("charge", rivertype.JobStateRetryable), JobStats: stats}
	events <- &river.Event{Kind: river.EventKindJobFailed, Job: job("sweep", rivertype.JobStateDiscarded), JobStats: stats}
	events <- &river.Event{Kind: river.EventKindJobInterrupted, Job: job("theirs", rivertype.JobStateAvailable)}
	close(events)
	m.CountJobs(events)
	wantSamples(t, samples(t, newRegistry(m)), map[string]float64{
		"singil_jobs_total charge ok": 1, "singil_jobs_total charge retry": 1, "singil_jobs_total sweep discarded": 1,
		"singil_jobs_total other interrupted": 1, "singil_jobs_total webhook ok": 0,
		"singil_job_wait_seconds charge_count": 2, "singil_job_run_seconds other_count": 0,
	})
}
