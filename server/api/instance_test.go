package api

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func TestInstance(t *testing.T) {
	t.Parallel()
	p := setup(t)
	viewer := p.token(billing.RoleViewer)
	var got Instance
	p.call(viewer, "GET", "/v1/instance", nil).want(200, &got)
	if got.Environment != "dev" || got.Livemode || got.Frozen || !got.MayCharge || got.WhyNot != nil || !got.Now.Equal(noon) || got.VirtualClock {
		t.Errorf("%+v", got)
	}
	p.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "drill") })
	p.exec(`UPDATE singil.instance SET virtual_now = $1`, noon.AddDate(1, 0, 0))
	p.call(viewer, "GET", "/v1/instance", nil).want(200, &got)
	if !got.Frozen || *got.FrozenReason != "drill" || got.MayCharge || *got.WhyNot != "frozen: drill" || got.Now.Year() != 2027 || !got.VirtualClock {
		t.Errorf("%+v", got)
	}
}
