-- +goose Up

-- What a charge costs, without a change to what the tables promise.

SET LOCAL search_path = singil, public;

-- The guards compare what was with what is, by id. Their plan is made once a
-- session, for as many rows as the first statement has, often a single one: by
-- nested loops a batch of 500 then costs 250,000 comparisons.
ALTER FUNCTION guard_invoices() SET enable_nestloop = off;
ALTER FUNCTION guard_payment_intents() SET enable_nestloop = off;
ALTER FUNCTION guard_attempts() SET enable_nestloop = off;

-- The state is no part of an index any more: an intent that succeeds changes
-- nothing that is indexed, and its row is updated in place.
ALTER TABLE payment_intents ADD COLUMN dead boolean NOT NULL GENERATED ALWAYS AS (state = 'dead') STORED;
DROP INDEX one_intent_not_dead;
CREATE UNIQUE INDEX one_intent_not_dead ON payment_intents (invoice_id) WHERE NOT dead;
