package sandbox

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"
)

// before plays the faults that come before the effect. It tells whether the
// call ends here, and with which status (0: no answer).
func (s *Sandbox) before(w http.ResponseWriter, c *call) (done bool, status int) {
	if c.hits.delay > 0 && c.op.name != "payment_intents.attach" {
		// An attach waits later, between its look and its execution.
		s.pause(c.hits.delay, c.r.Context().Done())
	}
	f := c.hits.spoil
	if f == nil || faultKinds[f.Kind] != stageBefore {
		return false, 0
	}
	s.mu.Lock()
	s.noteUnexecuted(c)
	if f.Kind == ErrorBefore {
		// PayMongo's reference: the first outcome is stored, failures too.
		s.remember(c, serverError(f))
	}
	s.mu.Unlock()
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

// after sends the answer, spoilt if a fault says so, and then the events.
func (s *Sandbox) after(w http.ResponseWriter, c *call, a answer) (status int) {
	early, late := s.sortEvents(c)
	s.post.deliverNow(early)
	defer s.post.send(late)

	f := c.hits.spoil
	if f == nil {
		return write(w, a)
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

// lie changes the answer, never the record.
func (a answer) lie(kind FaultKind) answer {
	data, ok := a.doc.(wireData)
	if !ok {
		return a
	}
	res, ok := data.Data.(wireResource)
	if !ok {
		return a
	}
	switch at := res.Attributes.(type) {
	case wireIntent:
		if kind == WrongAmount {
			at.Amount++
		}
		at.Livemode = kind == WrongLivemode
		res.Attributes = at
	case wirePayment:
		if kind == WrongAmount {
			at.Amount++
		}
		at.Livemode = kind == WrongLivemode
		res.Attributes = at
	}
	a.doc = wireData{res}
	return a
}

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
		_ = tcp.SetLinger(0) // Close sends the RST all the same or not at all
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
	if second < l.blocked {
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
