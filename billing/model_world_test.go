package billing

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// The world of the model checker: one invoice, two workers, three payment
// intents at the provider, and what is on the wire. It holds codes instead of
// words, so that a world is small and comparable; the tables below translate.

const (
	modelWorkers  = 2
	modelIntents  = 3
	modelPIs      = 3
	modelFailures = 2 // failed payments of one payment intent
)

// code is a place in one of the tables of words.
type code = uint8

var (
	invoiceWords = []string{"", InvoiceOpen, InvoicePaid, InvoiceUncollectible, InvoiceReview}
	intentWords  = []IntentState{"", IntentCreating, IntentReady, IntentSucceeded, IntentDead, IntentReview}
	attemptWords = []AttemptState{"", AttemptArmed, AttemptSucceeded, AttemptDeclined, AttemptNeedsAction, AttemptNoEffect, AttemptReview}
	waitingWords = []WaitingFor{WaitingForSchedule, WaitingForProvider, WaitingForCustomer}
	statusWords  = []ProviderStatus{"", ProviderAwaitingMethod, ProviderAwaitingAction, ProviderProcessing, ProviderSucceeded, ProviderCancelled}
)

// codeOf translates a word. One that is in no table is something the model
// does not know: it must be taught, not passed over.
func codeOf[W ~string](words []W, word W) code {
	i := slices.Index(words, word)
	if i < 0 {
		panic(fmt.Sprintf("the model does not know the word %q", word))
	}
	return code(i)
}

var (
	invoiceOpen     = codeOf(invoiceWords, InvoiceOpen)
	invoicePaid     = codeOf(invoiceWords, InvoicePaid)
	invoiceReview   = codeOf(invoiceWords, InvoiceReview)
	invoiceGivenUp  = codeOf(invoiceWords, InvoiceUncollectible)
	intentCreating  = codeOf(intentWords, IntentCreating)
	intentReady     = codeOf(intentWords, IntentReady)
	intentDead      = codeOf(intentWords, IntentDead)
	intentReview    = codeOf(intentWords, IntentReview)
	attemptArmed    = codeOf(attemptWords, AttemptArmed)
	attemptPaid     = codeOf(attemptWords, AttemptSucceeded)
	attemptDeclined = codeOf(attemptWords, AttemptDeclined)
	attemptNoEffect = codeOf(attemptWords, AttemptNoEffect)
	waitSchedule    = codeOf(waitingWords, WaitingForSchedule)
	waitProvider    = codeOf(waitingWords, WaitingForProvider)
	piAwaiting      = codeOf(statusWords, ProviderAwaitingMethod)
	piAction        = codeOf(statusWords, ProviderAwaitingAction)
	piProcessing    = codeOf(statusWords, ProviderProcessing)
	piSucceeded     = codeOf(statusWords, ProviderSucceeded)
	piCancelled     = codeOf(statusWords, ProviderCancelled)
)

// world is one state of everything. Rows, attempts and payment intents are
// named by their place plus one; 0 is none.
type world struct {
	// The database.
	status   code
	claimed  bool
	waiting  code
	frozen   bool
	intents  [modelIntents]intentRow
	attempts [modelMaxAttempts]attemptRow
	armed    uint8 // ids given to attempts; none is given twice, whatever a restore forgets

	pis      [modelPIs]pi
	workers  [modelWorkers]process
	restored bool
	pages    uint8 // how often the page was opened
}

// intentRow is a row of payment_intents.
type intentRow struct {
	state      code
	generation uint8
	pi         uint8
	fence      uint8
	shared     bool // the customer's page has it
	checkout   bool // a hosted checkout made it
}

// attemptRow is a row of attempts, with what is on the wire of its attach.
type attemptRow struct {
	state   code
	intent  uint8
	settled bool // SettledAfter is over

	wire     uint8 // requests on their way to the provider
	replayed bool
	pi       uint8 // where they go
}

// pi is a payment intent at the provider.
type pi struct {
	status   code
	key      uint8 // the generation that it was created for
	captures uint8
	by       uint8 // the attempt whose attach captured
	failed   uint8 // failed payments, one bit each
	recorded uint8 // those of them that our database has on record
	stored   bool  // our database had its id, at some time
	asked    bool  // a cancel, or an expire of its checkout, is on the wire
}

// A worker's phases.
const (
	phaseIdle uint8 = iota
	phaseThink
	phaseSend // armed, and the commit was acknowledged
	phaseWait // the attach is sent
	phasePut  // what is known is about to be stored
)

// process is a worker and its memory, which a crash loses.
type process struct {
	phase     uint8
	reconcile bool
	looked    bool
	closed    bool // it has asked to close the hosted checkout

	// As loaded.
	status      code
	waiting     code
	intent      uint8
	state       code
	pi          uint8
	fence       uint8
	attempted   bool
	shared      bool
	checkout    bool
	open        uint8
	openState   code
	openSettled bool
	known       uint8

	attempt   uint8 // that it has armed, or that its judgement is about
	judgement uint8
	decision  uint8
	seen      code // status of the intent that it was shown
	seenFails uint8
}

// order brings the workers of a world into an order: which of two equal
// processes does something makes no difference.
func (p process) order() uint64 {
	var n uint64
	for _, field := range [...]uint8{
		p.phase, bit(p.reconcile) | bit(p.looked)<<1 | bit(p.attempted)<<2 | bit(p.openSettled)<<3 | bit(p.closed)<<4 | bit(p.checkout)<<5,
		p.status<<4 | p.waiting, p.intent<<4 | p.state, p.pi<<4 | p.fence, p.open<<4 | p.openState,
		p.known<<4 | p.seenFails, p.attempt<<4 | p.seen,
	} {
		n = n<<8 | uint64(field)
	}
	return n ^ uint64(p.judgement)<<59 ^ uint64(p.decision)<<40
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func isOpen(state code) bool { return state != 0 && attemptWords[state].open() }

// tidy forgets what can no longer matter.
func (w world) tidy(keyHonoured bool) world {
	for i := range w.attempts {
		a := &w.attempts[i]
		if a.wire == 0 {
			a.pi = 0
			if !isOpen(a.state) {
				a.settled, a.replayed = false, false
			}
		}
	}
	for i := range w.pis {
		if p := &w.pis[i]; p.status == piSucceeded || p.status == piCancelled {
			p.asked = false
		}
		if !keyHonoured && w.orphan(i) {
			w.pis[i] = pi{}
		}
	}
	return w
}

// sorted is the same for worlds that differ in the workers' names alone.
func (w world) sorted() world {
	if w.workers[0].order() > w.workers[1].order() {
		w.workers[0], w.workers[1] = w.workers[1], w.workers[0]
	}
	return w
}

// orphan tells that nobody knows the payment intent, and nobody ever will.
func (w *world) orphan(i int) bool {
	p := w.pis[i]
	held := p.stored || p.captures > 0 ||
		slices.ContainsFunc(w.workers[:], func(q process) bool { return int(q.pi) == i+1 }) ||
		slices.ContainsFunc(w.attempts[:], func(a attemptRow) bool { return a.wire > 0 && int(a.pi) == i+1 })
	return !held
}

func (w *world) captures() (n uint8) {
	for _, p := range w.pis {
		n += p.captures
	}
	return n
}

// Names of the model's things in the words of production.

var modelStart = time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)

func modelPrice() Money { return Money{49900, CurrencyPHP} }

func intentID(row uint8) uuid.UUID { return uuid.UUID{14: 1, 15: row} }
func attemptID(no uint8) uuid.UUID { return uuid.UUID{14: bit(no > 0) * 2, 15: no} }
func armedAt(attempt uint8) time.Time {
	return modelStart.Add(time.Duration(attempt) * 100 * time.Hour)
}
func settledAfter(attempt uint8) time.Time {
	return armedAt(attempt).Add(SendWindow + SettlePeriod)
}

var modelInvoice, modelCard = uuid.UUID{15: 1}, uuid.UUID{13: 1}

func piID(i uint8) string {
	if i == 0 {
		return ""
	}
	return fmt.Sprintf("pi_%d", i)
}

func failureID(pi, bit uint8) string { return fmt.Sprintf("pay_%d_failed_%d", pi, bit) }

// shown is the payment intent as a retrieve shows it.
func (p pi) shown(i uint8) ProviderIntent {
	seen := ProviderIntent{ID: piID(i), Status: statusWords[p.status], Amount: modelPrice()}
	for n := range uint8(modelFailures) {
		if p.failed&(1<<n) != 0 {
			seen.Payments = append(seen.Payments, ProviderPayment{
				ID: failureID(i, n), Status: "failed", Amount: modelPrice(), FailedCode: "insufficient_funds", At: modelStart.Add(time.Duration(n)),
			})
		}
	}
	if p.captures > 0 {
		seen.Payments = append(seen.Payments, ProviderPayment{ID: fmt.Sprintf("pay_%d", i), Status: "paid", Amount: modelPrice(), At: modelStart})
	}
	return seen
}
