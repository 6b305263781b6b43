package paymongo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestNewClient(t *testing.T) {
	t.Parallel()
	for key, live := range map[string]bool{
		"sk_test_a": false, "pk_test_a": false, "sk_live_a": true, "pk_live_a": true, " \tsk_test_a\r\n": false, "sk_live_A-b_9": true,
	} {
		c := newTestClient(t, key)
		if c.Livemode() != live || c.BaseURL() != "https://api.paymongo.com/v1" || ModeOf(c.Livemode()) == ModeOf(!live) {
			t.Errorf("%q gives livemode %v at %s", key, c.Livemode(), c.BaseURL())
		}
	}
	// What a key may be is tested in TestErrorsHideSecrets, with the error it gives.
}

func TestOptions(t *testing.T) {
	t.Parallel()
	rt := answering(200, "")
	for _, tt := range []struct {
		name string
		opt  Option
		want string // part of the error; empty for none
	}{
		{"BaseURL", WithBaseURL("http://sandbox:8080/paymongo/v1/"), ""},
		{"BaseURLEscapes", WithBaseURL("https://e.example/a%2fb"), "escapes"},
		{"BaseURLFragment", WithBaseURL("https://e.example/#a"), "fragment"},
		{"BaseURLNoHost", WithBaseURL("https:///v1"), "host"},
		{"BaseURLNoScheme", WithBaseURL("api.paymongo.com/v1"), "http or https"},
		{"BaseURLOtherScheme", WithBaseURL("ftp://e.example"), "http or https"},
		{"BaseURLQuery", WithBaseURL("https://e.example/?a=1"), "query"},
		{"BaseURLUnparsable", WithBaseURL("https://e.example/\x00"), "cannot be parsed"},
		{"BaseURLUser", WithBaseURL("https://" + testKey + "@e.example/"), "user"},
		{"Limiter", WithLimiter(limiterFunc(silent)), ""},
		{"LimiterNil", WithLimiter(nil), "nil"},
		{"MaxElapsedTime", WithMaxElapsedTime(time.Second), ""},
		{"MaxElapsedTimeNegative", WithMaxElapsedTime(-1), "negative"},
		{"MaxElapsedTimeZero", WithMaxElapsedTime(0), ""},
		{"NilOption", nil, "nil"},
		{"Observer", WithObserver(func(context.Context, Exchange) {}), ""},
		{"ObserverNil", WithObserver(nil), "nil"},
		{"Rate", WithRate(0.5, 1), ""},
		{"RateBurst", WithRate(80, 0), "burst 0"},
		{"RateInf", WithRate(math.Inf(1), 0), ""},
		{"RateMinusInf", WithRate(math.Inf(-1), 1), "never send"},
		{"RateNaN", WithRate(math.NaN(), 1), "never send"},
		{"RateNegative", WithRate(-1, 1), "never send"},
		{"RateZero", WithRate(0, 1), "math.Inf(1)"},
		{"Timeouts", WithTimeouts(Timeouts{Read: time.Second}), ""},
		{"TimeoutsNegative", WithTimeouts(Timeouts{Attach: -1}), "Attach"},
		{"Transport", WithTransport(rt), ""},
		{"TransportNil", WithTransport(nil), "nil"},
		{"Update", WithPaymentMethodUpdate(UpdatePutDetails), ""},
		{"UpdateUnknown", WithPaymentMethodUpdate("POST cvc"), "unknown"},
		{"UserAgent", WithUserAgent("shop/1.0"), ""},
		{"UserAgentEmpty", WithUserAgent(""), "user agent"},
		{"UserAgentInjection", WithUserAgent("a\r\nX: y"), "user agent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewClient(testKey, tt.opt)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil {
				checkHidden(t, "the error", err.Error())
			}
		})
	}
}

func TestLiveKeyNeedsHTTPS(t *testing.T) {
	t.Parallel()
	for base, ok := range map[string]bool{
		"https://e.example/v1": true, "http://e.example/v1": false, "http://127.0.0.1:1/v1": true, "http://[::1]:1": true, "http://localhost": true,
		"http://localhost.e.example": false, "http://10.0.0.1": false,
	} {
		if _, err := NewClient("sk_live_a", WithBaseURL(base)); (err == nil) != ok {
			t.Errorf("live key at %s: %v", base, err)
		}
	}
}

func TestBaseURL(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"https://e.example":          "https://e.example/payments/pay_1",
		"https://e.example/":         "https://e.example/payments/pay_1",
		"https://e.example/a/b/v1//": "https://e.example/a/b/v1/payments/pay_1",
	} {
		c := newTestClient(t, testKey, WithBaseURL(base), WithTransport(roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.String() != want {
				t.Errorf("asked %s, want %s", r.URL, want)
			}
			return response(r, 200, paymentAnswer), nil
		})))
		if _, err := c.Payments.Retrieve(t.Context(), "pay_1"); err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(c.BaseURL(), "/") {
			t.Errorf("base URL %s", c.BaseURL())
		}
	}
}

func TestTransportSettings(t *testing.T) {
	t.Parallel()
	tr := newTransport(2 * time.Second)
	if tr.Proxy != nil || !tr.Protocols.HTTP1() || tr.Protocols.HTTP2() || tr.Protocols.UnencryptedHTTP2() ||
		tr.TLSClientConfig.MinVersion != tls.VersionTLS12 || tr.TLSHandshakeTimeout != 2*time.Second ||
		tr.MaxResponseHeaderBytes == 0 || tr.MaxIdleConnsPerHost < 256 || tr.IdleConnTimeout <= 0 || tr.IdleConnTimeout >= time.Minute {
		t.Errorf("transport is %+v", tr)
	}
}

// TestRedirectIsNotFollowed has an answer at the other end that would pass for the
// right one. Which redirects net/http follows depends on the method and the status.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{
		http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			c, mux := setup(t)
			mux.HandleFunc("/payment_intents/", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, basePath+"/elsewhere", status)
			})
			mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
				t.Errorf("the redirect was followed: %s, Authorization %t", r.Method, r.Header.Get("Authorization") != "")
				_, _ = io.WriteString(w, intentAnswer)
			})
			checkVerdict(t, "attach", attach(t.Context(), c, "a-key"), VerdictUnknown, reasonRedirect)
			_, err := c.PaymentIntents.Retrieve(t.Context(), "pi_1", nil)
			checkVerdict(t, "retrieve", err, VerdictUnknown, reasonRedirect)
		})
	}
}

// TestConcurrentCalls is for the race detector, and for the connections: they are to be used again.
func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	c, mux := setup(t, WithObserver(func(context.Context, Exchange) { tries.Add(1) }), WithRate(1e6, 1))
	conns := sync.Map{}
	handle := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conns.Store(r.RemoteAddr, true)
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, strings.ReplaceAll(answer, "pi_1", r.PathValue("id")))
		}
	}
	mux.HandleFunc("POST /payment_intents/{id}/attach", handle(intentAnswer))
	mux.HandleFunc("GET /payment_intents/{id}", handle(intentAnswer))
	const workers, rounds = 32, 20
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			id := fmt.Sprintf("pi_%d", w)
			for range rounds {
				got, err := c.PaymentIntents.Attach(t.Context(), id, &PaymentIntentAttachParams{PaymentMethod: "pm_1"})
				if err != nil || got.ID != id {
					t.Errorf("got %+v, %v", got, err)
				}
				if got, err := c.PaymentIntents.Retrieve(t.Context(), id, nil); err != nil || got.ID != id {
					t.Errorf("got %+v, %v", got, err)
				}
				c.HoldUntil(time.Now())
				_ = c.HeldUntil()
			}
		})
	}
	wg.Wait()
	if n := tries.Load(); n != 2*workers*rounds {
		t.Errorf("%d round trips", n)
	}
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	if n > 2*workers {
		t.Errorf("%d connections for %d workers: they are not used again", n, workers)
	}
}

func TestObserver(t *testing.T) {
	t.Parallel()
	type key struct{}
	var got []Exchange
	s := &script{steps: []roundTripFunc{unsent, answering(400, errorsBody("parameter_invalid", ""))}}
	c := inMemory(t, s, WithObserver(func(ctx context.Context, e Exchange) {
		if ctx.Value(key{}) != "mine" {
			t.Error("the observer was given another context")
		}
		got = append(got, e)
	}))
	err := attach(context.WithValue(t.Context(), key{}, "mine"), c, "")
	if len(got) != 2 || got[0].Attempt != 1 || got[0].StatusCode != 0 || !NeverSent(got[0].Err) ||
		got[1].Attempt != 2 || got[1].StatusCode != 400 || !errors.Is(got[1].Err, err) || got[1].Op != "payment_intents.attach" || got[1].Method != "POST" {
		t.Errorf("observed %+v", got)
	}
}

func BenchmarkAttach(b *testing.B) {
	answer := string(fixture(b, "payment_intent_succeeded.json"))
	c, err := NewClient(testKey, WithTransport(answering(200, answer)), noLimit)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := attach(b.Context(), c, "a-key"); err != nil {
			b.Fatal(err)
		}
	}
}
