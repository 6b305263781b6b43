package paymongo_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

var pairs = flag.Int("pairs", 1000, "invoices that the naive and the careful client charge")

// TestNaiveClientChargesTwice shows that the sandbox's ledger sees a double
// charge. Without it, TestCarefulClientChargesOnce would prove nothing.
//
//	go test ./paymongo -run 'ChargesTwice|ChargesOnce' -pairs 10000 -v
func TestNaiveClientChargesTwice(t *testing.T) {
	t.Parallel()
	box, client, card := chargingGround(t, lostAnswers)
	charge(t, *pairs, func(ctx context.Context, invoice string) error {
		// What many integrations do: any error means "not charged", so begin anew.
		var err error
		for range 20 {
			var intent *paymongo.PaymentIntent
			if intent, err = client.PaymentIntents.Create(ctx, newIntent(invoice, "")); err != nil {
				continue
			}
			if _, err = client.PaymentIntents.Attach(ctx, intent.ID, &paymongo.PaymentIntentAttachParams{PaymentMethod: card}); err == nil {
				return nil
			}
		}
		return err
	})
	sum := box.Summary("invoice")
	t.Logf("naive client, seed %d: %d invoices, %d attaches executed, %d paid payments, %d invoices charged more than once",
		box.Seed(), *pairs, sum.AttachesExecuted, sum.PaidPayments, len(sum.PaidMoreThanOnce))
	if len(sum.PaidMoreThanOnce) < *pairs/10 {
		t.Errorf("only %d invoices were charged twice: the ledger does not see, or the faults do not hit", len(sum.PaidMoreThanOnce))
	}
	if len(sum.IntentsPaidMoreThanOnce) > 0 {
		t.Errorf("an intent was paid twice: %v", sum.IntentsPaidMoreThanOnce)
	}
}

// TestCarefulClientChargesOnce drives the client by the charge protocol: one
// intent for the whole life of an invoice, its id kept before the attach, and
// after an unknown outcome a look before anything else.
func TestCarefulClientChargesOnce(t *testing.T) {
	t.Parallel()
	every := []sandbox.Fault{}
	for _, kind := range []sandbox.FaultKind{
		sandbox.TimeoutBefore, sandbox.TimeoutAfter, sandbox.ErrorBefore, sandbox.ErrorAfter, sandbox.ResetBefore, sandbox.ResetAfter,
		sandbox.CutBody, sandbox.HTMLBody, sandbox.WrongContentType,
	} {
		every = append(every, sandbox.Fault{Kind: kind, Probability: 0.03, Endpoint: "payment_intents.*"})
	}
	every = append(every,
		sandbox.Fault{Kind: sandbox.LateAttach, Probability: 0.05, For: sandbox.Duration(50 * time.Millisecond)},
		sandbox.Fault{Kind: sandbox.Processing, Probability: 0.05, For: sandbox.Duration(20 * time.Millisecond)},
		sandbox.Fault{Kind: sandbox.Decline, Probability: 0.05, Code: "insufficient_funds"},
		sandbox.Fault{Kind: sandbox.Stale, Probability: 0.05, For: sandbox.Duration(20 * time.Millisecond)},
	)
	for name, faults := range map[string][]sandbox.Fault{"EveryFault": every, "LostAnswers": lostAnswers} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box, client, card := chargingGround(t, faults)
			var books sync.Map // invoice -> id of its intent: the rows a worker would commit
			charge(t, *pairs, func(ctx context.Context, invoice string) error {
				return careful(ctx, client, card, invoice, &books)
			})
			sum := box.Summary("invoice")
			t.Logf("careful client, %s, seed %d: %d invoices, %d intents, %d attaches executed, %d paid payments, %d declined; %d invoices charged more than once",
				name, box.Seed(), *pairs, sum.Intents, sum.AttachesExecuted, sum.PaidPayments, sum.FailedPayments, len(sum.PaidMoreThanOnce))
			if len(sum.PaidMoreThanOnce) > 0 || len(sum.IntentsPaidMoreThanOnce) > 0 {
				t.Errorf("charged twice: %v %v", sum.PaidMoreThanOnce, sum.IntentsPaidMoreThanOnce)
			}
			if sum.PaidPayments != *pairs {
				t.Errorf("%d of %d invoices were paid", sum.PaidPayments, *pairs)
			}
			for _, intent := range box.Ledger().Intents {
				if kept, _ := books.Load(intent.Metadata["invoice"]); kept != intent.ID && len(intent.Attaches) > 0 {
					t.Errorf("attach to intent %s, which nobody had written down", intent.ID)
				}
			}
		})
	}
}

// careful charges one invoice until it is paid, the way design section 2 says,
// with a map for the database.
func careful(ctx context.Context, client *paymongo.Client, card, invoice string, books *sync.Map) error {
	intents := client.PaymentIntents
	for attempted := false; ctx.Err() == nil; {
		id, created := books.Load(invoice)
		if !created {
			intent, err := intents.Create(ctx, newIntent(invoice, "test/"+invoice+"/1"))
			if err != nil {
				continue // an intent nobody knows is never attached to: harmless
			}
			books.Store(invoice, intent.ID)
			continue
		}
		if attempted {
			intent, err := intents.Retrieve(ctx, id.(string), nil)
			switch {
			case err != nil:
				continue
			case intent.Status == paymongo.PaymentIntentStatusSucceeded:
				return nil
			case intent.Status != paymongo.PaymentIntentStatusAwaitingPaymentMethod:
				continue
			}
		}
		attempted = true
		_, err := intents.Attach(ctx, id.(string), &paymongo.PaymentIntentAttachParams{PaymentMethod: card, SendBefore: time.Now().Add(time.Minute)})
		var answer *paymongo.Error
		if err != nil && paymongo.Refused(err) && errors.As(err, &answer) && !answer.Declined() {
			return fmt.Errorf("invoice %s: %w", invoice, err)
		}
	}
	return ctx.Err()
}

var lostAnswers = []sandbox.Fault{{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.*", Probability: 0.3}}

// chargingGround is a sandbox with faults, a client for it, and a card that pays.
func chargingGround(t *testing.T, faults []sandbox.Fault) (*sandbox.Sandbox, *paymongo.Client, string) {
	t.Helper()
	box, err := sandbox.New(sandbox.Options{Seed: 20261123, Faults: faults, Hang: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(box)
	client, err := paymongo.NewClient("sk_test_oracle",
		paymongo.WithBaseURL(server.URL+"/v1"), paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		if err := box.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return box, client, newCard(t, client, "4343434343434345")
}

func newIntent(invoice, key string) *paymongo.PaymentIntentCreateParams {
	return &paymongo.PaymentIntentCreateParams{
		Amount: 49900, PaymentMethodAllowed: []string{"card"},
		Metadata: paymongo.Metadata{"invoice": invoice}, IdempotencyKey: key,
	}
}

func newCard(t *testing.T, client *paymongo.Client, number string) string {
	t.Helper()
	method, err := client.PaymentMethods.Create(t.Context(), &paymongo.PaymentMethodCreateParams{
		Type: "card",
		Details: &paymongo.CardDetails{
			Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: time.Now().Year() + 3, CVC: paymongo.NewSecret("123"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return method.ID
}

// charge runs do for n invoices, 32 at a time.
func charge(t *testing.T, n int, do func(ctx context.Context, invoice string) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	invoices := make(chan string)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for invoice := range invoices {
				if err := do(ctx, invoice); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		invoices <- fmt.Sprintf("in_%05d", i)
	}
	close(invoices)
	wg.Wait()
}
