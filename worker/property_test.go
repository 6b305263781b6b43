package worker_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// init runs before the flags are parsed: -rapid.checks says otherwise. Both halves
// of TestPropertyNeverTwiceNeverLost run so many sequences, 500 together.
func init() {
	if os.Getenv("RAPID_CHECKS") == "" {
		if err := flag.Set("rapid.checks", "250"); err != nil {
			panic(err)
		}
	}
}

// TestPropertyNeverTwiceNeverLost runs random sequences of what happens to a
// billing worker, good and bad, against a real database and a provider over HTTP.
// After every action the two promises and the books are checked; at the end of a
// sequence time passes, and then nothing may be unknown, lost or doubled.
//
// A failure prints its sequence. OneAfterTheOther repeats it under the seed that is
// printed, and shortens it. What AtOnce finds may need several runs.
func TestPropertyNeverTwiceNeverLost(t *testing.T) {
	t.Parallel()
	t.Run("OneAfterTheOther", func(t *testing.T) {
		t.Parallel()
		sequences(t, false)
	})
	t.Run("AtOnce", func(t *testing.T) {
		t.Parallel()
		sequences(t, true)
	})
}

func sequences(t *testing.T, parallel bool) {
	ground := newGround(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := ground.newWorld(rapid.SampledFrom([]string{"off", "replay", "replay_failures"}).Draw(rt, "idempotency"))
		defer w.close()
		w.populate(rt)
		actions := w.actions()
		if parallel {
			actions["TwoTicks"], actions["ChargeTwice"] = w.twoTicks, w.chargeTwice
		}
		for name, do := range actions {
			actions[name] = func(rt *rapid.T) {
				do(rt)
				w.trace = append(w.trace, name)
			}
		}
		actions[""] = func(rt *rapid.T) {
			w.check()
			w.report(rt)
		}
		rt.Repeat(actions)
		w.settleDown()
		w.trace = append(w.trace, "settle down")
		w.checkEnd()
		w.report(rt)
	})
	t.Logf("all sequences together: %v", ground.tally)
}

func (w *world) report(rt *rapid.T) {
	problems := w.failures()
	if problems == "" {
		return
	}
	if !w.failed {
		// The first failure as it was: what goroutines do at once may never come back.
		w.failed = true
		w.t.Logf("%s\n%s", strings.Join(w.trace, "; "), problems)
	}
	rt.Log(problems)
	rt.Fatal("the books or a promise are broken") // always the same words: ids differ from run to run
}

// populate makes one or two subscriptions with all sorts of cards.
func (w *world) populate(rt *rapid.T) {
	catchUp := rapid.SampledFrom([]billing.CatchUp{billing.CatchUpBillAll, billing.CatchUpBillCurrent}).Draw(rt, "catch up")
	end := rapid.SampledFrom([]billing.EndAction{billing.EndActionCancel, billing.EndActionMarkUnpaid, billing.EndActionLeavePastDue}).Draw(rt, "end")
	w.plan(12900, billing.IntervalUnitWeek, 1, catchUp, end)
	w.plan(49900, billing.IntervalUnitMonth, 1, catchUp, end)
	w.plan(79900, billing.IntervalUnitMonth, 1, catchUp, end)
	for range rapid.IntRange(1, 2).Draw(rt, "subscriptions") {
		plan := w.aPlan(rt)
		trial := time.Time{}
		if rapid.IntRange(0, 4).Draw(rt, "trial") == 4 {
			trial = noon.AddDate(0, 0, 20)
		}
		numbers := rapid.SliceOfN(rapid.SampledFrom(cardNumbers), 1, 2).Draw(rt, "cards")
		w.subscribe(plan, end, trial, numbers...)
	}
}

func (w *world) aPlan(rt *rapid.T) terms {
	return w.plans[rapid.IntRange(0, len(w.plans)-1).Draw(rt, "plan")]
}

var cardNumbers = []string{
	"4343434343434345", "5555444444444457", "4571736000000075", // pay
	"4400000000000016", // generic_decline
	"5100000000000198", // insufficient_funds
	"5400000000000195", // stolen_card
	"4120000000000007", // 3-D Secure
}

// actions are what may happen. Some have several names: they happen more often.
func (w *world) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){
		"Charge":  w.chargeOne,
		"Webhook": w.webhook, "Customer": w.customer, "Page": w.page, "Page again": w.page, "Refund": w.refund,
		"Checkout": w.checkout, "Checkout again": w.checkout, "HostedPage": w.hostedPage,
		"Cancel": w.cancel, "Pause": w.pause, "Resume": w.resume, "ReplaceCard": w.replaceCard, "PlanChange": w.planChange,
		"OperatorRetry": w.operatorRetry, "BulkRetry": w.bulkRetry, "ClockForward": w.clockForward, "ClockBack": w.clockBack,
		"Freeze": w.freeze, "Unfreeze": w.liftFreeze, "CloseBreaker": w.mendBreaker, "Budget": w.budget,
	}
	for name, do := range map[string]func(*rapid.T){
		"Tick": w.tick, "Step": w.step, "NextPeriod": w.nextPeriod, "Race": w.race, "Crash": w.crash, "LoseReply": w.loseReply, "Outcome": w.outcome,
	} {
		for _, again := range []string{"", " again", " once more"} {
			actions[name+again] = do
		}
	}
	return actions
}

func (w *world) worker(rt *rapid.T) *worker.Collector {
	return w.workers[rapid.IntRange(0, 1).Draw(rt, "worker")]
}

// tick sweeps and runs what is in the queue: in any order, some of it twice, some
// of it not at all.
func (w *world) tick(rt *rapid.T) {
	w.sweep(context.Background(), w.worker(rt))
	for _, j := range w.dispatch(rt) {
		w.trouble(j.kind, j.run(context.Background(), w, w.workers[0]))
	}
	w.drain()
}

// step ticks at the next time at which there is something to do.
func (w *world) step(rt *rapid.T) {
	w.forward(rt, w.nextWake().Sub(w.now))
	w.tick(rt)
}

// nextPeriod ticks when the next period begins.
func (w *world) nextPeriod(rt *rapid.T) {
	var due time.Time
	for _, a := range w.subs {
		if !a.wake.IsZero() && (due.IsZero() || a.wake.Before(due)) {
			due = a.wake
		}
	}
	if due.IsZero() {
		rt.Skip()
	}
	w.forward(rt, due.Sub(w.now))
	w.tick(rt)
}

// dispatch takes the queue and decides who runs.
func (w *world) dispatch(rt *rapid.T) (jobs []job) {
	queue := w.takeJobs()
	if len(queue) == 0 {
		return nil
	}
	order := make([]int, len(queue))
	for i := range order {
		order[i] = i
	}
	for _, i := range rapid.Permutation(order).Draw(rt, "order") {
		j := queue[i]
		switch rapid.SampledFrom([]string{"once", "once", "once", "once", "twice", "never"}).Draw(rt, "run") {
		case "once":
			jobs = append(jobs, j)
		case "twice":
			jobs = append(jobs, j, j)
		}
	}
	return jobs
}

// twoTicks has two daemons sweep at the same time and run everything at once.
func (w *world) twoTicks(rt *rapid.T) {
	w.adoptEnded()
	var errs [2]error
	w.together(func() { _, errs[0] = w.workers[0].Sweep(context.Background(), w.jobs) },
		func() { _, errs[1] = w.workers[1].Sweep(context.Background(), w.jobs) })
	w.trouble("sweep", errs[0])
	w.trouble("sweep", errs[1])
	w.swept(nil)
	var runs []func()
	for i, j := range w.dispatch(rt) {
		runs = append(runs, func() { w.trouble(j.kind, j.run(context.Background(), w, w.workers[i%2])) })
	}
	w.together(runs...)
	w.drain()
}

func (w *world) together(do ...func()) {
	var all sync.WaitGroup
	for _, f := range do {
		all.Go(f)
	}
	all.Wait()
}

// anInvoice picks one, or skips the action.
func (w *world) anInvoice(rt *rapid.T, where string) uuid.UUID {
	ids := w.invoices(where)
	if len(ids) == 0 {
		rt.Skip()
	}
	return ids[len(ids)-1-rapid.IntRange(0, len(ids)-1).Draw(rt, "invoice")]
}

// chargeOne runs a job that is late, or was never enqueued.
func (w *world) chargeOne(rt *rapid.T) {
	w.trouble("charge", w.worker(rt).Charge(context.Background(), w.anInvoice(rt, "true")))
	w.drain()
}

func (w *world) chargeTwice(rt *rapid.T) {
	id := w.anInvoice(rt, "i.status = 'open'")
	w.claim(rt)
	w.together(
		func() { w.trouble("charge", w.workers[0].Charge(context.Background(), id)) },
		func() { w.trouble("charge", w.workers[1].Charge(context.Background(), id)) },
	)
	w.drain()
}

// claim sweeps now and then, so that there is something to charge; the jobs get
// lost.
func (w *world) claim(rt *rapid.T) {
	if rapid.Bool().Draw(rt, "claim") {
		w.sweep(context.Background(), w.workers[1])
		w.takeJobs()
	}
}

// race has something else happen in the middle of a charge.
func (w *world) race(rt *rapid.T) {
	id := w.anInvoice(rt, "i.status = 'open'")
	w.claim(rt)
	at := rapid.SampledFrom(moments).Draw(rt, "moment")
	a := w.subscriptionOf(id)
	ctx := context.Background()
	intrusions := map[string]func(){
		"charge":    func() { w.trouble("charge", w.workers[1].Charge(ctx, id)) },
		"reconcile": func() { w.trouble("reconcile", w.workers[1].Reconcile(ctx, id)) },
		"cancel":    func() { w.cancelNow(a) },
		"pause":     func() { w.pauseOne(a) },
		"freeze":    func() { w.freezeAll() },
		"retry":     func() { w.retry(id) },
		"sweep":     func() { w.sweep(ctx, w.workers[1]) },
		"clock":     func() { w.set(w.now.Add(8*time.Minute), w.behind) },
		"checkout":  func() { w.openCheckout(id) },
		"pay":       func() { w.payHosted() },
		"heed": func() {
			w.drain()
			for _, j := range w.takeJobs() {
				w.trouble(j.kind, j.run(ctx, w, w.workers[1]))
			}
		},
	}
	what := rapid.SampledFrom([]string{"charge", "charge", "reconcile", "reconcile", "heed", "heed", "retry", "sweep", "clock", "clock", "checkout", "pay", "freeze", "pause", "cancel"}).Draw(rt, "meanwhile")
	dies := rapid.IntRange(0, 3).Draw(rt, "dies") == 3
	w.gate.ambush(at, func() {
		intrusions[what]()
		if dies {
			runtime.Goexit()
		}
	})
	attacked := func() error { return w.workers[0].Charge(ctx, id) }
	if rapid.IntRange(0, 3).Draw(rt, "a checkout") == 3 {
		attacked = func() error { w.openCheckout(id); return nil }
	}
	err, _ := w.run(attacked)
	w.gate.ambush("", nil)
	w.trouble("charge", err)
	w.drain()
}

// crash lets a process die in the middle of a tick, or of one charge. What it
// has not written by then is never written; jobs behind it are lost.
func (w *world) crash(rt *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch rapid.SampledFrom([]string{"dies", "dies", "is stopped", "loses the database"}).Draw(rt, "the process") {
	case "dies":
		w.gate.ambush(rapid.SampledFrom(moments).Draw(rt, "moment"), runtime.Goexit)
	case "is stopped":
		w.gate.ambush(rapid.SampledFrom(moments).Draw(rt, "moment"), cancel)
	default:
		w.wire.cutAt(rapid.IntRange(1, 24).Draw(rt, "begins and commits"), rapid.Bool().Draw(rt, "executed"))
	}
	_, _ = w.run(func() error { w.sweep(ctx, w.workers[0]); return nil })
	jobs := w.dispatch(rt)
	_, _ = w.run(func() error {
		for _, j := range jobs {
			_ = j.run(ctx, w, w.workers[0]) // it may fail: its database is away
		}
		return nil
	})
	w.gate.ambush("", nil)
	w.wire.cutAt(0, false)
	w.quiet()
	w.drain()
}

// loseReply spoils the next call of a kind.
func (w *world) loseReply(rt *rapid.T) {
	kind := rapid.SampledFrom([]sandbox.FaultKind{
		sandbox.TimeoutAfter, sandbox.LateAttach, sandbox.TimeoutBefore, sandbox.ErrorAfter, sandbox.ErrorBefore, sandbox.ResetAfter, sandbox.ResetBefore,
		sandbox.CutBody, sandbox.HTMLBody, sandbox.WrongContentType, sandbox.Unauthorized, sandbox.WrongAmount,
	}).Draw(rt, "fault")
	f := sandbox.Fault{Kind: kind, Times: 1, Endpoint: "payment_intents.attach"}
	if kind == sandbox.LateAttach {
		f.For = sandbox.Duration(time.Duration(rapid.IntRange(1, 10).Draw(rt, "minutes")) * time.Minute)
	} else {
		f.Endpoint = rapid.SampledFrom([]string{"payment_intents.attach", "payment_intents.create", "payment_intents.retrieve",
			"payment_intents.cancel", "checkout_sessions.create", "checkout_sessions.retrieve", "checkout_sessions.expire"}).Draw(rt, "endpoint")
	}
	w.fault(f)
}

// outcome decides what becomes of the next attach. No look is stale: that it
// shows the result is what the protocol assumes.
func (w *world) outcome(rt *rapid.T) {
	f := sandbox.Fault{Times: 1, Endpoint: "payment_intents.attach"}
	switch rapid.SampledFrom([]string{"decline", "processing", "3ds", "expire"}).Draw(rt, "outcome") {
	case "decline":
		f.Kind, f.Code = sandbox.Decline, rapid.SampledFrom([]string{"do_not_honor", "insufficient_funds", "processor_timeout", "stolen_card", "never_heard_of"}).Draw(rt, "code")
	case "processing":
		f.Kind, f.For = sandbox.Processing, sandbox.Duration(time.Duration(rapid.IntRange(1, 1800).Draw(rt, "minutes"))*time.Minute)
		f.Then = rapid.SampledFrom([]string{"succeed", "insufficient_funds"}).Draw(rt, "then")
	case "3ds":
		f.Kind = sandbox.ThreeDS
	case "expire":
		f.Kind, f.Endpoint = sandbox.ExpireIntent, rapid.SampledFrom([]string{"payment_intents.attach", "payment_intents.retrieve"}).Draw(rt, "endpoint")
	}
	w.fault(f)
}

func (w *world) fault(f sandbox.Fault) {
	_, err := w.box.AddFault(f)
	w.trouble("fault", err)
}

// webhook lets deliveries go wrong, repeats one, or brings one that is forged or
// lies.
func (w *world) webhook(rt *rapid.T) {
	switch what := rapid.SampledFrom([]string{"lie", "forge", "repeat", "lost", "duplicate", "reorder", "delay", "early", "forged"}).Draw(rt, "webhook"); what {
	case "forge":
		w.forged++
		id := w.anInvoice(rt, "true")
		if status := w.deliver("whsk_not_ours", w.paidEvent(fmt.Sprint("evt_forged_", w.forged), "pay_forged", w.intentOf(id), id.String(), 49900)); status != http.StatusUnauthorized {
			w.wrong("a forged delivery was answered %d", status)
		}
	case "lie":
		id := w.anInvoice(rt, "EXISTS (SELECT FROM singil.payment_intents pi WHERE pi.invoice_id = i.id AND pi.provider_intent_id IS NOT NULL)")
		w.forged++
		body := w.paidEvent(fmt.Sprint("evt_lie_", w.forged), fmt.Sprint("pay_lie_", w.forged), w.intentOf(id), id.String(), 49900)
		if status := w.deliver(w.secret, body); status != http.StatusOK {
			w.wrong("an authentic delivery was answered %d", status)
		}
	case "repeat":
		var body []byte
		err := w.look.QueryRow(context.Background(), `SELECT body FROM singil.webhook_events ORDER BY event_id LIMIT 1`).Scan(&body)
		if err != nil {
			rt.Skip()
		}
		if status := w.deliver(w.secret, string(body)); status != http.StatusOK {
			w.wrong("a repeated delivery was answered %d", status)
		}
	default:
		f := sandbox.Fault{Kind: sandbox.FaultKind("webhook_" + what), Times: 1}
		if f.Kind == sandbox.WebhookDelay {
			f.For = sandbox.Duration(time.Duration(rapid.IntRange(1, 180).Draw(rt, "minutes")) * time.Minute)
		}
		w.fault(f)
	}
}

func (w *world) intentOf(invoice uuid.UUID) (id string) {
	err := w.look.QueryRow(context.Background(), `SELECT COALESCE(max(provider_intent_id), 'pi_unknown') FROM singil.payment_intents WHERE invoice_id = $1`, invoice).Scan(&id)
	w.trouble("read the intent", err)
	return id
}

func (w *world) refund(rt *rapid.T) {
	var paid []sandbox.LedgerPayment
	for _, pi := range w.box.Ledger().Intents {
		for _, pay := range pi.Payments {
			if pay.Status == "paid" && pay.Refunded == 0 {
				paid = append(paid, pay)
			}
		}
	}
	if len(paid) == 0 {
		rt.Skip()
	}
	pay := paid[rapid.IntRange(0, len(paid)-1).Draw(rt, "payment")]
	amount := pay.Amount
	if rapid.Bool().Draw(rt, "in part") {
		amount = 1000
	}
	// It may be refused: an earlier one can still be under way.
	_, _ = w.client.Refunds.Create(context.Background(), &paymongo.RefundCreateParams{Amount: amount, PaymentID: pay.ID, Reason: paymongo.RefundReasonOthers})
	w.drain()
}

func (w *world) subscription(rt *rapid.T) *agreement {
	return w.subs[rapid.IntRange(0, len(w.subs)-1).Draw(rt, "subscription")]
}

func (w *world) subscriptionOf(invoice uuid.UUID) *agreement {
	var id uuid.UUID
	w.trouble("read the subscription", w.look.QueryRow(context.Background(), `SELECT subscription_id FROM singil.invoices WHERE id = $1`, invoice).Scan(&id))
	return w.subs[slices.IndexFunc(w.subs, func(a *agreement) bool { return a.id == id })]
}

func (w *world) cancel(rt *rapid.T) {
	w.seldom(rt)
	a := w.subscription(rt)
	switch rapid.SampledFrom([]billing.Cancellation{billing.CancelAtPeriodEnd, billing.CancelNow}).Draw(rt, "when") {
	case billing.CancelAtPeriodEnd:
		w.cancelAtEnd(a)
	case billing.CancelNow:
		w.cancelNow(a)
	}
}

func (w *world) cancelAtEnd(a *agreement) {
	if w.act(func(ctx context.Context, tx pgx.Tx) error {
		return billing.CancelSubscription(ctx, tx, a.id, billing.CancelAtPeriodEnd, w.by())
	}) {
		a.cancelAtPeriodEnd(w.now)
	}
}

func (w *world) cancelNow(a *agreement) {
	a = w.subscriptionNow(a)
	if w.act(func(ctx context.Context, tx pgx.Tx) error {
		return billing.CancelSubscription(ctx, tx, a.id, billing.CancelNow, w.by())
	}) {
		a.closePause(w.now)
		a.end()
		delete(w.pausedWith, a.id)
		w.stoppedWith[a.id] = w.ids(`SELECT DISTINCT a.invoice_id FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id WHERE i.subscription_id = $1`, a.id)
	}
}

// subscriptionNow is the model as it is: a sweep puts another in its place.
func (w *world) subscriptionNow(a *agreement) *agreement {
	return w.subs[slices.IndexFunc(w.subs, func(b *agreement) bool { return a.id == b.id })]
}

func (w *world) pause(rt *rapid.T) {
	w.seldom(rt)
	w.pauseOne(w.subscription(rt))
}

func (w *world) pauseOne(a *agreement) {
	a = w.subscriptionNow(a)
	if w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.PauseSubscription(ctx, tx, a.id, w.by()) }) {
		a.pause(w.now)
		w.pausedWith[a.id] = w.attempts()
	}
}

func (w *world) resume(rt *rapid.T) {
	a := w.subscription(rt)
	if !a.paused {
		rt.Skip()
	}
	w.resumeOne(a)
}

func (w *world) resumeOne(a *agreement) {
	if w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.ResumeSubscription(ctx, tx, a.id, w.by()) }) {
		a.resume(w.now)
		delete(w.pausedWith, a.id)
	}
}

func (w *world) replaceCard(rt *rapid.T) {
	if w.cards >= 5 {
		rt.Skip()
	}
	w.addCard(w.subscription(rt), rapid.SampledFrom(cardNumbers).Draw(rt, "card"))
}

func (w *world) planChange(rt *rapid.T) {
	a := w.subscription(rt)
	to := w.aPlan(rt)
	if w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.ChangePlan(ctx, tx, a.id, to.id, w.by()) }) {
		a.change(to)
	}
}

func (w *world) operatorRetry(rt *rapid.T) { w.retry(w.anInvoice(rt, "true")) }

func (w *world) bulkRetry(*rapid.T) {
	for _, id := range w.invoices("i.status = 'open'") {
		w.retry(id)
	}
}

func (w *world) retry(id uuid.UUID) {
	w.act(func(ctx context.Context, tx pgx.Tx) error {
		_, err := billing.Retry(ctx, tx, billing.RetryRequest{Invoice: id.String(), Act: w.by()}, billing.DefaultCardLimits(), billing.BankHolidays())
		return err
	})
}

func (w *world) clockForward(rt *rapid.T) {
	n := rapid.IntRange(1, 60).Draw(rt, "n")
	unit := rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 24 * time.Hour}).Draw(rt, "unit")
	w.forward(rt, time.Duration(n)*unit)
}

func (w *world) forward(rt *rapid.T, d time.Duration) {
	if w.now.After(noon.AddDate(0, 9, 0)) {
		rt.Skip()
	}
	w.set(w.now.Add(min(max(d, time.Minute), 60*24*time.Hour)), w.behind)
	w.drain()
}

// clockBack sets the business clock back; the provider's goes on.
func (w *world) clockBack(rt *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 120).Draw(rt, "minutes")) * time.Minute
	w.set(w.now.Add(-d), w.behind+d)
}

func (w *world) freeze(rt *rapid.T) {
	w.seldom(rt)
	w.freezeAll()
}

// seldom skips what keeps a sequence from doing anything else, mostly.
func (w *world) seldom(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "seldom") > 0 {
		rt.Skip()
	}
}

func (w *world) freezeAll() {
	if w.frozenWith == nil && w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.Freeze(ctx, tx, "ana", "property") }) {
		w.frozenWith = w.attempts()
	}
}

func (w *world) liftFreeze(rt *rapid.T) {
	if w.frozenWith == nil {
		rt.Skip()
	}
	w.unfreeze()
}

func (w *world) unfreeze() {
	w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.Unfreeze(ctx, tx, "ana", "property") })
	w.frozenWith = nil
}

func (w *world) mendBreaker(rt *rapid.T) {
	if w.brokenWith == nil {
		rt.Skip()
	}
	w.closeBreaker()
}

func (w *world) closeBreaker() {
	w.act(func(ctx context.Context, tx pgx.Tx) error { return billing.CloseBreaker(ctx, tx, "ana", "property") })
	w.brokenWith = nil
}

// budget changes what a day may cost; a day that has begun keeps its own.
func (w *world) budget(rt *rapid.T) {
	w.exec(`UPDATE singil.instance SET day_max_count = $1`, rapid.SampledFrom([]int{1000, 1000, 3, 1, 0}).Draw(rt, "attempts a day"))
}
