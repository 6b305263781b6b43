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

// TestCancelledAtPeriodEndOfWhatIsBilled: a clock that went back makes the period
// before run again. What is billed is billed, and the customer keeps it.
func TestCancelledAtPeriodEndOfWhatIsBilled(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before string // done to the period that is billed
		ends   string
	}{
		"Billed":    {ends: "2026-03-31"},
		"TakenBack": {`UPDATE singil.invoices SET status = 'void', reason = 'a mistake', next_attempt_at = NULL, claimed = false WHERE period_no = 1`, "2026-02-28"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			l.open(noon)
			second := time.Date(2026, 2, 28, 4, 0, 0, 0, time.UTC)
			l.open(second)
			if tt.before != "" {
				l.exec(tt.before)
			}
			l.tx(func(tx pgx.Tx) error {
				return billing.CancelSubscription(t.Context(), tx, l.subscription, billing.CancelAtPeriodEnd, act(second.Add(-time.Second)))
			})
			l.want(tt.ends, `SELECT to_char(cancel_at, 'YYYY-MM-DD') FROM singil.subscriptions WHERE next_due_at = cancel_at`)
			l.open(second.AddDate(0, 3, 0))
			l.want("2 cancelled", `SELECT count(*) || ' ' || min(s.status) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`)
		})
	}
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

func (l *ledger) unpark(decision billing.CatchUp, now time.Time) func(pgx.Tx) error {
	return func(tx pgx.Tx) error {
		return billing.UnparkSubscription(l.t.Context(), tx, l.subscription, decision, act(now))
	}
}

func TestCancellationIsTakenBack(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.open(noon)
	at := noon.AddDate(0, 0, 3)
	back := func(now time.Time) func(pgx.Tx) error {
		return func(tx pgx.Tx) error { return billing.UnscheduleCancel(t.Context(), tx, l.subscription, act(now)) }
	}
	cancel := func(tx pgx.Tx) error {
		return billing.CancelSubscription(t.Context(), tx, l.subscription, billing.CancelAtPeriodEnd, act(at))
	}
	l.refused(back(at))
	l.tx(cancel)
	l.refused(back(time.Date(2026, 2, 28, 4, 0, 0, 0, time.UTC))) // it has ended, though nobody has looked yet
	l.tx(back(at))
	l.want("2026-02-28", `SELECT to_char(next_due_at, 'YYYY-MM-DD') FROM singil.subscriptions WHERE cancel_at IS NULL AND status = 'active'`)
	l.sweep(time.Date(2026, 2, 28, 4, 0, 0, 0, time.UTC))
	l.want("2", `SELECT count(*)::text FROM singil.invoices`)
	l.want("subscription.cancel_scheduled, subscription.cancel_unscheduled", `SELECT string_agg(type, ', ' ORDER BY seq) FROM singil.events`)
	l.want("ana", `SELECT actor FROM singil.audit_log WHERE action = 'unschedule_cancel' AND before ? 'cancel_at' AND NOT after ? 'cancel_at'`)

	l.tx(func(tx pgx.Tx) error {
		return billing.CancelSubscription(t.Context(), tx, l.subscription, billing.CancelNow, act(noon.AddDate(0, 1, 0)))
	})
	l.refused(back(noon.AddDate(0, 1, 0)))
}

func TestPausedIsCancelledAtPeriodEnd(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		act    func(l *ledger, now time.Time) // after the cancellation
		status string
		want   string // invoices after the period's end
	}{
		"BackAndForth": {func(l *ledger, now time.Time) {
			l.tx(func(tx pgx.Tx) error { return billing.UnscheduleCancel(l.t.Context(), tx, l.subscription, act(now)) })
			l.want("paused", `SELECT status FROM singil.subscriptions WHERE next_due_at IS NULL AND paused_at IS NOT NULL`)
		}, "paused", "0 open"},
		"ResumedUntilThen": {func(l *ledger, now time.Time) {
			l.tx(func(tx pgx.Tx) error { return billing.ResumeSubscription(l.t.Context(), tx, l.subscription, act(now)) })
		}, "cancelled", "0 open"},
		"StaysPaused": {func(*ledger, time.Time) {}, "cancelled", "0 open"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			l.sweep(noon)
			l.tx(func(tx pgx.Tx) error {
				return billing.PauseSubscription(t.Context(), tx, l.subscription, act(noon.AddDate(0, 0, 5)))
			})
			now := noon.AddDate(0, 2, 2) // 2 April; two periods began within the pause
			l.tx(func(tx pgx.Tx) error {
				return billing.CancelSubscription(t.Context(), tx, l.subscription, billing.CancelAtPeriodEnd, act(now))
			})
			l.want("2026-04-30", `SELECT to_char(next_due_at, 'YYYY-MM-DD') FROM singil.subscriptions WHERE cancel_at = next_due_at AND status = 'paused'`)
			tt.act(l, now)
			l.sweep(time.Date(2026, 4, 29, 4, 0, 0, 0, time.UTC))
			l.sweep(time.Date(2026, 5, 31, 4, 0, 0, 0, time.UTC))
			l.want(tt.status, `SELECT status FROM singil.subscriptions WHERE (paused_at IS NOT NULL) = (status = 'paused') AND next_due_at IS NULL`)
			l.periods(tt.want)
		})
	}
}

func TestParkedGoesBackToWork(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.sweep(noon)
	l.refused(l.unpark("", noon)) // it is not parked
	l.exec(`UPDATE singil.subscriptions SET time_zone = 'Mars/Olympus'`)
	l.sweep(march)
	l.want("1", `SELECT next_period_no::text FROM singil.subscriptions WHERE parked_reason LIKE '%Mars/Olympus%' AND next_due_at IS NULL`)
	l.refused(l.unpark("", march))
	l.exec(`UPDATE singil.subscriptions SET time_zone = 'Asia/Manila'`)
	l.tx(l.unpark("", march))
	l.want("2026-02-28", `SELECT to_char(next_due_at, 'YYYY-MM-DD') FROM singil.subscriptions WHERE parked_reason IS NULL`)
	l.want("ana", `SELECT actor FROM singil.audit_log WHERE action = 'unpark_subscription' AND reason <> '' AND before ? 'parked_reason' AND NOT after ? 'parked_reason'`)
	l.want("subscription.unparked", `SELECT type FROM singil.events`)
	l.sweep(march)
	l.periods("0 open, 1 open, 2 open")
	l.refused(l.unpark("", march))
	l.tx(func(tx pgx.Tx) error {
		return billing.CancelSubscription(t.Context(), tx, l.subscription, billing.CancelNow, act(march))
	})
	l.exec(`UPDATE singil.subscriptions SET parked_reason = 'from before'`)
	l.refused(l.unpark("", march))
}

// TestAskIsAnswered: a decision holds for what is due now, and the policy is
// still to ask.
func TestAskIsAnswered(t *testing.T) {
	t.Parallel()
	for decision, want := range map[billing.CatchUp]string{
		billing.CatchUpBillAll:     "0 open, 1 open, 2 open",
		billing.CatchUpBillCurrent: "2 open",
	} {
		t.Run(string(decision), func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			l.exec(`UPDATE singil.subscriptions SET catch_up = 'ask'`)
			l.sweep(march)
			l.periods("")
			l.refused(l.unpark("", march))
			l.refused(l.unpark(billing.CatchUpAsk, march))
			l.tx(l.unpark(decision, march))
			l.sweep(march)
			l.periods(want)
			l.want("ask", `SELECT catch_up FROM singil.subscriptions WHERE catch_up_once IS NULL AND parked_reason IS NULL`)
			l.sweep(march.AddDate(0, 3, 0))
			l.periods(want)
			l.want("ask", `SELECT catch_up FROM singil.subscriptions WHERE parked_reason LIKE '%is ask'`)
		})
	}
}
