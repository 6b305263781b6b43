package worker_test

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
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

// owing is a customer who owes one invoice.
func owing(t *testing.T, cards ...string) *present {
	t.Helper()
	p := setupPresent(t)
	p.subscribe("s1", cards...)
	return p
}

// openInvoice opens what is due without charging it.
func (p *present) openInvoice() uuid.UUID {
	p.t.Helper()
	p.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(p.t.Context(), tx, billing.EnvironmentDev, false, p.now, 100)
		return err
	})
	return p.invoice()
}

func (p *present) invoice() uuid.UUID {
	return uuid.MustParse(p.text(`SELECT id::text FROM singil.invoices ORDER BY period_no LIMIT 1`))
}

func (p *present) pay(invoice uuid.UUID) billing.PayPage {
	p.t.Helper()
	page, err := p.flows.Pay(p.t.Context(), invoice, p.act())
	if err != nil {
		p.t.Fatal(err)
	}
	return page
}

func (p *present) check(invoice uuid.UUID) billing.PayPage {
	p.t.Helper()
	page, err := p.flows.Check(p.t.Context(), invoice)
	if err != nil {
		p.t.Fatal(err)
	}
	return page
}

func (p *present) wantPage(page billing.PayPage, step billing.PayStep, key bool) {
	p.t.Helper()
	if page.Step != step || (page.ClientKey != "") != key {
		p.t.Errorf("%+v, want step %s, key %t", page, step, key)
	}
}

// oneIntent checks that the invoice has never had another payment intent, and the
// customer no other than it.
func (p *present) oneIntent() {
	p.t.Helper()
	if n := p.number(`SELECT count(*) FROM singil.payment_intents`); n != 1 {
		p.t.Errorf("%d payment intents", n)
	}
	p.checkBooks()
	p.checkInvariants()
}

func TestPayBeforeTheFirstAttempt(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.pay(invoice)
	p.wantPage(page, billing.PayCVC, true)
	if len(page.PaymentMethods) != 1 || page.AmountMinor != 49900 || page.HeldUntil.IsZero() || page.IntentStatus != "awaiting_payment_method" {
		t.Errorf("%+v", page)
	}
	if again := p.pay(invoice); again.ClientKey != page.ClientKey || again.PaymentIntentID != page.PaymentIntentID {
		t.Errorf("another intent: %+v", again)
	}
	// Nothing is attempted while the page is open, and the reason is told.
	p.tick()
	p.set(noon.Add(10 * time.Minute))
	p.tick()
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 0 {
		t.Errorf("%d attempts", n)
	}
	p.tx(func(tx pgx.Tx) error {
		why, err := billing.Explain(t.Context(), tx, "s1", time.Now(), billing.DefaultCardLimits(), billing.BankHolidays())
		if err != nil || len(why.Reasons) == 0 || why.Reasons[0].Kind != "held" || !why.Next.Equal(page.HeldUntil.Time) {
			t.Errorf("%+v %v", why, err)
		}
		_, err = billing.Retry(t.Context(), tx, billing.RetryRequest{Invoice: invoice.String(), Act: p.act()}, billing.DefaultCardLimits(), billing.BankHolidays())
		p.wantRefused(err, "has the payment page open")
		p.wantRefused(billing.VoidInvoice(t.Context(), tx, invoice.String(), p.act()), "may be paying now")
		return nil
	})
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.wantPage(p.check(invoice), billing.PayDone, false)
	if got := p.text(`SELECT status || ' ' || attempt_count || ' ' || (payment_id IS NOT NULL) FROM singil.invoices`); got != "paid 0 true" {
		t.Error(got)
	}
	p.wantPage(p.pay(invoice), billing.PayDone, false)
	p.oneIntent()
}

func TestHoldEndsByItself(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	p.pay(invoice)
	p.set(noon.Add(billing.PayHold))
	p.tick()
	if got := p.text(`SELECT status || ' ' || attempt_count FROM singil.invoices`); got != "paid 1" {
		t.Error(got)
	}
	p.oneIntent()
}

// TestPaidOnThePageWhilePaused: nothing is charged that would look first, and a
// run that finds the invoice held or paused does not take the look away.
func TestPaidOnThePageWhilePaused(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.pay(invoice)
	id := uuid.MustParse(p.text(`SELECT id::text FROM singil.subscriptions`))
	p.tx(func(tx pgx.Tx) error { return billing.PauseSubscription(t.Context(), tx, id, p.act()) })
	if err := p.collector.Charge(t.Context(), invoice); err != nil {
		t.Fatal(err)
	}
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.set(noon.Add(billing.PayHold))
	p.tick()
	if got := p.text(`SELECT status || ' ' || attempt_count FROM singil.invoices`); got != "paid 0" {
		t.Error(got)
	}
	p.oneIntent()
}

func TestHoldsDoNotKeepAnAttemptFromBeingMade(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	for after := time.Duration(0); after < 3*time.Hour; after += 5 * time.Minute {
		p.set(noon.Add(after))
		page := p.pay(invoice) // a page that is opened again and again
		if page.Step == billing.PayDone {
			if after < 2*time.Hour || after > 2*time.Hour+10*time.Minute {
				t.Errorf("attempted after %s", after)
			}
			p.oneIntent()
			return
		}
		p.tick()
	}
	t.Error("never attempted")
}

func TestPayAfterADecline(t *testing.T) {
	t.Parallel()
	p := owing(t, stolenCard)
	p.tick()
	invoice := p.invoice()
	page := p.pay(invoice)
	p.wantPage(page, billing.PayCard, true)
	if page.DeclineCode != "generic_decline" {
		t.Errorf("a thief is told %s", page.DeclineCode)
	}
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(noFundsCard)); err == nil {
		t.Error("no decline")
	}
	// A look that gets no answer does not bring the next attempt forward.
	next := p.text(`SELECT next_attempt_at::text FROM singil.invoices`)
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.retrieve", Times: 1})
	p.wantPage(p.check(invoice), billing.PayCard, true)
	p.wantPage(p.check(invoice), billing.PayCard, true)
	if got := p.text(`SELECT next_attempt_at::text FROM singil.invoices`); got != next {
		t.Errorf("next attempt at %s, was at %s", got, next)
	}
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	// The browser never comes back, and no webhook tells: a look when the hold is over does.
	p.set(noon.Add(billing.PayHold))
	p.tick()
	if got := p.text(`SELECT i.status || ' ' || s.status || ' ' || a.state FROM singil.invoices i JOIN singil.subscriptions s ON true JOIN singil.attempts a ON true`); got != "paid active declined" {
		t.Error(got) // the attempt stays what it was
	}
	p.oneIntent()
}

func TestPayWith3DS(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	page := p.pay(invoice)
	seen, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(threeDSCard))
	if err != nil || seen.NextAction == nil {
		t.Fatal(err)
	}
	page = p.check(invoice)
	p.wantPage(page, billing.PayRedirect, true)
	if page.RedirectURL != seen.NextAction.Redirect.URL {
		t.Errorf("%+v", page)
	}
	if n := p.number(`SELECT count(*) FROM singil.events WHERE type = 'invoice.needs_action'`); n != 0 {
		t.Error("the merchant is told of what its own page has begun")
	}
	// While the customer is there, the saved card is not charged.
	p.set(noon.Add(2 * time.Hour))
	p.tick()
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 0 {
		t.Errorf("%d attempts", n)
	}
	p.press(seen.NextAction.Redirect.URL, "authorize")
	p.wantPage(p.check(invoice), billing.PayDone, false)
	p.oneIntent()
}

// press is the customer at the bank.
func (p *present) press(page, button string) {
	p.t.Helper()
	stay := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := stay.PostForm(page, url.Values{"press": {button}})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		p.t.Error(err)
	}
}

// TestCustomerWhoStaysAtTheBank: the page has sent the customer there, who does
// nothing, and the link never ends. The invoice does.
func TestCustomerWhoStaysAtTheBank(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	profile := p.box.Profile()
	profile.ActionLifetime = 0
	if err := p.box.SetProfile(profile); err != nil {
		t.Fatal(err)
	}
	invoice := p.openInvoice()
	page := p.pay(invoice)
	seen, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(threeDSCard))
	if err != nil {
		t.Fatal(err)
	}
	p.until(noon.AddDate(0, 0, 20))
	if got := p.text(`SELECT status || ' ' || attempt_count FROM singil.invoices WHERE period_no = 0`); got != "uncollectible 0" {
		t.Fatal(got)
	}
	p.press(seen.NextAction.Redirect.URL, "authorize") // after all
	p.wantPage(p.check(invoice), billing.PayDone, false)
	p.oneIntent()
}

func TestOffSession3DSIsPaidOnThePage(t *testing.T) {
	t.Parallel()
	p := owing(t, threeDSCard)
	p.tick()
	invoice := p.invoice()
	if got := p.text(`SELECT waiting_for FROM singil.invoices`); got != "customer" {
		t.Fatal(got)
	}
	page := p.pay(invoice)
	p.wantPage(page, billing.PayRedirect, true)
	// The customer takes another card instead, which is declined; the first attempt is over.
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(stolenCard)); err == nil {
		t.Error("no decline")
	}
	p.set(noon.Add(20 * time.Minute))
	p.wantPage(p.check(invoice), billing.PayCVC, true)
	if got := p.text(`SELECT a.state || ' ' || a.decline_code || ' ' || pm.status FROM singil.attempts a JOIN singil.payment_methods pm ON true`); got != "declined authentication_error active" {
		t.Error(got) // the saved card is not blamed for the other one
	}
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.wantPage(p.check(invoice), billing.PayDone, false)
	p.oneIntent()
}

func TestPayWhileAnAttemptIsOnItsWay(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.attach", Times: 1})
	p.fault(sandbox.Fault{Kind: sandbox.Processing, Endpoint: "payment_intents.attach", For: sandbox.Duration(time.Hour)})
	p.tick()
	invoice := p.invoice()
	p.wantPage(p.pay(invoice), billing.PayWait, false)
	p.wantPage(p.check(invoice), billing.PayWait, false)
	p.set(noon.Add(time.Hour))
	p.wantPage(p.check(invoice), billing.PayDone, false)
	p.oneIntent()
}

// TestPaidOnThePageWhileArmed: the page was opened, its hold is over, and the
// customer pays at the moment of our own attempt.
func TestPaidOnThePageWhileArmed(t *testing.T) {
	t.Parallel()
	p := owing(t, noFundsCard)
	invoice := p.openInvoice()
	page := p.pay(invoice)
	p.set(noon.Add(billing.PayHold))
	// Our attach hangs at the provider and is never executed; the page's is.
	p.fault(sandbox.Fault{Kind: sandbox.TimeoutBefore, Endpoint: "payment_intents.attach", Times: 1})
	p.tick()
	if got := p.text(`SELECT state FROM singil.attempts`); got != "armed" {
		t.Fatal(got)
	}
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(stolenCard)); err == nil {
		t.Error("no decline")
	}
	p.set(p.now.Add(time.Minute))
	p.tick()
	if got := p.text(`SELECT state FROM singil.attempts`); got != "armed" {
		t.Errorf("another's decline is taken for ours: %s", got)
	}
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.wantPage(p.check(invoice), billing.PayDone, false)
	p.oneIntent()
	if got := p.text(`SELECT status FROM singil.payment_methods`); got != "active" {
		t.Error(got)
	}
}

func TestPayWhenItsAnswersAreLost(t *testing.T) {
	t.Parallel()
	for _, idempotency := range []string{"off", "replay", "replay_failures"} {
		t.Run(idempotency, func(t *testing.T) {
			t.Parallel()
			p := owing(t, goodCard)
			profile := p.box.Profile()
			profile.Idempotency = idempotency
			if err := p.box.SetProfile(profile); err != nil {
				t.Fatal(err)
			}
			invoice := p.openInvoice()
			p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.create", Times: 2})
			p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.create", Times: 1})
			failures := 0
			for {
				page, err := p.flows.Pay(t.Context(), invoice, p.act())
				if err == nil {
					p.wantPage(page, billing.PayCVC, true)
					break
				}
				var e *worker.GatewayError
				if failures++; failures > 5 || !errors.As(err, &e) {
					t.Fatal(failures, err)
				}
			}
			p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.retrieve", Times: 1})
			if _, err := p.flows.Pay(t.Context(), invoice, p.act()); err == nil {
				t.Error("a page without a look")
			}
			page := p.pay(invoice)
			if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
				t.Fatal(err)
			}
			p.wantPage(p.check(invoice), billing.PayDone, false)
			p.oneIntent()
		})
	}
}

func TestPayRefused(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	if _, err := p.flows.Pay(t.Context(), uuid.New(), p.act()); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
	if _, err := p.flows.Check(t.Context(), uuid.New()); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
	p.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "drill") })
	if _, err := p.flows.Pay(t.Context(), invoice, p.act()); !errors.Is(err, billing.ErrFrozen) {
		t.Error(err) // an intent that a restored database has lost may be paid already
	}
	p.exec(`UPDATE singil.instance SET frozen = false, frozen_reason = NULL`)
	p.exec(`UPDATE singil.invoices SET status = 'review', reason = 'odd', next_attempt_at = NULL`)
	p.wantPage(p.pay(invoice), billing.PayWait, false)
	p.exec(`UPDATE singil.invoices SET status = 'void'`)
	p.wantPage(p.pay(invoice), billing.PayDone, false)
	if n := p.number(`SELECT count(*) FROM singil.audit_log WHERE action = 'open_payment_page'`); n != 0 {
		t.Errorf("%d entries of what was refused", n)
	}
}

func TestPayWhatWasGivenUp(t *testing.T) {
	t.Parallel()
	p := owing(t, stolenCard)
	p.tick()
	invoice := p.invoice()
	p.tx(func(tx pgx.Tx) error { return billing.MarkUncollectible(t.Context(), tx, invoice.String(), p.act()) })
	page := p.pay(invoice)
	p.wantPage(page, billing.PayCard, true)
	if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.set(noon.Add(billing.PayHold))
	p.tick()
	if got := p.text(`SELECT status FROM singil.invoices`); got != "paid" {
		t.Error(got)
	}
	p.oneIntent()
}

func TestPayOnAnIntentThatWasCancelled(t *testing.T) {
	t.Parallel()
	p := owing(t, goodCard)
	invoice := p.openInvoice()
	first := p.pay(invoice)
	if _, err := p.client.PaymentIntents.Cancel(t.Context(), first.PaymentIntentID, &paymongo.PaymentIntentCancelParams{}); err != nil {
		t.Fatal(err)
	}
	second := p.pay(invoice)
	p.wantPage(second, billing.PayCVC, true)
	if second.PaymentIntentID == first.PaymentIntentID {
		t.Error("a dead intent is given to the page")
	}
	if got := p.text(`SELECT string_agg(state, ', ' ORDER BY generation) FROM singil.payment_intents`); got != "dead, ready" {
		t.Error(got)
	}
	if _, err := p.attach(second.PaymentIntentID, second.ClientKey, p.newCard(goodCard)); err != nil {
		t.Fatal(err)
	}
	p.wantPage(p.check(invoice), billing.PayDone, false)
	p.checkBooks()
	p.checkInvariants()
}

// racing is one open invoice for each of many customers, claimed as by a sweep that
// has just enqueued it. One answer in five of the endpoints is lost.
func racing(t *testing.T, many int, endpoints ...string) (p *present, ids []uuid.UUID, seed uint64) {
	t.Helper()
	p, seed = setupPresent(t), rand.Uint64()
	t.Logf("seed %d", seed)
	profile := p.box.Profile()
	profile.AcquirerLatency = sandbox.Duration(3 * time.Millisecond)
	if err := p.box.SetProfile(profile); err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range endpoints {
		p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: endpoint, Probability: 0.2})
	}
	for i := range many {
		p.subscribe("s"+string(rune('a'+i)), []string{goodCard, noFundsCard, threeDSCard}[i%3])
	}
	p.openInvoice()
	rows, err := p.pool.Query(t.Context(), `SELECT id FROM singil.invoices ORDER BY id`)
	if err == nil {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	}
	if err != nil || len(ids) != many {
		t.Fatal(len(ids), err)
	}
	p.exec(`UPDATE singil.invoices SET claimed = true`)
	return p, ids, seed
}

// payTheRest has those pay in the end who were left with the bank's page, or with
// an empty card.
func (p *present) payTheRest(ids []uuid.UUID) {
	p.t.Helper()
	p.box.ClearFaults()
	for _, id := range ids {
		page := p.pay(id)
		if page.Step == billing.PayDone {
			continue
		}
		if _, err := p.attach(page.PaymentIntentID, page.ClientKey, p.newCard(goodCard)); err != nil {
			p.t.Errorf("%+v: %v", page, err)
		}
		p.wantPage(p.check(id), billing.PayDone, false)
	}
}

// TestPayRaces has pages opened, cards attached in browsers, charges and looks at
// the same moment, on invoices of their own. Whatever happens, each is paid once.
func TestPayRaces(t *testing.T) {
	t.Parallel()
	p, ids, seed := racing(t, 24, "payment_intents.attach", "payment_intents.create")
	var all sync.WaitGroup
	for i, id := range ids {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		for range 2 {
			all.Go(func() { _ = p.collector.Charge(t.Context(), id) })
			wait := time.Duration(rng.IntN(12)) * time.Millisecond
			all.Go(func() {
				<-time.After(wait)
				page, err := p.flows.Pay(t.Context(), id, p.act())
				if err != nil || page.ClientKey == "" {
					return
				}
				method := p.newCard(goodCard)
				_, _ = p.attach(page.PaymentIntentID, page.ClientKey, method)
				_, _ = p.flows.Check(t.Context(), id)
			})
			all.Go(func() {
				<-time.After(wait)
				_ = p.collector.Reconcile(t.Context(), id)
			})
		}
	}
	all.Wait()
	for after := time.Minute; after < 3*time.Hour; after += 10 * time.Minute {
		p.set(noon.Add(after))
		p.tick()
	}
	p.payTheRest(ids)
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != len(ids) {
		t.Errorf("%d of %d paid: %s", n, len(ids), p.text(`SELECT string_agg(status || ' ' || COALESCE(reason, ''), ', ') FROM singil.invoices WHERE status <> 'paid'`))
	}
	if n := p.number(`SELECT count(*) FROM singil.payment_intents`); n != len(ids) {
		t.Errorf("%d payment intents for %d invoices", n, len(ids))
	}
	p.checkBooks()
	p.checkInvariants()
}
