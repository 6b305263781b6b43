package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

var (
	tortureSubscriptions = flag.Int("torture-subscriptions", 40, "subscriptions of TestTwoDaemonsOneIsKilled")
	tortureSeed          = flag.Uint64("torture-seed", 20260131, "seed of its faults")
)

// tortureStart is the first due moment: noon in Manila on a day that not every
// month has.
var tortureStart = time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)

// TestTwoDaemonsOneIsKilled runs the real binary twice against one database and
// a sandbox where one call in five goes wrong, and kills one of the two with SIGKILL
// again and again while three months pass. Half of the webhooks go wrong too: lost,
// twice, out of order, late, early. In the end the ledger has each period paid once
// or not at all, the books say the same, and nothing is open.
//
//	make torture
func TestTwoDaemonsOneIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "singil")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	tt := newTorture(t, binary)
	tt.subscribe(*tortureSubscriptions)
	for _, kind := range []sandbox.FaultKind{
		sandbox.TimeoutBefore, sandbox.TimeoutAfter, sandbox.ErrorBefore, sandbox.ErrorAfter, sandbox.ResetBefore, sandbox.ResetAfter,
		sandbox.CutBody, sandbox.HTMLBody,
	} {
		tt.fault(sandbox.Fault{Kind: kind, Probability: 0.02, Endpoint: "payment_intents.*"})
	}
	tt.fault(sandbox.Fault{Kind: sandbox.LateAttach, Probability: 0.02, For: sandbox.Duration(10 * time.Minute)})
	tt.fault(sandbox.Fault{Kind: sandbox.Processing, Probability: 0.03, For: sandbox.Duration(3 * time.Hour)})
	tt.fault(sandbox.Fault{Kind: sandbox.WrongContentType, Probability: 0.01, Endpoint: "payment_intents.*"})
	// A 429 holds the whole daemon back for a second and more, in real time.
	tt.fault(sandbox.Fault{Kind: sandbox.RateLimitBefore, Probability: 0.001, Endpoint: "payment_intents.*"})
	tt.fault(sandbox.Fault{Kind: sandbox.RateLimitAfter, Probability: 0.001, Endpoint: "payment_intents.*"})
	tt.fault(sandbox.Fault{Kind: sandbox.Stale, Probability: 0.02, For: sandbox.Duration(5 * time.Minute)})
	tt.fault(sandbox.Fault{Kind: sandbox.ExpireIntent, Probability: 0.01})
	tt.fault(sandbox.Fault{Kind: sandbox.ThreeDS, Probability: 0.02})
	tt.fault(sandbox.Fault{Kind: sandbox.Decline, Probability: 0.05, Codes: map[string]int{"do_not_honor": 3, "issuer_not_available": 1}})
	for _, f := range webhookFaults(0.1) {
		tt.fault(f)
	}

	tt.start(0)
	tt.start(1)
	end := tortureStart.AddDate(0, 2, 25)
	kills := 0
	lastKill := time.Now()
	for step := 0; tt.now.Before(end); step++ {
		if time.Since(lastKill) > 1500*time.Millisecond {
			tt.kill(0)
			tt.start(0)
			kills++
			lastKill = time.Now()
		}
		tt.quiet(3 * time.Second)
		tt.set(tt.next(end))
	}
	tt.settleAll()
	tt.heedAll()
	if kills == 0 {
		t.Error("nobody was killed: the run was too short to prove anything")
	}
	tt.report(kills)
}

// torture is a database, a sandbox and two processes.
type torture struct {
	t       *testing.T
	binary  string
	dsn     string
	pool    *pgxpool.Pool
	box     *sandbox.Sandbox
	url     string
	now     time.Time
	client  *paymongo.Client
	secret  string // of the webhook
	daemons [2]*exec.Cmd

	mu   sync.Mutex
	logs [2]*tail // of the daemons that run
}

func newTorture(t *testing.T, binary string) *torture {
	t.Helper()
	tt := &torture{t: t, binary: binary, dsn: pgtest.DSN(t), now: tortureStart}
	pool, err := pgxpool.New(t.Context(), tt.dsn)
	if err != nil {
		t.Fatal(err)
	}
	tt.pool = pool
	tt.box, err = sandbox.New(sandbox.Options{
		Seed: *tortureSeed, Start: tortureStart, StopClock: true, Hang: 20 * time.Millisecond, WebhookTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(tt.box)
	tt.url = server.URL + "/v1"
	tt.client, err = paymongo.NewClient("sk_test_torture", paymongo.WithBaseURL(tt.url), paymongo.WithRate(math.Inf(1), 0))
	if err != nil {
		t.Fatal(err)
	}
	tt.secret = newWebhookFront(t, tt.alive).subscribe(t, tt.client)
	t.Cleanup(func() {
		tt.client.CloseIdleConnections()
		for i := range tt.daemons {
			tt.kill(i)
		}
		if err := tt.box.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
		pool.Close()
	})
	tt.tx(func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		return billing.SetVirtualClock(t.Context(), tx, tortureStart)
	})
	return tt
}

func (tt *torture) tx(do func(pgx.Tx) error) {
	tt.t.Helper()
	if err := pgx.BeginFunc(context.Background(), tt.pool, do); err != nil {
		tt.t.Fatal(err)
	}
}

func (tt *torture) fault(f sandbox.Fault) {
	tt.t.Helper()
	if _, err := tt.box.AddFault(f); err != nil {
		tt.t.Fatal(err)
	}
}

// subscribe makes n subscriptions, due at the start: most cards pay, some never do.
func (tt *torture) subscribe(n int) {
	tt.t.Helper()
	mix := []string{"4343434343434345", "4343434343434345", "4343434343434345", "5555444444444457", "5100000000000198", "5400000000000195"}
	plan, policy := uuid.New(), `{"offsets_days":[1,3,5,7],"hour":9,"end":"mark_unpaid"}`
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
		VALUES ($1, 'pro', 49900, 'PHP', 'month', 1, $2, 'bill_all')`, plan, policy)
	for i := range n {
		method, err := tt.client.PaymentMethods.Create(tt.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
			Number: paymongo.NewSecret(mix[i%len(mix)]), ExpMonth: 12, ExpYear: 2035, CVC: paymongo.NewSecret("123"),
		}})
		if err != nil {
			tt.t.Fatal(err)
		}
		customer := uuid.New()
		batch.Queue(`INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, customer, fmt.Sprint("u", i))
		batch.Queue(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand) VALUES ($1, $2, $3, 'visa')`, uuid.New(), customer, method.ID)
		batch.Queue(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
				anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
			VALUES ($1, $2, $3, $4, 'active', 49900, 'PHP', 'month', 1, $5, 'Asia/Manila', 0, $5, $5, $6, 'bill_all')`,
			uuid.New(), fmt.Sprint("s", i), customer, plan, tortureStart, policy)
	}
	if err := tt.pool.SendBatch(context.Background(), batch).Close(); err != nil {
		tt.t.Fatal(err)
	}
}

func (tt *torture) start(i int) {
	tt.t.Helper()
	cmd := exec.Command(tt.binary, "run")
	cmd.Env = append(os.Environ(),
		"DATABASE_URL="+tt.dsn, "PAYMONGO_SECRET_KEY=sk_test_torture", "PAYMONGO_BASE_URL="+tt.url, "PAYMONGO_RATE=5000",
		"SINGIL_LISTEN=127.0.0.1:0", "PAYMONGO_WEBHOOK_SECRET="+tt.secret,
		"SINGIL_WATCH=false", // one call in five gone wrong is what it stops at
	)
	log := &tail{}
	cmd.Stderr = log
	if testing.Verbose() {
		cmd.Stderr = io.MultiWriter(log, tt.t.Output())
	}
	if err := cmd.Start(); err != nil {
		tt.t.Fatal(err)
	}
	tt.daemons[i] = cmd
	tt.setLog(i, log)
}

func (tt *torture) setLog(i int, log *tail) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.logs[i] = log
}

// alive are the daemons that take webhooks.
func (tt *torture) alive() (urls []string) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for _, log := range tt.logs {
		if log != nil && log.listens() != "" {
			urls = append(urls, log.listens())
		}
	}
	return urls
}

func (tt *torture) kill(i int) {
	if cmd := tt.daemons[i]; cmd != nil {
		tt.setLog(i, nil)
		_ = cmd.Process.Kill() // it may have ended by itself: Wait tells nothing new
		_ = cmd.Wait()
		tt.daemons[i] = nil
	}
}

func (tt *torture) number(sql string, args ...any) (n int) {
	tt.t.Helper()
	if err := tt.pool.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		tt.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// quiet waits until nothing that is due waits for a worker, but not for long:
// a job of a daemon that was killed is found again when its lease is over.
func (tt *torture) quiet(patience time.Duration) {
	tt.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		waiting := tt.number(`
			SELECT (SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1)
			     + (SELECT count(*) FROM singil.invoices WHERE status = 'open' AND (next_attempt_at <= $1 OR claimed))`, tt.now)
		if waiting == 0 {
			return
		}
		select {
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// next is the next wake-up of anything, at least a minute on.
func (tt *torture) next(end time.Time) time.Time {
	tt.t.Helper()
	var next *time.Time
	if err := tt.pool.QueryRow(context.Background(), `
		SELECT least((SELECT min(next_due_at) FROM singil.subscriptions), (SELECT min(next_attempt_at) FROM singil.invoices WHERE status = 'open'))`).Scan(&next); err != nil {
		tt.t.Fatal(err)
	}
	at := tt.now.Add(10 * time.Minute)
	if next != nil && next.After(at) {
		at = *next
	}
	if at.After(end) {
		return end
	}
	return at
}

func (tt *torture) set(now time.Time) {
	tt.t.Helper()
	tt.now = now
	tt.box.Clock().Set(now)
	tt.tx(func(tx pgx.Tx) error { return billing.SetVirtualClock(context.Background(), tx, now) })
}

// settleAll lets the reconcile ladder come to its end, without any more faults.
func (tt *torture) settleAll() {
	tt.t.Helper()
	tt.box.ClearFaults()
	deadline := time.Now().Add(2 * time.Minute)
	for tt.number(`SELECT count(*) FROM singil.invoices WHERE status = 'open'`) > 0 {
		if time.Now().After(deadline) {
			return
		}
		tt.quiet(3 * time.Second)
		// Nothing new falls due: the subscriptions are at rest.
		tt.tx(func(tx pgx.Tx) error {
			_, err := tx.Exec(context.Background(), `UPDATE singil.subscriptions SET next_due_at = '2200-01-01' WHERE next_due_at IS NOT NULL`)
			return err
		})
		tt.set(tt.next(tt.now.AddDate(1, 0, 0)))
	}
}

// heedAll moves the clock on until every delivery is processed: one that came
// before what it is about waits for six hours at most.
func (tt *torture) heedAll() {
	tt.t.Helper()
	const unprocessed = `SELECT count(*) FROM singil.webhook_events WHERE processed_at IS NULL`
	for range 2 * 6 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := tt.box.Drain(ctx); err != nil {
			tt.t.Errorf("deliveries do not end: %v", err)
		}
		cancel()
		deadline := time.Now().Add(5 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		for tt.number(unprocessed+` AND next_try_at <= $1`, tt.now) > 0 && time.Now().Before(deadline) {
			<-tick.C
		}
		tick.Stop()
		if tt.number(unprocessed) == 0 {
			return
		}
		tt.set(tt.now.Add(time.Hour))
	}
	tt.t.Errorf("%d webhooks are still not processed", tt.number(unprocessed))
}

// webhooks tells what became of PayMongo's deliveries.
func (tt *torture) webhooks() string {
	tt.t.Helper()
	rows, err := tt.pool.Query(context.Background(), `SELECT COALESCE(result, 'not processed'), count(*) FROM singil.webhook_events GROUP BY 1 ORDER BY 1`)
	if err != nil {
		tt.t.Fatal(err)
	}
	var result string
	var n, all int
	var lines []string
	if _, err := pgx.ForEachRow(rows, []any{&result, &n}, func() error {
		all += n
		lines = append(lines, fmt.Sprint(n, " ", result))
		return nil
	}); err != nil {
		tt.t.Fatal(err)
	}
	if all == 0 {
		tt.t.Error("no webhook came")
	}
	counters := tt.box.Counters()
	return fmt.Sprintf("%d events processed (%s); %d deliveries, %d of them not taken, %d events lost",
		all, strings.Join(lines, ", "), counters.Deliveries, counters.DeliveriesFailed, counters.WebhooksLost)
}

func (tt *torture) report(kills int) {
	t := tt.t
	t.Helper()
	sum := tt.box.Summary("invoice")
	t.Logf("seed %d: %d subscriptions, %d kills; %d intents, %d attaches executed, %d paid, %d declined; doubles: %d",
		tt.box.Seed(), *tortureSubscriptions, kills, sum.Intents, sum.AttachesExecuted, sum.PaidPayments, sum.FailedPayments, len(sum.PaidMoreThanOnce))
	if len(sum.PaidMoreThanOnce) > 0 || len(sum.IntentsPaidMoreThanOnce) > 0 {
		t.Errorf("CHARGED TWICE: %v %v", sum.PaidMoreThanOnce, sum.IntentsPaidMoreThanOnce)
	}
	rows, err := tt.pool.Query(context.Background(), `SELECT id::text, status, COALESCE(reason, '') FROM singil.invoices`)
	if err != nil {
		t.Fatal(err)
	}
	var id, status, reason string
	states := map[string]int{}
	if _, err := pgx.ForEachRow(rows, []any{&id, &status, &reason}, func() error {
		states[status]++
		if paid := sum.PaidByValue[id] == 1; paid != (status == billing.InvoicePaid) {
			t.Errorf("invoice %s: the books say %s (%s), the ledger has %d payments", id, status, reason, sum.PaidByValue[id])
		}
		if status == billing.InvoiceOpen || status == billing.InvoiceReview {
			t.Errorf("invoice %s is still %s: %s", id, status, reason)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n := tt.number(`SELECT count(*) FROM singil.attempts WHERE state IN ('armed', 'review')`); n > 0 {
		t.Errorf("%d outcomes are still unknown", n)
	}
	// Every subscription was billed for every period that began: 31 Jan, 28 Feb, 31 Mar.
	lost := tt.number(`
		SELECT count(*) FROM singil.subscriptions s CROSS JOIN generate_series(0, 2) AS no
		WHERE s.status <> 'cancelled' AND NOT EXISTS (SELECT 1 FROM singil.invoices i WHERE i.subscription_id = s.id AND i.period_no = no)`)
	if lost > 0 {
		t.Errorf("LOST: %d periods have no invoice", lost)
	}
	var lines []string
	for status, n := range states {
		lines = append(lines, fmt.Sprint(n, " ", status))
	}
	t.Logf("invoices: %s", strings.Join(lines, ", "))
	t.Logf("webhooks: %s", tt.webhooks())
}
