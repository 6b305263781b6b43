package paymongo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// EventType says what happened. PayMongo's pages list two generations of types,
// and types not listed here arrive too.
type EventType string

// The classic event types, which PayMongo's webhook page lists. There is no
// subscription.cancelled: a cancelled subscription is a subscription.updated.
const (
	EventCheckoutSessionPaymentPaid       EventType = "checkout_session.payment.paid"
	EventLinkPaymentPaid                  EventType = "link.payment.paid"
	EventPaymentFailed                    EventType = "payment.failed"
	EventPaymentPaid                      EventType = "payment.paid"
	EventPaymentRefunded                  EventType = "payment.refunded"
	EventPaymentRefundUpdated             EventType = "payment.refund.updated"
	EventQRPhExpired                      EventType = "qrph.expired"
	EventSourceChargeable                 EventType = "source.chargeable"
	EventSubscriptionActivated            EventType = "subscription.activated"
	EventSubscriptionInvoiceCreated       EventType = "subscription.invoice.created"
	EventSubscriptionInvoiceFinalized     EventType = "subscription.invoice.finalized"
	EventSubscriptionInvoicePaid          EventType = "subscription.invoice.paid"
	EventSubscriptionInvoicePaymentFailed EventType = "subscription.invoice.payment_failed"
	EventSubscriptionPastDue              EventType = "subscription.past_due"
	EventSubscriptionUnpaid               EventType = "subscription.unpaid"
	EventSubscriptionUpdated              EventType = "subscription.updated"
)

// Event types of the newer catalogue that concern payments.
const (
	EventPaymentIntentAwaitingPaymentMethod EventType = "payment_intent.awaiting_payment_method"
	EventPaymentIntentSucceeded             EventType = "payment_intent.succeeded"
	EventRefundSucceeded                    EventType = "refund.succeeded"
)

// ErrEventMalformed is the error of [ParseEvent] for a body that is no event.
var ErrEventMalformed = errors.New("paymongo: not an event")

// Event is what PayMongo delivers to a webhook. It is a hint: take the id of
// the resource from it and retrieve that, for deliveries come late, twice, and
// in any order. Printing an Event shows its ids only, because Raw may hold the
// client key of a checkout session: keep it out of unexported fields that are printed.
type Event struct {
	ID       string    `json:"id"`
	Type     EventType `json:"type"`
	Livemode bool      `json:"livemode"`

	// ResourceID and ResourceType name what the event is about, such as pay_... and payment.
	ResourceID   string `json:"resource_id"`
	ResourceType string `json:"resource_type"`
	// Resource is a *Payment, *PaymentIntent, *Refund, *CheckoutSession, *Source,
	// *Customer or *PaymentMethod, or nil when this package has no type for it
	// or it cannot be read.
	Resource any `json:"-"`
	// ResourceErr says why a resource of a known type could not be read. The
	// event still counts: retrieve the resource.
	ResourceErr error `json:"-"`
	// Raw is data.attributes.data as it came.
	Raw json.RawMessage `json:"-"`
	// PreviousData is data.attributes.previous_data as it came; nil if absent.
	PreviousData json.RawMessage `json:"-"`
	// PendingWebhooks is nil in events of 2023 and before.
	PendingWebhooks *int `json:"pending_webhooks"`

	CreatedAt Timestamp `json:"created_at"`
	UpdatedAt Timestamp `json:"updated_at"`
}

// ParseEvent reads the body of a webhook delivery, after [VerifySignature] has
// accepted it. The only error is [ErrEventMalformed]: an unknown type of event
// or resource, and a resource that cannot be read, are no errors, because
// PayMongo repeats what is not answered with a 2xx and then gives up on the endpoint.
func ParseEvent(body []byte) (*Event, error) {
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrEventMalformed, maxAnswer)
	}
	var doc struct {
		Data struct {
			ID         string `json:"id"`
			Type       string `json:"type"`
			Attributes struct {
				Type            EventType       `json:"type"`
				Livemode        bool            `json:"livemode"`
				Data            json.RawMessage `json:"data"`
				PreviousData    json.RawMessage `json:"previous_data"`
				PendingWebhooks *int            `json:"pending_webhooks"`
				CreatedAt       Timestamp       `json:"created_at"`
				UpdatedAt       Timestamp       `json:"updated_at"`
			} `json:"attributes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrEventMalformed, clean(err.Error()))
	}
	if ambiguous(body, 1) {
		return nil, fmt.Errorf("%w: a name stands there twice", ErrEventMalformed)
	}
	d, a := doc.Data, doc.Data.Attributes
	switch {
	case d.Type != "event":
		return nil, fmt.Errorf("%w: data.type is %q", ErrEventMalformed, clean(d.Type))
	case !isID(d.ID):
		return nil, fmt.Errorf("%w: data.id is no id", ErrEventMalformed)
	case a.Type == "" || len(a.Type) > 128 || !printable(string(a.Type)):
		return nil, fmt.Errorf("%w: data.attributes.type is no event type", ErrEventMalformed)
	}
	e := &Event{
		ID: d.ID, Type: a.Type, Livemode: a.Livemode,
		Raw: a.Data, PreviousData: a.PreviousData, PendingWebhooks: a.PendingWebhooks,
		CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt,
	}
	e.readResource()
	return e, nil
}

func (e *Event) readResource() {
	if e.Raw == nil {
		return
	}
	var head struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	}
	// Whatever cannot be read of the head stays empty; Raw has it.
	_ = json.Unmarshal(e.Raw, &head)
	e.ResourceID, e.ResourceType = head.ID, head.Type
	var resource json.Unmarshaler
	switch head.Type {
	case "payment":
		resource = new(Payment)
	case "payment_intent":
		resource = new(PaymentIntent)
	case "refund":
		resource = new(Refund)
	case "checkout_session":
		resource = new(CheckoutSession)
	case "source":
		resource = new(Source)
	case "customer":
		resource = new(Customer)
	case "payment_method":
		resource = new(PaymentMethod)
	default:
		return
	}
	if err := resource.UnmarshalJSON(e.Raw); err != nil {
		e.ResourceErr = fmt.Errorf("paymongo: event %s: %s: %w", e.ID, head.Type, err)
		return
	}
	e.Resource = resource
}

// String names the event and what it is about.
func (e Event) String() string {
	return fmt.Sprintf("%s %s %s", e.ID, e.Type, clean(e.ResourceID))
}

// Format writes String for every verb.
func (e Event) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.String()) }

// LogValue returns the ids and types.
func (e Event) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("id", e.ID),
		slog.String("type", string(e.Type)),
		slog.Bool("livemode", e.Livemode),
		slog.String("resource_id", clean(e.ResourceID)),
	)
}

// Source is the older form of an e-wallet payment method. It only arrives in
// events here; see [PaymentMethod] for the present form.
type Source struct {
	ID                  string         `json:"id"`
	Type                string         `json:"type"`   // gcash, grab_pay, ...
	Status              string         `json:"status"` // pending, chargeable, expired, ...
	Amount              int64          `json:"amount"` // centavos
	Currency            string         `json:"currency"`
	Redirect            SourceRedirect `json:"redirect"`
	Billing             *Billing       `json:"billing"`
	Description         string         `json:"description"`
	StatementDescriptor string         `json:"statement_descriptor"`
	Livemode            bool           `json:"livemode"`
	Metadata            Metadata       `json:"metadata"`
	CreatedAt           Timestamp      `json:"created_at"`
	UpdatedAt           Timestamp      `json:"updated_at"`
}

// SourceRedirect is where the payer goes, and comes back to.
type SourceRedirect struct {
	CheckoutURL string `json:"checkout_url"`
	Success     string `json:"success"`
	Failed      string `json:"failed"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object.
func (s *Source) UnmarshalJSON(data []byte) error {
	type plain Source
	return decodeResource(data, "source", (*plain)(s), &s.ID)
}
