package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
)

// answering is a PayMongo that answers every request with the same bytes. It is
// behind the real client and in front of no network, whose goroutines would make
// the fuzzer see something new in every run.
type answering struct {
	status int
	body   []byte
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	return &http.Response{
		StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}},
		ContentLength: int64(len(a.body)), Body: io.NopCloser(bytes.NewReader(a.body)), Request: r,
	}, nil
}

// said is every plain value of a document under its name, as any reader that
// knows nothing of envelopes finds them.
func said(body []byte) map[string]bool {
	found := map[string]bool{}
	var document any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if decoder.Decode(&document) != nil {
		return found
	}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				walk(strings.ToLower(strings.ToUpper(key)), value)
			}
		case []any:
			for _, value := range v {
				walk(name, value)
			}
		default:
			found[fmt.Sprintf("%s=%v", name, v)] = true
		}
	}
	walk("", document)
	return found
}

// FuzzGateway: whatever PayMongo answers, nothing counts as paid that the answer
// does not call paid, nothing as refused that is not a complaint about the
// request, and what comes out can be stored.
func FuzzGateway(f *testing.F) {
	const paid = `{"data":{"id":"pi_1","type":"payment_intent","attributes":{"amount":49900,"currency":"PHP","status":"succeeded","livemode":false,` +
		`"payments":[{"id":"pay_1","type":"payment","attributes":{"amount":49900,"currency":"PHP","status":"paid","livemode":false}}]}}}`
	failed := strings.NewReplacer("succeeded", "awaiting_payment_method", `"paid"`, `"failed","failed_code":"insufficient_funds"`).Replace(paid)
	for _, body := range []string{
		paid, failed,
		strings.Replace(paid, "49900", "49901", 1), strings.ReplaceAll(paid, "49900", "4.99e4"), strings.ReplaceAll(paid, "false", "true"),
		strings.Replace(paid, "pay_1", `pay_\u0000`, 1), strings.Replace(failed, "insufficient_funds", `\u0000`, 1),
		strings.Replace(paid, "succeeded", `\u0000`, 1), strings.Replace(paid, `"PHP"`, `"\u0000"`, 2), strings.Replace(paid, "pi_1", `pi_\u0000`, 1),
		strings.Replace(paid, `"status":"succeeded"`, `"status":"awaiting_next_action","next_action":{"type":"redirect","redirect":{"url":"https://bank.example/\u0000"}}`, 1),
		strings.Replace(paid, `"paid"`, `"pending"`, 1), paid[:len(paid)-20], paid + paid, `{"data":null}`, `[]`, "", "<html>",
		`{"errors":[{"code":"resource_failed_state","sub_code":"insufficient_funds"}]}`, `{"errors":[{"code":"resource_failed_state","sub_code":"new"}]}`,
		`{"errors":[{"code":"resource_not_found"}]}`, `{"errors":[{"code":"resource_succeeded_state"}]}`, `{"errors":[{}]}`, `{"errors":[]}`,
	} {
		for _, status := range []int{200, 400, 500} {
			f.Add(status, []byte(body))
		}
	}
	for _, status := range []int{201, 202, 204, 301, 401, 402, 403, 404, 408, 409, 429, 503} {
		f.Add(status, []byte(paid))
		f.Add(status, []byte(`{"errors":[{"code":"resource_not_found"}]}`))
	}
	provider := &answering{}
	client, err := paymongo.NewClient("sk_test_fuzz", paymongo.WithTransport(provider), paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		f.Fatal(err)
	}
	gateway := NewPayMongo(client)
	price := billing.Money{Minor: 49900, Currency: billing.CurrencyPHP}
	now := time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			t.Skip("no such status")
		}
		provider.status, provider.body = status, body
		standing := billing.Standing{
			InvoiceOpen: true, IntentState: billing.IntentReady, ProviderIntentID: "pi_1", Amount: price, Attempted: true,
			Open: &billing.OpenAttempt{ID: uuid.New(), SettledAfter: now.Add(time.Hour)},
		}
		words := said(body)
		success := status >= 200 && status <= 299
		checkIntent := func(what string, seen billing.ProviderIntent, j billing.Judgement) {
			t.Helper()
			if !success {
				t.Fatalf("%s: an intent of a %d", what, status)
			}
			if j.Ruling == billing.Paid && !(words["status=succeeded"] && words["status=paid"] && words["amount=49900"] && words["currency=PHP"]) {
				t.Fatalf("%s: paid by %q", what, body)
			}
			if j.Ruling == billing.Declined && !words["status=failed"] {
				t.Fatalf("%s: declined by %q", what, body)
			}
			texts := []string{seen.ID, string(seen.Status), string(seen.Amount.Currency), seen.ActionURL, j.Reason}
			for _, p := range seen.Payments {
				texts = append(texts, p.ID, p.Status, string(p.FailedCode), string(p.Amount.Currency))
				if p.ID == "" || p.Status == "" {
					t.Fatalf("%s: a payment without an id or a status: %+v", what, p)
				}
			}
			for _, text := range texts {
				if strings.ContainsRune(text, 0) || !utf8.ValidString(text) || len(text) > 4096 {
					t.Fatalf("%s: %q cannot be stored", what, text)
				}
			}
		}
		checkError := func(what string, err error) {
			t.Helper()
			var e *GatewayError
			if !errors.As(err, &e) {
				t.Fatalf("%s: %v is no GatewayError", what, err)
			}
			if e.Refused && (status < 400 || status > 499 || !words["code=resource_not_found"] && !strings.Contains(string(body), "errors")) {
				t.Fatalf("%s: %d %q counts as refused", what, status, body)
			}
			if e.Fault != (status == 401 || status == 403) && !success {
				t.Fatalf("%s: %d has fault %t", what, status, e.Fault)
			}
			if strings.ContainsAny(e.Error(), "\x00\n") {
				t.Fatalf("%s: %q cannot be logged and stored", what, e.Error())
			}
		}

		client.HoldUntil(time.Time{}) // by a 429
		created, err := gateway.Create(t.Context(), CreateRequest{Amount: price, Key: "key"})
		if err != nil {
			checkError("create", err)
		} else {
			checkIntent("create", created, billing.Judgement{})
			if err := (billing.Standing{Amount: price}).Check(created); err == nil && tidy(created.ID) == "" {
				t.Fatalf("create: the intent %q was taken", created.ID)
			}
		}

		client.HoldUntil(time.Time{})
		seen, err := gateway.Retrieve(t.Context(), "pi_1")
		if err != nil {
			checkError("retrieve", err)
		} else {
			j := standing.Judge(seen, now)
			checkIntent("retrieve", seen, j)
			if j.Ruling == billing.Free || j.Ruling == billing.NoEffect {
				t.Fatalf("retrieve: %s while an attach is open: %q", j.Ruling, body)
			}
		}

		client.HoldUntil(time.Time{})
		answer := gateway.Attach(t.Context(), billing.Armed{ProviderIntentID: "pi_1", ProviderCardID: "pm_1"}, time.Now().Add(time.Minute))
		j := standing.Settle(answer, now)
		switch answer.Kind {
		case billing.AnswerIntent:
			checkIntent("attach", answer.Intent, j)
		case billing.AnswerUnknown:
			if j.Ruling != billing.Unknown {
				t.Fatalf("attach: an unknown answer is %s", j.Ruling)
			}
		case billing.AnswerNeverSent:
			t.Fatalf("attach: %d %q was answered and counts as never sent: %s", status, body, answer.Reason)
		default: // refused in one way or another
			if status < 400 || status > 499 || status == 408 || status == 409 || status == 429 || !json.Valid(body) {
				t.Fatalf("attach: %d %q is %s", status, body, answer.Kind)
			}
		}
		if strings.ContainsRune(answer.Reason+string(answer.Code)+j.Reason, 0) {
			t.Fatalf("attach: %+v cannot be stored", answer)
		}
	})
}
