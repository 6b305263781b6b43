package worker

import (
	"context"
	"errors"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
)

// CheckoutRequest asks for a page hosted by PayMongo that pays one invoice. It has
// no Idempotency-Key: for checkouts it was seen not to be honoured.
type CheckoutRequest struct {
	Amount     billing.Money
	Name       string // of the one line on the page
	Reference  string
	SuccessURL string // where the page sends the customer; empty: nowhere
	CancelURL  string
	Metadata   map[string]string // the intent's, and the payment's
}

// HostedCheckout is a checkout session with the payment intent that it made.
type HostedCheckout struct {
	ID     string
	Active bool            // also once it is paid
	URL    paymongo.Secret // for the customer alone
	Intent billing.ProviderIntent
}

// CreateCheckout creates a checkout session. It moves no money, and one whose
// answer was lost is harmless: nobody was ever told its address.
func (g *PayMongo) CreateCheckout(ctx context.Context, r CheckoutRequest) (HostedCheckout, error) {
	session, err := g.client.CheckoutSessions.Create(rememberTries(ctx), &paymongo.CheckoutSessionCreateParams{
		LineItems:          []paymongo.LineItem{{Name: r.Name, Amount: r.Amount.Minor, Currency: string(r.Amount.Currency), Quantity: 1}},
		PaymentMethodTypes: []string{"card"}, SuccessURL: r.SuccessURL, CancelURL: r.CancelURL,
		Description: r.Name, ReferenceNumber: r.Reference, ShowLineItems: true, Metadata: r.Metadata,
	})
	if err != nil {
		return HostedCheckout{}, g.fail(err)
	}
	return hostedCheckout(session), nil
}

// ShowCheckout retrieves a checkout session.
func (g *PayMongo) ShowCheckout(ctx context.Context, id string) (HostedCheckout, error) {
	session, err := g.client.CheckoutSessions.Retrieve(rememberTries(ctx), id)
	if err != nil {
		return HostedCheckout{}, g.fail(err)
	}
	return hostedCheckout(session), nil
}

// CloseCheckout expires a checkout session; PayMongo then cancels its intent.
// closed tells that the session is seen expired. It says nothing of the intent.
func (g *PayMongo) CloseCheckout(ctx context.Context, id string) (closed bool, err error) {
	session, err := g.client.CheckoutSessions.Expire(rememberTries(ctx), id, nil)
	var e *GatewayError
	if err != nil && errors.As(g.fail(err), &e) && e.Refused {
		session, err = g.client.CheckoutSessions.Retrieve(rememberTries(ctx), id) // paid, or expired before
	}
	if err != nil {
		return false, g.fail(err)
	}
	return session.Status == paymongo.CheckoutSessionStatusExpired, nil
}

// Cancel asks to cancel a payment intent. Only a look tells whether it is.
func (g *PayMongo) Cancel(ctx context.Context, id string) error {
	if _, err := g.client.PaymentIntents.Cancel(rememberTries(ctx), id, nil); err != nil {
		return g.fail(err)
	}
	return nil
}

func hostedCheckout(s *paymongo.CheckoutSession) HostedCheckout {
	h := HostedCheckout{ID: tidy(s.ID), Active: s.Status == paymongo.CheckoutSessionStatusActive, URL: s.CheckoutURL}
	if s.PaymentIntent != nil {
		h.Intent = providerIntent(s.PaymentIntent)
	}
	return h
}
