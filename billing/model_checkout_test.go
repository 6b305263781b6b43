package billing

// Hosted checkouts: a session makes a payment intent of its own, and its page
// attaches to that for as long as it lives. worker/checkout.go told once more; what
// it decides by is ShareIntent's own check, Next and Judge.

// checkoutID is the session that the loaded intent is of.
func checkoutID(p process) string {
	if !p.checkout {
		return ""
	}
	return "cs_" + piID(p.pi)
}

// checkouts gives the steps of whoever asks for a hosted checkout. The looks in
// between are a worker's, that a webhook wakes.
func (m *model) checkouts() {
	if !m.env.checkout || m.at.pages == m.bound.pages {
		return
	}
	for _, i := range m.at.newest() {
		if m.at.intents[i-1].pi != 0 {
			m.giveWay(i)
		} else {
			m.openCheckout(i)
		}
	}
}

// mayShare asks ShareIntent's check about row i.
func (m *model) mayShare(i uint8, r PayRequest) bool {
	w, row := m.at, m.at.intents[i-1]
	intent := payIntent{invoice: modelInvoice, state: intentWords[row.state], provider: piID(row.pi)}
	if open := w.openOn(i); open != 0 {
		intent.open = attemptWords[w.attempts[open-1].state]
	}
	frozen := Instance{Frozen: w.frozen}
	return frozen.MayCharge(modelStart) == nil && r.check(payInvoice{status: invoiceWords[w.status]}, intent) == nil
}

// giveWay holds attempts back and sends the cancel of an intent of ours, which may
// arrive at any time, or never. The browser may have that intent from an earlier
// page. A replacement that asks for no proof follows at once.
func (m *model) giveWay(i uint8) {
	row := m.at.intents[i-1]
	c := &Collection{Standing: Standing{InvoiceOpen: m.at.status == invoiceOpen}}
	r := PayRequest{InvoiceID: modelInvoice, IntentID: intentID(i), ProviderIntentID: piID(row.pi)}
	if row.checkout || m.at.openOn(i) != 0 || c.MayReplaceIntent() != nil || !m.mayShare(i, r) {
		return
	}
	w := m.at
	target := &w.intents[i-1]
	if !target.shared { // once is enough to a bounded world: the cancel stays on the wire
		target.shared = true
		target.fence++
	}
	w.claimed = false
	w.pis[row.pi-1].asked = true
	if m.env.checkoutUnproven {
		target.state = intentDead
		if w.writeNewIntent(row.generation+1, true) != "" {
			return
		}
	}
	m.emit(note{"pi_%d is to give way to a checkout, and its cancel is sent", row.pi, 0, 0}, w, luck)
}

// openCheckout makes a session for a row without an intent's id, and stores it. One
// that is not stored, or whose making is not heard of, is shown to nobody.
func (m *model) openCheckout(i uint8) {
	slot := m.at.free()
	r := PayRequest{InvoiceID: modelInvoice, IntentID: intentID(i), ProviderIntentID: piID(slot), CheckoutSessionID: "cs_" + piID(slot)}
	if slot == 0 || !m.mayShare(i, r) {
		return
	}
	w := m.at
	w.pis[slot-1] = pi{status: piAwaiting, stored: true}
	target := &w.intents[i-1]
	target.state, target.pi, target.shared, target.checkout = intentReady, slot, true, true
	w.pages++
	m.emit(note{"a checkout is opened on pi_%d, the holds are used up", slot, 0, 0}, w, luck)
	target.fence++
	w.claimed = false
	m.emit(note{"a checkout is opened on pi_%d, and attempts are held back", slot, 0, 0}, w, luck)
}

// expire has a worker close the checkout: at once, later, or never. The answer is
// no proof of either, and it looks. A second time it gives up.
func (m *model) expire(i int) {
	p := m.at.workers[i]
	no := uint8(i + 1)
	if m.at.armed == m.bound.attempts {
		w := m.at
		w.workers[i] = deferred(p, decideEnd)
		m.emit(note{"worker %d finds dunning at its end, the checkout stays open", no, 0, 0}, w, sure)
	}
	if p.closed {
		w := m.at
		w.workers[i] = judged(p, m.intern(CheckoutOpen()))
		m.emit(note{"worker %d sees pi_%d alive, though its checkout was to close", no, p.pi, 0}, w, sure)
		return
	}
	w := m.at
	q := &w.workers[i]
	q.closed, q.looked = true, false
	late := w
	late.pis[p.pi-1].asked = true
	m.emit(note{"worker %d closes the checkout of pi_%d, which nobody hears of yet", no, p.pi, 0}, late, luck)
	if m.env.expireIsProof {
		late.workers[i] = judged(p, m.intern(rotated("retrieve")))
		m.emit(note{"worker %d has asked to close the checkout of pi_%d, and does not look", no, p.pi, 0}, late, luck)
	}
	if status := w.pis[p.pi-1].status; status == piAwaiting || status == piAction {
		w.pis[p.pi-1].status = piCancelled
		m.emit(note{"worker %d closes the checkout, pi_%d is cancelled", no, p.pi, 0}, w, sure)
	} else {
		m.emit(note{"worker %d cannot close the checkout of pi_%d any more", no, p.pi, 0}, w, sure)
	}
}
