package paymongo

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// trapServer executes every write it reads, and answers the first request of a
// connection only. At the second it executes and hangs up, which is what a
// server does whose keep-alive ends at the wrong moment.
type trapServer struct {
	url      string
	executed atomic.Int64
}

func newTrapServer(t *testing.T) *trapServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	s := &trapServer{url: "http://" + listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *trapServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for n := 0; ; n++ {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if req.Method != http.MethodGet {
			s.executed.Add(1)
			if n > 0 {
				return
			}
		}
		resp := response(req, http.StatusOK, intentAnswer)
		if err := resp.Write(conn); err != nil {
			return
		}
	}
}

// TestWriteIsExecutedOnce is the money test of this package: net/http must not
// send a write a second time when a kept-alive connection dies under it.
func TestWriteIsExecutedOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		key  string
		call func(context.Context, *Client, string) error
	}{
		{"AttachWithKey", "a-key", attach},
		{"AttachWithoutKey", "", attach},
		{"CancelWithKey", "a-key", cancelIntent},
		{"CancelWithoutKey", "", cancelIntent},
		{"CustomWithKeyAndNoBody", "a-key", func(ctx context.Context, c *Client, key string) error {
			req, err := c.NewRequest(ctx, http.MethodPost, "payment_intents/pi_1/cancel", nil)
			if err != nil {
				return err
			}
			req.IdempotencyKey = key
			return c.Do(req, nil)
		}},
		{"DeleteWithoutKey", "", func(ctx context.Context, c *Client, _ string) error {
			_, err := c.Customers.Delete(ctx, "cus_1")
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := newTrapServer(t)
			c := newTestClient(t, testKey, WithBaseURL(server.url), noLimit)
			// A first request leaves a connection behind, for the write to be sent over.
			if err := retrieve(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			err := tt.call(t.Context(), c, tt.key)
			if v, reason := VerdictOf(err); v != VerdictUnknown || reason != reasonConnection {
				t.Errorf("verdict %q (%s), want unknown (%s): %v", v, reason, reasonConnection, err)
			}
			if n := server.executed.Load(); n != 1 {
				t.Errorf("executed %d times, want once", n)
			}
		})
	}
}

// TestNetHTTPReplays shows the danger that TestWriteIsExecutedOnce guards
// against. If it fails, net/http has changed and the guard can be looked at again.
func TestNetHTTPReplays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		body func() io.Reader
		key  string
		want int64
	}{
		{"BodyAndKey", func() io.Reader { return strings.NewReader(`{"data":{}}`) }, "a-key", 2},
		{"NoBodyAndKey", func() io.Reader { return nil }, "a-key", 2},
		{"BodyWithoutKey", func() io.Reader { return strings.NewReader(`{"data":{}}`) }, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := newTrapServer(t)
			transport := newTransport(defaultTimeouts.Connect)
			t.Cleanup(transport.CloseIdleConnections)
			client := &http.Client{Transport: transport}
			first, err := client.Get(server.url)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, first.Body)
			_ = first.Body.Close()

			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.url, tt.body())
			if err != nil {
				t.Fatal(err)
			}
			if tt.key != "" {
				req.Header.Set("Idempotency-Key", tt.key)
			}
			resp, err := client.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if n := server.executed.Load(); n != tt.want {
				t.Errorf("executed %d times, want %d", n, tt.want)
			}
		})
	}
}
