package sandbox

import (
	"encoding/json"
	"math/rand/v2"
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

// newStore makes an empty store; index builds its maps, also after a load.
func newStore() *store {
	st := &store{}
	st.index()
	return st
}

func (st *store) index() {
	st.customers = make(map[string]*customer, len(st.Customers))
	st.emails = make(map[string]*customer, len(st.Customers))
	st.phones = make(map[string]*customer, len(st.Customers))
	for _, c := range st.Customers {
		st.customers[c.ID] = c
		if c.Deleted {
			continue
		}
		st.emails[c.Email] = c
		if c.Phone != nil {
			st.phones[*c.Phone] = c
		}
	}
	st.methods = make(map[string]*method, len(st.Methods))
	for _, m := range st.Methods {
		st.methods[m.ID] = m
	}
	st.payments = make(map[string]*payment, len(st.Payments))
	for _, p := range st.Payments {
		st.payments[p.ID] = p
		p.Refunds = nil
	}
	st.refunds = make(map[string]*refund, len(st.Refunds))
	for _, r := range st.Refunds {
		st.refunds[r.ID] = r
		p := st.payments[r.Payment]
		p.Refunds = append(p.Refunds, r)
	}
	st.intents = make(map[string]*intent, len(st.Intents))
	st.sources = map[string]*intent{}
	for _, pi := range st.Intents {
		st.intents[pi.ID] = pi
		pi.Payments = nil
		if pi.Source != "" {
			st.sources[pi.Source] = pi
		}
	}
	for _, p := range st.Payments {
		pi := st.intents[p.Intent]
		pi.Payments = append(pi.Payments, p)
	}
	st.hooks = make(map[string]*hook, len(st.Hooks))
	for _, h := range st.Hooks {
		st.hooks[h.ID] = h
	}
	st.checkouts = make(map[string]*checkout, len(st.Checkouts))
	for _, cs := range st.Checkouts {
		st.checkouts[cs.ID] = cs
	}
	st.events = make(map[string]*event, len(st.Events))
	for _, e := range st.Events {
		st.events[e.ID] = e
	}
}

// records counts what the limit of Options.MaxRecords is about.
func (st *store) records() int {
	return len(st.Customers) + len(st.Methods) + len(st.Intents) + len(st.Payments) +
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
