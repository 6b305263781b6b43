package api

import (
	"context"
	"net/http"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// methods are a customer's cards, in the order in which they are charged.
type methods struct {
	Data []billing.ListedPaymentMethod `json:"data"`
}

type Card struct {
	ID string `path:"id" minLength:"1" maxLength:"200" doc:"PayMongo's id of the card: pm_…"`
}

func (a *api) paymentMethods() {
	const tag = "payment-methods"
	flows := sync.OnceValue(a.onSession) // made with the first request: the document needs none
	of := func(ctx context.Context, q billing.Querier, customer string) (*methods, error) {
		cards, err := billing.PaymentMethodsOf(ctx, q, customer)
		if cards == nil {
			cards = []billing.ListedPaymentMethod{}
		}
		return &methods{Data: cards}, err
	}
	register(a, operation{
		id: "list-payment-methods", method: http.MethodGet, path: "/v1/customers/{customer}/payment-methods", tag: tag, role: billing.RoleViewer,
		summary: "List a customer's cards, in the order in which they are charged",
	}, func(ctx context.Context, in *Payer) (*methods, error) { return of(ctx, a.cfg.Pool, in.Customer) })
	register(a, operation{
		id: "refresh-payment-methods", method: http.MethodPost, path: "/v1/customers/{customer}/payment-methods/refresh", tag: tag, role: billing.RoleOperator,
		summary:     "Ask PayMongo which cards the customer has saved",
		description: "New ones are added behind the others; what is gone is not charged any more. A card that was declined for good stays so.",
	}, func(ctx context.Context, in *struct {
		Payer
		Body *Reasoned
	},
	) (*billing.RefreshedMethods, error) {
		id, provider, err := billing.ProviderCustomer(ctx, a.cfg.Pool, in.Customer)
		if err != nil {
			return nil, err
		}
		saved, err := a.cfg.Gateway.SavedCards(ctx, provider)
		if err != nil {
			return nil, a.told(ctx, err)
		}
		return change(ctx, a, in.Body.text(), func(tx pgx.Tx, act billing.Act) (*billing.RefreshedMethods, error) {
			refreshed, err := billing.RefreshMethods(ctx, tx, id, saved, act)
			return &refreshed, err
		})
	})
	register(a, operation{
		id: "make-default-payment-method", method: http.MethodPost, path: "/v1/payment-methods/{id}/make-default", tag: tag, role: billing.RoleOperator,
		summary: "Charge this card before the customer's others",
	}, func(ctx context.Context, in *struct {
		Card
		Body *Reasoned
	},
	) (*methods, error) {
		return change(ctx, a, in.Body.text(), func(tx pgx.Tx, act billing.Act) (*methods, error) {
			customer, err := billing.PreferMethod(ctx, tx, in.ID, act)
			if err != nil {
				return nil, err
			}
			return of(ctx, tx, customer.String())
		})
	})
	register(a, operation{
		id: "delete-payment-method", method: http.MethodDelete, path: "/v1/payment-methods/{id}", tag: tag, role: billing.RoleOperator,
		summary: "Remove a card, here and at PayMongo",
		description: "It is refused for the last card that a subscription, or an open invoice, could be charged with: save another first. " +
			"What is being charged at this moment has its outcome recorded. Repeat it when PayMongo's answer was lost.",
	}, func(ctx context.Context, in *Card) (*methods, error) {
		act, err := a.act(ctx, "")
		if err != nil {
			return nil, err
		}
		customer, err := flows().RemoveCard(ctx, in.ID, act)
		if err != nil {
			return nil, a.told(ctx, err)
		}
		return of(ctx, a.cfg.Pool, customer.String())
	})
}
