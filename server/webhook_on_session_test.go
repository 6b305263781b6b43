package server_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/worker"
)

// onSession are the flows with the customer present.
func (p *plant) onSession() (worker.OnSession, billing.Act) {
	return worker.NewOnSession(worker.OnSession{
		Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}), billing.Act{Actor: "api:shop", Reason: "test", Now: p.now}
}

// browser attaches a card with the client key alone.
func (p *plant) browser(intent, key, number string) {
	p.t.Helper()
	if _, err := p.client.PaymentIntents.Attach(p.t.Context(), intent, &paymongo.PaymentIntentAttachParams{
		PaymentMethod: p.card(number), ClientKey: paymongo.NewSecret(key), ReturnURL: "https://shop.example/back",
	}); err != nil {
		p.t.Fatal(err)
	}
}

// TestWebhookTellsOfThePage: the customer pays in the browser before any attempt
// was made, and the page never comes back.
func TestWebhookTellsOfThePage(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", good)
	p.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, noon, 10)
		return err
	})
	flows, act := p.onSession()
	page, err := flows.Pay(t.Context(), uuid.MustParse(p.text(`SELECT id::text FROM singil.invoices`)), act)
	if err != nil {
		t.Fatal(err)
	}
	p.browser(page.PaymentIntentID, page.ClientKey, good)
	p.settle()
	p.want("paid 0", `SELECT status || ' ' || attempt_count FROM singil.invoices`)
	p.set(noon.Add(2 * time.Minute))
	p.tick()
	p.want("payment.paid applied", inbox)
	p.wantMetric(`singil_unknown_payments_total{metadata="ours"} 0`)
	p.wantMetric(`singil_unknown_payments_total{metadata="none"} 0`)
}

// TestWebhookTellsOfASale: the money of a card setup is the merchant's own, and
// nobody is paged for it.
func TestWebhookTellsOfASale(t *testing.T) {
	t.Parallel()
	p := setup(t)
	flows, act := p.onSession()
	customer, err := flows.AddCustomer(t.Context(), worker.CustomerRequest{
		ID: uuid.New(), ExternalID: "ana", FirstName: "Ana", LastName: "Cruz", Email: "ana@example.com", Act: act,
	})
	if err != nil {
		t.Fatal(err)
	}
	setup, key, err := flows.StartCardSetup(t.Context(), billing.NewCardSetup{
		ID: uuid.New(), Customer: customer.String(), Amount: billing.Money{Minor: 10000, Currency: billing.CurrencyPHP}, Act: act,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.browser(*setup.PaymentIntentID, key, good)
	p.settle()
	p.want("payment.paid applied", inbox)
	p.tick() // no quarter of an hour: the webhook has made it due
	p.settle()
	p.want("saved", `SELECT state FROM singil.card_setups`)
	p.want("10000 true", `SELECT amount_minor || ' ' || (card_setup_id IS NOT NULL) FROM singil.payments`)
	p.wantMetric(`singil_unknown_payments_total{metadata="ours"} 0`)
	p.tx(func(tx pgx.Tx) error {
		broken, err := billing.Invariants(t.Context(), tx, time.Now())
		for _, b := range broken {
			t.Error(b)
		}
		return err
	})
	// One of another installation's, on the same account.
	if status, _ := p.post(p.event("evt_other", "payment.paid", "pay_other", "pi_other", 100, `{"environment":"staging","card_setup":"`+uuid.NewString()+`"}`)); status != 200 {
		t.Error(status)
	}
	p.settle()
	p.want("ignored", `SELECT result FROM singil.webhook_events WHERE event_id = 'evt_other'`)
}
