package sandbox

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// receiver is a merchant's endpoint.
type receiver struct {
	mu   sync.Mutex
	got  []received
	fail int // answer 500 to so many
}

type received struct {
	signature string
	body      []byte
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, received{req.Header.Get("Paymongo-Signature"), body})
	if r.fail != 0 {
		r.fail--
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func (r *receiver) failNext(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = n
}

func (r *receiver) take() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

func (b *bench) listen(events ...string) (*receiver, node) {
	b.t.Helper()
	r := &receiver{}
	server := httptest.NewServer(r)
	b.t.Cleanup(server.Close)
	hook := b.ok("POST", "/v1/webhooks", fields{"url": server.URL, "events": events})
	return r, hook
}

func (b *bench) drain() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := b.box.Drain(ctx); err != nil {
		b.t.Fatal(err)
	}
}

// check verifies a signature as PayMongo documents it.
func (r received) check(t *testing.T, secret string) bool {
	t.Helper()
	parts := strings.Split(r.signature, ",")
	if len(parts) != 3 || !strings.HasPrefix(parts[0], "t=") || !strings.HasPrefix(parts[1], "te=") || !strings.HasPrefix(parts[2], "li=") {
		t.Fatalf("signature header %q", r.signature)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(parts[0][2:] + "." + string(r.body)))
	return parts[1][3:] == hex.EncodeToString(mac.Sum(nil))
}

func (r received) event(t *testing.T) node {
	t.Helper()
	return parse(t, r.body).at("data")
}

func TestWebhookDelivery(t *testing.T) {
	t.Parallel()

	t.Run("PaidFailedRefunded", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		r, hook := b.listen("payment.paid", "payment.failed", "payment.refunded", "payment.refund.updated")
		secret := hook.at("attributes.secret_key").String()
		pi := b.intent(fields{"description": "beer & pizza <3"})
		b.attach(pi, b.card("5100000000000198"))
		_, got := b.attach(pi, b.card(paying))
		pay := got.at("data.attributes.payments.1.id").String()
		b.ok("POST", "/v1/refunds", fields{"amount": 100, "payment_id": pay, "reason": "others"})
		b.box.Clock().Advance(time.Minute)
		b.drain()
		var kinds []string
		for _, d := range r.take() {
			if !d.check(t, secret) {
				t.Errorf("bad signature over %s", d.body)
			}
			ev := d.event(t)
			ev.want(t, "type", "event")
			ev.want(t, "attributes.livemode", "false")
			ev.want(t, "attributes.pending_webhooks", "1")
			kinds = append(kinds, ev.at("attributes.type").String()+" "+ev.at("attributes.data.type").String())
			if strings.Contains(string(d.body), `\u0026`) || strings.Contains(string(d.body), "\n") {
				t.Errorf("not byte-faithful: %s", d.body)
			}
		}
		want := "[payment.failed payment payment.paid payment payment.refund.updated refund payment.refunded payment]"
		if fmt.Sprint(kinds) != want {
			t.Errorf("got  %v\nwant %s", kinds, want)
		}
	})
	t.Run("RetryLadderThenDisabled", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		r, hook := b.listen("payment.failed")
		r.failNext(-1)
		path := "/v1/webhooks/" + hook.at("id").String()
		pm := b.card("5100000000000198")
		for round := range 3 {
			b.ok("GET", path, nil).want(t, "attributes.status", "enabled")
			b.attach(b.intent(), pm)
			b.drain()
			if n := len(r.take()); n != 1 {
				t.Fatalf("round %d: %d first tries", round, n)
			}
			for retry := 1; retry <= 12; retry++ {
				b.box.Clock().Advance(time.Second<<retry - time.Second)
				b.drain()
				if n := len(r.take()); n != 0 {
					t.Fatalf("retry %d came early", retry)
				}
				b.box.Clock().Advance(time.Second)
				b.drain()
				if n := len(r.take()); n != 1 {
					t.Fatalf("retry %d: %d deliveries", retry, n)
				}
			}
			b.box.Clock().Advance(24 * time.Hour)
			b.drain()
			if n := len(r.take()); n != 0 {
				t.Fatalf("a 13th retry")
			}
		}
		disabled := b.ok("GET", path, nil)
		disabled.want(t, "attributes.status", "disabled")
		disabled.want(t, "attributes.disabled_reason", "max_retries_exceeded")
		b.attach(b.intent(), pm)
		b.drain()
		if n := len(r.take()); n != 0 {
			t.Error("delivered to a disabled endpoint")
		}
		b.ok("POST", path+"/enable", nil).want(t, "attributes.status", "enabled")
		r.failNext(0)
		b.attach(b.intent(), pm)
		b.drain()
		if n := len(r.take()); n != 1 {
			t.Errorf("%d deliveries after enabling", n)
		}
	})
	t.Run("DrainWaitsForTheEventOfABrokenCall", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		r, _ := b.listen("payment.paid")
		pm := b.card(paying)
		b.fault(Fault{Kind: ResetAfter, Endpoint: "payment_intents.attach"})
		for range 20 {
			_, _, _ = b.request("POST", "/v1/payment_intents/"+b.intent()+"/attach", "sk_test_x", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
			b.drain()
			if n := len(r.take()); n != 1 {
				t.Fatalf("%d deliveries", n)
			}
		}
	})
	t.Run("DisabledEndpointCountsNoTries", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		r, hook := b.listen("payment.paid")
		r.failNext(1)
		b.attach(b.intent(), b.card(paying))
		b.drain()
		b.ok("POST", "/v1/webhooks/"+hook.at("id").String()+"/disable", nil)
		b.box.Clock().Advance(time.Hour)
		b.drain()
		if n := b.box.Counters(); n.Deliveries != 1 || n.DeliveriesFailed != 1 {
			t.Errorf("%+v", n)
		}
	})
	t.Run("ResentByHand", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		r, _ := b.listen("payment.paid")
		b.attach(b.intent(), b.card(paying))
		b.drain()
		first := r.take()
		if err := b.box.Resend(first[0].event(t).at("id").String()); err != nil {
			t.Fatal(err)
		}
		b.drain()
		if again := r.take(); len(again) != 1 || string(again[0].body) != string(first[0].body) {
			t.Errorf("%s", again)
		}
		if err := b.box.Resend("evt_x"); err == nil {
			t.Error("an unknown event was resent")
		}
	})
	t.Run("SignatureSwitches", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.SignBoth, p.SignOnce = true, true }))
		r, hook := b.listen("payment.paid")
		r.failNext(1)
		b.attach(b.intent(), b.card(paying))
		b.drain()
		b.box.Clock().Advance(2 * time.Second)
		b.drain()
		got := r.take()
		if len(got) != 2 || got[0].signature != got[1].signature {
			t.Fatalf("signed anew on a retry: %s", got)
		}
		if !got[0].check(t, hook.at("attributes.secret_key").String()) || strings.HasSuffix(got[0].signature, "li=") {
			t.Errorf("signature %s", got[0].signature)
		}
	})
	t.Run("WrongEndpointsAreRefused", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		_, hook := b.listen("payment.paid")
		for _, attrs := range []fields{
			{"url": "ftp://x", "events": []string{"payment.paid"}}, {"url": "http://127.0.0.1:1/a", "events": []string{"payment.won"}},
			{"url": "http://127.0.0.1:1/a", "events": []string{}}, {"events": []string{"payment.paid"}},
			{"url": hook.at("attributes.url").String(), "events": []string{"payment.paid"}},
		} {
			if status, got := b.call("POST", "/v1/webhooks", attrs); status != 400 {
				t.Errorf("%v: %d %s", attrs, status, got)
			}
		}
		path := "/v1/webhooks/" + hook.at("id").String()
		b.ok("PUT", path, fields{"events": []string{"payment.failed"}}).want(t, "attributes.events.0", "payment.failed")
		b.ok("POST", path+"/disable", nil).want(t, "attributes.disabled_reason", "disabled_by_merchant")
		if _, got := b.call("GET", "/v1/webhooks", nil); got.at("data").len() != 1 {
			t.Errorf("list: %s", got)
		}
	})
}

func TestWebhookFaults(t *testing.T) {
	t.Parallel()
	// pay makes two payments under one fault on the first and returns the
	// deliveries as "1", "2" (the invoice), in order.
	pay := func(t *testing.T, f Fault) (*bench, *receiver, []string) {
		b := setup(t)
		r, hook := b.listen("payment.paid")
		f.Metadata = map[string]string{"invoice": "1"}
		b.fault(f)
		pm := b.card(paying)
		for _, invoice := range []string{"1", "2"} {
			b.attach(b.intent(fields{"metadata": fields{"invoice": invoice}}), pm)
		}
		b.drain()
		return b, r, invoices(t, r, hook)
	}
	for _, tt := range []struct{ kind, want string }{
		{string(WebhookLost), "[2]"},
		{string(WebhookDuplicate), "[1 1 2]"},
		{string(WebhookReorder), "[2 1]"},
		{string(WebhookForged), "[1 forged 2]"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			if _, _, got := pay(t, Fault{Kind: FaultKind(tt.kind)}); fmt.Sprint(got) != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
	t.Run("webhook_delay", func(t *testing.T) {
		t.Parallel()
		b, r, got := pay(t, Fault{Kind: WebhookDelay, For: Duration(time.Hour)})
		if fmt.Sprint(got) != "[2]" {
			t.Errorf("got %v", got)
		}
		b.box.Clock().Advance(time.Hour)
		b.drain()
		if n := len(r.take()); n != 1 {
			t.Errorf("%d late deliveries", n)
		}
	})
	t.Run("webhook_early", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: WebhookEarly})
		var answered bool
		before := make(chan bool, 1)
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { before <- !answered }))
		t.Cleanup(server.Close)
		b.ok("POST", "/v1/webhooks", fields{"url": server.URL, "events": []string{"payment.paid"}})
		b.attach(b.intent(), b.card(paying))
		answered = true
		if !<-before {
			t.Error("the event came after the answer")
		}
	})
}

func invoices(t *testing.T, r *receiver, hook node) []string {
	t.Helper()
	var out []string
	for _, d := range r.take() {
		invoice := d.event(t).at("attributes.data.attributes.metadata.invoice").String()
		if !d.check(t, hook.at("attributes.secret_key").String()) {
			invoice = "forged"
		}
		out = append(out, invoice)
	}
	return out
}
