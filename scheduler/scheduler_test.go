package scheduler_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/singil/singil/scheduler"
)

func TestParse(t *testing.T) {
	t.Parallel()
	manila := time.FixedZone("Manila", 8*60*60)
	nine, err := scheduler.Parse("0 9 * * *", manila)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC) // nine in Manila
	if got := nine.Next(from); !got.Equal(from.AddDate(0, 0, 1)) {
		t.Errorf("next is %s", got)
	}
	for _, bad := range []string{
		"", "* * * *", "61 * * * *", "0 0 31 2 *", "CRON_TZ=UTC * * * * *", "TZ=UTC * * * * *", "@every 1h",
	} {
		if _, err := scheduler.Parse(bad, manila); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestTimer runs a timer through ten minutes of synctest's clock.
func TestTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		schedule, err := scheduler.Parse("*/5 * * * *", time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		var sweeps []time.Duration
		fail := true
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		scheduler.Timer{
			Schedule: schedule, Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Sweep: func(context.Context) error {
				sweeps = append(sweeps, time.Since(begun))
				if fail {
					fail = false
					return errors.New("the database is away")
				}
				return nil
			},
			Woken: func(context.Context) (bool, error) { return time.Since(begun) == 90*time.Second, nil },
		}.Run(ctx)
		want := []time.Duration{0, time.Second, 90 * time.Second, 5 * time.Minute, 10 * time.Minute}
		if len(sweeps) != len(want) {
			t.Fatalf("swept at %v, want %v", sweeps, want)
		}
		for i := range want {
			if sweeps[i] != want[i] {
				t.Errorf("swept at %v, want %v", sweeps, want)
			}
		}
	})
}
