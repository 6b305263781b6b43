package billing

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"
)

// NewPlan is a plan to be made. What is empty takes the default of an import.
type NewPlan struct {
	ExternalID    string          `json:"external_id"`
	Name          string          `json:"name,omitempty"`
	AmountMinor   int64           `json:"amount_minor"`
	Currency      Currency        `json:"currency"`
	Interval      string          `json:"interval"`
	IntervalCount int             `json:"interval_count,omitempty"`
	CatchUp       string          `json:"catch_up,omitempty"`
	Dunning       json.RawMessage `json:"dunning,omitempty"`
}

// CreatePlan makes a plan, with its audit entry and its event. Mistakes are
// FieldErrors; a name that is taken is ErrExists. After an error tx must be rolled
// back.
func CreatePlan(ctx context.Context, tx pgx.Tx, p NewPlan, act Act) (ListedPlan, error) {
	if err := createTurn(ctx, tx); err != nil {
		return ListedPlan{}, err
	}
	document := struct {
		Type string `json:"type"`
		NewPlan
	}{importPlan, p}
	r, err := created(ctx, tx, importPlan, document, act.Now, importNewPlans)
	if err != nil {
		return ListedPlan{}, err
	}
	terms := fields{
		"amount_minor": r.terms.Amount.Minor, "currency": r.terms.Amount.Currency, "interval": r.terms.Interval.Unit, "interval_count": r.terms.Interval.Count,
	}
	if err := Audit(ctx, tx, AuditEntry{Actor: act.Actor, Action: "create_plan", Subject: r.id, Reason: act.Reason, After: terms}); err != nil {
		return ListedPlan{}, err
	}
	told := fields{"plan": r.id}
	for name, value := range terms {
		told[name] = value
	}
	if err := WriteEvents(ctx, tx, []Event{{Type: "plan.created", Data: told, OccurredAt: act.Now}}); err != nil {
		return ListedPlan{}, err
	}
	return ShowPlan(ctx, tx, r.id)
}
