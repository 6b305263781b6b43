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
	order   []string // oldest first
}

type replayEntry struct {
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
	scope := c.op.name + " " + c.id
	body := fnv.New64a()
	_, _ = body.Write(c.body)
	e := s.replays.entries[c.key]
	if e == nil || c.now.Sub(e.at) >= replayLifetime {
		s.replays.open(c.key, &replayEntry{op: scope, body: body.Sum64(), at: c.now})
		return answer{}, false
	}
	switch {
	case e.op != scope || e.body != body.Sum64() && s.profile.IdempotencyMismatch == "refuse":
		return refuse(400, "parameter_invalid", "The Idempotency-Key was used before with different parameters."), true
	case e.done:
		return answer{status: e.status, raw: e.answer}, true
	case s.profile.IdempotencyConflict:
		return refuse(409, "idempotency_in_progress", "A request with this Idempotency-Key is still in progress."), true
	}
	return answer{}, false
}

func (b *replayBook) open(key string, e *replayEntry) {
	if _, known := b.entries[key]; !known {
		b.order = append(b.order, key)
		if len(b.order) > maxReplays {
			delete(b.entries, b.order[0])
			b.order = b.order[1:]
		}
	}
	b.entries[key] = e
}

// remember stores the outcome. A refused request (validation, a collision)
// leaves nothing, so it can be repeated. Called with mu held.
func (s *Sandbox) remember(c *call, a answer) {
	if !s.keyed(c) {
		return
	}
	e := s.replays.entries[c.key]
	if e != nil && e.done {
		return
	}
	validation := a.status == 413 || a.status == 409 || len(a.errs) > 0 && strings.HasPrefix(a.errs[0].Code, "parameter_")
	if a.status != 200 && (validation || s.profile.Idempotency != "replay_failures") {
		delete(s.replays.entries, c.key)
		return
	}
	if e == nil {
		body := fnv.New64a()
		_, _ = body.Write(c.body)
		e = &replayEntry{op: c.op.name + " " + c.id, body: body.Sum64(), at: c.now}
		s.replays.open(c.key, e)
	}
	e.done, e.status, e.answer = true, a.status, a.bytes()
}
