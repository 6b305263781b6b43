package paymongo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// FuzzVerifySignature: nothing but the right signature of the right time and
// body is accepted, and nothing panics.
func FuzzVerifySignature(f *testing.F) {
	for _, header := range []string{
		"", "t=1,te=,li=", fmt.Sprintf("t=%d,te=%s,li=", goldenTime, goldenMAC), fmt.Sprintf("te=%s, li=%s ,t=%d", goldenMAC, goldenMAC2, goldenTime),
		"t=1,t=1", "t=99999999999999999999,te=a,li=b", "=,=,=",
	} {
		f.Add(header, []byte(goldenBody), int64(goldenTime), int64(300))
	}
	secrets := mustSecrets(f, goldenOther, goldenSecret)
	f.Fuzz(func(t *testing.T, header string, body []byte, now, tolerance int64) {
		for _, mode := range []Mode{ModeTest, ModeLive} {
			err := VerifySignature(header, body, secrets, mode, time.Unix(now, 0), time.Duration(tolerance))
			if err == nil || errors.Is(err, ErrSignatureStale) {
				sig, parseErr := parseSignature(header)
				mac := sig.test
				if mode == ModeLive {
					mac = sig.live
				}
				got := fmt.Sprintf("%x", mac)
				if parseErr != nil || got != signText(goldenSecret, sig.time, body) && got != signText(goldenOther, sig.time, body) {
					t.Fatalf("%q was accepted for %q: %v", header, body, err)
				}
			}
			if err == nil && tolerance <= 0 {
				t.Fatal("accepted with a tolerance of nothing")
			}
		}
	})
}

func signText(secret, at string, body []byte) string {
	var n int64
	if _, err := fmt.Sscan(at, &n); err != nil || fmt.Sprint(n) != at {
		return "" // a time in another spelling was signed by nobody here
	}
	return sign(secret, n, string(body))
}

// FuzzParseEvent: what is accepted has an id and a type, and keeps its data byte for byte.
func FuzzParseEvent(f *testing.F) {
	f.Add(fixture(f, "event_payment_failed.json"))
	f.Add([]byte(eventBody("payment.paid", `{"id":"pay_1","type":"payment","attributes":{"status":"paid","amount":1e2}}`)))
	f.Add([]byte(eventBody("brand.new", `[[[null]]]`)))
	f.Add([]byte(`{"data":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := ParseEvent(body)
		if err != nil {
			if e != nil || !errors.Is(err, ErrEventMalformed) {
				t.Fatalf("got %v, %v", e, err)
			}
			return
		}
		if !idPattern.MatchString(e.ID) || e.Type == "" {
			t.Fatalf("accepted %v", e)
		}
		if e.Raw != nil && (!json.Valid(e.Raw) || !bytes.Contains(body, e.Raw)) {
			t.Fatalf("raw data %s is not in the body", e.Raw)
		}
		if e.Resource != nil && e.ResourceErr != nil {
			t.Fatalf("both a resource and %v", e.ResourceErr)
		}
		_ = e.String()
	})
}

var secretLike = regexp.MustCompile(`(?:sk|pk)_(?:test|live)_\w|whsk_\w|_client_\w`)

// FuzzErrorDecode: any answer gives an error that is refused only for listed
// codes of a 4xx, shows no secret, and prints in one line.
func FuzzErrorDecode(f *testing.F) {
	f.Add(400, "", []byte(errorsBody("resource_failed_state", "insufficient_funds")))
	f.Add(401, "", []byte(`{"errors":[{"code":"api_key_invalid","detail":"sk_test_abc"}]}`))
	f.Add(429, "17", []byte("Too many requests, please try again later."))
	f.Add(502, "Thu, 05 Nov 2026 08:00:10 GMT", []byte("<html>"))
	f.Add(404, "-1", []byte(`{"errors":[null,{"code":[]},{"source":7}]}`))
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		e := checkResponse("op", status, http.Header{"Retry-After": {retryAfter}}, body, time.Unix(goldenTime, 0))
		if e == nil {
			if status < 200 || status > 299 {
				t.Fatalf("%d is no error", status)
			}
			return
		}
		v, reason := VerdictOf(e)
		switch v {
		case VerdictUnknown:
		case VerdictRefused:
			if status < 400 || status > 499 || status == 429 || status == 409 || status == 408 || len(e.Errors) == 0 {
				t.Fatalf("%d is refused (%s)", status, reason)
			}
			for _, item := range e.Errors {
				if m := errorCodes[item.Code]; m != nothingDone && m != declined {
					t.Fatalf("%q counts as refused", item.Code)
				}
				if item.SubCode != "" && declineCodes[item.SubCode] != nothingDone {
					t.Fatalf("%q counts as refused", item.SubCode)
				}
			}
		default:
			t.Fatalf("verdict %q", v)
		}
		text := e.Error()
		if strings.ContainsAny(text, "\n\r\x00") || secretLike.MatchString(text) || secretLike.Match(e.Body) {
			t.Fatalf("prints as %q with body %q", text, e.Body)
		}
		if len(e.Body) > 2*maxErrorBody || len(e.Detail) > 2*maxDetail || e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
			t.Fatalf("not bounded: %+v", e)
		}
	})
}

// FuzzPaymentIntentDecode: what is read has an id, a status and no null among
// its payments, and is read again the same from what it encodes to.
func FuzzPaymentIntentDecode(f *testing.F) {
	f.Add(fixture(f, "payment_intent_succeeded.json"))
	f.Add(fixture(f, "payment_intent_failed.json"))
	f.Add([]byte(intentAnswer))
	f.Add([]byte(`{"id":"pi_1","status":"x","amount":1e2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p PaymentIntent
		if err := p.UnmarshalJSON(data); err != nil {
			return
		}
		if p.ID == "" || p.Status == "" {
			t.Fatalf("read as %+v", p)
		}
		_, _, _ = p.PaidPayment(), p.LatestPayment(), p.FailedSince(time.Unix(0, 0))
		encoded, err := json.Marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		var again PaymentIntent
		if err := json.Unmarshal(encoded, &again); err != nil {
			t.Fatalf("%v in %s", err, encoded)
		}
		if again.ID != p.ID || again.Amount != p.Amount || again.Status != p.Status || len(again.Payments) != len(p.Payments) || !again.CreatedAt.Equal(p.CreatedAt.Time) {
			t.Fatalf("read %+v, and again as %+v", p, again)
		}
	})
}
