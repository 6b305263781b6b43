package sandbox

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func (b *bench) control(method, path, body string) (int, node) {
	b.t.Helper()
	resp, data, err := b.request(method, "/_sandbox"+path, "", body)
	if err != nil {
		b.t.Fatal(err)
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return resp.StatusCode, node{string(data)}
	}
	return resp.StatusCode, parse(b.t, data)
}

func TestControls(t *testing.T) {
	t.Parallel()

	t.Run("Clock", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		_, got := b.control("POST", "/clock", `{"now":"2026-01-31T09:00:00+08:00","advance":"24h"}`)
		got.want(t, "now", "2026-02-01T01:00:00Z")
		if status, _ := b.control("POST", "/clock", `{"factor":-1}`); status != 400 {
			t.Errorf("negative factor: %d", status)
		}
		b.control("POST", "/clock", `{"factor":100000}`)
		deadline := time.Now().Add(5 * time.Second)
		for b.box.Clock().Now().Before(time.Date(2026, 2, 1, 2, 0, 0, 0, time.UTC)) {
			if time.Now().After(deadline) {
				t.Fatal("the clock does not run")
			}
		}
	})
	t.Run("FaultsAndScript", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		status, got := b.control("POST", "/faults", `{"kind":"delay","for":0.001,"endpoint":"payments.*"}`)
		id := got.at("id").String()
		if status != 200 || id == "" {
			t.Fatalf("%d %s", status, got)
		}
		_, got = b.control("GET", "/faults", "")
		got.want(t, "faults.0.for", "1ms")
		got.want(t, "seed", "1")
		for body, want := range map[string]string{
			`{"kind":"nope"}`:                      `unknown fault "nope"`,
			`{"kind":"reset_after","endpont":"x"}`: "unknown field",
			``:                                     "empty",
			`[]`:                                   "not what this control takes",
			`{"kind":"reset_after"}{}`:             "more than one",
			`{"kind":"delay","for":"soon"}`:        "is not a duration",
			`{"kind":"` + strings.Repeat("x", maxBody) + `"}`: "larger than 1 MiB",
		} {
			if status, got := b.control("POST", "/faults", body); status < 400 || status > 499 || !strings.Contains(got.at("error").String(), want) {
				t.Errorf("%.40s: %d %s, want %q", body, status, got, want)
			}
		}
		if status, _ := b.control("DELETE", "/faults/"+id, ""); status != 200 {
			t.Errorf("delete: %d", status)
		}
		if status, _ := b.control("DELETE", "/faults/"+id, ""); status != 404 {
			t.Errorf("delete again: %d", status)
		}
		if status, got := b.control("PUT", "/script", `[{"kind":"none"},{"kind":"reset_after"}]`); status != 200 || got.len() != 2 {
			t.Errorf("script: %d %s", status, got)
		}
		b.control("DELETE", "/faults", "")
		if _, got := b.control("GET", "/script", ""); got.String() != "null" && got.len() != 0 {
			t.Errorf("script after clearing: %s", got)
		}
	})
	t.Run("Help", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		for path, want := range map[string]int{"": 200, "/": 200, "/nope": 404} {
			if status, got := b.control("GET", path, ""); status != want || !strings.Contains(got.String(), "/_sandbox/ledger") {
				t.Errorf("%q: %d %s", path, status, got)
			}
		}
	})
	t.Run("LedgerAndSummary", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pm := b.card(paying)
		for _, invoice := range []string{"in_1", "in_1", "in_2"} {
			b.attach(b.intent(fields{"metadata": fields{"invoice": invoice}}), pm)
		}
		b.attach(b.intent(), pm)
		b.intent(fields{"metadata": fields{"invoice": "in_3"}})
		_, got := b.control("GET", "/ledger", "")
		if got.at("intents").len() != 5 {
			t.Errorf("ledger: %s", got)
		}
		got.want(t, "intents.0.attaches.0.outcome", "paid")
		_, got = b.control("GET", "/ledger/summary", "")
		got.want(t, "paid_payments", "4")
		got.want(t, "paid_amount", "40000")
		got.want(t, "paid_without_key", "1")
		got.want(t, "paid_by_value", `{"in_1":2,"in_2":1,"in_3":0}`)
		got.want(t, "paid_more_than_once.0.value", "in_1")
		if got.at("paid_more_than_once").len() != 1 || got.at("paid_more_than_once.0.payments").len() != 2 {
			t.Errorf("summary: %s", got)
		}
		_, empty := setup(t).control("GET", "/ledger", "")
		empty.want(t, "intents", "[]")
	})
	t.Run("ProfilePatch", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		_, got := b.control("PATCH", "/profile", `{"off_session":"not_allowed","refund_delay":"1h"}`)
		got.want(t, "off_session", "not_allowed")
		got.want(t, "minimum_amount", "2000")
		if status, got := b.control("PATCH", "/profile", `{"off_session":"perhaps"}`); status != 400 || !strings.Contains(got.String(), "three_ds") {
			t.Errorf("%d %s", status, got)
		}
	})
	t.Run("Reset", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.attach(b.intent(), b.card(paying))
		b.control("POST", "/reset", "")
		if n := len(b.box.Ledger().Intents); n != 0 {
			t.Errorf("%d intents left", n)
		}
	})
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *Options) { o.MaxRecords = 3 })
	for _, tt := range []struct {
		name, method, path, user, body string
		status                         int
	}{
		{"NotJSON", "POST", "/v1/payment_intents", "sk_test_x", "{", 400},
		{"DataIsAList", "POST", "/v1/payment_intents", "sk_test_x", `{"data":[]}`, 400},
		{"NoAttributes", "POST", "/v1/payment_intents", "sk_test_x", `{"amount":1}`, 400},
		{"TenMegabytes", "POST", "/v1/payment_intents", "sk_test_x", strings.Repeat("x", 10<<20), 413},
		{"DeeplyNested", "POST", "/v1/payment_intents", "sk_test_x", `{"data":{"attributes":{"metadata":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}}`, 400},
		{"NoKey", "GET", "/v1/payments", "", "", 401},
		{"LiveKey", "GET", "/v1/payments", "sk_live_x", "", 401},
		{"UnknownRoute", "GET", "/v1/charges", "sk_test_x", "", 404},
		{"WrongVerb", "DELETE", "/v1/payments/pay_1", "sk_test_x", "", 404},
		{"DoubleSlash", "POST", "/v1//payment_intents", "sk_test_x", "", 404},
		{"DotDot", "GET", "/v1/../v1/payments", "sk_test_x", "", 404},
		{"NoVersion", "GET", "/", "sk_test_x", "", 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body, err := b.request(tt.method, tt.path, tt.user, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Errorf("%d %.300s, want %d", resp.StatusCode, body, tt.status)
			}
		})
	}
	t.Run("Full", func(t *testing.T) {
		for range 3 {
			b.intent()
		}
		status, got := b.call("POST", "/v1/payment_intents", fields{"amount": 2000, "currency": "PHP", "payment_method_allowed": []string{"card"}})
		if status != http.StatusServiceUnavailable || !strings.Contains(got.String(), "max-records") {
			t.Errorf("%d %s", status, got)
		}
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{Keys: []string{"sk_live_abc"}}); err == nil || strings.Contains(err.Error(), "abc") {
		t.Errorf("live key: %v", err)
	}
	b := setup(t, func(o *Options) { o.Keys = []string{"sk_test_mine"} })
	for key, want := range map[string]int{"sk_test_mine": 200, "sk_test_other": 401, "": 401} {
		if resp, body, err := b.request("GET", "/v1/payments", key, ""); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v %s", key, err, body)
		}
	}
}
