package billing

import (
	"fmt"
	"strings"
	"time"
)

// The search: breadth first over every world that can be reached, so that the
// first trace to a bad one is a shortest one.

// edge is what a step depends on.
type edge uint8

const (
	sure    edge = iota // happens by itself
	luck                // a fault, or somebody who need not act
	webhook             // a delivery that the provider may never make
)

// note tells of a step: a format and up to three names.
type note struct {
	format  string
	a, b, c uint8
}

// environment is what the world outside may do.
type environment struct {
	keyHonoured     bool // a create with a known key gives the known intent
	noQuietPeriod   bool // SettledAfter passes while attaches are on the wire
	replay          bool // the HTTP layer sends an attach again by itself
	restore         bool // the database forgets the newest arming or generation, once
	guard           bool // and is frozen then
	capturesTwice   bool // an intent that succeeded captures again: A2 is false
	noUniqueIndexes bool // of live intents and generations
	refusals        bool // the provider refuses creates and does not find intents; guards hold charges back
	refusedRows     bool // what the database refuses is no finding: a rule is broken, and this is the net below it
	attributed      bool // worlds remember which attempt's attach captured

	page             bool // the customer's page may be opened, and its browser attaches
	pageOpensAnother bool // on an intent of its own

	checkout         bool // hosted checkouts may be opened, and their pages attach
	checkoutUnproven bool // without a look that shows the intent cancelled whose place they take
	expireIsProof    bool // who has asked to close one does not look what came of it
}

// bounds keep the world small enough: attempts that are armed, intents that are
// cancelled at the provider, failed payments of each, and openings of the page.
type bounds struct{ attempts, cancels, failures, pages uint8 }

// model is one variant on its way through all of its worlds.
type model struct {
	env   environment
	rules rules
	bound bounds
	// seek is the violation that a mutant must show; empty: any is a finding.
	seek string

	worlds  []world
	parents []int32
	index   map[world]int32
	// For the questions of what stays reachable: the steps of world i are
	// steps[first[i]:first[i+1]].
	first []int
	steps []int32
	kinds []edge

	at      world // whose steps are being taken
	current int32
	watch   func(note, world)

	violation string
	bad       int32

	piIDs      [modelPIs + 1]string
	known      [modelPIs + 1][1 << modelFailures]map[string]bool
	opens      [modelMaxAttempts + 1][]OpenAttempt
	collection *Collection
	judgements []Judgement
	interned   map[Judgement]uint8
	looks      map[judgeKey]uint8
	answers    map[answerKey]uint8
	settled    map[settleKey][]effect
}

type judgeKey struct {
	state       code
	open        uint8
	openState   code
	openSettled bool
	known       uint8
	pi          uint8
	status      code
	fails       uint8
	shared      bool
	checkout    bool
}

type answerKey struct {
	known  uint8
	pi     uint8
	kind   AnswerKind
	status code
	fails  uint8
}

type settleKey struct {
	judgement, decision, attempt, fence, intent, pi, generation uint8
	shown                                                       code
	status, waiting                                             code
	row                                                         intentRow
	last                                                        uint8
	lastState                                                   code
	settled                                                     bool
}

func newModel(v variant, b bounds) *model {
	m := &model{
		env: v.env, rules: productionRules(), bound: b, index: map[world]int32{}, bad: -1, collection: &Collection{},
		interned: map[Judgement]uint8{}, looks: map[judgeKey]uint8{}, answers: map[answerKey]uint8{}, settled: map[settleKey][]effect{},
	}
	m.intern(Judgement{Ruling: Deferred})
	m.intern(Judgement{Ruling: Park, Reason: "the provider does not know it, or refuses", Evidence: "retrieve"})
	if v.mutate != nil {
		v.mutate(&m.rules)
	}
	if !v.safe {
		m.seek = doubleCharge
	}
	for i := range m.piIDs {
		m.piIDs[i] = piID(uint8(i))
		for bits := range m.known[i] {
			m.known[i][bits] = map[string]bool{}
			for n := range uint8(modelFailures) {
				if bits&(1<<n) != 0 {
					m.known[i][bits][failureID(uint8(i), n)] = true
				}
			}
		}
	}
	for i := range m.opens {
		for _, state := range attemptWords {
			m.opens[i] = append(m.opens[i], OpenAttempt{
				ID: attemptID(uint8(i)), State: state, ArmedAt: armedAt(uint8(i)), SettledAfter: settledAfter(uint8(i)),
			})
		}
	}
	return m
}

// intern gives a judgement a small name.
func (m *model) intern(j Judgement) uint8 {
	id, found := m.interned[j]
	if !found {
		id = uint8(len(m.judgements))
		m.judgements = append(m.judgements, j)
		m.interned[j] = id
	}
	return id
}

// judge asks the rules about what the provider shows.
func (m *model) judge(p process, seen pi) uint8 {
	key := judgeKey{
		state: p.state, open: p.open, openState: p.openState, openSettled: p.openSettled, known: p.known, pi: p.pi, status: seen.status, fails: seen.failed, shared: p.shared, checkout: p.checkout,
	}
	id, found := m.looks[key]
	if !found {
		id = m.intern(m.rules.judge(m.standing(p), seen.shown(p.pi), clock(p)))
		m.looks[key] = id
	}
	return id
}

// run looks at every world, or until a violation.
func (m *model) run() {
	start := world{status: invoiceOpen, waiting: waitSchedule}
	start.intents[0] = intentRow{state: intentCreating, generation: 1}
	m.add(start, -1)
	for m.current = 0; int(m.current) < len(m.worlds) && m.bad < 0; m.current++ {
		m.first = append(m.first, len(m.steps))
		m.expand(m.worlds[m.current])
	}
	m.first = append(m.first, len(m.steps))
}

// expand takes every step out of a world.
func (m *model) expand(w world) {
	m.at = w
	for i := range w.workers {
		m.worker(i)
	}
	m.provider()
	m.time()
	m.people()
	m.page()
	m.checkouts()
}

// emit takes one step.
func (m *model) emit(n note, to world, kind edge) {
	to = to.tidy(m.env.keyHonoured)
	if m.watch != nil {
		m.watch(n, to)
		return
	}
	if m.bad >= 0 || to == m.at {
		return
	}
	id, found := m.index[to.sorted()]
	if !found {
		id = m.add(to, m.current)
		if v := m.check(to); v != "" && (m.seek == "" || m.seek == v) {
			m.violation, m.bad = v, id
			return
		}
	}
	m.steps = append(m.steps, id)
	m.kinds = append(m.kinds, kind)
}

func (m *model) add(w world, parent int32) int32 {
	id := int32(len(m.worlds))
	m.worlds = append(m.worlds, w)
	m.parents = append(m.parents, parent)
	m.index[w.sorted()] = id
	return id
}

// refused is a step that the database does not take. Production must not try:
// a refused row takes its whole batch with it.
func (m *model) refused(n note, violation string) {
	if m.watch != nil || m.env.refusedRows || m.seek != "" || m.bad >= 0 {
		return
	}
	m.violation, m.bad = fmt.Sprintf("the database refuses it (%s): %s", violation, m.text(n)), m.current
}

// The violations that are looked for in every world.
const (
	doubleCharge   = "double charge"
	neverStored    = "captured on an intent whose id was never stored"
	twoLiveIntents = "two intents of the invoice are alive"
)

// check looks for what must never be.
func (m *model) check(w world) string {
	if w.captures() > 1 {
		return doubleCharge
	}
	for _, p := range w.pis {
		if p.captures > 0 && !p.stored {
			return neverStored
		}
	}
	alive := 0
	for _, row := range w.intents {
		if row.state != 0 && row.state != intentDead {
			alive++
		}
	}
	if alive > 1 {
		return twoLiveIntents
	}
	return ""
}

// trace tells how a world was reached.
func (m *model) trace(to int32) []string {
	var path []int32
	for at := to; at >= 0; at = m.parents[at] {
		path = append(path, at)
	}
	var lines []string
	for i := len(path) - 1; i > 0; i-- {
		target := m.worlds[path[i-1]]
		line := ""
		m.watch = func(n note, w world) {
			if line == "" && w == target {
				line = m.text(n)
			}
		}
		m.expand(m.worlds[path[i]])
		m.watch = nil
		lines = append(lines, fmt.Sprintf("%2d %s", len(lines)+1, line))
	}
	return lines
}

// text writes a note out.
func (m *model) text(n note) string {
	args := []any{n.a, n.b, n.c}
	switch {
	case strings.Contains(n.format, "settles"):
		j := m.judgements[n.b]
		args = []any{n.a, strings.TrimSuffix(string(j.Ruling)+": "+j.Reason, ": ")}
	case strings.Contains(n.format, "looks"):
		args[2] = statusWords[n.c]
	}
	if !strings.Contains(n.format, "%[") {
		args = args[:strings.Count(n.format, "%")]
	}
	return fmt.Sprintf(n.format, args...)
}

// canReach marks the worlds from which a world with the property stays
// reachable by the steps that are allowed.
func (m *model) canReach(property func(*world) bool, allowed func(edge) bool) []bool {
	into := make([]int32, len(m.worlds)+1)
	for i, to := range m.steps {
		if allowed(m.kinds[i]) {
			into[to+1]++
		}
	}
	for i := 1; i < len(into); i++ {
		into[i] += into[i-1]
	}
	from := make([]int32, into[len(into)-1])
	next := append([]int32(nil), into...)
	for at := range m.worlds {
		for i := m.first[at]; i < m.first[at+1]; i++ {
			if allowed(m.kinds[i]) {
				to := m.steps[i]
				from[next[to]] = int32(at)
				next[to]++
			}
		}
	}
	reaches := make([]bool, len(m.worlds))
	var queue []int32
	for i := range m.worlds {
		if property(&m.worlds[i]) {
			reaches[i] = true
			queue = append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		to := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, at := range from[into[to]:into[to+1]] {
			if !reaches[at] {
				reaches[at] = true
				queue = append(queue, at)
			}
		}
	}
	return reaches
}

func settledWorld(w *world) bool {
	return w.status == invoicePaid || w.status == invoiceGivenUp || w.status == invoiceReview
}

// short rounds a duration for a table.
func short(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
