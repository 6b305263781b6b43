package api

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
)

// newCardSetup is a sale by which the customer saves a card.
type newCardSetup struct {
	AmountMinor int64            `json:"amount_minor" minimum:"2000" maximum:"999999999" doc:"What the customer pays now: a sale of your own, and no invoice's. PayMongo saves a card with a payment alone."`
	Currency    billing.Currency `json:"currency,omitempty" enum:"PHP" default:"PHP"`
	Description string           `json:"description,omitempty" maxLength:"255" doc:"What it is for, as PayMongo shows it."`
	SessionType string           `json:"session_type,omitempty" enum:"off_session,on_session" default:"off_session" doc:"off_session: the card may be charged with nobody at the keyboard, which subscriptions need."`
	Reasoned
}

// StartedCardSetup is a card setup with what the customer's page needs.
type StartedCardSetup struct {
	billing.CardSetup
	ClientKey string `json:"client_key" doc:"For the page: it attaches a payment method to the payment intent with this key and your public key. Empty: there is nothing to pay any more."`
}

type SetupPath struct {
	Payer
	ID string `path:"id" format:"uuid" doc:"The id of the card setup."`
}

type cardSetupPage struct {
	Payer
	Page
}

func (a *api) cardSetups() {
	const tag = "card-setups"
	flows := sync.OnceValue(a.onSession) // made with the first request: the document needs none
	register(a, operation{
		id: "start-card-setup", method: http.MethodPost, path: "/v1/customers/{customer}/card-setups", tag: tag, role: billing.RoleOperator,
		status: http.StatusCreated, needsKey: true, rerun: true,
		summary: "Begin to save a card of a customer who is present",
		description: "Give payment_intent_id and client_key to the customer's page. There the card goes straight to PayMongo: create a payment method with your public key, " +
			"attach it to the payment intent with the client key, and follow next_action if there is one. Then call finish. " +
			"If the page never comes back, the card is found all the same. " +
			"Repeated with its key, it answers with the same card setup as it is then.",
	}, func(ctx context.Context, in *struct {
		Payer
		Body newCardSetup
	},
	) (*StartedCardSetup, error) {
		act, err := a.act(ctx, in.Body.text())
		if err != nil {
			return nil, err
		}
		s, key, err := flows().StartCardSetup(ctx, billing.NewCardSetup{
			ID: requestID(ctx), Customer: in.Customer, Amount: billing.Money{Minor: in.Body.AmountMinor, Currency: in.Body.Currency},
			Description: in.Body.Description, SessionType: in.Body.SessionType, Act: act,
		})
		if err != nil {
			return nil, a.told(ctx, err)
		}
		return &StartedCardSetup{CardSetup: s, ClientKey: key}, nil
	})
	register(a, operation{
		id: "list-card-setups", method: http.MethodGet, path: "/v1/customers/{customer}/card-setups", tag: tag, role: billing.RoleViewer,
		summary: "List a customer's card setups, the newest first",
	}, func(ctx context.Context, in *cardSetupPage) (*list[billing.CardSetup], error) {
		var after *uuid.UUID
		if in.After != "" {
			id, err := uuid.Parse(in.After)
			if err != nil {
				return nil, invalid("query.after", "is not the next of a page")
			}
			after = &id
		}
		rows, err := billing.BrowseCardSetups(ctx, a.cfg.Pool, in.Customer, after, in.fetch())
		if err != nil {
			return nil, err
		}
		return newList(rows, in.Page, func(s billing.CardSetup) string { return s.ID.String() }), nil
	})
	register(a, operation{
		id: "get-card-setup", method: http.MethodGet, path: "/v1/customers/{customer}/card-setups/{id}", tag: tag, role: billing.RoleViewer,
		summary: "Read a card setup as it was when somebody last looked",
	}, func(ctx context.Context, in *SetupPath) (*billing.CardSetup, error) { return a.setupOf(ctx, in) })
	register(a, operation{
		id: "finish-card-setup", method: http.MethodPost, path: "/v1/customers/{customer}/card-setups/{id}/finish", tag: tag, role: billing.RoleOperator,
		summary: "Look at PayMongo now, and keep the card if it was paid",
		description: "status tells what came of it: open (not paid yet), paid (PayMongo does not show the card yet: ask again in a moment), saved, cancelled, " +
			"or review (PayMongo shows something else than was asked for). An invoice that waits for a card is charged with the new one.",
	}, func(ctx context.Context, in *struct {
		SetupPath
		Body *Reasoned
	},
	) (*billing.CardSetup, error) {
		s, err := a.setupOf(ctx, &in.SetupPath)
		if err != nil {
			return nil, err
		}
		act, err := a.act(ctx, in.Body.text())
		if err != nil {
			return nil, err
		}
		finished, err := flows().FinishCardSetup(ctx, s.ID, act)
		return &finished, a.told(ctx, err)
	})
}

// setupOf is a setup that is the customer's.
func (a *api) setupOf(ctx context.Context, in *SetupPath) (*billing.CardSetup, error) {
	id, err := uuid.Parse(in.ID)
	if err != nil {
		return nil, errors.Join(billing.ErrNotFound, err)
	}
	customer, err := billing.FindCustomer(ctx, a.cfg.Pool, in.Customer)
	if err != nil {
		return nil, err
	}
	s, err := billing.ShowCardSetup(ctx, a.cfg.Pool, id)
	if err == nil && s.CustomerID != customer {
		err = billing.ErrNotFound
	}
	return &s, err
}
