package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Urgent is what a daemon asks every second.
type Urgent struct {
	// VirtualNow is the virtual clock; zero: none. When it has moved, sweep.
	VirtualNow time.Time
	// Manual tells that an operator's retry waits to be enqueued.
	Manual bool
	// DatabaseNow is the database's clock, to compare one's own with.
	DatabaseNow time.Time
}

const sqlUrgent = `
SELECT i.virtual_now, clock_timestamp(),
       EXISTS (SELECT 1 FROM singil.invoices
               WHERE status = 'open' AND attempt_trigger IN ('manual', 'card_update')
                 AND next_attempt_at <= COALESCE(i.virtual_now, $1) AND NOT claimed)
FROM singil.instance i`

// LookUrgent reads what cannot wait for the schedule. It costs two index looks.
func LookUrgent(ctx context.Context, q Querier, realNow time.Time) (Urgent, error) {
	rows, err := q.Query(ctx, sqlUrgent, realNow)
	if err != nil {
		return Urgent{}, fmt.Errorf("look what is urgent: %w", err)
	}
	u, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (u Urgent, err error) {
		var virtual *time.Time
		err = row.Scan(&virtual, &u.DatabaseNow, &u.Manual)
		u.VirtualNow = orZero(virtual)
		return u, err
	})
	if err != nil {
		return Urgent{}, fmt.Errorf("look what is urgent: %w", err)
	}
	return u, nil
}
