package sandbox

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// before plays the faults that come before the effect. It tells whether the
// call ends here, and with which status (0: no answer).
func (s *Sandbox) before(w http.ResponseWriter, c *call) (done bool, status int) {
	f := c.hits.spoil
	ends := f != nil && faultKinds[f.Kind] == stageBefore
	if c.hits.delay > 0 && (ends || c.op.name != attachOperation) {
		// An attach that goes on waits later, between its look and its execution.
		s.pause(c.hits.delay, c.r.Context().Done())
	}
	if !ends {
		return false, 0
	}
	s.undone(c, f)
	switch f.Kind {
	case TimeoutBefore:
		s.hang(w, c.r)
	case ResetBefore, LateAttach:
		reset(w)
	case ErrorBefore:
		status = writeError(w, f)
	case RateLimitBefore:
		status = writeTooMany(w, f.RetryAfter)
	case Unauthorized:
		status = write(w, refuse(401, "api_key_invalid", "API key is invalid."))
	}
	return true, status
}

// undone books a call that ends before its effect.
func (s *Sandbox) undone(c *call, f *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return
	}
	s.dirty = true
	c.now = s.clock.Now()
	switch f.Kind {
	case ErrorBefore:
		// PayMongo's reference: the first outcome is stored, failures too.
		if _, replayed := s.replay(c); !replayed {
			s.remember(c, serverError(f))
		}
	case LateAttach:
		s.postpone(c, time.Duration(f.For))
	}
}

// after sends the answer, spoilt if a fault says so, and then the late events.
func (s *Sandbox) after(w http.ResponseWriter, c *call, a answer, early, late []*delivery) (status int) {
	s.post.deliverNow(early)
	f := c.hits.spoil
	if f == nil {
		defer s.sendLater(late)
		return write(w, a)
	}
	switch f.Kind {
	case TimeoutAfter, ResetAfter, CutBody:
		// There is no whole answer to come behind.
		s.sendLater(late)
	default:
		defer s.sendLater(late)
	}
	switch f.Kind {
	case TimeoutAfter:
		s.hang(w, c.r)
	case ResetAfter:
		reset(w)
	case ErrorAfter:
		return writeError(w, f)
	case RateLimitAfter:
		return writeTooMany(w, f.RetryAfter)
	case CutBody:
		cut(w, a)
	case HTMLBody:
		return writeHTML(w, 200, "<html><head><title>PayMongo</title></head><body>Please wait...</body></html>")
	case WrongContentType:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(a.status)
		_, _ = w.Write(a.bytes())
		return a.status
	case WrongAmount, WrongLivemode:
		return write(w, a.lie(f.Kind))
	}
	return 0
}

// lie changes the answer, never the record. It works on the bytes, so that
// every resource, list and replay lies alike; quotes inside strings are
// escaped and cannot match.
func (a answer) lie(kind FaultKind) answer {
	body := a.bytes()
	if kind == WrongLivemode {
		body = bytes.ReplaceAll(body, []byte(`"livemode":false`), []byte(`"livemode":true`))
		body = bytes.ReplaceAll(body, []byte(`"live_mode":false`), []byte(`"live_mode":true`))
		return answer{status: a.status, raw: body}
	}
	if at := amountOnWire.FindSubmatchIndex(body); at != nil {
		amount, _ := strconv.ParseInt(string(body[at[2]:at[3]]), 10, 64) // we wrote it
		body = slices.Concat(body[:at[2]], strconv.AppendInt(nil, amount+1, 10), body[at[3]:])
	}
	return answer{status: a.status, raw: body}
}

var amountOnWire = regexp.MustCompile(`"amount":([0-9]+)`)

// hang holds the connection open without a byte, then breaks it.
func (s *Sandbox) hang(w http.ResponseWriter, r *http.Request) {
	s.pause(s.opts.Hang, r.Context().Done())
	reset(w)
}

// reset breaks the connection with a TCP RST.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the next best thing
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it Close says goodbye with a FIN; a dead connection has no option to set
	}
	_ = conn.Close()
}

// cut promises the whole body and sends half of it.
func cut(w http.ResponseWriter, a answer) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	body := a.bytes()
	_, _ = fmt.Fprintf(buf, "HTTP/1.1 %d %s\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s",
		a.status, http.StatusText(a.status), len(body), body[:len(body)/2])
	_ = buf.Flush()
	_ = conn.Close()
}

func serverError(f *Fault) answer {
	status := f.Status
	if status == 0 {
		status = http.StatusInternalServerError
	}
	return refuse(status, "internal_server_error", "Something went wrong on our end.")
}

// writeError answers 500 as the application would, 502 and up as the proxy in
// front of it would.
func writeError(w http.ResponseWriter, f *Fault) int {
	a := serverError(f)
	if a.status == http.StatusInternalServerError {
		return write(w, a)
	}
	title := fmt.Sprintf("%d %s", a.status, http.StatusText(a.status))
	return writeHTML(w, a.status, "<html><head><title>"+title+"</title></head><body><center><h1>"+title+"</h1></center><hr><center>nginx</center></body></html>")
}

func writeHTML(w http.ResponseWriter, status int, body string) int {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
	return status
}

// writeTooMany: plain text, developers.paymongo.com/docs/rate-limiting-errors.
func writeTooMany(w http.ResponseWriter, retryAfter Duration) int {
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(time.Duration(retryAfter).Seconds()))))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write([]byte("Too many requests, please try again later."))
	return http.StatusTooManyRequests
}

// secondCounter is the rate limit: more than limit requests within one second
// block the caller until the minute is over.
type secondCounter struct {
	second  int64
	count   int
	blocked int64 // unix second at which the block is lifted
}

func (l *secondCounter) over(now time.Time, limit int) bool {
	if limit == 0 {
		return false
	}
	second := now.Unix()
	if second < l.blocked && second >= l.blocked-60 { // not when the clock was set back
		return true
	}
	if second != l.second {
		l.second, l.count = second, 0
	}
	l.count++
	if l.count > limit {
		l.blocked = second - second%60 + 60
		return true
	}
	return false
}

func slogLevel(status int) slog.Level {
	if status == 0 || status >= 500 {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (c *call) logAttrs(status int, took time.Duration) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("method", c.r.Method),
		slog.String("path", c.r.URL.Path), // without the query: it may carry a client key
		slog.Int("status", status),
		slog.Duration("took", took.Round(time.Microsecond)),
	}
	if name := c.hits.String(); name != "" {
		attrs = append(attrs, slog.String("fault", name))
	}
	return attrs
}
