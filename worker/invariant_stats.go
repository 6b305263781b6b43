package worker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/singil/singil/billing"
)

// One daemon checks one invariant this often, over what was written in the
// window, and for so long. A scrape checks those whose turn has come, oldest
// first, until its share is spent: on a large database they take turns. singil
// check looks at everything.
const (
	invariantEvery   = 5 * time.Minute
	invariantWindow  = 24 * time.Hour
	invariantTimeout = 2 * time.Second
	invariantShare   = time.Second
)

var (
	descViolations = statsDesc("invariant_violations",
		"Rows that break an invariant of the books, by invariant: of those written in the last 24 hours, and of all that is due or waits. NaN: not known.", "invariant")
	descInvariantErrors = statsDesc("invariant_check_errors_total", "Checks of an invariant that failed or took too long.")
)

// invariantStats are the last checks.
type invariantStats struct {
	mu     sync.Mutex
	checks []invariantCheck
	errors float64
}

type invariantCheck struct {
	billing.Invariant

	taken time.Time // whether it came to something or not
	count float64   // NaN: it did not
}

func newInvariantStats() *invariantStats {
	s := &invariantStats{}
	for _, i := range billing.AllInvariants() {
		s.checks = append(s.checks, invariantCheck{Invariant: i, count: math.NaN()})
	}
	return s
}

func (s *invariantStats) collect(pool *pgxpool.Pool, now func() time.Time, out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look(pool, now)
	for _, c := range s.checks {
		out <- prometheus.MustNewConstMetric(descViolations, prometheus.GaugeValue, c.count, c.Name)
	}
	out <- prometheus.MustNewConstMetric(descInvariantErrors, prometheus.CounterValue, s.errors)
}

// look checks what is due, within the share of one scrape.
func (s *invariantStats) look(pool *pgxpool.Pool, now func() time.Time) {
	begun := now()
	var due []*invariantCheck
	for i := range s.checks {
		if c := &s.checks[i]; c.taken.IsZero() || begun.Sub(c.taken) >= invariantEvery {
			due = append(due, c)
		}
	}
	if len(due) == 0 {
		return
	}
	slices.SortStableFunc(due, func(a, b *invariantCheck) int { return a.taken.Compare(b.taken) })
	ctx, cancel := context.WithTimeout(context.Background(), invariantTimeout+invariantShare)
	defer cancel()
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", invariantTimeout.Milliseconds())); err != nil {
			return err
		}
		for _, c := range due {
			found, err := c.Check(ctx, tx, begun, begun.Add(-invariantWindow))
			c.taken, c.count = begun, float64(found.Count)
			if err != nil {
				c.count = math.NaN()
				s.errors++
			}
			if now().Sub(begun) >= invariantShare {
				return nil
			}
		}
		return nil
	})
	if err == nil {
		return
	}
	s.errors++
	for _, c := range due {
		c.taken, c.count = begun, math.NaN()
	}
}
