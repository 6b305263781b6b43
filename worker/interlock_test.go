package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

func watching(cfg *worker.Config) { cfg.Watch = true }

func (p *plant) exec(sql string, args ...any) {
	p.t.Helper()
	if _, err := p.pool.Exec(context.Background(), sql, args...); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

func (p *plant) tx(do func(pgx.Tx) error) {
	p.t.Helper()
	if err := pgx.BeginFunc(context.Background(), p.pool, do); err != nil {
		p.t.Fatal(err)
	}
}

// manySubscriptions makes n of them, all on one customer and one card per subscription.
func (p *plant) manySubscriptions(prefix string, n int) {
	p.t.Helper()
	for i := range n {
		p.subscribe(fmt.Sprint(prefix, i), "4343434343434345")
	}
}

// attaches is how many the sandbox was sent, whatever became of them.
func (p *plant) attaches() (n int) {
	for _, pi := range p.box.Ledger().Intents {
		n += len(pi.Attaches)
	}
	return n
}

// stopped waits for nothing: it sweeps twice and checks that no attach went out.
func (p *plant) stopped(why string) {
	p.t.Helper()
	before := p.attaches()
	p.tick()
	p.set(p.now.Add(2 * time.Minute))
	p.tick()
	if after := p.attaches(); after != before {
		p.t.Errorf("%s: %d attaches went out all the same", why, after-before)
	}
}

func (p *plant) unfreeze() {
	p.t.Helper()
	p.tx(func(tx pgx.Tx) error {
		if err := billing.Unfreeze(context.Background(), tx, "ana", "seen to"); err != nil {
			return err
		}
		return billing.CloseBreaker(context.Background(), tx, "ana", "seen to")
	})
}

// TestFrozen freezes while one outcome is open: nothing is charged, the open
// outcome is found out all the same, both turns are in the audit log.
func TestFrozen(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s0", "4343434343434345")
	p.fault(sandbox.Fault{Kind: sandbox.TimeoutAfter, Endpoint: "payment_intents.attach", Times: 1})
	p.tick()
	if got := p.text(`SELECT state FROM singil.attempts`); got != "armed" {
		t.Fatalf("attempt is %s; the test wants an open outcome", got)
	}
	p.tx(func(tx pgx.Tx) error { return billing.Freeze(context.Background(), tx, "ana", "stocktaking") })
	p.subscribe("s1", "4343434343434345")
	p.stopped("frozen")
	if got := p.text(`SELECT string_agg(i.status, ' ' ORDER BY s.external_id) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`); got != "paid open" {
		t.Errorf("while frozen: %s; want the open outcome found out and the new invoice open", got)
	}
	p.unfreeze()
	p.until(p.now.Add(time.Hour))
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 2 {
		t.Errorf("%d of 2 paid afterwards", n)
	}
	if got := p.text(`SELECT string_agg(action || ' by ' || actor || ': ' || reason, ', ' ORDER BY id) FROM singil.audit_log`); !strings.HasPrefix(got, "freeze by ana: stocktaking, unfreeze by ana: seen to") {
		t.Errorf("audit log: %s", got)
	}
	p.checkBooks()
}

// TestBudgetOfTheDay lets 49 charges want a budget of 40.
func TestBudgetOfTheDay(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.exec(`UPDATE singil.instance SET day_max_count = 40`)
	p.manySubscriptions("s", 49)
	p.until(noon.Add(3 * time.Hour))
	if sum := p.box.Summary("invoice"); p.attaches() != 40 || sum.PaidPayments != 40 {
		t.Errorf("%d attaches and %d payments on a budget of 40", p.attaches(), sum.PaidPayments)
	}
	if got := p.number(`SELECT used_count FROM singil.charge_budget`); got != 40 {
		t.Errorf("%d used", got)
	}
	p.until(noon.Add(26 * time.Hour))
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 49 {
		t.Errorf("%d of 49 paid on the next day", n)
	}
	p.checkBooks()
}

// TestRunawayLoop makes a bug: whatever is decided about an invoice, it is due
// again at once. The limit of attempts an invoice and the day's budget hold.
func TestRunawayLoop(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.exec(`UPDATE singil.instance SET day_max_count = 30`)
	for i := range 4 {
		p.subscribe(fmt.Sprint("s", i), "4400000000000016") // generic_decline, always
	}
	p.exec(`CREATE FUNCTION singil.bug() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.status IN ('open', 'uncollectible') AND NOT NEW.claimed THEN
			NEW.status := 'open'; NEW.next_attempt_at := NEW.due_at; NEW.attempt_trigger := 'manual'; NEW.waiting_for := 'schedule';
		END IF;
		RETURN NEW; END $$`)
	p.exec(`CREATE TRIGGER bug BEFORE UPDATE ON singil.invoices FOR EACH ROW EXECUTE FUNCTION singil.bug()`)
	for range 40 {
		p.tick()
	}
	limit := billing.DefaultCardLimits().InvoiceAttempts
	if n := p.number(`SELECT max(attempt_count) FROM singil.invoices`); n > limit {
		t.Errorf("%d attempts on one invoice, the limit is %d", n, limit)
	}
	if n := p.attaches(); n > 30 || n < 20 {
		t.Errorf("%d attaches in a loop; want it to have begun, and to end at the budget of 30", n)
	}
}

func TestConfigDeclineStopsEverything(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s0", "4343434343434345")
	p.fault(sandbox.Fault{ID: "config", Kind: sandbox.Decline, Code: "merchant_configuration_invalid", Probability: 1})
	p.tick()
	if got := p.text(`SELECT breaker_reason FROM singil.provider_state`); !strings.Contains(got, "merchant_configuration_invalid") {
		t.Errorf("breaker: %q", got)
	}
	p.subscribe("s1", "4343434343434345")
	p.stopped("config decline")
	if got := p.text(`SELECT action || ' by ' || actor FROM singil.audit_log`); got != "trip_breaker by singil" {
		t.Errorf("audit log: %s", got)
	}
	p.box.ClearFaults()
	p.unfreeze()
	p.until(p.now.Add(48 * time.Hour))
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 2 {
		t.Errorf("%d of 2 paid afterwards", n)
	}
	p.checkBooks()
}

func TestAnswerOfTheOtherModeStopsEverything(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"payment_intents.create", "payment_intents.attach"} {
		t.Run(endpoint, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			p.subscribe("s0", "4343434343434345")
			p.fault(sandbox.Fault{Kind: sandbox.WrongLivemode, Endpoint: endpoint, Times: 1})
			p.tick()
			if got := p.text(`SELECT i.status || ' ' || p.breaker_open FROM singil.invoices i, singil.provider_state p`); got != "review true" {
				t.Errorf("invoice and breaker: %s", got)
			}
			p.subscribe("s1", "4343434343434345")
			p.stopped("the provider answers in the other mode")
		})
	}
}

func TestUnusualDeclinesStopEverything(t *testing.T) {
	t.Parallel()
	p := setup(t, watching)
	p.manySubscriptions("s", 110)
	p.fault(sandbox.Fault{Kind: sandbox.Decline, Code: "generic_decline", Probability: 1})
	p.tick()
	p.subscribe("late", "4343434343434345")
	p.set(noon.Add(time.Minute))
	p.stopped("every card is declined")
	if got := p.text(`SELECT breaker_reason FROM singil.provider_state`); !strings.HasPrefix(got, "110 of the last 110 first attempts were declined") {
		t.Errorf("breaker: %q", got)
	}
	p.unfreeze()
	p.box.ClearFaults()
	p.tick()
	p.set(p.now.Add(time.Minute))
	p.tick()
	if got := p.text(`SELECT i.status FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id WHERE s.external_id = 'late'`); got != "paid" {
		t.Errorf("%s after the operator has looked: what was before must not trip it again (%s)", got, p.text(`SELECT breaker_reason FROM singil.provider_state`))
	}
	p.checkBooks()
}

func TestUnknownOutcomesPauseCharging(t *testing.T) {
	t.Parallel()
	// A block is until a time of the real clock: one that goes with the virtual one.
	begun := time.Now()
	var elapsed atomic.Int64
	p := setup(t, watching, func(cfg *worker.Config) {
		cfg.Now = func() time.Time { return begun.Add(time.Duration(elapsed.Load())) }
	})
	p.onSet = func(now time.Time) { elapsed.Store(int64(now.Sub(noon))) }
	p.manySubscriptions("s", 60)
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.attach", Probability: 1})
	p.tick()
	p.set(noon.Add(90 * time.Second))
	p.subscribe("late", "4343434343434345")
	p.stopped("nothing is known of 60 attempts")
	if got := p.text(`SELECT breaker_open || ' ' || (blocked_until IS NOT NULL) FROM singil.provider_state`); got != "false true" {
		t.Errorf("breaker open, blocked: %s", got)
	}
	p.box.ClearFaults()
	p.until(noon.Add(2 * time.Hour))
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 61 {
		t.Errorf("%d of 61 paid when the pause was over", n)
	}
	p.checkBooks()
}

// A payment that PayMongo is processing is slow, and known: a look tells where it
// is. Only what no answer tells of makes charging rest.
func TestProcessingIsNotUnknown(t *testing.T) {
	t.Parallel()
	p := setup(t, watching)
	blocked := func() bool {
		return p.number(`SELECT count(*) FROM singil.provider_state WHERE blocked_until IS NOT NULL`) == 1
	}
	p.manySubscriptions("slow", 60)
	p.fault(sandbox.Fault{Kind: sandbox.Processing, Probability: 1, For: sandbox.Duration(3 * time.Hour)})
	p.tick()
	p.box.ClearFaults()
	if n := p.number(`SELECT count(*) FROM singil.attempts WHERE state = 'armed'`); n != 60 {
		t.Fatalf("%d of 60 attempts have an open outcome", n)
	}
	p.set(noon.Add(90 * time.Second))
	p.subscribe("late", "4343434343434345")
	p.tick()
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 1 || blocked() {
		t.Errorf("%d paid beside what is processing, want 1; blocked: %t", n, blocked())
	}
	// Nor does it hide what is unknown: 20 of 81 are one in four.
	p.manySubscriptions("lost", 20)
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.attach", Probability: 1})
	p.tick()
	p.set(noon.Add(3 * time.Minute))
	p.subscribe("later", "4343434343434345")
	p.stopped("nothing is known of 20 in 81 attempts")
	if !blocked() {
		t.Error("charging goes on")
	}
}

func TestUnusualVolumeStopsEverything(t *testing.T) {
	t.Parallel()
	p := setup(t, watching)
	p.exec(`INSERT INTO singil.charge_budget (day, livemode, max_count, max_minor, used_count)
		SELECT $1::date - n, false, 1000000, 100000000000, 300 + n FROM generate_series(1, 10) n`, noon)
	p.exec(`INSERT INTO singil.charge_budget (day, livemode, max_count, max_minor, used_count) VALUES ($1::date, false, 1000000, 100000000000, 1200)`, noon)
	p.subscribe("s0", "4343434343434345")
	p.stopped("1,200 attempts where 310 are the most")
	if got := p.text(`SELECT breaker_reason FROM singil.provider_state`); !strings.HasPrefix(got, "1200 attempts today, more than 3 times the 310") {
		t.Errorf("breaker: %q", got)
	}
	p.unfreeze()
	p.until(p.now.Add(time.Hour))
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 1 {
		t.Error("nothing is charged after the operator has looked")
	}
}
