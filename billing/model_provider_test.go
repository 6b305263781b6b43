package billing

import "fmt"

// What happens beside the workers: the provider, the wire, the clock, people.

// provider gives the steps of the provider and of the wire.
func (m *model) provider() {
	for i, a := range m.at.attempts {
		no := uint8(i + 1)
		if a.wire == 0 {
			continue
		}
		m.execute(no)
		w := m.at
		w.attempts[i].wire--
		m.emit(note{"the attach of attempt %d is lost on its way", no, 0, 0}, w, sure)
		if m.env.replay && !a.replayed {
			w = m.at
			w.attempts[i].wire++
			w.attempts[i].replayed = true
			m.emit(note{"the HTTP layer sends the attach of attempt %d once more", no, 0, 0}, w, luck)
		}
	}
	for i := range m.at.pis {
		m.resolve(i)
	}
}

// execute is the provider taking an attach off the wire. Its answer arrives, or
// is lost.
func (m *model) execute(attempt uint8) {
	target := m.at.attempts[attempt-1].pi
	before := m.at
	before.attempts[attempt-1].wire--
	p := before.pis[target-1]
	became := func(said saying, after pi, a Answer) {
		w := before
		w.pis[target-1] = after
		m.emit(note{said.lost, attempt, target, 0}, w, sure)
		for i := range w.workers {
			if q := &w.workers[i]; q.phase == phaseWait && q.attempt == attempt {
				heard := w
				m.answered(&heard.workers[i], a, after)
				m.emit(note{said.heard, attempt, target, uint8(i + 1)}, heard, sure)
			}
		}
	}
	p.by = 0
	if m.env.attributed {
		p.by = attempt
	}
	captured := p
	captured.status = piSucceeded
	captured.captures++
	switch p.status {
	case piAwaiting, piAction:
		became(executed[piSucceeded], captured, Answer{Kind: AnswerIntent})
		for _, next := range []code{piProcessing, piAction} {
			after := p
			after.status = next
			became(executed[next], after, Answer{Kind: AnswerIntent})
		}
		if failed, room := p.fail(m.bound.failures); room {
			became(executed[piAwaiting], failed, Answer{Kind: AnswerDeclined, Code: "insufficient_funds", Reason: "insufficient_funds"})
		}
		return
	case piSucceeded:
		if m.env.capturesTwice && p.captures < 2 {
			became(executed[piSucceeded], captured, Answer{Kind: AnswerIntent})
		}
	}
	became(refusedAttach[p.status], before.pis[target-1], Answer{Kind: AnswerFault, Reason: "state"})
}

// saying is how a trace tells of an attach whose answer is lost, or is heard.
type saying struct{ lost, heard string }

func say(format string, words ...any) saying {
	text := fmt.Sprintf(format, words...)
	return saying{text + ", the answer is lost", text + ", worker %[3]d hears it"}
}

// By the state that the intent is in afterwards.
var executed, refusedAttach = func() (executed, refused [6]saying) {
	for i, status := range statusWords {
		executed[i] = say("the provider executes the attach of attempt %%[1]d: pi_%%[2]d %s", status)
		refused[i] = say("the provider refuses the attach of attempt %%[1]d: pi_%%[2]d is %s", status)
	}
	executed[piAwaiting] = say("the provider executes the attach of attempt %%[1]d: declined on pi_%%[2]d")
	return executed, refused
}()

// fail adds a failed payment, if the model has room for another.
func (p pi) fail(most uint8) (pi, bool) {
	for n := range most {
		if p.failed&(1<<n) == 0 {
			p.failed |= 1 << n
			p.status, p.by = piAwaiting, 0
			return p, true
		}
	}
	return p, false
}

// resolve ends what is in processing or waits for the customer, and cancels.
func (m *model) resolve(i int) {
	p := m.at.pis[i]
	no := uint8(i + 1)
	become := func(format string, after pi, kind edge) {
		w := m.at
		w.pis[i] = after
		m.emit(note{format, no, 0, 0}, w, kind)
	}
	ends := sure // a customer may never act
	switch p.status {
	case piAction:
		ends = luck
		after := p
		after.status, after.by = piAwaiting, 0
		become("the customer's link expires: pi_%d waits for a payment method", after, luck)
		fallthrough
	case piProcessing:
		after := p
		after.status = piSucceeded
		after.captures++
		become("pi_%d succeeds at last", after, ends)
		if after, room := p.fail(m.bound.failures); room {
			become("pi_%d fails at last", after, ends)
		}
	}
	if cancellable := p.status == piAwaiting || p.status == piAction; cancellable && p.stored && m.at.cancelled() < m.bound.cancels {
		after := p
		after.status = piCancelled
		become("pi_%d is cancelled at the provider", after, luck)
	} else if cancellable && p.asked {
		after := p
		after.status = piCancelled
		become("the cancel of pi_%d arrives", after, luck)
	}
}

func (w *world) cancelled() (n uint8) {
	for _, p := range w.pis {
		n += bit(p.status == piCancelled)
	}
	return n
}

// time lets SettledAfter of an open attempt pass. Where the quiet period is kept
// it is longer than anything takes that is on the wire; a worker that was
// paused before it sent is another matter.
func (m *model) time() {
	for i, a := range m.at.attempts {
		if isOpen(a.state) && !a.settled && (a.wire == 0 || m.env.noQuietPeriod) {
			w := m.at
			w.attempts[i].settled = true
			m.emit(note{"the quiet period of attempt %d passes", uint8(i + 1), 0, 0}, w, sure)
		}
	}
}

// people give the steps of operators.
func (m *model) people() {
	m.retry()
	if m.env.restore && !m.at.restored {
		w := m.at
		if w.forget() {
			w.frozen = m.env.guard
			m.emit(note{"the database is restored from a backup", 0, 0, 0}, w, luck)
		}
	}
	if m.at.frozen {
		// What may have happened since the backup goes in front of a human.
		w := m.at
		i := w.newest()[0]
		if w.status == invoiceOpen {
			w.status, w.waiting, w.claimed = invoiceReview, waitSchedule, false
			if w.intents[i-1].state == intentReady {
				w.intents[i-1].state = intentReview
			}
		}
		w.frozen = false
		m.emit(note{"an operator parks the invoice and unfreezes", 0, 0, 0}, w, sure)
	}
}

// retry is Retry, by the same guards.
func (m *model) retry() {
	for _, intent := range m.at.newest() {
		p := m.at.load(intent, false)
		c := m.collection
		c.Standing, c.WaitingFor, c.IntentState = m.standing(p), waitingWords[m.at.waiting], intentWords[p.state]
		if c.mayRetry(Instance{Frozen: m.at.frozen}, retryStanding{status: invoiceWords[m.at.status], subscription: SubscriptionActive}, RetryRequest{}) == nil {
			w := m.at
			w.waiting, w.claimed = waitSchedule, false
			m.emit(note{"an operator asks for a retry", 0, 0, 0}, w, luck)
		}
	}
}
