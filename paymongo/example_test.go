package paymongo_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/singil/singil/paymongo"
)

// fakePayMongo answers every request with the next of the given answers. An
// answer with errors[] is a 400.
func fakePayMongo(answers ...string) (client *paymongo.Client, stop func()) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer := answers[0]
		answers = answers[1:]
		w.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(answer, `{"errors"`) {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, answer)
	}))
	client, err := paymongo.NewClient("sk_test_example", paymongo.WithBaseURL(server.URL+"/v1"))
	if err != nil {
		panic(err)
	}
	return client, server.Close
}

func Example() {
	client, stop := fakePayMongo(
		`{"data":{"id":"pi_1","type":"payment_intent","attributes":{"amount":2000,"currency":"PHP","status":"awaiting_payment_method","payments":[]}}}`,
		`{"errors":[{"code":"resource_failed_state","detail":"The card has insufficient funds to complete the purchase.","sub_code":"insufficient_funds"}]}`,
	)
	defer stop()
	ctx := context.Background()

	intent, err := client.PaymentIntents.Create(ctx, &paymongo.PaymentIntentCreateParams{
		Amount:               2000, // centavos: PHP 20.00
		PaymentMethodAllowed: []string{"card"},
		IdempotencyKey:       "prod/sub-1/2026-11/1",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// Store intent.ID before this line: it is the only way back to the payment.
	intent, err = client.PaymentIntents.Attach(ctx, intent.ID, &paymongo.PaymentIntentAttachParams{
		PaymentMethod: "pm_1",
		SendBefore:    time.Now().Add(30 * time.Second),
	})
	switch verdict, reason := paymongo.VerdictOf(err); {
	case err == nil:
		fmt.Println(intent.Status) // succeeded, processing, awaiting_next_action, ...
	case verdict == paymongo.VerdictUnknown:
		fmt.Println("ask with Retrieve before any other attach:", reason)
	default:
		fmt.Println("nothing was charged:", reason)
	}
	// Output: nothing was charged: insufficient_funds
}

func ExampleError() {
	client, stop := fakePayMongo(`{"errors":[{"code":"parameter_below_minimum","detail":"The minimum value for the amount is 2000.","source":{"pointer":"amount","attribute":"amount"}}]}`)
	defer stop()
	_, err := client.PaymentIntents.Create(context.Background(), &paymongo.PaymentIntentCreateParams{Amount: 1, PaymentMethodAllowed: []string{"card"}})

	var e *paymongo.Error
	if errors.As(err, &e) {
		fmt.Println(e.StatusCode, e.Code, e.Field, e.Declined())
	}
	fmt.Println(err)
	// Output:
	// 400 parameter_below_minimum amount false
	// paymongo: payment_intents.create: 400 parameter_below_minimum: The minimum value for the amount is 2000.
}

func ExampleCustomersService() {
	client, stop := fakePayMongo(
		`{"data":{"id":"cus_1","type":"customer","attributes":{"email":"ana@example.com","first_name":"Ana"}}}`,
		`{"has_more":false,"data":[{"id":"cus_pm_1","type":"customer_payment_method","attributes":{"payment_method_id":"pm_1","session_type":"off_session"}}]}`,
	)
	defer stop()
	ctx := context.Background()
	customer, err := client.Customers.Create(ctx, &paymongo.CustomerCreateParams{
		FirstName: "Ana", LastName: "Cruz", Email: "ana@example.com", Phone: "+639171234567", DefaultDevice: "email",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	saved, err := client.Customers.ListPaymentMethods(ctx, customer.ID, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, method := range saved.Data {
		fmt.Println(customer.ID, method.PaymentMethodID, method.SessionType)
	}
	// Output: cus_1 pm_1 off_session
}

func ExamplePaymentMethodsService() {
	client, stop := fakePayMongo(`{"data":{"id":"pm_1","type":"payment_method","attributes":{"type":"card","details":{"last4":"4345","exp_month":12,"exp_year":2030}}}}`)
	defer stop()
	params := &paymongo.PaymentMethodCreateParams{
		Type: "card",
		Details: &paymongo.CardDetails{
			Number: paymongo.NewSecret("4343434343434345"), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
		},
	}
	method, err := client.PaymentMethods.Create(context.Background(), params)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(method.ID, method.Details.Last4, params.Details.Number)
	// Output: pm_1 4345 ***
}

func ExamplePaymentIntentsService_Retrieve() {
	client, stop := fakePayMongo(`{"data":{"id":"pi_1","type":"payment_intent","attributes":{"status":"awaiting_payment_method","payments":[
		{"id":"pay_1","type":"payment","attributes":{"status":"failed","failed_code":"insufficient_funds","created_at":1762329600}}]}}}`)
	defer stop()
	armedAt := time.Unix(1762329599, 0)
	intent, err := client.PaymentIntents.Retrieve(context.Background(), "pi_1", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if paid := intent.PaidPayment(); paid != nil {
		fmt.Println("paid by", paid.ID)
	} else if failed := intent.FailedSince(armedAt); failed != nil {
		fmt.Println(failed.ID, "failed:", failed.FailedCode)
	}
	// Output: pay_1 failed: insufficient_funds
}

func ExamplePaymentsService_All() {
	client, stop := fakePayMongo(
		`{"has_more":true,"data":[{"id":"pay_2","type":"payment","attributes":{"amount":49900,"status":"paid"}}]}`,
		`{"has_more":false,"data":[{"id":"pay_1","type":"payment","attributes":{"amount":2000,"status":"failed"}}]}`,
	)
	defer stop()
	for payment, err := range client.Payments.All(context.Background(), nil) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(payment.ID, payment.Amount, payment.Status)
	}
	// Output:
	// pay_2 49900 paid
	// pay_1 2000 failed
}

func ExampleRefundsService() {
	client, stop := fakePayMongo(`{"data":{"id":"ref_1","type":"refund","attributes":{"amount":2000,"payment_id":"pay_1","status":"pending"}}}`)
	defer stop()
	refund, err := client.Refunds.Create(context.Background(), &paymongo.RefundCreateParams{
		Amount: 2000, PaymentID: "pay_1", Reason: paymongo.RefundReasonDuplicate, IdempotencyKey: "refund/pay_1",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(refund.ID, refund.Status)
	// Output: ref_1 pending
}

func ExampleWebhooksService() {
	client, stop := fakePayMongo(`{"data":{"id":"hook_1","type":"webhook","attributes":{"secret_key":"whsk_1","status":"enabled"}}}`)
	defer stop()
	webhook, err := client.Webhooks.Create(context.Background(), &paymongo.WebhookCreateParams{
		URL:    "https://shop.example/paymongo",
		Events: []paymongo.EventType{paymongo.EventPaymentPaid, paymongo.EventPaymentFailed},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	secrets, err := paymongo.NewWebhookSecrets(webhook.SecretKey.Reveal())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(webhook.ID, webhook.Status, secrets)
	// Output: hook_1 enabled ***
}

func ExampleVerifySignature() {
	secrets, err := paymongo.NewWebhookSecrets("whsk_example")
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 256<<10))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		header := r.Header.Get(paymongo.SignatureHeader)
		err = paymongo.VerifySignature(header, body, secrets, paymongo.ModeTest, time.Now(), 5*time.Minute)
		if err != nil && !errors.Is(err, paymongo.ErrSignatureStale) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		event, err := paymongo.ParseEvent(body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		// Store event.ID, answer, and only then retrieve what the event is about.
		fmt.Println(event.Type, event.ResourceID)
		_, _ = io.WriteString(w, `{"received":true}`)
	}

	body := `{"data":{"id":"evt_1","type":"event","attributes":{"type":"payment.paid","data":{"id":"pay_1","type":"payment","attributes":{"status":"paid"}}}}}`
	signedAt := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, []byte("whsk_example"))
	_, _ = io.WriteString(mac, signedAt+"."+body)
	for _, signature := range []string{hex.EncodeToString(mac.Sum(nil)), "0000000000000000000000000000000000000000000000000000000000000000"} {
		request := httptest.NewRequest(http.MethodPost, "/paymongo", strings.NewReader(body))
		request.Header.Set(paymongo.SignatureHeader, "t="+signedAt+",te="+signature+",li=")
		recorder := httptest.NewRecorder()
		handler(recorder, request)
		fmt.Println(recorder.Code)
	}
	// Output:
	// payment.paid pay_1
	// 200
	// 401
}

func ExampleCheckoutSessionsService() {
	client, stop := fakePayMongo(`{"data":{"id":"cs_1","type":"checkout_session","attributes":{"status":"active","checkout_url":"https://checkout.paymongo.com/cs_1_client_x"}}}`)
	defer stop()
	session, err := client.CheckoutSessions.Create(context.Background(), &paymongo.CheckoutSessionCreateParams{
		LineItems:          []paymongo.LineItem{{Name: "Gold, November", Amount: 49900, Currency: "PHP", Quantity: 1}},
		PaymentMethodTypes: []string{"card", "gcash"},
		ReferenceNumber:    "inv-1",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The URL lets its holder pay: it prints as ***, and is revealed to the payer.
	fmt.Println(session.ID, session.CheckoutURL, len(session.CheckoutURL.Reveal()) > 0)
	// Output: cs_1 *** true
}

func ExampleClient_NewRequest() {
	client, stop := fakePayMongo(`{"data":{"id":"link_1","amount":10000,"url":"https://pm.link/1","created_at":"2026-08-02T23:05:37Z"}}`)
	defer stop()
	request, err := client.NewRequest(context.Background(), http.MethodPost, "payment_links",
		paymongo.Attributes(map[string]any{"amount": 10000, "description": "one month"}))
	if err != nil {
		fmt.Println(err)
		return
	}
	request.Op = "payment_links.create"
	var answer struct {
		Data struct {
			ID        string             `json:"id"`
			CreatedAt paymongo.Timestamp `json:"created_at"`
		} `json:"data"`
	}
	if err := client.Do(request, &answer); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.Data.ID, answer.Data.CreatedAt.Year())
	// Output: link_1 2026
}
