package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Event is something a merchant's system must know.
type Event struct {
	Seq            int64 // order of writing; 0 before it is written
	ID             uuid.UUID
	Type           string // invoice.paid, subscription.past_due, ...
	SubscriptionID uuid.UUID
	CustomerID     uuid.UUID
	Data           map[string]any
	OccurredAt     time.Time
}

const sqlWriteEvents = `
INSERT INTO singil.events (id, type, subscription_id, customer_id, data, occurred_at)
SELECT r.id, r.type, NULLIF(r.subscription, '00000000-0000-0000-0000-000000000000'),
       NULLIF(r.customer, '00000000-0000-0000-0000-000000000000'), r.data::jsonb, r.at
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::timestamptz[]) WITH ORDINALITY
  AS r (id, type, subscription, customer, data, at, n)
ORDER BY r.n`

// WriteEvents writes outbox events in the transaction that makes the changes
// they tell of.
func WriteEvents(ctx context.Context, tx pgx.Tx, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	if err := queueEvents(batch, events); err != nil {
		return err
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write %d events: %w", len(events), err)
	}
	return nil
}

// queueEvents writes events with the rest of a batch.
func queueEvents(batch *pgx.Batch, events []Event) error {
	n := len(events)
	if n == 0 {
		return nil
	}
	ids, types, subscriptions, customers := make([]uuid.UUID, n), make([]string, n), make([]uuid.UUID, n), make([]uuid.UUID, n)
	data, at := make([]string, n), make([]time.Time, n)
	for i, e := range events {
		document, err := json.Marshal(e.Data)
		if err != nil {
			return fmt.Errorf("event %s: %w", e.Type, err)
		}
		ids[i], types[i], subscriptions[i], customers[i], data[i], at[i] = newID(), e.Type, e.SubscriptionID, e.CustomerID, string(document), e.OccurredAt
	}
	batch.Queue(sqlWriteEvents, ids, types, subscriptions, customers, data, at)
	return nil
}
