package sandbox

import (
	"encoding/json"
	"slices"
	"time"
)

// The six statuses of a payment intent. There is no "failed".
const (
	awaitingPaymentMethod = "awaiting_payment_method"
	awaitingNextAction    = "awaiting_next_action"
	processing            = "processing"
	awaitingCapture       = "awaiting_capture"
	succeeded             = "succeeded"
	cancelled             = "cancelled"
)

// Outcomes of an attach that has not been executed.
const (
	atWork      = "at work"
	notExecuted = "not executed"
)

// defaultOptions: "any" in output since 2023, "automatic" before.
var defaultOptions = json.RawMessage(`{"card":{"request_three_d_secure":"any"}}`)

func createIntent(c *call) answer {
	s := c.s
	p := c.params()
	p.require("amount", "currency", "payment_method_allowed")
	pi := &intent{
		Amount:              p.integer("amount", s.profile.MinimumAmount, maxAmount),
		Currency:            p.choice("currency", "PHP"),
		CaptureType:         p.choice("capture_type", "automatic", "manual"),
		Description:         p.optional("description"),
		StatementDescriptor: p.optional("statement_descriptor"),
		Allowed:             p.texts("payment_method_allowed"),
		Metadata:            p.metadata(),
		Options:             defaultOptions,
		Status:              awaitingPaymentMethod,
	}
	for _, kind := range pi.Allowed {
		if !slices.Contains(methodTypes, kind) {
			p.fail("payment_method_allowed", "parameter_invalid", "payment_method_allowed has the unknown type %s.", kind)
			break
		}
	}
	if pi.CaptureType == "" {
		pi.CaptureType = "automatic"
	}
	if options, given := p.object("payment_method_options"); given {
		if card, given := options.object("card"); given {
			card.choice("request_three_d_secure", "any", "automatic")
		}
		pi.Options = p.attrs["payment_method_options"]
		if len(pi.Options) > 4<<10 {
			p.fail("payment_method_options", "parameter_invalid", "payment_method_options is too long.")
		}
	}
	if use, given := p.object("setup_future_usage"); given {
		use.require("session_type", "customer_id")
		pi.SetupFutureUsage = &setupFutureUsage{
			SessionType: use.choice("session_type", "on_session", "off_session"),
			CustomerID:  use.text("customer_id"),
		}
	}
	if a, refused := p.refused(); refused {
		return a
	}
	if use := pi.SetupFutureUsage; use != nil {
		if cus := s.st.customers[use.CustomerID]; cus == nil || cus.Deleted {
			return notFound("customer", use.CustomerID)
		}
	}
	s.addIntent(pi, c.now)
	return ok(s.intent(pi))
}

func (s *Sandbox) addIntent(pi *intent, now time.Time) {
	pi.ID = s.newID("pi_")
	pi.ClientKey = pi.ID + "_client_" + randomSuffix(s.rng)
	pi.CreatedAt, pi.UpdatedAt = now.Unix(), now.Unix()
	s.st.Intents = append(s.st.Intents, pi)
	s.st.intents[pi.ID] = pi
	if life := time.Duration(s.profile.IntentLifetime); life > 0 {
		s.schedule(&timer{At: now.Add(life), Kind: timerIntentExpire, ID: pi.ID})
	}
}

// intentCalled finds the intent of a call. With a public key the client key
// has to be there; 2020 traffic had it in the query.
func (c *call) intentCalled() (*intent, answer, bool) {
	pi := c.s.st.intents[c.id]
	if pi == nil {
		return nil, notFound("payment intent", c.id), false
	}
	key := c.r.URL.Query().Get("client_key")
	if raw, given := c.attrs["client_key"]; given && json.Unmarshal(raw, &key) != nil {
		return nil, refuse(400, "parameter_data_type_invalid", "client_key should be a string."), false
	}
	if c.publicKey && key == "" {
		return nil, refuse(400, "parameter_required", "client_key is required."), false
	}
	if key != "" && key != pi.ClientKey {
		return nil, refuse(400, "parameter_invalid", "client_key is not the key of this payment intent."), false
	}
	if f := c.hits.outcome; f != nil && f.Kind == ExpireIntent {
		c.s.expireIntent(pi.ID, c.now)
	}
	return pi, answer{}, true
}

func retrieveIntent(c *call) answer {
	pi, a, found := c.intentCalled()
	if !found {
		return a
	}
	if f := c.hits.outcome; f != nil && f.Kind == Stale && pi.Before != nil && c.now.Sub(pi.Before.Until) < time.Duration(f.For) {
		old := *pi
		old.Status, old.LastError, old.NextAction = pi.Before.Status, pi.Before.LastError, pi.Before.NextAction
		old.Payments, old.UpdatedAt = pi.Payments[:pi.Before.Payments], pi.Before.UpdatedAt
		return ok(c.s.intent(&old))
	}
	return ok(c.s.intent(pi))
}

// attachIntent looks; execute acts. Between the two the acquirer is at work.
func attachIntent(c *call) answer {
	a, refused := c.checkAttach()
	if !refused {
		a, refused = c.s.lookAtMethod(c.attached, c.attached.Attaches[c.attachedAt])
	}
	if !refused {
		a, refused = c.s.lookAtIntent(c.attached)
	}
	if refused {
		c.noteOutcome("refused: " + a.errs[0].Code)
		return a
	}
	c.attached.Busy++
	c.executes = true
	c.noteOutcome(atWork)
	return answer{}
}

// checkAttach refuses an attach for what it says.
func (c *call) checkAttach() (answer, bool) {
	if _, a, found := c.intentCalled(); !found {
		return a, true
	}
	p := c.params()
	method := p.text("payment_method")
	p.text("return_url")
	if method == "" && len(*p.errs) == 0 {
		// The unhelpful wording of OSSPhilippines/paymongo issue 21.
		p.fail("payment_method", "parameter_blank", "The value for payment_method cannot be blank.")
	}
	return p.refused()
}

// lookAtMethod refuses an attach whose method cannot pay this intent.
func (s *Sandbox) lookAtMethod(pi *intent, at *attach) (answer, bool) {
	m := s.st.methods[at.Method]
	if m == nil || m.Removed {
		return notFound("payment method", at.Method), true
	}
	if !slices.Contains(pi.Allowed, m.Type) {
		return refuse(400, "payment_method_not_allowed", "The payment method type "+m.Type+" is not allowed for this payment intent."), true
	}
	if m.Type != "card" && at.ReturnURL == "" {
		return refuse(400, "parameter_required", "return_url is required."), true
	}
	return answer{}, false
}

// lookAtIntent refuses an attach for the state the intent is in.
func (s *Sandbox) lookAtIntent(pi *intent) (answer, bool) {
	if pi.Busy > 0 && s.profile.SerialAttach {
		return refuse(400, "resource_processing_state", "The payment intent "+pi.ID+" is being processed."), true
	}
	return s.refuseState(pi, true)
}

// refuseState refuses an attach or a cancel that an intent's status does not
// allow. Only resource_succeeded_state is in evidence; resource_processing_state
// is by analogy, resource_cancelled_state has no source.
func (s *Sandbox) refuseState(pi *intent, attaching bool) (answer, bool) {
	switch pi.Status {
	case succeeded:
		return refuse(400, "resource_succeeded_state", "The payment intent "+pi.ID+" has already succeeded."), true
	case processing:
		return refuse(400, "resource_processing_state", "The payment intent "+pi.ID+" is being processed."), true
	case cancelled:
		return refuse(400, "resource_cancelled_state", "The payment intent "+pi.ID+" is cancelled."), true
	case awaitingCapture:
		if attaching {
			return refuse(400, "resource_processing_state", "The payment intent "+pi.ID+" awaits capture."), true
		}
	case awaitingNextAction:
		if attaching && !s.profile.ReattachDuringAction {
			return refuse(400, "resource_pending_state", "The payment intent "+pi.ID+" waits for the customer."), true
		}
	}
	return answer{}, false
}

func captureIntent(c *call) answer {
	pi, a, found := c.intentCalled()
	if !found {
		return a
	}
	p := c.params()
	amount := pi.Amount
	if p.has("amount") {
		amount = p.integer("amount", 1, maxAmount)
	}
	if a, refused := p.refused(); refused {
		return a
	}
	if pi.Status != awaitingCapture {
		if a, refused := c.s.refuseState(pi, true); refused {
			return a
		}
		return refuse(400, "resource_failed_state", "The payment intent "+pi.ID+" does not await capture.")
	}
	if amount > pi.Amount {
		return refuse(400, "allowed_amount_exceeded", "The amount to capture is above the amount of the payment intent.")
	}
	at := pi.Attaches[pi.Pending]
	c.emit(c.s.pay(pi, at, amount, c.now)...)
	return ok(c.s.intent(pi))
}

func cancelIntent(c *call) answer {
	pi, a, found := c.intentCalled()
	if !found {
		return a
	}
	if pi.Busy > 0 {
		return refuse(400, "resource_processing_state", "The payment intent "+pi.ID+" is being processed.")
	}
	if a, refused := c.s.refuseState(pi, false); refused {
		return a
	}
	if pi.Status == awaitingCapture && testCards[c.s.st.methods[pi.Attaches[pi.Pending].Method].Number].cancelFails {
		return refuse(400, "resource_failed_state", "The processor refused to cancel the payment intent "+pi.ID+".")
	}
	c.s.change(pi, cancelled, c.now)
	return ok(c.s.intent(pi))
}

// change moves an intent to another status and keeps what it looked like.
// What is paid stays paid: without SerialAttach a second attach may be
// declined, or ask for the customer, after the first has paid.
func (s *Sandbox) change(pi *intent, status string, now time.Time) {
	if pi.Status == succeeded {
		status = succeeded
	}
	pi.Before = &intentView{
		Status: pi.Status, LastError: pi.LastError, NextAction: pi.NextAction,
		Payments: len(pi.Payments), UpdatedAt: pi.UpdatedAt, Until: now,
	}
	pi.Status = status
	pi.UpdatedAt = now.Unix()
	if status != awaitingNextAction {
		delete(s.st.sources, pi.Source)
		pi.Source, pi.NextAction = "", nil
	}
}

func (s *Sandbox) expireIntent(id string, now time.Time) {
	if pi := s.st.intents[id]; pi != nil && pi.Status == awaitingPaymentMethod && pi.Busy == 0 {
		s.change(pi, cancelled, now) // the resulting status has no source
	}
}

// expireHold releases a hold after seven days; the final status has no source.
func (s *Sandbox) expireHold(t *timer) {
	if pi := s.st.intents[t.ID]; pi != nil && pi.Status == awaitingCapture {
		s.change(pi, cancelled, t.At)
	}
}

func (s *Sandbox) expireAction(t *timer) {
	if pi := s.st.sources[t.Arg]; pi != nil {
		s.queue(s.fail(pi, pi.Attaches[pi.Pending], "authentication_error", t.At), t.At)
	}
}

func (s *Sandbox) intent(pi *intent) wireResource {
	at := wireIntent{
		Amount: pi.Amount, CaptureType: pi.CaptureType, ClientKey: pi.ClientKey, Currency: pi.Currency,
		Description: pi.Description, OriginalAmount: pi.Amount, StatementDescriptor: pi.StatementDescriptor,
		Status: pi.Status, LastPaymentError: pi.LastError, PaymentMethodAllowed: pi.Allowed,
		Payments: make([]wireResource, 0, len(pi.Payments)), NextAction: pi.NextAction, PaymentMethodOptions: pi.Options,
		Metadata: pi.Metadata, SetupFutureUsage: pi.SetupFutureUsage, CreatedAt: pi.CreatedAt, UpdatedAt: pi.UpdatedAt,
	}
	if !s.profile.LastPaymentError {
		at.LastPaymentError = nil
	}
	for _, pay := range pi.Payments {
		at.Payments = append(at.Payments, s.payment(pay))
	}
	return wireResource{pi.ID, "payment_intent", at}
}
