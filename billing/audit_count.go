package billing

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
)

// OperatorActions are the actions in the audit log that people take.
func OperatorActions() []string {
	return []string{
		"add_endpoint", "adopt_intent", "bulk_retry", "cancel_subscription", "change_plan", "close_breaker", "create_plan", "create_subscription",
		"create_token", "disable_endpoint", "enable_endpoint", "freeze", "import", "mark_uncollectible", "pause_subscription", "reconcile",
		"refresh_payment_methods", "refund_payment", "register_webhook", "remove_payment_method", "reopen_invoice", "replay_events", "replay_webhook",
		"resume_streams", "resume_subscription", "retry_invoice", "revoke_token", "set_clock",
		"trip_breaker", "unfreeze", "unpark_subscription", "unschedule_cancel", "void_invoice",
		// With the customer present.
		"adopt_card_setup", "create_customer", "delete_customer", "finish_card_setup", "link_customer", "open_checkout", "open_payment_page",
		"prefer_payment_method", "start_card_setup",
	}
}

// auditLateness is how long after its entry was numbered a transaction may commit
// and still be counted: longer than any of ours.
const auditLateness = 10 * time.Minute

// auditAtOnce bounds a look. More actions than that in ten minutes are counted a
// little later.
const auditAtOnce = 10_000

// AuditCount counts operators' actions from when it first looked, whoever took
// them and in whatever process. Its zero value is ready. A look reads the entries
// of the last minutes and those since the last look, by primary key: the length
// of the log does not matter.
type AuditCount struct {
	begun   bool
	done    int64          // entries up to this id are in counted for good
	counted map[string]int // by action
	recent  map[string]int // behind done
}

// Total is the count of each action, as of the last look.
func (c AuditCount) Total() map[string]int {
	total := map[string]int{}
	for _, counts := range []map[string]int{c.counted, c.recent} {
		for action, n := range counts {
			total[action] += n
		}
	}
	return total
}

const sqlAuditEnd = `SELECT COALESCE(max(id), 0) FROM singil.audit_log`

// A number may be committed after a higher one, so what is recent is counted
// anew each time. The limit is what keeps to the index, whatever the planner knows.
const sqlAuditCount = `
WITH new AS MATERIALIZED (
  SELECT id, at, actor, action FROM singil.audit_log WHERE id > $1 ORDER BY id LIMIT $3
), done AS (
  SELECT max(id) AS id FROM new WHERE at < clock_timestamp() - $2::interval
)
SELECT COALESCE(d.id, $1), n.action, count(*) FILTER (WHERE n.id <= d.id), count(*) FILTER (WHERE (n.id <= d.id) IS NOT TRUE)
FROM new n
CROSS JOIN done d
WHERE n.actor <> 'singil'
GROUP BY 1, 2`

// Look is the count after one more look.
func (c AuditCount) Look(ctx context.Context, q Querier) (AuditCount, error) {
	look := c.again
	if !c.begun {
		look = begin
	}
	next, err := look(ctx, q)
	if err != nil {
		return c, fmt.Errorf("look at the audit log: %w", err)
	}
	return next, nil
}

func begin(ctx context.Context, q Querier) (AuditCount, error) {
	rows, err := q.Query(ctx, sqlAuditEnd)
	if err != nil {
		return AuditCount{}, err
	}
	end, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	return AuditCount{begun: true, done: end}, err
}

func (c AuditCount) again(ctx context.Context, q Querier) (AuditCount, error) {
	next := AuditCount{begun: true, done: c.done, counted: map[string]int{}, recent: map[string]int{}}
	maps.Copy(next.counted, c.counted)
	rows, err := q.Query(ctx, sqlAuditCount, c.done, auditLateness, auditAtOnce)
	if err != nil {
		return AuditCount{}, err
	}
	var action string
	var counted, recent int
	_, err = pgx.ForEachRow(rows, []any{&next.done, &action, &counted, &recent}, func() error {
		next.counted[action] += counted
		next.recent[action] += recent
		return nil
	})
	return next, err
}
