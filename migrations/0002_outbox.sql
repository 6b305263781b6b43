-- +goose Up

-- Where events are delivered, and how far each delivery has come. The unit of
-- order is a stream: the events of one subscription for one endpoint. A stream
-- that fails waits alone.

SET LOCAL search_path = singil, public;

CREATE TABLE endpoints (
  id         uuid PRIMARY KEY,
  url        text NOT NULL UNIQUE CHECK (url ~ '^https?://[^[:space:]]+$' AND length(url) <= 2000),
  secret     text NOT NULL CHECK (secret ~ '^whsec_[A-Za-z0-9+/]+=*$' AND length(secret) BETWEEN 30 AND 200),
  enabled    boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE endpoints IS 'A URL of the merchant that wants to know what happened.';

CREATE TABLE event_streams (
  endpoint_id   uuid NOT NULL REFERENCES endpoints ON DELETE RESTRICT,
  stream        uuid NOT NULL,
  next_try_at   timestamptz,
  lease         uuid,
  tries         integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
  failing_since timestamptz,
  parked_at     timestamptz,
  last_error    text CHECK (length(last_error) <= 500),
  PRIMARY KEY (endpoint_id, stream),
  CONSTRAINT parked_waits_for_a_human CHECK (parked_at IS NULL OR next_try_at IS NULL)
) WITH (fillfactor = 70);
CREATE INDEX event_streams_due ON event_streams (endpoint_id, next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX event_streams_parked ON event_streams (endpoint_id) WHERE parked_at IS NOT NULL;
COMMENT ON TABLE event_streams IS 'The events of one subscription (else customer, else none: zeros) on their way to one endpoint, in order.';
COMMENT ON COLUMN event_streams.next_try_at IS 'When to send what is pending; under a lease, when the lease ends; null: nothing is pending, or parked.';

CREATE TABLE event_deliveries (
  endpoint_id uuid NOT NULL,
  stream      uuid NOT NULL,
  seq         bigint NOT NULL REFERENCES events (seq) ON DELETE RESTRICT,
  PRIMARY KEY (endpoint_id, stream, seq),
  FOREIGN KEY (endpoint_id, stream) REFERENCES event_streams ON DELETE RESTRICT
);
CREATE INDEX event_deliveries_oldest ON event_deliveries (endpoint_id, seq);
-- Whether anybody still has to get an event: asked before it is deleted, also by the foreign key.
CREATE INDEX event_deliveries_event ON event_deliveries (seq);
COMMENT ON TABLE event_deliveries IS 'An event that an endpoint has not acknowledged yet. The row goes when it has.';

-- Fanning out in the transaction that writes the event: a cursor over seq could
-- pass over a lower number that commits later.
-- +goose StatementBegin
CREATE FUNCTION fan_out_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM singil.endpoints WHERE enabled LIMIT 1;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  -- The clock outside of DISTINCT: inside, it would make two of what is one stream.
  INSERT INTO singil.event_streams AS s (endpoint_id, stream, next_try_at)
  SELECT d.id, d.stream, clock_timestamp()
  FROM (SELECT DISTINCT e.id, COALESCE(n.subscription_id, n.customer_id, '00000000-0000-0000-0000-000000000000') AS stream
        FROM n CROSS JOIN singil.endpoints e
        WHERE e.enabled) d
  ORDER BY 1, 2
  ON CONFLICT (endpoint_id, stream) DO UPDATE
  SET next_try_at = CASE WHEN s.parked_at IS NULL THEN COALESCE(s.next_try_at, excluded.next_try_at) END;
  INSERT INTO singil.event_deliveries (endpoint_id, stream, seq)
  SELECT e.id, COALESCE(n.subscription_id, n.customer_id, '00000000-0000-0000-0000-000000000000'), n.seq
  FROM n CROSS JOIN singil.endpoints e
  JOIN singil.event_streams s ON s.endpoint_id = e.id
   AND s.stream = COALESCE(n.subscription_id, n.customer_id, '00000000-0000-0000-0000-000000000000')
  WHERE e.enabled
  ORDER BY 1, 2, 3;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER fan_out_events AFTER INSERT ON events
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION fan_out_events();
