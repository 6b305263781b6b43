package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// InvoiceFilter narrows a list of invoices. What is empty does not.
type InvoiceFilter struct {
	Status       string
	WaitingFor   WaitingFor
	DeclineCodes []string // the latest decline is one of them
	Plan         string   // of the subscription, by the merchant's name
	Subscription string   // by the merchant's name
	Customer     string   // by the merchant's name
	DueBefore    time.Time
	After        string // an invoice: only those behind it, in the order of the list
	Limit        int
}

// Check says what is wrong with the filter, before anything is connected.
func (f InvoiceFilter) Check() error {
	switch f.WaitingFor {
	case "", WaitingForSchedule, WaitingForProvider, WaitingForCustomer:
	default:
		return fmt.Errorf("%q is not one of schedule, provider, customer", clip(string(f.WaitingFor)))
	}
	if f.WaitingFor != "" && f.Status != "" && f.Status != InvoiceOpen {
		return fmt.Errorf("only open invoices wait for anything: leave out the status %q, or what they wait for", clip(f.Status))
	}
	if f.After != "" {
		if _, err := uuid.Parse(f.After); err != nil {
			return fmt.Errorf("%q is not the id of an invoice", clip(f.After))
		}
	}
	return ExportFilter{Status: f.Status}.Check("invoices")
}

const whereInvoices = `
WHERE ($1 = '' OR i.status = $1) AND ($2 = '' OR i.waiting_for = $2 AND i.status = 'open')
  AND (cardinality($3::text[]) = 0 OR i.decline_code = ANY ($3))
  AND ($4 = '' OR s.plan_id = (SELECT p.id FROM singil.plans p WHERE p.external_id = $4))
  AND ($5 = '' OR s.external_id = $5) AND ($6 = '' OR c.external_id = $6)
  AND ($7::timestamptz IS NULL OR i.due_at < $7)`

const sqlBrowseInvoices = sqlInvoiceColumns + whereInvoices + `
  AND ($8::uuid IS NULL OR i.id < $8)
ORDER BY i.id DESC
LIMIT $9`

// args are those of whereInvoices.
func (f InvoiceFilter) args() []any {
	codes := f.DeclineCodes
	if codes == nil {
		codes = []string{}
	}
	var due *time.Time
	if !f.DueBefore.IsZero() {
		due = &f.DueBefore
	}
	return []any{f.Status, string(f.WaitingFor), codes, f.Plan, f.Subscription, f.Customer, due}
}

func (f InvoiceFilter) findsNothing() bool {
	return !browsable(append([]string{f.Plan, f.Subscription, f.Customer}, f.DeclineCodes...)...)
}

// BrowseInvoices is a page of invoices, newest first.
func BrowseInvoices(ctx context.Context, q Querier, f InvoiceFilter) ([]ExportedInvoice, error) {
	if f.findsNothing() {
		return []ExportedInvoice{}, nil
	}
	var after *uuid.UUID
	if id, err := uuid.Parse(f.After); err == nil {
		after = &id
	}
	return browse[ExportedInvoice](ctx, q, "invoices", sqlBrowseInvoices, append(f.args(), after, f.Limit)...)
}

// AttemptFilter narrows a list of attempts. What is empty does not.
type AttemptFilter struct {
	State       string
	DeclineCode string
	Invoice     string
	Since       time.Time
	After       string // an attempt: only those behind it, in the order of the list
	Limit       int
}

// Check says what is wrong with the filter, before anything is connected.
func (f AttemptFilter) Check() error {
	for _, id := range []string{f.Invoice, f.After} {
		if id == "" {
			continue
		}
		if _, err := uuid.Parse(id); err != nil {
			return fmt.Errorf("%q is not an id", clip(id))
		}
	}
	return ExportFilter{Status: f.State}.Check("attempts")
}

const sqlAttemptColumns = `
SELECT a.id, a.invoice_id, s.external_id, c.external_id, i.period_no, a.no, a.trigger, a.state, a.provider_payment_method_id, pi.provider_intent_id,
       a.payment_id, a.decline_code, a.armed_at, a.settled_at
FROM singil.attempts a
JOIN singil.invoices i ON i.id = a.invoice_id
JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
JOIN singil.subscriptions s ON s.id = i.subscription_id
JOIN singil.customers c ON c.id = i.customer_id`

const sqlBrowseAttempts = sqlAttemptColumns + `
WHERE ($1 = '' OR a.state = $1) AND ($2 = '' OR a.decline_code = $2) AND ($3::uuid IS NULL OR a.invoice_id = $3)
  AND ($4::timestamptz IS NULL OR a.armed_at >= $4) AND ($5::uuid IS NULL OR a.id < $5)
ORDER BY a.id DESC
LIMIT $6`

// BrowseAttempts is a page of attempts, newest first.
func BrowseAttempts(ctx context.Context, q Querier, f AttemptFilter) ([]ExportedAttempt, error) {
	if !browsable(f.DeclineCode) {
		return []ExportedAttempt{}, nil
	}
	var invoice, after *uuid.UUID
	if id, err := uuid.Parse(f.Invoice); err == nil {
		invoice = &id
	}
	if id, err := uuid.Parse(f.After); err == nil {
		after = &id
	}
	var since *time.Time
	if !f.Since.IsZero() {
		since = &f.Since
	}
	return browse[ExportedAttempt](ctx, q, "attempts", sqlBrowseAttempts, f.State, f.DeclineCode, invoice, since, after, f.Limit)
}

// TimelineEntry is an attempt with its card and with how its outcome is known.
type TimelineEntry struct {
	No            int     `json:"no"`
	ArmedAt       Stamp   `json:"armed_at"`
	SettledAt     Stamp   `json:"settled_at"`
	PaymentMethod string  `json:"payment_method"`
	Brand         string  `json:"brand"`
	Last4         string  `json:"last4"`
	Trigger       string  `json:"trigger"`
	State         string  `json:"state"`
	DeclineCode   *string `json:"decline_code"`
	// EvidenceKind is where the outcome was seen: attach, retrieve, never_sent or
	// refused.
	EvidenceKind   *string `json:"evidence_kind"`
	EvidenceReason *string `json:"evidence_reason"`
}

const sqlTimeline = `
SELECT a.no, a.armed_at, a.settled_at, a.provider_payment_method_id, pm.brand, pm.last4, a.trigger, a.state, a.decline_code,
       a.evidence ->> 'kind', a.evidence ->> 'reason'
FROM singil.attempts a
JOIN singil.payment_methods pm ON pm.id = a.payment_method_id
WHERE a.invoice_id = $1
ORDER BY a.no`

// Timeline is what was tried about an invoice, oldest first.
func Timeline(ctx context.Context, q Querier, invoice uuid.UUID) ([]TimelineEntry, error) {
	return browse[TimelineEntry](ctx, q, "attempts", sqlTimeline, invoice)
}

// AttemptDetails is an attempt with all that is known of it.
type AttemptDetails struct {
	ExportedAttempt
	SendBefore   Stamp           `json:"send_before"`
	SettledAfter Stamp           `json:"settled_after"`
	Evidence     json.RawMessage `json:"evidence"`
}

const sqlShowAttempt = sqlAttemptColumns + `
WHERE a.id = $1`

const sqlShowAttemptMore = `
SELECT a.send_before, a.settled_after, a.evidence
FROM singil.attempts a
WHERE a.id = $1`

// ShowAttempt is one attempt; ErrNotFound.
func ShowAttempt(ctx context.Context, q Querier, id string) (d AttemptDetails, err error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return d, fmt.Errorf("attempt %q: %w", clip(id), ErrNotFound)
	}
	batch := &pgx.Batch{}
	batch.Queue(sqlShowAttempt, parsed).Query(func(rows pgx.Rows) (err error) {
		d.ExportedAttempt, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[ExportedAttempt])
		return err
	})
	batch.Queue(sqlShowAttemptMore, parsed).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&d.SendBefore, &d.SettledAfter, &d.Evidence}, func() error { return nil })
		return err
	})
	switch err := q.SendBatch(ctx, batch).Close(); {
	case errors.Is(err, pgx.ErrNoRows):
		return d, fmt.Errorf("attempt %s: %w", parsed, ErrNotFound)
	case err != nil:
		return d, fmt.Errorf("show attempt %s: %w", parsed, err)
	}
	return d, nil
}
