package billing_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// second gives the customer another subscription, six hours after the first.
func (l *ledger) second(name string) uuid.UUID {
	l.t.Helper()
	id := uuid.New()
	l.exec(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
	          anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
	        SELECT $1, $2, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
	          anchor_at + interval '6 hours', time_zone, next_period_no, anchor_at + interval '6 hours', bill_from, dunning, catch_up
	        FROM singil.subscriptions WHERE id = $3`, id, name, l.subscription)
	return id
}

// charges are all invoices by the Manila day they are to be charged on.
func (l *ledger) charges(want string) {
	l.t.Helper()
	l.want(want, `
		SELECT string_agg(concat_ws(' ', s.external_id, i.period_no, to_char(i.next_attempt_at AT TIME ZONE 'Asia/Manila', 'MM-DD')), ', '
		         ORDER BY i.next_attempt_at, s.external_id)
		FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`)
}

// march is when the period of January and that of February are over.
var march = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

func (l *ledger) sweep(now time.Time) {
	l.t.Helper()
	l.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(l.t.Context(), tx, billing.EnvironmentDev, false, now, 100)
		return err
	})
}

func TestCatchUpIsSpreadOverTheCustomer(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.second("s2")
	l.sweep(march)
	l.charges("s1 0 03-31, s2 0 04-01, s1 1 04-02, s2 1 04-03, s1 2 04-04, s2 2 04-05")
}

func TestOrdinaryChargesOfACustomerAreNotSpread(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.second("s2")
	l.sweep(noon.Add(7 * time.Hour))
	l.charges("s1 0 01-31, s2 0 01-31")
	// Then s1 is away, and catches up on the day on which s2 is due as always.
	l.exec(`UPDATE singil.subscriptions SET next_due_at = NULL, parked_reason = 'away' WHERE external_id = 's1'`)
	l.sweep(time.Date(2026, 2, 28, 12, 0, 0, 0, time.UTC))
	l.exec(`UPDATE singil.subscriptions SET next_due_at = $1, parked_reason = NULL WHERE external_id = 's1'`, noon.AddDate(0, 0, 28))
	l.sweep(march)
	l.charges("s1 0 01-31, s2 0 01-31, s2 1 02-28, s1 1 03-31, s2 2 03-31, s1 2 04-01")
}

// TestTwoSweepsOfOneCustomer: whoever comes second leaves the subscription where it is.
func TestTwoSweepsOfOneCustomer(t *testing.T) {
	t.Parallel()
	l := setup(t)
	other := l.second("s2")
	one := func(tx pgx.Tx, subscription uuid.UUID, want int) {
		t.Helper()
		opened, err := billing.OpenDueOne(t.Context(), tx, billing.EnvironmentDev, false, march, subscription)
		if err != nil || opened.Invoices != want {
			t.Errorf("%+v, %v; want %d invoices", opened, err, want)
		}
	}
	slow, err := l.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one(slow, l.subscription, 3)
	l.tx(func(tx pgx.Tx) error { one(tx, other, 0); return nil })
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.tx(func(tx pgx.Tx) error { one(tx, other, 3); return nil })
	l.charges("s1 0 03-31, s1 1 04-01, s1 2 04-02, s2 0 04-03, s2 1 04-04, s2 2 04-05")
}
