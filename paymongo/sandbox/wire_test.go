package sandbox

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file anew")

// TestBytesOnTheWire holds every byte of a short conversation: order of keys,
// nulls, compactness, statuses, wordings. What it is compared with was checked
// by hand against recorded traffic.
func TestBytesOnTheWire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var got bytes.Buffer
	last := ""
	say := func(method, path, user, body string) {
		resp, data, err := b.request(method, path, user, body)
		if err != nil {
			t.Fatal(err)
		}
		last = string(data)
		fmt.Fprintf(&got, "%s %s %s\n%d %s\n%s\n\n", method, path, body, resp.StatusCode, resp.Header.Get("Content-Type"), data)
	}
	id := func() string { return parse(t, []byte(last)).at("data.id").String() }
	const key = "sk_test_golden"

	say("POST", "/v1/customers", key, `{"data":{"attributes":{"first_name":"Lilly","last_name":"McClure","email":"lilly@example.com","phone":"+639170000000","default_device":"phone"}}}`)
	cus := id()
	say("POST", "/v1/payment_methods", key, `{"data":{"attributes":{"details":{"card_number":"4343434343434345","cvc":"123","exp_month":12,"exp_year":2030},"type":"card"}}}`)
	pm := id()
	say("POST", "/v1/payment_intents", key, `{"data":{"attributes":{"amount":10000,"currency":"PHP","payment_method_allowed":["card"],"description":"R&D <1>","metadata":{"invoice":"in_1","items":[{"id":"a","qty":1}]},"setup_future_usage":{"session_type":"off_session","customer_id":"`+cus+`"}}}}`)
	pi := id()
	say("POST", "/v1/payment_intents/"+pi+"/attach", key, `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
	say("POST", "/v1/payment_intents/"+pi+"/attach", key, `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
	say("POST", "/v1/payment_intents/"+pi+"/attach", key, `{"data":{"attributes":{}}}`)
	say("GET", "/v1/customers/"+cus+"/payment_methods", key, "")
	say("GET", "/v2/customers/"+cus+"/payment_methods", key, "")
	say("GET", "/v1/payments", key, "")
	say("POST", "/v1/payment_methods", key, `{"data":{"attributes":{"details":{"card_number":"5100000000000198","cvc":"123","exp_month":12,"exp_year":2030},"type":"card"}}}`)
	broke := id()
	say("POST", "/v1/payment_intents", key, `{"data":{"attributes":{"amount":10000,"currency":"PHP","payment_method_allowed":["card"]}}}`)
	pi = id()
	say("POST", "/v1/payment_intents/"+pi+"/attach", key, `{"data":{"attributes":{"payment_method":"`+broke+`"}}}`)
	say("GET", "/v1/payment_intents/"+pi, key, "")
	say("POST", "/v1/payment_intents/"+pi+"/cancel", key, "[]")
	say("POST", "/v1/payment_intents", key, `{"data":{"attributes":{"amount":"10_000","currency":"PHP","payment_method_allowed":["card"]}}}`)
	say("GET", "/v1/payment_intents/pi_123", key, "")
	say("GET", "/v1/payments/pay_123", key, "")
	say("GET", "/v1/payment_methods/pm_123", key, "")
	say("GET", "/v1/nothing", key, "")
	say("GET", "/v1/payments", "", "")
	say("GET", "/v1/payments", "sk_test_", "")
	say("DELETE", "/v1/customers/"+cus, key, "")

	const file = "testdata/wire.golden"
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the bytes on the wire have changed; look at the difference, then run with -update\n%s", got.Bytes())
	}
}
