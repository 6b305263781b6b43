package billing

import (
	"context"
	"fmt"
	"strings"
)

// Completion is an id to choose, and what it is.
type Completion struct {
	ID    string
	About string
}

// What can be completed: one statement each, the newest first, by a pattern.
var completions = map[string]string{
	"subscription": `
SELECT s.external_id, s.status FROM singil.subscriptions s WHERE s.external_id LIKE $1 ORDER BY s.id DESC LIMIT 50`,
	"customer": `
SELECT c.external_id, '' FROM singil.customers c WHERE c.external_id LIKE $1 ORDER BY c.id DESC LIMIT 50`,
	"invoice": `
SELECT i.id::text, s.external_id || ' period ' || i.period_no || ', ' || i.status
FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.id::text LIKE $1 AND i.status <> 'paid' ORDER BY i.id DESC LIMIT 50`,
	"attempt": `
SELECT a.id::text, a.state FROM singil.attempts a WHERE a.id::text LIKE $1 ORDER BY a.id DESC LIMIT 50`,
	"payment": `
SELECT p.payment_id, p.status FROM singil.payments p WHERE p.payment_id LIKE $1 AND p.status = 'paid' ORDER BY p.seen_at DESC LIMIT 50`,
	"payment_method": `
SELECT pm.provider_payment_method_id, pm.brand || ' ' || pm.last4
FROM singil.payment_methods pm WHERE pm.provider_payment_method_id LIKE $1 AND pm.status = 'active' ORDER BY pm.id DESC LIMIT 50`,
	"webhook_event": `
SELECT w.event_id, w.type FROM singil.webhook_events w WHERE w.event_id LIKE $1 ORDER BY w.received_at DESC LIMIT 50`,
	"endpoint": `
SELECT e.id::text, e.url || CASE WHEN e.enabled THEN '' ELSE ', off' END
FROM singil.endpoints e WHERE e.id::text LIKE $1 ORDER BY e.id DESC LIMIT 50`,
}

// Complete gives the newest ids that begin with prefix: of a subscription,
// customer, invoice (not paid), attempt, payment, payment_method, webhook_event
// or endpoint.
func Complete(ctx context.Context, q Querier, kind, prefix string) ([]Completion, error) {
	sql, known := completions[kind]
	if !known {
		return nil, fmt.Errorf("there are no %q to complete", clip(kind))
	}
	if !browsable(prefix) {
		return nil, nil
	}
	pattern := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(prefix) + "%"
	return browse[Completion](ctx, q, kind+"s", sql, pattern)
}
