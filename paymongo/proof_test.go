package paymongo

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNeverSent makes calls fail before a whole request could leave, in every way we know of.
func TestNeverSent(t *testing.T) {
	t.Parallel()

	writes := func(t *testing.T, c *Client, want string) {
		t.Helper()
		for name, call := range map[string]func(context.Context, *Client, string) error{"attach": attach, "cancel": cancelIntent} {
			checkVerdict(t, name, call(t.Context(), c, "a-key"), VerdictNeverSent, want)
		}
	}
	all := func(t *testing.T, c *Client, want string) {
		t.Helper()
		writes(t, c, want)
		checkVerdict(t, "retrieve", retrieve(t.Context(), c), VerdictNeverSent, want)
		_, err := c.Customers.Delete(t.Context(), "cus_1")
		checkVerdict(t, "delete", err, VerdictNeverSent, want)
	}

	t.Run("CanceledWhileConnecting", func(t *testing.T) {
		t.Parallel()
		dialling := make(chan struct{}, 1)
		transport := newTransport(time.Second)
		release := make(chan struct{})
		defer close(release)
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			dialling <- struct{}{}
			<-release
			return nil, errors.New("released")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-dialling
			cancel()
		}()
		err := attach(ctx, inMemory(t, transport), "")
		checkVerdict(t, "attach", err, VerdictNeverSent, reasonWaiting)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v is no context.Canceled", err)
		}
	})
	t.Run("ConnectionRefused", func(t *testing.T) {
		t.Parallel()
		all(t, newTestClient(t, testKey, WithBaseURL(deadURL(t)), noLimit, once), reasonConnect)
	})
	t.Run("ConnectTimeout", func(t *testing.T) {
		t.Parallel()
		transport := newTransport(time.Second)
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
		}
		all(t, inMemory(t, transport, once), reasonConnect)
	})
	t.Run("NameNotFound", func(t *testing.T) {
		t.Parallel()
		transport := newTransport(time.Second)
		transport.DialContext = (&net.Dialer{Resolver: &net.Resolver{
			PreferGo: true,
			Dial:     func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no name server") },
		}}).DialContext
		all(t, inMemory(t, transport, once, WithBaseURL("http://api.invalid/v1")), reasonDNS)
	})
	t.Run("SendBeforePassesOnTheWayToTheWire", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
				tries++
				<-time.After(3 * time.Second) // a slow connect, by the clock of the bubble
				_, err := io.Copy(io.Discard, r.Body)
				return nil, err
			}))
			_, err := c.PaymentIntents.Attach(t.Context(), "pi_1", &PaymentIntentAttachParams{
				PaymentMethod: "pm_1", SendBefore: time.Now().Add(2 * time.Second),
			})
			checkVerdict(t, "attach", err, VerdictNeverSent, reasonPastSendBefore)
			if tries != 1 {
				t.Errorf("%d tries, want 1: too late stays too late", tries)
			}
		})
	})
	t.Run("SendBeforePassedAlready", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, untouchable(t))
		_, err := c.PaymentIntents.Attach(t.Context(), "pi_1", &PaymentIntentAttachParams{
			PaymentMethod: "pm_1", SendBefore: time.Now().Add(-time.Millisecond),
		})
		checkVerdict(t, "attach", err, VerdictNeverSent, reasonPastSendBefore)
	})
	t.Run("SendBeforeStillAhead", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, answering(200, intentAnswer))
		_, err := c.PaymentIntents.Attach(t.Context(), "pi_1", &PaymentIntentAttachParams{
			PaymentMethod: "pm_1", SendBefore: time.Now().Add(time.Minute),
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("TLSHandshakeFails", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.NotFoundHandler()) // speaks no TLS
		t.Cleanup(server.Close)
		url := strings.Replace(server.URL, "http://", "https://", 1)
		all(t, newTestClient(t, testKey, WithBaseURL(url), noLimit, once), reasonTLS)
	})
	t.Run("TLSHandshakeHangs", func(t *testing.T) {
		t.Parallel()
		url := strings.Replace(silentServer(t), "http://", "https://", 1)
		c := newTestClient(t, testKey, WithBaseURL(url), noLimit, once, WithTimeouts(Timeouts{Connect: 30 * time.Millisecond}))
		all(t, c, reasonTLS)
	})
	t.Run("TransportFailsWithoutReading", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, roundTripFunc(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("out of order")
		}), once)
		writes(t, c, reasonUnsent)
		// Such a transport proves nothing about a request without a body.
		checkVerdict(t, "retrieve", retrieve(t.Context(), c), VerdictUnknown, reasonConnection)
	})
	t.Run("UntrustedCertificate", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = discardLog
		server.StartTLS()
		t.Cleanup(server.Close)
		var tries int
		c := newTestClient(t, testKey, WithBaseURL(server.URL), noLimit, WithObserver(func(context.Context, Exchange) { tries++ }))
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictNeverSent, reasonTLS)
		if tries != 1 {
			t.Errorf("%d tries, want 1: a certificate does not get better", tries)
		}
	})
}

// TestSentIsUnknown makes calls fail after the request, or a part of it, was handed out.
func TestSentIsUnknown(t *testing.T) {
	t.Parallel()
	t.Run("AnswerNeverComes", func(t *testing.T) {
		t.Parallel()
		c := newTestClient(t, testKey, WithBaseURL(silentServer(t)), noLimit, once,
			WithTimeouts(Timeouts{Read: 30 * time.Millisecond, Write: 30 * time.Millisecond, Attach: 30 * time.Millisecond}))
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictUnknown, reasonTimeout)
		checkVerdict(t, "cancel", cancelIntent(t.Context(), c, ""), VerdictUnknown, reasonTimeout)
		checkVerdict(t, "retrieve", retrieve(t.Context(), c), VerdictUnknown, reasonTimeout)
	})
	t.Run("AnswerTrickles", func(t *testing.T) {
		t.Parallel()
		c, mux := setup(t, once, WithTimeouts(Timeouts{Attach: 50 * time.Millisecond}))
		mux.HandleFunc("POST /payment_intents/pi_1/attach", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil { // a byte at a time, for ever
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
			}
		})
		err := attach(t.Context(), c, "")
		// It ends by the time allowed, or by the size allowed, whichever comes first.
		if v, reason := VerdictOf(err); v != VerdictUnknown || reason != reasonTimeout && reason != reasonTooLarge {
			t.Errorf("verdict %s (%s): %v", v, reason, err)
		}
	})
	t.Run("CanceledWhileWaiting", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		c, mux := setup(t)
		hang := make(chan struct{})
		t.Cleanup(func() { close(hang) })
		mux.HandleFunc("POST /payment_intents/pi_1/attach", func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		})
		checkVerdict(t, "attach", attach(ctx, c, ""), VerdictUnknown, reasonCanceled)
	})
	t.Run("OneByteHandedOut", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			_, _ = r.Body.Read(make([]byte, 1))
			return nil, errors.New("connection reset")
		}))
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictUnknown, reasonConnection)
	})
	t.Run("ServerHangsUp", func(t *testing.T) {
		t.Parallel()
		c, mux := setup(t)
		mux.HandleFunc("POST /payment_intents/pi_1/attach", func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		})
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictUnknown, reasonConnection)
	})
}

// TestFenceStopsLateReads is the case that httptrace cannot decide: RoundTrip
// has returned, and the transport's write loop wants the body only now.
func TestFenceStopsLateReads(t *testing.T) {
	t.Parallel()
	var late io.Reader
	c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		late = r.Body
		return nil, context.Canceled
	}), once)
	checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictNeverSent, reasonUnsent)
	if n, err := late.Read(make([]byte, 10)); n != 0 || !errors.Is(err, errFenced) {
		t.Errorf("a read after the verdict gave %d bytes and %v, want none and %v", n, err, errFenced)
	}
}

// TestFenceAgrees lets a reader and the fence race: what the fence says is what happened.
func TestFenceAgrees(t *testing.T) {
	t.Parallel()
	for range 2000 {
		body := newOnceBody("x", time.Time{})
		var got int
		var wg sync.WaitGroup
		wg.Go(func() { got, _ = body.Read(make([]byte, 1)) })
		started, _ := body.fence()
		wg.Wait()
		if started != (got == 1) {
			t.Fatalf("fence says started=%v, the reader got %d bytes", started, got)
		}
	}
}

func TestOnceBody(t *testing.T) {
	t.Parallel()
	body := newOnceBody("hello", time.Time{})
	if n, err := body.Read(nil); n != 0 || err != nil {
		t.Errorf("an empty read gave %d, %v", n, err)
	}
	if started, _ := body.fence(); started {
		t.Error("an empty read counts as started")
	}
	body = newOnceBody("hello", time.Time{})
	if all, err := io.ReadAll(body); string(all) != "hello" || err != nil {
		t.Errorf("read %q, %v", all, err)
	}
	if n, err := body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("a read at the end gave %d, %v", n, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := body.Read(make([]byte, 1)); !errors.Is(err, errFenced) {
		t.Errorf("a read after Close gave %v", err)
	}
}

func checkVerdict(t *testing.T, what string, err error, want Verdict, wantReason string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s succeeded", what)
		return
	}
	if v, reason := VerdictOf(err); v != want || reason != wantReason {
		t.Errorf("%s: verdict %s (%s), want %s (%s): %v", what, v, reason, want, wantReason, err)
	}
	if NeverSent(err) != (want == VerdictNeverSent) || Refused(err) != (want == VerdictRefused) {
		t.Errorf("%s: NeverSent and Refused do not agree with VerdictOf", what)
	}
}

// untouchable is a transport for calls that must not reach it.
func untouchable(t *testing.T) http.RoundTripper {
	return roundTripFunc(func(r *http.Request) (*http.Response, error) {
		swallow(r)
		t.Errorf("%s %s was sent; it had to be refused before", r.Method, r.URL.Path)
		return nil, errors.New("not to be sent")
	})
}

// deadURL is a URL where nobody listens.
func deadURL(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return "http://" + listener.Addr().String()
}

// silentServer accepts connections and says nothing.
func silentServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	return "http://" + listener.Addr().String()
}

// TestQuietError: an error whose text is not fit to print keeps its meaning.
func TestQuietError(t *testing.T) {
	t.Parallel()
	cause := &url.Error{Op: "Post", URL: "https://e.example/x?client_key=pi_1_client_x", Err: context.DeadlineExceeded}
	err := attach(t.Context(), inMemory(t, failing(cause)), "")
	checkVerdict(t, "attach", err, VerdictUnknown, reasonTimeout)
	if want := `paymongo: payment_intents.attach: outcome unknown (timeout): Post "https://e.example/x": context deadline exceeded`; err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var timeout interface{ Timeout() bool }
	var leak *url.Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() || errors.As(err, &leak) {
		t.Errorf("%v: timeout %v, leak %v", err, timeout, leak)
	}
}
