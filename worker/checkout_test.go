package worker_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

func (p *present) checkout(invoice uuid.UUID) billing.CheckoutPage {
	p.t.Helper()
	page, err := p.flows.Checkout(p.t.Context(), invoice, worker.CheckoutURLs{Success: "https://shop.example/back", Cancel: "https://shop.example/later"}, p.act())
	if err != nil {
		p.t.Fatal(err)
	}
	return page
}

// mustCheckout is a checkout that has a page to go to.
func (p *present) mustCheckout(invoice uuid.UUID) billing.CheckoutPage {
	p.t.Helper()
	page := p.checkout(invoice)
	if page.Step != billing.PayRedirect || page.URL == "" || page.CheckoutSessionID == "" || page.PaymentIntentID == "" || page.AmountMinor != 49900 {
		p.t.Fatalf("%+v", page)
	}
	if got := p.text(`SELECT pi.provider_intent_id || ' ' || pi.checkout_session_id FROM singil.payment_intents pi WHERE NOT dead AND pi.invoice_id = '` + invoice.String() + `'`); got != page.PaymentIntentID+" "+page.CheckoutSessionID {
		p.t.Fatalf("stored %s, answered %+v", got, page)
	}
	return page
}

// wantBooks checks the generations of the one invoice, and that nothing was paid
// twice.
func (p *present) wantBooks(invoice, intents string) {
	p.t.Helper()
	if got := p.text(`SELECT status FROM singil.invoices ORDER BY period_no LIMIT 1`); got != invoice {
		p.t.Errorf("invoice %s, want %s: %s", got, invoice, p.text(`SELECT reason FROM singil.invoices ORDER BY period_no LIMIT 1`))
	}
	if got := p.text(`SELECT string_agg(state, ' ' ORDER BY generation) FROM singil.payment_intents`); got != intents {
		p.t.Errorf("intents %s, want %s", got, intents)
	}
	p.checkBooks()
	p.checkInvariants()
}

func TestCheckoutIsPaid(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.mustCheckout(invoice)
	if page.HeldUntil.IsZero() {
		t.Errorf("%+v", page)
	}
	if again := p.mustCheckout(invoice); again != page {
		t.Errorf("another page: %+v", again)
	}
	p.tick()
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 0 {
		t.Errorf("%d attempts while the page is open", n)
	}
	// The merchant's own page would be given the same intent.
	if own := p.pay(invoice); own.PaymentIntentID != page.PaymentIntentID {
		t.Errorf("another intent: %+v", own)
	}
	p.press(page.URL, "decline")
	p.press(page.URL, "pay")
	p.wantPage(p.check(invoice), billing.PayDone, false)
	if done := p.checkout(invoice); done.Step != billing.PayDone || done.URL != "" {
		t.Errorf("%+v", done)
	}
	p.wantBooks("paid", "succeeded")
	if n := p.number(`SELECT count(*) FROM singil.audit_log WHERE action = 'open_checkout' AND after ->> 'checkout_session' LIKE 'cs_%'`); n != 2 {
		t.Errorf("%d entries", n)
	}
	_, secret, _ := strings.Cut(page.URL, "?")
	for _, table := range []string{"audit_log", "events", "payment_intents", "invoices"} {
		if n := p.number(`SELECT count(*) FROM singil.` + table + ` x WHERE x::text LIKE '%` + secret + `%'`); n != 0 {
			t.Errorf("the page's address is stored in %s", table)
		}
	}
}

func TestCheckoutTakesThePlaceOfAnIntent(t *testing.T) {
	t.Parallel()
	p := owing(t, noFundsCard)
	p.tick()
	invoice := p.invoice()
	page := p.mustCheckout(invoice)
	p.wantBooks("open", "dead ready")
	if old, err := p.client.PaymentIntents.Retrieve(t.Context(), p.text(`SELECT provider_intent_id FROM singil.payment_intents WHERE generation = 1`), nil); err != nil || old.Status != "cancelled" {
		t.Error(old, err)
	}
	p.press(page.URL, "pay")
	// Nobody asks, and no webhook tells: the look when the hold is over does.
	p.set(noon.Add(billing.PayHold))
	p.tick()
	p.wantBooks("paid", "dead succeeded")
}

func TestCheckoutIsClosedBeforeTheNextAttempt(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.mustCheckout(invoice)
	p.set(noon.Add(billing.PayHold))
	p.tick()
	p.tick()
	p.wantBooks("paid", "dead succeeded")
	if got := p.text(`SELECT string_agg(a.state || ' ' || pi.generation, ', ') FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id`); got != "succeeded 2" {
		t.Error(got)
	}
	session, err := p.client.CheckoutSessions.Retrieve(t.Context(), page.CheckoutSessionID)
	if err != nil || session.Status != paymongo.CheckoutSessionStatusExpired {
		t.Error(session, err)
	}
}

// TestCheckoutStaysOpenWhereNothingIsAttempted: it is the way that is left.
func TestCheckoutStaysOpenWhereNothingIsAttempted(t *testing.T) {
	t.Parallel()
	p := owing(t, stolenCard)
	p.tick()
	invoice := p.invoice()
	page := p.mustCheckout(invoice)
	p.until(noon.AddDate(0, 0, 20))
	p.press(page.URL, "pay")
	p.wantPage(p.check(invoice), billing.PayDone, false)
	p.wantBooks("paid", "dead succeeded")
}

func TestCheckoutWhileAnAttemptIsOnItsWay(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.attach", Times: 1})
	p.fault(sandbox.Fault{Kind: sandbox.Processing, Endpoint: "payment_intents.attach", For: sandbox.Duration(time.Hour)})
	p.tick()
	invoice := p.invoice()
	for range 2 {
		if page := p.checkout(invoice); page.Step != billing.PayWait || page.URL != "" {
			t.Errorf("%+v", page)
		}
		p.set(noon.Add(30 * time.Minute)) // no longer armed, but processing
		p.check(invoice)
	}
	p.set(noon.Add(time.Hour))
	p.check(invoice)
	p.wantBooks("paid", "succeeded")
}

func TestCheckoutWhileTheCustomerMayAuthorise(t *testing.T) {
	t.Parallel()
	p := owing(t, threeDSCard)
	p.tick()
	if page := p.checkout(p.invoice()); page.Step != billing.PayWait || !strings.Contains(page.Detail, "authorise") {
		t.Errorf("%+v", page)
	}
	p.wantBooks("open", "ready")
}

// TestTwoCheckoutsAtOnce has the button pressed twice: one session becomes the
// invoice's, and the other one is closed.
func TestTwoCheckoutsAtOnce(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	var all sync.WaitGroup
	var pages [4]billing.CheckoutPage
	for i := range pages {
		all.Go(func() {
			var err error
			if pages[i], err = p.flows.Checkout(t.Context(), invoice, worker.CheckoutURLs{}, p.act()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, page := range pages {
		if page.URL == "" || page.URL != pages[0].URL {
			t.Errorf("%+v", page)
		}
	}
	alive := 0
	for _, pi := range p.box.Ledger().Intents {
		if pi.Status == "awaiting_payment_method" {
			alive++
		}
	}
	if alive != 1 {
		t.Errorf("%d intents are alive", alive)
	}
	p.press(pages[0].URL, "pay")
	p.check(invoice)
	p.wantBooks("paid", "succeeded")
}

// meddling has something happen right before a checkout is closed.
type meddling struct {
	worker.Gateway
	before func()
}

func (g *meddling) CloseCheckout(ctx context.Context, session string) (bool, error) {
	if g.before != nil {
		g.before()
	}
	return g.Gateway.CloseCheckout(ctx, session)
}

func TestPaidAtTheMomentOfExpiry(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.mustCheckout(invoice)
	meddler := &meddling{Gateway: worker.NewPayMongo(p.client), before: func() { p.press(page.URL, "pay") }}
	late := worker.NewCollector(worker.Config{Pool: p.pool, Gateway: meddler, Environment: billing.EnvironmentDev, Log: p.flows.Log, Now: time.Now})
	p.set(noon.Add(billing.PayHold))
	p.exec(`UPDATE singil.invoices SET claimed = true`)
	if err := late.Charge(t.Context(), invoice); err != nil {
		t.Fatal(err)
	}
	p.wantBooks("paid", "succeeded")
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 0 {
		t.Errorf("%d attempts", n)
	}
}

func TestCheckoutWhenAnswersAreLost(t *testing.T) {
	t.Parallel()
	for _, kind := range []sandbox.FaultKind{sandbox.ErrorBefore, sandbox.ResetAfter, sandbox.TimeoutAfter, sandbox.CutBody} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			p := owing(t, noFundsCard)
			p.tick()
			invoice := p.invoice()
			for _, endpoint := range []string{"payment_intents.cancel", "checkout_sessions.create", "checkout_sessions.retrieve", "checkout_sessions.expire"} {
				p.fault(sandbox.Fault{Kind: kind, Endpoint: endpoint, Times: 2})
			}
			var page billing.CheckoutPage
			for range 10 {
				var err error
				if page, err = p.flows.Checkout(t.Context(), invoice, worker.CheckoutURLs{}, p.act()); err == nil && page.URL != "" {
					break
				}
				var e *worker.GatewayError
				if err != nil && !errors.As(err, &e) {
					t.Fatal(err)
				}
			}
			if page.URL == "" {
				t.Fatalf("%+v", page)
			}
			p.wantBooks("open", "dead ready")
			// The next attempt is due on the payday, and the page is closed for it.
			p.until(noon.AddDate(0, 0, 15).Add(3 * time.Hour))
			p.wantBooks("open", "dead dead ready")
			if got := p.number(`SELECT count(*) FROM singil.attempts`); got != 2 {
				t.Errorf("%d attempts", got)
			}
		})
	}
}

// TestCheckoutThatCannotBeClosed ends in front of a human, and never beside
// another intent.
func TestCheckoutThatCannotBeClosed(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.mustCheckout(invoice)
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "checkout_sessions.expire"})
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.cancel"})
	p.until(noon.AddDate(0, 0, 6))
	p.wantBooks("review", "review")
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 0 {
		t.Errorf("%d attempts", n)
	}
	p.press(page.URL, "pay")
	p.check(invoice)
	p.wantBooks("paid", "succeeded")
}

// TestCheckoutCancelledByOthers: no page is left open beside the next intent.
func TestCheckoutCancelledByOthers(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.mustCheckout(invoice)
	if _, err := p.client.PaymentIntents.Cancel(t.Context(), page.PaymentIntentID, nil); err != nil {
		t.Fatal(err)
	}
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "checkout_sessions.expire", Times: 2})
	p.check(invoice)
	p.wantBooks("open", "ready")
	p.check(invoice)
	p.wantBooks("open", "dead creating")
	session, err := p.client.CheckoutSessions.Retrieve(t.Context(), page.CheckoutSessionID)
	if err != nil || session.Status != paymongo.CheckoutSessionStatusExpired {
		t.Error(session, err)
	}
	if again := p.mustCheckout(invoice); again.URL == page.URL {
		t.Error("a page that is closed is given")
	}
}

func TestCheckoutRefused(t *testing.T) {
	t.Parallel()
	p := owing(t, noFundsCard)
	p.tick()
	invoice := p.invoice()
	try := func() error {
		_, err := p.flows.Checkout(t.Context(), invoice, worker.CheckoutURLs{}, p.act())
		return err
	}
	if _, err := p.flows.Checkout(t.Context(), uuid.New(), worker.CheckoutURLs{}, p.act()); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
	p.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "drill") })
	if err := try(); !errors.Is(err, billing.ErrFrozen) {
		t.Error(err)
	}
	p.exec(`UPDATE singil.instance SET frozen = false, frozen_reason = NULL`)
	p.exec(`UPDATE singil.invoices SET status = 'review', reason = 'odd', next_attempt_at = NULL`)
	if page := p.checkout(invoice); page.Step != billing.PayWait || page.URL != "" {
		t.Errorf("%+v", page)
	}
	p.tx(func(tx pgx.Tx) error { return billing.MarkUncollectible(t.Context(), tx, invoice.String(), p.act()) })
	p.wantRefused(try(), "stays the one that it has") // only an open invoice gets another intent
	p.wantBooks("uncollectible", "ready")
}

// TestCheckoutRaces has checkouts opened, paid and closed, charges and looks at
// the same moment. Whatever happens, each invoice is paid once.
func TestCheckoutRaces(t *testing.T) {
	t.Parallel()
	p, ids, seed := racing(t, 18, "payment_intents.attach", "payment_intents.create", "payment_intents.cancel", "checkout_sessions.*")
	for round := range 3 {
		var all sync.WaitGroup
		for i, id := range ids {
			rng := rand.New(rand.NewPCG(seed, uint64(i+100*round)))
			for range 2 {
				wait, pays := time.Duration(rng.IntN(12))*time.Millisecond, rng.IntN(3) == 0
				all.Go(func() { _ = p.collector.Charge(t.Context(), id) })
				all.Go(func() {
					<-time.After(wait)
					page, err := p.flows.Checkout(t.Context(), id, worker.CheckoutURLs{}, p.act())
					if err == nil && page.URL != "" && pays {
						p.press(page.URL, "pay")
					}
				})
				all.Go(func() {
					<-time.After(wait)
					_ = p.collector.Reconcile(t.Context(), id)
				})
			}
		}
		all.Wait()
		p.set(p.now.Add(billing.PayHold))
		p.exec(`UPDATE singil.invoices SET claimed = true WHERE status = 'open'`)
	}
	for range 12 {
		p.set(p.now.Add(20 * time.Minute))
		p.tick()
	}
	p.payTheRest(ids)
	t.Logf("%d intents for %d invoices", p.number(`SELECT count(*) FROM singil.payment_intents`), len(ids))
	p.checkBooks()
	p.checkInvariants()
}

// TestPaidOnThePageOfAVoidInvoice: the subscription is cancelled while the customer
// has the page, he pays, and no webhook tells. A look does, once, and a human decides
// about a refund.
func TestPaidOnThePageOfAVoidInvoice(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	page := p.mustCheckout(p.openInvoice())
	id := uuid.MustParse(p.text(`SELECT id::text FROM singil.subscriptions`))
	p.tx(func(tx pgx.Tx) error {
		return billing.CancelSubscription(t.Context(), tx, id, billing.CancelNow, p.act())
	})
	p.press(page.URL, "pay")
	for range 40 {
		p.set(p.now.Add(24 * time.Hour))
		p.tick()
	}
	const told = `SELECT count(*) FROM singil.events WHERE type = 'invoice.paid_after_void'`
	if n := p.number(told); n != 1 {
		t.Errorf("told of %d times", n)
	}
	if n := p.number(`SELECT count(*) FROM singil.payments WHERE status = 'paid'`); n != 1 {
		t.Errorf("%d payments on record", n)
	}
	if got := p.text(`SELECT i.status || ' ' || pi.state FROM singil.invoices i JOIN singil.payment_intents pi ON pi.invoice_id = i.id`); got != "void succeeded" {
		t.Error(got)
	}
	p.checkInvariants()
}
