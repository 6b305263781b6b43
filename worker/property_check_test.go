package worker_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
)

// books are the database in one snapshot.
type books struct {
	subscriptions map[uuid.UUID]subscriptionRow
	invoices      map[uuid.UUID]*invoiceRow
	skipped       []skipRow
	attempts      []attemptRow
	intents       map[uuid.UUID]intentRow
	paidEvents    map[uuid.UUID]int
	paidAfterVoid map[uuid.UUID]int
	budget        map[string][2]int64
	frozen        bool
	broken        bool
	waiting       int // deliveries that are not processed
	forged        int // deliveries on record that nobody may have stored
	unreadable    int
}

type invoiceRow struct {
	ID           uuid.UUID
	Subscription uuid.UUID
	No           int
	Start, End   time.Time
	DueAt        time.Time
	Minor        int64
	Status       string
	NextAt       *time.Time
	Payment      string
	Attempts     int
	WaitingFor   string
	Reason       string
	PaidAt       *time.Time
}

type skipRow struct {
	Subscription uuid.UUID
	First, Last  int
	Reason       billing.SkipReason
}

type attemptRow struct {
	ID, Invoice, Intent uuid.UUID
	No                  int
	State               billing.AttemptState
	ArmedAt             time.Time
	Minor               int64
	Evidence            string
}

type intentRow struct {
	ID, Invoice uuid.UUID
	Generation  int
	Provider    string
	State       billing.IntentState
}

type budgetRow struct {
	Day   time.Time
	Count int64
	Minor int64
}

// readBooks reads everything in one round trip and one snapshot.
func (w *world) readBooks() *books {
	b := &books{
		subscriptions: map[uuid.UUID]subscriptionRow{}, invoices: map[uuid.UUID]*invoiceRow{}, intents: map[uuid.UUID]intentRow{},
		paidEvents: map[uuid.UUID]int{}, paidAfterVoid: map[uuid.UUID]int{}, budget: map[string][2]int64{},
	}
	batch := &pgx.Batch{}
	batch.Queue(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
	collect(batch, sqlPropertySubscriptions, func(r subscriptionRow) { b.subscriptions[r.ID] = r })
	collect(batch, `SELECT id, subscription_id, period_no, lower(period), upper(period), due_at, amount_minor, status, next_attempt_at, COALESCE(payment_id, ''),
		attempt_count, waiting_for, COALESCE(reason, ''), paid_at FROM singil.invoices`, func(r invoiceRow) { b.invoices[r.ID] = &r })
	collect(batch, `SELECT subscription_id, first_no, last_no, reason FROM singil.skipped_periods`, func(r skipRow) { b.skipped = append(b.skipped, r) })
	collect(batch, `SELECT a.id, a.invoice_id, a.payment_intent_id, a.no, a.state, a.armed_at, pi.amount_minor, COALESCE(a.evidence ->> 'kind', '')
		FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id ORDER BY a.invoice_id, a.no`,
		func(r attemptRow) { b.attempts = append(b.attempts, r) })
	collect(batch, `SELECT id, invoice_id, generation, COALESCE(provider_intent_id, ''), state FROM singil.payment_intents`, func(r intentRow) { b.intents[r.ID] = r })
	collect(batch, `SELECT (data ->> 'invoice_id')::uuid FROM singil.events WHERE type = 'invoice.paid'`, func(r struct{ ID uuid.UUID }) { b.paidEvents[r.ID]++ })
	collect(batch, `SELECT (data ->> 'invoice_id')::uuid FROM singil.events WHERE type = 'invoice.paid_after_void'`, func(r struct{ ID uuid.UUID }) { b.paidAfterVoid[r.ID]++ })
	collect(batch, `SELECT day, used_count::bigint, used_minor FROM singil.charge_budget`, func(r budgetRow) {
		b.budget[r.Day.Format(time.DateOnly)] = [2]int64{r.Count, r.Minor}
	})
	collect(batch, `SELECT i.frozen, p.breaker_open,
		(SELECT count(*) FROM singil.webhook_events WHERE processed_at IS NULL),
		(SELECT count(*) FROM singil.webhook_events WHERE event_id LIKE 'evt_forged%'),
		(SELECT count(*) FROM singil.webhook_events WHERE result = 'unreadable')
		FROM singil.instance i, singil.provider_state p`, func(r struct {
		Frozen, Broken              bool
		Waiting, Forged, Unreadable int
	}) {
		b.frozen, b.broken, b.waiting, b.forged, b.unreadable = r.Frozen, r.Broken, r.Waiting, r.Forged, r.Unreadable
	})
	batch.Queue(`COMMIT`)
	w.trouble("read the books", w.look.SendBatch(context.Background(), batch).Close())
	return b
}

func collect[T any](batch *pgx.Batch, sql string, do func(T)) {
	batch.Queue(sql).Query(func(rows pgx.Rows) error {
		list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		for _, row := range list {
			do(row)
		}
		return err
	})
}

// check holds after every action, whatever is under way.
func (w *world) check() {
	w.adoptEnded()
	b, ledger := w.readBooks(), w.box.Ledger()
	w.checkMoney(b, ledger)
	w.checkPeriods(b)
	w.checkAttempts(b)
	if b.forged > 0 || b.unreadable > 0 {
		w.wrong("%d forged and %d unreadable deliveries are on record", b.forged, b.unreadable)
	}
}

// checkMoney is P1, and that the books claim nothing that the provider does not say.
func (w *world) checkMoney(b *books, ledger sandbox.Ledger) {
	ours := map[string]intentRow{}
	for _, pi := range b.intents {
		if pi.Provider != "" {
			ours[pi.Provider] = pi
		}
	}
	armed, declined := map[uuid.UUID]int{}, map[uuid.UUID]int{}
	for _, a := range b.attempts {
		armed[a.Intent]++
		if a.State == billing.AttemptDeclined {
			declined[a.Intent]++
		}
	}
	paid := map[string]int{}
	taken := map[string]sandbox.LedgerPayment{}
	payer := map[string]string{}
	live := map[string]int{}
	for _, pi := range ledger.Intents {
		invoice := pi.Metadata["invoice"]
		row, stored := ours[pi.ID]
		if len(pi.Attaches) > 0 && (!stored || row.Invoice.String() != invoice) {
			w.wrong("an attach to intent %s, which is not on record for invoice %s", pi.ID, invoice)
		}
		if len(pi.Attaches) > 0 && pi.Status != "cancelled" {
			live[invoice]++
		}
		refused, mine := 0, 0
		for _, at := range pi.Attaches {
			if w.saved[at.PaymentMethod] {
				mine++
			}
			if strings.HasPrefix(at.Outcome, "declined") || strings.HasPrefix(at.Outcome, "refused") {
				refused++
			}
		}
		if mine > armed[row.ID] {
			w.wrong("%d attaches of ours to intent %s for %d attempts", mine, pi.ID, armed[row.ID])
		}
		if stored && declined[row.ID] > refused {
			w.wrong("books have %d declined attempts on intent %s, the ledger %d: %+v", declined[row.ID], pi.ID, refused, pi.Attaches)
		}
		if stored && row.State == billing.IntentDead && pi.Status != "cancelled" {
			w.wrong("books call intent %s dead, the provider %s", pi.ID, pi.Status)
		}
		for _, pay := range pi.Payments {
			taken[pay.ID], payer[pay.ID] = pay, invoice
			if pay.Status == "paid" {
				paid[invoice]++
			}
		}
	}
	for invoice, n := range paid {
		if n > 1 {
			w.wrong("CHARGED TWICE: %d payments for invoice %s", n, invoice)
		}
	}
	for invoice, n := range live {
		if n > 1 {
			w.wrong("%d intents of invoice %s were attached to and are not cancelled", n, invoice)
		}
	}
	for id, i := range b.invoices {
		pay := taken[i.Payment]
		if i.Status == billing.InvoicePaid && (pay.Status != "paid" || pay.Amount != i.Minor || payer[i.Payment] != id.String()) {
			w.wrong("invoice %s is paid by %q in the books, and the ledger has %+v for invoice %s", id, i.Payment, pay, payer[i.Payment])
		}
		if i.PaidAt != nil && w.now.Sub(*i.PaidAt) > billing.EventRetention-48*time.Hour {
			continue // the event may be forgotten
		}
		if told := b.paidEvents[id]; told > 1 || (told == 1) != (i.Status == billing.InvoicePaid) {
			w.wrong("invoice %s is %s and was told of as paid %d times", id, i.Status, told)
		}
		if i.Status == billing.InvoiceOpen && i.NextAt == nil {
			w.wrong("invoice %s is open and nobody will come back to it", id)
		}
	}
}

// checkPeriods is P2: the model says what must have been opened.
func (w *world) checkPeriods(b *books) {
	opened, skipped := map[uuid.UUID]map[int]debt{}, map[uuid.UUID]map[int]billing.SkipReason{}
	for _, a := range w.subs {
		opened[a.id], skipped[a.id] = map[int]debt{}, map[int]billing.SkipReason{}
		if diff := a.differs(b.subscriptions[a.id]); diff != "" {
			w.wrong("subscription %s: %s", a.name, diff)
		}
	}
	for _, i := range b.invoices {
		opened[i.Subscription][i.No] = debt{i.Start, i.End, i.Minor}
		if !i.DueAt.Equal(i.Start) {
			w.wrong("invoice %s of the period from %s is due at %s", i.ID, i.Start, i.DueAt)
		}
	}
	for _, s := range b.skipped {
		for no := s.First; no <= s.Last; no++ {
			skipped[s.Subscription][no] = s.Reason
		}
	}
	for _, a := range w.subs {
		for no := range max(a.cursor, len(opened[a.id])+len(skipped[a.id])) {
			want, must := a.opened[no]
			got, is := opened[a.id][no]
			if must != is || !want.start.Equal(got.start) || !want.end.Equal(got.end) || want.minor != got.minor {
				w.wrong("subscription %s period %d: opened %t as %+v, want %t as %+v", a.name, no, is, got, must, want)
			}
			if next, both := opened[a.id][no+1]; is && both && !next.start.Equal(got.end) {
				w.wrong("subscription %s: period %d ends at %s and the next begins at %s", a.name, no, got.end, next.start)
			}
			if skipped[a.id][no] != a.skipped[no] {
				w.wrong("subscription %s period %d: skipped as %q, want %q", a.name, no, skipped[a.id][no], a.skipped[no])
			}
		}
	}
}

// checkAttempts is about the interlocks and the limits.
func (w *world) checkAttempts(b *books) {
	if b.frozen != (w.frozenWith != nil) {
		w.wrong("frozen: %t", b.frozen)
	}
	ids := map[uuid.UUID]bool{}
	reached, last := map[uuid.UUID]int{}, map[uuid.UUID]int{}
	spent := map[string][2]int64{}
	for _, a := range b.attempts {
		ids[a.ID] = true
		invoice := b.invoices[a.Invoice]
		if w.frozenWith != nil && !w.frozenWith[a.ID] {
			w.wrong("attempt %s was armed while frozen", a.ID)
		}
		if w.brokenWith != nil && !w.brokenWith[a.ID] {
			w.wrong("attempt %s was armed while the breaker was open", a.ID)
		}
		if with := w.stoppedWith[invoice.Subscription]; with != nil && !with[a.Invoice] {
			w.wrong("attempt %s is the first of invoice %s, and came after the subscription was cancelled", a.ID, a.Invoice)
		}
		if with := w.pausedWith[invoice.Subscription]; with != nil && !with[a.ID] && b.subscriptions[invoice.Subscription].Status == billing.SubscriptionPaused {
			w.wrong("attempt %s was armed while the subscription was paused", a.ID)
		}
		if last[a.Invoice]++; a.No != last[a.Invoice] {
			w.wrong("attempt %s of invoice %s is no %d, want %d", a.ID, a.Invoice, a.No, last[a.Invoice])
		}
		if a.State != billing.AttemptNoEffect && a.State != billing.AttemptSucceeded {
			reached[a.Invoice]++
		}
		day := a.ArmedAt.UTC().Format(time.DateOnly)
		spent[day] = [2]int64{spent[day][0] + 1, spent[day][1] + a.Minor}
	}
	for id, i := range b.invoices {
		if i.Attempts != last[id] {
			w.wrong("invoice %s counts %d attempts and has %d", id, i.Attempts, last[id])
		}
		if most := billing.DefaultCardLimits().InvoiceAttempts; reached[id] > most {
			w.wrong("%d attempts on invoice %s", reached[id], id)
		}
	}
	for day := range b.budget {
		if b.budget[day] != spent[day] {
			w.wrong("the budget of %s says %v, the attempts %v", day, b.budget[day], spent[day])
		}
		delete(spent, day)
	}
	if len(spent) > 0 {
		w.wrong("attempts without a budget: %v", spent)
	}
	// The breaker trips by itself, in the middle of other charges: from the next
	// action on nothing may be armed.
	switch {
	case !b.broken:
		w.brokenWith = nil
	case w.brokenWith == nil:
		w.brokenWith = ids
	}
}

// checkEnd holds when everything that could go wrong has been over for days.
func (w *world) checkEnd() {
	w.check()
	b, ledger := w.readBooks(), w.box.Ledger()
	paid := map[string]int{}
	status := map[string]string{}
	for _, pi := range ledger.Intents {
		status[pi.ID] = pi.Status
		for _, pay := range pi.Payments {
			if pay.Status == "paid" {
				paid[pi.Metadata["invoice"]]++
			}
		}
		if id, err := uuid.Parse(pi.Metadata["invoice"]); err != nil || b.invoices[id] == nil {
			w.wrong("intent %s is for invoice %q, which is not in the books", pi.ID, pi.Metadata["invoice"])
		}
	}
	for _, a := range b.attempts {
		if a.State == billing.AttemptArmed {
			w.wrong("nobody knows what became of attempt %s of %s", a.ID, a.ArmedAt)
		}
		if provider := b.intents[a.Intent].Provider; a.State == billing.AttemptNeedsAction && status[provider] != "awaiting_next_action" &&
			b.invoices[a.Invoice].Status == billing.InvoiceOpen && w.now.Sub(a.ArmedAt) > 72*time.Hour {
			w.wrong("attempt %s waits for the customer, intent %s is %s", a.ID, provider, status[provider])
		}
	}
	for id, i := range b.invoices {
		// An invoice in review is before a human, who is told to look at the provider.
		// What was called off while the customer had its page may be paid there, and
		// somebody is told once.
		told := i.Status == billing.InvoicePaid || i.Status == billing.InvoiceVoid && b.paidAfterVoid[id] == 1
		if i.Status != billing.InvoiceReview && (paid[id.String()] > 0) != told {
			w.wrong("invoice %s is %s in the books, the ledger has %d payments", id, i.Status, paid[id.String()])
		}
		if i.Status == billing.InvoiceOpen && !i.NextAt.After(w.now) {
			w.wrong("invoice %s is open, and its next attempt was due at %s, now %s", id, i.NextAt, w.now)
		}
	}
	for _, a := range w.subs {
		if !a.wake.IsZero() && !a.wake.After(w.now) {
			w.wrong("subscription %s is due since %s, now %s", a.name, a.wake, w.now)
		}
	}
	if b.waiting > 0 {
		w.wrong("%d deliveries wait after days", b.waiting)
	}
	w.count(b)
}

// count tells what there was to check.
func (w *world) count(b *books) {
	w.tally["sequences"]++
	w.tally["actions"] += len(w.trace)
	for _, i := range b.invoices {
		w.tally["invoices "+i.Status]++
	}
	for _, a := range b.attempts {
		w.tally["attempts "+string(a.State)]++
	}
	for _, pi := range b.intents {
		w.tally["intents "+string(pi.State)]++
	}
}

// settleDown mends everything and lets time pass over the ladder of looks, four
// days of it.
func (w *world) settleDown() {
	w.box.ClearFaults()
	w.unfreeze()
	w.exec(`UPDATE singil.instance SET day_max_count = 1000000`)
	w.takeJobs()
	for end := w.now.AddDate(0, 0, 4); w.now.Before(end); {
		w.settleStep()
		// Hours apart at least: what is due again after a minute would take days.
		w.set(minTime(maxTime(w.nextWake(), w.now.Add(2*time.Hour)), end), w.behind)
		w.drain()
	}
	for range 10 { // one card after the other
		if w.settleStep() == 0 {
			return
		}
	}
}

// settleStep is a tick in which nothing goes wrong.
func (w *world) settleStep() (n int) {
	if w.brokenWith != nil {
		w.closeBreaker()
	}
	w.sweep(context.Background(), w.workers[0])
	for jobs := w.takeJobs(); len(jobs) > 0; jobs = w.takeJobs() {
		n += len(jobs)
		for _, j := range jobs {
			w.trouble(j.kind, j.run(context.Background(), w, w.workers[0]))
		}
	}
	w.drain()
	return n
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// nextWake is when something is to be done next, by the books.
func (w *world) nextWake() time.Time {
	var next *time.Time
	err := w.look.QueryRow(context.Background(), `
		SELECT least((SELECT min(next_due_at) FROM singil.subscriptions),
		             (SELECT min(next_attempt_at) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id
		              WHERE i.status = 'open' AND (s.status <> 'paused' OR i.waiting_for = 'provider')),
		             (SELECT min(next_try_at) FROM singil.webhook_events WHERE processed_at IS NULL))`).Scan(&next)
	w.trouble("read the next wake-up", err)
	if next == nil {
		return w.now.AddDate(1, 0, 0)
	}
	return *next
}

func (w *world) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	w.trouble("drain the webhooks", w.box.Drain(ctx))
}

// failures are the violations so far.
func (w *world) failures() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) == 0 {
		return ""
	}
	return fmt.Sprintf("at %s:\n%s", w.now.UTC().Format(time.RFC3339), strings.Join(w.problems, "\n"))
}
