package paymongo

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// PaymentIntentsService takes money. See the states in [PaymentIntentStatus].
type PaymentIntentsService service

// PaymentIntentStatus is the state of a payment intent. A value that is not
// among the constants is kept as it came. There is no "failed": a declined
// attach goes back to awaiting_payment_method.
type PaymentIntentStatus string

// The states of a payment intent. Succeeded and cancelled are final.
const (
	PaymentIntentStatusAwaitingPaymentMethod PaymentIntentStatus = "awaiting_payment_method"
	PaymentIntentStatusAwaitingNextAction    PaymentIntentStatus = "awaiting_next_action" // the payer must act, see NextAction
	PaymentIntentStatusProcessing            PaymentIntentStatus = "processing"           // ask again later; no duration is documented
	PaymentIntentStatusAwaitingCapture       PaymentIntentStatus = "awaiting_capture"     // capture_type manual; the hold lasts 7 days
	PaymentIntentStatusSucceeded             PaymentIntentStatus = "succeeded"
	PaymentIntentStatusCancelled             PaymentIntentStatus = "cancelled"
)

// CaptureType says when the money is taken.
type CaptureType string

// The capture types.
const (
	CaptureTypeAutomatic CaptureType = "automatic"
	CaptureTypeManual    CaptureType = "manual"
)

// PaymentIntent is the intention to take an amount once, however many payment
// methods that needs.
type PaymentIntent struct {
	ID                   string                `json:"id"`
	Amount               int64                 `json:"amount"`          // centavos
	OriginalAmount       int64                 `json:"original_amount"` // centavos; zero in answers before 2025
	Currency             string                `json:"currency"`
	Status               PaymentIntentStatus   `json:"status"`
	ClientKey            Secret                `json:"client_key,omitzero"`
	CaptureType          CaptureType           `json:"capture_type"`
	Description          string                `json:"description"`
	StatementDescriptor  string                `json:"statement_descriptor"`
	Livemode             bool                  `json:"livemode"`
	LastPaymentError     *LastPaymentError     `json:"last_payment_error"` // null in samples although a payment failed: see Payments
	NextAction           *NextAction           `json:"next_action"`
	PaymentMethodAllowed []string              `json:"payment_method_allowed"`
	PaymentMethodOptions *PaymentMethodOptions `json:"payment_method_options"`
	Payments             []*Payment            `json:"payments"` // failed ones too
	SetupFutureUsage     *SetupFutureUsage     `json:"setup_future_usage"`
	Metadata             Metadata              `json:"metadata"`
	CreatedAt            Timestamp             `json:"created_at"`
	UpdatedAt            Timestamp             `json:"updated_at"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object. An intent without a status is an error.
func (p *PaymentIntent) UnmarshalJSON(data []byte) error {
	if usual := readUsualIntent(data); usual != nil {
		*p = *usual
		return nil
	}
	if err := decodeResource(data, "payment_intent", (*plainIntent)(p), &p.ID); err != nil {
		return err
	}
	return p.check()
}

func (p *PaymentIntent) check() error {
	if p.Status == "" {
		return errors.New("the payment intent has no status")
	}
	return noNull(p.Payments)
}

func (p *PaymentIntent) resourceID() string { return p.ID }

// PaidPayment returns the payment that took the money, or nil. Any paid payment
// means paid, whatever failed before or after it.
func (p *PaymentIntent) PaidPayment() *Payment {
	for _, payment := range p.Payments {
		if payment.Status == PaymentStatusPaid {
			return payment
		}
	}
	return nil
}

// LatestPayment returns the payment created last, or nil if there is none. Of
// several created in the same second it is the last in PayMongo's order.
func (p *PaymentIntent) LatestPayment() *Payment {
	var latest *Payment
	for _, payment := range p.Payments {
		if latest == nil || !payment.CreatedAt.Before(latest.CreatedAt.Time) {
			latest = payment
		}
	}
	return latest
}

// FailedSince returns the latest payment if it failed and was created at t or
// later, or nil. PayMongo's times are whole seconds by PayMongo's clock, so t is
// taken down to its second; a failure that was there before must be told by its id.
func (p *PaymentIntent) FailedSince(t time.Time) *Payment {
	latest := p.LatestPayment()
	if latest == nil || latest.Status != PaymentStatusFailed || latest.CreatedAt.Before(t.Truncate(time.Second)) {
		return nil
	}
	return latest
}

// LastPaymentError is why the latest payment failed. Only documentation shows
// it, so parts of another shape are ignored.
type LastPaymentError struct {
	Payment       string `json:"payment"` // pay_...
	PaymentMethod string `json:"payment_method"`
	FailedCode    string `json:"failed_code"`
	FailedMessage string `json:"failed_message"`
}

// UnmarshalJSON reads an object, ignoring parts of another shape.
func (e *LastPaymentError) UnmarshalJSON(data []byte) error {
	type plain LastPaymentError
	return ignoreTypeErrors(json.Unmarshal(data, (*plain)(e)))
}

// NextAction is what the payer must do.
type NextAction struct {
	Type     string          `json:"type"` // redirect, consume_qr
	Redirect *RedirectAction `json:"redirect"`
	Code     *QRCode         `json:"code"`
}

// RedirectAction sends the payer to the bank or wallet at URL, and then back.
type RedirectAction struct {
	URL       string `json:"url"`
	ReturnURL string `json:"return_url"`
}

// QRCode is shown to the payer. ImageURL is a data: URL.
type QRCode struct {
	ID       string `json:"id"`
	Amount   int64  `json:"amount"` // centavos
	ImageURL string `json:"image_url"`
	Label    string `json:"label"`
}

// UnmarshalJSON reads an object, ignoring parts of another shape.
func (a *NextAction) UnmarshalJSON(data []byte) error {
	type plain NextAction
	return ignoreTypeErrors(json.Unmarshal(data, (*plain)(a)))
}

// PaymentMethodOptions are options per type of payment method.
type PaymentMethodOptions struct {
	Card *CardOptions `json:"card,omitempty"`
}

// CardOptions are the options of cards.
type CardOptions struct {
	RequestThreeDSecure string          `json:"request_three_d_secure,omitempty"` // any or automatic
	Installments        json.RawMessage `json:"installments,omitempty"`           // as PayMongo has it
}

// UnmarshalJSON reads an object, ignoring parts of another shape.
func (o *PaymentMethodOptions) UnmarshalJSON(data []byte) error {
	type plain PaymentMethodOptions
	return ignoreTypeErrors(json.Unmarshal(data, (*plain)(o)))
}

// SetupFutureUsage saves the card for a customer when the payment succeeds.
type SetupFutureUsage struct {
	SessionType SessionType `json:"session_type"`
	CustomerID  string      `json:"customer_id,omitempty"`
}

// UnmarshalJSON reads an object, ignoring parts of another shape.
func (u *SetupFutureUsage) UnmarshalJSON(data []byte) error {
	type plain SetupFutureUsage
	return ignoreTypeErrors(json.Unmarshal(data, (*plain)(u)))
}

// PaymentIntentCreateParams describe a new payment intent.
type PaymentIntentCreateParams struct {
	Amount               int64                 `json:"amount"`                           // centavos; PayMongo's pages give 2000 as the minimum
	Currency             string                `json:"currency"`                         // PHP if empty
	PaymentMethodAllowed []string              `json:"payment_method_allowed,omitempty"` // required: card, gcash, ...
	PaymentMethodOptions *PaymentMethodOptions `json:"payment_method_options,omitempty"`
	Description          string                `json:"description,omitempty"`
	StatementDescriptor  string                `json:"statement_descriptor,omitempty"` // about 11 characters are shown
	CaptureType          CaptureType           `json:"capture_type,omitempty"`         // automatic if empty
	SetupFutureUsage     *SetupFutureUsage     `json:"setup_future_usage,omitempty"`
	Metadata             Metadata              `json:"metadata,omitempty"`

	IdempotencyKey string `json:"-"`
}

// PaymentIntentRetrieveParams make a retrieve possible with a public key.
type PaymentIntentRetrieveParams struct {
	ClientKey Secret
}

// PaymentIntentAttachParams attach a payment method to an intent, which charges it.
type PaymentIntentAttachParams struct {
	PaymentMethod        string // required: pm_...
	ReturnURL            string // where the payer comes back to after 3-D Secure or a wallet
	ClientKey            Secret // required with a public key
	PaymentMethodOptions *PaymentMethodOptions

	// SendBefore is the moment after which the attach must not leave this
	// machine any more; zero for none. It is checked again at the first byte.
	SendBefore     time.Time
	IdempotencyKey string
}

// PaymentIntentCaptureParams take an amount that is held.
type PaymentIntentCaptureParams struct {
	Amount int64 `json:"amount,omitempty"` // centavos; zero for the whole

	IdempotencyKey string `json:"-"`
}

// PaymentIntentCancelParams cancel an intent.
type PaymentIntentCancelParams struct {
	IdempotencyKey string `json:"-"`
}

// Create creates an intent. It moves no money.
func (s *PaymentIntentsService) Create(ctx context.Context, params *PaymentIntentCreateParams) (*PaymentIntent, error) {
	p := orZero(params)
	if p.Currency == "" {
		p.Currency = "PHP"
	}
	k := call{
		op: "payment_intents.create", method: http.MethodPost, path: []string{"payment_intents"},
		attributes: p, key: p.IdempotencyKey,
	}
	switch {
	case p.Amount <= 0:
		k.fault = "Amount must be positive, in centavos"
	case len(p.PaymentMethodAllowed) == 0:
		k.fault = "PaymentMethodAllowed must name a payment method, such as card"
	}
	return send[PaymentIntent](ctx, s.client, k)
}

// Retrieve returns an intent. It is the only way to learn what became of an
// attach whose outcome is unknown, since intents can be neither listed nor
// searched. Params may be nil with a secret key.
func (s *PaymentIntentsService) Retrieve(ctx context.Context, id string, params *PaymentIntentRetrieveParams) (*PaymentIntent, error) {
	p := orZero(params)
	k := call{
		op: "payment_intents.retrieve", method: http.MethodGet, path: []string{"payment_intents", id},
		publicKey: !p.ClientKey.IsZero(), wantID: id,
	}
	if !p.ClientKey.IsZero() {
		k.query = url.Values{"client_key": {p.ClientKey.Reveal()}}
	}
	return send[PaymentIntent](ctx, s.client, k)
}

// Attach attaches a payment method, and so charges it. No error does not mean
// paid: look at Status, for the payer may have to act (awaiting_next_action) or
// the bank to answer (processing). A decline is an *[Error] with
// [Error.Declined]. After an error whose verdict is unknown, retrieve the intent
// before attaching anything else.
func (s *PaymentIntentsService) Attach(ctx context.Context, id string, params *PaymentIntentAttachParams) (*PaymentIntent, error) {
	p := orZero(params)
	k := call{
		op: "payment_intents.attach", method: http.MethodPost, path: []string{"payment_intents", id, "attach"},
		attributes: struct {
			PaymentMethod        string                `json:"payment_method"`
			ReturnURL            string                `json:"return_url,omitempty"`
			ClientKey            string                `json:"client_key,omitempty"`
			PaymentMethodOptions *PaymentMethodOptions `json:"payment_method_options,omitempty"`
		}{p.PaymentMethod, p.ReturnURL, p.ClientKey.Reveal(), p.PaymentMethodOptions},
		key: p.IdempotencyKey, sendBefore: p.SendBefore, wait: s.client.timeouts.Attach,
		publicKey: !p.ClientKey.IsZero(), wantID: id,
	}
	if !isID(p.PaymentMethod) {
		k.fault = "PaymentMethod must be an id, pm_..."
	}
	return send[PaymentIntent](ctx, s.client, k)
}

// Capture takes the money of an intent that awaits capture.
func (s *PaymentIntentsService) Capture(ctx context.Context, id string, params *PaymentIntentCaptureParams) (*PaymentIntent, error) {
	p := orZero(params)
	k := call{
		op: "payment_intents.capture", method: http.MethodPost, path: []string{"payment_intents", id, "capture"},
		attributes: p, key: p.IdempotencyKey, wantID: id,
	}
	if p.Amount < 0 {
		k.fault = "Amount must be positive, in centavos, or 0 for the whole"
	}
	return send[PaymentIntent](ctx, s.client, k)
}

// Cancel cancels an intent. Only an answer or a later retrieve with status
// cancelled proves that it cannot charge any more.
func (s *PaymentIntentsService) Cancel(ctx context.Context, id string, params *PaymentIntentCancelParams) (*PaymentIntent, error) {
	p := orZero(params)
	return send[PaymentIntent](ctx, s.client, call{
		op: "payment_intents.cancel", method: http.MethodPost, path: []string{"payment_intents", id, "cancel"},
		key: p.IdempotencyKey, wantID: id,
	})
}
