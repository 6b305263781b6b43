package migrations_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/internal/pgtest"
)

// The schema is attacked as somebody with psql would: every rule is broken on
// purpose, one at a time, and what must never be refused is done as well.

// id is the uuid with a number, as an SQL literal.
func id(n int) string {
	return fmt.Sprintf("'00000000-0000-7000-8000-%012d'::uuid", n)
}

// The rows that are there before an attack. Row n of a table has id(n).
//
//	subscription 1 of customer 1 has invoice 1, open, with intent 1, ready: pi_1.
//	subscription 1 has invoice 2, open, with intent 2, creating.
//	customer 1 has card 1, pm_1; customer 2 has card 2, pm_2.
var seeds = []string{
	put("instance"),
	put("customers", "id="+id(1), "external_id='c1'"),
	put("customers", "id="+id(2), "external_id='c2'"),
	put("payment_methods", "id="+id(1), "provider_payment_method_id='pm_1'"),
	put("payment_methods", "id="+id(2), "provider_payment_method_id='pm_2'", "customer_id="+id(2)),
	put("plans", "id="+id(1), "external_id='p1'"),
	put("subscriptions", "id="+id(1), "external_id='s1'"),
	put("invoices", "id="+id(1), "period_no=1", "period="+month(1)),
	put("invoices", "id="+id(2), "period_no=2", "period="+month(2)),
	put("payment_intents", "id="+id(1), "create_key='key1'", "state='ready'", "provider_intent_id='pi_1'", "invoice_id="+id(1)),
	put("payment_intents", "id="+id(2), "create_key='key2'", "invoice_id="+id(2)),
}

// month is the period with a number, as an SQL literal.
func month(n int) string {
	return fmt.Sprintf("tstzrange('2026-01-01Z'::timestamptz + interval '%d months', '2026-01-01Z'::timestamptz + interval '%d months')", n, n+1)
}

const (
	proof = `'{"kind":"retrieve","provider_intent":{"ID":"pi_1","Status":"cancelled"}}'`
	shown = `'{"kind":"retrieve"}'`
)

// What closes refund 9.
const (
	refusedRefund  = "state = 'refused', result = 'never sent', closed_at = now()"
	acceptedRefund = "state = 'accepted', provider_refund_id = 'ref_1', closed_at = now()"
)

// rows has a legal new row of each table, number 9.
var rows = map[string]map[string]string{
	"instance": {"environment": "'dev'", "livemode": "false", "system_identifier": "1", "timeline_id": "1"},
	"customers": {
		"id": id(9), "external_id": "'c9'",
	},
	"payment_methods": {
		"id": id(9), "customer_id": id(1), "provider_payment_method_id": "'pm_9'", "last4": "'4345'", "exp_month": "1", "exp_year": "2030",
	},
	"plans": {
		"id": id(9), "external_id": "'p9'", "amount_minor": "49900", "currency": "'PHP'", "interval_unit": "'month'", "interval_count": "1",
		"dunning": "'{}'", "catch_up": "'ask'",
	},
	"subscriptions": {
		"id": id(9), "external_id": "'s9'", "customer_id": id(1), "plan_id": id(1), "status": "'active'", "amount_minor": "49900", "currency": "'PHP'",
		"interval_unit": "'month'", "interval_count": "1", "anchor_at": "now()", "time_zone": "'Asia/Manila'", "next_period_no": "0",
		"next_due_at": "now()", "bill_from": "now()", "dunning": "'{}'", "catch_up": "'ask'",
	},
	"skipped_periods": {"subscription_id": id(1), "first_no": "3", "last_no": "4", "reason": "'pause'"},
	"invoices": {
		"id": id(9), "subscription_id": id(1), "customer_id": id(1), "period_no": "9", "period": month(9), "amount_minor": "49900",
		"currency": "'PHP'", "livemode": "false", "due_at": "now()", "next_attempt_at": "now()",
	},
	"payment_intents": {
		"id": id(9), "invoice_id": id(1), "amount_minor": "49900", "currency": "'PHP'", "livemode": "false", "generation": "1", "create_key": "'key9'",
	},
	"attempts": {
		"id": id(9), "payment_intent_id": id(1), "invoice_id": id(1), "no": "1", "fence": "0", "payment_method_id": id(1),
		"provider_payment_method_id": "'pm_1'", "trigger": "'schedule'", "armed_at": "'2026-02-01Z'", "send_before": "'2026-02-01 00:01Z'",
		"settled_after": "'2026-02-01 00:15Z'",
	},
	"payments": {
		"payment_id": "'pay_9'", "provider_intent_id": "'pi_1'", "invoice_id": id(1), "status": "'paid'", "amount_minor": "49900",
		"currency": "'PHP'", "livemode": "false", "source": "'webhook'",
	},
	"refunds": {"id": id(9), "payment_id": "'pay_9'", "amount_minor": "100", "currency": "'PHP'"},
	"card_setups": {
		"id": id(9), "customer_id": id(1), "amount_minor": "10000", "currency": "'PHP'", "livemode": "false", "session_type": "'off_session'",
	},
	"webhook_events": {"event_id": "'evt_9'", "type": "'payment.paid'", "livemode": "false", "body": "''"},
	"events":         {"id": id(9), "type": "'invoice.paid'", "subscription_id": id(1), "data": "'{}'", "occurred_at": "now()"},
	"charge_budget":  {"day": "'2026-02-01'", "livemode": "false", "max_count": "10", "max_minor": "1000"},
	"provider_state": {"breaker_open": "false"},
	"audit_log":      {"actor": "'ana'", "action": "'freeze'", "subject": "'instance'", "reason": "'drill'"},
	"recoveries": {
		"id": id(9), "actor": "'ana'", "reason": "'drill'", "waived": "false", "from_at": "now()", "noticed_at": "now()", "report": "'{}'",
	},
	"api_tokens":   {"id": id(9), "name": "'shop'", "role": "'viewer'", "hash": "sha256('9')"},
	"api_requests": {"id": id(9), "token_id": id(9), "key": "'k9'", "request_hash": "sha256('9')"},
	"audit_chain": {
		"no": "1000001", "audit_id": "COALESCE((SELECT max(id) FROM singil.audit_log), 1)", "hash": "sha256('')",
	},
	"endpoints":     {"id": id(9), "url": "'https://example.com/hook'", "secret": "'whsec_' || repeat('A', 32)"},
	"event_streams": {"endpoint_id": id(9), "stream": id(1)},
	"event_deliveries": {
		"endpoint_id": id(9), "stream": id(1), "seq": "1",
	},
}

// put inserts the row of a table, with other values for some columns.
func put(table string, changes ...string) string {
	row := maps.Clone(rows[table])
	if row == nil {
		panic("no row of " + table)
	}
	for _, change := range changes {
		column, value, _ := strings.Cut(change, "=")
		row[column] = value
	}
	columns := slices.Sorted(maps.Keys(row))
	values := make([]string, len(columns))
	for i, column := range columns {
		values[i] = row[column]
	}
	return fmt.Sprintf("INSERT INTO singil.%s (%s) VALUES (%s)", table, strings.Join(columns, ", "), strings.Join(values, ", "))
}

// set updates one row by its id.
func set(table string, row int, changes string) string {
	return fmt.Sprintf("UPDATE singil.%s SET %s WHERE id = %s", table, changes, id(row))
}

// attempt is an attempt on intent 1 that is armed and settled as state, with
// the number and fence no.
func attempt(no int, state string) []string {
	arm := []string{
		set("payment_intents", 1, fmt.Sprintf("fence = %d", no)),
		put("attempts", "id="+id(100+no), fmt.Sprintf("no=%d", no), fmt.Sprintf("fence=%d", no)),
	}
	if state == "armed" {
		return arm
	}
	return append(arm, set("attempts", 100+no, asAttempt(state)))
}

// What the columns must be in a state.

func asAttempt(state string) string {
	settled := "'2026-02-02Z'"
	if state == "armed" || state == "review" || state == "needs_action" {
		settled = "NULL"
	}
	return fmt.Sprintf("state = '%s', settled_at = %s, evidence = %s", state, settled, shown)
}

func asInvoice(status string) string {
	next, paid, payment := "NULL", "NULL", "NULL"
	switch status {
	case "open":
		next = "'2026-02-01Z'"
	case "paid":
		paid, payment = "'2026-02-01Z'", "'pay_1'"
	}
	return fmt.Sprintf("status = '%s', next_attempt_at = %s, paid_at = %s, payment_id = %s, reason = 'test'", status, next, paid, payment)
}

func asIntent(state string) string {
	provider, died := "'pi_1'", "NULL"
	switch state {
	case "creating":
		provider = "NULL"
	case "dead":
		died = proof
	}
	return fmt.Sprintf("state = '%s', provider_intent_id = %s, death_proof = %s", state, provider, died)
}

// attack is one statement that must be refused, behind others that are legal.
type attack struct {
	name   string
	rule   string // table.constraint or table.trigger
	legal  []string
	attack string
	code   string // SQLSTATE; "": that of the kind of rule
}

var attacks = slices.Concat(constraintAttacks, guardAttacks, onSessionAttacks, checkoutAttacks, keyAttacks)

// constraintAttacks break what one row, or two rows of one table, say.
var constraintAttacks = []attack{
	{rule: "instance.instance_pkey", attack: put("instance", "livemode=true", "environment='production'")},
	{rule: "instance.instance_only_row_check", attack: put("instance", "only_row=false", "livemode=true", "environment='production'")},
	{
		rule: "instance.recovery_needs_a_freeze", name: "unfreeze",
		legal:  []string{`UPDATE singil.instance SET frozen = true, frozen_reason = 'restored', recovery_needed = 'restored', recovery_noticed_at = now(), recovery_from = now()`},
		attack: `UPDATE singil.instance SET frozen = false, frozen_reason = NULL`,
	},
	{
		rule: "instance.recovery_is_whole", legal: []string{`UPDATE singil.instance SET frozen = true, frozen_reason = 'restored'`},
		attack: `UPDATE singil.instance SET recovery_needed = 'restored', recovery_noticed_at = now()`,
	},
	{rule: "instance.instance_environment_check", attack: `UPDATE singil.instance SET environment = 'test'`},
	{rule: "instance.instance_livemode_key", attack: put("instance", "only_row=NULL"), code: "23502"}, // there is no second row to hold it
	{rule: "instance.instance_day_max_count_check", attack: `UPDATE singil.instance SET day_max_count = -1`},
	{rule: "instance.instance_day_max_minor_check", attack: `UPDATE singil.instance SET day_max_minor = -1`},
	{rule: "instance.live_only_in_production", attack: `UPDATE singil.instance SET livemode = true`},
	{rule: "instance.frozen_has_a_reason", attack: `UPDATE singil.instance SET frozen = true`},
	{rule: "instance.frozen_has_a_reason", name: "a reason that is left over", attack: `UPDATE singil.instance SET frozen_reason = 'drill'`},
	{
		rule:   "instance.no_virtual_clock_with_live_money",
		attack: `UPDATE singil.instance SET environment = 'production', livemode = true, virtual_now = now()`,
	},
	{
		rule: "invoices.invoices_livemode_fkey", name: "a database with invoices goes live",
		attack: `UPDATE singil.instance SET environment = 'production', livemode = true`,
	},

	{rule: "customers.customers_pkey", attack: put("customers", "id="+id(1))},
	{rule: "customers.customers_external_id_key", attack: put("customers", "external_id='c1'")},
	{rule: "customers.customers_external_id_check", attack: put("customers", "external_id=''")},
	{
		rule: "customers.customers_provider_customer_id_key", legal: []string{set("customers", 1, "provider_customer_id = 'cus_1'")},
		attack: put("customers", "provider_customer_id='cus_1'"),
	},
	{rule: "customers.customers_name_check", attack: put("customers", "name=repeat('x', 501)")},
	{rule: "customers.customers_email_check", attack: put("customers", "email=repeat('x', 501)")},

	{rule: "payment_methods.payment_methods_pkey", attack: put("payment_methods", "id="+id(1))},
	{rule: "payment_methods.payment_methods_customer_id_fkey", attack: put("payment_methods", "customer_id="+id(77))},
	{rule: "payment_methods.payment_methods_provider_payment_method_id_key", attack: put("payment_methods", "provider_payment_method_id='pm_1'")},
	{rule: "payment_methods.payment_methods_provider_payment_method_id_check", attack: put("payment_methods", "provider_payment_method_id=''")},
	{rule: "payment_methods.payment_methods_last4_check", name: "a whole card number", attack: put("payment_methods", "last4='4343434343434345'")},
	{rule: "payment_methods.payment_methods_exp_month_check", attack: put("payment_methods", "exp_month=13")},
	{rule: "payment_methods.payment_methods_exp_year_check", attack: put("payment_methods", "exp_year=30")},
	{rule: "payment_methods.payment_methods_status_check", attack: put("payment_methods", "status='odd'")},
	{rule: "payment_methods.blocked_has_a_code", attack: put("payment_methods", "status='blocked'")},
	{rule: "payment_methods.expiry_is_whole", attack: put("payment_methods", "exp_month=NULL")},

	{rule: "plans.plans_pkey", attack: put("plans", "id="+id(1))},
	{rule: "plans.plans_external_id_key", attack: put("plans", "external_id='p1'")},
	{rule: "plans.plans_external_id_check", attack: put("plans", "external_id=repeat('x', 201)")},
	{rule: "plans.plans_name_check", attack: put("plans", "name=repeat('x', 501)")},
	{rule: "plans.plans_amount_minor_check", attack: put("plans", "amount_minor=0")},
	{rule: "plans.plans_amount_minor_check", name: "too much", attack: put("plans", "amount_minor=1000000000")},
	{rule: "plans.plans_currency_check", attack: put("plans", "currency='USD'")},
	{rule: "plans.plans_interval_unit_check", attack: put("plans", "interval_unit='hour'")},
	{rule: "plans.plans_interval_count_check", attack: put("plans", "interval_count=0")},
	{rule: "plans.plans_catch_up_check", attack: put("plans", "catch_up='guess'")},

	{rule: "subscriptions.subscriptions_pkey", attack: put("subscriptions", "id="+id(1))},
	{rule: "subscriptions.subscriptions_external_id_key", attack: put("subscriptions", "external_id='s1'")},
	{rule: "subscriptions.subscriptions_external_id_check", attack: put("subscriptions", "external_id=''")},
	{rule: "subscriptions.subscriptions_customer_id_fkey", attack: put("subscriptions", "customer_id="+id(77))},
	{rule: "subscriptions.subscriptions_plan_id_fkey", attack: put("subscriptions", "plan_id="+id(77))},
	{rule: "subscriptions.subscriptions_next_plan_id_fkey", attack: put("subscriptions", "next_plan_id="+id(77))},
	{rule: "subscriptions.subscriptions_status_check", attack: put("subscriptions", "status='canceled'")},
	{rule: "subscriptions.subscriptions_quantity_check", attack: put("subscriptions", "quantity=0")},
	{rule: "subscriptions.subscriptions_amount_minor_check", attack: put("subscriptions", "amount_minor=-1")},
	{rule: "subscriptions.subscriptions_currency_check", attack: put("subscriptions", "currency='php'")},
	{rule: "subscriptions.subscriptions_interval_unit_check", attack: put("subscriptions", "interval_unit='hour'")},
	{rule: "subscriptions.subscriptions_interval_count_check", attack: put("subscriptions", "interval_count=1001")},
	{rule: "subscriptions.subscriptions_anchor_no_check", attack: put("subscriptions", "anchor_no=-1")},
	{rule: "subscriptions.subscriptions_next_period_no_check", attack: put("subscriptions", "next_period_no=-1")},
	{rule: "subscriptions.subscriptions_catch_up_check", attack: put("subscriptions", "catch_up='guess'")},
	{rule: "subscriptions.subscriptions_catch_up_once_check", attack: put("subscriptions", "catch_up_once='ask'")},
	{rule: "subscriptions.cancelled_has_a_time", attack: set("subscriptions", 1, "status = 'cancelled'")},
	{rule: "subscriptions.cancelled_has_a_time", name: "a time that is left over", attack: set("subscriptions", 1, "cancelled_at = now()")},
	{rule: "subscriptions.paused_has_a_time", attack: set("subscriptions", 1, "status = 'paused'")},
	{rule: "subscriptions.billed_is_due_some_day", attack: set("subscriptions", 1, "next_due_at = NULL")},
	{rule: "subscriptions.billed_is_due_some_day", name: "never", attack: set("subscriptions", 1, "next_due_at = 'infinity'")},

	{rule: "skipped_periods.skipped_periods_pkey", legal: []string{put("skipped_periods")}, attack: put("skipped_periods")},
	{rule: "skipped_periods.skipped_periods_subscription_id_fkey", attack: put("skipped_periods", "subscription_id="+id(77))},
	{rule: "skipped_periods.skipped_periods_first_no_check", attack: put("skipped_periods", "first_no=-1")},
	{rule: "skipped_periods.skipped_periods_check", attack: put("skipped_periods", "last_no=2")},

	{rule: "invoices.invoices_pkey", attack: put("invoices", "id="+id(1))},
	{rule: "invoices.invoices_payment_method_id_fkey", attack: put("invoices", "payment_method_id="+id(77))},
	{rule: "invoices.invoices_livemode_fkey", name: "live money in a test database", attack: put("invoices", "livemode=true")},
	{rule: "invoices.invoices_period_no_check", attack: put("invoices", "period_no=-1")},
	{rule: "invoices.invoices_period_check", attack: put("invoices", "period='empty'")},
	{rule: "invoices.invoices_period_check", name: "without an end", attack: put("invoices", "period='[2030-01-01Z,)'")},
	{rule: "invoices.invoices_period_check", name: "to infinity", attack: put("invoices", "period='[2030-01-01Z,infinity)'")},
	{rule: "invoices.invoices_period_check", name: "closed", attack: put("invoices", "period='[2030-01-01Z,2030-02-01Z]'")},
	{rule: "invoices.invoices_amount_minor_check", attack: put("invoices", "amount_minor=0")},
	{rule: "invoices.invoices_currency_check", attack: put("invoices", "currency='USD'")},
	{rule: "invoices.invoices_status_check", attack: put("invoices", "status='odd'")},
	{rule: "invoices.invoices_waiting_for_check", attack: put("invoices", "waiting_for='godot'")},
	{rule: "invoices.invoices_attempt_count_check", attack: put("invoices", "attempt_count=-1")},
	{rule: "invoices.invoices_poll_count_check", attack: put("invoices", "poll_count=-1")},
	{rule: "invoices.invoices_attempt_trigger_check", attack: put("invoices", "attempt_trigger='odd'")},
	{rule: "invoices.open_has_a_next_attempt", attack: set("invoices", 1, "next_attempt_at = NULL")},
	{rule: "invoices.open_has_a_next_attempt", name: "never", attack: set("invoices", 1, "next_attempt_at = 'infinity'")},
	{rule: "invoices.paid_has_a_time", attack: set("invoices", 1, "status = 'paid', payment_id = 'pay_1'")},
	{rule: "invoices.paid_has_a_time", name: "open with a time", attack: set("invoices", 1, "paid_at = now()")},
	{rule: "invoices.paid_has_a_payment", attack: set("invoices", 1, "status = 'paid', paid_at = now()")},
	{rule: "invoices.ended_has_a_reason", attack: set("invoices", 1, "status = 'void'")},
	{rule: "invoices.period_billed_once", attack: put("invoices", "period_no=1")},
	{rule: "invoices.periods_do_not_overlap", attack: put("invoices", "period="+month(1))},
	{
		rule: "invoices.periods_do_not_overlap", name: "by an instant",
		attack: put("invoices", "period='[2026-03-31 23:59:59.999999Z,2026-04-02Z)'"),
	},
	{
		rule: "invoices.periods_do_not_overlap", name: "before the one with a lower number",
		attack: put("invoices", "period='[2020-01-01Z,2020-02-01Z)'"),
	},
	{
		rule: "invoices.periods_do_not_overlap", name: "in a snapshot that does not see the others",
		legal: []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"}, attack: put("invoices"),
	},

	{rule: "payment_intents.payment_intents_pkey", attack: put("payment_intents", "id="+id(1), "generation=2", "state='dead'", "death_proof="+proof)},
	{rule: "payment_intents.payment_intents_generation_check", attack: put("payment_intents", "generation=0")},
	{rule: "payment_intents.payment_intents_create_key_key", attack: put("payment_intents", "create_key='key1'", "invoice_id="+id(9)), legal: []string{put("invoices")}},
	{rule: "payment_intents.payment_intents_create_key_check", attack: put("payment_intents", "create_key=''")},
	{rule: "payment_intents.payment_intents_create_failures_check", attack: put("payment_intents", "create_failures=30")},
	{rule: "payment_intents.payment_intents_provider_intent_id_key", attack: set("payment_intents", 2, "state = 'ready', provider_intent_id = 'pi_1'")},
	{rule: "payment_intents.payment_intents_provider_intent_id_check", attack: set("payment_intents", 2, "state = 'ready', provider_intent_id = ''")},
	{rule: "payment_intents.payment_intents_state_check", attack: set("payment_intents", 1, "state = 'odd'")},
	{rule: "payment_intents.payment_intents_fence_check", attack: put("payment_intents", "fence=-1")},
	{
		rule: "payment_intents.generation_once", legal: []string{set("payment_intents", 1, asIntent("dead"))},
		attack: put("payment_intents"),
	},
	{rule: "payment_intents.creating_has_no_id", name: "ready without an id", attack: set("payment_intents", 2, "state = 'ready'")},
	{rule: "payment_intents.creating_has_no_id", name: "creating with one", attack: set("payment_intents", 2, "provider_intent_id = 'pi_2'")},
	{rule: "payment_intents.death_has_a_proof", name: "no proof", attack: set("payment_intents", 2, "state = 'dead'")},
	{rule: "payment_intents.death_has_a_proof", name: "a proof of the living", attack: set("payment_intents", 1, "death_proof = "+proof)},
	{rule: "payment_intents.death_was_seen", name: "a 404", attack: set("payment_intents", 1, `state = 'dead', death_proof = '{"kind":"not_found"}'`)},
	{rule: "payment_intents.death_was_seen", name: "null is no proof", attack: set("payment_intents", 1, `state = 'dead', death_proof = 'null'`)},
	{
		rule: "payment_intents.death_was_seen", name: "seen alive",
		attack: set("payment_intents", 1, `state = 'dead', death_proof = '{"provider_intent":{"ID":"pi_1","Status":"awaiting_payment_method"}}'`),
	},
	{
		rule: "payment_intents.death_was_seen", name: "another one's death",
		attack: set("payment_intents", 1, `state = 'dead', death_proof = '{"provider_intent":{"ID":"pi_2","Status":"cancelled"}}'`),
	},
	{rule: "payment_intents.one_intent_not_dead", attack: put("payment_intents", "generation=2")},
	{
		rule: "payment_intents.one_intent_not_dead", name: "beside a succeeded one", legal: []string{set("payment_intents", 1, "state = 'succeeded'")},
		attack: put("payment_intents", "generation=2"),
	},
	{
		rule: "payment_intents.one_intent_not_dead", name: "beside one in review", legal: []string{set("payment_intents", 1, "state = 'review'")},
		attack: put("payment_intents", "generation=2"),
	},

	{rule: "attempts.attempts_pkey", legal: attempt(1, "declined"), attack: put("attempts", "id="+id(101), "no=2", "fence=1")},
	{rule: "attempts.attempts_no_check", attack: put("attempts", "no=0")},
	{rule: "attempts.attempts_trigger_check", attack: put("attempts", "trigger='odd'")},
	{rule: "attempts.attempts_state_check", attack: put("attempts", "state='odd'")},
	{rule: "attempts.attempt_no_once", legal: attempt(1, "declined"), attack: put("attempts")},
	{rule: "attempts.times_in_order", name: "sent before armed", attack: put("attempts", "send_before='2026-01-01Z'")},
	{rule: "attempts.times_in_order", name: "settled before sent", attack: put("attempts", "settled_after='2026-02-01 00:00:30Z'")},
	{rule: "attempts.times_in_order", name: "never settled", attack: put("attempts", "settled_after='infinity'")},
	{rule: "attempts.settled_has_a_time", legal: attempt(1, "armed"), attack: set("attempts", 101, "state = 'declined', evidence = "+shown)},
	{rule: "attempts.settled_has_a_time", name: "armed with one", legal: attempt(1, "armed"), attack: set("attempts", 101, "settled_at = now()")},
	{rule: "attempts.settled_has_evidence", legal: attempt(1, "armed"), attack: set("attempts", 101, "state = 'declined', settled_at = now()")},
	{
		rule: "attempts.no_effect_is_proven", name: "too early", legal: attempt(1, "armed"),
		attack: set("attempts", 101, "state = 'no_effect', settled_at = '2026-02-01 00:14Z', evidence = "+shown),
	},
	{
		rule: "attempts.no_effect_is_proven", name: "too early, evidence of no kind", legal: attempt(1, "armed"),
		attack: set("attempts", 101, "state = 'no_effect', settled_at = '2026-02-01 00:14Z', evidence = '{}'"),
	},
	{
		rule: "attempts.one_open_attempt", legal: attempt(1, "armed"),
		attack: put("attempts", "no=2", "fence=1"),
	},
	{
		rule: "attempts.one_open_attempt", name: "beside one that the customer must confirm", legal: attempt(1, "needs_action"),
		attack: put("attempts", "no=2", "fence=1"),
	},
	{
		rule: "attempts.one_open_attempt", name: "beside one in review", legal: attempt(1, "review"),
		attack: put("attempts", "no=2", "fence=1"),
	},
	{
		rule: "attempts.one_successful_attempt", legal: slices.Concat(attempt(1, "succeeded"), attempt(2, "armed")),
		attack: set("attempts", 102, asAttempt("succeeded")),
	},

	{rule: "payments.payments_pkey", legal: []string{put("payments")}, attack: put("payments")},
	{rule: "payments.payments_invoice_id_fkey", attack: put("payments", "invoice_id="+id(77))},
	{rule: "payments.payments_source_check", attack: put("payments", "source='hearsay'")},

	{rule: "webhook_events.webhook_events_pkey", legal: []string{put("webhook_events")}, attack: put("webhook_events")},
	{rule: "webhook_events.webhook_events_event_id_check", attack: put("webhook_events", "event_id=''")},
	{rule: "webhook_events.unprocessed_has_a_next_try", attack: put("webhook_events", "next_try_at=NULL")},
	{rule: "webhook_events.unprocessed_has_a_next_try", name: "never", attack: put("webhook_events", "next_try_at='infinity'")},
	{rule: "webhook_events.processed_has_a_result", attack: put("webhook_events", "next_try_at=NULL", "processed_at=now()")},

	{rule: "events.events_pkey", legal: []string{put("events")}, attack: strings.Replace(put("events", "id="+id(8), "seq=(SELECT max(seq) FROM singil.events)"), "VALUES", "OVERRIDING SYSTEM VALUE VALUES", 1)},
	{rule: "events.events_id_key", legal: []string{put("events")}, attack: put("events")},

	{rule: "charge_budget.charge_budget_pkey", legal: []string{put("charge_budget")}, attack: put("charge_budget")},
	{rule: "charge_budget.charge_budget_max_count_check", attack: put("charge_budget", "max_count=-1")},
	{rule: "charge_budget.charge_budget_max_minor_check", attack: put("charge_budget", "max_minor=-1")},
	{rule: "charge_budget.charge_budget_used_count_check", attack: put("charge_budget", "used_count=-1")},
	{rule: "charge_budget.charge_budget_used_minor_check", attack: put("charge_budget", "used_minor=-1")},
	{rule: "charge_budget.within_count", legal: []string{put("charge_budget", "used_count=10")}, attack: `UPDATE singil.charge_budget SET used_count = used_count + 1`},
	{rule: "charge_budget.within_minor", legal: []string{put("charge_budget", "used_minor=1000")}, attack: `UPDATE singil.charge_budget SET used_minor = used_minor + 1`},

	{rule: "provider_state.provider_state_pkey", attack: put("provider_state")},
	{rule: "provider_state.provider_state_only_row_check", attack: put("provider_state", "only_row=false")},
	{rule: "provider_state.open_breaker_has_a_reason", attack: `UPDATE singil.provider_state SET breaker_open = true`},

	{rule: "audit_log.audit_log_pkey", legal: []string{put("audit_log")}, attack: strings.Replace(put("audit_log", "id=(SELECT max(id) FROM singil.audit_log)"), "VALUES", "OVERRIDING SYSTEM VALUE VALUES", 1)},
	{rule: "audit_log.audit_log_actor_check", attack: put("audit_log", "actor=''")},
	{rule: "audit_log.audit_log_action_check", attack: put("audit_log", "action=''")},

	{rule: "endpoints.endpoints_pkey", legal: []string{put("endpoints")}, attack: put("endpoints", "url='https://example.com/2'")},
	{rule: "endpoints.endpoints_url_key", legal: []string{put("endpoints")}, attack: put("endpoints", "id="+id(8))},
	{rule: "endpoints.endpoints_url_check", attack: put("endpoints", "url='file:///etc/passwd'")},
	{rule: "endpoints.endpoints_secret_check", attack: put("endpoints", "secret='hunter2'")},
	{rule: "event_streams.event_streams_pkey", legal: []string{put("endpoints"), put("event_streams")}, attack: put("event_streams")},
	{rule: "event_streams.event_streams_endpoint_id_fkey", attack: put("event_streams")},
	{rule: "event_streams.event_streams_tries_check", legal: []string{put("endpoints")}, attack: put("event_streams", "tries=-1")},
	{rule: "event_streams.event_streams_last_error_check", legal: []string{put("endpoints")}, attack: put("event_streams", "last_error=repeat('x', 501)")},
	{rule: "event_streams.parked_waits_for_a_human", legal: []string{put("endpoints")}, attack: put("event_streams", "parked_at=now()", "next_try_at=now()")},
	{
		rule: "event_deliveries.event_deliveries_pkey", legal: []string{put("endpoints"), put("events")},
		attack: put("event_deliveries", "seq=(SELECT max(seq) FROM singil.events)"),
	},
	{
		rule: "event_deliveries.event_deliveries_seq_fkey", legal: []string{put("endpoints"), put("event_streams")},
		attack: put("event_deliveries", "seq=-1"),
	},
	{
		rule: "event_deliveries.event_deliveries_endpoint_id_stream_fkey", legal: []string{put("events")},
		attack: put("event_deliveries", "seq=(SELECT max(seq) FROM singil.events)"),
	},
}

// guardAttacks break what triggers guard. Changes of state have a test of their own.
var guardAttacks = []attack{
	{rule: "payment_intents.guard_payment_intents", name: "another invoice", attack: set("payment_intents", 1, "invoice_id = "+id(9)), legal: []string{put("invoices")}},
	{rule: "payment_intents.guard_payment_intents", name: "another generation", attack: set("payment_intents", 1, "generation = 2")},
	{rule: "payment_intents.guard_payment_intents", name: "another key", attack: set("payment_intents", 1, "create_key = 'other'")},
	{rule: "payment_intents.id_is_forever", attack: set("payment_intents", 1, "id = "+id(9))},
	{rule: "payment_intents.guard_payment_intents", name: "another id of the provider's", attack: set("payment_intents", 1, "provider_intent_id = 'pi_9'")},
	{
		rule: "payment_intents.guard_payment_intents", name: "the fence falls", legal: []string{set("payment_intents", 1, "fence = 5")},
		attack: set("payment_intents", 1, "fence = 4"),
	},
	{
		rule: "payment_intents.guard_payment_intents", name: "another proof", legal: []string{set("payment_intents", 1, asIntent("dead"))},
		attack: set("payment_intents", 1, `death_proof = '{"provider_intent":{"ID":"pi_1","Status":"cancelled"},"late":true}'`),
	},
	{
		rule: "payment_intents.guard_payment_intents", name: "one bad row of a batch",
		attack: `UPDATE singil.payment_intents SET fence = fence + 1, create_key = CASE WHEN id = ` + id(2) + ` THEN 'other' ELSE create_key END`,
	},
	{rule: "payment_intents.guard_payment_intents", name: "dies with an armed attempt", legal: attempt(1, "armed"), attack: set("payment_intents", 1, asIntent("dead"))},
	{rule: "payment_intents.guard_payment_intents", name: "dies with an attempt in review", legal: attempt(1, "review"), attack: set("payment_intents", 1, asIntent("dead"))},
	{rule: "payment_intents.guard_payment_intents", name: "dies while the customer confirms", legal: attempt(1, "needs_action"), attack: set("payment_intents", 1, asIntent("dead"))},
	{rule: "payment_intents.guard_payment_intents", name: "dies with a success", legal: attempt(1, "succeeded"), attack: set("payment_intents", 1, asIntent("dead"))},

	{rule: "attempts.guard_new_attempts", name: "born declined", attack: put("attempts", "state='declined'", "settled_at=now()", "evidence="+shown)},
	{rule: "attempts.guard_new_attempts", name: "born succeeded", attack: put("attempts", "state='succeeded'", "settled_at=now()", "evidence="+shown)},
	{
		rule: "attempts.guard_new_attempts", name: "on an intent that is being created",
		attack: put("attempts", "payment_intent_id="+id(2), "invoice_id="+id(2)),
	},
	{rule: "attempts.guard_new_attempts", name: "on a dead intent", legal: []string{set("payment_intents", 1, asIntent("dead"))}, attack: put("attempts")},
	{rule: "attempts.guard_new_attempts", name: "on a succeeded intent", legal: []string{set("payment_intents", 1, asIntent("succeeded"))}, attack: put("attempts")},
	{rule: "attempts.guard_new_attempts", name: "on an intent in review", legal: []string{set("payment_intents", 1, asIntent("review"))}, attack: put("attempts")},
	{rule: "attempts.guard_new_attempts", name: "an old fence", legal: []string{set("payment_intents", 1, "fence = 2")}, attack: put("attempts", "fence=1")},
	{rule: "attempts.guard_new_attempts", name: "a fence ahead", attack: put("attempts", "fence=1")},
	{rule: "attempts.guard_new_attempts", name: "a fence that was used", legal: attempt(1, "declined"), attack: put("attempts", "no=2", "fence=1")},
	{rule: "attempts.guard_new_attempts", name: "another's invoice", attack: put("attempts", "invoice_id="+id(2))},
	{rule: "attempts.guard_new_attempts", name: "another's card", attack: put("attempts", "payment_method_id="+id(2), "provider_payment_method_id='pm_2'")},
	{rule: "attempts.guard_new_attempts", name: "another's card under the name of one's own", attack: put("attempts", "provider_payment_method_id='pm_2'")},
	{rule: "attempts.guard_new_attempts", name: "a paid invoice", legal: []string{set("invoices", 1, asInvoice("paid"))}, attack: put("attempts")},
	{rule: "attempts.guard_new_attempts", name: "a void invoice", legal: []string{set("invoices", 1, asInvoice("void"))}, attack: put("attempts")},
	{rule: "attempts.guard_new_attempts", name: "an invoice in review", legal: []string{set("invoices", 1, asInvoice("review"))}, attack: put("attempts")},
	{rule: "attempts.guard_new_attempts", name: "an invoice that was given up", legal: []string{set("invoices", 1, asInvoice("uncollectible"))}, attack: put("attempts")},
	{
		rule: "attempts.guard_new_attempts", name: "frozen",
		legal:  []string{`UPDATE singil.instance SET frozen = true, frozen_reason = 'drill'`},
		attack: put("attempts"),
	},

	{rule: "attempts.id_is_forever", legal: attempt(1, "declined"), attack: set("attempts", 101, "id = "+id(9)+", state = 'armed', settled_at = NULL")},
	{rule: "attempts.guard_attempts", name: "another number", legal: attempt(1, "armed"), attack: set("attempts", 101, "no = 2")},
	{rule: "attempts.guard_attempts", name: "another intent", legal: attempt(1, "armed"), attack: set("attempts", 101, "payment_intent_id = "+id(2))},
	{rule: "attempts.guard_attempts", name: "another invoice", legal: attempt(1, "armed"), attack: set("attempts", 101, "invoice_id = "+id(2))},
	{rule: "attempts.guard_attempts", name: "another fence", legal: attempt(1, "armed"), attack: set("attempts", 101, "fence = 2")},
	{rule: "attempts.guard_attempts", name: "another card", legal: attempt(1, "armed"), attack: set("attempts", 101, "payment_method_id = "+id(2))},
	{rule: "attempts.guard_attempts", name: "another card of the provider's", legal: attempt(1, "armed"), attack: set("attempts", 101, "provider_payment_method_id = 'pm_2'")},
	{rule: "attempts.guard_attempts", name: "another trigger", legal: attempt(1, "armed"), attack: set("attempts", 101, "trigger = 'manual'")},
	{rule: "attempts.guard_attempts", name: "more time to send", legal: attempt(1, "armed"), attack: set("attempts", 101, "send_before = '2026-02-01 00:05Z'")},
	{rule: "attempts.guard_attempts", name: "settled sooner", legal: attempt(1, "armed"), attack: set("attempts", 101, "settled_after = '2026-02-01 00:02Z'")},
	{rule: "attempts.guard_attempts", name: "armed earlier", legal: attempt(1, "armed"), attack: set("attempts", 101, "armed_at = '2026-01-01Z'")},
	{rule: "attempts.guard_attempts", name: "another decline code", legal: attempt(1, "declined"), attack: set("attempts", 101, "decline_code = 'lost_card'")},
	{rule: "attempts.guard_attempts", name: "other evidence", legal: attempt(1, "declined"), attack: set("attempts", 101, `evidence = '{"kind":"hearsay"}'`)},
	{rule: "attempts.guard_attempts", name: "another time", legal: attempt(1, "no_effect"), attack: set("attempts", 101, `settled_at = now()`)},
	{rule: "attempts.guard_attempts", name: "another payment", legal: attempt(1, "succeeded"), attack: set("attempts", 101, `payment_id = 'pay_9'`)},

	{rule: "invoices.guard_invoices", name: "another price", attack: set("invoices", 9, "amount_minor = 1"), legal: []string{put("invoices")}},
	{rule: "invoices.guard_invoices", name: "another period", attack: set("invoices", 1, "period = "+month(8))},
	{rule: "invoices.guard_invoices", name: "another number", attack: set("invoices", 1, "period_no = 8")},
	{rule: "invoices.guard_invoices", name: "another payer", attack: set("invoices", 1, "customer_id = "+id(2))},
	{rule: "invoices.guard_invoices", name: "due later", attack: set("invoices", 1, "due_at = now() + interval '1 year'")},
	{rule: "invoices.id_is_forever", attack: set("invoices", 9, "id = "+id(8)+", amount_minor = 1"), legal: []string{put("invoices")}},
	{
		rule: "invoices.guard_invoices", name: "another subscription", attack: set("invoices", 1, "subscription_id = "+id(9)),
		legal: []string{put("subscriptions")},
	},
	{
		rule: "invoices.guard_invoices", name: "paid by another payment", legal: []string{set("invoices", 1, asInvoice("paid"))},
		attack: set("invoices", 1, "payment_id = 'pay_9'"),
	},

	{rule: "attempts.append_only", name: "delete", attack: `DELETE FROM singil.attempts`},
	{rule: "attempts.append_only", name: "truncate", attack: `TRUNCATE singil.attempts`},
	{rule: "payments.append_only", name: "delete", attack: `DELETE FROM singil.payments`},
	{rule: "payments.append_only", name: "truncate", attack: `TRUNCATE singil.payments CASCADE`},
	{rule: "payment_intents.append_only", name: "delete", attack: `DELETE FROM singil.payment_intents`},
	{rule: "payment_intents.append_only", name: "truncate", attack: `TRUNCATE singil.payment_intents CASCADE`},
	{rule: "payment_intents.append_only", name: "by way of the subscriptions", attack: `TRUNCATE singil.subscriptions CASCADE`},
	{rule: "audit_chain.audit_chain_pkey", legal: []string{put("audit_log"), put("audit_chain")}, attack: put("audit_chain")},
	{rule: "audit_chain.audit_chain_audit_id_key", legal: []string{put("audit_log"), put("audit_chain")}, attack: put("audit_chain", "no=1000002")},
	{rule: "audit_chain.audit_chain_audit_id_fkey", attack: put("audit_chain", "audit_id=999999")},
	{rule: "audit_chain.audit_chain_no_check", legal: []string{put("audit_log")}, attack: put("audit_chain", "no=0")},
	{rule: "audit_chain.audit_chain_hash_check", legal: []string{put("audit_log")}, attack: put("audit_chain", "hash='x'")},
	{
		rule: "refunds.refunds_pkey", legal: []string{put("payments"), put("refunds"), set("refunds", 9, refusedRefund)},
		attack: put("refunds"),
	},
	{rule: "refunds.refunds_payment_id_fkey", attack: put("refunds", "payment_id='pay_none'")},
	{rule: "refunds.refunds_amount_minor_check", legal: []string{put("payments")}, attack: put("refunds", "amount_minor=0")},
	{rule: "refunds.refunds_state_check", legal: []string{put("payments")}, attack: put("refunds", "state='lost'", "closed_at=now()")},
	{
		rule: "refunds.refunds_provider_refund_id_key", legal: []string{put("payments"), put("refunds"), set("refunds", 9, acceptedRefund)},
		attack: put("refunds", "id="+id(8), "state='accepted'", "provider_refund_id='ref_1'", "closed_at=now()"),
	},
	{
		rule: "refunds.refunds_provider_refund_id_check", legal: []string{put("payments"), put("refunds")},
		attack: set("refunds", 9, "state = 'accepted', provider_refund_id = '', closed_at = now()"),
	},
	{rule: "refunds.closed_has_a_time", legal: []string{put("payments")}, attack: put("refunds", "closed_at=now()")},
	{
		rule: "refunds.accepted_has_an_id", legal: []string{put("payments"), put("refunds")},
		attack: set("refunds", 9, "state = 'accepted', closed_at = now()"),
	},
	{
		rule: "refunds.refused_has_a_result", legal: []string{put("payments"), put("refunds")},
		attack: set("refunds", 9, "state = 'refused', closed_at = now()"),
	},
	{rule: "refunds.one_open_refund", legal: []string{put("payments"), put("refunds")}, attack: put("refunds", "id="+id(8))},
	{rule: "refunds.guard_refunds", name: "more than was paid", legal: []string{put("payments")}, attack: put("refunds", "amount_minor=49901")},
	{rule: "refunds.guard_refunds", name: "nothing was paid", legal: []string{put("payments", "status='failed'")}, attack: put("refunds")},
	{
		rule: "refunds.guard_refunds", name: "more than is left", legal: []string{put("payments"), put("refunds"), set("refunds", 9, acceptedRefund)},
		attack: put("refunds", "id="+id(8), "amount_minor=49900"),
	},
	{
		rule: "refunds.guard_refunds", name: "of a refund that was refused", attack: set("refunds", 9, "result = 'no'"),
		legal: []string{put("payments"), put("refunds", "amount_minor=49900"), set("refunds", 9, refusedRefund), put("refunds", "id="+id(8), "amount_minor=49900")},
	},
	{
		rule: "refunds.guard_refunds", name: "asked for again", legal: []string{put("payments"), put("refunds"), set("refunds", 9, refusedRefund)},
		attack: set("refunds", 9, "state = 'asked', closed_at = NULL"),
	},
	{rule: "refunds.guard_refunds", name: "another amount", legal: []string{put("payments"), put("refunds")}, attack: set("refunds", 9, "amount_minor = 200")},
	{rule: "refunds.id_is_forever", legal: []string{put("payments"), put("refunds")}, attack: set("refunds", 9, "id = "+id(8))},
	{rule: "refunds.append_only", name: "delete", attack: `DELETE FROM singil.refunds`},
	{rule: "refunds.append_only", name: "truncate", attack: `TRUNCATE singil.refunds`},
	{rule: "api_tokens.api_tokens_pkey", legal: []string{put("api_tokens")}, attack: put("api_tokens", "name='web'", "hash=sha256('8')")},
	{rule: "api_tokens.api_tokens_name_check", attack: put("api_tokens", "name='Shop 1'")},
	{rule: "api_tokens.api_tokens_role_check", attack: put("api_tokens", "role='owner'")},
	{rule: "api_tokens.api_tokens_hash_key", legal: []string{put("api_tokens")}, attack: put("api_tokens", "id="+id(8), "name='web'")},
	{rule: "api_tokens.api_tokens_hash_check", attack: put("api_tokens", "hash='x'")},
	{
		rule: "api_tokens.api_tokens_one_of_a_name", legal: []string{put("api_tokens")},
		attack: put("api_tokens", "id="+id(8), "hash=sha256('8')"),
	},
	{rule: "api_tokens.guard_api_tokens", name: "more rights", legal: []string{put("api_tokens")}, attack: set("api_tokens", 9, "role = 'admin'")},
	{rule: "api_tokens.guard_api_tokens", name: "another secret", legal: []string{put("api_tokens")}, attack: set("api_tokens", 9, "hash = sha256('8')")},
	{rule: "api_tokens.guard_api_tokens", name: "another name", legal: []string{put("api_tokens")}, attack: set("api_tokens", 9, "name = 'web'")},
	{
		rule: "api_tokens.guard_api_tokens", name: "a longer life", legal: []string{put("api_tokens", "expires_at=now()")},
		attack: set("api_tokens", 9, "expires_at = NULL"),
	},
	{
		rule: "api_tokens.guard_api_tokens", name: "back from the dead", legal: []string{put("api_tokens"), set("api_tokens", 9, "revoked_at = now()")},
		attack: set("api_tokens", 9, "revoked_at = NULL"),
	},
	{rule: "api_tokens.append_only", name: "delete", attack: `DELETE FROM singil.api_tokens`},
	{rule: "api_tokens.append_only", name: "truncate", attack: `TRUNCATE singil.api_tokens CASCADE`},
	{
		rule: "api_requests.api_requests_pkey", legal: []string{put("api_tokens"), put("api_requests")},
		attack: put("api_requests", "key='k8'"),
	},
	{rule: "api_requests.api_requests_token_id_fkey", attack: put("api_requests")},
	{rule: "api_requests.api_requests_key_check", legal: []string{put("api_tokens")}, attack: put("api_requests", "key=''")},
	{rule: "api_requests.api_requests_request_hash_check", legal: []string{put("api_tokens")}, attack: put("api_requests", "request_hash='x'")},
	{rule: "api_requests.api_requests_claims_check", legal: []string{put("api_tokens")}, attack: put("api_requests", "claims=0")},
	{rule: "api_requests.api_requests_status_check", legal: []string{put("api_tokens")}, attack: put("api_requests", "status=500", "answer='{}'")},
	{
		rule: "api_requests.one_request_of_a_key", legal: []string{put("api_tokens"), put("api_requests")},
		attack: put("api_requests", "id="+id(8), "request_hash=sha256('8')"),
	},
	{rule: "api_requests.answered_has_an_answer", legal: []string{put("api_tokens")}, attack: put("api_requests", "status=200")},
	{
		rule: "api_requests.answered_is_not_claimed", legal: []string{put("api_tokens")},
		attack: put("api_requests", "status=200", "answer='{}'", "claimed_until=now()"),
	},
	{
		rule: "api_requests.guard_api_requests", name: "another answer", legal: []string{put("api_tokens"), put("api_requests", "status=200", "answer='{}'")},
		attack: set("api_requests", 9, "answer = '[]'"),
	},
	{
		rule: "api_requests.guard_api_requests", name: "another request", legal: []string{put("api_tokens"), put("api_requests")},
		attack: set("api_requests", 9, "request_hash = sha256('8')"),
	},
	{
		rule: "api_requests.guard_api_requests", name: "fewer claims", legal: []string{put("api_tokens"), put("api_requests", "claims=2")},
		attack: set("api_requests", 9, "claims = 1"),
	},
	{rule: "recoveries.recoveries_pkey", legal: []string{put("recoveries")}, attack: put("recoveries", "actor='ben'")},
	{rule: "recoveries.recoveries_actor_check", attack: put("recoveries", "actor=''")},
	{rule: "recoveries.append_only", name: "delete", attack: `DELETE FROM singil.recoveries`},
	{rule: "recoveries.append_only", name: "truncate", attack: `TRUNCATE singil.recoveries`},
	{rule: "recoveries.append_only", name: "update", attack: `UPDATE singil.recoveries SET waived = true`},
	{rule: "audit_chain.append_only", name: "delete", attack: `DELETE FROM singil.audit_chain`},
	{rule: "audit_chain.append_only", name: "truncate", attack: `TRUNCATE singil.audit_chain`},
	{rule: "audit_chain.append_only", name: "update", attack: `UPDATE singil.audit_chain SET no = no + 1`},
	{rule: "audit_log.append_only", name: "delete", attack: `DELETE FROM singil.audit_log`},
	{rule: "audit_log.append_only", name: "truncate", attack: `TRUNCATE singil.audit_log CASCADE`},
	{rule: "audit_log.append_only", name: "update", attack: `UPDATE singil.audit_log SET actor = 'nobody'`},
}

// accepted is what must not be refused: history that came late, money that
// nobody expected.
var accepted = []struct {
	name  string
	rule  string // a trigger that this is the test of, which refuses nothing
	legal []string
	want  string // a query that must be true in the end; "": it is enough that nothing was refused
}{
	{name: "a decline turns out to be a success", legal: append(attempt(1, "declined"), set("attempts", 101, asAttempt("succeeded")))},
	{name: "what seemed to be without effect turns out to be a success", legal: append(attempt(1, "no_effect"), set("attempts", 101, asAttempt("succeeded")))},
	{
		name: "never sent is known at once",
		legal: append(attempt(1, "armed"),
			set("attempts", 101, `state = 'no_effect', settled_at = '2026-02-01 00:00:01Z', evidence = '{"kind":"never_sent"}'`)),
	},
	{
		name: "refused is known at once",
		legal: append(attempt(1, "armed"),
			set("attempts", 101, `state = 'no_effect', settled_at = '2026-02-01 00:00:01Z', evidence = '{"kind":"refused"}'`)),
	},
	{name: "another attempt after a decline", legal: slices.Concat(attempt(1, "declined"), attempt(2, "armed"))},
	{
		name:  "another intent after one that was seen to be cancelled",
		legal: []string{set("payment_intents", 1, asIntent("dead")), put("payment_intents", "generation=2")},
	},
	{name: "an intent that was never created is given up", legal: []string{set("payment_intents", 2, `state = 'dead', death_proof = '{"kind":"policy"}'`)}},
	{
		name:  "an intent dies with its declined attempts",
		legal: append(attempt(1, "declined"), set("payment_intents", 1, asIntent("dead"))),
	},
	{
		name:  "a success on a dead intent",
		legal: slices.Concat(attempt(1, "declined"), []string{set("payment_intents", 1, asIntent("dead")), set("attempts", 101, asAttempt("succeeded"))}),
	},
	{
		name:  "a second capture of an invoice",
		legal: []string{put("payments"), put("payments", "payment_id='pay_8'")},
		want:  `SELECT count(*) = 2 FROM singil.payments WHERE status = 'paid' AND invoice_id = ` + id(1),
	},
	{
		name: "money of nobody, in another currency and mode, of a status that is new to us",
		legal: []string{
			put("payments", "invoice_id=NULL", "provider_intent_id=NULL", "amount_minor=0", "currency='USD'", "livemode=true", "status='disputed'"),
		},
	},
	{
		name:  "money when frozen",
		legal: []string{`UPDATE singil.instance SET frozen = true, frozen_reason = 'drill'`, put("payments")},
	},
	{
		name: "an attempt is settled when frozen",
		legal: slices.Concat(attempt(1, "armed"), []string{
			`UPDATE singil.instance SET frozen = true, frozen_reason = 'drill'`, set("attempts", 101, asAttempt("succeeded")), set("payment_intents", 1, "state = 'succeeded'"),
			set("invoices", 1, asInvoice("paid")),
		}),
	},
	{name: "periods that touch", legal: []string{put("invoices", "period="+month(3))}},
	{name: "the same period of another subscription", legal: []string{put("subscriptions"), put("invoices", "subscription_id="+id(9), "period_no=1", "period="+month(1))}},
	{name: "the last of the budget", legal: []string{put("charge_budget"), `UPDATE singil.charge_budget SET used_count = max_count, used_minor = max_minor`}},
	{
		name: "an entry is chained at the commit", rule: "audit_log.chain_audit_log",
		legal: []string{put("audit_log"), `SET CONSTRAINTS ALL IMMEDIATE`},
		want:  `SELECT count(*) = 1 FROM singil.audit_chain WHERE audit_id = (SELECT max(id) FROM singil.audit_log)`,
	},
	{
		name: "an event goes to every endpoint that is on", rule: "events.fan_out_events",
		legal: []string{
			put("endpoints"), put("endpoints", "id="+id(8), "url='https://example.com/2'"),
			put("endpoints", "id="+id(7), "url='https://example.com/3'", "enabled=false"), put("events"),
		},
		want: `SELECT array_agg(d.endpoint_id ORDER BY d.endpoint_id) = ARRAY[` + id(8) + `, ` + id(9) + `]
		       FROM singil.event_deliveries d JOIN singil.event_streams s USING (endpoint_id, stream)
		       WHERE s.next_try_at IS NOT NULL AND stream = ` + id(1),
	},
	{
		name: "many events of one subscription at once",
		legal: []string{
			put("endpoints"),
			`INSERT INTO singil.events (id, type, subscription_id, data, occurred_at)
			 SELECT gen_random_uuid(), 'invoice.paid', ` + id(1) + `, '{}', now() FROM generate_series(1, 100)`,
		},
		want: `SELECT count(*) = 100 AND count(DISTINCT stream) = 1 FROM singil.event_deliveries`,
	},
}

// attacked is a database with the seeds.
func attacked(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.DB(t)
	for _, seed := range seeds {
		do(t, pool, seed)
	}
	return pool
}

// undone runs statements in a transaction that is rolled back, and returns the
// error of the last one. The others must succeed.
func undone(t *testing.T, pool *pgxpool.Pool, statements ...string) error {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	for i, statement := range statements {
		switch _, err := tx.Exec(t.Context(), statement); {
		case i == len(statements)-1:
			return err
		case err != nil:
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return nil
}

var ofFunction = regexp.MustCompile(`PL/pgSQL function singil\.(\w+)\(\)`)

// broken names the rule that an error is about.
func broken(err error) (rule, code string) {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return fmt.Sprint(err), ""
	}
	if of := ofFunction.FindStringSubmatch(refused.Where); of != nil {
		return of[1], refused.Code
	}
	return refused.TableName + "." + refused.ConstraintName, refused.Code
}

func TestAttacks(t *testing.T) {
	t.Parallel()
	pool := attacked(t)
	kinds := ruleKinds(t, pool)
	for _, a := range attacks {
		t.Run(a.rule+"/"+cmp.Or(a.name, "plain"), func(t *testing.T) {
			table, name, _ := strings.Cut(a.rule, ".")
			rule, code := broken(undone(t, pool, append(slices.Clone(a.legal), a.attack)...))
			if a.code != "" {
				// Another rule stands in front of this one, which nothing can break alone.
				if code != a.code {
					t.Errorf("%s\nis refused by %s with %q, want %s", a.attack, rule, code, a.code)
				}
				return
			}
			want := a.rule
			if kinds[a.rule] == "trigger" {
				want = name
			}
			if rule != want || !slices.Contains(codes[kinds[a.rule]], code) {
				t.Errorf("%s\nis refused by %s with %q, want %s of %s with %v", a.attack, rule, code, want, table, codes[kinds[a.rule]])
			}
		})
	}
}

// codes are the SQLSTATEs of the kinds of rules.
var codes = map[string][]string{
	"c": {"23514"}, "u": {"23505"}, "p": {"23505"}, "x": {"23P01"}, "index": {"23505"}, "trigger": {"23000"},
	"f": {"23503", "23001"}, // from PostgreSQL 18 on, ON DELETE RESTRICT has a code of its own
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	pool := attacked(t)
	for _, a := range accepted {
		t.Run(a.name, func(t *testing.T) {
			want := a.want
			if want == "" {
				want = "SELECT true"
			}
			check := fmt.Sprintf("DO $do$ BEGIN IF (%s) IS NOT TRUE THEN RAISE EXCEPTION 'not what it should be'; END IF; END $do$", want)
			if err := undone(t, pool, append(slices.Clone(a.legal), check)...); err != nil {
				t.Error(err)
			}
		})
	}
}

const sqlRules = `
SELECT conrelid::regclass::text || '.' || conname AS rule, contype::text AS kind
FROM pg_constraint
WHERE connamespace = 'singil'::regnamespace AND conrelid <> 'singil.goose_db_version'::regclass AND contype IN ('c', 'u', 'p', 'x', 'f')
UNION ALL
SELECT i.indrelid::regclass::text || '.' || c.relname, 'index'
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'singil'::regnamespace AND (i.indisunique OR i.indisexclusion)
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('u', 'p', 'x'))
UNION ALL
SELECT tg.tgrelid::regclass::text || '.' || tg.tgname, 'trigger'
FROM pg_trigger tg
JOIN pg_class c ON c.oid = tg.tgrelid
WHERE NOT tg.tgisinternal AND c.relnamespace = 'singil'::regnamespace`

// ruleKinds reads every rule of the schema that a statement can break.
func ruleKinds(t *testing.T, pool *pgxpool.Pool) map[string]string {
	t.Helper()
	found, err := pool.Query(t.Context(), sqlRules)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	var rule, kind string
	if _, err := pgx.ForEachRow(found, []any{&rule, &kind}, func() error {
		kinds[strings.TrimPrefix(rule, "singil.")] = kind
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return kinds
}

// TestEveryRuleIsAttacked fails for a new rule that nobody has tried to break,
// and for an attack on one that is gone.
func TestEveryRuleIsAttacked(t *testing.T) {
	t.Parallel()
	kinds := ruleKinds(t, pgtest.DB(t))
	if len(kinds) < 140 {
		t.Errorf("only %d rules are found", len(kinds))
	}
	named := map[string]bool{}
	for _, a := range attacks {
		named[a.rule] = true
	}
	for _, a := range accepted {
		if a.rule != "" {
			named[a.rule] = true
		}
	}
	for rule, kind := range kinds {
		if !named[rule] {
			t.Errorf("nobody attacks %s (%s)", rule, kind)
		}
	}
	for rule := range named {
		if kinds[rule] == "" {
			t.Errorf("%s is attacked and is not there", rule)
		}
	}
}

const sqlNotNull = `
SELECT c.relname, a.attname
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'singil'::regnamespace AND c.relkind = 'r' AND c.relname <> 'goose_db_version'
  AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND a.attidentity = ''`

// TestNothingMayBeMissing leaves out every column that is NOT NULL, one at a time.
func TestNothingMayBeMissing(t *testing.T) {
	t.Parallel()
	pool := attacked(t)
	found, err := pool.Query(t.Context(), sqlNotNull)
	if err != nil {
		t.Fatal(err)
	}
	type column struct{ Table, Name string }
	columns, err := pgx.CollectRows(found, pgx.RowToStructByPos[column])
	if err != nil || len(columns) < 100 {
		t.Fatalf("%d columns: %v", len(columns), err)
	}
	for _, c := range columns {
		err := undone(t, pool, put(c.Table, c.Name+"=NULL"))
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "23502" || refused.ColumnName != c.Name {
			t.Errorf("%s without %s: %v", c.Table, c.Name, err)
		}
	}
}

const sqlCascades = `
SELECT conname FROM pg_constraint
WHERE connamespace = 'singil'::regnamespace AND contype = 'f' AND (confdeltype NOT IN ('r', 'a') OR confupdtype NOT IN ('r', 'a'))`

// TestNothingIsDeletedByTheWay: a deletion takes nothing with it.
func TestNothingIsDeletedByTheWay(t *testing.T) {
	t.Parallel()
	found, err := pgtest.DB(t).Query(t.Context(), sqlCascades)
	if err != nil {
		t.Fatal(err)
	}
	if cascades, err := pgx.CollectRows(found, pgx.RowTo[string]); err != nil || len(cascades) > 0 {
		t.Errorf("foreign keys that delete or change rows: %v %v", cascades, err)
	}
}
