package paymongo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func eventBody(eventType, data string) string {
	return `{"data":{"id":"evt_1","type":"event","attributes":{"type":"` + eventType + `","livemode":true,"data":` + data +
		`,"previous_data":{"a":1},"pending_webhooks":2,"created_at":1749679676,"updated_at":1749679677}}}`
}

func TestParseEvent(t *testing.T) {
	t.Parallel()
	payment := `{"id":"pay_1","type":"payment","attributes":{"amount":2000,"status":"paid"}}`
	for _, tt := range []struct {
		name string
		kind EventType
		data string
		want string // type of Resource
		id   string
		fail bool // ResourceErr
	}{
		{"CheckoutSession", EventCheckoutSessionPaymentPaid, `{"id":"cs_1","type":"checkout_session","attributes":{}}`, "*paymongo.CheckoutSession", "cs_1", false},
		{"Customer", "customer.changed", `{"id":"cus_1","type":"customer","attributes":{}}`, "*paymongo.Customer", "cus_1", false},
		{"DataIsAString", "odd.event", `"pay_1"`, "<nil>", "", false},
		{"DataIsNull", "odd.event", `null`, "<nil>", "", false},
		{"IDIsANumber", "odd.event", `{"id":7,"type":"payment"}`, "<nil>", "", true},
		{"Intent", EventPaymentIntentSucceeded, `{"id":"pi_1","type":"payment_intent","attributes":{"status":"succeeded"}}`, "*paymongo.PaymentIntent", "pi_1", false},
		{"Payment", EventPaymentPaid, payment, "*paymongo.Payment", "pay_1", false},
		{"PaymentMethod", "payment_method.updated", `{"id":"pm_1","type":"payment_method","attributes":{"type":"card"}}`, "*paymongo.PaymentMethod", "pm_1", false},
		{"PaymentWithBadAmount", EventPaymentPaid, strings.Replace(payment, "2000", "1e3", 1), "<nil>", "pay_1", true},
		{"PaymentWithoutStatus", EventPaymentPaid, `{"id":"pay_1","type":"payment","attributes":{}}`, "<nil>", "pay_1", true},
		{"Refund", EventPaymentRefunded, `{"id":"ref_1","type":"refund","attributes":{"status":"succeeded"}}`, "*paymongo.Refund", "ref_1", false},
		{"Source", EventSourceChargeable, `{"id":"src_1","type":"source","attributes":{"type":"gcash"}}`, "*paymongo.Source", "src_1", false},
		{"UnknownEvent", "brand.new", payment, "*paymongo.Payment", "pay_1", false},
		{"UnknownResource", EventSubscriptionInvoicePaid, `{"id":"inv_1","type":"invoice","attributes":{"amount":49900}}`, "<nil>", "inv_1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := ParseEvent([]byte(eventBody(string(tt.kind), tt.data)))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%T", e.Resource); got != tt.want || (e.ResourceErr != nil) != tt.fail || e.ResourceID != tt.id {
				t.Errorf("resource %s %q, %v", got, e.ResourceID, e.ResourceErr)
			}
			if e.ID != "evt_1" || e.Type != tt.kind || !e.Livemode || string(e.Raw) != tt.data || string(e.PreviousData) != `{"a":1}` ||
				e.PendingWebhooks == nil || *e.PendingWebhooks != 2 || e.CreatedAt.Unix() != 1749679676 || e.UpdatedAt.Unix() != 1749679677 {
				t.Errorf("got %v with %s", e, e.Raw)
			}
		})
	}
	t.Run("OldEvent", func(t *testing.T) {
		t.Parallel()
		e, err := ParseEvent([]byte(`{"data":{"id":"evt_1","type":"event","attributes":{"type":"payment.paid"}}}`))
		if err != nil || e.PendingWebhooks != nil || e.PreviousData != nil || e.Raw != nil || e.Resource != nil || e.ResourceErr != nil {
			t.Errorf("got %v, %v", e, err)
		}
	})
}

func TestParseEventRefuses(t *testing.T) {
	t.Parallel()
	good := eventBody("payment.paid", `{}`)
	for name, body := range map[string]string{
		"Array":         `[` + good + `]`,
		"Cut":           good[:len(good)-1],
		"Empty":         "",
		"IDEmpty":       strings.Replace(good, "evt_1", "", 1),
		"IDWithSlash":   strings.Replace(good, "evt_1", "evt_1/x", 1),
		"NotAnEvent":    strings.Replace(good, `"event"`, `"payment"`, 1),
		"Null":          "null",
		"TooLarge":      good + strings.Repeat(" ", maxAnswer),
		"Trailing":      good + "{}",
		"TypeControl":   strings.Replace(good, "payment.paid", `payment\n`, 1),
		"TypeEmpty":     strings.Replace(good, "payment.paid", "", 1),
		"TypeIsANumber": strings.Replace(good, `"payment.paid"`, "7", 1),
		"TypeLong":      strings.Replace(good, "payment.paid", strings.Repeat("p", 129), 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if e, err := ParseEvent([]byte(body)); !errors.Is(err, ErrEventMalformed) {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
}

func TestEventPrints(t *testing.T) {
	t.Parallel()
	e, err := ParseEvent([]byte(eventBody("payment.paid", `{"id":"pay_1","type":"payment","attributes":{"status":"paid"}}`)))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(e); got != "evt_1 payment.paid pay_1" {
		t.Errorf("prints as %s", got)
	}
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("m", "event", e)
	if !strings.Contains(buf.String(), "event.id=evt_1 event.type=payment.paid event.livemode=true event.resource_id=pay_1") {
		t.Errorf("logged as %s", buf.String())
	}
	data, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(data), `"resource_id":"pay_1"`) || strings.Contains(string(data), "attributes") {
		t.Errorf("encoded as %s, %v", data, err)
	}
}
