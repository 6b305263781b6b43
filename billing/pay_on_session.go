package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// An invoice is paid with the customer present on the one payment intent that it
// has: whatever the page attaches, it yields one payment at most, as does what
// we attach. So nothing here decides about money. What is decided is who goes
// first: attempts wait a while for the customer, and the customer waits for an
// attempt that is on its way.

const (
	// PayHold is how long no attempt is made by itself after the page was opened.
	PayHold = 20 * time.Minute
	// payHolds bounds a row of holds: a page that is opened again and again puts
	// an attempt off, and does not keep it from being made. The schema has it too.
	payHolds = 2 * time.Hour
)

// ReasonHeld is why an open invoice waits for its customer's page.
const ReasonHeld = "the customer has the payment page open"

// ErrPayMoved means that another intent has become the invoice's in the meantime:
// load it again.
var ErrPayMoved = errors.New("the invoice's payment intent has changed")

// PayRequest asks to give an invoice's payment intent to the customer's page.
type PayRequest struct {
	InvoiceID uuid.UUID
	IntentID  uuid.UUID // our record of it, as loaded
	// ProviderIntentID is stored if the record has none yet; else the stored one
	// is what the page gets, and this one nobody ever hears of.
	ProviderIntentID string
	// CheckoutSessionID is of the hosted checkout that has made ProviderIntentID, and
	// that is handed out; empty: the page is the merchant's own.
	CheckoutSessionID string
	Act
}

// SharedIntent is what a page may be told of, once the transaction is committed.
type SharedIntent struct {
	ProviderIntentID string
	HeldUntil        time.Time // zero: attempts are not held back
}

// payInvoice is what is true of an invoice when its row is locked.
type payInvoice struct {
	status, reason string
	heldFrom       time.Time
	heldUntil      time.Time
}

// payIntent is what is true of a payment intent when its row is locked.
type payIntent struct {
	invoice  uuid.UUID
	state    IntentState
	provider string
	open     AttemptState // of the open attempt; empty: there is none
}

// check says why the intent may not be given to a page. An attempt whose answer
// is awaited goes first: the page would only be refused. One that waits for the
// customer is what the page is for.
func (r PayRequest) check(invoice payInvoice, intent payIntent) error {
	switch {
	case invoice.status == InvoiceReview:
		return refusedAs(RefusalReview, "the invoice is in review: %s; what happened must be settled before anybody pays it", invoice.reason)
	case invoice.status != InvoiceOpen && invoice.status != InvoiceUncollectible:
		return refusedAs(RefusalNotOpen, "the invoice is %s: there is nothing to pay", invoice.status)
	case intent.invoice != r.InvoiceID, intent.state == IntentDead:
		return ErrPayMoved
	case intent.open == AttemptArmed:
		return ErrInFlight
	case intent.open == AttemptReview, intent.state != IntentCreating && intent.state != IntentReady:
		return refusedAs(RefusalReview, "the invoice's payment intent is %s; what happened must be settled before anybody pays it", intent.state)
	case intent.provider == "" && r.ProviderIntentID == "":
		return ErrPayMoved
	case r.CheckoutSessionID != "" && intent.provider != "" && intent.provider != r.ProviderIntentID:
		return ErrPayMoved // its page would pay on another intent than the invoice's
	}
	return nil
}

// hold is the hold after one more opening of the page.
func (i payInvoice) hold(now time.Time) (from, until time.Time) {
	if i.status != InvoiceOpen {
		return time.Time{}, time.Time{} // nothing is attempted that would have to wait
	}
	from = i.heldFrom
	if from.IsZero() {
		from = now
	}
	until = now.Add(PayHold)
	if last := from.Add(payHolds); until.After(last) {
		until = last
	}
	if until.Before(i.heldUntil) { // a clock that was behind
		until = i.heldUntil
	}
	return from, until
}

const sqlPayLockInstance = `
SELECT i.frozen, COALESCE(i.frozen_reason, ''), i.virtual_now, p.breaker_open, COALESCE(p.breaker_reason, '')
FROM singil.instance i CROSS JOIN singil.provider_state p
FOR SHARE OF i`

const sqlPayLockInvoice = `
SELECT i.status, COALESCE(i.reason, ''), i.held_from, i.held_until
FROM singil.invoices i
WHERE i.id = $1
FOR UPDATE`

const sqlPayLockIntent = `
SELECT pi.invoice_id, pi.state, COALESCE(pi.provider_intent_id, '')
FROM singil.payment_intents pi
WHERE pi.id = $1
FOR UPDATE`

const sqlPayOpenAttempt = `
SELECT a.state FROM singil.attempts a
WHERE a.payment_intent_id = $1 AND a.state IN ('armed', 'review', 'needs_action')`

const sqlPayShare = `
UPDATE singil.payment_intents
SET state = 'ready', provider_intent_id = COALESCE(provider_intent_id, $2),
    checkout_session_id = COALESCE(checkout_session_id, NULLIF($5, '')), fence = fence + $4::int, shared_at = $3, updated_at = clock_timestamp()
WHERE id = $1
RETURNING provider_intent_id`

// A look when the hold is over finds what the page has done, should no webhook
// tell. The attempt that was due waits for the hold; one of a later day is not
// made any earlier.
const sqlPayHold = `
UPDATE singil.invoices
SET held_from = $2, held_until = $3, claimed = claimed AND NOT $5,
    next_attempt_at = CASE WHEN status = 'open' THEN greatest(next_attempt_at, $3) END,
    look_back_at = COALESCE($3, $4), look_backs = 0, updated_at = clock_timestamp()
WHERE id = $1`

// ShareIntent gives an invoice's payment intent to the customer's page: it stores
// the provider's id (write-once), and holds attempts back for a while. Whoever
// has loaded the invoice to charge it is not allowed to arm any more, unless the
// holds are used up: then nobody is kept from anything.
//
// Nothing may be told to the page before tx is committed and the commit was
// acknowledged. Errors: ErrInFlight and ErrPayMoved, to come back for; ErrFrozen
// and ErrBreakerOpen; a *RefusedError.
func ShareIntent(ctx context.Context, tx pgx.Tx, r PayRequest, realNow time.Time) (SharedIntent, error) {
	var in Instance
	var virtual *time.Time
	if err := tx.QueryRow(ctx, sqlPayLockInstance).Scan(&in.Frozen, &in.FrozenReason, &virtual, &in.BreakerOpen, &in.BreakerReason); err != nil {
		return SharedIntent{}, fmt.Errorf("pay invoice %s: instance: %w", r.InvoiceID, err)
	}
	in.VirtualNow = orZero(virtual)
	if err := in.MayCharge(realNow); err != nil {
		return SharedIntent{}, err
	}
	now := in.Now(realNow)

	var invoice payInvoice
	var from, until *time.Time
	switch err := tx.QueryRow(ctx, sqlPayLockInvoice, r.InvoiceID).Scan(&invoice.status, &invoice.reason, &from, &until); {
	case errors.Is(err, pgx.ErrNoRows):
		return SharedIntent{}, fmt.Errorf("invoice %s: %w", r.InvoiceID, ErrNotFound)
	case err != nil:
		return SharedIntent{}, fmt.Errorf("lock invoice %s: %w", r.InvoiceID, err)
	}
	invoice.heldFrom, invoice.heldUntil = orZero(from), orZero(until)
	var intent payIntent
	switch err := tx.QueryRow(ctx, sqlPayLockIntent, r.IntentID).Scan(&intent.invoice, &intent.state, &intent.provider); {
	case errors.Is(err, pgx.ErrNoRows):
		return SharedIntent{}, ErrPayMoved
	case err != nil:
		return SharedIntent{}, fmt.Errorf("lock the intent of invoice %s: %w", r.InvoiceID, err)
	}
	// Behind the locks: beside them it would be what it was before the wait.
	if err := tx.QueryRow(ctx, sqlPayOpenAttempt, r.IntentID).Scan(&intent.open); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return SharedIntent{}, fmt.Errorf("look for an open attempt of invoice %s: %w", r.InvoiceID, err)
	}
	if err := r.check(invoice, intent); err != nil {
		return SharedIntent{}, err
	}

	heldFrom, heldUntil := invoice.hold(now)
	held := heldUntil.After(now)
	fence := 0
	if held {
		fence = 1
	}
	var shared SharedIntent
	if err := tx.QueryRow(ctx, sqlPayShare, r.IntentID, r.ProviderIntentID, now, fence, r.CheckoutSessionID).Scan(&shared.ProviderIntentID); err != nil {
		return SharedIntent{}, fmt.Errorf("share the intent of invoice %s: %w", r.InvoiceID, err)
	}
	if _, err := tx.Exec(ctx, sqlPayHold, r.InvoiceID, orNull(heldFrom), orNull(heldUntil), now.Add(PayHold), held); err != nil {
		return SharedIntent{}, fmt.Errorf("hold invoice %s: %w", r.InvoiceID, err)
	}
	if held {
		shared.HeldUntil = heldUntil.UTC()
	}
	after := fields{"payment_intent": shared.ProviderIntentID}
	if !shared.HeldUntil.IsZero() {
		after["held_until"] = shared.HeldUntil
	}
	entry := AuditEntry{Action: "open_payment_page"}
	if r.CheckoutSessionID != "" {
		entry = AuditEntry{Action: "open_checkout"}
		after["checkout_session"] = r.CheckoutSessionID
	}
	entry.Actor, entry.Subject, entry.Reason, entry.After = r.Actor, r.InvoiceID.String(), r.Reason, after
	return shared, Audit(ctx, tx, entry)
}

// orNull is an instant for a nullable column.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// NoteCreateFailed counts a create of an invoice's intent that the provider
// answered with a failure: after some of them another key is taken.
func NoteCreateFailed(ctx context.Context, tx pgx.Tx, intent uuid.UUID) error {
	if _, err := tx.Exec(ctx, sqlWriteCreateFailed, []uuid.UUID{intent}); err != nil {
		return fmt.Errorf("note the failed create of intent %s: %w", intent, err)
	}
	return nil
}

// PayStep is what the customer's page has to do.
type PayStep string

// The steps.
const (
	PayDone     PayStep = "done"     // paid, or nothing to pay any more
	PayWait     PayStep = "wait"     // an outcome is on its way: check again in a moment
	PayRedirect PayStep = "redirect" // send the customer to the bank's page
	PayCVC      PayStep = "cvc"      // a saved card wants its CVC, then attach it; or attach a new one
	PayCard     PayStep = "card"     // attach a new card
)

// PayPage is what the customer's page needs to have an invoice paid.
type PayPage struct {
	Invoice         uuid.UUID             `json:"invoice"`
	Subscription    string                `json:"subscription"`
	PeriodNo        int                   `json:"period_no"`
	Status          string                `json:"status"`
	AmountMinor     int64                 `json:"amount_minor"`
	Currency        Currency              `json:"currency"`
	Step            PayStep               `json:"step"`
	Detail          string                `json:"detail"`
	PaymentIntentID string                `json:"payment_intent_id"`
	ClientKey       string                `json:"client_key"`
	IntentStatus    string                `json:"payment_intent_status"`
	RedirectURL     string                `json:"redirect_url"`
	DeclineCode     string                `json:"decline_code"` // as a payer may be shown it
	HeldUntil       Stamp                 `json:"held_until"`
	PaymentMethods  []PublicPaymentMethod `json:"payment_methods"` // saved, and not declined for good, in the order in which they are charged
}

// PublicPaymentMethod is a saved card as its owner is shown it.
type PublicPaymentMethod struct {
	PaymentMethod string `json:"paymongo_payment_method_id"`
	Brand         string `json:"brand"`
	Last4         string `json:"last4"`
	ExpMonth      *int   `json:"exp_month"`
	ExpYear       *int   `json:"exp_year"`
}

// Page is what the page is told of an invoice: without what only an intent that
// is shared with it shows.
func (c *Collection) Page(now time.Time) PayPage {
	p := PayPage{
		Invoice: c.InvoiceID, Subscription: c.SubscriptionNo, PeriodNo: c.PeriodNo, Status: c.Status, AmountMinor: c.Amount.Minor, Currency: c.Amount.Currency,
		PaymentMethods: []PublicPaymentMethod{}, Step: PayCard, Detail: "attach a card to the payment intent",
	}
	if c.Status == InvoiceOpen && c.HeldUntil.After(now) {
		p.HeldUntil = Stamp{c.HeldUntil.UTC()}
	}
	for _, card := range c.Cards {
		if card.Status != "active" {
			continue
		}
		m := PublicPaymentMethod{PaymentMethod: card.ProviderID, Brand: card.Brand, Last4: card.Last4}
		if card.ExpMonth != 0 {
			m.ExpMonth, m.ExpYear = &card.ExpMonth, &card.ExpYear
		}
		p.PaymentMethods = append(p.PaymentMethods, m)
	}
	if n := len(c.Attempts); n > 0 && c.Attempts[n-1].State == AttemptDeclined {
		code := Classify(c.Attempts[n-1].DeclineCode)
		if p.DeclineCode = string(code.Code); code.Mask {
			p.DeclineCode = "generic_decline"
		}
	}
	switch {
	case c.Status == InvoicePaid:
		p.Step, p.Detail = PayDone, "the invoice is paid"
	case c.Status == InvoiceReview:
		p.Step, p.Detail = PayWait, "the merchant has to find out what happened to an earlier payment first"
	case c.Status != InvoiceOpen && c.Status != InvoiceUncollectible:
		p.Step, p.Detail = PayDone, "the invoice is "+c.Status+": there is nothing to pay"
	case c.Open != nil && c.Open.State == AttemptArmed:
		p.Step, p.Detail = PayWait, "an attempt is on its way: check again in a moment"
	case len(p.PaymentMethods) > 0:
		p.Step, p.Detail = PayCVC, "have a saved card's CVC given to PayMongo and attach it, or attach a new card"
	}
	return p
}

// Show completes the page with an intent that is shared with it. j is what the
// intent means: see Judge.
func (p *PayPage) Show(intent ProviderIntent, clientKey string, j Judgement) {
	p.PaymentIntentID, p.IntentStatus = intent.ID, string(intent.Status)
	switch {
	case p.Step == PayDone:
	case slices.Contains([]Ruling{Free, Declined, NoEffect}, j.Ruling), j.Ruling == Unknown && intent.Status == ProviderAwaitingMethod && p.Step != PayWait:
		p.ClientKey = clientKey
	case j.Ruling == Wait && j.WaitingFor == WaitingForCustomer:
		p.ClientKey, p.RedirectURL = clientKey, j.ActionURL
		p.Step, p.Detail = PayRedirect, "send the customer to the bank's page; the card is authorised there"
	default:
		p.Step, p.Detail = PayWait, "PayMongo is at work, or the invoice is being looked at: check again in a moment"
	}
}
