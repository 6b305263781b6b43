// Package sandbox is a PayMongo to run against: an http.Handler with
// PayMongo's resources, state machines, test cards, 3-D Secure page and signed
// webhooks, that can fail on demand in every way a payment gateway fails, and
// that keeps a ledger of what it really did.
//
// It exists because no promise about money can be tested against a gateway
// that only answers well. PayMongo's own test mode cannot time out, stay in
// processing, lose or repeat a webhook, or charge a card and drop the answer.
//
//	box, err := sandbox.New(sandbox.Options{Seed: 1})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer box.Close()
//	server := httptest.NewServer(box)
//	defer server.Close()
//
//	// Three answers in ten are lost after the card was charged.
//	box.AddFault(sandbox.Fault{
//		Kind:        sandbox.TimeoutAfter,
//		Endpoint:    "payment_intents.attach",
//		Probability: 0.3,
//	})
//	charge(server.URL + "/v1") // the code under test
//
//	if doubles := box.Summary("invoice").PaidMoreThanOnce; len(doubles) > 0 {
//		log.Fatalf("charged twice: %v", doubles)
//	}
//
// # The oracle
//
// [Sandbox.Ledger] and [Sandbox.Summary] are the truth that tests compare
// their books with: every intent, every attach as it was received and as it
// was executed, every payment with its metadata. Answers on the wire may lie,
// when a fault says so; the ledger never does. For the same reason this
// package shares no code with the client it is used to test.
//
// # What is known and what is guessed
//
// Shapes, codes and wordings follow recorded traffic and PayMongo's pages.
// Where sources contradict each other the [Profile] has a switch. Where no
// source says anything the comment says so, with the words "no source".
//
// # Time and chance
//
// The sandbox has its own [Clock]: real, scaled, or stopped and moved by hand.
// Expiries, holds, refunds, retries of webhooks and slow payments follow it.
// Which call a fault hits depends on the seed and on what the call is about
// (its metadata), not on the order in which concurrent calls arrive, so a
// seeded run repeats.
package sandbox
