package billing_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
)

// noon is the business time that tests begin at.
var noon = time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)

// ledger is a database with one customer, one card and one plan.
type ledger struct {
	t            *testing.T
	pool         *pgxpool.Pool
	subscription uuid.UUID
	customer     uuid.UUID
	card         uuid.UUID
	plan         uuid.UUID
}

func setup(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{t: t, pool: pgtest.DB(t), subscription: uuid.New(), customer: uuid.New(), card: uuid.New(), plan: uuid.New()}
	l.tx(func(tx pgx.Tx) error { return billing.Bind(t.Context(), tx, billing.EnvironmentDev, false) })
	policy := `{"offsets_days":[1,3,5,7],"hour":9,"end":"cancel"}`
	l.exec(`INSERT INTO singil.customers (id, external_id) VALUES ($1, 'u1')`, l.customer)
	l.exec(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand) VALUES ($1, $2, 'pm_1', 'visa')`, l.card, l.customer)
	l.exec(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
	        VALUES ($1, 'pro', 49900, 'PHP', 'month', 1, $2, 'bill_all')`, l.plan, policy)
	l.exec(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
	          anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
	        VALUES ($1, 's1', $2, $3, 'active', 49900, 'PHP', 'month', 1, $4, 'Asia/Manila', 0, $4, $4, $5, 'bill_all')`,
		l.subscription, l.customer, l.plan, noon, policy)
	return l
}

func (l *ledger) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.pool.Exec(context.Background(), sql, args...); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
}

func (l *ledger) tx(do func(pgx.Tx) error) {
	l.t.Helper()
	if err := pgx.BeginFunc(context.Background(), l.pool, do); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) one(sql string, args ...any) (value string) {
	l.t.Helper()
	if err := l.pool.QueryRow(context.Background(), sql, args...).Scan(&value); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func (l *ledger) want(want, sql string, args ...any) {
	l.t.Helper()
	if got := l.one(sql, args...); got != want {
		l.t.Errorf("%s: %s, want %s", sql, got, want)
	}
}

// open sweeps at now and returns what was claimed.
func (l *ledger) open(now time.Time) (claimed []uuid.UUID) {
	l.t.Helper()
	l.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(context.Background(), tx, billing.EnvironmentDev, false, now, 100)
		return err
	})
	l.tx(func(tx pgx.Tx) error {
		due, err := billing.ClaimDue(context.Background(), tx, now, 100, false)
		for _, c := range due {
			claimed = append(claimed, c.InvoiceID)
		}
		return err
	})
	return claimed
}

func (l *ledger) load(id uuid.UUID, now time.Time) *billing.Collection {
	l.t.Helper()
	found, err := billing.Load(context.Background(), l.pool, []uuid.UUID{id}, now)
	if err != nil || found[id] == nil {
		l.t.Fatalf("load: %v %v", found, err)
	}
	return found[id]
}

func (l *ledger) arm(c *billing.Collection, intent string, now time.Time) billing.ArmResult {
	l.t.Helper()
	var results []billing.ArmResult
	l.tx(func(tx pgx.Tx) (err error) {
		results, err = billing.Arm(context.Background(), tx, []billing.ArmRequest{{
			InvoiceID: c.InvoiceID, IntentID: c.IntentID, ProviderIntentID: intent, Fence: c.Fence,
			CardID: l.card, ProviderCardID: "pm_1", Trigger: c.Trigger,
		}}, now)
		return err
	})
	return results[0]
}

func (l *ledger) settle(s billing.Settlement, now time.Time) billing.Settled {
	l.t.Helper()
	var results []billing.Settled
	l.tx(func(tx pgx.Tx) (err error) {
		results, err = billing.Settle(context.Background(), tx, []billing.Settlement{s}, now, billing.BankHolidays())
		return err
	})
	return results[0]
}

func php(minor int64) billing.Money {
	return billing.Money{Minor: minor, Currency: billing.CurrencyPHP}
}

func paidPayment(id string) billing.ProviderPayment {
	return billing.ProviderPayment{ID: id, Status: "paid", Amount: php(49900), At: noon}
}

func TestOneInvoiceFromDueToPaid(t *testing.T) {
	t.Parallel()
	l := setup(t)
	claimed := l.open(noon)
	if len(claimed) != 1 {
		t.Fatalf("claimed %v", claimed)
	}
	if again := l.open(noon); len(again) != 0 {
		t.Errorf("claimed again within the lease: %v", again)
	}
	if again := l.open(noon.Add(billing.Lease)); len(again) != 1 {
		t.Errorf("a lost job was not found again: %v", again)
	}
	c := l.load(claimed[0], noon)
	if c.Next(false) != billing.StepCreate {
		t.Errorf("first step %s", c.Next(false))
	}
	armed := l.arm(c, "pi_1", noon)
	if armed.Err != nil || armed.Armed.No != 1 {
		t.Fatalf("%+v", armed)
	}
	if twin := l.arm(c, "pi_1", noon); twin.Err != billing.ErrInFlight { //nolint:errorlint // the very value is the contract
		t.Errorf("a second arming: %v", twin.Err)
	}
	c = l.load(claimed[0], noon)
	if c.Next(false) != billing.StepLook || c.Open == nil {
		t.Errorf("after arming: %s, open %v", c.Next(false), c.Open)
	}
	settled := l.settle(billing.Settlement{
		Collection: c, Attempt: armed.Armed.AttemptID, Fence: armed.Armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "attach"},
		Seen:      &billing.ProviderIntent{ID: "pi_1", Status: billing.ProviderSucceeded, Amount: php(49900), Payments: []billing.ProviderPayment{paidPayment("pay_1")}},
	}, noon)
	if !settled.Applied || settled.InvoiceStatus != billing.InvoicePaid {
		t.Errorf("%+v", settled)
	}
	l.want("paid", `SELECT status FROM singil.invoices`)
	l.want("succeeded", `SELECT state FROM singil.attempts`)
	l.want("succeeded", `SELECT state FROM singil.payment_intents`)
	l.want("pay_1", `SELECT payment_id FROM singil.payments`)
	l.want("invoice.paid", `SELECT type FROM singil.events`)
	l.want("2026-02-28 04:00:00", `SELECT to_char(next_due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM singil.subscriptions`)
	l.want("1", `SELECT used_count::text FROM singil.charge_budget`)
	if more := l.open(noon.Add(24 * time.Hour)); len(more) != 0 {
		t.Errorf("a paid invoice was claimed: %v", more)
	}
}

func TestDeclineThenPaidNextDay(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	c := l.load(id, noon)
	armed := l.arm(c, "pi_1", noon).Armed
	settled := l.settle(billing.Settlement{
		Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"},
	}, noon)
	if !settled.Applied || settled.InvoiceStatus != billing.InvoiceOpen || !settled.NextAttemptAt.After(noon) {
		t.Fatalf("%+v", settled)
	}
	l.want("past_due", `SELECT status FROM singil.subscriptions`)
	l.want("do_not_honor", `SELECT decline_code FROM singil.invoices`)
	if early := l.open(settled.NextAttemptAt.Add(-time.Second)); len(early) != 0 {
		t.Errorf("claimed before its day: %v", early)
	}
	if r := l.arm(l.load(id, noon), "pi_1", noon); r.Err == nil {
		t.Error("a leftover job armed an invoice that is not due")
	}
	now := settled.NextAttemptAt
	if due := l.open(now); len(due) != 1 {
		t.Fatalf("not claimed on its day: %v", due)
	}
	c = l.load(id, now)
	if c.Next(false) != billing.StepLook || c.Next(true) != billing.StepArm {
		t.Errorf("steps %s, %s", c.Next(false), c.Next(true))
	}
	second := l.arm(c, "pi_1", now).Armed
	if second.No != 2 {
		t.Errorf("attempt %d", second.No)
	}
	// The zombie of the first attempt comes back with a decline: it is about another attempt.
	stale := l.settle(billing.Settlement{
		Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"},
	}, now)
	if stale.Applied {
		t.Errorf("a stale decline was stored: %+v", stale)
	}
	paid := l.settle(billing.Settlement{
		Collection: c, Attempt: second.AttemptID, Fence: second.Fence, Source: "retrieve",
		Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_2"), Evidence: "retrieve"},
	}, now)
	if !paid.Recovered || paid.Retry != 1 {
		t.Errorf("%+v", paid)
	}
	l.want("active", `SELECT status FROM singil.subscriptions`)
}

func TestFrozenArmsNothing(t *testing.T) {
	t.Parallel()
	l := setup(t)
	c := l.load(l.open(noon)[0], noon)
	l.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "drill") })
	if r := l.arm(c, "pi_1", noon); r.Err == nil {
		t.Error("armed while frozen")
	}
	l.want("0", `SELECT count(*)::text FROM singil.attempts`)
	l.tx(func(tx pgx.Tx) error { return billing.Unfreeze(t.Context(), tx, "ana", "drill over") })
	if r := l.arm(c, "pi_1", noon); r.Err != nil {
		t.Error(r.Err)
	}
	l.want("2", `SELECT count(*)::text FROM singil.audit_log`)
}

func TestUnknownStaysOpenAndClimbsTheLadder(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	c := l.load(id, noon)
	armed := l.arm(c, "pi_1", noon).Armed
	now := noon
	for i, want := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 24 * time.Hour, 24 * time.Hour} {
		settled := l.settle(billing.Settlement{
			Collection: l.load(id, now), Attempt: armed.AttemptID, Fence: armed.Fence,
			Judgement: billing.Judgement{Ruling: billing.Unknown, Reason: "timeout", Evidence: "attach"},
		}, now)
		if got := settled.NextAttemptAt.Sub(now); got != want {
			t.Errorf("look %d after %s, want %s", i, got, want)
		}
		now = settled.NextAttemptAt
	}
	l.want("armed", `SELECT state FROM singil.attempts`)
	settled := l.settle(billing.Settlement{
		Collection: l.load(id, now), Attempt: armed.AttemptID, Fence: armed.Fence,
		Judgement: billing.Judgement{Ruling: billing.Unknown, Reason: "timeout", Evidence: "retrieve"},
	}, noon.Add(billing.PatienceWithProvider+time.Second))
	if settled.InvoiceStatus != billing.InvoiceReview {
		t.Errorf("after three days: %+v", settled)
	}
	l.want("review", `SELECT state FROM singil.attempts`)
	// A late success is believed all the same.
	paid := l.settle(billing.Settlement{
		Collection: l.load(id, now), Source: "webhook",
		Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "retrieve"},
	}, now)
	if paid.InvoiceStatus != billing.InvoicePaid {
		t.Errorf("%+v", paid)
	}
	l.want("succeeded", `SELECT state FROM singil.attempts`)
}

func TestExpiringCardIsToldOnce(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.exec(`UPDATE singil.payment_methods SET exp_month = 2, exp_year = 2026, last4 = '4345'`)
	notify := func(now time.Time) (n int) {
		l.tx(func(tx pgx.Tx) (err error) {
			n, err = billing.NotifyExpiring(context.Background(), tx, now, 100)
			return err
		})
		return n
	}
	lastDay := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(-8 * time.Hour) // midnight in Manila
	for _, step := range []struct {
		at   time.Time
		want int
	}{{lastDay.Add(-billing.ExpiryNotice - time.Second), 0}, {lastDay.Add(-billing.ExpiryNotice), 1}, {lastDay, 0}} {
		if got := notify(step.at); got != step.want {
			t.Errorf("at %s: %d, want %d", step.at, got, step.want)
		}
	}
	l.want("4345", `SELECT data ->> 'last4' FROM singil.events WHERE type = 'payment_method.expiring'`)
}
