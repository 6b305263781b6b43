package api

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
)

type owed struct {
	ID   string `path:"id" format:"uuid" doc:"The invoice's id."`
	Body *Reasoned
}

func (in *owed) invoice() (uuid.UUID, error) {
	id, err := uuid.Parse(in.ID)
	if err != nil {
		return id, errors.Join(billing.ErrNotFound, err)
	}
	return id, nil
}

func (a *api) pay() {
	const tag = "invoices"
	flows := sync.OnceValue(a.onSession) // made with the first request: the document needs none
	register(a, operation{
		id: "pay-invoice", method: http.MethodPost, path: "/v1/invoices/{id}/pay", tag: tag, role: billing.RoleOperator, rerun: true,
		summary: "Let the customer pay an invoice in the browser",
		description: "It answers with what the customer's page needs, and step says what that page does next: attach a new card (card), give PayMongo the CVC of a saved one and " +
			"attach that, or a new one (cvc), send the customer to the bank (redirect), ask again with check (wait), or nothing (done). The page uses your public key and client_key. " +
			"The invoice has this one payment intent and yields one payment, whoever attaches to it. For 20 minutes no attempt is made by itself; that passes without your help. " +
			"An invoice that was given up can be paid like this too.",
	}, func(ctx context.Context, in *owed) (*billing.PayPage, error) {
		id, err := in.invoice()
		if err != nil {
			return nil, err
		}
		if a.cfg.MayCharge != nil {
			if err := a.cfg.MayCharge(); err != nil {
				return nil, newProblem(kindNotCharging, "GET /v1/instance tells why. Nothing was changed; ask again when that is over.")
			}
		}
		act, err := a.act(ctx, in.Body.text())
		if err != nil {
			return nil, err
		}
		page, err := flows().Pay(ctx, id, act)
		return &page, a.told(ctx, err)
	})
	register(a, operation{
		id: "check-invoice", method: http.MethodPost, path: "/v1/invoices/{id}/check", tag: tag, role: billing.RoleOperator, rerun: true,
		summary: "Look at PayMongo now what came of an invoice",
		description: "Call it when the customer's page comes back. What was paid is settled by it; without it a webhook, or the daemon, finds the same. " +
			"It answers like pay, and holds nothing back.",
	}, func(ctx context.Context, in *owed) (*billing.PayPage, error) {
		id, err := in.invoice()
		if err != nil {
			return nil, err
		}
		page, err := flows().Check(ctx, id)
		return &page, a.told(ctx, err)
	})
}
