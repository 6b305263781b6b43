package billing_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func TestStatusTellsWhatHolds(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]string{
		"":             `SELECT`,
		"frozen":       `UPDATE singil.instance SET frozen = true, frozen_reason = 'drill'`,
		"breaker_open": `UPDATE singil.provider_state SET breaker_open = true, breaker_reason = '401'`,
		"blocked":      `UPDATE singil.provider_state SET blocked_until = '2026-01-31T04:01:00Z'`,
		"budget":       `UPDATE singil.instance SET day_max_count = 0`,
		"recovery":     `UPDATE singil.instance SET frozen = true, frozen_reason = 'restored', recovery_needed = 'restored', recovery_noticed_at = now(), recovery_from = now()`,
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			l.exec(spoil)
			s, err := billing.LookStatus(t.Context(), l.pool, noon)
			if err != nil || s.Environment != billing.EnvironmentDev || s.VirtualClock || !s.Now.Equal(noon) {
				t.Fatalf("%+v %v", s, err)
			}
			if s.MayCharge != (want == "") || want != "" && (len(s.Holds) == 0 || s.Holds[0].Kind != want || !s.Holds[0].Holds || s.Holds[0].Text == "") {
				t.Errorf("%+v", s)
			}
		})
	}
	l := setup(t)
	l.tx(func(tx pgx.Tx) error { return billing.SetVirtualClock(t.Context(), tx, march) })
	if s, err := billing.LookStatus(t.Context(), l.pool, noon); err != nil || !s.VirtualClock || !s.Now.Equal(march) || s.LeftCount != 1_000_000 {
		t.Errorf("%+v %v", s, err)
	}
}
