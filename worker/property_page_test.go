package worker_test

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// attempted are the invoices that a customer pays himself here. Cancelling a
// subscription voids the others, whoever is about to pay them.
const attempted = "i.attempt_count > 0 AND i.status IN ('open', 'uncollectible')"

func (w *world) flows() worker.OnSession {
	return worker.NewOnSession(worker.OnSession{Pool: w.look, Gateway: w.gate, Environment: billing.EnvironmentDev, Now: time.Now, Log: w.log})
}

// page has a customer open the payment page and, perhaps, pay there: with faults
// on every wire, at any moment between the attempts.
func (w *world) page(rt *rapid.T) {
	id := w.anInvoice(rt, attempted)
	defer w.drain()
	ctx := context.Background()
	flows := w.flows()
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
		_, _ = w.client.PaymentIntents.Attach(ctx, page.PaymentIntentID, &paymongo.PaymentIntentAttachParams{
			PaymentMethod: method.ID, ClientKey: paymongo.NewSecret(page.ClientKey), ReturnURL: "https://shop.example/back",
		})
	}
	if rapid.Bool().Draw(rt, "comes back") {
		_, _ = flows.Check(ctx, id)
	}
}

// checkout has a customer sent to the page that the provider hosts. He goes there
// now, later, or never.
func (w *world) checkout(rt *rapid.T) {
	w.openCheckout(w.anInvoice(rt, attempted))
	w.drain()
	if rapid.Bool().Draw(rt, "goes there") {
		w.hostedPage(rt)
	}
}

func (w *world) openCheckout(invoice uuid.UUID) {
	page, err := w.flows().Checkout(context.Background(), invoice, worker.CheckoutURLs{}, w.by())
	if err == nil && page.URL != "" { // otherwise frozen, no answer, or an attempt is on its way
		w.hosted = append(w.hosted, page.URL)
	}
}

// hostedPage has a customer press a button on a page that was handed out some time.
func (w *world) hostedPage(rt *rapid.T) {
	if len(w.hosted) == 0 {
		rt.Skip()
	}
	page := w.hosted[len(w.hosted)-1-rapid.IntRange(0, len(w.hosted)-1).Draw(rt, "page")]
	w.press(page, rapid.SampledFrom([]string{"pay", "pay", "decline", "three_ds", "cancel"}).Draw(rt, "press"))
	w.drain()
}

// payHosted pays on the page that was handed out last, if it is still there.
func (w *world) payHosted() {
	if len(w.hosted) > 0 {
		w.press(w.hosted[len(w.hosted)-1], "pay")
	}
}

// customer answers a 3-D Secure page.
func (w *world) customer(rt *rapid.T) {
	id := w.anInvoice(rt, "i.action_url IS NOT NULL")
	var page string
	w.trouble("read the page", w.look.QueryRow(context.Background(), `SELECT action_url FROM singil.invoices WHERE id = $1`, id).Scan(&page))
	w.press(page, rapid.SampledFrom([]string{"authorize", "fail"}).Draw(rt, "press"))
	w.drain()
}

// browser stays where it is: the shop that a customer's page sends back to is nobody's.
var browser = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// press presses a button on a page of the provider. Its webhook comes: an invoice
// that was given up meanwhile has nothing else to learn of it by.
func (w *world) press(page, button string) {
	for _, f := range w.box.Faults() {
		if f.Kind == sandbox.WebhookLost {
			w.box.RemoveFault(f.ID)
		}
	}
	resp, err := browser.PostForm(page, url.Values{"press": {button}})
	if err != nil {
		w.trouble("press", err)
		return
	}
	w.trouble("press", resp.Body.Close())
}
