package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
)

func TestCheck(t *testing.T) {
	dsn := pgtest.DSN(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	check := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := command(t, dsn, append([]string{"check"}, args...)...)
		if code != want {
			t.Errorf("exit code %d, want %d: %s%s", code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	check(0) // before the first singil run
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return billing.Bind(t.Context(), tx, billing.EnvironmentDev, false) }); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, dsn, "freeze", "--reason", "drill"); code != 0 {
		t.Fatal(stderr)
	}
	table, stderr := check(0)
	if lines := strings.Count(table, "\n"); lines != len(billing.AllInvariants())+3 || stderr != "" || !strings.Contains(table, "audit log  link 1") {
		t.Errorf("%d lines of\n%s%s", lines, table, stderr)
	}

	if _, err := pool.Exec(t.Context(), `INSERT INTO singil.payments (payment_id, status, amount_minor, currency, livemode, source)
		SELECT 'pay_' || n, 'paid', 49900, 'PHP', false, 'webhook' FROM generate_series(10, 21) n`); err != nil {
		t.Fatal(err)
	}
	table, stderr = check(1)
	if !strings.Contains(table, "\npayment_without_invoice  12 ") || !strings.Contains(table, "\n  pay_10  49900 PHP, seen at") || strings.Contains(table, "pay_20") || !strings.Contains(table, "and 2 more") {
		t.Error(table)
	}
	if !strings.Contains(stderr, "1 of 19 invariants are broken: payment_without_invoice") || !strings.Contains(stderr, "singil check --help") {
		t.Error(stderr)
	}
	var got checkResult
	stdout, _ := check(1, "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got.Invariants) != len(billing.AllInvariants()) || got.AuditHead.Links != 1 {
		t.Errorf("%v %+v", err, got)
	}
	for _, i := range got.Invariants {
		want := 0
		if i.Name == "payment_without_invoice" {
			want = 12
		}
		if i.Count != want || i.First == nil || len(i.First) != min(want, 10) || i.Error != "" || i.Capped {
			t.Errorf("%+v", i)
		}
	}

	if _, err := pool.Exec(t.Context(), `DELETE FROM singil.instance; DROP TABLE singil.skipped_periods`); err != nil {
		t.Fatal(err)
	}
	if table, stderr = check(1); !strings.Contains(table, "missing_period           not checked ") || !strings.Contains(stderr, "1 could not be checked: missing_period") {
		t.Error(table, stderr)
	}
	check(2, "-o", "xml")
	check(2, "--timeout", "0s")
}

// TestCheckHelpsWithEveryInvariant: whoever finds one broken at night reads what to do.
func TestCheckHelpsWithEveryInvariant(t *testing.T) {
	t.Parallel()
	long := checkCommand().Long
	for _, i := range billing.AllInvariants() {
		if !strings.Contains(long, i.Name) {
			t.Errorf("the help says nothing of %s", i.Name)
		}
	}
}
