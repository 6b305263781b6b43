package worker

import (
	"time"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
)

// RecoveryAction is what a recovery does about an invoice or a payment.
type RecoveryAction string

// The actions.
const (
	RecoveryPaid   RecoveryAction = "paid"   // settled with money that the books had forgotten
	RecoveryAdopt  RecoveryAction = "adopt"  // its intent is stored again; it stays open
	RecoverySettle RecoveryAction = "settle" // looked at: its intent was known, its state was old
	RecoveryReview RecoveryAction = "review" // a human decides
	RecoveryOpen   RecoveryAction = "open"   // left open without a proof, because somebody answers for it
	RecoveryRecord RecoveryAction = "record" // money without an invoice
	RecoverySale   RecoveryAction = "sale"   // money of a card setup: the merchant's own
)

// RecoveryItem is what was found about one invoice, or about money that has none.
type RecoveryItem struct {
	Invoice       uuid.UUID        `json:"invoice,omitzero"`
	Subscription  string           `json:"subscription,omitempty"`
	PeriodNo      int              `json:"period_no"`
	AmountMinor   int64            `json:"amount_minor"`
	Currency      billing.Currency `json:"currency"`
	PaymentIntent string           `json:"payment_intent,omitempty"`
	Payment       string           `json:"payment,omitempty"`
	Action        RecoveryAction   `json:"action"`
	Found         string           `json:"found"`
}

// RecoverySum adds up the items of one action.
type RecoverySum struct {
	Action      RecoveryAction `json:"action"`
	Count       int            `json:"count"`
	AmountMinor int64          `json:"amount_minor"`
}

// RecoveryReport is what a recovery found, and did if Applied.
type RecoveryReport struct {
	Applied bool      `json:"applied"`
	Needed  string    `json:"needed"`
	Since   time.Time `json:"since"`
	// ConclusiveAt is when an attach of the forgotten time is executed or never
	// will be. A recovery before it cannot be the last one.
	ConclusiveAt time.Time `json:"conclusive_at"`
	Complete     bool      `json:"complete"`
	// KeysHonoured tells whether the provider answers a repeated create with the
	// first intent; nil: there was nothing to try it on.
	KeysHonoured *bool          `json:"keys_honoured"`
	Opened       int            `json:"periods_opened"`
	Listed       int            `json:"payments_listed"`
	Foreign      int            `json:"payments_of_others"`
	Items        []RecoveryItem `json:"items"`
	Sums         []RecoverySum  `json:"sums"`
}

// Review counts what is left to a human.
func (r *RecoveryReport) Review() (n int) {
	for _, item := range r.Items {
		if item.Action == RecoveryReview || item.Action == RecoveryRecord {
			n++
		}
	}
	return n
}

func (r *RecoveryReport) add(item RecoveryItem) {
	r.Items = append(r.Items, item)
	for i := range r.Sums {
		if r.Sums[i].Action == item.Action {
			r.Sums[i].Count++
			r.Sums[i].AmountMinor += item.AmountMinor
			return
		}
	}
	r.Sums = append(r.Sums, RecoverySum{Action: item.Action, Count: 1, AmountMinor: item.AmountMinor})
}

func recoveryItem(c *billing.Collection, intent string, action RecoveryAction, found string) RecoveryItem {
	return RecoveryItem{
		Invoice: c.InvoiceID, Subscription: c.SubscriptionNo, PeriodNo: c.PeriodNo, AmountMinor: c.Amount.Minor, Currency: c.Amount.Currency,
		PaymentIntent: intent, Action: action, Found: found,
	}
}
