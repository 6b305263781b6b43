-- +goose Up

-- Money that an operator gives back through us. A row is committed before the
-- provider is asked, so that two clicks, or a lost answer, cannot give it twice.

SET LOCAL search_path = singil, public;

CREATE TABLE refunds (
  id                 uuid PRIMARY KEY,
  payment_id         text NOT NULL REFERENCES payments ON DELETE RESTRICT,
  amount_minor       bigint NOT NULL CHECK (amount_minor > 0),
  currency           text NOT NULL,
  state              text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'accepted', 'refused')),
  provider_refund_id text UNIQUE CHECK (length(provider_refund_id) BETWEEN 1 AND 200),
  result             text,
  asked_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed_at          timestamptz,
  CONSTRAINT closed_has_a_time CHECK ((state = 'asked') = (closed_at IS NULL)),
  CONSTRAINT accepted_has_an_id CHECK ((state = 'accepted') = (provider_refund_id IS NOT NULL)),
  CONSTRAINT refused_has_a_result CHECK (state <> 'refused' OR result IS NOT NULL)
);
CREATE UNIQUE INDEX one_open_refund ON refunds (payment_id) WHERE state = 'asked';
CREATE INDEX refunds_payment ON refunds (payment_id);
COMMENT ON TABLE refunds IS 'A refund asked for by an operator, written and committed before it is sent. Its id is the Idempotency-Key. Append-only.';
COMMENT ON COLUMN refunds.state IS 'asked: the answer is not known; accepted: the provider has it; refused: it does not exist there.';

-- +goose StatementBegin
CREATE FUNCTION guard_refunds() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  paid bigint;
  given bigint;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF (NEW.payment_id, NEW.amount_minor, NEW.currency, NEW.asked_at) IS DISTINCT FROM (OLD.payment_id, OLD.amount_minor, OLD.currency, OLD.asked_at)
       OR OLD.state <> 'asked' THEN
      RAISE EXCEPTION 'refund %: illegal change % -> %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
  END IF;
  -- Two that come at once stand in line here.
  SELECT p.amount_minor INTO paid FROM singil.payments p WHERE p.payment_id = NEW.payment_id AND p.status = 'paid' FOR UPDATE;
  SELECT COALESCE(sum(r.amount_minor), 0) INTO given FROM singil.refunds r WHERE r.payment_id = NEW.payment_id AND r.state <> 'refused';
  IF paid IS NULL OR given > paid THEN
    RAISE EXCEPTION 'refund of % of payment %: that makes % of %', NEW.amount_minor, NEW.payment_id, given, COALESCE(paid, 0)
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_refunds AFTER INSERT OR UPDATE ON refunds FOR EACH ROW EXECUTE FUNCTION guard_refunds();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON refunds FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON refunds FOR EACH STATEMENT EXECUTE FUNCTION append_only();
