package sandbox

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// start is the first instant of every test's clock: a Thursday morning in Manila.
var start = time.Date(2026, 1, 15, 1, 0, 0, 0, time.UTC)

// bench is a sandbox over HTTP with a clock that stands still.
type bench struct {
	t   *testing.T
	box *Sandbox
	url string
}

type fields map[string]any

func setup(t *testing.T, change ...func(*Options)) *bench {
	t.Helper()
	profile := DefaultProfile()
	opts := Options{Profile: &profile, Seed: 1, Start: start, StopClock: true, Hang: 50 * time.Millisecond, WebhookWorkers: 1}
	for _, f := range change {
		f(&opts)
	}
	box, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(box)
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return &bench{t: t, box: box, url: server.URL}
}

func withProfile(f func(*Profile)) func(*Options) { return func(o *Options) { f(o.Profile) } }

// request sends one call as it is. The answer is nil when there was none.
func (b *bench) request(method, path, user, body string, header ...string) (*http.Response, []byte, error) {
	b.t.Helper()
	req, err := http.NewRequest(method, b.url+path, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		b.t.Fatal(err)
	}
	req.ContentLength = int64(len(body))
	if user != "" {
		req.SetBasicAuth(user, "")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp, data, err
}

// call sends attributes and returns the status and the answer.
func (b *bench) call(method, path string, attrs fields, header ...string) (int, node) {
	b.t.Helper()
	body := ""
	if attrs != nil {
		body = string(encode(fields{"data": fields{"attributes": attrs}}))
	}
	resp, data, err := b.request(method, path, "sk_test_bench", body, header...)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, parse(b.t, data)
}

// ok is a call that has to succeed; it returns the resource.
func (b *bench) ok(method, path string, attrs fields, header ...string) node {
	b.t.Helper()
	status, got := b.call(method, path, attrs, header...)
	if status != 200 {
		b.t.Fatalf("%s %s: status %d: %s", method, path, status, got)
	}
	return got.at("data")
}

// node is a piece of JSON to look into.
type node struct{ v any }

func parse(t *testing.T, data []byte) node {
	t.Helper()
	if len(data) == 0 {
		return node{}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var n node
	if err := dec.Decode(&n.v); err != nil {
		t.Fatalf("not JSON: %q: %v", data, err)
	}
	return n
}

// at follows a path such as "attributes.payments.0.id"; a missing step gives
// an empty node.
func (n node) at(path string) node {
	for step := range strings.SplitSeq(path, ".") {
		switch v := n.v.(type) {
		case map[string]any:
			n = node{v[step]}
		case []any:
			i := int(step[0] - '0')
			if i >= len(v) {
				return node{}
			}
			n = node{v[i]}
		default:
			return node{}
		}
	}
	return n
}

func (n node) String() string {
	switch v := n.v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return string(encode(n.v))
}

func (n node) len() int {
	list, _ := n.v.([]any)
	return len(list)
}

func (n node) want(t *testing.T, path, want string) {
	t.Helper()
	if got := n.at(path).String(); got != want {
		t.Errorf("%s is %s, want %s", path, got, want)
	}
}

func (b *bench) card(number string) string {
	b.t.Helper()
	return b.ok("POST", "/v1/payment_methods", fields{"type": "card", "details": fields{
		"card_number": number, "exp_month": 12, "exp_year": 2030, "cvc": "123"}}).at("id").String()
}

const paying = "4343434343434345"

func (b *bench) intent(more ...fields) string {
	b.t.Helper()
	attrs := fields{"amount": 10000, "currency": "PHP", "payment_method_allowed": []string{"card"}}
	for _, m := range more {
		for k, v := range m {
			attrs[k] = v
		}
	}
	return b.ok("POST", "/v1/payment_intents", attrs).at("id").String()
}

func (b *bench) attach(pi, pm string) (int, node) {
	b.t.Helper()
	return b.call("POST", "/v1/payment_intents/"+pi+"/attach", fields{"payment_method": pm})
}

func (b *bench) retrieve(pi string) node {
	b.t.Helper()
	return b.ok("GET", "/v1/payment_intents/"+pi, nil).at("attributes")
}

// saved makes a customer with a saved card.
func (b *bench) saved(number string) (cus, pm string) {
	b.t.Helper()
	cus = b.customer("maria@example.com", "+639170000001")
	pm = b.card(number)
	pi := b.intent(fields{"setup_future_usage": fields{"session_type": "on_session", "customer_id": cus}})
	if status, got := b.attach(pi, pm); status != 200 {
		b.t.Fatalf("vaulting: %d %s", status, got)
	}
	return cus, pm
}

func (b *bench) customer(email, phone string) string {
	b.t.Helper()
	return b.ok("POST", "/v1/customers", fields{"first_name": "Maria", "last_name": "Santos", "email": email, "phone": phone, "default_device": "email"}).at("id").String()
}

func (b *bench) fault(f Fault) {
	b.t.Helper()
	if _, err := b.box.AddFault(f); err != nil {
		b.t.Fatal(err)
	}
}

// only returns the ledger's single intent.
func (b *bench) only() LedgerIntent {
	b.t.Helper()
	l := b.box.Ledger()
	if len(l.Intents) != 1 {
		b.t.Fatalf("the ledger has %d intents, want 1", len(l.Intents))
	}
	return l.Intents[0]
}
