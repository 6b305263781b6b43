package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/devpg"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

// badDayPatience is how long anything may take that should come by itself.
const badDayPatience = 30 * time.Second

// outage is how long the database is away. The promise is 30 s; what a daemon
// does is the same after 5, and a test is run often.
const outage = 5 * time.Second

// TestBadDays runs the real binary through what goes wrong around it. In the end
// every invoice is paid once, or in front of somebody with a reason.
//
//	go test ./cmd/singil -run BadDays -v
func TestBadDays(t *testing.T) { // not parallel: the torture test has two daemons of its own
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	binary := filepath.Join(t.TempDir(), "singil")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	// With two daemons, and so alone. The others have one each, and run as many at
	// a time as there are processors.
	t.Run("ClockMovedOnTwoMonthsAtOnce", func(t *testing.T) { clockForward(t, binary) })
	t.Run("TwoDaemonsUnderOneRate", func(t *testing.T) { rateShared(t, binary) })
	for _, day := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"DatabaseAwayFor30s", databaseAway},
		{"PayMongoAwayForAnHour", payMongoAway},
		{"SIGTERMInTheMiddleOfACharge", sigtermInACharge},
		{"SIGKILLInTheMiddleOfACharge", sigkillInACharge},
		{"CardsThatCannotBeCharged", badCards},
		{"ClockSetBackwards", clockBackwards},
		{"WrongConfiguration", wrongConfiguration},
	} {
		t.Run(day.name, func(t *testing.T) {
			t.Parallel()
			day.run(t, binary)
		})
	}
}

func databaseAway(t *testing.T, binary string) {
	// Durable: a crash of a real server loses nothing that was committed.
	server, err := devpg.Start(t.Context(), devpg.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := migrations.Up(t.Context(), server.DSN(""), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	d := newBadDay(t, binary, server.DSN(""))
	const n = 60
	d.subscribe(n)
	d.latency(300 * time.Millisecond)
	p := d.launch("PAYMONGO_RATE=25") // 120 calls: some are behind us, some under way, some to come

	d.await("some charges are done", func() bool { return d.box.Summary("invoice").PaidPayments >= n/6 })
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	paid := d.box.Summary("invoice").PaidPayments
	if paid >= n {
		t.Fatal("the database was killed too late to prove anything")
	}
	back := time.After(outage)
	d.await("not ready", func() bool { return p.ready() == http.StatusServiceUnavailable })
	if status := p.get("/healthz"); status != http.StatusOK {
		t.Errorf("healthz is %d: a supervisor would kill a daemon that is well", status)
	}
	select {
	case <-back:
	case <-p.ended:
		t.Fatalf("the daemon ended with its database:\n%s", p.log)
	}
	if status := p.ready(); status != http.StatusServiceUnavailable {
		t.Errorf("readyz is %d without a database", status)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.await("ready again", func() bool { return p.ready() == http.StatusOK })
	d.finish()
	d.allPaidOnce(n)
	p.stop()
	t.Logf("%d of %d were charged when the database went, for %s", paid, n, outage)
}

func payMongoAway(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t))
	const n, early = 24, 15
	d.subscribe(n)
	away := func(endpoint string) {
		// One after the other is asked, so that each gets its third.
		for _, f := range []sandbox.Fault{
			{Kind: sandbox.ErrorBefore, Probability: 0.33}, {Kind: sandbox.ResetBefore, Probability: 0.5}, {Kind: sandbox.TimeoutBefore, Probability: 1},
		} {
			f.Endpoint = endpoint
			d.fault(f)
		}
	}
	// It goes in the middle of things: some customers have an attach under
	// way, of which nothing is known for the whole hour.
	if _, err := d.pool.Exec(t.Context(), `UPDATE singil.subscriptions SET next_due_at = next_due_at + interval '20 minutes',
		anchor_at = anchor_at + interval '20 minutes', bill_from = bill_from + interval '20 minutes' WHERE external_id > $1`, fmt.Sprintf("s%02d", early)); err != nil {
		t.Fatal(err)
	}
	away("payment_intents.attach")
	p := d.launch()
	d.await("attaches are open", func() bool {
		return d.number(`SELECT count(*) FROM singil.attempts`) == early && d.number(`SELECT count(*) FROM singil.invoices WHERE claimed`) == 0
	})
	away("")
	for range 2 { // each takes as long as the client is patient
		d.set(d.now.Add(30 * time.Minute))
		d.settled()
	}
	if paid := d.box.Summary("invoice").PaidPayments; paid != 0 {
		t.Fatalf("%d were paid while PayMongo was away", paid)
	}
	if armed := d.number(`SELECT count(*) FROM singil.attempts WHERE state = 'armed'`); armed != early {
		t.Errorf("%d outcomes are open, want those %d of before: what is not known stays open", armed, early)
	}
	d.box.ClearFaults()
	d.finish()
	d.allPaidOnce(n)
	p.stop()

	if n := d.number(`SELECT count(*) FROM singil.subscriptions WHERE status <> 'active'`); n > 0 {
		t.Errorf("%d subscriptions are not active: an outage of PayMongo's is not the customer's", n)
	}
	if n := d.number(`SELECT count(*) FROM singil.events WHERE type IN ('invoice.payment_failed', 'invoice.needs_action', 'invoice.uncollectible', 'invoice.review')`); n > 0 {
		t.Errorf("%d customers were told of a failure", n)
	}
	if n := d.number(`SELECT count(*) FROM singil.attempts WHERE state = 'declined'`); n > 0 {
		t.Errorf("%d declines", n)
	}
	// One that was under way when PayMongo went, and one when it was back.
	if most := d.number(`SELECT max(attempt_count) FROM singil.invoices`); most > 2 {
		t.Errorf("%d attempts on one invoice", most)
	}
}

func sigtermInACharge(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t))
	const n = 30
	d.subscribe(n)
	d.latency(1500 * time.Millisecond)
	p := d.launch()
	d.await("attaches are at work", func() bool { return d.atWork() >= n/3 })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
	sum := d.box.Summary("invoice")
	if sum.Attaches == 0 || d.atWork() > 0 {
		t.Errorf("%d attaches were sent, %d are still at work", sum.Attaches, d.atWork())
	}
	if armed := d.number(`SELECT count(*) FROM singil.attempts WHERE state <> 'succeeded'`); armed > 0 {
		t.Errorf("%d attempts were left behind", armed)
	}
	if paid := d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); paid != sum.PaidPayments || paid != sum.Attaches {
		t.Errorf("%d attaches, %d payments, %d invoices are paid", sum.Attaches, sum.PaidPayments, paid)
	}
	t.Logf("%d of %d were under way", sum.Attaches, n)

	// What was not begun is not lost.
	d.latency(0)
	p = d.launch()
	d.finish()
	d.allPaidOnce(n)
	p.stop()
}

func sigkillInACharge(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t))
	const n = 30
	d.subscribe(n)
	d.latency(1500 * time.Millisecond)
	p := d.launch()
	d.await("attaches are at work", func() bool { return d.atWork() >= n/3 })
	p.kill()
	armed := d.number(`SELECT count(*) FROM singil.attempts WHERE state = 'armed'`)
	if armed == 0 {
		t.Error("nothing was armed: the kill came too late to prove anything")
	}
	// The acquirer does not know that we are gone.
	d.await("the acquirer is done", func() bool { return d.atWork() == 0 })
	sent := d.box.Summary("invoice").Attaches
	d.latency(0)
	p = d.launch()
	d.finish() // moves the clock on, past the leases
	d.allPaidOnce(n)
	p.stop()
	// Those whose attach had arrived were found by asking, not by attaching again.
	if sum := d.box.Summary("invoice"); sum.AttachesExecuted != n {
		t.Errorf("%d attaches reached the acquirer for %d invoices", sum.AttachesExecuted, n)
	}
	t.Logf("killed with %d attempts armed, %d attaches at PayMongo", armed, sent)
}

func badCards(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t))
	const good = 8
	d.subscribe(good)
	none := d.subscription("no-card")
	expired := d.subscription("expired")
	d.card(expired, d.method("4343434343434345"), 12, 2025)
	deleted := d.subscription("deleted")
	d.card(deleted, "pm_deletedAtPayMongo", 12, 2035)
	p := d.launch()
	d.await("the good ones are paid", func() bool { return d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`) == good })

	const askedFor = `SELECT count(*) FROM singil.events e JOIN singil.subscriptions s ON s.id = e.subscription_id
		WHERE e.type = 'invoice.needs_action' AND s.customer_id = ANY($1)`
	three := []uuid.UUID{none, expired, deleted}
	d.settled()
	d.set(d.now.Add(10 * time.Minute)) // a deleted card is met by an attach, and looked at again
	d.await("the customers are asked", func() bool { return d.number(askedFor, three) == len(three) })
	if n := d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'open' AND waiting_for = 'customer'`); n != len(three) {
		t.Errorf("%d invoices are in front of their customers", n)
	}
	d.settled()
	d.set(tortureStart.AddDate(0, 0, 9)) // nobody came
	d.await("given up", func() bool {
		return d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'uncollectible'`) == len(three)
	})
	p.stop()

	for _, tt := range []struct {
		name     string
		customer uuid.UUID
		want     string
		attaches int
	}{
		{"NoCardAtAll", none, "no card that could be charged", 0},
		{"OnlyExpiredCard", expired, "no card that could be charged", 0},
		{"DeletedCard", deleted, "none left to charge", 1},
	} {
		t.Run(tt.name, func(t *testing.T) { // not parallel: d is the parent's
			var reason, subscription string
			var attempts int
			if err := d.pool.QueryRow(t.Context(), `SELECT COALESCE(i.reason, ''), s.status, i.attempt_count FROM singil.invoices i
				JOIN singil.subscriptions s ON s.id = i.subscription_id WHERE i.customer_id = $1`, tt.customer).Scan(&reason, &subscription, &attempts); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(reason, tt.want) || !strings.Contains(reason, "the customer did nothing in time") {
				t.Errorf("the reason is %q", reason)
			}
			if subscription != billing.SubscriptionUnpaid {
				t.Errorf("the subscription is %s, want what its policy says", subscription)
			}
			if attempts != tt.attaches {
				t.Errorf("%d attempts, want %d", attempts, tt.attaches)
			}
			if n := d.number(askedFor, []uuid.UUID{tt.customer}); n != 1 {
				t.Errorf("the customer was asked %d times", n)
			}
		})
	}
	sum := d.box.Summary("invoice")
	if sum.PaidPayments != good || len(sum.PaidMoreThanOnce) > 0 {
		t.Errorf("%d payments, %v doubles", sum.PaidPayments, sum.PaidMoreThanOnce)
	}
}

func clockBackwards(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t))
	const n = 5
	d.subscribe(n)
	p := d.launch()
	d.finish()
	for _, to := range []time.Time{d.now.Add(-time.Second), d.now.AddDate(0, -1, 0)} {
		code, said := d.singil("clock", "set", to.Format(time.RFC3339))
		if code != 4 || !strings.Contains(said, "does not go back") {
			t.Errorf("clock set to %s before: exit code %d: %s", d.now.Sub(to), code, said)
		}
	}
	if code, said := d.singil("clock", "show"); code != 0 || !strings.Contains(said, d.now.Format(time.RFC3339)) {
		t.Errorf("the clock was moved: %d %s", code, said)
	}

	// Whoever writes to the database by hand is not refused. Even so a period that
	// was opened stays opened.
	d.set(d.now.AddDate(0, -1, 0))
	d.settled()
	d.tick(p)
	d.set(tortureStart.Add(time.Hour))
	d.finish()
	d.allPaidOnce(n)
	p.stop()
}

func clockForward(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t))
	const n = 20
	d.subscribe(n)
	daemons := []*process{d.launch(), d.launch()}
	paid := func() int { return d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`) }
	d.await("January is paid", func() bool { return paid() >= n })

	// 31 March: that of February was missed, that of March begins.
	d.set(time.Date(2026, 3, 31, 4, 0, 0, 0, time.UTC))
	d.await("February is paid", func() bool { return paid() >= 2*n })
	d.settled()
	for _, p := range daemons {
		d.tick(p)
	}
	if got := d.box.Summary("invoice").PaidPayments; got != 2*n {
		t.Errorf("%d payments on the first day, want %d: one charge a customer a day", got-n, n)
	}
	if got := d.number(`SELECT count(*) FROM singil.invoices`); got != 3*n {
		t.Errorf("%d invoices, want %d: every period that began", got, 3*n)
	}
	if wrong := d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid' AND period_no > 1`); wrong > 0 {
		t.Errorf("%d newer periods were charged before the older one", wrong)
	}
	d.set(time.Date(2026, 4, 1, 4, 0, 0, 0, time.UTC))
	d.await("March is paid", func() bool { return paid() >= 3*n })
	d.allPaidOnce(3 * n)
	for _, p := range daemons {
		p.stop()
	}
	days := d.number(`SELECT count(*) FROM (SELECT 1 FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id
		GROUP BY i.customer_id, (a.armed_at AT TIME ZONE 'Asia/Manila')::date HAVING count(*) > 1) AS busy`)
	if days > 0 {
		t.Errorf("%d times a customer was charged twice on a day", days)
	}
}

func wrongConfiguration(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t)) // bound to dev
	const live, test = "sk_live_wrongPlaceForThisKey", "sk_test_wrongPlaceForThisKey"
	for _, tt := range []struct {
		name, want string
		env        []string
	}{
		{"DatabaseOfAnotherEnvironment", "dev", []string{"PAYMONGO_SECRET_KEY=" + test, "SINGIL_ENVIRONMENT=staging"}},
		{"LiveKeyInDev", "live keys belong in production", []string{"PAYMONGO_SECRET_KEY=" + live, "PAYMONGO_BASE_URL=" + payMongoURL}},
		{"LiveKeyOnATestDatabase", "livemode", []string{"PAYMONGO_SECRET_KEY=" + live, "PAYMONGO_BASE_URL=" + payMongoURL, "SINGIL_ENVIRONMENT=production"}},
		{"LiveKeyWithSandboxURL", "live keys go to " + payMongoURL, []string{"PAYMONGO_SECRET_KEY=" + live, "SINGIL_ENVIRONMENT=production"}},
		{"TestKeyInProduction", "live keys belong in production", []string{"PAYMONGO_SECRET_KEY=" + test, "SINGIL_ENVIRONMENT=production"}},
		{"UnknownEnvironment", "dev, staging or production", []string{"PAYMONGO_SECRET_KEY=" + test, "SINGIL_ENVIRONMENT=prod"}},
		{"UnknownSingilName", "SINGIL_LISTN is not a setting", []string{"PAYMONGO_SECRET_KEY=" + test, "SINGIL_LISTN=127.0.0.1:0"}},
	} {
		t.Run(tt.name, func(t *testing.T) { // not parallel: d is the parent's
			p := d.begin([]string{"run"}, tt.env...)
			if code := p.wait(); code != 7 {
				t.Errorf("exit code %d, want 7", code)
			}
			said := p.log.String()
			if !strings.Contains(said, tt.want) {
				t.Errorf("%q not in: %s", tt.want, said)
			}
			if strings.Contains(said, "wrongPlace") {
				t.Errorf("the key was printed: %s", said)
			}
		})
	}
	if sum := d.box.Counters(); sum.Requests > 0 {
		t.Errorf("%d requests were sent all the same", sum.Requests)
	}
}

// badDay is a torture without its faults and with daemons that are watched.
type badDay struct {
	*torture
	client *paymongo.Client
	plan   uuid.UUID
	made   int // subscriptions
}

func newBadDay(t *testing.T, binary, dsn string) *badDay {
	t.Helper()
	d := &badDay{torture: &torture{t: t, binary: binary, dsn: dsn, now: tortureStart}, plan: uuid.New()}
	var err error
	if d.pool, err = pgxpool.New(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	if d.box, err = sandbox.New(sandbox.Options{Seed: 1, Start: tortureStart, StopClock: true, Hang: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d.box)
	d.url = server.URL + "/v1"
	d.client, err = paymongo.NewClient("sk_test_baddays", paymongo.WithBaseURL(d.url), paymongo.WithRate(math.Inf(1), 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.client.CloseIdleConnections()
		if err := d.box.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
		d.pool.Close()
	})
	d.tx(func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		if err := billing.SetVirtualClock(t.Context(), tx, tortureStart); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
			VALUES ($1, 'pro', 49900, 'PHP', 'month', 1, $2, 'bill_all')`, d.plan, badDayPolicy)
		return err
	})
	return d
}

const badDayPolicy = `{"offsets_days":[1,3,5,7],"hour":9,"end":"mark_unpaid"}`

// subscribe makes n subscriptions with a card that pays, due at the start.
func (d *badDay) subscribe(n int) {
	d.t.Helper()
	for range n {
		d.made++
		d.card(d.subscription(fmt.Sprintf("s%02d", d.made)), d.method("4343434343434345"), 12, 2035)
	}
}

// subscription returns its customer, who has no card yet.
func (d *badDay) subscription(name string) uuid.UUID {
	d.t.Helper()
	customer := uuid.New()
	d.tx(func(tx pgx.Tx) error {
		if _, err := tx.Exec(d.t.Context(), `INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, customer, "customer of "+name); err != nil {
			return err
		}
		_, err := tx.Exec(d.t.Context(), `INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency,
				interval_unit, interval_count, anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
			VALUES ($1, $2, $3, $4, 'active', 49900, 'PHP', 'month', 1, $5, 'Asia/Manila', 0, $5, $5, $6, 'bill_all')`,
			uuid.New(), name, customer, d.plan, tortureStart, badDayPolicy)
		return err
	})
	return customer
}

func (d *badDay) card(customer uuid.UUID, provider string, month, year int) {
	d.t.Helper()
	d.tx(func(tx pgx.Tx) error {
		_, err := tx.Exec(d.t.Context(), `INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, exp_month, exp_year)
			VALUES ($1, $2, $3, 'visa', $4, $5)`, uuid.New(), customer, provider, month, year)
		return err
	})
}

func (d *badDay) method(number string) string {
	d.t.Helper()
	method, err := d.client.PaymentMethods.Create(d.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2035, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		d.t.Fatal(err)
	}
	return method.ID
}

// latency is how long the acquirer takes from now on, in real time.
func (d *badDay) latency(takes time.Duration) {
	d.t.Helper()
	profile := d.box.Profile()
	profile.AcquirerLatency = sandbox.Duration(takes)
	if err := d.box.SetProfile(profile); err != nil {
		d.t.Fatal(err)
	}
}

// atWork counts the attaches that the acquirer is being asked about.
func (d *badDay) atWork() (n int) {
	for _, intent := range d.box.Ledger().Intents {
		for _, attach := range intent.Attaches {
			if attach.Outcome == "at work" {
				n++
			}
		}
	}
	return n
}

// await fails the test when what should come by itself does not.
func (d *badDay) await(what string, done func() bool) {
	d.t.Helper()
	deadline := time.After(badDayPatience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			d.t.Fatalf("not within %s: %s; %s", badDayPatience, what, d.books())
		case <-tick.C:
		}
	}
}

const sqlBooks = `SELECT COALESCE(string_agg(line, ', '), '') FROM (
	SELECT count(*) || ' ' || status || ' for ' || waiting_for || ': ' || COALESCE(reason, '') AS line FROM singil.invoices GROUP BY status, waiting_for, reason) AS l`

// books is for whoever reads of a failure. The database may be what failed.
func (d *badDay) books() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var lines string
	if err := d.pool.QueryRow(ctx, sqlBooks).Scan(&lines); err != nil {
		return err.Error()
	}
	return lines
}

// settled waits until nothing that is due waits for a worker.
func (d *badDay) settled() {
	d.t.Helper()
	d.await("nothing is due", func() bool {
		return d.number(`SELECT (SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1)
			+ (SELECT count(*) FROM singil.invoices WHERE status = 'open' AND (next_attempt_at <= $1 OR claimed))`, d.now) == 0
	})
}

// tick gives a daemon the time to do what it should not: its timer asks every
// second. It is the one wait here that is for nothing to happen.
func (d *badDay) tick(p *process) {
	d.t.Helper()
	timer := time.NewTimer(1500 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ended:
		d.t.Fatalf("the daemon ended:\n%s", p.log)
	}
}

// finish moves the clock on until nothing is open: as long as leases and the
// reconcile ladder take.
func (d *badDay) finish() {
	d.t.Helper()
	deadline := time.Now().Add(badDayPatience)
	end := tortureStart.AddDate(0, 0, 20) // before the next period
	for {
		d.quiet(3 * time.Second) // what a killed daemon has claimed waits for its lease
		open := d.number(`SELECT (SELECT count(*) FROM singil.invoices WHERE status = 'open') + (SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1)`, d.now)
		if open == 0 {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%d are still open: %s", open, d.books())
		}
		d.set(d.next(end))
	}
}

// allPaidOnce compares the books with the ledger.
func (d *badDay) allPaidOnce(n int) {
	d.t.Helper()
	sum := d.box.Summary("invoice")
	if len(sum.PaidMoreThanOnce) > 0 || len(sum.IntentsPaidMoreThanOnce) > 0 {
		d.t.Errorf("CHARGED TWICE: %v %v", sum.PaidMoreThanOnce, sum.IntentsPaidMoreThanOnce)
	}
	if sum.PaidPayments != n || sum.PaidWithoutKey > 0 {
		d.t.Errorf("%d payments (%d without an invoice), want %d", sum.PaidPayments, sum.PaidWithoutKey, n)
	}
	rows, err := d.pool.Query(context.Background(), `SELECT id::text FROM singil.invoices WHERE status = 'paid' ORDER BY id`)
	if err != nil {
		d.t.Fatal(err)
	}
	paid, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Fatal(err)
	}
	if len(paid) != n || slices.ContainsFunc(paid, func(id string) bool { return sum.PaidByValue[id] != 1 }) {
		d.t.Errorf("the books have %d paid, want the %d of the ledger; %s", len(paid), n, d.books())
	}
	if all := d.number(`SELECT count(*) FROM singil.invoices`); all != n {
		d.t.Errorf("%d invoices, want %d: %s", all, n, d.books())
	}
	if open := d.number(`SELECT count(*) FROM singil.attempts WHERE state IN ('armed', 'review', 'needs_action')`); open > 0 {
		d.t.Errorf("%d outcomes are still unknown", open)
	}
}

// singil runs a command that ends.
func (d *badDay) singil(args ...string) (code int, said string) {
	d.t.Helper()
	p := d.begin(args)
	return p.wait(), p.log.String()
}

// process is a singil that runs, and what it says.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   *lockedBuffer
	url   string
	ended chan struct{}
}

// launch starts a daemon and returns when it listens.
func (d *badDay) launch(env ...string) *process {
	d.t.Helper()
	p := d.begin([]string{"run"}, env...)
	listens := regexp.MustCompile(`"msg":"running","listen":"([^"]+)"`)
	d.await("the daemon listens", func() bool {
		select {
		case <-p.ended:
			d.t.Fatalf("the daemon ended:\n%s", p.log)
		default:
		}
		found := listens.FindStringSubmatch(p.log.String())
		if found != nil {
			p.url = "http://" + found[1]
		}
		return found != nil
	})
	return p
}

func (d *badDay) begin(args []string, env ...string) *process {
	d.t.Helper()
	p := &process{t: d.t, cmd: exec.Command(d.binary, args...), log: &lockedBuffer{}, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(),
		"DATABASE_URL="+d.dsn, "PAYMONGO_SECRET_KEY=sk_test_baddays", "PAYMONGO_BASE_URL="+d.url, "PAYMONGO_RATE=5000", "SINGIL_LISTEN=127.0.0.1:0")
	p.cmd.Env = append(p.cmd.Env, env...) // the last of a name counts
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // its state tells
		close(p.ended)
	}()
	d.t.Cleanup(func() {
		p.kill()
		if d.t.Failed() && testing.Verbose() {
			d.t.Logf("singil %s said:\n%s", strings.Join(args, " "), p.log)
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// wait is for one that is to end by itself.
func (p *process) wait() (code int) {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(badDayPatience):
		p.kill()
		p.t.Fatalf("it does not end:\n%s", p.log)
		return -1
	}
}

// stop is a shutdown in order, of a daemon that has to be alive until then.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Errorf("it was not running any more: %v\n%s", err, p.log)
		return
	}
	if code := p.wait(); code != 0 {
		p.t.Errorf("exit code %d:\n%s", code, p.log)
	}
}

func (p *process) ready() int { return p.get("/readyz") }

// get returns 0 when there is no answer.
func (p *process) get(path string) int {
	p.t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(p.url + path)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// lockedBuffer is written by a process and read by a test.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
