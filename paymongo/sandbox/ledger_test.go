package sandbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLedgerListsEveryAttach sends attaches that come to nothing in every way
// before the acquirer is asked: each was received, so each is listed.
func TestLedgerListsEveryAttach(t *testing.T) {
	t.Parallel()
	b := setup(t, withProfile(func(p *Profile) { p.Idempotency, p.IdempotencyEverywhere = "replay", true }))
	pi, pm := b.intent(), b.card(paying)
	path, attrs := "/v1/payment_intents/"+pi+"/attach", fields{"payment_method": pm}
	b.call("POST", path, fields{})
	b.call("POST", path, fields{"payment_method": pm, "client_key": "x"})
	b.call("POST", path, fields{"payment_method": "pm_x"})
	b.call("POST", path, attrs, "Idempotency-Key", "k")
	b.call("POST", path, attrs, "Idempotency-Key", "k")
	b.call("POST", path, fields{"payment_method": "pm_x"}, "Idempotency-Key", "k")
	b.fault(Fault{Kind: Unauthorized, Times: 1})
	b.call("POST", path, attrs)
	p := b.box.Profile()
	p.RateLimit = 1
	if err := b.box.SetProfile(p); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, _ = b.request("POST", path, "sk_test_x", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
	}
	var got []string
	for _, at := range b.only().Attaches {
		got = append(got, at.Outcome)
	}
	want := []string{
		"refused: parameter_blank", "refused: parameter_invalid", "refused: resource_not_found", "paid", "replayed",
		"refused: parameter_invalid", "not executed", "refused: resource_succeeded_state", "not executed",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if sum := b.box.Summary("invoice"); sum.Attaches != len(want) || sum.AttachesExecuted != 1 || sum.PaidPayments != 1 {
		t.Errorf("%+v", sum)
	}
}

func TestAttachesAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.MaxRecords = 12 })
	pi, pm := b.intent(), b.card("5100000000000198")
	for i := range 10 {
		status, got := b.attach(pi, pm)
		if status == 503 {
			if n := len(b.only().Attaches); i != n || n != 5 {
				t.Errorf("%d attaches kept of %d", n, i)
			}
			return
		}
		if status != 400 {
			t.Fatalf("%d %s", status, got)
		}
	}
	t.Error("attaches and their payments have no limit")
}

func TestLateAttachIsLookedAtWhenItExecutes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, user, body, outcome string
		more                      Fault
	}{
		{"Decline", "sk_test_x", `"payment_method":"CARD"`, "declined: do_not_honor", Fault{Kind: Decline, Code: "do_not_honor"}},
		{"MethodNotAllowed", "sk_test_x", `"payment_method":"GCASH","return_url":"https://shop.example"`, "refused: payment_method_not_allowed", Fault{}},
		{"MethodUnknown", "sk_test_x", `"payment_method":"pm_x"`, "refused: resource_not_found", Fault{}},
		{"NoMethod", "sk_test_x", ``, "refused: parameter_blank", Fault{}},
		{"WrongClientKey", "pk_test_x", `"payment_method":"CARD","client_key":"x"`, "refused: parameter_invalid", Fault{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			pi, pm := b.intent(), b.card(paying)
			gcash := b.ok("POST", "/v1/payment_methods", fields{"type": "gcash"}).at("id").String()
			b.fault(Fault{Kind: LateAttach, For: Duration(time.Minute)})
			if tt.more.Kind != "" {
				b.fault(tt.more)
			}
			body := `{"data":{"attributes":{` + strings.NewReplacer("CARD", pm, "GCASH", gcash).Replace(tt.body) + `}}}`
			if _, _, err := b.request("POST", "/v1/payment_intents/"+pi+"/attach", tt.user, body); err == nil {
				t.Error("the connection lived")
			}
			b.box.Clock().Advance(time.Minute)
			if got := b.only(); len(got.Attaches) != 1 || got.Attaches[0].Outcome != tt.outcome {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("PublicKeyIsNotOffSession", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.OffSession = "not_allowed" }))
		_, pm := b.saved(paying)
		made := b.ok("POST", "/v1/payment_intents", fields{"amount": 10000, "currency": "PHP", "payment_method_allowed": []string{"card"}})
		b.fault(Fault{Kind: LateAttach, For: Duration(time.Minute)})
		_, _, _ = b.request("POST", "/v1/payment_intents/"+made.at("id").String()+"/attach", "pk_test_x",
			`{"data":{"attributes":{"payment_method":"`+pm+`","client_key":"`+made.at("attributes.client_key").String()+`"}}}`)
		b.box.Clock().Advance(time.Minute)
		if got := b.box.Ledger().Intents[1].Attaches[0]; got.Outcome != "paid" || got.OffSession {
			t.Errorf("%+v", got)
		}
	})
}
