package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

// moneyEvents are what a merchant subscribes to: one a payment.
var moneyEvents = []paymongo.EventType{paymongo.EventPaymentPaid, paymongo.EventPaymentFailed}

// webhookFaults is what may happen to a delivery, each to so many of them.
func webhookFaults(share float64) []sandbox.Fault {
	return []sandbox.Fault{
		{Kind: sandbox.WebhookLost, Probability: share},
		{Kind: sandbox.WebhookDuplicate, Probability: share},
		{Kind: sandbox.WebhookReorder, Probability: share},
		{Kind: sandbox.WebhookDelay, Probability: share, For: sandbox.Duration(2 * time.Hour)},
		{Kind: sandbox.WebhookEarly, Probability: share},
	}
}

// webhookFront is the one address that PayMongo delivers to: it passes each
// delivery on to a daemon that is alive, one after the other.
type webhookFront struct {
	url    string
	alive  func() []string // base URLs
	turn   atomic.Uint64
	passed atomic.Int64
	nobody atomic.Int64
}

func newWebhookFront(t *testing.T, alive func() []string) *webhookFront {
	f := &webhookFront{alive: alive}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(*httputil.ProxyRequest) {}, // the target is in the request already
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway) // it was killed meanwhile: PayMongo delivers again
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		daemons := f.alive()
		if len(daemons) == 0 {
			f.nobody.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		target, err := url.Parse(daemons[f.turn.Add(1)%uint64(len(daemons))])
		if err != nil {
			t.Error(err)
			return
		}
		// A daemon that is stopped must not hold up the postman.
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		r = r.WithContext(ctx)
		r.URL.Scheme, r.URL.Host, r.Host = target.Scheme, target.Host, target.Host
		f.passed.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	f.url = server.URL + "/webhooks/paymongo"
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return f
}

// subscribe registers the front with PayMongo and returns the secret.
func (f *webhookFront) subscribe(t *testing.T, client *paymongo.Client) string {
	t.Helper()
	hook, err := client.Webhooks.Create(t.Context(), &paymongo.WebhookCreateParams{URL: f.url, Events: moneyEvents})
	if err != nil {
		t.Fatal(err)
	}
	return hook.SecretKey.Reveal()
}

// callFront stands between one daemon and the sandbox, so that what a call is
// about to do can be met with what happens to the daemon that sent it.
func callFront(t *testing.T, box *sandbox.Sandbox, begins func(operation string)) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/attach"):
			begins("attach")
		case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/payment_intents"):
			begins("create")
		}
		box.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/v1"
}

// tail is the end of what a daemon says, and the address it said it listens on.
type tail struct {
	mu     sync.Mutex
	last   []byte
	listen string
}

const tailSize = 128 << 10

var listensAt = regexp.MustCompile(`"msg":"running","listen":"([^"]+)"`)

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = append(l.last, p...)
	if l.listen == "" {
		if found := listensAt.FindSubmatch(l.last); found != nil {
			l.listen = "http://" + string(found[1])
		}
	}
	if len(l.last) > 2*tailSize {
		l.last = slices.Clone(l.last[len(l.last)-tailSize:])
	}
	return len(p), nil
}

// listens is empty until the daemon listens.
func (l *tail) listens() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listen
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.last)
}

// faultCounter is a log handler of the sandbox that counts what it did to calls
// and what became of deliveries. It prints nothing.
type faultCounter struct {
	mu     sync.Mutex
	counts map[string]int // fault kinds of calls, and "webhook: fate"
}

func (*faultCounter) Enabled(context.Context, slog.Level) bool { return true }
func (c *faultCounter) WithAttrs([]slog.Attr) slog.Handler     { return c }
func (c *faultCounter) WithGroup(string) slog.Handler          { return c }

func (c *faultCounter) Handle(_ context.Context, r slog.Record) error {
	forged, attach, try, status := false, false, int64(0), int64(0)
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case a.Key == "fault":
			for kind := range strings.SplitSeq(a.Value.String(), "+") {
				c.add(kind)
			}
		case a.Key == "path":
			attach = strings.HasSuffix(a.Value.String(), "/attach")
		case a.Key == "forged":
			forged = a.Value.Bool()
		case a.Key == "try":
			try = a.Value.Int64()
		case a.Key == "status":
			status = a.Value.Int64()
		}
		return true
	})
	switch {
	case r.Message == "request":
		c.add("request")
		if attach {
			c.add(attachesSeen)
		}
	case r.Message != "webhook":
	case forged && status == http.StatusUnauthorized:
		c.add("webhook: forged and refused")
	case forged && status >= 200 && status <= 299:
		c.add("webhook: FORGED AND TAKEN")
	case forged:
		c.add("webhook: forged, nobody answered")
	case status < 200 || status > 299:
		c.add("webhook: not taken")
	case try > 1:
		c.add("webhook: taken at a later try")
	default:
		c.add("webhook: taken at once")
	}
	return nil
}

const attachesSeen = "attach"

func (c *faultCounter) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[what]++
}

// snapshot is a copy.
func (c *faultCounter) snapshot() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int, len(c.counts))
	for k, n := range c.counts {
		out[k] = n
	}
	return out
}
