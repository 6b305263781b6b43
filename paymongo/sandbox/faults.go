package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FaultKind says what goes wrong.
type FaultKind string

// Kinds that spoil a call before it has any effect.
const (
	TimeoutBefore   FaultKind = "timeout_before"    // no answer, nothing done
	ErrorBefore     FaultKind = "error_before"      // a 5xx (Status), nothing done
	RateLimitBefore FaultKind = "rate_limit_before" // a plain-text 429, nothing done
	ResetBefore     FaultKind = "reset_before"      // connection reset, nothing done
	Unauthorized    FaultKind = "unauthorized"      // 401; with Probability 1 a storm
)

// Kinds that spoil the answer of a call that had its effect.
const (
	TimeoutAfter     FaultKind = "timeout_after"      // done, no answer
	ErrorAfter       FaultKind = "error_after"        // done, a 5xx (Status)
	RateLimitAfter   FaultKind = "rate_limit_after"   // done, a plain-text 429
	ResetAfter       FaultKind = "reset_after"        // done, connection reset
	CutBody          FaultKind = "cut_body"           // done, the body ends in the middle
	HTMLBody         FaultKind = "html"               // done, 200 with a page of HTML
	WrongContentType FaultKind = "wrong_content_type" // done, JSON called text/html
	WrongAmount      FaultKind = "wrong_amount"       // done, the answer says one centavo more
	WrongLivemode    FaultKind = "wrong_livemode"     // done, the answer says livemode true
)

// Kinds that change what happens.
const (
	Delay        FaultKind = "delay"         // wait For (real time) before the effect
	LateAttach   FaultKind = "late"          // connection reset now, attach executed For later
	Decline      FaultKind = "decline"       // attach declined with Code, or one of Codes by weight
	ThreeDS      FaultKind = "three_ds"      // attach wants the customer
	Processing   FaultKind = "processing"    // attach processes For long, Then succeeds or is declined
	ExpireIntent FaultKind = "expire_intent" // the intent is cancelled just before the call
	Stale        FaultKind = "stale"         // retrieve shows the state of up to For ago
)

// Kinds about webhooks; Endpoint is matched with the event's type.
const (
	WebhookLost      FaultKind = "webhook_lost"      // never delivered
	WebhookDuplicate FaultKind = "webhook_duplicate" // delivered twice
	WebhookReorder   FaultKind = "webhook_reorder"   // delivered after the next one
	WebhookDelay     FaultKind = "webhook_delay"     // delivered For later
	WebhookEarly     FaultKind = "webhook_early"     // delivered before the HTTP answer
	WebhookForged    FaultKind = "webhook_forged"    // followed by a forged event under a wrong signature
)

// NoFault is a step of a script in which nothing goes wrong.
const NoFault FaultKind = "none"

type stage int

const (
	stageNone stage = iota
	stageBefore
	stageAfter
	stageDelay
	stageOutcome
	stageWebhook
)

var faultKinds = map[FaultKind]stage{
	NoFault:       stageNone,
	TimeoutBefore: stageBefore, ErrorBefore: stageBefore, RateLimitBefore: stageBefore, ResetBefore: stageBefore, Unauthorized: stageBefore,
	TimeoutAfter: stageAfter, ErrorAfter: stageAfter, RateLimitAfter: stageAfter, ResetAfter: stageAfter, CutBody: stageAfter,
	HTMLBody: stageAfter, WrongContentType: stageAfter, WrongAmount: stageAfter, WrongLivemode: stageAfter,
	Delay: stageDelay,
	// A late attach takes the place of the call, so it comes before.
	LateAttach: stageBefore,
	Decline:    stageOutcome, ThreeDS: stageOutcome, Processing: stageOutcome, ExpireIntent: stageOutcome, Stale: stageOutcome,
	WebhookLost: stageWebhook, WebhookDuplicate: stageWebhook, WebhookReorder: stageWebhook,
	WebhookDelay: stageWebhook, WebhookEarly: stageWebhook, WebhookForged: stageWebhook,
}

// onlyAt are the endpoints of kinds that mean nothing elsewhere.
var onlyAt = map[FaultKind][]string{
	LateAttach: {attachOperation}, Decline: {attachOperation}, ThreeDS: {attachOperation}, Processing: {attachOperation},
	Stale:        {"payment_intents.retrieve"},
	ExpireIntent: {"payment_intents.retrieve", attachOperation, "payment_intents.capture", "payment_intents.cancel"},
	WrongAmount:  {"payment_intents.*", "payments.*", "refunds.*", "checkout_sessions.*"},
}

// means tells whether a kind does anything at an endpoint.
func (k FaultKind) means(endpoint string) bool {
	patterns, limited := onlyAt[k]
	return !limited || slices.ContainsFunc(patterns, func(p string) bool { return matches(p, endpoint) })
}

// Fault is a rule: which calls it hits, and what it does to them. Rules are
// asked in the order they were added; of those that spoil an answer the first
// that hits wins, and likewise of those that change the outcome. Delays add up.
// Calls at which a kind means nothing do not match: an attach cannot be stale.
type Fault struct {
	ID   string    `json:"id,omitempty"`
	Kind FaultKind `json:"kind"`

	// Which calls. All that are given must match.
	Endpoint      string            `json:"endpoint,omitempty"` // "payment_intents.attach", "payment_intents.*"; webhooks: the event's type, "payment.*"; "" is all
	Metadata      map[string]string `json:"metadata,omitempty"` // of the intent, or of what is created
	PaymentMethod string            `json:"payment_method,omitempty"`

	// How often.
	Probability float64 `json:"probability,omitempty"` // 0 is always
	Nth         int     `json:"nth,omitempty"`         // only the nth matching call
	Times       int     `json:"times,omitempty"`       // at most so often

	// What exactly.
	Status     int            `json:"status,omitempty"`      // of error_*; 0 is 500
	RetryAfter Duration       `json:"retry_after,omitempty"` // header of rate_limit_*; 0 sends none
	Code       string         `json:"code,omitempty"`        // of decline
	Codes      map[string]int `json:"codes,omitempty"`       // of decline, by weight
	For        Duration       `json:"for,omitempty"`         // of delay, late, processing, stale, webhook_delay
	Then       string         `json:"then,omitempty"`        // of processing: "succeed" (default) or a decline code
}

func (f Fault) validate() error {
	st, known := faultKinds[f.Kind]
	fail := func(format string, args ...any) error {
		return fmt.Errorf("sandbox: fault %s: %w", f.Kind, fmt.Errorf(format, args...))
	}
	switch {
	case !known:
		return fmt.Errorf("sandbox: unknown fault %q; there are %s", f.Kind, strings.Join(FaultKinds(), ", "))
	case math.IsNaN(f.Probability) || f.Probability < 0 || f.Probability > 1:
		return fail("probability %v is not between 0 and 1", f.Probability)
	case f.Nth < 0 || f.Times < 0 || f.For < 0 || f.RetryAfter < 0:
		return fail("a number is negative")
	case f.Status != 0 && (f.Status < 500 || f.Status > 599):
		return fail("status %d is not a 5xx", f.Status)
	case st != stageWebhook && !matchesAny(f.Endpoint, operations):
		return fail("unknown endpoint %q; there are %s", f.Endpoint, strings.Join(operations, ", "))
	case st == stageWebhook && !matchesAny(f.Endpoint, eventTypes):
		return fail("unknown event %q; there are %s", f.Endpoint, strings.Join(eventTypes, ", "))
	case st != stageWebhook && !slices.ContainsFunc(operations, func(op string) bool { return matches(f.Endpoint, op) && f.Kind.means(op) }):
		return fail("it hits %s only, not %q", strings.Join(onlyAt[f.Kind], ", "), f.Endpoint)
	case f.For == 0 && slices.Contains([]FaultKind{Delay, LateAttach, Processing, Stale, WebhookDelay}, f.Kind):
		return fail("it needs a duration in \"for\"")
	case f.Kind == Decline && f.Code == "" && len(f.Codes) == 0:
		return fail("it needs a \"code\" or \"codes\" with weights")
	}
	for code, weight := range f.Codes {
		if weight < 1 || weight > 1_000_000 {
			return fail("weight %d of %s is not between 1 and 1000000", weight, code)
		}
	}
	return nil
}

// FaultKinds lists the kinds in alphabetical order.
func FaultKinds() []string {
	var kinds []string
	for k := range faultKinds {
		kinds = append(kinds, string(k))
	}
	slices.Sort(kinds)
	return kinds
}

// ParseFault reads one fault from a line, as the command line has it:
//
//	timeout_after=0.3,endpoint=payment_intents.attach
//	decline,code=insufficient_funds,nth=2,metadata.invoice=in_1
//
// The number behind the kind is the probability.
func ParseFault(line string) (Fault, error) {
	var f Fault
	for i, part := range strings.Split(line, ",") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch {
		case i == 0:
			f.Kind = FaultKind(name)
			if value != "" {
				if f.Probability, err = strconv.ParseFloat(value, 64); err == nil && f.Probability == 0 {
					err = errors.New("a fault that never hits; leave the number out for one that always does")
				}
			}
		case strings.HasPrefix(name, "metadata."):
			if f.Metadata == nil {
				f.Metadata = map[string]string{}
			}
			f.Metadata[strings.TrimPrefix(name, "metadata.")] = value
		case name == "endpoint":
			f.Endpoint = value
		case name == "payment_method":
			f.PaymentMethod = value
		case name == "code":
			f.Code = value
		case name == "then":
			f.Then = value
		case name == "nth":
			f.Nth, err = strconv.Atoi(value)
		case name == "times":
			f.Times, err = strconv.Atoi(value)
		case name == "status":
			f.Status, err = strconv.Atoi(value)
		case name == "for":
			err = json.Unmarshal([]byte(strconv.Quote(value)), &f.For)
		case name == "retry_after":
			err = json.Unmarshal([]byte(strconv.Quote(value)), &f.RetryAfter)
		default:
			err = errors.New("unknown; there are endpoint, metadata.KEY, payment_method, nth, times, status, retry_after, code, for, then")
		}
		if err != nil {
			return Fault{}, fmt.Errorf("sandbox: fault %q: %s: %w", line, part, err)
		}
	}
	return f, f.validate()
}

// AddFault adds a rule behind the others and returns its id.
func (s *Sandbox) AddFault(f Fault) (string, error) {
	if err := f.validate(); err != nil {
		return "", err
	}
	if f.Kind == NoFault {
		return "", errors.New(`sandbox: fault "none" belongs in a script`)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
	return s.faults.add(f)
}

// RemoveFault takes a rule away; false when there is none with that id.
func (s *Sandbox) RemoveFault(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
	n := len(s.faults.rules)
	s.faults.rules = slices.DeleteFunc(s.faults.rules, func(r *rule) bool { return r.ID == id })
	return len(s.faults.rules) < n
}

// ClearFaults takes all rules and the script away.
func (s *Sandbox) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.rules, s.faults.script, s.dirty = nil, nil, true
}

// Faults lists the rules in the order they are asked.
func (s *Sandbox) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, 0, len(s.faults.rules))
	for _, r := range s.faults.rules {
		out = append(out, r.Fault)
	}
	return out
}

// SetScript replaces the script: faults that are used up one by one. The step
// at the head is taken by the next call it matches, before any rule is asked;
// the steps behind it wait for their turn. NoFault lets a call through.
// Probability, Nth and Times have no meaning in a script and are refused.
func (s *Sandbox) SetScript(steps []Fault) error {
	if len(steps) > maxRules {
		return fmt.Errorf("sandbox: a script has at most %d steps", maxRules)
	}
	for i, f := range steps {
		if err := f.validate(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		if f.Probability != 0 || f.Nth != 0 || f.Times != 0 {
			return fmt.Errorf("step %d: a script has no probability, nth or times; order is its rule", i+1)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.script, s.dirty = slices.Clone(steps), true
	return nil
}

// Script returns the steps that are left.
func (s *Sandbox) Script() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults.script)
}

const maxRules = 10_000

// faultBook decides. Access only with Sandbox.mu held.
type faultBook struct {
	seed   uint64
	rules  []*rule
	script []Fault
	nextID int
}

type rule struct {
	Fault
	hash    uint64
	matched int               // calls that fit
	fired   int               // calls that were hit
	tosses  map[uint64]uint32 // how often each subject was asked
}

func (b *faultBook) add(f Fault) (string, error) {
	if len(b.rules) == maxRules {
		return "", fmt.Errorf("sandbox: there are %d faults already, the most there can be", maxRules)
	}
	taken := func(id string) bool {
		return slices.ContainsFunc(b.rules, func(r *rule) bool { return r.ID == id })
	}
	if f.ID != "" && taken(f.ID) {
		return "", fmt.Errorf("sandbox: there is a fault %q already", f.ID)
	}
	for f.ID == "" || taken(f.ID) {
		b.nextID++
		f.ID = fmt.Sprintf("fault_%d", b.nextID)
	}
	b.rules = append(b.rules, &rule{Fault: f, hash: hashOf(b.seed, f.ID, string(f.Kind)), tosses: map[uint64]uint32{}})
	return f.ID, nil
}

// recount takes over the counts of rules that are the same as before a restart.
func (b *faultBook) recount(saved []savedRule) {
	for _, r := range b.rules {
		for _, was := range saved {
			if r.ID == was.ID && bytes.Equal(encode(r.Fault), encode(was.Fault)) {
				r.matched, r.fired = was.Matched, was.Fired
				maps.Copy(r.tosses, was.Tosses)
			}
		}
	}
}

// subject is what a call or an event is about.
type subject struct {
	name     string // stable over runs: metadata first, ids last
	metadata metadata
	method   string
}

// hits are the faults of one call.
type hits struct {
	spoil   *Fault // before or after
	outcome *Fault
	delay   time.Duration
}

func (h hits) String() string {
	var names []string
	if h.delay > 0 {
		names = append(names, "delay")
	}
	for _, f := range []*Fault{h.outcome, h.spoil} {
		if f != nil {
			names = append(names, string(f.Kind))
		}
	}
	return strings.Join(names, "+")
}

// hit decides the faults of one call.
func (b *faultBook) hit(endpoint string, about subject) (h hits) {
	if len(b.script) > 0 && faultKinds[b.script[0].Kind] != stageWebhook && b.script[0].fits(endpoint, about) {
		step := b.script[0]
		b.script = b.script[1:]
		h.take(&step)
		return h
	}
	for _, r := range b.rules {
		st := faultKinds[r.Kind]
		if st == stageWebhook || h.spoil != nil && (st == stageBefore || st == stageAfter) || h.outcome != nil && st == stageOutcome {
			continue
		}
		if b.fires(r, endpoint, about) {
			h.take(&r.Fault)
		}
	}
	return h
}

func (h *hits) take(f *Fault) {
	switch faultKinds[f.Kind] {
	case stageBefore, stageAfter:
		h.spoil = f
	case stageOutcome:
		h.outcome = f
	case stageDelay:
		h.delay += time.Duration(f.For)
	}
}

// hitEvent decides the faults of one webhook event.
func (b *faultBook) hitEvent(eventType string, about subject) map[FaultKind]*Fault {
	var out map[FaultKind]*Fault
	add := func(f *Fault) {
		if out == nil {
			out = map[FaultKind]*Fault{}
		}
		out[f.Kind] = f
	}
	if len(b.script) > 0 && faultKinds[b.script[0].Kind] == stageWebhook && b.script[0].fits(eventType, about) {
		step := b.script[0]
		b.script = b.script[1:]
		add(&step)
		return out
	}
	for _, r := range b.rules {
		if faultKinds[r.Kind] == stageWebhook && out[r.Kind] == nil && b.fires(r, eventType, about) {
			add(&r.Fault)
		}
	}
	return out
}

func (f *Fault) fits(endpoint string, about subject) bool {
	if !matches(f.Endpoint, endpoint) || !f.Kind.means(endpoint) || f.PaymentMethod != "" && f.PaymentMethod != about.method {
		return false
	}
	for k, want := range f.Metadata {
		if got, ok := about.metadata.get(k); !ok || got != want {
			return false
		}
	}
	return true
}

// fires decides whether a rule hits. Chance is a hash of the seed, the rule,
// the endpoint, the subject and how often that subject was asked before: the
// order in which concurrent calls arrive does not matter.
func (b *faultBook) fires(r *rule, endpoint string, about subject) bool {
	if !r.fits(endpoint, about) {
		return false
	}
	r.matched++
	if r.Nth > 0 && r.matched != r.Nth || r.Times > 0 && r.fired == r.Times {
		return false
	}
	if r.Probability > 0 && r.Probability < 1 {
		key := hashOf(r.hash, endpoint, about.name)
		if len(r.tosses) >= maxTosses {
			clear(r.tosses)
		}
		r.tosses[key]++
		if unit(mix(key+uint64(r.tosses[key]))) >= r.Probability {
			return false
		}
	}
	r.fired++
	return true
}

const maxTosses = 1 << 20

// declineCode picks the code of a decline fault for a subject.
func (f *Fault) declineCode(seed uint64, about string) string {
	if len(f.Codes) == 0 {
		return f.Code
	}
	var codes []string
	total := 0
	for code, weight := range f.Codes {
		codes = append(codes, code)
		total += weight
	}
	slices.Sort(codes)
	n := int(unit(mix(hashOf(seed, f.ID, about))) * float64(total))
	for _, code := range codes {
		if n -= f.Codes[code]; n < 0 {
			return code
		}
	}
	return codes[len(codes)-1]
}

// matches tells whether a pattern ("", "*", "payments.*", "payments.list")
// names an endpoint or an event type.
func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == "" || pattern == name
}

func matchesAny(pattern string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return matches(pattern, n) })
}

func hashOf(seed uint64, parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = io.WriteString(h, p) // a hash never fails
		_, _ = h.Write([]byte{0})
	}
	return mix(seed ^ h.Sum64())
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit maps a hash to [0, 1).
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }
