package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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

// crashStart is when everything falls due. All of a cell is over before the
// next period begins.
var crashStart = time.Date(2026, 2, 3, 4, 0, 0, 0, time.UTC)

// crashPatience is how long anything may take that should come by itself. A busy
// machine starts four daemons at once.
const crashPatience = 30 * time.Second

// doomedKey tells the requests of the daemon that is to die from the others'.
const doomedKey = "sk_test_doomed"

// crashWorld is one cell: a database, a sandbox behind a front that can kill,
// and one or two daemons.
type crashWorld struct {
	t      *testing.T
	cell   crashCell
	binary string
	dsn    string
	pool   *pgxpool.Pool
	box    *sandbox.Sandbox
	front  *crashFront
	client *paymongo.Client
	url    string
	plan   uuid.UUID
	now    time.Time
	env    []string
	cards  map[string]crashCard // by subscription
	proxy  *cuttingProxy        // nil: the doomed daemon has the database to itself

	hooked   bool              // the sandbox delivers webhooks
	merchant *merchantEndpoint // nil: nobody wants events

	mu      sync.Mutex
	daemons []*crashDaemon // the doomed one is first while it lives
}

// crashCard is how a subscription's card does.
type crashCard string

const (
	goodCard   crashCard = "good"
	laterCard  crashCard = "later"  // pays on the second day
	slowCard   crashCard = "slow"   // pays after five minutes of processing
	stolenCard crashCard = "stolen" // never pays
	poisonCard crashCard = "poison" // would pay, but its invoice is refused by the database
)

// How the only period of a subscription may end.
const (
	endPaid     = "paid"
	endCustomer = "in front of the customer"
	endParked   = "parked"
)

func (c crashCard) end() string {
	switch c {
	case stolenCard:
		return endCustomer
	case poisonCard:
		return endParked
	}
	return endPaid
}

func newCrashWorld(t *testing.T, binary string, cell crashCell) *crashWorld {
	t.Helper()
	w := &crashWorld{t: t, cell: cell, binary: binary, dsn: pgtest.DSN(t), plan: uuid.New(), now: crashStart.Add(-time.Hour), cards: map[string]crashCard{}}
	var err error
	if w.pool, err = pgxpool.New(t.Context(), w.dsn); err != nil {
		t.Fatal(err)
	}
	if w.box, err = sandbox.New(sandbox.Options{Seed: 1, Start: w.now, StopClock: true}); err != nil {
		t.Fatal(err)
	}
	w.front = &crashFront{w: w, moment: cell.row.moment, looked: make(chan struct{}), over: make(chan struct{})}
	server := httptest.NewServer(w.front)
	w.url = server.URL + "/v1"
	if w.client, err = paymongo.NewClient("sk_test_customers", paymongo.WithBaseURL(w.url), paymongo.WithRate(math.Inf(1), 0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(w.front.over)
		for _, d := range w.alive() {
			d.kill()
		}
		if w.proxy != nil {
			w.proxy.close()
		}
		w.client.CloseIdleConnections()
		if err := w.box.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
		w.pool.Close()
	})
	w.tx(func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		if err := billing.SetVirtualClock(t.Context(), tx, w.now); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
			VALUES ($1, 'pro', 49900, 'PHP', 'month', 1, $2, 'bill_all')`, w.plan, crashPolicy)
		return err
	})
	return w
}

const crashPolicy = `{"offsets_days":[1,3,5,7],"hour":9,"end":"mark_unpaid"}`

// subscribeAll makes one subscription of each card that the cell's row wants.
func (w *crashWorld) subscribeAll(suffix string, due time.Time) {
	w.t.Helper()
	cards := w.cell.row.only
	if len(cards) == 0 {
		cards = []crashCard{goodCard, laterCard, stolenCard}
	}
	for _, card := range cards {
		w.subscribe(string(card)+suffix, card, due)
	}
}

// subscribe also sees to it that a reply about the subscription is spoilt, if that
// is this cell's condition.
func (w *crashWorld) subscribe(name string, card crashCard, due time.Time) {
	w.t.Helper()
	number, its := "4343434343434345", map[string]string{"subscription": name}
	switch card {
	case laterCard:
		w.fault(sandbox.Fault{Kind: sandbox.Decline, Code: "do_not_honor", Times: 1, Metadata: its})
	case slowCard:
		w.fault(sandbox.Fault{Kind: sandbox.Processing, For: sandbox.Duration(5 * time.Minute), Metadata: its})
	case stolenCard:
		number = "5400000000000195"
	}
	if kind := w.cell.condition.spoils; kind != "" {
		attach := sandbox.Fault{Kind: kind, Endpoint: "payment_intents.attach", Times: 1, Metadata: its}
		if w.cell.row.second {
			attach.Nth = 2
		}
		w.fault(attach)
		if w.cell.row.create {
			w.fault(sandbox.Fault{Kind: kind, Endpoint: "payment_intents.create", Times: 1, Metadata: its})
		}
	}
	method, err := w.client.PaymentMethods.Create(w.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2035, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	customer := uuid.New()
	w.tx(func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(`INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, customer, "customer of "+name)
		batch.Queue(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand) VALUES ($1, $2, $3, 'visa')`, uuid.New(), customer, method.ID)
		batch.Queue(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency,
				interval_unit, interval_count, anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
			VALUES ($1, $2, $3, $4, 'active', 49900, 'PHP', 'month', 1, $5, 'Asia/Manila', 0, $5, $5, $6, 'bill_all')`,
			uuid.New(), name, customer, w.plan, due, crashPolicy)
		return tx.SendBatch(w.t.Context(), batch).Close()
	})
	w.cards[name] = card
}

func (w *crashWorld) fault(f sandbox.Fault) {
	w.t.Helper()
	if _, err := w.box.AddFault(f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *crashWorld) tx(do func(pgx.Tx) error) {
	w.t.Helper()
	if err := pgx.BeginFunc(context.Background(), w.pool, do); err != nil {
		w.t.Fatal(err)
	}
}

func (w *crashWorld) number(sql string, args ...any) (n int) {
	w.t.Helper()
	if err := w.pool.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (w *crashWorld) set(now time.Time) {
	w.t.Helper()
	w.now = now
	w.box.Clock().Set(now)
	w.tx(func(tx pgx.Tx) error { return billing.SetVirtualClock(context.Background(), tx, now) })
}

// next is the next wake-up of anything in this period but of those that wait for a
// customer who does not come; ten minutes on at least, which is more than a lease
// and less than what the provider may take over an attach.
func (w *crashWorld) next() time.Time {
	w.t.Helper()
	var next *time.Time
	if err := w.pool.QueryRow(context.Background(), `SELECT least(
		(SELECT min(next_due_at) FROM singil.subscriptions),
		(SELECT min(next_attempt_at) FROM singil.invoices WHERE status = 'open' AND waiting_for <> 'customer'),
		(SELECT min(next_try_at) FROM singil.webhook_events WHERE processed_at IS NULL))`).Scan(&next); err != nil {
		w.t.Fatal(err)
	}
	soonest := w.now.Add(10 * time.Minute)
	if next == nil || next.Before(soonest) || next.After(crashStart.AddDate(0, 0, 20)) || w.untold() > 0 {
		return soonest
	}
	return *next
}

// quiet tells that nothing that is due waits for a daemon.
func (w *crashWorld) quiet() bool {
	w.t.Helper()
	if w.hooked {
		ctx, cancel := context.WithTimeout(context.Background(), crashPatience)
		defer cancel()
		if err := w.box.Drain(ctx); err != nil {
			w.t.Fatalf("the sandbox's deliveries: %v", err)
		}
	}
	return w.number(`SELECT (SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1)
		+ (SELECT count(*) FROM singil.invoices WHERE status = 'open' AND (next_attempt_at <= $1 OR claimed))
		+ (SELECT count(*) FROM singil.webhook_events WHERE next_try_at <= $1)
		+ (SELECT count(*) FROM singil.event_deliveries)`, w.now) == 0
}

// settle returns when nothing is due, or as soon as enough is true. An invoice
// that is due again at once waits for the daemons' schedule, which is a minute: a
// second on the clock brings them.
func (w *crashWorld) settle(enough func() bool) {
	w.t.Helper()
	nudge := time.Now().Add(1200 * time.Millisecond) // they look every second
	w.await("nothing is due", crashPatience, func() bool {
		if enough() || w.quiet() {
			return true
		}
		if time.Now().After(nudge) {
			w.set(w.now.Add(time.Second))
			nudge = time.Now().Add(1200 * time.Millisecond)
		}
		return false
	})
}

// open counts what has not come to its end.
func (w *crashWorld) open() int {
	w.t.Helper()
	n := w.number(`SELECT (SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1)
		+ (SELECT count(*) FROM singil.invoices WHERE status = 'open' AND waiting_for <> 'customer')
		+ (SELECT count(*) FROM singil.webhook_events WHERE processed_at IS NULL)
		+ (SELECT count(*) FROM singil.event_deliveries)`, w.now)
	return n + w.untold()
}

// untold counts the payments whose webhook has not come. The sandbox delivers again
// what nobody took, in a few minutes.
func (w *crashWorld) untold() int {
	w.t.Helper()
	if !w.hooked {
		return 0
	}
	return w.number(`SELECT count(*) FROM singil.payments p WHERE p.status = 'paid'
		AND NOT EXISTS (SELECT FROM singil.webhook_events e WHERE e.resource_id = p.payment_id)`)
}

func (w *crashWorld) await(what string, patience time.Duration, done func() bool) bool {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline.C:
			if what != "" {
				w.t.Fatalf("not within %s: %s; %s", patience, what, w.books())
			}
			return false
		case <-tick.C:
		}
	}
	return true
}

// books is for whoever reads of a failure.
func (w *crashWorld) books() (lines string) {
	if err := w.pool.QueryRow(context.Background(), `SELECT COALESCE(string_agg(concat_ws(' ', s.external_id, s.parked_reason, i.status, i.waiting_for,
			i.next_attempt_at AT TIME ZONE 'UTC', i.reason, (SELECT string_agg(a.state, ',' ORDER BY a.no) FROM singil.attempts a WHERE a.invoice_id = i.id)), '; ' ORDER BY s.external_id), '')
		FROM singil.subscriptions s LEFT JOIN singil.invoices i ON i.subscription_id = s.id`).Scan(&lines); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("at %s: %s", w.now.Format(time.DateTime), lines)
}

// crashDaemon is a singil run, and what it says.
type crashDaemon struct {
	w     *crashWorld
	cmd   *exec.Cmd
	log   lockedBuffer
	ended chan struct{}
}

// start starts a daemon; doomed is the one that dies.
func (w *crashWorld) start(key, dsn string, env ...string) *crashDaemon {
	w.t.Helper()
	d := &crashDaemon{w: w, cmd: exec.Command(w.binary, "run"), ended: make(chan struct{})}
	d.cmd.Env = append(os.Environ(), "DATABASE_URL="+dsn, "PAYMONGO_SECRET_KEY="+key, "PAYMONGO_BASE_URL="+w.url, "PAYMONGO_RATE=5000", "SINGIL_LISTEN=127.0.0.1:0")
	d.cmd.Env = append(append(d.cmd.Env, w.env...), env...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := d.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait() // its state tells
		close(d.ended)
	}()
	w.daemons = append(w.daemons, d)
	if key == doomedKey {
		w.front.doomed = d
	}
	w.t.Cleanup(func() {
		if w.t.Failed() {
			lines := strings.SplitAfter(d.log.String(), "\n")
			w.t.Logf("the daemon of %s said at last:\n%s", key, strings.Join(lines[max(0, len(lines)-30):], ""))
		}
	})
	return d
}

func (w *crashWorld) alive() (alive []*crashDaemon) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.daemons {
		if !d.dead() {
			alive = append(alive, d)
		}
	}
	return alive
}

func (d *crashDaemon) dead() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

func (d *crashDaemon) kill() {
	_ = d.cmd.Process.Kill() // it may have ended by itself
	<-d.ended
}

// killed tells that SIGKILL was its end.
func (d *crashDaemon) killed() bool {
	status, ok := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func (d *crashDaemon) signal(s syscall.Signal) {
	d.w.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.w.t.Errorf("%s: %v\n%s", s, err, &d.log)
	}
}

var crashListens = regexp.MustCompile(`"msg":"running","listen":"([^"]+)"`)

// address is empty until it listens.
func (d *crashDaemon) address() string {
	if found := crashListens.FindStringSubmatch(d.log.String()); found != nil {
		return found[1]
	}
	return ""
}

func (d *crashDaemon) listens() {
	d.w.t.Helper()
	d.w.await("the daemon listens", crashPatience, func() bool {
		if d.dead() {
			d.w.t.Fatalf("the daemon ended:\n%s", &d.log)
		}
		return d.address() != ""
	})
}

// crashMoment is a moment of a request of the doomed daemon, as seen from the
// other end of the connection.
type crashMoment string

const (
	createDelivered crashMoment = "create delivered" // and never executed
	createExecuted  crashMoment = "create executed"  // not answered
	attachBegun     crashMoment = "attach begun"     // headers are there, the body is not read, nothing is executed
	attachDelivered crashMoment = "attach delivered" // executed after the next look at the intent
	attachExecuted  crashMoment = "attach executed"  // not answered
	attachDraining  crashMoment = "attach draining"  // executed, not answered; SIGTERM first
)

// crashFront stands in front of the sandbox. It kills the doomed daemon at its
// moment, once, and watches that nothing is attached to an intent that is not on
// record.
type crashFront struct {
	w      *crashWorld
	moment crashMoment
	doomed *crashDaemon // guarded by w.mu
	fired  atomic.Bool
	victim atomic.Pointer[string] // the intent whose attach it was
	late   atomic.Bool            // it was executed after a look
	looked chan struct{}          // somebody has looked at the victim since
	once   sync.Once
	over   chan struct{} // the cell is
}

var attachPath = regexp.MustCompile(`^/v1/payment_intents/([^/]+)/attach$`)

func (f *crashFront) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	intent := ""
	if found := attachPath.FindStringSubmatch(r.URL.Path); found != nil && r.Method == http.MethodPost {
		intent = found[1]
		f.mustBeArmed(intent)
	}
	key, _, _ := r.BasicAuth()
	ours := intent != "" && strings.HasPrefix(string(f.moment), "attach") ||
		r.URL.Path == "/v1/payment_intents" && r.Method == http.MethodPost && strings.HasPrefix(string(f.moment), "create")
	if ours && key == doomedKey && f.fired.CompareAndSwap(false, true) {
		f.victim.Store(&intent)
		f.strike(rw, r)
		return
	}
	f.w.box.ServeHTTP(rw, r)
	if victim := f.victim.Load(); victim != nil && r.Method == http.MethodGet && r.URL.Path == "/v1/payment_intents/"+*victim {
		f.once.Do(func() { close(f.looked) })
	}
}

// mustBeArmed holds the rule that makes a crash harmless: an attach goes only to
// an intent whose id is committed, for an attempt that is.
func (f *crashFront) mustBeArmed(intent string) {
	var n int
	err := f.w.pool.QueryRow(context.Background(), `SELECT count(*) FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
		WHERE pi.provider_intent_id = $1 AND a.state = 'armed'`, intent).Scan(&n)
	if err != nil || n != 1 {
		f.w.t.Errorf("an attach to %s, for which %d attempts are armed on record (%v)", intent, n, err)
	}
}

// strike kills, and never answers.
func (f *crashFront) strike(rw http.ResponseWriter, r *http.Request) {
	f.w.mu.Lock()
	doomed := f.doomed
	f.w.mu.Unlock()
	switch f.moment {
	case attachBegun:
		doomed.kill()
	case createDelivered:
		f.read(r)
		doomed.kill()
	case attachDelivered:
		later := f.read(r)
		doomed.kill()
		select {
		case <-f.looked:
			f.late.Store(true)
			f.w.box.ServeHTTP(httptest.NewRecorder(), later) // may panic on purpose, when it has been executed
		case <-f.over:
		}
	case createExecuted, attachExecuted:
		f.w.box.ServeHTTP(&killsBeforeReply{ResponseWriter: rw, kill: doomed.kill}, r)
	case attachDraining:
		f.w.box.ServeHTTP(&killsBeforeReply{ResponseWriter: rw, kill: func() {
			doomed.signal(syscall.SIGTERM)
			drains := func() bool { return strings.Contains(doomed.log.String(), `"msg":"draining"`) }
			if !f.w.await("", crashPatience, drains) {
				f.w.t.Error("the daemon does not drain")
			}
			doomed.kill()
		}}, r)
	}
	panic(http.ErrAbortHandler)
}

// read takes the whole request, to be executed without its sender.
func (f *crashFront) read(r *http.Request) *http.Request {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.w.t.Errorf("the request was cut short: %v", err)
	}
	later := r.Clone(context.WithoutCancel(r.Context()))
	later.Body = io.NopCloser(bytes.NewReader(body))
	return later
}

// killsBeforeReply lets a request have its effect and kills before the first byte
// of the answer leaves.
type killsBeforeReply struct {
	http.ResponseWriter
	kill func()
	once sync.Once
}

func (k *killsBeforeReply) WriteHeader(int) { k.once.Do(k.kill) }

func (k *killsBeforeReply) Write(p []byte) (int, error) {
	k.once.Do(k.kill)
	return len(p), nil
}

// Unwrap lets the sandbox break the connection.
func (k *killsBeforeReply) Unwrap() http.ResponseWriter {
	k.once.Do(k.kill)
	return k.ResponseWriter
}

// hook has the sandbox deliver its webhooks to whichever daemon lives, the doomed
// one first, as a balancer would.
func (w *crashWorld) hook() {
	w.t.Helper()
	balancer := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		alive := w.alive()
		if err != nil || len(alive) == 0 || alive[0].address() == "" {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+alive[0].address()+"/webhooks/paymongo", bytes.NewReader(body))
		if err != nil {
			w.t.Error(err)
			return
		}
		request.Header = r.Header
		answer, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		_ = answer.Body.Close()
		rw.WriteHeader(answer.StatusCode)
	}))
	w.t.Cleanup(balancer.Close)
	hook, err := w.client.Webhooks.Create(w.t.Context(), &paymongo.WebhookCreateParams{URL: balancer.URL, Events: []paymongo.EventType{
		paymongo.EventPaymentPaid, paymongo.EventPaymentFailed,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.hooked = true
	w.env = append(w.env, "PAYMONGO_WEBHOOK_SECRET="+hook.SecretKey.Reveal())
}

// merchantEndpoint takes the outbox's events and counts them by their id.
type merchantEndpoint struct {
	mu     sync.Mutex
	bodies map[string][]string
}

func (w *crashWorld) listenToEvents() {
	w.t.Helper()
	m := &merchantEndpoint{bodies: map[string][]string{}}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // its sender died
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		id := r.Header.Get("webhook-id")
		m.bodies[id] = append(m.bodies[id], string(body))
	}))
	w.t.Cleanup(server.Close)
	w.tx(func(tx pgx.Tx) error {
		_, err := billing.AddEndpoint(w.t.Context(), tx, server.URL, "")
		return err
	})
	w.merchant = m
}

// cuttingProxy lies between a daemon and PostgreSQL. It lets the first COMMIT of
// a transaction that has said marker through, and cuts the connection before the
// server's answer: the daemon lives and does not know.
type cuttingProxy struct {
	dsn      string // through the proxy
	marker   []byte
	server   string
	listener net.Listener
	chosen   atomic.Bool // the COMMIT is on its way
	cut      atomic.Bool // the server has answered, nobody will know

	mu    sync.Mutex
	conns []net.Conn
	pipes sync.WaitGroup
}

func newCuttingProxy(t *testing.T, dsn, marker string) *cuttingProxy {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := &cuttingProxy{marker: []byte(marker), server: u.Host}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u.Host = p.listener.Addr().String()
	p.dsn = withSetting(t, u.String(), "sslmode", "disable") // it has to read along
	p.pipes.Go(func() {
		for {
			client, err := p.listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", p.server)
			if err != nil {
				_ = client.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, client, server)
			p.mu.Unlock()
			p.pipe(client, server)
		}
	})
	return p
}

func withSetting(t *testing.T, dsn, name, value string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set(name, value)
	u.RawQuery = query.Encode()
	return u.String()
}

func (p *cuttingProxy) pipe(client, server net.Conn) {
	var ours atomic.Bool // the next that the server says is that it has committed
	p.pipes.Go(func() {
		defer func() { _ = server.Close() }()
		marked := false
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if err != nil {
				return
			}
			marked = marked || bytes.Contains(buf[:n], p.marker)
			if marked && bytes.Contains(buf[:n], commitMessage) && p.chosen.CompareAndSwap(false, true) {
				ours.Store(true)
			}
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	p.pipes.Go(func() {
		defer func() { _ = client.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if ours.Load() {
				p.cut.Store(true)
				return
			}
			if err != nil {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

func (p *cuttingProxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close() // most are closed
	}
	p.mu.Unlock()
	p.pipes.Wait()
}
