-- +goose Up

-- The audit log becomes a chain, and what singil check looks at gets the
-- indexes that the rest does without.

SET LOCAL search_path = singil, public;

CREATE TABLE audit_chain (
  no       bigint PRIMARY KEY CHECK (no >= 1),
  audit_id bigint NOT NULL UNIQUE REFERENCES audit_log ON DELETE RESTRICT,
  hash     bytea NOT NULL CHECK (length(hash) = 32)
);
COMMENT ON TABLE audit_chain IS 'A link for each entry of the audit log, in the order of their commits. Append-only.';
COMMENT ON COLUMN audit_chain.hash IS 'SHA-256 of the hash before (none: 32 zeros), the number and the entry. It changes if any entry up to here does.';

-- One text for one entry, whatever the session's settings are.
-- +goose StatementBegin
CREATE FUNCTION audit_hash(previous bytea, no bigint, entry audit_log) RETURNS bytea LANGUAGE sql STABLE AS $$
  SELECT sha256(COALESCE(previous, decode(repeat('00', 32), 'hex')) || convert_to(jsonb_build_array(
    no, entry.id, to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
    entry.actor, entry.action, entry.subject, entry.reason, entry.before::text, entry.after::text)::text, 'UTF8'))
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION chain_audit_entry(entry audit_log) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  last_no   bigint;
  last_hash bytea;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('singil audit', 0));
  SELECT c.no, c.hash INTO last_no, last_hash FROM singil.audit_chain c ORDER BY c.no DESC LIMIT 1;
  last_no := COALESCE(last_no, 0) + 1;
  INSERT INTO singil.audit_chain (no, audit_id, hash) VALUES (last_no, entry.id, singil.audit_hash(last_hash, last_no, entry));
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION chain_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM singil.chain_audit_entry(NEW);
  RETURN NULL;
END $$;
-- +goose StatementEnd

SELECT chain_audit_entry(a) FROM audit_log a ORDER BY a.id;

-- Deferred to the commit: a transaction that holds the chain's lock takes no
-- other lock any more, so that nobody can wait for it and be waited for. Only the
-- commits of transactions with entries stand in line.
CREATE CONSTRAINT TRIGGER chain_audit_log AFTER INSERT ON audit_log
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chain_audit_log();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_chain FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- Payments are keyed by the provider's id, which knows no time. This index grows at
-- its end only.
CREATE INDEX payments_seen ON payments (seen_at);
CREATE INDEX payments_without_invoice ON payments (payment_id) WHERE invoice_id IS NULL;
CREATE INDEX event_streams_failing ON event_streams (failing_since) WHERE failing_since IS NOT NULL;
