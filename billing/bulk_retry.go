package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// RetryFilter selects the invoices of a bulk retry.
type RetryFilter struct {
	InvoiceFilter // Limit is the most that are retried; After is not used
	// MaxMinor is the most that is retried together, in centavos; 0: no bound.
	MaxMinor int64
	// Rest leaves out what was attempted so shortly ago. It also makes a bulk that
	// is given twice pass over what the first has tried.
	Rest time.Duration
}

// PlannedRetry is an invoice that a bulk would retry.
type PlannedRetry struct {
	Invoice       string   `json:"invoice"`
	Subscription  string   `json:"subscription"`
	PeriodNo      int      `json:"period_no"`
	AmountMinor   int64    `json:"amount_minor"`
	Currency      Currency `json:"currency"`
	DeclineCode   string   `json:"decline_code"` // empty: never declined
	PaymentMethod string   `json:"payment_method"`
}

// RetryGroup is how many invoices have something in common, and what they are worth.
type RetryGroup struct {
	Name        string `json:"name"`
	Count       int    `json:"count"`
	AmountMinor int64  `json:"amount_minor"`
	Example     string `json:"example,omitempty"` // why, of one of them
}

// RetryPlan is what a bulk retry would do. Nothing is durable.
type RetryPlan struct {
	Retries     []PlannedRetry `json:"retries"`
	AmountMinor int64          `json:"amount_minor"`
	ByDecline   []RetryGroup   `json:"by_decline_code"`
	LeftOut     []RetryGroup   `json:"left_out"` // by RefusalKind
	// Looked is how many invoices the filter found; More tells that it found more
	// than may be retried at once.
	Looked int  `json:"looked"`
	More   bool `json:"more"`
	Budget
}

// Budget is what may still be charged on a day, in UTC.
type Budget struct {
	LeftCount int64 `json:"budget_left_count"`
	LeftMinor int64 `json:"budget_left_minor"`
}

const sqlBudgetLeft = `
SELECT COALESCE(b.max_count, i.day_max_count)::bigint - COALESCE(b.used_count, 0), COALESCE(b.max_minor, i.day_max_minor) - COALESCE(b.used_minor, 0)
FROM singil.instance i
LEFT JOIN singil.charge_budget b ON b.livemode = i.livemode AND b.day = $1`

// BudgetLeft is what may still be charged on the day of now.
func BudgetLeft(ctx context.Context, q Querier, now time.Time) (b Budget, err error) {
	rows, err := q.Query(ctx, sqlBudgetLeft, now.UTC().Truncate(24*time.Hour))
	if err == nil {
		b, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Budget])
	}
	if err != nil {
		return Budget{}, fmt.Errorf("read the day's budget: %w", err)
	}
	return b, nil
}

// The oldest debts first.
const sqlPlanRetries = `
SELECT i.id, i.status, COALESCE(i.reason, ''), i.attempt_trigger, i.claimed, s.status, COALESCE(i.decline_code, '')
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
JOIN singil.customers c ON c.id = i.customer_id` + whereInvoices + `
  AND ($8::uuid IS NULL OR i.id > $8)
ORDER BY i.id
LIMIT $9`

// retriesAtOnce bounds what is loaded together, and retriesLooked what one plan
// looks at: behind that, the filter is too wide to be meant.
const (
	retriesAtOnce = 500
	retriesLooked = 200_000
)

type retryCandidate struct {
	id       uuid.UUID
	standing retryStanding
	decline  string
}

// PlanRetries asks of every invoice that the filter finds what Retry would say,
// the oldest first, until the limit or the bound of the sum is reached. It takes
// no lock and changes nothing: Retry asks everything again. While nothing may be
// charged it is refused as a whole. Give it a transaction with one snapshot.
func PlanRetries(ctx context.Context, q Querier, f RetryFilter, now time.Time, limits CardLimits, holidays Holidays) (RetryPlan, error) {
	plan := RetryPlan{Retries: []PlannedRetry{}, ByDecline: []RetryGroup{}, LeftOut: []RetryGroup{}}
	instance, err := LoadInstance(ctx, q)
	if err != nil {
		return plan, err
	}
	if err := instance.mayRetry(); err != nil {
		return plan, err
	}
	if plan.Budget, err = BudgetLeft(ctx, q, now); err != nil || f.findsNothing() {
		return plan, err
	}
	var after *uuid.UUID
	for !plan.More && plan.Looked < retriesLooked {
		page, err := retryCandidates(ctx, q, f, after)
		if err != nil {
			return plan, err
		}
		if err := plan.consider(ctx, q, page, f, instance, now, limits, holidays); err != nil {
			return plan, err
		}
		if len(page) < retriesAtOnce {
			break
		}
		after = &page[len(page)-1].id
	}
	plan.More = plan.More || plan.Looked >= retriesLooked
	for _, groups := range [][]RetryGroup{plan.ByDecline, plan.LeftOut} {
		slices.SortFunc(groups, func(a, b RetryGroup) int { return b.Count - a.Count })
	}
	return plan, nil
}

func retryCandidates(ctx context.Context, q Querier, f RetryFilter, after *uuid.UUID) ([]retryCandidate, error) {
	rows, err := q.Query(ctx, sqlPlanRetries, append(f.args(), after, retriesAtOnce)...)
	if err != nil {
		return nil, fmt.Errorf("select invoices to retry: %w", err)
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c retryCandidate, err error) {
		now := &c.standing
		err = row.Scan(&c.id, &now.status, &now.reason, &now.trigger, &now.claimed, &now.subscription, &c.decline)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("select invoices to retry: %w", err)
	}
	return page, nil
}

func (p *RetryPlan) consider(ctx context.Context, q Querier, page []retryCandidate, f RetryFilter, instance Instance, now time.Time, limits CardLimits, holidays Holidays) error {
	ids := make([]uuid.UUID, len(page))
	for i, candidate := range page {
		ids[i] = candidate.id
	}
	found, err := Load(ctx, q, ids, now)
	if err != nil {
		return err
	}
	for _, candidate := range page {
		c := found[candidate.id]
		if c == nil {
			continue // it has no payment intent on record; singil check tells
		}
		card, err := c.mayRetryInBulk(candidate, f, instance, now, limits, holidays)
		var left *RefusedError
		switch {
		case errors.As(err, &left):
			p.Looked++
			p.LeftOut = count(p.LeftOut, string(left.Kind), c.Amount, left.Reason)
			continue
		case err != nil:
			return err
		case len(p.Retries) >= f.Limit, f.MaxMinor > 0 && p.AmountMinor+c.Amount.Minor > f.MaxMinor:
			p.More = true
			return nil
		}
		p.Looked++
		p.AmountMinor += c.Amount.Minor
		p.ByDecline = count(p.ByDecline, candidate.decline, c.Amount, "")
		p.Retries = append(p.Retries, PlannedRetry{
			Invoice: c.InvoiceID.String(), Subscription: c.SubscriptionNo, PeriodNo: c.PeriodNo, AmountMinor: c.Amount.Minor, Currency: c.Amount.Currency,
			DeclineCode: candidate.decline, PaymentMethod: card.ProviderID,
		})
	}
	return nil
}

// mayRetryInBulk is what Retry would say, and what a bulk is careful about beside it.
func (c *Collection) mayRetryInBulk(candidate retryCandidate, f RetryFilter, instance Instance, now time.Time, limits CardLimits, holidays Holidays) (Card, error) {
	r := RetryRequest{Act: Act{Now: now}}
	if err := c.mayRetry(instance, candidate.standing, r); err != nil {
		return Card{}, err
	}
	if n := len(c.Attempts); n > 0 && c.Attempts[n-1].ArmedAt.After(now.Add(-f.Rest)) {
		return Card{}, refusedAs(RefusalRecent, "it was attempted at %s, less than %s ago", rfc3339(c.Attempts[n-1].ArmedAt), f.Rest)
	}
	return c.retryCard(r, limits, holidays)
}

func count(groups []RetryGroup, name string, amount Money, example string) []RetryGroup {
	i := slices.IndexFunc(groups, func(g RetryGroup) bool { return g.Name == name })
	if i < 0 {
		groups, i = append(groups, RetryGroup{Name: name, Example: example}), len(groups)
	}
	groups[i].Count++
	groups[i].AmountMinor += amount.Minor
	return groups
}

// OverBudget says why a plan may not be carried out as a whole, or nothing: what
// the day's budget does not cover would only be held back, invoice by invoice.
func (p RetryPlan) OverBudget() error {
	if int64(len(p.Retries)) <= p.LeftCount && p.AmountMinor <= p.LeftMinor {
		return nil
	}
	return refused("%d retries of %s together are over what is left of the day's budget: %d charges and %s; "+
		"retry fewer with --limit or --max-amount, or go on when the day is over in UTC", len(p.Retries),
		Money{p.AmountMinor, CurrencyPHP}.Display(), p.LeftCount, Money{p.LeftMinor, CurrencyPHP}.Display())
}

// BeginBulkRetry puts on record that somebody has confirmed a bulk retry. Each of
// its invoices then goes through Retry, which has an entry of its own that names
// the bulk.
func BeginBulkRetry(ctx context.Context, tx pgx.Tx, bulk uuid.UUID, filter any, p RetryPlan, act Act) error {
	return Audit(ctx, tx, AuditEntry{
		Actor: act.Actor, Action: "bulk_retry", Subject: bulk.String(), Reason: act.Reason,
		After: fields{"invoices": len(p.Retries), "amount_minor": p.AmountMinor, "left_out": p.LeftOut, "filter": filter},
	})
}
