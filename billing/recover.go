package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Recovery is what has to be found out about a database that is older than what
// happened.
type Recovery struct {
	Needed    string    // why
	From      time.Time // of the newest attempt that is here: what came later may be forgotten
	NoticedAt time.Time // no attach of ours was sent behind it
}

// ConclusiveAt is when the provider's answers begin to be the whole truth: an
// attach that was sent at the last moment is executed by then, or never.
func (r Recovery) ConclusiveAt() time.Time {
	return r.NoticedAt.Add(SendWindow + SettlePeriod)
}

// Still frozen since the last one: nothing was armed in between, and what it had
// to find out is still the question.
const sqlNeedAgain = `
UPDATE singil.instance i
SET recovery_needed = last.reason, recovery_noticed_at = last.noticed_at, recovery_from = last.from_at
FROM (SELECT * FROM singil.recoveries r ORDER BY r.id DESC LIMIT 1) AS last
WHERE i.recovery_needed IS NULL AND i.frozen AND i.frozen_at <= last.at AND NOT last.waived`

const sqlRecovery = `SELECT recovery_needed, recovery_from, recovery_noticed_at FROM singil.instance`

// BeginRecovery freezes for a recovery, unless one is needed already, and
// returns what is to be found out. A database of another installation is
// ErrOtherInstallation.
func BeginRecovery(ctx context.Context, tx pgx.Tx, environment Environment, livemode bool, actor string) (Recovery, error) {
	if err := Bind(ctx, tx, environment, livemode); err != nil && !errors.Is(err, ErrOtherCluster) {
		return Recovery{}, err
	}
	if _, err := tx.Exec(ctx, sqlNeedAgain); err != nil {
		return Recovery{}, fmt.Errorf("begin the recovery: %w", err)
	}
	if err := needRecovery(ctx, tx, actor, "a recovery was asked for by "+actor); err != nil {
		return Recovery{}, err
	}
	var r Recovery
	if err := tx.QueryRow(ctx, sqlRecovery).Scan(&r.Needed, &r.From, &r.NoticedAt); err != nil {
		return Recovery{}, fmt.Errorf("begin the recovery: %w", err)
	}
	r.From, r.NoticedAt = r.From.UTC(), r.NoticedAt.UTC()
	return r, nil
}

// doubtful begins the reason of an invoice that a recovery has put in review.
const doubtful = "recovery: "

// In review, but by a recovery: it may be paid after all, or opened again.
const sqlRecoverable = `
SELECT i.id
FROM singil.invoices i
WHERE i.status = 'open' OR i.status = 'review' AND starts_with(i.reason, $1)
ORDER BY i.due_at, i.id`

// loadAtOnce bounds one round trip of a load.
const loadAtOnce = 1000

// LoadRecoverable loads the invoices that the provider may know more of than the
// books do: those that are open, and those that a recovery has put in review.
// In the order they were due.
func LoadRecoverable(ctx context.Context, q Querier, now time.Time) ([]*Collection, error) {
	rows, err := q.Query(ctx, sqlRecoverable, doubtful)
	if err != nil {
		return nil, fmt.Errorf("list what to recover: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("list what to recover: %w", err)
	}
	all := make([]*Collection, 0, len(ids))
	for some := range slices.Chunk(ids, loadAtOnce) {
		found, err := Load(ctx, q, some, now)
		if err != nil {
			return nil, err
		}
		for _, id := range some {
			if c := found[id]; c != nil {
				all = append(all, c)
			}
		}
	}
	return all, nil
}

const sqlDoubtful = `SELECT starts_with(COALESCE(reason, ''), $2) AND status = 'review' FROM singil.invoices WHERE id = $1 FOR UPDATE`

const sqlInvoicesOfIntents = `
SELECT pi.provider_intent_id, pi.invoice_id
FROM singil.payment_intents pi
WHERE pi.provider_intent_id = ANY ($1)`

// InvoicesOfIntents finds the invoices of those of the provider's intents that
// are on record.
func InvoicesOfIntents(ctx context.Context, q Querier, intents []string) (map[string]uuid.UUID, error) {
	rows, err := q.Query(ctx, sqlInvoicesOfIntents, intents)
	if err != nil {
		return nil, fmt.Errorf("find the invoices of %d intents: %w", len(intents), err)
	}
	found := make(map[string]uuid.UUID, len(intents))
	var intent string
	var invoice uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&intent, &invoice}, func() error {
		found[intent] = invoice
		return nil
	}); err != nil {
		return nil, fmt.Errorf("find the invoices of %d intents: %w", len(intents), err)
	}
	return found, nil
}

const sqlPaidOnRecord = `SELECT payment_id FROM singil.payments WHERE payment_id = ANY ($1) AND status = 'paid'`

// PaidOnRecord tells which of these payments the books know as paid.
func PaidOnRecord(ctx context.Context, q Querier, payments []string) (map[string]bool, error) {
	rows, err := q.Query(ctx, sqlPaidOnRecord, payments)
	if err != nil {
		return nil, fmt.Errorf("look for %d payments: %w", len(payments), err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for %d payments: %w", len(payments), err)
	}
	known := make(map[string]bool, len(ids))
	for _, id := range ids {
		known[id] = true
	}
	return known, nil
}

const sqlInvoiceOf = `
SELECT i.id
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.id = $1 OR s.external_id = $2 AND i.period_no = $3
ORDER BY i.id = $1 DESC
LIMIT 1`

// FindInvoice finds an invoice by its id, else by its subscription and period: a
// period that was opened again has another id than the metadata of its intent
// names. uuid.Nil: there is none.
func FindInvoice(ctx context.Context, q Querier, id uuid.UUID, subscription string, periodNo int) (uuid.UUID, error) {
	rows, err := q.Query(ctx, sqlInvoiceOf, id, subscription, periodNo)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find invoice %s: %w", id, err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[uuid.UUID])
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return uuid.Nil, fmt.Errorf("find invoice %s: %w", id, err)
	}
	return found, nil
}

// Frozen, so that nobody is creating an intent of his own in the meantime.
const sqlAdopt = `
UPDATE singil.payment_intents pi
SET state = 'ready', provider_intent_id = $2, adopted = true, updated_at = clock_timestamp()
FROM singil.instance i
WHERE pi.id = $1 AND pi.state = 'creating' AND i.frozen AND i.recovery_needed IS NOT NULL`

// AdoptIntent stores the provider's intent of an invoice whose books have lost
// it. Whatever was attempted on it is looked at before any attach.
func AdoptIntent(ctx context.Context, tx pgx.Tx, c *Collection, providerIntentID, actor string) error {
	tag, err := tx.Exec(ctx, sqlAdopt, c.IntentID, providerIntentID)
	if err != nil {
		return fmt.Errorf("adopt intent %s: %w", providerIntentID, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("adopt intent %s: invoice %s has one meanwhile, or the recovery is over", providerIntentID, c.InvoiceID)
	}
	return Audit(ctx, tx, AuditEntry{
		Actor: actor, Action: "adopt_intent", Subject: c.InvoiceID.String(), Reason: "found at the provider by a recovery",
		After: fields{"payment_intent": providerIntentID, "generation": c.Generation},
	})
}

const sqlRecordListed = `
INSERT INTO singil.payments (payment_id, provider_intent_id, invoice_id, status, amount_minor, currency, livemode, source, provider_at)
VALUES ($1, NULLIF($2, ''), NULLIF($3, '00000000-0000-0000-0000-000000000000'::uuid), 'paid', $4, $5, $6, 'list', $7)
ON CONFLICT (payment_id) DO UPDATE
SET status = 'paid', invoice_id = COALESCE(payments.invoice_id, excluded.invoice_id)`

// RecordListed records money that the provider lists and that settles no invoice
// of ours: of an unknown one (uuid.Nil), or once more for one that has an intent
// of its own. An observation, never refused.
func RecordListed(ctx context.Context, tx pgx.Tx, p ProviderPayment, providerIntentID string, invoice uuid.UUID) error {
	var at *time.Time
	if !p.At.IsZero() {
		at = &p.At
	}
	if _, err := tx.Exec(ctx, sqlRecordListed, p.ID, providerIntentID, invoice, p.Amount.Minor, string(p.Amount.Currency), p.Livemode, at); err != nil {
		return fmt.Errorf("record payment %s: %w", p.ID, err)
	}
	return nil
}

// ParkDoubtful puts an open invoice in front of a human: whether it was charged
// cannot be told. One that is not open stays as it is, and so does an attempt: who
// opens the invoice again has its outcome asked for.
func ParkDoubtful(ctx context.Context, tx pgx.Tx, c *Collection, reason string, now time.Time) error {
	_, err := parkMentioned(ctx, tx, Mentioned{
		InvoiceID: c.InvoiceID, SubscriptionID: c.SubscriptionID, CustomerID: c.CustomerID, SubscriptionNo: c.SubscriptionNo, PeriodNo: c.PeriodNo,
	}, doubtful+reason, now)
	return err
}

const sqlReopen = `
UPDATE singil.invoices
SET status = 'open', reason = NULL, next_attempt_at = $2, waiting_for = 'schedule', updated_at = clock_timestamp()
WHERE id = $1`

// ReopenDoubtful opens an invoice again that a recovery has put in review: a
// human says that it was not charged. Others are left alone.
func ReopenDoubtful(ctx context.Context, tx pgx.Tx, c *Collection, actor, reason string, now time.Time) error {
	var mine bool
	if err := tx.QueryRow(ctx, sqlDoubtful, c.InvoiceID, doubtful).Scan(&mine); err != nil {
		return fmt.Errorf("open invoice %s again: %w", c.InvoiceID, err)
	}
	if !mine {
		return nil
	}
	if _, err := tx.Exec(ctx, sqlReopen, c.InvoiceID, now); err != nil {
		return fmt.Errorf("open invoice %s again: %w", c.InvoiceID, err)
	}
	return Audit(ctx, tx, AuditEntry{Actor: actor, Action: "reopen_invoice", Subject: c.InvoiceID.String(), Reason: reason})
}

const sqlRebind = `
UPDATE singil.instance i
SET system_identifier = c.system_identifier, timeline_id = c.timeline_id,
    recovery_needed = NULL, recovery_noticed_at = NULL, recovery_from = NULL
FROM (` + sqlCluster + `) AS c
WHERE i.recovery_needed IS NOT NULL`

const sqlRecovered = `
INSERT INTO singil.recoveries (id, actor, reason, waived, from_at, noticed_at, report)
SELECT $1::uuid, $2, $3, $4::boolean, recovery_from, recovery_noticed_at, $5::jsonb FROM singil.instance`

// FinishRecovery binds the database as it is now: its cluster, its timeline and,
// for every host that remembers more, this recovery. Charging stays frozen until
// Unfreeze. Without a recovery that is needed it does nothing.
func FinishRecovery(ctx context.Context, tx pgx.Tx, actor, reason string, report any) error {
	return endRecovery(ctx, tx, actor, reason, false, report)
}

// WaiveRecovery is FinishRecovery without one: somebody answers for it that
// nothing was charged which this database has forgotten.
func WaiveRecovery(ctx context.Context, tx pgx.Tx, actor, reason string) error {
	return endRecovery(ctx, tx, actor, reason, true, fields{})
}

func endRecovery(ctx context.Context, tx pgx.Tx, actor, reason string, waived bool, report any) error {
	needed, err := recoveryNeeded(ctx, tx)
	if err != nil || needed == "" {
		return err
	}
	document, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("end the recovery: %w", err)
	}
	if _, err := tx.Exec(ctx, sqlRecovered, newID(), actor, reason, waived, document); err != nil {
		return fmt.Errorf("end the recovery: %w", err)
	}
	if _, err := tx.Exec(ctx, sqlRebind); err != nil {
		return fmt.Errorf("end the recovery: %w", err)
	}
	action := "finish_recovery"
	if waived {
		action = "waive_recovery"
	}
	return Audit(ctx, tx, AuditEntry{Actor: actor, Action: action, Subject: "instance", Reason: reason, Before: fields{"recovery_needed": needed}})
}

// NextKey is the Idempotency-Key of the generation behind c's.
func (c *Collection) NextKey() string { return nextKey(c.CreateKey, c.Generation) }
