package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// A hosted checkout makes a payment intent of its own, so it never stands beside
// one of ours that is alive: that one is cancelled and seen cancelled first. Then
// the checkout's is the invoice's one intent, and it too is seen cancelled before
// there is another.

// CheckoutCloser ends what a hosted checkout has opened. Neither call proves
// anything: a look does.
type CheckoutCloser interface {
	// CloseCheckout expires a session, or finds it expired.
	CloseCheckout(ctx context.Context, session string) (closed bool, err error)
	Cancel(ctx context.Context, intent string) error
}

// CheckoutURLs are where the hosted page sends the customer. Both may be empty.
type CheckoutURLs struct{ Success, Cancel string }

// checkoutTries bounds how often a checkout is begun anew because the invoice's
// payment intent has changed meanwhile.
const checkoutTries = 4

// Checkout gives the page that PayMongo hosts for an invoice, and holds back the
// attempts that would be made meanwhile. Asked again, it is the same page as long
// as that is open. An intent of ours without an open attempt is cancelled for it.
//
// When it returns a URL the session's id is durable. Errors are those of Pay.
func (o OnSession) Checkout(ctx context.Context, invoice uuid.UUID, urls CheckoutURLs, act billing.Act) (billing.CheckoutPage, error) {
	for range checkoutTries {
		page, again, err := o.checkout(ctx, invoice, urls, act)
		if err != nil || !again {
			return page, err
		}
	}
	return billing.CheckoutPage{}, billing.ErrInFlight
}

func (o OnSession) checkout(ctx context.Context, invoice uuid.UUID, urls CheckoutURLs, act billing.Act) (page billing.CheckoutPage, again bool, err error) {
	c, now, err := o.load(ctx, invoice)
	if err != nil {
		return page, false, err
	}
	shown := c.Page(now)
	page = shown.Checkout()
	switch {
	case shown.Step == billing.PayDone || shown.Step == billing.PayWait:
		return page, false, nil
	case c.Open != nil:
		page.Detail = "the customer may still authorise the last attempt at the bank: pay gives the link, and check tells what came of it"
		return page, false, nil
	case c.Checkout != "":
		return o.handOut(ctx, c, page, act)
	case c.ProviderIntentID != "":
		return o.giveWay(ctx, c, page, act)
	}
	return o.openCheckout(ctx, c, page, urls, act)
}

// share stores what the page is given and holds attempts back. again: somebody was
// faster.
func (o OnSession) share(ctx context.Context, r billing.PayRequest) (shared billing.SharedIntent, again bool, err error) {
	err = o.tx(ctx, func(tx pgx.Tx) (err error) {
		shared, err = billing.ShareIntent(ctx, tx, r, o.Now())
		return err
	})
	if errors.Is(err, billing.ErrPayMoved) || errors.Is(err, billing.ErrInFlight) {
		return shared, true, nil
	}
	return shared, false, err
}

// openCheckout makes a session for an invoice whose intent has no id yet, and
// stores it as the invoice's.
func (o OnSession) openCheckout(ctx context.Context, c *billing.Collection, page billing.CheckoutPage, urls CheckoutURLs, act billing.Act) (billing.CheckoutPage, bool, error) {
	instance, err := billing.LoadInstance(ctx, o.Pool)
	if err != nil {
		return page, false, err
	}
	if err := instance.MayCharge(o.Now()); err != nil {
		return page, false, err
	}
	like := createRequest(c, o.Environment)
	// A create whose answer is lost has made a page that nobody was told of. So has one
	// that is not stored below.
	made, err := o.Gateway.CreateCheckout(ctx, CheckoutRequest{
		Amount: like.Amount, Metadata: like.Metadata, Name: fmt.Sprintf("%s, period %d", c.SubscriptionNo, c.PeriodNo),
		Reference: c.InvoiceID.String(), SuccessURL: urls.Success, CancelURL: urls.Cancel,
	})
	if err != nil {
		return page, false, err
	}
	if err := c.Check(made.Intent); err != nil {
		return page, false, errors.Join(err, o.discard(ctx, made))
	}
	if made.ID == "" || !made.Active || made.URL.Reveal() == "" {
		return page, false, errors.Join(fmt.Errorf("the provider made checkout session %q, which is not open", made.ID), o.discard(ctx, made))
	}
	shared, again, err := o.share(ctx, billing.PayRequest{
		InvoiceID: c.InvoiceID, IntentID: c.IntentID, ProviderIntentID: made.Intent.ID, CheckoutSessionID: made.ID, Act: act,
	})
	if err != nil || again {
		// Perhaps it was committed all the same: then the next look finds it cancelled.
		if lost := o.discard(ctx, made); lost != nil {
			o.Log.Warn("a checkout session that nobody was told of stays open", "checkout_session", made.ID, "invoice", c.InvoiceID.String(), "error", lost)
		}
		return page, again, err
	}
	return ready(page, made, shared), false, nil
}

// ready is the page with what is durable by now.
func ready(page billing.CheckoutPage, session HostedCheckout, shared billing.SharedIntent) billing.CheckoutPage {
	page.Step, page.Detail = billing.PayRedirect, "send the customer to the url"
	page.URL, page.CheckoutSessionID, page.PaymentIntentID = session.URL.Reveal(), session.ID, shared.ProviderIntentID
	page.HeldUntil = billing.Stamp{}
	if !shared.HeldUntil.IsZero() {
		page.HeldUntil = billing.Stamp{Time: shared.HeldUntil}
	}
	return page
}

// discardTimeout is for a request whose own time may be over.
const discardTimeout = 5 * time.Second

// discard closes a session that is no invoice's, as far as that can be done.
func (o OnSession) discard(ctx context.Context, made HostedCheckout) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	_, err := o.Gateway.CloseCheckout(ctx, made.ID)
	return err
}

// handOut gives the session that the invoice has once more, as long as its page is
// open.
func (o OnSession) handOut(ctx context.Context, c *billing.Collection, page billing.CheckoutPage, act billing.Act) (billing.CheckoutPage, bool, error) {
	shared, again, err := o.share(ctx, billing.PayRequest{
		InvoiceID: c.InvoiceID, IntentID: c.IntentID, ProviderIntentID: c.ProviderIntentID, CheckoutSessionID: c.Checkout, Act: act,
	})
	if err != nil || again {
		return page, again, err
	}
	seen, err := o.Gateway.ShowPage(ctx, c.ProviderIntentID)
	if err != nil {
		return page, false, err
	}
	session, err := o.Gateway.ShowCheckout(ctx, c.Checkout)
	if err != nil {
		return page, false, err
	}
	if session.ID != c.Checkout || session.Intent.ID != c.ProviderIntentID {
		return page, false, fmt.Errorf("checkout session %s of intent %s was answered instead of %s of %s", session.ID, session.Intent.ID, c.Checkout, c.ProviderIntentID)
	}
	switch j := c.Judge(seen.ProviderIntent, act.Now); {
	case replaceable(j) && session.Active:
		return ready(page, session, shared), false, nil
	case j.Ruling == billing.Paid, j.Ruling == billing.Park:
		return page, true, o.look(ctx, c.InvoiceID)
	case j.Ruling == billing.Dead, replaceable(j):
		return o.replace(ctx, c, page)
	}
	return page, false, nil
}

// replaceable tells that nothing of ours is open on the intent, and that no
// outcome is on its way: it may be cancelled. The customer who is at the bank's
// page may come back; PayMongo decides which is first.
func replaceable(j billing.Judgement) bool {
	return j.Ruling == billing.Free || j.Ruling == billing.Wait && j.WaitingFor == billing.WaitingForCustomer
}

// giveWay has the invoice's own payment intent cancelled. Attempts are held back
// first, under the same lock that tells that none is open: an attach would only
// be refused, and whoever comes after the hold looks before he arms.
func (o OnSession) giveWay(ctx context.Context, c *billing.Collection, page billing.CheckoutPage, act billing.Act) (billing.CheckoutPage, bool, error) {
	if err := c.MayReplaceIntent(); err != nil {
		return page, false, err
	}
	shared, again, err := o.share(ctx, billing.PayRequest{InvoiceID: c.InvoiceID, IntentID: c.IntentID, ProviderIntentID: c.ProviderIntentID, Act: act})
	if err != nil || again {
		return page, again, err
	}
	if shared.HeldUntil.IsZero() {
		page.Detail = "the next attempt has been put off for as long as it may be: ask again when it was made"
		return page, false, nil
	}
	seen, err := o.Gateway.ShowPage(ctx, c.ProviderIntentID)
	if err != nil {
		return page, false, err
	}
	held, _, err := o.load(ctx, c.InvoiceID)
	if err != nil {
		return page, false, err
	}
	if held.IntentID != c.IntentID || held.Open != nil {
		return page, true, nil
	}
	switch j := held.Judge(seen.ProviderIntent, act.Now); {
	case replaceable(j), j.Ruling == billing.Dead:
		return o.replace(ctx, held, page)
	case j.Ruling == billing.Paid, j.Ruling == billing.Park:
		return page, true, o.look(ctx, c.InvoiceID)
	}
	return page, false, nil
}

// replace closes the invoice's payment intent and opens the next generation, if a
// look shows the intent cancelled. What the answers say, and whether there are any,
// does not count.
func (o OnSession) replace(ctx context.Context, c *billing.Collection, page billing.CheckoutPage) (billing.CheckoutPage, bool, error) {
	if err := c.MayReplaceIntent(); err != nil {
		return page, false, err
	}
	var e *GatewayError
	if err := o.Gateway.Cancel(ctx, c.ProviderIntentID); err != nil && (!errors.As(err, &e) || e.Fault) {
		return page, false, err
	}
	if err := o.look(ctx, c.InvoiceID); err != nil {
		return page, false, err
	}
	after, _, err := o.load(ctx, c.InvoiceID)
	if err != nil {
		return page, false, err
	}
	return page, after.IntentID != c.IntentID || !after.InvoiceOpen, nil
}

// expire closes the hosted checkout of an invoice that is due again: the session,
// and should that leave its intent alive, the intent. After each it looks, and only
// what a look shows opens the next generation. Where dunning makes no attempt the
// page stays open: it is the way that is left.
func (c *collection) expire(ctx context.Context) (done bool, err error) {
	if c.may != nil {
		return true, c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: c.hold(time.Minute, c.may.Error())})
	}
	choice, err := c.Choose(c.now, c.limits, c.holidays)
	if err != nil {
		return true, c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Park, Reason: err.Error()}})
	}
	if choice.Decision != nil {
		return true, c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred, Reason: choice.Decision.Reason}, Decision: choice.Decision})
	}
	c.looked = false
	switch c.closing++; c.closing {
	case 1:
		_, err = c.gateway.CloseCheckout(ctx, c.Checkout)
	case 2:
		err = c.gateway.Cancel(ctx, c.ProviderIntentID)
	default:
		return true, c.put(ctx, billing.Settlement{Judgement: billing.CheckoutOpen(), Source: "retrieve"})
	}
	var e *GatewayError
	if err != nil && (!errors.As(err, &e) || e.Fault) {
		return true, c.gatewayTrouble(ctx, err)
	}
	return false, nil
}

// buried lets a checkout's intent be dead only when no page is left that was made
// for it: somebody else may have cancelled the intent, with the session open.
func (c *collection) buried(ctx context.Context, dead billing.Judgement) (billing.Judgement, error) {
	closed, err := c.gateway.CloseCheckout(ctx, c.Checkout)
	var e *GatewayError
	switch {
	case closed:
		return dead, nil
	case err != nil && (!errors.As(err, &e) || e.Fault):
		return dead, err
	}
	return billing.CheckoutOpen(), nil
}
