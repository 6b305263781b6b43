package api

import (
	"context"
	"net/http"
	"sync"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/worker"
)

// newCustomer is one to be created at PayMongo, or to be linked.
type newCustomer struct {
	ExternalID string            `json:"external_id" minLength:"1" maxLength:"200" doc:"Your own name for them. It stays."`
	ProviderID string            `json:"paymongo_customer_id,omitempty" pattern:"^cus_[0-9A-Za-z]{1,100}$" doc:"Link this customer of PayMongo's instead of creating one."`
	FirstName  string            `json:"first_name,omitempty" maxLength:"200" doc:"Needed to create."`
	LastName   string            `json:"last_name,omitempty" maxLength:"200" doc:"Needed to create."`
	Email      string            `json:"email,omitempty" format:"email" maxLength:"320" doc:"Needed to create. PayMongo takes each email once."`
	Phone      string            `json:"phone,omitempty" pattern:"^\\+?[0-9]{7,12}$" doc:"For PayMongo, which takes each phone once. Not kept here."`
	Metadata   map[string]string `json:"metadata,omitempty" maxProperties:"50" doc:"Yours. Kept here, and not looked into."`
	Reasoned
}

func (n newCustomer) check() error {
	if n.ProviderID != "" {
		return nil
	}
	for field, value := range map[string]string{"first_name": n.FirstName, "last_name": n.LastName, "email": n.Email} {
		if value == "" {
			return invalid("body."+field, "is needed to create a customer at PayMongo")
		}
	}
	return nil
}

type customerFilter struct {
	Page
	Email string `query:"email" maxLength:"320" doc:"Only those with this email."`
}

func (a *api) customers() {
	const tag = "customers"
	flows := sync.OnceValue(a.onSession) // made with the first request: the document needs none
	register(a, operation{
		id: "list-customers", method: http.MethodGet, path: "/v1/customers", tag: tag, role: billing.RoleViewer,
		summary: "List customers, the newest first",
	}, func(ctx context.Context, in *customerFilter) (*list[billing.ListedCustomer], error) {
		rows, err := billing.BrowseCustomers(ctx, a.cfg.Pool, in.Email, in.After, in.fetch())
		if err != nil {
			return nil, at("query.after", err)
		}
		return newList(rows, in.Page, func(c billing.ListedCustomer) string { return c.ID.String() }), nil
	})
	register(a, operation{
		id: "create-customer", method: http.MethodPost, path: "/v1/customers", tag: tag, role: billing.RoleOperator, status: http.StatusCreated, needsKey: true,
		summary: "Create a customer at PayMongo, or link one that is there",
		description: "A customer of that name who is not at PayMongo yet, such as one of an import, is linked. " +
			"Where PayMongo has the email already, the same person is linked, and anybody else is a 409.",
	}, func(ctx context.Context, in *struct{ Body newCustomer }) (*billing.CustomerDetails, error) {
		if err := in.Body.check(); err != nil {
			return nil, err
		}
		act, err := a.act(ctx, in.Body.text())
		if err != nil {
			return nil, err
		}
		b := in.Body
		id, err := flows().AddCustomer(ctx, worker.CustomerRequest{
			ID: requestID(ctx), ExternalID: b.ExternalID, ProviderID: b.ProviderID, FirstName: b.FirstName, LastName: b.LastName, Email: b.Email, Phone: b.Phone,
			Metadata: b.Metadata, Act: act,
		})
		if err != nil {
			return nil, a.told(ctx, err)
		}
		made, err := billing.ShowCustomer(ctx, a.cfg.Pool, id.String())
		return &made, err
	})
	register(a, operation{
		id: "get-customer", method: http.MethodGet, path: "/v1/customers/{customer}", tag: tag, role: billing.RoleViewer,
		summary: "Read a customer, with cards, subscriptions and the newest invoices",
	}, func(ctx context.Context, in *Payer) (*billing.CustomerDetails, error) {
		c, err := billing.ShowCustomer(ctx, a.cfg.Pool, in.Customer)
		return &c, err
	})
	register(a, operation{
		id: "delete-customer", method: http.MethodDelete, path: "/v1/customers/{customer}", tag: tag, role: billing.RoleAdmin,
		summary: "Delete a customer, here and at PayMongo, with their cards",
		description: "It is refused while a subscription of theirs is not cancelled, or an invoice is open. What was paid stays on record, and so does the name: " +
			"it is not given to another customer. Repeat it when PayMongo's answer was lost.",
	}, func(ctx context.Context, in *Payer) (*billing.CustomerDetails, error) {
		act, err := a.act(ctx, "")
		if err != nil {
			return nil, err
		}
		if err := flows().DeleteCustomer(ctx, in.Customer, act); err != nil {
			return nil, a.told(ctx, err)
		}
		c, err := billing.ShowCustomer(ctx, a.cfg.Pool, in.Customer)
		return &c, err
	})
}
