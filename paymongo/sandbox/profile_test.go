package sandbox

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestOffSession(t *testing.T) {
	t.Parallel()
	renew := func(t *testing.T, card string, change func(*Profile)) (*bench, string, string) {
		b := setup(t)
		_, pm := b.saved(card)
		p := b.box.Profile()
		change(&p)
		if err := b.box.SetProfile(p); err != nil {
			t.Fatal(err)
		}
		return b, b.intent(), pm
	}

	t.Run("Allowed", func(t *testing.T) {
		t.Parallel()
		b, pi, pm := renew(t, paying, func(*Profile) {})
		b.attach(pi, pm)
		b.retrieve(pi).want(t, "status", succeeded)
		if l := b.box.Ledger(); !l.Intents[1].Attaches[0].OffSession || l.Intents[0].Attaches[0].OffSession {
			t.Errorf("ledger: %+v", l)
		}
	})
	t.Run("CVCRequired", func(t *testing.T) {
		t.Parallel()
		b, pi, pm := renew(t, paying, func(p *Profile) { p.CVCRequired = true })
		if status, got := b.attach(pi, pm); status != 400 || got.at("errors.0.sub_code").String() != "cvc_invalid" {
			t.Errorf("%d %s", status, got)
		}
		for _, details := range []fields{{"card": fields{"cvc": "123"}}, {"cvc": "123"}} {
			for _, verb := range []string{"PATCH", "PUT"} {
				b.ok(verb, "/v1/payment_methods/"+pm, fields{"details": details})
				pi := b.intent()
				if status, got := b.attach(pi, pm); status != 200 {
					t.Errorf("%s %v: %d %s", verb, details, status, got)
				}
			}
		}
		if status, _ := b.attach(b.intent(), pm); status != 400 {
			t.Errorf("a fresh CVC is good for one payment: %d", status)
		}
	})
	t.Run("NotAllowed", func(t *testing.T) {
		t.Parallel()
		b, pi, pm := renew(t, paying, func(p *Profile) { p.OffSession = "not_allowed" })
		if status, got := b.attach(pi, pm); status != 403 || got.at("errors.0.code").String() != "organization_not_allowed" {
			t.Errorf("%d %s", status, got)
		}
		if got := b.retrieve(pi); got.at("payments").len() != 0 {
			t.Errorf("a refused attach made a payment: %s", got)
		}
		// With the customer there it goes through.
		b.ok("PATCH", "/v1/payment_methods/"+pm, fields{"details": fields{"cvc": "123"}})
		if status, got := b.attach(pi, pm); status != 200 {
			t.Errorf("on-session: %d %s", status, got)
		}
	})
	t.Run("RenewalFailsCard", func(t *testing.T) {
		t.Parallel()
		b, pi, pm := renew(t, "5123000000000001", func(*Profile) {})
		if status, got := b.attach(pi, pm); status != 400 || got.at("errors.0.sub_code").String() != "generic_decline" {
			t.Errorf("%d %s", status, got)
		}
	})
	t.Run("ThreeDSDemanded", func(t *testing.T) {
		t.Parallel()
		b, pi, pm := renew(t, paying, func(p *Profile) { p.OffSession = "three_ds" })
		b.attach(pi, pm)
		action := b.retrieve(pi)
		action.want(t, "status", awaitingNextAction)
		b.press(action, "authorize")
		b.retrieve(pi).want(t, "status", succeeded)
	})
	t.Run("CardExpiresWithTime", func(t *testing.T) {
		t.Parallel()
		b, pi, pm := renew(t, paying, func(*Profile) {})
		b.box.Clock().Set(time.Date(2030, 12, 31, 15, 0, 0, 0, time.UTC))
		b.attach(pi, pm)
		b.retrieve(pi).want(t, "status", succeeded)
		b.box.Clock().Set(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))
		if status, got := b.attach(b.intent(), pm); status != 400 || got.at("errors.0.sub_code").String() != "card_expired" {
			t.Errorf("%d %s", status, got)
		}
	})
}

func TestProfileSwitches(t *testing.T) {
	t.Parallel()

	t.Run("DeclineStatus", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.DeclineStatus = 402 }))
		if status, _ := b.attach(b.intent(), b.card("5100000000000198")); status != 402 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("LastPaymentErrorNull", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.LastPaymentError = false }))
		pi := b.intent()
		b.attach(pi, b.card("5100000000000198"))
		after := b.retrieve(pi)
		after.want(t, "last_payment_error", "null")
		after.want(t, "payments.0.attributes.failed_code", "insufficient_funds")
	})
	t.Run("MinimumAmount", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.MinimumAmount = 100 }))
		b.intent(fields{"amount": 100})
	})
	t.Run("RateLimit", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.RateLimit = 5 }))
		for range 5 {
			b.ok("GET", "/v1/payments", nil).len()
		}
		limited := func() bool {
			resp, body, err := b.request("GET", "/v1/payments", "sk_test_x", "")
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == 429 && string(body) != "Too many requests, please try again later." {
				t.Errorf("body %q", body)
			}
			return resp.StatusCode == 429
		}
		if !limited() {
			t.Error("the sixth request of a second went through")
		}
		b.box.Clock().Advance(59 * time.Second)
		if !limited() {
			t.Error("the block was lifted before the minute was over")
		}
		b.box.Clock().Advance(time.Second)
		if limited() {
			t.Error("the block outlived the minute")
		}
	})
	t.Run("SerialAttachLetsOneThrough", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.AcquirerLatency = Duration(100 * time.Millisecond) }))
		paid, processing := concurrentAttaches(b)
		if paid != 1 || processing != 9 {
			t.Errorf("%d went through, %d were refused", paid, processing)
		}
		if sum := b.box.Summary("invoice"); sum.PaidPayments != 1 || len(sum.IntentsPaidMoreThanOnce) != 0 {
			t.Errorf("%+v", sum)
		}
	})
	t.Run("SerialAttachOffChargesTwice", func(t *testing.T) {
		t.Parallel()
		b := setup(t, withProfile(func(p *Profile) { p.AcquirerLatency, p.SerialAttach = Duration(100*time.Millisecond), false }))
		paid, _ := concurrentAttaches(b)
		sum := b.box.Summary("invoice")
		if paid < 2 || len(sum.IntentsPaidMoreThanOnce) != 1 || len(sum.PaidMoreThanOnce) != 1 || len(sum.PaidMoreThanOnce[0].Payments) != paid {
			t.Errorf("%d went through; %+v", paid, sum)
		}
	})
	t.Run("Wrong", func(t *testing.T) {
		t.Parallel()
		for _, change := range []func(*Profile){
			func(p *Profile) { p.OffSession = "maybe" }, func(p *Profile) { p.MinimumAmount = 0 },
			func(p *Profile) { p.DeclineStatus = 200 }, func(p *Profile) { p.HoldLifetime = -1 },
			func(p *Profile) { p.DisableWebhookAfter = 0 }, func(p *Profile) { p.RateLimit = -1 },
		} {
			p := DefaultProfile()
			change(&p)
			if _, err := New(Options{Profile: &p}); err == nil {
				t.Errorf("accepted: %+v", p)
			}
		}
	})
}

// concurrentAttaches sends ten attaches of one intent while the acquirer is slow.
func concurrentAttaches(b *bench) (paid, processing int) {
	pi, pm := b.intent(fields{"metadata": fields{"invoice": "in_1"}}), b.card(paying)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			status, got := b.attach(pi, pm)
			mu.Lock()
			defer mu.Unlock()
			if status == 200 {
				paid++
			} else if code := got.at("errors.0.code").String(); code == "resource_processing_state" || code == "resource_succeeded_state" {
				processing++
			}
		})
	}
	wg.Wait()
	return paid, processing
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	attrs := fields{"amount": 10000, "currency": "PHP", "payment_method_allowed": []string{"card"}}
	create := func(b *bench, key string, attrs fields) (int, node) {
		return b.call("POST", "/v1/payment_intents", attrs, "Idempotency-Key", key)
	}
	mode := func(t *testing.T, change func(*Profile)) *bench {
		return setup(t, withProfile(func(p *Profile) { p.Idempotency = "replay"; change(p) }))
	}

	t.Run("ConflictWhileInProgress", func(t *testing.T) {
		t.Parallel()
		b := mode(t, func(p *Profile) {
			p.IdempotencyConflict, p.IdempotencyEverywhere, p.AcquirerLatency = true, true, Duration(100*time.Millisecond)
		})
		pi, pm := b.intent(), b.card(paying)
		var mu sync.Mutex
		got := map[string]int{}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				status, a := b.call("POST", "/v1/payment_intents/"+pi+"/attach", fields{"payment_method": pm}, "Idempotency-Key", "k")
				mu.Lock()
				defer mu.Unlock()
				got[http.StatusText(status)+" "+a.at("errors.0.code").String()]++
			})
		}
		wg.Wait()
		if got["OK null"] != 1 || got["Conflict idempotency_in_progress"] != 3 {
			t.Errorf("%v", got)
		}
		if status, _ := b.call("POST", "/v1/payment_intents/"+pi+"/attach", fields{"payment_method": pm}, "Idempotency-Key", "k"); status != 200 {
			t.Errorf("replay of a finished attach: %d", status)
		}
	})
	t.Run("ExpiresAfterADay", func(t *testing.T) {
		t.Parallel()
		b := mode(t, func(*Profile) {})
		_, first := create(b, "k", attrs)
		b.box.Clock().Advance(24*time.Hour - time.Second)
		_, again := create(b, "k", attrs)
		b.box.Clock().Advance(time.Second)
		_, later := create(b, "k", attrs)
		if first.String() != again.String() || first.at("data.id").String() == later.at("data.id").String() {
			t.Errorf("%s\n%s\n%s", first, again, later)
		}
	})
	t.Run("FailureIsReplayedOrNot", func(t *testing.T) {
		t.Parallel()
		for _, m := range []string{"replay", "replay_failures"} {
			b := mode(t, func(p *Profile) { p.Idempotency = m })
			b.fault(Fault{Kind: ErrorBefore, Times: 1})
			first, _ := create(b, "k", attrs)
			again, _ := create(b, "k", attrs)
			if want := map[string]int{"replay": 200, "replay_failures": 500}[m]; first != 500 || again != want {
				t.Errorf("%s: %d, then %d", m, first, again)
			}
		}
	})
	t.Run("LostAnswerIsReplayed", func(t *testing.T) {
		t.Parallel()
		b := mode(t, func(*Profile) {})
		b.fault(Fault{Kind: ErrorAfter, Times: 1})
		if status, _ := create(b, "k", attrs); status != 500 {
			t.Errorf("status %d", status)
		}
		if status, got := create(b, "k", attrs); status != 200 || got.at("data.id").String() != b.only().ID {
			t.Errorf("%d %s", status, got)
		}
	})
	t.Run("MismatchIsRefusedOrReplayed", func(t *testing.T) {
		t.Parallel()
		other := fields{"amount": 20000, "currency": "PHP", "payment_method_allowed": []string{"card"}}
		b := mode(t, func(*Profile) {})
		create(b, "k", attrs)
		if status, got := create(b, "k", other); status != 400 {
			t.Errorf("refuse: %d %s", status, got)
		}
		b = mode(t, func(p *Profile) { p.IdempotencyMismatch = "replay" })
		create(b, "k", attrs)
		if status, got := create(b, "k", other); status != 200 || got.at("data.attributes.amount").String() != "10000" {
			t.Errorf("replay: %d %s", status, got)
		}
	})
	t.Run("Off", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		create(b, "k", attrs)
		create(b, "k", attrs)
		if n := len(b.box.Ledger().Intents); n != 2 {
			t.Errorf("%d intents", n)
		}
	})
	t.Run("TooLong", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		if status, _ := create(b, strings.Repeat("k", 256), attrs); status != 400 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("ValidationLeavesNothing", func(t *testing.T) {
		t.Parallel()
		b := mode(t, func(p *Profile) { p.Idempotency = "replay_failures" })
		if status, _ := create(b, "k", fields{"amount": 1}); status != 400 {
			t.Errorf("status %d", status)
		}
		if status, got := create(b, "k", attrs); status != 200 {
			t.Errorf("%d %s", status, got)
		}
	})
}
