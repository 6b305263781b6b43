package mutants

// The layers, by what they cost.
var (
	unit     = layer{name: "unit", pkg: "billing"}
	model    = layer{name: "model check", pkg: "billing", run: "^TestModel$/^Protocol"}
	client   = layer{name: "client", pkg: "paymongo"}
	schema   = layer{name: "schema", pkg: "migrations"}
	books    = layer{name: "books", pkg: "billing"} // billing on PostgreSQL
	gateway  = layer{name: "gateway", pkg: "worker"}
	charging = layer{name: "worker", pkg: "worker"} // with PostgreSQL and the sandbox
	webhooks = layer{name: "webhooks", pkg: "server"}
)

// mutants is the table. The first five are the mistakes that are made most; every
// other one breaks a single rule of the protocol or its surroundings.
var mutants = []mutant{
	{
		name: "row-after-send",
		what: "The attempt is written down after the attach was sent.",
		edits: []edit{
			{"worker/charge.go", "\tresult, err := c.arm.Do(ctx, billing.ArmRequest{",
				"\tanswer := c.gateway.Attach(context.WithoutCancel(ctx), billing.Armed{ProviderIntentID: c.ProviderIntentID, ProviderCardID: choice.Card.ProviderID}, sendBefore)\n" +
					"\tresult, err := c.arm.Do(ctx, billing.ArmRequest{"},
			{"worker/charge.go", "\tanswer := c.gateway.Attach(context.WithoutCancel(ctx), result.Armed, sendBefore)\n", ""},
		},
		layers: []layer{charging.with("^TestNothingIsSentBeforeItIsOnRecord$")},
	},
	{
		name:   "timeout-is-declined",
		what:   "An attach without an answer counts as declined.",
		edits:  []edit{{"worker/gateway.go", "return billing.Answer{Kind: billing.AnswerUnknown, Reason: reason}", `return billing.Answer{Kind: billing.AnswerDeclined, Code: "generic_decline", Reason: reason}`}},
		layers: []layer{gateway.with("^TestAnswerOf$")},
	},
	{
		name: "new-intent-per-attempt",
		what: "A decline gives the intent up and opens another one.",
		edits: []edit{{"billing/settle.go", "\t\tw.closeAttempt(s.Attempt, AttemptDeclined, j)\n\t\treturn w.dun(", "\t\tw.closeAttempt(s.Attempt, AttemptDeclined, j)\n" +
			"\t\tw.intents = append(w.intents, intentChange{ID: row.intent, State: IntentDead, Proof: s.Seen})\n" +
			"\t\tw.newIntents = append(w.newIntents, newIntent{InvoiceID: c.InvoiceID, Amount: c.Amount, Livemode: c.Livemode, Generation: c.Generation + 1, Key: nextKey(c.CreateKey, c.Generation)})\n\t\treturn w.dun("}},
		layers: []layer{model.with("^TestModel$/^ProtocolDeclines$"), books.with("^TestDeclineThenPaidNextDay$")},
	},
	{
		name: "budget-not-checked",
		what: "What is armed is not held against the day's budget.",
		edits: []edit{
			{"billing/arm.go", "(a.count+1 > a.leftCount || a.spentMinor+invoice.amountMinor > a.leftMinor)", "false"},
			{"billing/arm.go", "SET used_count = b.used_count + excluded.used_count,", "SET used_count = least(b.max_count, b.used_count + excluded.used_count),"},
		},
		layers: []layer{books.with("^TestEightSpendTheLastOfTheBudget$")},
	},
	{
		name: "webhook-trusted",
		what: "What a webhook says is paid is paid, and nobody asks the provider.",
		edits: []edit{{"worker/webhook.go", "\th = h.ofOurs(m, recorded, overdue)\n\tif !h.unasked {\n\t\treturn h, nil",
			"\th = h.ofOurs(m, recorded, overdue)\n\tif h.result == \"\" {\n" +
				"\t\tfound, err := billing.Load(ctx, tx, []uuid.UUID{m.InvoiceID}, now)\n\t\tif err != nil {\n\t\t\treturn h, err\n\t\t}\n" +
				"\t\th.result, h.reason = resultApplied, \"believed\"\n" +
				"\t\t_, err = billing.Settle(ctx, tx, []billing.Settlement{{Collection: found[m.InvoiceID], Source: \"webhook\",\n" +
				"\t\t\tJudgement: billing.Judgement{Ruling: billing.Paid, Payment: h.notice.Payments[0], Evidence: \"webhook\"}}}, now, w.holidays)\n\t\treturn h, err\n" +
				"\t}\n\tif !h.unasked {\n\t\treturn h, nil"}},
		layers: []layer{webhooks.with("^TestAuthenticEventWithAnotherAmount$|^TestWebhooksOfEverySort$")},
	},

	// What an answer means.
	{
		name:   "unknown-is-declined",
		what:   "An answer that is not certain closes the attempt.",
		edits:  []edit{{"billing/protocol.go", `return Judgement{Ruling: Unknown, Reason: a.Reason, Evidence: "attach"}`, `return Judgement{Ruling: Declined, Code: "generic_decline", Reason: a.Reason, Evidence: "attach"}`}},
		layers: []layer{unit.with("^TestSettle$"), model},
	},
	{
		name:   "processing-is-failed",
		what:   "An intent that is being processed counts as declined.",
		edits:  []edit{{"billing/protocol.go", `return Judgement{Ruling: Wait, WaitingFor: WaitingForProvider, Reason: ReasonProcessing, Evidence: "retrieve"}`, `return Judgement{Ruling: Declined, Code: "generic_decline", Evidence: "retrieve"}`}},
		layers: []layer{unit.with("^TestJudge$"), model},
	},
	{
		name:   "no-effect-too-early",
		what:   "An attach that shows nothing has no effect, however short ago it was sent.",
		edits:  []edit{{"billing/protocol.go", "if now.Before(s.Open.SettledAfter) {\n\t\treturn Judgement{Ruling: Unknown, Reason: \"the provider shows nothing yet\"", "if false {\n\t\treturn Judgement{Ruling: Unknown, Reason: \"the provider shows nothing yet\""}},
		layers: []layer{unit.with("^TestJudge$")},
	},
	{
		name:   "amount-not-compared",
		what:   "The provider's intent may be over another amount.",
		edits:  []edit{{"billing/protocol.go", "case seen.Amount != s.Amount:", "case false:"}},
		layers: []layer{unit.with("^TestJudge$")},
	},
	{
		name:   "livemode-not-compared",
		what:   "The provider's intent may be of the other mode.",
		edits:  []edit{{"billing/protocol.go", "case seen.Livemode != s.Livemode:", "case false:"}},
		layers: []layer{unit.with("^TestJudge$"), charging.with("^TestAnswerOfTheOtherModeStopsEverything$")},
	},
	{
		name:   "payment-not-compared",
		what:   "The payment of a paid intent may be over another amount, or of the other mode.",
		edits:  []edit{{"billing/protocol.go", "case pay.Amount != s.Amount || pay.Livemode != s.Livemode:", "case false:"}},
		layers: []layer{unit.with("^TestJudge$")},
	},
	{
		name:   "old-failure-is-evidence",
		what:   "A failed payment that is on record closes the next attempt too.",
		edits:  []edit{{"billing/protocol.go", `pay.Status == "failed" && !s.Known[pay.ID] &&`, `pay.Status == "failed" &&`}},
		layers: []layer{unit.with("^TestJudge$"), charging.with("^TestOldFailureIsNoEvidenceAboutANewAttempt$")},
	},
	{
		name:   "stale-look-declines",
		what:   "A failure that an earlier attempt has no other for is the open attempt's.",
		edits:  []edit{{"billing/protocol.go", `older := recorded < s.Earlier && `, `older := false && `}},
		layers: []layer{unit.with("^TestOldFailures$")},
	},
	{
		name:   "look-skipped",
		what:   "Another attempt is armed without a look at what became of the last.",
		edits:  []edit{{"billing/protocol.go", "case s.Open != nil, s.Attempted && !looked:", "case s.Open != nil:"}},
		layers: []layer{unit.with("^TestNext$"), model},
	},
	{
		name:   "unauthorized-is-declined",
		what:   "A 401 counts as a decline of the customer's card.",
		edits:  []edit{{"worker/gateway.go", "return billing.Answer{Kind: billing.AnswerFault, Reason: reason}", `return billing.Answer{Kind: billing.AnswerDeclined, Code: "generic_decline", Reason: reason}`}},
		layers: []layer{gateway.with("^TestAnswerOf$"), charging.with("^TestUnauthorizedTripsTheBreakerAndDunsNobody$")},
	},
	{
		name:   "server-fault-is-refused",
		what:   "A 5xx is taken for proof that nothing was done.",
		edits:  []edit{{"paymongo/verdict.go", "return VerdictUnknown, reasonServerFault", "return VerdictRefused, reasonServerFault"}},
		layers: []layer{client.with("^TestVerdictOfAnswer$")},
	},
	{
		name:   "rate-limited-is-refused",
		what:   "A 429 is taken for proof that nothing was done.",
		edits:  []edit{{"paymongo/verdict.go", "return VerdictUnknown, reasonRateLimited", "return VerdictRefused, reasonRateLimited"}},
		layers: []layer{client.with("^TestVerdictOfAnswer$")},
	},

	// Sending.
	{
		name:   "body-replayable",
		what:   "net/http may send the body of an attach again by itself.",
		edits:  []edit{{"paymongo/do.go", "req.Body, req.ContentLength = body, int64(len(content))\n", "req.Body, req.ContentLength = body, int64(len(content))\n\t\treq.GetBody = func() (io.ReadCloser, error) { return newOnceBody(content, r.SendBefore), nil }\n"}},
		layers: []layer{client.with("^TestWriteIsExecutedOnce$")},
	},
	{
		name:   "redirect-followed",
		what:   "A redirect is followed, with the key and the body.",
		edits:  []edit{{"paymongo/do.go", "resp, err := c.transport.RoundTrip(req)", "resp, err := (&http.Client{Transport: c.transport}).Do(req)"}},
		layers: []layer{client.with("^TestRedirectIsNotFollowed$")},
	},
	{
		name:   "unknown-attach-repeated",
		what:   "A write whose outcome is not known is sent again.",
		edits:  []edit{{"paymongo/do.go", "again := (read || e.Verdict == VerdictNeverSent && e.Reason != reasonPastSendBefore)", "again := (read || e.Verdict != VerdictRefused && e.Reason != reasonPastSendBefore)"}},
		layers: []layer{client.with("^TestWriteIsExecutedOnce$|^TestRetry$")},
	},
	{
		name:   "sent-too-late",
		what:   "The moment after which an attach must not leave is not looked at where it leaves.",
		edits:  []edit{{"paymongo/body.go", "if !b.started && !b.deadline.IsZero() {", "if false {"}},
		layers: []layer{client.with("^TestNeverSent$")},
	},

	// Arming.
	{
		name:   "id-not-stored",
		what:   "The attach is sent before the intent's id is stored.",
		edits:  []edit{{"billing/arm.go", "SET state = 'ready', provider_intent_id = r.provider_intent_id, fence", "SET fence"}},
		layers: []layer{books.with("^TestOneInvoiceFromDueToPaid$")},
	},
	{
		name:   "commit-error-ignored",
		what:   "An arming whose commit failed is a licence to send all the same.",
		edits:  []edit{{"worker/collector.go", "\tfailpoint.Hit(\"cp13\")\n", "\tfailpoint.Hit(\"cp13\")\n\tif results != nil {\n\t\terr = nil\n\t}\n"}},
		layers: []layer{charging.with("^TestCommitThatFailsSendsNothing$")},
	},
	{
		name:   "witness-error-ignored",
		what:   "An arming that the witness could not write down is sent all the same.",
		edits:  []edit{{"worker/collector.go", "\t\t\treturn w.witness.Note(r.Armed.AttemptID)\n", "\t\t\t_ = w.witness.Note(r.Armed.AttemptID)\n"}},
		layers: []layer{charging.with("^TestUnwrittenWitnessSendsNothing$")},
	},
	{
		name:   "fence-not-raised",
		what:   "Arming leaves the intent's fence as it is.",
		edits:  []edit{{"billing/arm.go", "fence = pi.fence + 1, updated_at", "updated_at"}},
		layers: []layer{books.with("^TestDeclineThenPaidNextDay$")},
	},
	{
		name:   "fence-not-checked",
		what:   "A worker arms on what it loaded before another one armed and settled.",
		edits:  []edit{{"billing/arm_check.go", "intent.checkout, intent.fence != r.Fence,", "intent.checkout,"}},
		layers: []layer{unit.with("^TestArmRequestCheck$"), model, books.with("^TestStaleLoadArmsNothing$")},
	},
	{
		name:   "open-attempt-not-checked",
		what:   "A second attempt is armed while the outcome of the first is open.",
		edits:  []edit{{"billing/arm_check.go", "intent.open, intent.checkout,", "intent.checkout,"}},
		layers: []layer{unit.with("^TestArmRequestCheck$"), model, books.with("^TestStaleLoadArmsNothing$")},
	},
	{
		name:   "other-intent-armed",
		what:   "An attempt is armed on another intent than the one on record.",
		edits:  []edit{{"billing/arm_check.go", "intent.provider != \"\" && intent.provider != r.ProviderIntentID:", "false:"}},
		layers: []layer{unit.with("^TestArmRequestCheck$"), model},
	},
	{
		name:   "frozen-not-checked",
		what:   "Arming does not ask whether charging is frozen.",
		edits:  []edit{{"billing/arm.go", "may := a.instance.MayCharge(realNow)", "var may error"}},
		layers: []layer{books.with("^TestFrozenArmsNothing$")},
	},
	{
		name:   "breaker-not-asked",
		what:   "An open breaker stops nothing.",
		edits:  []edit{{"billing/instance.go", "case i.BreakerOpen:\n", "case false:\n"}},
		layers: []layer{unit.with("^TestMayCharge$"), charging.with("^TestConfigDeclineStopsEverything$")},
	},
	{
		name:   "block-not-respected",
		what:   "The 429 that one daemon met stops no other.",
		edits:  []edit{{"billing/instance.go", "case realNow.Before(i.BlockedUntil):", "case false:"}},
		layers: []layer{unit.with("^TestMayCharge$")},
	},
	{
		name:   "leftover-job-arms",
		what:   "A job that came twice arms an invoice that nobody has claimed.",
		edits:  []edit{{"billing/arm_check.go", "!invoice.claimed, ", ""}},
		layers: []layer{unit.with("^TestArmRequestCheck$"), books.with("^TestDeclineThenPaidNextDay$")},
	},
	{
		name:   "pause-not-checked",
		what:   "An invoice of a paused subscription is armed.",
		edits:  []edit{{"billing/arm_check.go", ", intent.paused:", ":"}},
		layers: []layer{unit.with("^TestArmRequestCheck$"), books.with("^TestCancelAndPauseAgainstArms$")},
	},
	{
		name:   "budget-not-spent",
		what:   "What is armed is not taken from the day's budget.",
		edits:  []edit{{"billing/arm.go", "a.maxMinor, a.count, a.spentMinor)", "a.maxMinor, 0, 0)"}},
		layers: []layer{books.with("^TestOneInvoiceFromDueToPaid$")},
	},

	// Settling.
	{
		name:   "stale-decline-believed",
		what:   "A decline closes whatever attempt is open, not the one that it is about.",
		edits:  []edit{{"billing/settle.go", "return r.open() && r.attempt == s.Attempt && r.fence == s.Fence", "return r.open()"}},
		layers: []layer{books.with("^TestDeclineThenPaidNextDay$")},
	},
	{
		name:     "settlement-fence-not-compared",
		what:     "A decline is held against the open attempt's id, not against its fence.",
		edits:    []edit{{"billing/settle.go", "r.attempt == s.Attempt && r.fence == s.Fence", "r.attempt == s.Attempt"}},
		layers:   []layer{books.with("^TestDeclineThenPaidNextDay$"), books.with("^TestEightSettleOneAttempt$")},
		harmless: "guard_new_attempts gives each attempt a fence of its own, so that the id tells it",
		net:      schema.with("^TestAttacks$/guard_.*attempts/fence"),
	},
	{
		name:   "late-success-dropped",
		what:   "A success is taken only while its attempt is open.",
		edits:  []edit{{"billing/settle.go", "if j.Ruling == Paid {", "if j.Ruling == Paid && row.takes(s) {"}},
		layers: []layer{books.with("^TestUnknownStaysOpenAndClimbsTheLadder$")},
	},
	{
		name:   "death-settled-twice",
		what:   "Two workers that saw an intent cancelled both open the next one.",
		edits:  []edit{{"billing/settle.go", "case r.status != InvoiceOpen, r.intentState == IntentDead:", "case r.status != InvoiceOpen:"}},
		layers: []layer{books.with("^TestDeathIsSettledOnce$")},
	},
	{
		name:   "no-next-attempt",
		what:   "A declined invoice stays open without a time to come back to it.",
		edits:  []edit{{"billing/choose.go", "NextAttemptAt: &d.At, WaitingFor: WaitingForSchedule,\n", "WaitingFor: WaitingForSchedule,\n"}},
		layers: []layer{books.with("^TestDeclineThenPaidNextDay$")},
	},
	{
		name:   "paid-event-left-out",
		what:   "The merchant is not told of a paid invoice.",
		edits:  []edit{{"billing/settle.go", "\tw.emit(c, \"invoice.paid\", fields{\"payment_id\": s.Judgement.Payment.ID, \"payment_intent_id\": row.providerID})\n", ""}},
		layers: []layer{books.with("^TestOneInvoiceFromDueToPaid$")},
	},
	{
		name:   "freeze-not-audited",
		what:   "Freezing leaves no entry in the audit log.",
		edits:  []edit{{"billing/instance.go", `return Audit(ctx, tx, AuditEntry{Actor: actor, Action: "freeze", Subject: "instance", Reason: reason})`, "return nil"}},
		layers: []layer{books.with("^TestFrozenArmsNothing$")},
	},

	// Dunning and limits.
	{
		name:   "hard-decline-retried",
		what:   "A card that was declined for good is charged for the same invoice again.",
		edits:  []edit{{"billing/dunning.go", "a.State == AttemptDeclined && a.decline().Class == DeclineClassHard", "false"}},
		layers: []layer{unit.with("^TestNextAttempt$|^TestDunningStories$")},
	},
	{
		name:   "hard-decline-not-remembered",
		what:   "A card that was declined for good is not blocked for other invoices.",
		edits:  []edit{{"billing/choose.go", "\tcase DeclineClassHard:\n\t\tw.cards", "\tcase \"\":\n\t\tw.cards"}},
		layers: []layer{charging.with("^TestHardDeclineMovesOnToTheNextCard$")},
	},
	{
		name:   "offset-lost",
		what:   "Dunning passes over the first of its days.",
		edits:  []edit{{"billing/dunning.go", "\tfor i, day := range days {\n\t\tdate := d.firstDay()", "\tfor i, day := range days[min(1, len(days)):] {\n\t\tdate := d.firstDay()"}},
		layers: []layer{unit.with("^TestNextAttempt$|^TestDunningStories$")},
	},
	{
		name:   "card-limit-off-by-one",
		what:   "A card gets one decline more than its network's limit.",
		edits:  []edit{{"billing/limits.go", "if len(in) < limit {", "if len(in) <= limit {"}},
		layers: []layer{unit.with("^TestBudgetVectors$|^TestPermit$")},
	},
	{
		name:   "invoice-limit-off-by-one",
		what:   "An invoice gets one attempt more than its limit.",
		edits:  []edit{{"billing/limits.go", "use.InvoiceAttempts >= l.InvoiceAttempts", "use.InvoiceAttempts > l.InvoiceAttempts"}},
		layers: []layer{unit.with("^TestBudgetVectors$|^TestPermit$")},
	},

	// Periods and the sweep.
	{
		name: "boundary-drifts",
		what: "A period ends a month behind the last boundary, not so many months behind the anchor.",
		edits: []edit{{"billing/period.go", "\twall, ok := s.Interval.addTo(wallOf(s.Anchor.At, s.Anchor.Zone), k)\n",
			"\tfrom, steps := s.Anchor.At, k\n\tif k > 0 && k < 500 {\n\t\tfrom, _ = s.boundary(k - 1)\n\t\tsteps = 1\n\t}\n\twall, ok := s.Interval.addTo(wallOf(from, s.Anchor.Zone), steps)\n"}},
		layers: []layer{unit.with("^TestSchedule$")},
	},
	{
		name: "cursor-in-its-own-transaction",
		what: "The sweep's cursor moves before the invoices are there.",
		edits: []edit{{"billing/sweep.go", "\tif err := o.storeInvoices(ctx, tx); err != nil {\n\t\treturn err\n\t}\n\tbatch := &pgx.Batch{}\n",
			"\tcursor := &pgx.Batch{}\n\to.queueSubscriptions(cursor, due)\n\tif err := tx.SendBatch(ctx, cursor).Close(); err != nil {\n\t\treturn err\n\t}\n" +
				"\tif _, err := tx.Exec(ctx, \"COMMIT; BEGIN\"); err != nil {\n\t\treturn err\n\t}\n" +
				"\tif err := o.storeInvoices(ctx, tx); err != nil {\n\t\treturn err\n\t}\n\tbatch := &pgx.Batch{}\n"}},
		layers: []layer{books.with("^TestCursorMovesWithItsInvoices$")},
	},
	{
		name:   "period-passed-over",
		what:   "The cursor moves one period too far.",
		edits:  []edit{{"billing/sweep.go", "s.NextPeriodNo = plan.NextPeriodNo + s.AnchorNo", "s.NextPeriodNo = plan.NextPeriodNo + s.AnchorNo + 1"}},
		layers: []layer{books.with("^TestCursorMovesWithItsInvoices$")},
	},
	{
		name:   "on-conflict-removed",
		what:   "A period that has its invoice already fails the whole batch of the sweep.",
		edits:  []edit{{"billing/sweep.go", "  ON CONFLICT DO NOTHING\n  RETURNING id,", "  RETURNING id,"}},
		layers: []layer{books.with("^TestPeriodOnRecordIsParkedNotOpened$")},
	},
	{
		name:   "lease-not-set",
		what:   "A claimed invoice is due at once again.",
		edits:  []edit{{"billing/sweep.go", "SET claimed = true, next_attempt_at = $2,", "SET claimed = true, next_attempt_at = LEAST(i.next_attempt_at, $2),"}},
		layers: []layer{books.with("^TestOneInvoiceFromDueToPaid$")},
	},
	{
		name:   "catch-up-at-once",
		what:   "What a customer owes after an outage is charged on one day.",
		edits:  []edit{{"billing/spread.go", "if len(customers) == 0 {", "if true {"}},
		layers: []layer{books.with("^TestCatchUpIsSpreadOverTheCustomer$")},
	},

	// Hosted checkouts.
	{
		name:   "checkout-not-closed",
		what:   "An attempt is made on the intent of a hosted checkout, whose page is open.",
		edits:  []edit{{"billing/protocol.go", "case s.Checkout != \"\":\n\t\treturn StepExpire", "case s.Checkout != \"\":\n\t\treturn StepArm"}},
		layers: []layer{charging.with("^TestCheckoutIsClosedBeforeTheNextAttempt$")},
	},
	{
		name:   "checkout-taken-for-closed",
		what:   "A checkout that was asked to close makes room for another intent, though its own is seen alive.",
		edits:  []edit{{"billing/protocol.go", "Ruling: Unknown, Reason: \"the hosted checkout is not closed yet\"", "Ruling: Dead, Reason: \"the hosted checkout is closed\""}},
		layers: []layer{model.with("^TestModel$/^Checkout$"), charging.with("^TestCheckoutThatCannotBeClosed$")},
	},
	{
		name:   "checkout-page-left-open",
		what:   "The page of a checkout whose intent others have cancelled stays open beside the next intent.",
		edits:  []edit{{"worker/charge.go", "if judgement.Ruling == billing.Dead && c.Checkout != \"\" {", "if false {"}},
		layers: []layer{charging.with("^TestCheckoutCancelledByOthers$")},
	},

	// Webhooks.
	{
		name:   "signature-compared-with-equal",
		what:   "How long the comparison of a signature takes tells where it is wrong.",
		edits:  []edit{{"paymongo/signature.go", "match = hmac.Equal(mac.Sum(nil), signature) || match", "match = string(mac.Sum(nil)) == string(signature) || match"}},
		layers: []layer{client.with("^TestSignaturesAreComparedInConstantTime$")},
	},
	{
		name:   "signature-of-the-other-mode",
		what:   "A delivery that was signed for the other mode is authentic.",
		edits:  []edit{{"paymongo/signature.go", "if mode == ModeLive {\n", "if sig.live != nil {\n"}},
		layers: []layer{client.with("^TestVerifySignature$")},
	},
	{
		name:   "event-of-the-other-mode",
		what:   "An event of the other mode is taken under a signature of ours.",
		edits:  []edit{{"worker/webhook.go", "if n.Livemode != i.cfg.Webhooks.livemode() {", "if false {"}},
		layers: []layer{webhooks.with("^TestWebhookRefused$")},
	},
	{
		name: "refund-reopens",
		what: "A refund makes a paid invoice open again.",
		edits: []edit{{"billing/inbox.go", "\ttag, err := tx.Exec(ctx, sqlRecordRefund, payment, refundedMinor)\n",
			"\ttag, err := tx.Exec(ctx, sqlRecordRefund, payment, refundedMinor)\n\tif err == nil {\n" +
				"\t\t_, err = tx.Exec(ctx, `UPDATE singil.invoices SET status = 'open', paid_at = NULL, payment_id = NULL, next_attempt_at = clock_timestamp() WHERE payment_id = $1`, payment)\n\t}\n"}},
		layers: []layer{books.with("^TestRefundReopensNothing$")},
	},
}
