package billing

import (
	"errors"
	"testing"

	"github.com/google/uuid"
)

// TestArmRequestCheck breaks one condition of an arming at a time.
func TestArmRequestCheck(t *testing.T) {
	t.Parallel()
	request := ArmRequest{InvoiceID: newID(), IntentID: newID(), ProviderIntentID: "pi_1", Fence: 3}
	for _, tt := range []struct {
		name  string
		spoil func(*armInvoice, *armIntent)
		want  error
	}{
		{"Nothing", func(*armInvoice, *armIntent) {}, nil},
		{"NotCreatedYet", func(_ *armInvoice, pi *armIntent) { pi.state, pi.provider = IntentCreating, "" }, nil},
		{"InvoicePaid", func(i *armInvoice, _ *armIntent) { i.status = InvoicePaid }, ErrNotOpen},
		{"InvoiceInReview", func(i *armInvoice, _ *armIntent) { i.status = InvoiceReview }, ErrNotOpen},
		{"NobodyHasClaimedIt", func(i *armInvoice, _ *armIntent) { i.claimed = false }, ErrNotOpen},
		{"Paused", func(_ *armInvoice, pi *armIntent) { pi.paused = true }, ErrNotOpen},
		{"AnOpenAttempt", func(_ *armInvoice, pi *armIntent) { pi.open = true }, ErrInFlight},
		{"AnotherFence", func(_ *armInvoice, pi *armIntent) { pi.fence++ }, ErrInFlight},
		{"AnotherInvoicesIntent", func(_ *armInvoice, pi *armIntent) { pi.invoice = uuid.Nil }, ErrInFlight},
		{"AnotherIntentStored", func(_ *armInvoice, pi *armIntent) { pi.provider = "pi_2" }, ErrInFlight},
		{"IntentDead", func(_ *armInvoice, pi *armIntent) { pi.state = IntentDead }, ErrInFlight},
		{"IntentSucceeded", func(_ *armInvoice, pi *armIntent) { pi.state = IntentSucceeded }, ErrInFlight},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			invoice := armInvoice{status: InvoiceOpen, claimed: true}
			intent := armIntent{invoice: request.InvoiceID, state: IntentReady, provider: "pi_1", fence: 3}
			tt.spoil(&invoice, &intent)
			if err := request.check(invoice, intent); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	if err := request.check(armInvoice{}, armIntent{}); !errors.Is(err, ErrNotOpen) {
		t.Errorf("rows that are not there: %v", err)
	}
}
