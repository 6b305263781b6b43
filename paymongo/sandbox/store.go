package sandbox

import (
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// store is everything the sandbox knows. Its JSON is the state file. Access
// only with Sandbox.mu held; lists are in order of creation.
type store struct {
	OrganizationID string

	Customers []*customer
	Methods   []*method
	Intents   []*intent
	Payments  []*payment
	Refunds   []*refund
	Hooks     []*hook
	Checkouts []*checkout
	Events    []*event // the newest maxEvents
	Timers    timers
	HeldBack  []*delivery // to be overtaken by the next event
	TimerSeq  uint64
	Counters  Counters

	attaches int // of all intents
	putOff   int // timers that are deliveries

	customers map[string]*customer
	methods   map[string]*method
	intents   map[string]*intent
	payments  map[string]*payment
	refunds   map[string]*refund
	hooks     map[string]*hook
	checkouts map[string]*checkout
	events    map[string]*event
	emails    map[string]*customer
	phones    map[string]*customer
	sources   map[string]*intent // src_ id of an open 3DS page
}

type customer struct {
	Index         int
	ID            string
	FirstName     string
	LastName      string
	Email         string
	Phone         *string
	DefaultDevice string
	DefaultMethod *string
	Metadata      metadata
	Saved         []*saved
	Deleted       bool
	CreatedAt     int64
	UpdatedAt     int64
}

// saved is a customer's saved payment method.
type saved struct {
	ID          string // the 24 characters behind cus_pm_ or cpm_
	Method      string
	SessionType string
	CreatedAt   int64
}

type method struct {
	ID        string
	Type      string
	Number    string // test card numbers only, so keeping it is no secret
	ExpMonth  int
	ExpYear   int
	Billing   *billing
	Metadata  metadata
	Customer  string // set once saved
	FreshCVC  bool   // a CVC was given since the last attach
	Removed   bool   // deleted from its customer
	CreatedAt int64
	UpdatedAt int64
}

type intent struct {
	ID                  string
	ClientKey           string
	Amount              int64
	Currency            string
	CaptureType         string
	Description         *string
	StatementDescriptor *string
	Allowed             []string
	Options             json.RawMessage
	Metadata            metadata
	SetupFutureUsage    *setupFutureUsage
	Status              string
	LastError           *paymentError
	NextAction          *nextAction
	Payments            []*payment `json:"-"` // found again by index
	CreatedAt           int64
	UpdatedAt           int64

	Attaches []*attach
	Source   string // src_ id of the open 3DS page
	Pending  int    // index into Attaches of the attach that waits or processes
	Busy     int    `json:"-"` // attaches between look and execution
	Checkout string
	Before   *intentView // what it looked like before the last change
}

// intentView is what a stale retrieve shows.
type intentView struct {
	Status     string
	LastError  *paymentError
	NextAction *nextAction
	Payments   int
	UpdatedAt  int64
	Until      time.Time // when it was replaced
}

// attach is one attach as received and as executed.
type attach struct {
	ReceivedAt     time.Time
	ExecutedAt     time.Time // zero: not executed, or not yet
	Method         string
	IdempotencyKey string
	Fault          string
	Outcome        string
	Payment        string
	ReturnURL      string
	Public         bool // came with a public key: the customer is there
	OffSession     bool
}

type payment struct {
	Index         int
	ID            string
	Intent        string
	Amount        int64
	Currency      string
	Status        string
	Method        string
	SourceID      string
	Brand, Last4  string
	Billing       *billing
	Description   *string
	Descriptor    *string
	Metadata      metadata
	FailedCode    string
	FailedMessage string
	Refunds       []*refund `json:"-"` // found again by index
	CreatedAt     int64
	UpdatedAt     int64
}

type refund struct {
	Index      int
	ID         string
	Payment    string
	Amount     int64
	Currency   string
	Reason     string
	Notes      *string
	Metadata   metadata
	Status     string
	RefundedAt *int64
	CreatedAt  int64
	UpdatedAt  int64
}

type hook struct {
	ID             string
	URL            string
	Secret         string
	Events         []string
	Status         string
	DisabledReason string
	Exhausted      int // events in a row that used up their retries
	CreatedAt      int64
	UpdatedAt      int64
}

type checkout struct {
	ID              string
	ClientKey       string
	Intent          string
	LineItems       []lineItem
	MethodTypes     []string
	Billing         *billing
	SuccessURL      *string
	CancelURL       *string
	Description     *string
	Reference       *string
	SendReceipt     bool
	ShowDescription bool
	ShowLineItems   bool
	Metadata        metadata
	Status          string
	PaidAt          *int64
	CreatedAt       int64
	UpdatedAt       int64
}

// event is one webhook event and the bytes that were, or will be, sent.
type event struct {
	ID        string
	Type      string
	Body      []byte
	CreatedAt time.Time
}

func newStore() *store {
	st := &store{}
	if err := st.index(); err != nil {
		panic(err) // an empty store has nothing wrong with it
	}
	return st
}

// addAttach keeps an attach and returns its place.
func (st *store) addAttach(pi *intent, at *attach) int {
	pi.Attaches = append(pi.Attaches, at)
	st.attaches++
	return len(pi.Attaches) - 1
}

// index builds the maps and the links between records, also after a load. It
// fails on what would make a later call panic: a state file may have been
// edited, or cut.
func (st *store) index() error {
	var err error
	st.customers = byID(&err, "customer", "cus_", st.Customers, func(c *customer) string { return c.ID })
	st.methods = byID(&err, "payment method", "pm_", st.Methods, func(m *method) string { return m.ID })
	st.intents = byID(&err, "intent", "pi_", st.Intents, func(pi *intent) string { return pi.ID })
	st.payments = byID(&err, "payment", "pay_", st.Payments, func(p *payment) string { return p.ID })
	st.refunds = byID(&err, "refund", "ref_", st.Refunds, func(r *refund) string { return r.ID })
	st.hooks = byID(&err, "webhook", "hook_", st.Hooks, func(h *hook) string { return h.ID })
	st.checkouts = byID(&err, "checkout", "cs_", st.Checkouts, func(cs *checkout) string { return cs.ID })
	st.events = byID(&err, "event", "evt_", st.Events, func(e *event) string { return e.ID })
	if err != nil {
		return err
	}
	for _, step := range []func() error{st.indexMethods, st.indexCustomers, st.indexPayments, st.indexIntents, st.indexTimers} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func byID[T any](err *error, kind, prefix string, list []*T, id func(*T) string) map[string]*T {
	out := make(map[string]*T, len(list))
	for i, record := range list {
		switch {
		case *err != nil:
		case record == nil:
			*err = fmt.Errorf("%s %d is null", kind, i)
		case !strings.HasPrefix(id(record), prefix):
			*err = fmt.Errorf("%s %d has the id %q", kind, i, id(record))
		case out[id(record)] != nil:
			*err = fmt.Errorf("%s %s is there twice", kind, id(record))
		default:
			out[id(record)] = record
		}
	}
	return out
}

func (st *store) indexMethods() error {
	for _, m := range st.Methods {
		if _, known := testCards[m.Number]; m.Type == "card" && !known {
			return fmt.Errorf("payment method %s has no test card", m.ID)
		}
	}
	return nil
}

func (st *store) indexCustomers() error {
	st.emails = make(map[string]*customer, len(st.Customers))
	st.phones = make(map[string]*customer, len(st.Customers))
	for i, c := range st.Customers {
		c.Index = i
		for _, sv := range c.Saved {
			if sv == nil || st.methods[sv.Method] == nil || st.methods[sv.Method].Type != "card" {
				return fmt.Errorf("customer %s has saved what is no card", c.ID)
			}
		}
		if !c.Deleted {
			st.claimContact(c)
		}
	}
	return nil
}

func (st *store) indexPayments() error {
	for _, pi := range st.Intents {
		pi.Payments = nil
	}
	for i, p := range st.Payments {
		pi := st.intents[p.Intent]
		if pi == nil {
			return fmt.Errorf("payment %s is of the unknown intent %q", p.ID, p.Intent)
		}
		if st.methods[p.Method] == nil {
			return fmt.Errorf("payment %s is of the unknown payment method %q", p.ID, p.Method)
		}
		p.Index, p.Refunds = i, nil
		pi.Payments = append(pi.Payments, p)
	}
	for i, r := range st.Refunds {
		p := st.payments[r.Payment]
		if p == nil {
			return fmt.Errorf("refund %s is of the unknown payment %q", r.ID, r.Payment)
		}
		r.Index = i
		p.Refunds = append(p.Refunds, r)
	}
	for _, cs := range st.Checkouts {
		if st.intents[cs.Intent] == nil {
			return fmt.Errorf("checkout %s is of the unknown intent %q", cs.ID, cs.Intent)
		}
	}
	return nil
}

func (st *store) indexIntents() error {
	st.sources = map[string]*intent{}
	st.attaches = 0
	for _, pi := range st.Intents {
		st.attaches += len(pi.Attaches)
		if slices.Contains(pi.Attaches, nil) {
			return fmt.Errorf("intent %s has an attach that is null", pi.ID)
		}
		for _, at := range pi.Attaches {
			if at.Outcome == atWork {
				at.Outcome = notExecuted // the acquirer's answer went with the process
			}
		}
		if pi.Before != nil && (pi.Before.Payments < 0 || pi.Before.Payments > len(pi.Payments)) {
			return fmt.Errorf("intent %s had more payments than it has", pi.ID)
		}
		if pi.Status == awaitingNextAction || pi.Status == processing || pi.Status == awaitingCapture || pi.Source != "" {
			if !st.canExecute(pi, pi.Pending) {
				return fmt.Errorf("intent %s is %s without an attach of a known method", pi.ID, pi.Status)
			}
		}
		if pi.Source != "" {
			if pi.NextAction == nil {
				return fmt.Errorf("intent %s has a 3DS page and no next action", pi.ID)
			}
			st.sources[pi.Source] = pi
		}
	}
	return nil
}

// canExecute tells whether an attach is there, and its method too.
func (st *store) canExecute(pi *intent, index int) bool {
	return index >= 0 && index < len(pi.Attaches) && st.methods[pi.Attaches[index].Method] != nil
}

func (st *store) indexTimers() error {
	st.putOff = 0
	for _, t := range st.Timers {
		if t == nil {
			return errors.New("a timer is null")
		}
		pi := st.intents[t.ID]
		switch {
		case t.Kind == timerSettle && pi != nil && !st.canExecute(pi, t.N):
			return fmt.Errorf("a timer settles an attach that intent %s does not have", t.ID)
		case t.Kind == timerLateAttach && pi != nil && (t.N < 0 || t.N >= len(pi.Attaches)):
			return fmt.Errorf("a timer executes an attach that intent %s does not have", t.ID)
		case (t.Kind == timerDeliver) != (t.Delivery != nil):
			return errors.New("a timer delivers nothing")
		case t.Delivery != nil:
			st.putOff++
		}
	}
	heap.Init(&st.Timers)
	if slices.Contains(st.HeldBack, nil) {
		return errors.New("a delivery that is held back is null")
	}
	return nil
}

// records counts what the limit of Options.MaxRecords is about.
func (st *store) records() int {
	return len(st.Customers) + len(st.Methods) + len(st.Intents) + st.attaches + len(st.Payments) +
		len(st.Refunds) + len(st.Hooks) + len(st.Checkouts)
}

// base58 has no 0, O, I and l: real ids show none of them.
const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

func randomSuffix(rng *rand.Rand) string {
	var b [24]byte
	for i := range b {
		b[i] = base58[rng.IntN(len(base58))]
	}
	return string(b[:])
}
