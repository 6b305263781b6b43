package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ExpiryNotice is how long before a card's last day the merchant is told.
// Nothing is known of a card updater at PayMongo, so nobody else will notice.
const ExpiryNotice = 30 * 24 * time.Hour

// A card is good to the end of its month, in Manila. Which cards have come to it
// is a range of an index, however many there are.
const sqlNotifyExpiring = `
WITH expiring AS (
  SELECT pm.id, pm.customer_id, pm.last4, pm.brand, pm.exp_month, pm.exp_year
  FROM singil.payment_methods pm
  WHERE pm.status = 'active' AND pm.expiry_notified_at IS NULL AND pm.exp_year IS NOT NULL
    AND (pm.exp_year, pm.exp_month) < (date_part('year', $1::timestamptz AT TIME ZONE 'Asia/Manila')::int,
                                       date_part('month', $1::timestamptz AT TIME ZONE 'Asia/Manila')::int)
  LIMIT $2
  FOR NO KEY UPDATE SKIP LOCKED
), noted AS (
  UPDATE singil.payment_methods pm SET expiry_notified_at = $3 FROM expiring e WHERE pm.id = e.id
)
SELECT e.customer_id, c.external_id, e.last4, e.brand, e.exp_month, e.exp_year
FROM expiring e
JOIN singil.customers c ON c.id = e.customer_id`

// NotifyExpiring writes a payment_method.expiring event, once, for every active
// card whose last day is at most ExpiryNotice away, and returns how many.
func NotifyExpiring(ctx context.Context, tx pgx.Tx, now time.Time, limit int) (int, error) {
	rows, err := tx.Query(ctx, sqlNotifyExpiring, now.Add(ExpiryNotice), limit, now)
	if err != nil {
		return 0, fmt.Errorf("find expiring cards: %w", err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Event, error) {
		var customer uuid.UUID
		var name, last4, brand string
		var month, year int
		err := row.Scan(&customer, &name, &last4, &brand, &month, &year)
		return Event{
			Type: "payment_method.expiring", CustomerID: customer, OccurredAt: now,
			Data: fields{"customer": name, "last4": last4, "brand": brand, "exp_month": month, "exp_year": year},
		}, err
	})
	if err != nil {
		return 0, fmt.Errorf("find expiring cards: %w", err)
	}
	return len(events), WriteEvents(ctx, tx, events)
}
