package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// InboxEvent is a webhook delivery on record. What it says is a wake-up; what is
// true is asked of the provider.
type InboxEvent struct {
	ID               string
	Type             string
	Livemode         bool
	ResourceID       string
	ProviderIntentID string
	Stale            bool // authentic, but signed long ago: late, or replayed
	Body             []byte
	ReceivedAt       time.Time
	Tries            int
}

const sqlStoreInbox = `
INSERT INTO singil.webhook_events (event_id, type, livemode, resource_id, provider_intent_id, stale, body, received_at,
                                   next_try_at, processed_at, result)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULLIF($11, ''))
ON CONFLICT (event_id) DO NOTHING`

// StoreInbox stores a delivery, once by its id, and tells whether it was new.
// With a result it is processed at once. Without one, enqueue a job for it in the
// same transaction: a job that is lost is found again when the lease is over.
func StoreInbox(ctx context.Context, tx pgx.Tx, e InboxEvent, result string) (fresh bool, err error) {
	var next, processed *time.Time
	if lease := e.ReceivedAt.Add(Lease); result == "" {
		next = &lease
	} else {
		processed = &e.ReceivedAt
	}
	tag, err := tx.Exec(ctx, sqlStoreInbox, e.ID, e.Type, e.Livemode, e.ResourceID, e.ProviderIntentID, e.Stale, e.Body, e.ReceivedAt,
		next, processed, result)
	if err != nil {
		return false, fmt.Errorf("store webhook event %s: %w", e.ID, err)
	}
	return tag.RowsAffected() == 1, nil
}

const sqlClaimInbox = `
UPDATE singil.webhook_events w
SET next_try_at = $2
FROM (
  SELECT event_id FROM singil.webhook_events
  WHERE processed_at IS NULL AND next_try_at <= $1
  ORDER BY next_try_at
  LIMIT $3
  FOR UPDATE SKIP LOCKED
) due
WHERE w.event_id = due.event_id
RETURNING w.event_id`

// ClaimInbox takes events whose next try has come and moves it one lease on:
// enqueue a job for each in the same transaction.
func ClaimInbox(ctx context.Context, tx pgx.Tx, now time.Time, limit int) ([]string, error) {
	rows, err := tx.Query(ctx, sqlClaimInbox, now, now.Add(Lease), limit)
	if err != nil {
		return nil, fmt.Errorf("claim webhook events: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("claim webhook events: %w", err)
	}
	return ids, nil
}

const sqlTakeInbox = `
SELECT event_id, type, livemode, resource_id, provider_intent_id, stale, body, received_at, tries
FROM singil.webhook_events
WHERE event_id = $1 AND processed_at IS NULL
FOR UPDATE SKIP LOCKED`

// TakeInbox locks an event until tx ends. It finds nothing if the event is
// processed, or if another worker has it.
func TakeInbox(ctx context.Context, tx pgx.Tx, id string) (e InboxEvent, found bool, err error) {
	err = tx.QueryRow(ctx, sqlTakeInbox, id).Scan(&e.ID, &e.Type, &e.Livemode, &e.ResourceID, &e.ProviderIntentID, &e.Stale, &e.Body, &e.ReceivedAt, &e.Tries)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return InboxEvent{}, false, nil
	case err != nil:
		return InboxEvent{}, false, fmt.Errorf("take webhook event %s: %w", id, err)
	}
	return e, true, nil
}

const sqlFinishInbox = `
UPDATE singil.webhook_events
SET processed_at = $2, next_try_at = NULL, tries = tries + 1, result = $3
WHERE event_id = $1 AND processed_at IS NULL`

// FinishInbox closes an event that TakeInbox has locked.
func FinishInbox(ctx context.Context, tx pgx.Tx, id, result string, now time.Time) error {
	if _, err := tx.Exec(ctx, sqlFinishInbox, id, now, result); err != nil {
		return fmt.Errorf("finish webhook event %s: %w", id, err)
	}
	return nil
}

const sqlPostponeInbox = `
UPDATE singil.webhook_events
SET next_try_at = $2, tries = tries + 1
WHERE event_id = $1 AND processed_at IS NULL`

// PostponeInbox puts an event off that TakeInbox has locked.
func PostponeInbox(ctx context.Context, tx pgx.Tx, id string, until time.Time) error {
	if _, err := tx.Exec(ctx, sqlPostponeInbox, id, until); err != nil {
		return fmt.Errorf("postpone webhook event %s: %w", id, err)
	}
	return nil
}

// Mentioned is the invoice that a webhook is about, as its intent or its
// metadata tells. It is locked.
type Mentioned struct {
	InvoiceID      uuid.UUID
	SubscriptionID uuid.UUID
	CustomerID     uuid.UUID
	SubscriptionNo string
	PeriodNo       int
	Status         string
	WaitingFor     WaitingFor
	Attempted      bool
	// InFlight: an attach waits for its own answer; nobody has looked since.
	InFlight bool
	// Superseded: the intent is not the invoice's any more. Money on it is money
	// that nobody asked for.
	Superseded bool
}

// The lock comes first and alone: a subquery beside it would still see what was
// true before the wait.
const sqlMentionLock = `
SELECT i.id
FROM singil.invoices i
WHERE i.id = COALESCE((SELECT pi.invoice_id FROM singil.payment_intents pi WHERE pi.provider_intent_id = $1), $2)
FOR NO KEY UPDATE OF i`

const sqlMention = `
SELECT i.subscription_id, i.customer_id, s.external_id, i.period_no, i.status, i.waiting_for,
       i.attempt_count > 0 OR EXISTS (SELECT FROM singil.payment_intents pi WHERE pi.invoice_id = i.id AND (pi.adopted OR pi.shared_at IS NOT NULL)),
       i.status = 'open' AND i.waiting_for = 'provider' AND i.poll_count = 0,
       COALESCE((SELECT pi.state = 'dead' FROM singil.payment_intents pi WHERE pi.provider_intent_id = $2), false),
       EXISTS (SELECT FROM singil.payment_intents pi WHERE pi.provider_intent_id = $2)
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.id = $1`

// FindMentioned locks the invoice that an intent belongs to, else the one that
// the metadata names. byIntent tells which: only the former is certain to be what
// the money is for.
func FindMentioned(ctx context.Context, tx pgx.Tx, providerIntentID string, invoice uuid.UUID) (m Mentioned, byIntent, found bool, err error) {
	err = tx.QueryRow(ctx, sqlMentionLock, providerIntentID, invoice).Scan(&m.InvoiceID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Mentioned{}, false, false, nil
	}
	if err == nil {
		err = tx.QueryRow(ctx, sqlMention, m.InvoiceID, providerIntentID).Scan(&m.SubscriptionID, &m.CustomerID, &m.SubscriptionNo, &m.PeriodNo,
			&m.Status, &m.WaitingFor, &m.Attempted, &m.InFlight, &m.Superseded, &byIntent)
	}
	if err != nil {
		return Mentioned{}, false, false, fmt.Errorf("find the invoice of intent %s: %w", providerIntentID, err)
	}
	return m, byIntent, true, nil
}

const sqlWake = `
UPDATE singil.invoices
SET next_attempt_at = least(next_attempt_at, $2), claimed = true, updated_at = clock_timestamp()
WHERE id = $1 AND status = 'open' AND waiting_for = 'provider'`

// Wake says whether to look at a mentioned invoice: enqueue a look in the same
// transaction. It moves only the wake-up of an invoice whose outcome is open, to
// the end of the lease of that job: a webhook never makes a dunning attempt
// earlier. paid tells that the provider speaks of money, which is worth a look
// whatever our books say.
func Wake(ctx context.Context, tx pgx.Tx, m Mentioned, paid bool, now time.Time) (look bool, err error) {
	switch {
	case m.Status == InvoicePaid, !m.Attempted:
		return false, nil
	case m.Status != InvoiceOpen, m.WaitingFor == WaitingForSchedule:
		return paid, nil
	}
	if _, err := tx.Exec(ctx, sqlWake, m.InvoiceID, now.Add(Lease)); err != nil {
		return false, fmt.Errorf("wake invoice %s: %w", m.InvoiceID, err)
	}
	return true, nil
}

const sqlOnRecord = `
SELECT count(*) FROM singil.payments WHERE payment_id = ANY ($1) AND status = 'paid'`

// OnRecord tells whether all these payments are on record as paid.
func OnRecord(ctx context.Context, tx pgx.Tx, payments []ProviderPayment) (bool, error) {
	ids := make([]string, len(payments))
	for i, p := range payments {
		ids[i] = p.ID
	}
	var n int
	if err := tx.QueryRow(ctx, sqlOnRecord, ids).Scan(&n); err != nil {
		return false, fmt.Errorf("look for payments: %w", err)
	}
	return n == len(ids), nil
}

const sqlRecordUnasked = `
INSERT INTO singil.payments (payment_id, provider_intent_id, invoice_id, status, amount_minor, currency, livemode, source, provider_at)
VALUES ($1, NULLIF($2, ''), $3, 'paid', $4, $5, $6, 'webhook', $7)
ON CONFLICT (payment_id) DO UPDATE
SET status = 'paid'
WHERE payments.status <> 'paid'`

// RecordUnasked records money that the provider took and that we did not ask
// for: of an unknown intent, with invoice nil, or once more for an invoice that
// is settled otherwise. An observation, never refused; no invoice becomes paid
// by it.
func RecordUnasked(ctx context.Context, tx pgx.Tx, p ProviderPayment, providerIntentID string, invoice *uuid.UUID) error {
	var at *time.Time
	if !p.At.IsZero() {
		at = &p.At
	}
	if _, err := tx.Exec(ctx, sqlRecordUnasked, p.ID, providerIntentID, invoice, p.Amount.Minor, string(p.Amount.Currency), p.Livemode, at); err != nil {
		return fmt.Errorf("record payment %s: %w", p.ID, err)
	}
	return nil
}

const sqlParkMentioned = `
UPDATE singil.invoices
SET status = 'review', reason = $2, claimed = false, waiting_for = 'schedule', next_attempt_at = NULL,
    look_back_at = $3::timestamptz + interval '1 day', look_backs = 0, updated_at = clock_timestamp()
WHERE id = $1 AND status = 'open'`

// A statement of its own, behind the lock on the invoice: nothing is armed any more.
const sqlParkMentionedAttempt = `
UPDATE singil.attempts
SET state = 'review', evidence = jsonb_build_object('kind', 'webhook', 'reason', $2::text, 'payment', '')
WHERE invoice_id = $1 AND state = 'armed'`

// ParkMentioned puts an open invoice in front of a human before it is charged
// again: money came that nobody asked for. An attempt whose outcome is open goes
// with it: no negative closes it any more, and it would be armed for good.
func ParkMentioned(ctx context.Context, tx pgx.Tx, m Mentioned, reason string, now time.Time) error {
	parked, err := parkMentioned(ctx, tx, m, reason, now)
	if err != nil || !parked {
		return err
	}
	if _, err := tx.Exec(ctx, sqlParkMentionedAttempt, m.InvoiceID, reason); err != nil {
		return fmt.Errorf("park the attempt of invoice %s: %w", m.InvoiceID, err)
	}
	return nil
}

// parkMentioned tells whether the invoice was open.
func parkMentioned(ctx context.Context, tx pgx.Tx, m Mentioned, reason string, now time.Time) (parked bool, err error) {
	tag, err := tx.Exec(ctx, sqlParkMentioned, m.InvoiceID, reason, now)
	if err != nil {
		return false, fmt.Errorf("park invoice %s: %w", m.InvoiceID, err)
	}
	if tag.RowsAffected() == 0 {
		return false, nil
	}
	return true, WriteEvents(ctx, tx, []Event{{
		Type: "invoice.review", SubscriptionID: m.SubscriptionID, CustomerID: m.CustomerID, OccurredAt: now,
		Data: fields{"invoice_id": m.InvoiceID, "subscription": m.SubscriptionNo, "period_no": m.PeriodNo, "reason": reason},
	}})
}

const sqlRecordRefund = `
UPDATE singil.payments
SET refunded_minor = greatest(refunded_minor, least($2, amount_minor))
WHERE payment_id = $1`

// RecordRefund notes how much of a payment was given back, if the payment is on
// record. It only rises, so that late and repeated deliveries do no harm.
func RecordRefund(ctx context.Context, tx pgx.Tx, payment string, refundedMinor int64) (found bool, err error) {
	tag, err := tx.Exec(ctx, sqlRecordRefund, payment, refundedMinor)
	if err != nil {
		return false, fmt.Errorf("record the refund of %s: %w", payment, err)
	}
	return tag.RowsAffected() == 1, nil
}
