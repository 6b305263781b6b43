package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/singil/singil/internal/pgtest"
)

// systemd is the other end of NOTIFY_SOCKET.
func systemd(t *testing.T) (socket string, next func(within time.Duration) string) {
	t.Helper()
	// t.TempDir can be longer than a socket's name may be.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = os.RemoveAll(dir)
	})
	return socket, func(within time.Duration) string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	socket, next := systemd(t)
	log := slog.New(slog.DiscardHandler)
	s := findSupervisor(environment("NOTIFY_SOCKET", socket, "WATCHDOG_USEC", "60000", "WATCHDOG_PID", fmt.Sprint(os.Getpid())), log)
	if s.every != 20*time.Millisecond {
		t.Errorf("every %s", s.every)
	}
	var dead atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.watch(ctx, func(context.Context) error {
			if dead.Load() {
				return errors.New("the database is away")
			}
			return nil
		})
	}()
	for range 3 {
		if got := next(10 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("%q", got)
		}
	}
	dead.Store(true)
	next(100 * time.Millisecond) // one may have been under way
	if got := next(300 * time.Millisecond); got != "" {
		t.Errorf("%q although work does not go on", got)
	}
	dead.Store(false)
	if got := next(10 * time.Second); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
	cancel()
	<-ended
}

func TestNobodySupervises(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, s := range []*supervisor{
		findSupervisor(environment(), log),
		findSupervisor(environment("WATCHDOG_USEC", "1000"), log),
	} {
		s.tell("READY=1")
		s.watch(t.Context(), func(context.Context) error { panic("asked") })
	}
	if out.Len() > 0 {
		t.Error(out.String())
	}
	// The watchdog of another process, and a socket that is gone.
	s := findSupervisor(environment("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "s"), "WATCHDOG_USEC", "1000", "WATCHDOG_PID", "1"), log)
	s.watch(t.Context(), func(context.Context) error { panic("asked") })
	s.tell("READY=1")
	if !strings.Contains(out.String(), "telling systemd failed") {
		t.Errorf("%q", out.String())
	}
	if s := findSupervisor(environment("NOTIFY_SOCKET", "@/a/b"), log); s.socket != "\x00/a/b" {
		t.Errorf("%q", s.socket)
	}
}

func TestPulse(t *testing.T) {
	t.Parallel()
	var p pulse
	now := time.Now()
	p.beat(now)
	if err := p.within(now.Add(time.Minute), time.Minute); err != nil {
		t.Error(err)
	}
	if err := p.within(now.Add(time.Minute+1), time.Minute); err == nil {
		t.Error("a dead timer lives")
	}
}

// TestDaemonTellsItsSupervisor starts the real binary as systemd would, asks it
// with singil healthcheck, and ends it.
func TestDaemonTellsItsSupervisor(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "singil")
	build(t, binary)
	socket, next := systemd(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	dsn := pgtest.DSN(t)
	if code, _, errs := program(t, binary, dsn, []string{"healthcheck"}, "SINGIL_LISTEN="+listen); code != 1 || !strings.Contains(errs, "refused") {
		t.Errorf("nobody listens: exit code %d: %s", code, errs)
	}
	cmd, log := daemonOf(t, binary, dsn,
		"PAYMONGO_SECRET_KEY=sk_test_notify", "PAYMONGO_BASE_URL=http://127.0.0.1:1/v1", "SINGIL_LISTEN="+listen,
		"NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=600000")
	if got := next(30 * time.Second); got != "READY=1" {
		t.Fatalf("%q\n%s", got, log)
	}
	if code, _, errs := program(t, binary, dsn, []string{"healthcheck"}, "SINGIL_LISTEN="+listen); code != 0 {
		t.Errorf("healthcheck: exit code %d: %s", code, errs)
	}
	if got := next(10 * time.Second); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	got := "WATCHDOG=1"
	for got == "WATCHDOG=1" {
		got = next(10 * time.Second)
	}
	if got != "STOPPING=1" {
		t.Errorf("%q", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked %s", r.URL)
		}
		w.WriteHeader(status)
		fmt.Fprintln(w, `{"ready":false,"reasons":["draining"]}`)
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, listen := range []string{"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port, "[::]:" + port} {
		if err := checkHealth(t.Context(), listen, time.Minute); err != nil {
			t.Errorf("%s: %v", listen, err)
		}
	}
	status = http.StatusServiceUnavailable
	var code exitCode
	if err := checkHealth(t.Context(), ":"+port, time.Minute); !errors.As(err, &code) || code.code != 1 || !strings.Contains(err.Error(), "draining") {
		t.Errorf("%v", err)
	}
	if err := checkHealth(t.Context(), "nowhere", time.Minute); !errors.As(err, &code) || code.code != 1 {
		t.Errorf("%v", err)
	}
}
