package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// DunningStage tells who moves next about an invoice that was not paid at the
// first attempt.
type DunningStage string

// The stages of dunning.
const (
	DunningRetrying DunningStage = "retrying"
	DunningCustomer DunningStage = "waiting_for_customer"
)

// DunningStages are all of them.
func DunningStages() []DunningStage { return []DunningStage{DunningRetrying, DunningCustomer} }

// Stats is what the books look like from afar. Ages are by business time.
type Stats struct {
	Instance Instance
	// Due are charges whose time has come: invoices to be attempted, with those
	// that a job has been enqueued for, and subscriptions to be looked at.
	Due       int64
	OldestDue time.Duration // 0: nothing is due
	// Unknown are attempts that may have moved money, past the time in which they
	// may be sent, without a known outcome. Those in front of a human count until
	// the invoice has moved on.
	Unknown       int64
	OldestUnknown time.Duration // 0: none
	Dunning       map[DunningStage]DunningStats
	// RecoveryNeeded tells that the database was restored, copied or failed over,
	// and that nobody has asked the provider yet what it forgot.
	RecoveryNeeded bool
	Budget         BudgetStats
}

// BudgetStats is what of the day's budget is spent. A day's limits are those of
// its first charge.
type BudgetStats struct {
	UsedCount, MaxCount int64
	UsedMinor, MaxMinor int64 // minor units, of whatever currency
}

// DunningStats is one stage of dunning.
type DunningStats struct {
	Invoices int64
	Amounts  map[Currency]int64 // centavos
}

// Every part is an index look or a walk over an index of what is open; nothing
// here grows with what is paid. A claimed invoice's next attempt is one lease on.
const sqlStatsDue = `
SELECT count(*), min(d.due_at)
FROM (
  SELECT CASE WHEN i.claimed THEN i.next_attempt_at - $2::interval ELSE i.next_attempt_at END AS due_at
  FROM singil.invoices i
  WHERE i.status = 'open' AND i.waiting_for = 'schedule' AND i.next_attempt_at <= $1::timestamptz + $2::interval
    AND (i.claimed OR i.next_attempt_at <= $1)
  UNION ALL
  SELECT s.next_due_at FROM singil.subscriptions s WHERE s.next_due_at <= $1
) d`

const sqlStatsUnknown = `
SELECT count(*), min(a.armed_at)
FROM singil.attempts a
JOIN singil.invoices i ON i.id = a.invoice_id
WHERE a.state IN ('armed', 'review') AND a.send_before <= $1 AND (a.state = 'armed' OR i.status = 'review')`

const sqlStatsDunning = `
SELECT CASE WHEN i.waiting_for = 'customer' THEN 'waiting_for_customer' ELSE 'retrying' END, i.currency, count(*), sum(i.amount_minor)::bigint
FROM singil.invoices i
WHERE i.status = 'open' AND (i.waiting_for = 'customer' OR i.waiting_for = 'schedule' AND i.attempt_count > 0)
GROUP BY 1, 2`

const sqlStatsInstance = `
SELECT i.recovery_needed IS NOT NULL, COALESCE(b.used_count, 0), COALESCE(b.max_count, i.day_max_count),
       COALESCE(b.used_minor, 0), COALESCE(b.max_minor, i.day_max_minor)
FROM singil.instance i
LEFT JOIN singil.charge_budget b ON b.livemode = i.livemode AND b.day = $1::date`

// LookStats reads the stats. Give it a transaction with one snapshot and a
// statement_timeout: with a long backlog it reads all of it.
func LookStats(ctx context.Context, q Querier, realNow time.Time) (Stats, error) {
	stats, err := lookStats(ctx, q, realNow)
	if err != nil {
		return Stats{}, fmt.Errorf("look at the stats: %w", err)
	}
	return stats, nil
}

func lookStats(ctx context.Context, q Querier, realNow time.Time) (s Stats, err error) {
	if s.Instance, err = LoadInstance(ctx, q); err != nil {
		return s, err
	}
	now := s.Instance.Now(realNow)
	if s.Due, s.OldestDue, err = countSince(ctx, q, now, sqlStatsDue, now, Lease); err != nil {
		return s, err
	}
	if s.Unknown, s.OldestUnknown, err = countSince(ctx, q, now, sqlStatsUnknown, now); err != nil {
		return s, err
	}
	rows, err := q.Query(ctx, sqlStatsInstance, now.UTC().Format(time.DateOnly))
	if err != nil {
		return s, err
	}
	b := &s.Budget
	_, err = pgx.ForEachRow(rows, []any{&s.RecoveryNeeded, &b.UsedCount, &b.MaxCount, &b.UsedMinor, &b.MaxMinor}, func() error { return nil })
	if err != nil {
		return s, err
	}
	s.Dunning = map[DunningStage]DunningStats{}
	rows, err = q.Query(ctx, sqlStatsDunning)
	if err != nil {
		return s, err
	}
	var stage DunningStage
	var currency Currency
	var count, minor int64
	_, err = pgx.ForEachRow(rows, []any{&stage, &currency, &count, &minor}, func() error {
		d := s.Dunning[stage]
		if d.Amounts == nil {
			d.Amounts = map[Currency]int64{}
		}
		d.Invoices += count
		d.Amounts[currency] = minor
		s.Dunning[stage] = d
		return nil
	})
	return s, err
}

// countSince runs a query for a number and the oldest time.
func countSince(ctx context.Context, q Querier, now time.Time, sql string, args ...any) (n int64, age time.Duration, err error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return 0, 0, err
	}
	var oldest *time.Time
	_, err = pgx.ForEachRow(rows, []any{&n, &oldest}, func() error { return nil })
	if oldest != nil {
		age = max(0, now.Sub(*oldest))
	}
	return n, age, err
}
