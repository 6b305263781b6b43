package paymongo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// maxAnswer bounds the answers we read, in bytes. A page of 100 payments is about 100 KiB.
const maxAnswer = 1 << 20

// Do sends a request made by [Client.NewRequest] and decodes the answer into
// out as [json.Unmarshal] does; a nil out drops it. The resources of this
// package can be decoded from PayMongo's envelope, and [json.RawMessage] keeps
// everything. Errors are *[Error] for an answer that is no success and
// *[CallError] for everything else.
func (c *Client) Do(req *Request, out any) error {
	if req == nil || req.client != c {
		return refuse("custom", reasonBadParams, "the request was not made by NewRequest of this client")
	}
	return c.run(req, func(answer []byte) error {
		if out == nil {
			return nil
		}
		return json.Unmarshal(answer, out)
	})
}

// run sends a request until it succeeds, fails for good, or is out of time.
//
// The loop is our own, around backoff's intervals, because backoff.Retry gives
// ctx.Err() for the last error when the context ends, and the last error is
// what carries the verdict.
func (c *Client) run(r *Request, decode func([]byte) error) error {
	if err := r.check(); err != nil {
		return err
	}
	r = r.anchored(time.Now())
	var intervals *backoff.ExponentialBackOff
	var last error
	for attempt := 1; ; attempt++ {
		wait, err := c.admit(r.ctx, r)
		if err != nil {
			if last != nil {
				return last
			}
			return err
		}
		if intervals == nil {
			intervals = newIntervals(c.maxElapsed)
		}
		result := c.try(r, decode)
		if c.observe != nil {
			c.observe(r.ctx, Exchange{
				Op: r.Op, Method: r.method, Attempt: attempt, Wait: wait,
				Duration: result.took, StatusCode: result.status, Err: result.err,
			})
		}
		if result.err == nil || !result.again || !c.pause(r, intervals) {
			return result.err
		}
		last = result.err
	}
}

func newIntervals(maxElapsed time.Duration) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(200*time.Millisecond),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(maxElapsed),
	)
}

// pause waits before the next try, and reports false if there is no time for
// one. A hold counts into it: who cannot outwait a 429 is told of it at once.
func (c *Client) pause(r *Request, intervals *backoff.ExponentialBackOff) bool {
	interval := intervals.NextBackOff()
	if interval == backoff.Stop {
		return false
	}
	now := time.Now()
	interval = max(interval, c.hold.end().Sub(now))
	// backoff takes a maxElapsed of 0 for "without end"; here it means no second try.
	if intervals.GetElapsedTime()+interval > c.maxElapsed || r.fits(r.ctx, now.Add(interval), "") != nil {
		return false
	}
	return sleep(r.ctx, interval)
}

// result is what one round trip came to.
type result struct {
	err    error
	status int
	took   time.Duration
	again  bool // another try can do no harm, and may help
}

// try makes one round trip.
//
// It calls the transport directly rather than through an http.Client, which
// would add redirects, cookies and errors with the whole URL in them.
func (c *Client) try(r *Request, decode func([]byte) error) result {
	ctx, cancel := context.WithTimeout(r.ctx, r.wait)
	defer cancel()
	trace := &tracer{}
	start := time.Now()
	req, body := c.httpRequest(httptrace.WithClientTrace(ctx, trace.hooks()), r)
	read := r.method == http.MethodGet

	resp, err := c.transport.RoundTrip(req)
	if err == nil && resp == nil {
		err = errors.New("the transport returned neither an answer nor an error")
	}
	if err != nil {
		e := lost(r.Op, err, body, trace)
		var certificate *tls.CertificateVerificationError
		again := (read || e.Verdict == VerdictNeverSent && e.Reason != reasonPastSendBefore) && !errors.As(err, &certificate)
		return result{err: e, took: time.Since(start), again: again}
	}

	buf := buffers.Get().(*bytes.Buffer)
	defer recycle(buf)
	buf.Reset()
	err = readAnswer(buf, resp)
	res := result{status: resp.StatusCode, took: time.Since(start)}
	fail := func(reason string, err error) {
		res.err = &CallError{Op: r.Op, StatusCode: resp.StatusCode, Verdict: VerdictUnknown, Reason: reason, Err: quiet(err)}
	}
	answer := buf.Bytes()
	bad := checkResponse(r.Op, resp.StatusCode, resp.Header, answer, time.Now())
	c.noteRate(resp.StatusCode, bad, start)
	switch {
	case errors.Is(err, errTooLarge):
		fail(reasonTooLarge, err)
	case err != nil:
		fail(broken(err, reasonCut), err)
		res.again = read
	case bad != nil:
		res.err = bad
		res.again = read && (bad.StatusCode >= 500 || bad.StatusCode == http.StatusTooManyRequests)
	default:
		if err := decode(answer); err != nil {
			reason := undecodable(answer, err)
			fail(reason, err)
			res.again = read && reason == reasonCut
		}
	}
	return res
}

func (c *Client) httpRequest(ctx context.Context, r *Request) (*http.Request, *onceBody) {
	u := *c.base
	u.Path, u.RawQuery = r.path, r.query.Reveal()
	// One array holds the values; each slice ends with its own, so that an append to it copies.
	values := [...]string{"application/json", c.authorization.Reveal(), c.userAgent, "application/json", r.IdempotencyKey}
	value := func(i int) []string { return values[i : i+1 : i+1] }
	req := &http.Request{
		Method: r.method, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Accept":        value(0),
			"Authorization": value(1),
			"User-Agent":    value(2),
		},
	}
	var body *onceBody
	if content := r.body.Reveal(); content != "" {
		body = newOnceBody(content, r.SendBefore)
		req.Body, req.ContentLength = body, int64(len(content))
		req.Header["Content-Type"] = value(3)
	}
	if r.IdempotencyKey != "" {
		req.Header["Idempotency-Key"] = value(4)
	}
	return req.WithContext(ctx), body
}

// lost makes the error of a round trip without an answer. The proof that
// nothing was sent is the body where there is one, and the trace where there is none.
func lost(op string, err error, body *onceBody, trace *tracer) *CallError {
	e := &CallError{Op: op, Verdict: VerdictUnknown, Reason: broken(err, reasonConnection), Err: quiet(err)}
	if body == nil {
		if trace.neverSent() {
			e.Verdict, e.Reason = VerdictNeverSent, trace.stoppedAt(err)
		}
		return e
	}
	switch started, late := body.fence(); {
	case late:
		e.Verdict, e.Reason, e.Err = VerdictNeverSent, reasonPastSendBefore, errPastSendBefore
	case !started:
		e.Verdict, e.Reason = VerdictNeverSent, trace.stoppedAt(err)
	}
	return e
}

// broken names the way a connection ended.
func broken(err error, otherwise string) string {
	var n net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return reasonCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &n) && n.Timeout():
		return reasonTimeout
	}
	return otherwise
}

var errTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)

// readAnswer reads the body to its end, so that the connection can be used
// again, unless it is too large.
func readAnswer(buf *bytes.Buffer, resp *http.Response) error {
	if resp.Body == nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 200 {
		return nil // 101: what follows is another protocol, without an end
	}
	if resp.ContentLength > maxAnswer {
		return errTooLarge
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	if n > maxAnswer {
		return errTooLarge
	}
	return err
}

// undecodable tells the ways apart in which a 2xx answer is none of ours.
func undecodable(answer []byte, err error) string {
	var syntax *json.SyntaxError
	switch {
	case isHTML(answer):
		return reasonHTML
	case errors.As(err, &syntax) && syntax.Offset >= int64(len(answer)):
		return reasonCut
	case errors.Is(err, errOtherResource):
		return reasonWrongThing
	}
	return reasonUndecodable
}

func (c *Client) noteRate(status int, e *Error, sent time.Time) {
	now := time.Now()
	switch {
	case e != nil && e.RetryAfter > 0 && (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable):
		c.hold.extend(now.Add(e.RetryAfter))
	case status == http.StatusTooManyRequests:
		c.hold.rateLimited(sent, now)
	case status < 500:
		c.hold.answered(sent)
	}
}

var urlPattern = regexp.MustCompile(`(\w+://[^\s"?]+)\?[^\s"]*`)

// quiet makes an error of the transport safe to print: no query, no secret.
func quiet(err error) error {
	text := err.Error()
	if safe := redact(urlPattern.ReplaceAllString(text, "$1")); safe != text {
		return &quietError{text: safe, cause: err}
	}
	return err
}

// buffers holds answers while they are decoded. Decoding copies what it keeps.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func recycle(buf *bytes.Buffer) {
	if buf.Cap() <= 64<<10 { // a large one would stay for nothing
		buffers.Put(buf)
	}
}
