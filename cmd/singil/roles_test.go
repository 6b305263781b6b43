package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/paymongo/sandbox"
)

// giveRoles makes the roles of deploy/sql in the server of a database, and has
// them get what they need in it. A login of its own is made by login.
func giveRoles(t *testing.T, pool *pgxpool.Pool, dsn string) {
	t.Helper()
	roles, err := os.ReadFile("../../deploy/sql/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), string(roles)); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Grants(t.Context(), dsn, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

// login makes a member of a role, with a password, and returns its address.
func login(t *testing.T, pool *pgxpool.Pool, dsn, role string) string {
	t.Helper()
	name := role + "_" + strings.ToLower(rand.Text()[:8])
	if _, err := pool.Exec(t.Context(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%[1]s' IN ROLE %s", name, role)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := pool.Exec(context.Background(), "DROP ROLE "+name); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, name)
	return u.String()
}

// build makes the real binary.
func build(t *testing.T, binary string) {
	t.Helper()
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
}

// program runs the binary once, as an operator would, and returns its exit code.
func program(t *testing.T, binary, dsn string, args []string, env ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(append(os.Environ(), "DATABASE_URL="+dsn), env...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	_ = cmd.Run() // the code tells
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// daemonOf starts singil run. Whatever happens, it ends with the test.
func daemonOf(t *testing.T, binary, dsn string, env ...string) (*exec.Cmd, *tail) {
	t.Helper()
	log := &tail{}
	cmd := exec.Command(binary, "run")
	cmd.Env = append(append(os.Environ(), "DATABASE_URL="+dsn), env...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
	})
	return cmd, log
}

// TestRoles runs two months of the real binary as singil_worker, with declines
// and lost answers, and then what people type as the other two.
func TestRoles(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "singil")
	build(t, binary)
	tt := newTorture(t, binary)
	tt.subscribe(6)
	giveRoles(t, tt.pool, tt.dsn)
	var worker, operator, readonly string
	for role, dsn := range map[string]*string{"singil_worker": &worker, "singil_operator": &operator, "singil_readonly": &readonly} {
		*dsn = login(t, tt.pool, tt.dsn, role)
	}
	tt.dsn = worker
	for _, kind := range []sandbox.FaultKind{sandbox.TimeoutAfter, sandbox.ErrorBefore, sandbox.ResetAfter} {
		tt.fault(sandbox.Fault{Kind: kind, Probability: 0.05, Endpoint: "payment_intents.*"})
	}
	// Everything that the daemon does with an event: store, deliver, give up.
	if code, out, errs := program(t, binary, operator, []string{"events", "endpoints", "add", "http://127.0.0.1:1/", "--reason", "drill"}); code != 0 {
		t.Fatalf("add an endpoint: %d %s %s", code, out, errs)
	}

	tt.start(0)
	end := tortureStart.AddDate(0, 1, 20)
	for tt.now.Before(end) {
		tt.quiet(3 * time.Second)
		tt.set(tt.next(end))
	}
	tt.settleAll()
	tt.heedAll()
	for _, refused := range []string{"permission denied", "must be owner", "42501"} {
		if log := tt.logs[0].String(); strings.Contains(log, refused) {
			t.Errorf("the daemon lacks a right:\n%s", log)
		}
	}
	if n := tt.number(`SELECT count(*) FROM singil.invoices WHERE status = 'open'`); n > 0 {
		t.Errorf("%d invoices are open", n)
	}
	if tt.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`) == 0 || tt.number(`SELECT count(*) FROM singil.invoices WHERE status = 'uncollectible'`) == 0 ||
		tt.number(`SELECT count(*) FROM singil.event_streams WHERE tries > 0`) == 0 {
		t.Error("too little happened to prove anything")
	}
	tt.kill(0)

	first := func(sql string) (s string) {
		t.Helper()
		if err := tt.pool.QueryRow(t.Context(), sql).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	invoice := first(`SELECT id::text FROM singil.invoices LIMIT 1`)
	line := filepath.Join(t.TempDir(), "plan.jsonl")
	if err := os.WriteFile(line, []byte(`{"type":"plan","external_id":"basic","amount_minor":19900,"currency":"PHP","interval":"month","interval_count":1}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reads := [][]string{{"check"}, {"invoices", "show", invoice}, {"migrate", "status"}}
	for _, kind := range billing.ExportKinds() {
		reads = append(reads, []string{"export", kind})
	}
	writes := [][]string{
		{"freeze", "--reason", "drill"}, {"unfreeze", "--reason", "drill"}, {"clock", "set", "2200-01-01T00:00:00Z"}, {"import", line},
		{"events", "endpoints", "add", "http://127.0.0.1:2/", "--reason", "drill"},
	}
	for _, args := range reads {
		for _, dsn := range []string{readonly, operator} {
			if code, out, errs := program(t, binary, dsn, args); code != 0 {
				t.Errorf("%q: exit code %d: %s %s", args, code, out, errs)
			}
		}
	}
	for _, args := range writes {
		if code, _, errs := program(t, binary, readonly, args); code == 0 || !strings.Contains(errs, "permission denied") {
			t.Errorf("%q as singil_readonly: exit code %d: %s", args, code, errs)
		}
		if code, out, errs := program(t, binary, operator, args); code != 0 {
			t.Errorf("%q: exit code %d: %s %s", args, code, out, errs)
		}
	}
	for _, dsn := range []string{worker, operator, readonly} {
		if code, _, errs := program(t, binary, dsn, []string{"migrate", "grants"}); code == 0 || !strings.Contains(errs, "as the role that ran singil migrate up") {
			t.Errorf("migrate grants: exit code %d: %s", code, errs)
		}
	}
}
