-- +goose Up

-- What a charge writes refers to rows that its guards read anyway. They look a
-- statement at a time; a foreign key looks row by row, and writes its lock onto the
-- row that it finds: a page of customers for each invoice, one of cards for each
-- attempt. What a foreign key holds at its other end holds for all: rows that money
-- refers to are never deleted, and keep their ids.

SET LOCAL search_path = singil, public;

CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON customers FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON payment_methods FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON subscriptions FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON invoices FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON customers FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON payment_methods FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON subscriptions FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();

-- Invoices: the subscription is there, and the payer is its customer.
ALTER TABLE invoices DROP CONSTRAINT invoices_subscription_id_fkey, DROP CONSTRAINT invoices_customer_id_fkey;

-- +goose StatementBegin
CREATE FUNCTION guard_new_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  SELECT n.id, n.subscription_id, n.customer_id INTO bad
  FROM n LEFT JOIN singil.subscriptions s ON s.id = n.subscription_id
  WHERE s.customer_id IS DISTINCT FROM n.customer_id
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'invoice %: there is no subscription % of customer %', bad.id, bad.subscription_id, bad.customer_id
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_new_invoices AFTER INSERT ON invoices
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_new_invoices();

-- Intents: the invoice is there, and the price is the invoice's, which is written
-- once. The key needed a unique index of its own, behind the primary key.
ALTER TABLE payment_intents DROP CONSTRAINT price_of_the_invoice;
ALTER TABLE invoices DROP CONSTRAINT invoice_price;

-- +goose StatementBegin
CREATE FUNCTION price_of_the_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  SELECT n.id, n.invoice_id, n.amount_minor, n.currency, n.livemode INTO bad
  FROM n LEFT JOIN singil.invoices i ON i.id = n.invoice_id
  WHERE (i.amount_minor, i.currency, i.livemode) IS DISTINCT FROM (n.amount_minor, n.currency, n.livemode)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'payment intent %: there is no invoice % of % %, live %', bad.id, bad.invoice_id, bad.amount_minor, bad.currency, bad.livemode
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER price_of_the_invoice AFTER INSERT ON payment_intents
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION price_of_the_invoice();

-- Attempts: the guard joined all three, and now says so if one is missing.
ALTER TABLE attempts
  DROP CONSTRAINT attempts_payment_intent_id_fkey,
  DROP CONSTRAINT attempts_invoice_id_fkey,
  DROP CONSTRAINT attempts_payment_method_id_fkey;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION guard_new_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  -- Locked, in the order of the house, before they are read: a freeze, a void or
  -- a death that is being committed meanwhile must be waited for. Who came
  -- through billing.Arm has these locks.
  PERFORM FROM singil.instance FOR SHARE;
  PERFORM FROM singil.invoices i WHERE i.id IN (SELECT n.invoice_id FROM n) ORDER BY i.id FOR SHARE;
  PERFORM FROM singil.payment_intents pi WHERE pi.id IN (SELECT n.payment_intent_id FROM n) ORDER BY pi.id FOR SHARE;

  SELECT n.id, n.state AS attempt, pi.state AS intent, i.status AS invoice, pm.id AS card, ins.frozen INTO bad
  FROM n
  LEFT JOIN singil.payment_intents pi ON pi.id = n.payment_intent_id
  LEFT JOIN singil.invoices i ON i.id = n.invoice_id
  LEFT JOIN singil.payment_methods pm ON pm.id = n.payment_method_id
  LEFT JOIN singil.instance ins ON ins.livemode = pi.livemode
  WHERE pi.id IS NULL OR i.id IS NULL OR pm.id IS NULL
     OR n.state <> 'armed' OR pi.state <> 'ready' OR pi.provider_intent_id IS NULL OR pi.fence <> n.fence
     OR pi.checkout_session_id IS NOT NULL
     OR pi.invoice_id <> n.invoice_id OR i.status <> 'open' OR ins.frozen IS DISTINCT FROM false
     OR pm.customer_id <> i.customer_id OR pm.provider_payment_method_id <> n.provider_payment_method_id
     OR EXISTS (SELECT FROM singil.attempts a
                WHERE a.invoice_id = n.invoice_id AND a.payment_intent_id = n.payment_intent_id AND a.fence >= n.fence AND a.id <> n.id)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'attempt % may not be armed: attempt %, intent %, invoice %, card %, frozen % (the card is the payer''s, a hosted checkout''s intent takes none, each attempt has a fence of its own)', bad.id, bad.attempt, bad.intent, bad.invoice, bad.card, bad.frozen
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
