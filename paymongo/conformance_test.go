package paymongo_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

// TestConformance asks a PayMongo the questions on whose answers the charge
// protocol rests: PC-1 to PC-15. It always asks the sandbox. With a test key in
// PAYMONGO_CONFORMANCE_KEY it asks PayMongo itself too, at a few calls a second:
//
//	PAYMONGO_CONFORMANCE_KEY=sk_test_... go test ./paymongo -run Conformance -v
//
// What the protocol needs is asserted. What it only wants to know is logged as
// "observed". Live keys are refused.
func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("Sandbox", func(t *testing.T) {
		t.Parallel()
		profile := sandbox.DefaultProfile()
		profile.AcquirerLatency = sandbox.Duration(20 * time.Millisecond)
		box, err := sandbox.New(sandbox.Options{Profile: &profile, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(box)
		t.Cleanup(func() {
			if err := box.Close(); err != nil {
				t.Error(err)
			}
			server.Close()
		})
		conform(t, conformance{key: "sk_test_conformance", rate: math.Inf(1), base: server.URL + "/v1", box: box})
	})
	t.Run("PayMongo", func(t *testing.T) {
		key := os.Getenv("PAYMONGO_CONFORMANCE_KEY")
		if key == "" {
			t.Skip("PAYMONGO_CONFORMANCE_KEY is not set: PayMongo itself was not asked")
		}
		// TrimSpace as NewClient does, so that nothing slips past.
		if !strings.HasPrefix(strings.TrimSpace(key), "sk_test_") {
			t.Fatal("PAYMONGO_CONFORMANCE_KEY must be a secret test key (sk_test_); this suite makes charges")
		}
		conform(t, conformance{key: key, rate: 5})
	})
}

// conformance is one PayMongo to ask.
type conformance struct {
	key  string
	rate float64
	base string           // "" is PayMongo's own
	box  *sandbox.Sandbox // nil is PayMongo's own
}

func (c conformance) client(t *testing.T, opts ...paymongo.Option) *paymongo.Client {
	t.Helper()
	if c.base != "" {
		opts = append(opts, paymongo.WithBaseURL(c.base))
	}
	client, err := paymongo.NewClient(c.key, append(opts, paymongo.WithRate(c.rate, 20))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func conform(t *testing.T, c conformance) {
	client := c.client(t)
	ctx := t.Context()
	card := newCard(t, client, "4343434343434345")
	create := func(t *testing.T, change ...func(*paymongo.PaymentIntentCreateParams)) *paymongo.PaymentIntent {
		t.Helper()
		params := newIntent("conformance-"+rand.Text(), "")
		for _, f := range change {
			f(params)
		}
		intent, err := client.PaymentIntents.Create(ctx, params)
		if err != nil {
			t.Fatal(err)
		}
		return intent
	}
	attach := func(id, method string) (*paymongo.PaymentIntent, error) {
		return client.PaymentIntents.Attach(ctx, id, &paymongo.PaymentIntentAttachParams{PaymentMethod: method})
	}
	retrieve := func(t *testing.T, id string) *paymongo.PaymentIntent {
		t.Helper()
		intent, err := client.PaymentIntents.Retrieve(ctx, id, nil)
		if err != nil {
			t.Fatal(err)
		}
		return intent
	}
	paid := func(intent *paymongo.PaymentIntent) (n int) {
		for _, p := range intent.Payments {
			if p.Status == paymongo.PaymentStatusPaid {
				n++
			}
		}
		return n
	}

	t.Run("PC01_OneIntentIsPaidOnce", func(t *testing.T) {
		id := create(t).ID
		var wg sync.WaitGroup
		var mu sync.Mutex
		answers := map[string]int{}
		for range 20 {
			wg.Go(func() {
				intent, err := attach(id, card)
				answer := codeOf(err)
				if err == nil {
					answer = string(intent.Status)
				}
				mu.Lock()
				defer mu.Unlock()
				answers[answer]++
			})
		}
		wg.Wait()
		t.Logf("observed: twenty attaches at once: %v", answers)
		if _, err := attach(id, card); err == nil {
			t.Error("an attach after success was accepted")
		} else {
			t.Logf("observed: attach after success: %v", err)
			if v, _ := paymongo.VerdictOf(err); v != paymongo.VerdictUnknown {
				t.Errorf("verdict %s: an attach after success may be our own, delivered twice", v)
			}
		}
		after := retrieve(t, id)
		if after.Status != paymongo.PaymentIntentStatusSucceeded || paid(after) != 1 {
			t.Fatalf("A2 DOES NOT HOLD: status %s, %d paid payments. Do not run automatic retries against this PayMongo", after.Status, paid(after))
		}
	})

	t.Run("PC02_AttachAfterDecline", func(t *testing.T) {
		id := create(t).ID
		_, err := attach(id, newCard(t, client, "5100000000000198"))
		var declined *paymongo.Error
		if !errors.As(err, &declined) || !declined.Declined() || declined.SubCode != "insufficient_funds" {
			t.Fatalf("decline: %v", err)
		}
		t.Logf("observed: a decline is HTTP %d", declined.StatusCode)
		between := retrieve(t, id)
		if between.Status != paymongo.PaymentIntentStatusAwaitingPaymentMethod || between.LatestPayment() == nil || between.LatestPayment().Status != paymongo.PaymentStatusFailed {
			t.Errorf("after a decline: %s, latest payment %+v", between.Status, between.LatestPayment())
		}
		t.Logf("observed: last_payment_error filled: %t", between.LastPaymentError != nil)
		if after, err := attach(id, card); err != nil || paid(after) != 1 {
			t.Errorf("attach of another card after the decline: %v", err)
		}
	})

	t.Run("PC03_CancelIsFinal", func(t *testing.T) {
		id := create(t).ID
		cancelled, err := client.PaymentIntents.Cancel(ctx, id, nil)
		if err != nil || cancelled.Status != paymongo.PaymentIntentStatusCancelled {
			t.Fatalf("A CANCEL FROM awaiting_payment_method IS NOT POSSIBLE (%v): never open a second intent for an invoice", err)
		}
		if _, err := attach(id, card); err == nil {
			t.Error("A5 DOES NOT HOLD: a cancelled intent took an attach")
		} else {
			t.Logf("observed: attach after cancel: %v", err)
		}
		if after := retrieve(t, id); after.Status != paymongo.PaymentIntentStatusCancelled || len(after.Payments) != 0 {
			t.Errorf("after the refused attach: %s, %d payments", after.Status, len(after.Payments))
		}
	})

	t.Run("PC04_RetrieveAfterALostAnswer", func(t *testing.T) {
		// The answer is given up once the request has left.
		id := create(t).ID
		short, cancel := context.WithCancel(ctx)
		sent := make(chan struct{})
		impatient := c.client(t, paymongo.WithTransport(sendThen(sent)))
		go func() {
			<-sent
			cancel()
		}()
		begun := time.Now()
		_, err := impatient.PaymentIntents.Attach(short, id, &paymongo.PaymentIntentAttachParams{PaymentMethod: card})
		if v, reason := paymongo.VerdictOf(err); err != nil && v != paymongo.VerdictUnknown {
			t.Errorf("a lost answer is %s (%s)", v, reason)
		}
		deadline := time.Now().Add(time.Minute)
		for retrieve(t, id).Status != paymongo.PaymentIntentStatusSucceeded {
			if time.Now().After(deadline) {
				// The server may have dropped the request with its connection.
				t.Log("observed: an attach whose connection was cut was not executed within a minute")
				return
			}
		}
		t.Logf("observed: D, a retrieve shows the result %s after the attach left", time.Since(begun).Round(time.Millisecond))
	})

	t.Run("PC05_IdempotencyKeyOnCreate", func(t *testing.T) {
		key := "conformance-" + rand.Text()
		params := newIntent(key, key)
		first, err := client.PaymentIntents.Create(ctx, params)
		if err != nil {
			t.Fatal(err)
		}
		second, err := client.PaymentIntents.Create(ctx, params)
		switch {
		case err != nil:
			t.Logf("observed: a repeated create is refused: %v", err)
		case first.ID == second.ID:
			t.Log("observed: a repeated create gives the same intent: the key is honoured")
		default:
			t.Log("observed: a repeated create gives another intent: the key is NOT honoured")
		}
		params.Amount++
		_, err = client.PaymentIntents.Create(ctx, params)
		t.Logf("observed: the key with another amount: %v", err)
	})

	t.Run("PC06_IdempotencyKeyOnAttach", func(t *testing.T) {
		id := create(t).ID
		params := &paymongo.PaymentIntentAttachParams{PaymentMethod: card, IdempotencyKey: "conformance-" + rand.Text()}
		if _, err := client.PaymentIntents.Attach(ctx, id, params); err != nil {
			t.Fatal(err)
		}
		_, err := client.PaymentIntents.Attach(ctx, id, params)
		t.Logf("observed: a repeated attach under one key: %v", err)
		if after := retrieve(t, id); paid(after) != 1 {
			t.Errorf("%d paid payments", paid(after))
		}
	})

	t.Run("PC08_MetadataReachesThePayment", func(t *testing.T) {
		intent := create(t)
		if _, err := attach(intent.ID, card); err != nil {
			t.Fatal(err)
		}
		want := retrieve(t, intent.ID).PaidPayment()
		payment, err := client.Payments.Retrieve(ctx, want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if payment.Metadata["invoice"] != intent.Metadata["invoice"] || payment.PaymentIntentID != intent.ID {
			t.Errorf("PC-8 FAILS: the payment says metadata %v, intent %s", payment.Metadata, payment.PaymentIntentID)
		}
		seen := 0
		for payment, err := range client.Payments.All(ctx, &paymongo.PaymentListParams{Limit: 100}) {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; payment.ID == want.ID {
				t.Logf("observed: found as number %d of the list", seen)
				return
			}
			if seen == 500 {
				break
			}
		}
		t.Errorf("not among the newest %d payments", seen)
	})

	t.Run("PC09_WebhookIsSigned", func(t *testing.T) {
		if c.box == nil {
			t.Skip("PayMongo cannot reach this machine")
		}
		type delivery struct {
			header string
			body   []byte
		}
		got := make(chan delivery, 1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, err := io.ReadAll(r.Body); err == nil {
				got <- delivery{r.Header.Get(paymongo.SignatureHeader), body}
			}
			_, _ = io.WriteString(w, `{"received":true}`)
		}))
		defer server.Close()
		hook, err := client.Webhooks.Create(ctx, &paymongo.WebhookCreateParams{URL: server.URL, Events: []paymongo.EventType{paymongo.EventPaymentPaid}})
		if err != nil {
			t.Fatal(err)
		}
		secrets, err := paymongo.NewWebhookSecrets(hook.SecretKey.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		intent := create(t)
		if _, err := attach(intent.ID, card); err != nil {
			t.Fatal(err)
		}
		d := <-got
		if err := paymongo.VerifySignature(d.header, d.body, secrets, paymongo.ModeTest, time.Now(), time.Minute); err != nil {
			t.Errorf("%v: %s", err, d.header)
		}
		if err := paymongo.VerifySignature(d.header, d.body, secrets, paymongo.ModeLive, time.Now(), time.Minute); err == nil {
			t.Error("a test event passes for a live one")
		}
		if err := paymongo.VerifySignature(d.header, append(d.body, ' '), secrets, paymongo.ModeTest, time.Now(), time.Minute); !errors.Is(err, paymongo.ErrSignatureMismatch) {
			t.Errorf("a changed body: %v", err)
		}
		event, err := paymongo.ParseEvent(d.body)
		if err != nil {
			t.Fatal(err)
		}
		payment, ok := event.Resource.(*paymongo.Payment)
		if !ok || event.Type != paymongo.EventPaymentPaid || payment.PaymentIntentID != intent.ID || payment.Metadata["invoice"] != intent.Metadata["invoice"] {
			t.Errorf("event %v with %+v (%v)", event, event.Resource, event.ResourceErr)
		}
		if _, err := client.Webhooks.Disable(ctx, hook.ID, nil); err != nil {
			t.Error(err)
		}
	})

	t.Run("PC12_OffSession", func(t *testing.T) {
		customer, err := client.Customers.Create(ctx, &paymongo.CustomerCreateParams{
			FirstName: "Conformance", LastName: "Test", Email: strings.ToLower(rand.Text()) + "@example.com",
			Phone: fmt.Sprintf("+639%09d", time.Now().UnixNano()%1e9), DefaultDevice: "email",
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if gone, err := client.Customers.Delete(ctx, customer.ID); err != nil || !gone.Deleted {
				t.Errorf("delete the customer: %v", err)
			}
		}()
		for _, session := range []paymongo.SessionType{paymongo.SessionTypeOnSession, paymongo.SessionTypeOffSession} {
			method := newCard(t, client, "4343434343434345")
			intent, err := client.PaymentIntents.Create(ctx, &paymongo.PaymentIntentCreateParams{
				Amount: 2000, PaymentMethodAllowed: []string{"card"},
				SetupFutureUsage: &paymongo.SetupFutureUsage{SessionType: session, CustomerID: customer.ID},
			})
			if err != nil {
				t.Logf("observed: setup_future_usage %s is refused: %v", session, err)
				continue
			}
			if _, err := attach(intent.ID, method); err != nil {
				t.Logf("observed: first payment with setup_future_usage %s: %v", session, err)
				continue
			}
			saved, err := client.Customers.ListPaymentMethods(ctx, customer.ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range saved.Data {
				t.Logf("observed: saved %s, session type %s, wrapper %s", m.PaymentMethodID, m.SessionType, m.ID)
			}
			after, err := attach(create(t).ID, method)
			switch {
			case err != nil:
				t.Logf("observed: off-session attach of a card saved %s: %v", session, err)
			default:
				t.Logf("observed: off-session attach of a card saved %s: %s", session, after.Status)
			}
			if c.box != nil && (err != nil || after.Status != paymongo.PaymentIntentStatusSucceeded || len(saved.Data) == 0) {
				t.Errorf("the sandbox's default profile allows off-session: %v", err)
			}
		}
		saved, err := client.Customers.ListPaymentMethods(ctx, customer.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range saved.Data {
			if _, err := client.PaymentMethods.UpdateCVC(ctx, m.PaymentMethodID, &paymongo.PaymentMethodUpdateCVCParams{CVC: paymongo.NewSecret("123")}); err != nil {
				t.Logf("observed: update of the CVC: %v", err)
			}
			if _, err := client.Customers.DeletePaymentMethod(ctx, customer.ID, m.PaymentMethodID); err != nil {
				t.Errorf("delete a saved method: %v", err)
			}
		}
	})

	t.Run("PC13_MinimumAmount", func(t *testing.T) {
		for _, amount := range []int64{99, 100, 1999, 2000} {
			params := newIntent("minimum", "")
			params.Amount = amount
			_, err := client.PaymentIntents.Create(ctx, params)
			t.Logf("observed: an intent over %d centavos: %v", amount, err)
		}
	})

	t.Run("PC15_LivemodeOnEveryObject", func(t *testing.T) {
		id := create(t).ID
		if _, err := attach(id, card); err != nil {
			t.Fatal(err)
		}
		payment := retrieve(t, id).PaidPayment()
		for _, path := range []string{"payment_intents/" + id, "payment_methods/" + card, "payments/" + payment.ID} {
			var got struct {
				Data struct {
					Attributes struct {
						Livemode *bool `json:"livemode"`
					} `json:"attributes"`
				} `json:"data"`
			}
			req, err := client.NewRequest(ctx, http.MethodGet, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Do(req, &got); err != nil {
				t.Fatal(err)
			}
			if live := got.Data.Attributes.Livemode; live == nil || *live {
				t.Errorf("%s: livemode %v", path, live)
			}
		}
	})

	t.Run("Refund", func(t *testing.T) {
		id := create(t).ID
		if _, err := attach(id, card); err != nil {
			t.Fatal(err)
		}
		payment := retrieve(t, id).PaidPayment()
		refund, err := client.Refunds.Create(ctx, &paymongo.RefundCreateParams{
			Amount: 10000, PaymentID: payment.ID, Reason: paymongo.RefundReasonRequestedByCustomer, IdempotencyKey: "refund:" + payment.ID,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("observed: a new refund is %s", refund.Status)
		again, err := client.Refunds.Retrieve(ctx, refund.ID)
		if err != nil || again.PaymentID != payment.ID || again.Amount != 10000 {
			t.Errorf("%v %+v", err, again)
		}
	})

	// PC-7 (longest execution), PC-10 (expiry of an intent), PC-11 (limits and
	// whether a 429 was executed) and PC-14 (two live webhook secrets) cannot be
	// asked in test mode without waiting for days or being blocked.
}

// codeOf is the code PayMongo answered with, or the reason why there is none.
func codeOf(err error) string {
	var answer *paymongo.Error
	if errors.As(err, &answer) {
		return answer.Code
	}
	_, reason := paymongo.VerdictOf(err)
	return reason
}

// sendThen tells when a request has left, and goes on waiting for its answer.
func sendThen(sent chan<- struct{}) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		body := r.Body
		r.Body = readCloser{io.TeeReader(body, &signal{left: r.ContentLength, sent: sent}), body}
		return http.DefaultTransport.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type readCloser struct {
	io.Reader
	io.Closer
}

// signal closes sent once left bytes have passed.
type signal struct {
	left int64
	sent chan<- struct{}
}

func (s *signal) Write(p []byte) (int, error) {
	if s.left -= int64(len(p)); s.left == 0 {
		close(s.sent)
	}
	return len(p), nil
}
