package sandbox

import (
	"net/url"
	"time"
)

// execute is the moment an attach acts: the acquirer's answer. Called with mu
// held, after the look and the acquirer's latency.
func (c *call) execute() answer {
	pi, at := c.attached, c.attached.Attaches[c.attachedAt]
	pi.Busy--
	if c.s.st.intents[pi.ID] != pi {
		return notFound("payment intent", pi.ID) // the sandbox was reset meanwhile
	}
	if c.s.profile.SerialAttach {
		// Busy kept other attaches out, but the clock may have moved.
		if a, refused := c.s.refuseState(pi, true); refused {
			at.Outcome = "refused: " + a.errs[0].Code
			return a
		}
	}
	out := c.s.executeAttach(pi, c.attachedAt, c.hits.outcome, c.base, c.now)
	c.emit(out.events...)
	if out.refusal.status != 0 {
		return out.refusal
	}
	return ok(c.s.intent(pi))
}

// executed is what came of an attach.
type executed struct {
	refusal answer // status 0: the intent is the answer
	events  []pendingEvent
}

// executeAttach decides and books. Everything that moves money passes here or
// through a timer that was set here.
func (s *Sandbox) executeAttach(pi *intent, index int, f *Fault, base string, now time.Time) executed {
	at := pi.Attaches[index]
	m := s.st.methods[at.Method]
	card := testCards[m.Number]
	isCard := m.Type == "card"
	saved := m.Customer != ""
	at.OffSession = saved && !m.FreshCVC && at.ReturnURL == "" && !at.Public
	if at.OffSession && s.profile.OffSession == "not_allowed" {
		at.Outcome = "refused: organization_not_allowed"
		return executed{refusal: refuse(403, "organization_not_allowed", "The organization is not allowed to charge a saved card off-session.")}
	}
	at.ExecutedAt = now
	fresh := m.FreshCVC
	m.FreshCVC = false

	declined := func(code string) executed {
		return executed{s.declineAnswer(code), s.fail(pi, at, code, now)}
	}
	if f != nil {
		switch f.Kind {
		case Decline:
			return declined(f.declineCode(s.opts.Seed, pi.subject()))
		case ThreeDS:
			s.askCustomer(pi, index, base, now)
			return executed{}
		case Processing:
			at.Outcome = "processing"
			pi.Pending = index
			s.change(pi, processing, now)
			s.schedule(&timer{At: now.Add(time.Duration(f.For)), Kind: timerSettle, ID: pi.ID, Arg: f.Then, N: index})
			return executed{}
		}
	}
	switch {
	case saved && s.profile.CVCRequired && !fresh:
		return declined("cvc_invalid")
	case m.expired(now):
		return declined("card_expired")
	case !isCard, card.threeDS, at.OffSession && s.profile.OffSession == "three_ds":
		s.askCustomer(pi, index, base, now)
		return executed{}
	case card.decline != "":
		return declined(card.decline)
	case card.renewalFails && at.OffSession:
		return declined("generic_decline")
	}
	return executed{events: s.collect(pi, index, now)}
}

// collect takes the money, or holds it for a capture.
func (s *Sandbox) collect(pi *intent, index int, now time.Time) []pendingEvent {
	at := pi.Attaches[index]
	if pi.CaptureType == "manual" {
		at.Outcome = "held"
		pi.Pending = index
		s.change(pi, awaitingCapture, now)
		if life := time.Duration(s.profile.HoldLifetime); life > 0 {
			s.schedule(&timer{At: now.Add(life), Kind: timerHoldExpires, ID: pi.ID})
		}
		return nil
	}
	return s.pay(pi, at, pi.Amount, now)
}

// pay books a paid payment: the only place where money is taken.
func (s *Sandbox) pay(pi *intent, at *attach, amount int64, now time.Time) []pendingEvent {
	s.change(pi, succeeded, now)
	pay := s.addPayment(pi, at, amount, "paid", now)
	pi.LastError = nil
	at.Outcome, at.Payment = "paid", pay.ID
	m := s.st.methods[at.Method]
	if m.Type == "card" {
		s.vault(pi, m, now)
	}
	about := pi.about(at.Method)
	events := s.event(nil, "payment.paid", about, func() wireResource { return s.payment(pay) })
	events = s.event(events, "payment_intent.succeeded", about, func() wireResource { return s.intent(pi) })
	if cs := s.st.checkouts[pi.Checkout]; cs != nil {
		paidAt := now.Unix()
		cs.PaidAt = &paidAt
		events = s.event(events, "checkout_session.payment.paid", about, func() wireResource { return s.checkout(cs) })
	}
	return events
}

// fail books a failed payment and sends the intent back to
// awaiting_payment_method, where it may be attached again.
func (s *Sandbox) fail(pi *intent, at *attach, code string, now time.Time) []pendingEvent {
	s.change(pi, awaitingPaymentMethod, now)
	pay := s.addPayment(pi, at, pi.Amount, "failed", now)
	pay.FailedCode, pay.FailedMessage = code, declineDetail(code)
	at.Outcome, at.Payment = "declined: "+code, pay.ID
	about := pi.about(at.Method)
	events := s.event(nil, "payment.failed", about, func() wireResource { return s.payment(pay) })
	if pi.Status == succeeded {
		return events
	}
	pi.LastError = &paymentError{Payment: pay.ID, FailedCode: code, FailedMessage: pay.FailedMessage, PaymentMethod: at.Method}
	return s.event(events, "payment_intent.awaiting_payment_method", about, func() wireResource { return s.intent(pi) })
}

// declineAnswer: an integrator's record of the real body.
func (s *Sandbox) declineAnswer(code string) answer {
	return answer{status: s.profile.DeclineStatus, errs: []apiError{{
		Code: "resource_failed_state", Detail: declineDetail(code), SubCode: code,
	}}}
}

func declineDetail(code string) string {
	if detail, known := declineDetails[code]; known {
		return detail
	}
	return "The payment was declined."
}

// askCustomer opens a 3DS page and waits for one of its buttons.
func (s *Sandbox) askCustomer(pi *intent, index int, base string, now time.Time) {
	at := pi.Attaches[index]
	at.Outcome = "needs_action"
	delete(s.st.sources, pi.Source)
	s.change(pi, awaitingNextAction, now)
	pi.Pending = index
	pi.Source = s.newID("src_")
	s.st.sources[pi.Source] = pi
	action := &nextAction{Type: "redirect"}
	action.Redirect.URL = base + "/_sandbox/sources?id=" + pi.Source
	action.Redirect.ReturnURL = withQuery(at.ReturnURL, "payment_intent_id", pi.ID)
	pi.NextAction = action
	if life := time.Duration(s.profile.ActionLifetime); life > 0 {
		s.schedule(&timer{At: now.Add(life), Kind: timerActionExpire, ID: pi.ID, Arg: pi.Source})
	}
}

// withQuery appends a parameter the way PayMongo does; "" stays "".
func withQuery(target, name, value string) string {
	u, err := url.Parse(target)
	if err != nil || target == "" {
		return target
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += name + "=" + url.QueryEscape(value)
	return u.String()
}

// customerAnswered ends a 3DS page: the customer authorised or failed it.
func (s *Sandbox) customerAnswered(pi *intent, authorised bool, now time.Time) []pendingEvent {
	at := pi.Attaches[pi.Pending]
	card := testCards[s.st.methods[at.Method].Number]
	switch {
	case !authorised:
		return s.fail(pi, at, "authentication_error", now)
	case card.decline != "":
		return s.fail(pi, at, card.decline, now)
	}
	return s.collect(pi, pi.Pending, now)
}

// settleProcessing ends a payment that was processing.
func (s *Sandbox) settleProcessing(t *timer) {
	pi := s.st.intents[t.ID]
	if pi == nil || pi.Status != processing && s.profile.SerialAttach {
		return
	}
	if t.Arg == "" || t.Arg == "succeed" {
		s.queue(s.collect(pi, t.N, t.At), t.At)
		return
	}
	s.queue(s.fail(pi, pi.Attaches[t.N], t.Arg, t.At), t.At)
}

// executeLate executes an attach whose connection died long ago.
func (s *Sandbox) executeLate(t *timer) {
	pi := s.st.intents[t.ID]
	if pi == nil {
		return
	}
	at := pi.Attaches[t.N]
	a, refused := s.lookAtMethod(pi, at)
	if !refused && s.profile.SerialAttach {
		a, refused = s.lookAtIntent(pi)
	}
	if refused {
		at.Outcome = "refused: " + a.errs[0].Code
		return
	}
	s.queue(s.executeAttach(pi, t.N, t.Fault, t.Arg, t.At).events, t.At)
}

// noteAttach puts an attach into the ledger as it was received, before
// anything is done about it. Called with mu held.
func (s *Sandbox) noteAttach(c *call) {
	pi := s.st.intents[c.id]
	if c.op.name != attachOperation || pi == nil {
		return
	}
	p := c.params()
	c.attached, c.attachedAt = pi, s.st.addAttach(pi, &attach{
		ReceivedAt: c.now, Method: p.text("payment_method"), ReturnURL: p.text("return_url"),
		IdempotencyKey: c.key, Public: c.publicKey, Outcome: notExecuted,
	})
	s.dirty = true
}

// noteOutcome tells the ledger what became of an attach.
func (c *call) noteOutcome(outcome string) {
	if c.attached != nil {
		c.attached.Attaches[c.attachedAt].Outcome = outcome
	}
}

// postpone sets an attach down for later, if it says what it must. Called with
// mu held.
func (s *Sandbox) postpone(c *call, wait time.Duration) {
	if a, refused := c.checkAttach(); refused {
		c.noteOutcome("refused: " + a.errs[0].Code)
		return
	}
	c.noteOutcome("late")
	s.schedule(&timer{At: c.now.Add(wait), Kind: timerLateAttach, ID: c.attached.ID, Arg: c.base, N: c.attachedAt, Fault: c.hits.outcome})
}
