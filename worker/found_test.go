package worker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
)

// What TestPropertyNeverTwiceNeverLost has found, in the shortest form.

// plain is a world with one subscription of one month.
func plain(t *testing.T, numbers ...string) *world {
	t.Helper()
	w := newGround(t).newWorld("off")
	t.Cleanup(w.close)
	w.plan(49900, billing.IntervalUnitMonth, 1, billing.CatchUpBillAll, billing.EndActionCancel)
	w.subscribe(w.plans[0], billing.EndActionCancel, time.Time{}, numbers...)
	return w
}

// charge sweeps and charges the first invoice.
func (w *world) charge(t *testing.T) uuid.UUID {
	t.Helper()
	w.sweep(context.Background(), w.workers[0])
	id := w.invoices("true")[0]
	if err := w.workers[0].Charge(context.Background(), id); err != nil {
		t.Error(err)
	}
	return id
}

// checked checks the world as the property does.
func (w *world) checked(t *testing.T) {
	t.Helper()
	w.check()
	if problems := w.failures(); problems != "" {
		t.Error(problems)
	}
}

// TestTwoWorkersSeeTheSameIntentCancelled: the second one finds the next
// generation begun and leaves it alone.
func TestTwoWorkersSeeTheSameIntentCancelled(t *testing.T) {
	t.Parallel()
	w := plain(t, "4343434343434345")
	w.fault(sandbox.Fault{Kind: sandbox.Decline, Code: "do_not_honor", Times: 1})
	id := w.charge(t)
	w.fault(sandbox.Fault{Kind: sandbox.ExpireIntent, Endpoint: "payment_intents.retrieve", Times: 1})
	w.retry(id)
	w.gate.ambush(afterRetrieve, func() {
		if err := w.workers[1].Charge(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	w.charge(t)
	w.checked(t)
	if n := len(w.ids(`SELECT id FROM singil.payment_intents`)); n != 2 {
		t.Errorf("%d intents, want the dead one and the next", n)
	}
}

// TestParkedByAWebhookWithAnOpenAttempt: what is in front of a human is so as a
// whole. The attempt that nobody will settle any more was armed for good.
func TestParkedByAWebhookWithAnOpenAttempt(t *testing.T) {
	t.Parallel()
	w := plain(t, "4343434343434345")
	w.fault(sandbox.Fault{Kind: sandbox.ResetBefore, Endpoint: "payment_intents.attach", Times: 1})
	id := w.charge(t)
	ctx := context.Background()
	state := `SELECT i.status || ' ' || a.state FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id`
	var got string
	if err := w.pool.QueryRow(ctx, state).Scan(&got); err != nil || got != "open armed" {
		t.Fatalf("%s %v", got, err)
	}
	if err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		m, _, found, err := billing.FindMentioned(ctx, tx, "", id)
		if err != nil || !found {
			return fmt.Errorf("found %t: %w", found, err)
		}
		return billing.ParkMentioned(ctx, tx, m, "a payment that nobody asked for", w.now)
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.pool.QueryRow(ctx, state).Scan(&got); err != nil || got != "review review" {
		t.Errorf("%s %v", got, err)
	}
}

// TestReviewIsLeftByALookAndAnOperator: an attach never reached the provider, and
// its invoice is in front of a human. What the operator may do about it is decided
// by what a reconcile has proven.
func TestReviewIsLeftByALookAndAnOperator(t *testing.T) {
	t.Parallel()
	w := plain(t, "4343434343434345")
	w.fault(sandbox.Fault{Kind: sandbox.ResetBefore, Endpoint: "payment_intents.attach", Times: 1})
	id := w.charge(t)
	ctx := context.Background()
	if err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		m, _, _, err := billing.FindMentioned(ctx, tx, "", id)
		if err != nil {
			return err
		}
		return billing.ParkMentioned(ctx, tx, m, "a payment that nobody asked for", w.now)
	}); err != nil {
		t.Fatal(err)
	}
	void := func() bool {
		return w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.VoidInvoice(ctx, tx, id.String(), w.by()) })
	}
	look := func(want string) {
		t.Helper()
		if err := w.workers[0].Reconcile(ctx, id); err != nil {
			t.Error(err)
		}
		var got string
		err := w.look.QueryRow(ctx, `SELECT i.status || ' ' || a.state FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id`).Scan(&got)
		if err != nil || got != want {
			t.Errorf("%s %v, want %s", got, err, want)
		}
	}
	look("review review")
	if void() {
		t.Error("void while the outcome was open")
	}
	w.set(w.now.Add(billing.SendWindow+billing.SettlePeriod), 0)
	look("review no_effect")
	if err := w.workers[0].Charge(ctx, id); err != nil {
		t.Error(err)
	}
	if !void() {
		t.Error("not void though nothing is open")
	}
	w.settleDown()
	w.checkEnd()
	if problems := w.failures(); problems != "" {
		t.Error(problems)
	}
	for _, pi := range w.box.Ledger().Intents {
		if len(pi.Attaches) > 1 {
			t.Errorf("attached again: %+v", pi.Attaches)
		}
	}
}

// TestCancelledAtPeriodEndAfterTheClockWentBack: a period is billed, the clock
// goes back before its beginning, and the subscription is paused, cancelled at the
// end of the period and resumed. It ends with what is billed, which is not the
// period that runs by the clock, and is looked at then.
func TestCancelledAtPeriodEndAfterTheClockWentBack(t *testing.T) {
	t.Parallel()
	w := newGround(t).newWorld("off")
	t.Cleanup(w.close)
	w.plan(12900, billing.IntervalUnitWeek, 1, billing.CatchUpBillAll, billing.EndActionCancel)
	w.subscribe(w.plans[0], billing.EndActionCancel, time.Time{}, "4343434343434345")
	w.charge(t)
	w.set(noon.AddDate(0, 0, 7), 0)
	w.charge(t)
	w.checked(t)

	w.set(w.now.Add(-time.Hour), time.Hour)
	w.pauseOne(w.subs[0])
	w.cancelAtEnd(w.subs[0])
	w.checked(t)
	w.resumeOne(w.subs[0])
	w.checked(t)
	if end := noon.AddDate(0, 0, 14); !w.subs[0].wake.Equal(end) || w.subs[0].ended {
		t.Errorf("ended %t, due at %s, want %s", w.subs[0].ended, w.subs[0].wake, end)
	}

	w.set(noon.AddDate(0, 0, 21), time.Hour)
	w.sweep(context.Background(), w.workers[0])
	w.checked(t)
	if billed := len(w.invoices("true")); billed != 2 || !w.subs[0].ended {
		t.Errorf("ended %t with %d invoices", w.subs[0].ended, billed)
	}
}
