package billing

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// SubscriptionFilter narrows a list of subscriptions. What is empty does not.
type SubscriptionFilter struct {
	Status   string
	Customer string // the merchant's name
	Plan     string // the merchant's name
	Parked   bool   // only those that wait for a decision
	After    string // only those behind this one, in the order of the list
	Limit    int
}

// Check says what is wrong with the filter, before anything is connected.
func (f SubscriptionFilter) Check() error {
	return ExportFilter{Status: f.Status}.Check("subscriptions")
}

const sqlSubscriptionColumns = `
SELECT s.external_id, c.external_id, p.external_id, np.external_id, s.status, s.quantity, s.amount_minor, s.currency, s.interval_unit, s.interval_count,
       s.anchor_at, s.time_zone, s.bill_from, s.next_period_no, s.next_due_at, s.trial_end, s.paused_at, s.cancel_at, s.cancelled_at,
       s.parked_reason, s.catch_up, s.dunning, s.metadata
FROM singil.subscriptions s
JOIN singil.customers c ON c.id = s.customer_id
JOIN singil.plans p ON p.id = s.plan_id
LEFT JOIN singil.plans np ON np.id = s.next_plan_id`

const sqlBrowseSubscriptions = sqlSubscriptionColumns + `
WHERE ($1 = '' OR s.status = $1) AND ($2 = '' OR c.external_id = $2) AND ($3 = '' OR p.external_id = $3)
  AND (NOT $4 OR s.parked_reason IS NOT NULL) AND ($5::uuid IS NULL OR s.id < $5)
ORDER BY s.id DESC
LIMIT $6`

// BrowseSubscriptions is a page of subscriptions, newest first.
func BrowseSubscriptions(ctx context.Context, q Querier, f SubscriptionFilter) ([]ExportedSubscription, error) {
	if !browsable(f.Customer, f.Plan) {
		return []ExportedSubscription{}, nil
	}
	var after *uuid.UUID
	if f.After != "" {
		id, err := FindSubscription(ctx, q, f.After)
		if err != nil {
			return nil, err
		}
		after = &id
	}
	return browse[ExportedSubscription](ctx, q, "subscriptions", sqlBrowseSubscriptions, f.Status, f.Customer, f.Plan, f.Parked, after, f.Limit)
}

// browsable tells whether any row can have these names.
func browsable(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return name != "" && !storable(name) })
}

func browse[T any](ctx context.Context, q Querier, what, sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	return list, nil
}

// SkippedPeriods is a run of periods that got no invoice.
type SkippedPeriods struct {
	First  int    `json:"first_no"`
	Last   int    `json:"last_no"`
	Reason string `json:"reason"`
}

// SubscriptionDetails is a subscription with its latest invoices, its customer's
// cards and the periods that got no invoice.
type SubscriptionDetails struct {
	ID uuid.UUID `json:"id"`
	ExportedSubscription
	Invoices       []ExportedInvoice     `json:"invoices"`
	PaymentMethods []ListedPaymentMethod `json:"payment_methods"`
	Skipped        []SkippedPeriods      `json:"skipped_periods"`
}

// shownInvoices is how many invoices a subscription is shown with.
const shownInvoices = 12

const sqlShowSubscription = sqlSubscriptionColumns + `
WHERE s.id = $1`

const sqlShowSubscriptionInvoices = sqlInvoiceColumns + `
WHERE i.subscription_id = $1
ORDER BY i.period_no DESC
LIMIT $2`

const sqlShowSkipped = `
SELECT k.first_no, k.last_no, k.reason
FROM singil.skipped_periods k
WHERE k.subscription_id = $1
ORDER BY k.first_no DESC
LIMIT $2`

// ShowSubscription is one subscription, by any of its names; ErrNotFound.
func ShowSubscription(ctx context.Context, q Querier, name string) (SubscriptionDetails, error) {
	id, err := FindSubscription(ctx, q, name)
	if err != nil {
		return SubscriptionDetails{}, err
	}
	d := SubscriptionDetails{ID: id, Invoices: []ExportedInvoice{}, PaymentMethods: []ListedPaymentMethod{}, Skipped: []SkippedPeriods{}}
	batch := &pgx.Batch{}
	batch.Queue(sqlShowSubscription, id).Query(func(rows pgx.Rows) (err error) {
		d.ExportedSubscription, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[ExportedSubscription])
		return err
	})
	batch.Queue(sqlShowSubscriptionInvoices, id, shownInvoices).Query(appendRows(&d.Invoices))
	batch.Queue(sqlMethodsOfSubscription, id).Query(appendRows(&d.PaymentMethods))
	batch.Queue(sqlShowSkipped, id, shownInvoices).Query(appendRows(&d.Skipped))
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return SubscriptionDetails{}, fmt.Errorf("show subscription %q: %w", clip(name), err)
	}
	return d, nil
}

func appendRows[T any](to *[]T) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*to, err = pgx.AppendRows(*to, rows, pgx.RowToStructByPos[T])
		return err
	}
}
