package sandbox

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// FuzzRequest throws anything at the API: it may refuse, it may not panic,
// and what it answers is JSON or nothing.
func FuzzRequest(f *testing.F) {
	pi := `{"data":{"attributes":{"amount":10000,"currency":"PHP","payment_method_allowed":["card"],"metadata":{"a":[{"b":1}]}}}}`
	f.Add("POST", "/v1/payment_intents", pi, "key")
	f.Add("POST", "/v1/payment_methods", `{"data":{"attributes":{"type":"card","details":{"card_number":"4343434343434345","exp_month":12,"exp_year":2030,"cvc":"123"}}}}`, "")
	f.Add("POST", "/v1/payment_intents/KNOWN/attach", `{"data":{"attributes":{"payment_method":"CARD","return_url":"http://x"}}}`, "")
	f.Add("POST", "/v1/payment_intents/KNOWN/capture", `{"data":{"attributes":{"amount":1}}}`, "")
	f.Add("POST", "/v1/payment_intents/KNOWN/cancel", `[]`, "")
	f.Add("PATCH", "/v1/payment_methods/CARD", `{"data":{"attributes":{"details":{"card":{"cvc":"1"}}}}}`, "")
	f.Add("POST", "/v1/customers", `{"data":{"attributes":{"first_name":"a","last_name":"b","email":"a@b","phone":"+6391","default_device":"phone"}}}`, "")
	f.Add("POST", "/v1/refunds", `{"data":{"attributes":{"amount":100,"payment_id":"pay_1","reason":"others"}}}`, "")
	f.Add("POST", "/v1/webhooks", `{"data":{"attributes":{"url":"http://127.0.0.1:1","events":["payment.paid"]}}}`, "")
	f.Add("POST", "/v1/checkout_sessions", `{"data":{"attributes":{"line_items":[{"name":"a","amount":9999,"currency":"PHP","quantity":1}],"payment_method_types":["card"]}}}`, "")
	f.Add("GET", "/v1/payments?limit=5&after=pay_1", "", "")
	f.Add("GET", "/v1/customers?email=a&phone=b", "", "")
	f.Fuzz(func(t *testing.T, method, path, body, key string) {
		box := fuzzBox(t, Options{MaxRecords: 100})
		card := doFuzz(t, box, "POST", "/v1/payment_methods", `{"data":{"attributes":{"type":"card","details":{"card_number":"4343434343434345","exp_month":12,"exp_year":2030,"cvc":"123"}}}}`, "")
		known := doFuzz(t, box, "POST", "/v1/payment_intents", pi, "")
		fill := strings.NewReplacer("KNOWN", known, "CARD", card)
		doFuzz(t, box, method, fill.Replace(path), fill.Replace(body), key)
	})
}

func fuzzBox(t *testing.T, opts Options) *Sandbox {
	opts.Seed, opts.Start, opts.StopClock, opts.WebhookWorkers = 1, start, true, 1
	box, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return box
}

func doFuzz(t *testing.T, box *Sandbox, method, path, body, key string) (id string) {
	req, err := http.NewRequest(method, "http://sandbox.test", strings.NewReader(body))
	if err != nil {
		return "" // not a method at all
	}
	if req.URL, err = req.URL.Parse(path); err != nil || !strings.HasPrefix(req.URL.Path, "/v") {
		return ""
	}
	req.SetBasicAuth("sk_test_fuzz", "")
	req.Header.Set("Idempotency-Key", key)
	rec := httptest.NewRecorder()
	box.ServeHTTP(rec, req)
	if rec.Code >= 500 && rec.Code != http.StatusServiceUnavailable {
		t.Fatalf("%s %s %s: status %d %s", method, path, body, rec.Code, rec.Body)
	}
	var got struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if rec.Body.Len() > 0 && strings.HasPrefix(rec.Header().Get("Content-Type"), "application/json") {
		if !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s %s %s: not JSON: %s", method, path, body, rec.Body)
		}
		_ = json.Unmarshal(rec.Body.Bytes(), &got) // a list has no id
	}
	return got.Data.ID
}

// FuzzControls throws anything at the controls.
func FuzzControls(f *testing.F) {
	f.Add("POST", "/faults", `{"kind":"delay","for":"1ns"}`)
	f.Add("PUT", "/script", `[{"kind":"none"}]`)
	f.Add("PATCH", "/profile", `{"minimum_amount":1}`)
	f.Add("POST", "/clock", `{"now":"2026-01-01T00:00:00Z","advance":1,"factor":2}`)
	f.Add("DELETE", "/faults/x", "")
	f.Add("POST", "/sources?id=src_1", "press=fail")
	f.Add("POST", "/checkout?id=cs_1", "press=pay")
	f.Add("POST", "/events/evt_1/resend", "")
	f.Fuzz(func(t *testing.T, method, path, body string) {
		box := fuzzBox(t, Options{})
		req, err := http.NewRequest(method, "http://sandbox.test", strings.NewReader(body))
		if err != nil {
			return
		}
		if req.URL, err = req.URL.Parse("/_sandbox" + path); err != nil {
			return
		}
		rec := httptest.NewRecorder()
		box.ServeHTTP(rec, req)
		if rec.Code >= 500 {
			t.Fatalf("%s %s %s: status %d %s", method, path, body, rec.Code, rec.Body)
		}
	})
}

// FuzzParseFault holds that what is read can be added.
func FuzzParseFault(f *testing.F) {
	f.Add("timeout_after=0.3,endpoint=payment_intents.attach")
	f.Add("decline,code=insufficient_funds,nth=2,metadata.invoice=in_1")
	f.Add("processing=1e-3,for=36h,then=succeed,times=1,status=503,retry_after=2s")
	f.Fuzz(func(t *testing.T, line string) {
		fault, err := ParseFault(line)
		if err != nil || fault.Kind == NoFault {
			return
		}
		fuzzBox(t, Options{Faults: []Fault{fault}})
	})
}

// FuzzMetadata holds that what is stored is a flat object of strings.
func FuzzMetadata(f *testing.F) {
	f.Add(`{"a":"b","c":[{"d":1,"e":null}],"a":true}`)
	f.Fuzz(func(t *testing.T, in string) {
		var m metadata
		if json.Unmarshal([]byte(in), &m) != nil || m == nil {
			return
		}
		var out map[string]string
		if err := json.Unmarshal(encode(m), &out); err != nil || len(out) != len(m) {
			t.Fatalf("%s became %s: %v", in, encode(m), err)
		}
	})
}

func FuzzDuration(f *testing.F) {
	f.Add(`"1m30s"`)
	f.Add(`90.5`)
	f.Fuzz(func(t *testing.T, in string) {
		var d, again Duration
		if json.Unmarshal([]byte(in), &d) != nil {
			return
		}
		if err := json.Unmarshal(encode(d), &again); err != nil || d != again {
			t.Fatalf("%s became %v, then %v: %v", in, time.Duration(d), time.Duration(again), err)
		}
	})
}
