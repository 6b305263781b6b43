package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	maxBody   = 1 << 20
	maxAmount = 999_999_999 // PHP 9,999,999.99, docs.paymongo.com/docs/payment-acceptance-errors-pipm
)

// operation is one route of the API.
type operation struct {
	name    string // the resource and the verb, "payment_intents.attach"
	public  bool   // a public key will do
	creates bool   // a POST that makes a resource: the home of Idempotency-Key
	serve   func(*call) answer
}

// call is one API request on its way through.
type call struct {
	s          *Sandbox
	op         *operation
	r          *http.Request
	id         string // of the resource in the path
	sub        string // of the sub-resource in the path
	body       []byte
	attrs      attributes
	key        string // Idempotency-Key
	publicKey  bool
	now        time.Time
	hits       hits
	pending    []pendingEvent // to be announced after the answer
	entry      *replayEntry   // opened for this call's Idempotency-Key
	attached   *intent        // of an attach: the intent it was received for
	attachedAt int            // its place in the intent's Attaches
	executes   bool           // the attach has passed its look: the acquirer is at work
	base       string         // how the caller reaches us, for links
}

// answer is what goes back, before the faults have their say.
type answer struct {
	status int
	doc    any // encoded when written
	raw    []byte
	errs   []apiError
}

type apiError struct {
	Code    string       `json:"code"`
	Detail  string       `json:"detail"`
	Source  *errorSource `json:"source,omitempty"`
	SubCode string       `json:"sub_code,omitempty"`
}

type errorSource struct {
	Pointer   string `json:"pointer,omitempty"`
	Attribute string `json:"attribute,omitempty"`
}

// ok answers with one resource; creating answers 200 too.
func ok(res wireResource) answer { return answer{status: 200, doc: wireData{res}} }

func refuse(status int, code, detail string) answer {
	return answer{status: status, errs: []apiError{{Code: code, Detail: detail}}}
}

func notFound(what, id string) answer {
	return refuse(404, "resource_not_found", "No such "+what+" with id "+id+".")
}

func (a answer) bytes() []byte {
	switch {
	case a.raw != nil:
		return a.raw
	case a.errs != nil:
		return encode(struct {
			Errors []apiError `json:"errors"`
		}{a.errs})
	}
	return encode(a.doc)
}

// routes of the API, in the order of PayMongo's reference. Sources disagree on
// the verb of an update, so both are there.
var routes = []struct {
	patterns string // separated by ", "
	op       operation
}{
	{"POST /v1/customers", operation{name: "customers.create", creates: true, serve: createCustomer}},
	{"GET /v1/customers", operation{name: "customers.search", serve: searchCustomers}},
	{"GET /v1/customers/{id}", operation{name: "customers.retrieve", serve: retrieveCustomer}},
	{"PATCH /v1/customers/{id}, PUT /v1/customers/{id}", operation{name: "customers.update", serve: updateCustomer}},
	{"DELETE /v1/customers/{id}", operation{name: "customers.delete", serve: deleteCustomer}},
	{"GET /v1/customers/{id}/payment_methods", operation{name: "customers.payment_methods", serve: listSaved}},
	{"GET /v2/customers/{id}/payment_methods", operation{name: "customers.payment_methods", serve: listSavedV2}},
	{"DELETE /v1/customers/{id}/payment_methods/{sub}", operation{name: "customers.delete_payment_method", serve: deleteSaved}},
	{"DELETE /v2/customers/{id}/payment_methods/{sub}", operation{name: "customers.delete_payment_method", serve: deleteSavedV2}},
	{"POST /v1/payment_methods", operation{name: "payment_methods.create", public: true, creates: true, serve: createMethod}},
	{"GET /v1/payment_methods/{id}", operation{name: "payment_methods.retrieve", public: true, serve: retrieveMethod}},
	{"PATCH /v1/payment_methods/{id}, PUT /v1/payment_methods/{id}", operation{name: "payment_methods.update", public: true, serve: updateMethod}},
	{"POST /v1/payment_intents", operation{name: "payment_intents.create", creates: true, serve: createIntent}},
	{"GET /v1/payment_intents/{id}", operation{name: "payment_intents.retrieve", public: true, serve: retrieveIntent}},
	{"POST /v1/payment_intents/{id}/attach", operation{name: "payment_intents.attach", public: true, serve: attachIntent}},
	{"POST /v1/payment_intents/{id}/capture", operation{name: "payment_intents.capture", serve: captureIntent}},
	{"POST /v1/payment_intents/{id}/cancel", operation{name: "payment_intents.cancel", serve: cancelIntent}},
	{"GET /v1/payments", operation{name: "payments.list", serve: listPayments}},
	{"GET /v1/payments/{id}", operation{name: "payments.retrieve", serve: retrievePayment}},
	{"POST /v1/refunds", operation{name: "refunds.create", creates: true, serve: createRefund}},
	{"GET /v1/refunds", operation{name: "refunds.list", serve: listRefunds}},
	{"GET /v1/refunds/{id}", operation{name: "refunds.retrieve", serve: retrieveRefund}},
	{"POST /v1/webhooks", operation{name: "webhooks.create", creates: true, serve: createHook}},
	{"GET /v1/webhooks", operation{name: "webhooks.list", serve: listHooks}},
	{"GET /v1/webhooks/{id}", operation{name: "webhooks.retrieve", serve: retrieveHook}},
	{"PUT /v1/webhooks/{id}, PATCH /v1/webhooks/{id}", operation{name: "webhooks.update", serve: updateHook}},
	{"POST /v1/webhooks/{id}/enable", operation{name: "webhooks.enable", serve: enableHook}},
	{"POST /v1/webhooks/{id}/disable", operation{name: "webhooks.disable", serve: disableHook}},
	{"POST /v1/checkout_sessions", operation{name: "checkout_sessions.create", creates: true, serve: createCheckout}},
	{"GET /v1/checkout_sessions/{id}", operation{name: "checkout_sessions.retrieve", serve: retrieveCheckout}},
	{"POST /v1/checkout_sessions/{id}/expire", operation{name: "checkout_sessions.expire", serve: expireCheckout}},
}

// attachOperation is where money moves, so more than one place asks for it.
const attachOperation = "payment_intents.attach"

// operations are the names a fault's endpoint can have.
var operations = func() (names []string) {
	for _, route := range routes {
		if !slices.Contains(names, route.op.name) {
			names = append(names, route.op.name)
		}
	}
	return names
}()

func (s *Sandbox) apiRoutes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, route := range routes {
		for pattern := range strings.SplitSeq(route.patterns, ", ") {
			mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, &route.op) })
		}
	}
	// Authentication comes first, as on the real one; then an unknown route
	// is a 404 with an empty body (a special case in paymongo-node).
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, &operation{name: "unknown", public: true, serve: func(*call) answer {
			return answer{status: 404, raw: []byte{}}
		}})
	})
	return mux
}

// serve takes one request from its first byte to its last:
// authenticate, read, decide the faults, do it, spoil the answer, send events.
func (s *Sandbox) serve(w http.ResponseWriter, r *http.Request, op *operation) {
	started := time.Now()
	c := &call{
		s: s, op: op, r: r,
		id: r.PathValue("id"), sub: r.PathValue("sub"),
		key:  r.Header.Get("Idempotency-Key"),
		base: baseURL(r),
	}
	status := s.answer(w, c)
	s.log.LogAttrs(r.Context(), slogLevel(status), "request", c.logAttrs(status, time.Since(started))...)
}

func (s *Sandbox) answer(w http.ResponseWriter, c *call) int {
	if a, ok := s.authenticate(c); !ok {
		return write(w, a)
	}
	if a, ok := c.read(w); !ok {
		return write(w, a)
	}
	a, limited := s.receive(c)
	switch {
	case limited:
		return writeTooMany(w, 0)
	case a.status != 0:
		return write(w, a)
	}
	if done, status := s.before(w, c); done {
		return status
	}
	a, early, late := s.perform(c)
	return s.after(w, c, a, early, late)
}

// receive books a call's arrival and decides its faults. An answer with a
// status ends the call.
func (s *Sandbox) receive(c *call) (a answer, limited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return closedAnswer, false
	}
	c.now = s.clock.Now()
	s.catchUp(c.now)
	s.st.Counters.Requests++
	if c.op.creates || c.op.name == attachOperation {
		if err := s.full(); err != nil {
			return refuse(503, "sandbox_full", err.Error()), false
		}
	}
	s.noteAttach(c)
	if s.limiter.over(c.now, s.profile.RateLimit) {
		return answer{}, true
	}
	c.hits = s.faults.hit(c.op.name, s.subject(c))
	if c.attached != nil {
		c.attached.Attaches[c.attachedAt].Fault = c.hits.String()
	}
	s.dirty = s.dirty || len(s.faults.rules) > 0 || c.hits != hits{}
	return answer{}, false
}

// perform runs the operation, or replays what its key has stored. Events that
// it made go out before the answer (early) or behind it (late).
func (s *Sandbox) perform(c *call) (a answer, early, late []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return closedAnswer, nil, nil
	}
	s.working.Add(1)
	defer s.working.Done()
	// Not the time of arrival: the call may have waited since, for the lock or
	// for a fault.
	c.now = s.clock.Now()
	s.catchUp(c.now)
	if a, replayed := s.replay(c); replayed {
		c.noteOutcome("replayed")
		if a.errs != nil {
			c.noteOutcome("refused: " + a.errs[0].Code)
		}
		return a, nil, nil
	}
	a = c.op.serve(c)
	if c.executes {
		// The acquirer is asked outside the lock: what else happens to the
		// intent meanwhile is up to SerialAttach.
		latency := time.Duration(s.profile.AcquirerLatency) + c.hits.delay
		if latency > 0 {
			s.mu.Unlock()
			s.pause(latency, nil) // to the end, also when the caller has gone
			s.mu.Lock()
			c.now = s.clock.Now()
			s.catchUp(c.now)
		}
		a = c.execute()
	}
	if c.r.Method != http.MethodGet {
		s.dirty = true
	}
	s.remember(c, a)
	early, late = s.announce(c.pending, c.now)
	return a, early, late
}

// closedAnswer refuses what comes after Close: the state file would not have it.
var closedAnswer = refuse(503, "sandbox_closed", "The sandbox is closed.")

// baseURL is how the caller reaches us.
func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// authenticate checks the key: HTTP Basic, the key as user name, an empty
// password. https://developers.paymongo.com/reference/authentication-1
func (s *Sandbox) authenticate(c *call) (answer, bool) {
	key, password, ok := c.r.BasicAuth()
	known := ok && password == "" && isTestKey(key)
	if known && len(s.opts.Keys) > 0 {
		known = false
		for _, k := range s.opts.Keys {
			known = known || k == key
		}
	}
	switch {
	case !ok:
		return refuse(401, "api_key_invalid", "API key is missing. Send it as the user name of HTTP Basic authentication."), false
	case strings.HasPrefix(key, "sk_live_") || strings.HasPrefix(key, "pk_live_"):
		return refuse(401, "api_key_invalid", "This is a sandbox. It takes test keys only; a live key must never be sent to it."), false
	case !known:
		// The real one is said to repeat the key; a client must redact it.
		return refuse(401, "api_key_invalid", "API key "+key+" is invalid."), false
	}
	c.publicKey = strings.HasPrefix(key, "pk_")
	if c.publicKey && !c.op.public {
		return refuse(401, "api_key_invalid", "This call needs a secret key."), false
	}
	return answer{}, true
}

// read takes the body and its attributes.
func (c *call) read(w http.ResponseWriter) (answer, bool) {
	if len(c.key) > 255 {
		return refuse(400, "parameter_invalid", "Idempotency-Key is longer than 255 characters."), false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, c.r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refuse(413, "parameter_invalid", "The request body is larger than 1 MiB."), false
	case err != nil:
		return refuse(400, "parameter_invalid", "The request body could not be read."), false
	}
	c.body = body
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodDelete {
		return answer{}, true
	}
	// A call without arguments was recorded with the body [].
	if trimmed := bytes.TrimSpace(body); len(trimmed) == 0 || string(trimmed) == "[]" {
		c.attrs = attributes{}
		return answer{}, true
	}
	var envelope struct {
		Data *struct {
			Attributes attributes `json:"attributes"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return refuse(400, "parameter_invalid", "The request body is not the JSON of {\"data\":{\"attributes\":{...}}}."), false
	}
	if envelope.Data != nil {
		c.attrs = envelope.Data.Attributes
	}
	if c.attrs == nil {
		c.attrs = attributes{}
	}
	return answer{}, true
}

// pause waits d of real time, or until gone or the sandbox is closed.
func (s *Sandbox) pause(d time.Duration, gone <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.done:
	case <-gone:
	}
}

func write(w http.ResponseWriter, a answer) int {
	body := a.bytes()
	h := w.Header()
	if len(body) > 0 {
		h["Content-Type"] = contentJSON
	}
	h["Cache-Control"] = cacheControl
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // the caller may be gone; the ledger knows all the same
	return a.status
}

// As recorded in 2020.
var (
	contentJSON  = []string{"application/json; charset=utf-8"}
	cacheControl = []string{"max-age=0, private, must-revalidate"}
)
