package paymongo

import (
	"context"
	"net/http"
)

// CheckoutSessionsService makes pages hosted by PayMongo on which a payer pays.
type CheckoutSessionsService service

// CheckoutSessionStatus is the state of a session. A paid session stays active:
// look at PaidAt, Payments and PaymentIntent.
type CheckoutSessionStatus string

// The states of a session.
const (
	CheckoutSessionStatusActive  CheckoutSessionStatus = "active"
	CheckoutSessionStatusExpired CheckoutSessionStatus = "expired"
)

// CheckoutSession is a page on which a payer pays.
type CheckoutSession struct {
	ID     string                `json:"id"`
	Status CheckoutSessionStatus `json:"status"`
	// CheckoutURL is where to send the payer. It ends in the client key, so it
	// is a secret too: reveal it to the payer only.
	CheckoutURL                      Secret         `json:"checkout_url,omitzero"`
	ClientKey                        Secret         `json:"client_key,omitzero"`
	LineItems                        []LineItem     `json:"line_items"`
	PaymentIntent                    *PaymentIntent `json:"payment_intent"`
	Payments                         []*Payment     `json:"payments"`
	PaymentMethodTypes               []string       `json:"payment_method_types"`
	PaymentMethodUsed                string         `json:"payment_method_used"`
	Billing                          *Billing       `json:"billing"`
	BillingInformationFieldsEditable string         `json:"billing_information_fields_editable"` // such as enabled
	CustomerEmail                    string         `json:"customer_email"`
	Merchant                         string         `json:"merchant"`
	Description                      string         `json:"description"`
	ReferenceNumber                  string         `json:"reference_number"`
	SuccessURL                       string         `json:"success_url"`
	CancelURL                        string         `json:"cancel_url"`
	SendEmailReceipt                 bool           `json:"send_email_receipt"`
	ShowDescription                  bool           `json:"show_description"`
	ShowLineItems                    bool           `json:"show_line_items"`
	Livemode                         bool           `json:"livemode"`
	Metadata                         Metadata       `json:"metadata"`
	PaidAt                           Timestamp      `json:"paid_at"`
	CreatedAt                        Timestamp      `json:"created_at"`
	UpdatedAt                        Timestamp      `json:"updated_at"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object.
func (s *CheckoutSession) UnmarshalJSON(data []byte) error {
	type plain CheckoutSession
	if err := decodeResource(data, "checkout_session", (*plain)(s), &s.ID); err != nil {
		return err
	}
	return noNull(s.Payments)
}

func (s *CheckoutSession) resourceID() string { return s.ID }

// LineItem is one thing to pay for.
type LineItem struct {
	Name        string   `json:"name"`
	Amount      int64    `json:"amount"`   // centavos, of one
	Currency    string   `json:"currency"` // PHP
	Quantity    int64    `json:"quantity"`
	Description string   `json:"description,omitempty"`
	Images      []string `json:"images,omitempty"` // URLs
}

// CheckoutSessionCreateParams describe a new session.
type CheckoutSessionCreateParams struct {
	LineItems          []LineItem
	PaymentMethodTypes []string // required: card, gcash, ...
	SuccessURL         string
	CancelURL          string
	Description        string
	ReferenceNumber    string
	Billing            *Billing
	SendEmailReceipt   bool
	ShowDescription    bool
	ShowLineItems      bool
	Metadata           Metadata

	IdempotencyKey string
}

// CheckoutSessionExpireParams expire a session.
type CheckoutSessionExpireParams struct {
	IdempotencyKey string `json:"-"`
}

// Create creates a session. Do not count on the idempotency key here: repeating
// a creation with the same key is reported to have made a second session.
func (s *CheckoutSessionsService) Create(ctx context.Context, params *CheckoutSessionCreateParams) (*CheckoutSession, error) {
	p := orZero(params)
	k := call{
		op: "checkout_sessions.create", method: http.MethodPost, path: []string{"checkout_sessions"},
		attributes: struct {
			LineItems          []LineItem `json:"line_items"`
			PaymentMethodTypes []string   `json:"payment_method_types"`
			SuccessURL         string     `json:"success_url,omitempty"`
			CancelURL          string     `json:"cancel_url,omitempty"`
			Description        string     `json:"description,omitempty"`
			ReferenceNumber    string     `json:"reference_number,omitempty"`
			Billing            any        `json:"billing,omitempty"`
			SendEmailReceipt   bool       `json:"send_email_receipt"`
			ShowDescription    bool       `json:"show_description"`
			ShowLineItems      bool       `json:"show_line_items"`
			Metadata           Metadata   `json:"metadata,omitempty"`
		}{
			p.LineItems, p.PaymentMethodTypes, p.SuccessURL, p.CancelURL, p.Description, p.ReferenceNumber,
			p.Billing.wire(), p.SendEmailReceipt, p.ShowDescription, p.ShowLineItems, p.Metadata,
		},
		key: p.IdempotencyKey,
	}
	if len(p.LineItems) == 0 || len(p.PaymentMethodTypes) == 0 {
		k.fault = "a checkout session needs LineItems and PaymentMethodTypes"
	}
	for _, item := range p.LineItems {
		if item.Amount <= 0 || item.Quantity <= 0 {
			k.fault = "a line item needs a positive Amount, in centavos, and a positive Quantity"
		}
	}
	return send[CheckoutSession](ctx, s.client, k)
}

// Retrieve returns a session.
func (s *CheckoutSessionsService) Retrieve(ctx context.Context, id string) (*CheckoutSession, error) {
	return send[CheckoutSession](ctx, s.client, call{
		op: "checkout_sessions.retrieve", method: http.MethodGet, path: []string{"checkout_sessions", id}, wantID: id,
	})
}

// Expire closes a session. PayMongo then cancels its payment intent.
func (s *CheckoutSessionsService) Expire(ctx context.Context, id string, params *CheckoutSessionExpireParams) (*CheckoutSession, error) {
	return send[CheckoutSession](ctx, s.client, call{
		op: "checkout_sessions.expire", method: http.MethodPost, path: []string{"checkout_sessions", id, "expire"},
		key: orZero(params).IdempotencyKey, wantID: id,
	})
}
