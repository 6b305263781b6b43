package billing

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
)

// The database of the model. What a transaction decides is production's own
// code: ArmRequest.check and licence, Instance.MayCharge, writes.settle. What
// SQL does with it is told again here: the snapshot of a load, the rows that are
// written, and every constraint and trigger of migrations/0001_core.sql that
// speaks of these rows.

// newest are the intents that a load may see: the one of the highest
// generation, or any of them, should there be several.
func (w *world) newest() (found []uint8) {
	highest := uint8(0)
	for _, row := range w.intents {
		highest = max(highest, row.generation)
	}
	for i, row := range w.intents {
		if row.generation == highest {
			found = append(found, uint8(i+1))
		}
	}
	return found
}

// load is what sqlLoadInvoices and its sisters read, of the intent i.
func (w *world) load(i uint8, reconcile bool) process {
	row := w.intents[i-1]
	p := process{
		phase: phaseThink, reconcile: reconcile, status: w.status,
		intent: i, state: row.state, pi: row.pi, fence: row.fence, attempted: row.shared, shared: row.shared, checkout: row.checkout,
	}
	if reconcile {
		p.waiting = w.waiting // a charge does not ask
	}
	for j, a := range w.attempts {
		if a.state == 0 || a.intent != i {
			continue
		}
		p.attempted = true
		if isOpen(a.state) {
			p.open, p.openState, p.openSettled = uint8(j+1), a.state, a.settled
		}
	}
	if row.pi != 0 {
		p.known = w.pis[row.pi-1].recorded
	}
	return p
}

// openOn is the open attempt on an intent.
func (w *world) openOn(intent uint8) uint8 {
	for i, a := range w.attempts {
		if a.intent == intent && isOpen(a.state) {
			return uint8(i + 1)
		}
	}
	return 0
}

// arm is one transaction of Arm. A violation is what the database would have
// refused.
func (w *world) arm(r ArmRequest, p process) (attempt uint8, violation string, err error) {
	if err := (Instance{Frozen: w.frozen, FrozenReason: "restored"}).MayCharge(modelStart); err != nil {
		return 0, "", err
	}
	var locked armIntent
	if p.intent != 0 {
		row := w.intents[p.intent-1]
		locked = armIntent{
			invoice: modelInvoice, state: intentWords[row.state], provider: piID(row.pi), fence: int64(row.fence), open: w.openOn(p.intent) != 0, checkout: row.checkout,
		}
	}
	if err := r.check(armInvoice{status: invoiceWords[w.status], claimed: w.claimed}, locked); err != nil {
		return 0, "", err
	}
	no := w.armed + 1
	licence := r.licence(attemptID(no), int(no), armedAt(no))
	row := &w.intents[p.intent-1]
	if row.checkout {
		return 0, "guard_new_attempts", nil
	}
	if row.pi != 0 && row.pi != p.pi {
		return 0, "provider_intent_id is written once", nil
	}
	for i, other := range w.intents {
		if i+1 != int(p.intent) && other.state != 0 && other.pi == p.pi {
			return 0, "provider_intent_id is unique", nil
		}
	}
	row.state, row.pi, row.fence = intentReady, p.pi, uint8(licence.Fence)
	w.pis[p.pi-1].stored = true
	if w.openOn(p.intent) != 0 {
		return 0, "one_open_attempt", nil
	}
	w.attempts[no-1] = attemptRow{state: attemptArmed, intent: p.intent}
	w.armed = no
	w.waiting = waitProvider
	return no, "", nil
}

// lockedRow is what lockForSettle reads of an intent.
func (w *world) lockedRow(intent uint8) lockedRow {
	row := w.intents[intent-1]
	locked := lockedRow{
		status: invoiceWords[w.status], waitingFor: waitingWords[w.waiting], intent: intentID(intent), intentState: intentWords[row.state],
		fence: int64(row.fence), providerID: piID(row.pi),
	}
	if row.shared {
		locked.sharedAt = modelStart
	}
	last := w.openOn(intent)
	for i, a := range w.attempts {
		if last == 0 && a.state != 0 && a.intent == intent && !slices.ContainsFunc(w.attempts[i+1:], func(b attemptRow) bool { return b.state != 0 && b.intent == intent }) {
			last = uint8(i + 1)
		}
	}
	if last != 0 {
		locked.attempt, locked.attemptState, locked.armedAt, locked.card = attemptID(last), attemptWords[w.attempts[last-1].state], armedAt(last), modelCard
	}
	return locked
}

// effect is what a settlement writes, in codes.
type effect struct {
	attempt      uint8
	attemptState code
	unproven     bool // a no_effect without evidence
	intent       uint8
	intentState  code
	generation   uint8 // of the new intent
	status       code  // 0: the invoice is not touched
	waiting      code
}

// effectOf translates what writes.settle collected.
func effectOf(w *writes) effect {
	var e effect
	if len(w.attempts) > 1 || len(w.intents) > 1 || len(w.newIntents) > 1 || len(w.invoices) > 1 {
		panic("the model expects a settlement to change a row of each table at most")
	}
	for _, c := range w.attempts {
		e.attempt, e.attemptState = c.ID[15], codeOf(attemptWords, c.State)
		var evidence struct{ Kind string }
		if err := json.Unmarshal(c.Evidence, &evidence); err != nil {
			panic(err)
		}
		proven := evidence.Kind == "never_sent" || evidence.Kind == "refused" || c.SettledAt != nil && !c.SettledAt.Before(settledAfter(e.attempt))
		e.unproven = c.State == AttemptNoEffect && !proven
	}
	for _, c := range w.intents {
		e.intent, e.intentState = c.ID[15], codeOf(intentWords, c.State)
	}
	for _, c := range w.newIntents {
		e.generation = uint8(c.Generation)
	}
	for _, c := range w.invoices {
		e.status, e.waiting = codeOf(invoiceWords, c.Status), codeOf(waitingWords, c.WaitingFor)
		if (c.Status == InvoiceOpen) != (c.NextAttemptAt != nil) {
			panic("an open invoice without a next wake-up, or another with one")
		}
	}
	return e
}

// legalIntents are the changes that the trigger guard_payment_intents allows.
var legalIntents = map[[2]IntentState]bool{
	{IntentCreating, IntentReady}: true, {IntentCreating, IntentDead}: true, {IntentCreating, IntentReview}: true,
	{IntentReady, IntentSucceeded}: true, {IntentReady, IntentDead}: true, {IntentReady, IntentReview}: true,
	{IntentReview, IntentReady}: true, {IntentReview, IntentSucceeded}: true, {IntentReview, IntentDead}: true,
}

// write stores an effect, in the order of writes.queueRows. It names the
// constraint that refuses it; then nothing is written.
func (w *world) write(e effect, uniqueIndexes bool) (violation string) {
	if e.attempt != 0 {
		if violation = w.writeAttempt(e); violation != "" {
			return violation
		}
	}
	if e.intent != 0 {
		if violation = w.writeIntent(e); violation != "" {
			return violation
		}
	}
	if e.status != 0 {
		if w.status == invoicePaid && e.status != invoicePaid {
			return "paid stays paid"
		}
		w.status, w.waiting, w.claimed = e.status, e.waiting, false
	}
	if e.generation != 0 {
		return w.writeNewIntent(e.generation, uniqueIndexes)
	}
	return ""
}

func (w *world) writeAttempt(e effect) (violation string) {
	a := &w.attempts[e.attempt-1]
	was, is := attemptWords[a.state], attemptWords[e.attemptState]
	upgrade := (was == AttemptDeclined || was == AttemptNoEffect) && is == AttemptSucceeded
	if was == "" || was != is && (is == AttemptArmed || !was.open() && !upgrade) {
		return "guard_attempts: " + string(was) + " -> " + string(is)
	}
	if e.unproven {
		return "no_effect_is_proven"
	}
	for i, other := range w.attempts {
		if i+1 == int(e.attempt) || other.state == 0 || other.intent != a.intent {
			continue
		}
		if is == AttemptSucceeded && other.state == attemptPaid {
			return "one_successful_attempt"
		}
		if is.open() && isOpen(other.state) {
			return "one_open_attempt"
		}
	}
	a.state = e.attemptState
	return ""
}

func (w *world) writeIntent(e effect) (violation string) {
	row := &w.intents[e.intent-1]
	was, is := intentWords[row.state], intentWords[e.intentState]
	switch {
	case was != is && !legalIntents[[2]IntentState{was, is}]:
		return "guard_payment_intents: " + string(was) + " -> " + string(is)
	case is != IntentDead && (is == IntentCreating) != (row.pi == 0):
		return "creating_has_no_id"
	}
	for _, a := range w.attempts {
		if is == IntentDead && was != IntentDead && a.intent == e.intent && (a.state == attemptPaid || isOpen(a.state) && attemptWords[a.state] != AttemptNeedsAction) {
			return "guard_payment_intents: an attempt is open or succeeded"
		}
	}
	row.state = e.intentState
	return ""
}

func (w *world) writeNewIntent(generation uint8, uniqueIndexes bool) (violation string) {
	for _, row := range w.intents {
		if !uniqueIndexes || row.state == 0 {
			continue
		}
		if row.generation == generation {
			return "generation_once"
		}
		if row.state != intentDead {
			return "one_intent_not_dead"
		}
	}
	for i := range w.intents {
		if w.intents[i].state == 0 {
			w.intents[i] = intentRow{state: intentCreating, generation: generation}
			return ""
		}
	}
	return beyondTheModel
}

// beyondTheModel is no violation: the world would outgrow the model.
const beyondTheModel = "beyond the model"

// forget restores a backup from before the newest arming or generation. The
// provider, the wire and the workers that are running know more than it.
func (w *world) forget() bool {
	i := w.newest()[0]
	row := &w.intents[i-1]
	last := 0
	left := false
	for j, a := range w.attempts {
		if a.state != 0 && a.intent == i {
			left = last != 0
			last = j + 1
		}
	}
	switch {
	case last != 0:
		a := &w.attempts[last-1]
		a.state, a.intent = 0, 0
		row.fence--
		row.state = intentReady
		if !left {
			w.pis[row.pi-1].recorded = 0
			row.state, row.pi, row.shared, row.checkout = intentCreating, 0, false, false
		}
	case row.generation > 1:
		generation := row.generation
		*row = intentRow{}
		for j := range w.workers {
			if w.workers[j].intent == i {
				w.workers[j].intent = 0 // another row will have another id
			}
		}
		for j := range w.intents {
			if w.intents[j].generation == generation-1 {
				w.intents[j].state = intentReady
			}
		}
	default:
		return false
	}
	w.status, w.waiting, w.claimed, w.restored = invoiceOpen, waitSchedule, false, true
	return true
}

// collection is what a worker holds in its hands, as far as a settlement reads it.
func collection(p process, generation uint8) *Collection {
	return &Collection{
		Standing:  Standing{InvoiceOpen: true, Amount: modelPrice(), ProviderIntentID: piID(p.pi), IntentState: intentWords[p.state]},
		InvoiceID: modelInvoice, SubscriptionNo: "s1", SubscriptionID: uuid.UUID{15: 9}, Status: invoiceWords[p.status], DueAt: modelStart, TimeZone: "Asia/Manila",
		IntentID: intentID(p.intent), Generation: int(generation), CreateKey: createKey(EnvironmentDev, uuid.UUID{}, 0, int(generation)), Fence: int64(p.fence),
		Cards: []Card{{ID: modelCard, Status: "active"}},
	}
}

// The policies that a settlement is asked under: the one goes on, the other
// gives up at the first chance. What dunning decides in between is one of these.
var modelPolicies = [2][]byte{[]byte(`{"offsets_days":[1,3,5,7]}`), []byte(`{"offsets_days":[]}`)}

// settleTimes are the times that a settlement may happen at, as far as they
// make a difference to it.
func settleTimes(attempt uint8, settled bool) []time.Time {
	switch {
	case attempt == 0:
		return []time.Time{armedAt(0).Add(time.Minute)}
	case !settled:
		return []time.Time{armedAt(attempt).Add(time.Minute)}
	}
	return []time.Time{settledAfter(attempt), armedAt(attempt).Add(PatienceWithProvider + time.Minute)}
}
