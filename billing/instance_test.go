package billing

import (
	"errors"
	"testing"
	"time"
)

func TestMayCharge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name     string
		instance Instance
		want     error
	}{
		{"Free", Instance{}, nil},
		{"Frozen", Instance{Frozen: true}, ErrFrozen},
		{"BreakerOpen", Instance{BreakerOpen: true}, ErrBreakerOpen},
		{"Blocked", Instance{BlockedUntil: now.Add(time.Microsecond)}, ErrBlocked},
		{"BlockIsOver", Instance{BlockedUntil: now}, nil},
		// The provider's block is by its clock, which no test moves.
		{"BlockedByTheRealClock", Instance{BlockedUntil: now.Add(time.Hour), VirtualNow: now.Add(2 * time.Hour)}, ErrBlocked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := tt.instance.MayCharge(now); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}
