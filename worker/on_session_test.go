package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

const (
	goodCard     = "4343434343434345"
	threeDSCard  = "4120000000000007"
	noFundsCard  = "5100000000000198"
	stolenCard   = "5400000000000195"
	declinedCard = "4400000000000016"
)

// present is a plant with a customer at the keyboard: the browser has the public
// key alone.
type present struct {
	*plant
	flows   worker.OnSession
	browser *paymongo.Client
}

func setupPresent(t *testing.T) *present {
	t.Helper()
	p := &present{plant: setup(t)}
	server := httptest.NewServer(p.box)
	t.Cleanup(server.Close)
	var err error
	p.browser, err = paymongo.NewClient("pk_test_browser", paymongo.WithBaseURL(server.URL+"/v1"), paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.browser.CloseIdleConnections)
	p.flows = worker.NewOnSession(worker.OnSession{
		Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	return p
}

func (p *present) act() billing.Act {
	return billing.Act{Actor: "api:shop", Reason: "test", Now: p.now}
}

func (p *present) customer(id uuid.UUID, name string) (uuid.UUID, error) {
	return p.flows.AddCustomer(p.t.Context(), worker.CustomerRequest{
		ID: id, ExternalID: name, FirstName: "Ana", LastName: "Cruz", Email: name + "@example.com", Act: p.act(),
	})
}

func (p *present) mustCustomer(name string) uuid.UUID {
	p.t.Helper()
	id, err := p.customer(uuid.New(), name)
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

func (p *present) start(id uuid.UUID, customer string) (billing.CardSetup, string, error) {
	return p.flows.StartCardSetup(p.t.Context(), billing.NewCardSetup{
		ID: id, Customer: customer, Amount: billing.Money{Minor: 10000, Currency: billing.CurrencyPHP}, Description: "first month", Act: p.act(),
	})
}

func (p *present) mustStart(customer string) (billing.CardSetup, string) {
	p.t.Helper()
	s, key, err := p.start(uuid.New(), customer)
	if err != nil || key == "" || s.Status != billing.CardSetupOpen {
		p.t.Fatalf("%+v %q %v", s, key, err)
	}
	return s, key
}

// newCard is the page making a payment method of what the customer types.
func (p *present) newCard(number string) string {
	p.t.Helper()
	m, err := p.browser.PaymentMethods.Create(context.Background(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	return m.ID
}

// attach is the page attaching a payment method with its client key.
func (p *present) attach(intent, key, method string) (*paymongo.PaymentIntent, error) {
	return p.browser.PaymentIntents.Attach(context.Background(), intent, &paymongo.PaymentIntentAttachParams{
		PaymentMethod: method, ClientKey: paymongo.NewSecret(key), ReturnURL: "https://shop.example/back",
	})
}

func (p *present) finish(id uuid.UUID) billing.CardSetup {
	p.t.Helper()
	s, err := p.flows.FinishCardSetup(p.t.Context(), id, p.act())
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// checkInvariants runs what singil check runs.
func (p *present) checkInvariants() {
	p.t.Helper()
	if err := pgx.BeginFunc(p.t.Context(), p.pool, func(tx pgx.Tx) error {
		broken, err := billing.Invariants(p.t.Context(), tx, time.Now())
		for _, b := range broken {
			p.t.Error(b)
		}
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *present) wantRefused(err error, part string) {
	p.t.Helper()
	var refused *billing.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), part) {
		p.t.Errorf("got %v, want a refusal with %q", err, part)
	}
}

func TestCardSetup(t *testing.T) {
	t.Parallel()
	for _, shape := range []string{"a", "b", "c"} {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			p := setupPresent(t)
			profile := p.box.Profile()
			profile.SavedMethodShape = shape
			if err := p.box.SetProfile(profile); err != nil {
				t.Fatal(err)
			}
			customer := p.mustCustomer("ana")
			s, key := p.mustStart("ana")
			if got := p.finish(s.ID); got.Status != billing.CardSetupOpen || got.PaymentMethod != nil {
				t.Errorf("before anything was paid: %+v", got)
			}
			if _, err := p.attach(*s.PaymentIntentID, key, p.newCard(declinedCard)); err == nil {
				t.Error("a card that is declined was taken")
			}
			if got := p.finish(s.ID); got.Status != billing.CardSetupOpen {
				t.Errorf("after a decline: %+v", got)
			}
			method := p.newCard(goodCard)
			if _, err := p.attach(*s.PaymentIntentID, key, method); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the page comes back twice
				got := p.finish(s.ID)
				if got.Status != billing.CardSetupSaved || got.PaymentMethod == nil || *got.PaymentMethod != method || got.PaymentID == nil {
					t.Fatalf("%+v", got)
				}
			}
			if got := p.text(`SELECT string_agg(status || ' ' || amount_minor || ' ' || (invoice_id IS NULL) || ' ' || (card_setup_id IS NOT NULL), ', ' ORDER BY status) FROM singil.payments`); got != "failed 10000 true true, paid 10000 true true" {
				t.Error(got)
			}
			if got := p.text(`SELECT string_agg(action, ', ' ORDER BY id) FROM singil.audit_log WHERE actor = 'api:shop'`); got != "create_customer, start_card_setup, finish_card_setup" {
				t.Error(got)
			}
			if n := p.number(`SELECT count(*) FROM singil.events WHERE type = 'payment_method.saved'`); n != 1 {
				t.Errorf("%d events", n)
			}
			if got := p.text(`SELECT customer_id::text FROM singil.payment_methods`); got != customer.String() {
				t.Error(got)
			}
			// The card that was saved is charged without the customer.
			p.subscribeTo(customer, "s1")
			p.tick()
			if got := p.text(`SELECT status FROM singil.invoices`); got != "paid" {
				t.Error(got)
			}
			p.checkInvariants()
		})
	}
}

// subscribeTo makes a monthly subscription of a customer from noon on.
func (p *present) subscribeTo(customer uuid.UUID, name string) {
	p.t.Helper()
	p.exec(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
		VALUES ($1, $2, 49900, 'PHP', 'month', 1, '{"offsets_days":[1,3,5,7],"hour":9,"end":"cancel"}', 'bill_all')`, uuid.New(), "plan of "+name)
	p.exec(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
		SELECT $1, $2, $3, id, 'active', amount_minor, 'PHP', 'month', 1, $4, 'Asia/Manila', 0, $4, $4, dunning, 'bill_all'
		FROM singil.plans WHERE external_id = 'plan of ' || $2`, uuid.New(), name, customer, noon)
}

func TestCardSetupWhoseAnswersAreLost(t *testing.T) {
	t.Parallel()
	for _, idempotency := range []string{"off", "replay"} {
		t.Run(idempotency, func(t *testing.T) {
			t.Parallel()
			p := setupPresent(t)
			profile := p.box.Profile()
			profile.Idempotency = idempotency
			if err := p.box.SetProfile(profile); err != nil {
				t.Fatal(err)
			}
			// The customer is made and nobody hears of it: found again by the email.
			p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "customers.create", Times: 1})
			p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "customers.search", Times: 1})
			request := uuid.New()
			if _, err := p.customer(request, "ana"); err == nil {
				t.Fatal("a customer whose answers were lost")
			}
			for range 2 {
				if id, err := p.customer(request, "ana"); err != nil || id != request {
					t.Fatal(id, err)
				}
			}
			found, err := p.client.Customers.Search(t.Context(), nil)
			if err != nil || len(found.Data) != 1 {
				t.Fatalf("%d customers at PayMongo: %v", len(found.Data), err)
			}
			// So is the intent: the page gets the one that is stored.
			p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.create", Times: 1})
			id := uuid.New()
			if _, _, err := p.start(id, "ana"); err == nil {
				t.Fatal("an intent whose answer was lost")
			}
			first, key, err := p.start(id, "ana")
			if err != nil || key == "" {
				t.Fatal(err)
			}
			again, sameKey, err := p.start(id, "ana")
			if err != nil || *again.PaymentIntentID != *first.PaymentIntentID || sameKey != key {
				t.Errorf("%+v %v", again, err)
			}
			if _, err := p.attach(*first.PaymentIntentID, key, p.newCard(goodCard)); err != nil {
				t.Fatal(err)
			}
			// Nor does a retrieve that fails do any harm.
			p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "customers.payment_methods", Times: 1})
			if _, err := p.flows.FinishCardSetup(t.Context(), id, p.act()); err == nil {
				t.Error("finished without the cards")
			}
			if got := p.finish(id); got.Status != billing.CardSetupSaved {
				t.Errorf("%+v", got)
			}
			if _, key, err := p.start(id, "ana"); err != nil || key != "" {
				t.Errorf("a key for what is paid: %v", err)
			}
			p.checkInvariants()
		})
	}
}

func TestCardSetupWhoseBrowserNeverComesBack(t *testing.T) {
	t.Parallel()
	p := setupPresent(t)
	p.mustCustomer("ana")
	paid, key := p.mustStart("ana")
	if _, err := p.attach(*paid.PaymentIntentID, key, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	left, _ := p.mustStart("ana")
	p.tick()
	if got := p.text(`SELECT string_agg(state, ', ') FROM singil.card_setups`); got != "open, open" {
		t.Error(got)
	}
	p.set(noon.Add(16 * time.Minute))
	p.tick()
	if got := p.text(`SELECT string_agg(state, ', ' ORDER BY state) FROM singil.card_setups`); got != "open, saved" {
		t.Error(got)
	}
	if got := p.text(`SELECT string_agg(actor, ', ') FROM singil.audit_log WHERE action = 'finish_card_setup'`); got != "singil" {
		t.Error(got)
	}
	// One that nobody pays is asked about a few times more, and left alone.
	for day := range 10 {
		p.set(noon.Add(time.Duration(day+1) * 24 * time.Hour))
		p.tick()
	}
	if got := p.text(`SELECT state || ' ' || (next_look_at IS NULL) || ' ' || looks FROM singil.card_setups WHERE id = '` + left.ID.String() + `'`); got != "open true 5" {
		t.Error(got)
	}
	p.checkInvariants()
}

func TestCardSetupThatIsNotWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	p := setupPresent(t)
	p.mustCustomer("ana")
	s, key := p.mustStart("ana")
	if _, err := p.attach(*s.PaymentIntentID, key, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.fault(sandbox.Fault{Kind: sandbox.WrongAmount, Endpoint: "payment_intents.retrieve", Times: 1})
	if got := p.finish(s.ID); got.Status != billing.CardSetupReview || got.Reason == nil || got.PaymentMethod != nil {
		t.Errorf("%+v", got)
	}
	if got := p.finish(s.ID); got.Status != billing.CardSetupSaved {
		t.Errorf("what was a fault of the answer: %+v", got)
	}
	for _, minor := range []int64{0, 1999, billing.MaxAmountMinor + 1} {
		_, _, err := p.flows.StartCardSetup(t.Context(), billing.NewCardSetup{
			ID: uuid.New(), Customer: "ana", Amount: billing.Money{Minor: minor, Currency: billing.CurrencyPHP}, Act: p.act(),
		})
		p.wantRefused(err, "")
	}
	if _, _, err := p.start(uuid.New(), "nobody"); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
	if err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "drill") }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.start(uuid.New(), "ana"); !errors.Is(err, billing.ErrFrozen) {
		t.Error(err)
	}
}

func TestNewCardPaysWhatWaitsForTheCustomer(t *testing.T) {
	t.Parallel()
	p := setupPresent(t)
	customer := p.mustCustomer("ana")
	p.subscribeTo(customer, "s1")
	p.tick()
	if got := p.text(`SELECT status || ' ' || waiting_for FROM singil.invoices`); got != "open customer" {
		t.Fatal(got)
	}
	s, key := p.mustStart("ana")
	if _, err := p.attach(*s.PaymentIntentID, key, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.finish(s.ID)
	p.tick()
	if got := p.text(`SELECT i.status || ' ' || a.trigger FROM singil.invoices i JOIN singil.attempts a ON a.invoice_id = i.id`); got != "paid card_update" {
		t.Error(got)
	}
	p.checkInvariants()
	p.checkBooks()
}

func TestCustomers(t *testing.T) {
	t.Parallel()
	p := setupPresent(t)
	add := func(r worker.CustomerRequest) error {
		r.ID, r.Act = uuid.New(), p.act()
		_, err := p.flows.AddCustomer(t.Context(), r)
		return err
	}
	p.mustCustomer("ana")
	provider := p.text(`SELECT provider_customer_id FROM singil.customers`)
	p.wantRefused(add(worker.CustomerRequest{ExternalID: "ana", FirstName: "Ana", LastName: "Cruz", Email: "ana@example.com"}), "exists already")
	p.wantRefused(add(worker.CustomerRequest{ExternalID: "ben", FirstName: "Ben", LastName: "Diaz", Email: "ana@example.com"}), provider)
	p.wantRefused(add(worker.CustomerRequest{ExternalID: "ben", ProviderID: provider}), "is customer ana here already")
	p.wantRefused(add(worker.CustomerRequest{ExternalID: "ben", ProviderID: "cus_nobody"}), "has no customer")

	// Linked: one of the account's that was made elsewhere.
	there, err := p.client.Customers.Create(t.Context(), &paymongo.CustomerCreateParams{FirstName: "Ben", LastName: "Diaz", Email: "ben@example.com", DefaultDevice: "email"})
	if err != nil {
		t.Fatal(err)
	}
	p.exec(`INSERT INTO singil.customers (id, external_id) VALUES (gen_random_uuid(), 'ben')`)
	for range 2 {
		if err := add(worker.CustomerRequest{ExternalID: "ben", ProviderID: there.ID}); err != nil {
			t.Error(err)
		}
	}
	if got := p.text(`SELECT name || ' ' || email || ' ' || provider_customer_id FROM singil.customers WHERE external_id = 'ben'`); got != "Ben Diaz ben@example.com "+there.ID {
		t.Error(got)
	}

	// Deleted: not while somebody would be charged.
	ana, err := billing.FindCustomer(t.Context(), p.pool, "ana")
	if err != nil {
		t.Fatal(err)
	}
	p.subscribeTo(ana, "s1")
	p.wantRefused(p.flows.DeleteCustomer(t.Context(), "ana", p.act()), "not cancelled (s1)")
	p.tick()
	p.exec(`UPDATE singil.subscriptions SET status = 'cancelled', cancelled_at = now(), next_due_at = NULL`)
	p.wantRefused(p.flows.DeleteCustomer(t.Context(), "ana", p.act()), "still owes invoice")
	p.exec(`UPDATE singil.invoices SET status = 'void', reason = 'test', next_attempt_at = NULL`)
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "customers.delete", Times: 1})
	if err := p.flows.DeleteCustomer(t.Context(), "ana", p.act()); err == nil {
		t.Error("PayMongo's failure was not told")
	}
	for range 2 {
		if err := p.flows.DeleteCustomer(t.Context(), "ana", p.act()); err != nil {
			t.Error(err)
		}
	}
	if _, found, err := p.flows.Gateway.Customer(t.Context(), provider); err != nil || found {
		t.Errorf("PayMongo still has them: %v", err)
	}
	if n := p.number(`SELECT count(*) FROM singil.audit_log WHERE action = 'delete_customer'`); n != 1 {
		t.Errorf("%d entries", n)
	}
	_, _, err = p.start(uuid.New(), "ana")
	p.wantRefused(err, "was deleted")
	p.wantRefused(add(worker.CustomerRequest{ExternalID: "ana", FirstName: "Ana", LastName: "Cruz", Email: "ana@example.com"}), "was deleted")
}

func TestCardsOfACustomer(t *testing.T) {
	t.Parallel()
	p := setupPresent(t)
	customer := p.mustCustomer("ana")
	var cards []string
	for _, number := range []string{goodCard, "5555444444444457"} {
		s, key := p.mustStart("ana")
		if _, err := p.attach(*s.PaymentIntentID, key, p.newCard(number)); err != nil {
			t.Fatal(err)
		}
		cards = append(cards, *p.finish(s.ID).PaymentMethod)
	}
	order := `SELECT string_agg(provider_payment_method_id, ' ' ORDER BY position) FROM singil.payment_methods`
	if got := p.text(order); got != strings.Join(cards, " ") {
		t.Error(got)
	}
	prefer := func(card string) error {
		return pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
			_, err := billing.PreferMethod(t.Context(), tx, card, p.act())
			return err
		})
	}
	remove := func(card string) error {
		_, err := p.flows.RemoveCard(t.Context(), card, p.act())
		return err
	}
	for range 2 {
		if err := prefer(cards[1]); err != nil {
			t.Error(err)
		}
	}
	if got := p.text(order); got != cards[1]+" "+cards[0] {
		t.Error(got)
	}
	p.subscribeTo(customer, "s1")
	if err := remove(cards[1]); err != nil {
		t.Error(err)
	}
	p.wantRefused(prefer(cards[1]), "removed")
	p.wantRefused(remove(cards[0]), "save another card first")
	if err := remove(cards[1]); err != nil { // once more: PayMongo may still have it
		t.Error(err)
	}
	p.exec(`UPDATE singil.payment_methods SET status = 'removed' WHERE provider_payment_method_id = $1`, cards[0])
	if err := remove(cards[1]); err != nil { // nobody's last
		t.Error(err)
	}
	p.exec(`UPDATE singil.payment_methods SET status = 'active' WHERE provider_payment_method_id = $1`, cards[0])
	saved, err := p.flows.Gateway.SavedCards(t.Context(), p.text(`SELECT provider_customer_id FROM singil.customers`))
	if err != nil || len(saved) != 1 || saved[0].ProviderID != cards[0] {
		t.Errorf("PayMongo has %v: %v", saved, err)
	}
	p.exec(`UPDATE singil.subscriptions SET status = 'cancelled', cancelled_at = now(), next_due_at = NULL`)
	if err := remove(cards[0]); err != nil {
		t.Error(err)
	}
	if err := remove("pm_nobody"); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
	if got := p.text(`SELECT string_agg(action || ' ' || n, ', ' ORDER BY action) FROM (SELECT action, count(*) n FROM singil.audit_log WHERE action LIKE '%payment_method' GROUP BY action) x`); got != "prefer_payment_method 1, remove_payment_method 2" {
		t.Error(got)
	}
}

// TestRecoveryOfSales: the money of card setups is no invoice's, also where the
// books have lost it.
func TestRecoveryOfSales(t *testing.T) {
	t.Parallel()
	p := setupPresent(t)
	p.mustCustomer("ana")
	known, key := p.mustStart("ana")
	if _, err := p.attach(*known.PaymentIntentID, key, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	lost, key := p.mustStart("ana")
	if _, err := p.attach(*lost.PaymentIntentID, key, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.exec(`ALTER TABLE singil.card_setups DISABLE TRIGGER append_only`)
	p.exec(`DELETE FROM singil.card_setups WHERE id = $1`, lost.ID)
	p.exec(`ALTER TABLE singil.card_setups ENABLE TRIGGER append_only`)
	// Another program of the merchant's sells something too.
	other, err := p.client.PaymentIntents.Create(t.Context(), &paymongo.PaymentIntentCreateParams{Amount: 5000, PaymentMethodAllowed: []string{"card"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.attach(other.ID, other.ClientKey.Reveal(), p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		report, err := worker.Recover(t.Context(), worker.RecoverConfig{
			Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Log: slog.New(slog.DiscardHandler),
			Now: time.Now, Actor: "ana", Apply: true, Since: noon.Add(-time.Hour),
		})
		if err != nil || report.Review() != 0 || report.Foreign != 1 {
			t.Errorf("%+v %v", report, err)
		}
	}
	if got := p.text(`SELECT string_agg(amount_minor || ' ' || source || ' ' || (card_setup_id IS NOT NULL), ', ') FROM singil.payments`); got != "10000 list true, 10000 list true" {
		t.Error(got)
	}
	p.checkInvariants()
	// The card of the one that was lost is found by the next look.
	p.exec(`UPDATE singil.instance SET frozen = false, frozen_reason = NULL, recovery_needed = NULL, recovery_noticed_at = NULL, recovery_from = NULL`)
	p.set(noon.Add(20 * time.Minute))
	p.tick()
	if got := p.text(`SELECT string_agg(state, ', ') FROM singil.card_setups`); got != "saved, saved" {
		t.Error(got)
	}
	if n := p.number(`SELECT count(DISTINCT payment_method_id) FROM singil.card_setups`); n != 2 {
		t.Errorf("%d cards: two setups have saved the same", n)
	}
}
