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

// Audit writes an entry in the transaction that makes the change.
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
