package paymongo

import (
	"context"
	"errors"
	"net/http"
)

// RefundsService gives money back.
type RefundsService service

// RefundStatus is the state of a refund.
type RefundStatus string

// The states of a refund.
const (
	RefundStatusPending    RefundStatus = "pending"
	RefundStatusProcessing RefundStatus = "processing"
	RefundStatusSucceeded  RefundStatus = "succeeded"
	RefundStatusFailed     RefundStatus = "failed"
)

// RefundReason is why a payment is refunded.
type RefundReason string

// The reasons PayMongo takes.
const (
	RefundReasonDuplicate           RefundReason = "duplicate"
	RefundReasonFraudulent          RefundReason = "fraudulent"
	RefundReasonRequestedByCustomer RefundReason = "requested_by_customer"
	RefundReasonOthers              RefundReason = "others"
)

// Refund is money given back, all of a payment or a part of it.
type Refund struct {
	ID                   string       `json:"id"`
	Status               RefundStatus `json:"status"`
	Amount               int64        `json:"amount"` // centavos
	Currency             string       `json:"currency"`
	PaymentID            string       `json:"payment_id"`
	PayoutID             string       `json:"payout_id"`
	BalanceTransactionID string       `json:"balance_transaction_id"`
	Reason               RefundReason `json:"reason"`
	Notes                string       `json:"notes"`
	Livemode             bool         `json:"livemode"`
	Metadata             Metadata     `json:"metadata"`
	AvailableAt          Timestamp    `json:"available_at"`
	RefundedAt           Timestamp    `json:"refunded_at"`
	CreatedAt            Timestamp    `json:"created_at"`
	UpdatedAt            Timestamp    `json:"updated_at"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object. A refund without a status is an error.
func (r *Refund) UnmarshalJSON(data []byte) error {
	type plain Refund
	if err := decodeResource(data, "refund", (*plain)(r), &r.ID); err != nil {
		return err
	}
	if r.Status == "" {
		return errors.New("the refund has no status")
	}
	return nil
}

func (r *Refund) resourceID() string { return r.ID }

// RefundCreateParams describe a refund.
type RefundCreateParams struct {
	Amount    int64        `json:"amount"`     // centavos, at least 100 by the documentation
	PaymentID string       `json:"payment_id"` // pay_...
	Reason    RefundReason `json:"reason"`
	Notes     string       `json:"notes,omitempty"` // at most 255 characters
	Metadata  Metadata     `json:"metadata,omitempty"`

	IdempotencyKey string `json:"-"`
}

// RefundListParams select a page of refunds.
type RefundListParams = ListParams

// RefundList is a page of refunds.
type RefundList = List[Refund]

// Create refunds a payment. After an error whose verdict is unknown, look for
// the refund in the payment before asking again: two refunds of one payment are possible.
func (s *RefundsService) Create(ctx context.Context, params *RefundCreateParams) (*Refund, error) {
	p := orZero(params)
	k := call{
		op: "refunds.create", method: http.MethodPost, path: []string{"refunds"},
		attributes: p, key: p.IdempotencyKey,
	}
	switch {
	case p.Amount <= 0:
		k.fault = "Amount must be positive, in centavos"
	case !isID(p.PaymentID):
		k.fault = "PaymentID must be an id, pay_..."
	}
	return send[Refund](ctx, s.client, k)
}

// Retrieve returns a refund.
func (s *RefundsService) Retrieve(ctx context.Context, id string) (*Refund, error) {
	return send[Refund](ctx, s.client, call{
		op: "refunds.retrieve", method: http.MethodGet, path: []string{"refunds", id}, wantID: id,
	})
}

// List returns a page of refunds.
func (s *RefundsService) List(ctx context.Context, params *RefundListParams) (*RefundList, error) {
	query, fault := params.query()
	return send[RefundList](ctx, s.client, call{
		op: "refunds.list", method: http.MethodGet, path: []string{"refunds"}, query: query, fault: fault,
	})
}
