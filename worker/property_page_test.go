package worker_test

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/worker"
)

// page has a customer open the payment page and, perhaps, pay there: with faults
// on every wire, at any moment between the attempts. One that was attempted:
// cancelling a subscription voids the others, whoever is about to pay them.
func (w *world) page(rt *rapid.T) {
	id := w.anInvoice(rt, "i.attempt_count > 0 AND i.status IN ('open', 'uncollectible')")
	defer w.drain()
	ctx := context.Background()
	flows := worker.NewOnSession(worker.OnSession{Pool: w.look, Gateway: worker.NewPayMongo(w.client), Environment: billing.EnvironmentDev, Now: time.Now, Log: w.log})
	page, err := flows.Pay(ctx, id, w.by())
	if err != nil || page.ClientKey == "" {
		return // frozen, no answer, or an attempt is on its way
	}
	for range rapid.IntRange(0, 2).Draw(rt, "cards on the page") {
		method, err := w.client.PaymentMethods.Create(ctx, &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
			Number: paymongo.NewSecret(rapid.SampledFrom(cardNumbers).Draw(rt, "card")), ExpMonth: 12, ExpYear: 2035, CVC: paymongo.NewSecret("123"),
		}})
		if err != nil {
			continue
		}
		w.onPage[method.ID] = true
		_, _ = w.client.PaymentIntents.Attach(ctx, page.PaymentIntentID, &paymongo.PaymentIntentAttachParams{
			PaymentMethod: method.ID, ClientKey: paymongo.NewSecret(page.ClientKey), ReturnURL: "https://shop.example/back",
		})
	}
	if rapid.Bool().Draw(rt, "comes back") {
		_, _ = flows.Check(ctx, id)
	}
}
