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
	Result           string // what became of it; "": it is to be processed
}

// In the order of their ids: two transactions that store some of the same wait for
// each other in one direction only.
const sqlStoreInbox = `
INSERT INTO singil.webhook_events (event_id, type, livemode, resource_id, provider_intent_id, stale, body, received_at,
                                   next_try_at, processed_at, result)
SELECT event_id, type, livemode, resource_id, provider_intent_id, stale, body, received_at,
       CASE WHEN result = '' THEN received_at + $10::interval END, CASE WHEN result <> '' THEN received_at END, NULLIF(result, '')
FROM unnest($1::text[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::boolean[], $7::bytea[], $8::timestamptz[], $9::text[])
  AS r (event_id, type, livemode, resource_id, provider_intent_id, stale, body, received_at, result)
ORDER BY event_id
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id`

// StoreInbox stores deliveries, each once by its id, and gives the ids of those
// that are new. One with a result is processed at once. For the others enqueue a
// job in the same transaction: a job that is lost is found again when the lease
// is over.
func StoreInbox(ctx context.Context, tx pgx.Tx, events []InboxEvent) (fresh []string, err error) {
	n := len(events)
	ids, types, resources, intents, results := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	live, stale, bodies, received := make([]bool, n), make([]bool, n), make([][]byte, n), make([]time.Time, n)
	for i, e := range events {
		ids[i], types[i], resources[i], intents[i], results[i] = e.ID, e.Type, e.ResourceID, e.ProviderIntentID, e.Result
		live[i], stale[i], bodies[i], received[i] = e.Livemode, e.Stale, e.Body, e.ReceivedAt
	}
	rows, err := tx.Query(ctx, sqlStoreInbox, ids, types, live, resources, intents, stale, bodies, received, results, Lease)
	if err == nil {
		fresh, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("store %d webhook events: %w", n, err)
	}
	return fresh, nil
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
SELECT event_id, type, livemode, resource_id, provider_intent_id, stale, body, received_at, tries, ''
FROM singil.webhook_events
WHERE event_id = ANY ($1) AND processed_at IS NULL
ORDER BY received_at, event_id
FOR UPDATE SKIP LOCKED`

// TakeInbox locks events until tx ends, and gives them as they came. Those that are
// processed, or that another worker has, are not among them.
func TakeInbox(ctx context.Context, tx pgx.Tx, ids []string) (events []InboxEvent, err error) {
	rows, err := tx.Query(ctx, sqlTakeInbox, ids)
	if err == nil {
		events, err = pgx.CollectRows(rows, pgx.RowToStructByPos[InboxEvent])
	}
	if err != nil {
		return nil, fmt.Errorf("take %d webhook events: %w", len(ids), err)
	}
	return events, nil
}

// InboxMark is what became of an event that TakeInbox has locked.
type InboxMark struct {
	ID      string
	Result  string    // "": it is put off
	NextTry time.Time // of one that is put off
}

const sqlMarkInbox = `
UPDATE singil.webhook_events w
SET tries = w.tries + 1, result = NULLIF(m.result, ''),
    processed_at = CASE WHEN m.result <> '' THEN $4::timestamptz END, next_try_at = CASE WHEN m.result = '' THEN m.next_try_at END
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS m (event_id, result, next_try_at)
WHERE w.event_id = m.event_id AND w.processed_at IS NULL`

// MarkInbox closes events, or puts them off.
func MarkInbox(ctx context.Context, tx pgx.Tx, marks []InboxMark, now time.Time) error {
	ids, results, next := make([]string, len(marks)), make([]string, len(marks)), make([]time.Time, len(marks))
	for i, m := range marks {
		ids[i], results[i], next[i] = m.ID, m.Result, m.NextTry
	}
	if _, err := tx.Exec(ctx, sqlMarkInbox, ids, results, next, now); err != nil {
		return fmt.Errorf("mark %d webhook events: %w", len(marks), err)
	}
	return nil
}

// Mentioned is the invoice that a webhook is about, as its intent or its
// metadata tells.
type Mentioned struct {
	ProviderIntentID string // "": only the metadata names the invoice
	InvoiceID        uuid.UUID
	SubscriptionID   uuid.UUID
	CustomerID       uuid.UUID
	SubscriptionNo   string
	PeriodNo         int
	Status           string
	WaitingFor       WaitingFor
	Attempted        bool
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

const mentioned = `
SELECT COALESCE(pi.provider_intent_id, ''), i.id, i.subscription_id, i.customer_id, s.external_id, i.period_no, i.status, i.waiting_for,
       i.attempt_count > 0 OR EXISTS (SELECT FROM singil.payment_intents own WHERE own.invoice_id = i.id AND (own.adopted OR own.shared_at IS NOT NULL)),
       i.status = 'open' AND i.waiting_for = 'provider' AND i.poll_count = 0,
       COALESCE(pi.state = 'dead', false)
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
`

const sqlMention = mentioned + `LEFT JOIN singil.payment_intents pi ON pi.provider_intent_id = $2
WHERE i.id = $1`

// FindMentioned locks the invoice that an intent belongs to, else the one that
// the metadata names. byIntent tells which: only the former is certain to be what
// the money is for.
func FindMentioned(ctx context.Context, tx pgx.Tx, providerIntentID string, invoice uuid.UUID) (m Mentioned, byIntent, found bool, err error) {
	var id uuid.UUID
	err = tx.QueryRow(ctx, sqlMentionLock, providerIntentID, invoice).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Mentioned{}, false, false, nil
	}
	if err == nil {
		var rows pgx.Rows
		if rows, err = tx.Query(ctx, sqlMention, id, providerIntentID); err == nil {
			m, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Mentioned])
		}
	}
	if err != nil {
		return Mentioned{}, false, false, fmt.Errorf("find the invoice of intent %s: %w", providerIntentID, err)
	}
	return m, m.ProviderIntentID != "", true, nil
}

const sqlMentions = mentioned + `JOIN singil.payment_intents pi ON pi.invoice_id = i.id
WHERE pi.provider_intent_id = ANY ($1)`

// LoadMentioned finds the invoices that intents belong to, by the intents' ids,
// and locks nothing: it is what was true a moment ago.
func LoadMentioned(ctx context.Context, q Querier, providerIntentIDs []string) (map[string]Mentioned, error) {
	rows, err := q.Query(ctx, sqlMentions, providerIntentIDs)
	if err != nil {
		return nil, fmt.Errorf("find the invoices of %d intents: %w", len(providerIntentIDs), err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Mentioned])
	if err != nil {
		return nil, fmt.Errorf("find the invoices of %d intents: %w", len(providerIntentIDs), err)
	}
	found := make(map[string]Mentioned, len(list))
	for _, m := range list {
		found[m.ProviderIntentID] = m
	}
	return found, nil
}

const sqlWake = `
UPDATE singil.invoices
SET next_attempt_at = least(next_attempt_at, $2), claimed = true, updated_at = clock_timestamp()
WHERE id = $1 AND status = 'open' AND waiting_for = 'provider'`

// WorthALook tells whether to ask the provider about the invoice. paid tells that
// the provider speaks of money, which is worth a look whatever our books say.
func (m Mentioned) WorthALook(paid bool) bool {
	switch {
	case m.Status == InvoicePaid, !m.Attempted:
		return false
	case m.Status != InvoiceOpen, m.WaitingFor == WaitingForSchedule:
		return paid
	}
	return true
}

// Wake is for an invoice that is locked and worth a look: enqueue one in the same
// transaction. It moves only the wake-up of an invoice whose outcome is open, to
// the end of the lease of that job: a webhook never makes a dunning attempt
// earlier.
func Wake(ctx context.Context, tx pgx.Tx, m Mentioned, now time.Time) error {
	if _, err := tx.Exec(ctx, sqlWake, m.InvoiceID, now.Add(Lease)); err != nil {
		return fmt.Errorf("wake invoice %s: %w", m.InvoiceID, err)
	}
	return nil
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
