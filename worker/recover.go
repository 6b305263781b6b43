package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
)

// RecoverGateway is what a recovery needs of the provider. It has no attach: a
// recovery moves no money.
type RecoverGateway interface {
	Create(ctx context.Context, r CreateRequest) (billing.ProviderIntent, error)
	Show(ctx context.Context, id string) (billing.ProviderIntent, map[string]string, error)
	Payments(ctx context.Context) iter.Seq2[ListedPayment, error]
	CheckoutCloser
}

// ListedPayment is a payment as the provider lists it. Its metadata is that of
// its intent, or missing.
type ListedPayment struct {
	billing.ProviderPayment
	IntentID string
	Metadata map[string]string
}

// RecoverConfig of a recovery. All but Since, Apply and AcceptUnproven is required.
type RecoverConfig struct {
	Pool        *pgxpool.Pool
	Gateway     RecoverGateway
	Environment billing.Environment
	Livemode    bool
	Log         *slog.Logger
	Now         func() time.Time // the real clock
	Actor       string
	// Since is how far back payments are listed, in business time. Zero: an hour
	// before the newest attempt that is in the database.
	Since time.Time
	// Apply writes. Otherwise nothing changes in the database; the provider is
	// asked the same, which may leave it with payment intents that nothing is
	// ever attached to.
	Apply bool
	// AcceptUnproven leaves invoices open, and opens those again that an earlier
	// recovery has put in review, of which nothing proves that they were not
	// charged. Somebody answers for it.
	AcceptUnproven bool
}

const (
	// keysLast is how long the provider repeats a create, less what a slow
	// recovery takes.
	keysLast = 24*time.Hour - 30*time.Minute
	// Newest first is an observation, no promise: so many older payments in a row
	// end the list.
	listedBeyond = 100
	// maxListed bounds the list. Beyond it the memory of this process would decide.
	maxListed = 1_000_000
	// afterDecline is how long an invoice rests whose latest payment has failed at
	// the provider, in an attempt that dunning cannot count any more.
	afterDecline = 24 * time.Hour
)

// Recover asks the provider what a database has forgotten that is older than
// what happened, and puts the books right: intents that were lost are adopted,
// payments recorded, invoices settled by the look that reconciling takes. What
// cannot be told goes in front of a human. It never attaches anything.
//
// Charging is frozen by it and stays so. When the report says Complete, the
// database is bound as it is now, and Unfreeze is allowed. Doing it again finds
// what is left: the same, or nothing. After an error what was written stays, and
// doing it again goes on.
func Recover(ctx context.Context, cfg RecoverConfig) (RecoveryReport, error) {
	r := &recovery{
		RecoverConfig: cfg, byID: map[uuid.UUID]*billing.Collection{}, byPeriod: map[periodKey]*billing.Collection{},
		done: map[uuid.UUID]bool{}, found: map[string]*foundIntent{},
		collector: NewCollector(Config{
			Pool: cfg.Pool, Gateway: lookOnly{cfg.Gateway}, Environment: cfg.Environment, Livemode: cfg.Livemode, Log: cfg.Log, Now: cfg.Now,
		}),
	}
	for _, step := range []func(context.Context) error{r.begin, r.list, r.lookAtAttempted, r.match, r.probe, r.finish} {
		if err := step(ctx); err != nil {
			return r.report, fmt.Errorf("recover: %w", err)
		}
	}
	return r.report, nil
}

// recovery is one Recover on its way.
type recovery struct {
	RecoverConfig
	collector *Collector
	report    RecoveryReport
	need      billing.Recovery
	now       time.Time // business time

	invoices []*billing.Collection // that the provider may know more of
	byID     map[uuid.UUID]*billing.Collection
	byPeriod map[periodKey]*billing.Collection
	done     map[uuid.UUID]bool // invoices that are told of

	found map[string]*foundIntent // by the provider's id, of the list
}

type periodKey struct {
	subscription string
	no           int
}

// foundIntent is an intent that the list of payments led to.
type foundIntent struct {
	id       string
	metadata map[string]string
	payments []billing.ProviderPayment
	paid     bool
	newest   time.Time
}

// begin freezes, opens the periods that are due, so that there is an invoice to
// everything that was charged, and loads what may be charged. Without Apply all
// of that is taken back.
func (r *recovery) begin(ctx context.Context) error {
	tx, err := r.Pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	if r.need, err = billing.BeginRecovery(ctx, tx, r.Environment, r.Livemode, r.Actor); err != nil {
		return err
	}
	instance, err := billing.LoadInstance(ctx, tx)
	if err != nil {
		return err
	}
	r.now = instance.Now(r.Now())
	r.report = RecoveryReport{
		Applied: r.Apply, Needed: r.need.Needed, ConclusiveAt: r.need.ConclusiveAt(), Since: r.Since,
		Complete: !r.now.Before(r.need.ConclusiveAt()), Items: []RecoveryItem{}, Sums: []RecoverySum{},
	}
	if r.Since.IsZero() {
		r.report.Since = r.need.From.Add(-time.Hour)
	}

	open := func() (billing.Opened, error) {
		return billing.OpenDue(ctx, tx, r.Environment, r.Livemode, r.now, r.collector.sweepSize)
	}
	var from billing.Querier = tx
	if r.Apply {
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		open = func() (billing.Opened, error) { return r.collector.openDue(ctx, nil) }
		from = r.Pool
	}
	for {
		opened, err := open()
		if err != nil {
			return err
		}
		if opened.Invoices+opened.Skipped+opened.Parked == 0 {
			break
		}
		r.report.Opened += opened.Invoices
	}
	if r.invoices, err = billing.LoadRecoverable(ctx, from, r.now); err != nil {
		return err
	}
	for _, c := range r.invoices {
		r.byID[c.InvoiceID] = c
		r.byPeriod[periodKey{c.SubscriptionNo, c.PeriodNo}] = c
	}
	return nil
}

// list reads the provider's payments and groups them by their intents.
func (r *recovery) list(ctx context.Context) error {
	older := 0
	for p, err := range r.Gateway.Payments(ctx) {
		if err != nil {
			return fmt.Errorf("list the payments: %w", err)
		}
		if p.At.Before(r.report.Since) {
			if older++; older == listedBeyond {
				break
			}
			continue
		}
		older = 0
		if r.report.Listed++; r.report.Listed > maxListed {
			return fmt.Errorf("more than %d payments since %s: nothing that is so much can be checked at once", maxListed, r.report.Since.Format(time.RFC3339))
		}
		if at := p.Metadata["environment"]; p.IntentID == "" || at != "" && at != string(r.Environment) {
			r.report.Foreign++
			continue
		}
		f := r.found[p.IntentID]
		if f == nil {
			f = &foundIntent{id: p.IntentID}
			r.found[p.IntentID] = f
		}
		if f.metadata["environment"] == "" {
			f.metadata = p.Metadata
		}
		f.payments = append(f.payments, p.ProviderPayment)
		f.paid = f.paid || p.Status == "paid"
		if p.At.After(f.newest) {
			f.newest = p.At
		}
	}
	return nil
}

// lookAtAttempted looks at the invoices that are due and have an intent. A
// charge would look as well; but an intent that was cancelled in the meantime has
// a successor, and that one may be lost.
func (r *recovery) lookAtAttempted(ctx context.Context) error {
	for _, c := range r.invoices {
		due := c.WaitingFor != billing.WaitingForSchedule || !c.NextAttemptAt.After(r.now)
		if c.Status == billing.InvoiceOpen && c.ProviderIntentID != "" && (c.Attempted && due || r.paysKnown(c)) {
			if err := r.look(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// paysKnown tells that the list has money on the intent that the invoice has.
func (r *recovery) paysKnown(c *billing.Collection) bool {
	f := r.found[c.ProviderIntentID]
	return f != nil && f.paid
}

// look takes an invoice's own intent as the provider has it.
func (r *recovery) look(ctx context.Context, c *billing.Collection) error {
	seen, _, err := r.Gateway.Show(ctx, c.ProviderIntentID)
	var e *GatewayError
	switch {
	case errors.As(err, &e) && e.Refused:
		return r.review(ctx, c, c.ProviderIntentID, "the provider does not show its intent: "+e.Error())
	case err != nil:
		return fmt.Errorf("look at invoice %s: %w", c.InvoiceID, err)
	}
	j := c.Judge(seen, r.now)
	switch j.Ruling {
	case billing.Free, billing.Unknown:
		return nil // a charge finds the same
	case billing.Wait:
		if c.WaitingFor == j.WaitingFor {
			return nil
		}
	}
	if r.Apply {
		if err := r.collector.Reconcile(ctx, c.InvoiceID); err != nil {
			return err
		}
	}
	intent := c.ProviderIntentID
	if j.Ruling == billing.Dead {
		// The next generation may have been charged: it has yet to be found.
		return r.reload(ctx, c)
	}
	r.told(recoveryItem(c, intent, actionOf(j), j.Reason), j.Payment.ID)
	return nil
}

// reload takes over what a look at a dead intent has made of the invoice.
func (r *recovery) reload(ctx context.Context, c *billing.Collection) error {
	if !r.Apply {
		c.CreateKey, c.CreateFailures = c.NextKey(), 0
		c.Generation++
		c.ProviderIntentID, c.IntentState, c.Attempted, c.Shared, c.Checkout, c.Open = "", billing.IntentCreating, false, false, "", nil
		return nil
	}
	again, err := billing.Load(ctx, r.Pool, []uuid.UUID{c.InvoiceID}, r.now)
	if err != nil {
		return err
	}
	if again[c.InvoiceID] == nil {
		return fmt.Errorf("invoice %s is gone", c.InvoiceID)
	}
	*c = *again[c.InvoiceID]
	return nil
}

// match finds the invoices of the intents that the list led to: what was paid
// first, and then the newest, for that is the one that lives.
func (r *recovery) match(ctx context.Context) error {
	all := make([]*foundIntent, 0, len(r.found))
	var ids, payments []string
	for id, f := range r.found {
		all, ids = append(all, f), append(ids, id)
		for _, p := range f.payments {
			if p.Status == "paid" {
				payments = append(payments, p.ID)
			}
		}
	}
	slices.SortFunc(all, func(a, b *foundIntent) int {
		if a.paid != b.paid {
			if a.paid {
				return -1
			}
			return 1
		}
		return cmp.Or(b.newest.Compare(a.newest), cmp.Compare(a.id, b.id))
	})
	known, err := billing.InvoicesOfIntents(ctx, r.Pool, ids)
	if err != nil {
		return err
	}
	recorded, err := billing.PaidOnRecord(ctx, r.Pool, payments)
	if err != nil {
		return err
	}
	for _, f := range all {
		unrecorded := slices.ContainsFunc(f.payments, func(p billing.ProviderPayment) bool { return p.Status == "paid" && !recorded[p.ID] })
		if invoice, mine := known[f.id]; mine {
			if unrecorded && !r.done[invoice] {
				err = r.matchKnown(ctx, f, invoice)
			}
		} else {
			err = r.matchLost(ctx, f, unrecorded)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// matchKnown is about money on an intent that is on record, whose invoice is not
// open: paid, void, given up, or in front of a human.
func (r *recovery) matchKnown(ctx context.Context, f *foundIntent, invoice uuid.UUID) error {
	c, err := r.invoice(ctx, invoice)
	if err != nil || c == nil {
		return err
	}
	if c.ProviderIntentID == f.id && c.Status != billing.InvoicePaid {
		return r.look(ctx, c)
	}
	return r.second(ctx, c, f)
}

// matchLost is about an intent that is not on record.
func (r *recovery) matchLost(ctx context.Context, f *foundIntent, unrecorded bool) error {
	var seen *billing.ProviderIntent
	if f.metadata["environment"] == "" {
		var err error
		if seen, f.metadata, err = r.show(ctx, f.id); err != nil {
			return err
		}
	}
	if f.metadata["environment"] != string(r.Environment) {
		r.report.Foreign += len(f.payments)
		return nil
	}
	c, err := r.invoiceOf(ctx, f.metadata)
	switch {
	case err != nil:
		return err
	case c == nil && f.metadata[setupMark] != "":
		return r.sale(ctx, f, unrecorded)
	case c == nil:
		return r.unplaced(ctx, f, unrecorded)
	case r.done[c.InvoiceID], c.Status == billing.InvoicePaid:
		return r.second(ctx, c, f)
	}
	if c.ProviderIntentID != "" {
		// It has another one. Only if that is dead, this is its successor.
		if err := r.look(ctx, c); err != nil {
			return err
		}
		if c.ProviderIntentID != "" {
			return r.second(ctx, c, f)
		}
	}
	if seen == nil {
		if seen, _, err = r.show(ctx, f.id); err != nil {
			return err
		}
	}
	if seen == nil {
		return r.second(ctx, c, f)
	}
	return r.adopt(ctx, c, *seen)
}

// show retrieves an intent that a payment names; nil: the provider has none.
func (r *recovery) show(ctx context.Context, id string) (*billing.ProviderIntent, map[string]string, error) {
	intent, metadata, err := r.Gateway.Show(ctx, id)
	var e *GatewayError
	switch {
	case errors.As(err, &e) && e.Refused:
		return nil, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("look at intent %s: %w", id, err)
	}
	return &intent, metadata, nil
}

// invoiceOf is the invoice that metadata names, or nil.
func (r *recovery) invoiceOf(ctx context.Context, metadata map[string]string) (*billing.Collection, error) {
	named, _ := uuid.Parse(metadata["invoice"]) // the zero one is nobody's
	no, err := strconv.Atoi(metadata["period"])
	if err != nil || no < 0 || no > 1<<30 {
		no = -1 // no invoice has it
	}
	if c := r.byID[named]; c != nil {
		return c, nil
	}
	c := r.byPeriod[periodKey{metadata["subscription"], no}]
	if c == nil {
		id, err := billing.FindInvoice(ctx, r.Pool, named, metadata["subscription"], no)
		if err != nil || id == uuid.Nil {
			return nil, err
		}
		if c, err = r.invoice(ctx, id); err != nil || c == nil {
			return nil, err
		}
	}
	// One that was opened again is younger than the one that is lost. An older one
	// was here all the time, and the metadata is of another installation.
	if c.InvoiceID != named && named.Version() == 7 && bytes.Compare(named[:], c.InvoiceID[:]) > 0 {
		return nil, nil
	}
	return c, nil
}

func (r *recovery) invoice(ctx context.Context, id uuid.UUID) (*billing.Collection, error) {
	if c := r.byID[id]; c != nil {
		return c, nil
	}
	found, err := billing.Load(ctx, r.Pool, []uuid.UUID{id}, r.now)
	return found[id], err
}

// adopt stores an intent that the books have lost, and settles what it shows.
func (r *recovery) adopt(ctx context.Context, c *billing.Collection, seen billing.ProviderIntent) error {
	if err := c.Check(seen); err != nil {
		for _, p := range seen.Payments {
			if err := r.record(ctx, p, seen.ID, c.InvoiceID); err != nil {
				return err
			}
		}
		return r.review(ctx, c, seen.ID, err.Error())
	}
	mine := c.Standing
	mine.ProviderIntentID, mine.Attempted = seen.ID, true
	j := mine.Judge(seen, r.now)
	if r.Apply {
		if err := r.tx(ctx, func(tx pgx.Tx) error { return billing.AdoptIntent(ctx, tx, c, seen.ID, r.Actor) }); err != nil {
			return err
		}
	}
	item := recoveryItem(c, seen.ID, actionOf(j), j.Reason)
	if r.Apply && j.Ruling != billing.Paid && j.Ruling != billing.Park {
		// Of one that an earlier recovery could tell nothing of, this is the proof.
		if err := r.tx(ctx, func(tx pgx.Tx) error {
			return billing.ReopenDoubtful(ctx, tx, c, r.Actor, "its payment intent was found", r.now)
		}); err != nil {
			return err
		}
	}
	if r.Apply {
		if err := r.collector.Reconcile(ctx, c.InvoiceID); err != nil {
			return err
		}
	}
	if j.Ruling == billing.Dead {
		return r.reload(ctx, c) // its successor has yet to be found
	}
	if j.Ruling == billing.Free {
		item.Action = RecoveryAdopt
		if failed := latest(seen); failed.Status == "failed" {
			item.Found = "the latest payment failed: " + string(failed.FailedCode)
			if err := r.rest(ctx, c, failed); err != nil {
				return err
			}
		} else {
			item.Found = "its intent is there, and nothing was taken"
		}
	}
	r.told(item, j.Payment.ID)
	return nil
}

// rest keeps an invoice from being attempted again as soon as charging goes on.
func (r *recovery) rest(ctx context.Context, c *billing.Collection, failed billing.ProviderPayment) error {
	at := failed.At.Add(afterDecline)
	if !r.Apply || !at.After(r.now) {
		return nil
	}
	if err := r.reload(ctx, c); err != nil {
		return err
	}
	return r.tx(ctx, func(tx pgx.Tx) error {
		_, err := billing.Settle(ctx, tx, []billing.Settlement{{
			Collection: c, Fence: c.Fence, Judgement: billing.Judgement{Ruling: billing.Deferred},
			Decision: &billing.Decision{Action: billing.DunningActionHold, At: at, Reason: "declined in an attempt that the books have lost"},
		}}, r.now, r.collector.holidays)
		return err
	})
}

func latest(seen billing.ProviderIntent) (p billing.ProviderPayment) {
	for _, q := range seen.Payments {
		if !q.At.Before(p.At) {
			p = q
		}
	}
	return p
}

// second is about money on an intent beside the one that its invoice has.
func (r *recovery) second(ctx context.Context, c *billing.Collection, f *foundIntent) error {
	if !f.paid {
		return nil
	}
	for _, p := range f.payments {
		if p.Status == "paid" {
			if err := r.record(ctx, p, f.id, c.InvoiceID); err != nil {
				return err
			}
		}
	}
	return r.review(ctx, c, f.id, "money on a payment intent that is not this invoice's, or not its only one")
}

// sale is about money of a card setup: the merchant's own, and no invoice's. A
// setup that the books have lost is written down again, so that its card is found.
func (r *recovery) sale(ctx context.Context, f *foundIntent, unrecorded bool) error {
	if !unrecorded {
		return nil
	}
	named, _ := uuid.Parse(f.metadata[setupMark]) // the zero one is nobody's
	setup, err := billing.CardSetupOf(ctx, r.Pool, f.id, named)
	if err != nil {
		return err
	}
	found := "money of a card setup"
	if setup == uuid.Nil && named != uuid.Nil {
		if found = "money of a card setup that the books had lost"; r.Apply {
			if setup, err = r.adoptSetup(ctx, f, named); err != nil {
				return err
			}
		}
	}
	for _, p := range f.payments {
		if p.Status != "paid" {
			continue
		}
		if r.Apply && setup != uuid.Nil {
			if err := r.tx(ctx, func(tx pgx.Tx) error { return billing.RecordSale(ctx, tx, setup, p, f.id, "list") }); err != nil {
				return err
			}
		}
		r.report.add(RecoveryItem{
			AmountMinor: p.Amount.Minor, Currency: p.Amount.Currency, PaymentIntent: f.id, Payment: p.ID, Action: RecoverySale, Found: found,
		})
	}
	return nil
}

// adoptSetup is uuid.Nil if the provider does not show the intent, or if the
// customer is lost too.
func (r *recovery) adoptSetup(ctx context.Context, f *foundIntent, named uuid.UUID) (setup uuid.UUID, err error) {
	customer, found, err := billing.CustomerNamed(ctx, r.Pool, f.metadata["customer"])
	if err != nil || !found {
		return uuid.Nil, err
	}
	seen, _, err := r.show(ctx, f.id)
	if err != nil || seen == nil {
		return uuid.Nil, err
	}
	err = r.tx(ctx, func(tx pgx.Tx) error {
		return billing.AdoptCardSetup(ctx, tx, named, customer.ID, *seen, r.Actor, r.now)
	})
	return named, err
}

// unplaced is about money of ours that has no invoice: a period that the
// restored subscription does not have any more.
func (r *recovery) unplaced(ctx context.Context, f *foundIntent, unrecorded bool) error {
	no, _ := strconv.Atoi(f.metadata["period"]) // for whoever reads it
	for _, p := range f.payments {
		if p.Status != "paid" {
			continue
		}
		if unrecorded {
			if err := r.record(ctx, p, f.id, uuid.Nil); err != nil {
				return err
			}
		}
		r.report.add(RecoveryItem{
			Subscription: f.metadata["subscription"], PeriodNo: no, AmountMinor: p.Amount.Minor, Currency: p.Amount.Currency,
			PaymentIntent: f.id, Payment: p.ID, Action: RecoveryRecord, Found: "money that no invoice is found for",
		})
	}
	return nil
}

func (r *recovery) record(ctx context.Context, p billing.ProviderPayment, intent string, invoice uuid.UUID) error {
	if !r.Apply || p.Status != "paid" {
		return nil
	}
	return r.tx(ctx, func(tx pgx.Tx) error { return billing.RecordListed(ctx, tx, p, intent, invoice) })
}

// probe is about the invoices that no payment has led to an intent of. Where the
// provider repeats a create, the key leads to the one intent that there was or
// will be. Where it does not, one may be open that nobody can find any more, at
// the customer's bank perhaps: that is for a human.
func (r *recovery) probe(ctx context.Context) error {
	for _, c := range r.invoices {
		if c.ProviderIntentID != "" || r.done[c.InvoiceID] || c.Status == billing.InvoicePaid {
			continue
		}
		oldest := r.need.From
		if c.DueAt.After(oldest) {
			oldest = c.DueAt
		}
		var err error
		switch {
		case r.now.Sub(oldest) > keysLast:
			err = r.doubt(ctx, c, "it was due more than a day ago: the provider has forgotten what was created under its key")
		case r.report.KeysHonoured != nil && !*r.report.KeysHonoured:
			err = r.doubt(ctx, c, unprovenReason)
		default:
			err = r.probeOne(ctx, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const unprovenReason = "the provider gives a repeated create another intent: whether one was charged cannot be told"

func (r *recovery) probeOne(ctx context.Context, c *billing.Collection) error {
	request := createRequest(c, r.Environment)
	intent, err := r.Gateway.Create(ctx, request)
	var e *GatewayError
	for errors.As(err, &e) && e.Failed && c.NextCreateKey() { // a stored failure: the intent was asked for again then
		request = createRequest(c, r.Environment)
		intent, err = r.Gateway.Create(ctx, request)
	}
	switch {
	case errors.As(err, &e) && e.Refused:
		return r.doubt(ctx, c, "the provider does not repeat its create: "+e.Error())
	case err != nil:
		return fmt.Errorf("ask for the intent of invoice %s: %w", c.InvoiceID, err)
	}
	if r.report.KeysHonoured == nil {
		again, err := r.Gateway.Create(ctx, request)
		if err != nil {
			return fmt.Errorf("ask for the intent of invoice %s: %w", c.InvoiceID, err)
		}
		honoured := again.ID == intent.ID
		r.report.KeysHonoured = &honoured
		if !honoured {
			return r.doubt(ctx, c, unprovenReason)
		}
	}
	// The answer of a create may be as old as the first one.
	seen, _, err := r.Gateway.Show(ctx, intent.ID)
	if err != nil {
		return fmt.Errorf("look at intent %s: %w", intent.ID, err)
	}
	return r.adopt(ctx, c, seen)
}

// doubt leaves an invoice to a human, or open if one has decided already.
func (r *recovery) doubt(ctx context.Context, c *billing.Collection, reason string) error {
	if !r.AcceptUnproven {
		return r.review(ctx, c, "", reason)
	}
	if r.Apply {
		if err := r.tx(ctx, func(tx pgx.Tx) error {
			return billing.ReopenDoubtful(ctx, tx, c, r.Actor, "accepted without a proof: "+reason, r.now)
		}); err != nil {
			return err
		}
	}
	r.told(recoveryItem(c, "", RecoveryOpen, reason), "")
	return nil
}

func (r *recovery) review(ctx context.Context, c *billing.Collection, intent, reason string) error {
	if r.Apply {
		if err := r.tx(ctx, func(tx pgx.Tx) error { return billing.ParkDoubtful(ctx, tx, c, reason, r.now) }); err != nil {
			return err
		}
	}
	r.told(recoveryItem(c, intent, RecoveryReview, reason), "")
	return nil
}

func (r *recovery) finish(ctx context.Context) error {
	if !r.Apply || !r.report.Complete {
		return nil
	}
	return r.tx(ctx, func(tx pgx.Tx) error {
		summary := r.report
		summary.Items = nil // they are in the books, and may be many
		return billing.FinishRecovery(ctx, tx, r.Actor, r.need.Needed, summary)
	})
}

func (r *recovery) told(item RecoveryItem, payment string) {
	item.Payment = payment
	r.report.add(item)
	r.done[item.Invoice] = true
	r.Log.Info("recovery", "applied", r.Apply, "invoice", item.Invoice, "subscription", item.Subscription, "period_no", item.PeriodNo,
		"action", item.Action, "found", item.Found, "payment_intent", item.PaymentIntent, "payment", item.Payment)
}

func (r *recovery) tx(ctx context.Context, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, r.Pool, do)
}

func actionOf(j billing.Judgement) RecoveryAction {
	switch j.Ruling {
	case billing.Paid:
		return RecoveryPaid
	case billing.Park:
		return RecoveryReview
	}
	return RecoverySettle
}

// lookOnly is a gateway that has nothing to attach with.
type lookOnly struct{ gateway RecoverGateway }

func (g lookOnly) Create(ctx context.Context, r CreateRequest) (billing.ProviderIntent, error) {
	return g.gateway.Create(ctx, r)
}

func (g lookOnly) Retrieve(ctx context.Context, id string) (billing.ProviderIntent, error) {
	seen, _, err := g.gateway.Show(ctx, id)
	return seen, err
}

func (g lookOnly) Attach(context.Context, billing.Armed, time.Time) billing.Answer {
	return billing.Answer{Kind: billing.AnswerNeverSent, Reason: "a recovery attaches nothing"}
}

func (g lookOnly) CloseCheckout(ctx context.Context, session string) (bool, error) {
	return g.gateway.CloseCheckout(ctx, session)
}

func (g lookOnly) Cancel(ctx context.Context, intent string) error {
	return g.gateway.Cancel(ctx, intent)
}

func (g lookOnly) HeldUntil() time.Time { return time.Time{} }
