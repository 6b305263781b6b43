package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// AuditFilter narrows the audit log. What is empty does not.
type AuditFilter struct {
	Actor, Action, Subject string
	Since                  time.Time
	// Before and Behind are entries: only older ones, the newest first, or only
	// newer ones, the oldest first.
	Before, Behind int64
	Limit          int
}

// AuditLine is an entry with its link in the chain.
type AuditLine struct {
	ID      int64           `json:"id"`
	Link    *int64          `json:"link"` // null: not chained, which singil check tells of
	At      Stamp           `json:"at"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Subject string          `json:"subject"`
	Reason  string          `json:"reason"`
	Before  json.RawMessage `json:"before"`
	After   json.RawMessage `json:"after"`
	Hash    *string         `json:"hash"`
}

const sqlAuditLines = `
SELECT a.id, c.no, a.at, a.actor, a.action, a.subject, a.reason, a.before, a.after, encode(c.hash, 'hex')
FROM singil.audit_log a
LEFT JOIN singil.audit_chain c ON c.audit_id = a.id
WHERE ($1 = '' OR a.actor = $1) AND ($2 = '' OR a.action = $2) AND ($3 = '' OR a.subject = $3) AND ($4::timestamptz IS NULL OR a.at >= $4)
  AND ($5 = 0 OR a.id < $5) AND a.id > $6
ORDER BY CASE WHEN $6 > 0 THEN a.id END, a.id DESC
LIMIT $7`

// BrowseAudit is a page of the audit log.
func BrowseAudit(ctx context.Context, q Querier, f AuditFilter) ([]AuditLine, error) {
	if !browsable(f.Actor, f.Action, f.Subject) {
		return []AuditLine{}, nil
	}
	var since *time.Time
	if !f.Since.IsZero() {
		since = &f.Since
	}
	return browse[AuditLine](ctx, q, "the audit log", sqlAuditLines, f.Actor, f.Action, f.Subject, since, f.Before, f.Behind, f.Limit)
}

// InboxFilter narrows the inbox of webhooks. What is empty does not.
type InboxFilter struct {
	Type, Result string
	Unprocessed  bool
	After        string // an event: only those behind it, in the order of the list
	Limit        int
}

// InboxLine is a delivery, without its body.
type InboxLine struct {
	ID               string  `json:"event_id"`
	Type             string  `json:"type"`
	ResourceID       string  `json:"resource_id"`
	ProviderIntentID string  `json:"payment_intent_id"`
	Stale            bool    `json:"stale"`
	Livemode         bool    `json:"livemode"`
	ReceivedAt       Stamp   `json:"received_at"`
	Tries            int     `json:"tries"`
	NextTryAt        Stamp   `json:"next_try_at"`
	ProcessedAt      Stamp   `json:"processed_at"`
	Result           *string `json:"result"`
}

const sqlInboxLines = `
SELECT w.event_id, w.type, w.resource_id, w.provider_intent_id, w.stale, w.livemode, w.received_at, w.tries, w.next_try_at, w.processed_at, w.result
FROM singil.webhook_events w
WHERE ($1 = '' OR w.type = $1) AND ($2 = '' OR w.result = $2) AND (NOT $3 OR w.processed_at IS NULL)
  AND ($4 = '' OR (w.received_at, w.event_id) < (SELECT a.received_at, a.event_id FROM singil.webhook_events a WHERE a.event_id = $4))
ORDER BY w.received_at DESC, w.event_id DESC
LIMIT $5`

// BrowseInbox is a page of the inbox, newest first.
func BrowseInbox(ctx context.Context, q Querier, f InboxFilter) ([]InboxLine, error) {
	if !browsable(f.Type, f.Result, f.After) {
		return []InboxLine{}, nil
	}
	return browse[InboxLine](ctx, q, "the inbox", sqlInboxLines, f.Type, f.Result, f.Unprocessed, f.After, f.Limit)
}

const sqlReplayInbox = `
UPDATE singil.webhook_events w
SET next_try_at = $2, processed_at = NULL, result = NULL
FROM (SELECT event_id, result FROM singil.webhook_events WHERE event_id = $1 FOR UPDATE) was
WHERE w.event_id = was.event_id
RETURNING COALESCE(was.result, '')`

// ReplayInbox has an event of the inbox processed again, by the next sweep. It is
// a wake-up like the first: what is true is asked of the provider. ErrNotFound.
func ReplayInbox(ctx context.Context, tx pgx.Tx, id string, act Act) error {
	missing := fmt.Errorf("webhook event %q: %w", clip(id), ErrNotFound)
	if !storable(id) {
		return missing
	}
	var was string
	switch err := tx.QueryRow(ctx, sqlReplayInbox, id, act.Now).Scan(&was); {
	case errors.Is(err, pgx.ErrNoRows):
		return missing
	case err != nil:
		return fmt.Errorf("replay webhook event %s: %w", id, err)
	}
	return Audit(ctx, tx, AuditEntry{
		Actor: act.Actor, Action: "replay_webhook", Subject: id, Reason: act.Reason, Before: fields{"result": was}, After: fields{"next_try_at": act.Now.UTC()},
	})
}

const sqlOpenOutcomes = `
SELECT i.id
FROM singil.invoices i
WHERE i.status = 'open' AND i.waiting_for = 'provider'
   OR i.id IN (SELECT a.invoice_id FROM singil.attempts a WHERE a.state IN ('armed', 'review', 'needs_action'))
ORDER BY i.id
LIMIT $1`

// OpenOutcomes are the invoices with an attempt whose outcome is open, oldest first.
func OpenOutcomes(ctx context.Context, q Querier, limit int) ([]uuid.UUID, error) {
	rows, err := q.Query(ctx, sqlOpenOutcomes, limit)
	if err == nil {
		var ids []uuid.UUID
		ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err == nil {
			return ids, nil
		}
	}
	return nil, fmt.Errorf("list open outcomes: %w", err)
}

// DoctorFacts is what the books tell of whether charging can work.
type DoctorFacts struct {
	DatabaseNow    time.Time
	Recovery       string // why one is needed
	ReadOnly       bool
	LastWebhook    *time.Time
	Unprocessed    int
	WantedCVC      int // attempts of the last 30 days that a CVC was wanted for
	WantedCustomer int // and those that the customer had to authorise
	Attempts       int
	Refused        int // and those that the account may not make
}

const sqlDoctor = `
SELECT clock_timestamp(), COALESCE((SELECT i.recovery_needed FROM singil.instance i), ''),
       pg_is_in_recovery() OR NOT has_table_privilege('singil.invoices', 'UPDATE'),
       (SELECT max(w.received_at) FROM singil.webhook_events w),
       (SELECT count(*) FROM singil.webhook_events w WHERE w.processed_at IS NULL),
       count(*) FILTER (WHERE a.decline_code IN ('cvc_invalid', 'cvc_incorrect', 'cvc_required')),
       count(*) FILTER (WHERE a.state = 'needs_action'),
       count(*), count(*) FILTER (WHERE a.decline_code = $2)
FROM singil.attempts a
WHERE a.armed_at > $1`

// LookDoctor reads what singil doctor wants to know.
func LookDoctor(ctx context.Context, q Querier, now time.Time) (f DoctorFacts, err error) {
	rows, err := q.Query(ctx, sqlDoctor, now.Add(-window30d), string(DeclineCodeNotAllowed))
	if err == nil {
		f, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[DoctorFacts])
	}
	if err != nil {
		return f, fmt.Errorf("look at the books: %w", err)
	}
	return f, nil
}
