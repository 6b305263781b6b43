package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ForecastDay is what is expected to be charged on a day.
type ForecastDay struct {
	Day         string `json:"day"` // 2026-01-31, in the forecast's zone
	Charges     int    `json:"charges"`
	AmountMinor int64  `json:"amount_minor"`
	// Retries are those of the charges that are attempts of invoices on record, and
	// no new periods.
	Retries int `json:"retries"`
	// Seconds is how long the day's charges take at the rate of calls that is
	// allowed.
	Seconds int64 `json:"seconds"`
}

// Forecast is the first charges of the periods to come, and the next attempts of
// invoices that are open. It expects every charge to be paid at the first attempt.
type Forecast struct {
	From Stamp         `json:"from"`
	Days []ForecastDay `json:"days"`
	// Held are subscriptions that may have periods to come and are not counted:
	// parked, or missed periods that a person has to decide about.
	Held int `json:"held"`
}

// callsACharge are the calls that a charge needs of the provider when nothing
// goes wrong: a create and an attach.
const callsACharge = 2

const forecastPage = 5000

const sqlForecast = sqlDueColumns + `
WHERE s.next_due_at < $1 AND s.status NOT IN ('paused', 'cancelled') AND ($2::uuid IS NULL OR s.id > $2)
ORDER BY s.id
LIMIT $3`

const sqlForecastHeld = `
SELECT count(*) FROM singil.subscriptions s WHERE s.parked_reason IS NOT NULL AND s.status NOT IN ('paused', 'cancelled')`

const sqlForecastOpen = `
SELECT i.next_attempt_at, i.amount_minor
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
WHERE i.status = 'open' AND i.waiting_for = 'schedule' AND i.next_attempt_at < $1 AND s.status <> 'paused'`

// LookAhead forecasts the days from now on, days of them, in zone. callsPerMinute
// is what the rate to the provider allows. It reads every subscription that is due
// until then, in pages, and changes nothing. Give it a transaction with one snapshot.
func LookAhead(ctx context.Context, q Querier, now time.Time, days int, zone *time.Location, callsPerMinute int64) (Forecast, error) {
	if days < 1 || days > maxForecastDays || callsPerMinute < 1 {
		return Forecast{}, fmt.Errorf("forecast of %d days at %d calls a minute: want 1 to %d, and 1 or more", days, callsPerMinute, maxForecastDays)
	}
	f := forecast{now: now, zone: zone, first: dateOf(wallOf(now, zone))}
	f.end = resolve(f.first.plus(days).at(0, 0), zone)
	for i := range days {
		f.Days = append(f.Days, ForecastDay{Day: f.first.plus(i).at(0, 0).Format(time.DateOnly)})
	}
	f.From = Stamp{now.UTC()}
	for _, step := range []func(context.Context, Querier) error{f.held, f.open, f.periods} {
		if err := step(ctx, q); err != nil {
			return Forecast{}, fmt.Errorf("forecast: %w", err)
		}
	}
	for i, day := range f.Days {
		calls := int64(day.Charges) * callsACharge
		f.Days[i].Seconds = (calls*60 + callsPerMinute - 1) / callsPerMinute
	}
	return f.Forecast, nil
}

const maxForecastDays = 366

type forecast struct {
	Forecast
	now, end time.Time
	zone     *time.Location
	first    civilDate
}

func (f *forecast) held(ctx context.Context, q Querier) error {
	rows, err := q.Query(ctx, sqlForecastHeld)
	if err == nil {
		f.Held, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	}
	return err
}

// charge counts a charge on its day. What is overdue is charged today.
func (f *forecast) charge(at time.Time, minor int64, retry bool) {
	if at.Before(f.now) {
		at = f.now
	}
	wall := dateOf(wallOf(at, f.zone)).at(0, 0)
	i := int(wall.Sub(f.first.at(0, 0)) / (24 * time.Hour))
	if i < 0 || i >= len(f.Days) {
		return
	}
	f.Days[i].Charges++
	f.Days[i].AmountMinor += minor
	if retry {
		f.Days[i].Retries++
	}
}

func (f *forecast) open(ctx context.Context, q Querier) error {
	rows, err := q.Query(ctx, sqlForecastOpen, f.end)
	if err != nil {
		return err
	}
	var at time.Time
	var minor int64
	_, err = pgx.ForEachRow(rows, []any{&at, &minor}, func() error {
		f.charge(at, minor, true)
		return nil
	})
	return err
}

func (f *forecast) periods(ctx context.Context, q Querier) error {
	var after *uuid.UUID
	for {
		rows, err := q.Query(ctx, sqlForecast, f.end, after, forecastPage)
		if err != nil {
			return err
		}
		page, err := pgx.CollectRows(rows, scanDue)
		if err != nil {
			return err
		}
		for _, s := range page {
			if err := f.subscription(s); err != nil {
				return err
			}
		}
		if len(page) < forecastPage {
			return nil
		}
		after = &page[len(page)-1].ID
	}
}

// subscription counts the periods that are due now, as a sweep would plan them,
// and those that begin later.
func (f *forecast) subscription(s *dueSubscription) error {
	plan, err := s.planDue(f.now)
	if err != nil || plan.State == PlanStateAsk {
		f.Held++ // the sweep will park it
		return nil
	}
	for _, period := range plan.Open {
		f.charge(period.ChargeNotBefore, s.Amount.Minor, false)
	}
	b := s.billable
	for no := plan.NextPeriodNo; plan.State != PlanStateEnded; no++ {
		start, err := b.Schedule.Boundary(no)
		if errors.Is(err, ErrPeriodRange) {
			return nil
		}
		if err != nil {
			return err
		}
		if !start.Before(f.end) || !b.CancelAt.IsZero() && !start.Before(b.CancelAt) {
			return nil
		}
		r, err := b.runFrom(no)
		if err != nil {
			return err
		}
		if r.reason != "" {
			no = r.last
			continue
		}
		period, err := b.Schedule.Period(no)
		if err != nil {
			return err
		}
		if !period.Empty() {
			f.charge(start, s.Amount.Minor, false)
		}
	}
	return nil
}
