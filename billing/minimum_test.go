package billing_test

import (
	"testing"

	"github.com/singil/singil/billing"
)

// TestBelowTheLeastAmountIsParked: PayMongo would refuse it every day anew.
func TestBelowTheLeastAmountIsParked(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.exec(`UPDATE singil.subscriptions SET amount_minor = $1`, billing.MinimumAmount-1)
	if claimed := l.open(noon); len(claimed) > 0 {
		t.Errorf("%v are to be charged", claimed)
	}
	l.want("review true", `SELECT status || ' ' || (reason <> '') FROM singil.invoices`)
}
