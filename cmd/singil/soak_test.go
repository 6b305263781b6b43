//go:build unix

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/devpg"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

var (
	soakLength        = flag.Duration("soak", 0, "how long TestSoak runs, such as 30m; 0 leaves it out")
	soakSeed          = flag.Uint64("soak-seed", 20260131, "seed of what the soak and its sandbox choose")
	soakSubscriptions = flag.Int("soak-subscriptions", 12000, "subscriptions of TestSoak")
	soakReport        = flag.String("soak-report", "", "file that TestSoak writes its report to, as markdown")
)

// TestSoak runs three daemons for as long as it is told, while everything around
// them fails all the time, and compares PayMongo's ledger with the books every
// minute and at the end.
//
//	make torture DURATION=30m
//
// What it chooses comes from -soak-seed. Real time is not repeatable: the same seed
// gives the same sort of run, not the same run.
func TestSoak(t *testing.T) {
	if *soakLength <= 0 {
		t.Skip("takes -soak DURATION; TestShortSoak is the same for some seconds")
	}
	newSoak(t, *soakLength, *soakSubscriptions).run(*soakReport)
}

// TestShortSoak keeps the soak from rotting.
func TestShortSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	t.Parallel()
	newSoak(t, 12*time.Second, 150).run("")
}

const (
	soakDaemons = 3
	soakPolicy  = `{"offsets_days":[1,3,5,7],"hour":9,"end":"mark_unpaid"}`
	soakKey     = "sk_test_soak"
)

// soak is three daemons, their database and their PayMongo, and what happens to them.
type soak struct {
	t             *testing.T
	length        time.Duration
	subscriptions int
	binary        string
	began         time.Time

	server  *devpg.Server
	pool    *pgxpool.Pool // not through a proxy
	box     *sandbox.Sandbox
	faults  *faultCounter
	front   *webhookFront
	daemons []*soakDaemon

	// Of the one goroutine that lets the time pass and checks.
	line      *time.Ticker // for whoever watches
	recovered time.Time    // the virtual time when nothing went wrong any more
	inTime    int          // attaches executed until then
	checks    int
	last      checked

	mu       sync.Mutex
	now      time.Time // the virtual clock
	happened map[string]int
	usages   []usage // of the daemon that is never ended
}

func newSoak(t *testing.T, length time.Duration, subscriptions int) *soak {
	t.Helper()
	s := &soak{
		t: t, length: length, subscriptions: subscriptions, now: tortureStart, happened: map[string]int{}, faults: &faultCounter{},
		binary: filepath.Join(t.TempDir(), "singil"),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d. Once more, the same sort of run (real time does not repeat itself):\n\tgo test ./cmd/singil -run '^TestSoak$' -count=1 -timeout 3h -v -soak %s -soak-seed %d -soak-subscriptions %d",
				*soakSeed, length, *soakSeed, subscriptions)
		}
	})
	if out, err := exec.Command("go", "build", "-o", s.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	s.startDatabase()
	s.startPayMongo()
	s.prepare()
	return s
}

func (s *soak) startDatabase() {
	t := s.t
	// Durable, and so with fsync: what was committed survives SIGKILL.
	var err error
	if s.server, err = devpg.Start(t.Context(), devpg.Options{Durable: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := migrations.Up(t.Context(), s.server.DSN(""), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	config, err := pgxpool.ParseConfig(s.server.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	// A daemon that is stopped in a transaction holds its locks.
	config.ConnConfig.RuntimeParams["lock_timeout"] = "2s"
	config.ConnConfig.RuntimeParams["application_name"] = "soak"
	if s.pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.Close)
}

// startPayMongo starts the sandbox, with the webhooks' front.
func (s *soak) startPayMongo() {
	t := s.t
	profile := sandbox.DefaultProfile()
	// Whoever looks after the account would enable the endpoint again: with a
	// database that is killed twice a minute it would be disabled all the time.
	profile.DisableWebhookAfter = 1_000_000
	var err error
	s.box, err = sandbox.New(sandbox.Options{
		Profile: &profile, Seed: *soakSeed, Start: tortureStart, StopClock: true, Hang: 20 * time.Millisecond,
		WebhookTimeout: 5 * time.Second, WebhookWorkers: 16, Logger: slog.New(s.faults),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.box.Close(); err != nil {
			t.Error(err)
		}
	})
	s.front = newWebhookFront(t, s.alive)
}

// prepare fills the database and gets the daemons ready to start.
func (s *soak) prepare() {
	t := s.t
	url := callFront(t, s.box, func(string) {})
	client, err := paymongo.NewClient(soakKey, paymongo.WithBaseURL(url), paymongo.WithRate(math.Inf(1), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	secret := s.front.subscribe(t, client)
	if err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		if err := billing.Bind(t.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		return billing.SetVirtualClock(t.Context(), tx, tortureStart)
	}); err != nil {
		t.Fatal(err)
	}
	s.subscribe(client)
	for i := range soakDaemons {
		d := &soakDaemon{s: s, no: i}
		dice := s.dice(fmt.Sprint("network of daemon ", i))
		d.proxy = newPGProxy(t, addressOf(t, s.server.DSN("")), func(arms bool) commitFate { return s.commitFate(dice, arms) },
			func() { s.stop(dice, d, stopsCommit) })
		calls := callFront(t, s.box, func(operation string) { s.stopAtCall(dice, d, operation) })
		d.env = []string{
			"DATABASE_URL=" + throughProxy(t, s.server.DSN(""), d.proxy), "PAYMONGO_SECRET_KEY=" + soakKey, "PAYMONGO_BASE_URL=" + calls,
			"PAYMONGO_RATE=5000", "PAYMONGO_WEBHOOK_SECRET=" + secret, "SINGIL_LISTEN=127.0.0.1:0",
			"SINGIL_WATCH=false", // one call in five gone wrong is what it stops at
		}
		s.daemons = append(s.daemons, d)
	}
	faults := soakFaults()
	if missing := missingKinds(faults); len(missing) > 0 {
		t.Errorf("the sandbox can do more than the soak asks it to: %v", missing)
	}
	for _, f := range faults {
		if _, err := s.box.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
}

// soakFaults is every kind that the sandbox has, together at about one call in five.
func soakFaults() []sandbox.Fault {
	var faults []sandbox.Fault
	add := func(share float64, kinds ...sandbox.FaultKind) {
		for _, kind := range kinds {
			faults = append(faults, sandbox.Fault{Kind: kind, Probability: share, Endpoint: "payment_intents.*"})
		}
	}
	add(0.026, sandbox.TimeoutBefore, sandbox.TimeoutAfter, sandbox.ErrorBefore, sandbox.ErrorAfter, sandbox.ResetBefore, sandbox.ResetAfter)
	add(0.015, sandbox.CutBody, sandbox.HTMLBody, sandbox.WrongContentType)
	// A 429 holds every daemon back for a second and more, in real time.
	add(0.0001, sandbox.RateLimitBefore, sandbox.RateLimitAfter)
	// These stop everything, or one invoice for good, on purpose: the operator
	// closes the breaker, and what is in review stays there.
	add(0.0001, sandbox.Unauthorized, sandbox.WrongAmount, sandbox.WrongLivemode)
	faults = append(faults,
		sandbox.Fault{Kind: sandbox.Delay, Probability: 0.01, For: sandbox.Duration(100 * time.Millisecond), Endpoint: "payment_intents.*"},
		sandbox.Fault{Kind: sandbox.LateAttach, Probability: 0.02, For: sandbox.Duration(10 * time.Minute)},
		sandbox.Fault{Kind: sandbox.Processing, Probability: 0.02, For: sandbox.Duration(3 * time.Hour)},
		sandbox.Fault{Kind: sandbox.Stale, Probability: 0.02, For: sandbox.Duration(5 * time.Minute)},
		sandbox.Fault{Kind: sandbox.ExpireIntent, Probability: 0.01},
		sandbox.Fault{Kind: sandbox.ThreeDS, Probability: 0.005},
		sandbox.Fault{Kind: sandbox.Decline, Probability: 0.04, Codes: map[string]int{"do_not_honor": 60, "issuer_not_available": 20, "lost_card": 1}},
		sandbox.Fault{Kind: sandbox.WebhookForged, Probability: 0.01},
	)
	return append(faults, webhookFaults(0.08)...)
}

// subscribe makes the subscriptions: most are daily, most cards pay.
func (s *soak) subscribe(client *paymongo.Client) {
	t := s.t
	cards := []string{"5100000000000198", "4343434343434345", "5555444444444457"} // the first has no funds, ever
	plans := map[string]uuid.UUID{"day": uuid.New(), "week": uuid.New(), "month": uuid.New()}
	batch := &pgx.Batch{}
	for unit, id := range plans {
		batch.Queue(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
			VALUES ($1, $2, 49900, 'PHP', $2, 1, $3, 'bill_all')`, id, unit, soakPolicy)
	}
	for i := range s.subscriptions {
		unit := "day"
		switch i % 20 {
		case 0, 1:
			unit = "month"
		case 2, 3, 4:
			unit = "week"
		}
		number := cards[1+i%2]
		if i%50 == 7 {
			number = cards[0]
		}
		method, err := client.PaymentMethods.Create(t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
			Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2035, CVC: paymongo.NewSecret("123"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		// A crowd a day, and some that come later.
		anchor := tortureStart
		if i%5 == 4 {
			anchor = anchor.Add(10 * time.Hour)
		}
		customer := uuid.New()
		batch.Queue(`INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, customer, fmt.Sprint("u", i))
		batch.Queue(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand) VALUES ($1, $2, $3, 'visa')`, uuid.New(), customer, method.ID)
		batch.Queue(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
				anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
			VALUES ($1, $2, $3, $4, 'active', 49900, 'PHP', $5, 1, $6, 'Asia/Manila', 0, $6, $6, $7, 'bill_all')`,
			uuid.New(), fmt.Sprint("s", i), customer, plans[unit], unit, anchor, soakPolicy)
	}
	if err := s.pool.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Fatal(err)
	}
}

// run is the whole soak.
func (s *soak) run(report string) {
	t := s.t
	s.began, s.line = time.Now(), time.NewTicker(10*time.Second)
	defer s.line.Stop()
	s.printf("soak for %s, seed %d, %d subscriptions, %d daemons", s.length, *soakSeed, s.subscriptions, soakDaemons)
	alive, end := context.WithCancel(context.WithoutCancel(t.Context()))
	var keepers sync.WaitGroup
	for _, d := range s.daemons {
		keepers.Go(func() { d.keep(alive) })
	}
	defer keepers.Wait()
	defer end()

	chaos, calm := context.WithDeadline(alive, s.began.Add(s.length))
	var troubles sync.WaitGroup
	s.trouble(chaos, &troubles)
	s.pass(chaos)
	calm()
	troubles.Wait()
	s.inTime = s.box.Summary("invoice").AttachesExecuted
	s.calmDown()
	s.settle(alive)
	s.check(true)
	s.judgeUsage()
	text := s.report()
	s.printf("\n%s", text)
	if report != "" {
		if err := errors.Join(os.MkdirAll(filepath.Dir(report), 0o755), os.WriteFile(report, []byte(text), 0o644)); err != nil {
			t.Error(err)
		}
	}
}

// pass lets the time pass until ctx is done.
func (s *soak) pass(ctx context.Context) {
	minute := time.NewTicker(min(time.Minute, s.length/3))
	defer minute.Stop()
	for ctx.Err() == nil {
		quiet := s.quiet(ctx, 20*time.Second)
		if to, ok := s.next(ctx, quiet); ok {
			s.set(ctx, to)
		}
		select {
		case <-minute.C:
			s.check(false)
		default:
		}
	}
}

// settle lets the reconcile ladder and the dunning come to their ends, with
// nothing more going wrong and nothing new falling due.
func (s *soak) settle(ctx context.Context) {
	s.recovered = s.clock()
	s.box.ClearFaults()
	s.set(ctx, s.recovered) // the end of the time may have come between the two clocks
	s.do(ctx, "resume what is paused", s.resumeAll)
	deadline := time.Now().Add(time.Minute + s.length/4)
	for !s.quiet(ctx, 10*time.Second) && time.Now().Before(deadline) {
		s.set(ctx, s.clock().Add(billing.Lease+time.Minute))
	}
	s.checkPeriods()
	s.do(ctx, "let nothing fall due", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE singil.subscriptions SET next_due_at = '2200-01-01' WHERE next_due_at IS NOT NULL`)
		return err
	})
	for time.Now().Before(deadline) {
		quiet := s.quiet(ctx, 10*time.Second)
		open := s.number(ctx, `SELECT (SELECT count(*) FROM singil.invoices WHERE status = 'open') + (SELECT count(*) FROM singil.webhook_events WHERE processed_at IS NULL)`)
		drain, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := s.box.Drain(drain); err != nil {
			s.errorf("deliveries do not end: %v", err)
		}
		cancel()
		if open == 0 {
			return
		}
		if to, ok := s.next(ctx, quiet); ok {
			s.set(ctx, to)
		}
	}
	s.errorf("not everything was settled in time")
}

// Nothing waits for a worker when the first is zero. Open invoices of a paused
// subscription are looked at and left alone, again and again. The second is what
// waits in the queue for its turn.
const sqlSoakWaiting = `
SELECT (SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1)
     + (SELECT count(*) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
        WHERE i.status = 'open' AND (i.next_attempt_at <= $1 OR i.claimed) AND s.status <> 'paused'),
       (SELECT count(*) FROM river.river_job WHERE state = 'available' AND queue = 'charge'),
       COALESCE((SELECT blocked_until > clock_timestamp() FROM singil.provider_state), false)`

const (
	// stuck is how long nothing may move, and trickling how long what is left of an
	// empty queue may take, until the clock moves on.
	stuck, trickling = 500 * time.Millisecond, 1500 * time.Millisecond
)

// quiet waits until nothing that is due waits for a worker. It gives up when
// nothing moves any more and the queue is empty: what a killed daemon had claimed is
// found again when its lease is over, and that takes the clock. It waits for a
// crowd, whose leases would end before its turn; and while PayMongo holds us back,
// for then an attach may be about to be sent.
func (s *soak) quiet(ctx context.Context, patience time.Duration) bool {
	tick := time.NewTicker(80 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	last, moved, busy := int64(-1), began, began
	for ctx.Err() == nil {
		var waiting, queued int64
		var held bool
		err := s.pool.QueryRow(ctx, sqlSoakWaiting, s.clock()).Scan(&waiting, &queued, &held)
		now := time.Now()
		switch {
		case err != nil: // the database is away, and so is everything else
			began, moved, busy = now, now, now
		case waiting == 0 && !held:
			return true
		case held || queued > 0:
			moved, busy = now, now
		case waiting != last:
			last, moved = waiting, now
		}
		if now.Sub(moved) > stuck || now.Sub(busy) > trickling || now.Sub(began) > patience {
			return false
		}
		select {
		case <-tick.C:
		case <-s.line.C:
			s.progress()
		case <-ctx.Done():
		}
	}
	return false
}

// next is where the clock goes: to the next wake-up of anything, by small steps
// while the last crowd is being dealt with; past a lease if something is stuck;
// and not too far past a daemon that is stopped.
func (s *soak) next(ctx context.Context, quiet bool) (time.Time, bool) {
	now := s.clock()
	to := now.Add(billing.Lease + time.Minute)
	if quiet {
		var wake, crowd *time.Time
		if err := s.pool.QueryRow(ctx, `
			SELECT least((SELECT min(next_due_at) FROM singil.subscriptions),
			             (SELECT min(i.next_attempt_at) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
			              WHERE i.status = 'open' AND s.status <> 'paused'),
			             (SELECT min(next_try_at) FROM singil.webhook_events WHERE processed_at IS NULL)),
			       (SELECT max(due_at) FROM singil.invoices)`).Scan(&wake, &crowd); err != nil {
			return now, false
		}
		if crowd == nil || now.Sub(*crowd) > 30*time.Minute {
			to = now.Add(time.Hour)
		}
		if wake != nil && wake.After(to) {
			to = *wake
		}
	}
	if to.Sub(now) > 12*time.Hour {
		to = now.Add(12 * time.Hour)
	}
	for _, d := range s.daemons {
		if limit, limited := d.notAfter(); limited && to.After(limit) {
			to = limit
		}
	}
	return to, to.After(now)
}

// set moves both clocks, as soon as the database lets it.
func (s *soak) set(ctx context.Context, to time.Time) {
	s.mu.Lock()
	s.now = to
	s.mu.Unlock()
	s.box.Clock().Set(to)
	s.do(ctx, "move the clock", func(ctx context.Context, tx pgx.Tx) error { return billing.SetVirtualClock(ctx, tx, to) })
}

func (s *soak) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// do runs a transaction until it is committed, or ctx is done. It may have been
// committed before: what it does must not mind.
func (s *soak) do(ctx context.Context, what string, act func(context.Context, pgx.Tx) error) {
	deadline := time.Now().Add(time.Minute)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for ctx.Err() == nil {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return act(ctx, tx) })
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.errorf("%s: %v", what, err)
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// number asks when the database is there to stay.
func (s *soak) number(ctx context.Context, sql string, args ...any) (n int) {
	if err := s.pool.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		s.errorf("%s: %v", sql, err)
	}
	return n
}

// alive are the daemons that take webhooks.
func (s *soak) alive() (urls []string) {
	for _, d := range s.daemons {
		if url := d.url(); url != "" {
			urls = append(urls, url)
		}
	}
	return urls
}

func (s *soak) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.happened[what]++
}

func (s *soak) counted(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.happened[what]
}

// errorf fails the soak, which goes on: what else is wrong is worth knowing.
func (s *soak) errorf(format string, args ...any) {
	s.t.Errorf("%s after %s, %s: "+format, append([]any{s.t.Name(), time.Since(s.began).Round(time.Second), s.clock().Format(time.DateOnly)}, args...)...)
}

// printf writes a line, at once where -v asks for it.
func (s *soak) printf(format string, args ...any) {
	fmt.Fprintf(s.t.Output(), format+"\n", args...)
}

// dice is chance, for one sort of trouble, from the seed.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (s *soak) dice(what string) *dice {
	h := fnv.New64a()
	_, _ = h.Write([]byte(what)) // a hash never fails
	return &dice{rng: rand.New(rand.NewPCG(*soakSeed, h.Sum64()))}
}

func (d *dice) chance(p float64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.Float64() < p
}

func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func (d *dice) between(least, most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return least + time.Duration(d.rng.Int64N(int64(most-least)))
}
