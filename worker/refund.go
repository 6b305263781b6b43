package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
)

// RefundGateway is what a refund needs of the provider.
type RefundGateway interface {
	RefundsOf(ctx context.Context, payment string) (list []ListedRefund, amountMinor int64, err error)
	GiveBack(ctx context.Context, r billing.Refund, reason, notes string) (id string, known bool, err error)
}

// Refunder gives money back, as an operator asks for it.
type Refunder struct {
	Pool    *pgxpool.Pool
	Gateway RefundGateway
	Now     func() time.Time // the real clock
}

// refundSettled is how long after it was asked for a refund may still be executed.
const refundSettled = billing.SettlePeriod

// Refund gives money of a payment back: written down, committed, sent once, and
// what came of it written down. An answer that is not known leaves it asked for,
// without an error: Look finds out. reason is one of RefundReasons.
func (r Refunder) Refund(ctx context.Context, request billing.RefundRequest, reason string) (billing.Refund, error) {
	if request.AmountMinor != 0 && request.AmountMinor < minRefund {
		return billing.Refund{}, &billing.RefusedError{Reason: fmt.Sprintf("PayMongo gives back %s at the least",
			billing.Money{Minor: minRefund, Currency: billing.CurrencyPHP}.Display())}
	}
	var refund billing.Refund
	err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) (err error) {
		refund, err = billing.AskRefund(ctx, tx, request)
		return err
	})
	if err != nil {
		return billing.Refund{}, err // if the commit was not acknowledged, nothing is sent
	}
	// From here on an interrupt waits for the answer.
	ctx = context.WithoutCancel(ctx)
	shown, amount, err := r.Gateway.RefundsOf(ctx, refund.Payment)
	if err != nil {
		return r.close(ctx, refund, billing.RefundRefused, "", "not sent: the payment could not be looked at first", request.Act, err)
	}
	for _, other := range shown {
		if !other.Failed {
			amount -= other.AmountMinor
		}
	}
	if refund.AmountMinor > amount {
		return r.close(ctx, refund, billing.RefundRefused, "", fmt.Sprintf("not sent: PayMongo shows %d centavos left of the payment", amount), request.Act, nil)
	}
	id, known, err := r.Gateway.GiveBack(ctx, refund, reason, request.Reason)
	switch {
	case err == nil:
		return r.close(ctx, refund, billing.RefundAccepted, id, "", request.Act, nil)
	case known:
		return r.close(ctx, refund, billing.RefundRefused, "", err.Error(), request.Act, nil)
	}
	return refund, nil
}

// Look finds out what became of a refund whose answer was lost. It is accepted
// when PayMongo shows it; refused when PayMongo does not, long after it was sent;
// until then it stays asked for.
func (r Refunder) Look(ctx context.Context, payment string, act billing.Act) (billing.Refund, error) {
	known, err := billing.RefundsOf(ctx, r.Pool, payment)
	if err != nil {
		return billing.Refund{}, err
	}
	if len(known) == 0 {
		return billing.Refund{}, fmt.Errorf("a refund of payment %.40q: %w", payment, billing.ErrNotFound)
	}
	refund := known[0]
	for _, k := range known {
		if k.State == billing.RefundAsked {
			refund = k
		}
	}
	if refund.State != billing.RefundAsked {
		return refund, nil
	}
	shown, _, err := r.Gateway.RefundsOf(ctx, payment)
	if err != nil {
		return refund, err
	}
	for _, s := range shown {
		if s.Ours == refund.ID && s.ID != "" {
			return r.close(ctx, refund, billing.RefundAccepted, s.ID, "found at PayMongo", act, nil)
		}
	}
	for _, s := range shown {
		// Metadata may get lost; a refund that nobody marked may be it.
		if s.Ours == uuid.Nil && s.AmountMinor == refund.AmountMinor && !s.Failed && !claimed(known, s.ID) {
			return refund, &billing.RefusedError{Reason: fmt.Sprintf("PayMongo shows refund %s of the same amount without our mark: look in its dashboard whose it is", s.ID)}
		}
	}
	if r.Now().Sub(refund.AskedAt.Time) < refundSettled {
		return refund, nil
	}
	return r.close(ctx, refund, billing.RefundRefused, "", "PayMongo does not show it, long after it was sent", act, nil)
}

func claimed(known []billing.Refund, provider string) bool {
	for _, k := range known {
		if k.Provider != nil && *k.Provider == provider {
			return true
		}
	}
	return false
}

func (r Refunder) close(ctx context.Context, refund billing.Refund, state, provider, result string, act billing.Act, cause error) (billing.Refund, error) {
	err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) error {
		return billing.CloseRefund(ctx, tx, refund, state, provider, result, act)
	})
	if err != nil {
		return refund, errors.Join(err, cause) // it stays asked for; Look finds out
	}
	refund.State, refund.Result = state, &result
	if provider != "" {
		refund.Provider = &provider
	}
	return refund, cause
}
