package paymongo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is an answer of PayMongo that is no success: any status outside 2xx.
// The fields Code to Pointer are those of the first entry of Errors. Nothing in
// it holds a secret: texts are redacted when the error is made.
type Error struct {
	Op         string // the call, such as payment_intents.attach
	StatusCode int

	Code    string // such as resource_failed_state; empty when the body was not PayMongo's errors[]
	SubCode string // such as insufficient_funds; only card failures have one
	Detail  string // for logs, not for payers
	Field   string // the parameter complained of, such as details.exp_month
	Pointer string // source.pointer as PayMongo wrote it

	// RetryAfter is how long PayMongo asked us to wait, at most 10 minutes; zero if it did not say.
	RetryAfter time.Duration
	// Errors holds every entry of errors[], in order.
	Errors []ErrorItem
	// Body is the start of the answer, at most 4 KiB, redacted.
	Body []byte
}

// ErrorItem is one entry of errors[].
type ErrorItem struct {
	Code      string
	SubCode   string
	Detail    string
	Field     string // Pointer without its "attributes." prefix, or else Attribute
	Pointer   string
	Attribute string
}

// Error describes the answer in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "paymongo: %s: %d", e.Op, e.StatusCode)
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	} else if text := http.StatusText(e.StatusCode); text != "" {
		b.WriteString(" " + text)
	}
	if e.SubCode != "" {
		b.WriteString(" (" + e.SubCode + ")")
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Field != "" && !strings.Contains(e.Detail, e.Field) {
		b.WriteString(" [" + e.Field + "]")
	}
	if more := len(e.Errors) - 1; more > 0 {
		fmt.Fprintf(&b, " (and %d more)", more)
	}
	switch {
	case e.StatusCode == http.StatusUnauthorized:
		b.WriteString("; check the API key before any other call: PayMongo blocks callers that repeat a 401")
	case e.RetryAfter > 0:
		fmt.Fprintf(&b, "; retry after %s", e.RetryAfter)
	}
	return redact(b.String())
}

// Declined reports whether the answer is a decline of the payment method rather
// than a complaint about the request: resource_failed_state with a sub code, or
// a 402. Whether the decline is certain is for [VerdictOf] to say.
func (e *Error) Declined() bool {
	if e.StatusCode == http.StatusPaymentRequired {
		return true
	}
	for _, item := range e.items() {
		if item.SubCode != "" && errorCodes[item.Code] == declined {
			return true
		}
	}
	return false
}

// items is Errors, or the top fields of an Error made by hand, as tests of callers do.
func (e *Error) items() []ErrorItem {
	if len(e.Errors) == 0 && e.Code != "" {
		return []ErrorItem{{Code: e.Code, SubCode: e.SubCode}}
	}
	return e.Errors
}

// CallError is a call without a usable answer: refused before sending, lost on
// the way, or answered with something that cannot be read.
type CallError struct {
	Op         string
	StatusCode int     // zero when there was no answer
	Verdict    Verdict // what the call may have done; empty means unknown
	Reason     string  // why, in one word
	Err        error   // the cause; it prints without URLs and secrets
}

// Error describes the failure in one line, without the URL, whose query may hold a client key.
func (e *CallError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "paymongo: %s: ", e.Op)
	if e.Verdict == VerdictNeverSent {
		b.WriteString("not sent")
	} else {
		b.WriteString("outcome unknown")
	}
	fmt.Fprintf(&b, " (%s)", e.Reason)
	if e.StatusCode != 0 {
		fmt.Fprintf(&b, ": HTTP %d", e.StatusCode)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return redact(b.String())
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// quietError stands in for an error whose text may hold a URL or a secret.
// It answers errors.Is like the original, and does not give the original away.
type quietError struct {
	text  string
	cause error
}

func (e *quietError) Error() string        { return e.text }
func (e *quietError) Is(target error) bool { return errors.Is(e.cause, target) }

// Timeout makes a quiet net.Error recognisable.
func (e *quietError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.cause, &t) && t.Timeout()
}

// refuse is the error of a call that was stopped before sending.
func refuse(op, reason, format string, args ...any) error {
	return &CallError{Op: op, Verdict: VerdictNeverSent, Reason: reason, Err: fmt.Errorf(format, args...)}
}

// maxRetryAfter bounds how long one answer can hold the client back. PayMongo
// says it lifts a block within the next minute.
const maxRetryAfter = 10 * time.Minute

// checkResponse makes an error of every answer outside 2xx. The body may be
// PayMongo's errors[], the plain text of its rate limiter, or anything a proxy says.
func checkResponse(op string, status int, header http.Header, body []byte, now time.Time) *Error {
	if status >= 200 && status < 300 {
		return nil
	}
	e := &Error{
		Op:         op,
		StatusCode: status,
		RetryAfter: parseRetryAfter(header.Get("Retry-After"), now),
		Errors:     parseErrorItems(body),
		Body:       []byte(redact(cut(string(body), maxErrorBody))),
	}
	if len(e.Errors) > 0 {
		first := e.Errors[0]
		e.Code, e.SubCode, e.Detail = first.Code, first.SubCode, first.Detail
		e.Field, e.Pointer = first.Field, first.Pointer
		return e
	}
	switch mediaType, _, _ := mime.ParseMediaType(header.Get("Content-Type")); {
	case isHTML(body) || mediaType == "text/html":
		e.Detail = "HTML answer"
	case json.Valid(body):
		e.Detail = "JSON answer without errors[]"
	default:
		// The rate limiter of PayMongo answers in plain text.
		e.Detail = clean(cut(string(bytes.TrimSpace(body)), 256))
	}
	return e
}

func isHTML(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("<"))
}

func parseErrorItems(body []byte) []ErrorItem {
	var answer struct {
		Errors []struct {
			Code    string `json:"code"`
			SubCode string `json:"sub_code"`
			Detail  string `json:"detail"`
			Source  struct {
				Pointer   string `json:"pointer"`
				Attribute string `json:"attribute"`
			} `json:"source"`
		} `json:"errors"`
	}
	// A field of the wrong type stays empty, which makes its entry an unlisted
	// code; the other fields are worth keeping.
	if err := ignoreTypeErrors(json.Unmarshal(body, &answer)); err != nil {
		return nil
	}
	var items []ErrorItem
	for _, in := range answer.Errors {
		item := ErrorItem{
			Code:      clean(in.Code),
			SubCode:   clean(in.SubCode),
			Detail:    clean(in.Detail),
			Pointer:   clean(in.Source.Pointer),
			Attribute: clean(in.Source.Attribute),
		}
		item.Field = field(item.Pointer, item.Attribute)
		items = append(items, item)
	}
	return items
}

// field brings PayMongo's two ways to point at a parameter together: recordings
// have "amount", newer documentation "attributes.amount".
func field(pointer, attribute string) string {
	path := strings.ReplaceAll(strings.Trim(pointer, "/"), "/", ".")
	path = strings.TrimPrefix(path, "data.")
	path = strings.TrimPrefix(path, "attributes.")
	if path == "" {
		return attribute
	}
	return path
}

// parseRetryAfter reads seconds or an HTTP date; anything else is zero.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		wait = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
