package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
)

// command runs singil once. Reading the configuration takes secrets out of the
// environment, so they are put there each time.
func command(t *testing.T, dsn string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("DATABASE_URL", dsn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"-n 2", `[{"no":0,"start":"2026-01-31T01:00:00Z","end":"2026-02-28T01:00:00Z"},{"no":1,"start":"2026-02-28T01:00:00Z","end":"2026-03-31T01:00:00Z"}]`},
		{"-n 1 --from 2026-03-01T00:00:00Z", `[{"no":1,"start":"2026-02-28T01:00:00Z","end":"2026-03-31T01:00:00Z"}]`},
		{"-n 1 --from 2020-03-01T00:00:00Z --interval week --count 2", `[{"no":0,"start":"2026-01-31T01:00:00Z","end":"2026-02-14T01:00:00Z"}]`},
		{"--at 2026-02-28T01:00:00Z", `{"no":1,"start":"2026-02-28T01:00:00Z","end":"2026-03-31T01:00:00Z"}`},
	} {
		var stdout, stderr, compact bytes.Buffer
		args := append(strings.Fields("periods -o json --anchor 2026-01-31T09:00:00+08:00 --time-zone Asia/Manila"), strings.Fields(tt.args)...)
		if code := run(t.Context(), args, &stdout, &stderr); code != 0 {
			t.Fatalf("%s: %d %s", tt.args, code, stderr.String())
		}
		if err := json.Compact(&compact, stdout.Bytes()); err != nil || compact.String() != tt.want {
			t.Errorf("%s: %s, want %s", tt.args, compact.String(), tt.want)
		}
	}
	for _, tt := range []struct{ args, want string }{
		{"", "--anchor is missing"},
		{"--anchor 2026-01-31T09:00:00", "no zone offset"},
		{"--anchor 2026-01-31T09:00:00Z --time-zone Asia/Manilla", "tz database"},
		{"--anchor 2026-01-31T09:00:00Z --interval hour", "hour"},
		{"--anchor 2026-01-31T09:00:00Z -n 0", "-n is 0"},
		{"--anchor 2026-01-31T09:00:00Z -o xml", "xml"},
		{"--anchor 2026-01-31T09:00:00Z --at 2026-01-31", "no zone offset"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"periods"}, strings.Fields(tt.args)...), &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), tt.want) || stdout.Len() > 0 {
			t.Errorf("%s: %d %s", tt.args, code, stderr.String())
		}
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{"31d": 744 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "0d1s": time.Second} {
		if got, err := parseSpan(s); err != nil || got != want {
			t.Errorf("%s: %s %v", s, got, err)
		}
	}
	for _, s := range []string{"", "d", "0d", "-1d", "-1h", "1.5d", "99999d", "1w"} {
		if got, err := parseSpan(s); err == nil {
			t.Errorf("%q is %s", s, got)
		}
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	for name, value := range map[string]string{"PAYMONGO_SECRET_KEY": "sk_test_hidden", "PAYMONGO_WEBHOOK_SECRET": "whsk_hidden", "SINGIL_LISTEN": "127.0.0.1:9"} {
		t.Setenv(name, value)
	}
	code, stdout, stderr := command(t, "postgres://ana:hidden@db.example/billing", "config", "-o", "json")
	if code != 0 || strings.Contains(stdout+stderr, "hidden") {
		t.Errorf("%d %s %s", code, stdout, stderr)
	}
	for _, want := range []string{`"PAYMONGO_SECRET_KEY": "***"`, `"PAYMONGO_WEBHOOK_SECRET": "***"`, `"SINGIL_LISTEN": "127.0.0.1:9"`, `"postgres://ana:***@db.example:5432/billing"`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%s not in %s", want, stdout)
		}
	}
	t.Setenv("SINGIL_LISTN", "x")
	if code, _, stderr := command(t, "", "config"); code != 7 || !strings.Contains(stderr, "SINGIL_LISTN") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"version", "-o", "json"}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), `"schema": {`) {
		t.Errorf("%d %s %s", code, stdout.String(), stderr.String())
	}
}

const importedLines = `{"type":"plan","external_id":"pro","name":"Pro","amount_minor":49900,"currency":"PHP","interval":"month","interval_count":1}
{"type":"customer","external_id":"u1","paymongo_customer_id":"cus_1","name":"Ana","email":"ana@example.com"}
{"type":"payment_method","customer":"u1","paymongo_payment_method_id":"pm_1","brand":"visa","last4":"4345","exp_month":12,"exp_year":2030}
{"type":"subscription","external_id":"s1","customer":"u1","plan":"pro","anchor":"2026-01-31T09:00:00+08:00","time_zone":"Asia/Manila","bill_from":"2026-02-28T09:00:00+08:00"}
`

// An operator's first day: every command in turn, on one database.
func TestOperator(t *testing.T) {
	dsn := pgtest.DSN(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	file := filepath.Join(t.TempDir(), "import.jsonl")
	write := func(lines string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tx := func(do func(pgx.Tx) error) {
		t.Helper()
		if err := pgx.BeginFunc(t.Context(), pool, do); err != nil {
			t.Fatal(err)
		}
	}
	step := func(want int, contains string, args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, dsn, args...)
		if code != want || !strings.Contains(stdout+stderr, contains) {
			t.Errorf("singil %s: exit code %d, want %d; %q not in:\n%s%s", strings.Join(args, " "), code, want, contains, stdout, stderr)
		}
		return stdout
	}
	write(importedLines)

	step(0, "core", "migrate", "status")
	step(0, "up to date", "migrate", "up")
	step(4, "start singil run once", "clock", "set", "2026-02-28T09:00:00+08:00")
	tx(func(tx pgx.Tx) error { return billing.Bind(t.Context(), tx, billing.EnvironmentDev, false) })

	step(0, `"virtual": true`, "clock", "set", "2026-02-28T09:00:00+08:00", "-o", "json")
	step(0, "2026-03-01T13:00:00Z", "clock", "advance", "1d12h", "--reason", "to see March")
	step(0, "virtual clock", "audit", "list", "--action", "set_clock")
	step(0, "to see March", "audit", "list", "--action", "set_clock")
	step(4, "does not go back", "clock", "set", "2026-02-28T09:00:00+08:00")
	step(2, "duration", "clock", "advance", "soon")
	step(0, "(virtual)", "clock", "show")

	step(3, "no such file", "import", file+".gone")
	step(0, "1 periods due at once", "import", file, "--actor", "ana")
	step(0, `"unchanged": 1`, "import", file, "-o", "json")
	write(strings.Replace(importedLines, "ana@", "ana.cruz@", 1))
	step(0, `"updated": 1`, "import", file, "-o", "json", "--reason", "she moved")
	step(0, "she moved: lines 1 to 4", "audit", "list", "--action", "import")
	write(importedLines + "{}\n")
	step(1, "line 5: type: is missing", "import", file)
	step(5, "1 of 5 lines", "import", file, "--partial")

	step(0, `{"external_id":"s1"`, "export", "subscriptions", "--status", "active")
	step(2, "not a status", "export", "subscriptions", "--status", "happy")
	step(2, "coupons", "export", "coupons")

	now := time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)
	tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, now, 10)
		return err
	})
	step(0, "₱499.00", "invoices", "list")
	var invoices []struct{ ID string }
	if err := json.Unmarshal([]byte(step(0, "s1", "invoices", "list", "-o", "json")), &invoices); err != nil || len(invoices) != 1 {
		t.Fatal(err, invoices)
	}
	id := invoices[0].ID
	step(0, "2026-02-28 09:00:00 +08:00", "invoices", "show", id)
	step(3, "not found", "invoices", "show", "i1")
	step(2, "--limit", "invoices", "list", "--limit", "0")
	step(2, "only open invoices wait", "invoices", "list", "--status", "paid", "--waiting-for", "customer")

	step(0, "with pm_1", "retry", id, "--reason", "they called")
	step(4, "none of this customer's", "retry", id, "--payment-method", "pm_2", "--reason", "they called")
	step(3, "not found", "retry", "i1", "--reason", "they called")
	step(4, "was asked for already", "retry", id, "--reason", "they called")
	step(4, "all 2", "retry", id, "i1", "-o", "json", "--reason", "they called")
	step(0, "", "export", "invoices", "--since", "2026-03-01T00:00:00Z")

	if code, _, stderr := command(t, "postgres://nobody@127.0.0.1:1/none", "clock", "show"); code != 6 {
		t.Errorf("no database: %d %s", code, stderr)
	}
	if code, _, stderr := command(t, "", "clock", "show"); code != 7 || !strings.Contains(stderr, "DATABASE_URL") {
		t.Errorf("no address: %d %s", code, stderr)
	}
}

func TestImportFromStandardInput(t *testing.T) {
	t.Parallel()
	source, done, err := openSource(strings.NewReader(importedLines), "-")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	var stdout, stderr bytes.Buffer
	if err := (importFlags{acting: acting{actor: "ana"}}).run(t.Context(), pgtest.DB(t), source, "-", "json", &stdout, &stderr); err != nil || !strings.Contains(stdout.String(), `"lines": 4`) {
		t.Errorf("%v %s %s", err, stdout.String(), stderr.String())
	}
}

func TestFreezeAndUnfreeze(t *testing.T) {
	dsn := pgtest.DSN(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	state := func() (got billing.Instance) {
		t.Helper()
		got, err := billing.LoadInstance(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return errors.Join(billing.Bind(t.Context(), tx, billing.EnvironmentDev, false), billing.TripBreaker(t.Context(), tx, "401"))
	}); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, dsn, "freeze"); code != 2 || state().Frozen {
		t.Errorf("frozen without a reason: %d %s", code, stderr)
	}
	if code, _, stderr := command(t, dsn, "freeze", "--reason", "drill", "--actor", "ana"); code != 0 || !state().Frozen || state().FrozenReason != "drill" {
		t.Errorf("freeze: %d %s %+v", code, stderr, state())
	}
	if code, _, stderr := command(t, dsn, "unfreeze", "--reason", "drill over", "--actor", "ana"); code != 0 || state().Frozen || state().BreakerOpen {
		t.Errorf("unfreeze: %d %s %+v", code, stderr, state())
	}
	var audited int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM singil.audit_log WHERE actor = 'ana'`).Scan(&audited); err != nil || audited != 3 {
		t.Errorf("%d audit entries, want freeze, unfreeze and close_breaker: %v", audited, err)
	}
}
