package billing

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// The charge protocol, as pure functions. What a worker knows of an invoice is
// a Standing; Next says what to do about it; Judge and Settle say what an
// answer of the provider means. Nothing here reads a clock, a database or a
// network, and nothing else decides these questions.

// ProviderStatus is the state of a payment intent at the provider.
type ProviderStatus string

// The states of a payment intent. Succeeded and cancelled are final.
const (
	ProviderAwaitingMethod  ProviderStatus = "awaiting_payment_method"
	ProviderAwaitingAction  ProviderStatus = "awaiting_next_action"
	ProviderProcessing      ProviderStatus = "processing"
	ProviderAwaitingCapture ProviderStatus = "awaiting_capture"
	ProviderSucceeded       ProviderStatus = "succeeded"
	ProviderCancelled       ProviderStatus = "cancelled"
)

// ProviderIntent is a payment intent as the provider shows it.
type ProviderIntent struct {
	ID        string
	Status    ProviderStatus
	Amount    Money
	Livemode  bool
	Payments  []ProviderPayment
	ActionURL string // where the customer must go; with ProviderAwaitingAction
}

// ProviderPayment is money that the provider took, or failed to take.
type ProviderPayment struct {
	ID         string
	Status     string // paid, failed, pending
	Amount     Money
	Livemode   bool
	FailedCode DeclineCode
	At         time.Time // by the provider's clock
}

// Paid returns the first paid payment.
func (p ProviderIntent) Paid() (ProviderPayment, bool) {
	for _, pay := range p.Payments {
		if pay.Status == "paid" {
			return pay, true
		}
	}
	return ProviderPayment{}, false
}

// Standing is what one transaction saw of an invoice and of its live payment
// intent: all that the protocol decides from.
type Standing struct {
	InvoiceOpen bool
	Amount      Money
	Livemode    bool

	IntentState      IntentState
	ProviderIntentID string // empty until it is stored

	// Attempted tells that an attempt was ever armed on this intent, so that
	// money may have moved on it, that a recovery adopted the intent, or that it
	// is shared.
	Attempted bool
	// Shared tells that the customer's page has the intent: what happens on it is
	// not of our attempts alone.
	Shared bool
	// Checkout is the provider's id of the hosted checkout session that made this
	// intent: its page attaches, and we never do. Empty: the intent is ours.
	Checkout string
	// Open is the attempt whose outcome is open, or nil.
	Open *OpenAttempt
	// Earlier counts the attempts on this intent that are over.
	Earlier int
	// Known holds the ids of this intent's payments that are on record.
	Known map[string]bool
}

// OpenAttempt is an attempt that was armed and whose outcome is not known.
type OpenAttempt struct {
	ID           uuid.UUID
	State        AttemptState // armed, needs_action or review
	ArmedAt      time.Time
	SettledAfter time.Time // from then on an attach that shows no effect has none
}

// IntentState is the state of our record of a payment intent.
type IntentState string

// The states of a payment intent's record. Dead needs proof from the provider.
const (
	IntentCreating  IntentState = "creating" // no id of the provider's yet
	IntentReady     IntentState = "ready"
	IntentSucceeded IntentState = "succeeded"
	IntentDead      IntentState = "dead"
	IntentReview    IntentState = "review"
)

// AttemptState is the state of an attempt.
type AttemptState string

// The states of an attempt. Declined and no_effect may still become succeeded
// when the provider says so late; nothing else moves back.
const (
	AttemptArmed       AttemptState = "armed"
	AttemptSucceeded   AttemptState = "succeeded"
	AttemptDeclined    AttemptState = "declined"
	AttemptNeedsAction AttemptState = "needs_action"
	AttemptNoEffect    AttemptState = "no_effect"
	AttemptReview      AttemptState = "review"
)

// open tells whether the outcome is still to come.
func (s AttemptState) open() bool {
	return s == AttemptArmed || s == AttemptNeedsAction || s == AttemptReview
}

// Step is what to do next about an invoice.
type Step string

// The steps. A worker does one, stores what came of it, and asks again.
const (
	StepStop   Step = "stop"   // nothing to do: not open, or in front of a human
	StepCreate Step = "create" // create the intent at the provider; moves no money
	StepLook   Step = "look"   // retrieve the intent: something was attempted on it
	StepExpire Step = "expire" // close the hosted checkout that the intent is of, then look
	StepArm    Step = "arm"    // write the attempt down, commit, then attach
)

// Next decides the next step. Arming comes only after a look, once anything
// was attempted; worker passes looked when it has just seen a Judgement Free.
// On a hosted checkout's intent nothing is armed: it is closed, and seen cancelled.
func (s Standing) Next(looked bool) Step {
	switch {
	case !s.InvoiceOpen, s.IntentState == IntentReview, s.IntentState == IntentSucceeded, s.IntentState == IntentDead:
		return StepStop
	case s.ProviderIntentID == "":
		return StepCreate
	case s.Open != nil, s.Attempted && !looked:
		return StepLook
	case s.Checkout != "":
		return StepExpire
	}
	return StepArm
}

// CheckoutOpen is the judgement about a hosted checkout that was asked to close
// and that no look has shown to be closed: another look, later, and no other
// intent before that.
func CheckoutOpen() Judgement {
	return Judgement{Ruling: Unknown, Reason: "the hosted checkout is not closed yet", Evidence: "retrieve"}
}

// Ruling is what an answer of the provider means for an invoice.
type Ruling string

// The rulings.
const (
	Paid     Ruling = "paid"      // money moved: Payment tells
	Declined Ruling = "declined"  // the open attempt is over: Code tells
	NoEffect Ruling = "no_effect" // the open attempt moved nothing and never will
	Free     Ruling = "free"      // nothing is open: an attach may be armed
	Wait     Ruling = "wait"      // come back later; WaitingFor tells for whom
	Unknown  Ruling = "unknown"   // the outcome of the attach is not known: look, later
	Dead     Ruling = "dead"      // cancelled at the provider: the next generation may begin
	Fault    Ruling = "fault"     // our account or configuration; the customer did nothing
	CardGone Ruling = "card_gone" // the provider does not know the card, or does not take it
	Park     Ruling = "review"    // a human must look: Reason tells
	Deferred Ruling = "deferred"  // nothing was attempted: the dunning decision tells
)

// Judgement is a ruling with what belongs to it.
type Judgement struct {
	Ruling     Ruling
	Payment    ProviderPayment // of Paid, and of Declined where the provider shows one
	Code       DeclineCode     // of Declined
	WaitingFor WaitingFor      // of Wait
	ActionURL  string          // of Wait for the customer
	Reason     string          // for the log, the audit and the operator
	Evidence   string          // kind of evidence: retrieve, attach, never_sent, refused
	StopAll    bool            // of Park: nothing may be charged until an operator has looked
}

// WaitingFor says who moves next.
type WaitingFor string

// Who an open invoice waits for.
const (
	WaitingForSchedule WaitingFor = "schedule"
	WaitingForProvider WaitingFor = "provider"
	WaitingForCustomer WaitingFor = "customer"
)

// Why an invoice waits whose outcome the provider knows and has not told yet. The
// watch tells these from what is not known.
const (
	ReasonProcessing    = "processing at the provider"
	ReasonPaymentToCome = "succeeded, and the provider shows no payment yet"
)

// ErrOtherMode is the provider answering from the other world: live money where
// a test was asked for, or the other way round.
var ErrOtherMode = errors.New("the provider answers in the other mode")

// Check compares what the provider shows with what was asked for. Any
// difference is a bug or a wrong account: see Parked.
func (s Standing) Check(seen ProviderIntent) error {
	switch {
	case seen.ID == "" || s.ProviderIntentID != "" && seen.ID != s.ProviderIntentID:
		return fmt.Errorf("the provider answered with intent %q instead of %q", seen.ID, s.ProviderIntentID)
	case seen.Amount != s.Amount:
		return fmt.Errorf("the provider's intent %s is over %s instead of %s", seen.ID, seen.Amount, s.Amount)
	case seen.Livemode != s.Livemode:
		return fmt.Errorf("%w: intent %s has livemode %t instead of %t", ErrOtherMode, seen.ID, seen.Livemode, s.Livemode)
	}
	return nil
}

// Parked is the judgement about an intent that Check refused.
func Parked(err error) Judgement {
	return Judgement{Ruling: Park, Reason: err.Error(), Evidence: "retrieve", StopAll: errors.Is(err, ErrOtherMode)}
}

// Judge says what a retrieved intent means.
//
// A success is believed from anywhere at any time. A negative needs evidence:
// a failed payment that is not on record yet and no earlier attempt's, or that
// nothing has shown until the attempt's SettledAfter.
func (s Standing) Judge(seen ProviderIntent, now time.Time) Judgement {
	if err := s.Check(seen); err != nil {
		return Parked(err)
	}
	switch seen.Status {
	case ProviderSucceeded:
		return s.judgePaid(seen)
	case ProviderProcessing:
		return Judgement{Ruling: Wait, WaitingFor: WaitingForProvider, Reason: ReasonProcessing, Evidence: "retrieve"}
	case ProviderAwaitingAction:
		return Judgement{
			Ruling: Wait, WaitingFor: WaitingForCustomer, ActionURL: seen.ActionURL,
			Reason: "the customer must authorise the payment", Evidence: "retrieve",
		}
	case ProviderAwaitingMethod:
		return s.judgeIdle(seen, now)
	case ProviderCancelled:
		if s.Open != nil && now.Before(s.Open.SettledAfter) {
			return Judgement{Ruling: Unknown, Reason: "cancelled at the provider while an attempt is open", Evidence: "retrieve"}
		}
		return Judgement{Ruling: Dead, Reason: "cancelled at the provider", Evidence: "retrieve"}
	}
	return Judgement{Ruling: Park, Reason: fmt.Sprintf("the provider's intent %s has status %q, which is not expected", seen.ID, seen.Status), Evidence: "retrieve"}
}

func (s Standing) judgePaid(seen ProviderIntent) Judgement {
	pay, found := seen.Paid()
	switch {
	case !found:
		return Judgement{Ruling: Wait, WaitingFor: WaitingForProvider, Reason: ReasonPaymentToCome, Evidence: "retrieve"}
	case pay.Amount != s.Amount || pay.Livemode != s.Livemode:
		return Judgement{
			Ruling: Park, Payment: pay, Evidence: "retrieve",
			Reason: fmt.Sprintf("payment %s is over %s (livemode %t) instead of %s (livemode %t)", pay.ID, pay.Amount, pay.Livemode, s.Amount, s.Livemode),
		}
	}
	return Judgement{Ruling: Paid, Payment: pay, Reason: "paid", Evidence: "retrieve"}
}

func (s Standing) judgeIdle(seen ProviderIntent, now time.Time) Judgement {
	if s.Open == nil {
		return Judgement{Ruling: Free, Reason: "nothing is open at the provider", Evidence: "retrieve"}
	}
	failed, found := s.newFailure(seen)
	switch {
	case found && !s.Shared:
		return Judgement{Ruling: Declined, Payment: failed, Code: failed.FailedCode, Reason: "the provider shows a failed payment", Evidence: "retrieve"}
	case found && s.Open.State == AttemptNeedsAction:
		// Whichever card failed: this attempt was waiting for the customer, and waits no more.
		return Judgement{Ruling: Declined, Code: declineNotAuthorised, Reason: "the customer did not authorise it", Evidence: "retrieve"}
	}
	// A failure on a shared intent may be of the customer's own card: it says nothing of ours.
	if now.Before(s.Open.SettledAfter) {
		return Judgement{Ruling: Unknown, Reason: "the provider shows nothing yet", Evidence: "retrieve"}
	}
	return Judgement{Ruling: NoEffect, Reason: "the provider shows nothing, long after the attach was sent", Evidence: "retrieve"}
}

// providerClock is how far behind ours the provider's clock is taken to be.
const providerClock = 5 * time.Second

// newFailure finds the latest failed payment that is not on record and that may be
// the open attempt's. Ids are compared, not times, because two clocks are involved;
// but where an earlier attempt has no failure on record, a look before the arming
// may have been answered with an older state, and what failed before the arming is
// taken for that one's. What is passed over so leaves the outcome open until
// SettledAfter: at worst a decline is recorded as without effect.
func (s Standing) newFailure(seen ProviderIntent) (ProviderPayment, bool) {
	var latest ProviderPayment
	found, recorded := false, 0
	for _, pay := range seen.Payments {
		if pay.Status == "failed" && s.Known[pay.ID] {
			recorded++
		}
	}
	armed := s.Open.ArmedAt.Truncate(time.Second).Add(-providerClock) // the provider's times are whole seconds
	for _, pay := range seen.Payments {
		older := recorded < s.Earlier && !pay.At.IsZero() && pay.At.Before(armed)
		if pay.Status == "failed" && !s.Known[pay.ID] && !older && (!found || !pay.At.Before(latest.At)) {
			latest, found = pay, true
		}
	}
	return latest, found
}

// Answer is what came of one attach.
type Answer struct {
	Kind   AnswerKind
	Intent ProviderIntent // of AnswerIntent
	Code   DeclineCode    // of AnswerDeclined
	Reason string         // one word for logs and metrics
}

// AnswerKind tells the answers to an attach apart.
type AnswerKind string

// The kinds of answers.
const (
	AnswerIntent    AnswerKind = "intent"     // the intent, in some state
	AnswerDeclined  AnswerKind = "declined"   // the card was refused, for certain
	AnswerNeverSent AnswerKind = "never_sent" // the request provably did not leave
	AnswerCardGone  AnswerKind = "card_gone"  // the payment method is unknown or not allowed
	AnswerNotHere   AnswerKind = "not_here"   // this account may not charge without the customer
	AnswerFault     AnswerKind = "fault"      // 401, 403, a refused parameter: ours to mend
	AnswerUnknown   AnswerKind = "unknown"    // everything else
)

// Settle says what the answer to the attach of the open attempt means. Whatever
// is not certain is Unknown: the attempt stays open, and only a look closes it.
func (s Standing) Settle(a Answer, now time.Time) Judgement {
	switch a.Kind {
	case AnswerIntent:
		j := s.Judge(a.Intent, now)
		j.Evidence = "attach"
		switch j.Ruling {
		case NoEffect, Free, Dead:
			// An answer to an attach that shows no sign of it proves nothing.
			return Judgement{Ruling: Unknown, Reason: "the answer shows nothing of the attach", Evidence: "attach"}
		}
		return j
	case AnswerDeclined:
		return Judgement{Ruling: Declined, Code: a.Code, Reason: a.Reason, Evidence: "attach"}
	case AnswerNeverSent:
		return Judgement{Ruling: NoEffect, Reason: a.Reason, Evidence: "never_sent"}
	case AnswerCardGone:
		return Judgement{Ruling: CardGone, Reason: a.Reason, Evidence: "refused"}
	case AnswerNotHere:
		return Judgement{Ruling: Declined, Code: DeclineCodeNotAllowed, Reason: a.Reason, Evidence: "refused"}
	case AnswerFault:
		return Judgement{Ruling: Fault, Reason: a.Reason, Evidence: "refused"}
	}
	return Judgement{Ruling: Unknown, Reason: a.Reason, Evidence: "attach"}
}
