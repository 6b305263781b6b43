package sandbox

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEveryTransportFault plays each fault on an attach, and looks at what the
// caller saw and at what was done.
func TestEveryTransportFault(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fault    Fault
		executed bool
		status   int // 0: no whole answer
		body     string
	}{
		{Fault{Kind: TimeoutBefore}, false, 0, ""},
		{Fault{Kind: TimeoutAfter}, true, 0, ""},
		{Fault{Kind: ResetBefore}, false, 0, ""},
		{Fault{Kind: ResetAfter}, true, 0, ""},
		{Fault{Kind: CutBody}, true, 0, ""},
		{Fault{Kind: ErrorBefore}, false, 500, "internal_server_error"},
		{Fault{Kind: ErrorAfter, Status: 502}, true, 502, "<h1>502 Bad Gateway</h1>"},
		{Fault{Kind: RateLimitBefore, RetryAfter: Duration(1500 * time.Millisecond)}, false, 429, "Too many requests, please try again later."},
		{Fault{Kind: RateLimitAfter}, true, 429, "Too many requests, please try again later."},
		{Fault{Kind: Unauthorized}, false, 401, "api_key_invalid"},
		{Fault{Kind: HTMLBody}, true, 200, "<html>"},
		{Fault{Kind: WrongContentType}, true, 200, `"succeeded"`},
		{Fault{Kind: WrongAmount}, true, 200, `"amount":10001`},
		{Fault{Kind: WrongLivemode}, true, 200, `"livemode":true`},
	} {
		t.Run(string(tt.fault.Kind), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			pi, pm := b.intent(), b.card(paying)
			tt.fault.Endpoint = "payment_intents.attach"
			b.fault(tt.fault)
			resp, body, err := b.request("POST", "/v1/payment_intents/"+pi+"/attach", "sk_test_x", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
			switch {
			case tt.status == 0:
				if err == nil {
					t.Errorf("an answer: %d %s", resp.StatusCode, body)
				}
			case err != nil:
				t.Error(err)
			case resp.StatusCode != tt.status || !strings.Contains(string(body), tt.body):
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if tt.fault.RetryAfter > 0 && resp.Header.Get("Retry-After") != "2" {
				t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
			}
			want := map[bool]string{true: succeeded, false: awaitingPaymentMethod}[tt.executed]
			b.retrieve(pi).want(t, "status", want)
			got := b.only()
			if len(got.Attaches) != 1 || got.Attaches[0].ExecutedAt.IsZero() == tt.executed || got.Attaches[0].Fault != string(tt.fault.Kind) || got.Amount != 10000 {
				t.Errorf("ledger: %+v", got)
			}
			if n := len(got.Payments); (n == 1) != tt.executed {
				t.Errorf("%d payments", n)
			}
		})
	}
}

func TestOutcomeFaults(t *testing.T) {
	t.Parallel()

	t.Run("Decline", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: Decline, Code: "do_not_honor"})
		if status, got := b.attach(b.intent(), b.card(paying)); status != 400 || got.at("errors.0.sub_code").String() != "do_not_honor" {
			t.Errorf("%d %s", status, got)
		}
	})
	t.Run("DeclineCodesByWeight", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: Decline, Codes: map[string]int{"insufficient_funds": 3, "lost_card": 1}})
		pm, seen := b.card(paying), map[string]int{}
		for i := range 400 {
			_, got := b.attach(b.intent(fields{"metadata": fields{"invoice": fmt.Sprint(i)}}), pm)
			seen[got.at("errors.0.sub_code").String()]++
		}
		if n := seen["insufficient_funds"]; len(seen) != 2 || n < 260 || n > 340 {
			t.Errorf("%v, want about 300 to 100", seen)
		}
	})
	t.Run("DelayBeforeTheEffect", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi, pm := b.intent(), b.card(paying)
		b.fault(Fault{Kind: Delay, For: Duration(80 * time.Millisecond), Endpoint: "payment_intents.*"})
		begun := time.Now()
		b.attach(pi, pm)
		if took := time.Since(begun); took < 80*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
	t.Run("ExpireIntent", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: ExpireIntent, Endpoint: "payment_intents.attach"})
		pi := b.intent()
		if status, got := b.attach(pi, b.card(paying)); status != 400 {
			t.Errorf("%d %s", status, got)
		}
		b.retrieve(pi).want(t, "status", cancelled)
	})
	t.Run("LateAttachIsExecutedLater", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi, pm := b.intent(), b.card(paying)
		b.fault(Fault{Kind: LateAttach, For: Duration(10 * time.Minute), Times: 1})
		if _, _, err := b.request("POST", "/v1/payment_intents/"+pi+"/attach", "sk_test_x", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`); err == nil {
			t.Error("the connection lived")
		}
		b.box.Clock().Advance(10*time.Minute - time.Second)
		b.retrieve(pi).want(t, "status", awaitingPaymentMethod)
		b.box.Clock().Advance(time.Second)
		b.retrieve(pi).want(t, "status", succeeded)
	})
	t.Run("LateAttachFindsTheIntentPaid", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi, pm := b.intent(), b.card(paying)
		b.fault(Fault{Kind: LateAttach, For: Duration(10 * time.Minute), Times: 1})
		_, _, _ = b.request("POST", "/v1/payment_intents/"+pi+"/attach", "sk_test_x", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
		b.attach(pi, pm)
		b.box.Clock().Advance(time.Hour)
		got := b.only()
		if len(got.Payments) != 1 || got.Attaches[0].Outcome != "refused: resource_succeeded_state" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("ProcessingThenDeclined", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: Processing, For: Duration(48 * time.Hour), Then: "insufficient_funds"})
		pi, pm := b.intent(), b.card(paying)
		b.attach(pi, pm)
		b.retrieve(pi).want(t, "status", processing)
		if status, got := b.attach(pi, pm); status != 400 || got.at("errors.0.code").String() != "resource_processing_state" {
			t.Errorf("attach while processing: %d %s", status, got)
		}
		if status, _ := b.call("POST", "/v1/payment_intents/"+pi+"/cancel", nil); status != 400 {
			t.Errorf("cancel while processing: %d", status)
		}
		b.box.Clock().Advance(48 * time.Hour)
		after := b.retrieve(pi)
		after.want(t, "status", awaitingPaymentMethod)
		after.want(t, "payments.0.attributes.failed_code", "insufficient_funds")
	})
	t.Run("ProcessingThenPaid", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: Processing, For: Duration(time.Minute)})
		pi := b.intent()
		b.attach(pi, b.card(paying))
		b.box.Clock().Advance(time.Minute)
		b.retrieve(pi).want(t, "status", succeeded)
	})
	t.Run("StaleRetrieve", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: Stale, For: Duration(30 * time.Second)})
		pi := b.intent()
		b.attach(pi, b.card(paying))
		old := b.retrieve(pi)
		old.want(t, "status", awaitingPaymentMethod)
		if old.at("payments").len() != 0 {
			t.Errorf("payments shown: %s", old)
		}
		b.box.Clock().Advance(30 * time.Second)
		b.retrieve(pi).want(t, "status", succeeded)
	})
	t.Run("ThreeDS", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: ThreeDS, PaymentMethod: "pm_other"})
		pm := b.card(paying)
		b.fault(Fault{Kind: ThreeDS, PaymentMethod: pm})
		pi := b.intent()
		b.attach(pi, pm)
		b.retrieve(pi).want(t, "status", awaitingNextAction)
	})
}

// TestLies holds that a wrong answer is wrong wherever it is asked for, and
// that the record is not.
func TestLies(t *testing.T) {
	t.Parallel()
	b := setup(t, withProfile(func(p *Profile) { p.Idempotency = "replay" }))
	cus, pm := b.saved(paying)
	pay := b.box.Ledger().Intents[0].Payments[0].ID
	attrs := `{"data":{"attributes":{"amount":10000,"currency":"PHP","payment_method_allowed":["card"],"metadata":{"a":"\"amount\":1,\"livemode\":false"}}}}`
	for _, tt := range []struct{ method, path, body, amount string }{
		{"GET", "/v1/payments/" + pay, "", `"amount":10001,`},
		{"GET", "/v1/payments", "", `"amount":10001,`},
		{"POST", "/v1/refunds", `{"data":{"attributes":{"amount":100,"payment_id":"` + pay + `","reason":"others"}}}`, `"amount":101,`},
		{"POST", "/v1/payment_intents", attrs, `"amount":10001,`},
		{"POST", "/v1/payment_intents", attrs, `"amount":10001,`}, // the replay
		{"GET", "/v1/customers/" + cus, "", ""},
		{"GET", "/v1/payment_methods/" + pm, "", ""},
		{"GET", "/v1/customers/" + cus + "/payment_methods", "", ""},
		{"GET", "/v2/customers/" + cus + "/payment_methods", "", ""},
	} {
		for _, kind := range []FaultKind{WrongAmount, WrongLivemode} {
			b.box.ClearFaults()
			b.fault(Fault{Kind: kind})
			resp, body, err := b.request(tt.method, tt.path, "sk_test_x", tt.body, "Idempotency-Key", "k"+tt.path)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s %s: %v %s", tt.method, tt.path, err, body)
			}
			switch {
			case kind == WrongAmount && !strings.Contains(string(body), tt.amount):
				t.Errorf("%s %s: amount is right: %s", tt.method, tt.path, body)
			case kind == WrongLivemode && !strings.Contains(string(body), `"livemode":true`) && !strings.Contains(string(body), `"live_mode":true`):
				t.Errorf("%s %s: livemode is right: %s", tt.method, tt.path, body)
			}
			if tt.body == attrs && !strings.Contains(string(body), `{"a":"\"amount\":1,\"livemode\":false"}`) {
				t.Errorf("metadata spoilt: %s", body)
			}
		}
	}
	for _, pi := range b.box.Ledger().Intents {
		if pi.Amount != 10000 {
			t.Errorf("the record is spoilt: %+v", pi)
		}
	}
}

func TestFaultRules(t *testing.T) {
	t.Parallel()

	t.Run("HitsOnlyWhereItMeansSomething", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: ExpireIntent, Times: 1})
		pm := b.card(paying)
		b.customer("maria@example.com", "+639170000001")
		pi := b.intent()
		b.attach(pi, pm)
		b.retrieve(pi).want(t, "status", cancelled)
	})
	t.Run("MetadataMatches", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: ErrorBefore, Metadata: map[string]string{"invoice": "in_2"}})
		pm := b.card(paying)
		b.attach(b.intent(fields{"metadata": fields{"invoice": "in_1"}}), pm)
		if status, _ := b.call("POST", "/v1/payment_intents", fields{"metadata": fields{"invoice": "in_2"}}); status != 500 {
			t.Errorf("create: %d", status)
		}
	})
	t.Run("MetadataIsFollowed", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		_, got := b.attach(b.intent(fields{"metadata": fields{"invoice": "in_1"}}), b.card(paying))
		pay := got.at("data.attributes.payments.0.id").String()
		ref := b.ok("POST", "/v1/refunds", fields{"amount": 100, "payment_id": pay, "reason": "others"}).at("id").String()
		cs := b.ok("POST", "/v1/checkout_sessions", fields{"payment_method_types": []string{"card"}, "metadata": fields{"invoice": "in_1"},
			"line_items": []fields{{"name": "x", "amount": 25000, "currency": "PHP", "quantity": 1}}}).at("id").String()
		b.fault(Fault{Kind: ErrorBefore, Metadata: map[string]string{"invoice": "in_1"}})
		for _, path := range []string{"payments/" + pay, "refunds/" + ref, "checkout_sessions/" + cs} {
			if status, _ := b.call("GET", "/v1/"+path, nil); status != 500 {
				t.Errorf("%s: %d", path, status)
			}
		}
	})
	t.Run("NthAndTimes", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.fault(Fault{Kind: ErrorBefore, Endpoint: "payments.list", Nth: 3})
		b.fault(Fault{Kind: ErrorBefore, Endpoint: "refunds.list", Times: 2, Status: 503})
		var got []int
		for _, path := range []string{"payments", "refunds"} {
			for range 4 {
				resp, _, err := b.request("GET", "/v1/"+path, "sk_test_x", "")
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, resp.StatusCode)
			}
		}
		if fmt.Sprint(got) != "[200 200 500 200 503 503 200 200]" {
			t.Error(got)
		}
	})
	t.Run("SeededRunRepeatsInAnyOrder", func(t *testing.T) {
		t.Parallel()
		// The same 200 invoices, one after another and all at once, are hit alike.
		run := func(parallel bool) string {
			b := setup(t)
			b.fault(Fault{Kind: ErrorBefore, Endpoint: "payment_intents.create", Probability: 0.3})
			var mu sync.Mutex
			var wg sync.WaitGroup
			hit := map[int]bool{}
			for i := range 200 {
				one := func() {
					status, _ := b.call("POST", "/v1/payment_intents", fields{"amount": 10000, "currency": "PHP", "payment_method_allowed": []string{"card"}, "metadata": fields{"invoice": fmt.Sprint(i)}})
					mu.Lock()
					defer mu.Unlock()
					hit[i] = status == 500
				}
				if parallel {
					wg.Go(one)
				} else {
					one()
				}
			}
			wg.Wait()
			n := 0
			for _, h := range hit {
				if h {
					n++
				}
			}
			if n < 40 || n > 80 {
				t.Errorf("%d of 200 hit, want about 60", n)
			}
			return fmt.Sprint(hit)
		}
		if one, other := run(false), run(true); one != other {
			t.Errorf("a seeded run does not repeat:\n%s\n%s", one, other)
		}
	})
	t.Run("ScriptIsUsedUpInOrder", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		pi, pm := b.intent(), b.card("5100000000000198")
		err := b.box.SetScript([]Fault{
			{Kind: ErrorAfter, Endpoint: "payment_intents.attach"},
			{Kind: NoFault, Endpoint: "payment_intents.attach"},
			{Kind: RateLimitBefore, Endpoint: "payment_intents.retrieve"},
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, verb := range []string{"retrieve", "attach", "retrieve", "attach", "retrieve", "retrieve"} {
			method, path := "GET", "/v1/payment_intents/"+pi
			body := ""
			if verb == "attach" {
				method, path, body = "POST", path+"/attach", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`
			}
			resp, _, err := b.request(method, path, "sk_test_x", body)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, resp.StatusCode)
		}
		if fmt.Sprint(got) != "[200 500 200 400 429 200]" || len(b.box.Script()) != 0 {
			t.Errorf("%v, left %v", got, b.box.Script())
		}
	})
	t.Run("WrongOnesAreRefused", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		for _, f := range []Fault{
			{Kind: "timeout"}, {Kind: NoFault}, {Kind: TimeoutAfter, Probability: 1.1}, {Kind: TimeoutAfter, Nth: -1},
			{Kind: TimeoutAfter, Endpoint: "payment_intents.confirm"}, {Kind: Decline, Code: "x", Endpoint: "refunds.create"},
			{Kind: Stale}, {Kind: LateAttach}, {Kind: Processing}, {Kind: Decline}, {Kind: ErrorAfter, Status: 404},
			{Kind: Decline, Codes: map[string]int{"x": 0}}, {Kind: WrongAmount, Endpoint: "customers.*"},
			{Kind: ExpireIntent, Endpoint: "payment_intents.create"}, {Kind: WebhookLost, Endpoint: "payment_intents.attach"},
		} {
			if _, err := b.box.AddFault(f); err == nil {
				t.Errorf("accepted: %+v", f)
			}
		}
		if err := b.box.SetScript([]Fault{{Kind: ErrorAfter, Probability: 0.5}}); err == nil {
			t.Error("a script took a probability")
		}
	})
}

func TestParseFault(t *testing.T) {
	t.Parallel()
	got, err := ParseFault("processing=0.25,endpoint=payment_intents.*,for=36h,then=insufficient_funds,nth=2,times=3,metadata.invoice=in=1")
	if err != nil {
		t.Fatal(err)
	}
	want := Fault{Kind: Processing, Probability: 0.25, Endpoint: "payment_intents.*", For: Duration(36 * time.Hour), Then: "insufficient_funds",
		Nth: 2, Times: 3, Metadata: map[string]string{"invoice": "in=1"}}
	if string(encode(got)) != string(encode(want)) {
		t.Errorf("got %s\nwant %s", encode(got), encode(want))
	}
	for _, bad := range []string{"", "nope", "delay=x", "delay,for=soon", "delay,for=1s,nth=x", "reset_after=0", "reset_after,colour=red"} {
		if f, err := ParseFault(bad); err == nil {
			t.Errorf("%q gave %+v", bad, f)
		}
	}
}
