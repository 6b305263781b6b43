-- +goose Up

-- The HTTP API: who may call it, and which requests were answered already.

SET LOCAL search_path = singil, public;

CREATE TABLE api_tokens (
  id           uuid PRIMARY KEY,
  name         text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  role         text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
  hash         bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at   timestamptz,
  revoked_at   timestamptz,
  last_used_at timestamptz
);
CREATE UNIQUE INDEX api_tokens_one_of_a_name ON api_tokens (name) WHERE revoked_at IS NULL;
COMMENT ON TABLE api_tokens IS 'A program, or a person, that may call the HTTP API. Never deleted: the audit log has its name.';
COMMENT ON COLUMN api_tokens.hash IS 'SHA-256 of the token. The token itself, 256 random bits, is shown once and kept nowhere.';
COMMENT ON COLUMN api_tokens.last_used_at IS 'To the minute: it is not written with every request.';

CREATE TABLE api_requests (
  id            uuid PRIMARY KEY,
  token_id      uuid NOT NULL REFERENCES api_tokens ON DELETE RESTRICT,
  key           text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  request_hash  bytea NOT NULL CHECK (length(request_hash) = 32),
  claims        integer NOT NULL DEFAULT 1 CHECK (claims >= 1),
  claimed_until timestamptz,
  status        integer CHECK (status BETWEEN 200 AND 299),
  answer        text,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT one_request_of_a_key UNIQUE (token_id, key),
  CONSTRAINT answered_has_an_answer CHECK ((status IS NULL) = (answer IS NULL)),
  CONSTRAINT answered_is_not_claimed CHECK (status IS NULL OR claimed_until IS NULL)
);
CREATE INDEX api_requests_created ON api_requests (created_at);
COMMENT ON TABLE api_requests IS 'A change that was asked for with an Idempotency-Key. What the provider is asked for on its behalf carries this id as key.';
COMMENT ON COLUMN api_requests.claims IS 'How often it was begun. The answer is stored by the last one, in the transaction of its change.';
COMMENT ON COLUMN api_requests.claimed_until IS 'Somebody is at it until then; null: nobody is, it was answered or failed.';

-- +goose StatementBegin
CREATE FUNCTION guard_api_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.name, NEW.role, NEW.hash, NEW.created_at, NEW.expires_at)
       IS DISTINCT FROM (OLD.id, OLD.name, OLD.role, OLD.hash, OLD.created_at, OLD.expires_at)
     OR OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
    RAISE EXCEPTION 'API token %: illegal change', OLD.name USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_api_tokens AFTER UPDATE ON api_tokens FOR EACH ROW EXECUTE FUNCTION guard_api_tokens();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON api_tokens FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- +goose StatementBegin
CREATE FUNCTION guard_api_requests() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.token_id, NEW.key, NEW.request_hash, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.token_id, OLD.key, OLD.request_hash, OLD.created_at)
     OR OLD.status IS NOT NULL OR NEW.claims < OLD.claims THEN
    RAISE EXCEPTION 'API request %: illegal change', OLD.id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_api_requests AFTER UPDATE ON api_requests FOR EACH ROW EXECUTE FUNCTION guard_api_requests();
