package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// How long the inbox and the outbox are kept, by business time, which is what
// their rows are dated in. Both are far longer than anybody delivers again. What
// tells of money is kept for ever: invoices, intents, attempts, payments, and the
// audit log.
const (
	WebhookRetention = 90 * 24 * time.Hour
	EventRetention   = 180 * 24 * time.Hour
)

// RequestRetention is how long the API remembers an Idempotency-Key, by the
// database's clock: whoever repeats a request does so within minutes.
const RequestRetention = 7 * 24 * time.Hour

// Forgotten is what a Forget deleted.
type Forgotten struct {
	Webhooks int64
	Events   int64
	Requests int64
	// Next is where to go on among the events, see Forget.
	Next int64
}

// The index on processed_at leads to the oldest ones.
const sqlForgetWebhooks = `
DELETE FROM singil.webhook_events w
USING (
  SELECT event_id FROM singil.webhook_events
  WHERE processed_at < $1
  ORDER BY processed_at
  LIMIT $2
  FOR UPDATE SKIP LOCKED
) old
WHERE w.event_id = old.event_id`

// It looks at one window of the primary key and at nothing else, however many
// events there are and however many of the old ones cannot go.
const sqlForgetEvents = `
WITH seen AS MATERIALIZED (
  SELECT seq, occurred_at < $2 AS old
  FROM singil.events
  WHERE seq > $1
  ORDER BY seq
  LIMIT $3
), delivered AS (
  SELECT e.seq
  FROM singil.events e
  JOIN seen ON seen.seq = e.seq
  WHERE seen.old AND NOT EXISTS (SELECT FROM singil.event_deliveries d WHERE d.seq = e.seq)
  FOR UPDATE OF e SKIP LOCKED
), gone AS (
  DELETE FROM singil.events e USING delivered WHERE e.seq = delivered.seq RETURNING e.seq
)
SELECT (SELECT count(*) FROM gone),
       COALESCE((SELECT last.seq FROM (SELECT seq, old FROM seen ORDER BY seq DESC LIMIT 1) last
                 WHERE last.old AND (SELECT count(*) FROM seen) = $3), 0)`

const sqlForgetRequests = `
DELETE FROM singil.api_requests r
USING (
  SELECT id FROM singil.api_requests
  WHERE created_at < clock_timestamp() - $1::interval
  ORDER BY created_at
  LIMIT $2
  FOR UPDATE SKIP LOCKED
) old
WHERE r.id = old.id`

// Forget deletes processed webhook deliveries, events that every endpoint has
// acknowledged, and the keys of API requests, once they are past their retention: at most limit of each. Call it
// now and then. after is Next of the call before, at first 0: it leads past old
// events that some endpoint still has to get, and back to the beginning when the
// young ones are reached.
func Forget(ctx context.Context, tx pgx.Tx, now time.Time, after int64, limit int) (f Forgotten, err error) {
	tag, err := tx.Exec(ctx, sqlForgetWebhooks, now.Add(-WebhookRetention), limit)
	if err != nil {
		return Forgotten{}, fmt.Errorf("forget webhook events: %w", err)
	}
	f.Webhooks = tag.RowsAffected()
	if tag, err = tx.Exec(ctx, sqlForgetRequests, RequestRetention, limit); err != nil {
		return Forgotten{}, fmt.Errorf("forget API requests: %w", err)
	}
	f.Requests = tag.RowsAffected()
	if err := tx.QueryRow(ctx, sqlForgetEvents, after, now.Add(-EventRetention), limit).Scan(&f.Events, &f.Next); err != nil {
		return Forgotten{}, fmt.Errorf("forget events: %w", err)
	}
	return f, nil
}
