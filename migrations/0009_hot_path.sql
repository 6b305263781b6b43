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
ALTER TABLE payment_intents ADD COLUMN dead boolean GENERATED ALWAYS AS (state = 'dead') STORED;
DROP INDEX one_intent_not_dead;
CREATE UNIQUE INDEX one_intent_not_dead ON payment_intents (invoice_id) WHERE NOT dead;
ALTER TABLE payment_intents SET (fillfactor = 80);

-- What is compared at every change of an invoice is what costs. A GiST index costs
-- as much as all the others of the table, and here it can say no only to a new row:
-- a period is written once. Periods follow one another by their numbers, so the
-- neighbours tell. Who opens an invoice holds the subscription, and whoever comes
-- next waits for it, and then sees it.
ALTER TABLE invoices DROP CONSTRAINT periods_do_not_overlap;

-- +goose StatementBegin
CREATE FUNCTION periods_do_not_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'invoices are opened in read committed transactions only: in a % one the invoice that was waited for is not seen', current_setting('transaction_isolation')
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  PERFORM FROM singil.subscriptions s WHERE s.id IN (SELECT n.subscription_id FROM n) ORDER BY s.id FOR NO KEY UPDATE;
  SELECT n.subscription_id, n.period_no, n.period INTO bad FROM n
  WHERE lower(n.period) < (SELECT upper(i.period) FROM singil.invoices i
                           WHERE i.subscription_id = n.subscription_id AND i.period_no < n.period_no ORDER BY i.period_no DESC LIMIT 1)
     OR upper(n.period) > (SELECT lower(i.period) FROM singil.invoices i
                           WHERE i.subscription_id = n.subscription_id AND i.period_no > n.period_no ORDER BY i.period_no LIMIT 1)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'period % of subscription % is %, which does not lie between its neighbours', bad.period_no, bad.subscription_id, bad.period
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER periods_do_not_overlap AFTER INSERT ON invoices
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION periods_do_not_overlap();
