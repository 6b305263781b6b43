package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// An invoice that was given up, called off while the customer had its page, or that
// a human has to look at, may be paid all the same: the customer goes back to the
// page, and the webhook about it is lost. So the provider is asked a few times more, a day
// after the end and then after twice as long each time.
const lookBacks = 5

const sqlClaimLookBacks = `
UPDATE singil.invoices i
SET look_backs = i.look_backs + 1,
    look_back_at = CASE WHEN i.look_backs + 1 < $3 THEN $1::timestamptz + interval '1 day' * (1 << (i.look_backs + 1)) END
FROM (
  SELECT id FROM singil.invoices
  WHERE look_back_at <= $1
  ORDER BY look_back_at
  LIMIT $2
  FOR UPDATE SKIP LOCKED
) due
WHERE i.id = due.id
RETURNING i.id, i.status`

// ClaimLookBacks takes closed invoices to be looked at once more, and open ones
// whose intent the customer's page has had: enqueue a
// reconcile job for each in the same transaction. A lost job costs one look of
// several.
func ClaimLookBacks(ctx context.Context, tx pgx.Tx, now time.Time, limit int) ([]Claimed, error) {
	rows, err := tx.Query(ctx, sqlClaimLookBacks, now, limit, lookBacks)
	if err != nil {
		return nil, fmt.Errorf("claim invoices to look back at: %w", err)
	}
	var claimed []Claimed
	var id uuid.UUID
	var status string
	_, err = pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		if status != InvoicePaid {
			claimed = append(claimed, Claimed{InvoiceID: id, Reconcile: true})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim invoices to look back at: %w", err)
	}
	return claimed, nil
}
