package sandbox

import (
	"bytes"
	"encoding/json"
)

// The shapes on the wire, in the order PayMongo writes them. A nil pointer is
// written as null, as PayMongo does: absent and null are different there.

type wireResource struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	Attributes any    `json:"attributes"`
}

type wireData struct {
	Data any `json:"data"`
}

type wireList struct {
	HasMore bool `json:"has_more"`
	Data    any  `json:"data"`
}

type wireCustomer struct {
	DefaultDevice          string   `json:"default_device"`
	DefaultPaymentMethodID *string  `json:"default_payment_method_id"`
	Email                  string   `json:"email"`
	FirstName              string   `json:"first_name"`
	LastName               string   `json:"last_name"`
	Livemode               bool     `json:"livemode"`
	OrganizationID         string   `json:"organization_id"`
	Phone                  *string  `json:"phone"`
	Metadata               metadata `json:"metadata"`
	CreatedAt              int64    `json:"created_at"`
	UpdatedAt              int64    `json:"updated_at"`
}

type wirePaymentMethod struct {
	Livemode  bool             `json:"livemode"`
	Type      string           `json:"type"`
	Billing   *billing         `json:"billing"`
	CreatedAt int64            `json:"created_at"`
	UpdatedAt int64            `json:"updated_at"`
	Details   *wireCardDetails `json:"details"`
	Metadata  metadata         `json:"metadata"`
}

// wireCardDetails never echoes the CVC, though test mode did in 2020.
type wireCardDetails struct {
	Last4    string `json:"last4"`
	ExpMonth int    `json:"exp_month"`
	ExpYear  int    `json:"exp_year"`
	Brand    string `json:"brand,omitempty"` // only on a customer's saved methods
}

type billing struct {
	Address address `json:"address"`
	Email   *string `json:"email"`
	Name    *string `json:"name"`
	Phone   *string `json:"phone"`
}

type address struct {
	City       *string `json:"city"`
	Country    *string `json:"country"`
	Line1      *string `json:"line1"`
	Line2      *string `json:"line2"`
	PostalCode *string `json:"postal_code"`
	State      *string `json:"state"`
}

// wireSavedMethod is a customer's saved method in published shapes a and b,
// which differ in the prefix of the wrapper's id.
type wireSavedMethod struct {
	Livemode          bool            `json:"livemode"`
	PaymentMethodID   string          `json:"payment_method_id"`
	PaymentMethodType string          `json:"payment_method_type"`
	SessionType       string          `json:"session_type"`
	Details           wireCardDetails `json:"details"`
	CreatedAt         int64           `json:"created_at"`
	UpdatedAt         int64           `json:"updated_at"`
}

// wireSavedMethodV2 is shape c: flat, milliseconds, live_mode in two words.
type wireSavedMethodV2 struct {
	CreatedAt       int64  `json:"created_at"`
	CustomerID      string `json:"customer_id"`
	DeletedAt       int64  `json:"deleted_at,omitempty"`
	LiveMode        bool   `json:"live_mode"`
	PaymentMethodID string `json:"payment_method_id"`
	SessionType     string `json:"session_type"`
	SourceType      string `json:"source_type"`
	UpdatedAt       int64  `json:"updated_at"`
}

type wireSavedMethodsV2 struct {
	Data struct {
		CustomerPaymentMethods       []wireSavedMethodV2 `json:"customer_payment_methods"`
		LastEvaluatedPaymentMethodID *string             `json:"last_evaluated_payment_method_id"`
	} `json:"data"`
	HasMore bool `json:"has_more"`
}

type wireIntent struct {
	Amount               int64             `json:"amount"`
	CaptureType          string            `json:"capture_type"`
	ClientKey            string            `json:"client_key"`
	Currency             string            `json:"currency"`
	Description          *string           `json:"description"`
	Livemode             bool              `json:"livemode"`
	OriginalAmount       int64             `json:"original_amount"`
	StatementDescriptor  *string           `json:"statement_descriptor"`
	Status               string            `json:"status"`
	LastPaymentError     *paymentError     `json:"last_payment_error"`
	PaymentMethodAllowed []string          `json:"payment_method_allowed"`
	Payments             []wireResource    `json:"payments"`
	NextAction           *nextAction       `json:"next_action"`
	PaymentMethodOptions json.RawMessage   `json:"payment_method_options"`
	Metadata             metadata          `json:"metadata"`
	SetupFutureUsage     *setupFutureUsage `json:"setup_future_usage"`
	CreatedAt            int64             `json:"created_at"`
	UpdatedAt            int64             `json:"updated_at"`
}

type setupFutureUsage struct {
	SessionType string `json:"session_type"`
	CustomerID  string `json:"customer_id"`
}

type paymentError struct {
	Payment       string `json:"payment"`
	FailedCode    string `json:"failed_code"`
	FailedMessage string `json:"failed_message"`
	PaymentMethod string `json:"payment_method"`
}

type nextAction struct {
	Type     string `json:"type"`
	Redirect struct {
		URL       string `json:"url"`
		ReturnURL string `json:"return_url"`
	} `json:"redirect"`
}

type wirePayment struct {
	AccessURL                   *string        `json:"access_url"`
	Amount                      int64          `json:"amount"`
	BalanceTransactionID        *string        `json:"balance_transaction_id"`
	Billing                     *billing       `json:"billing"`
	Currency                    string         `json:"currency"`
	Description                 *string        `json:"description"`
	DigitalWithholdingVATAmount int64          `json:"digital_withholding_vat_amount"`
	Disputed                    bool           `json:"disputed"`
	ExternalReferenceNumber     *string        `json:"external_reference_number"`
	FailedCode                  string         `json:"failed_code,omitempty"`
	FailedMessage               string         `json:"failed_message,omitempty"`
	Fee                         int64          `json:"fee"`
	ForeignFee                  int64          `json:"foreign_fee"`
	InstantSettlement           *string        `json:"instant_settlement"`
	Livemode                    bool           `json:"livemode"`
	NetAmount                   int64          `json:"net_amount"`
	Origin                      string         `json:"origin"`
	PaymentIntentID             string         `json:"payment_intent_id"`
	Payout                      *string        `json:"payout"`
	Source                      wireSource     `json:"source"`
	StatementDescriptor         *string        `json:"statement_descriptor"`
	Status                      string         `json:"status"`
	TaxAmount                   *int64         `json:"tax_amount"`
	Metadata                    metadata       `json:"metadata"`
	Promotion                   *string        `json:"promotion"`
	Refunds                     []wireResource `json:"refunds"`
	Taxes                       []struct{}     `json:"taxes"`
	AvailableAt                 int64          `json:"available_at,omitempty"` // a failed payment has none
	CreatedAt                   int64          `json:"created_at"`
	CreditedAt                  *int64         `json:"credited_at"`
	PaidAt                      int64          `json:"paid_at"` // set even when the payment failed
	UpdatedAt                   int64          `json:"updated_at"`
}

type wireSource struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Brand   string `json:"brand,omitempty"`
	Country string `json:"country,omitempty"`
	Last4   string `json:"last4,omitempty"`
}

type wireRefund struct {
	Amount               int64    `json:"amount"`
	BalanceTransactionID *string  `json:"balance_transaction_id"`
	Currency             string   `json:"currency"`
	Livemode             bool     `json:"livemode"`
	Metadata             metadata `json:"metadata"`
	Notes                *string  `json:"notes"`
	PaymentID            string   `json:"payment_id"`
	PayoutID             *string  `json:"payout_id"`
	Reason               string   `json:"reason"`
	Status               string   `json:"status"`
	AvailableAt          *int64   `json:"available_at"`
	RefundedAt           *int64   `json:"refunded_at"`
	CreatedAt            int64    `json:"created_at"`
	UpdatedAt            int64    `json:"updated_at"`
}

type wireWebhook struct {
	Livemode       bool     `json:"livemode"`
	SecretKey      string   `json:"secret_key"`
	Status         string   `json:"status"`
	DisabledReason string   `json:"disabled_reason,omitempty"`
	URL            string   `json:"url"`
	Events         []string `json:"events"`
	CreatedAt      int64    `json:"created_at"`
	UpdatedAt      int64    `json:"updated_at"`
}

type wireEvent struct {
	Type            string       `json:"type"`
	Livemode        bool         `json:"livemode"`
	Data            wireResource `json:"data"`
	PreviousData    struct{}     `json:"previous_data"`
	PendingWebhooks int          `json:"pending_webhooks"`
	CreatedAt       int64        `json:"created_at"`
	UpdatedAt       int64        `json:"updated_at"`
}

type wireCheckout struct {
	Billing            *billing       `json:"billing"`
	CancelURL          *string        `json:"cancel_url"`
	CheckoutURL        string         `json:"checkout_url"`
	ClientKey          string         `json:"client_key"`
	CustomerEmail      *string        `json:"customer_email"`
	Description        *string        `json:"description"`
	LineItems          []lineItem     `json:"line_items"`
	Livemode           bool           `json:"livemode"`
	Merchant           string         `json:"merchant"`
	PaidAt             *int64         `json:"paid_at,omitempty"`
	Payments           []wireResource `json:"payments"`
	PaymentIntent      wireResource   `json:"payment_intent"`
	PaymentMethodTypes []string       `json:"payment_method_types"`
	PaymentMethodUsed  *string        `json:"payment_method_used"`
	ReferenceNumber    *string        `json:"reference_number"`
	SendEmailReceipt   bool           `json:"send_email_receipt"`
	ShowDescription    bool           `json:"show_description"`
	ShowLineItems      bool           `json:"show_line_items"`
	Status             string         `json:"status"`
	SuccessURL         *string        `json:"success_url"`
	CreatedAt          int64          `json:"created_at"`
	UpdatedAt          int64          `json:"updated_at"`
	Metadata           metadata       `json:"metadata"`
}

type lineItem struct {
	Amount      int64    `json:"amount"`
	Currency    string   `json:"currency"`
	Description *string  `json:"description"`
	Images      []string `json:"images"`
	Name        string   `json:"name"`
	Quantity    int64    `json:"quantity"`
}

// encode writes compact JSON with &, < and > left alone: PayMongo signs its
// webhook bodies over exactly such bytes.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("sandbox: encode " + err.Error()) // only our own types come here
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'})
}
