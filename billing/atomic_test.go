package billing_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// TestCursorMovesWithItsInvoices takes a sweep back before its end: nothing of it
// may stay. Then it lets one through, and each period has its invoice.
func TestCursorMovesWithItsInvoices(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.another()
	takenBack := errors.New("taken back")
	now := noon.AddDate(0, 1, 0)
	sweep := func(end error) error {
		return pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) error {
			opened, err := billing.OpenDue(context.Background(), tx, billing.EnvironmentDev, false, now, 100)
			if err != nil {
				return err
			}
			if opened.Invoices != 4 {
				t.Errorf("%d invoices of 2 subscriptions after a month, want 4", opened.Invoices)
			}
			return end
		})
	}
	const state = `SELECT (SELECT count(*) FROM singil.invoices) || ' invoices, cursors ' || string_agg(next_period_no::text, ' ') FROM singil.subscriptions`
	if err := sweep(takenBack); !errors.Is(err, takenBack) {
		t.Fatal(err)
	}
	l.want("0 invoices, cursors 0 0", state)
	if err := sweep(nil); err != nil {
		t.Fatal(err)
	}
	l.want("4 invoices, cursors 2 2", state)
	l.want("0,1", `SELECT string_agg(DISTINCT period_no::text, ',') FROM singil.invoices`)
}

// TestPeriodOnRecordIsParkedNotOpened sets a cursor back. The period has its
// invoice: a human must see that, and the others go on.
func TestPeriodOnRecordIsParkedNotOpened(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.open(noon)
	l.exec(`UPDATE singil.subscriptions SET next_period_no = 0, next_due_at = anchor_at`)
	l.another()
	l.tx(func(tx pgx.Tx) error {
		opened, err := billing.OpenDue(context.Background(), tx, billing.EnvironmentDev, false, noon, 100)
		if opened.Invoices != 1 || opened.Parked != 1 {
			t.Errorf("%d opened and %d parked, want 1 and 1", opened.Invoices, opened.Parked)
		}
		return err
	})
	l.want("2", `SELECT count(*)::text FROM singil.invoices`)
	l.want("true", `SELECT (parked_reason LIKE '%overlaps an invoice on record')::text FROM singil.subscriptions WHERE external_id = 's1'`)
}

// TestStaleLoadArmsNothing is about a worker that sleeps between its load and its
// arming, while another one arms, is declined, and the invoice is claimed again.
func TestStaleLoadArmsNothing(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	asleep := l.load(id, noon)
	armed := l.arm(l.load(id, noon), "pi_1", noon)
	if armed.Err != nil {
		t.Fatal(armed.Err)
	}
	fresh := l.load(id, noon)
	if r := l.arm(fresh, "pi_1", noon); !errors.Is(r.Err, billing.ErrInFlight) {
		t.Errorf("with an outcome open: %v", r.Err)
	}
	settled := l.settle(billing.Settlement{
		Collection: fresh, Attempt: armed.Armed.AttemptID, Fence: armed.Armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"},
	}, noon)
	if due := l.open(settled.NextAttemptAt); len(due) != 1 {
		t.Fatalf("claimed %v", due)
	}
	if r := l.arm(asleep, "pi_1", settled.NextAttemptAt); !errors.Is(r.Err, billing.ErrInFlight) {
		t.Errorf("by who was asleep: %v", r.Err)
	}
	l.want("1", `SELECT count(*)::text FROM singil.attempts`)
}

// TestRefundReopensNothing gives all of a paid invoice's money back: the customer
// was charged for the period, and is not charged for it again.
func TestRefundReopensNothing(t *testing.T) {
	t.Parallel()
	l := setup(t)
	c := l.load(l.open(noon)[0], noon)
	armed := l.arm(c, "pi_1", noon).Armed
	l.settle(billing.Settlement{
		Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "attach"},
	}, noon)
	l.tx(func(tx pgx.Tx) error {
		found, err := billing.RecordRefund(context.Background(), tx, "pay_1", 49900)
		if !found {
			t.Error("the payment was not found")
		}
		return err
	})
	l.want("49900", `SELECT refunded_minor::text FROM singil.payments`)
	l.want("paid, nothing due", `SELECT status || CASE WHEN next_attempt_at IS NULL THEN ', nothing due' ELSE ', due' END FROM singil.invoices`)
	if due := l.open(noon.AddDate(0, 0, 1)); len(due) != 0 {
		t.Errorf("claimed again: %v", due)
	}
}
