package paymongo

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

// PaymentMethodsService creates and reads payment methods.
type PaymentMethodsService service

// PaymentMethod is a card, an e-wallet or another way to pay.
type PaymentMethod struct {
	ID        string                `json:"id"`
	Type      string                `json:"type"` // card, gcash, paymaya, ...
	Details   *PaymentMethodDetails `json:"details"`
	Billing   *Billing              `json:"billing"`
	Livemode  bool                  `json:"livemode"`
	Metadata  Metadata              `json:"metadata"`
	CreatedAt Timestamp             `json:"created_at"`
	UpdatedAt Timestamp             `json:"updated_at"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object.
func (m *PaymentMethod) UnmarshalJSON(data []byte) error {
	type plain PaymentMethod
	return decodeResource(data, "payment_method", (*plain)(m), &m.ID)
}

func (m *PaymentMethod) resourceID() string { return m.ID }

// PaymentMethodDetails are the details of a card. E-wallets have none.
type PaymentMethodDetails struct {
	Last4    string `json:"last4"`
	ExpMonth int    `json:"exp_month"`
	ExpYear  int    `json:"exp_year"`
	Brand    string `json:"brand"`        // of saved payment methods only
	CVC      Secret `json:"cvc,omitzero"` // echoed by the test mode of 2020; later sources have none
}

// UnmarshalJSON reads an object, ignoring parts of another shape.
func (d *PaymentMethodDetails) UnmarshalJSON(data []byte) error {
	type plain PaymentMethodDetails
	return ignoreTypeErrors(json.Unmarshal(data, (*plain)(d)))
}

// CardDetails are the details of a card to be created. Whoever fills them in
// handles card data, with all that PCI DSS asks for.
type CardDetails struct {
	Number   Secret
	ExpMonth int
	ExpYear  int // four digits
	CVC      Secret
}

// PaymentMethodCreateParams describe a new payment method.
type PaymentMethodCreateParams struct {
	Type     string       // required: card, gcash, paymaya, ...
	Details  *CardDetails // required for a card
	Billing  *Billing
	Metadata Metadata

	IdempotencyKey string
}

// PaymentMethodUpdateCVCParams carry the CVC of a saved card, which PayMongo
// asks for before an on-session charge.
type PaymentMethodUpdateCVCParams struct {
	CVC Secret

	IdempotencyKey string
}

// Create creates a payment method. It authorises nothing. A public key will do.
func (s *PaymentMethodsService) Create(ctx context.Context, params *PaymentMethodCreateParams) (*PaymentMethod, error) {
	p := orZero(params)
	type details struct {
		Number   string `json:"card_number"`
		ExpMonth int    `json:"exp_month"`
		ExpYear  int    `json:"exp_year"`
		CVC      string `json:"cvc"`
	}
	wire := struct {
		Type     string   `json:"type"`
		Details  *details `json:"details,omitempty"`
		Billing  any      `json:"billing,omitempty"`
		Metadata Metadata `json:"metadata,omitempty"`
	}{Type: p.Type, Billing: p.Billing.wire(), Metadata: p.Metadata}
	if d := p.Details; d != nil {
		wire.Details = &details{d.Number.Reveal(), d.ExpMonth, d.ExpYear, d.CVC.Reveal()}
	}
	k := call{
		op: "payment_methods.create", method: http.MethodPost, path: []string{"payment_methods"},
		attributes: wire, key: p.IdempotencyKey, publicKey: true,
	}
	if p.Type == "" {
		k.fault = "a payment method needs a Type, such as card"
	}
	return send[PaymentMethod](ctx, s.client, k)
}

// Retrieve returns a payment method.
func (s *PaymentMethodsService) Retrieve(ctx context.Context, id string) (*PaymentMethod, error) {
	return send[PaymentMethod](ctx, s.client, call{
		op: "payment_methods.retrieve", method: http.MethodGet, path: []string{"payment_methods", id}, wantID: id,
	})
}

// UpdateCVC sends the CVC of a saved card, in the way chosen by [WithPaymentMethodUpdate].
func (s *PaymentMethodsService) UpdateCVC(ctx context.Context, id string, params *PaymentMethodUpdateCVCParams) (*PaymentMethod, error) {
	p := orZero(params)
	method, place, _ := strings.Cut(string(s.client.pmUpdate), " ")
	details := map[string]any{"cvc": p.CVC.Reveal()}
	if place == "details.card.cvc" {
		details = map[string]any{"card": details}
	}
	k := call{
		op: "payment_methods.update_cvc", method: method, path: []string{"payment_methods", id},
		attributes: map[string]any{"details": details}, key: p.IdempotencyKey, wantID: id,
	}
	if p.CVC.IsZero() {
		k.fault = "the CVC is empty"
	}
	return send[PaymentMethod](ctx, s.client, k)
}
