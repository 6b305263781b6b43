package billing

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// DryStep is what a sweep would do about one subscription or invoice.
type DryStep struct {
	// Action is open (an invoice is opened), skip (periods get none), park, end (the
	// subscription), charge, look (ask the provider) or hold (nothing, and why).
	Action       string   `json:"action"`
	Subscription string   `json:"subscription"`
	Invoice      string   `json:"invoice,omitempty"` // empty: it is not opened yet
	PeriodNo     int      `json:"period_no"`
	AmountMinor  int64    `json:"amount_minor"`
	Currency     Currency `json:"currency"`
	Card         string   `json:"payment_method,omitempty"`
	At           Stamp    `json:"at"` // when, or until when
	Reason       string   `json:"reason,omitempty"`
}

// DryRun is what the next sweep would do at a time. Nothing is durable.
type DryRun struct {
	AsOf Stamp `json:"as_of"`
	// Stopped is why nothing would be charged at all; empty: nothing stops it.
	Stopped     string    `json:"stopped,omitempty"`
	Steps       []DryStep `json:"steps"`
	Charges     int       `json:"charges"`
	ChargeMinor int64     `json:"charge_minor"`
	// More tells that there is more than was looked at.
	More bool `json:"more"`
	Budget
}

const sqlDryDue = sqlDueColumns + `
WHERE s.next_due_at <= $1
ORDER BY s.next_due_at
LIMIT $2`

const sqlDryInvoices = `
SELECT i.id, COALESCE(i.reason, ''), s.status
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.status = 'open' AND i.next_attempt_at <= $1
ORDER BY i.next_attempt_at
LIMIT $2`

// LookDue plans as a sweep would at a time, now or later, and changes and locks
// nothing: it may run on a standby. It looks at no more than limit subscriptions
// and as many invoices. Attempts on the way to a later time are not foreseen, nor
// how customers of several subscriptions are spread over days. Give it a
// transaction with one snapshot.
func LookDue(ctx context.Context, q Querier, asOf, realNow time.Time, limits CardLimits, holidays Holidays, limit int) (DryRun, error) {
	run := DryRun{AsOf: Stamp{asOf.UTC()}, Steps: []DryStep{}}
	instance, err := LoadInstance(ctx, q)
	if err != nil {
		return run, err
	}
	if err := instance.MayCharge(realNow); err != nil {
		run.Stopped = err.Error()
	}
	if run.Budget, err = BudgetLeft(ctx, q, asOf); err != nil {
		return run, err
	}
	if err := run.lookSubscriptions(ctx, q, asOf, limits, holidays, limit); err != nil {
		return run, fmt.Errorf("look what is due: %w", err)
	}
	if err := run.lookInvoices(ctx, q, asOf, limits, holidays, limit); err != nil {
		return run, fmt.Errorf("look what is due: %w", err)
	}
	for i, s := range run.Steps {
		switch {
		case s.Action != "charge":
			continue
		case run.Stopped != "":
			run.Steps[i].Action, run.Steps[i].Reason = "hold", run.Stopped
			continue
		case int64(run.Charges) >= run.LeftCount || run.ChargeMinor+s.AmountMinor > run.LeftMinor:
			run.Steps[i].Action, run.Steps[i].Reason = "hold", ErrOverBudget.Error()
			continue
		}
		run.Charges++
		run.ChargeMinor += s.AmountMinor
	}
	return run, nil
}

func (r *DryRun) lookSubscriptions(ctx context.Context, q Querier, asOf time.Time, limits CardLimits, holidays Holidays, limit int) error {
	rows, err := q.Query(ctx, sqlDryDue, asOf, limit)
	if err != nil {
		return err
	}
	due, err := pgx.CollectRows(rows, scanDue)
	if err != nil {
		return err
	}
	r.More = r.More || len(due) == limit
	cards, policies, err := loadCards(ctx, q, due, asOf)
	if err != nil {
		return err
	}
	for _, s := range due {
		step := DryStep{Subscription: s.ExternalID, PeriodNo: s.NextPeriodNo, AmountMinor: s.Amount.Minor, Currency: s.Amount.Currency}
		plan, err := s.planDue(asOf)
		if err != nil {
			step.Action, step.Reason = "park", err.Error()
			r.Steps = append(r.Steps, step)
			continue
		}
		step.AmountMinor = s.Amount.Minor // a plan that changes is in it now
		for _, skip := range plan.Skipped {
			skipped := step
			skipped.Action, skipped.PeriodNo = "skip", skip.First+s.AnchorNo
			skipped.Reason = fmt.Sprintf("%s: periods %d to %d", skip.Reason, skip.First+s.AnchorNo, skip.Last+s.AnchorNo)
			r.Steps = append(r.Steps, skipped)
		}
		for _, period := range plan.Open {
			opened := step
			opened.Action, opened.PeriodNo, opened.At = "open", period.No+s.AnchorNo, Stamp{period.Start.UTC()}
			r.Steps = append(r.Steps, opened, s.dryCharge(opened, period, cards[s.CustomerID], policies[s.ID], asOf, limits, holidays))
		}
		switch plan.State {
		case PlanStateAsk:
			step.Action, step.Reason = "park", fmt.Sprintf("%d periods are due at once and the plan's catch-up policy is ask", plan.Missed)
			r.Steps = append(r.Steps, step)
		case PlanStateEnded:
			step.Action, step.Reason = "end", "it was cancelled"
			r.Steps = append(r.Steps, step)
		}
	}
	return nil
}

// dryCharge is what becomes of a period that is opened.
func (s *dueSubscription) dryCharge(step DryStep, period DuePeriod, cards []Card, policy []byte, asOf time.Time, limits CardLimits, holidays Holidays) DryStep {
	switch {
	case s.Amount.Minor < MinimumAmount:
		step.Action, step.Reason = "hold", "below the provider's minimum: in front of a human"
		return step
	case period.ChargeNotBefore.After(asOf):
		step.Action, step.At, step.Reason = "hold", Stamp{period.ChargeNotBefore.UTC()}, "catching up, at most one charge a customer a day"
		return step
	}
	if s.NextPlan != nil {
		policy = s.NextPlan.Dunning
	}
	c := &Collection{Cards: cards, DueAt: period.Start, Trigger: TriggerSchedule, TimeZone: s.TimeZone, Dunning: policy, SubscriptionNo: s.ExternalID}
	return c.dryChoice(step, asOf, limits, holidays)
}

func (c *Collection) dryChoice(step DryStep, asOf time.Time, limits CardLimits, holidays Holidays) DryStep {
	choice, err := c.Choose(asOf, limits, holidays)
	step.At = Stamp{asOf.UTC()}
	switch {
	case err != nil:
		step.Action, step.Reason = "park", err.Error()
	case choice.Decision == nil:
		step.Action, step.Card = "charge", choice.Card.ProviderID
	case choice.Decision.Action == DunningActionEnd:
		step.Action, step.Reason = "end", choice.Decision.Reason
	default:
		step.Action, step.At, step.Reason = "hold", Stamp{choice.Decision.At.UTC()}, choice.Decision.Reason
	}
	return step
}

func (r *DryRun) lookInvoices(ctx context.Context, q Querier, asOf time.Time, limits CardLimits, holidays Holidays, limit int) error {
	rows, err := q.Query(ctx, sqlDryInvoices, asOf, limit)
	if err != nil {
		return err
	}
	type dueInvoice struct {
		ID     uuid.UUID
		Reason string
		Status string // of the subscription
	}
	due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dueInvoice])
	if err != nil {
		return err
	}
	r.More = r.More || len(due) == limit
	for page := range slices.Chunk(due, retriesAtOnce) {
		ids := make([]uuid.UUID, len(page))
		for i, d := range page {
			ids[i] = d.ID
		}
		found, err := Load(ctx, q, ids, asOf)
		if err != nil {
			return err
		}
		for _, d := range page {
			c := found[d.ID]
			if c == nil {
				continue // without a payment intent; singil check tells
			}
			step := DryStep{
				Subscription: c.SubscriptionNo, Invoice: d.ID.String(), PeriodNo: c.PeriodNo, AmountMinor: c.Amount.Minor, Currency: c.Amount.Currency,
				At: Stamp{asOf.UTC()},
			}
			switch {
			case c.Open != nil || c.WaitingFor == WaitingForProvider:
				step.Action, step.Reason = "look", "the outcome of the last attempt is open"
			case d.Status == SubscriptionPaused:
				step.Action, step.Reason = "hold", "the subscription is paused"
			default:
				step = c.dryChoice(step, asOf, limits, holidays)
			}
			r.Steps = append(r.Steps, step)
		}
	}
	return nil
}

const sqlDryCards = `
SELECT pm.customer_id, pm.id, pm.provider_payment_method_id, pm.brand, pm.last4,
       COALESCE(pm.exp_month, 0), COALESCE(pm.exp_year, 0), pm.status, COALESCE(pm.blocked_code, '')
FROM singil.payment_methods pm
WHERE pm.customer_id = ANY ($1)
ORDER BY pm.customer_id, pm.position, pm.id`

const sqlDryCardUse = `
SELECT pm.customer_id, a.payment_method_id, a.armed_at, a.state IN ('declined', 'armed', 'review')
FROM singil.attempts a
JOIN singil.payment_methods pm ON pm.id = a.payment_method_id
WHERE pm.customer_id = ANY ($1) AND a.armed_at > $2`

const sqlDryPolicies = `
SELECT s.id, s.dunning::text FROM singil.subscriptions s WHERE s.id = ANY ($1)`

// loadCards are the cards of the customers, as Load brings them, and the dunning
// policies of the subscriptions.
func loadCards(ctx context.Context, q Querier, due []*dueSubscription, now time.Time) (map[uuid.UUID][]Card, map[uuid.UUID][]byte, error) {
	customers, subscriptions := make([]uuid.UUID, len(due)), make([]uuid.UUID, len(due))
	for i, s := range due {
		customers[i], subscriptions[i] = s.CustomerID, s.ID
	}
	cards, policies := map[uuid.UUID][]Card{}, map[uuid.UUID][]byte{}
	batch := &pgx.Batch{}
	var id uuid.UUID
	batch.Queue(sqlDryCards, customers).Query(func(rows pgx.Rows) error {
		var card Card
		_, err := pgx.ForEachRow(rows, []any{
			&id, &card.ID, &card.ProviderID, &card.Brand, &card.Last4, &card.ExpMonth, &card.ExpYear, &card.Status, &card.Blocked,
		}, func() error {
			cards[id] = append(cards[id], card)
			return nil
		})
		return err
	})
	batch.Queue(sqlDryCardUse, customers, now.Add(-window30d)).Query(func(rows pgx.Rows) error {
		var used uuid.UUID
		var past CardAttempt
		_, err := pgx.ForEachRow(rows, []any{&id, &used, &past.At, &past.Declined}, func() error {
			for i := range cards[id] {
				if cards[id][i].ID == used {
					cards[id][i].Past = append(cards[id][i].Past, past)
				}
			}
			return nil
		})
		return err
	})
	batch.Queue(sqlDryPolicies, subscriptions).Query(func(rows pgx.Rows) error {
		var policy string
		_, err := pgx.ForEachRow(rows, []any{&id, &policy}, func() error {
			policies[id] = []byte(policy)
			return nil
		})
		return err
	})
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return nil, nil, fmt.Errorf("load the cards of %d customers: %w", len(customers), err)
	}
	return cards, policies, nil
}
