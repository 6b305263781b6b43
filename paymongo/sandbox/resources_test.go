package sandbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCustomers(t *testing.T) {
	t.Parallel()
	maria := fields{"first_name": "Maria", "last_name": "Santos", "email": "maria@example.com", "phone": "+639170000001", "default_device": "phone"}

	t.Run("CreateRetrieveUpdateDelete", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		cus := b.ok("POST", "/v1/customers", maria)
		cus.want(t, "type", "customer")
		cus.want(t, "attributes.default_payment_method_id", "null")
		path := "/v1/customers/" + cus.at("id").String()
		for i, verb := range []string{"PATCH", "PUT"} {
			name := fmt.Sprintf("Maria %d", i)
			b.ok(verb, path, fields{"first_name": name}).want(t, "attributes.first_name", name)
			b.ok("GET", path, nil).want(t, "attributes.first_name", name)
		}
		gone := b.ok("DELETE", path, nil)
		gone.want(t, "type", "deleted_entity")
		gone.want(t, "attributes.deleted", "true")
		if status, got := b.call("GET", path, nil); status != 404 {
			t.Errorf("deleted customer: %d %s", status, got)
		}
		b.ok("POST", "/v1/customers", maria) // e-mail and phone are free again
	})
	t.Run("EmailAndPhoneAreUnique", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.ok("POST", "/v1/customers", maria)
		status, got := b.call("POST", "/v1/customers", maria)
		if status != 400 || got.at("errors").len() != 2 {
			t.Errorf("duplicate: %d %s", status, got)
		}
		other := b.customer("jose@example.com", "+639170000002")
		if status, _ := b.call("PATCH", "/v1/customers/"+other, fields{"email": "maria@example.com"}); status != 400 {
			t.Errorf("update to a taken e-mail: %d", status)
		}
		if status, _ := b.call("PATCH", "/v1/customers/"+other, fields{"email": "Jose <jose@example.com>"}); status != 400 {
			t.Errorf("an e-mail with a name: %d", status)
		}
		b.ok("PATCH", "/v1/customers/"+other, fields{"email": "jose@example.com"}) // its own is no duplicate
	})
	t.Run("MissingAndWrongArguments", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		status, got := b.call("POST", "/v1/customers", fields{"first_name": 1, "email": "nobody", "default_device": "pager"})
		if status != 400 || got.at("errors").len() != 4 {
			t.Errorf("%d %s", status, got)
		}
	})
	t.Run("Search", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		id := b.ok("POST", "/v1/customers", maria).at("id").String()
		for query, want := range map[string]int{
			"email=maria@example.com": 1, "phone=%2B639170000001": 1, "email=maria@example.com&phone=%2B639170000001": 1,
			"email=jose@example.com": 0, "email=maria@example.com&phone=%2B630000000000": 0, "": 1,
		} {
			_, got := b.call("GET", "/v1/customers?"+query, nil)
			if got.at("data").len() != want {
				t.Errorf("search %q: %s", query, got)
			}
			if want == 1 {
				got.want(t, "data.0.id", id)
			}
		}
	})
}

func TestSavedPaymentMethods(t *testing.T) {
	t.Parallel()

	t.Run("DeletedMethodCannotBeAttached", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		cus, pm := b.saved(paying)
		status, got := b.call("DELETE", "/v1/customers/"+cus+"/payment_methods/"+pm, nil)
		if status != 200 || got.String() != `{"data":null}` {
			t.Errorf("delete: %d %s", status, got)
		}
		if status, _ := b.call("DELETE", "/v1/customers/"+cus+"/payment_methods/"+pm, nil); status != 404 {
			t.Errorf("second delete: %d", status)
		}
		if status, got := b.attach(b.intent(), pm); status != 404 {
			t.Errorf("attach: %d %s", status, got)
		}
	})
	t.Run("FailedFirstPaymentDoesNotVault", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		cus := b.customer("maria@example.com", "+639170000001")
		pi := b.intent(fields{"setup_future_usage": fields{"session_type": "off_session", "customer_id": cus}})
		b.attach(pi, b.card("5100000000000198"))
		if _, got := b.call("GET", "/v1/customers/"+cus+"/payment_methods", nil); got.at("data").len() != 0 {
			t.Errorf("vaulted after a decline: %s", got)
		}
		b.attach(pi, b.card(paying))
		_, got := b.call("GET", "/v1/customers/"+cus+"/payment_methods", nil)
		got.want(t, "data.0.attributes.session_type", "off_session")
	})
	t.Run("Shapes", func(t *testing.T) {
		t.Parallel()
		for shape, prefix := range map[string]string{"a": "cus_pm_", "b": "cpm_"} {
			b := setup(t, withProfile(func(p *Profile) { p.SavedMethodShape = shape }))
			cus, pm := b.saved(paying)
			_, got := b.call("GET", "/v1/customers/"+cus+"/payment_methods", nil)
			if id := got.at("data.0.id").String(); !strings.HasPrefix(id, prefix) || len(id) != len(prefix)+24 {
				t.Errorf("shape %s: id %s", shape, id)
			}
			got.want(t, "data.0.attributes.payment_method_id", pm)
			got.want(t, "data.0.attributes.details.brand", "visa")
			got.want(t, "has_more", "false")
		}
		b := setup(t, withProfile(func(p *Profile) { p.SavedMethodShape = "c" }))
		cus, pm := b.saved(paying)
		for _, version := range []string{"/v1", "/v2"} {
			_, got := b.call("GET", version+"/customers/"+cus+"/payment_methods", nil)
			got.want(t, "data.customer_payment_methods.0.payment_method_id", pm)
			got.want(t, "data.customer_payment_methods.0.created_at", fmt.Sprint(start.UnixMilli()))
			got.want(t, "data.last_evaluated_payment_method_id", pm)
		}
		_, got := b.call("DELETE", "/v2/customers/"+cus+"/payment_methods/"+pm, nil)
		got.want(t, "data.deleted_at", fmt.Sprint(start.UnixMilli()))
	})
	t.Run("UnknownCustomer", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		if status, got := b.call("GET", "/v1/customers/cus_x/payment_methods", nil); status != 404 {
			t.Errorf("%d %s", status, got)
		}
	})
}

func TestPaymentMethodErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	card := func(change fields) fields {
		d := fields{"card_number": paying, "exp_month": 12, "exp_year": 2030, "cvc": "123"}
		for k, v := range change {
			d[k] = v
		}
		return fields{"type": "card", "details": d}
	}
	for _, tt := range []struct {
		name      string
		attrs     fields
		code      string
		detail    string
		attribute string
	}{
		{"MonthIsText", card(fields{"exp_month": "12"}), "parameter_data_type_invalid", "details.exp_month should be an integer.", "exp_month"}, // recorded 2020
		{"NotATestCard", card(fields{"card_number": "4242424242424242"}), "livemode_mismatched", "Please use PayMongo test cards only.", "card_number"},
		{"NotACardNumber", card(fields{"card_number": "4343434343434344"}), "parameter_format_invalid", "details.card_number format is invalid.", "card_number"},
		{"Expired", card(fields{"exp_year": 2025}), "parameter_invalid", "details.exp_year and details.exp_month are in the past.", "exp_year"},
		{"NoCVC", card(fields{"cvc": nil}), "parameter_required", "details.cvc is required.", "cvc"},
		{"CVCNotDigits", card(fields{"cvc": "12x"}), "parameter_format_invalid", "details.cvc format is invalid.", "cvc"},
		{"NoType", fields{}, "parameter_required", "type is required.", "type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, got := b.call("POST", "/v1/payment_methods", tt.attrs)
			if status != 400 {
				t.Fatalf("%d %s", status, got)
			}
			got.want(t, "errors.0.code", tt.code)
			got.want(t, "errors.0.detail", tt.detail)
			got.want(t, "errors.0.source.attribute", tt.attribute)
		})
	}
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pi := b.intent()
	_, got := b.attach(pi, b.card(paying))
	pay := got.at("data.attributes.payments.0.id").String()
	refund := func(amount int64) (int, node) {
		return b.call("POST", "/v1/refunds", fields{"amount": amount, "payment_id": pay, "reason": "duplicate", "notes": "twice"})
	}
	if status, got := refund(99); status != 400 || got.at("errors.0.code").String() != "parameter_below_minimum" {
		t.Errorf("99 centavos: %d %s", status, got)
	}
	if status, got := refund(10001); status != 400 || got.at("errors.0.code").String() != "parameter_above_maximum" {
		t.Errorf("more than paid: %d %s", status, got)
	}
	_, got = refund(4000)
	ref := got.at("data.id").String()
	got.want(t, "data.attributes.status", "pending")
	if status, got := refund(100); status != 400 || got.at("errors.0.code").String() != "resource_processing_state" {
		t.Errorf("second refund while one is pending: %d %s", status, got)
	}
	b.box.Clock().Advance(5 * time.Second)
	b.ok("GET", "/v1/refunds/"+ref, nil).want(t, "attributes.status", "succeeded")
	b.ok("GET", "/v1/payments/"+pay, nil).want(t, "attributes.refunds.0.attributes.amount", "4000")
	if status, got := refund(6001); status != 400 {
		t.Errorf("more than is left: %d %s", status, got)
	}
	if status, _ := refund(6000); status != 200 {
		t.Errorf("the rest: %d", status)
	}
	if _, got := b.call("GET", "/v1/refunds", nil); got.at("data").len() != 2 {
		t.Errorf("list: %s", got)
	}

	failed := b.intent()
	b.attach(failed, b.card("5100000000000198"))
	pay = b.retrieve(failed).at("payments.0.id").String()
	if status, got := refund(100); status != 400 || got.at("errors.0.code").String() != "resource_failed_state" {
		t.Errorf("refund of a failed payment: %d %s", status, got)
	}
}

func TestPaymentsArePagedNewestFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pm := b.card(paying)
	var want []string
	for range 25 {
		_, got := b.attach(b.intent(), pm)
		want = append([]string{got.at("data.attributes.payments.0.id").String()}, want...)
	}
	var got []string
	query := "limit=10"
	for pages := 1; ; pages++ {
		_, list := b.call("GET", "/v1/payments?"+query, nil)
		data, _ := list.at("data").v.([]any)
		for _, item := range data {
			got = append(got, node{item}.at("id").String())
		}
		if list.at("has_more").String() == "false" {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		query = "limit=10&after=" + got[len(got)-1]
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	_, list := b.call("GET", "/v1/payments?limit=3&before="+want[5], nil)
	for i := range 3 {
		list.want(t, fmt.Sprintf("data.%d.id", i), want[2+i])
	}
	for _, bad := range []string{"limit=0", "limit=101", "limit=x", "after=pay_x", "after=a&before=b"} {
		if status, got := b.call("GET", "/v1/payments?"+bad, nil); status != 400 {
			t.Errorf("%s: %d %s", bad, status, got)
		}
	}
}

func TestCheckoutSession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	attrs := fields{
		"line_items":           []fields{{"name": "Invoice 7", "amount": 25000, "currency": "PHP", "quantity": 2}},
		"payment_method_types": []string{"card"}, "success_url": "https://shop.example/done?x=1", "metadata": fields{"invoice": "in_7"},
	}
	press := func(url, what string) (int, string) {
		resp, _, err := b.request("POST", strings.TrimPrefix(url, b.url)+"&press="+what, "", "press="+what, "Content-Type", "application/x-www-form-urlencoded")
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Location")
	}
	cs := b.ok("POST", "/v1/checkout_sessions", attrs)
	cs.want(t, "attributes.payment_intent.attributes.amount", "50000")
	url := cs.at("attributes.checkout_url").String()
	if status, _ := press(url, "decline"); status != 200 {
		t.Errorf("declined card: %d", status)
	}
	if status, to := press(url, "pay"); status != 303 || to != "https://shop.example/done?x=1" {
		t.Errorf("pay: %d %s", status, to)
	}
	if status, _ := press(url, "pay"); status != 404 {
		t.Errorf("pay twice: %d", status)
	}
	paid := b.ok("GET", "/v1/checkout_sessions/"+cs.at("id").String(), nil).at("attributes")
	paid.want(t, "status", "active") // stays so after payment, in a recording
	paid.want(t, "payment_intent.attributes.status", "succeeded")
	paid.want(t, "payments.0.attributes.amount", "50000")
	if n := b.box.Summary("invoice").PaidByValue["in_7"]; n != 1 {
		t.Errorf("paid %d times", n)
	}

	attrs["payment_method_types"] = []string{"gcash"}
	cs = b.ok("POST", "/v1/checkout_sessions", attrs)
	pi := cs.at("attributes.payment_intent.id").String()
	b.ok("POST", "/v1/payment_intents/"+pi+"/attach", fields{"return_url": "https://shop.example",
		"payment_method": b.ok("POST", "/v1/payment_methods", fields{"type": "gcash"}).at("id").String()})
	b.press(b.retrieve(pi), "authorize")
	b.ok("GET", "/v1/checkout_sessions/"+cs.at("id").String(), nil).want(t, "attributes.payment_method_used", "gcash")

	cs = b.ok("POST", "/v1/checkout_sessions", attrs)
	path := "/v1/checkout_sessions/" + cs.at("id").String()
	b.ok("POST", path+"/expire", nil).want(t, "attributes.payment_intent.attributes.status", "cancelled")
	if status, _ := b.call("POST", path+"/expire", nil); status != 400 {
		t.Errorf("expired twice: %d", status)
	}
	if status, _ := press(cs.at("attributes.checkout_url").String(), "pay"); status != 404 {
		t.Errorf("paid after expiry: %d", status)
	}
}
