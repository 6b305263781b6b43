package billing

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
)

// ListedPlan is a price an interval, and what is done when it is not paid.
type ListedPlan struct {
	ID            uuid.UUID       `json:"id"`
	ExternalID    string          `json:"external_id"`
	Name          string          `json:"name"`
	AmountMinor   int64           `json:"amount_minor"`
	Currency      Currency        `json:"currency"`
	Interval      string          `json:"interval"`
	IntervalCount int             `json:"interval_count"`
	CatchUp       string          `json:"catch_up"`
	Dunning       json.RawMessage `json:"dunning"`
	CreatedAt     Stamp           `json:"created_at"`
}

const sqlPlanColumns = `
SELECT p.id, p.external_id, p.name, p.amount_minor, p.currency, p.interval_unit, p.interval_count, p.catch_up, p.dunning, p.created_at
FROM singil.plans p`

const sqlBrowsePlans = sqlPlanColumns + `
WHERE $1::uuid IS NULL OR p.id < $1
ORDER BY p.id DESC
LIMIT $2`

// BrowsePlans is a page of plans, newest first; after is the last of the page
// before, and ErrNotFound if there is no such plan.
func BrowsePlans(ctx context.Context, q Querier, after string, limit int) ([]ListedPlan, error) {
	var behind *uuid.UUID
	if after != "" {
		id, err := FindPlan(ctx, q, after)
		if err != nil {
			return nil, err
		}
		behind = &id
	}
	return browse[ListedPlan](ctx, q, "plans", sqlBrowsePlans, behind, limit)
}

const sqlShowPlan = sqlPlanColumns + `
WHERE p.id = $1`

// ShowPlan is one plan, by any of its names; ErrNotFound.
func ShowPlan(ctx context.Context, q Querier, name string) (ListedPlan, error) {
	id, err := FindPlan(ctx, q, name)
	if err != nil {
		return ListedPlan{}, err
	}
	list, err := browse[ListedPlan](ctx, q, "plans", sqlShowPlan, id)
	if err != nil || len(list) == 0 { // no plan is ever deleted
		return ListedPlan{}, err
	}
	return list[0], nil
}
