package migrations_test

import "fmt"

// What the columns of a card setup must be in a state.
func asSetup(state string) string {
	intent, payment, card, reason := "'pi_9'", "NULL", "NULL", "NULL"
	switch state {
	case "creating":
		intent = "NULL"
	case "paid":
		payment = "'pay_9'"
	case "saved":
		payment, card = "'pay_9'", id(1)
	case "review":
		reason = "'test'"
	}
	return fmt.Sprintf("state = '%s', provider_intent_id = %s, payment_id = %s, payment_method_id = %s, reason = %s", state, intent, payment, card, reason)
}

// bornAs puts card setup 9 into a state with the guard off: the way there is not
// what is tested.
func bornAs(state string) string {
	return `ALTER TABLE singil.card_setups DISABLE TRIGGER guard_card_setups; ` + set("card_setups", 9, asSetup(state)) +
		`; ALTER TABLE singil.card_setups ENABLE TRIGGER guard_card_setups`
}

var setup = []string{put("card_setups")}

// onSessionAttacks break what holds with the customer present.
var onSessionAttacks = []attack{
	{
		rule: "subscriptions.guard_new_subscriptions", name: "of a deleted customer", legal: []string{set("customers", 1, "deleted_at = now()")},
		attack: put("subscriptions"),
	},

	{rule: "card_setups.card_setups_pkey", legal: setup, attack: put("card_setups")},
	{rule: "card_setups.card_setups_customer_id_fkey", attack: put("card_setups", "customer_id="+id(77))},
	{rule: "card_setups.card_setups_amount_minor_check", attack: put("card_setups", "amount_minor=0")},
	{rule: "card_setups.card_setups_currency_check", attack: put("card_setups", "currency='USD'")},
	{rule: "card_setups.card_setups_livemode_fkey", name: "live money in a test database", attack: put("card_setups", "livemode=true")},
	{rule: "card_setups.card_setups_description_check", attack: put("card_setups", "description=repeat('x', 256)")},
	{rule: "card_setups.card_setups_session_type_check", attack: put("card_setups", "session_type='sometime'")},
	{rule: "card_setups.card_setups_state_check", attack: put("card_setups", "state='odd'", "provider_intent_id='pi_9'")},
	{
		rule: "card_setups.card_setups_provider_intent_id_key", legal: []string{put("card_setups", "state='open'", "provider_intent_id='pi_9'")},
		attack: put("card_setups", "id="+id(8), "state='open'", "provider_intent_id='pi_9'"),
	},
	{rule: "card_setups.card_setups_provider_intent_id_check", attack: put("card_setups", "state='open'", "provider_intent_id=''")},
	{
		rule:   "card_setups.card_setups_payment_method_id_fkey",
		attack: put("card_setups", "state='saved'", "provider_intent_id='pi_9'", "payment_id='pay_9'", "payment_method_id="+id(77)),
	},
	{rule: "card_setups.card_setups_next_look_at_check", name: "never", attack: put("card_setups", "next_look_at='infinity'")},
	{rule: "card_setups.card_setups_looks_check", attack: put("card_setups", "looks=-1")},
	{rule: "card_setups.creating_has_no_id", name: "open without an id", attack: put("card_setups", "state='open'")},
	{rule: "card_setups.creating_has_no_id", name: "creating with one", attack: put("card_setups", "provider_intent_id='pi_9'")},
	{rule: "card_setups.paid_has_a_payment", attack: put("card_setups", "state='paid'", "provider_intent_id='pi_9'")},
	{rule: "card_setups.saved_has_a_card", attack: put("card_setups", "state='saved'", "provider_intent_id='pi_9'", "payment_id='pay_9'")},
	{rule: "card_setups.saved_has_a_card", name: "a card before its money", attack: put("card_setups", "payment_method_id="+id(1))},
	{rule: "card_setups.review_has_a_reason", attack: put("card_setups", "state='review'", "provider_intent_id='pi_9'")},
	{rule: "card_setups.guard_card_setups", name: "another amount", legal: setup, attack: set("card_setups", 9, "amount_minor = 1")},
	{rule: "card_setups.guard_card_setups", name: "another customer", legal: setup, attack: set("card_setups", 9, "customer_id = "+id(2))},
	{
		rule: "card_setups.guard_card_setups", name: "another id of the provider's", legal: []string{put("card_setups", "state='open'", "provider_intent_id='pi_9'")},
		attack: set("card_setups", 9, "provider_intent_id = 'pi_8'"),
	},
	{
		rule: "card_setups.guard_card_setups", name: "another payment",
		legal:  []string{put("card_setups", "state='paid'", "provider_intent_id='pi_9'", "payment_id='pay_9'")},
		attack: set("card_setups", 9, "payment_id = 'pay_8'"),
	},
	{rule: "card_setups.id_is_forever", legal: setup, attack: set("card_setups", 9, "id = "+id(8))},
	{rule: "card_setups.append_only", name: "delete", attack: `DELETE FROM singil.card_setups`},
	{rule: "card_setups.append_only", name: "truncate", attack: `TRUNCATE singil.card_setups CASCADE`},

	{rule: "payments.payments_card_setup_id_fkey", attack: put("payments", "card_setup_id="+id(77))},
	{rule: "payment_intents.shared_has_an_id", attack: set("payment_intents", 2, "shared_at = now()")},
	{rule: "invoices.hold_is_whole", attack: set("invoices", 1, "held_until = now()")},
	{rule: "invoices.hold_is_whole", name: "a beginning without an end", attack: set("invoices", 1, "held_from = now()")},
	{rule: "invoices.hold_ends", name: "for ever", attack: set("invoices", 1, "held_from = now(), held_until = 'infinity'")},
	{rule: "invoices.hold_ends", name: "for more than two hours", attack: set("invoices", 1, "held_from = now(), held_until = now() + interval '2 hours 1 second'")},
}
