package paymongo

import (
	"errors"
	"io"
	"sync"
	"time"
)

var (
	errFenced         = errors.New("request body is closed")
	errPastSendBefore = errors.New("the moment to send (SendBefore) has passed; decide anew before calling again")
)

// onceBody is a request body that can be read once, and that knows whether it was.
//
// It is the proof behind "never sent". When a round trip fails, [onceBody.fence]
// stops the body: no byte can be read any more. If none had been read before,
// no server can hold the whole request, now or ever. httptrace alone does not
// prove that: RoundTrip returns on a cancelled context while the transport's
// write loop still runs, so "not written yet" may become "written" a moment
// after it was looked at. The fence closes that gap.
//
// It has no GetBody on purpose. net/http sends a request again by itself, when
// a kept-alive connection dies under it, if the request can be rewound or has
// no body, and carries an Idempotency-Key; see isReplayable in net/http.
type onceBody struct {
	mu      sync.Mutex
	rest    string
	started bool // a byte was handed out
	fenced  bool
	late    bool // refused because of deadline

	deadline time.Time // from which on the first byte is refused; zero for none
}

func newOnceBody(content string, deadline time.Time) *onceBody {
	return &onceBody{rest: content, deadline: deadline}
}

// Read hands the body out. The first read is the closest point to the wire this
// package has, so this is where the deadline is checked: by the monotonic clock,
// which no clock correction moves, and without it (Round(0)) by the wall clock,
// which goes on while a machine is suspended.
func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.fenced:
		return 0, errFenced
	case len(b.rest) == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if !b.started && !b.deadline.IsZero() {
		if now := time.Now(); !now.Before(b.deadline) || !now.Round(0).Before(b.deadline) {
			b.fenced, b.late = true, true
			return 0, errPastSendBefore
		}
	}
	n := copy(p, b.rest)
	b.rest, b.started = b.rest[n:], true
	return n, nil
}

// Close ends the reading.
func (b *onceBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fenced = true
	return nil
}

// fence ends the reading and reports whether any byte was handed out before,
// and whether the deadline was the reason that none was.
func (b *onceBody) fence() (started, late bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fenced = true
	return b.started, b.late
}
