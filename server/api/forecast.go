package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// Forecast is what is expected to be charged.
type Forecast struct {
	From billing.Stamp `json:"from"`
	Days []ForecastDay `json:"days"`
	Held int           `json:"held" doc:"Subscriptions that are not in it: parked, or about to be, until a person decides."`
}

// ForecastDay is a day of it.
type ForecastDay struct {
	Day         string `json:"day" format:"date"`
	Charges     int    `json:"charges"`
	AmountMinor int64  `json:"amount_minor" doc:"All of them together."`
	Retries     int    `json:"retries" doc:"Those of the charges that are attempts of invoices on record, and no new periods."`
	Seconds     int64  `json:"seconds" doc:"How long they take, with two calls each at the daemons' PAYMONGO_RATE."`
}

func (a *api) forecast() {
	register(a, operation{
		id: "get-forecast", method: http.MethodGet, path: "/v1/forecast", tag: "forecast", role: billing.RoleViewer,
		summary: "Expect what will be charged on the days to come",
		description: "The periods that begin, and the next attempts of invoices that are open; each is expected to be paid at the first attempt. " +
			"Days are those of the daemon's SINGIL_TIME_ZONE.",
	}, func(ctx context.Context, in *struct {
		Days int `query:"days" minimum:"1" maximum:"366" default:"30" doc:"How many days, today included."`
	},
	) (*Forecast, error) {
		var f billing.Forecast
		err := a.snapshot(ctx, func(tx pgx.Tx) error {
			now, err := a.businessNow(ctx, tx)
			if err == nil {
				f, err = billing.LookAhead(ctx, tx, now, in.Days, a.cfg.TimeZone, a.cfg.CallsPerMinute)
			}
			return err
		})
		out := &Forecast{From: f.From, Days: []ForecastDay{}, Held: f.Held}
		for _, d := range f.Days {
			out.Days = append(out.Days, ForecastDay(d))
		}
		return out, err
	})
}
