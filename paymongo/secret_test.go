package paymongo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The secrets that must not appear anywhere. Each is a part that has no innocent look-alike.
const (
	secretKey     = "5EcReTkEyOfTheTests"
	secretClient  = "cLiEnTpArTsEcReT"
	secretWebhook = "wHsKpArTsEcReT"
	secretCard    = "4343434343434345"
	secretCVC     = "cVcOfTheTests"
)

var allSecrets = []string{secretKey, secretClient, secretWebhook, secretCard, secretCVC,
	"RWNSZVRrRXlPZlRoZVRlc3Rz", // of the key, in base64
}

func checkHidden(t *testing.T, how, text string) {
	t.Helper()
	for _, s := range allSecrets {
		if strings.Contains(text, s) {
			t.Errorf("%s shows %s: %s", how, s, text)
		}
		// %x and %v of bytes show a secret in other digits.
		if strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", s)) || strings.Contains(text, strings.Trim(fmt.Sprint([]byte(s)), "[]")) {
			t.Errorf("%s shows %s as bytes: %s", how, s, text)
		}
	}
}

// checkPrints looks at every way in which a value ends up in a log.
func checkPrints(t *testing.T, what string, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
		checkHidden(t, what+" with "+verb, fmt.Sprintf(verb, v))
		checkHidden(t, what+" in a slice with "+verb, fmt.Sprintf(verb, []any{v}))
		checkHidden(t, what+" in a field with "+verb, fmt.Sprintf(verb, struct{ F any }{v}))
		if !strings.HasSuffix(what, "Event") { // whose Raw is bytes for everyone to read
			checkHidden(t, what+" in a hidden field with "+verb, fmt.Sprintf(verb, struct{ f any }{v}))
		}
	}
	if data, err := json.Marshal(v); err == nil {
		checkHidden(t, what+" as JSON", string(data))
	}
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("m", "v", v, slog.Group("g", "v", v))
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", "v", v, slog.Group("g", "v", v))
	checkHidden(t, what+" in slog", buf.String())
	func() {
		defer func() { checkHidden(t, what+" in a panic", fmt.Sprint(recover())) }()
		panic(v)
	}()
	if err, ok := v.(error); ok {
		checkHidden(t, what+" as an error", err.Error())
		for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
			checkHidden(t, what+" unwrapped", inner.Error())
			checkHidden(t, what+" unwrapped", fmt.Sprintf("%#v", inner))
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	secrets, err := NewWebhookSecrets("whsk_"+secretWebhook, "whsk_old"+secretWebhook)
	if err != nil {
		t.Fatal(err)
	}
	client := newTestClient(t, testKey)
	request, err := client.NewRequest(t.Context(), http.MethodPost, "payment_methods?client_key=pi_1_client_"+secretClient,
		Attributes(map[string]string{"card_number": secretCard, "cvc": secretCVC}))
	if err != nil {
		t.Fatal(err)
	}
	var (
		intent   PaymentIntent
		method   PaymentMethod
		webhook  Webhook
		checkout CheckoutSession
	)
	checkoutJSON := `{"id":"cs_1","type":"checkout_session","attributes":{"status":"active","client_key":"cs_1_client_` + secretClient +
		`","checkout_url":"https://checkout.paymongo.com/cs_1_client_` + secretClient + `"}}`
	for _, in := range []struct {
		into json.Unmarshaler
		data string
	}{
		{&intent, `{"id":"pi_1","type":"payment_intent","attributes":{"status":"processing","client_key":"pi_1_client_` + secretClient + `"}}`},
		{&method, `{"id":"pm_1","type":"payment_method","attributes":{"type":"card","details":{"last4":"4345","cvc":"` + secretCVC + `"}}}`},
		{&webhook, `{"id":"hook_1","type":"webhook","attributes":{"secret_key":"whsk_` + secretWebhook + `"}}`},
		{&checkout, checkoutJSON},
	} {
		if err := in.into.UnmarshalJSON([]byte(in.data)); err != nil {
			t.Fatal(err)
		}
	}
	event, err := ParseEvent([]byte(`{"data":{"id":"evt_1","type":"event","attributes":{"type":"checkout_session.payment.paid","data":` + checkoutJSON + `}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if event.Resource == nil || !strings.Contains(string(event.Raw), secretClient) {
		t.Fatal("the event does not hold what it should")
	}
	card := CardDetails{Number: NewSecret(secretCard), CVC: NewSecret(secretCVC)}
	for what, v := range map[string]any{
		"Secret":         NewSecret(secretCard),
		"*Secret":        ptr(NewSecret(secretCard)),
		"WebhookSecrets": secrets, "*WebhookSecrets": &secrets,
		"*Client": client,
		"Request": *request, "*Request": request,
		"CardDetails": card, "*CardDetails": &card,
		"PaymentMethodCreateParams":    PaymentMethodCreateParams{Type: "card", Details: &card},
		"PaymentMethodUpdateCVCParams": PaymentMethodUpdateCVCParams{CVC: NewSecret(secretCVC)},
		"PaymentIntentAttachParams":    PaymentIntentAttachParams{ClientKey: NewSecret(secretClient)},
		"PaymentIntentRetrieveParams":  PaymentIntentRetrieveParams{ClientKey: NewSecret(secretClient)},
		"PaymentIntent":                intent, "*PaymentIntent": &intent,
		"PaymentMethod": method, "*PaymentMethod": &method,
		"Webhook": webhook, "*Webhook": &webhook,
		"CheckoutSession": checkout, "*CheckoutSession": &checkout,
		"Event": *event, "*Event": event,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			checkPrints(t, what, v)
		})
	}
	if intent.ClientKey.Reveal() != "pi_1_client_"+secretClient || method.Details.CVC.Reveal() != secretCVC ||
		webhook.SecretKey.Reveal() != "whsk_"+secretWebhook || !strings.HasSuffix(checkout.CheckoutURL.Reveal(), secretClient) {
		t.Error("Reveal does not give the value")
	}
}

func TestErrorsHideSecrets(t *testing.T) {
	t.Parallel()
	echo := `"` + testKey + ` Basic c2tfdGVzdF81RWNSZVRrRXlPZlRoZVRlc3RzOg== pi_1_client_` + secretClient + ` whsk_` + secretWebhook + ` ` + secretCard + `"`
	urlError := &url.Error{Op: "Post", URL: "https://api.paymongo.com/v1/payment_intents/pi_1?client_key=pi_1_client_" + secretClient, Err: errors.New("reset")}
	for name, rt := range map[string]http.RoundTripper{
		"ErrorsBody":     answering(401, `{"errors":[{"code":"api_key_invalid","detail":`+echo+`,"source":{"pointer":`+echo+`}}]}`),
		"HTML":           answering(502, "<html>"+echo),
		"OtherResource":  answering(200, `{"data":{"id":"pi_1","type":`+echo+`,"attributes":{}}}`),
		"Plain":          answering(429, echo),
		"Timestamp":      answering(200, strings.Replace(intentAnswer, `"amount"`, `"created_at":"`+testKey+`","amount"`, 1)),
		"TransportError": failing(errors.New(echo)),
		"URLError":       failing(urlError),
		"URLErrorUnsent": roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("proxy: %w", urlError) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, testKey, WithTransport(rt), once, WithObserver(func(_ context.Context, e Exchange) {
				checkPrints(t, "Exchange", e)
			}))
			err := attach(t.Context(), c, "")
			if err == nil {
				t.Fatal("no error")
			}
			checkPrints(t, "error", err)
			checkPrints(t, "wrapped error", fmt.Errorf("charge: %w", err))
			var e *Error
			if errors.As(err, &e) {
				checkPrints(t, "Error by value", *e)
				checkHidden(t, "Body", string(e.Body))
				if strings.Contains(string(e.Body), secretClient) || len(e.Body) == 0 {
					t.Errorf("body is %q", e.Body)
				}
			}
			c.HoldUntil(time.Time{}) // by the 429
			_, err = c.PaymentIntents.Retrieve(t.Context(), "pi_1", &PaymentIntentRetrieveParams{ClientKey: NewSecret("pi_1_client_" + secretClient)})
			checkPrints(t, "error of retrieve", err)
		})
	}
	t.Run("ErrorAcrossTheCut", func(t *testing.T) {
		t.Parallel()
		for n := range 64 {
			body := strings.Repeat("x", maxErrorBody-n) + " " + testKey
			checkHidden(t, "a cut body", string(checkResponse("op", 500, http.Header{}, []byte(body), time.Now()).Body))
		}
	})
	t.Run("KeyThatIsNone", func(t *testing.T) {
		t.Parallel()
		for _, key := range []string{"", " ", secretKey, "sk_" + secretKey, "whsk_test_" + secretKey, "sk_prod_" + secretKey, testKey + "\n" + testKey, testKey + ":", "xsk_test_1"} {
			_, err := NewClient(key)
			if err == nil {
				t.Errorf("%q was taken for a key", key)
				continue
			}
			checkPrints(t, "error", err)
		}
	})
	t.Run("MarshalFailure", func(t *testing.T) {
		t.Parallel()
		_, err := newTestClient(t, testKey).NewRequest(t.Context(), http.MethodPost, "customers", Attributes(make(chan int)))
		checkVerdict(t, "NewRequest", err, VerdictNeverSent, reasonBadParams)
	})
}

func TestSecret(t *testing.T) {
	t.Parallel()
	var s Secret
	if !s.IsZero() || s.Reveal() != "" || s.String() != "***" || !s.Equal(NewSecret("")) {
		t.Error("the zero Secret is not empty")
	}
	if err := json.Unmarshal([]byte(`"a"`), &s); err != nil || s.Reveal() != "a" || s.IsZero() {
		t.Errorf("got %q, %v", s.Reveal(), err)
	}
	if err := json.Unmarshal([]byte(`null`), &s); err != nil || !s.IsZero() {
		t.Errorf("null gives %q, %v", s.Reveal(), err)
	}
	if err := json.Unmarshal([]byte(`7`), &s); err == nil {
		t.Error("a number was taken for a secret")
	}
	if err := s.UnmarshalText([]byte("b")); err != nil || !s.Equal(NewSecret("b")) || s.Equal(NewSecret("c")) {
		t.Errorf("got %q, %v", s.Reveal(), err)
	}
	if text, err := s.MarshalText(); string(text) != "***" || err != nil {
		t.Errorf("text %s, %v", text, err)
	}
	if data, err := json.Marshal(map[string]any{"s": s, "p": &s}); string(data) != `{"p":"***","s":"***"}` || err != nil {
		t.Errorf("JSON %s, %v", data, err)
	}
}

func ptr[T any](v T) *T { return &v }
