package server_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/server"
	"github.com/singil/singil/worker"
)

var verbose = flag.Bool("logs", false, "show log lines")

// noon is the business time that tests begin at.
var noon = time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)

const good = "4343434343434345"

// plant is everything between PayMongo and the books: a sandbox that delivers
// its webhooks over HTTP, the server, the jobs and a database, on one virtual
// clock that the test moves.
type plant struct {
	t         *testing.T
	pool      *pgxpool.Pool
	box       *sandbox.Sandbox
	client    *paymongo.Client
	collector *worker.Collector
	jobs      *river.Client[pgx.Tx]
	url       string // of the server
	secret    string // of the webhook
	now       time.Time
	handler   http.Handler
	draining  atomic.Bool
	away      atomic.Bool // what the database check says
}

func setup(t *testing.T, profile ...func(*sandbox.Profile)) *plant {
	t.Helper()
	p := &plant{t: t, pool: pgtest.DB(t), now: noon}
	account := sandbox.DefaultProfile()
	for _, change := range profile {
		change(&account)
	}
	var err error
	p.box, err = sandbox.New(sandbox.Options{Seed: 7, Start: noon, StopClock: true, Hang: 5 * time.Millisecond, WebhookWorkers: 1, Profile: &account})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(p.box)
	p.client, err = paymongo.NewClient("sk_test_server", paymongo.WithBaseURL(api.URL+"/v1"),
		paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if *verbose {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	p.tx(func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		return billing.SetVirtualClock(t.Context(), tx, noon)
	})
	metrics := worker.NewMetrics()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.Collectors()...)
	p.collector = worker.NewCollector(worker.Config{
		Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Log: log, Metrics: metrics, Now: time.Now,
	})
	p.jobs, err = river.NewClient(riverpgxv5.New(p.pool), &river.Config{
		Schema: "river", Workers: p.collector.Workers(), Logger: log,
		Queues: map[string]river.QueueConfig{
			worker.QueueCharge: {MaxWorkers: 2}, worker.QueueReconcile: {MaxWorkers: 2}, worker.QueueWebhook: {MaxWorkers: 2},
		},
		JobTimeout: worker.JobTimeout, RescueStuckJobsAfter: worker.RescueAfter,
		FetchCooldown: 5 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}

	// The server's address is needed for the webhook, and the webhook's secret for
	// the server.
	var handler atomic.Pointer[http.Handler]
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*handler.Load()).ServeHTTP(w, r) }))
	p.url = site.URL
	hook, err := p.client.Webhooks.Create(t.Context(), &paymongo.WebhookCreateParams{
		URL: p.url + "/webhooks/paymongo", Events: []paymongo.EventType{
			paymongo.EventPaymentPaid, paymongo.EventPaymentFailed, paymongo.EventPaymentRefunded, paymongo.EventPaymentRefundUpdated,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.secret = hook.SecretKey.Reveal()
	webhooks, err := worker.NewPayMongoWebhooks(false, p.secret)
	if err != nil {
		t.Fatal(err)
	}
	h := server.New(server.Config{
		Inbox:    worker.NewInbox(worker.InboxConfig{Pool: p.pool, Jobs: p.jobs, Webhooks: webhooks, Log: log, Now: time.Now, Metrics: metrics}),
		Registry: registry, Log: log, Draining: p.draining.Load,
		Checks: []server.Check{
			{Name: "database", Run: func(ctx context.Context) error {
				if p.away.Load() {
					return errors.New("secret details")
				}
				return p.pool.Ping(ctx)
			}},
		},
	})
	p.handler = h
	handler.Store(&h)

	if err := p.jobs.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := p.box.Close(); err != nil {
			t.Error(err)
		}
		if err := p.jobs.StopAndCancel(ctx); err != nil {
			t.Error(err)
		}
		p.client.CloseIdleConnections()
		site.Close()
		api.Close()
	})
	return p
}

func (p *plant) tx(do func(pgx.Tx) error) {
	p.t.Helper()
	if err := pgx.BeginFunc(context.Background(), p.pool, do); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) fault(f sandbox.Fault) {
	p.t.Helper()
	if _, err := p.box.AddFault(f); err != nil {
		p.t.Fatal(err)
	}
}

// subscribe makes a customer with a card and a monthly subscription from noon on.
func (p *plant) subscribe(name, number string) {
	p.t.Helper()
	method := p.card(number)
	policy := `{"offsets_days":[1,3,5,7],"hour":9,"end":"cancel"}`
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO singil.customers (id, external_id) VALUES (gen_random_uuid(), $1)`, name)
	batch.Queue(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, exp_month, exp_year, position)
		SELECT gen_random_uuid(), id, $2, 'visa', 12, 2030, 0 FROM singil.customers WHERE external_id = $1`, name, method)
	batch.Queue(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
		VALUES (gen_random_uuid(), $1, 49900, 'PHP', 'month', 1, $2, 'bill_all')`, name, policy)
	batch.Queue(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
		SELECT gen_random_uuid(), $1, c.id, p.id, 'active', p.amount_minor, p.currency, p.interval_unit, p.interval_count,
		       $2, 'Asia/Manila', 0, $2, $2, p.dunning, p.catch_up
		FROM singil.customers c JOIN singil.plans p ON p.external_id = c.external_id WHERE c.external_id = $1`, name, noon)
	if err := p.pool.SendBatch(context.Background(), batch).Close(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) card(number string) string {
	p.t.Helper()
	method, err := p.client.PaymentMethods.Create(p.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	return method.ID
}

// tick sweeps at the present time and waits until every job is done and every
// webhook that is due is delivered.
func (p *plant) tick() worker.Swept {
	p.t.Helper()
	swept, err := p.collector.Sweep(p.t.Context(), p.jobs)
	if err != nil {
		p.t.Fatal(err)
	}
	p.settle()
	return swept
}

func (p *plant) settle() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	const busy = `SELECT count(*) FROM river.river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled', 'pending')`
	for quiet := 0; quiet < 2; {
		if err := p.box.Drain(ctx); err != nil {
			p.t.Fatal(err)
		}
		if quiet++; p.number(busy) > 0 {
			quiet = 0
		}
		select {
		case <-time.After(3 * time.Millisecond):
		case <-ctx.Done():
			p.t.Fatalf("jobs are still not done: %s", p.text(`SELECT string_agg(kind || ' ' || state::text || ' ' || COALESCE(errors[1]::text, ''), E'\n')
				FROM river.river_job WHERE state <> 'completed'`))
		}
	}
}

// set moves the clock; what the sandbox has to do by then is done.
func (p *plant) set(now time.Time) {
	p.t.Helper()
	p.now = now
	p.tx(func(tx pgx.Tx) error { return billing.SetVirtualClock(context.Background(), tx, now) })
	p.box.Clock().Set(now)
	p.box.Settle()
	p.settle()
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

func (p *plant) want(want, sql string) {
	p.t.Helper()
	if got := p.text(sql); got != want {
		p.t.Errorf("%s: %q, want %q", sql, got, want)
	}
}

// wantMetric looks for a sample in the exposition.
func (p *plant) wantMetric(sample string) {
	p.t.Helper()
	if _, body := p.get("/metrics"); !strings.Contains(body, "\n"+sample+"\n") {
		name, _, _ := strings.Cut(sample, "{")
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, name) && !strings.HasSuffix(line, " 0\n") {
				p.t.Log(strings.TrimSpace(line))
			}
		}
		p.t.Errorf("no metric %s", sample)
	}
}

func (p *plant) get(path string) (int, string) {
	p.t.Helper()
	return p.do(http.MethodGet, path, "", nil)
}

func (p *plant) do(method, path, signature string, body []byte) (int, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if signature != "" {
		req.Header.Set("Paymongo-Signature", signature)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// post delivers a body with a signature that the test makes by itself.
func (p *plant) post(body string) (int, string) {
	p.t.Helper()
	return p.do(http.MethodPost, "/webhooks/paymongo", p.header(p.now, body), []byte(body))
}

func (p *plant) header(at time.Time, body string) string {
	return fmt.Sprintf("t=%d,te=%s,li=", at.Unix(), p.mac(at, body))
}

func (p *plant) mac(at time.Time, body string) string {
	mac := hmac.New(sha256.New, []byte(p.secret))
	fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return hex.EncodeToString(mac.Sum(nil))
}

// event is the body of a webhook about a payment.
func (p *plant) event(id, kind, payment, intent string, amount int, metadata string) string {
	status := "paid"
	if kind == "payment.failed" {
		status = "failed"
	}
	return fmt.Sprintf(`{"data":{"id":%q,"type":"event","attributes":{"type":%q,"livemode":false,"data":{"id":%q,"type":"payment","attributes":{`+
		`"amount":%d,"currency":"PHP","status":%q,"livemode":false,"payment_intent_id":%q,"metadata":%s,"refunds":[],"created_at":%d}},`+
		`"previous_data":{},"pending_webhooks":1,"created_at":%d,"updated_at":%d}}}`,
		id, kind, payment, amount, status, intent, metadata, p.now.Unix(), p.now.Unix(), p.now.Unix())
}
