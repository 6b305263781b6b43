package worker

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// How a run of a job ends.
const (
	jobOK          = "ok"
	jobRetry       = "retry"     // failed, and comes again
	jobDiscarded   = "discarded" // failed for the last time
	jobCancelled   = "cancelled"
	jobInterrupted = "interrupted" // by a shutdown
	jobSnoozed     = "snoozed"
)

var (
	jobKinds   = []string{ChargeArgs{}.Kind(), ChargeBatchArgs{}.Kind(), ReconcileArgs{}.Kind(), SweepArgs{}.Kind(), WebhookArgs{}.Kind(), CardSetupArgs{}.Kind(), otherLabel}
	jobResults = []string{jobOK, jobRetry, jobDiscarded, jobCancelled, jobInterrupted, jobSnoozed}
)

// JobEvents are the kinds of events that CountJobs wants.
func JobEvents() []river.EventKind {
	return []river.EventKind{
		river.EventKindJobCancelled, river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobInterrupted, river.EventKindJobSnoozed,
	}
}

// jobMetrics are of River's jobs in this process.
type jobMetrics struct {
	jobs *prometheus.CounterVec
	wait *prometheus.HistogramVec
	run  *prometheus.HistogramVec
	busy *prometheus.GaugeVec
	most *prometheus.GaugeVec
}

func newJobMetrics() jobMetrics {
	m := jobMetrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "singil", Name: "jobs_total", Help: "Runs of jobs in this process, by kind and result.",
		}, []string{"kind", "result"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "singil", Name: "job_wait_seconds", Help: "From when a job could be worked to when it was, by kind.",
			Buckets: []float64{.01, .1, .5, 1, 5, 15, 60, 300, 900},
		}, []string{"kind"}),
		run: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "singil", Name: "job_run_seconds", Help: "How long a job was worked on, by kind.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 90},
		}, []string{"kind"}),
		busy: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "singil", Name: "workers_busy", Help: "Workers of this process that work on a job, by queue; in the charge queue, charges under way.",
		}, []string{"queue"}),
		most: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "singil", Name: "workers_max", Help: "Workers that this process has, by queue; in the charge queue, the charges that may be under way.",
		}, []string{"queue"}),
	}
	for _, queue := range queues {
		m.busy.WithLabelValues(queue)
		m.most.WithLabelValues(queue)
	}
	for _, kind := range jobKinds {
		for _, result := range jobResults {
			m.jobs.WithLabelValues(kind, result)
		}
		m.wait.WithLabelValues(kind)
		m.run.WithLabelValues(kind)
	}
	return m
}

func (m jobMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.jobs, m.wait, m.run, m.busy, m.most}
}

// work counts a worker as busy until the function it returns is called.
func (m jobMetrics) work(queue string) (done func()) {
	busy := m.busy.WithLabelValues(queue)
	busy.Inc()
	return busy.Dec
}

// HasWorkers notes how many workers this process has for each queue, and for the
// charge queue how many charges may be under way.
func (m *Metrics) HasWorkers(workers map[string]int) {
	for _, queue := range queues {
		m.jobs.most.WithLabelValues(queue).Set(float64(workers[queue]))
	}
}

// CountJobs counts until the channel is closed. River drops events that are not
// taken in time, so under the heaviest load there may be fewer here than there were.
func (m *Metrics) CountJobs(events <-chan *river.Event) {
	for event := range events {
		m.jobs.count(event)
	}
}

func (m jobMetrics) count(event *river.Event) {
	if event.Job == nil {
		return
	}
	kind := event.Job.Kind
	if !slices.Contains(jobKinds, kind) {
		kind = otherLabel
	}
	m.jobs.WithLabelValues(kind, jobResult(event)).Inc()
	if stats := event.JobStats; stats != nil {
		m.wait.WithLabelValues(kind).Observe(max(0, stats.QueueWaitDuration.Seconds()))
		m.run.WithLabelValues(kind).Observe(stats.RunDuration.Seconds())
	}
}

func jobResult(event *river.Event) string {
	switch event.Kind {
	case river.EventKindJobCompleted:
		return jobOK
	case river.EventKindJobCancelled:
		return jobCancelled
	case river.EventKindJobInterrupted:
		return jobInterrupted
	case river.EventKindJobSnoozed:
		return jobSnoozed
	}
	if event.Job.State == rivertype.JobStateDiscarded {
		return jobDiscarded
	}
	return jobRetry
}
