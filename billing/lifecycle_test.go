package billing_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func act(now time.Time) billing.Act {
	return billing.Act{Actor: "ana", Reason: "asked by the customer", Now: now}
}

func (l *ledger) refused(do func(pgx.Tx) error) {
	l.t.Helper()
	var refused *billing.RefusedError
	if err := pgx.BeginFunc(context.Background(), l.pool, do); !errors.As(err, &refused) {
		l.t.Errorf("not refused: %v", err)
	}
}

func (l *ledger) periods(want string) {
	l.t.Helper()
	l.want(want, `SELECT COALESCE(string_agg(period_no || ' ' || status, ', ' ORDER BY period_no), '') FROM singil.invoices`)
}

func TestPausedPeriodsAreNotBilled(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.open(noon)
	pause := func(tx pgx.Tx) error {
		return billing.PauseSubscription(t.Context(), tx, l.subscription, act(noon.AddDate(0, 0, 10)))
	}
	l.tx(pause)
	l.refused(pause)
	l.want("paused", `SELECT status FROM singil.subscriptions WHERE next_due_at IS NULL AND paused_at IS NOT NULL`)
	l.open(noon.AddDate(0, 2, 0)) // a boundary in the pause
	l.periods("0 open")
	resumed := noon.AddDate(0, 2, 5)
	l.tx(func(tx pgx.Tx) error {
		return billing.ResumeSubscription(t.Context(), tx, l.subscription, act(resumed))
	})
	l.refused(func(tx pgx.Tx) error {
		return billing.ResumeSubscription(t.Context(), tx, l.subscription, act(resumed))
	})
	l.open(resumed)
	l.periods("0 open")
	l.want("1 2 paused", `SELECT concat_ws(' ', first_no, last_no, reason) FROM singil.skipped_periods`)
	l.open(time.Date(2026, 4, 30, 4, 0, 0, 0, time.UTC))
	l.periods("0 open, 3 open")
	l.want("subscription.paused, subscription.active", `SELECT string_agg(type, ', ' ORDER BY seq) FROM singil.events`)
	l.want("2", `SELECT count(*)::text FROM singil.audit_log WHERE actor = 'ana' AND before ->> 'status' <> after ->> 'status'`)
}

func TestCancelledNow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		armed bool
		want  string
	}{
		"NeverAttemptedIsVoid":         {false, "0 void"},
		"AnOpenAttemptKeepsItsInvoice": {true, "0 open"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			c := l.load(l.open(noon)[0], noon)
			var armed billing.Armed
			if tt.armed {
				armed = l.arm(c, "pi_1", noon).Armed
			}
			cancel := func(tx pgx.Tx) error {
				return billing.CancelSubscription(t.Context(), tx, l.subscription, billing.CancelNow, act(noon))
			}
			l.tx(cancel)
			l.refused(cancel)
			l.periods(tt.want)
			l.open(noon.AddDate(0, 3, 0))
			l.periods(tt.want)
			l.want("cancelled", `SELECT status FROM singil.subscriptions WHERE cancelled_at IS NOT NULL`)
			l.want("subscription.cancelled", `SELECT type FROM singil.events ORDER BY seq DESC LIMIT 1`)
			if !tt.armed {
				if r := l.arm(c, "pi_1", noon); r.Err == nil {
					t.Error("a void invoice was armed")
				}
				return
			}
			settled := l.settle(billing.Settlement{
				Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Source: "retrieve",
				Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "retrieve"},
			}, noon)
			if settled.InvoiceStatus != billing.InvoicePaid {
				t.Errorf("%+v", settled)
			}
			l.want("cancelled", `SELECT status FROM singil.subscriptions`)
		})
	}
}

func TestCancelledAtPeriodEnd(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.open(noon)
	at := noon.AddDate(0, 0, 3)
	l.tx(func(tx pgx.Tx) error {
		return billing.CancelSubscription(t.Context(), tx, l.subscription, billing.CancelAtPeriodEnd, act(at))
	})
	l.refused(func(tx pgx.Tx) error { return billing.PauseSubscription(t.Context(), tx, l.subscription, act(at)) })
	l.want("active", `SELECT status FROM singil.subscriptions WHERE cancel_at = '2026-02-28T04:00:00Z'`)
	l.open(time.Date(2026, 3, 31, 4, 0, 0, 0, time.UTC))
	l.periods("0 open")
	l.want("cancelled", `SELECT status FROM singil.subscriptions WHERE cancelled_at = cancel_at AND next_due_at IS NULL`)
	l.want("subscription.cancel_scheduled, subscription.cancelled", `SELECT string_agg(type, ', ' ORDER BY seq) FROM singil.events`)
}

func TestPlanChangesWithTheNextPeriod(t *testing.T) {
	t.Parallel()
	l := setup(t)
	year := uuid.New()
	l.exec(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
	        SELECT $1, 'year', 499000, 'PHP', 'year', 1, dunning, catch_up FROM singil.plans`, year)
	l.open(noon)
	change := func(plan uuid.UUID) func(pgx.Tx) error {
		return func(tx pgx.Tx) error { return billing.ChangePlan(t.Context(), tx, l.subscription, plan, act(noon)) }
	}
	l.refused(change(l.plan))
	l.tx(change(year))
	l.tx(change(l.plan)) // taken back
	l.tx(change(year))
	l.want("49900", `SELECT amount_minor::text FROM singil.subscriptions`)
	l.open(time.Date(2026, 2, 28, 4, 0, 0, 0, time.UTC))
	l.want("0 49900 2026-02-28, 1 499000 2027-02-28", `
		SELECT string_agg(period_no || ' ' || amount_minor || ' ' || to_char(upper(period) AT TIME ZONE 'UTC', 'YYYY-MM-DD'), ', ' ORDER BY period_no) FROM singil.invoices`)
	if err := pgx.BeginFunc(t.Context(), l.pool, change(uuid.New())); !errors.Is(err, billing.ErrNotFound) {
		t.Errorf("an unknown plan: %v", err)
	}
}
