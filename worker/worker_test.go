package worker_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

var (
	subscriptions = flag.Int("subscriptions", 60, "subscriptions in TestThreeMonthsOfFaults")
	verbose       = flag.Bool("logs", false, "show the worker's log lines")
)

// noon of the last of January in Manila: the anchor of most tests.
var noon = time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)

// plant is a database, a sandbox, and a worker between them, all on one
// virtual clock that the test moves.
type plant struct {
	t         *testing.T
	pool      *pgxpool.Pool
	box       *sandbox.Sandbox
	client    *paymongo.Client
	collector *worker.Collector
	metrics   *worker.Metrics
	jobs      *river.Client[pgx.Tx]
	now       time.Time
	onSet     func(now time.Time) // nil: nobody else follows the clock
}

func setup(t *testing.T, opts ...func(*worker.Config)) *plant {
	t.Helper()
	p := &plant{t: t, pool: pgtest.DB(t), metrics: worker.NewMetrics(), now: noon}
	box, err := sandbox.New(sandbox.Options{Seed: 7, Start: noon, StopClock: true, Hang: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(box)
	p.box = box
	p.client, err = paymongo.NewClient("sk_test_worker", paymongo.WithBaseURL(server.URL+"/v1"),
		paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if *verbose {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		return billing.SetVirtualClock(t.Context(), tx, noon)
	}); err != nil {
		t.Fatal(err)
	}
	cfg := worker.Config{
		Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Log: log, Metrics: p.metrics, Now: time.Now,
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	p.collector = worker.NewCollector(cfg)
	p.jobs, err = river.NewClient(riverpgxv5.New(p.pool), &river.Config{
		Schema: "river", Workers: p.collector.Workers(), Logger: log,
		Queues:     map[string]river.QueueConfig{worker.QueueCharge: {MaxWorkers: 16}, worker.QueueReconcile: {MaxWorkers: 8}},
		JobTimeout: worker.JobTimeout, RescueStuckJobsAfter: worker.RescueAfter,
		FetchCooldown: 5 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.jobs.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := p.jobs.StopAndCancel(ctx); err != nil {
			t.Error(err)
		}
		p.client.CloseIdleConnections()
		if err := box.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return p
}

func (p *plant) fault(f sandbox.Fault) {
	p.t.Helper()
	if _, err := p.box.AddFault(f); err != nil {
		p.t.Fatal(err)
	}
}

// subscribe makes a customer with cards and a monthly subscription from noon on.
func (p *plant) subscribe(name string, numbers ...string) uuid.UUID {
	p.t.Helper()
	customer, plan, subscription := uuid.New(), uuid.New(), uuid.New()
	policy := `{"offsets_days":[1,3,5,7],"hour":9,"end":"cancel"}`
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, customer, "customer of "+name)
	for i, number := range numbers {
		method, err := p.client.PaymentMethods.Create(p.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
			Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
		}})
		if err != nil {
			p.t.Fatal(err)
		}
		batch.Queue(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, exp_month, exp_year, position)
			VALUES ($1, $2, $3, 'visa', 12, 2030, $4)`, uuid.New(), customer, method.ID, i)
	}
	batch.Queue(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
		VALUES ($1, $2, 49900, 'PHP', 'month', 1, $3, 'bill_all')`, plan, "plan of "+name, policy)
	batch.Queue(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
		VALUES ($1, $2, $3, $4, 'active', 49900, 'PHP', 'month', 1, $5, 'Asia/Manila', 0, $5, $5, $6, 'bill_all')`,
		subscription, name, customer, plan, noon, policy)
	if err := p.pool.SendBatch(context.Background(), batch).Close(); err != nil {
		p.t.Fatal(err)
	}
	return subscription
}

// tick sweeps at the present time and waits until every job is done.
func (p *plant) tick() worker.Swept {
	p.t.Helper()
	swept, err := p.collector.Sweep(p.t.Context(), p.jobs)
	if err != nil {
		p.t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for p.number(`SELECT count(*) FROM river.river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled', 'pending')`) > 0 {
		<-time.After(2 * time.Millisecond)
		if time.Now().After(deadline) {
			p.t.Fatalf("jobs are still not done: %s", p.text(`SELECT string_agg(kind || ' ' || state::text || ' ' || COALESCE(errors[1]::text, ''), E'\n') FROM river.river_job WHERE state <> 'completed'`))
		}
	}
	return swept
}

// until moves the clock from wake-up to wake-up.
func (p *plant) until(end time.Time) {
	p.t.Helper()
	for {
		p.tick()
		var next *time.Time
		err := p.pool.QueryRow(context.Background(), `
			SELECT least((SELECT min(next_due_at) FROM singil.subscriptions),
			             (SELECT min(next_attempt_at) FROM singil.invoices WHERE status = 'open'))`).Scan(&next)
		if err != nil {
			p.t.Fatal(err)
		}
		if next == nil || next.After(end) {
			p.set(end)
			return
		}
		p.set(maxTime(*next, p.now.Add(time.Minute)))
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (p *plant) set(now time.Time) {
	p.t.Helper()
	p.now = now
	if p.onSet != nil {
		p.onSet(now)
	}
	p.box.Clock().Set(now)
	p.box.Settle()
	if err := pgx.BeginFunc(context.Background(), p.pool, func(tx pgx.Tx) error {
		return billing.SetVirtualClock(context.Background(), tx, now)
	}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) number(sql string) (n int) {
	p.t.Helper()
	if err := p.pool.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (p *plant) text(sql string) string {
	p.t.Helper()
	var s *string
	if err := p.pool.QueryRow(context.Background(), sql).Scan(&s); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
	if s == nil {
		return ""
	}
	return *s
}

// checkBooks compares the books with the sandbox's ledger, both ways.
func (p *plant) checkBooks() {
	p.t.Helper()
	sum := p.box.Summary("invoice")
	if len(sum.PaidMoreThanOnce) > 0 || len(sum.IntentsPaidMoreThanOnce) > 0 {
		p.t.Errorf("CHARGED TWICE: %v %v", sum.PaidMoreThanOnce, sum.IntentsPaidMoreThanOnce)
	}
	rows, err := p.pool.Query(context.Background(), `
		SELECT i.id::text, i.status, COALESCE(i.payment_id, ''), COALESCE(i.reason, ''), s.external_id, i.period_no
		FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`)
	if err != nil {
		p.t.Fatal(err)
	}
	var id, status, payment, reason, name string
	var no int
	seen := map[string]bool{}
	_, err = pgx.ForEachRow(rows, []any{&id, &status, &payment, &reason, &name, &no}, func() error {
		seen[id] = true
		if paid := sum.PaidByValue[id] == 1; paid != (status == billing.InvoicePaid) {
			p.t.Errorf("%s period %d: books say %s (%s), the ledger has %d payments", name, no, status, reason, sum.PaidByValue[id])
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	stored := map[string]bool{}
	ids, err := p.pool.Query(context.Background(), `SELECT provider_intent_id FROM singil.payment_intents WHERE provider_intent_id IS NOT NULL
		UNION ALL SELECT provider_intent_id FROM singil.card_setups WHERE provider_intent_id IS NOT NULL`)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := pgx.ForEachRow(ids, []any{&id}, func() error { stored[id] = true; return nil }); err != nil {
		p.t.Fatal(err)
	}
	for _, pi := range p.box.Ledger().Intents {
		if len(pi.Attaches) > 0 && !stored[pi.ID] {
			p.t.Errorf("an attach to intent %s, which was never stored", pi.ID)
		}
		if invoice := pi.Metadata["invoice"]; invoice != "" && !seen[invoice] {
			p.t.Errorf("intent %s is for invoice %s, which is not in the books", pi.ID, invoice)
		}
	}
}

func TestDueSubscriptionIsPaid(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4343434343434345")
	swept := p.tick()
	if swept.Invoices != 1 || swept.Enqueued != 1 {
		t.Errorf("%+v", swept)
	}
	if got := p.text(`SELECT status || ' ' || attempt_count FROM singil.invoices`); got != "paid 1" {
		t.Error(got)
	}
	p.checkBooks()
	p.until(noon.AddDate(0, 3, 1))
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 4 {
		t.Errorf("%d periods paid, want 4 (31 Jan, 28 Feb, 31 Mar, 30 Apr)", n)
	}
	p.checkBooks()
}

func TestHardDeclineMovesOnToTheNextCard(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "5400000000000195", "4343434343434345")
	p.until(noon.Add(time.Hour))
	if got := p.text(`SELECT string_agg(state || ' ' || COALESCE(decline_code, ''), ', ' ORDER BY no) FROM singil.attempts`); got != "declined stolen_card, succeeded " {
		t.Error(got)
	}
	if got := p.text(`SELECT string_agg(status, ', ' ORDER BY position) FROM singil.payment_methods`); got != "blocked, active" {
		t.Error(got)
	}
	p.checkBooks()
}

func TestDunningEndsAndCancels(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4400000000000016") // generic_decline, always
	p.until(noon.AddDate(0, 2, 0))
	if got := p.text(`SELECT status || ': ' || COALESCE(reason, '') FROM singil.invoices ORDER BY period_no LIMIT 1`); got == "" || got[:13] != "uncollectible" {
		t.Error(got)
	}
	if got := p.text(`SELECT status FROM singil.subscriptions`); got != billing.SubscriptionCancelled {
		t.Error(got)
	}
	if n := p.number(`SELECT count(*) FROM singil.events WHERE type = 'subscription.cancelled'`); n != 1 {
		t.Errorf("%d events", n)
	}
	p.checkBooks()
}

func TestThreeDSWaitsForTheCustomer(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4120000000000007")
	p.tick()
	if got := p.text(`SELECT i.status || ' ' || i.waiting_for || ' ' || a.state FROM singil.invoices i JOIN singil.attempts a ON a.invoice_id = i.id`); got != "open customer needs_action" {
		t.Error(got)
	}
	if got := p.text(`SELECT type || ' ' || (data ->> 'url' <> '')::text FROM singil.events WHERE type = 'invoice.needs_action'`); got != "invoice.needs_action true" {
		t.Error(got)
	}
	p.until(noon.AddDate(0, 1, 20))
	p.checkBooks()
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'uncollectible'`); n == 0 {
		t.Error("an invoice waits for the customer for ever")
	}
}

func TestUnauthorizedTripsTheBreakerAndDunsNobody(t *testing.T) {
	t.Parallel()
	p := setup(t)
	for i := range 5 {
		p.subscribe(fmt.Sprint("s", i), "4343434343434345")
	}
	p.fault(sandbox.Fault{ID: "storm", Kind: sandbox.Unauthorized})
	for _, after := range []time.Duration{0, time.Hour, 24 * time.Hour} {
		p.set(noon.Add(after))
		p.tick()
	}
	if got := p.text(`SELECT breaker_open::text FROM singil.provider_state`); got != "true" {
		t.Errorf("breaker open: %s", got)
	}
	if n := p.number(`SELECT count(*) FROM singil.subscriptions WHERE status <> 'active'`); n != 0 {
		t.Errorf("%d subscriptions were dunned", n)
	}
	p.box.ClearFaults()
	if err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error { return billing.CloseBreaker(t.Context(), tx, "ana", "key rotated") }); err != nil {
		t.Fatal(err)
	}
	p.until(noon.Add(30 * time.Hour))
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 5 {
		t.Errorf("%d of 5 paid afterwards", n)
	}
	p.checkBooks()
}

// TestOneBadRowStopsNothing makes the database refuse the batch of one
// subscription among many.
func TestOneBadRowStopsNothing(t *testing.T) {
	t.Parallel()
	p := setup(t)
	for i := range 20 {
		p.subscribe(fmt.Sprint("s", i), "4343434343434345")
	}
	for _, sql := range []string{
		`CREATE FUNCTION public.poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		   IF NEW.subscription_id = (SELECT id FROM singil.subscriptions WHERE external_id = 's7') THEN RAISE EXCEPTION 'poison'; END IF;
		   RETURN NEW; END $$`,
		`CREATE TRIGGER poison BEFORE INSERT ON singil.invoices FOR EACH ROW EXECUTE FUNCTION public.poison()`,
	} {
		if _, err := p.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	swept := p.tick()
	if swept.Invoices != 19 || swept.Parked != 1 {
		t.Errorf("%+v", swept)
	}
	if got := p.text(`SELECT parked_reason FROM singil.subscriptions WHERE external_id = 's7'`); !strings.Contains(got, "poison") {
		t.Errorf("parked because of %q", got)
	}
	if n := p.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); n != 19 {
		t.Errorf("%d of 19 paid", n)
	}
	p.checkBooks()
}

// What an attach may be answered with that is no decline of the card.
func TestRefusedAttaches(t *testing.T) {
	t.Parallel()
	state := `SELECT i.status || ' ' || i.waiting_for || ' ' || a.state || ' ' || COALESCE(a.decline_code, '') FROM singil.invoices i JOIN singil.attempts a ON a.invoice_id = i.id`

	t.Run("CardIsGone", func(t *testing.T) {
		t.Parallel()
		p := setup(t)
		p.subscribe("s1", "4343434343434345")
		if _, err := p.pool.Exec(t.Context(), `UPDATE singil.payment_methods SET provider_payment_method_id = 'pm_gone'`); err != nil {
			t.Fatal(err)
		}
		p.tick()
		if got := p.text(state); got != "open schedule no_effect " {
			t.Error(got)
		}
		if got := p.text(`SELECT status || ' ' || blocked_code FROM singil.payment_methods`); got != "blocked gone" {
			t.Error(got)
		}
		p.until(noon.AddDate(0, 0, 20))
		if got := p.text(`SELECT status FROM singil.invoices`); got != billing.InvoiceUncollectible {
			t.Error(got)
		}
		p.checkBooks()
	})
	t.Run("NotAllowedOffSession", func(t *testing.T) {
		t.Parallel()
		p := setup(t)
		p.subscribe("s1", "4343434343434345")
		p.vault()
		profile := p.box.Profile()
		profile.OffSession = "not_allowed"
		if err := p.box.SetProfile(profile); err != nil {
			t.Fatal(err)
		}
		p.tick()
		if got := p.text(state); got != "open customer declined organization_not_allowed" {
			t.Error(got)
		}
		if got := p.text(`SELECT breaker_open::text FROM singil.provider_state`); got != "false" {
			t.Error("an account that may not charge off-session is no fault of the key")
		}
	})
	t.Run("Unauthorized", func(t *testing.T) {
		t.Parallel()
		p := setup(t)
		p.subscribe("s1", "4343434343434345")
		p.fault(sandbox.Fault{Kind: sandbox.Unauthorized, Endpoint: "payment_intents.attach", Times: 1})
		p.tick()
		if got := p.text(state); got != "open schedule no_effect " {
			t.Error(got)
		}
		if got := p.text(`SELECT breaker_open::text FROM singil.provider_state`); got != "true" {
			t.Error("the breaker did not trip")
		}
	})
}

// TestOneDaemonsBlockIsEverybodys has the provider slow one daemon down.
func TestOneDaemonsBlockIsEverybodys(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4343434343434345")
	p.fault(sandbox.Fault{Kind: sandbox.RateLimitBefore, RetryAfter: sandbox.Duration(time.Minute), Endpoint: "payment_intents.create", Times: 1})
	p.tick()
	if got := p.text(`SELECT (blocked_until > clock_timestamp() + interval '30 seconds')::text FROM singil.provider_state`); got != "true" {
		t.Errorf("blocked for all: %s", got)
	}
	p.set(noon.Add(time.Hour))
	if swept := p.tick(); swept.Enqueued != 0 {
		t.Errorf("%d jobs were enqueued during the block", swept.Enqueued)
	}
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 0 {
		t.Errorf("%d attempts", n)
	}
}

// TestOldFailureIsNoEvidenceAboutANewAttempt: a decline whose payment we were
// not shown when it happened must not pass for the outcome of a later attach.
// Not even when the look before that attach was answered with the state of before
// the decline, so that it could not be put on record.
func TestOldFailureIsNoEvidenceAboutANewAttempt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		looks []sandbox.Fault
	}{
		{"Shown", nil},
		{"NotShownYet", []sandbox.Fault{{Kind: sandbox.Stale, For: sandbox.Duration(240 * time.Hour), Times: 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			oldFailure(t, tt.looks...)
		})
	}
}

func oldFailure(t *testing.T, looks ...sandbox.Fault) {
	p := setup(t)
	p.subscribe("s1", "4343434343434345")
	p.fault(sandbox.Fault{ID: "first", Kind: sandbox.Decline, Code: "do_not_honor", Times: 1})
	p.tick()
	p.box.ClearFaults()
	p.fault(sandbox.Fault{Kind: sandbox.LateAttach, For: sandbox.Duration(10 * time.Minute), Times: 1})
	for _, f := range looks {
		p.fault(f)
	}
	var second time.Time
	if err := p.pool.QueryRow(t.Context(), `SELECT next_attempt_at FROM singil.invoices`).Scan(&second); err != nil {
		t.Fatal(err)
	}
	p.set(second)
	p.tick()
	p.set(second.Add(2 * time.Minute))
	p.tick()
	if got := p.text(`SELECT state FROM singil.attempts WHERE no = 2`); got != "armed" {
		t.Errorf("the second attempt is still to be executed, and is called %s", got)
	}
	p.until(second.Add(30 * time.Minute))
	if got := p.text(`SELECT string_agg(state, ', ' ORDER BY no) FROM singil.attempts`); got != "declined, succeeded" {
		t.Error(got)
	}
	p.checkBooks()
}

// vault saves the one card on record for a customer of the sandbox.
func (p *plant) vault() {
	p.t.Helper()
	ctx := p.t.Context()
	customer, err := p.client.Customers.Create(ctx, &paymongo.CustomerCreateParams{
		FirstName: "Maria", LastName: "Santos", Email: "maria@example.com", Phone: "+639170000001", DefaultDevice: "email",
	})
	if err != nil {
		p.t.Fatal(err)
	}
	intent, err := p.client.PaymentIntents.Create(ctx, &paymongo.PaymentIntentCreateParams{
		Amount: 2000, PaymentMethodAllowed: []string{"card"},
		SetupFutureUsage: &paymongo.SetupFutureUsage{SessionType: paymongo.SessionTypeOffSession, CustomerID: customer.ID},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	card := p.text(`SELECT provider_payment_method_id FROM singil.payment_methods`)
	if _, err := p.client.PaymentIntents.Attach(ctx, intent.ID, &paymongo.PaymentIntentAttachParams{PaymentMethod: card}); err != nil {
		p.t.Fatal(err)
	}
}

func TestThreeMonthsOfFaults(t *testing.T) {
	t.Parallel()
	p := setup(t)
	mix := []string{"4343434343434345", "4343434343434345", "4343434343434345", "5555444444444457", "5100000000000198", "4400000000000016", "4120000000000007"}
	for i := range *subscriptions {
		p.subscribe(fmt.Sprintf("s%04d", i), mix[i%len(mix)])
	}
	for _, kind := range []sandbox.FaultKind{
		sandbox.TimeoutBefore, sandbox.TimeoutAfter, sandbox.ErrorBefore, sandbox.ErrorAfter, sandbox.ResetBefore, sandbox.ResetAfter,
		sandbox.CutBody, sandbox.HTMLBody,
	} {
		p.fault(sandbox.Fault{Kind: kind, Probability: 0.025, Endpoint: "payment_intents.*"})
	}
	p.fault(sandbox.Fault{Kind: sandbox.LateAttach, Probability: 0.03, For: sandbox.Duration(10 * time.Minute)})
	p.fault(sandbox.Fault{Kind: sandbox.Processing, Probability: 0.05, For: sandbox.Duration(3 * time.Hour)})
	p.fault(sandbox.Fault{Kind: sandbox.Processing, Probability: 0.03, For: sandbox.Duration(30 * time.Hour), Then: "insufficient_funds"})
	p.fault(sandbox.Fault{Kind: sandbox.Decline, Probability: 0.05, Codes: map[string]int{"do_not_honor": 3, "issuer_not_available": 1, "processor_timeout": 1}})
	p.fault(sandbox.Fault{Kind: sandbox.ExpireIntent, Probability: 0.02})
	p.until(noon.AddDate(0, 2, 25))
	p.checkBooks()
	if n := p.number(`SELECT count(*) FROM singil.attempts WHERE state IN ('armed', 'review')`); n > 0 {
		t.Errorf("%d outcomes are still unknown", n)
	}
	t.Logf("%s\n%s", p.text(`SELECT string_agg(n || ' ' || status, ', ') FROM (SELECT status, count(*) n FROM singil.invoices GROUP BY status) x`),
		p.text(`SELECT string_agg(n || ' ' || state, ', ') FROM (SELECT state, count(*) n FROM singil.attempts GROUP BY state) x`))
}

func TestSweepForgetsWhatIsOld(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4343434343434345")
	if swept := p.tick(); swept.Forgotten != 0 {
		t.Errorf("%+v", swept)
	}
	events, payments := p.number(`SELECT count(*) FROM singil.events`), p.number(`SELECT count(*) FROM singil.payments`)
	p.set(noon.Add(billing.EventRetention + time.Hour))
	if swept := p.tick(); events == 0 || swept.Forgotten != events {
		t.Errorf("%d of %d events", swept.Forgotten, events)
	}
	if n := p.number(`SELECT count(*) FROM singil.payments`); payments == 0 || n < payments {
		t.Errorf("%d payments on record, and there were %d", n, payments)
	}
	p.checkBooks()
}
