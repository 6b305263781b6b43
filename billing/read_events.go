package billing

import (
	"context"
	"fmt"
	"time"
)

const sqlReadEvents = `
SELECT e.seq, e.id, e.type, s.external_id, c.external_id, e.data, e.occurred_at, e.written_at
FROM singil.events e
LEFT JOIN singil.subscriptions s ON s.id = e.subscription_id
LEFT JOIN singil.customers c ON c.id = e.customer_id
WHERE e.seq > $1
ORDER BY e.seq
LIMIT $2`

// Whoever writes events holds this lock until it ends. When sessions of another
// role began is not told: they may have begun at any time. The statement's own
// time is from before the look at the locks.
const sqlEventsHorizon = `
SELECT LEAST(statement_timestamp(), min(COALESCE(a.xact_start, 'epoch')))
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = 'singil.events'::regclass AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())`

// ReadEvents is a page of events behind a number, the oldest first, for a reader
// that keeps the last number it has seen: none is ever passed over. Numbers are
// given before events are committed, so one that is missing may still come; the
// page ends in front of it until nobody is left who could have it. more tells
// that another page is there to be read now.
//
// q takes a new snapshot for each statement: a pool, or a READ COMMITTED
// transaction.
func ReadEvents(ctx context.Context, q Querier, after int64, limit int) (page []ExportedEvent, more bool, err error) {
	rows, err := readEvents(ctx, q, after, limit+1)
	if err != nil {
		return nil, false, err
	}
	safe := unbroken(rows, after, time.Time{})
	if safe < len(rows) {
		// The horizon first: what is committed behind it is in the rows.
		horizon, err := eventsHorizon(ctx, q)
		if err != nil {
			return nil, false, err
		}
		if rows, err = readEvents(ctx, q, after, limit+1); err != nil {
			return nil, false, err
		}
		safe = unbroken(rows, after, horizon)
	}
	page = []ExportedEvent{}
	for _, row := range rows[:min(safe, limit)] {
		page = append(page, row.ExportedEvent)
	}
	return page, safe > limit, nil
}

type readEvent struct {
	ExportedEvent
	WrittenAt time.Time
}

// unbroken counts the events in front of the first number that is missing and
// may still come: the event behind it was written after the horizon.
func unbroken(rows []readEvent, after int64, horizon time.Time) int {
	for i, row := range rows {
		if row.Seq != after+1 && !row.WrittenAt.Before(horizon) {
			return i
		}
		after = row.Seq
	}
	return len(rows)
}

func readEvents(ctx context.Context, q Querier, after int64, limit int) ([]readEvent, error) {
	return browse[readEvent](ctx, q, "events", sqlReadEvents, after, limit)
}

// eventsHorizon is a time since which no transaction has begun that may still
// commit events numbered before.
func eventsHorizon(ctx context.Context, q Querier) (time.Time, error) {
	rows, err := browse[struct{ At time.Time }](ctx, q, "who writes events", sqlEventsHorizon)
	if err != nil {
		return time.Time{}, err
	}
	if len(rows) != 1 {
		return time.Time{}, fmt.Errorf("list who writes events: %d rows", len(rows))
	}
	return rows[0].At, nil
}
