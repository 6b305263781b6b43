-- What each role of deploy/sql/roles.sql may do, all of it: what was granted before and is not here is taken back.
-- A new table or column has its line here, in the change that brings it. Tests hold that no statement of singil
-- lacks a right, and that no right is here that no statement needs.

REVOKE ALL ON ALL TABLES IN SCHEMA singil, river FROM PUBLIC, singil_worker, singil_operator, singil_readonly;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA singil, river FROM PUBLIC, singil_worker, singil_operator, singil_readonly;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA singil, river FROM PUBLIC, singil_worker, singil_operator, singil_readonly;
REVOKE ALL ON SCHEMA singil, river FROM PUBLIC, singil_worker, singil_operator, singil_readonly;

GRANT USAGE ON SCHEMA singil, river TO singil_worker, singil_operator, singil_readonly;

-- singil_worker: singil run --------------------------------------------------------------------------------------

GRANT SELECT ON ALL TABLES IN SCHEMA singil, river TO singil_worker;

GRANT INSERT ON
  singil.instance, singil.invoices, singil.skipped_periods, singil.payment_intents, singil.attempts, singil.payments,
  singil.charge_budget, singil.webhook_events, singil.events, singil.event_streams, singil.event_deliveries,
  singil.audit_log, singil.audit_chain
TO singil_worker;

-- What has been delivered and what is past its retention. Nothing else is ever deleted, and nothing truncated.
GRANT DELETE ON singil.webhook_events, singil.events, singil.event_deliveries, singil.api_requests TO singil_worker;

-- The whole row: who freezes takes LOCK TABLE, and that asks for the right on the table.
GRANT UPDATE ON singil.instance TO singil_worker;

-- Columns. Who is billed what for which period is in none of these lists, nor is what an attempt was armed with.
GRANT UPDATE (status, amount_minor, interval_unit, interval_count, anchor_at, anchor_no, next_period_no, next_due_at,
              last_charge_at, cancelled_at, paused_at, plan_id, next_plan_id, dunning, catch_up, catch_up_once,
              parked_reason, updated_at) ON singil.subscriptions TO singil_worker;
GRANT UPDATE (last_catch_up_at) ON singil.customers TO singil_worker;
GRANT UPDATE (status, blocked_code, expiry_notified_at, updated_at) ON singil.payment_methods TO singil_worker;
GRANT UPDATE (status, next_attempt_at, claimed, waiting_for, attempt_count, first_attempt_at, poll_count, look_back_at, look_backs, held_from, held_until, attempt_trigger,
              payment_method_id, decline_code, reason, action_url, paid_at, payment_id, updated_at)
  ON singil.invoices TO singil_worker;
GRANT UPDATE (create_failures, provider_intent_id, state, death_proof, fence, updated_at) ON singil.payment_intents TO singil_worker;
GRANT UPDATE (state, settled_at, decline_code, payment_id, evidence) ON singil.attempts TO singil_worker;
GRANT UPDATE (status, invoice_id, card_setup_id, provider_intent_id, refunded_minor) ON singil.payments TO singil_worker;
GRANT UPDATE (state, payment_id, payment_method_id, reason, next_look_at, looks, updated_at) ON singil.card_setups TO singil_worker;
-- A card that the customer has saved, whether the browser comes back or not.
GRANT INSERT ON singil.payment_methods TO singil_worker;
GRANT UPDATE (used_count, used_minor) ON singil.charge_budget TO singil_worker;
GRANT UPDATE (blocked_until, next_slot_at, breaker_open, breaker_reason, breaker_at) ON singil.provider_state TO singil_worker;
GRANT UPDATE (next_try_at, tries, processed_at, result) ON singil.webhook_events TO singil_worker;
GRANT UPDATE (next_try_at, lease, tries, failing_since, parked_at, last_error) ON singil.event_streams TO singil_worker;
-- Not to change it: whoever locks a row needs the right to change some column, and Forget locks what it deletes.
GRANT UPDATE (written_at) ON singil.events TO singil_worker;
-- A daemon whose API has no login of its own: it can be read by.
GRANT UPDATE (last_used_at) ON singil.api_tokens TO singil_worker;
GRANT UPDATE (claimed_until) ON singil.api_requests TO singil_worker;

GRANT EXECUTE ON FUNCTION singil.chain_audit_entry, singil.audit_hash TO singil_worker;

-- River's tables are its own, but for its migrations.
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA river TO singil_worker;
REVOKE INSERT, UPDATE, DELETE ON river.river_migration FROM singil_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA river TO singil_worker;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA river TO singil_worker;

-- singil_operator: the commands of people; it is a member of singil_worker ---------------------------------------

GRANT INSERT ON
  singil.plans, singil.customers, singil.card_setups, singil.subscriptions, singil.endpoints, singil.recoveries, singil.refunds,
  singil.api_tokens, singil.api_requests
TO singil_operator;
GRANT UPDATE (state, provider_refund_id, result, closed_at) ON singil.refunds TO singil_operator;
GRANT UPDATE (name, amount_minor, interval_unit, interval_count, dunning, catch_up, updated_at) ON singil.plans TO singil_operator;
GRANT UPDATE (provider_customer_id, name, email, metadata, deleted_at, updated_at) ON singil.customers TO singil_operator;
GRANT UPDATE (brand, last4, exp_month, exp_year, position) ON singil.payment_methods TO singil_operator;
GRANT UPDATE (provider_intent_id) ON singil.card_setups TO singil_operator;
GRANT UPDATE (pauses, cancel_at, metadata) ON singil.subscriptions TO singil_operator;
GRANT UPDATE (adopted, shared_at, checkout_session_id) ON singil.payment_intents TO singil_operator;
GRANT UPDATE (watched_from) ON singil.provider_state TO singil_operator;
GRANT UPDATE (enabled) ON singil.endpoints TO singil_operator;
GRANT UPDATE (revoked_at) ON singil.api_tokens TO singil_operator;
GRANT UPDATE (claims, status, answer) ON singil.api_requests TO singil_operator;

-- singil_readonly: singil check, singil export, Grafana ----------------------------------------------------------

GRANT SELECT ON ALL TABLES IN SCHEMA singil, river TO singil_readonly;
-- But for the secret that events are signed with, the raw bodies of webhooks, and what goes with tokens and answers.
REVOKE SELECT ON singil.endpoints, singil.webhook_events, singil.api_tokens, singil.api_requests FROM singil_readonly;
GRANT SELECT (id, url, enabled, created_at) ON singil.endpoints TO singil_readonly;
GRANT SELECT (event_id, type, livemode, resource_id, provider_intent_id, stale, received_at, next_try_at, tries, processed_at, result)
  ON singil.webhook_events TO singil_readonly;
GRANT SELECT (id, name, role, created_at, expires_at, revoked_at, last_used_at) ON singil.api_tokens TO singil_readonly;
GRANT EXECUTE ON FUNCTION singil.audit_hash TO singil_readonly;
