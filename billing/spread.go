package billing

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Skipping what is locked, nothing here waits: not for another sweep, and not for
// an import that holds customers and wants subscriptions.
const sqlCatchUpCustomers = `
SELECT c.id, c.last_catch_up_at
FROM singil.customers c
WHERE c.id = ANY ($1)
FOR NO KEY UPDATE SKIP LOCKED`

// shareDays spreads what is caught up with over each customer's days, across the
// subscriptions of the batch and behind what earlier ones were given. It returns
// the subscriptions to go on with: a customer who is in the hands of another
// transaction is left to the next sweep. Without a catch-up it asks nothing.
func (o *opening) shareDays(ctx context.Context, tx pgx.Tx, due []*dueSubscription) ([]*dueSubscription, error) {
	behind := map[uuid.UUID][]*dueSubscription{}
	var customers []uuid.UUID
	for _, s := range due {
		if !s.planned.CatchUp {
			continue
		}
		if behind[s.CustomerID] == nil {
			customers = append(customers, s.CustomerID)
		}
		behind[s.CustomerID] = append(behind[s.CustomerID], s)
	}
	if len(customers) == 0 {
		return due, nil
	}
	rows, err := tx.Query(ctx, sqlCatchUpCustomers, customers)
	if err != nil {
		return nil, err
	}
	o.lastDays = make(map[uuid.UUID]time.Time, len(customers))
	var customer uuid.UUID
	var last *time.Time
	_, err = pgx.ForEachRow(rows, []any{&customer, &last}, func() error {
		var all []catchUp
		for _, s := range behind[customer] {
			all = append(all, catchUp{s.billable, s.planned.Open})
		}
		o.lastDays[customer] = spread(all, orZero(last), o.now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(due, func(s *dueSubscription) bool {
		_, ours := o.lastDays[s.CustomerID]
		return s.planned.CatchUp && !ours
	}), nil
}

const sqlStoreLastDays = `
UPDATE singil.customers c
SET last_catch_up_at = r.at
FROM unnest($1::uuid[], $2::timestamptz[]) AS r (id, at)
WHERE c.id = r.id`

func (o *opening) queueLastDays(batch *pgx.Batch) {
	if len(o.lastDays) == 0 {
		return
	}
	var ids []uuid.UUID
	var at []time.Time
	for id, day := range o.lastDays {
		ids, at = append(ids, id), append(at, day)
	}
	batch.Queue(sqlStoreLastDays, ids, at)
}
