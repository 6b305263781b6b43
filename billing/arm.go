package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What the protocol waits for, in business time.
const (
	// SendWindow is how long after arming an attach may still be sent.
	SendWindow = 30 * time.Second
	// SettlePeriod is how long after SendWindow the provider may still execute
	// an attach. No source gives PayMongo's longest execution; 15 minutes is
	// far beyond every published timeout.
	SettlePeriod = 15 * time.Minute
	// Lease is how long an invoice is left to the job that was enqueued for it
	// before the sweep enqueues another.
	Lease = 5 * time.Minute
)

// ArmRequest asks to write down one attempt.
type ArmRequest struct {
	InvoiceID        uuid.UUID
	IntentID         uuid.UUID
	ProviderIntentID string // stored now if the intent has none yet
	Fence            int64  // as loaded: another worker's arming in between is seen by it
	CardID           uuid.UUID
	ProviderCardID   string
	Trigger          Trigger
}

// Armed is a committed attempt: the licence to send one attach. It is made by
// Arm alone, and counts for nothing until the transaction is committed.
type Armed struct {
	AttemptID        uuid.UUID
	InvoiceID        uuid.UUID
	IntentID         uuid.UUID
	ProviderIntentID string
	ProviderCardID   string
	CardID           uuid.UUID
	No               int
	Fence            int64
	ArmedAt          time.Time
	SettledAfter     time.Time
}

// Reasons for which one request of a batch is not armed. The others are.
var (
	ErrNotOpen    = errors.New("the invoice is not open, or not due any more")
	ErrInFlight   = errors.New("an attempt is open, or another worker has armed")
	ErrOverBudget = errors.New("the day's budget is spent")
)

// ArmResult is what became of one request.
type ArmResult struct {
	Armed Armed
	Err   error // ErrNotOpen, ErrInFlight, ErrOverBudget, or what MayCharge says
}

const sqlArmLockInstance = `
SELECT i.frozen, COALESCE(i.frozen_reason, ''), i.virtual_now, i.livemode, i.day_max_count, i.day_max_minor,
       p.blocked_until, p.breaker_open, COALESCE(p.breaker_reason, '')
FROM singil.instance i CROSS JOIN singil.provider_state p
FOR SHARE OF i`

const sqlArmLockInvoices = `
SELECT i.id, i.status, i.claimed, COALESCE(i.held_until > $2, false), i.amount_minor, i.attempt_count
FROM singil.invoices i
WHERE i.id = ANY ($1)
ORDER BY i.id
FOR UPDATE`

// The subscription is read here, behind the locks on the invoices: beside them
// it would be what it was before the wait. A pause waits for those locks too.
const sqlArmLockIntents = `
SELECT pi.id, pi.invoice_id, pi.state, COALESCE(pi.provider_intent_id, ''), pi.fence,
       EXISTS (SELECT 1 FROM singil.attempts a
               WHERE a.payment_intent_id = pi.id AND a.state IN ('armed', 'review', 'needs_action')),
       s.status = 'paused'
FROM singil.payment_intents pi
JOIN singil.invoices i ON i.id = pi.invoice_id
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE pi.id = ANY ($1)
ORDER BY pi.id
FOR UPDATE OF pi`

const sqlArmBudget = `
INSERT INTO singil.charge_budget (day, livemode, max_count, max_minor)
VALUES ($1, $2, $3, $4)
ON CONFLICT (day, livemode) DO UPDATE SET max_count = charge_budget.max_count
RETURNING max_count - used_count, max_minor - used_minor`

const sqlArmSpend = `
UPDATE singil.charge_budget
SET used_count = used_count + $3, used_minor = used_minor + $4
WHERE day = $1 AND livemode = $2`

const sqlArmIntents = `
UPDATE singil.payment_intents pi
SET state = 'ready', provider_intent_id = r.provider_intent_id, fence = pi.fence + 1, updated_at = clock_timestamp()
FROM unnest($1::uuid[], $2::text[]) AS r (id, provider_intent_id)
WHERE pi.id = r.id`

const sqlArmAttempts = `
INSERT INTO singil.attempts (id, payment_intent_id, invoice_id, no, fence, payment_method_id, provider_payment_method_id,
                             trigger, armed_at, send_before, settled_after)
SELECT r.id, r.intent, r.invoice, r.no, r.fence, r.card, r.provider_card, r.trigger, $9, $10, $11
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bigint[], $6::uuid[], $7::text[], $8::text[])
  AS r (id, intent, invoice, no, fence, card, provider_card, trigger)`

const sqlArmInvoices = `
UPDATE singil.invoices i
SET attempt_count = i.attempt_count + 1,
    first_attempt_at = COALESCE(i.first_attempt_at, $2),
    next_attempt_at = $3,
    waiting_for = 'provider',
    poll_count = 0,
    payment_method_id = NULL,
    held_from = NULL,
    held_until = NULL,
    updated_at = clock_timestamp()
WHERE i.id = ANY ($1)`

// Arm writes attempts down, all in tx, one result a request in the same order.
// It stores the provider's intent id (write-once), spends the day's budget and
// takes the invoice's next wake-up one lease on. realNow is the caller's
// clock; business time is the virtual clock's if there is one.
//
// An Armed licence is good only after tx is committed and the commit was
// acknowledged. If it was not, send nothing: the next run finds out.
func Arm(ctx context.Context, tx pgx.Tx, requests []ArmRequest, realNow time.Time) ([]ArmResult, error) {
	results := make([]ArmResult, len(requests))
	a := arming{requests: requests, results: results}
	for _, step := range []func(context.Context, pgx.Tx, time.Time) error{a.lock, a.budget, a.write} {
		if err := step(ctx, tx, realNow); err != nil {
			return nil, fmt.Errorf("arm %d attempts: %w", len(requests), err)
		}
	}
	return results, nil
}

// arming is one Arm on its way.
type arming struct {
	requests []ArmRequest
	results  []ArmResult

	instance  Instance
	maxCount  int32
	maxMinor  int64
	amount    map[uuid.UUID]int64
	attempts  map[uuid.UUID]int
	now       time.Time
	firstSeen map[uuid.UUID]bool
}

// lock takes the locks in the order of the house, instance, invoices, intents,
// and sorts out what must not be armed.
func (a *arming) lock(ctx context.Context, tx pgx.Tx, realNow time.Time) error {
	var virtual, blocked *time.Time
	in := &a.instance
	err := tx.QueryRow(ctx, sqlArmLockInstance).Scan(&in.Frozen, &in.FrozenReason, &virtual, &in.Livemode, &a.maxCount, &a.maxMinor,
		&blocked, &in.BreakerOpen, &in.BreakerReason)
	if err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	if virtual != nil {
		in.VirtualNow = *virtual
	}
	if blocked != nil {
		in.BlockedUntil = *blocked
	}
	a.now = in.Now(realNow)
	if err := in.MayCharge(realNow); err != nil {
		for i := range a.results {
			a.results[i].Err = err
		}
		return nil
	}

	invoices := make([]uuid.UUID, len(a.requests))
	intents := make([]uuid.UUID, len(a.requests))
	for i, r := range a.requests {
		invoices[i], intents[i] = r.InvoiceID, r.IntentID
	}
	a.amount, a.attempts = map[uuid.UUID]int64{}, map[uuid.UUID]int{}
	rows, err := tx.Query(ctx, sqlArmLockInvoices, invoices, a.now)
	if err != nil {
		return err
	}
	var id uuid.UUID
	var invoice armInvoice
	var amount int64
	var count int
	lockedInvoices := map[uuid.UUID]armInvoice{}
	_, err = pgx.ForEachRow(rows, []any{&id, &invoice.status, &invoice.claimed, &invoice.held, &amount, &count}, func() error {
		lockedInvoices[id], a.amount[id], a.attempts[id] = invoice, amount, count
		return nil
	})
	if err != nil {
		return err
	}

	locked := map[uuid.UUID]armIntent{}
	rows, err = tx.Query(ctx, sqlArmLockIntents, intents)
	if err != nil {
		return err
	}
	var row armIntent
	_, err = pgx.ForEachRow(rows, []any{&id, &row.invoice, &row.state, &row.provider, &row.fence, &row.open, &row.paused}, func() error {
		locked[id] = row
		return nil
	})
	if err != nil {
		return err
	}

	a.firstSeen = map[uuid.UUID]bool{}
	for i, r := range a.requests {
		err := r.check(lockedInvoices[r.InvoiceID], locked[r.IntentID])
		if err == nil && a.firstSeen[r.InvoiceID] {
			err = ErrInFlight
		}
		a.results[i].Err = err
		a.firstSeen[r.InvoiceID] = a.firstSeen[r.InvoiceID] || err == nil
	}
	return nil
}

// budget spends the day's budget on as many as it allows, in order.
func (a *arming) budget(ctx context.Context, tx pgx.Tx, _ time.Time) error {
	if !slices.ContainsFunc(a.results, func(r ArmResult) bool { return r.Err == nil }) {
		return nil
	}
	day := a.now.UTC().Truncate(24 * time.Hour)
	var leftCount int32
	var leftMinor int64
	if err := tx.QueryRow(ctx, sqlArmBudget, day, a.instance.Livemode, a.maxCount, a.maxMinor).Scan(&leftCount, &leftMinor); err != nil {
		return fmt.Errorf("budget: %w", err)
	}
	var count int32
	var minor int64
	for i, r := range a.requests {
		if a.results[i].Err != nil {
			continue
		}
		amount := a.amount[r.InvoiceID]
		if count+1 > leftCount || minor+amount > leftMinor {
			a.results[i].Err = ErrOverBudget
			continue
		}
		count, minor = count+1, minor+amount
	}
	if count == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, sqlArmSpend, day, a.instance.Livemode, count, minor); err != nil {
		return fmt.Errorf("budget: %w", err)
	}
	return nil
}

// write stores what is left: intents, attempts, invoices, set-wise.
func (a *arming) write(ctx context.Context, tx pgx.Tx, _ time.Time) error {
	var attempts, intents, invoices, cards []uuid.UUID
	var providers, providerCards, triggers []string
	var nos []int32
	var fences []int64
	for i, r := range a.requests {
		if a.results[i].Err != nil {
			continue
		}
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		armed := r.licence(id, a.attempts[r.InvoiceID]+1, a.now)
		a.results[i].Armed = armed
		attempts, intents, invoices, cards = append(attempts, id), append(intents, r.IntentID), append(invoices, r.InvoiceID), append(cards, r.CardID)
		providers, providerCards = append(providers, r.ProviderIntentID), append(providerCards, r.ProviderCardID)
		nos, fences, triggers = append(nos, int32(armed.No)), append(fences, armed.Fence), append(triggers, string(r.Trigger))
	}
	if len(attempts) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	batch.Queue(sqlArmIntents, intents, providers)
	batch.Queue(sqlArmAttempts, attempts, intents, invoices, nos, fences, cards, providerCards, triggers,
		a.now, a.now.Add(SendWindow), a.now.Add(SendWindow+SettlePeriod))
	batch.Queue(sqlArmInvoices, invoices, a.now, a.now.Add(Lease))
	return tx.SendBatch(ctx, batch).Close()
}
