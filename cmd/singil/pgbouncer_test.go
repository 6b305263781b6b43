package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo/sandbox"
)

// bouncer runs a PgBouncer in front of a database until the test ends, with few
// connections behind it, and returns the database's address there.
func bouncer(t *testing.T, dsn string, settings ...string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program = "/usr/sbin/pgbouncer"; exec.Command(program, "--version").Run() != nil {
			t.Skip("NOT TESTED: pgbouncer is not installed (Debian: apt-get install pgbouncer)")
		}
	}
	behind, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(free.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	target := fmt.Sprintf("%[1]s = host='%[2]s' port=%[3]d dbname='%[1]s' user='%[4]s'", behind.Database, behind.Host, behind.Port, behind.User)
	if behind.Password != "" { // it takes no empty one
		target += fmt.Sprintf(" password='%s'", behind.Password)
	}
	lines := append([]string{
		"[databases]", target,
		"[pgbouncer]",
		"listen_addr = " + host, "listen_port = " + port, "unix_socket_dir =", "auth_type = any", "max_client_conn = 500", "default_pool_size = 5",
	}, settings...)
	file := filepath.Join(t.TempDir(), "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{file}
	if os.Getuid() == 0 { // it does not run as root, and takes another user once it has read the file
		args = []string{"-u", "nobody", file}
	}
	log := &tail{}
	cmd := exec.Command(program, args...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-ended
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err == nil {
			_ = conn.Close()
			break
		}
		select {
		case <-ended:
			t.Fatalf("pgbouncer has ended: %s", log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v: %s", err, log)
		}
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = net.JoinHostPort(host, port)
	query := u.Query()
	query.Set("sslmode", "disable")
	u.RawQuery = query.Encode()
	return u.String()
}

// TestBehindPgBouncer has two daemons and an operator reach the database through
// a pooler in transaction mode alone: each transaction gets any of five sessions.
func TestBehindPgBouncer(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "singil")
	build(t, binary)
	tt := newTorture(t, binary)
	tt.subscribe(12)
	tt.dsn = withSetting(t, bouncer(t, tt.dsn, "pool_mode = transaction"), "default_query_exec_mode", "cache_describe")
	for _, kind := range []sandbox.FaultKind{sandbox.TimeoutAfter, sandbox.ErrorBefore, sandbox.ResetAfter} {
		tt.fault(sandbox.Fault{Kind: kind, Probability: 0.05, Endpoint: "payment_intents.*"})
	}
	tt.start(0)
	tt.start(1)
	end := tortureStart.AddDate(0, 2, 10)
	for ticks := 0; tt.now.Before(end); ticks++ {
		tt.quiet(3 * time.Second)
		if ticks > 10 && len(tt.alive()) == 0 {
			t.Fatalf("no daemon runs:\n%s%s", tt.logs[0], tt.logs[1])
		}
		tt.set(tt.next(end))
	}
	tt.settleAll()
	tt.heedAll()
	for i, log := range tt.logs {
		if !strings.Contains(log.String(), "this session has no limits") {
			t.Errorf("daemon %d does not miss its limits", i)
		}
		if said := log.String(); strings.Contains(said, "prepared statement") || strings.Contains(said, "SQLSTATE") || strings.Contains(said, `"level":"ERROR"`) {
			t.Errorf("daemon %d:\n%s", i, said)
		}
	}
	line := filepath.Join(t.TempDir(), "plan.jsonl")
	if err := os.WriteFile(line, []byte(`{"type":"plan","external_id":"basic","amount_minor":19900,"currency":"PHP","interval":"month","interval_count":1}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"check", "import " + line, "why s0", "forecast", "audit list", "run-due --dry-run", "retry --status open --dry-run", "invoices list", "export invoices", "freeze --reason drill", "unfreeze --reason drill", "doctor"} {
		if code, out, errs := program(t, binary, tt.dsn, strings.Fields(args), "PAYMONGO_SECRET_KEY=sk_test_torture", "PAYMONGO_BASE_URL="+tt.url); code != 0 && args != "doctor" || strings.Contains(errs, "SQLSTATE") {
			t.Errorf("%s: exit code %d: %s %s", args, code, out, errs)
		}
	}
	tt.report(0)
}

// TestPoolerIsNotGuessed: what does not go through a pooler says so, and what to do.
func TestPoolerIsNotGuessed(t *testing.T) {
	direct := pgtest.DSN(t)
	through := bouncer(t, direct, "pool_mode = transaction")
	dropping := bouncer(t, direct, "pool_mode = session", "ignore_startup_parameters = statement_timeout, lock_timeout, idle_in_transaction_session_timeout, plan_cache_mode")
	for _, tt := range []struct {
		dsn, args string
		code      int
		want      string
	}{
		{through, "check", 6, "default_query_exec_mode=cache_describe"},
		{through, "migrate up", 6, "PostgreSQL itself"},
		{dropping, "migrate up", 1, "PostgreSQL itself"},
		{withSetting(t, through, "default_query_exec_mode", "cache_describe"), "check", 0, ""},
		{withSetting(t, direct, "default_query_exec_mode", "describe_exec"), "check", 7, "cache_describe"},
		{withSetting(t, direct, "default_query_exec_mode", "exec"), "check", 7, "cache_describe"},
	} {
		if code, stdout, stderr := command(t, tt.dsn, strings.Fields(tt.args)...); code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s at %s: exit code %d, want %d with %q: %s%s", tt.args, tt.dsn, code, tt.code, tt.want, stdout, stderr)
		}
	}
}
