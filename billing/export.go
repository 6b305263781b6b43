package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Stamp is an instant of an export: RFC 3339 in UTC, or null.
type Stamp struct{ time.Time }

// Scan takes what the driver brings, wherever this machine is.
func (s *Stamp) Scan(source any) error {
	switch v := source.(type) {
	case nil:
		s.Time = time.Time{}
	case time.Time:
		s.Time = v.UTC()
	default:
		return fmt.Errorf("%T is not an instant", source)
	}
	return nil
}

// MarshalJSON writes null where there is no instant.
func (s Stamp) MarshalJSON() ([]byte, error) {
	if s.IsZero() {
		return []byte("null"), nil
	}
	return s.Time.MarshalJSON()
}

// ExportedInvoice is an invoice with the merchant's own names.
type ExportedInvoice struct {
	ID              uuid.UUID `json:"id"`
	Subscription    string    `json:"subscription"`
	Customer        string    `json:"customer"`
	PeriodNo        int       `json:"period_no"`
	PeriodStart     Stamp     `json:"period_start"`
	PeriodEnd       Stamp     `json:"period_end"`
	AmountMinor     int64     `json:"amount_minor"`
	Currency        Currency  `json:"currency"`
	Status          string    `json:"status"`
	AttemptCount    int       `json:"attempt_count"`
	NextAttemptAt   Stamp     `json:"next_attempt_at"`
	PaymentIntentID *string   `json:"payment_intent_id"`
	PaymentID       *string   `json:"payment_id"`
	PaidAt          Stamp     `json:"paid_at"`
	DeclineCode     *string   `json:"decline_code"`
}

// ExportedAttempt is an attempt.
type ExportedAttempt struct {
	ID              uuid.UUID `json:"id"`
	Invoice         uuid.UUID `json:"invoice"`
	Subscription    string    `json:"subscription"`
	Customer        string    `json:"customer"`
	PeriodNo        int       `json:"period_no"`
	No              int       `json:"no"`
	Trigger         string    `json:"trigger"`
	State           string    `json:"state"`
	PaymentMethod   string    `json:"payment_method"`
	PaymentIntentID *string   `json:"payment_intent_id"`
	PaymentID       *string   `json:"payment_id"`
	DeclineCode     *string   `json:"decline_code"`
	ArmedAt         Stamp     `json:"armed_at"`
	SettledAt       Stamp     `json:"settled_at"`
}

// ExportedSubscription is a subscription.
type ExportedSubscription struct {
	ExternalID    string          `json:"external_id"`
	Customer      string          `json:"customer"`
	Plan          string          `json:"plan"`
	NextPlan      *string         `json:"next_plan"`
	Status        string          `json:"status"`
	Quantity      int             `json:"quantity"`
	AmountMinor   int64           `json:"amount_minor"`
	Currency      Currency        `json:"currency"`
	Interval      string          `json:"interval"`
	IntervalCount int             `json:"interval_count"`
	Anchor        Stamp           `json:"anchor"`
	TimeZone      string          `json:"time_zone"`
	BillFrom      Stamp           `json:"bill_from"`
	NextPeriodNo  int             `json:"next_period_no"`
	NextDueAt     Stamp           `json:"next_due_at"`
	TrialEnd      Stamp           `json:"trial_end"`
	PausedAt      Stamp           `json:"paused_at"`
	CancelAt      Stamp           `json:"cancel_at"`
	CancelledAt   Stamp           `json:"cancelled_at"`
	ParkedReason  *string         `json:"parked_reason"`
	CatchUp       string          `json:"catch_up"`
	Dunning       json.RawMessage `json:"dunning"`
	Metadata      json.RawMessage `json:"metadata"`
}

// ExportedPayment is money that the provider told of. What it could not be
// matched with is null.
type ExportedPayment struct {
	PaymentID       string     `json:"payment_id"`
	PaymentIntentID *string    `json:"payment_intent_id"`
	Invoice         *uuid.UUID `json:"invoice"`
	Subscription    *string    `json:"subscription"`
	Customer        *string    `json:"customer"`
	Status          string     `json:"status"`
	AmountMinor     int64      `json:"amount_minor"`
	Currency        Currency   `json:"currency"`
	RefundedMinor   int64      `json:"refunded_minor"`
	Livemode        bool       `json:"livemode"`
	FailedCode      *string    `json:"failed_code"`
	Source          string     `json:"source"`
	ProviderAt      Stamp      `json:"provider_at"`
	SeenAt          Stamp      `json:"seen_at"`
}

// ExportedEvent is an event of the outbox.
type ExportedEvent struct {
	Seq          int64           `json:"seq"`
	ID           uuid.UUID       `json:"id"`
	Type         string          `json:"type"`
	Subscription *string         `json:"subscription"`
	Customer     *string         `json:"customer"`
	Data         json.RawMessage `json:"data"`
	OccurredAt   Stamp           `json:"occurred_at"`
}

const sqlInvoiceColumns = `
SELECT i.id, s.external_id, c.external_id, i.period_no, lower(i.period), upper(i.period), i.amount_minor, i.currency, i.status, i.attempt_count,
       i.next_attempt_at, (SELECT pi.provider_intent_id FROM singil.payment_intents pi WHERE pi.invoice_id = i.id ORDER BY pi.generation DESC LIMIT 1),
       i.payment_id, i.paid_at, i.decline_code
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
JOIN singil.customers c ON c.id = i.customer_id`

const sqlExportInvoices = sqlInvoiceColumns + `
WHERE ($1::timestamptz IS NULL OR i.due_at >= $1) AND ($2 = '' OR i.status = $2)
ORDER BY i.id`

const sqlExportAttempts = `
SELECT a.id, a.invoice_id, s.external_id, c.external_id, i.period_no, a.no, a.trigger, a.state, a.provider_payment_method_id, pi.provider_intent_id,
       a.payment_id, a.decline_code, a.armed_at, a.settled_at
FROM singil.attempts a
JOIN singil.invoices i ON i.id = a.invoice_id
JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
JOIN singil.subscriptions s ON s.id = i.subscription_id
JOIN singil.customers c ON c.id = i.customer_id
WHERE ($1::timestamptz IS NULL OR a.armed_at >= $1) AND ($2 = '' OR a.state = $2)
ORDER BY a.id`

const sqlExportSubscriptions = `
SELECT s.external_id, c.external_id, p.external_id, np.external_id, s.status, s.quantity, s.amount_minor, s.currency, s.interval_unit, s.interval_count,
       s.anchor_at, s.time_zone, s.bill_from, s.next_period_no, s.next_due_at, s.trial_end, s.paused_at, s.cancel_at, s.cancelled_at,
       s.parked_reason, s.catch_up, s.dunning, s.metadata
FROM singil.subscriptions s
JOIN singil.customers c ON c.id = s.customer_id
JOIN singil.plans p ON p.id = s.plan_id
LEFT JOIN singil.plans np ON np.id = s.next_plan_id
WHERE ($1::timestamptz IS NULL OR s.created_at >= $1) AND ($2 = '' OR s.status = $2)
ORDER BY s.id`

const sqlExportPayments = `
SELECT p.payment_id, p.provider_intent_id, p.invoice_id, s.external_id, c.external_id, p.status, p.amount_minor, p.currency, p.refunded_minor,
       p.livemode, p.failed_code, p.source, p.provider_at, p.seen_at
FROM singil.payments p
LEFT JOIN singil.invoices i ON i.id = p.invoice_id
LEFT JOIN singil.subscriptions s ON s.id = i.subscription_id
LEFT JOIN singil.customers c ON c.id = i.customer_id
WHERE ($1::timestamptz IS NULL OR COALESCE(p.provider_at, p.seen_at) >= $1) AND ($2 = '' OR p.status = $2)
ORDER BY p.payment_id`

const sqlExportEvents = `
SELECT e.seq, e.id, e.type, s.external_id, c.external_id, e.data, e.occurred_at
FROM singil.events e
LEFT JOIN singil.subscriptions s ON s.id = e.subscription_id
LEFT JOIN singil.customers c ON c.id = e.customer_id
WHERE ($1::timestamptz IS NULL OR e.occurred_at >= $1) AND ($2 = '' OR e.type = $2)
ORDER BY e.seq`

// exportKind is what can be exported, and the states it is filtered by.
type exportKind struct {
	sql    string
	states []string // nil: no such filter
	row    func(pgx.CollectableRow) (any, error)
}

func exportRow[T any](row pgx.CollectableRow) (any, error) { return pgx.RowToStructByPos[T](row) }

var exportKinds = map[string]exportKind{
	"invoices": {sqlExportInvoices, []string{InvoiceOpen, InvoicePaid, InvoiceVoid, InvoiceUncollectible, InvoiceReview}, exportRow[ExportedInvoice]},
	"attempts": {sqlExportAttempts, []string{
		string(AttemptArmed), string(AttemptSucceeded), string(AttemptDeclined), string(AttemptNeedsAction), string(AttemptNoEffect), string(AttemptReview),
	}, exportRow[ExportedAttempt]},
	"subscriptions": {sqlExportSubscriptions, []string{
		SubscriptionTrialing, SubscriptionActive, SubscriptionPastDue, SubscriptionUnpaid, SubscriptionPaused, SubscriptionCancelled,
	}, exportRow[ExportedSubscription]},
	"payments": {sqlExportPayments, []string{"pending", "paid", "failed"}, exportRow[ExportedPayment]},
	"events":   {sqlExportEvents, nil, exportRow[ExportedEvent]},
}

// ExportKinds are the names that Export takes.
func ExportKinds() []string { return slices.Sorted(maps.Keys(exportKinds)) }

// ExportFilter narrows an export.
type ExportFilter struct {
	// Since is the earliest business time: an invoice's due_at, an attempt's
	// armed_at, a payment's own time, an event's occurred_at. A subscription has
	// none, there it is when the row was made. Zero: everything.
	Since time.Time
	// Status is a status of the kind, or empty.
	Status string
}

// Check says what is wrong with an export, before anything is connected.
func (f ExportFilter) Check(kind string) error {
	k, known := exportKinds[kind]
	switch {
	case !known:
		return fmt.Errorf("%q is not one of %v", clip(kind), ExportKinds())
	case f.Status != "" && k.states == nil:
		return fmt.Errorf("%s have no status", kind)
	case f.Status != "" && !slices.Contains(k.states, f.Status):
		return fmt.Errorf("%q is not a status of %s: %v", clip(f.Status), kind, k.states)
	}
	return nil
}

// A long export is no mistake, and it holds no lock that anybody waits for.
const sqlExportPatience = `SET LOCAL statement_timeout = 0`

// Export calls each with every row, in one snapshot. Rows are read as they are
// wanted: the driver holds one at a time, and the server waits.
func Export(ctx context.Context, begin interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}, kind string, f ExportFilter, each func(any) error) error {
	if err := f.Check(kind); err != nil {
		return err
	}
	k := exportKinds[kind]
	var since *time.Time
	if !f.Since.IsZero() {
		since = &f.Since
	}
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, begin, options, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sqlExportPatience); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, k.sql, since, f.Status)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			row, err := k.row(rows)
			if err != nil {
				return err
			}
			if err := each(row); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("export %s: %w", kind, err)
	}
	return nil
}

// InvoiceDetails is an invoice and all that was tried about it.
type InvoiceDetails struct {
	ExportedInvoice
	DueAt      Stamp             `json:"due_at"`
	WaitingFor string            `json:"waiting_for"`
	Reason     *string           `json:"reason"`
	ActionURL  *string           `json:"action_url"`
	Attempts   []ExportedAttempt `json:"attempts"`
	Payments   []ExportedPayment `json:"payments"`
}

const sqlShowInvoice = sqlInvoiceColumns + `
WHERE i.id = $1`

const sqlShowInvoiceMore = `
SELECT i.due_at, i.waiting_for, i.reason, i.action_url
FROM singil.invoices i
WHERE i.id = $1`

const sqlShowAttempts = `
SELECT a.id, a.invoice_id, s.external_id, c.external_id, i.period_no, a.no, a.trigger, a.state, a.provider_payment_method_id, pi.provider_intent_id,
       a.payment_id, a.decline_code, a.armed_at, a.settled_at
FROM singil.attempts a
JOIN singil.invoices i ON i.id = a.invoice_id
JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
JOIN singil.subscriptions s ON s.id = i.subscription_id
JOIN singil.customers c ON c.id = i.customer_id
WHERE a.invoice_id = $1
ORDER BY a.no`

const sqlShowPayments = `
SELECT p.payment_id, p.provider_intent_id, p.invoice_id, s.external_id, c.external_id, p.status, p.amount_minor, p.currency, p.refunded_minor,
       p.livemode, p.failed_code, p.source, p.provider_at, p.seen_at
FROM singil.payments p
JOIN singil.invoices i ON i.id = p.invoice_id
JOIN singil.subscriptions s ON s.id = i.subscription_id
JOIN singil.customers c ON c.id = i.customer_id
WHERE p.invoice_id = $1
ORDER BY p.seen_at, p.payment_id`

// ShowInvoice is one invoice; ErrNotFound.
func ShowInvoice(ctx context.Context, q Querier, id string) (InvoiceDetails, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return InvoiceDetails{}, fmt.Errorf("invoice %q: %w", clip(id), ErrNotFound)
	}
	d := InvoiceDetails{Attempts: []ExportedAttempt{}, Payments: []ExportedPayment{}}
	batch := &pgx.Batch{}
	batch.Queue(sqlShowInvoice, parsed).Query(func(rows pgx.Rows) (err error) {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ExportedInvoice])
		if len(found) > 0 {
			d.ExportedInvoice = found[0]
		}
		return err
	})
	batch.Queue(sqlShowInvoiceMore, parsed).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&d.DueAt, &d.WaitingFor, &d.Reason, &d.ActionURL}, func() error { return nil })
		return err
	})
	batch.Queue(sqlShowAttempts, parsed).Query(func(rows pgx.Rows) (err error) {
		d.Attempts, err = pgx.AppendRows(d.Attempts, rows, pgx.RowToStructByPos[ExportedAttempt])
		return err
	})
	batch.Queue(sqlShowPayments, parsed).Query(func(rows pgx.Rows) (err error) {
		d.Payments, err = pgx.AppendRows(d.Payments, rows, pgx.RowToStructByPos[ExportedPayment])
		return err
	})
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return InvoiceDetails{}, fmt.Errorf("show invoice %s: %w", parsed, err)
	}
	if d.ID == uuid.Nil {
		return InvoiceDetails{}, fmt.Errorf("invoice %s: %w", parsed, ErrNotFound)
	}
	return d, nil
}
