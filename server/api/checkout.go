package api

import (
	"context"
	"net/http"
	"sync"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/worker"
)

// CheckoutBody is what a hosted checkout may be told.
type CheckoutBody struct {
	Reasoned
	SuccessURL string `json:"success_url,omitempty" format:"uri" pattern:"^https?://" maxLength:"2000" doc:"Where PayMongo sends the customer who has paid. Not proof that anything was paid."`
	CancelURL  string `json:"cancel_url,omitempty" format:"uri" pattern:"^https?://" maxLength:"2000" doc:"Where PayMongo sends the customer who goes back."`
}

type checkedOut struct {
	ID   string `path:"id" format:"uuid" doc:"The invoice's id."`
	Body *CheckoutBody
}

func (a *api) checkout() {
	flows := sync.OnceValue(a.onSession)
	register(a, operation{
		id: "checkout-invoice", method: http.MethodPost, path: "/v1/invoices/{id}/checkout", tag: "invoices", role: billing.RoleOperator, rerun: true,
		summary: "Let the customer pay an invoice on PayMongo's own page",
		description: "For who has no page to pay on. Step redirect comes with the url to send the customer to; it ends in a secret, is stored nowhere, and repeated you get it again. " +
			"The page makes a payment intent of its own, so the one that the invoice has is cancelled first, and seen cancelled; while an attempt is on its way the step is wait. " +
			"For 20 minutes no attempt is made by itself. Then the page is closed before the next one. Call check when the customer comes back.",
	}, func(ctx context.Context, in *checkedOut) (*billing.CheckoutPage, error) {
		id, err := (&owed{ID: in.ID}).invoice()
		if err != nil {
			return nil, err
		}
		if a.cfg.MayCharge != nil {
			if err := a.cfg.MayCharge(); err != nil {
				return nil, newProblem(kindNotCharging, "GET /v1/instance tells why. Nothing was changed; ask again when that is over.")
			}
		}
		body := in.Body
		if body == nil {
			body = &CheckoutBody{}
		}
		act, err := a.act(ctx, body.Reason)
		if err != nil {
			return nil, err
		}
		page, err := flows().Checkout(ctx, id, worker.CheckoutURLs{Success: body.SuccessURL, Cancel: body.CancelURL}, act)
		return &page, a.told(ctx, err)
	})
}
