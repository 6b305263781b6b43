// Package scheduler decides when to look what is due: a cron expression in a
// time zone, as a periodic River job and as a plain timer in every daemon.
//
// It owns nothing else. A tick carries no data and means look; what is due is
// derived from what is stored, so a tick that is missed costs a delay and one
// too many costs a look. River keeps its periodic jobs in the memory of the
// leader it elects, and loses ticks with it: hence the timer.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/robfig/cron/v3"

	"github.com/singil/singil/worker"
)

// Parse reads a cron expression of five fields, or a descriptor such as
// "@hourly", in a time zone. A cron expression that names a zone itself
// is refused: there would be two.
func Parse(expression string, zone *time.Location) (river.PeriodicSchedule, error) {
	if strings.Contains(expression, "TZ=") {
		return nil, errors.New("the schedule must not name a time zone; set SINGIL_TIME_ZONE")
	}
	if strings.HasPrefix(strings.TrimSpace(expression), "@every") {
		return nil, errors.New(`the schedule must be a cron expression such as "*/5 * * * *": @every counts from each start and drifts`)
	}
	schedule, err := cron.ParseStandard(expression)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w; it looks like \"* * * * *\": minute, hour, day, month, weekday", expression, err)
	}
	spec, ok := schedule.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("schedule %q is not a cron expression", expression)
	}
	spec.Location = zone
	if schedule.Next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("schedule %q never comes", expression)
	}
	return schedule, nil
}

// PeriodicJobs are the sweeps as River's leader inserts them, one at its start.
func PeriodicJobs(schedule river.PeriodicSchedule) []*river.PeriodicJob {
	return []*river.PeriodicJob{river.NewPeriodicJob(
		schedule,
		func() (river.JobArgs, *river.InsertOpts) { return worker.SweepArgs{}, nil },
		&river.PeriodicJobOpts{ID: "sweep", RunOnStart: true},
	)}
}

// Timer sweeps in this process, whoever leads: at its start, whenever the
// schedule says so, and whenever Woken does.
type Timer struct {
	Schedule river.PeriodicSchedule
	Sweep    func(context.Context) error
	// Woken tells that something cannot wait for the schedule: an operator's
	// retry, or a virtual clock that was moved. Asked every second.
	Woken func(context.Context) (bool, error)
	Log   *slog.Logger
	Now   func() time.Time
}

// Run returns when ctx is done. Failing sweeps are logged and come again.
func (t Timer) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var next time.Time // the first sweep is now
	for {
		now := t.Now()
		due := !now.Before(next)
		if !due {
			woken, err := t.Woken(ctx)
			if err != nil && ctx.Err() == nil {
				t.Log.Warn("asking what cannot wait failed", "error", err)
			}
			due = woken
		}
		if due {
			if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
				t.Log.Error("sweep failed", "error", err)
			} else {
				next = t.Schedule.Next(now)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
