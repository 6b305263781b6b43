package sandbox

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStateSurvivesARestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	begin := func(start time.Time) *bench {
		box, err := New(Options{StateFile: file, Seed: 1, Start: start, StopClock: true, WebhookWorkers: 1, Hang: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(box)
		t.Cleanup(server.Close)
		return &bench{t: t, box: box, url: server.URL}
	}
	b := begin(start)
	r, _ := b.listen("payment.paid")
	r.failNext(1)
	cus, pm := b.saved(paying)
	b.drain() // the first event was refused and will be retried
	p := b.box.Profile()
	p.OffSession = "three_ds"
	if err := b.box.SetProfile(p); err != nil {
		t.Fatal(err)
	}
	b.fault(Fault{ID: "slow", Kind: Processing, For: Duration(time.Hour), Metadata: map[string]string{"slow": "yes"}})
	asked := b.intent()
	b.attach(asked, pm)
	slow := b.intent(fields{"metadata": fields{"slow": "yes"}})
	b.attach(slow, pm)
	before := string(encode(b.box.Ledger()))
	if err := b.box.Close(); err != nil {
		t.Fatal(err)
	}

	b = begin(time.Time{})
	t.Cleanup(func() {
		if err := b.box.Close(); err != nil {
			t.Error(err)
		}
	})
	if after := string(encode(b.box.Ledger())); after != before {
		t.Errorf("ledger before %s\nafter %s", before, after)
	}
	if now := b.box.Clock().Now(); !now.Equal(start) {
		t.Errorf("clock %v", now)
	}
	if got := b.box.Faults(); len(got) != 1 || got[0].ID != "slow" || b.box.Profile().OffSession != "three_ds" {
		t.Errorf("faults %v, profile %+v", got, b.box.Profile())
	}
	_, got := b.call("GET", "/v1/customers/"+cus+"/payment_methods", nil)
	got.want(t, "data.0.attributes.payment_method_id", pm)
	action := b.retrieve(asked)
	// The page's address has the old server's port; the id is what counts.
	b.box.mu.Lock()
	found := b.box.st.sources[b.box.st.intents[asked].Source] != nil
	b.box.mu.Unlock()
	if !found || action.at("status").String() != awaitingNextAction {
		t.Errorf("3DS page lost: %s", action)
	}
	r.take()
	b.box.Clock().Advance(time.Hour)
	b.drain()
	b.retrieve(slow).want(t, "status", succeeded)
	if n := len(r.take()); n != 2 {
		t.Errorf("%d deliveries after the restart, want the retry and the slow payment", n)
	}
}

func TestBrokenStateFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	for _, content := range []string{"", "{", `{"Version":99}`, `{"Version":1}`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if box, err := New(Options{StateFile: file}); err == nil {
			_ = box.Close()
			t.Errorf("%q was read", content)
		}
	}
}

// restart closes a sandbox and starts it again from its state file.
func (b *bench) restart(file string, change ...func(*Options)) *bench {
	b.t.Helper()
	if err := b.box.Close(); err != nil {
		b.t.Fatal(err)
	}
	return setup(b.t, append([]func(*Options){withState(file), fromFile}, change...)...)
}

func withState(file string) func(*Options) { return func(o *Options) { o.StateFile = file } }

// fromFile leaves to the state file what setup would say otherwise.
func fromFile(o *Options) { o.Profile, o.Start, o.Seed, o.StopClock = nil, time.Time{}, 0, false }

func TestRestart(t *testing.T) {
	t.Parallel()
	state := func(t *testing.T) string { return filepath.Join(t.TempDir(), "state.json") }
	once := func(o *Options) { o.Faults = []Fault{{Kind: ErrorBefore, Endpoint: "payments.list", Times: 1}} }

	t.Run("ClockMovedByHandStays", func(t *testing.T) {
		t.Parallel()
		file := state(t)
		b := setup(t, withState(file), func(o *Options) { o.StopClock = false })
		later := start.AddDate(20, 0, 0)
		b.box.Clock().Set(later)
		b = b.restart(file)
		if off := b.box.Clock().Now().Sub(later); off < 0 || off > time.Minute {
			t.Errorf("the clock is %v off", off)
		}
		b = b.restart(file, func(o *Options) { o.StopClock = true })
		if factor := b.box.Clock().Factor(); factor != 0 {
			t.Errorf("a clock that was to stand still runs at %v", factor)
		}
	})
	t.Run("CountsOfFaultsGoOn", func(t *testing.T) {
		t.Parallel()
		file := state(t)
		b := setup(t, withState(file), once)
		if status, _ := b.call("GET", "/v1/payments", nil); status != 500 {
			t.Errorf("the fault does not hit: %d", status)
		}
		for _, change := range []func(*Options){once, func(*Options) {}} {
			b = b.restart(file, change)
			if status, _ := b.call("GET", "/v1/payments", nil); status != 200 {
				t.Errorf("the fault hit once more: %d", status)
			}
		}
	})
	t.Run("FaultsOfTheOptionsAreNotAddedTwice", func(t *testing.T) {
		t.Parallel()
		file := state(t)
		b := setup(t, withState(file), once)
		b.intent()
		b = b.restart(file, once).restart(file, once)
		if n := len(b.box.Faults()); n != 1 {
			t.Errorf("%d faults", n)
		}
	})
	t.Run("FaultsSetAtRunTimeAreKept", func(t *testing.T) {
		t.Parallel()
		file := state(t)
		b := setup(t, withState(file))
		b.fault(Fault{Kind: ResetAfter})
		b.fault(Fault{Kind: ResetBefore})
		b.box.RemoveFault("fault_1")
		if err := b.box.SetScript([]Fault{{Kind: NoFault}}); err != nil {
			t.Fatal(err)
		}
		b = b.restart(file)
		if got := b.box.Faults(); len(got) != 1 || got[0].ID != "fault_2" || len(b.box.Script()) != 1 {
			t.Errorf("faults %v, script %v", got, b.box.Script())
		}
		b.fault(Fault{Kind: ResetAfter}) // finds an id that is free
		b.fault(Fault{Kind: ResetAfter})
	})
	t.Run("SeedIsKept", func(t *testing.T) {
		t.Parallel()
		file := state(t)
		b := setup(t, withState(file), func(o *Options) { o.Seed = 42 }).restart(file)
		if b.box.Seed() != 42 {
			t.Errorf("seed %d", b.box.Seed())
		}
	})
	t.Run("WebhookOfAHangingCallIsNotLost", func(t *testing.T) {
		t.Parallel()
		file := state(t)
		b := setup(t, withState(file), func(o *Options) { o.Hang = time.Hour })
		r, _ := b.listen("payment.paid")
		pi, pm := b.intent(), b.card(paying)
		b.fault(Fault{Kind: TimeoutAfter, Endpoint: "payment_intents.attach"})
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _, _ = b.request("POST", "/v1/payment_intents/"+pi+"/attach", "sk_test_x", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
		}()
		for b.box.Summary("invoice").PaidPayments == 0 {
			b.retrieve(pi)
		}
		b = b.restart(file)
		<-gone
		b.box.Clock().Advance(time.Minute) // cut off, it is a retry
		b.drain()
		if n := len(r.take()); n == 0 { // twice, if Close cut the first one off
			t.Error("the delivery is lost")
		}
	})
	t.Run("WebhookUnderWaySurvivesAKill", func(t *testing.T) {
		t.Parallel()
		file := state(t)
		b := setup(t, withState(file))
		came, goOn := make(chan struct{}, 10), make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came <- struct{}{}; <-goOn }))
		t.Cleanup(server.Close)
		t.Cleanup(func() { close(goOn) })
		b.ok("POST", "/v1/webhooks", fields{"url": server.URL, "events": []string{"payment.paid"}})
		for range 2 { // one under way, one in the queue
			b.attach(b.intent(), b.card(paying))
		}
		<-came
		if err := b.box.save(); err != nil {
			t.Fatal(err)
		}
		setup(t, withState(file), fromFile, func(o *Options) { o.WebhookWorkers = 2 }).box.Settle()
		for range 2 {
			select {
			case <-came:
			case <-time.After(10 * time.Second):
				t.Fatal("a delivery is lost")
			}
		}
	})
}

// TestDamagedStateFile holds that an edited state file is an error, never a
// panic, neither in New nor later.
func TestDamagedStateFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	b := setup(t, withState(file))
	r, _ := b.listen("payment.paid")
	r.failNext(1)
	cus, pm := b.saved(paying)
	b.drain()
	b.ok("PATCH", "/v1/customers/"+cus, fields{"default_payment_method_id": pm})
	b.ok("POST", "/v1/refunds", fields{"amount": 100, "payment_id": b.box.Ledger().Intents[0].Payments[0].ID, "reason": "others"})
	b.ok("POST", "/v1/checkout_sessions", fields{"payment_method_types": []string{"card"},
		"line_items": []fields{{"name": "x", "amount": 25000, "currency": "PHP", "quantity": 1}}})
	b.attach(b.intent(), b.card("4120000000000007"))
	b.fault(Fault{Kind: Processing, For: Duration(time.Hour), Nth: 1})
	b.attach(b.intent(), pm)
	b.fault(Fault{Kind: LateAttach, For: Duration(time.Hour)})
	_, _, _ = b.request("POST", "/v1/payment_intents/"+b.intent()+"/attach", "sk_test_x", `{"data":{"attributes":{"payment_method":"`+pm+`"}}}`)
	if err := b.box.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	type object = map[string]any
	store := func(s object) object { return s["Store"].(object) }
	list := func(s object, name string) []any { return store(s)[name].([]any) }
	at := func(s object, name string, i int) object { return list(s, name)[i].(object) }
	timer := func(s object, kind timerKind) object {
		for _, v := range list(s, "Timers") {
			if v.(object)["Kind"] == string(kind) {
				return v.(object)
			}
		}
		t.Fatalf("no timer %s", kind)
		return nil
	}
	damages := map[string]func(object){
		"NoStore":                 func(s object) { delete(s, "Store") },
		"NullStore":               func(s object) { s["Store"] = nil },
		"NoTime":                  func(s object) { delete(s, "Now") },
		"NoRandomness":            func(s object) { delete(s, "RNG") },
		"NoProfile":               func(s object) { delete(s, "Profile") },
		"NegativeFactor":          func(s object) { s["Factor"] = -1 },
		"EmptyFault":              func(s object) { s["Faults"] = []any{object{}} },
		"NullDelivery":            func(s object) { s["Deliveries"] = []any{nil} },
		"NoIntents":               func(s object) { delete(store(s), "Intents") },
		"NoMethods":               func(s object) { delete(store(s), "Methods") },
		"NoPayments":              func(s object) { delete(store(s), "Payments") },
		"MethodWithoutItsNumber":  func(s object) { at(s, "Methods", 0)["Number"] = "" },
		"SavedWhatIsNoCard":       func(s object) { at(s, "Methods", 0)["Type"] = "gcash" },
		"NullSaved":               func(s object) { at(s, "Customers", 0)["Saved"] = []any{nil} },
		"ShortPaymentID":          func(s object) { at(s, "Payments", 0)["ID"] = "p" },
		"PaymentOfNobody":         func(s object) { at(s, "Payments", 0)["Intent"] = "pi_x" },
		"PaymentWithNothing":      func(s object) { at(s, "Payments", 0)["Method"] = "pm_x" },
		"ShortRefundID":           func(s object) { at(s, "Refunds", 0)["ID"] = "" },
		"RefundOfNobody":          func(s object) { at(s, "Refunds", 0)["Payment"] = "pay_x" },
		"CheckoutOfNobody":        func(s object) { at(s, "Checkouts", 0)["Intent"] = "pi_x" },
		"IntentTwice":             func(s object) { store(s)["Intents"] = append(list(s, "Intents"), list(s, "Intents")[0]) },
		"MorePaymentsBefore":      func(s object) { at(s, "Intents", 0)["Before"].(object)["Payments"] = 9 },
		"NullAttach":              func(s object) { at(s, "Intents", 0)["Attaches"] = []any{nil} },
		"ActionWithoutAttach":     func(s object) { at(s, "Intents", 2)["Attaches"] = []any{} },
		"ActionWithoutAddress":    func(s object) { at(s, "Intents", 2)["NextAction"] = nil },
		"ProcessingWithoutAttach": func(s object) { at(s, "Intents", 3)["Pending"] = 7 },
		"NullTimer":               func(s object) { store(s)["Timers"] = []any{nil} },
		"SettlesWhatIsNotThere":   func(s object) { timer(s, timerSettle)["N"] = 7 },
		"ExecutesWhatIsNotThere":  func(s object) { timer(s, timerLateAttach)["N"] = -1 },
		"DeliversNothing":         func(s object) { delete(timer(s, timerDeliver), "Delivery") },
		"HoldsNothingBack":        func(s object) { store(s)["HeldBack"] = []any{nil} },
	}
	for _, name := range []string{"Customers", "Methods", "Intents", "Payments", "Refunds", "Hooks", "Checkouts", "Events"} {
		damages["NullIn"+name] = func(s object) { list(s, name)[0] = nil }
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var state object
			if err := json.Unmarshal(whole, &state); err != nil {
				t.Fatal(err)
			}
			damage(state)
			file := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(file, encode(state), 0o600); err != nil {
				t.Fatal(err)
			}
			if box, err := New(Options{StateFile: file}); err == nil {
				_ = box.Close()
				t.Error("it was read")
			}
		})
	}
	t.Run("Whole", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(file, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		b := setup(t, withState(file), fromFile)
		b.box.Clock().Advance(30 * 24 * time.Hour)
		b.drain()
		if sum := b.box.Summary("invoice"); sum.PaidPayments != 3 || sum.FailedPayments != 1 {
			t.Errorf("%+v", sum)
		}
	})
}
