package billing

import (
	"slices"
	"time"
)

// What a worker does, step by step: worker/charge.go and reconcile.go told once
// more, because this package must not know them. What they decide by is not told
// again: the model calls the rules below, which are production's own.

// rules are the functions under check. A mutant wraps some of them.
type rules struct {
	next   func(Standing, bool) Step
	judge  func(Standing, ProviderIntent, time.Time) Judgement
	answer func(Standing, Answer, time.Time) Judgement
	arm    func(*world, ArmRequest, process) (attempt uint8, violation string, err error)
	settle func(*writes, Settlement, lockedRow) Settled
}

// productionRules are what runs.
func productionRules() rules {
	return rules{next: Standing.Next, judge: Standing.Judge, answer: Standing.Settle, arm: (*world).arm, settle: (*writes).settle}
}

// Decisions of the Settlements that a worker defers with.
const (
	decideHold uint8 = iota
	decideEnd
	decideRetry
)

var decisions = [...]Decision{
	decideHold:  {Action: DunningActionHold, At: modelStart, Reason: "hold"},
	decideEnd:   {Action: DunningActionEnd, At: modelStart, End: EndActionMarkUnpaid, Reason: "the customer did nothing in time"},
	decideRetry: {Action: DunningActionRetryAt, At: modelStart, Reason: "nothing is open at the provider"},
}

// Judgements that no rule makes: the worker does.
const (
	judgedDeferred uint8 = iota
	judgedParked
)

// standing is what the worker decides from.
func (m *model) standing(p process) Standing {
	s := Standing{
		InvoiceOpen: p.status == invoiceOpen, Amount: modelPrice(), IntentState: intentWords[p.state], ProviderIntentID: m.piIDs[p.pi],
		Attempted: p.attempted, Shared: p.shared, Checkout: checkoutID(p), Known: m.known[p.pi][p.known],
	}
	if p.open != 0 {
		s.Open = &m.opens[p.open][p.openState]
	}
	return s
}

// clock is the business time of a run: what it was when the worker loaded.
func clock(p process) time.Time {
	if p.open != 0 && p.openSettled {
		return settledAfter(p.open)
	}
	return armedAt(p.open)
}

// worker gives the steps that worker i may take.
func (m *model) worker(i int) {
	p := &m.at.workers[i]
	no := uint8(i + 1)
	if p.phase == phaseIdle {
		m.start(i)
		return
	}
	crashed := m.at
	crashed.workers[i] = process{}
	m.emit(note{"worker %d crashes", no, 0, 0}, crashed, luck)
	switch p.phase {
	case phaseThink:
		m.think(i)
	case phaseSend:
		sent := m.at
		a := &sent.attempts[p.attempt-1]
		a.wire++
		a.pi = p.pi
		sent.workers[i].phase = phaseWait
		m.emit(note{"worker %d sends the attach of attempt %d to pi_%d", no, p.attempt, p.pi}, sent, sure)
		late := m.at
		m.answered(&late.workers[i], Answer{Kind: AnswerNeverSent, Reason: "not_sent"}, pi{})
		m.emit(note{"worker %d could not send attempt %d", no, p.attempt, 0}, late, sure)
	case phaseWait:
		late := m.at
		m.answered(&late.workers[i], Answer{Kind: AnswerUnknown, Reason: "timeout"}, pi{})
		m.emit(note{"worker %d waits for an answer to attempt %d in vain", no, p.attempt, 0}, late, sure)
	case phasePut:
		m.put(i)
	}
}

// start gives a job to an idle worker.
func (m *model) start(i int) {
	no := uint8(i + 1)
	for _, intent := range m.at.newest() {
		if m.at.status == invoiceOpen {
			swept := m.at
			swept.claimed = true
			swept.workers[i] = m.load(intent, swept.waiting == waitProvider)
			m.emit(note{"the sweep claims the invoice; worker %d loads it", no, 0, 0}, swept, sure)
			again := m.at
			again.workers[i] = m.load(intent, false)
			m.emit(note{"worker %d loads the invoice for a job that came twice", no, 0, 0}, again, luck)
		}
		woken := m.at
		woken.workers[i] = m.load(intent, true)
		m.emit(note{"a webhook wakes worker %d, which loads the invoice", no, 0, 0}, woken, webhook)
	}
}

// load is a worker's load. One that finds nothing to do is over at once.
func (m *model) load(intent uint8, reconcile bool) process {
	p := m.at.load(intent, reconcile)
	if m.next(p) == StepStop {
		return process{}
	}
	return p
}

// next is the next step. A reconcile takes none but a look.
func (m *model) next(p process) Step {
	standing := m.standing(p)
	step := m.rules.next(standing, p.looked)
	if p.reconcile {
		m.collection.Standing, m.collection.Status, m.collection.WaitingFor = standing, invoiceWords[p.status], waitingWords[p.waiting]
		step = m.collection.LookInstead(step, p.looked)
	}
	return step
}

func (m *model) think(i int) {
	p := m.at.workers[i]
	no := uint8(i + 1)
	step := m.next(p)
	closes := step == StepExpire && m.collection.ClosesCheckout(modelStart)
	if p.reconcile && step != StepLook && !closes {
		m.reconciled(i)
		return
	}
	switch step {
	case StepCreate:
		m.create(i)
	case StepLook:
		m.look(i)
	case StepExpire:
		m.expire(i)
	case StepArm:
		m.charge(i)
	default:
		done := m.at
		done.workers[i] = process{}
		m.emit(note{"worker %d has nothing to do", no, 0, 0}, done, sure)
	}
}

// reconciled ends a reconcile that has nothing open to look at.
func (m *model) reconciled(i int) {
	p := m.at.workers[i]
	w := m.at
	if p.status != invoiceOpen || p.waiting != waitProvider {
		w.workers[i] = process{}
		m.emit(note{"worker %d has nothing to reconcile", uint8(i + 1), 0, 0}, w, sure)
		return
	}
	w.workers[i] = deferred(p, decideRetry)
	m.emit(note{"worker %d leaves the rest to a charge", uint8(i + 1), 0, 0}, w, sure)
}

// deferred is a worker about to store that nothing was attempted.
func deferred(p process, decision uint8) process {
	return process{phase: phasePut, intent: p.intent, pi: p.pi, fence: p.fence, judgement: judgedDeferred, decision: decision}
}

// judged is a worker about to store a judgement about what it has loaded.
func judged(p process, judgement uint8) process {
	return process{phase: phasePut, intent: p.intent, pi: p.pi, fence: p.fence, attempt: p.open, judgement: judgement}
}

func (m *model) create(i int) {
	p := m.at.workers[i]
	no := uint8(i + 1)
	generation := uint8(0)
	if p.intent != 0 {
		generation = m.at.intents[p.intent-1].generation
	}
	slot := m.slot(generation)
	if generation != 0 && slot != 0 {
		w := m.at
		if q := &w.pis[slot-1]; q.status == 0 {
			*q = pi{status: piAwaiting, key: generation}
		}
		w.workers[i].pi = slot
		m.emit(note{"worker %d creates pi_%d", no, slot, 0}, w, sure)
		if m.env.keyHonoured {
			w.workers[i] = process{}
			m.emit(note{"worker %d creates pi_%d and never hears of it", no, slot, 0}, w, luck)
		}
		if m.env.refusals {
			w = m.at
			w.workers[i] = judged(p, judgedParked)
			m.emit(note{"the provider refuses to create an intent for worker %d", no, 0, 0}, w, luck)
		}
	}
	if slot == 0 || generation == 0 { // the model has no intent left, or a restore has taken the row
		w := m.at
		w.workers[i] = deferred(p, decideHold)
		m.emit(note{"worker %d gets no answer to its create", no, 0, 0}, w, sure)
	}
}

// slot is the payment intent that a create gives: the one of the key where
// keys are honoured, a fresh one otherwise, 0 where the model has none left.
func (m *model) slot(generation uint8) uint8 {
	for i, p := range m.at.pis {
		if m.env.keyHonoured && p.status != 0 && p.key == generation {
			return uint8(i + 1)
		}
	}
	for i, p := range m.at.pis {
		if p.status == 0 {
			return uint8(i + 1)
		}
	}
	return 0
}

func (m *model) look(i int) {
	p := m.at.workers[i]
	no := uint8(i + 1)
	seen := m.at.pis[p.pi-1]
	w := m.at
	q := &w.workers[i]
	j := m.judge(p, seen)
	if m.judgements[j].Ruling == Free {
		q.looked = true
		q.known |= seen.failed
		w.pis[p.pi-1].recorded |= seen.failed
		m.emit(note{"worker %d looks: pi_%d is %s, free", no, p.pi, seen.status}, w, sure)
	} else {
		*q = judged(p, j)
		q.seen, q.seenFails = seen.status, seen.failed
		m.emit(note{"worker %d looks: pi_%d is %s", no, p.pi, seen.status}, w, sure)
	}
	if m.env.refusals {
		w = m.at
		w.workers[i] = judged(p, judgedParked)
		m.emit(note{"the provider does not find pi_%[2]d for worker %[1]d", no, p.pi, 0}, w, luck)
	}
}

func (m *model) charge(i int) {
	p := m.at.workers[i]
	no := uint8(i + 1)
	if p.attempted || m.at.armed == m.bound.attempts {
		w := m.at
		w.workers[i] = deferred(p, decideEnd)
		m.emit(note{"worker %d finds dunning at its end", no, 0, 0}, w, sure)
	}
	if m.env.refusals {
		w := m.at
		w.workers[i] = deferred(p, decideHold)
		m.emit(note{"worker %d may not charge yet", no, 0, 0}, w, luck)
	}
	if m.at.armed == m.bound.attempts {
		return
	}
	w := m.at
	request := ArmRequest{InvoiceID: modelInvoice, IntentID: intentID(p.intent), ProviderIntentID: m.piIDs[p.pi], Fence: int64(p.fence), CardID: modelCard, Trigger: TriggerDunning}
	attempt, violation, err := m.rules.arm(&w, request, p)
	if violation != "" {
		m.refused(note{"worker %d arms", no, 0, 0}, violation)
		return
	}
	if err != nil {
		w = m.at
		w.workers[i] = process{}
		if w.frozen {
			w.workers[i] = deferred(p, decideHold)
		}
		m.emit(note{"worker %d is not allowed to arm", no, 0, 0}, w, sure)
		return
	}
	w.workers[i] = process{
		phase: phaseSend, intent: p.intent, state: p.state, pi: p.pi, fence: uint8(request.licence(attemptID(attempt), 0, modelStart).Fence),
		attempt: attempt, known: p.known,
	}
	m.emit(note{"worker %d arms attempt %d on pi_%d", no, attempt, p.pi}, w, sure)
	w.workers[i] = process{}
	m.emit(note{"worker %d arms attempt %d on pi_%d, the commit is not acknowledged, it sends nothing", no, attempt, p.pi}, w, luck)
}

// answered has a worker judge the answer to its attach.
func (m *model) answered(p *process, a Answer, shown pi) {
	key := answerKey{known: p.known, pi: p.pi, kind: a.Kind, status: shown.status, fails: shown.failed}
	j, found := m.answers[key]
	if !found {
		s := m.standing(process{status: invoiceOpen, state: p.state, pi: p.pi, known: p.known, attempted: p.attempted})
		if a.Kind == AnswerIntent {
			a.Intent = shown.shown(p.pi)
		}
		j = m.intern(m.rules.answer(s, a, armedAt(p.attempt)))
		m.answers[key] = j
	}
	*p = process{phase: phasePut, intent: p.intent, pi: p.pi, fence: p.fence, attempt: p.attempt, judgement: j}
	if a.Kind == AnswerIntent {
		p.seen, p.seenFails = shown.status, shown.failed
	}
}

// put stores what the worker knows, in each way that settle may come to.
func (m *model) put(i int) {
	p := m.at.workers[i]
	no := uint8(i + 1)
	done := m.at
	done.workers[i] = process{}
	if p.pi != 0 {
		done.pis[p.pi-1].recorded |= p.seenFails
	}
	if p.intent == 0 || m.at.intents[p.intent-1].state == 0 {
		m.emit(note{"worker %d finds its row gone", no, 0, 0}, done, sure)
		return
	}
	for _, e := range m.effects(p) {
		w := done
		n := note{"worker %d settles \"%s\"", no, p.judgement, 0}
		switch violation := w.write(e, !m.env.noUniqueIndexes); violation {
		case "":
			if e == (effect{}) {
				n.format = "worker %d settles \"%s\", which changes nothing"
			}
			m.emit(n, w, sure)
		case beyondTheModel:
		default:
			m.refused(n, violation)
			w = m.at
			w.workers[i] = process{}
			m.emit(note{"the database refuses what worker %d settles", no, 0, 0}, w, sure)
		}
	}
}

// effects are what writes.settle may make of the judgement, by the times and
// the policies that it may find.
func (m *model) effects(p process) []effect {
	row := m.at.lockedRow(p.intent)
	attempt := row.attempt[15]
	settled := attempt != 0 && m.at.attempts[attempt-1].settled
	key := settleKey{
		judgement: p.judgement, decision: p.decision, attempt: p.attempt, fence: p.fence, intent: p.intent, pi: p.pi, shown: p.seen,
		generation: m.at.intents[p.intent-1].generation,
		status:     m.at.status, waiting: m.at.waiting, row: m.at.intents[p.intent-1], last: attempt, settled: settled,
	}
	if attempt != 0 {
		key.lastState = m.at.attempts[attempt-1].state
	}
	if known, found := m.settled[key]; found {
		return known
	}
	var list []effect
	for _, now := range settleTimes(attempt, settled) {
		for _, policy := range modelPolicies {
			c := collection(p, key.generation)
			c.Dunning = policy
			s := Settlement{Collection: c, Attempt: attemptID(p.attempt), Fence: int64(p.fence), Judgement: m.judgements[p.judgement], Decision: &decisions[p.decision]}
			if p.seen != 0 {
				seen := pi{status: p.seen, failed: p.seenFails, captures: bit(p.seen == piSucceeded)}.shown(p.pi)
				s.Seen = &seen
			}
			w := newWrites(now, Holidays{})
			m.rules.settle(w, s, row)
			if e := effectOf(w); !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
	}
	m.settled[key] = list
	return list
}
