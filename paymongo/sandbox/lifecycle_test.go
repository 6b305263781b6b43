package sandbox

import (
	"crypto/tls"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// direct calls a sandbox without a network, so that a synctest bubble sees
// every goroutine it has and the time they wait.
type direct struct {
	t   *testing.T
	box *Sandbox
}

// inBubble runs f with a sandbox that has real time, which the bubble fakes.
// The bubble fails when a goroutine outlives Close.
func inBubble(t *testing.T, opts Options, f func(*testing.T, direct)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.Seed = 1
		box, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		f(t, direct{t, box})
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (d direct) call(method, path string, attrs fields, header ...string) (int, node) {
	body := ""
	if attrs != nil {
		body = string(encode(fields{"data": fields{"attributes": attrs}}))
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.SetBasicAuth("sk_test_direct", "")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	d.box.ServeHTTP(w, r)
	return w.Code, parse(d.t, w.Body.Bytes())
}

// begin starts a call and returns when it waits for something.
func (d direct) begin(method, path string, attrs fields, header ...string) <-chan string {
	done := make(chan string, 1)
	go func() {
		status, got := d.call(method, path, attrs, header...)
		done <- fmt.Sprint(status, " ", got.at("data.attributes.status"), got.at("errors.0.code"))
	}()
	synctest.Wait()
	return done
}

// charge prepares an intent and a card and returns the attach.
func (d direct) charge(more fields) (pi, path string, attach fields) {
	d.t.Helper()
	attrs := fields{"amount": 10000, "currency": "PHP", "payment_method_allowed": []string{"card"}}
	for k, v := range more {
		attrs[k] = v
	}
	_, got := d.call("POST", "/v1/payment_intents", attrs)
	_, card := d.call("POST", "/v1/payment_methods", fields{"type": "card", "details": fields{"card_number": paying, "exp_month": 12, "exp_year": 2030, "cvc": "123"}})
	pi = got.at("data.id").String()
	return pi, "/v1/payment_intents/" + pi + "/attach", fields{"payment_method": card.at("data.id").String()}
}

func slowAcquirer(change func(*Profile)) Options {
	p := DefaultProfile()
	p.AcquirerLatency = Duration(time.Minute)
	if change != nil {
		change(&p)
	}
	return Options{Profile: &p}
}

func TestReset(t *testing.T) {
	t.Parallel()
	t.Run("WhileAnAttachIsAtWork", func(t *testing.T) {
		t.Parallel()
		inBubble(t, slowAcquirer(nil), func(t *testing.T, d direct) {
			_, path, attach := d.charge(nil)
			done := d.begin("POST", path, attach)
			d.box.Reset()
			if got := <-done; got != "404 null resource_not_found" {
				t.Error(got)
			}
			if sum := d.box.Summary("invoice"); sum.Intents != 0 || sum.PaidPayments != 0 {
				t.Errorf("%+v", sum)
			}
		})
	})
}

func TestClose(t *testing.T) {
	t.Parallel()

	t.Run("ExecutesWhatIsAtWork", func(t *testing.T) {
		t.Parallel()
		opts := slowAcquirer(nil)
		opts.StateFile = filepath.Join(t.TempDir(), "state.json")
		inBubble(t, opts, func(t *testing.T, d direct) {
			_, path, attach := d.charge(nil)
			done := d.begin("POST", path, attach)
			if err := d.box.Close(); err != nil {
				t.Fatal(err)
			}
			if got := <-done; got != "200 succeeded null" {
				t.Error(got)
			}
		})
		inBubble(t, opts, func(t *testing.T, d direct) {
			if sum := d.box.Summary("invoice"); sum.PaidPayments != 1 {
				t.Errorf("what was answered is not in the state file: %+v", sum)
			}
		})
	})
	t.Run("LetsHangingCallsGo", func(t *testing.T) {
		t.Parallel()
		inBubble(t, Options{Faults: []Fault{{Kind: Delay, For: Duration(time.Hour)}}}, func(t *testing.T, d direct) {
			done := d.begin("GET", "/v1/payments", nil)
			begun := time.Now()
			if err := d.box.Close(); err != nil {
				t.Fatal(err)
			}
			if got := <-done; time.Since(begun) > time.Minute {
				t.Errorf("%s after %v", got, time.Since(begun))
			}
		})
	})
	t.Run("RefusesWhatComesLater", func(t *testing.T) {
		t.Parallel()
		inBubble(t, Options{}, func(t *testing.T, d direct) {
			_, path, attach := d.charge(nil)
			for range 2 {
				if err := d.box.Close(); err != nil {
					t.Error(err)
				}
			}
			if status, got := d.call("POST", path, attach); status != 503 || got.at("errors.0.code").String() != "sandbox_closed" {
				t.Errorf("%d %s", status, got)
			}
			if err := d.box.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			if l := d.box.Ledger(); len(l.Intents) != 1 || len(l.Intents[0].Attaches) != 0 {
				t.Errorf("the ledger has changed: %+v", l)
			}
		})
	})
}

func TestCallsTakeTime(t *testing.T) {
	t.Parallel()

	t.Run("AttachAtWorkIsNotExecutedAfterAKill", func(t *testing.T) {
		t.Parallel()
		opts := slowAcquirer(nil)
		opts.StateFile = filepath.Join(t.TempDir(), "state.json")
		inBubble(t, opts, func(t *testing.T, d direct) {
			_, path, attach := d.charge(nil)
			done := d.begin("POST", path, attach)
			if err := d.box.save(); err != nil {
				t.Fatal(err)
			}
			again, err := New(Options{StateFile: opts.StateFile})
			if err != nil {
				t.Fatal(err)
			}
			for box, want := range map[*Sandbox]string{d.box: "at work", again: "not executed"} {
				if got := box.Ledger().Intents[0].Attaches[0].Outcome; got != want {
					t.Errorf("%q, want %q", got, want)
				}
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
			<-done
		})
	})

	t.Run("CollisionIsNotStored", func(t *testing.T) {
		t.Parallel()
		inBubble(t, slowAcquirer(everyKey), func(t *testing.T, d direct) {
			_, path, attach := d.charge(nil)
			first := d.begin("POST", path, attach, "Idempotency-Key", "k")
			if status, _ := d.call("POST", path, attach, "Idempotency-Key", "k"); status != 400 {
				t.Errorf("beside the first: %d", status)
			}
			if got := <-first; got != "200 succeeded null" {
				t.Error(got)
			}
			if status, got := d.call("POST", path, attach, "Idempotency-Key", "k"); status != 200 {
				t.Errorf("replay of the first: %d %s", status, got)
			}
		})
	})
	t.Run("DelayBeforeAFault", func(t *testing.T) {
		t.Parallel()
		inBubble(t, Options{}, func(t *testing.T, d direct) {
			_, path, attach := d.charge(nil)
			for _, f := range []Fault{{Kind: Delay, For: Duration(time.Minute)}, {Kind: ErrorBefore}} {
				if _, err := d.box.AddFault(f); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			if status, _ := d.call("POST", path, attach); status != 500 || time.Since(begun) < time.Minute {
				t.Errorf("%d after %v", status, time.Since(begun))
			}
		})
	})
	t.Run("EffectIsAfterTheDelay", func(t *testing.T) {
		t.Parallel()
		inBubble(t, Options{Faults: []Fault{{Kind: Delay, For: Duration(time.Hour)}}}, func(t *testing.T, d direct) {
			begun := time.Now()
			_, got := d.call("POST", "/v1/payment_intents", fields{"amount": 10000, "currency": "PHP", "payment_method_allowed": []string{"card"}})
			got.want(t, "data.attributes.created_at", fmt.Sprint(begun.Add(time.Hour).Unix()))
		})
	})
	t.Run("FailureBesideTheFirstIsNotStored", func(t *testing.T) {
		t.Parallel()
		inBubble(t, slowAcquirer(everyKey), func(t *testing.T, d direct) {
			_, path, attach := d.charge(nil)
			if _, err := d.box.AddFault(Fault{Kind: ErrorBefore, Endpoint: "payment_intents.attach", Nth: 2}); err != nil {
				t.Fatal(err)
			}
			first := d.begin("POST", path, attach, "Idempotency-Key", "k")
			if status, _ := d.call("POST", path, attach, "Idempotency-Key", "k"); status != 500 {
				t.Errorf("beside the first: %d", status)
			}
			<-first
			if status, got := d.call("POST", path, attach, "Idempotency-Key", "k"); status != 200 {
				t.Errorf("replay of the first: %d %s", status, got)
			}
		})
	})
	t.Run("PaidStaysPaid", func(t *testing.T) {
		t.Parallel()
		inBubble(t, slowAcquirer(func(p *Profile) { p.SerialAttach = false }), func(t *testing.T, d direct) {
			pi, path, attach := d.charge(nil)
			for _, f := range []Fault{{Kind: Decline, Code: "do_not_honor", Nth: 2}, {Kind: Delay, For: Duration(time.Second), Endpoint: "payment_intents.attach", Nth: 2}} {
				if _, err := d.box.AddFault(f); err != nil {
					t.Fatal(err)
				}
			}
			first, second := d.begin("POST", path, attach), d.begin("POST", path, attach)
			<-first
			if got := <-second; got != "400 null resource_failed_state" {
				t.Error(got)
			}
			_, got := d.call("GET", "/v1/payment_intents/"+pi, nil)
			got.want(t, "data.attributes.status", succeeded)
			got.want(t, "data.attributes.last_payment_error", "null")
			got.want(t, "data.attributes.payments.1.attributes.status", "failed")
			if status, _ := d.call("POST", path, attach); status != 400 {
				t.Errorf("attached again: %d", status)
			}
		})
	})
}

func everyKey(p *Profile) { p.Idempotency, p.IdempotencyEverywhere = "replay_failures", true }

func TestLinksUseTheCallersScheme(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pi, pm := b.intent(), b.card("4120000000000007")
	r := httptest.NewRequest("POST", "/v1/payment_intents/"+pi+"/attach", strings.NewReader(`{"data":{"attributes":{"payment_method":"`+pm+`"}}}`))
	r.SetBasicAuth("sk_test_x", "")
	r.Host, r.TLS = "pay.test", &tls.ConnectionState{}
	w := httptest.NewRecorder()
	b.box.ServeHTTP(w, r)
	if url := parse(t, w.Body.Bytes()).at("data.attributes.next_action.redirect.url").String(); !strings.HasPrefix(url, "https://pay.test/") {
		t.Errorf("%s in %s", url, w.Body)
	}
}

func TestClockEnds(t *testing.T) {
	t.Parallel()

	t.Run("FastClockRunsForLong", func(t *testing.T) {
		t.Parallel()
		c := newClock(start, maxFactor, func() {})
		c.anchor = time.Now().Add(-48 * time.Hour)
		if year := c.Now().Year(); year != 2573 { // 200,000 days on
			t.Errorf("year %d", year)
		}
		c.anchor = time.Now().Add(-100 * 24 * 365 * time.Hour)
		if year := c.Now().Year(); year != 9999 {
			t.Errorf("year %d", year)
		}
	})
	t.Run("NoYearThatJSONCannotWrite", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(o *Options) { o.StateFile = filepath.Join(t.TempDir(), "state.json") })
		b.attach(b.intent(fields{"capture_type": "manual"}), b.card(paying))
		for range 30 {
			if status, got := b.control("POST", "/clock", `{"advance":"2562000h"}`); status != 200 {
				t.Fatalf("%d %s", status, got)
			}
		}
		if status, got := b.control("GET", "/ledger", ""); status != 200 || got.at("intents").len() != 1 {
			t.Errorf("%d %s", status, got)
		}
		b.intent()
	})
}
