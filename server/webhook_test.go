package server_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/server"
	"github.com/singil/singil/worker"
)

const inbox = `SELECT string_agg(type || ' ' || COALESCE(result, 'waits'), ', ' ORDER BY received_at, event_id) FROM singil.webhook_events`

func TestWebhookWakesTheLostAnswer(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", good)
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.attach", Times: 1})
	p.fault(sandbox.Fault{Kind: sandbox.WebhookDelay, Endpoint: "payment.paid", For: sandbox.Duration(10 * time.Second)})
	p.tick()
	p.want("open provider", `SELECT status || ' ' || waiting_for FROM singil.invoices`)
	// 10 seconds, and no sweep: the ladder's first look would be after a minute.
	p.set(noon.Add(10 * time.Second))
	p.want("paid", `SELECT status FROM singil.invoices`)
	p.set(noon.Add(2 * time.Minute))
	p.tick()
	p.want("payment.paid applied", inbox)
	p.wantMetric(`singil_webhook_events_total{result="applied",type="payment.paid"} 1`)
}

func TestWebhooksOfEverySort(t *testing.T) {
	t.Parallel()
	p := setup(t)
	for _, kind := range []sandbox.FaultKind{sandbox.WebhookDuplicate, sandbox.WebhookReorder, sandbox.WebhookEarly, sandbox.WebhookForged} {
		p.fault(sandbox.Fault{Kind: kind, Probability: 0.5})
	}
	for i := range 12 {
		p.subscribe(fmt.Sprint("s", i), []string{good, "4400000000000016"}[i%2])
	}
	for _, after := range []time.Duration{0, time.Minute, 10 * time.Minute, 40 * time.Minute} {
		p.set(noon.Add(after))
		p.tick()
	}
	p.want("paid 6, open 6", `SELECT string_agg(status || ' ' || n, ', ' ORDER BY status DESC) FROM (SELECT status, count(*) n FROM singil.invoices GROUP BY status) x`)
	p.want("applied", `SELECT string_agg(DISTINCT COALESCE(result, 'waits'), ', ') FROM singil.webhook_events`)
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 12 {
		t.Errorf("%d attempts for 12 invoices: a webhook made a dunning attempt earlier", n)
	}
	if sum := p.box.Summary("invoice"); len(sum.PaidMoreThanOnce) > 0 {
		t.Errorf("CHARGED TWICE: %v", sum.PaidMoreThanOnce)
	}
	p.wantMetric(`singil_unknown_payments_total{metadata="ours"} 0`)
}

func TestWebhookRefused(t *testing.T) {
	t.Parallel()
	p := setup(t)
	body := p.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, "{}")
	live := strings.Replace(body, `"livemode":false`, `"livemode":true`, 1)
	deep := strings.Repeat(`[`, 10_001) + strings.Repeat(`]`, 10_001)
	for _, tt := range []struct {
		name      string
		signature string
		body      string
		want      int
	}{
		{"NoSignature", "", body, 401},
		{"AnotherSecret", fmt.Sprintf("t=%d,te=%s,li=", noon.Unix(), strings.Repeat("0", 64)), body, 401},
		{"SwappedTestAndLive", fmt.Sprintf("t=%d,te=,li=%s", noon.Unix(), p.mac(noon, body)), body, 401},
		{"AnotherBody", p.header(noon, body), body + " ", 401},
		{"AnotherTime", fmt.Sprintf("t=%d,te=%s,li=", noon.Unix()+1, p.mac(noon, body)), body, 401},
		{"LivemodeUnderATestSignature", p.header(noon, live), live, 401},
		{"Garbage", p.header(noon, "garbage"), "garbage", 400},
		{"NoEvent", p.header(noon, `{"data":{"id":"pay_1","type":"payment"}}`), `{"data":{"id":"pay_1","type":"payment"}}`, 400},
		{"NestedTenThousandDeep", p.header(noon, deep), deep, 400},
		{"TooLarge", p.header(noon, ""), strings.Repeat("x", 300<<10), 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := p.do(http.MethodPost, "/webhooks/paymongo", tt.signature, []byte(tt.body))
			if status != tt.want || strings.Contains(answer, "signature") {
				t.Errorf("%d %s", status, answer)
			}
		})
	}
	t.Run("TenMegabytes", func(t *testing.T) {
		huge := strings.Repeat("x", 10<<20)
		req := httptest.NewRequest(http.MethodPost, "/webhooks/paymongo", strings.NewReader(huge))
		req.Header.Set("Paymongo-Signature", p.header(noon, huge))
		answer := httptest.NewRecorder() // on a connection the server may hang up before it is heard
		p.handler.ServeHTTP(answer, req)
		if answer.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%d %s", answer.Code, answer.Body)
		}
	})
	if n := p.number(`SELECT count(*) FROM singil.webhook_events`); n != 0 {
		t.Errorf("%d deliveries were stored", n)
	}
	p.wantMetric(`singil_webhook_events_total{result="bad_signature",type="other"} 5`)
	p.wantMetric(`singil_webhook_events_total{result="malformed",type="other"} 3`)
}

func TestWebhookSecretMustNotBeEmpty(t *testing.T) {
	t.Parallel()
	for _, secrets := range [][]string{{}, {""}, {" "}, {"whsk_a", ""}, {"whsk_a", "whsk_b", "whsk_c"}} {
		if _, err := worker.NewPayMongoWebhooks(false, secrets...); err == nil {
			t.Errorf("%q was taken", secrets)
		}
	}
}

func TestWebhookAccepted(t *testing.T) {
	t.Parallel()
	p := setup(t)
	send := func(header, body string) {
		t.Helper()
		status, answer := p.do(http.MethodPost, "/webhooks/paymongo", header, []byte(body))
		if status != 200 || strings.TrimSpace(answer) != `{"received":true}` {
			t.Errorf("%d %s", status, answer)
		}
	}
	payout := strings.Replace(p.event("evt_unknown", "payout.deposited", "po_1", "", 1, "{}"), `"type":"payment"`, `"type":"payout"`, 1)
	failed := p.event("evt_stale", "payment.failed", "pay_1", "pi_1", 49900, "{}")
	nul := p.event("evt_nul", "payment.failed", `pay_\u0000`, `pi_\u0000`, 49900, "{}")
	send(p.header(p.now, payout), payout)
	send(p.header(p.now.Add(-2*time.Hour), failed), failed)
	send(p.header(p.now, failed), failed)
	nul = strings.ReplaceAll(nul, `\\u0000`, `\u0000`)
	send(p.header(p.now, nul), nul)
	p.settle()
	p.want("evt_nul ignored f, evt_stale ignored t, evt_unknown ignored f", `SELECT string_agg(event_id || ' ' || result || ' ' ||
		CASE WHEN stale THEN 't' ELSE 'f' END, ', ' ORDER BY event_id) FROM singil.webhook_events`)
	p.wantMetric(`singil_webhook_events_total{result="ignored",type="other"} 1`)
	p.wantMetric(`singil_webhook_events_total{result="duplicate",type="payment.failed"} 1`)
}

func TestAuthenticEventWithAnotherAmount(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4400000000000016") // always declined
	p.tick()
	intent := p.text(`SELECT provider_intent_id FROM singil.payment_intents`)
	if status, answer := p.post(p.event("evt_1", "payment.paid", "pay_forged", intent, 100, "{}")); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
	p.settle()
	// It woke a look; the provider shows no payment, so there is none.
	p.want("open", `SELECT status FROM singil.invoices`)
	if n := p.number(`SELECT count(*) FROM river.river_job WHERE kind = 'reconcile'`); n != 1 {
		t.Errorf("%d looks", n)
	}
	for _, after := range []time.Duration{20 * time.Minute, time.Hour, 6 * time.Hour, 8 * time.Hour} {
		p.set(noon.Add(after))
		p.tick()
	}
	p.want("unconfirmed", `SELECT result FROM singil.webhook_events WHERE event_id = 'evt_1'`)
	if n := p.number(`SELECT count(*) FROM singil.payments WHERE payment_id = 'pay_forged'`); n != 0 {
		t.Error("a payment that only a webhook told of is on record")
	}
}

func TestPaidTwiceIsRecordedAndTold(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", good)
	p.tick()
	p.want("paid", `SELECT status FROM singil.invoices`)
	intent := p.text(`SELECT provider_intent_id FROM singil.payment_intents`)
	if status, _ := p.post(p.event("evt_2", "payment.paid", "pay_again", intent, 49900, "{}")); status != 200 {
		t.Error(status)
	}
	p.settle()
	p.want("unexpected_payment", `SELECT result FROM singil.webhook_events WHERE event_id = 'evt_2'`)
	p.want("webhook true", `SELECT source || ' ' || (invoice_id IS NOT NULL) FROM singil.payments WHERE payment_id = 'pay_again'`)
	p.wantMetric(`singil_unknown_payments_total{metadata="ours"} 1`)
}

func TestUnknownPayment(t *testing.T) {
	t.Parallel()
	p := setup(t)
	for id, metadata := range map[string]string{
		"ours":      `{"environment":"dev","invoice":"0198c5a0-0000-7000-8000-000000000000"}`,
		"elsewhere": `{"environment":"staging"}`,
		"none":      `{}`,
	} {
		if status, _ := p.post(p.event("evt_"+id, "payment.paid", "pay_"+id, "pi_"+id, 12300, metadata)); status != 200 {
			t.Error(status)
		}
	}
	p.settle()
	// Other programs of the merchant take payments on the same account.
	p.want("elsewhere none", `SELECT string_agg(substr(event_id, 5), ' ' ORDER BY event_id) FROM singil.webhook_events WHERE result = 'ignored'`)
	p.want("1", `SELECT count(*)::text FROM singil.webhook_events WHERE processed_at IS NULL`)
	for after := time.Minute; after < 9*time.Hour; after += 59 * time.Minute {
		p.set(noon.Add(after))
		p.tick()
	}
	p.want("pay_ours 12300", `SELECT string_agg(payment_id || ' ' || amount_minor, ', ' ORDER BY payment_id) FROM singil.payments WHERE invoice_id IS NULL`)
	p.wantMetric(`singil_unknown_payments_total{metadata="ours"} 1`)
	p.wantMetric(`singil_unknown_payments_total{metadata="none"} 1`)
}

func TestLateMoneyForAnInvoiceThatWasGivenUp(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"review", "uncollectible", "void"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			p.subscribe("s1", good)
			p.fault(sandbox.Fault{Kind: sandbox.Processing, Endpoint: "payment_intents.attach", For: sandbox.Duration(time.Hour)})
			p.tick()
			if _, err := p.pool.Exec(t.Context(), `UPDATE singil.invoices SET status = $1, reason = 'by hand', next_attempt_at = NULL`, status); err != nil {
				t.Fatal(err)
			}
			// The provider is away when the webhook comes: it is a wake-up that comes again.
			p.fault(sandbox.Fault{ID: "away", Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.retrieve"})
			p.set(noon.Add(time.Hour))
			p.want("payment.paid waits", inbox)
			p.box.ClearFaults()
			p.set(noon.Add(time.Hour + 2*time.Minute))
			p.tick()
			want := map[string]string{"review": "paid", "uncollectible": "paid", "void": "void"}[status]
			p.want(want, `SELECT status FROM singil.invoices`)
			p.want("paid", `SELECT status FROM singil.payments`)
			p.set(noon.Add(2 * time.Hour))
			p.tick()
			p.want("payment.paid applied", inbox)
		})
	}
}

func TestRefundIsNotedAndReopensNothing(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", good)
	p.tick()
	payment := p.text(`SELECT payment_id FROM singil.payments`)
	for _, amount := range []int64{10000, 39900} {
		if _, err := p.client.Refunds.Create(t.Context(), &paymongo.RefundCreateParams{Amount: amount, PaymentID: payment, Reason: paymongo.RefundReasonOthers}); err != nil {
			t.Fatal(err)
		}
		p.set(p.now.Add(24 * time.Hour))
		p.tick()
	}
	p.want("49900", `SELECT refunded_minor::text FROM singil.payments`)
	p.want("paid", `SELECT status FROM singil.invoices`)
	p.want("1", `SELECT count(*)::text FROM singil.attempts`)
}

func TestLostJobLosesNoWebhook(t *testing.T) {
	t.Parallel()
	p := setup(t)
	// As it is after TRUNCATE river_job.
	p.tx(func(tx pgx.Tx) error {
		_, err := billing.StoreInbox(t.Context(), tx, []billing.InboxEvent{{
			ID: "evt_1", Type: "payment.failed", ReceivedAt: noon, Body: []byte(p.event("evt_1", "payment.failed", "pay_1", "pi_1", 49900, "{}")),
		}})
		return err
	})
	if n := p.tick().Webhooks; n != 0 {
		t.Errorf("%d found within the lease of the job", n)
	}
	p.set(noon.Add(10 * time.Minute))
	p.tick()
	p.want("payment.failed ignored", inbox)
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), pgtest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: "river", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, now: noon, secret: "whsk_x"}
	webhooks, err := worker.NewPayMongoWebhooks(false, p.secret)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	site := httptest.NewServer(server.New(server.Config{
		Inbox:    worker.NewInbox(worker.InboxConfig{Pool: pool, Jobs: jobs, Webhooks: webhooks, Log: log, Now: time.Now}),
		Registry: prometheus.NewRegistry(), Log: log,
	}))
	t.Cleanup(site.Close)
	p.url = site.URL
	pool.Close()
	if status, answer := p.post(p.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, "{}")); status != 503 {
		t.Errorf("%d %s", status, answer)
	}
	// What is forged needs no database to be refused.
	if status, _ := p.do(http.MethodPost, "/webhooks/paymongo", "t=1,te=,li=", []byte("{}")); status != 401 {
		t.Error(status)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	p := setup(t)
	check := func(wantStatus int, want string) {
		t.Helper()
		status, body := p.get("/readyz")
		var got struct {
			Ready   bool     `json:"ready"`
			Reasons []string `json:"reasons"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if status != wantStatus || strings.Join(got.Reasons, ",") != want || got.Ready != (want == "") || strings.Contains(body, "secret") {
			t.Errorf("%d %s, want %d %s", status, body, wantStatus, want)
		}
		if status, _ := p.get("/healthz"); status != 200 {
			t.Errorf("healthz: %d", status)
		}
	}
	check(200, "")
	p.draining.Store(true)
	check(503, "draining")
	p.away.Store(true)
	check(503, "draining,database")
	p.draining.Store(false)
	check(503, "database")
	p.away.Store(false)
	check(200, "")
}

func TestLongHeadersAreRefused(t *testing.T) {
	t.Parallel()
	site := httptest.NewUnstartedServer(nil)
	site.Config = server.NewHTTPServer(server.New(server.Config{Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}), slog.New(slog.DiscardHandler))
	site.Start()
	t.Cleanup(site.Close)
	p := &plant{t: t, url: site.URL}
	if status, _ := p.do(http.MethodGet, "/healthz", strings.Repeat("x", 40<<10), nil); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(status)
	}
	if status, _ := p.get("/healthz"); status != http.StatusOK {
		t.Error(status)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics := worker.NewMetrics()
	registry.MustRegister(metrics.Collectors()...)
	site := httptest.NewServer(server.New(server.Config{Registry: registry, Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(site.Close)
	p := &plant{t: t, url: site.URL}
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/healthz", 200},
		{"POST", "/healthz", 405},
		{"GET", "/readyz", 200},
		{"GET", "/metrics", 200},
		{"DELETE", "/metrics", 405},
		{"GET", "/", 404},
		{"GET", "/metrics/", 404},
		{"GET", "/debug/pprof/", 404},
		{"POST", "/webhooks/paymongo", 404}, // without a secret
	} {
		if status, _ := p.do(tt.method, tt.path, "", nil); status != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, status, tt.want)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	p.wantMetric(`singil_outbox_deliveries_total{result="ok"} 0`)
	p.wantMetric(`singil_webhook_lag_seconds_count 0`)
}

// TestMoneyOnAnIntentThatTheBooksHaveLost: PayMongo tells of a payment for an
// open invoice, on an intent that is not on record. To charge it would be the
// second time.
func TestMoneyOnAnIntentThatTheBooksHaveLost(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4400000000000016") // declines, and is tried again tomorrow
	p.tick()
	p.want("open schedule", `SELECT status || ' ' || waiting_for FROM singil.invoices`)
	metadata := fmt.Sprintf(`{"environment":"dev","invoice":%q}`, p.text(`SELECT id::text FROM singil.invoices`))
	if status, _ := p.post(p.event("evt_lost", "payment.paid", "pay_lost", "pi_lost", 49900, metadata)); status != 200 {
		t.Error(status)
	}
	p.settle()
	p.want("review: PayMongo tells of a payment for this invoice on an intent that is not in the books; run singil recover",
		`SELECT status || ': ' || reason FROM singil.invoices`)
	p.set(noon.AddDate(0, 0, 3))
	p.tick()
	p.want("1", `SELECT count(*)::text FROM singil.attempts`)
	p.want("pay_lost", `SELECT payment_id FROM singil.payments WHERE invoice_id IS NULL`)
}

// TestManyDeliveriesAtOnce: those that come together share transactions and jobs,
// and each is stored once and has its own result. One that cannot be stored, or not
// be marked, is nobody else's trouble.
func TestManyDeliveriesAtOnce(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.fault(sandbox.Fault{Kind: sandbox.WebhookLost, Probability: 1})
	for i := range 10 {
		p.subscribe(fmt.Sprint("s", i), []string{good, "4400000000000016"}[i%2])
	}
	p.tick()
	bodies := []string{
		p.event("evt_unstorable", "payment.paid", "pay_x", "pi_x", 49900, "{}"),
		p.event("evt_unmarkable", "payment.paid", "pay_y", "pi_y", 49900, "{}"),
	}
	const intents = `SELECT string_agg(provider_intent_id, ' ') FROM singil.payment_intents pi JOIN singil.invoices i ON i.id = pi.invoice_id WHERE i.status = `
	for i, intent := range strings.Fields(p.text(intents + `'paid'`)) {
		bodies = append(bodies, p.event(fmt.Sprint("evt_paid", i), "payment.paid", p.taken(intent), intent, 49900, "{}"))
	}
	for i, intent := range strings.Fields(p.text(intents + `'open'`)) {
		bodies = append(bodies, p.event(fmt.Sprint("evt_failed", i), "payment.failed", fmt.Sprint("pay_failed", i), intent, 49900, "{}"))
	}
	for i := range 10 {
		bodies = append(bodies, p.event(fmt.Sprint("evt_stranger", i), "payment.paid", fmt.Sprint("pay_stranger", i), fmt.Sprint("pi_stranger", i), 100, "{}"))
	}
	for _, sql := range []string{
		`ALTER TABLE singil.webhook_events ADD CONSTRAINT none_such CHECK (event_id <> 'evt_unstorable')`,
		`ALTER TABLE singil.webhook_events ADD CONSTRAINT none_marked CHECK (event_id <> 'evt_unmarkable' OR processed_at IS NULL)`,
	} {
		if _, err := p.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var senders sync.WaitGroup
	for range 3 { // each is delivered three times
		for _, body := range bodies {
			senders.Go(func() {
				want := http.StatusOK
				if strings.Contains(body, "evt_unstorable") {
					want = http.StatusServiceUnavailable
				}
				if status, answer := p.post(body); status != want {
					t.Errorf("%d %s to %s", status, answer, body)
				}
			})
		}
	}
	senders.Wait()
	const waiting = `SELECT string_agg(event_id, ' ' ORDER BY event_id) FROM singil.webhook_events WHERE processed_at IS NULL`
	for patience := time.After(20 * time.Second); p.text(waiting) != "evt_unmarkable"; {
		select {
		case <-time.After(3 * time.Millisecond):
		case <-patience:
			t.Fatal(p.text(waiting))
		}
	}
	p.want("applied 10, ignored 10", `SELECT string_agg(result || ' ' || n, ', ' ORDER BY result) FROM
		(SELECT result, count(*) n FROM singil.webhook_events WHERE processed_at IS NOT NULL GROUP BY result) x`)
	p.want("open 5, paid 5", `SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) n FROM singil.invoices GROUP BY status) x`)
	p.wantMetric(`singil_webhook_events_total{result="duplicate",type="payment.failed"} 10`)
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 10 {
		t.Errorf("%d attempts", n)
	}
}
