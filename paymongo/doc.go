// Package paymongo is a client for the PayMongo API, in PayMongo's own words.
//
// It owns the conversation with PayMongo: requests, answers, signatures of
// webhooks, and above all the question what a failed call may have done.
// It knows nothing of subscriptions, invoices or when to charge.
//
// # A first call
//
//	client, err := paymongo.NewClient(os.Getenv("PAYMONGO_SECRET_KEY"))
//	if err != nil {
//		return err
//	}
//	intent, err := client.PaymentIntents.Create(ctx, &paymongo.PaymentIntentCreateParams{
//		Amount:               2000, // centavos: PHP 20.00
//		PaymentMethodAllowed: []string{"card"},
//		IdempotencyKey:       "prod/sub-1/2026-11/1",
//	})
//	if err != nil {
//		return err
//	}
//	// Store intent.ID before this line: it is the only way back to the payment.
//	intent, err = client.PaymentIntents.Attach(ctx, intent.ID, &paymongo.PaymentIntentAttachParams{
//		PaymentMethod: "pm_...",
//		SendBefore:    time.Now().Add(30 * time.Second),
//	})
//	switch verdict, reason := paymongo.VerdictOf(err); {
//	case err == nil:
//		fmt.Println(intent.Status) // succeeded, processing, awaiting_next_action, ...
//	case verdict == paymongo.VerdictUnknown:
//		fmt.Println("ask with Retrieve before any other attach:", reason)
//	default:
//		fmt.Println("nothing was charged:", reason)
//	}
//
// # Verdicts
//
// Every error of this package answers one question: may the call have been
// executed? [VerdictOf] says [VerdictNeverSent], [VerdictRefused] or
// [VerdictUnknown], with a reason for the log. The first two are given only on
// proof; a timeout, a 5xx, a 429, a cut answer and everything not understood
// are unknown. An unknown write is never repeated by the client. Retrieve the
// resource before trying again.
//
// The reason is one of a closed set of words, fit for a metric label:
//
//   - never sent, refused by this package: bad_params, needs_secret_key,
//     context_done, rate_limit_past_deadline, rate_limit_failed,
//     hold_past_deadline, past_send_before
//   - never sent, given up on the way: dns, connect, tls,
//     waiting_for_connection, body_not_sent
//   - refused: the PayMongo code, or its sub code where there is one
//   - unknown, no answer: timeout, canceled, connection_lost
//   - unknown, no readable answer: answer_cut, answer_too_large, answer_html,
//     answer_undecodable, answer_other_resource
//   - unknown, by the answer: http_3xx, http_408, http_409, http_429, http_5xx,
//     http_status, no_errors_body, unlisted_code, unlisted_sub_code, or the
//     PayMongo code, such as resource_succeeded_state
//   - unknown, not an error of this package: foreign_error
//
// # Retries
//
// Inside one call the client repeats reads after a network error, a 5xx, a 429
// or a cut answer, and writes only when the request provably never left. The
// time spent on that is bounded by the context and by [WithMaxElapsedTime].
// 401, 403 and 404 are never repeated: PayMongo has blocked callers for
// repeating them.
//
// All calls of a client share one rate limit ([WithRate]); those of several
// processes can share one too ([WithLimiter]). A 429 holds all calls of a client
// back, for as long as its Retry-After says or else for a growing pause;
// [Client.HoldUntil] carries such a hold to other processes.
//
// # Secrets
//
// The API key, client keys, webhook secrets, card numbers and CVCs are of type
// [Secret], which prints as ***. Errors keep what PayMongo answered with
// anything that looks like a secret removed.
//
// # Amounts and times
//
// Amounts are int64 centavos. An amount that is not a whole number in the answer
// makes the answer unreadable, never rounded. Times are [Timestamp].
package paymongo
