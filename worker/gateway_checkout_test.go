package worker

import (
	"testing"

	"github.com/google/uuid"
)

// TestCheckoutEventWakes: it names the intent and the invoice, and nothing that it
// says of money is taken.
func TestCheckoutEventWakes(t *testing.T) {
	t.Parallel()
	invoice := uuid.New()
	n, err := readNotice([]byte(`{"data":{"id":"evt_1","type":"event","attributes":{"type":"checkout_session.payment.paid","livemode":false,"created_at":1769832000,
		"data":{"id":"cs_1","type":"checkout_session","attributes":{"status":"active","livemode":false,"checkout_url":"https://checkout.example/cs_1#secret",
			"metadata":{"invoice":"` + invoice.String() + `","environment":"dev"},
			"payment_intent":{"id":"pi_1","type":"payment_intent","attributes":{"amount":49900,"currency":"PHP","status":"succeeded","livemode":false}},
			"payments":[{"id":"pay_1","type":"payment","attributes":{"amount":1,"currency":"PHP","status":"paid","livemode":false}}]}}}}}`))
	if err != nil || n.Unreadable != nil {
		t.Fatal(err, n.Unreadable)
	}
	if !n.AboutMoney || n.IntentID != "pi_1" || n.InvoiceID != invoice || n.ResourceID != "cs_1" || n.Paid || len(n.Payments) != 0 {
		t.Errorf("%+v", n)
	}
}
