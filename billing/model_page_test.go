package billing

// The customer's page: ShareIntent by its own check, and what a browser does with
// an intent that was shared with it, at any time and for ever.

// page gives the steps of the customer's page.
func (m *model) page() {
	if m.env.page && m.at.pages < m.bound.pages {
		for _, i := range m.at.newest() {
			m.share(i)
		}
	}
	for i := range m.at.pis {
		if m.at.shared(uint8(i + 1)) {
			m.browse(i)
		}
	}
}

// share is ShareIntent. The provider's intent of a record that has none is created
// for it; what somebody else has stored meanwhile is what counts, and the one that
// was created is nobody's.
func (m *model) share(i uint8) {
	row := m.at.intents[i-1]
	w := m.at
	slot := row.pi
	if slot == 0 {
		if slot = m.slot(row.generation); slot == 0 {
			return
		}
		if q := &w.pis[slot-1]; q.status == 0 {
			*q = pi{status: piAwaiting, key: row.generation}
		}
	}
	intent := payIntent{invoice: modelInvoice, state: intentWords[row.state], provider: piID(row.pi)}
	if open := w.openOn(i); open != 0 {
		intent.open = attemptWords[w.attempts[open-1].state]
	}
	r := PayRequest{InvoiceID: modelInvoice, IntentID: intentID(i), ProviderIntentID: piID(slot)}
	frozen := Instance{Frozen: w.frozen}
	if frozen.MayCharge(modelStart) != nil || r.check(payInvoice{status: invoiceWords[w.status]}, intent) != nil {
		return
	}
	target := &w.intents[i-1]
	target.state, target.pi, target.shared = intentReady, slot, true
	w.pis[slot-1].stored = true
	w.pages++
	m.emit(note{"the page is given pi_%d, the holds are used up", slot, 0, 0}, w, luck)
	target.fence++
	w.claimed = false
	m.emit(note{"the page is given pi_%d, and attempts are held back", slot, 0, 0}, w, luck)
}

// shared tells that a page has the intent. Nobody takes it back.
func (w *world) shared(slot uint8) bool {
	for _, row := range w.intents {
		if row.shared && row.pi == slot {
			return true
		}
	}
	return false
}

// browse is the customer attaching a card of their own.
func (m *model) browse(i int) {
	p := m.at.pis[i]
	slot := uint8(i + 1)
	if m.env.pageOpensAnother {
		// What people do who have no record of the invoice's intent at hand.
		if other := m.at.free(); other != 0 && m.at.pages <= 1 {
			w := m.at
			w.pis[other-1] = pi{status: piSucceeded, captures: 1, stored: true}
			w.pages++
			m.emit(note{"the page pays on pi_%d, an intent of its own", other, 0, 0}, w, luck)
		}
	}
	if p.status != piAwaiting && p.status != piAction {
		return
	}
	become := func(format string, status code, captures uint8) {
		w := m.at
		q := &w.pis[i]
		q.status, q.captures, q.by = status, q.captures+captures, 0
		m.emit(note{format, slot, 0, 0}, w, luck)
	}
	become("the browser attaches: pi_%d succeeds", piSucceeded, 1)
	become("the browser attaches: pi_%d is processing", piProcessing, 0)
	become("the browser attaches: pi_%d sends the customer to the bank", piAction, 0)
	if failed, room := p.fail(m.bound.failures); room {
		w := m.at
		w.pis[i] = failed
		m.emit(note{"the browser attaches: declined on pi_%d", slot, 0, 0}, w, luck)
	}
}

// free is a payment intent that nobody has created yet.
func (w *world) free() uint8 {
	for i, p := range w.pis {
		if p.status == 0 {
			return uint8(i + 1)
		}
	}
	return 0
}
