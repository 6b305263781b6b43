-- +goose Up

-- A hosted checkout makes a payment intent of its own. It becomes the invoice's one
-- live intent: its page attaches to it, and we never do.

SET LOCAL search_path = singil, public;

ALTER TABLE payment_intents
  ADD COLUMN checkout_session_id text,
  ADD CONSTRAINT checkout_session_is_named CHECK (length(checkout_session_id) BETWEEN 1 AND 200),
  ADD CONSTRAINT checkout_is_shared CHECK (checkout_session_id IS NULL OR shared_at IS NOT NULL);
CREATE UNIQUE INDEX one_intent_of_a_checkout ON payment_intents (checkout_session_id) WHERE checkout_session_id IS NOT NULL;
COMMENT ON COLUMN payment_intents.checkout_session_id IS 'The hosted checkout that made the intent at the provider. Stored with the intent''s id, and with it only. The page''s address ends in a secret, and is not stored.';

-- With the intent's id or never: an intent of ours does not become a checkout's.
-- Only a statement that names the column comes here.
-- +goose StatementBegin
CREATE FUNCTION guard_checkouts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'payment intent %: its hosted checkout is written once, with the id of the intent', OLD.id
    USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_checkouts AFTER UPDATE OF checkout_session_id ON payment_intents FOR EACH ROW
  WHEN (OLD.provider_intent_id IS NOT NULL AND NEW.checkout_session_id IS DISTINCT FROM OLD.checkout_session_id)
  EXECUTE FUNCTION guard_checkouts();

-- As it was, and nothing is armed on a checkout's intent.
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

  SELECT n.id, n.state AS attempt, pi.state AS intent, i.status AS invoice, ins.frozen INTO bad
  FROM n
  JOIN singil.payment_intents pi ON pi.id = n.payment_intent_id
  JOIN singil.invoices i ON i.id = n.invoice_id
  JOIN singil.payment_methods pm ON pm.id = n.payment_method_id
  LEFT JOIN singil.instance ins ON ins.livemode = pi.livemode
  WHERE n.state <> 'armed' OR pi.state <> 'ready' OR pi.provider_intent_id IS NULL OR pi.fence <> n.fence
     OR pi.checkout_session_id IS NOT NULL
     OR pi.invoice_id <> n.invoice_id OR i.status <> 'open' OR ins.frozen IS DISTINCT FROM false
     OR pm.customer_id <> i.customer_id OR pm.provider_payment_method_id <> n.provider_payment_method_id
     OR EXISTS (SELECT FROM singil.attempts a
                WHERE a.invoice_id = n.invoice_id AND a.payment_intent_id = n.payment_intent_id AND a.fence >= n.fence AND a.id <> n.id)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'attempt % may not be armed: attempt %, intent %, invoice %, frozen % (the card is the payer''s, a hosted checkout''s intent takes none, each attempt has a fence of its own)', bad.id, bad.attempt, bad.intent, bad.invoice, bad.frozen
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
