package sandbox

import (
	"container/heap"
	"time"
)

// timer is something that happens by itself at a time of the sandbox's clock.
// It is data, not a closure, so that it survives a restart with the state.
type timer struct {
	At   time.Time
	Seq  uint64 // ties go in order of creation
	Kind timerKind
	ID   string // of the intent, refund, ... it is about
	Arg  string
	N    int

	Fault    *Fault    `json:",omitempty"` // of a late attach: what becomes of it
	Delivery *delivery `json:",omitempty"`
}

type timerKind string

const (
	timerSettle       timerKind = "settle"        // a payment leaves processing; Arg "succeed" or a decline code
	timerLateAttach   timerKind = "late_attach"   // an attach executed after its connection died; N is its index
	timerHoldExpires  timerKind = "hold_expires"  // a hold is released
	timerIntentExpire timerKind = "intent_expire" // nobody paid
	timerActionExpire timerKind = "action_expire" // Arg is the src_ id it was made for
	timerRefund       timerKind = "refund"        // a pending refund succeeds
	timerDeliver      timerKind = "deliver"       // one delivery of a webhook
)

type timers []*timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if t[i].At.Equal(t[j].At) {
		return t[i].Seq < t[j].Seq
	}
	return t[i].At.Before(t[j].At)
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(*timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return last
}

// schedule adds a timer. Called with mu held.
func (s *Sandbox) schedule(t *timer) {
	s.st.TimerSeq++
	t.Seq = s.st.TimerSeq
	if t.At.After(latest) {
		t.At = latest // JSON has no later one
	}
	if t.Delivery != nil {
		s.st.putOff++
	}
	heap.Push(&s.st.Timers, t)
	if s.st.Timers[0] == t {
		s.poke()
	}
}

// catchUp runs every timer that is due at now, in order, each at its own time.
// Called with mu held, before anything looks at the store. After Close time
// stands still: the state file would not have what happens.
func (s *Sandbox) catchUp(now time.Time) {
	if s.shut {
		return
	}
	for len(s.st.Timers) > 0 && !s.st.Timers[0].At.After(now) {
		t := heap.Pop(&s.st.Timers).(*timer)
		s.dirty = true
		switch t.Kind {
		case timerSettle:
			s.settleProcessing(t)
		case timerLateAttach:
			s.executeLate(t)
		case timerHoldExpires:
			s.expireHold(t)
		case timerIntentExpire:
			s.expireIntent(t.ID, t.At)
		case timerActionExpire:
			s.expireAction(t)
		case timerRefund:
			s.settleRefund(t)
		case timerDeliver:
			s.st.putOff--
			s.post.push(t.Delivery)
		}
	}
}

// run keeps the clock going when nobody calls: it sleeps until the next timer.
func (s *Sandbox) run() {
	defer s.running.Done()
	for {
		s.mu.Lock()
		s.catchUp(s.clock.Now())
		var wait <-chan time.Time
		if len(s.st.Timers) > 0 {
			if d, ok := s.clock.wait(s.st.Timers[0].At); ok {
				wait = time.After(d)
			}
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-s.wake:
		case <-s.done:
			return
		}
	}
}

// poke makes run look again. Never blocks.
func (s *Sandbox) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
