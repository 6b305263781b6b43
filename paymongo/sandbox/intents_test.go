package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestEveryTestCard(t *testing.T) {
	t.Parallel()
	for number, card := range testCards {
		t.Run(number, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			pi := b.intent()
			status, got := b.attach(pi, b.card(number))
			after := b.retrieve(pi)
			switch {
			case card.threeDS:
				if status != 200 {
					t.Fatalf("%d %s", status, got)
				}
				after.want(t, "status", awaitingNextAction)
				after.want(t, "next_action.type", "redirect")
				b.press(after, "authorize")
				after = b.retrieve(pi)
			case card.decline != "":
				if status != 400 {
					t.Fatalf("%d %s", status, got)
				}
				got.want(t, "errors.0.code", "resource_failed_state")
				got.want(t, "errors.0.sub_code", card.decline)
			}
			if card.decline == "" {
				after.want(t, "status", succeeded)
				after.want(t, "payments.0.attributes.status", "paid")
				after.want(t, "last_payment_error", "null")
				return
			}
			after.want(t, "status", awaitingPaymentMethod)
			after.want(t, "payments.0.attributes.status", "failed")
			after.want(t, "payments.0.attributes.failed_code", card.decline)
			after.want(t, "payments.0.attributes.balance_transaction_id", "null")
			after.want(t, "last_payment_error.failed_code", card.decline)
			if after.at("payments.0.attributes.paid_at").String() == "null" {
				t.Error("paid_at of a failed payment is set, in a PayMongo sample")
			}
		})
	}
}

// press presses a button of the 3DS page and returns where it leads.
func (b *bench) press(intent node, button string) (status int, to string) {
	b.t.Helper()
	page := strings.TrimPrefix(intent.at("next_action.redirect.url").String(), b.url)
	resp, body, err := b.request("GET", page, "", "")
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "Authorize Test Payment") || !strings.Contains(string(body), "Fail Test Payment") {
		b.t.Fatalf("3DS page: %v %s", err, body)
	}
	form := url.Values{"id": {page[strings.Index(page, "id=")+3:]}, "press": {button}}
	resp, _, err = b.request("POST", page, "", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Location")
}

func TestThreeDS(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, returnURL string) (*bench, string, node) {
		b := setup(t)
		pi := b.intent()
		b.ok("POST", "/v1/payment_intents/"+pi+"/attach", fields{"payment_method": b.card("4120000000000007"), "return_url": returnURL})
		return b, pi, b.retrieve(pi)
	}
	t.Run("AuthorizeReturnsWithTheIntent", func(t *testing.T) {
		t.Parallel()
		b, pi, action := begin(t, "https://shop.example/back?order=7")
		action.want(t, "next_action.redirect.return_url", "https://shop.example/back?order=7&payment_intent_id="+pi)
		if status, to := b.press(action, "authorize"); status != http.StatusSeeOther || to != "https://shop.example/back?order=7&payment_intent_id="+pi {
			t.Errorf("%d to %s", status, to)
		}
		b.retrieve(pi).want(t, "status", succeeded)
		b.retrieve(pi).want(t, "next_action", "null")
	})
	t.Run("ExpiresUnanswered", func(t *testing.T) {
		t.Parallel()
		b, pi, _ := begin(t, "")
		b.box.Clock().Advance(24 * time.Hour)
		after := b.retrieve(pi)
		after.want(t, "status", awaitingPaymentMethod)
		after.want(t, "payments.0.attributes.status", "failed")
	})
	t.Run("FailGoesBackAndMayBeRepeated", func(t *testing.T) {
		t.Parallel()
		b, pi, action := begin(t, "")
		b.press(action, "fail")
		b.retrieve(pi).want(t, "status", awaitingPaymentMethod)
		if status, got := b.attach(pi, b.card(paying)); status != 200 {
			t.Errorf("%d %s", status, got)
		}
	})
	t.Run("NewAttachTakesThePlace", func(t *testing.T) {
		t.Parallel()
		b, pi, action := begin(t, "")
		if status, got := b.attach(pi, b.card(paying)); status != 200 || got.at("data.attributes.status").String() != succeeded {
			t.Errorf("%d %s", status, got)
		}
		page := strings.TrimPrefix(action.at("next_action.redirect.url").String(), b.url)
		if resp, _, err := b.request("POST", page, "", "press=authorize", "Content-Type", "application/x-www-form-urlencoded"); err != nil || resp.StatusCode != 404 {
			t.Errorf("the old page still works: %v", err)
		}
		if sum := b.box.Summary("invoice"); sum.PaidPayments != 1 {
			t.Errorf("%d payments", sum.PaidPayments)
		}
	})
}

func TestIntentStates(t *testing.T) {
	t.Parallel()

	t.Run("AttachAfterCancelIsRefused", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi := b.intent()
		b.ok("POST", "/v1/payment_intents/"+pi+"/cancel", nil).want(t, "attributes.status", cancelled)
		if status, got := b.attach(pi, b.card(paying)); status != 400 || got.at("errors.0.code").String() != "resource_cancelled_state" {
			t.Errorf("%d %s", status, got)
		}
	})
	t.Run("AttachAfterSuccessIsRefused", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi, pm := b.intent(), b.card(paying)
		b.attach(pi, pm)
		for _, verb := range []string{"attach", "cancel"} {
			status, got := b.call("POST", "/v1/payment_intents/"+pi+"/"+verb, fields{"payment_method": pm})
			if status != 400 || got.at("errors.0.code").String() != "resource_succeeded_state" {
				t.Errorf("%s: %d %s", verb, status, got)
			}
		}
		if got := b.only(); len(got.Attaches) != 2 || got.Attaches[1].Outcome != "refused: resource_succeeded_state" || !got.Attaches[1].ExecutedAt.IsZero() {
			t.Errorf("ledger: %+v", got)
		}
	})
	t.Run("DeclineThenPaidOnTheSameIntent", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi := b.intent()
		b.attach(pi, b.card("5100000000000198"))
		b.attach(pi, b.card(paying))
		after := b.retrieve(pi)
		after.want(t, "status", succeeded)
		after.want(t, "payments.0.attributes.status", "failed")
		after.want(t, "payments.1.attributes.status", "paid")
	})
	t.Run("HoldCancelRefusedByTheProcessor", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi := b.intent(fields{"capture_type": "manual"})
		b.attach(pi, b.card("5417881844647288"))
		if status, got := b.call("POST", "/v1/payment_intents/"+pi+"/cancel", nil); status != 400 || got.at("errors.0.code").String() != "resource_failed_state" {
			t.Errorf("%d %s", status, got)
		}
		b.retrieve(pi).want(t, "status", awaitingCapture)
	})
	t.Run("HoldCaptured", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi := b.intent(fields{"capture_type": "manual"})
		b.attach(pi, b.card(paying))
		b.retrieve(pi).want(t, "status", awaitingCapture)
		path := "/v1/payment_intents/" + pi + "/capture"
		if status, got := b.call("POST", path, fields{"amount": 10001}); status != 400 || got.at("errors.0.code").String() != "allowed_amount_exceeded" {
			t.Errorf("above the hold: %d %s", status, got)
		}
		captured := b.ok("POST", path, fields{"amount": 7000})
		captured.want(t, "attributes.status", succeeded)
		captured.want(t, "attributes.payments.0.attributes.amount", "7000")
		if status, _ := b.call("POST", path, nil); status != 400 {
			t.Errorf("second capture: %d", status)
		}
	})
	t.Run("HoldReleasedAfterSevenDays", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi := b.intent(fields{"capture_type": "manual"})
		b.attach(pi, b.card(paying))
		b.box.Clock().Advance(7*24*time.Hour - time.Second)
		b.retrieve(pi).want(t, "status", awaitingCapture)
		b.box.Clock().Advance(time.Second)
		b.retrieve(pi).want(t, "status", cancelled)
	})
	t.Run("HoldWithoutAnEnd", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.HoldLifetime = 0 }))
		pi := b.intent(fields{"capture_type": "manual"})
		b.attach(pi, b.card(paying))
		b.box.Clock().Advance(365 * 24 * time.Hour)
		b.retrieve(pi).want(t, "status", awaitingCapture)
	})
	t.Run("IntentExpires", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.IntentLifetime = Duration(time.Hour) }))
		pi := b.intent()
		b.box.Clock().Advance(time.Hour)
		b.retrieve(pi).want(t, "status", cancelled)
	})
	t.Run("PublicKeyNeedsTheClientKey", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi := b.ok("POST", "/v1/payment_intents", fields{"amount": 10000, "currency": "PHP", "payment_method_allowed": []string{"card"}})
		path := "/v1/payment_intents/" + pi.at("id").String()
		for query, want := range map[string]int{"": 400, "?client_key=x": 400, "?client_key=" + pi.at("attributes.client_key").String(): 200} {
			resp, body, err := b.request("GET", path+query, "pk_test_x", "")
			if err != nil || resp.StatusCode != want {
				t.Errorf("%s: %v %s", query, err, body)
			}
		}
		if resp, _, err := b.request("POST", "/v1/payment_intents", "pk_test_x", "{}"); err != nil || resp.StatusCode != 401 {
			t.Errorf("create with a public key: %v", err)
		}
	})
}

func TestIntentArguments(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, tt := range []struct {
		name, body, code, detail string
	}{
		{"AmountIsText", `{"amount":"10_000","currency":"PHP","payment_method_allowed":["card"]}`, "parameter_data_type_invalid", "amount should be an integer."}, // recorded 2020
		{"AmountIsAFloat", `{"amount":100.0,"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_data_type_invalid", "amount should be an integer."},
		{"AmountHasAnExponent", `{"amount":1e5,"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_data_type_invalid", "amount should be an integer."},
		{"AmountIsEndless", `{"amount":` + strings.Repeat("9", 1000) + `,"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_above_maximum", "The value for amount cannot be greater than 999999999."},
		{"AmountIsAnEndlessFloat", `{"amount":` + strings.Repeat("9", 1000) + `.5,"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_data_type_invalid", "amount should be an integer."},
		{"AmountIsNegative", `{"amount":-92233720368547758080,"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_below_minimum", "The minimum value for the amount is 2000."},
		{"AmountOverflows", `{"amount":92233720368547758080,"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_above_maximum", "The value for amount cannot be greater than 999999999."},
		{"AmountTooSmall", `{"amount":1999,"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_below_minimum", "The minimum value for the amount is 2000."},
		{"AmountMissing", `{"currency":"PHP","payment_method_allowed":["card"]}`, "parameter_required", "amount is required."},
		{"OtherCurrency", `{"amount":2000,"currency":"USD","payment_method_allowed":["card"]}`, "parameter_invalid", "currency must be one of PHP."},
		{"UnknownMethod", `{"amount":2000,"currency":"PHP","payment_method_allowed":["cash"]}`, "parameter_invalid", "payment_method_allowed has the unknown type cash."},
		{"SessionTypeMissing", `{"amount":2000,"currency":"PHP","payment_method_allowed":["card"],"setup_future_usage":{"customer_id":"cus_x"}}`, "parameter_required", "setup_future_usage.session_type is required."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body, err := b.request("POST", "/v1/payment_intents", "sk_test_x", `{"data":{"attributes":`+tt.body+`}}`)
			if err != nil {
				t.Fatal(err)
			}
			got := parse(t, body)
			if resp.StatusCode != 400 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			got.want(t, "errors.0.code", tt.code)
			got.want(t, "errors.0.detail", tt.detail)
		})
	}
}
