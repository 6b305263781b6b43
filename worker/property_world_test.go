package worker_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// ground is what all sequences share: making it anew would cost more than a
// sequence does. Rows and provider are new for each.
type ground struct {
	t       *testing.T
	pool    *pgxpool.Pool // the workers'; its wire can be cut
	look    *pgxpool.Pool // the test's own
	wire    *wire
	api     *httptest.Server
	site    *httptest.Server
	client  *paymongo.Client
	gate    *gate
	workers [2]*worker.Collector // two daemons
	jobs    *river.Client[pgx.Tx]
	metrics *worker.Metrics
	log     *slog.Logger
	world   atomic.Pointer[world]
	failed  bool
	tally   map[string]int // what all sequences came to
}

func newGround(t *testing.T) *ground {
	g := &ground{t: t, wire: &wire{}, metrics: worker.NewMetrics(), tally: map[string]int{}, log: slog.New(slog.DiscardHandler)}
	if *verbose {
		g.log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	dsn := pgtest.DSN(t)
	g.look = newPool(t, dsn, nil)
	g.pool = newPool(t, dsn, g.wire)
	ctx := t.Context()
	if err := pgx.BeginFunc(ctx, g.look, func(tx pgx.Tx) error {
		if err := billing.Bind(ctx, tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		// Each sequence begins with empty tables. All other guards stay.
		_, err := tx.Exec(ctx, `
			ALTER TABLE singil.attempts DISABLE TRIGGER append_only;
			ALTER TABLE singil.payments DISABLE TRIGGER append_only;
			ALTER TABLE singil.payment_intents DISABLE TRIGGER append_only;
			ALTER TABLE singil.invoices DISABLE TRIGGER append_only;
			ALTER TABLE singil.subscriptions DISABLE TRIGGER append_only;
			ALTER TABLE singil.payment_methods DISABLE TRIGGER append_only;
			ALTER TABLE singil.customers DISABLE TRIGGER append_only`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	g.api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.world.Load().box.ServeHTTP(w, r) }))
	g.site = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.world.Load().receive(w, r) }))
	var err error
	g.client, err = paymongo.NewClient("sk_test_property", paymongo.WithBaseURL(g.api.URL+"/v1"),
		paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		t.Fatal(err)
	}
	g.gate = &gate{PayMongo: worker.NewPayMongo(g.client), ground: g}
	// It only inserts: the test runs the jobs, in an order of its own.
	g.jobs, err = river.NewClient(riverpgxv5.New(g.pool), &river.Config{Schema: "river", Logger: g.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		g.api.Close()
		g.site.Close()
		g.pool.Close()
		g.look.Close()
	})
	return g
}

func newPool(t *testing.T, dsn string, w *wire) *pgxpool.Pool {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 6
	if w != nil {
		cfg.ConnConfig.DialFunc = w.dial
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// wire lies between the workers and the database, and can be cut at the beginning
// or the end of a transaction: a cut between the two comes to the same as one
// before the end.
type wire struct {
	mu    sync.Mutex
	left  int  // begins and commits until the cut; 0: none
	after bool // the commit is executed, and its answer is lost
}

var errCut = errors.New("the wire is cut")

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &wiredConn{Conn: conn, wire: w}, err
}

func (w *wire) cutAt(n int, after bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.after = n, after
}

func (w *wire) next(request []byte) (cut, after bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A simple query: 'Q', four bytes of length, the statement.
	if w.left == 0 || len(request) < 5 || !bytes.HasPrefix(request[5:], []byte("begin")) && !bytes.HasPrefix(request[5:], []byte("commit")) {
		return false, false
	}
	w.left--
	return w.left == 0, w.after
}

type wiredConn struct {
	net.Conn
	wire *wire
	deaf atomic.Bool
}

func (c *wiredConn) Write(b []byte) (int, error) {
	cut, after := c.wire.next(b)
	if cut && !after {
		return 0, errors.Join(errCut, c.Close())
	}
	if cut {
		c.deaf.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.deaf.Load() {
		return 0, errors.Join(errCut, c.Close())
	}
	return n, err
}

// moment is a place of the protocol between two transactions.
type moment string

const (
	beforeCreate   moment = "before create"
	afterCreate    moment = "after create"
	beforeRetrieve moment = "before retrieve"
	afterRetrieve  moment = "after retrieve"
	beforeAttach   moment = "before attach" // armed, and the commit acknowledged
	afterAttach    moment = "after attach"
	beforeClose    moment = "before close" // of a hosted checkout, or of an intent that makes room for one
	afterClose     moment = "after close"
)

var moments = []moment{beforeAttach, afterAttach, beforeCreate, afterCreate, beforeRetrieve, afterRetrieve, beforeClose, afterClose}

// gate stands before the provider. At one moment something else may come in
// between, and every attach is checked for its licence.
type gate struct {
	*worker.PayMongo
	ground *ground

	mu sync.Mutex
	at moment
	do func()
}

// ambush has something done at the next time the protocol is at a moment, by
// the goroutine that is there. runtime.Goexit there is the death of the process.
func (g *gate) ambush(at moment, do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at, g.do = at, do
}

func (g *gate) pass(at moment) {
	g.mu.Lock()
	do := g.do
	if do == nil || g.at != at {
		g.mu.Unlock()
		return
	}
	g.do = nil
	g.mu.Unlock()
	do()
}

func (g *gate) Create(ctx context.Context, r worker.CreateRequest) (billing.ProviderIntent, error) {
	g.pass(beforeCreate)
	intent, err := g.PayMongo.Create(ctx, r)
	g.pass(afterCreate)
	return intent, err
}

func (g *gate) Retrieve(ctx context.Context, id string) (billing.ProviderIntent, error) {
	g.pass(beforeRetrieve)
	intent, err := g.PayMongo.Retrieve(ctx, id)
	g.pass(afterRetrieve)
	return intent, err
}

func (g *gate) ShowPage(ctx context.Context, id string) (worker.PageIntent, error) {
	g.pass(beforeRetrieve)
	page, err := g.PayMongo.ShowPage(ctx, id)
	g.pass(afterRetrieve)
	return page, err
}

func (g *gate) CreateCheckout(ctx context.Context, r worker.CheckoutRequest) (worker.HostedCheckout, error) {
	g.pass(beforeCreate)
	session, err := g.PayMongo.CreateCheckout(ctx, r)
	g.pass(afterCreate)
	return session, err
}

func (g *gate) CloseCheckout(ctx context.Context, id string) (bool, error) {
	g.pass(beforeClose)
	closed, err := g.PayMongo.CloseCheckout(ctx, id)
	g.pass(afterClose)
	return closed, err
}

func (g *gate) Cancel(ctx context.Context, id string) error {
	g.pass(beforeClose)
	err := g.PayMongo.Cancel(ctx, id)
	g.pass(afterClose)
	return err
}

func (g *gate) Attach(ctx context.Context, armed billing.Armed, sendBefore time.Time) billing.Answer {
	w := g.ground.world.Load()
	var licensed bool
	err := g.ground.look.QueryRow(context.Background(), `
		SELECT EXISTS (SELECT FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
		               WHERE a.id = $1 AND a.state = 'armed' AND pi.provider_intent_id = $2)`,
		armed.AttemptID, armed.ProviderIntentID).Scan(&licensed)
	if err != nil || !licensed {
		w.wrong("attach of %s to %s without a committed attempt (%v)", armed.ProviderCardID, armed.ProviderIntentID, err)
	}
	g.pass(beforeAttach)
	answer := g.PayMongo.Attach(ctx, armed, sendBefore)
	g.pass(afterAttach)
	return answer
}

// world is one sequence: a provider, a few subscriptions, and the model of them.
type world struct {
	*ground
	box    *sandbox.Sandbox
	inbox  *worker.Inbox
	secret string
	now    time.Time     // business time
	behind time.Duration // of the provider's time
	plans  []terms
	subs   []*agreement
	cards  int
	forged int
	trace  []string        // the actions so far
	saved  map[string]bool // payment methods that may be attached off-session
	hosted []string        // addresses of checkout pages that were handed out

	// What must not have changed since.
	frozenWith  map[uuid.UUID]bool               // attempts when it was frozen; nil: it is not
	brokenWith  map[uuid.UUID]bool               // the same of the breaker
	stoppedWith map[uuid.UUID]map[uuid.UUID]bool // by subscription: invoices that were attempted when it was cancelled
	pausedWith  map[uuid.UUID]map[uuid.UUID]bool // by subscription: attempts when it was paused

	mu       sync.Mutex
	problems []string
}

// wrong notes a violation. Any goroutine may call it.
func (w *world) wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// trouble is for the test's own calls, which must not fail.
func (w *world) trouble(what string, err error) {
	if err != nil {
		w.wrong("%s: %v", what, err)
	}
}

const sqlEmptyTables = `
DELETE FROM river.river_job;
DELETE FROM singil.webhook_events;
DELETE FROM singil.payments;
DELETE FROM singil.attempts;
DELETE FROM singil.payment_intents;
DELETE FROM singil.invoices;
DELETE FROM singil.skipped_periods;
DELETE FROM singil.subscriptions;
DELETE FROM singil.plans;
DELETE FROM singil.payment_methods;
DELETE FROM singil.customers;
DELETE FROM singil.charge_budget;
DELETE FROM singil.events;
UPDATE singil.instance SET frozen = false, frozen_reason = NULL, day_max_count = 1000000;
UPDATE singil.provider_state SET breaker_open = false, breaker_reason = NULL, blocked_until = NULL`

// newWorld makes an empty one. Close it.
func (g *ground) newWorld(idempotency string) *world {
	w := &world{
		ground: g, now: noon, saved: map[string]bool{},
		stoppedWith: map[uuid.UUID]map[uuid.UUID]bool{}, pausedWith: map[uuid.UUID]map[uuid.UUID]bool{},
	}
	profile := sandbox.DefaultProfile()
	profile.Idempotency = idempotency
	var err error
	w.box, err = sandbox.New(sandbox.Options{
		Seed: 7, Start: noon, StopClock: true, Hang: time.Millisecond, WebhookWorkers: 1, Profile: &profile,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.world.Store(w)
	g.wire.cutAt(0, false)
	g.gate.ambush("", nil)
	for i := range g.workers { // new ones: the last world's remember attempts that are gone
		g.workers[i] = worker.NewCollector(worker.Config{
			Pool: g.pool, Gateway: g.gate, Environment: billing.EnvironmentDev, Log: g.log, Metrics: g.metrics, Now: time.Now,
		})
	}
	hook, err := g.client.Webhooks.Create(context.Background(), &paymongo.WebhookCreateParams{
		URL: g.site.URL, Events: []paymongo.EventType{
			paymongo.EventPaymentPaid, paymongo.EventPaymentFailed, paymongo.EventPaymentRefunded, paymongo.EventPaymentRefundUpdated,
		},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	w.secret = hook.SecretKey.Reveal()
	webhooks, err := worker.NewPayMongoWebhooks(false, w.secret)
	if err != nil {
		g.t.Fatal(err)
	}
	w.inbox = worker.NewInbox(worker.InboxConfig{Pool: g.pool, Jobs: g.jobs, Webhooks: webhooks, Log: g.log, Now: time.Now, Metrics: g.metrics})
	if _, err := g.look.Exec(context.Background(), sqlEmptyTables); err != nil {
		g.t.Fatal(err)
	}
	w.set(noon, 0)
	return w
}

func (w *world) close() {
	w.trouble("close the sandbox", w.box.Close())
}

// receive is the server's route of the webhooks.
func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	switch _, err := w.inbox.Receive(r.Context(), r.Header.Get("Paymongo-Signature"), body); {
	case errors.Is(err, worker.ErrNotAuthentic):
		rw.WriteHeader(http.StatusUnauthorized)
	case err != nil:
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
}

// plan makes terms that subscriptions may take.
func (w *world) plan(minor int64, unit billing.IntervalUnit, count int, catchUp billing.CatchUp, end billing.EndAction) {
	p := terms{
		id: uuid.New(), name: fmt.Sprint("plan", len(w.plans)), minor: minor, catchUp: catchUp,
		interval: billing.Interval{Unit: unit, Count: count},
	}
	w.exec(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
		VALUES ($1, $2, $3, 'PHP', $4, $5, $6, $7)`, p.id, p.name, minor, unit, count, dunningUntil(end), catchUp)
	w.plans = append(w.plans, p)
}

func dunningUntil(end billing.EndAction) string {
	return fmt.Sprintf(`{"offsets_days":[1,3],"hour":9,"spread_minutes":0,"end":%q}`, end)
}

// subscribe makes a customer with cards and a subscription from now on.
func (w *world) subscribe(p terms, end billing.EndAction, trialEnd time.Time, numbers ...string) {
	customer := uuid.New()
	a := &agreement{
		id: uuid.New(), name: fmt.Sprint("s", len(w.subs)), customer: fmt.Sprint("c", len(w.subs)), terms: p, anchor: w.now, wake: w.now,
		trialEnd: trialEnd, opened: map[int]debt{}, skipped: map[int]billing.SkipReason{},
	}
	w.subs = append(w.subs, a)
	status, trial := billing.SubscriptionActive, &trialEnd
	if trialEnd.IsZero() {
		trial = nil
	} else {
		status = billing.SubscriptionTrialing
	}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, customer, a.customer)
	for i, number := range numbers {
		method, err := w.saveCard(number)
		w.trouble("save a card", err)
		batch.Queue(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, exp_month, exp_year, position)
			VALUES ($1, $2, $3, 'visa', 12, 2030, $4)`, uuid.New(), customer, method, i)
	}
	batch.Queue(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, trial_end, dunning, catch_up)
		VALUES ($1, $2, $3, $4, $5, $6, 'PHP', $7, $8, $9, 'Asia/Manila', 0, $9, $9, $10, $11, $12)`,
		a.id, a.name, customer, p.id, status, p.minor, p.interval.Unit, p.interval.Count, w.now, trial, dunningUntil(end), p.catchUp)
	w.trouble("subscribe", w.look.SendBatch(context.Background(), batch).Close())
}

func (w *world) saveCard(number string) (id string, err error) {
	method, err := w.client.PaymentMethods.Create(context.Background(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		return "", err
	}
	w.saved[method.ID] = true
	return method.ID, nil
}

// addCard saves another card at the provider and imports it, behind the others.
func (w *world) addCard(a *agreement, number string) {
	method, err := w.saveCard(number)
	w.trouble("save a card", err)
	line := fmt.Sprintf(`{"type":"payment_method","customer":%q,"paymongo_payment_method_id":%q,"brand":"visa","last4":%q,"exp_month":12,"exp_year":2030}`,
		a.customer, method, number[len(number)-4:])
	result, err := billing.Import(context.Background(), w.look, strings.NewReader(line), billing.ImportOptions{Now: w.now, Actor: "ana", Source: "property"})
	if err != nil || result.PaymentMethods.Created != 1 {
		w.wrong("import of a card: %+v %v", result, err)
	}
	w.cards++
}

func (w *world) exec(sql string, args ...any) {
	_, err := w.look.Exec(context.Background(), sql, args...)
	w.trouble(sql, err)
}

// set moves both clocks. The provider's never goes back; business time may lag.
func (w *world) set(now time.Time, behind time.Duration) {
	w.now, w.behind = now, behind
	w.box.Clock().Set(now.Add(behind))
	w.box.Settle()
	w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.SetVirtualClock(ctx, tx, now) })
}

// act does what an operator does, and tells whether it was allowed.
func (w *world) act(do func(context.Context, pgx.Tx) error) bool {
	ctx := context.Background()
	err := pgx.BeginFunc(ctx, w.look, func(tx pgx.Tx) error { return do(ctx, tx) })
	var refused *billing.RefusedError
	if errors.As(err, &refused) {
		return false
	}
	w.trouble("an operator's act", err)
	return err == nil
}

func (w *world) by() billing.Act { return billing.Act{Actor: "ana", Reason: "property", Now: w.now} }

// run is a goroutine that may die at an ambush. It waits for its end.
func (w *world) run(do func() error) (err error, died bool) {
	died = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = do()
		died = false
	}()
	<-done
	return err, died
}

// quiet waits until nothing is under way that a run has left behind.
func (w *world) quiet() {
	for calm := 0; calm < 3; {
		before := w.pool.Stat()
		<-time.After(time.Millisecond)
		if after := w.pool.Stat(); after.AcquiredConns() == 0 && after.AcquireCount() == before.AcquireCount() {
			calm++
		} else {
			calm = 0
		}
	}
}

// sweep sweeps with a worker, and the model with it.
func (w *world) sweep(ctx context.Context, c *worker.Collector) {
	w.adoptEnded()
	_, err := c.Sweep(ctx, w.jobs)
	w.swept(err)
}

// swept moves the model on. Of a sweep that failed nobody knows whether it was
// committed: the books tell, and it was done for a subscription as a whole or not
// at all.
func (w *world) swept(err error) {
	var rows map[uuid.UUID]subscriptionRow
	if err != nil {
		rows = w.subscriptions()
	}
	for i, a := range w.subs {
		after := a.clone()
		after.sweep(w.now)
		if err == nil || a.differs(rows[a.id]) != "" {
			w.subs[i] = after
		}
	}
}

const sqlPropertySubscriptions = `
SELECT id, status, next_period_no, next_due_at, plan_id, next_plan_id, COALESCE(parked_reason, '')
FROM singil.subscriptions`

func (w *world) subscriptions() map[uuid.UUID]subscriptionRow {
	rows, err := w.look.Query(context.Background(), sqlPropertySubscriptions)
	w.trouble("read subscriptions", err)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[subscriptionRow])
	w.trouble("read subscriptions", err)
	found := map[uuid.UUID]subscriptionRow{}
	for _, row := range list {
		found[row.ID] = row
	}
	return found
}

// adoptEnded tells the model of subscriptions that dunning has ended: it knows
// nothing of outcomes.
func (w *world) adoptEnded() {
	rows, err := w.look.Query(context.Background(), `
		SELECT s.id FROM singil.subscriptions s
		WHERE s.status = 'cancelled' AND s.dunning ->> 'end' = 'cancel'
		  AND EXISTS (SELECT FROM singil.invoices i WHERE i.subscription_id = s.id AND i.status IN ('uncollectible', 'paid'))`)
	w.trouble("read ended subscriptions", err)
	ended, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	w.trouble("read ended subscriptions", err)
	for _, a := range w.subs {
		if slices.Contains(ended, a.id) && !a.ended {
			// What is to come stays noted, as the books keep it.
			next := a.next
			a.end()
			a.next = next
		}
	}
}

// job is one row of the queue.
type job struct {
	kind    string
	invoice uuid.UUID
	events  []string
}

func (j job) run(ctx context.Context, w *world, c *worker.Collector) error {
	switch j.kind {
	case "charge":
		return c.Charge(ctx, j.invoice)
	case "reconcile":
		return c.Reconcile(ctx, j.invoice)
	case "webhook":
		return c.Heed(ctx, w.jobs, j.events)
	}
	return fmt.Errorf("unknown kind of job %q", j.kind)
}

// takeJobs empties the queue. Jobs come in an order that does not depend on
// random ids; a batch of charges comes as so many jobs.
func (w *world) takeJobs() (jobs []job) {
	rows, err := w.look.Query(context.Background(), `
		WITH taken AS (DELETE FROM river.river_job RETURNING id, kind, args)
		SELECT replace(t.kind, 'charge_batch', 'charge'), COALESCE(l.invoice_id, '00000000-0000-0000-0000-000000000000')::uuid, e.ids
		FROM taken t
		CROSS JOIN LATERAL (SELECT array_agg(a.id ORDER BY a.id) AS ids FROM jsonb_array_elements_text(t.args -> 'event_ids') AS a (id)) e
		CROSS JOIN LATERAL (
		  SELECT t.args ->> 'invoice_id' AS invoice_id WHERE NOT t.args ? 'invoice_ids'
		  UNION ALL
		  SELECT jsonb_array_elements_text(t.args -> 'invoice_ids') WHERE t.args ? 'invoice_ids'
		) l
		LEFT JOIN singil.invoices i ON i.id::text = l.invoice_id
		LEFT JOIN singil.subscriptions s ON s.id = i.subscription_id
		ORDER BY replace(t.kind, 'charge_batch', 'charge'), s.external_id, i.period_no, e.ids, t.id`)
	w.trouble("read jobs", err)
	jobs, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (j job, err error) {
		err = row.Scan(&j.kind, &j.invoice, &j.events)
		return j, err
	})
	w.trouble("read jobs", err)
	return jobs
}

// invoices lists them in the order of subscription and period.
func (w *world) invoices(where string) []uuid.UUID {
	rows, err := w.look.Query(context.Background(), `SELECT i.id FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
		WHERE `+where+` ORDER BY s.external_id, i.period_no`)
	w.trouble("list invoices", err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	w.trouble("list invoices", err)
	return ids
}

// attempts are those on record.
func (w *world) attempts() map[uuid.UUID]bool {
	return w.ids(`SELECT id FROM singil.attempts`)
}

func (w *world) ids(sql string, args ...any) map[uuid.UUID]bool {
	rows, err := w.look.Query(context.Background(), sql, args...)
	w.trouble(sql, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	w.trouble(sql, err)
	found := make(map[uuid.UUID]bool, len(ids))
	for _, id := range ids {
		found[id] = true
	}
	return found
}

// deliver posts a body of the test's own to the inbox.
func (w *world) deliver(secret, body string) (status int) {
	at := w.now.Unix()
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.%s", at, body)
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	req.Header.Set("Paymongo-Signature", fmt.Sprintf("t=%d,te=%s,li=", at, hex.EncodeToString(mac.Sum(nil))))
	answer := httptest.NewRecorder()
	w.receive(answer, req)
	return answer.Code
}

// paidEvent is the body of a webhook that tells of a payment.
func (w *world) paidEvent(id, payment, intent, invoice string, minor int64) string {
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) } // a string always has a form
	return fmt.Sprintf(`{"data":{"id":%s,"type":"event","attributes":{"type":"payment.paid","livemode":false,"data":{"id":%s,"type":"payment","attributes":{`+
		`"amount":%d,"currency":"PHP","status":"paid","livemode":false,"payment_intent_id":%s,"metadata":{"environment":"dev","invoice":%s},"refunds":[],"created_at":%d}},`+
		`"previous_data":{},"pending_webhooks":1,"created_at":%d,"updated_at":%d}}}`,
		quote(id), quote(payment), minor, quote(intent), quote(invoice), w.now.Unix(), w.now.Unix(), w.now.Unix())
}
