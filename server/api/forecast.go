package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func (a *api) forecast() {
	register(a, operation{
		id: "get-forecast", method: http.MethodGet, path: "/v1/forecast", tag: "forecast", role: billing.RoleViewer,
		summary: "Expect what will be charged on the days to come",
		description: "The periods that begin, and the next attempts of invoices that are open; each is expected to be paid at the first attempt. " +
			"Days are those of the daemon's SINGIL_TIME_ZONE, and seconds is how long a day's charges take at its PAYMONGO_RATE.",
	}, func(ctx context.Context, in *struct {
		Days int `query:"days" minimum:"1" maximum:"366" default:"30" doc:"How many days, today included."`
	},
	) (*billing.Forecast, error) {
		var f billing.Forecast
		err := a.snapshot(ctx, func(tx pgx.Tx) error {
			now, err := a.businessNow(ctx, tx)
			if err == nil {
				f, err = billing.LookAhead(ctx, tx, now, in.Days, a.cfg.TimeZone, a.cfg.CallsPerMinute)
			}
			return err
		})
		return &f, err
	})
}
