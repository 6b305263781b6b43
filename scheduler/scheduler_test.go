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
	nine, err := scheduler.Parse("0 9 * * *", "Asia/Manila")
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC) // nine in Manila
	if got := nine.Next(from); !got.Equal(from.AddDate(0, 0, 1)) {
		t.Errorf("next is %s", got)
	}
	for _, bad := range []struct{ expression, zone string }{
		{"", "Asia/Manila"}, {"* * * *", "Asia/Manila"}, {"61 * * * *", "Asia/Manila"}, {"0 0 31 2 *", "Asia/Manila"},
		{"* * * * *", "Mars/Olympus"}, {"CRON_TZ=UTC * * * * *", "Asia/Manila"}, {"@every 1h", "Asia/Manila"},
	} {
		if _, err := scheduler.Parse(bad.expression, bad.zone); err == nil {
			t.Errorf("%q in %s was accepted", bad.expression, bad.zone)
		}
	}
}

// TestTimer runs a timer through ten minutes of synctest's clock.
func TestTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		schedule, err := scheduler.Parse("*/5 * * * *", "UTC")
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
