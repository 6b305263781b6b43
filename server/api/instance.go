package api

import (
	"context"
	"net/http"
	"time"

	"github.com/singil/singil/billing"
)

// Instance is this installation.
type Instance struct {
	Environment  billing.Environment `json:"environment" enum:"dev,staging,production"`
	Livemode     bool                `json:"livemode" doc:"Real money moves."`
	Frozen       bool                `json:"frozen" doc:"Nothing is charged until an operator lets it go on."`
	FrozenReason *string             `json:"frozen_reason"`
	MayCharge    bool                `json:"may_charge" doc:"Due invoices are charged at the moment."`
	WhyNot       *string             `json:"why_not" doc:"What keeps them from being charged."`
	Now          time.Time           `json:"now" doc:"The time that periods are counted by."`
	VirtualClock bool                `json:"virtual_clock" doc:"That time stands still until an operator moves it. Never with real money."`
}

func (a *api) instance() {
	register(a, operation{
		id: "get-instance", method: http.MethodGet, path: "/v1/instance", tag: "instance", role: billing.RoleViewer,
		summary:     "Tell whether this installation may charge",
		description: "Ask it when invoices stay open longer than they should.",
	}, func(ctx context.Context, _ *struct{}) (*Instance, error) {
		i, err := billing.LoadInstance(ctx, a.cfg.Pool)
		if err != nil {
			return nil, err
		}
		now := a.cfg.Now()
		out := &Instance{
			Environment: i.Environment, Livemode: i.Livemode, Frozen: i.Frozen, MayCharge: true,
			Now: i.Now(now).UTC(), VirtualClock: !i.VirtualNow.IsZero(),
		}
		if i.Frozen {
			out.FrozenReason = &i.FrozenReason
		}
		why := i.MayCharge(now)
		if why == nil && a.cfg.MayCharge != nil {
			why = a.cfg.MayCharge()
		}
		if why != nil {
			text := why.Error()
			out.MayCharge, out.WhyNot = false, &text
		}
		return out, nil
	})
}
