package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/failpoint"
)

// Why a delivery is not taken. Any other error is trouble of our own, and the
// provider should deliver again.
var (
	ErrNotAuthentic = errors.New("the delivery is not authentic")
	ErrNotAnEvent   = errors.New("the delivery is authentic and no event")
)

// notice is what a delivery says, in our words. It is a wake-up: what is true is
// retrieved.
type notice struct {
	EventID     string
	Type        string
	Label       string // Type, or other
	Livemode    bool
	At          time.Time
	ResourceID  string
	AboutMoney  bool  // a payment, an intent, a refund; the rest is none of ours
	Unreadable  error // what it is about cannot be read
	IntentID    string
	InvoiceID   uuid.UUID // of the metadata
	SetupID     uuid.UUID // of the metadata: a card setup
	Environment string    // of the metadata

	Paid          bool // it says that money was taken
	Payments      []billing.ProviderPayment
	RefundOf      string // the payment
	RefundedMinor int64
}

// paymentIDs are of the payments that it says were made.
func (n notice) paymentIDs() []string {
	ids := make([]string, len(n.Payments))
	for i, p := range n.Payments {
		ids[i] = p.ID
	}
	return ids
}

// What became of a delivery. Those of the second line are stored.
const (
	resultDuplicate, resultBadSignature, resultMalformed, resultError = "duplicate", "bad_signature", "malformed", "error"

	resultApplied     = "applied"            // our books say so too, or somebody looks
	resultIgnored     = "ignored"            // none of ours
	resultUnknown     = "unknown_payment"    // money of an intent that we do not know
	resultUnexpected  = "unexpected_payment" // money once more, or on an intent that is dead
	resultUnconfirmed = "unconfirmed"        // the provider never showed what its webhook said
	resultUnreadable  = "unreadable"

	otherEvent                 = "other"
	metadataOurs, metadataNone = "ours", "none"
)

var webhookResults = []string{
	resultDuplicate, resultBadSignature, resultMalformed, resultError,
	resultApplied, resultIgnored, resultUnknown, resultUnexpected, resultUnconfirmed, resultUnreadable,
}

const (
	// receiveTimeout ends before the provider's own 30 seconds: it should hear a
	// 503 rather than nothing.
	receiveTimeout = 10 * time.Second
	// defaultTolerance is how old a signature may be before it counts as stale.
	defaultTolerance = 10 * time.Minute
	// webhookPatience is how long a delivery waits for our books to know what it
	// says. The provider's own repetitions end after 2.3 hours.
	webhookPatience = 6 * time.Hour
	// mostDeliveries is how many share a transaction, and then a job. Each may be as
	// large as the server lets in.
	mostDeliveries = 100
)

// webhookLadder is how long to wait between the tries.
var webhookLadder = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}

// InboxConfig configures an Inbox. All but Metrics and Tolerance is required.
type InboxConfig struct {
	Pool     *pgxpool.Pool
	Jobs     *river.Client[pgx.Tx] // to insert with; it need not be started
	Webhooks *PayMongoWebhooks
	Log      *slog.Logger
	Now      func() time.Time // the real clock
	Metrics  *Metrics         // nil: counted for nobody
	// Tolerance is the age beyond which a signature is stale: stored and marked,
	// for the provider may deliver late with the old signature. 0: 10 minutes.
	Tolerance time.Duration
}

// Inbox takes the provider's webhooks: it checks, stores and answers. What they
// mean is found out by jobs. Safe for concurrent use.
type Inbox struct {
	cfg   InboxConfig
	store *batcher[delivery, Receipt]
}

// NewInbox makes an Inbox. It panics on a config that lacks what is required.
func NewInbox(cfg InboxConfig) *Inbox {
	if cfg.Pool == nil || cfg.Jobs == nil || cfg.Webhooks == nil || cfg.Log == nil || cfg.Now == nil {
		panic("worker: InboxConfig needs Pool, Jobs, Webhooks, Log and Now")
	}
	cfg.Tolerance = cmp.Or(cfg.Tolerance, defaultTolerance)
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	i := &Inbox{cfg: cfg}
	i.store = newBatcher(mostDeliveries, 2, i.storeBatch)
	return i
}

// Receipt is of a delivery that is durable.
type Receipt struct {
	EventID   string
	Duplicate bool
	Stale     bool

	at  time.Time // when it was received
	err error     // it is not: this one row cannot be stored
}

// delivery is authentic, and is to be stored.
type delivery struct {
	notice   notice
	signedAt time.Time
	body     []byte
}

// Receive checks the raw body of a delivery against its signature header, before
// anything of it is read, and stores it with a job, once by its id. When it
// returns without an error, the delivery is durable and may be acknowledged.
// ErrNotAuthentic and ErrNotAnEvent are for deliveries to refuse.
func (i *Inbox) Receive(ctx context.Context, header string, body []byte) (Receipt, error) {
	receipt, n, err := i.receive(ctx, header, body)
	m := i.cfg.Metrics.webhooks
	label := cmp.Or(n.Label, otherEvent)
	switch {
	case errors.Is(err, ErrNotAuthentic):
		m.events.WithLabelValues(otherEvent, resultBadSignature).Inc() // what is not authentic is not quoted
		i.cfg.Log.WarnContext(ctx, "webhook refused", "error", err)
		return Receipt{}, err
	case errors.Is(err, ErrNotAnEvent):
		m.events.WithLabelValues(otherEvent, resultMalformed).Inc()
		i.cfg.Log.ErrorContext(ctx, "webhook refused", "error", err)
	case err != nil:
		m.events.WithLabelValues(label, resultError).Inc()
		i.cfg.Log.ErrorContext(ctx, "webhook not stored", "event", n.EventID, "type", n.Type, "error", err)
	case receipt.Duplicate:
		m.events.WithLabelValues(label, resultDuplicate).Inc()
	case !n.AboutMoney:
		m.events.WithLabelValues(label, resultIgnored).Inc()
	}
	if err == nil && !receipt.Duplicate && !n.At.IsZero() {
		m.lag.Observe(max(0, receipt.at.Sub(n.At).Seconds()))
	}
	m.received.Set(float64(i.cfg.Now().Unix()))
	if err == nil {
		i.cfg.Log.InfoContext(ctx, "webhook", "event", n.EventID, "type", n.Type, "resource", n.ResourceID,
			"duplicate", receipt.Duplicate, "stale", receipt.Stale)
	}
	return receipt, err
}

func (i *Inbox) receive(ctx context.Context, header string, body []byte) (Receipt, notice, error) {
	signedAt, err := i.cfg.Webhooks.verify(header, body)
	if err != nil {
		return Receipt{}, notice{}, err
	}
	n, err := readNotice(body)
	if err != nil {
		return Receipt{}, notice{}, err
	}
	if n.Livemode != i.cfg.Webhooks.livemode() {
		return Receipt{}, notice{}, fmt.Errorf("%w: event %s has livemode %t under a signature of the other mode", ErrNotAuthentic, n.EventID, n.Livemode)
	}
	failpoint.Hit("cp21")
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	receipt, err := i.store.Do(ctx, delivery{notice: n, signedAt: signedAt, body: body})
	if err == nil {
		err = receipt.err
	}
	if err != nil {
		return Receipt{}, n, fmt.Errorf("store webhook event %s: %w", n.EventID, err)
	}
	failpoint.Hit("cp22")
	return receipt, n, nil
}

// storeBatch stores deliveries and enqueues one job for those that are new and
// about money.
func (i *Inbox) storeBatch(ctx context.Context, list []delivery) (receipts []Receipt, err error) {
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	err = retry(ctx, func() error {
		receipts = make([]Receipt, len(list))
		return pgx.BeginFunc(ctx, i.cfg.Pool, func(tx pgx.Tx) error {
			instance, err := billing.LoadInstance(ctx, tx)
			if err != nil {
				return err
			}
			return i.storeAll(ctx, tx, list, receipts, instance.Now(i.cfg.Now()))
		})
	})
	if err != nil && len(list) > 1 && !isConnection(err) {
		return one(ctx, list, i.storeBatch, func(err error) Receipt { return Receipt{err: err} })
	}
	return receipts, err
}

func (i *Inbox) storeAll(ctx context.Context, tx pgx.Tx, list []delivery, receipts []Receipt, now time.Time) error {
	events := make([]billing.InboxEvent, len(list))
	for k, d := range list {
		n := d.notice
		receipts[k] = Receipt{EventID: n.EventID, Stale: now.Sub(d.signedAt).Abs() > i.cfg.Tolerance, at: now}
		events[k] = billing.InboxEvent{
			ID: n.EventID, Type: n.Type, Livemode: n.Livemode, ResourceID: n.ResourceID, ProviderIntentID: n.IntentID,
			Stale: receipts[k].Stale, Body: d.body, ReceivedAt: now,
		}
		if !n.AboutMoney {
			events[k].Result = resultIgnored
		}
	}
	stored, err := billing.StoreInbox(ctx, tx, events)
	if err != nil {
		return err
	}
	fresh := make(map[string]bool, len(stored))
	for _, id := range stored {
		fresh[id] = true
	}
	var ids []string
	for k, e := range events {
		receipts[k].Duplicate = !fresh[e.ID]
		delete(fresh, e.ID) // delivered twice in one batch, it is new once
		if !receipts[k].Duplicate && e.Result == "" {
			ids = append(ids, e.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err = i.cfg.Jobs.InsertTx(ctx, tx, WebhookArgs{EventIDs: ids}, nil)
	return err
}

// WebhookArgs asks to process deliveries that are stored.
type WebhookArgs struct {
	EventIDs []string `json:"event_ids"`
}

// Kind implements river.JobArgs.
func (WebhookArgs) Kind() string { return "webhook" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (WebhookArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: QueueWebhook, MaxAttempts: maxAttempts}
}

type webhookWorker struct {
	river.WorkerDefaults[WebhookArgs]
	collector *Collector
}

func (w *webhookWorker) Work(ctx context.Context, job *river.Job[WebhookArgs]) error {
	defer w.collector.metrics.jobs.work(QueueWebhook)()
	failpoint.Hit("cp22b")
	return w.collector.Heed(ctx, river.ClientFromContext[pgx.Tx](ctx), job.Args.EventIDs)
}

// enqueueWebhooks finds what no job has processed: jobs get lost, and a delivery
// may have come before what it is about.
func (w *Collector) enqueueWebhooks(ctx context.Context, jobs *river.Client[pgx.Tx]) (n int, err error) {
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		instance, err := billing.LoadInstance(ctx, tx)
		if err != nil {
			return err
		}
		ids, err := billing.ClaimInbox(ctx, tx, instance.Now(w.realNow()), w.sweepSize)
		if err != nil || len(ids) == 0 {
			return err
		}
		n = len(ids)
		var params []river.InsertManyParams
		for batch := range slices.Chunk(ids, mostDeliveries) {
			params = append(params, river.InsertManyParams{Args: WebhookArgs{EventIDs: batch}})
		}
		_, err = jobs.InsertManyFastTx(ctx, tx, params)
		return err
	})
	return n, err
}

// heeded is what came of processing one delivery.
type heeded struct {
	notice  notice
	invoice uuid.UUID
	result  string // "": put off
	reason  string
	unasked bool // money came that nobody asked for
}

// Heed processes stored deliveries: it wakes the invoices that they are about, and
// keeps each until our books know what it says, or until nobody can be expected to
// find out any more. It speaks to no provider and charges nothing. Deliveries
// that are processed, or that another worker has, are left alone. An error is of
// those that it names; the others are processed.
func (w *Collector) Heed(ctx context.Context, jobs *river.Client[pgx.Tx], ids []string) error {
	left, err := w.heedTogether(ctx, ids)
	if err != nil {
		return fmt.Errorf("heed %d webhook events: %w", len(ids), err)
	}
	var errs []error
	for _, id := range left {
		if err := w.heedAlone(ctx, jobs, id); err != nil {
			errs = append(errs, fmt.Errorf("heed webhook event %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// heedTogether processes, in one transaction, the deliveries that ask for nothing:
// most tell what our books know, or are about to. It locks no invoice. The others
// are left for transactions of their own.
func (w *Collector) heedTogether(ctx context.Context, ids []string) (left []string, err error) {
	var marks []billing.InboxMark
	var done []heeded
	err = retry(ctx, func() error {
		marks, done, left = nil, nil, nil
		return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			instance, err := billing.LoadInstance(ctx, tx)
			if err != nil {
				return err
			}
			now := instance.Now(w.realNow())
			events, err := billing.TakeInbox(ctx, tx, ids)
			if err != nil {
				return err
			}
			list := make([]heeded, len(events))
			var intents, payments []string
			for i, e := range events {
				list[i] = w.read(e)
				intents = append(intents, list[i].notice.IntentID)
				payments = append(payments, list[i].notice.paymentIDs()...)
			}
			mentioned, err := billing.LoadMentioned(ctx, tx, intents)
			if err != nil {
				return err
			}
			recorded, err := billing.PaidOnRecord(ctx, tx, payments)
			if err != nil {
				return err
			}
			for i, e := range events {
				h := list[i]
				if m, ours := mentioned[h.notice.IntentID]; h.result == "" {
					if !ours || h.notice.RefundOf != "" || worthALook(m, h.notice, e) {
						left = append(left, e.ID)
						continue
					}
					if h = h.ofOurs(m, recorded, overdue(e, now)); h.unasked {
						left = append(left, e.ID)
						continue
					}
				}
				done, marks = append(done, h), append(marks, h.mark(e, now))
			}
			return billing.MarkInbox(ctx, tx, marks, now)
		})
	})
	switch {
	case err == nil:
	case isConnection(err):
		return nil, err
	default:
		return ids, nil // one of them is the reason, and will say so by itself
	}
	for i, h := range done {
		w.reportHeeded(ctx, marks[i].ID, h)
	}
	return left, nil
}

// heedAlone processes one delivery, whatever it asks for.
func (w *Collector) heedAlone(ctx context.Context, jobs *river.Client[pgx.Tx], id string) error {
	var h heeded
	found := false
	err := retry(ctx, func() error {
		return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
			instance, err := billing.LoadInstance(ctx, tx)
			if err != nil {
				return err
			}
			now := instance.Now(w.realNow())
			events, err := billing.TakeInbox(ctx, tx, []string{id})
			if found = len(events) == 1; err != nil || !found {
				return err
			}
			if h, err = w.heed(ctx, tx, jobs, events[0], now); err != nil {
				return err
			}
			return billing.MarkInbox(ctx, tx, []billing.InboxMark{h.mark(events[0], now)}, now)
		})
	})
	if err == nil && found {
		w.reportHeeded(ctx, id, h)
	}
	return err
}

func (w *Collector) reportHeeded(ctx context.Context, id string, h heeded) {
	level := slog.LevelInfo
	if h.unasked || h.result == resultUnconfirmed || h.result == resultUnreadable {
		level = slog.LevelError
	}
	n := h.notice
	args := []slog.Attr{
		slog.String("event", id), slog.String("type", n.Type), slog.String("result", cmp.Or(h.result, "put off")),
		slog.String("reason", h.reason), slog.String("payment_intent", n.IntentID),
	}
	if h.invoice != uuid.Nil {
		args = append(args, slog.Any("invoice", h.invoice))
	}
	for _, p := range n.Payments {
		args = append(args, slog.Group("payment", "id", p.ID, "amount_minor", p.Amount.Minor, "currency", p.Amount.Currency))
	}
	w.log.LogAttrs(ctx, level, "webhook heeded", args...)
	if h.result != "" {
		w.metrics.webhooks.events.WithLabelValues(cmp.Or(n.Label, otherEvent), h.result).Inc()
	}
	if h.unasked {
		w.metrics.webhooks.unknown.WithLabelValues(metadataOurs).Inc()
	}
}

// read finds out what a delivery says, and whether that is any concern of ours.
func (w *Collector) read(e billing.InboxEvent) heeded {
	n, err := readNotice(e.Body)
	h := heeded{notice: n}
	switch {
	case err != nil || n.Unreadable != nil:
		// The poll ladder finds out what it would have told.
		h.result, h.reason = resultUnreadable, errors.Join(err, n.Unreadable).Error()
	case n.Environment != "" && n.Environment != string(w.environment):
		h.result, h.reason = resultIgnored, "of an installation in environment "+n.Environment
	}
	return h
}

func (h heeded) mark(e billing.InboxEvent, now time.Time) billing.InboxMark {
	return billing.InboxMark{ID: e.ID, Result: h.result, NextTry: now.Add(webhookLadder[min(e.Tries, len(webhookLadder)-1)])}
}

// overdue tells that a delivery has waited long enough for our books to know what it says.
func overdue(e billing.InboxEvent, now time.Time) bool {
	return now.Sub(e.ReceivedAt) >= webhookPatience
}

// worthALook leaves an attach alone that is still waiting for its own answer.
func worthALook(m billing.Mentioned, n notice, e billing.InboxEvent) bool {
	return (!m.InFlight || e.Tries > 0) && m.WorthALook(n.Paid)
}

// ofOurs decides about a delivery that tells of an intent of ours. One of money is
// done only when our books know the payment: until then it is a wake-up that comes
// again.
func (h heeded) ofOurs(m billing.Mentioned, recorded map[string]bool, overdue bool) heeded {
	h.invoice = m.InvoiceID
	known := m.Status == billing.InvoicePaid
	if ids := h.notice.paymentIDs(); len(ids) > 0 {
		known = !slices.ContainsFunc(ids, func(id string) bool { return !recorded[id] })
	}
	switch {
	case !h.notice.Paid:
		h.result, h.reason = resultApplied, "the invoice is looked at, or has nothing open"
	case known:
		h.result, h.reason = resultApplied, "on record"
	case m.Superseded, m.Status == billing.InvoicePaid:
		// Paid twice, or on an intent that the provider had shown as cancelled.
		h.result, h.unasked = resultUnexpected, true
		h.reason = "a payment that nobody asked for, on an intent of this invoice"
	case overdue:
		h.result, h.reason = resultUnconfirmed, "the provider does not show the payment that its webhook told of"
	default:
		h.reason = "the invoice is looked at, the payment is not on record yet"
	}
	return h
}

// heed decides about one delivery, in the transaction that has it locked.
func (w *Collector) heed(ctx context.Context, tx pgx.Tx, jobs *river.Client[pgx.Tx], e billing.InboxEvent, now time.Time) (heeded, error) {
	h := w.read(e)
	if h.result != "" {
		return h, nil
	}
	n := h.notice
	if n.RefundOf != "" {
		found, err := billing.RecordRefund(ctx, tx, n.RefundOf, n.RefundedMinor)
		if err != nil || found {
			h.result, h.reason = resultApplied, "refund noted"
			return h, err
		}
	}
	m, ours, found, err := billing.FindMentioned(ctx, tx, n.IntentID, n.InvoiceID)
	if err != nil {
		return h, err
	}
	if found {
		h.invoice = m.InvoiceID
		if worthALook(m, n, e) {
			if err := billing.Wake(ctx, tx, m, now); err != nil {
				return h, err
			}
			if _, err := jobs.InsertTx(ctx, tx, ReconcileArgs{InvoiceID: m.InvoiceID, Webhook: true}, nil); err != nil {
				return h, err
			}
		}
	}
	if ours {
		return w.heedOurs(ctx, tx, h, m, overdue(e, now), now)
	}
	setup, err := billing.CardSetupOf(ctx, tx, n.IntentID, n.SetupID)
	if err != nil {
		return h, err
	}
	if setup != uuid.Nil {
		// The merchant's own sale. The next sweep looks at it, and finds the card.
		h.result, h.reason = resultApplied, "of card setup "+setup.String()
		if n.Paid {
			err = billing.WakeCardSetup(ctx, tx, setup, now)
		}
		return h, err
	}
	if found && n.Paid && n.Environment != "" {
		if err := w.parkDoubtful(ctx, tx, m, now); err != nil {
			return h, err
		}
	}
	return w.heedUnknown(ctx, tx, h, overdue(e, now))
}

// heedOurs puts money that nobody asked for on record, and its invoice in front of a human.
func (w *Collector) heedOurs(ctx context.Context, tx pgx.Tx, h heeded, m billing.Mentioned, overdue bool, now time.Time) (heeded, error) {
	recorded, err := billing.PaidOnRecord(ctx, tx, h.notice.paymentIDs())
	if err != nil {
		return h, err
	}
	h = h.ofOurs(m, recorded, overdue)
	if !h.unasked {
		return h, nil
	}
	for _, p := range h.notice.Payments {
		if err := billing.RecordUnasked(ctx, tx, p, h.notice.IntentID, &m.InvoiceID); err != nil {
			return h, err
		}
	}
	return h, billing.ParkMentioned(ctx, tx, m, h.reason, now)
}

// parkDoubtful is about an invoice that another intent than its own is said to
// have paid. An attach goes only to an intent that is on record, so the books
// have lost it: a backup was put back and nobody noticed. A charge would be the
// second one. While an attempt is open its outcome is found out first.
func (w *Collector) parkDoubtful(ctx context.Context, tx pgx.Tx, m billing.Mentioned, now time.Time) error {
	if m.WaitingFor == billing.WaitingForProvider {
		return nil
	}
	return billing.ParkMentioned(ctx, tx, m, "PayMongo tells of a payment for this invoice on an intent that is not in the books; run singil recover", now)
}

// heedUnknown is about an intent that we do not know. Perhaps we shall: the
// delivery may be faster than our commit.
func (w *Collector) heedUnknown(ctx context.Context, tx pgx.Tx, h heeded, overdue bool) (heeded, error) {
	n := h.notice
	switch marked := n.Environment != "" || h.invoice != uuid.Nil; {
	case !marked, !n.Paid && overdue:
		// The account is the merchant's: others take payments on it too. An intent of
		// ours is on record before money can move on it.
		h.result, h.reason = resultIgnored, "not about an intent of ours"
		if n.Paid {
			w.metrics.webhooks.unknown.WithLabelValues(metadataNone).Inc()
		}
		return h, nil
	case !overdue:
		h.reason = "an intent that is not known yet"
		return h, nil
	}
	h.result, h.unasked, h.reason = resultUnknown, true, "money was taken on an intent that we do not know"
	if n.SetupID != uuid.Nil {
		h.reason = "money of a card setup that the books have lost; run singil recover"
		return h, nil // no invoice's, and a recovery places it
	}
	for _, p := range n.Payments {
		if err := billing.RecordUnasked(ctx, tx, p, n.IntentID, nil); err != nil {
			return h, err
		}
	}
	return h, nil
}
