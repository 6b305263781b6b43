-- +goose Up

-- A database that is older than what happened: a backup put back, a standby
-- that missed the last commits, a copy. Charging on it is frozen until the
-- provider was asked what it has forgotten.

SET LOCAL search_path = singil, public;

ALTER TABLE instance
  ADD COLUMN recovery_needed     text,
  ADD COLUMN recovery_noticed_at timestamptz,
  ADD COLUMN recovery_from       timestamptz,
  ADD CONSTRAINT recovery_needs_a_freeze CHECK (recovery_needed IS NULL OR frozen),
  ADD CONSTRAINT recovery_is_whole CHECK ((recovery_needed IS NULL) = (recovery_noticed_at IS NULL)
                                          AND (recovery_needed IS NULL) = (recovery_from IS NULL));
COMMENT ON COLUMN instance.recovery_needed IS 'Why the provider must be asked before anything is charged; null: nothing is missing.';
COMMENT ON COLUMN instance.recovery_noticed_at IS 'Business time at which that was noticed: no attach of ours was sent behind it.';
COMMENT ON COLUMN instance.recovery_from IS 'Business time of the newest attempt that is here: what came later may be forgotten.';

CREATE TABLE recoveries (
  id      uuid PRIMARY KEY,
  at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor   text NOT NULL CHECK (actor <> ''),
  reason  text NOT NULL,
  waived  boolean NOT NULL,
  from_at timestamptz NOT NULL,
  noticed_at timestamptz NOT NULL,
  report  jsonb NOT NULL
);
COMMENT ON TABLE recoveries IS 'A recovery that was completed, or waived by somebody who answers for it. Append-only: witnesses refer to it.';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON recoveries FOR EACH STATEMENT EXECUTE FUNCTION append_only();

ALTER TABLE payment_intents ADD COLUMN adopted boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN payment_intents.adopted IS 'A recovery found it at the provider. Attempts on it may be missing here: look before any attach.';
