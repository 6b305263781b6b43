package worker

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
)

// What is asked of PayMongo with the customer present.

// ProviderCustomer is a payer as PayMongo has them. Email and phone are unique in
// an account.
type ProviderCustomer struct {
	ID        string
	FirstName string
	LastName  string
	Email     string
	Phone     string
	Livemode  bool
	Metadata  map[string]string // as far as PayMongo shows it
}

func providerCustomer(c *paymongo.Customer) ProviderCustomer {
	return ProviderCustomer{
		ID: tidy(c.ID), FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Phone: c.Phone, Livemode: c.Livemode, Metadata: c.Metadata,
	}
}

// CreateCustomer creates a customer. One with an email or phone that is taken is
// refused.
func (g *PayMongo) CreateCustomer(ctx context.Context, c ProviderCustomer, key string) (ProviderCustomer, error) {
	device := "email"
	if c.Phone != "" {
		device = "phone"
	}
	made, err := g.client.Customers.Create(rememberTries(ctx), &paymongo.CustomerCreateParams{
		FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Phone: c.Phone, DefaultDevice: device, Metadata: c.Metadata, IdempotencyKey: key,
	})
	if err != nil {
		return ProviderCustomer{}, g.fail(err)
	}
	return providerCustomer(made), nil
}

// CustomerWith finds the customer with an email; false: there is none.
func (g *PayMongo) CustomerWith(ctx context.Context, email string) (ProviderCustomer, bool, error) {
	page, err := g.client.Customers.Search(rememberTries(ctx), &paymongo.CustomerSearchParams{Email: email})
	if err != nil {
		return ProviderCustomer{}, false, g.fail(err)
	}
	for _, c := range page.Data {
		if strings.EqualFold(c.Email, email) {
			return providerCustomer(c), true, nil
		}
	}
	return ProviderCustomer{}, false, nil
}

// Customer retrieves a customer; false: PayMongo has none of that id.
func (g *PayMongo) Customer(ctx context.Context, id string) (ProviderCustomer, bool, error) {
	c, err := g.client.Customers.Retrieve(rememberTries(ctx), id)
	var said *paymongo.Error
	switch {
	case errors.As(err, &said) && said.StatusCode == http.StatusNotFound:
		return ProviderCustomer{}, false, nil
	case err != nil:
		return ProviderCustomer{}, false, g.fail(err)
	}
	return providerCustomer(c), true, nil
}

// DeleteCustomer deletes a customer with their saved cards. One that is gone
// already is deleted.
func (g *PayMongo) DeleteCustomer(ctx context.Context, id string) error {
	_, err := g.client.Customers.Delete(rememberTries(ctx), id)
	var said *paymongo.Error
	if err == nil || errors.As(err, &said) && said.StatusCode == http.StatusNotFound {
		return nil
	}
	return g.fail(err)
}

// SetupRequest asks for the payment intent of a card setup.
type SetupRequest struct {
	Amount      billing.Money
	Description string
	Customer    string // cus_...
	SessionType string
	Key         string // Idempotency-Key: derived, so that a re-run sends the same
	Metadata    map[string]string
}

// CreateSetup creates a payment intent that saves the card it is paid with. It
// moves no money, and one whose answer was lost is known to nobody.
func (g *PayMongo) CreateSetup(ctx context.Context, r SetupRequest) (PageIntent, error) {
	intent, err := g.client.PaymentIntents.Create(rememberTries(ctx), &paymongo.PaymentIntentCreateParams{
		Amount: r.Amount.Minor, Currency: string(r.Amount.Currency), PaymentMethodAllowed: []string{"card"}, Description: r.Description,
		SetupFutureUsage: &paymongo.SetupFutureUsage{SessionType: paymongo.SessionType(r.SessionType), CustomerID: r.Customer},
		Metadata:         r.Metadata, IdempotencyKey: r.Key,
	})
	if err != nil {
		return PageIntent{}, g.fail(err)
	}
	return pageIntent(intent), nil
}

// PageIntent is a payment intent with what the customer's page needs of it.
type PageIntent struct {
	billing.ProviderIntent
	ClientKey paymongo.Secret // for the page alone
	Customer  string          // that the card is saved for; empty: none
	Last4     string          // of the card that has paid; empty: not shown
}

// ShowPage retrieves a payment intent for the customer's page.
func (g *PayMongo) ShowPage(ctx context.Context, id string) (PageIntent, error) {
	intent, err := g.client.PaymentIntents.Retrieve(rememberTries(ctx), id, nil)
	if err != nil {
		return PageIntent{}, g.fail(err)
	}
	return pageIntent(intent), nil
}

func pageIntent(intent *paymongo.PaymentIntent) PageIntent {
	page := PageIntent{ProviderIntent: providerIntent(intent), ClientKey: intent.ClientKey}
	if use := intent.SetupFutureUsage; use != nil {
		page.Customer = tidy(use.CustomerID)
	}
	for _, p := range intent.Payments {
		if p.Status == paymongo.PaymentStatusPaid && p.Source != nil {
			page.Last4 = p.Source.Last4
		}
	}
	return page
}
