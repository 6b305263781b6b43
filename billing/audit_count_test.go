package billing_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func TestAuditCount(t *testing.T) {
	t.Parallel()
	l := setup(t)
	write := func(q interface{ Conn() *pgx.Conn }, actor, action, age string) {
		t.Helper()
		if _, err := q.Conn().Exec(t.Context(), `
			INSERT INTO singil.audit_log (actor, action, subject, reason, at) VALUES ($1, $2, '', '', clock_timestamp() - $3::interval)`, actor, action, age); err != nil {
			t.Fatal(err)
		}
	}
	var count billing.AuditCount
	look := func(want map[string]int) {
		t.Helper()
		var err error
		if count, err = count.Look(t.Context(), l.pool); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, count.Total()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	conn, err := l.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	write(conn, "ana", "freeze", "1 hour")
	look(map[string]int{}) // what was before is not counted

	slow, err := l.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	write(slow, "ana", "import", "0")
	write(conn, "ana", "unfreeze", "0")
	write(conn, "singil", "freeze", "0")
	look(map[string]int{"unfreeze": 1})
	if err := slow.Commit(t.Context()); err != nil { // a lower number, and later
		t.Fatal(err)
	}
	look(map[string]int{"unfreeze": 1, "import": 1})
	write(conn, "ana", "retry_invoice", "1 hour")
	for range 3 { // counted for good, and once
		look(map[string]int{"unfreeze": 1, "import": 1, "retry_invoice": 1})
	}
	write(conn, "ben", "retry_invoice", "0")
	look(map[string]int{"unfreeze": 1, "import": 1, "retry_invoice": 2})
}

// TestOperatorActions: every action that the source writes has a series of its own.
func TestOperatorActions(t *testing.T) {
	t.Parallel()
	written := regexp.MustCompile(`Action: +"(\w+)"|\.store\(ctx, tx, act, "(\w+)"`)
	found := map[string]bool{}
	for _, pattern := range []string{"*.go", "../cmd/singil/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range written.FindAllStringSubmatch(string(source), -1) {
				found[m[1]+m[2]] = true
			}
		}
	}
	for action := range found {
		if !slices.Contains(billing.OperatorActions(), action) {
			t.Errorf("%s is not in OperatorActions", action)
		}
	}
	for _, action := range billing.OperatorActions() {
		if !found[action] {
			t.Errorf("nobody writes %s", action)
		}
	}
}
