package worker_test

import (
	"testing"
	"time"

	"github.com/singil/singil/paymongo/sandbox"
)

// PayMongo documents that it stores the first outcome under an Idempotency-Key
// for 24 hours, failures too. A create that failed once must not fail all day.
func TestStoredCreateFailureDoesNotHoldTheInvoiceForADay(t *testing.T) {
	t.Parallel()
	p := setup(t)
	profile := p.box.Profile()
	profile.Idempotency = "replay_failures"
	if err := p.box.SetProfile(profile); err != nil {
		t.Fatal(err)
	}
	p.subscribe("s1", "4343434343434345")
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "payment_intents.create", Times: 1})
	p.tick()
	for range 20 {
		if p.text(`SELECT status FROM singil.invoices`) != "open" {
			break
		}
		p.set(p.now.Add(3 * time.Minute))
		p.tick()
	}
	if got := p.text(`SELECT i.status || ' r' || pi.create_failures FROM singil.invoices i JOIN singil.payment_intents pi ON pi.invoice_id = i.id`); got != "paid r3" {
		t.Errorf("%s, an hour behind one failed create; want paid, with the second key after three failures of the first", got)
	}
	p.checkBooks()
}

// A create that PayMongo refuses, or answers with another amount, is parked at
// once, with its reason; it is not asked again and again.
func TestWrongCreateIsParked(t *testing.T) {
	t.Parallel()
	for _, kind := range []sandbox.FaultKind{sandbox.WrongAmount, sandbox.WrongLivemode} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			p.subscribe("s1", "4343434343434345")
			p.fault(sandbox.Fault{Kind: kind, Endpoint: "payment_intents.create", Times: 1})
			p.tick()
			if got := p.text(`SELECT i.status || ' ' || pi.state || ' ' || (i.reason <> '') FROM singil.invoices i JOIN singil.payment_intents pi ON pi.invoice_id = i.id`); got != "review creating true" {
				t.Error(got)
			}
			if n := len(p.box.Ledger().Intents); n != 1 {
				t.Errorf("%d intents were created", n)
			}
			p.checkBooks()
		})
	}
}
