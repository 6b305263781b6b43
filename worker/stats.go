package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/singil/singil/billing"
)

// However often and by however many it is scraped, one daemon looks at the
// database this often, and for so long.
const (
	statsEvery   = 10 * time.Second
	statsTimeout = 3 * time.Second
)

// States of the interlock towards the provider, as all daemons see it.
const (
	circuitClosed  = "closed"
	circuitBlocked = "blocked" // until a time, after a 429
	circuitOpen    = "open"    // until an operator closes it, after a 401 or 403
)

// otherLabel stands for every value that a closed list does not have.
const otherLabel = "other"

var (
	circuitStates = []string{circuitClosed, circuitBlocked, circuitOpen}
	queues        = []string{QueueCharge, QueueReconcile, QueueSweep, QueueWebhook}
	queueStates   = []string{"available", "retryable", "running", "scheduled"}
)

// StatsConfig configures a Stats. Pool and Now are required.
type StatsConfig struct {
	Pool *pgxpool.Pool
	Now  func() time.Time // the real clock
	// RiverClient is the id of this daemon's River client, to tell whether it
	// leads; empty: it does not.
	RiverClient string
	// Pools are the pools to tell about, by name.
	Pools map[string]*pgxpool.Pool
}

// Stats is a collector of what only the database knows. It has no loop: a
// scrape makes it look, and a look is kept for a while. While the database does
// not answer it has nothing to tell but that; it never repeats what it saw before.
type Stats struct {
	cfg        StatsConfig
	invariants *invariantStats

	mu     sync.Mutex
	taken  time.Time // of the last look, whether it came to something or not
	last   *snapshot // nil: the last look failed
	errors float64
	audit  billing.AuditCount
}

// snapshot is one look.
type snapshot struct {
	billing.Stats

	circuit string
	leads   bool
	depth   map[queueState]float64
	oldest  map[string]float64
	audit   billing.AuditCount
}

type queueState struct{ queue, state string }

// NewStats makes a Stats. It panics on a config that lacks what is required.
func NewStats(cfg StatsConfig) *Stats {
	if cfg.Pool == nil || cfg.Now == nil {
		panic("worker: StatsConfig needs Pool and Now")
	}
	return &Stats{cfg: cfg, invariants: newInvariantStats()}
}

func statsDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("singil", "", name), help, labels, nil)
}

var (
	descDue           = statsDesc("due_charges", "Invoices whose next attempt is due and subscriptions whose next period is, by business time.")
	descOldestDue     = statsDesc("oldest_due_age_seconds", "How long the oldest of what is due has been, in business time; 0: nothing is due.")
	descDunning       = statsDesc("dunning_invoices", "Invoices not paid at the first attempt, by who moves next.", "stage")
	descBacklog       = statsDesc("dunning_backlog_centavos", "Centavos of the invoices in dunning, by who moves next and currency.", "stage", "currency")
	descUnknown       = statsDesc("unknown_outcomes", "Attempts that may have moved money and whose outcome is not known.")
	descOldestUnknown = statsDesc("oldest_unknown_age_seconds", "Age of the oldest attempt without a known outcome, in business time; 0: none.")
	descCircuit       = statsDesc("psp_circuit_state", "1 for the state of the interlock towards the provider: closed, blocked for a time, or open until an operator closes it.", "state")
	descFrozen        = statsDesc("frozen", "1 while charging is frozen, by an operator or because a recovery is needed.")
	descRecovery      = statsDesc("recovery_needed", "1 while the database may have forgotten charges, until singil recover has asked the provider.")
	descBudget        = statsDesc("charge_budget_used_ratio", "Share of the day's budget that is spent, from 0 to 1, by limit: count of charges, or amount.", "limit")
	descDepth         = statsDesc("job_queue_depth", "Jobs that are not finished, by queue and state.", "queue", "state")
	descOldestJob     = statsDesc("job_queue_oldest_age_seconds", "How long the oldest available job has been waiting to be worked, by queue; 0: none waits.", "queue")
	descLeader        = statsDesc("leader", "1 if this process leads River's maintenance; the sum over all daemons is 1.")
	descOperator      = statsDesc("operator_actions_total", "What operators did since this process first looked, whoever did it and wherever, by action and result. What was refused leaves no trace.", "action", "result")
	descErrors        = statsDesc("stats_errors_total", "Looks at the database for these metrics that failed.")
	descAcquired      = statsDesc("db_pool_acquired_connections", "Database connections in use, by pool.", "pool")
	descIdle          = statsDesc("db_pool_idle_connections", "Database connections that wait for use, by pool.", "pool")
	descMax           = statsDesc("db_pool_max_connections", "The most database connections there may be, by pool.", "pool")
	descAcquireWait   = statsDesc("db_pool_acquire_wait_seconds_total", "Time spent waiting for a database connection while none was free, by pool.", "pool")
)

// Describe implements prometheus.Collector.
func (s *Stats) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descDue, descOldestDue, descDunning, descBacklog, descUnknown, descOldestUnknown, descCircuit, descFrozen, descRecovery, descBudget,
		descDepth, descOldestJob, descLeader, descOperator, descErrors, descAcquired, descIdle, descMax, descAcquireWait, descViolations, descInvariantErrors,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Stats) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for name, pool := range s.cfg.Pools {
		stat := pool.Stat()
		gauge(descAcquired, float64(stat.AcquiredConns()), name)
		gauge(descIdle, float64(stat.IdleConns()), name)
		gauge(descMax, float64(stat.MaxConns()), name)
		counter(descAcquireWait, stat.EmptyAcquireWaitTime().Seconds(), name)
	}
	last, errors := s.look()
	counter(descErrors, errors)
	if last != nil {
		last.collect(gauge)
		last.collectActions(counter)
	}
	s.invariants.collect(s.cfg.Pool, s.cfg.Now, out)
}

func (l *snapshot) collect(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	gauge(descDue, float64(l.Due))
	gauge(descOldestDue, l.OldestDue.Seconds())
	gauge(descUnknown, float64(l.Unknown))
	gauge(descOldestUnknown, l.OldestUnknown.Seconds())
	for _, stage := range billing.DunningStages() {
		d := l.Dunning[stage]
		gauge(descDunning, float64(d.Invoices), string(stage))
		gauge(descBacklog, float64(d.Amounts[billing.CurrencyPHP]), string(stage), string(billing.CurrencyPHP))
	}
	for _, state := range circuitStates {
		gauge(descCircuit, oneIf(l.circuit == state), state)
	}
	gauge(descFrozen, oneIf(l.Instance.Frozen))
	gauge(descRecovery, oneIf(l.RecoveryNeeded))
	gauge(descBudget, shareOf(l.Budget.UsedCount, l.Budget.MaxCount), "count")
	gauge(descBudget, shareOf(l.Budget.UsedMinor, l.Budget.MaxMinor), "amount")
	for _, queue := range append(slices.Clone(queues), otherLabel) {
		for _, state := range queueStates {
			gauge(descDepth, l.depth[queueState{queue, state}], queue, state)
		}
		gauge(descOldestJob, l.oldest[queue], queue)
	}
	gauge(descLeader, oneIf(l.leads))
}

// collectActions is the audit log's, and so has only what was done. Every daemon
// counts them all.
func (l *snapshot) collectActions(counter func(d *prometheus.Desc, v float64, labels ...string)) {
	total, listed := l.audit.Total(), 0
	for _, action := range billing.OperatorActions() {
		counter(descOperator, float64(total[action]), action, "done")
		listed += total[action]
	}
	all := 0
	for _, n := range total {
		all += n
	}
	counter(descOperator, float64(all-listed), otherLabel, "done")
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// shareOf is 1 where there is nothing to spend.
func shareOf(used, most int64) float64 {
	if most <= 0 {
		return 1
	}
	return float64(used) / float64(most)
}

// look is the last look at the database, or a new one. Scrapes that come
// meanwhile wait for it.
func (s *Stats) look() (last *snapshot, errors float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken.IsZero() || s.cfg.Now().Sub(s.taken) >= statsEvery {
		var err error
		if s.last, err = s.take(); err != nil {
			s.last = nil
			s.errors++
		} else {
			s.audit = s.last.audit
		}
		s.taken = s.cfg.Now()
	}
	return s.last, s.errors
}

// take looks in one snapshot. The server itself ends what takes too long.
func (s *Stats) take() (*snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	l := &snapshot{circuit: circuitClosed, depth: map[queueState]float64{}, oldest: map[string]float64{}}
	err := pgx.BeginTxFunc(ctx, s.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", statsTimeout.Milliseconds()))
		if err != nil {
			return err
		}
		now := s.cfg.Now()
		if l.Stats, err = billing.LookStats(ctx, tx, now); err != nil {
			return err
		}
		switch {
		case l.Instance.BreakerOpen:
			l.circuit = circuitOpen
		case now.Before(l.Instance.BlockedUntil):
			l.circuit = circuitBlocked
		}
		if l.audit, err = s.audit.Look(ctx, tx); err != nil {
			return err
		}
		return l.lookAtRiver(ctx, tx, s.cfg.RiverClient)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// The age is that of the job that has been waiting longest for a worker. It
// rides River's index for fetching; completed jobs are not looked at.
const sqlQueues = `
SELECT queue, state::text, count(*)::float8,
       COALESCE(GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - min(scheduled_at) FILTER (WHERE state = 'available'))), 0)::float8
FROM river.river_job
WHERE state IN ('available', 'retryable', 'running', 'scheduled')
GROUP BY 1, 2`

const sqlLeads = `
SELECT EXISTS (SELECT FROM river.river_leader WHERE leader_id = $1 AND expires_at > clock_timestamp())`

func (l *snapshot) lookAtRiver(ctx context.Context, tx pgx.Tx, client string) error {
	if err := tx.QueryRow(ctx, sqlLeads, client).Scan(&l.leads); err != nil {
		return fmt.Errorf("look who leads: %w", err)
	}
	rows, err := tx.Query(ctx, sqlQueues)
	if err != nil {
		return fmt.Errorf("look at the queues: %w", err)
	}
	var queue, state string
	var count, age float64
	_, err = pgx.ForEachRow(rows, []any{&queue, &state, &count, &age}, func() error {
		if !slices.Contains(queues, queue) {
			queue = otherLabel
		}
		l.depth[queueState{queue, state}] += count
		l.oldest[queue] = max(l.oldest[queue], age)
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at the queues: %w", err)
	}
	return nil
}
