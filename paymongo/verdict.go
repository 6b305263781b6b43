package paymongo

import "net/http"

// Verdict says what a failed call may have done at PayMongo.
type Verdict string

// The verdicts, from the most to the least certain.
const (
	// VerdictNeverSent: PayMongo cannot have received the whole request.
	VerdictNeverSent Verdict = "never_sent"
	// VerdictRefused: PayMongo received it and answered that it did nothing.
	VerdictRefused Verdict = "refused"
	// VerdictUnknown: it may have been executed. Retrieve the resource before anything else.
	VerdictUnknown Verdict = "unknown"
)

// The reasons beside the PayMongo codes; doc.go lists them for callers.
const (
	// Never sent, refused by this package.
	reasonBadParams      = "bad_params"
	reasonNeedsSecretKey = "needs_secret_key"
	reasonContextDone    = "context_done"
	reasonLimiter        = "rate_limit_past_deadline"
	reasonLimiterFailed  = "rate_limit_failed"
	reasonHold           = "hold_past_deadline"
	reasonPastSendBefore = "past_send_before"

	// Never sent, given up on the way.
	reasonDNS     = "dns"
	reasonConnect = "connect"
	reasonTLS     = "tls"
	reasonWaiting = "waiting_for_connection"
	reasonUnsent  = "body_not_sent"

	// Unknown, no answer.
	reasonTimeout    = "timeout"
	reasonCanceled   = "canceled"
	reasonConnection = "connection_lost"

	// Unknown, no usable answer.
	reasonCut         = "answer_cut"
	reasonTooLarge    = "answer_too_large"
	reasonHTML        = "answer_html"
	reasonUndecodable = "answer_undecodable"
	reasonWrongThing  = "answer_other_resource"

	// Unknown, by status or code.
	reasonRedirect     = "http_3xx"
	reasonOddStatus    = "http_status"
	reasonServerFault  = "http_5xx"
	reasonRateLimited  = "http_429"
	reasonHTTPTimeout  = "http_408"
	reasonConflict     = "http_409"
	reasonNoErrors     = "no_errors_body"
	reasonUnlisted     = "unlisted_code"
	reasonUnlistedSub  = "unlisted_sub_code"
	reasonForeignError = "foreign_error"
)

// VerdictOf says what the failed call behind err may have done, and why we
// think so, as one of the words listed in the package comment. It looks through
// wrapping; of several errors of this package joined into one the least certain
// counts. An error that is not from this package is unknown. For a nil error it
// returns two empty strings.
func VerdictOf(err error) (v Verdict, reason string) {
	if err == nil {
		return "", ""
	}
	if v, reason = find(err); v == "" {
		return VerdictUnknown, reasonForeignError
	}
	return v, reason
}

// NeverSent reports whether err proves that PayMongo never had the whole request.
func NeverSent(err error) bool {
	v, _ := VerdictOf(err)
	return v == VerdictNeverSent
}

// Refused reports whether err is PayMongo saying that it did nothing.
func Refused(err error) bool {
	v, _ := VerdictOf(err)
	return v == VerdictRefused
}

func find(err error) (Verdict, string) {
	switch e := err.(type) { //nolint:errorlint // this is the walk; errors.As would take the first of a joined error, not the worst
	case *Error:
		return e.verdict()
	case *CallError:
		if e.Verdict == "" {
			return VerdictUnknown, e.Reason
		}
		return e.Verdict, e.Reason
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return find(inner)
		}
	case interface{ Unwrap() []error }:
		var worst Verdict
		var why string
		for _, inner := range e.Unwrap() {
			if inner == nil {
				continue
			}
			if v, reason := find(inner); certainty[v] < certainty[worst] {
				worst, why = v, reason
			}
		}
		return worst, why
	}
	return "", ""
}

var certainty = map[Verdict]int{"": 3, VerdictNeverSent: 2, VerdictRefused: 1, VerdictUnknown: 0}

// verdict reads an answer. Only a 4xx whose every code is listed as "nothing
// was done" is a refusal.
//
// 429 is unknown: no source promises that a rate limited write was not
// executed. 408 and 409 are unknown whatever the body says, for the server was
// busy with the call, or with a twin of it.
func (e *Error) verdict() (Verdict, string) {
	switch status := e.StatusCode; {
	case status >= 500:
		return VerdictUnknown, reasonServerFault
	case status == http.StatusTooManyRequests:
		return VerdictUnknown, reasonRateLimited
	case status == http.StatusRequestTimeout:
		return VerdictUnknown, reasonHTTPTimeout
	case status == http.StatusConflict:
		return VerdictUnknown, reasonConflict
	case status >= 300 && status < 400:
		return VerdictUnknown, reasonRedirect
	case status < 400:
		return VerdictUnknown, reasonOddStatus
	}
	items := e.items()
	if len(items) == 0 {
		// A proxy may have spoken, not PayMongo.
		return VerdictUnknown, reasonNoErrors
	}
	why := ""
	for _, item := range items {
		v, reason := item.verdict()
		if v == VerdictUnknown {
			return v, reason
		}
		if why == "" {
			why = reason
		}
	}
	return VerdictRefused, why
}

func (i ErrorItem) verdict() (Verdict, string) {
	m, reason := errorCodes[i.Code], i.Code
	if m == unlisted {
		return VerdictUnknown, reasonUnlisted
	}
	if m == declined {
		m = nothingDone
	}
	// A sub code is only documented for card failures, yet wherever it stands it
	// says more than the code.
	if i.SubCode != "" && m == nothingDone {
		m, reason = declineCodes[i.SubCode], i.SubCode
		if m == unlisted {
			return VerdictUnknown, reasonUnlistedSub
		}
	}
	if m == nothingDone {
		return VerdictRefused, reason
	}
	return VerdictUnknown, reason
}
