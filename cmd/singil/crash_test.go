package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
)

var (
	crashAll  = flag.Bool("crash-all", false, "run every cell of TestCrash, not the fifth of the day")
	crashOnly = flag.String("crash-cell", "", "run this cell of TestCrash alone")
	crashDay  = flag.String("crash-day", "", "run the fifth of this day, as 2026-11-23; empty: today's in UTC")
)

// crashRow is a point at which a process dies.
type crashRow struct {
	cp   string
	dies string // when, in words

	// Where it is made to: at a failpoint in the code, or, inside of an exchange
	// with the provider, by the front at the other end. cut does not kill: the
	// connection to the database is cut under a COMMIT that says this.
	point  string
	moment crashMoment
	cut    string

	// left is what is on record when it has died, as SQL that is true. $1 is the
	// intent whose attach it was. Checked with one daemon: another one goes on at once.
	left string
	// then checks the end, beside what every cell expects.
	then func(*crashWorld)

	prepare func(*crashWorld) // before the subscriptions
	only    []crashCard       // empty: all three
	create  bool              // the reply to create is spoilt too
	second  bool              // the reply to the second attach is spoilt, not that to the first
	async   bool              // the point may come a while after everything is settled
}

// crashRows is the map of the points. Every cell ends with each good card paid
// once, by the books and by the provider's ledger, no outcome open and no period
// lost: see check.
var crashRows = []crashRow{
	{
		cp: "CP01", dies: "after the selection of what is due, before its invoices", point: "cp01",
		left: `SELECT NOT EXISTS (SELECT FROM singil.invoices)`,
	},
	{
		cp: "CP02", dies: "before the COMMIT of invoices and cursor", point: "cp02",
		left: `SELECT NOT EXISTS (SELECT FROM singil.invoices) AND NOT EXISTS (SELECT FROM singil.subscriptions WHERE next_period_no > 0)`,
	},
	{
		cp: "CP03", dies: "behind the COMMIT of invoices and cursor", point: "cp03",
		left: `SELECT (SELECT count(*) FROM singil.invoices) = (SELECT count(*) FROM singil.subscriptions WHERE next_period_no = 1)
			AND EXISTS (SELECT FROM singil.invoices)`,
	},
	{
		cp: "CP03cut", dies: "not: the COMMIT of invoices and cursor is not acknowledged", cut: "INSERT INTO singil.invoices",
		left: `SELECT (SELECT count(*) FROM singil.invoices) = (SELECT count(*) FROM singil.subscriptions WHERE next_period_no = 1)`,
	},
	{
		cp: "CP04", dies: "between two subscriptions that are opened one by one", point: "cp04", prepare: poison, only: []crashCard{goodCard, laterCard, poisonCard, stolenCard},
		left: `SELECT count(*) FILTER (WHERE next_period_no > 0 OR parked_reason IS NOT NULL) BETWEEN 1 AND count(*) - 1 FROM singil.subscriptions`,
	},
	{
		cp: "CP05", dies: "with the River job running, the worker not begun", point: "cp05",
		left: `SELECT EXISTS (SELECT FROM river.river_job WHERE kind = 'charge' AND state = 'running') AND NOT EXISTS (SELECT FROM singil.attempts)`,
	},
	{
		cp: "CP06", dies: "with the lease taken and the jobs enqueued", point: "cp06",
		left: `SELECT (SELECT bool_and(claimed) FROM singil.invoices) AND NOT EXISTS (SELECT FROM singil.attempts)`,
	},
	{
		cp: "CP07", dies: "before the create is sent", point: "cp07", create: true,
		left: `SELECT bool_and(state = 'creating' AND provider_intent_id IS NULL) FROM singil.payment_intents`,
	},
	{
		cp: "CP08a", dies: "with the create delivered, not executed", moment: createDelivered, create: true,
		left: `SELECT EXISTS (SELECT FROM singil.payment_intents WHERE state = 'creating')`,
	},
	{
		cp: "CP08b", dies: "with the create executed, not answered", moment: createExecuted, create: true,
		left: `SELECT EXISTS (SELECT FROM singil.payment_intents WHERE state = 'creating')`,
	},
	{
		cp: "CP09", dies: "with the intent's id in memory alone", point: "cp09", create: true,
		left: `SELECT EXISTS (SELECT FROM singil.payment_intents WHERE state = 'creating' AND provider_intent_id IS NULL)`,
	},
	{
		cp: "CP10", dies: "before a look at an intent whose id is stored", point: "cp10",
		left: `SELECT EXISTS (SELECT FROM singil.payment_intents WHERE state = 'ready')`,
	},
	{
		cp: "CP11", dies: "after a look that shows it free for another attempt", point: "cp11",
		left: `SELECT EXISTS (SELECT FROM singil.payment_intents pi JOIN singil.attempts a ON a.payment_intent_id = pi.id
			WHERE pi.state = 'ready' AND a.state = 'declined')`,
	},
	{
		cp: "CP12", dies: "before the COMMIT of the arming", point: "cp12",
		left: `SELECT NOT EXISTS (SELECT FROM singil.attempts)`,
	},
	{
		cp: "CP13", dies: "behind the COMMIT of the arming", point: "cp13", then: someHadNoEffect,
		left: `SELECT EXISTS (SELECT FROM singil.attempts WHERE state = 'armed')`,
	},
	{
		cp: "CP13cut", dies: "not: the COMMIT of the arming is not acknowledged", cut: "INSERT INTO singil.attempts", then: someHadNoEffect,
		left: `SELECT EXISTS (SELECT FROM singil.attempts WHERE state = 'armed')`,
	},
	{
		cp: "CP14", dies: "armed, no byte of the attach written", point: "cp14", then: someHadNoEffect,
		left: `SELECT EXISTS (SELECT FROM singil.attempts WHERE state = 'armed')`,
	},
	{
		cp: "CP15", dies: "armed, some bytes written", moment: attachBegun, then: someHadNoEffect,
		left: sqlVictimArmed,
	},
	{
		cp: "CP16", dies: "with the attach delivered, executed after the next look", moment: attachDelivered, then: executedLate,
		left: sqlVictimArmed,
	},
	{
		cp: "CP17", dies: "with the attach executed, not answered", moment: attachExecuted,
		left: sqlVictimArmed,
	},
	{
		cp: "CP18", dies: "with the reply in memory", point: "cp18",
		left: `SELECT EXISTS (SELECT FROM singil.attempts WHERE state = 'armed')`,
	},
	{
		cp: "CP18b", dies: "before the COMMIT of the result", point: "cp18b",
		left: `SELECT EXISTS (SELECT FROM singil.attempts WHERE state = 'armed')`,
	},
	{
		cp: "CP19", dies: "behind the COMMIT of the result", point: "cp19",
		left: `SELECT EXISTS (SELECT FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id
			WHERE a.state <> 'armed' OR i.poll_count > 0)`,
	},
	{
		cp: "CP19cut", dies: "not: the COMMIT of the result is not acknowledged", cut: "UPDATE singil.attempts a",
		left: `SELECT EXISTS (SELECT FROM singil.attempts WHERE state <> 'armed')`,
	},
	{
		cp: "CP20", dies: "with the result committed, the River job not completed", point: "cp20",
		left: `SELECT EXISTS (SELECT FROM river.river_job j JOIN singil.invoices i ON i.id::text = j.args ->> 'invoice_id'
			WHERE j.kind = 'charge' AND j.state = 'running' AND NOT i.claimed)`,
	},
	{
		cp: "CP21", dies: "with a webhook received, not stored", point: "cp21", prepare: (*crashWorld).hook, async: true,
		left: `SELECT NOT EXISTS (SELECT FROM singil.webhook_events)`,
	},
	{
		cp: "CP22", dies: "with a webhook stored, not answered", point: "cp22", prepare: (*crashWorld).hook, async: true,
		left: `SELECT EXISTS (SELECT FROM singil.webhook_events)`,
	},
	{
		cp: "CP22b", dies: "with a webhook stored, not processed", point: "cp22b", prepare: (*crashWorld).hook, async: true,
		left: `SELECT EXISTS (SELECT FROM singil.webhook_events WHERE processed_at IS NULL)`,
	},
	{
		cp: "CP23", dies: "with a decline stored", point: "cp19", only: []crashCard{laterCard, stolenCard}, second: true,
		left: `SELECT EXISTS (SELECT FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id
			WHERE a.state = 'declined' AND i.status = 'open' AND i.next_attempt_at IS NOT NULL
			AND EXISTS (SELECT FROM singil.events e WHERE e.subscription_id = i.subscription_id AND e.type IN ('invoice.payment_failed', 'invoice.needs_action')))`,
	},
	{
		cp: "CP24", dies: "with an event delivered, not marked", point: "cp24", prepare: (*crashWorld).listenToEvents, then: deliveredAgain, async: true,
		left: `SELECT EXISTS (SELECT FROM singil.event_deliveries d JOIN singil.event_streams s USING (endpoint_id, stream) WHERE s.lease IS NOT NULL)`,
	},
	{
		cp: "CP25", dies: "with a payment found by reconciling, not stored", point: "cp25", only: []crashCard{slowCard},
		left: `SELECT EXISTS (SELECT FROM singil.attempts WHERE state = 'armed') AND NOT EXISTS (SELECT FROM singil.payments WHERE status = 'paid')`,
	},
	{
		cp: "CP26", dies: "by SIGKILL after SIGTERM, in the middle of an attach", moment: attachDraining,
		left: sqlVictimArmed,
	},
}

const sqlVictimArmed = `SELECT EXISTS (SELECT FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
	WHERE pi.provider_intent_id = $1 AND a.state = 'armed')`

// crashCondition is what the provider does beside.
type crashCondition struct {
	name   string
	spoils sandbox.FaultKind // the first reply to each subscription's attach; its effect stands
}

var crashConditions = []crashCondition{
	{name: "Fine"},
	{name: "ReplyLost", spoils: sandbox.ResetAfter},
	{name: "5xxAfterEffect", spoils: sandbox.ErrorAfter},
}

type crashCell struct {
	row       crashRow
	two       bool // another daemon lives on
	condition crashCondition
}

func (c crashCell) String() string {
	daemons := "OneDaemon"
	if c.two {
		daemons = "TwoDaemons"
	}
	return c.row.cp + "-" + daemons + "-" + c.condition.name
}

// crashShare of the cells is run a day.
const crashShare = 5

func chosenCells(t *testing.T) []crashCell {
	t.Helper()
	day := time.Now().UTC()
	if *crashDay != "" {
		var err error
		if day, err = time.Parse(time.DateOnly, *crashDay); err != nil {
			t.Fatalf("-crash-day: %v", err)
		}
	}
	turn := int(day.Unix()/(24*60*60)) % crashShare
	var cells []crashCell
	n := 0
	for _, row := range crashRows {
		for _, two := range []bool{false, true} {
			for _, condition := range crashConditions {
				cell := crashCell{row, two, condition}
				mine := n%crashShare == turn || *crashAll
				if *crashOnly != "" {
					mine = cell.String() == *crashOnly
				}
				if mine {
					cells = append(cells, cell)
				}
				n++
			}
		}
	}
	if len(cells) == 0 {
		t.Fatalf("-crash-cell: there is no cell %q", *crashOnly)
	}
	if *crashOnly == "" && !*crashAll {
		t.Logf("%d of %d cells; to repeat: go test ./cmd/singil -run Crash -crash-day %s", len(cells), n, day.Format(time.DateOnly))
	}
	return cells
}

// TestCrash kills the real binary with SIGKILL at each point of the way of a
// charge, with one daemon and with two, with a provider that is fine, whose reply
// is lost, and that answers 5xx after the effect. A day's run has a fifth of the
// cells.
//
//	make crash
//	go test ./cmd/singil -run Crash -crash-cell CP13-TwoDaemons-ReplyLost -v
func TestCrash(t *testing.T) { // not parallel: it has as many processes as are good for it
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	cells := chosenCells(t)
	binary := buildSingil(t, "-tags", "failpoint")
	queue := make(chan crashCell)
	var all sync.WaitGroup
	for range min(4, len(cells)) { // they wait most of their time
		all.Go(func() {
			for cell := range queue {
				t.Run(cell.String(), func(t *testing.T) { crash(t, binary, cell) })
			}
		})
	}
	for _, cell := range cells {
		queue <- cell
	}
	close(queue)
	all.Wait()
}

// TestReleaseHasNoFailpoints holds that what is shipped cannot be made to kill
// itself.
func TestReleaseHasNoFailpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary twice")
	}
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
		want  bool
	}{
		{"Release", nil, false},
		{"Tagged", []string{"-tags", "failpoint"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(buildSingil(t, tt.flags...))
			if err != nil {
				t.Fatal(err)
			}
			// What it would read, what it would say, and the names of its functions.
			for _, sign := range []string{"failpoint %s: SIGKILL", "FAILPOINT must look like", "internal/failpoint.Hit", "internal/failpoint.init"} {
				if got := bytes.Contains(content, []byte(sign)); got != tt.want {
					t.Errorf("%q is in the binary: %t, want %t", sign, got, tt.want)
				}
			}
		})
	}
}

func buildSingil(t *testing.T, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "singil")
	if out, err := exec.Command("go", slices.Concat([]string{"build", "-o", binary}, flags, []string{"."})...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// crash is one cell: everything falls due, the doomed daemon dies, what is left
// is finished by another.
func crash(t *testing.T, binary string, cell crashCell) {
	w := newCrashWorld(t, binary, cell)
	row := cell.row
	if row.prepare != nil {
		row.prepare(w)
	}
	w.subscribeAll("", crashStart)
	dsn := withSetting(t, w.dsn, "application_name", "doomed")
	if row.cut != "" {
		w.proxy = newCuttingProxy(t, dsn, row.cut)
		dsn = w.proxy.dsn
	}
	doomed, other := w.startBoth(dsn)
	w.provoke(doomed, other)
	w.checkDeath(doomed)
	if !cell.two {
		w.checkLeft()
	}
	if w.merchant != nil {
		w.endStreamLeases()
	}
	w.set(w.now.Add(10 * time.Minute)) // leases end
	if row.cut == "" && !cell.two {
		w.start("sk_test_successor", w.dsn)
	}
	w.finish()
	w.check()
	if row.then != nil {
		row.then(w)
	}
}

// startBoth returns when everything is due. With two daemons both are there by
// then; other is nil with one.
func (w *crashWorld) startBoth(dsn string) (doomed, other *crashDaemon) {
	w.t.Helper()
	if !w.cell.two {
		w.set(crashStart)
		return w.start(doomedKey, dsn, "FAILPOINT="+w.cell.row.point), nil
	}
	doomed = w.start(doomedKey, dsn, "FAILPOINT="+w.cell.row.point)
	other = w.start("sk_test_other", w.dsn)
	doomed.listens()
	other.listens()
	w.set(crashStart)
	return doomed, other
}

// provoke returns when the doomed daemon has come to its point. Where two share
// the work, the other one may have done all of it: then there is more, while it
// holds its breath.
func (w *crashWorld) provoke(doomed, other *crashDaemon) {
	w.t.Helper()
	reached := func() bool {
		if w.cell.row.cut != "" {
			return w.proxy.cut.Load()
		}
		return doomed.dead()
	}
	patience := 300 * time.Millisecond
	if w.cell.row.async {
		patience = 3 * time.Second // the outbox looks every second
	}
	const most = 10
	for round := range most {
		if round > 0 && other != nil {
			other.signal(syscall.SIGSTOP)
			if round%4 == 1 { // the rounds behind it bring looks and the second day
				w.subscribeAll(fmt.Sprint(round), w.now)
			}
		}
		if round > 0 {
			w.set(w.next())
		}
		w.settle(reached)
		w.await("", patience, reached)
		if round > 0 && other != nil {
			other.signal(syscall.SIGCONT)
		}
		if reached() {
			return
		}
	}
	w.t.Fatalf("the point was not reached in %d rounds: %s; %s", most, w.cell.row.dies, w.books())
}

// checkDeath returns when nothing of the dead one is under way any more.
func (w *crashWorld) checkDeath(doomed *crashDaemon) {
	w.t.Helper()
	row := w.cell.row
	if row.cut != "" {
		if doomed.dead() {
			w.t.Fatalf("the daemon ended with its connection:\n%s", &doomed.log)
		}
		return
	}
	switch {
	case !doomed.killed():
		w.t.Fatalf("the daemon ended by itself: %s\n%s", doomed.cmd.ProcessState, &doomed.log)
	case row.moment != "" && !w.front.fired.Load():
		w.t.Fatal("the daemon was killed by somebody else")
	case row.point != "" && !strings.Contains(doomed.log.String(), "failpoint "+row.point+": SIGKILL\n"):
		w.t.Fatalf("the daemon was killed elsewhere:\n%s", &doomed.log)
	}
	w.await("the database has heard of its end", crashPatience, func() bool {
		return w.number(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'doomed'`) == 0
	})
}

// checkLeft looks at what the dead one has left, before anybody goes on with it.
func (w *crashWorld) checkLeft() {
	w.t.Helper()
	var args []any
	if strings.Contains(w.cell.row.left, "$1") {
		args = append(args, *w.front.victim.Load())
	}
	var left bool
	if err := w.pool.QueryRow(context.Background(), w.cell.row.left, args...).Scan(&left); err != nil {
		w.t.Fatal(err)
	}
	if !left {
		w.t.Errorf("died %s, and what is left is not what that leaves: %s", w.cell.row.dies, w.books())
	}
}

// finish moves the clock on until everything has come to its end: leases, the
// reconcile ladder and one dunning attempt later.
func (w *crashWorld) finish() {
	w.t.Helper()
	for range 60 { // less than twenty take place
		w.settle(func() bool { return false })
		if w.open() == 0 {
			return
		}
		w.set(w.next())
	}
	w.t.Fatalf("%d are still open: %s", w.open(), w.books())
}

// check compares the books, the provider's ledger and what was expected.
func (w *crashWorld) check() {
	t := w.t
	t.Helper()
	sum := w.box.Summary("invoice")
	if len(sum.PaidMoreThanOnce) > 0 || len(sum.IntentsPaidMoreThanOnce) > 0 || sum.PaidWithoutKey > 0 {
		t.Errorf("CHARGED TWICE: %v %v, or for nobody: %d", sum.PaidMoreThanOnce, sum.IntentsPaidMoreThanOnce, sum.PaidWithoutKey)
	}
	want := 0
	for name, card := range w.cards {
		end := card.end()
		if end == endPaid {
			want++
		}
		if got := w.ended(name, sum.PaidByValue); got != end {
			t.Errorf("%s: %s, want %s; %s", name, got, end, w.books())
		}
	}
	if sum.PaidPayments != want {
		t.Errorf("%d payments for %d good cards", sum.PaidPayments, want)
	}
	if n := w.number(`SELECT count(*) FROM singil.attempts WHERE state IN ('armed', 'review', 'needs_action')`); n > 0 {
		t.Errorf("%d outcomes are open: %s", n, w.books())
	}
	if n := w.number(`SELECT count(*) FROM singil.invoices i WHERE i.status = 'paid' AND
			((SELECT count(*) FROM singil.events e WHERE e.type = 'invoice.paid' AND e.data ->> 'invoice_id' = i.id::text) <> 1
			OR (SELECT count(*) FROM singil.payments p WHERE p.invoice_id = i.id AND p.status = 'paid' AND p.payment_id = i.payment_id) <> 1)`); n > 0 {
		t.Errorf("%d paid invoices have not one event and one payment on record", n)
	}
	for _, intent := range w.box.Ledger().Intents {
		// No attach without an attempt of its own; none at all to an intent that is not on record.
		if attempts := w.number(`SELECT count(*) FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
				WHERE pi.provider_intent_id = $1`, intent.ID); len(intent.Attaches) > attempts {
			t.Errorf("intent %s was attached to %d times for %d attempts", intent.ID, len(intent.Attaches), attempts)
		}
	}
	if w.hooked {
		if n := w.number(`SELECT count(*) FROM singil.payments p WHERE p.status = 'paid' AND NOT EXISTS (
				SELECT FROM singil.webhook_events e WHERE e.resource_id = p.payment_id AND e.result = 'applied')`); n > 0 {
			t.Errorf("the webhooks of %d payments are lost", n)
		}
	}
}

// ended tells how a subscription's only period has ended.
func (w *crashWorld) ended(name string, paid map[string]int) string {
	w.t.Helper()
	var parked bool
	var periods int
	var invoice, status, waiting string
	if err := w.pool.QueryRow(context.Background(), `SELECT s.parked_reason IS NOT NULL, count(i.id), COALESCE(min(i.id::text), ''), COALESCE(min(i.status), ''), COALESCE(min(i.waiting_for), '')
		FROM singil.subscriptions s LEFT JOIN singil.invoices i ON i.subscription_id = s.id WHERE s.external_id = $1 GROUP BY s.id`, name).
		Scan(&parked, &periods, &invoice, &status, &waiting); err != nil {
		w.t.Fatal(err)
	}
	switch {
	case parked && periods == 0:
		return endParked
	case periods != 1:
		return fmt.Sprintf("LOST, or opened again: %d invoices for one period", periods)
	case status == billing.InvoicePaid && paid[invoice] == 1:
		return endPaid
	case status == billing.InvoiceOpen && waiting == string(billing.WaitingForCustomer) && paid[invoice] == 0:
		return endCustomer
	}
	return fmt.Sprintf("%s for %s, with %d payments", status, waiting, paid[invoice])
}

// poison makes the database refuse an invoice to some, on account of which a batch
// is opened one by one.
func poison(w *crashWorld) {
	w.t.Helper()
	w.tx(func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), `CREATE FUNCTION singil.poison() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				IF EXISTS (SELECT FROM singil.subscriptions s WHERE s.id = NEW.subscription_id AND s.external_id LIKE 'poison%') THEN
					RAISE EXCEPTION 'poison' USING ERRCODE = '22000';
				END IF;
				RETURN NEW;
			END $$;
			CREATE TRIGGER poison BEFORE INSERT ON singil.invoices FOR EACH ROW EXECUTE FUNCTION singil.poison()`)
		return err
	})
}

// endStreamLeases lets the minute pass for which the dead one holds its streams.
// Endpoints live in real time.
func (w *crashWorld) endStreamLeases() {
	w.t.Helper()
	w.tx(func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), `UPDATE singil.event_streams SET next_try_at = clock_timestamp() WHERE lease IS NOT NULL`)
		return err
	})
}

// deliveredAgain: every event came, what was not marked came twice and the same,
// nothing came more often.
func deliveredAgain(w *crashWorld) {
	t := w.t
	t.Helper()
	w.merchant.mu.Lock()
	defer w.merchant.mu.Unlock()
	if events := w.number(`SELECT count(*) FROM singil.events`); events != len(w.merchant.bodies) {
		t.Errorf("%d of %d events were delivered", len(w.merchant.bodies), events)
	}
	twice := 0
	for id, bodies := range w.merchant.bodies {
		switch {
		case len(bodies) > 2, len(bodies) == 2 && bodies[0] != bodies[1]:
			t.Errorf("event %s came %d times: %v", id, len(bodies), bodies)
		case len(bodies) == 2:
			twice++
		}
	}
	if twice == 0 {
		t.Error("no event came twice: the daemon did not die between delivery and mark")
	}
}

// executedLate: the first look showed nothing, which proved nothing, and nothing
// was attached again.
func executedLate(w *crashWorld) {
	w.t.Helper()
	again := w.number(`SELECT count(*) FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
		WHERE pi.provider_intent_id = $1 AND a.state = 'no_effect'`, *w.front.victim.Load())
	if !w.front.late.Load() || again > 0 {
		w.t.Errorf("executed late: %t, given up before: %d; %s", w.front.late.Load(), again, w.books())
	}
}

// someHadNoEffect: what was armed and not sent is on record as an attempt that
// moved nothing.
func someHadNoEffect(w *crashWorld) {
	w.t.Helper()
	if w.number(`SELECT count(*) FROM singil.attempts WHERE state = 'no_effect'`) == 0 {
		w.t.Errorf("no attempt was found to have had no effect: %s", w.books())
	}
}
