package paymongo

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// Benchmarks of what each call and each delivery pays, beside the network: make
// bench-micro. BenchmarkAttach is a whole call.

func BenchmarkVerifySignature(b *testing.B) {
	body := fixture(b, "event_payment_failed.json")
	at := time.Unix(goldenTime, 0)
	header := fmt.Sprintf("t=%d,te=%s,li=", goldenTime, sign(goldenSecret, goldenTime, string(body)))
	for _, bm := range []struct {
		name    string
		secrets WebhookSecrets
	}{{"One", mustSecrets(b, goldenSecret)}, {"Rotating", mustSecrets(b, goldenOther, goldenSecret)}} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if err := VerifySignature(header, body, bm.secrets, ModeTest, at, time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseEvent(b *testing.B) {
	body := fixture(b, "event_payment_failed.json")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := ParseEvent(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	intent := func(name string) (func([]byte) error, []byte) {
		return func(body []byte) error { return new(PaymentIntent).UnmarshalJSON(body) }, fixture(b, name)
	}
	succeeded, succeededBody := intent("payment_intent_succeeded.json")
	failed, failedBody := intent("payment_intent_failed.json")
	for _, bm := range []struct {
		name   string
		decode func([]byte) error
		body   []byte
	}{
		{"IntentSucceeded", succeeded, succeededBody},
		{"IntentFailed", failed, failedBody},
		{"Payments", func(body []byte) error { return new(List[Payment]).UnmarshalJSON(body) }, fixture(b, "payments.json")},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bm.body)))
			for b.Loop() {
				if err := bm.decode(bm.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecline is an attach that is refused: its answer is read as an error.
func BenchmarkDecline(b *testing.B) {
	c, err := NewClient(testKey, WithTransport(answering(400, `{"errors":[{"code":"resource_failed_state","sub_code":"insufficient_funds","detail":"The card has insufficient funds."}]}`)), noLimit)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := attach(b.Context(), c, "a-key"); err == nil {
			b.Fatal("not declined")
		}
	}
}

func BenchmarkEncodeCreate(b *testing.B) {
	body := Attributes(PaymentIntentCreateParams{
		Amount: 49900, Currency: "PHP", PaymentMethodAllowed: []string{"card"},
		Metadata: map[string]string{
			"invoice": "0198c5d2-7d7c-7a31-9c3e-1f6f0f0f2a11", "subscription": "s1", "period": "3", "generation": "1", "environment": "production",
		},
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(body); err != nil {
			b.Fatal(err)
		}
	}
}
