package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The subscription first, as everywhere.
const sqlGiveUpLockSubscription = `
SELECT FROM singil.subscriptions s
WHERE s.id = (SELECT i.subscription_id FROM singil.invoices i WHERE i.id = $1)
FOR NO KEY UPDATE`

const sqlGiveUpLock = `
SELECT i.id, i.subscription_id, i.customer_id, s.external_id, i.period_no, i.amount_minor, i.currency, i.status, COALESCE(i.reason, ''), i.waiting_for,
       i.next_attempt_at, i.attempt_count, i.held_until
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.id = $1
FOR UPDATE OF i`

// Read behind the lock: nothing can be armed or settled until the transaction ends.
const sqlGiveUpStanding = `
SELECT open.state, open.armed_at,
       (SELECT p.payment_id FROM singil.payments p
        WHERE p.invoice_id = $1 AND p.status <> 'failed' AND p.refunded_minor < p.amount_minor LIMIT 1)
FROM (VALUES (1)) AS always
LEFT JOIN LATERAL (
  SELECT a.state, a.armed_at FROM singil.attempts a WHERE a.invoice_id = $1 AND a.state IN ('armed', 'review', 'needs_action') LIMIT 1
) open ON true`

const sqlGiveUp = `
UPDATE singil.invoices
SET status = $2, reason = $3, next_attempt_at = NULL, claimed = false, waiting_for = 'schedule', updated_at = clock_timestamp()
WHERE id = $1`

// VoidInvoice takes a debt back: it is not charged any more, and that is final.
// A subscription that owed nothing else is active again.
//
// It is refused with a *RefusedError while an outcome is open: money may be on
// its way, and would belong to nothing; and while the provider holds money for
// the invoice: a refund comes first.
func VoidInvoice(ctx context.Context, tx pgx.Tx, id string, act Act) error {
	return giveUp(ctx, tx, id, InvoiceVoid, AuditEntry{Action: "void_invoice"}, act)
}

// MarkUncollectible gives a debt up: it is not charged any more and still owed.
// Money that comes late makes it paid. What VoidInvoice refuses is refused, but for
// an attempt in review that is older than PatienceWithProvider: not every outcome
// can be found out, and what is given up is never charged again, whatever it was.
func MarkUncollectible(ctx context.Context, tx pgx.Tx, id string, act Act) error {
	return giveUp(ctx, tx, id, InvoiceUncollectible, AuditEntry{Action: "mark_uncollectible"}, act)
}

// givenUp is a locked invoice.
type givenUp struct {
	id, subscription, customer uuid.UUID
	name                       string
	no                         int
	amount                     Money
	status, reason             string
	waitingFor                 WaitingFor
	next, held                 *time.Time
	attempts                   int
}

func giveUp(ctx context.Context, tx pgx.Tx, id, status string, entry AuditEntry, act Act) error {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return fmt.Errorf("invoice %q: %w", clip(id), ErrNotFound)
	}
	if _, err := tx.Exec(ctx, sqlGiveUpLockSubscription, parsed); err != nil {
		return fmt.Errorf("lock the subscription of invoice %s: %w", parsed, err)
	}
	var i givenUp
	switch err := tx.QueryRow(ctx, sqlGiveUpLock, parsed).Scan(&i.id, &i.subscription, &i.customer, &i.name, &i.no, &i.amount.Minor, &i.amount.Currency,
		&i.status, &i.reason, &i.waitingFor, &i.next, &i.attempts, &i.held); {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("invoice %s: %w", parsed, ErrNotFound)
	case err != nil:
		return fmt.Errorf("lock invoice %s: %w", parsed, err)
	}
	var open, payment *string
	var armedAt *time.Time
	if err := tx.QueryRow(ctx, sqlGiveUpStanding, i.id).Scan(&open, &armedAt, &payment); err != nil {
		return fmt.Errorf("look at invoice %s: %w", i.id, err)
	}
	if err := i.mayGiveUp(status, open, payment, orZero(armedAt), act.Now); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, sqlGiveUp, i.id, status, act.Reason); err != nil {
		return fmt.Errorf("make invoice %s %s: %w", i.id, status, err)
	}
	before := fields{"status": i.status, "waiting_for": i.waitingFor, "attempt_count": i.attempts}
	if i.next != nil {
		before["next_attempt_at"] = i.next.UTC()
	}
	if i.reason != "" {
		before["reason"] = i.reason
	}
	entry.Actor, entry.Reason, entry.Subject, entry.Before, entry.After = act.Actor, act.Reason, i.id.String(), before, fields{"status": status}
	if err := Audit(ctx, tx, entry); err != nil {
		return err
	}
	events := []Event{{
		Type: "invoice." + status, SubscriptionID: i.subscription, CustomerID: i.customer, OccurredAt: act.Now,
		Data: fields{
			"invoice_id": i.id, "subscription": i.name, "period_no": i.no, "amount_minor": i.amount.Minor, "currency": i.amount.Currency,
			"reason": act.Reason,
		},
	}}
	if status == InvoiceVoid {
		recovered, err := i.recover(ctx, tx, act)
		if err != nil {
			return err
		}
		events = append(events, recovered...)
	}
	return WriteEvents(ctx, tx, events)
}

// mayGiveUp says why the invoice may not be given up.
func (i givenUp) mayGiveUp(status string, open, payment *string, armedAt, now time.Time) error {
	patient := status == InvoiceUncollectible && i.status == InvoiceReview && open != nil && AttemptState(*open) == AttemptReview &&
		now.Sub(armedAt) > PatienceWithProvider
	switch {
	case i.status == status:
		return refused("invoice %s is %s already", i.id, i.status)
	case i.status != InvoiceOpen && i.status != InvoiceReview:
		return refused("invoice %s is %s, and that is final", i.id, i.status)
	case open != nil && AttemptState(*open) == AttemptNeedsAction:
		return refused("invoice %s: the customer may still authorise the attempt, and the money would belong to nothing; wait until it has an outcome", i.id)
	case open != nil && !patient:
		return refused("invoice %s: the outcome of its last attempt is not known, and money may be on its way: singil reconcile %s --reason ... first", i.id, i.id)
	case i.status == InvoiceOpen && orZero(i.held).After(now):
		return refused("invoice %s: the customer has the payment page open until %s, and may be paying now; it passes by itself", i.id, rfc3339(*i.held))
	case payment != nil:
		return refused("invoice %s: the provider holds payment %s for it; refund that first, or leave the invoice as it is", i.id, *payment)
	}
	return nil
}

// recover makes a subscription active again that has nothing left to pay.
func (i givenUp) recover(ctx context.Context, tx pgx.Tx, act Act) (events []Event, err error) {
	rows, err := tx.Query(ctx, sqlWriteRecovered, []uuid.UUID{i.subscription})
	if err != nil {
		return nil, fmt.Errorf("recover subscription %s: %w", i.name, err)
	}
	var subscription, customer uuid.UUID
	var name string
	_, err = pgx.ForEachRow(rows, []any{&subscription, &customer, &name}, func() error {
		events = append(events, Event{
			Type: "subscription." + SubscriptionActive, SubscriptionID: subscription, CustomerID: customer, OccurredAt: act.Now,
			Data: fields{"subscription": name, "status": SubscriptionActive},
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("recover subscription %s: %w", i.name, err)
	}
	return events, nil
}
