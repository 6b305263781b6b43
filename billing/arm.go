package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// The budget is only looked at: who spends it holds its row, so that comes last.
const sqlArmLockInstance = `
SELECT i.frozen, COALESCE(i.frozen_reason, ''), i.virtual_now, i.livemode, i.day_max_count, i.day_max_minor,
       p.blocked_until, p.breaker_open, COALESCE(p.breaker_reason, ''),
       COALESCE(b.max_count - b.used_count, i.day_max_count), COALESCE(b.max_minor - b.used_minor, i.day_max_minor)
FROM singil.instance i CROSS JOIN singil.provider_state p
LEFT JOIN singil.charge_budget b ON b.livemode = i.livemode AND b.day = (COALESCE(i.virtual_now, $1) AT TIME ZONE 'UTC')::date
FOR SHARE OF i`

const sqlArmLockInvoices = `
SELECT i.id, i.status, i.claimed, i.held_until, i.amount_minor, i.attempt_count
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
       s.status = 'paused', pi.checkout_session_id IS NOT NULL
FROM singil.payment_intents pi
JOIN singil.invoices i ON i.id = pi.invoice_id
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE pi.id = ANY ($1)
ORDER BY pi.id
FOR UPDATE OF pi`

// What another worker has spent since we looked counts too: the constraints on
// the row refuse what is too much, and with it the whole batch.
const sqlArmSpend = `
INSERT INTO singil.charge_budget AS b (day, livemode, max_count, max_minor, used_count, used_minor)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (day, livemode) DO UPDATE
SET used_count = b.used_count + excluded.used_count, used_minor = b.used_minor + excluded.used_minor`

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

// The sweep's lease stays if most of it is left: an update that changes nothing
// indexed costs a fraction of one that does.
const sqlArmInvoices = `
UPDATE singil.invoices i
SET attempt_count = i.attempt_count + 1,
    first_attempt_at = COALESCE(i.first_attempt_at, $2),
    next_attempt_at = CASE WHEN i.next_attempt_at < $4 THEN $3 ELSE i.next_attempt_at END,
    waiting_for = 'provider',
    poll_count = 0,
    payment_method_id = NULL,
    held_from = NULL,
    held_until = NULL,
    updated_at = clock_timestamp()
WHERE i.id = ANY ($1)`

// Arm writes attempts down, all in tx, one result a request in the same order.
// It stores the provider's intent id (write-once), spends the day's budget and
// sees to it that the invoice is looked at again when its lease is over. realNow
// is the caller's clock; business time is the virtual clock's if there is one.
//
// If others spend the last of the budget meanwhile, the error is ErrOverBudget
// and nothing is armed; fewer at a time may go through.
//
// An Armed licence is good only after tx is committed and the commit was
// acknowledged. If it was not, send nothing: the next run finds out.
func Arm(ctx context.Context, tx pgx.Tx, requests []ArmRequest, realNow time.Time) ([]ArmResult, error) {
	results := make([]ArmResult, len(requests))
	a := arming{requests: requests, results: results}
	err := a.lock(ctx, tx, realNow)
	if err == nil {
		a.choose(realNow)
		err = a.write(ctx, tx)
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.ConstraintName == "within_count" || pg.ConstraintName == "within_minor") {
		err = fmt.Errorf("%w: %w", ErrOverBudget, err)
	}
	if err != nil {
		return nil, fmt.Errorf("arm %d attempts: %w", len(requests), err)
	}
	return results, nil
}

// arming is one Arm on its way.
type arming struct {
	requests []ArmRequest
	results  []ArmResult

	// What is true when the rows are locked.
	instance  Instance
	maxCount  int32
	maxMinor  int64
	leftCount int32
	leftMinor int64
	invoices  map[uuid.UUID]armInvoice
	intents   map[uuid.UUID]armIntent

	// What the batch does.
	now        time.Time
	count      int32
	spentMinor int64
}

// lock takes the locks in the order of the house, instance, invoices, intents, in
// one round trip, and reads what they protect.
func (a *arming) lock(ctx context.Context, tx pgx.Tx, realNow time.Time) error {
	invoices := make([]uuid.UUID, len(a.requests))
	intents := make([]uuid.UUID, len(a.requests))
	for i, r := range a.requests {
		invoices[i], intents[i] = r.InvoiceID, r.IntentID
	}
	a.invoices, a.intents = make(map[uuid.UUID]armInvoice, len(invoices)), make(map[uuid.UUID]armIntent, len(intents))
	batch := &pgx.Batch{}
	batch.Queue(sqlArmLockInstance, realNow).QueryRow(func(row pgx.Row) error {
		in := &a.instance
		var virtual, blocked *time.Time
		err := row.Scan(&in.Frozen, &in.FrozenReason, &virtual, &in.Livemode, &a.maxCount, &a.maxMinor,
			&blocked, &in.BreakerOpen, &in.BreakerReason, &a.leftCount, &a.leftMinor)
		if virtual != nil {
			in.VirtualNow = *virtual
		}
		if blocked != nil {
			in.BlockedUntil = *blocked
		}
		return err
	})
	batch.Queue(sqlArmLockInvoices, invoices).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var row armInvoice
		_, err := pgx.ForEachRow(rows, []any{&id, &row.status, &row.claimed, &row.heldUntil, &row.amountMinor, &row.attempts}, func() error {
			a.invoices[id] = row
			return nil
		})
		return err
	})
	batch.Queue(sqlArmLockIntents, intents).Query(func(rows pgx.Rows) error {
		var id uuid.UUID
		var row armIntent
		_, err := pgx.ForEachRow(rows, []any{&id, &row.invoice, &row.state, &row.provider, &row.fence, &row.open, &row.paused, &row.checkout}, func() error {
			a.intents[id] = row
			return nil
		})
		return err
	})
	return tx.SendBatch(ctx, batch).Close()
}

// choose sorts out what may not be armed, and spends the budget in order.
func (a *arming) choose(realNow time.Time) {
	a.now = a.instance.Now(realNow)
	may := a.instance.MayCharge(realNow)
	seen := make(map[uuid.UUID]bool, len(a.requests))
	for i, r := range a.requests {
		invoice := a.invoices[r.InvoiceID]
		invoice.held = orZero(invoice.heldUntil).After(a.now)
		err := may
		switch {
		case err != nil:
		case seen[r.InvoiceID]:
			err = ErrInFlight
		default:
			err = r.check(invoice, a.intents[r.IntentID])
		}
		seen[r.InvoiceID] = seen[r.InvoiceID] || err == nil
		if err == nil && (a.count+1 > a.leftCount || a.spentMinor+invoice.amountMinor > a.leftMinor) {
			err = ErrOverBudget
		}
		if a.results[i].Err = err; err == nil {
			a.count, a.spentMinor = a.count+1, a.spentMinor+invoice.amountMinor
		}
	}
}

// write stores what is left: intents, attempts, invoices, set-wise, and what they
// take of the budget.
func (a *arming) write(ctx context.Context, tx pgx.Tx) error {
	if a.count == 0 {
		return nil
	}
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
		armed := r.licence(id, a.invoices[r.InvoiceID].attempts+1, a.now)
		a.results[i].Armed = armed
		attempts, intents, invoices, cards = append(attempts, id), append(intents, r.IntentID), append(invoices, r.InvoiceID), append(cards, r.CardID)
		providers, providerCards = append(providers, r.ProviderIntentID), append(providerCards, r.ProviderCardID)
		nos, fences, triggers = append(nos, int32(armed.No)), append(fences, armed.Fence), append(triggers, string(r.Trigger))
	}
	batch := &pgx.Batch{}
	batch.Queue(sqlArmIntents, intents, providers)
	batch.Queue(sqlArmAttempts, attempts, intents, invoices, nos, fences, cards, providerCards, triggers,
		a.now, a.now.Add(SendWindow), a.now.Add(SendWindow+SettlePeriod))
	batch.Queue(sqlArmInvoices, invoices, a.now, a.now.Add(Lease), a.now.Add(Lease/2))
	batch.Queue(sqlArmSpend, a.now.UTC().Truncate(24*time.Hour), a.instance.Livemode, a.maxCount, a.maxMinor, a.count, a.spentMinor)
	return tx.SendBatch(ctx, batch).Close()
}
