package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
)

// What operators ask of PayMongo, beside the path of a charge.

// refundMark is the metadata by which a refund of ours is found again.
const refundMark = "singil_refund"

// minRefund is the least that PayMongo gives back, in centavos.
const minRefund = 100

// ListedRefund is a refund as the provider shows it. Ours is zero if somebody
// else has asked for it.
type ListedRefund struct {
	ID          string
	Ours        uuid.UUID
	AmountMinor int64
	Failed      bool
}

// RefundsOf are the refunds that PayMongo shows of a payment, and its amount.
func (g *PayMongo) RefundsOf(ctx context.Context, payment string) (list []ListedRefund, amountMinor int64, err error) {
	p, err := g.client.Payments.Retrieve(rememberTries(ctx), payment)
	if err != nil {
		return nil, 0, g.fail(err)
	}
	for _, r := range p.Refunds {
		mark, _ := uuid.Parse(r.Metadata[refundMark]) // another's has none
		list = append(list, ListedRefund{ID: tidy(r.ID), Ours: mark, AmountMinor: r.Amount, Failed: r.Status == paymongo.RefundStatusFailed})
	}
	return list, p.Amount, nil
}

// GiveBack sends a refund that is on record. An empty id with a known refusal
// means that it does not exist at PayMongo; any other error that it may.
func (g *PayMongo) GiveBack(ctx context.Context, r billing.Refund, reason, notes string) (id string, known bool, err error) {
	refund, err := g.client.Refunds.Create(rememberTries(ctx), &paymongo.RefundCreateParams{
		Amount: r.AmountMinor, PaymentID: r.Payment, Reason: paymongo.RefundReason(reason), Notes: notes,
		Metadata: paymongo.Metadata{refundMark: r.ID.String()}, IdempotencyKey: "refund/" + r.ID.String(),
	})
	if err != nil {
		verdict, _ := paymongo.VerdictOf(err)
		return "", verdict != paymongo.VerdictUnknown, g.fail(err)
	}
	return refund.ID, true, nil
}

// RefundReasons are the reasons that PayMongo takes.
func RefundReasons() []string {
	return []string{
		string(paymongo.RefundReasonRequestedByCustomer), string(paymongo.RefundReasonDuplicate), string(paymongo.RefundReasonFraudulent),
		string(paymongo.RefundReasonOthers),
	}
}

// savedPages bounds the pages of a customer's saved cards.
const savedPages = 50

// SavedCards are the cards that PayMongo has saved for a customer, all of them:
// an error means that some may be missing.
func (g *PayMongo) SavedCards(ctx context.Context, customer string) (cards []billing.SavedMethod, err error) {
	after := ""
	for range savedPages {
		page, err := g.client.Customers.ListPaymentMethods(rememberTries(ctx), customer, &paymongo.ListParams{After: after})
		if err != nil {
			return nil, g.fail(err)
		}
		for _, m := range page.Data {
			if m.Type != "" && m.Type != "card" || !m.DeletedAt.IsZero() {
				continue
			}
			card, err := savedMethod(m)
			if err != nil {
				return nil, err
			}
			cards = append(cards, card)
		}
		if !page.HasMore || len(page.Data) == 0 {
			return cards, nil
		}
		last := page.Data[len(page.Data)-1]
		if page.LastEvaluated == after || last.ID == after {
			return nil, errors.New("PayMongo gives the same page of saved cards again")
		}
		if after = page.LastEvaluated; after == "" {
			after = last.ID
		}
	}
	return nil, fmt.Errorf("more than %d pages of saved cards", savedPages)
}

func savedMethod(m *paymongo.CustomerPaymentMethod) (billing.SavedMethod, error) {
	card := billing.SavedMethod{ProviderID: tidy(m.PaymentMethodID), SessionType: string(m.SessionType), SavedAt: m.CreatedAt.Time}
	if card.ProviderID == "" {
		return card, fmt.Errorf("saved card %q has no id that an attach could take", m.ID)
	}
	if d := m.Details; d != nil {
		card.Brand, card.Last4, card.ExpMonth, card.ExpYear = d.Brand, d.Last4, d.ExpMonth, d.ExpYear
	}
	return card, nil
}

// RemoveCard removes a saved card from a customer. One that is gone already is
// removed.
func (g *PayMongo) RemoveCard(ctx context.Context, customer, card string) error {
	_, err := g.client.Customers.DeletePaymentMethod(rememberTries(ctx), customer, card)
	var said *paymongo.Error
	if err == nil || errors.As(err, &said) && said.StatusCode == 404 {
		return nil
	}
	return g.fail(err)
}

// RegisteredWebhook is an endpoint that PayMongo delivers to.
type RegisteredWebhook struct {
	ID             string   `json:"id"`
	URL            string   `json:"url"`
	Events         []string `json:"events"`
	Enabled        bool     `json:"enabled"`
	DisabledReason string   `json:"disabled_reason,omitempty"`
	Livemode       bool     `json:"livemode"`
}

// Missing are the events that open outcomes are found by, and that this endpoint
// does not get.
func (r RegisteredWebhook) Missing() (missing []string) {
	has := map[string]bool{}
	for _, e := range r.Events {
		has[e] = true
	}
	for _, e := range []paymongo.EventType{paymongo.EventPaymentPaid, paymongo.EventPaymentFailed} {
		if !has[string(e)] {
			missing = append(missing, string(e))
		}
	}
	return missing
}

// wantedEvents are subscribed to: the names that PayMongo's reference has.
var wantedEvents = []paymongo.EventType{
	paymongo.EventPaymentPaid, paymongo.EventPaymentFailed, paymongo.EventPaymentRefunded, paymongo.EventPaymentRefundUpdated,
}

// Webhooks are the endpoints of the account.
func (g *PayMongo) Webhooks(ctx context.Context) ([]RegisteredWebhook, error) {
	page, err := g.client.Webhooks.List(rememberTries(ctx), nil)
	if err != nil {
		return nil, g.fail(err)
	}
	list := make([]RegisteredWebhook, 0, len(page.Data))
	for _, w := range page.Data {
		list = append(list, registered(w))
	}
	return list, nil
}

// RegisterWebhook makes an endpoint. The secret is shown by PayMongo now, and
// nowhere kept.
func (g *PayMongo) RegisterWebhook(ctx context.Context, url string) (made RegisteredWebhook, secret string, err error) {
	w, err := g.client.Webhooks.Create(rememberTries(ctx), &paymongo.WebhookCreateParams{URL: url, Events: wantedEvents})
	if err != nil {
		return RegisteredWebhook{}, "", g.fail(err)
	}
	return registered(w), w.SecretKey.Reveal(), nil
}

func registered(w *paymongo.Webhook) RegisteredWebhook {
	r := RegisteredWebhook{
		ID: tidy(w.ID), URL: w.URL, Enabled: w.Status == paymongo.WebhookStatusEnabled, DisabledReason: w.DisabledReason, Livemode: w.Livemode,
	}
	for _, e := range w.Events {
		r.Events = append(r.Events, string(e))
	}
	return r
}

// Reach asks for a page of payments: the key is good and the account answers.
func (g *PayMongo) Reach(ctx context.Context) error {
	if _, err := g.client.Payments.List(rememberTries(ctx), &paymongo.ListParams{Limit: 1}); err != nil {
		return g.fail(err)
	}
	return nil
}

// MayVault asks for a customer that nobody has: whether the account may keep
// customers at all.
func (g *PayMongo) MayVault(ctx context.Context) error {
	if _, err := g.client.Customers.Search(rememberTries(ctx), &paymongo.CustomerSearchParams{Email: "nobody@singil.invalid", Limit: 1}); err != nil {
		return g.fail(err)
	}
	return nil
}

// MayCreate creates a payment intent that nothing is ever attached to, with what
// an off-session charge has. It moves no money.
func (g *PayMongo) MayCreate(ctx context.Context, environment billing.Environment, now time.Time) error {
	_, err := g.client.PaymentIntents.Create(rememberTries(ctx), &paymongo.PaymentIntentCreateParams{
		Amount: billing.MinimumAmount, Currency: string(billing.CurrencyPHP), PaymentMethodAllowed: []string{"card"},
		Metadata:       paymongo.Metadata{"environment": string(environment), "purpose": "singil doctor"},
		IdempotencyKey: fmt.Sprintf("%s/doctor/%d", environment, now.Unix()),
	})
	if err != nil {
		return g.fail(err)
	}
	return nil
}
