package billing

import (
	"time"

	"github.com/google/uuid"
)

// armInvoice is what is true of an invoice when its row is locked.
type armInvoice struct {
	status      string
	claimed     bool
	heldUntil   *time.Time
	held        bool // the customer has the page open
	amountMinor int64
	attempts    int
}

// armIntent is what is true of a payment intent when its row is locked.
type armIntent struct {
	invoice  uuid.UUID
	state    IntentState
	provider string // the provider's id; empty until it is stored
	fence    int64
	open     bool // an attempt is
	paused   bool // the subscription is
	checkout bool // a hosted checkout made it: its page attaches, nobody else
}

// check says why the request may not be armed on these rows: ErrNotOpen,
// ErrInFlight or nil. A row that was not found is the zero one.
func (r ArmRequest) check(invoice armInvoice, intent armIntent) error {
	switch {
	case invoice.status != InvoiceOpen, !invoice.claimed, invoice.held, intent.paused:
		return ErrNotOpen
	case intent.invoice != r.InvoiceID, intent.open, intent.checkout, intent.fence != r.Fence,
		intent.state != IntentCreating && intent.state != IntentReady,
		intent.provider != "" && intent.provider != r.ProviderIntentID:
		return ErrInFlight
	}
	return nil
}

// licence is what is written down of a request that may be armed.
func (r ArmRequest) licence(id uuid.UUID, no int, now time.Time) Armed {
	return Armed{
		AttemptID: id, InvoiceID: r.InvoiceID, IntentID: r.IntentID, ProviderIntentID: r.ProviderIntentID,
		ProviderCardID: r.ProviderCardID, CardID: r.CardID, No: no, Fence: r.Fence + 1,
		ArmedAt: now, SettledAfter: now.Add(SendWindow + SettlePeriod),
	}
}
