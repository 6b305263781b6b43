package billing_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// TestAuditChainOfManyWriters: entries of transactions that run at once and hold
// each other's rows in any order are chained without a gap and without a deadlock,
// and those that are rolled back leave nothing.
func TestAuditChainOfManyWriters(t *testing.T) {
	t.Parallel()
	l := setup(t)
	const writers, each = 8, 20
	errRollback := errors.New("rolled back")
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range each {
				err := pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) error {
					entry := billing.AuditEntry{Actor: fmt.Sprint("writer ", w), Action: "test", Subject: fmt.Sprint(n), Reason: "ünïcode", After: map[string]any{"n": n}}
					lock := func(table string) error {
						_, err := tx.Exec(context.Background(), "SELECT FROM singil."+table+" FOR UPDATE")
						return err
					}
					// The first half writes its entry before it takes the lock that the others
					// hold while they write theirs.
					if w < writers/2 {
						if err := errors.Join(billing.Audit(context.Background(), tx, entry), lock("customers")); err != nil {
							return err
						}
					} else if err := errors.Join(lock("customers"), billing.Audit(context.Background(), tx, entry)); err != nil {
						return err
					}
					if n%5 == 0 {
						return errRollback
					}
					return billing.Audit(context.Background(), tx, entry)
				})
				if err != nil && !errors.Is(err, errRollback) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	const want = writers * each * 4 / 5 * 2
	l.want(fmt.Sprint(want, " ", want, " ", want), `SELECT concat_ws(' ', (SELECT count(*) FROM singil.audit_log), count(*), max(no)) FROM singil.audit_chain`)
	if broken := l.broken(noon); len(broken) > 0 {
		t.Errorf("broken are %v", broken)
	}
	// The text that is hashed is the same for every session.
	l.tx(func(tx pgx.Tx) error {
		for _, set := range []string{"SET LOCAL TimeZone = 'Asia/Manila'", "SET LOCAL DateStyle = 'German'", "SET LOCAL bytea_output = 'escape'"} {
			if _, err := tx.Exec(t.Context(), set); err != nil {
				return err
			}
		}
		broken, err := billing.Invariants(t.Context(), tx, noon)
		if len(broken) > 0 {
			t.Errorf("broken are %v", broken)
		}
		return err
	})
	head, err := billing.LoadAuditHead(t.Context(), l.pool)
	if err != nil || head.Links != want || len(head.Hash) != 64 {
		t.Errorf("%+v, %v", head, err)
	}
	for _, sql := range []string{`DELETE FROM singil.audit_chain`, `UPDATE singil.audit_chain SET no = no + 1`, `TRUNCATE singil.audit_chain`} {
		if _, err := l.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s went through", sql)
		}
	}
}

// TestAuditChainOfAnOldLog: what the migration does with entries that are there.
func TestAuditChainOfAnOldLog(t *testing.T) {
	t.Parallel()
	l := books(t)
	l.tamper(`TRUNCATE singil.audit_chain`, `SELECT singil.chain_audit_entry(a) FROM singil.audit_log a ORDER BY a.id`)
	l.want("1 freeze, 2 unfreeze", `SELECT string_agg(no || ' ' || action, ', ' ORDER BY no) FROM singil.audit_chain JOIN singil.audit_log a ON a.id = audit_id`)
	if broken := l.broken(later); len(broken) > 0 {
		t.Errorf("broken are %v", broken)
	}
}

func TestAuditHeadOfAnEmptyLog(t *testing.T) {
	t.Parallel()
	l := setup(t)
	if head, err := billing.LoadAuditHead(t.Context(), l.pool); err != nil || head != (billing.AuditHead{}) {
		t.Errorf("%+v, %v", head, err)
	}
}
