package paymongo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	customerAnswer = `{"data":{"id":"cus_1","type":"customer","attributes":{"first_name":"Ana"}}}`
	methodAnswer   = `{"data":{"id":"pm_1","type":"payment_method","attributes":{"type":"card"}}}`
	paymentAnswer  = `{"data":{"id":"pay_1","type":"payment","attributes":{"amount":100,"status":"paid"}}}`
	refundAnswer   = `{"data":{"id":"ref_1","type":"refund","attributes":{"amount":100,"status":"pending"}}}`
	webhookAnswer  = `{"data":{"id":"hook_1","type":"webhook","attributes":{"status":"enabled"}}}`
	sessionAnswer  = `{"data":{"id":"cs_1","type":"checkout_session","attributes":{"status":"active"}}}`
	emptyList      = `{"data":[],"has_more":false}`
	noAttributes   = `{"data":{"attributes":{}}}`
)

// TestRequests says what every method sends.
func TestRequests(t *testing.T) {
	t.Parallel()
	page := &ListParams{Limit: 5, After: "pay_1", Before: "pay_2"}
	billing := &Billing{Name: "Ana", Address: &Address{Line1: "1 Ayala Ave", Country: "PH"}}
	card := &CardDetails{Number: NewSecret("4343434343434345"), ExpMonth: 12, ExpYear: 2030, CVC: NewSecret("123")}

	for _, tt := range []struct {
		op     string // the name of the subtest, and what the observer is told
		method string
		target string // below the base URL, with the query
		body   string // without "data.attributes", none for a request without a body
		answer string
		opts   []Option
		call   func(context.Context, *Client, string) (any, error)
	}{
		{op: "checkout_sessions.create", method: "POST", target: "/checkout_sessions", answer: sessionAnswer,
			body: `{"line_items":[{"name":"Gold","amount":49900,"currency":"PHP","quantity":1}],"payment_method_types":["card"],"success_url":"https://e.example/y","cancel_url":"https://e.example/n","description":"d","reference_number":"r","billing":{"name":"Ana","address":{"line1":"1 Ayala Ave","country":"PH"}},"send_email_receipt":true,"show_description":false,"show_line_items":true,"metadata":{"k":"v"}}`,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.CheckoutSessions.Create(ctx, &CheckoutSessionCreateParams{
					LineItems:          []LineItem{{Name: "Gold", Amount: 49900, Currency: "PHP", Quantity: 1}},
					PaymentMethodTypes: []string{"card"}, SuccessURL: "https://e.example/y", CancelURL: "https://e.example/n",
					Description: "d", ReferenceNumber: "r", Billing: billing, SendEmailReceipt: true, ShowLineItems: true,
					Metadata: Metadata{"k": "v"}, IdempotencyKey: key,
				})
			}},
		{op: "checkout_sessions.expire", method: "POST", target: "/checkout_sessions/cs_1/expire", body: `{}`, answer: sessionAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.CheckoutSessions.Expire(ctx, "cs_1", &CheckoutSessionExpireParams{IdempotencyKey: key})
			}},
		{op: "checkout_sessions.retrieve", method: "GET", target: "/checkout_sessions/cs_1", answer: sessionAnswer,
			call: func(ctx context.Context, c *Client, _ string) (any, error) {
				return c.CheckoutSessions.Retrieve(ctx, "cs_1")
			}},

		{op: "customers.create", method: "POST", target: "/customers", answer: customerAnswer,
			body: `{"first_name":"Ana","last_name":"Cruz","email":"ana@example.com","phone":"+639171234567","default_device":"email","metadata":{"k":"v"}}`,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.Customers.Create(ctx, &CustomerCreateParams{FirstName: "Ana", LastName: "Cruz", Email: "ana@example.com",
					Phone: "+639171234567", DefaultDevice: "email", Metadata: Metadata{"k": "v"}, IdempotencyKey: key})
			}},
		{op: "customers.delete", method: "DELETE", target: "/customers/cus_1", answer: `{"data":{"id":"cus_1","type":"deleted_entity","attributes":{"deleted":true}}}`,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Customers.Delete(ctx, "cus_1") }},
		{op: "customers.delete_payment_method", method: "DELETE", target: "/customers/cus_1/payment_methods/pm_1", answer: `{"data":null}`,
			call: func(ctx context.Context, c *Client, _ string) (any, error) {
				return c.Customers.DeletePaymentMethod(ctx, "cus_1", "pm_1")
			}},
		{op: "customers.list_payment_methods", method: "GET", target: "/customers/cus_1/payment_methods?after=pay_1&before=pay_2&limit=5", answer: emptyList,
			call: func(ctx context.Context, c *Client, _ string) (any, error) {
				return c.Customers.ListPaymentMethods(ctx, "cus_1", page)
			}},
		{op: "customers.retrieve", method: "GET", target: "/customers/cus_1", answer: customerAnswer,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Customers.Retrieve(ctx, "cus_1") }},
		{op: "customers.search", method: "GET", target: "/customers?email=ana%2Bx%40example.com&limit=5&phone=%2B639171234567", answer: emptyList,
			call: func(ctx context.Context, c *Client, _ string) (any, error) {
				return c.Customers.Search(ctx, &CustomerSearchParams{Email: "ana+x@example.com", Phone: "+639171234567", Limit: 5})
			}},
		{op: "customers.update", method: "PATCH", target: "/customers/cus_1", body: `{"default_payment_method_id":"pm_1"}`, answer: customerAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.Customers.Update(ctx, "cus_1", &CustomerUpdateParams{DefaultPaymentMethodID: "pm_1", IdempotencyKey: key})
			}},

		{op: "payment_intents.attach", method: "POST", target: "/payment_intents/pi_1/attach", answer: intentAnswer,
			body: `{"payment_method":"pm_1","return_url":"https://e.example/back?a=1&b=2","client_key":"pi_1_client_x","payment_method_options":{"card":{"request_three_d_secure":"any"}}}`,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.PaymentIntents.Attach(ctx, "pi_1", &PaymentIntentAttachParams{PaymentMethod: "pm_1", ReturnURL: "https://e.example/back?a=1&b=2",
					ClientKey: NewSecret("pi_1_client_x"), PaymentMethodOptions: &PaymentMethodOptions{Card: &CardOptions{RequestThreeDSecure: "any"}},
					SendBefore: time.Now().Add(time.Hour), IdempotencyKey: key})
			}},
		{op: "payment_intents.cancel", method: "POST", target: "/payment_intents/pi_1/cancel", body: `{}`, answer: intentAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.PaymentIntents.Cancel(ctx, "pi_1", &PaymentIntentCancelParams{IdempotencyKey: key})
			}},
		{op: "payment_intents.capture", method: "POST", target: "/payment_intents/pi_1/capture", body: `{"amount":100}`, answer: intentAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.PaymentIntents.Capture(ctx, "pi_1", &PaymentIntentCaptureParams{Amount: 100, IdempotencyKey: key})
			}},
		{op: "payment_intents.create", method: "POST", target: "/payment_intents", answer: intentAnswer,
			body: `{"amount":2000,"currency":"PHP","payment_method_allowed":["card"],"payment_method_options":{"card":{"request_three_d_secure":"automatic"}},"description":"d","statement_descriptor":"s","capture_type":"manual","setup_future_usage":{"session_type":"off_session","customer_id":"cus_1"},"metadata":{"k":"v"}}`,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.PaymentIntents.Create(ctx, &PaymentIntentCreateParams{Amount: 2000, PaymentMethodAllowed: []string{"card"},
					PaymentMethodOptions: &PaymentMethodOptions{Card: &CardOptions{RequestThreeDSecure: "automatic"}}, Description: "d", StatementDescriptor: "s",
					CaptureType: CaptureTypeManual, SetupFutureUsage: &SetupFutureUsage{SessionType: SessionTypeOffSession, CustomerID: "cus_1"},
					Metadata: map[string]string{"k": "v"}, IdempotencyKey: key})
			}},
		{op: "payment_intents.retrieve", method: "GET", target: "/payment_intents/pi_1?client_key=pi_1_client_x", answer: intentAnswer,
			call: func(ctx context.Context, c *Client, _ string) (any, error) {
				return c.PaymentIntents.Retrieve(ctx, "pi_1", &PaymentIntentRetrieveParams{ClientKey: NewSecret("pi_1_client_x")})
			}},

		{op: "payment_methods.create", method: "POST", target: "/payment_methods", answer: methodAnswer,
			body: `{"type":"card","details":{"card_number":"4343434343434345","exp_month":12,"exp_year":2030,"cvc":"123"},"billing":{"name":"Ana","address":{"line1":"1 Ayala Ave","country":"PH"}},"metadata":{"k":"v"}}`,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.PaymentMethods.Create(ctx, &PaymentMethodCreateParams{Type: "card", Details: card, Billing: billing, Metadata: Metadata{"k": "v"}, IdempotencyKey: key})
			}},
		{op: "payment_methods.retrieve", method: "GET", target: "/payment_methods/pm_1", answer: methodAnswer,
			call: func(ctx context.Context, c *Client, _ string) (any, error) {
				return c.PaymentMethods.Retrieve(ctx, "pm_1")
			}},
		{op: "payment_methods.update_cvc", method: "PATCH", target: "/payment_methods/pm_1", body: `{"details":{"card":{"cvc":"123"}}}`, answer: methodAnswer, call: updateCVC},
		{op: "payment_methods.update_cvc", method: "PUT", target: "/payment_methods/pm_1", body: `{"details":{"card":{"cvc":"123"}}}`, answer: methodAnswer, call: updateCVC,
			opts: []Option{WithPaymentMethodUpdate(UpdatePutCard)}},
		{op: "payment_methods.update_cvc", method: "PATCH", target: "/payment_methods/pm_1", body: `{"details":{"cvc":"123"}}`, answer: methodAnswer, call: updateCVC,
			opts: []Option{WithPaymentMethodUpdate(UpdatePatchDetails)}},
		{op: "payment_methods.update_cvc", method: "PUT", target: "/payment_methods/pm_1", body: `{"details":{"cvc":"123"}}`, answer: methodAnswer, call: updateCVC,
			opts: []Option{WithPaymentMethodUpdate(UpdatePutDetails)}},

		{op: "payments.list", method: "GET", target: "/payments?after=pay_1&before=pay_2&limit=5", answer: emptyList,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Payments.List(ctx, page) }},
		{op: "payments.retrieve", method: "GET", target: "/payments/pay_1", answer: paymentAnswer,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Payments.Retrieve(ctx, "pay_1") }},

		{op: "refunds.create", method: "POST", target: "/refunds", answer: refundAnswer,
			body: `{"amount":100,"payment_id":"pay_1","reason":"duplicate","notes":"n","metadata":{"k":"v"}}`,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.Refunds.Create(ctx, &RefundCreateParams{Amount: 100, PaymentID: "pay_1", Reason: RefundReasonDuplicate, Notes: "n", Metadata: Metadata{"k": "v"}, IdempotencyKey: key})
			}},
		{op: "refunds.list", method: "GET", target: "/refunds", answer: emptyList,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Refunds.List(ctx, nil) }},
		{op: "refunds.retrieve", method: "GET", target: "/refunds/ref_1", answer: refundAnswer,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Refunds.Retrieve(ctx, "ref_1") }},

		{op: "webhooks.create", method: "POST", target: "/webhooks", body: `{"url":"https://e.example/h","events":["payment.paid"]}`, answer: webhookAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.Webhooks.Create(ctx, &WebhookCreateParams{URL: "https://e.example/h", Events: []EventType{EventPaymentPaid}, IdempotencyKey: key})
			}},
		{op: "webhooks.disable", method: "POST", target: "/webhooks/hook_1/disable", body: `{}`, answer: webhookAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.Webhooks.Disable(ctx, "hook_1", &WebhookDisableParams{IdempotencyKey: key})
			}},
		{op: "webhooks.enable", method: "POST", target: "/webhooks/hook_1/enable", body: `{}`, answer: webhookAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.Webhooks.Enable(ctx, "hook_1", &WebhookEnableParams{IdempotencyKey: key})
			}},
		{op: "webhooks.list", method: "GET", target: "/webhooks", answer: emptyList,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Webhooks.List(ctx, nil) }},
		{op: "webhooks.retrieve", method: "GET", target: "/webhooks/hook_1", answer: webhookAnswer,
			call: func(ctx context.Context, c *Client, _ string) (any, error) { return c.Webhooks.Retrieve(ctx, "hook_1") }},
		{op: "webhooks.update", method: "PUT", target: "/webhooks/hook_1", body: `{"url":"https://e.example/i"}`, answer: webhookAnswer,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				return c.Webhooks.Update(ctx, "hook_1", &WebhookUpdateParams{URL: "https://e.example/i", IdempotencyKey: key})
			}},

		{op: "custom", method: "POST", target: "/../v2/customers/cus_1/payment_methods", body: `{"a":1}`, answer: `{}`,
			call: func(ctx context.Context, c *Client, key string) (any, error) {
				req, err := c.NewRequest(ctx, http.MethodPost, "../v2/customers/cus_1/payment_methods", Attributes(map[string]int{"a": 1}))
				if err != nil {
					return nil, err
				}
				req.IdempotencyKey = key
				var out json.RawMessage
				return &out, c.Do(req, &out)
			}},
	} {
		for _, key := range []string{"", "prod/sub-1/2026-11/1"} {
			t.Run(fmt.Sprintf("%s/%s/Key=%v", tt.op, tt.method, key != ""), func(t *testing.T) {
				t.Parallel()
				var observed []Exchange
				opts := append([]Option{WithObserver(func(_ context.Context, e Exchange) { observed = append(observed, e) })}, tt.opts...)
				target := basePath + tt.target
				if v2, ok := strings.CutPrefix(tt.target, "/.."); ok {
					target = "/base" + v2
				}
				seen := 0
				c := newTestClient(t, testKey, append(opts, noLimit, WithBaseURL("https://api.example"+basePath+"/"), WithTransport(roundTripFunc(func(r *http.Request) (*http.Response, error) {
					seen++
					checkRequest(t, r, tt.method, target, tt.body, key)
					return response(r, 200, tt.answer), nil
				})))...)
				got, err := tt.call(t.Context(), c, key)
				if err != nil || got == nil || seen != 1 {
					t.Fatalf("got %v, %v after %d requests", got, err, seen)
				}
				if len(observed) != 1 || observed[0].Op != tt.op || observed[0].Method != tt.method || observed[0].Attempt != 1 ||
					observed[0].StatusCode != 200 || observed[0].Err != nil || observed[0].Duration < 0 {
					t.Errorf("observed %+v", observed)
				}
			})
		}
	}
}

func updateCVC(ctx context.Context, c *Client, key string) (any, error) {
	return c.PaymentMethods.UpdateCVC(ctx, "pm_1", &PaymentMethodUpdateCVCParams{CVC: NewSecret("123"), IdempotencyKey: key})
}

func checkRequest(t *testing.T, r *http.Request, method, target, attributes, key string) {
	t.Helper()
	if r.Method != method || r.URL.RequestURI() != target || r.Host != "api.example" || r.URL.Scheme != "https" {
		t.Errorf("sent %s %s to %s, want %s %s", r.Method, r.URL.RequestURI(), r.Host, method, target)
	}
	want := http.Header{
		"Accept":        {"application/json"},
		"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(testKey+":"))},
		"User-Agent":    {defaultUserAgent},
	}
	if attributes == "" {
		if r.Body != nil || r.ContentLength != 0 {
			t.Errorf("a body of %d bytes where none should be", r.ContentLength)
		}
	} else {
		want.Set("Content-Type", "application/json")
		if key != "" {
			want.Set("Idempotency-Key", key)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || int64(len(body)) != r.ContentLength || r.GetBody != nil || len(r.TransferEncoding) != 0 {
			t.Errorf("body of %d bytes, %v, with length %d, GetBody %v", len(body), err, r.ContentLength, r.GetBody != nil)
		}
		wantBody := `{"data":{"attributes":` + attributes + `}}`
		if diff := cmp.Diff(decodeAny(t, []byte(wantBody)), decodeAny(t, body)); diff != "" {
			t.Errorf("body -want +got\n%s", diff)
		}
	}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Errorf("header -want +got\n%s", diff)
	}
}

// TestRefusedBeforeSending has calls that must not reach the transport.
func TestRefusedBeforeSending(t *testing.T) {
	t.Parallel()
	c := inMemory(t, untouchable(t))
	ctx := t.Context()
	check := func(name string, call func() error) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkVerdict(t, name, call(), VerdictNeverSent, reasonBadParams)
		})
	}
	ids := map[string]string{
		"Empty": "", "Slash": "pi_1/attach", "Dots": "..", "Question": "pi_1?x=1", "Hash": "pi_1#", "Percent": "pi_1%2fattach",
		"Space": "pi 1", "NewLine": "pi_1\n", "Unicode": "pi_é", "NUL": "pi_\x00", "TooLong": strings.Repeat("a", 129),
	}
	for name, id := range ids {
		calls := map[string]func() error{
			"CheckoutSessionsExpire":      func() error { _, err := c.CheckoutSessions.Expire(ctx, id, nil); return err },
			"CheckoutSessionsRetrieve":    func() error { _, err := c.CheckoutSessions.Retrieve(ctx, id); return err },
			"CustomersDelete":             func() error { _, err := c.Customers.Delete(ctx, id); return err },
			"CustomersDeleteMethod":       func() error { _, err := c.Customers.DeletePaymentMethod(ctx, "cus_1", id); return err },
			"CustomersDeleteMethodOf":     func() error { _, err := c.Customers.DeletePaymentMethod(ctx, id, "pm_1"); return err },
			"CustomersListPaymentMethods": func() error { _, err := c.Customers.ListPaymentMethods(ctx, id, nil); return err },
			"CustomersRetrieve":           func() error { _, err := c.Customers.Retrieve(ctx, id); return err },
			"CustomersUpdate":             func() error { _, err := c.Customers.Update(ctx, id, nil); return err },
			"PaymentIntentsAttach": func() error {
				_, err := c.PaymentIntents.Attach(ctx, id, &PaymentIntentAttachParams{PaymentMethod: "pm_1"})
				return err
			},
			"PaymentIntentsAttachMethod": func() error {
				_, err := c.PaymentIntents.Attach(ctx, "pi_1", &PaymentIntentAttachParams{PaymentMethod: id})
				return err
			},
			"PaymentIntentsCancel":   func() error { _, err := c.PaymentIntents.Cancel(ctx, id, nil); return err },
			"PaymentIntentsCapture":  func() error { _, err := c.PaymentIntents.Capture(ctx, id, nil); return err },
			"PaymentIntentsRetrieve": func() error { _, err := c.PaymentIntents.Retrieve(ctx, id, nil); return err },
			"PaymentMethodsRetrieve": func() error { _, err := c.PaymentMethods.Retrieve(ctx, id); return err },
			"PaymentMethodsUpdateCVC": func() error {
				_, err := c.PaymentMethods.UpdateCVC(ctx, id, &PaymentMethodUpdateCVCParams{CVC: NewSecret("123")})
				return err
			},
			"PaymentsRetrieve": func() error { _, err := c.Payments.Retrieve(ctx, id); return err },
			"RefundsCreate": func() error {
				_, err := c.Refunds.Create(ctx, &RefundCreateParams{Amount: 100, PaymentID: id})
				return err
			},
			"RefundsRetrieve":  func() error { _, err := c.Refunds.Retrieve(ctx, id); return err },
			"WebhooksDisable":  func() error { _, err := c.Webhooks.Disable(ctx, id, nil); return err },
			"WebhooksEnable":   func() error { _, err := c.Webhooks.Enable(ctx, id, nil); return err },
			"WebhooksRetrieve": func() error { _, err := c.Webhooks.Retrieve(ctx, id); return err },
			"WebhooksUpdate":   func() error { _, err := c.Webhooks.Update(ctx, id, nil); return err },
		}
		if id != "" {
			calls["PaymentsListAfter"] = func() error { _, err := c.Payments.List(ctx, &PaymentListParams{After: id}); return err }
		}
		for method, call := range calls {
			check(method+"/ID"+name, call)
		}
	}
	for name, key := range map[string]string{
		"TooLong": strings.Repeat("k", 256), "NewLine": "a\nb", "NUL": "a\x00", "Unicode": "ké", "Space": " a", "Delete": "a\x7f",
	} {
		check("IdempotencyKey"+name, func() error { return attach(ctx, c, key) })
	}
	check("AmountNegative", func() error {
		_, err := c.PaymentIntents.Capture(ctx, "pi_1", &PaymentIntentCaptureParams{Amount: -1})
		return err
	})
	check("AmountZero", func() error {
		_, err := c.PaymentIntents.Create(ctx, &PaymentIntentCreateParams{PaymentMethodAllowed: []string{"card"}})
		return err
	})
	check("CVCEmpty", func() error { _, err := c.PaymentMethods.UpdateCVC(ctx, "pm_1", nil); return err })
	check("CheckoutWithoutItems", func() error { _, err := c.CheckoutSessions.Create(ctx, nil); return err })
	check("CheckoutWithFreeItem", func() error {
		_, err := c.CheckoutSessions.Create(ctx, &CheckoutSessionCreateParams{LineItems: []LineItem{{Name: "a", Quantity: 1}}, PaymentMethodTypes: []string{"card"}})
		return err
	})
	check("LimitNegative", func() error { _, err := c.Payments.List(ctx, &PaymentListParams{Limit: -1}); return err })
	check("LimitTooLarge", func() error {
		_, err := c.Customers.Search(ctx, &CustomerSearchParams{Limit: 101, Email: "a"})
		return err
	})
	check("NilContext", func() error { return retrieve(nil, c) }) //nolint:staticcheck // a nil context is what this is about
	check("NoMethodAllowed", func() error {
		_, err := c.PaymentIntents.Create(ctx, &PaymentIntentCreateParams{Amount: 2000})
		return err
	})
	check("RefundOfNothing", func() error { _, err := c.Refunds.Create(ctx, &RefundCreateParams{PaymentID: "pay_1"}); return err })
	check("TypeEmpty", func() error { _, err := c.PaymentMethods.Create(ctx, nil); return err })
	check("WebhookWithoutEvents", func() error {
		_, err := c.Webhooks.Create(ctx, &WebhookCreateParams{URL: "https://e.example"})
		return err
	})

	for name, path := range map[string]string{
		"Absolute": "https://evil.example/v1/payments", "Dots": "payments/../../x", "DotsTwice": "../../x", "Empty": "", "Escape": "payments/%2e%2e",
		"Fragment": "payments#x", "Host": "//evil.example/x", "LeadingSlash": "/payments", "NewLine": "payments\n", "Query": "payments?a=%zz", "Trailing": "payments/",
	} {
		check("Path"+name, func() error { _, err := c.NewRequest(ctx, http.MethodGet, path, nil); return err })
	}
	check("BodyOfGet", func() error { _, err := c.NewRequest(ctx, http.MethodGet, "payments", Attributes(nil)); return err })
	check("Method", func() error { _, err := c.NewRequest(ctx, "get", "payments", nil); return err })
	check("DoNil", func() error { return c.Do(nil, nil) })
	check("DoOfAnotherClient", func() error {
		req, err := inMemory(t, untouchable(t)).NewRequest(ctx, http.MethodGet, "payments", nil)
		if err != nil {
			return err
		}
		return c.Do(req, nil)
	})
	check("DeleteWithKey", func() error {
		req, err := c.NewRequest(ctx, http.MethodDelete, "customers/cus_1", nil)
		if err != nil {
			return err
		}
		req.IdempotencyKey = "a-key"
		return c.Do(req, nil)
	})
}

// TestPublicKey says what may be done with a public key, and that nothing else is sent.
func TestPublicKey(t *testing.T) {
	t.Parallel()
	clientKey := NewSecret("pi_1_client_x")
	t.Run("Allowed", func(t *testing.T) {
		t.Parallel()
		c, mux := setupKey(t, publicKey)
		mux.HandleFunc("POST /payment_methods", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, methodAnswer) })
		mux.HandleFunc("POST /payment_intents/pi_1/attach", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, intentAnswer) })
		mux.HandleFunc("GET /payment_intents/pi_1", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, intentAnswer) })
		if _, err := c.PaymentMethods.Create(t.Context(), &PaymentMethodCreateParams{Type: "gcash"}); err != nil {
			t.Error(err)
		}
		if _, err := c.PaymentIntents.Retrieve(t.Context(), "pi_1", &PaymentIntentRetrieveParams{ClientKey: clientKey}); err != nil {
			t.Error(err)
		}
		if _, err := c.PaymentIntents.Attach(t.Context(), "pi_1", &PaymentIntentAttachParams{PaymentMethod: "pm_1", ClientKey: clientKey}); err != nil {
			t.Error(err)
		}
	})
	t.Run("Refused", func(t *testing.T) {
		t.Parallel()
		c := newTestClient(t, publicKey, WithTransport(untouchable(t)))
		ctx := t.Context()
		for name, call := range map[string]func() error{
			"AttachWithoutClientKey":   func() error { return attach(ctx, c, "") },
			"CancelIntent":             func() error { return cancelIntent(ctx, c, "") },
			"CreateCustomer":           func() error { _, err := c.Customers.Create(ctx, nil); return err },
			"CreateIntent":             func() error { _, err := c.PaymentIntents.Create(ctx, nil); return err },
			"CreateRefund":             func() error { _, err := c.Refunds.Create(ctx, nil); return err },
			"DeleteCustomer":           func() error { _, err := c.Customers.Delete(ctx, "cus_1"); return err },
			"ListPayments":             func() error { _, err := c.Payments.List(ctx, nil); return err },
			"ListWebhooks":             func() error { _, err := c.Webhooks.List(ctx, nil); return err },
			"RetrieveSession":          func() error { _, err := c.CheckoutSessions.Retrieve(ctx, "cs_1"); return err },
			"RetrieveWithoutClientKey": func() error { return retrieve(ctx, c) },
		} {
			checkVerdict(t, name, call(), VerdictNeverSent, reasonNeedsSecretKey)
		}
	})
}

func TestDeleted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		body   string
		method bool // delete a saved payment method rather than a customer
		ok     bool
	}{
		{"Entity", `{"data":{"type":"deleted_entity","id":"cus_1","attributes":{"deleted":true}}}`, false, true},
		{"EntityOfAnother", `{"data":{"type":"deleted_entity","id":"cus_2","attributes":{"deleted":true}}}`, false, false},
		{"Empty", ``, true, false},
		{"NoData", `{}`, true, false},
		{"Null", `{"data":null}`, true, true},
		{"V2", `{"data":{"customer_id":"cus_1","payment_method_id":"pm_1","deleted_at":1710000001000},"has_more":false}`, true, true},
		{"V2OfAnother", `{"data":{"customer_id":"cus_1","payment_method_id":"pm_2"}}`, true, false},
		{"Wrapper", `{"data":{"type":"deleted_entity","id":"cus_pm_1","attributes":{"deleted":true}}}`, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := inMemory(t, answering(200, tt.body))
			var got *Deleted
			var err error
			want := "cus_1"
			if tt.method {
				want = "pm_1"
				got, err = c.Customers.DeletePaymentMethod(t.Context(), "cus_1", "pm_1")
			} else {
				got, err = c.Customers.Delete(t.Context(), "cus_1")
			}
			if (err == nil) != tt.ok {
				t.Fatalf("got %+v, %v", got, err)
			}
			if tt.ok && (got.ID != want || !got.Deleted) {
				t.Errorf("got %+v", got)
			}
			if err != nil && (NeverSent(err) || Refused(err)) {
				t.Errorf("%v is not unknown", err)
			}
		})
	}
}

// TestV2 reads the newer surface through the escape hatch.
func TestV2(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, testKey, WithTransport(roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.String() != "https://api.paymongo.com/v2/customers/cus_made1/payment_methods?limit=1" {
			t.Errorf("asked %s", r.URL)
		}
		return response(r, 200, string(fixture(t, "customer_payment_methods_v2.json"))), nil
	})))
	req, err := c.NewRequest(t.Context(), http.MethodGet, "../v2/customers/cus_made1/payment_methods?limit=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	var list CustomerPaymentMethodList
	if err := c.Do(req, &list); err != nil {
		t.Fatal(err)
	}
	if !list.HasMore || list.LastEvaluated != "pm_made1" || len(list.Data) != 1 {
		t.Fatalf("got %+v", list)
	}
	m := list.Data[0]
	if m.PaymentMethodID != "pm_made1" || m.CustomerID != "cus_made1" || m.SessionType != SessionTypeOnSession || m.Type != "card" || !m.Livemode ||
		!m.CreatedAt.Equal(time.UnixMilli(1762329600123)) {
		t.Errorf("got %+v", m)
	}
}

func TestDoTwice(t *testing.T) {
	t.Parallel()
	c, mux := setup(t)
	mux.HandleFunc("POST /payment_intents/pi_1/cancel", func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) != noAttributes {
			t.Errorf("body %s", body)
		}
		_, _ = io.WriteString(w, intentAnswer)
	})
	req, err := c.NewRequest(t.Context(), http.MethodPost, "payment_intents/pi_1/cancel", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Op = "payment_intents.cancel_again"
	for range 2 {
		var intent PaymentIntent
		if err := c.Do(req, &intent); err != nil || intent.Status != PaymentIntentStatusSucceeded {
			t.Errorf("got %+v, %v", intent, err)
		}
	}
	if err := c.Do(req, nil); err != nil {
		t.Error(err)
	}
	var wrong int
	checkVerdict(t, "wrong type", c.Do(req, &wrong), VerdictUnknown, reasonUndecodable)
}
