package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// RefundRequest asks to give money of a payment back.
type RefundRequest struct {
	Payment     string
	AmountMinor int64 // 0: all that is left
	// Again allows what looks like a double click: the same amount of the same
	// payment within refundRest.
	Again bool
	Act
}

// Refund is a refund on record. Committed, it may be sent, once, with its id as
// the Idempotency-Key.
type Refund struct {
	ID          uuid.UUID `json:"id"`
	Payment     string    `json:"payment"`
	AmountMinor int64     `json:"amount_minor"`
	Currency    Currency  `json:"currency"`
	State       string    `json:"state"` // asked, accepted or refused
	Provider    *string   `json:"paymongo_refund_id"`
	Result      *string   `json:"result"`
	AskedAt     Stamp     `json:"asked_at"`
}

// The states of a refund.
const (
	RefundAsked    = "asked" // the provider's answer is not known
	RefundAccepted = "accepted"
	RefundRefused  = "refused" // it does not exist at the provider
)

// refundRest is how long the same refund again is taken for a double click.
const refundRest = 15 * time.Minute

const sqlRefundPayment = `
SELECT p.status, p.amount_minor, p.currency, p.refunded_minor, clock_timestamp()
FROM singil.payments p
WHERE p.payment_id = $1
FOR UPDATE`

const sqlRefunds = `
SELECT r.id, r.payment_id, r.amount_minor, r.currency, r.state, r.provider_refund_id, r.result, r.asked_at
FROM singil.refunds r
WHERE r.payment_id = $1
ORDER BY r.asked_at DESC`

const sqlAskRefund = `
INSERT INTO singil.refunds (id, payment_id, amount_minor, currency) VALUES ($1, $2, $3, $4)`

// AskRefund writes a refund down that is about to be sent. It is durable when tx
// commits, and must be before it is sent. A payment that is not on record is
// ErrNotFound; more than is left of it, a second one before the first has an
// answer, and the same again shortly after are a *RefusedError.
func AskRefund(ctx context.Context, tx pgx.Tx, r RefundRequest) (Refund, error) {
	if !storable(r.Payment) {
		return Refund{}, fmt.Errorf("payment %q: %w", clip(r.Payment), ErrNotFound)
	}
	var status string
	var paid Money
	var seen int64
	var now time.Time
	switch err := tx.QueryRow(ctx, sqlRefundPayment, r.Payment).Scan(&status, &paid.Minor, &paid.Currency, &seen, &now); {
	case errors.Is(err, pgx.ErrNoRows):
		return Refund{}, fmt.Errorf("payment %q: %w", clip(r.Payment), ErrNotFound)
	case err != nil:
		return Refund{}, fmt.Errorf("lock payment %s: %w", r.Payment, err)
	}
	if status != "paid" {
		return Refund{}, refused("payment %s is %s, there is nothing to give back", r.Payment, status)
	}
	earlier, err := RefundsOf(ctx, tx, r.Payment)
	if err != nil {
		return Refund{}, err
	}
	var given int64
	for _, e := range earlier {
		switch {
		case e.State == RefundAsked:
			return Refund{}, refused("a refund of %s was asked for at %s and its answer is not known: singil refund %s --look tells what became of it",
				Money{e.AmountMinor, paid.Currency}.Display(), rfc3339(e.AskedAt.Time), r.Payment)
		case e.State == RefundRefused:
			continue
		case e.AmountMinor == r.AmountMinor && !r.Again && now.Sub(e.AskedAt.Time) < refundRest:
			return Refund{}, refused("%s of payment %s were given back at %s already; --again gives them a second time",
				Money{e.AmountMinor, paid.Currency}.Display(), r.Payment, rfc3339(e.AskedAt.Time))
		}
		given += e.AmountMinor
	}
	// What was given back elsewhere, in PayMongo's dashboard, webhooks tell.
	left := Money{paid.Minor - max(given, seen), paid.Currency}
	amount := Money{r.AmountMinor, paid.Currency}
	if amount.Minor == 0 {
		amount = left
	}
	if amount.Minor < 1 || amount.Minor > left.Minor {
		return Refund{}, refused("%s of payment %s cannot be given back: %s of %s are left", amount.Display(), r.Payment, left.Display(), paid.Display())
	}
	refund := Refund{ID: newID(), Payment: r.Payment, AmountMinor: amount.Minor, Currency: amount.Currency, State: RefundAsked, AskedAt: Stamp{now.UTC()}}
	if _, err := tx.Exec(ctx, sqlAskRefund, refund.ID, refund.Payment, refund.AmountMinor, refund.Currency); err != nil {
		return Refund{}, fmt.Errorf("write a refund of %s down: %w", r.Payment, err)
	}
	return refund, Audit(ctx, tx, AuditEntry{
		Actor: r.Actor, Action: "refund_payment", Subject: r.Payment, Reason: r.Reason,
		Before: fields{"refunded_minor": max(given, seen), "amount_minor": paid.Minor},
		After:  fields{"refund": refund.ID, "amount_minor": refund.AmountMinor, "state": RefundAsked},
	})
}

// RefundsOf are the refunds of a payment that were asked for here, newest first.
func RefundsOf(ctx context.Context, q Querier, payment string) ([]Refund, error) {
	if !storable(payment) {
		return []Refund{}, nil
	}
	return browse[Refund](ctx, q, "refunds", sqlRefunds, payment)
}

const sqlCloseRefund = `
UPDATE singil.refunds
SET state = $2, provider_refund_id = NULLIF($3, ''), result = NULLIF($4, ''), closed_at = clock_timestamp()
WHERE id = $1 AND state = 'asked'`

// CloseRefund writes down what became of a refund that was sent. One that has an
// answer already keeps it.
func CloseRefund(ctx context.Context, tx pgx.Tx, r Refund, state, provider, result string, act Act) error {
	tag, err := tx.Exec(ctx, sqlCloseRefund, r.ID, state, provider, result)
	if err != nil {
		return fmt.Errorf("close refund %s: %w", r.ID, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return Audit(ctx, tx, AuditEntry{
		Actor: act.Actor, Action: "refund_payment", Subject: r.Payment, Reason: act.Reason,
		Before: fields{"refund": r.ID, "state": RefundAsked}, After: fields{"refund": r.ID, "state": state, "paymongo_refund_id": provider, "result": result},
	})
}
