package main

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

// counter is a desk with a PayMongo behind it.
type counter struct {
	*desk
	box    *sandbox.Sandbox
	client *paymongo.Client
	url    string
}

func newCounter(t *testing.T, subscriptions int) *counter {
	t.Helper()
	c := &counter{desk: newDesk(t, subscriptions)}
	var err error
	if c.box, err = sandbox.New(sandbox.Options{Seed: 3, Start: deskNow, StopClock: true, Hang: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(c.box)
	c.url = server.URL + "/v1"
	if c.client, err = paymongo.NewClient("sk_test_counter", paymongo.WithBaseURL(c.url)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.client.CloseIdleConnections()
		if err := c.box.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return c
}

// step has the key in the environment, which reading it takes away.
func (c *counter) step(want int, contains string, args ...string) string {
	c.t.Helper()
	c.t.Setenv("PAYMONGO_SECRET_KEY", "sk_test_counter")
	c.t.Setenv("PAYMONGO_BASE_URL", c.url)
	return c.desk.step(want, contains, args...)
}

// paid has an invoice attempted and paid at PayMongo; our books do not know it.
func (c *counter) paid(subscription string) (intent, payment string) {
	c.t.Helper()
	created, err := c.client.PaymentIntents.Create(c.t.Context(), &paymongo.PaymentIntentCreateParams{Amount: 49900, PaymentMethodAllowed: []string{"card"}})
	if err != nil {
		c.t.Fatal(err)
	}
	method, err := c.client.PaymentMethods.Create(c.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret("4343434343434345"), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.attempt(subscription, c.now.Add(-30*time.Minute), "")
	after, err := c.client.PaymentIntents.Attach(c.t.Context(), created.ID, &paymongo.PaymentIntentAttachParams{PaymentMethod: method.ID})
	if err != nil || len(after.Payments) != 1 {
		c.t.Fatal(err, after)
	}
	return created.ID, after.Payments[0].ID
}

// bought is a payment that is on record.
func (c *counter) bought(subscription string) (payment string) {
	c.t.Helper()
	_, payment = c.paid(subscription)
	c.tx(func(tx pgx.Tx) error {
		_, err := tx.Exec(c.t.Context(), `INSERT INTO singil.payments (payment_id, invoice_id, status, amount_minor, currency, livemode, source)
			VALUES ($1, $2, 'paid', 49900, 'PHP', false, 'list')`, payment, c.invoice(subscription))
		return err
	})
	return payment
}

func TestRefund(t *testing.T) {
	c := newCounter(t, 1)
	pay := c.bought("s0")
	give := func(want int, contains, amount string, more ...string) (r billing.Refund) {
		t.Helper()
		stdout := c.step(want, contains, append([]string{"refund", pay, "--amount", amount, "--reason", "a mistake", "--actor", "ana", "-o", "json"}, more...)...)
		if stdout != "" {
			if err := json.Unmarshal([]byte(stdout), &r); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	given := func() (sum int64) {
		t.Helper()
		p, err := c.client.Payments.Retrieve(t.Context(), pay)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Refunds {
			sum += r.Amount
		}
		return sum
	}
	settle := func() {
		c.box.Clock().Set(c.box.Clock().Now().Add(24 * time.Hour))
		c.box.Settle()
	}
	c.step(2, "--reason", "refund", pay, "--amount", "1.00")
	c.step(2, "--amount", "refund", pay, "--reason", "x")
	give(2, "--amount", "1e2")
	give(2, "--as", "1.00", "--as", "boredom")
	give(4, "at the least", "0.99")
	give(4, "cannot be given back", "499.01")
	c.step(3, "not found", "refund", "pay_none", "--amount", "1.00", "--reason", "x")

	if r := give(0, "", "100.00"); r.State != billing.RefundAccepted || r.Provider == nil || given() != 100_00 {
		t.Errorf("%+v, %d given back", r, given())
	}
	give(4, "already; --again", "100.00") // a double click
	settle()
	give(0, "", "100.00", "--again")
	settle()
	if given() != 200_00 {
		t.Errorf("%d given back", given())
	}

	// An answer that is lost after it was done: nothing else goes out until it is known.
	fault := func(kind sandbox.FaultKind) {
		t.Helper()
		if _, err := c.box.AddFault(sandbox.Fault{Kind: kind, Endpoint: "refunds.create", Times: 1}); err != nil {
			t.Fatal(err)
		}
	}
	fault(sandbox.ErrorAfter)
	give(6, "--look", "50.00")
	give(4, "its answer is not known", "60.00")
	settle()
	c.step(0, "accepted", "refund", pay, "--look", "--actor", "ana")
	c.step(0, "accepted", "refund", pay, "--look")
	// And one that was not: it stays asked for until it cannot be done any more.
	fault(sandbox.ErrorBefore)
	give(6, "--look", "70.00")
	c.step(6, "not known", "refund", pay, "--look")
	if _, err := c.pool.Exec(t.Context(), `ALTER TABLE singil.refunds DISABLE TRIGGER USER; UPDATE singil.refunds SET asked_at = asked_at - interval '1 hour' WHERE state = 'asked'; ALTER TABLE singil.refunds ENABLE TRIGGER USER`); err != nil {
		t.Fatal(err)
	}
	c.step(4, "does not show it", "refund", pay, "--look", "--actor", "ana")
	give(0, "", "all")
	if given() != 499_00 {
		t.Errorf("%d given back of 49900", given())
	}
	settle()
	give(4, "cannot be given back", "1.00")
	if got := c.text(`SELECT string_agg(after ->> 'state', ' ' ORDER BY id) FROM singil.audit_log WHERE action = 'refund_payment' AND actor = 'ana'`); got != "asked accepted asked accepted asked accepted asked refused asked accepted" {
		t.Errorf("audited: %s", got)
	}
	if got := c.text(`SELECT sum(amount_minor)::text FROM singil.refunds WHERE state = 'accepted'`); got != "49900" {
		t.Errorf("%s on record", got)
	}
}

func TestReconcileByHand(t *testing.T) {
	c := newCounter(t, 3)
	intent, _ := c.paid("s0")
	c.step(0, "", "reconcile", "-o", "json", "--limit", "1", "--reason", "a drill") // PayMongo does not know pi_s0: in front of a human
	if _, err := c.pool.Exec(t.Context(), `ALTER TABLE singil.payment_intents DISABLE TRIGGER USER; UPDATE singil.payment_intents SET provider_intent_id = '`+intent+`', state = 'ready' WHERE provider_intent_id IS NOT NULL; ALTER TABLE singil.payment_intents ENABLE TRIGGER USER`); err != nil {
		t.Fatal(err)
	}
	c.step(0, "-> paid", "reconcile", c.invoice("s0"), "--reason", "they called", "--actor", "ana")
	c.step(0, "", "reconcile", "--reason", "a drill")
	c.step(3, "not found", "reconcile", "i1", "--reason", "a drill")
	c.step(2, "--limit", "reconcile", "--limit", "0", "--reason", "a drill")
	if got := c.audited("reconcile"); !strings.Contains(got, "ana: they called") {
		t.Errorf("audited: %s", got)
	}
	// A key of another world is refused before anything is asked.
	t.Setenv("SINGIL_ENVIRONMENT", "staging")
	c.step(7, "another installation", "reconcile", "--reason", "a drill")
}

func TestPaymentMethodsByHand(t *testing.T) {
	c := newCounter(t, 2)
	customer, err := c.client.Customers.Create(t.Context(), &paymongo.CustomerCreateParams{
		FirstName: "Ana", LastName: "Reyes", Email: "ana@example.com", Phone: "+639171234567", DefaultDevice: "email",
	})
	if err != nil {
		t.Fatal(err)
	}
	intent, err := c.client.PaymentIntents.Create(t.Context(), &paymongo.PaymentIntentCreateParams{
		Amount: 2000, PaymentMethodAllowed: []string{"card"},
		SetupFutureUsage: &paymongo.SetupFutureUsage{SessionType: paymongo.SessionTypeOffSession, CustomerID: customer.ID},
	})
	if err != nil {
		t.Fatal(err)
	}
	method, err := c.client.PaymentMethods.Create(t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret("4343434343434345"), ExpMonth: 11, ExpYear: 2031, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.PaymentIntents.Attach(t.Context(), intent.ID, &paymongo.PaymentIntentAttachParams{PaymentMethod: method.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.pool.Exec(t.Context(), `UPDATE singil.customers SET provider_customer_id = $1 WHERE external_id = 'u0'`, customer.ID); err != nil {
		t.Fatal(err)
	}
	why := []string{"--reason", "a new card", "--actor", "ana"}
	c.step(2, "--reason", "payment-methods", "refresh", "u0")
	c.step(3, "not found", append([]string{"payment-methods", "refresh", "u9"}, why...)...)
	c.step(0, "Dry run", append([]string{"payment-methods", "refresh", "u0", "--dry-run"}, why...)...)
	stdout := c.step(0, method.ID, append([]string{"payment-methods", "refresh", "u0", "-o", "json"}, why...)...)
	var r billing.RefreshedMethods
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || len(r.Added) != 1 || len(r.Removed) != 1 || r.Removed[0] != "pm_0" {
		t.Errorf("%s %v", stdout, err)
	}
	list := c.step(0, "ending in 4345", "payment-methods", "list", "--customer", "u0")
	if strings.Contains(list, "4343434343434345") || !strings.Contains(list, "removed") {
		t.Error(list)
	}
	c.step(2, "--status", "payment-methods", "list", "--status", "happy")
	c.step(0, "pm_1", "payment-methods", "list", "--status", "active")
	stdout = c.step(0, "", append([]string{"payment-methods", "refresh", "u0", "-o", "json"}, why...)...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || len(r.Added)+len(r.Removed) != 0 || len(r.Kept) != 1 {
		t.Errorf("%s %v", stdout, err)
	}

	c.step(4, "or --last", append([]string{"payment-methods", "remove", method.ID}, why...)...)
	c.step(4, "save another card first", append([]string{"payment-methods", "remove", method.ID, "--dry-run"}, why...)...)
	if left, err := c.client.Customers.ListPaymentMethods(t.Context(), customer.ID, nil); err != nil || len(left.Data) != 1 {
		t.Errorf("%d cards are left at PayMongo: %v", len(left.Data), err)
	}
	c.step(0, "removed", append([]string{"payment-methods", "remove", method.ID, "--last"}, why...)...)
	left, err := c.client.Customers.ListPaymentMethods(t.Context(), customer.ID, nil)
	if err != nil || len(left.Data) != 0 {
		t.Errorf("%d cards are left at PayMongo: %v", len(left.Data), err)
	}
	c.step(0, "removed", append([]string{"payment-methods", "remove", method.ID}, why...)...) // again is harmless
	c.step(3, "not found", append([]string{"payment-methods", "remove", "pm_nobodys"}, why...)...)
	if a, b := c.audited("refresh_payment_methods"), c.audited("remove_payment_method"); strings.Count(a, "ana") != 1 || strings.Count(b, "ana") != 1 {
		t.Errorf("audited: %s; %s", a, b)
	}
}

func TestWebhooksAuditAndDoctor(t *testing.T) {
	c := newCounter(t, 1)
	hook := "https://billing.example.com/webhooks/paymongo"
	var findings []finding
	doctor := func(want int, args ...string) map[string]string {
		t.Helper()
		findings = nil
		if err := json.Unmarshal([]byte(c.step(want, "", append([]string{"doctor", "-o", "json"}, args...)...)), &findings); err != nil {
			t.Fatal(err)
		}
		states := map[string]string{}
		for _, f := range findings {
			states[f.Name] = f.State
			if f.State == findingWrong && f.Next == "" {
				t.Errorf("%s has no next step: %s", f.Name, f.Found)
			}
		}
		return states
	}
	if got := doctor(0, "--probe"); got["account"] != findingOK || got["vault"] != findingOK || got["intent"] != findingOK || got["webhooks"] != findingNote || got["clock"] != findingOK {
		t.Errorf("%v", findings)
	}

	c.step(2, "--reason", "webhooks", "register", hook)
	c.step(2, "not a URL", "webhooks", "register", "billing", "--reason", "x")
	stdout := c.step(0, "PAYMONGO_WEBHOOK_SECRET", "webhooks", "register", hook, "--reason", "first set up", "--actor", "ana", "-o", "json")
	if strings.Count(stdout, "whsk_") != 1 {
		t.Errorf("the secret is not there once: %s", stdout)
	}
	c.step(4, "already", "webhooks", "register", hook, "--reason", "again")
	if log := c.text(`SELECT string_agg(a::text, '') FROM singil.audit_log a`); strings.Contains(log, "whsk_") || !strings.Contains(log, "register_webhook") {
		t.Error("the audit log tells the secret, or nothing")
	}
	if got := doctor(1); got["webhooks"] != findingWrong { // one is enabled, and there is no secret
		t.Errorf("%v", findings)
	}

	if _, err := c.pool.Exec(t.Context(), `INSERT INTO singil.webhook_events (event_id, type, livemode, body, next_try_at, processed_at, result)
		VALUES ('evt_1', 'payment.paid', false, '{}', NULL, clock_timestamp(), 'applied'), ('evt_2', 'payment.failed', false, '{}', clock_timestamp(), NULL, NULL)`); err != nil {
		t.Fatal(err)
	}
	c.step(0, "evt_2", "webhooks", "list", "--unprocessed")
	c.step(0, "evt_1", "webhooks", "list", "--result", "applied", "-o", "csv")
	c.step(3, "not found", "webhooks", "replay", "evt_9", "--reason", "x")
	c.step(0, "next sweep", "webhooks", "replay", "evt_1", "--reason", "a drill", "--actor", "ana")
	if n := c.text(`SELECT count(*)::text FROM singil.webhook_events WHERE processed_at IS NULL`); n != "2" {
		t.Errorf("%s are unprocessed", n)
	}

	c.step(0, "replay_webhook", "audit", "list", "--actor", "ana", "--action", "replay_webhook")
	c.step(0, "head of the chain: link", "audit", "list", "--limit", "1")
	c.step(0, "", "audit", "list", "--subject", "nobody")
	c.step(2, "no end", "audit", "list", "--follow", "-o", "json")
	var lines []billing.AuditLine
	if err := json.Unmarshal([]byte(c.step(0, "", "audit", "list", "-o", "json", "--limit", "2")), &lines); err != nil || len(lines) != 2 || lines[0].ID < lines[1].ID || lines[0].Hash == nil {
		t.Errorf("%v %v", lines, err)
	}

	c.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "a drill") })
	if _, err := c.box.AddFault(sandbox.Fault{Kind: sandbox.Unauthorized}); err != nil {
		t.Fatal(err)
	}
	if got := doctor(1); got["charging"] != findingWrong || got["account"] != findingWrong || got["vault"] != "" {
		t.Errorf("%v", findings)
	}
	c.step(7, "PayMongo refuses the key", "webhooks", "register", hook+"2", "--reason", "x")
}
