package billing

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// AuditEntry is who did what to what, and why.
type AuditEntry struct {
	Actor   string // "singil" for the daemon itself
	Action  string
	Subject string
	Reason  string
	Before  any
	After   any
}

const sqlAudit = `
INSERT INTO singil.audit_log (actor, action, subject, reason, before, after)
VALUES ($1, $2, $3, $4, $5, $6)`

// Audit writes an entry in the transaction that makes the change. The database
// chains it when that commits, so that later changes of the log can be seen. tx
// is READ COMMITTED: in an older snapshot the end of the chain may be another.
func Audit(ctx context.Context, tx pgx.Tx, e AuditEntry) error {
	document := func(v any) (any, error) {
		if v == nil {
			return nil, nil
		}
		return json.Marshal(v)
	}
	before, err := document(e.Before)
	if err != nil {
		return fmt.Errorf("audit %s: %w", e.Action, err)
	}
	after, err := document(e.After)
	if err != nil {
		return fmt.Errorf("audit %s: %w", e.Action, err)
	}
	if _, err := tx.Exec(ctx, sqlAudit, e.Actor, e.Action, e.Subject, e.Reason, before, after); err != nil {
		return fmt.Errorf("audit %s: %w", e.Action, err)
	}
	return nil
}

// AuditHead is the last link of the audit log's chain: it stands for every entry
// up to it. Whoever may switch triggers off can also make a new chain, or cut the
// end off; a head that was kept elsewhere tells.
type AuditHead struct {
	Links int64  `json:"links"` // 0: the log is empty
	Hash  string `json:"hash"`  // hexadecimal
}

const sqlAuditHead = `
SELECT c.no, encode(c.hash, 'hex') FROM singil.audit_chain c ORDER BY c.no DESC LIMIT 1`

// LoadAuditHead reads the head. Entries are chained by the database when their
// transaction commits: see migrations/0003_audit.sql.
func LoadAuditHead(ctx context.Context, q Querier) (head AuditHead, err error) {
	rows, err := q.Query(ctx, sqlAuditHead)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&head.Links, &head.Hash}, func() error { return nil })
	}
	if err != nil {
		return AuditHead{}, fmt.Errorf("load the head of the audit log: %w", err)
	}
	return head, nil
}
