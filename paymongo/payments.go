package paymongo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
)

// PaymentsService reads payments.
type PaymentsService service

// PaymentStatus is the state of a payment. Whether it was refunded stands in
// Refunds, not here.
type PaymentStatus string

// The states of a payment.
const (
	PaymentStatusPending PaymentStatus = "pending"
	PaymentStatusPaid    PaymentStatus = "paid"
	PaymentStatusFailed  PaymentStatus = "failed"
)

// Payment is money that was taken, or a try to take it that failed. Amounts are centavos.
type Payment struct {
	ID                      string          `json:"id"`
	Status                  PaymentStatus   `json:"status"`
	Amount                  int64           `json:"amount"`
	Fee                     int64           `json:"fee"`
	ForeignFee              int64           `json:"foreign_fee"`
	NetAmount               int64           `json:"net_amount"`
	TaxAmount               int64           `json:"tax_amount"`
	DigitalWithholdingVAT   int64           `json:"digital_withholding_vat_amount"`
	Taxes                   []Tax           `json:"taxes"`
	Currency                string          `json:"currency"`
	PaymentIntentID         string          `json:"payment_intent_id"`
	Source                  *PaymentSource  `json:"source"`
	FailedCode              string          `json:"failed_code"`
	FailedMessage           string          `json:"failed_message"`
	Refunds                 []*Refund       `json:"refunds"`
	Disputed                bool            `json:"disputed"`
	Billing                 *Billing        `json:"billing"`
	Description             string          `json:"description"`
	StatementDescriptor     string          `json:"statement_descriptor"`
	ExternalReferenceNumber string          `json:"external_reference_number"`
	BalanceTransactionID    string          `json:"balance_transaction_id"`
	AccessURL               string          `json:"access_url"`
	Origin                  string          `json:"origin"` // api, links, ...
	Livemode                bool            `json:"livemode"`
	Metadata                Metadata        `json:"metadata"`
	Payout                  json.RawMessage `json:"payout"`             // null in every recording
	Promotion               json.RawMessage `json:"promotion"`          // null in every recording
	InstantSettlement       json.RawMessage `json:"instant_settlement"` // null in every recording
	AvailableAt             Timestamp       `json:"available_at"`
	CreatedAt               Timestamp       `json:"created_at"`
	CreditedAt              Timestamp       `json:"credited_at"`
	PaidAt                  Timestamp       `json:"paid_at"` // set on failed payments too: only Status says paid
	UpdatedAt               Timestamp       `json:"updated_at"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object. A payment without a status is an error.
func (p *Payment) UnmarshalJSON(data []byte) error {
	if usual := readUsualPayment(data); usual != nil {
		*p = *usual
		return nil
	}
	if err := decodeResource(data, "payment", (*plainPayment)(p), &p.ID); err != nil {
		return err
	}
	return p.check()
}

// check refuses what is no payment, and makes its texts safe to print.
func (p *Payment) check() error {
	if p.Status == "" {
		return errors.New("the payment has no status")
	}
	// Why a payment failed is told on, in logs and to people, as the text of an error is.
	p.FailedCode, p.FailedMessage = clean(p.FailedCode), clean(p.FailedMessage)
	return noNull(p.Refunds)
}

func (p *Payment) resourceID() string { return p.ID }

// Tax is one tax on a payment.
type Tax struct {
	Amount    int64  `json:"amount"` // centavos
	Currency  string `json:"currency"`
	Inclusive bool   `json:"inclusive"`
	Name      string `json:"name"`
	Type      string `json:"type"`
	Value     string `json:"value"` // such as 1200_bps
}

// PaymentSource is what was charged.
type PaymentSource struct {
	ID         string           `json:"id"`
	Type       string           `json:"type"` // card, gcash, qrph, ...
	Brand      string           `json:"brand"`
	Country    string           `json:"country"`
	Last4      string           `json:"last4"`
	Provider   *PaymentProvider `json:"provider"`
	ProviderID string           `json:"provider_id"`
}

// PaymentProvider is the institution behind a source.
type PaymentProvider struct {
	ID     string `json:"id"`
	CodeID string `json:"code_id"`
}

// UnmarshalJSON reads an object, ignoring parts of another shape.
func (s *PaymentSource) UnmarshalJSON(data []byte) error {
	type plain PaymentSource
	return ignoreTypeErrors(json.Unmarshal(data, (*plain)(s)))
}

// PaymentListParams select a page of payments.
type PaymentListParams = ListParams

// PaymentList is a page of payments, newest first.
type PaymentList = List[Payment]

// Retrieve returns a payment.
func (s *PaymentsService) Retrieve(ctx context.Context, id string) (*Payment, error) {
	return send[Payment](ctx, s.client, call{
		op: "payments.retrieve", method: http.MethodGet, path: []string{"payments", id}, wantID: id,
	})
}

// List returns a page of payments.
func (s *PaymentsService) List(ctx context.Context, params *PaymentListParams) (*PaymentList, error) {
	query, fault := params.query()
	return send[PaymentList](ctx, s.client, call{
		op: "payments.list", method: http.MethodGet, path: []string{"payments"}, query: query, fault: fault,
	})
}

// All yields the payments of all pages from params on, 100 a page unless Limit
// says otherwise; Before must be empty. It ends after the first error, and an
// answer that would make it walk in circles is one.
func (s *PaymentsService) All(ctx context.Context, params *PaymentListParams) iter.Seq2[*Payment, error] {
	const op = "payments.list"
	return func(yield func(*Payment, error) bool) {
		p := orZero(params)
		if p.Before != "" {
			yield(nil, refuse(op, reasonBadParams, "All walks by After; Before must be empty"))
			return
		}
		if p.Limit == 0 {
			p.Limit = 100
		}
		seen := map[string]bool{p.After: true}
		for {
			page, err := s.List(ctx, &p)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, payment := range page.Data {
				if !yield(payment, nil) {
					return
				}
			}
			if !page.HasMore {
				return
			}
			last := ""
			if n := len(page.Data); n > 0 {
				last = page.Data[n-1].ID
			}
			if seen[last] || last == "" {
				yield(nil, &CallError{Op: op, StatusCode: http.StatusOK, Verdict: VerdictUnknown, Reason: reasonUndecodable,
					Err: fmt.Errorf("the page after %q says there is more but does not lead on", p.After)})
				return
			}
			seen[last] = true
			p.After = last
		}
	}
}
