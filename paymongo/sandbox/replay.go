package sandbox

import (
	"hash/fnv"
	"net/http"
	"strings"
	"time"
)

// replayBook remembers outcomes by Idempotency-Key, as the profile wants.
// Access only with Sandbox.mu held.
type replayBook struct {
	entries map[string]*replayEntry
	order   []*replayEntry // oldest first
}

type replayEntry struct {
	key    string
	op     string
	body   uint64
	at     time.Time
	done   bool
	status int
	answer []byte
}

const (
	replayLifetime = 24 * time.Hour // developers.paymongo.com/reference/idempotent-requests
	maxReplays     = 1 << 20
)

func (b *replayBook) reset() { *b = replayBook{entries: map[string]*replayEntry{}} }

func (s *Sandbox) keyed(c *call) bool {
	return c.key != "" && s.profile.Idempotency != "off" && c.r.Method == http.MethodPost &&
		(c.op.creates || s.profile.IdempotencyEverywhere)
}

// replay answers from the book, or opens an entry for the call. Called with mu
// held.
func (s *Sandbox) replay(c *call) (answer, bool) {
	if !s.keyed(c) {
		return answer{}, false
	}
	hash := fnv.New64a()
	_, _ = hash.Write(c.body) // a hash never fails
	scope, body := c.op.name+" "+c.id, hash.Sum64()
	e := s.replays.entries[c.key]
	if e == nil || c.now.Sub(e.at) >= replayLifetime {
		c.entry = &replayEntry{key: c.key, op: scope, body: body, at: c.now}
		s.replays.open(c.entry)
		return answer{}, false
	}
	switch {
	case e.op != scope || e.body != body && s.profile.IdempotencyMismatch == "refuse":
		return refuse(400, "parameter_invalid", "The Idempotency-Key was used before with different parameters."), true
	case e.done:
		return answer{status: e.status, raw: e.answer}, true
	case s.profile.IdempotencyConflict:
		return refuse(409, "idempotency_in_progress", "A request with this Idempotency-Key is still in progress."), true
	}
	return answer{}, false
}

func (b *replayBook) open(e *replayEntry) {
	b.entries[e.key] = e
	b.order = append(b.order, e)
	if len(b.order) > maxReplays {
		b.close(b.order[0])
		b.order[0] = nil
		b.order = b.order[1:]
	}
}

// close forgets an entry, unless another one has taken its key.
func (b *replayBook) close(e *replayEntry) {
	if b.entries[e.key] == e {
		delete(b.entries, e.key)
	}
}

// remember stores the outcome of the call that opened the entry; one that ran
// beside it stores nothing. A refused request (validation, a collision) leaves
// nothing either, so it can be repeated. Called with mu held.
func (s *Sandbox) remember(c *call, a answer) {
	e := c.entry
	if e == nil {
		return
	}
	refused := len(a.errs) > 0 && (strings.HasPrefix(a.errs[0].Code, "parameter_") || a.errs[0].Code == "resource_processing_state")
	if a.status != 200 && (refused || s.profile.Idempotency != "replay_failures") {
		s.replays.close(e)
		return
	}
	e.done, e.status, e.answer = true, a.status, a.bytes()
}
