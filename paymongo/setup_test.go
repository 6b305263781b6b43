package paymongo

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
)

const (
	testKey   = "sk_test_5EcReTkEyOfTheTests"
	publicKey = "pk_test_5EcReTkEyOfTheTests"

	// basePath is not empty, so that a path which forgets the base URL's fails.
	basePath = "/base/v1"
)

// setup returns a client, and the mux of the server it talks to. Patterns are
// relative to the base URL: "POST /payment_intents".
func setup(t *testing.T, opts ...Option) (*Client, *http.ServeMux) {
	t.Helper()
	return setupKey(t, testKey, opts...)
}

func setupKey(t *testing.T, key string, opts ...Option) (*Client, *http.ServeMux) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("no handler for %s %s: the client asked for another path or method than the test expects", r.Method, r.URL.Path)
		w.WriteHeader(http.StatusNotImplemented)
	})
	outer := http.NewServeMux()
	outer.Handle(basePath+"/", http.StripPrefix(basePath, mux))
	outer.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s is outside the base URL's path %s: did the client drop it?", r.Method, r.URL.Path, basePath)
		w.WriteHeader(http.StatusNotImplemented)
	})
	server := httptest.NewServer(outer)
	t.Cleanup(server.Close)
	c := newTestClient(t, key, append([]Option{WithBaseURL(server.URL + basePath), noLimit}, opts...)...)
	return c, mux
}

func newTestClient(t *testing.T, key string, opts ...Option) *Client {
	t.Helper()
	c, err := NewClient(key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

var (
	noLimit = WithRate(math.Inf(1), 0)
	once    = WithMaxElapsedTime(0)
)

// roundTripFunc is a transport in memory.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// answering sends the request's body to nowhere and answers.
func answering(status int, body string, header ...string) roundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		swallow(r)
		return response(r, status, body, header...), nil
	}
}

// failing takes the whole request and then fails.
func failing(err error) roundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		swallow(r)
		return nil, err
	}
}

func swallow(r *http.Request) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
}

func response(r *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h, Request: r,
		Body: io.NopCloser(bytes.NewReader([]byte(body))), ContentLength: int64(len(body)),
	}
}

// inMemory returns a client whose transport is rt.
func inMemory(t *testing.T, rt http.RoundTripper, opts ...Option) *Client {
	t.Helper()
	return newTestClient(t, testKey, append([]Option{WithTransport(rt), noLimit}, opts...)...)
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// decodeAny keeps numbers as they are written.
func decodeAny(t testing.TB, data []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}

// The two writes that the tests of verdicts and proofs make: one with
// attributes, one without.
func attach(ctx context.Context, c *Client, key string) error {
	_, err := c.PaymentIntents.Attach(ctx, "pi_1", &PaymentIntentAttachParams{PaymentMethod: "pm_1", IdempotencyKey: key})
	return err
}

func cancelIntent(ctx context.Context, c *Client, key string) error {
	_, err := c.PaymentIntents.Cancel(ctx, "pi_1", &PaymentIntentCancelParams{IdempotencyKey: key})
	return err
}

func retrieve(ctx context.Context, c *Client) error {
	_, err := c.PaymentIntents.Retrieve(ctx, "pi_1", nil)
	return err
}

const intentAnswer = `{"data":{"id":"pi_1","type":"payment_intent","attributes":{"amount":2000,"currency":"PHP","status":"succeeded","livemode":false,"payments":[]}}}`

// discardLog keeps the complaints of test servers about their clients out of the output.
var discardLog = log.New(io.Discard, "", 0)
