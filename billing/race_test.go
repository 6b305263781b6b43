package billing_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// sessions is how many do the same at once; the pool of a test has two more.
const sessions = 8

// together runs do in every session at once, each in a transaction of its own
// that is begun before any of them starts.
func (l *ledger) together(do func(session int, tx pgx.Tx) error) []error {
	l.t.Helper()
	results := make([]error, sessions)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range sessions {
		ready.Add(1)
		done.Go(func() {
			waiting := sync.OnceFunc(ready.Done)
			defer waiting()
			results[i] = pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) error {
				waiting()
				<-start
				return do(i, tx)
			})
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return results
}

func (l *ledger) none(results []error) {
	l.t.Helper()
	for i, err := range results {
		if err != nil {
			l.t.Errorf("session %d: %v", i, err)
		}
	}
}

// request asks to arm what was loaded.
func (l *ledger) request(c *billing.Collection, intent string) billing.ArmRequest {
	return billing.ArmRequest{
		InvoiceID: c.InvoiceID, IntentID: c.IntentID, ProviderIntentID: intent, Fence: c.Fence,
		CardID: l.card, ProviderCardID: "pm_1", Trigger: c.Trigger,
	}
}

// another adds a subscription like the first one, due at the same time.
func (l *ledger) another() {
	l.t.Helper()
	id := uuid.New()
	l.exec(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
	          anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
	        SELECT $1, $2, customer_id, plan_id, 'active', amount_minor, currency, interval_unit, interval_count,
	          anchor_at, time_zone, 0, anchor_at, anchor_at, dunning, catch_up
	        FROM singil.subscriptions WHERE id = $3`, id, id.String(), l.subscription)
}

func TestEightOpenTheSamePeriods(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for range 4 {
		l.another()
	}
	var opened [sessions]billing.Opened
	l.none(l.together(func(i int, tx pgx.Tx) (err error) {
		opened[i], err = billing.OpenDue(context.Background(), tx, billing.EnvironmentDev, false, noon, 100)
		return err
	}))
	invoices, parked := 0, 0
	for _, o := range opened {
		invoices, parked = invoices+o.Invoices, parked+o.Parked
	}
	if invoices != 5 || parked != 0 {
		t.Errorf("%d invoices of 5 periods, %d parked", invoices, parked)
	}
	l.want("5", `SELECT count(*)::text FROM singil.invoices`)
	l.want("5", `SELECT count(*)::text FROM singil.payment_intents`)
}

func TestEightArmOneIntent(t *testing.T) {
	t.Parallel()
	l := setup(t)
	c := l.load(l.open(noon)[0], noon)
	var armed [sessions]billing.ArmResult
	l.none(l.together(func(i int, tx pgx.Tx) error {
		// Half of them have created an intent of their own at the provider.
		results, err := billing.Arm(context.Background(), tx, []billing.ArmRequest{l.request(c, fmt.Sprintf("pi_%d", i/4))}, noon)
		if err == nil {
			armed[i] = results[0]
		}
		return err
	}))
	winners := 0
	for _, a := range armed {
		switch {
		case a.Err == nil:
			winners++
		case !errors.Is(a.Err, billing.ErrInFlight):
			t.Error(a.Err)
		}
	}
	if winners != 1 {
		t.Errorf("%d have armed", winners)
	}
	l.want("1", `SELECT count(*)::text FROM singil.attempts`)
	l.want("1", `SELECT used_count::text FROM singil.charge_budget`)
}

func TestEightSpendTheLastOfTheBudget(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for range sessions - 1 {
		l.another()
	}
	l.exec(`UPDATE singil.instance SET day_max_count = 3`)
	claimed := l.open(noon)
	if len(claimed) != sessions {
		t.Fatalf("%d are claimed", len(claimed))
	}
	winners := 0
	for _, err := range l.together(func(i int, tx pgx.Tx) error {
		results, err := billing.Arm(context.Background(), tx, []billing.ArmRequest{l.request(l.load(claimed[i], noon), fmt.Sprintf("pi_%d", i))}, noon)
		if err != nil {
			return err // the last of it was spent while this one was on its way
		}
		return results[0].Err
	}) {
		switch {
		case err == nil:
			winners++
		case !errors.Is(err, billing.ErrOverBudget):
			t.Error(err)
		}
	}
	if winners != 3 {
		t.Errorf("%d have armed, the budget is of 3", winners)
	}
	l.want("3", `SELECT used_count::text FROM singil.charge_budget`)
}

// TestEightSettleOneAttempt: four bring a success and four a decline. The
// success stands in the end, and is told once.
func TestEightSettleOneAttempt(t *testing.T) {
	t.Parallel()
	l := setup(t)
	c := l.load(l.open(noon)[0], noon)
	armed := l.arm(c, "pi_1", noon).Armed
	var settled [sessions]billing.Settled
	l.none(l.together(func(i int, tx pgx.Tx) error {
		j := billing.Judgement{Ruling: billing.Paid, Payment: paidPayment("pay_1"), Evidence: "retrieve"}
		if i%2 == 1 {
			j = billing.Judgement{Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"}
		}
		results, err := billing.Settle(context.Background(), tx, []billing.Settlement{{
			Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Source: "retrieve", Judgement: j,
		}}, noon, billing.BankHolidays())
		if err == nil {
			settled[i] = results[0]
		}
		return err
	}))
	paid := 0
	for _, s := range settled {
		if s.Applied && s.InvoiceStatus == billing.InvoicePaid {
			paid++
		}
	}
	if paid != 1 {
		t.Errorf("%d have applied the success", paid)
	}
	l.want("paid", `SELECT status FROM singil.invoices`)
	l.want("succeeded", `SELECT state FROM singil.attempts`)
	l.want("1", `SELECT count(*)::text FROM singil.events WHERE type = 'invoice.paid'`)
}

// TestEightSeeOneIntentDead: one opens the next generation, for the others it
// is settled.
func TestEightSeeOneIntentDead(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	l.arm(l.load(id, noon), "pi_1", noon)
	later := noon.Add(time.Hour)
	c := l.load(id, later)
	seen := billing.ProviderIntent{ID: "pi_1", Status: billing.ProviderCancelled, Amount: php(49900)}
	l.none(l.together(func(_ int, tx pgx.Tx) error {
		_, err := billing.Settle(context.Background(), tx, []billing.Settlement{{
			Collection: c, Attempt: c.Open.ID, Fence: c.Fence, Source: "retrieve", Judgement: c.Judge(seen, later), Seen: &seen,
		}}, later, billing.BankHolidays())
		return err
	}))
	l.want("dead creating", `SELECT string_agg(state, ' ' ORDER BY generation) FROM singil.payment_intents`)
}

// TestDeathIsSettledOnce is of an intent with no open attempt: nothing but its
// own state tells that somebody else was faster.
func TestDeathIsSettledOnce(t *testing.T) {
	t.Parallel()
	l := setup(t)
	id := l.open(noon)[0]
	armed := l.arm(l.load(id, noon), "pi_1", noon).Armed
	l.settle(billing.Settlement{
		Collection: l.load(id, noon), Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"},
	}, noon)
	c := l.load(id, noon)
	seen := billing.ProviderIntent{ID: "pi_1", Status: billing.ProviderCancelled, Amount: php(49900)}
	dead := billing.Settlement{Collection: c, Fence: c.Fence, Source: "retrieve", Judgement: c.Judge(seen, noon), Seen: &seen}
	if first := l.settle(dead, noon); !first.Applied {
		t.Errorf("%+v", first)
	}
	for _, j := range []billing.Judgement{dead.Judgement, {Ruling: billing.Park, Reason: "odd"}} {
		late := dead
		late.Judgement = j
		if again := l.settle(late, noon); again.Applied {
			t.Errorf("%s: %+v", j.Ruling, again)
		}
	}
	l.want("dead creating", `SELECT string_agg(state, ' ' ORDER BY generation) FROM singil.payment_intents`)
	l.want("open", `SELECT status FROM singil.invoices`)
}

// TestParkedBeforeItsIntentExists: the provider refuses to create the intent.
func TestParkedBeforeItsIntentExists(t *testing.T) {
	t.Parallel()
	l := setup(t)
	c := l.load(l.open(noon)[0], noon)
	settled := l.settle(billing.Settlement{Collection: c, Fence: c.Fence, Judgement: billing.Judgement{Ruling: billing.Park, Reason: "create: 400"}}, noon)
	if settled.InvoiceStatus != billing.InvoiceReview {
		t.Errorf("%+v", settled)
	}
	l.want("review", `SELECT status FROM singil.invoices`)
}

// TestCancelAndPauseAgainstArms: a subscription is cancelled or paused while
// its invoice is armed, at random moments. Whatever of the two is committed
// second has seen the first: no attempt begins behind the stop, and a cancel
// voids exactly what was not attempted.
func TestCancelAndPauseAgainstArms(t *testing.T) {
	t.Parallel()
	rounds := 1000
	if testing.Short() {
		rounds = 50
	}
	seed := uint64(20260131)
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	l := setup(t)
	ctx := context.Background()
	armedFirst, stopFirst := 0, 0
	for range rounds - 1 {
		l.another()
	}
	var claimed []uuid.UUID
	for len(claimed) < rounds {
		claimed = append(claimed, l.open(noon)...)
	}
	for round := range rounds {
		c := l.load(claimed[round], noon)
		pause := rnd.IntN(2) == 0
		stopLate, armLate := time.Duration(rnd.IntN(1500))*time.Microsecond, time.Duration(rnd.IntN(1500))*time.Microsecond
		holder := rnd.IntN(3) == 0 // somebody holds the invoice, so that the arm has to wait with an old snapshot

		var held, done sync.WaitGroup
		release := make(chan struct{})
		if holder {
			held.Add(1)
			done.Go(func() {
				err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(ctx, `SELECT FROM singil.invoices WHERE id = $1 FOR UPDATE`, c.InvoiceID)
					held.Done()
					<-release
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
			held.Wait()
		}
		var attemptsAtStop string
		stopped := make(chan struct{})
		done.Go(func() {
			defer close(stopped)
			<-time.After(stopLate)
			err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
				act := billing.Act{Actor: "ana", Reason: "test", Now: noon}
				if pause {
					return billing.PauseSubscription(ctx, tx, c.SubscriptionID, act)
				}
				return billing.CancelSubscription(ctx, tx, c.SubscriptionID, billing.CancelNow, act)
			})
			if err == nil {
				err = l.pool.QueryRow(ctx, `SELECT count(*)::text FROM singil.attempts WHERE invoice_id = $1`, c.InvoiceID).Scan(&attemptsAtStop)
			}
			if err != nil {
				t.Error(err)
			}
		})
		done.Go(func() {
			<-time.After(armLate)
			err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
				_, err := billing.Arm(ctx, tx, []billing.ArmRequest{l.request(c, fmt.Sprintf("pi_%d", round))}, noon)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
		if holder {
			// Not for the stop: it may have to wait for the same invoice.
			select {
			case <-stopped:
			case <-time.After(4 * time.Millisecond):
			}
			close(release)
		}
		done.Wait()

		attempts := l.one(`SELECT count(*)::text FROM singil.attempts WHERE invoice_id = $1`, c.InvoiceID)
		if attempts != attemptsAtStop {
			t.Fatalf("round %d, pause %t: %s attempts when it was committed, %s now", round, pause, attemptsAtStop, attempts)
		}
		want := map[bool]string{true: "open", false: "void"}[pause || attempts == "1"]
		if status := l.one(`SELECT status FROM singil.invoices WHERE id = $1`, c.InvoiceID); status != want {
			t.Errorf("round %d, pause %t, %s attempts: the invoice is %s", round, pause, attempts, status)
		}
		if attempts == "1" {
			armedFirst++
		} else {
			stopFirst++
		}
	}
	t.Logf("%d armed first, %d stopped first", armedFirst, stopFirst)
	if armedFirst == 0 || stopFirst == 0 {
		t.Error("one of the two always came first: nothing was raced")
	}
}
