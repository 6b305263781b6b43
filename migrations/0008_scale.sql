-- +goose Up

-- What large tables and large batches cost.

SET LOCAL search_path = singil, public;

-- The guards compare what was with what is in a FULL JOIN, which is hashed or
-- merged, never a loop in a loop. PL/pgSQL plans them once a session, by the first
-- batch, which is often small or empty; a batch of a thousand then took a million
-- comparisons, more time than all the rest of it.

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION guard_payment_intents() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  SELECT COALESCE(n.id, o.id) AS id, o.state AS was, n.state AS is INTO bad FROM o FULL JOIN n USING (id)
  WHERE (n.invoice_id, n.amount_minor, n.currency, n.livemode, n.generation, n.create_key)
        IS DISTINCT FROM (o.invoice_id, o.amount_minor, o.currency, o.livemode, o.generation, o.create_key)
     OR o.provider_intent_id IS NOT NULL AND n.provider_intent_id IS DISTINCT FROM o.provider_intent_id
     OR o.death_proof IS NOT NULL AND n.death_proof IS DISTINCT FROM o.death_proof
     OR n.fence < o.fence
     OR o.state <> n.state AND (o.state, n.state) NOT IN (
          ('creating', 'ready'), ('creating', 'dead'), ('creating', 'review'),
          ('ready', 'succeeded'), ('ready', 'dead'), ('ready', 'review'),
          ('review', 'ready'), ('review', 'succeeded'), ('review', 'dead'))
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'payment intent %: illegal change % -> % (identity, provider id and death proof are written once, the fence only rises)', bad.id, bad.was, bad.is
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  PERFORM FROM n WHERE n.state = 'dead' LIMIT 1;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  -- Two questions, worded as the partial indexes are: each is an index look.
  SELECT n.id INTO bad FROM o FULL JOIN n USING (id)
  WHERE n.state = 'dead' AND o.state <> 'dead'
    AND (EXISTS (SELECT FROM singil.attempts a WHERE a.payment_intent_id = n.id AND a.state IN ('armed', 'review', 'needs_action'))
         OR EXISTS (SELECT FROM singil.attempts a WHERE a.payment_intent_id = n.id AND a.state = 'succeeded'))
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'payment intent % cannot die: an attempt is open or succeeded', bad.id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION guard_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  -- Late truth may turn a negative into a success; nothing else moves back, and
  -- what is settled is not written again.
  SELECT COALESCE(n.id, o.id) AS id, o.state AS was, n.state AS is INTO bad FROM o FULL JOIN n USING (id)
  WHERE (n.payment_intent_id, n.invoice_id, n.no, n.fence, n.payment_method_id, n.provider_payment_method_id, n.trigger, n.armed_at, n.send_before, n.settled_after)
        IS DISTINCT FROM
        (o.payment_intent_id, o.invoice_id, o.no, o.fence, o.payment_method_id, o.provider_payment_method_id, o.trigger, o.armed_at, o.send_before, o.settled_after)
     OR n.state = o.state AND o.settled_at IS NOT NULL
        AND (n.settled_at, n.decline_code, n.payment_id, n.evidence) IS DISTINCT FROM (o.settled_at, o.decline_code, o.payment_id, o.evidence)
     OR n.state <> o.state AND NOT (o.state IN ('armed', 'review', 'needs_action')
                                    OR o.state IN ('declined', 'no_effect') AND n.state = 'succeeded')
     OR n.state <> o.state AND n.state = 'armed'
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'attempt %: illegal change % -> %', bad.id, bad.was, bad.is USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION guard_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  SELECT COALESCE(n.id, o.id) AS id, o.status AS was, n.status AS is INTO bad FROM o FULL JOIN n USING (id)
  WHERE (n.subscription_id, n.customer_id, n.period_no, n.period, n.amount_minor, n.currency, n.livemode, n.due_at)
        IS DISTINCT FROM (o.subscription_id, o.customer_id, o.period_no, o.period, o.amount_minor, o.currency, o.livemode, o.due_at)
     OR o.status = 'paid' AND (n.paid_at, n.payment_id) IS DISTINCT FROM (o.paid_at, o.payment_id)
     -- Review goes anywhere, a human decides. What was given up may still be paid
     -- late; what is void stays so, and late money on it is recorded without it.
     OR o.status <> n.status AND o.status <> 'review' AND (o.status, n.status) NOT IN (
          ('open', 'paid'), ('open', 'void'), ('open', 'uncollectible'), ('open', 'review'), ('uncollectible', 'paid'))
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'invoice %: illegal change % -> % (price and period are written once, paid and void are final)', bad.id, bad.was, bad.is
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- River keeps two GIN indexes for those who search jobs by their arguments. Here
-- jobs carry an id, and nobody searches them by it; a job is written three times.
DROP INDEX IF EXISTS river.river_job_args_index;
DROP INDEX IF EXISTS river.river_job_metadata_index;

-- Every update of these two moves an entry of a partial unique index, and so none
-- of them is HOT: room on the page is of no use to them.
ALTER TABLE attempts SET (fillfactor = 100);
ALTER TABLE payment_intents SET (fillfactor = 100);

-- A fifth of a table is when autovacuum comes by default. Of a hundred million
-- invoices that is once in weeks, and until then the sweep walks over the entries
-- of all that was due before.
ALTER TABLE subscriptions SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE invoices SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);
ALTER TABLE payment_intents SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE attempts SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE events SET (autovacuum_vacuum_scale_factor = 0.02);

-- Which cards expire soon is asked by every sweep.
CREATE INDEX payment_methods_expiring ON payment_methods (exp_year, exp_month)
  WHERE status = 'active' AND expiry_notified_at IS NULL AND exp_year IS NOT NULL;
