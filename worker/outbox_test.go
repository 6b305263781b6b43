package worker_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/worker"
)

// post is a delivery as the merchant got it.
type post struct {
	header http.Header
	body   []byte
}

// merchant is an endpoint that answers as told.
type merchant struct {
	t      *testing.T
	secret string
	mu     sync.Mutex
	got    []post
	answer func(event) int // nil: 200
}

type event struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		Subscription string `json:"subscription"`
		N            int    `json:"n"`
	} `json:"data"`
}

func (m *merchant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		m.t.Error(err)
	}
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		m.t.Errorf("%s: %v", body, err)
	}
	// By the specification of Standard Webhooks, without our code.
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.secret, "whsec_"))
	if err != nil {
		m.t.Error(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(r.Header.Get("webhook-id") + "." + r.Header.Get("webhook-timestamp") + "." + string(body)))
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); r.Header.Get("webhook-signature") != want {
		m.t.Errorf("signature %q, want %q", r.Header.Get("webhook-signature"), want)
	}
	status := http.StatusOK
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answer != nil {
		status = m.answer(e)
	}
	if status < 300 {
		m.got = append(m.got, post{r.Header, body})
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
}

// acknowledged are the numbers of the events that were acknowledged, by subscription.
func (m *merchant) acknowledged() map[string][]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string][]int{}
	for _, p := range m.got {
		var e event
		if err := json.Unmarshal(p.body, &e); err != nil {
			m.t.Error(err)
		}
		all[e.Data.Subscription] = append(all[e.Data.Subscription], e.Data.N)
	}
	return all
}

func (m *merchant) set(answer func(event) int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = answer
}

// office is a database with an endpoint, and a clock for the outbox.
type office struct {
	t        *testing.T
	pool     *pgxpool.Pool
	merchant *merchant
	endpoint billing.Endpoint
	late     atomic.Int64 // the outbox's clock is so far ahead
	streams  map[string]uuid.UUID
}

func openOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, pool: pgtest.DB(t), merchant: &merchant{t: t}, streams: map[string]uuid.UUID{}}
	site := httptest.NewServer(o.merchant)
	t.Cleanup(site.Close)
	o.tx(func(tx pgx.Tx) (err error) {
		o.endpoint, err = billing.AddEndpoint(context.Background(), tx, site.URL+"/hooks", "")
		return err
	})
	o.merchant.secret = o.endpoint.Secret
	return o
}

func (o *office) tx(do func(pgx.Tx) error) {
	o.t.Helper()
	if err := pgx.BeginFunc(context.Background(), o.pool, do); err != nil {
		o.t.Fatal(err)
	}
}

// write writes events numbered first to last for a subscription.
func (o *office) write(subscription string, first, last int) {
	o.t.Helper()
	if o.streams[subscription] == uuid.Nil {
		o.streams[subscription] = uuid.New()
	}
	for n := first; n <= last; n++ {
		o.tx(func(tx pgx.Tx) error {
			return billing.WriteEvents(context.Background(), tx, []billing.Event{{
				Type: "invoice.paid", SubscriptionID: o.streams[subscription], OccurredAt: noon,
				Data: map[string]any{"subscription": subscription, "n": n},
			}})
		})
	}
}

// run starts an outbox, and returns how to stop it. It is stopped at the end.
func (o *office) run() (stop func()) {
	o.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out := worker.NewOutbox(worker.OutboxConfig{
		Pool: o.pool, Log: slog.New(slog.DiscardHandler), Timeout: 2 * time.Second,
		Now: func() time.Time { return time.Now().Add(time.Duration(o.late.Load())) },
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		out.Run(ctx)
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			o.t.Error("the outbox does not stop")
		}
	}
	o.t.Cleanup(stop)
	return stop
}

// until waits for a condition, and fails the test after 20 seconds.
func (o *office) until(what string, holds func() bool) {
	o.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			o.t.Fatalf("not within 20 s: %s; acknowledged %v", what, o.merchant.acknowledged())
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (o *office) number(sql string) (n int) {
	o.t.Helper()
	if err := o.pool.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		o.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

const pending = `SELECT count(*) FROM singil.event_deliveries`

func TestOutboxFailingSubscriptionHoldsBackNoOther(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	o.merchant.set(func(e event) int {
		if e.Data.Subscription == "bad" && e.Data.N == 2 {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	o.write("bad", 1, 3)
	o.write("good", 1, 30)
	o.run()
	o.until("all of good", func() bool { return len(o.merchant.acknowledged()["good"]) == 30 })
	o.until("the first of bad", func() bool { return len(o.merchant.acknowledged()["bad"]) == 1 })
	o.write("good", 31, 32)
	o.until("more of good", func() bool { return len(o.merchant.acknowledged()["good"]) == 32 })
	o.merchant.set(nil)
	o.late.Store(int64(time.Minute))
	o.until("the rest of bad", func() bool { return o.number(pending) == 0 })
	want := map[string][]int{"bad": {1, 2, 3}}
	for n := range 32 {
		want["good"] = append(want["good"], n+1)
	}
	if diff := cmp.Diff(want, o.merchant.acknowledged()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestOutboxOverRestartsAndSeveralDaemons(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	var calls atomic.Int64
	o.merchant.set(func(event) int {
		if calls.Add(1)%7 == 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	const subscriptions, each = 6, 12
	for s := range subscriptions {
		o.write(fmt.Sprint("s", s), 1, each)
	}
	// Clocks run fast, so that the pauses after failures do not take the test's time.
	advance := func() { o.late.Add(int64(10 * time.Second)) }
	for range 3 {
		stopOne, stopTwo := o.run(), o.run()
		before := calls.Load()
		o.until("some progress", func() bool { advance(); return calls.Load() > before+5 || o.number(pending) == 0 })
		stopOne()
		stopTwo()
	}
	o.run()
	o.until("all", func() bool { advance(); return o.number(pending) == 0 })
	for s, got := range o.merchant.acknowledged() {
		// At least once: an event may come again, never before one that is older and new.
		seen := 0
		for _, n := range got {
			if n > seen+1 {
				t.Errorf("%s: %d came before %d: %v", s, n, seen+1, got)
			}
			seen = max(seen, n)
		}
		if seen != each {
			t.Errorf("%s: %v", s, got)
		}
	}
	o.until("the streams' rest", func() bool {
		return o.number(`SELECT count(*) FROM singil.event_streams WHERE next_try_at IS NOT NULL OR lease IS NOT NULL`) == 0
	})
}

func TestOutboxParksAndResumes(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	o.merchant.set(func(event) int { return http.StatusFound }) // redirects are not followed
	o.write("s1", 1, 2)
	o.run()
	o.until("a failure", func() bool { return o.number(`SELECT count(*) FROM singil.event_streams WHERE tries = 1`) == 1 })
	o.late.Store(int64(8 * 24 * time.Hour))
	o.until("the parking", func() bool {
		return o.number(`SELECT count(*) FROM singil.event_streams WHERE parked_at IS NOT NULL AND last_error = 'the endpoint answered 302 Found'`) == 1
	})
	o.write("s1", 3, 3)
	if n := o.number(`SELECT count(*) FROM singil.event_streams WHERE next_try_at IS NOT NULL`); n != 0 {
		t.Error("a new event woke a parked stream")
	}
	list, err := billing.ListEndpoints(t.Context(), o.pool)
	if err != nil || len(list) != 1 || list[0].Parked != 1 || list[0].Pending != 3 {
		t.Errorf("%+v %v", list, err)
	}
	o.merchant.set(nil)
	o.tx(func(tx pgx.Tx) error {
		n, err := billing.ResumeStreams(t.Context(), tx, o.endpoint.ID, time.Now())
		if n != 1 {
			t.Errorf("%d streams resumed", n)
		}
		return err
	})
	o.until("all", func() bool { return o.number(pending) == 0 })
	if got := fmt.Sprint(o.merchant.acknowledged()["s1"]); got != "[1 2 3]" {
		t.Error(got)
	}
}

func TestOutboxReplay(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	o.write("s1", 1, 3)
	o.run()
	o.until("all", func() bool { return o.number(pending) == 0 })
	events, err := billing.ListEvents(t.Context(), o.pool, 0, 100, "invoice.paid")
	if err != nil || len(events) != 3 {
		t.Fatalf("%v %v", events, err)
	}
	if rest, err := billing.ListEvents(t.Context(), o.pool, events[1].Seq, 100, ""); err != nil || len(rest) != 1 || rest[0].ID != events[2].ID {
		t.Errorf("%v %v", rest, err)
	}
	o.tx(func(tx pgx.Tx) error {
		n, err := billing.Replay(t.Context(), tx, o.endpoint.ID, events[1].Seq, events[2].Seq, "", time.Now())
		if n != 2 {
			t.Errorf("%d come again", n)
		}
		return err
	})
	o.until("the replay", func() bool { return len(o.merchant.acknowledged()["s1"]) == 5 })
	if got := fmt.Sprint(o.merchant.acknowledged()["s1"]); got != "[1 2 3 2 3]" {
		t.Error(got)
	}
	o.merchant.mu.Lock()
	defer o.merchant.mu.Unlock()
	if a, b := o.merchant.got[1].header.Get("webhook-id"), o.merchant.got[3].header.Get("webhook-id"); a != b || a != events[1].ID.String() {
		t.Errorf("the replayed event has id %s, the first time %s", b, a)
	}
}

func TestEndpointsAreChecked(t *testing.T) {
	t.Parallel()
	tx := pgtest.Tx(t)
	for _, bad := range []string{"", "ftp://x", "https://", "https://user:pass@example.com", "https://example.com/#x", "//example.com", "https://" + strings.Repeat("a", 2000)} {
		if _, err := billing.AddEndpoint(t.Context(), tx, bad, ""); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, bad := range []string{"x", "whsec_", "whsec_AAAA", "whsec_!!!!", base64.StdEncoding.EncodeToString(make([]byte, 32))} {
		if _, err := billing.AddEndpoint(t.Context(), tx, "https://example.com", bad); err == nil {
			t.Errorf("secret %q was taken", bad)
		}
	}
}
