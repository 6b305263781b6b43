package migrations_test

// keyAttacks break what guards hold in the place of foreign keys: what a row refers
// to is there when it is written, and is there for ever.
var keyAttacks = []attack{
	{rule: "invoices.guard_new_invoices", name: "of no subscription", attack: put("invoices", "subscription_id="+id(77))},
	{rule: "invoices.guard_new_invoices", name: "of no customer", attack: put("invoices", "customer_id="+id(77))},
	{rule: "invoices.guard_new_invoices", name: "of another's customer", attack: put("invoices", "customer_id="+id(2))},

	{rule: "payment_intents.price_of_the_invoice", name: "another price", attack: put("payment_intents", "invoice_id="+id(9), "amount_minor=1"), legal: []string{put("invoices")}},
	{rule: "payment_intents.price_of_the_invoice", name: "another currency", attack: put("payment_intents", "invoice_id="+id(9), "currency='USD'"), legal: []string{put("invoices")}},
	{rule: "payment_intents.price_of_the_invoice", name: "another mode", attack: put("payment_intents", "invoice_id="+id(9), "livemode=true"), legal: []string{put("invoices")}},
	{rule: "payment_intents.price_of_the_invoice", name: "no price", attack: put("payment_intents", "invoice_id="+id(77))},
	{
		rule: "payment_intents.price_of_the_invoice", name: "one of many", legal: []string{put("invoices")},
		attack: `INSERT INTO singil.payment_intents (id, invoice_id, amount_minor, currency, livemode, generation, create_key, state, death_proof)
			SELECT gen_random_uuid(), ` + id(9) + `, 49900 + n, 'PHP', false, 1 + n, 'key of ' || n,
			       CASE n WHEN 0 THEN 'creating' ELSE 'dead' END, CASE n WHEN 1 THEN ` + proof + `::jsonb END FROM generate_series(0, 1) n`,
	},

	{rule: "attempts.guard_new_attempts", name: "on no intent", attack: put("attempts", "payment_intent_id="+id(77))},
	{rule: "attempts.guard_new_attempts", name: "on no invoice", attack: put("attempts", "invoice_id="+id(77))},
	{rule: "attempts.guard_new_attempts", name: "on no card", attack: put("attempts", "payment_method_id="+id(77))},

	{rule: "customers.append_only", name: "delete", attack: `DELETE FROM singil.customers WHERE id = ` + id(2)},
	{rule: "customers.append_only", name: "truncate", attack: `TRUNCATE singil.customers CASCADE`},
	{rule: "customers.id_is_forever", attack: set("customers", 9, "id = "+id(8)), legal: []string{put("customers")}},
	{rule: "payment_methods.append_only", name: "delete", attack: `DELETE FROM singil.payment_methods WHERE id = ` + id(9), legal: []string{put("payment_methods")}},
	{rule: "payment_methods.append_only", name: "truncate", attack: `TRUNCATE singil.payment_methods CASCADE`},
	{rule: "payment_methods.id_is_forever", attack: set("payment_methods", 9, "id = "+id(8)), legal: []string{put("payment_methods")}},
	{rule: "subscriptions.append_only", name: "delete", attack: `DELETE FROM singil.subscriptions WHERE id = ` + id(9), legal: []string{put("subscriptions")}},
	{rule: "subscriptions.append_only", name: "truncate", attack: `TRUNCATE singil.subscriptions CASCADE`},
	{rule: "subscriptions.id_is_forever", attack: set("subscriptions", 9, "id = "+id(8)), legal: []string{put("subscriptions")}},
	{rule: "invoices.append_only", name: "delete", attack: `DELETE FROM singil.invoices WHERE id = ` + id(1)},
	{rule: "invoices.append_only", name: "truncate", attack: `TRUNCATE singil.invoices CASCADE`},
}
