package sandbox

import (
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
