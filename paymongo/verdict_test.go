package paymongo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func errorsBody(code, subCode string) string {
	return fmt.Sprintf(`{"errors":[{"code":%q,"detail":"why","sub_code":%q}]}`, code, subCode)
}

// TestVerdictOfAnswer has a subtest for every branch of the verdict on an answer to an attach.
func TestVerdictOfAnswer(t *testing.T) {
	t.Parallel()
	html := "<html><body>502 Bad Gateway</body></html>"
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   Verdict
		reason string
	}{
		{"AlreadyPending", 400, errorsBody("resource_pending_state", ""), VerdictUnknown, "resource_pending_state"},
		{"AlreadyProcessing", 400, errorsBody("resource_processing_state", ""), VerdictUnknown, "resource_processing_state"},
		{"AlreadySucceeded", 400, errorsBody("resource_succeeded_state", ""), VerdictUnknown, "resource_succeeded_state"},
		{"AnotherIntent", 200, strings.Replace(intentAnswer, "pi_1", "pi_2", 1), VerdictUnknown, reasonWrongThing},
		{"AnotherResource", 200, strings.Replace(intentAnswer, `"payment_intent"`, `"payment"`, 1), VerdictUnknown, reasonWrongThing},
		{"BadAmountExponent", 200, strings.Replace(intentAnswer, "2000", "1e2", 1), VerdictUnknown, reasonUndecodable},
		{"BadAmountFraction", 200, strings.Replace(intentAnswer, "2000", "100.0", 1), VerdictUnknown, reasonUndecodable},
		{"BadAmountString", 200, strings.Replace(intentAnswer, "2000", `"2000"`, 1), VerdictUnknown, reasonUndecodable},
		{"BadAmountTooLarge", 200, strings.Replace(intentAnswer, "2000", "9223372036854775808", 1), VerdictUnknown, reasonUndecodable},
		{"BadKey", 401, errorsBody("api_key_invalid", ""), VerdictRefused, "api_key_invalid"},
		{"BadParameter", 400, errorsBody("parameter_invalid", ""), VerdictRefused, "parameter_invalid"},
		{"CodeIsNoString", 400, `{"errors":[{"code":7}]}`, VerdictUnknown, reasonUnlisted},
		{"Conflict", 409, errorsBody("idempotency_in_progress", ""), VerdictUnknown, reasonConflict},
		{"ConflictOfAnyKind", 409, errorsBody("parameter_invalid", ""), VerdictUnknown, reasonConflict},
		{"Decline", 400, errorsBody("resource_failed_state", "insufficient_funds"), VerdictRefused, "insufficient_funds"},
		{"DeclineAs402", 402, errorsBody("resource_failed_state", "insufficient_funds"), VerdictRefused, "insufficient_funds"},
		{"DeclineNotCertain", 400, errorsBody("resource_failed_state", "processor_timeout"), VerdictUnknown, "processor_timeout"},
		{"DeclineUnlisted", 400, errorsBody("resource_failed_state", "brand_new"), VerdictUnknown, reasonUnlistedSub},
		{"DeclineWithoutSubCode", 400, errorsBody("resource_failed_state", ""), VerdictRefused, "resource_failed_state"},
		{"EmptyAnswer", 200, "", VerdictUnknown, reasonCut},
		{"EmptyErrors", 400, `{"errors":[]}`, VerdictUnknown, reasonNoErrors},
		{"EmptyObject", 200, "{}", VerdictUnknown, reasonWrongThing},
		{"Forbidden", 403, errorsBody("organization_not_allowed", ""), VerdictRefused, "organization_not_allowed"},
		{"HTMLError", 403, html, VerdictUnknown, reasonNoErrors},
		{"HTMLSuccess", 200, html, VerdictUnknown, reasonHTML},
		{"JSONErrorWithoutErrors", 400, `{"message":"no"}`, VerdictUnknown, reasonNoErrors},
		{"ListedAndUnlistedCode", 400, `{"errors":[{"code":"parameter_invalid"},{"code":"brand_new"}]}`, VerdictUnknown, reasonUnlisted},
		{"NoContent", 204, "", VerdictUnknown, reasonCut},
		{"NoData", 200, `{"data":null}`, VerdictUnknown, reasonWrongThing},
		{"NoID", 200, strings.Replace(intentAnswer, `"pi_1"`, `""`, 1), VerdictUnknown, reasonWrongThing},
		{"NoStatus", 200, strings.Replace(intentAnswer, `"succeeded"`, `""`, 1), VerdictUnknown, reasonUndecodable},
		{"NoSuchIntent", 404, errorsBody("resource_not_found", ""), VerdictRefused, "resource_not_found"},
		{"NoSuchRoute", 404, "", VerdictUnknown, reasonNoErrors},
		{"NullAmongErrors", 400, `{"errors":[null]}`, VerdictUnknown, reasonUnlisted},
		{"RateLimited", 429, "Too many requests, please try again later.", VerdictUnknown, reasonRateLimited},
		{"RateLimitedWithListedCode", 429, errorsBody("parameter_invalid", ""), VerdictUnknown, reasonRateLimited},
		{"Redirect", 307, "", VerdictUnknown, reasonRedirect},
		{"RequestTimeout", 408, errorsBody("parameter_invalid", ""), VerdictUnknown, reasonHTTPTimeout},
		{"ServerFault", 500, errorsBody("parameter_invalid", ""), VerdictUnknown, reasonServerFault},
		{"ServerFaultHTML", 502, html, VerdictUnknown, reasonServerFault},
		{"SwitchingProtocols", 101, "", VerdictUnknown, reasonOddStatus},
		{"TooLarge", 200, strings.Repeat(" ", maxAnswer) + intentAnswer, VerdictUnknown, reasonTooLarge},
		{"TooLargeError", 400, strings.Repeat(" ", maxAnswer) + errorsBody("parameter_invalid", ""), VerdictUnknown, reasonTooLarge},
		{"TwoAnswersInOne", 200, intentAnswer + intentAnswer, VerdictUnknown, reasonUndecodable},
		{"TwoListedCodes", 400, `{"errors":[{"code":"parameter_required"},{"code":"parameter_invalid"}]}`, VerdictRefused, "parameter_required"},
		{"UnlistedCode", 400, errorsBody("brand_new", ""), VerdictUnknown, reasonUnlisted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tries := 0
			c := inMemory(t, answering(tt.status, tt.body), WithObserver(func(_ context.Context, e Exchange) {
				tries++
				if e.StatusCode != tt.status || e.Err == nil {
					t.Errorf("observed %d, %v", e.StatusCode, e.Err)
				}
			}))
			err := attach(t.Context(), c, "")
			checkVerdict(t, "attach", err, tt.want, tt.reason)
			checkVerdict(t, "wrapped", fmt.Errorf("charge: %w", err), tt.want, tt.reason)
			if tries != 1 {
				t.Errorf("%d tries of a write that was sent", tries)
			}
		})
	}
}

// TestVerdictOfError has the errors that no server makes.
func TestVerdictOfError(t *testing.T) {
	t.Parallel()
	refused := &Error{StatusCode: 400, Code: "parameter_invalid"}
	neverSent := &CallError{Verdict: VerdictNeverSent, Reason: reasonDNS}
	unknown := &CallError{Verdict: VerdictUnknown, Reason: reasonCut}
	for _, tt := range []struct {
		name   string
		err    error
		want   Verdict
		reason string
	}{
		{"Canceled", context.Canceled, VerdictUnknown, reasonForeignError},
		{"Foreign", errors.New("disk full"), VerdictUnknown, reasonForeignError},
		{"ForeignWrapping", fmt.Errorf("a: %w", io.EOF), VerdictUnknown, reasonForeignError},
		{"JoinedWithForeign", errors.Join(io.EOF, refused), VerdictRefused, "parameter_invalid"},
		{"JoinedWorstCounts", errors.Join(neverSent, unknown, refused), VerdictUnknown, reasonCut},
		{"MadeByHand", refused, VerdictRefused, "parameter_invalid"},
		{"MadeByHandWithoutVerdict", &CallError{}, VerdictUnknown, ""},
		{"Nil", nil, "", ""},
		{"WrappedTwice", fmt.Errorf("%w and %w", io.EOF, fmt.Errorf("b: %w", neverSent)), VerdictNeverSent, reasonDNS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if v, reason := VerdictOf(tt.err); v != tt.want || reason != tt.reason {
				t.Errorf("verdict %q (%q), want %q (%q)", v, reason, tt.want, tt.reason)
			}
		})
	}
}

// TestVerdictOfTransport has the ways in which a transport fails with the request in hand.
func TestVerdictOfTransport(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		err    error
		reason string
	}{
		{"BrokenPipe", syscall.EPIPE, reasonConnection},
		{"Canceled", context.Canceled, reasonCanceled},
		{"DeadlineExceeded", context.DeadlineExceeded, reasonTimeout},
		{"EOF", io.EOF, reasonConnection},
		{"NetTimeout", os.ErrDeadlineExceeded, reasonTimeout},
		{"Reset", syscall.ECONNRESET, reasonConnection},
		{"UnexpectedEOF", io.ErrUnexpectedEOF, reasonConnection},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := attach(t.Context(), inMemory(t, failing(tt.err)), "a-key")
			checkVerdict(t, "attach", err, VerdictUnknown, tt.reason)
			if !errors.Is(err, tt.err) {
				t.Errorf("%v hides its cause", err)
			}
		})
	}
	t.Run("NeitherAnswerNorError", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) { swallow(r); return nil, nil }))
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictUnknown, reasonConnection)
	})
	t.Run("EndlessAnswer", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			swallow(r)
			resp := response(r, 200, "")
			resp.Body, resp.ContentLength = io.NopCloser(endless{}), -1
			return resp, nil
		}))
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictUnknown, reasonTooLarge)
	})
	t.Run("OtherProtocol", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			swallow(r)
			resp := response(r, http.StatusSwitchingProtocols, "")
			resp.Body = io.NopCloser(untouchableBody{t})
			return resp, nil
		}))
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictUnknown, reasonOddStatus)
	})
	t.Run("NoBody", func(t *testing.T) {
		t.Parallel()
		c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			swallow(r)
			return &http.Response{StatusCode: 200, Header: http.Header{}}, nil
		}))
		checkVerdict(t, "attach", attach(t.Context(), c, ""), VerdictUnknown, reasonCut)
	})
}

// TestCutAnswer cuts answers at every byte, with and without the connection telling of it.
func TestCutAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		body   string
	}{
		{"Success", 200, string(fixture(t, "payment_intent_succeeded.json"))},
		{"Decline", 400, errorsBody("resource_failed_state", "insufficient_funds")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for n := range strings.TrimRight(tt.body, "\n") {
				for _, told := range []bool{false, true} {
					c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
						swallow(r)
						resp := response(r, tt.status, tt.body[:n])
						if told {
							resp.ContentLength = int64(len(tt.body))
							resp.Body = io.NopCloser(io.MultiReader(resp.Body, cutOff{}))
						}
						return resp, nil
					}))
					if v, reason := VerdictOf(attach(t.Context(), c, "")); v != VerdictUnknown {
						t.Fatalf("cut at %d, told %v: verdict %q (%s)", n, told, v, reason)
					}
				}
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type untouchableBody struct{ t *testing.T }

func (b untouchableBody) Read([]byte) (int, error) {
	b.t.Error("a body that has no end was read")
	return 0, io.EOF
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestCodesOfTheNotes holds the tables against the page of notes, so that a code which is
// added there does not stay unlisted here.
func TestCodesOfTheNotes(t *testing.T) {
	t.Parallel()
	notes, err := os.ReadFile("../../shared/paymongo-api.md")
	if err != nil {
		t.Skipf("SKIPPED, the code tables were not held against the notes: %v", err)
	}
	section := func(from, to string) string {
		_, rest, _ := strings.Cut(string(notes), from)
		text, _, ok := strings.Cut(rest, to)
		if !ok {
			t.Fatalf("the notes have no section from %q to %q", from, to)
		}
		return text
	}
	quoted := regexp.MustCompile("`([a-z]+(?:_[a-z]+)+)`")
	for _, text := range []string{
		section("Codes seen", "- `livemode_mismatched`"),
		section("Errors `[D:refund-errors]`:", "\n"),
	} {
		for _, m := range quoted.FindAllStringSubmatch(text, -1) {
			if _, ok := errorCodes[m[1]]; !ok {
				t.Errorf("errorCodes lacks %s", m[1])
			}
		}
	}
	row := regexp.MustCompile(`(?m)^\| ([a-z_]+)[^|]*\|[^|]*\|[^|]*\| ([A-Z]+)`)
	rows := row.FindAllStringSubmatch(section("## 4. Card decline", "- \"Mask\" group"), -1)
	if len(rows) < 40 {
		t.Fatalf("only %d decline codes found in the notes", len(rows))
	}
	for _, m := range rows {
		got, ok := declineCodes[m[1]]
		if !ok {
			t.Errorf("declineCodes lacks %s", m[1])
		}
		if (got == notCertain) != (m[2] == "UNKNOWN") {
			t.Errorf("%s is class %s in the notes, meaning %d here", m[1], m[2], got)
		}
	}
	if len(rows) != len(declineCodes) {
		t.Errorf("%d decline codes in the notes, %d here", len(rows), len(declineCodes))
	}
}

func TestDeclined(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  Error
		want bool
	}{
		{"PaymentRequired", Error{StatusCode: 402}, true},
		{"SecondItem", Error{StatusCode: 400, Errors: []ErrorItem{{Code: "parameter_invalid"}, {Code: "resource_failed_state", SubCode: "lost_card"}}}, true},
		{"SubCode", Error{StatusCode: 400, Code: "resource_failed_state", SubCode: "lost_card"}, true},
		{"WithoutSubCode", Error{StatusCode: 400, Code: "resource_failed_state"}, false},
		{"WrongParameter", Error{StatusCode: 400, Code: "parameter_invalid"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.err.Declined(); got != tt.want {
				t.Errorf("Declined is %v", got)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		body   string
		header []string
		want   string
	}{
		{"Decline", 400, errorsBody("resource_failed_state", "insufficient_funds"), nil,
			"paymongo: payment_intents.attach: 400 resource_failed_state (insufficient_funds): why"},
		{"Empty", 404, "", nil, "paymongo: payment_intents.attach: 404 Not Found"},
		{"HTML", 502, " <html>", nil, "paymongo: payment_intents.attach: 502 Bad Gateway: HTML answer"},
		{"JSON", 400, `{}`, nil, "paymongo: payment_intents.attach: 400 Bad Request: JSON answer without errors[]"},
		{"Key", 401, errorsBody("api_key_invalid", ""), nil,
			"paymongo: payment_intents.attach: 401 api_key_invalid: why; check the API key before any other call: PayMongo blocks callers that repeat a 401"},
		{"LineBreaks", 400, `{"errors":[{"code":"parameter_invalid","detail":"a\nlevel=ERROR b"}]}`, nil,
			"paymongo: payment_intents.attach: 400 parameter_invalid: a level=ERROR b"},
		{"Plain", 429, "Too many requests, please try again later.\n", []string{"Retry-After", "30", "Content-Type", "text/plain"},
			"paymongo: payment_intents.attach: 429 Too Many Requests: Too many requests, please try again later.; retry after 30s"},
		{"Two", 400, `{"errors":[{"code":"parameter_required","detail":"amount is required.","source":{"pointer":"amount","attribute":"amount"}},{"code":"parameter_invalid"}]}`, nil,
			"paymongo: payment_intents.attach: 400 parameter_required: amount is required. (and 1 more)"},
		{"WithField", 400, `{"errors":[{"code":"parameter_invalid","detail":"too low","source":{"pointer":"attributes.amount"}}]}`, nil,
			"paymongo: payment_intents.attach: 400 parameter_invalid: too low [amount]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := attach(t.Context(), inMemory(t, answering(tt.status, tt.body, tt.header...)), "")
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestErrorFields(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ source, field string }{
		{`{"pointer":"amount","attribute":"amount"}`, "amount"},
		{`{"pointer":"attributes.amount"}`, "amount"},
		{`{"pointer":"/data/attributes/amount"}`, "amount"},
		{`{"pointer":"details.exp_month","attribute":"exp_month"}`, "details.exp_month"},
		{`{"attribute":"card_number"}`, "card_number"},
		{`null`, ""},
		{`"amount"`, ""},
	} {
		t.Run(tt.source, func(t *testing.T) {
			t.Parallel()
			body := `{"errors":[{"code":"parameter_invalid","detail":"no","source":` + tt.source + `}]}`
			e := checkResponse("op", 400, http.Header{}, []byte(body), time.Now())
			if e.Field != tt.field || e.Code != "parameter_invalid" || e.Detail != "no" || string(e.Body) != body {
				t.Errorf("got %+v", *e)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 5, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		value string
		want  time.Duration
	}{
		{"", 0},
		{"0", 0},
		{"-5", 0},
		{"soon", 0},
		{" 30 ", 30 * time.Second},
		{"99999999", maxRetryAfter},
		{"99999999999999999999999999", 0},
		{"Thu, 05 Nov 2026 08:00:10 GMT", 10 * time.Second},
		{"Thu, 05 Nov 2026 07:59:50 GMT", 0},
		{"Fri, 06 Nov 2099 08:00:00 GMT", maxRetryAfter},
	} {
		t.Run(tt.value, func(t *testing.T) {
			t.Parallel()
			if got := parseRetryAfter(tt.value, now); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
