package billing_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// Times of the books below: the first period is paid at noon, the second is
// declined when it begins.
var (
	february = time.Date(2026, 2, 28, 4, 0, 0, 0, time.UTC)
	later    = february.Add(time.Hour)
)

// books is a ledger that has lived: a paid invoice, one that was declined and
// waits for its next attempt, a webhook, an endpoint, and a freeze that is over.
func books(t *testing.T) *ledger {
	t.Helper()
	l := setup(t)
	c := l.load(l.open(noon)[0], noon)
	armed := l.arm(c, "pi_1", noon).Armed
	l.settle(billing.Settlement{
		Collection: l.load(c.InvoiceID, noon), Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "attach"},
	}, noon)
	l.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "drill") })
	l.tx(func(tx pgx.Tx) error { return billing.Unfreeze(t.Context(), tx, "ana", "drill over") })
	c = l.load(l.open(february)[0], february)
	armed = l.arm(c, "pi_2", february).Armed
	l.settle(billing.Settlement{
		Collection: l.load(c.InvoiceID, february), Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"},
	}, february)
	l.tx(func(tx pgx.Tx) error {
		_, err := billing.StoreInbox(t.Context(), tx, []billing.InboxEvent{{ID: "evt_1", Type: "payment.paid", Body: []byte("{}"), ReceivedAt: february, Result: "applied"}})
		return err
	})
	l.tx(func(tx pgx.Tx) error {
		_, err := billing.AddEndpoint(t.Context(), tx, "http://127.0.0.1:9/hook", "")
		return err
	})
	return l
}

// broken checks all invariants in one snapshot.
func (l *ledger) broken(now time.Time) (broken []billing.Broken) {
	l.t.Helper()
	err := pgx.BeginTxFunc(context.Background(), l.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		broken, err = billing.Invariants(context.Background(), tx, now)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return broken
}

// tamper does what no code of ours can: without triggers and foreign keys.
func (l *ledger) tamper(statements ...string) {
	l.t.Helper()
	l.tx(func(tx pgx.Tx) error {
		for _, sql := range append([]string{"SET LOCAL session_replication_role = replica"}, statements...) {
			if _, err := tx.Exec(context.Background(), sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
}

// declines is SQL for n more attempts like the one that was declined, a time
// apart and in the budget: each on an invoice of its own, which is not there, or
// all on the same.
func declines(n int, apart time.Duration, same bool) string {
	invoice, intent, no := "gen_random_uuid()", "gen_random_uuid()", "1"
	if same {
		invoice, intent, no = "a.invoice_id", "a.payment_intent_id", "n + 1"
	}
	return fmt.Sprintf(`
		WITH more AS (
		  SELECT overlay(gen_random_uuid()::text PLACING left(a.id::text, 13) FROM 1)::uuid AS id, %s AS invoice_id, %s AS intent_id, %s AS no,
		         a.payment_method_id, a.armed_at + n * interval '%d seconds' AS at
		  FROM singil.attempts a CROSS JOIN generate_series(1, %d) n
		  WHERE a.state = 'declined'
		), intents AS (
		  INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key)
		  SELECT intent_id, invoice_id, 49900, 'PHP', false, 1, id::text FROM more WHERE no = 1
		), attempts AS (
		  INSERT INTO singil.attempts (id, payment_intent_id, invoice_id, no, fence, payment_method_id, provider_payment_method_id, trigger,
		                               state, armed_at, send_before, settled_after, settled_at, evidence)
		  SELECT id, intent_id, invoice_id, no, 1, payment_method_id, 'pm_1', 'dunning', 'declined',
		         at, at + interval '1 s', at + interval '2 s', at + interval '3 s', '{}'
		  FROM more
		)
		INSERT INTO singil.charge_budget AS b (day, livemode, max_count, max_minor, used_count, used_minor)
		SELECT (at AT TIME ZONE 'UTC')::date, false, 1000, 100000000, count(*), count(*) * 49900 FROM more GROUP BY 1
		ON CONFLICT (day, livemode) DO UPDATE SET used_count = b.used_count + excluded.used_count, used_minor = b.used_minor + excluded.used_minor`,
		invoice, intent, no, int(apart.Seconds()), n)
}

func TestEveryInvariantCanBreak(t *testing.T) {
	t.Parallel()
	const open, paid = `(SELECT id FROM singil.invoices WHERE status = 'open')`, `(SELECT id FROM singil.invoices WHERE status = 'paid')`
	tests := []struct {
		name string
		id   string // SQL of the id that is told; empty: any
		now  time.Time
		old  bool // a window does not show it, or not all of it
		do   []string
	}{
		{name: "double_payment", id: paid, do: []string{
			`INSERT INTO singil.payments SELECT (p).* FROM (SELECT jsonb_populate_record(p, '{"payment_id": "pay_2"}') p FROM singil.payments p) p`,
		}},
		{name: "double_intent", id: open, do: []string{
			`DROP INDEX singil.one_intent_not_dead`,
			`INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key)
			 SELECT gen_random_uuid(), id, amount_minor, currency, livemode, 2, 'second' FROM singil.invoices WHERE status = 'open'`,
		}},
		{name: "open_although_paid", id: open, do: []string{
			`INSERT INTO singil.payments (payment_id, invoice_id, status, amount_minor, currency, livemode, source)
			 SELECT 'pay_2', id, 'paid', amount_minor, currency, livemode, 'webhook' FROM singil.invoices WHERE status = 'open'`,
		}},
		{name: "open_attempt_of_paid", id: `(SELECT id FROM singil.attempts WHERE state = 'review')`, do: []string{
			`UPDATE singil.attempts SET state = 'review', settled_at = NULL WHERE state = 'succeeded'`,
		}},
		{name: "foreign_intent", id: `(SELECT id FROM singil.attempts WHERE state = 'declined')`, do: []string{
			`UPDATE singil.attempts SET payment_intent_id = (SELECT id FROM singil.payment_intents WHERE provider_intent_id = 'pi_1')`,
		}},
		{name: "missing_period", id: `(SELECT id FROM singil.subscriptions)`, old: true, do: []string{
			`DELETE FROM singil.invoices WHERE status = 'open'`,
		}},
		{name: "missing_period", id: `(SELECT id FROM singil.subscriptions)`, do: []string{
			`UPDATE singil.subscriptions SET next_period_no = 4`,
			`INSERT INTO singil.skipped_periods SELECT id, 2, 2, 'paused' FROM singil.subscriptions`,
		}},
		{name: "uninvoiced_period", id: `(SELECT id FROM singil.subscriptions)`, do: []string{
			`UPDATE singil.subscriptions SET next_due_at = '2026-02-28 04:49:59Z'`,
		}},
		{name: "unclaimed_invoice", id: open, do: []string{
			`UPDATE singil.invoices SET next_attempt_at = '2026-02-28 04:44:59Z' WHERE status = 'open'`,
		}},
		{name: "stale_attempt", now: february.Add(25 * time.Hour), do: []string{ // nobody asks
			`UPDATE singil.attempts SET state = 'armed', settled_at = NULL WHERE state = 'declined'`,
			`UPDATE singil.invoices SET next_attempt_at = '2026-03-02' WHERE status = 'open'`,
		}},
		{name: "stale_attempt", now: february.Add(97 * time.Hour), do: []string{ // asked for too long
			`UPDATE singil.attempts SET state = 'armed', settled_at = NULL WHERE state = 'declined'`,
			`UPDATE singil.invoices SET next_attempt_at = '2026-03-05', waiting_for = 'provider', poll_count = 9 WHERE status = 'open'`,
		}},
		{name: "paid_without_payment", id: paid, do: []string{`DELETE FROM singil.payments WHERE status = 'paid'`}},
		{name: "paid_without_payment", id: paid, do: []string{`UPDATE singil.payments SET status = 'pending'`}},
		{name: "payment_without_invoice", do: []string{
			`INSERT INTO singil.payments (payment_id, status, amount_minor, currency, livemode, source) VALUES ('pay_2', 'paid', 1, 'PHP', false, 'webhook')`,
		}},
		{name: "wrong_payment", do: []string{`UPDATE singil.payments SET amount_minor = 49901`}},
		{name: "wrong_payment", do: []string{`UPDATE singil.payments SET currency = 'USD'`}},
		{name: "wrong_payment", do: []string{`UPDATE singil.payments SET livemode = true`}},
		{name: "card_limit", id: `(SELECT id FROM singil.payment_methods)`, do: []string{declines(20, time.Hour, false)}},
		{name: "card_limit", do: []string{declines(10, time.Minute, false), `UPDATE singil.payment_methods SET brand = 'mastercard'`}},
		{name: "card_limit", do: []string{declines(35, 20*time.Hour, false), `UPDATE singil.payment_methods SET brand = 'Mastercard'`}},
		{name: "invoice_limit", id: open, do: []string{declines(12, time.Hour, true)}},
		{name: "armed_while_frozen", do: []string{
			`UPDATE singil.attempts SET written_at = (SELECT at + interval '1 microsecond' FROM singil.audit_log WHERE action = 'freeze') WHERE state = 'declined'`,
		}},
		{name: "budget_drift", old: true, do: []string{`UPDATE singil.charge_budget SET used_minor = used_minor - 1 WHERE day = '2026-02-28'`}},
		{name: "budget_drift", old: true, do: []string{`DELETE FROM singil.charge_budget WHERE day = '2026-01-31'`}},
		{name: "unprocessed_webhook", do: []string{
			`UPDATE singil.webhook_events SET processed_at = NULL, result = NULL, next_try_at = '2026-02-28 04:50Z'`,
		}},
		{name: "unprocessed_webhook", do: []string{
			`UPDATE singil.webhook_events SET processed_at = NULL, result = NULL, next_try_at = '2026-02-28 06:00Z', received_at = '2026-02-27 20:00Z'`,
		}},
		{name: "stuck_events", do: []string{
			`INSERT INTO singil.event_streams (endpoint_id, stream, failing_since)
			 SELECT e.id, s.id, '2026-02-27 04:00Z' FROM singil.endpoints e CROSS JOIN singil.subscriptions s`,
		}},
		{name: "audit_chain", do: []string{`UPDATE singil.audit_log SET reason = 'nothing happened' WHERE action = 'freeze'`}},
		{name: "audit_chain", do: []string{`UPDATE singil.audit_log SET at = at - interval '1 microsecond' WHERE action = 'unfreeze'`}},
		{name: "audit_chain", do: []string{`DELETE FROM singil.audit_log WHERE action = 'freeze'`}},
		{name: "audit_chain", old: true, do: []string{`DELETE FROM singil.audit_chain WHERE no = 1`}},
		{name: "audit_chain", old: true, do: []string{
			`DELETE FROM singil.audit_log WHERE action = 'freeze'`, `DELETE FROM singil.audit_chain WHERE no = 1`,
		}},
		{name: "audit_chain", do: []string{
			`INSERT INTO singil.audit_log (actor, action, subject, reason) VALUES ('eve', 'retry_invoice', 'i1', 'slipped in')`,
		}},
	}
	seen := map[string]int{}
	for _, tt := range tests {
		seen[tt.name]++
		t.Run(fmt.Sprint(tt.name, seen[tt.name]), func(t *testing.T) {
			t.Parallel()
			l := books(t)
			if tt.now.IsZero() {
				tt.now = later
			}
			l.tamper(tt.do...)
			broken := l.broken(tt.now)
			if len(broken) != 1 || broken[0].Name != tt.name || broken[0].Err != nil || broken[0].Count == 0 || broken[0].Count != len(broken[0].First) {
				t.Fatalf("broken are %v", broken)
			}
			first := broken[0].First[0]
			if first.ID == "" || first.What == "" {
				t.Errorf("%+v", first)
			}
			if tt.id != "" {
				l.want(first.ID, "SELECT "+tt.id+"::text")
			}
			// All of it is new: a window shows the same.
			l.tx(func(tx pgx.Tx) error {
				found, err := l.check(tx, tt.name, tt.now, time.Now().Add(-time.Hour))
				if err == nil && found.Count != broken[0].Count && !tt.old {
					t.Errorf("in the last hour: %d, want %d", found.Count, broken[0].Count)
				}
				return err
			})
		})
	}
	for _, i := range billing.AllInvariants() {
		if seen[i.Name] == 0 {
			t.Errorf("nothing breaks %s", i.Name)
		}
	}
}

func (l *ledger) check(tx pgx.Tx, name string, now, since time.Time) (found billing.Violations, err error) {
	for _, i := range billing.AllInvariants() {
		if i.Name == name {
			return i.Check(context.Background(), tx, now, since)
		}
	}
	return found, fmt.Errorf("no invariant %s", name)
}

// TestHealthyBooks: at the edge of every limit, nothing is broken.
func TestHealthyBooks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		now time.Time
		do  string
	}{
		"Untouched":               {later, `SELECT`},
		"PaidTwiceAndRefunded":    {later, `INSERT INTO singil.payments SELECT (jsonb_populate_record(p, '{"payment_id": "pay_2", "refunded_minor": 49900}')).* FROM singil.payments p`},
		"MoneyOfNobodyRefunded":   {later, `INSERT INTO singil.payments (payment_id, status, amount_minor, currency, livemode, source, refunded_minor) VALUES ('pay_2', 'paid', 1, 'PHP', false, 'webhook', 1)`},
		"AFailedPaymentOfNobody":  {later, `INSERT INTO singil.payments (payment_id, status, amount_minor, currency, livemode, source) VALUES ('pay_2', 'failed', 1, 'PHP', false, 'list')`},
		"InReview":                {later, `UPDATE singil.invoices SET status = 'review', reason = 'r', next_attempt_at = NULL WHERE status = 'open'`},
		"DueForTenMinutes":        {later, `UPDATE singil.subscriptions SET next_due_at = '2026-02-28 04:50:01Z'`},
		"ParkedAndDue":            {later, `UPDATE singil.subscriptions SET next_due_at = NULL, parked_reason = 'ask'`},
		"ALeaseThatIsOver":        {later, `UPDATE singil.invoices SET claimed = true, next_attempt_at = '2026-02-28 04:45:01Z' WHERE status = 'open'`},
		"SkippedAndBilled":        {later, `INSERT INTO singil.skipped_periods SELECT id, 0, 1, 'trial' FROM singil.subscriptions`},
		"ProcessingForThreeDays":  {february.Add(72 * time.Hour), `WITH a AS (UPDATE singil.attempts SET state = 'armed', settled_at = NULL WHERE state = 'declined') UPDATE singil.invoices SET next_attempt_at = '2026-03-05', waiting_for = 'provider', poll_count = 9 WHERE status = 'open'`},
		"ArmedForADay":            {february.Add(23 * time.Hour), `WITH a AS (UPDATE singil.attempts SET state = 'armed', settled_at = NULL WHERE state = 'declined') UPDATE singil.invoices SET next_attempt_at = '2026-03-05' WHERE status = 'open'`},
		"VisaAtItsLimit":          {later, declines(19, time.Hour, false)},
		"DeclinesOfTwoMonths":     {later, declines(30, 37*time.Hour, false)},
		"TwelveAttempts":          {later, declines(11, time.Hour, true)},
		"WebhookThatIsNew":        {later, `UPDATE singil.webhook_events SET processed_at = NULL, result = NULL, next_try_at = '2026-02-28 04:55:01Z'`},
		"EndpointThatIsOff":       {later, `WITH e AS (UPDATE singil.endpoints SET enabled = false) INSERT INTO singil.event_streams (endpoint_id, stream, failing_since) SELECT e.id, s.id, '2026-02-27 04:00Z' FROM singil.endpoints e CROSS JOIN singil.subscriptions s`},
		"EventsThatFailForADay":   {later, `INSERT INTO singil.event_streams (endpoint_id, stream, failing_since) SELECT e.id, s.id, '2026-02-27 05:00:01Z' FROM singil.endpoints e CROSS JOIN singil.subscriptions s`},
		"ArmedRightBeforeAFreeze": {later, `UPDATE singil.attempts SET written_at = (SELECT at FROM singil.audit_log WHERE action = 'freeze')`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := books(t)
			l.tamper(tt.do)
			if broken := l.broken(tt.now); len(broken) > 0 {
				t.Errorf("broken are %v", broken)
			}
		})
	}
}

// TestUnclaimedInvoiceTellsWhy: a freeze explains what waits, and does not hide it.
func TestUnclaimedInvoiceTellsWhy(t *testing.T) {
	t.Parallel()
	l := books(t)
	l.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "the bank called") })
	broken := l.broken(february.AddDate(0, 0, 2))
	if len(broken) != 1 || broken[0].Name != "unclaimed_invoice" || !strings.HasSuffix(broken[0].First[0].What, "nothing is charged: frozen: the bank called") {
		t.Errorf("broken are %v", broken)
	}
}

func TestInvariantsBeforeAndWithoutTheirTables(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.exec(`DELETE FROM singil.instance`) // nothing was bound yet
	if broken := l.broken(noon); len(broken) > 0 {
		t.Errorf("broken are %v", broken)
	}
	l.exec(`DROP TABLE singil.event_streams CASCADE`)
	broken := l.broken(noon)
	if len(broken) != 1 || broken[0].Name != "stuck_events" || broken[0].Err == nil {
		t.Errorf("one that cannot be checked: %v", broken)
	}
}

func TestManyViolationsAreCountedToABound(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.tamper(`INSERT INTO singil.payments (payment_id, status, amount_minor, currency, livemode, source)
		SELECT 'pay_' || n, 'paid', 1, 'PHP', false, 'list' FROM generate_series(1, 10001) n`)
	broken := l.broken(noon)
	if len(broken) != 1 || broken[0].Count != billing.ViolationsCounted || len(broken[0].First) != 10 {
		t.Errorf("broken are %v", broken)
	}
}
