package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Settlement is a judgement to be stored.
type Settlement struct {
	// Collection as it was loaded, before or after the attempt was armed.
	Collection *Collection
	// Attempt that the judgement is about; zero: none is open.
	Attempt uuid.UUID
	// Fence the attempt was armed under. A negative under an older fence is
	// about an older attempt and is dropped.
	Fence     int64
	Judgement Judgement
	// Seen is the provider's intent, if it was shown: its payments are recorded.
	Seen   *ProviderIntent
	Source string // attach, retrieve, webhook, list
	// CreateFailed: the provider answered the create of this intent with a failure.
	CreateFailed bool
	// Decision of Deferred: what dunning says about an invoice that was due and
	// is not attempted.
	Decision *Decision
}

// Settled is what a settlement came to.
type Settled struct {
	Applied       bool // false: another worker had settled it, or had moved on
	InvoiceStatus string
	NextAttemptAt time.Time
	Recovered     bool     // paid after a decline
	Retry         int      // of a recovered invoice: which retry paid it, from 1
	Final         bool     // dunning has ended
	Cause         EndCause // of a final one
	Reason        string
}

// pollLadder is how long to wait before the next look at an open outcome.
var pollLadder = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 24 * time.Hour, 24 * time.Hour}

// PatienceWithProvider is how long an outcome may stay open before a human looks.
const PatienceWithProvider = 72 * time.Hour

// pollsInPatience is how many looks the ladder has in PatienceWithProvider.
const pollsInPatience = 6

// nextPoll is when to look again after n looks.
func nextPoll(n int, now time.Time) time.Time {
	return now.Add(pollLadder[min(n, len(pollLadder)-1)])
}

const sqlSettleLockSubscriptions = `
SELECT
FROM singil.subscriptions s
WHERE s.id = ANY ($1)
ORDER BY s.id
FOR NO KEY UPDATE`

const sqlSettleLock = `
SELECT i.id, i.status, i.poll_count, i.waiting_for, pi.id, pi.state, pi.fence, COALESCE(pi.provider_intent_id, ''), pi.shared_at
FROM singil.invoices i
JOIN singil.payment_intents pi ON pi.invoice_id = i.id
WHERE pi.id = ANY ($1)
ORDER BY i.id
FOR UPDATE OF i, pi`

// A statement of its own: a subquery beside FOR UPDATE would still see what was
// true before the wait for the lock. The invoice is what attempts are indexed by.
const sqlSettleAttempts = `
SELECT DISTINCT ON (a.payment_intent_id) a.payment_intent_id, a.id, a.state, a.armed_at, a.payment_method_id
FROM singil.attempts a
WHERE a.invoice_id = ANY ($2) AND a.payment_intent_id = ANY ($1)
ORDER BY a.payment_intent_id, a.state IN ('armed', 'review', 'needs_action') DESC, a.no DESC`

// lockedRow is what is true when the rows are locked.
type lockedRow struct {
	status      string
	polls       int
	waitingFor  WaitingFor
	intent      uuid.UUID
	intentState IntentState
	fence       int64
	providerID  string
	sharedAt    time.Time // with the customer's page; zero: never

	// The open attempt, else the last one, else zero.
	attempt      uuid.UUID
	attemptState AttemptState
	armedAt      time.Time
	card         uuid.UUID
}

func (r lockedRow) open() bool { return r.attemptState.open() }

// takes tells whether a settlement that is no success may be stored: only if it
// is about the attempt that is open, under the same fence, or about there being
// none. A dead intent takes nothing: another worker that saw the same has opened
// the next generation.
func (r lockedRow) takes(s Settlement) bool {
	switch {
	case r.status != InvoiceOpen, r.intentState == IntentDead:
		return false
	case s.Attempt == uuid.Nil:
		return !r.open() && r.fence == s.Collection.Fence
	}
	return r.isAbout(s)
}

// isAbout tells whether a settlement is about the open attempt, under its fence.
func (r lockedRow) isAbout(s Settlement) bool {
	return r.open() && r.attempt == s.Attempt && r.fence == s.Fence
}

// endsInReview tells whether a settlement may end the open attempt of an invoice
// that is in front of a human.
func (r lockedRow) endsInReview(s Settlement) bool {
	return r.status == InvoiceReview && r.intentState != IntentDead && r.isAbout(s)
}

// Settle stores judgements, all in tx, one result a settlement in the same
// order. A success is stored whoever brings it and whenever it comes; anything
// else only if the attempt is still open under the same fence. In review an attempt
// is ended by proof, and the invoice stays where it is. Of several about one
// invoice one is applied: a success, else the first that may be.
//
// Durable when tx commits: the outcome, the invoice's next wake-up, the
// subscription's state, the provider's payments and the outbox events.
func Settle(ctx context.Context, tx pgx.Tx, list []Settlement, now time.Time, holidays Holidays) ([]Settled, error) {
	locked, err := lockForSettle(ctx, tx, list)
	if err != nil {
		return nil, fmt.Errorf("settle %d invoices: %w", len(list), err)
	}
	w := newWrites(now, holidays)
	results := make([]Settled, len(list))
	for _, s := range list {
		w.record(s)
	}
	became := map[uuid.UUID]string{} // invoices that are settled: a second one finds another world, next time
	for _, success := range []bool{true, false} {
		for i, s := range list {
			row, found := locked[s.Collection.IntentID]
			if !found || (s.Judgement.Ruling == Paid) != success {
				continue
			}
			if status := became[s.Collection.InvoiceID]; status != "" {
				results[i] = Settled{InvoiceStatus: status, Reason: "settled by another of the same batch"}
				continue
			}
			if results[i] = w.settle(s, row); results[i].Applied {
				became[s.Collection.InvoiceID] = results[i].InvoiceStatus
			}
		}
	}
	if err := w.flush(ctx, tx); err != nil {
		return nil, fmt.Errorf("settle %d invoices: %w", len(list), err)
	}
	return results, nil
}

// lockForSettle locks in the order of the house, subscriptions, invoices, intents,
// in one round trip, and reads what the locks protect.
func lockForSettle(ctx context.Context, tx pgx.Tx, list []Settlement) (map[uuid.UUID]lockedRow, error) {
	subscriptions, invoices, intents := make([]uuid.UUID, len(list)), make([]uuid.UUID, len(list)), make([]uuid.UUID, len(list))
	for i, s := range list {
		subscriptions[i], invoices[i], intents[i] = s.Collection.SubscriptionID, s.Collection.InvoiceID, s.Collection.IntentID
	}
	locked := make(map[uuid.UUID]lockedRow, len(list))
	batch := &pgx.Batch{}
	batch.Queue(sqlSettleLockSubscriptions, subscriptions)
	batch.Queue(sqlSettleLock, intents).Query(func(rows pgx.Rows) error {
		var r lockedRow
		var invoice uuid.UUID
		var shared *time.Time
		_, err := pgx.ForEachRow(rows, []any{&invoice, &r.status, &r.polls, &r.waitingFor, &r.intent, &r.intentState, &r.fence, &r.providerID, &shared}, func() error {
			r.sharedAt = orZero(shared)
			locked[r.intent] = r
			return nil
		})
		return err
	})
	batch.Queue(sqlSettleAttempts, intents, invoices).Query(func(rows pgx.Rows) error {
		var a lockedRow
		_, err := pgx.ForEachRow(rows, []any{&a.intent, &a.attempt, &a.attemptState, &a.armedAt, &a.card}, func() error {
			r := locked[a.intent]
			r.attempt, r.attemptState, r.armedAt, r.card = a.attempt, a.attemptState, a.armedAt, a.card
			locked[a.intent] = r
			return nil
		})
		return err
	})
	return locked, tx.SendBatch(ctx, batch).Close()
}

// settle decides what one judgement changes.
func (w *writes) settle(s Settlement, row lockedRow) Settled {
	c, j := s.Collection, s.Judgement
	if j.Ruling == Paid {
		return w.paid(s, row)
	}
	if row.endsInReview(s) {
		return w.endInReview(s, row)
	}
	if !row.takes(s) {
		return Settled{InvoiceStatus: row.status, Reason: "settled meanwhile, or about an older attempt"}
	}
	switch j.Ruling {
	case Declined:
		w.closeAttempt(s.Attempt, AttemptDeclined, j)
		return w.dun(s, row, j.Code)
	case CardGone, NoEffect:
		w.closeAttempt(s.Attempt, AttemptNoEffect, j)
		return w.dunNoEffect(s, row)
	case Fault:
		w.closeAttempt(s.Attempt, AttemptNoEffect, j)
		w.breaker = j.Reason
		return w.again(c, w.now.Add(Lease), j.Reason)
	case Wait:
		if j.WaitingFor == WaitingForCustomer {
			return w.needsCustomer(s, row)
		}
		return w.lookLater(s, row)
	case Unknown:
		return w.lookLater(s, row)
	case Dead:
		return w.dead(s, row)
	case Park:
		if j.StopAll {
			w.breaker = j.Reason
		}
		return w.park(s, row, j.Reason)
	case Deferred:
		if s.CreateFailed {
			w.createFailed = append(w.createFailed, row.intent)
		}
		return w.apply(s, row, *s.Decision, "")
	}
	return Settled{InvoiceStatus: row.status, Reason: j.Reason}
}

// paid stores a success. It is believed whatever our own records say.
func (w *writes) paid(s Settlement, row lockedRow) Settled {
	c := s.Collection
	if row.status == InvoicePaid {
		return Settled{InvoiceStatus: InvoicePaid, Reason: "already paid"}
	}
	// What is over on a shared intent stays as it was: the customer has paid it.
	if row.open() || row.attempt != uuid.Nil && row.attemptState != AttemptSucceeded && row.sharedAt.IsZero() {
		w.closeAttempt(row.attempt, AttemptSucceeded, s.Judgement)
	}
	switch row.intentState {
	case IntentReady, IntentReview:
		w.intents = append(w.intents, intentChange{ID: row.intent, State: IntentSucceeded})
	}
	if row.status == InvoiceVoid {
		// The customer paid what we had called off. A human decides about a refund, and
		// is told once, however many looks find it.
		if row.intentState != IntentSucceeded {
			w.emit(c, "invoice.paid_after_void", fields{"payment_id": s.Judgement.Payment.ID})
		}
		return Settled{Applied: true, InvoiceStatus: InvoiceVoid, Reason: "paid after it was void"}
	}
	w.invoices = append(w.invoices, invoiceChange{
		ID: c.InvoiceID, Status: InvoicePaid, WaitingFor: WaitingForSchedule, PaidAt: &w.now, PaymentID: s.Judgement.Payment.ID,
	})
	w.recovered = append(w.recovered, c.SubscriptionID)
	w.emit(c, "invoice.paid", fields{"payment_id": s.Judgement.Payment.ID, "payment_intent_id": row.providerID})
	declined, before := false, 0
	for _, a := range c.Attempts {
		declined = declined || a.State == AttemptDeclined
		if a.State != AttemptNoEffect && a.ID != row.attempt { // no retry of what never reached a card
			before++
		}
	}
	return Settled{Applied: true, InvoiceStatus: InvoicePaid, Recovered: declined, Retry: max(1, before), Reason: "paid"}
}

// again leaves the invoice open and looks again at a time.
func (w *writes) again(c *Collection, at time.Time, reason string) Settled {
	w.invoices = append(w.invoices, invoiceChange{
		ID: c.InvoiceID, Status: InvoiceOpen, NextAttemptAt: &at, WaitingFor: WaitingForSchedule, Reason: reason,
	})
	return Settled{Applied: true, InvoiceStatus: InvoiceOpen, NextAttemptAt: at, Reason: reason}
}

// lookLater leaves the attempt open and climbs the ladder; at its end a human
// has to look.
func (w *writes) lookLater(s Settlement, row lockedRow) Settled {
	c := s.Collection
	if row.open() && w.now.Sub(row.armedAt) > PatienceWithProvider {
		return w.park(s, row, "the outcome is still open after "+PatienceWithProvider.String()+": "+s.Judgement.Reason)
	}
	polls := row.polls
	if row.waitingFor != WaitingForProvider {
		polls = 0
	}
	if !row.open() && polls > pollsInPatience { // of what the customer's page has begun
		return w.park(s, row, fmt.Sprintf("the outcome is still open after %d looks: %s", polls, s.Judgement.Reason))
	}
	at := nextPoll(polls, w.now)
	w.invoices = append(w.invoices, invoiceChange{
		ID: c.InvoiceID, Status: InvoiceOpen, NextAttemptAt: &at, WaitingFor: WaitingForProvider, Polls: polls + 1, Reason: s.Judgement.Reason,
	})
	return Settled{Applied: true, InvoiceStatus: InvoiceOpen, NextAttemptAt: at, Reason: s.Judgement.Reason}
}

// needsCustomer waits for the customer, tells the merchant once, and looks now
// and then whether the customer has paid, until the dunning policy ends it.
func (w *writes) needsCustomer(s Settlement, row lockedRow) Settled {
	c, j := s.Collection, s.Judgement
	if s.Attempt != uuid.Nil && row.attemptState != AttemptNeedsAction {
		w.closeAttempt(s.Attempt, AttemptNeedsAction, j)
	}
	policy, zone, err := c.policy()
	if err != nil {
		return w.park(s, row, err.Error())
	}
	facts := c.facts()
	switch {
	case s.Attempt == uuid.Nil && !row.sharedAt.IsZero(): // the page has sent the customer there, who is not waited for without end
		facts.settleFact(PastAttempt{ArmedAt: row.sharedAt, State: AttemptNeedsAction})
	case row.attempt != uuid.Nil:
		facts.settleFact(PastAttempt{CardID: row.card, ArmedAt: row.armedAt, State: AttemptNeedsAction})
	}
	decision := policy.NextAttempt(facts, w.now, zone, w.holidays)
	if decision.Action == DunningActionEnd {
		return w.apply(s, row, decision, "")
	}
	polls := row.polls
	if row.waitingFor != WaitingForCustomer {
		polls = 0
	}
	// On a shared intent without an attempt of ours it is the page that sent the customer there.
	if row.waitingFor != WaitingForCustomer && (s.Attempt != uuid.Nil || row.sharedAt.IsZero()) {
		w.emit(c, "invoice.needs_action", fields{"url": j.ActionURL, "reason": j.Reason, "payment_intent_id": row.providerID})
		w.overdue = append(w.overdue, c.SubscriptionID)
	}
	at := nextPoll(polls, w.now)
	if decision.Action == DunningActionNeedsCustomer && decision.At.After(w.now) && decision.At.Before(at) {
		at = decision.At
	}
	w.invoices = append(w.invoices, invoiceChange{
		ID: c.InvoiceID, Status: InvoiceOpen, NextAttemptAt: &at, WaitingFor: WaitingForCustomer, Polls: polls + 1,
		ActionURL: j.ActionURL, Reason: j.Reason,
	})
	return Settled{Applied: true, InvoiceStatus: InvoiceOpen, NextAttemptAt: at, Reason: j.Reason}
}

// dead closes an intent that the provider shows as cancelled, and opens the
// next generation.
func (w *writes) dead(s Settlement, row lockedRow) Settled {
	c := s.Collection
	if row.open() {
		w.closeAttempt(row.attempt, AttemptNoEffect, s.Judgement)
	}
	w.intents = append(w.intents, intentChange{ID: row.intent, State: IntentDead, Proof: s.Seen})
	w.newIntents = append(w.newIntents, newIntent{
		InvoiceID: c.InvoiceID, Amount: c.Amount, Livemode: c.Livemode, Generation: c.Generation + 1, Key: nextKey(c.CreateKey, c.Generation),
	})
	return w.again(c, w.now, s.Judgement.Reason)
}

// park puts the invoice in front of a human.
func (w *writes) park(s Settlement, row lockedRow, reason string) Settled {
	if row.open() && row.attemptState != AttemptReview && !w.closed[row.attempt] {
		w.closeAttempt(row.attempt, AttemptReview, s.Judgement)
	}
	if row.intentState == IntentReady { // one that is not created yet has no id, and stays as it is
		w.intents = append(w.intents, intentChange{ID: row.intent, State: IntentReview})
	}
	w.invoices = append(w.invoices, invoiceChange{ID: s.Collection.InvoiceID, Status: InvoiceReview, WaitingFor: WaitingForSchedule, Reason: reason})
	w.emit(s.Collection, "invoice.review", fields{"reason": reason})
	return Settled{Applied: true, InvoiceStatus: InvoiceReview, Reason: reason}
}

// endInReview ends the attempt of an invoice that is in front of a human, if it is
// proven to have taken nothing: then the human may void it. Nothing else changes,
// and nothing is attempted again.
func (w *writes) endInReview(s Settlement, row lockedRow) Settled {
	switch j := s.Judgement; j.Ruling {
	case Declined:
		w.closeAttempt(s.Attempt, AttemptDeclined, j)
		w.declined(row, j.Code)
	case NoEffect, Dead:
		w.closeAttempt(s.Attempt, AttemptNoEffect, j)
	default:
		return Settled{InvoiceStatus: row.status, Reason: "in review, and what became of the attempt is not proven: " + j.Reason}
	}
	return Settled{Applied: true, InvoiceStatus: row.status, Reason: "in review, and the attempt is over: " + s.Judgement.Reason}
}

// closeAttempt moves an attempt on; armed to review and needs_action stay open.
func (w *writes) closeAttempt(id uuid.UUID, state AttemptState, j Judgement) {
	evidence, err := json.Marshal(map[string]string{"kind": j.Evidence, "reason": j.Reason, "payment": j.Payment.ID})
	if err != nil {
		panic(err) // a map of strings
	}
	change := attemptChange{ID: id, State: state, Code: string(j.Code), PaymentID: j.Payment.ID, Evidence: evidence}
	if state != AttemptReview && state != AttemptNeedsAction {
		change.SettledAt = &w.now
	}
	w.attempts = append(w.attempts, change)
	w.closed[id] = true
}
