package billing

import "github.com/google/uuid"

// CheckoutPage is what a merchant needs to send a customer to the provider's own
// page, which pays the invoice. Step is PayRedirect with a URL, and PayWait or
// PayDone without.
type CheckoutPage struct {
	Invoice      uuid.UUID `json:"invoice"`
	Subscription string    `json:"subscription"`
	PeriodNo     int       `json:"period_no"`
	Status       string    `json:"status"`
	AmountMinor  int64     `json:"amount_minor"`
	Currency     Currency  `json:"currency"`
	Step         PayStep   `json:"step"`
	Detail       string    `json:"detail"`
	// URL ends in a secret: it is for the customer alone, and stored nowhere.
	URL               string `json:"url"`
	CheckoutSessionID string `json:"checkout_session_id"`
	PaymentIntentID   string `json:"payment_intent_id"`
	HeldUntil         Stamp  `json:"held_until"`
}

// Checkout is the page as a hosted checkout's, without its URL: nothing to do but
// to wait, unless there is nothing to pay.
func (p PayPage) Checkout() CheckoutPage {
	c := CheckoutPage{
		Invoice: p.Invoice, Subscription: p.Subscription, PeriodNo: p.PeriodNo, Status: p.Status, AmountMinor: p.AmountMinor, Currency: p.Currency,
		Step: p.Step, Detail: p.Detail, HeldUntil: p.HeldUntil,
	}
	if c.Step != PayDone && c.Step != PayWait {
		c.Step, c.Detail = PayWait, "an outcome is on its way: ask again in a moment"
	}
	return c
}

// MayReplaceIntent says why the invoice's live payment intent may not be cancelled
// for a hosted checkout to take its place. Only an open invoice gets another one.
func (c *Collection) MayReplaceIntent() error {
	if c.InvoiceOpen {
		return nil
	}
	return refusedAs(RefusalNotOpen, "the invoice is %s, and its payment intent stays the one that it has: let the customer pay on that, or have it retried first", c.Status)
}
