package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
)

// OnSessionGateway is what the flows with the customer present need of the
// provider. It has no attach: that is the customer's browser's.
type OnSessionGateway interface {
	Create(ctx context.Context, r CreateRequest) (billing.ProviderIntent, error)
	ShowPage(ctx context.Context, id string) (PageIntent, error)
	CreateCheckout(ctx context.Context, r CheckoutRequest) (HostedCheckout, error)
	ShowCheckout(ctx context.Context, id string) (HostedCheckout, error)
	CheckoutCloser
	CreateSetup(ctx context.Context, r SetupRequest) (PageIntent, error)
	SavedCards(ctx context.Context, customer string) ([]billing.SavedMethod, error)
	RemoveCard(ctx context.Context, customer, card string) error
	CreateCustomer(ctx context.Context, c ProviderCustomer, key string) (ProviderCustomer, error)
	CustomerWith(ctx context.Context, email string) (ProviderCustomer, bool, error)
	Customer(ctx context.Context, id string) (ProviderCustomer, bool, error)
	DeleteCustomer(ctx context.Context, id string) error
}

// OnSession are the flows with the customer present. Every step is committed
// before the provider is asked, and what the provider is asked for can be asked
// for again: whoever repeats a call that was lost comes to the same. NewOnSession
// makes it of all its fields. Safe for concurrent use. Errors are billing's, or a *GatewayError.
type OnSession struct {
	Pool        *pgxpool.Pool
	Gateway     OnSessionGateway
	Environment billing.Environment
	Livemode    bool
	Now         func() time.Time // the real clock
	Log         *slog.Logger

	collector *Collector
}

// NewOnSession completes o with what it looks at invoices with. It panics on one
// that lacks what is required.
func NewOnSession(o OnSession) OnSession {
	o.collector = NewCollector(Config{
		Pool: o.Pool, Gateway: pageLooks{o.Gateway}, Environment: o.Environment, Livemode: o.Livemode, Log: o.Log, Now: o.Now,
	})
	return o
}

// look asks the provider about one invoice and stores what it says.
func (o OnSession) look(ctx context.Context, invoice uuid.UUID) error {
	return o.collector.Reconcile(ctx, invoice)
}

// pageLooks is a gateway that has nothing to attach with.
type pageLooks struct{ gateway OnSessionGateway }

func (g pageLooks) Create(ctx context.Context, r CreateRequest) (billing.ProviderIntent, error) {
	return g.gateway.Create(ctx, r)
}

func (g pageLooks) Retrieve(ctx context.Context, id string) (billing.ProviderIntent, error) {
	page, err := g.gateway.ShowPage(ctx, id)
	return page.ProviderIntent, err
}

func (g pageLooks) Attach(context.Context, billing.Armed, time.Time) billing.Answer {
	return billing.Answer{Kind: billing.AnswerNeverSent, Reason: "the page attaches"}
}

func (g pageLooks) Cancel(ctx context.Context, id string) error { return g.gateway.Cancel(ctx, id) }

func (g pageLooks) CloseCheckout(ctx context.Context, id string) (bool, error) {
	return g.gateway.CloseCheckout(ctx, id)
}

func (g pageLooks) HeldUntil() time.Time { return time.Time{} }

func (o OnSession) tx(ctx context.Context, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, o.Pool, do)
}

// CustomerRequest asks for a customer: one to be created at the provider, or the
// one that ProviderID names.
type CustomerRequest struct {
	ID         uuid.UUID // of the request: asked again, it is the same
	ExternalID string
	ProviderID string // to link; empty: create
	FirstName  string
	LastName   string
	Email      string
	Phone      string // for the provider alone
	Metadata   map[string]string
	billing.Act
}

// AddCustomer creates a customer at the provider, or links one that is there, and
// stores them. An email is unique at the provider: where one is taken, by an
// earlier try of the same request or by hand, the same person is linked, and
// anybody else is refused.
func (o OnSession) AddCustomer(ctx context.Context, r CustomerRequest) (uuid.UUID, error) {
	known, found, err := billing.CustomerNamed(ctx, o.Pool, r.ExternalID)
	if err != nil {
		return uuid.Nil, err
	}
	if found {
		if err := known.MayAdd(r.ID, r.ProviderID); err != nil {
			return uuid.Nil, err
		}
		if known.ProviderID != "" {
			return known.ID, nil
		}
	}
	var at ProviderCustomer
	if r.ProviderID != "" {
		at, found, err = o.Gateway.Customer(ctx, r.ProviderID)
		if err == nil && !found {
			err = &billing.RefusedError{Reason: "PayMongo has no customer " + r.ProviderID + " on this account"}
		}
	} else {
		at, err = o.createCustomer(ctx, r)
	}
	if err != nil {
		return uuid.Nil, err
	}
	if at.ID == "" || at.Livemode != o.Livemode {
		return uuid.Nil, fmt.Errorf("%w: customer %s has livemode %t instead of %t", billing.ErrOtherMode, at.ID, at.Livemode, o.Livemode)
	}
	n := billing.NewCustomer{
		ID: r.ID, ExternalID: r.ExternalID, ProviderID: at.ID, Name: strings.TrimSpace(r.FirstName + " " + r.LastName), Email: r.Email, Metadata: r.Metadata, Act: r.Act,
	}
	if r.ProviderID != "" && n.Name == "" {
		n.Name = strings.TrimSpace(at.FirstName + " " + at.LastName)
	}
	if r.ProviderID != "" && n.Email == "" {
		n.Email = at.Email
	}
	var id uuid.UUID
	err = o.tx(ctx, func(tx pgx.Tx) (err error) {
		id, err = billing.AddCustomer(ctx, tx, n)
		return err
	})
	return id, err
}

func (o OnSession) createCustomer(ctx context.Context, r CustomerRequest) (ProviderCustomer, error) {
	want := ProviderCustomer{
		FirstName: r.FirstName, LastName: r.LastName, Email: r.Email, Phone: r.Phone,
		Metadata: map[string]string{"customer": r.ExternalID, "environment": string(o.Environment)},
	}
	made, err := o.Gateway.CreateCustomer(ctx, want, fmt.Sprintf("singil/%s/customer/%s", o.Environment, r.ID))
	var e *GatewayError
	if err == nil || errors.As(err, &e) && e.Fault {
		return made, err
	}
	// Refused, perhaps for its email is taken, or the answer was lost.
	there, found, lookErr := o.Gateway.CustomerWith(ctx, r.Email)
	switch {
	case lookErr != nil:
		return made, errors.Join(err, lookErr)
	case found && want.is(there):
		return there, nil
	case found:
		return made, &billing.RefusedError{Reason: fmt.Sprintf("PayMongo has another customer with this email, %s: link that one with its provider_id, or take another email", there.ID)}
	}
	return made, err
}

// is tells whether a customer at the provider is the one that was asked for: by
// our mark, or where metadata is not shown, by the names.
func (c ProviderCustomer) is(there ProviderCustomer) bool {
	if there.ID == "" {
		return false
	}
	if mark := there.Metadata["customer"]; mark != "" {
		return mark == c.Metadata["customer"] && there.Metadata["environment"] == c.Metadata["environment"]
	}
	return strings.EqualFold(there.FirstName, c.FirstName) && strings.EqualFold(there.LastName, c.LastName)
}

// DeleteCustomer ends a customer here, and then at the provider. Done again it
// does at the provider what a lost answer left open.
func (o OnSession) DeleteCustomer(ctx context.Context, name string, act billing.Act) error {
	var provider string
	err := o.tx(ctx, func(tx pgx.Tx) (err error) {
		provider, err = billing.DeleteCustomer(ctx, tx, name, act)
		return err
	})
	if err != nil || provider == "" {
		return err
	}
	return o.Gateway.DeleteCustomer(ctx, provider)
}

// RemoveCard takes a card out of use here, unless something could be charged with
// no other, and then at the provider. It returns the customer.
func (o OnSession) RemoveCard(ctx context.Context, method string, act billing.Act) (customer uuid.UUID, err error) {
	var provider string
	err = o.tx(ctx, func(tx pgx.Tx) (err error) {
		customer, provider, err = billing.RemoveUnusedMethod(ctx, tx, method, act)
		return err
	})
	if err != nil || provider == "" {
		return customer, err
	}
	return customer, o.Gateway.RemoveCard(ctx, provider, method)
}

// setupMark is the metadata by which the money of a card setup is told from an
// invoice's.
const setupMark = "card_setup"

// StartCardSetup writes a setup down and creates its payment intent. The client
// key is for the customer's page; it is empty when there is nothing to pay any
// more.
func (o OnSession) StartCardSetup(ctx context.Context, n billing.NewCardSetup) (s billing.CardSetup, clientKey string, err error) {
	err = o.tx(ctx, func(tx pgx.Tx) (err error) {
		s, err = billing.StartCardSetup(ctx, tx, n)
		return err
	})
	if err != nil {
		return s, "", err
	}
	if s.Status == billing.CardSetupCreating {
		made, err := o.Gateway.CreateSetup(ctx, SetupRequest{
			Amount: s.Amount(), Description: s.Description, Customer: s.ProviderCustomer, SessionType: s.SessionType, Key: s.CreateKey(o.Environment),
			Metadata: map[string]string{setupMark: s.ID.String(), "customer": s.Customer, "environment": string(o.Environment)},
		})
		if err != nil {
			return s, "", err
		}
		if made.ID == "" || made.Livemode != o.Livemode || made.Amount != s.Amount() {
			return s, "", fmt.Errorf("%w: intent %s over %s has livemode %t instead of %t", billing.ErrOtherMode, made.ID, made.Amount, made.Livemode, o.Livemode)
		}
		if err := o.tx(ctx, func(tx pgx.Tx) (err error) {
			s, err = billing.OpenCardSetup(ctx, tx, s.ID, made.ID, n.Now)
			return err
		}); err != nil {
			return s, "", err
		}
	}
	if s.Status != billing.CardSetupOpen || s.PaymentIntentID == nil {
		return s, "", nil
	}
	// Of the one that is stored: another try may have stored another.
	page, err := o.Gateway.ShowPage(ctx, *s.PaymentIntentID)
	if err != nil {
		return s, "", err
	}
	return s, page.ClientKey.Reveal(), nil
}

// FinishCardSetup looks at a setup's payment intent and, once it is paid, at the
// customer's saved cards, and stores both. It may be called at any time and by
// anybody: by the page, a webhook or a sweep.
func (o OnSession) FinishCardSetup(ctx context.Context, id uuid.UUID, act billing.Act) (billing.CardSetup, error) {
	s, err := billing.ShowCardSetup(ctx, o.Pool, id)
	if err != nil || s.PaymentIntentID == nil || s.Status == billing.CardSetupSaved || s.Status == billing.CardSetupCancelled {
		return s, err
	}
	page, err := o.Gateway.ShowPage(ctx, *s.PaymentIntentID)
	if err != nil {
		return s, err
	}
	var saved []billing.SavedMethod
	if _, paid := page.Paid(); paid {
		if saved, err = o.Gateway.SavedCards(ctx, s.ProviderCustomer); err != nil {
			return s, err
		}
	}
	err = o.tx(ctx, func(tx pgx.Tx) (err error) {
		s, err = billing.FinishCardSetup(ctx, tx, id, billing.SeenSetup{Intent: page.ProviderIntent, Customer: page.Customer, Last4: page.Last4}, saved, act)
		return err
	})
	return s, err
}

// payTries bounds how often a payment intent that turns out to be another, or
// cancelled, is followed by the next.
const payTries = 3

// Pay gives an invoice's payment intent to its customer's page and holds the
// attempts back that would be made meanwhile. The intent is the one that the
// invoice has; it is created now if there is none. While an attempt is on its
// way, and where there is nothing to pay, the page is told so and gets no key.
func (o OnSession) Pay(ctx context.Context, invoice uuid.UUID, act billing.Act) (billing.PayPage, error) {
	for range payTries {
		page, again, err := o.pay(ctx, invoice, act)
		if err != nil || !again {
			return page, err
		}
	}
	return billing.PayPage{}, billing.ErrInFlight
}

func (o OnSession) pay(ctx context.Context, invoice uuid.UUID, act billing.Act) (page billing.PayPage, again bool, err error) {
	c, now, err := o.load(ctx, invoice)
	if err != nil {
		return page, false, err
	}
	if page = c.Page(now); page.Step == billing.PayDone || page.Step == billing.PayWait {
		return page, false, nil
	}
	created := ""
	if c.ProviderIntentID == "" {
		if created, err = o.createIntent(ctx, c); err != nil {
			return page, false, err
		}
	}
	var shared billing.SharedIntent
	err = o.tx(ctx, func(tx pgx.Tx) (err error) {
		shared, err = billing.ShareIntent(ctx, tx, billing.PayRequest{InvoiceID: invoice, IntentID: c.IntentID, ProviderIntentID: created, Act: act}, o.Now())
		return err
	})
	switch {
	case errors.Is(err, billing.ErrPayMoved):
		return page, true, nil
	case errors.Is(err, billing.ErrInFlight):
		// Somebody has armed in the meantime: loaded again, the page waits.
		return page, true, nil
	case err != nil:
		return page, false, err
	}
	return o.show(ctx, invoice, shared.ProviderIntentID)
}

// createIntent creates the invoice's payment intent as a charge would.
func (o OnSession) createIntent(ctx context.Context, c *billing.Collection) (string, error) {
	instance, err := billing.LoadInstance(ctx, o.Pool)
	if err != nil {
		return "", err
	}
	if err := instance.MayCharge(o.Now()); err != nil {
		return "", err
	}
	intent, err := o.Gateway.Create(ctx, createRequest(c, o.Environment))
	var e *GatewayError
	if errors.As(err, &e) && e.Failed {
		err = errors.Join(err, o.tx(ctx, func(tx pgx.Tx) error { return billing.NoteCreateFailed(ctx, tx, c.IntentID) }))
	}
	if err != nil {
		return "", err
	}
	if err := c.Check(intent); err != nil {
		return "", err
	}
	return intent.ID, nil
}

// show looks at an intent that is shared and tells the page.
func (o OnSession) show(ctx context.Context, invoice uuid.UUID, intent string) (page billing.PayPage, again bool, err error) {
	seen, err := o.Gateway.ShowPage(ctx, intent)
	if err != nil {
		return page, false, err
	}
	c, now, err := o.load(ctx, invoice)
	if err != nil {
		return page, false, err
	}
	if c.ProviderIntentID != intent {
		return page, true, nil
	}
	j := c.Judge(seen.ProviderIntent, now)
	switch j.Ruling {
	case billing.Paid, billing.Park, billing.Dead:
		// What it has come to is stored by who may store it.
		if err := o.look(ctx, invoice); err != nil {
			return page, false, err
		}
		if j.Ruling == billing.Dead {
			return page, true, nil
		}
		if c, now, err = o.load(ctx, invoice); err != nil {
			return page, false, err
		}
	}
	page = c.Page(now)
	page.Show(seen.ProviderIntent, seen.ClientKey.Reveal(), j)
	return page, false, nil
}

// Check looks at an invoice at the provider now, and tells the page what to do
// next. It holds nothing back. A page that was not opened by Pay gets no key.
func (o OnSession) Check(ctx context.Context, invoice uuid.UUID) (billing.PayPage, error) {
	if _, _, err := o.load(ctx, invoice); err != nil {
		return billing.PayPage{}, err
	}
	if err := o.look(ctx, invoice); err != nil {
		return billing.PayPage{}, err
	}
	c, now, err := o.load(ctx, invoice)
	if err != nil {
		return billing.PayPage{}, err
	}
	page := c.Page(now)
	if page.Step == billing.PayDone || !c.Shared {
		return page, nil
	}
	page, _, err = o.show(ctx, invoice, c.ProviderIntentID)
	return page, err
}

func (o OnSession) load(ctx context.Context, invoice uuid.UUID) (*billing.Collection, time.Time, error) {
	instance, err := billing.LoadInstance(ctx, o.Pool)
	if err != nil {
		return nil, time.Time{}, err
	}
	now := instance.Now(o.Now())
	found, err := billing.Load(ctx, o.Pool, []uuid.UUID{invoice}, now)
	switch {
	case err != nil:
		return nil, now, err
	case found[invoice] == nil:
		return nil, now, fmt.Errorf("invoice %s: %w", invoice, billing.ErrNotFound)
	}
	return found[invoice], now, nil
}
