package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// writes collects what a batch changes, and stores it table by table.
type writes struct {
	now          time.Time
	holidays     Holidays
	attempts     []attemptChange
	intents      []intentChange
	newIntents   []newIntent
	createFailed []uuid.UUID // intents whose create the provider answered with a failure
	invoices     []invoiceChange
	cards        []cardChange
	payments     []paymentSeen
	events       []Event
	recovered    []uuid.UUID // subscriptions that have paid
	overdue      []uuid.UUID // subscriptions with an invoice that was not paid
	ended        map[uuid.UUID]string
	breaker      string
	closed       map[uuid.UUID]bool // attempts that this batch has moved on
}

func newWrites(now time.Time, holidays Holidays) *writes {
	return &writes{now: now, holidays: holidays, ended: map[uuid.UUID]string{}, closed: map[uuid.UUID]bool{}}
}

type attemptChange struct {
	ID        uuid.UUID
	State     AttemptState
	Code      string
	PaymentID string
	Evidence  []byte
	SettledAt *time.Time
}

type intentChange struct {
	ID    uuid.UUID
	State IntentState
	Proof *ProviderIntent
}

type newIntent struct {
	InvoiceID  uuid.UUID
	Amount     Money
	Livemode   bool
	Generation int
	Key        string
}

// invoiceChange is the whole of what a settlement decides of an invoice.
type invoiceChange struct {
	ID            uuid.UUID
	Status        string
	NextAttemptAt *time.Time
	WaitingFor    WaitingFor
	Polls         int
	Trigger       Trigger // "" leaves it
	Code          string  // of the latest decline; "" leaves it
	Reason        string
	ActionURL     string
	PaidAt        *time.Time
	PaymentID     string
}

type cardChange struct {
	ID   uuid.UUID
	Code string // why it is never charged again
}

type paymentSeen struct {
	ProviderPayment
	IntentID  string
	InvoiceID uuid.UUID
	Source    string
}

type fields map[string]any

// record notes the payments that the provider showed: observations, stored
// whatever becomes of the judgement.
func (w *writes) record(s Settlement) {
	seen := []ProviderPayment{}
	if s.Seen != nil {
		seen = s.Seen.Payments
	}
	if pay := s.Judgement.Payment; pay.ID != "" && s.Seen == nil {
		seen = append(seen, pay)
	}
	for _, pay := range seen {
		if pay.Status == "failed" && s.Collection.Known[pay.ID] {
			continue
		}
		w.payments = append(w.payments, paymentSeen{pay, s.Collection.ProviderIntentID, s.Collection.InvoiceID, s.Source})
	}
}

// emit writes an outbox event about an invoice.
func (w *writes) emit(c *Collection, kind string, data fields) {
	data["invoice_id"] = c.InvoiceID
	data["subscription"] = c.SubscriptionNo
	data["period_no"] = c.PeriodNo
	data["amount_minor"] = c.Amount.Minor
	data["currency"] = c.Amount.Currency
	w.events = append(w.events, Event{Type: kind, SubscriptionID: c.SubscriptionID, CustomerID: c.CustomerID, Data: data, OccurredAt: w.now})
}

const sqlWriteAttempts = `
UPDATE singil.attempts a
SET state = r.state, settled_at = r.settled_at, evidence = r.evidence::jsonb,
    decline_code = COALESCE(NULLIF(r.code, ''), a.decline_code),
    payment_id = COALESCE(NULLIF(r.payment_id, ''), a.payment_id)
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
  AS r (id, state, code, payment_id, evidence, settled_at)
WHERE a.id = r.id`

const sqlWriteIntents = `
UPDATE singil.payment_intents pi
SET state = r.state, death_proof = r.proof::jsonb, updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS r (id, state, proof)
WHERE pi.id = r.id`

const sqlWriteCreateFailed = `
UPDATE singil.payment_intents pi
SET create_failures = pi.create_failures + 1, updated_at = clock_timestamp()
WHERE pi.id = ANY ($1) AND pi.state = 'creating' AND pi.create_failures < 29`

const sqlWriteNewIntents = `
INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::boolean[], $6::int[], $7::text[])`

// An invoice that stays open keeps its looks at what the customer's page may have
// done: one that is paused or held is not charged, which would look first.
const sqlWriteInvoices = `
UPDATE singil.invoices i
SET status = r.status,
    next_attempt_at = r.next_attempt_at,
    claimed = false,
    waiting_for = r.waiting_for,
    poll_count = r.polls,
    attempt_trigger = COALESCE(NULLIF(r.trigger, ''), i.attempt_trigger),
    decline_code = COALESCE(NULLIF(r.code, ''), i.decline_code),
    reason = NULLIF(r.reason, ''),
    action_url = NULLIF(r.action_url, ''),
    paid_at = r.paid_at,
    payment_id = NULLIF(r.payment_id, ''),
    look_back_at = CASE WHEN r.status IN ('uncollectible', 'review')
                             AND (i.attempt_count > 0 OR EXISTS (SELECT FROM singil.payment_intents pi WHERE pi.invoice_id = i.id AND pi.shared_at IS NOT NULL))
                        THEN $12::timestamptz + interval '1 day'
                        WHEN r.status = 'open' THEN i.look_back_at END,
    look_backs = CASE WHEN r.status = 'open' THEN i.look_backs ELSE 0 END,
    updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::text[])
  AS r (id, status, next_attempt_at, waiting_for, polls, trigger, code, reason, action_url, paid_at, payment_id)
WHERE i.id = r.id`

// A customer's cards are common to settlements of several subscriptions: they
// are locked in one order.
const sqlWriteCards = `
UPDATE singil.payment_methods pm
SET status = 'blocked', blocked_code = r.code, updated_at = clock_timestamp()
FROM (
  SELECT c.id, r.code
  FROM singil.payment_methods c
  JOIN unnest($1::uuid[], $2::text[]) AS r (id, code) ON r.id = c.id
  WHERE c.status = 'active'
  ORDER BY c.id
  FOR NO KEY UPDATE OF c
) r
WHERE pm.id = r.id`

// Recording is never refused: a payment of an invoice that has one already is
// stored like any other. What is known only becomes more certain.
const sqlWritePayments = `
INSERT INTO singil.payments (payment_id, provider_intent_id, invoice_id, status, amount_minor, currency, livemode, failed_code, source, provider_at)
SELECT DISTINCT ON (r.payment_id) r.payment_id, NULLIF(r.intent, ''), NULLIF(r.invoice, '00000000-0000-0000-0000-000000000000'),
       r.status, r.amount, r.currency, r.livemode, NULLIF(r.code, ''), r.source, r.at
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::text[], $7::boolean[], $8::text[], $9::text[], $10::timestamptz[])
  AS r (payment_id, intent, invoice, status, amount, currency, livemode, code, source, at)
ORDER BY r.payment_id
ON CONFLICT (payment_id) DO UPDATE
SET status = CASE WHEN payments.status = 'paid' THEN 'paid' ELSE excluded.status END,
    invoice_id = COALESCE(payments.invoice_id, excluded.invoice_id),
    provider_intent_id = COALESCE(payments.provider_intent_id, excluded.provider_intent_id)`

// A subscription that pays is active again, unless another invoice of it is
// still owed or it was stopped for another reason.
const sqlWriteRecovered = `
UPDATE singil.subscriptions s
SET status = 'active', updated_at = clock_timestamp()
WHERE s.id = ANY ($1) AND s.status IN ('past_due', 'unpaid')
  AND NOT EXISTS (SELECT 1 FROM singil.invoices i
                  WHERE i.subscription_id = s.id
                    AND (i.status = 'open' AND i.decline_code IS NOT NULL OR i.status IN ('review', 'uncollectible')))
RETURNING s.id, s.customer_id, s.external_id`

const sqlWriteOverdue = `
UPDATE singil.subscriptions s
SET status = 'past_due', updated_at = clock_timestamp()
WHERE s.id = ANY ($1) AND s.status IN ('active', 'trialing')
RETURNING s.id, s.customer_id, s.external_id`

const sqlWriteEnded = `
UPDATE singil.subscriptions s
SET status = r.status,
    cancelled_at = CASE WHEN r.status = 'cancelled' THEN $3::timestamptz END,
    next_due_at = CASE WHEN r.status = 'cancelled' THEN NULL ELSE s.next_due_at END,
    updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[]) AS r (id, status)
WHERE s.id = r.id AND s.status NOT IN ('cancelled', 'paused') AND s.status <> r.status
RETURNING s.id, s.customer_id, s.external_id, s.status`

// flush stores everything, in one round trip unless a subscription changes its
// status: that makes another event, behind those of its invoices.
func (w *writes) flush(ctx context.Context, tx pgx.Tx) error {
	batch := &pgx.Batch{}
	w.queueRows(batch)
	if err := queueEvents(batch, w.events); err != nil {
		return err
	}
	w.events = nil
	w.queueSubscriptions(batch)
	if batch.Len() > 0 {
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
	}
	if w.breaker != "" {
		if err := TripBreaker(ctx, tx, w.breaker); err != nil {
			return err
		}
	}
	return WriteEvents(ctx, tx, w.events)
}

func (w *writes) queueRows(batch *pgx.Batch) {
	if n := len(w.attempts); n > 0 {
		ids, states, codes, payments, evidence, settled := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]*time.Time, n)
		for i, a := range w.attempts {
			ids[i], states[i], codes[i], payments[i], evidence[i], settled[i] = a.ID, string(a.State), a.Code, a.PaymentID, string(a.Evidence), a.SettledAt
		}
		batch.Queue(sqlWriteAttempts, ids, states, codes, payments, evidence, settled)
	}
	if n := len(w.intents); n > 0 {
		ids, states, proofs := make([]uuid.UUID, n), make([]string, n), make([]*string, n)
		for i, c := range w.intents {
			ids[i], states[i] = c.ID, string(c.State)
			if c.State == IntentDead {
				proof := deathProof(c.Proof)
				proofs[i] = &proof
			}
		}
		batch.Queue(sqlWriteIntents, ids, states, proofs)
	}
	if n := len(w.invoices); n > 0 {
		ids, statuses, next, waiting, polls := make([]uuid.UUID, n), make([]string, n), make([]*time.Time, n), make([]string, n), make([]int32, n)
		triggers, codes, reasons, urls, paid, payments := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]*time.Time, n), make([]string, n)
		for i, c := range w.invoices {
			ids[i], statuses[i], next[i], waiting[i], polls[i] = c.ID, c.Status, c.NextAttemptAt, string(c.WaitingFor), int32(c.Polls)
			triggers[i], codes[i], reasons[i], urls[i], paid[i], payments[i] = string(c.Trigger), c.Code, c.Reason, c.ActionURL, c.PaidAt, c.PaymentID
		}
		batch.Queue(sqlWriteInvoices, ids, statuses, next, waiting, polls, triggers, codes, reasons, urls, paid, payments, w.now)
	}
	if len(w.createFailed) > 0 {
		batch.Queue(sqlWriteCreateFailed, w.createFailed)
	}
	// Behind the rows they depend on: the dead intent, the paid invoice.
	w.queueNewIntents(batch)
	if n := len(w.cards); n > 0 {
		ids, codes := make([]uuid.UUID, n), make([]string, n)
		for i, c := range w.cards {
			ids[i], codes[i] = c.ID, c.Code
		}
		batch.Queue(sqlWriteCards, ids, codes)
	}
	if n := len(w.payments); n > 0 {
		ids, intents, invoices, statuses, amounts := make([]string, n), make([]string, n), make([]uuid.UUID, n), make([]string, n), make([]int64, n)
		currencies, live, codes, sources, at := make([]string, n), make([]bool, n), make([]string, n), make([]string, n), make([]*time.Time, n)
		for i, p := range w.payments {
			ids[i], intents[i], invoices[i], statuses[i], amounts[i] = p.ID, p.IntentID, p.InvoiceID, p.Status, p.Amount.Minor
			currencies[i], live[i], codes[i], sources[i] = string(p.Amount.Currency), p.Livemode, string(p.FailedCode), p.Source
			if !p.At.IsZero() {
				at[i] = &p.At
			}
		}
		batch.Queue(sqlWritePayments, ids, intents, invoices, statuses, amounts, currencies, live, codes, sources, at)
	}
}

func (w *writes) queueNewIntents(batch *pgx.Batch) {
	n := len(w.newIntents)
	if n == 0 {
		return
	}
	ids, invoices, amounts, currencies := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]int64, n), make([]string, n)
	live, generations, keys := make([]bool, n), make([]int32, n), make([]string, n)
	for i, c := range w.newIntents {
		ids[i], invoices[i], amounts[i], currencies[i] = newID(), c.InvoiceID, c.Amount.Minor, string(c.Amount.Currency)
		live[i], generations[i], keys[i] = c.Livemode, int32(c.Generation), c.Key
	}
	batch.Queue(sqlWriteNewIntents, ids, invoices, amounts, currencies, live, generations, keys)
}

func (w *writes) queueSubscriptions(batch *pgx.Batch) {
	changed := func(status string) func(pgx.Rows) error {
		return func(rows pgx.Rows) error {
			for rows.Next() {
				var id, customer uuid.UUID
				var name string
				now := status
				into := []any{&id, &customer, &name}
				if status == "" {
					into = append(into, &now)
				}
				if err := rows.Scan(into...); err != nil {
					return err
				}
				w.events = append(w.events, Event{
					Type: "subscription." + now, SubscriptionID: id, CustomerID: customer, OccurredAt: w.now,
					Data: fields{"subscription": name, "status": now},
				})
			}
			return rows.Err()
		}
	}
	if len(w.overdue) > 0 {
		batch.Queue(sqlWriteOverdue, w.overdue).Query(changed(SubscriptionPastDue))
	}
	if len(w.recovered) > 0 {
		batch.Queue(sqlWriteRecovered, w.recovered).Query(changed(SubscriptionActive))
	}
	if len(w.ended) > 0 {
		var ids []uuid.UUID
		var statuses []string
		for id, status := range w.ended {
			ids, statuses = append(ids, id), append(statuses, status)
		}
		batch.Queue(sqlWriteEnded, ids, statuses, w.now).Query(changed(""))
	}
}

func deathProof(seen *ProviderIntent) string {
	proof, err := json.Marshal(map[string]any{"kind": "retrieve", "provider_intent": seen})
	if err != nil {
		panic(err) // plain values only
	}
	return string(proof)
}

// newID makes a UUIDv7: it grows with time, and is never made again after a
// restored backup.
func newID() uuid.UUID {
	id, err := uuid.NewV7()
	if err != nil {
		panic(fmt.Errorf("no randomness: %w", err))
	}
	return id
}

// createKey is the Idempotency-Key of an intent, before any suffix: derived, so
// that a re-run sends the same.
func createKey(environment Environment, subscription uuid.UUID, periodNo, generation int) string {
	return fmt.Sprintf("singil/%s/%s/%d/%d", environment, subscription, periodNo, generation)
}

// nextKey is the key of the generation behind the one with this key.
func nextKey(key string, generation int) string {
	suffix := fmt.Sprintf("/%d", generation)
	return key[:len(key)-len(suffix)] + fmt.Sprintf("/%d", generation+1)
}

// failuresPerKey is how often a create may fail under one key before the failure
// counts as stored; lastSuffix is the last key's.
const (
	failuresPerKey = 3
	lastSuffix     = 9
)

// IdempotencyKey is the key to create the intent under. PayMongo documents that
// it stores the first outcome under a key for 24 hours, a failure too, so after
// three failures another key follows: a suffix .r1 to .r9. Whatever was created
// under an earlier one is harmless: nothing is ever attached to it.
func (c *Collection) IdempotencyKey() string {
	if c.CreateFailures < failuresPerKey {
		return c.CreateKey
	}
	return fmt.Sprintf("%s.r%d", c.CreateKey, c.CreateFailures/failuresPerKey)
}

// NextCreateKey goes on to the key that follows a stored failure, if there is one.
func (c *Collection) NextCreateKey() bool {
	if c.CreateFailures/failuresPerKey == lastSuffix {
		return false
	}
	c.CreateFailures += failuresPerKey
	return true
}
