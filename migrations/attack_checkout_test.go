package migrations_test

// checkedOut is intent 2, which a hosted checkout has made.
const checkedOut = "state = 'ready', provider_intent_id = 'pi_2', shared_at = now(), checkout_session_id = 'cs_2'"

// checkoutAttacks break what holds of hosted checkouts.
var checkoutAttacks = []attack{
	{
		rule:   "payment_intents.checkout_session_is_named",
		attack: set("payment_intents", 2, "state = 'ready', provider_intent_id = 'pi_2', shared_at = now(), checkout_session_id = ''"),
	},
	{
		rule:   "payment_intents.checkout_is_shared",
		attack: set("payment_intents", 2, "state = 'ready', provider_intent_id = 'pi_2', checkout_session_id = 'cs_2'"),
	},
	{
		rule: "payment_intents.one_intent_of_a_checkout", legal: []string{set("payment_intents", 2, checkedOut), put("invoices"),
			put("payment_intents", "id="+id(9), "invoice_id="+id(9), "create_key='key9'")},
		attack: set("payment_intents", 9, "state = 'ready', provider_intent_id = 'pi_9', shared_at = now(), checkout_session_id = 'cs_2'"),
	},
	{
		rule: "payment_intents.guard_checkouts", name: "an intent of ours", legal: []string{set("payment_intents", 1, "shared_at = now()")},
		attack: set("payment_intents", 1, "checkout_session_id = 'cs_1'"),
	},
	{
		rule: "payment_intents.guard_checkouts", name: "another checkout", legal: []string{set("payment_intents", 2, checkedOut)},
		attack: set("payment_intents", 2, "checkout_session_id = 'cs_9'"),
	},
	{
		rule: "payment_intents.guard_checkouts", name: "none any more", legal: []string{set("payment_intents", 2, checkedOut)},
		attack: set("payment_intents", 2, "checkout_session_id = NULL"),
	},
	{
		rule: "attempts.guard_new_attempts", name: "on a hosted checkout's intent", legal: []string{set("payment_intents", 2, checkedOut)},
		attack: put("attempts", "payment_intent_id="+id(2), "invoice_id="+id(2)),
	},
}
