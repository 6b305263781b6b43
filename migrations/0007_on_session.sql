-- +goose Up

-- With the customer present: a card is saved by a sale of the merchant's own,
-- and an invoice is paid in the customer's browser, on its one payment intent.

SET LOCAL search_path = singil, public;

ALTER TABLE customers ADD COLUMN deleted_at timestamptz;
COMMENT ON COLUMN customers.deleted_at IS 'The customer is gone at the provider, and pays nothing any more. The row stays: what was paid refers to it.';

-- Who deletes a customer locks the row; a foreign key waits for that, and sees
-- no more than that the row is there.
-- +goose StatementBegin
CREATE FUNCTION guard_new_subscriptions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  PERFORM FROM singil.customers c WHERE c.id IN (SELECT n.customer_id FROM n) ORDER BY c.id FOR KEY SHARE;
  SELECT n.id, c.external_id INTO bad FROM n JOIN singil.customers c ON c.id = n.customer_id WHERE c.deleted_at IS NOT NULL LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'subscription % is of customer %, who was deleted', bad.id, bad.external_id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_new_subscriptions AFTER INSERT ON subscriptions
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_new_subscriptions();

CREATE TABLE card_setups (
  id                 uuid PRIMARY KEY,
  customer_id        uuid NOT NULL REFERENCES customers ON DELETE RESTRICT,
  amount_minor       bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
  currency           text NOT NULL CHECK (currency = 'PHP'),
  livemode           boolean NOT NULL REFERENCES instance (livemode),
  description        text NOT NULL DEFAULT '' CHECK (length(description) <= 255),
  session_type       text NOT NULL CHECK (session_type IN ('on_session', 'off_session')),
  state              text NOT NULL DEFAULT 'creating' CHECK (state IN ('creating', 'open', 'paid', 'saved', 'cancelled', 'review')),
  provider_intent_id text UNIQUE CHECK (length(provider_intent_id) BETWEEN 1 AND 200),
  payment_id         text,
  payment_method_id  uuid REFERENCES payment_methods ON DELETE RESTRICT,
  reason             text,
  next_look_at       timestamptz CHECK (isfinite(next_look_at)),
  looks              smallint NOT NULL DEFAULT 0 CHECK (looks >= 0),
  created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT creating_has_no_id CHECK ((state = 'creating') = (provider_intent_id IS NULL)),
  CONSTRAINT paid_has_a_payment CHECK (state NOT IN ('paid', 'saved') OR payment_id IS NOT NULL),
  CONSTRAINT saved_has_a_card CHECK ((state = 'saved') = (payment_method_id IS NOT NULL)),
  CONSTRAINT review_has_a_reason CHECK (state <> 'review' OR reason IS NOT NULL)
);
CREATE INDEX card_setups_customer ON card_setups (customer_id, id);
CREATE INDEX card_setups_look ON card_setups (next_look_at) WHERE next_look_at IS NOT NULL;
COMMENT ON TABLE card_setups IS 'A sale of the merchant''s own by which a customer saves a card. Written before the provider is asked for its payment intent; that intent is no invoice''s. Append-only.';
COMMENT ON COLUMN card_setups.state IS 'creating: the provider''s id is not known; open: the page may pay; paid: the card is not here yet; saved: it is.';
COMMENT ON COLUMN card_setups.next_look_at IS 'When to ask the provider, should neither the page nor a webhook make us; null: no more.';

-- +goose StatementBegin
CREATE FUNCTION guard_card_setups() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.customer_id, NEW.amount_minor, NEW.currency, NEW.livemode, NEW.description, NEW.session_type, NEW.created_at)
     IS DISTINCT FROM (OLD.customer_id, OLD.amount_minor, OLD.currency, OLD.livemode, OLD.description, OLD.session_type, OLD.created_at)
     OR OLD.provider_intent_id IS NOT NULL AND NEW.provider_intent_id IS DISTINCT FROM OLD.provider_intent_id
     OR OLD.payment_id IS NOT NULL AND NEW.payment_id IS DISTINCT FROM OLD.payment_id
     OR OLD.payment_method_id IS NOT NULL AND NEW.payment_method_id IS DISTINCT FROM OLD.payment_method_id
     OR OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (
          ('creating', 'open'), ('open', 'paid'), ('open', 'saved'), ('open', 'cancelled'), ('open', 'review'),
          ('paid', 'saved'), ('review', 'paid'), ('review', 'saved'), ('review', 'cancelled')) THEN
    RAISE EXCEPTION 'card setup %: illegal change % -> % (what was sold and the provider''s ids are written once)', OLD.id, OLD.state, NEW.state
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_card_setups AFTER UPDATE ON card_setups FOR EACH ROW EXECUTE FUNCTION guard_card_setups();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON card_setups FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON card_setups FOR EACH STATEMENT EXECUTE FUNCTION append_only();

ALTER TABLE payments ADD COLUMN card_setup_id uuid REFERENCES card_setups ON DELETE RESTRICT;
COMMENT ON COLUMN payments.card_setup_id IS 'The sale that this is the money of: the merchant''s own, and no invoice''s.';
CREATE INDEX payments_card_setup ON payments (card_setup_id) WHERE card_setup_id IS NOT NULL;
DROP INDEX payments_without_invoice;
CREATE INDEX payments_without_invoice ON payments (payment_id) WHERE invoice_id IS NULL AND card_setup_id IS NULL;

ALTER TABLE payment_intents
  ADD COLUMN shared_at timestamptz,
  ADD CONSTRAINT shared_has_an_id CHECK (shared_at IS NULL OR provider_intent_id IS NOT NULL);
COMMENT ON COLUMN payment_intents.shared_at IS 'When it was last given to the customer''s page, which may attach to it ever since: look before any attach.';

ALTER TABLE invoices
  ADD COLUMN held_from  timestamptz,
  ADD COLUMN held_until timestamptz,
  ADD CONSTRAINT hold_is_whole CHECK ((held_from IS NULL) = (held_until IS NULL)),
  ADD CONSTRAINT hold_ends CHECK (held_until <= held_from + interval '2 hours');
COMMENT ON COLUMN invoices.held_until IS 'Until when no attempt is made by itself, because the customer has the page open. It passes without anybody''s help.';
COMMENT ON COLUMN invoices.held_from IS 'When the customer first held it since the last attempt: holds end two hours later, however many there are.';
