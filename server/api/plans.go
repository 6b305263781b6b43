package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// Named is a thing in the path.
type Named struct {
	ID string `path:"id" maxLength:"200" doc:"Our id, or your own name for it."`
}

// newPlan has the fields of billing.NewPlan.
type newPlan struct {
	ExternalID    string           `json:"external_id" minLength:"1" maxLength:"200" doc:"Your own name for it. It stays."`
	Name          string           `json:"name,omitempty" maxLength:"500" doc:"For people."`
	AmountMinor   int64            `json:"amount_minor" minimum:"1" maximum:"999999999" doc:"The price of a period, in centavos."`
	Currency      billing.Currency `json:"currency" enum:"PHP"`
	Interval      string           `json:"interval" enum:"day,week,month,year" doc:"What a period is counted in."`
	IntervalCount int              `json:"interval_count,omitempty" minimum:"1" maximum:"1000" default:"1" doc:"How many of them a period has."`
	CatchUp       string           `json:"catch_up,omitempty" enum:"bill_all,bill_current,ask" default:"bill_all" doc:"What becomes of periods that were missed: all are billed, one a day; or only the one that runs; or a person decides."`
	Dunning       json.RawMessage  `json:"dunning,omitempty" doc:"When a declined charge is tried again, and what happens at the end: an object with offsets_days, hour, end and more. What is left out is as it is by default: create a plan without it and look."`
}

// notCreated says which fields keep something from being created.
func notCreated(err error) error {
	var mistakes billing.FieldErrors
	switch {
	case errors.As(err, &mistakes):
		p := newProblem(kindInvalidFields, fixFields)
		for _, m := range mistakes {
			p.Errors = append(p.Errors, fieldProblem{"body." + m.Field, m.Problem})
		}
		return p
	case errors.Is(err, billing.ErrExists):
		return newProblem(kindRefused, "There is one of that name already, and nothing was changed. Read it, or take another external_id.",
			fieldProblem{"body.external_id", "is taken"})
	}
	return err
}

func (a *api) plans() {
	const tag = "plans"
	register(a, operation{
		id: "list-plans", method: http.MethodGet, path: "/v1/plans", tag: tag, role: billing.RoleViewer,
		summary: "List plans, the newest first",
	}, func(ctx context.Context, in *struct{ Page }) (*list[billing.ListedPlan], error) {
		rows, err := billing.BrowsePlans(ctx, a.cfg.Pool, in.After, in.fetch())
		if err != nil {
			return nil, at("query.after", err)
		}
		return newList(rows, in.Page, func(p billing.ListedPlan) string { return p.ID.String() }), nil
	})
	register(a, operation{
		id: "create-plan", method: http.MethodPost, path: "/v1/plans", tag: tag, role: billing.RoleAdmin, status: http.StatusCreated,
		summary: "Create a plan",
		description: "A plan's price does not change: subscriptions keep what they began with. For another price create another plan, " +
			"and change the plan of the subscriptions. A name that is taken is a 409.",
	}, func(ctx context.Context, in *struct{ Body newPlan }) (*billing.ListedPlan, error) {
		return change(ctx, a, "", func(tx pgx.Tx, act billing.Act) (*billing.ListedPlan, error) {
			made, err := billing.CreatePlan(ctx, tx, billing.NewPlan(in.Body), act)
			return &made, notCreated(err)
		})
	})
	register(a, operation{
		id: "get-plan", method: http.MethodGet, path: "/v1/plans/{id}", tag: tag, role: billing.RoleViewer,
		summary: "Read a plan",
	}, func(ctx context.Context, in *Named) (*billing.ListedPlan, error) {
		plan, err := billing.ShowPlan(ctx, a.cfg.Pool, in.ID)
		return &plan, err
	})
}
