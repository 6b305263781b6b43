-- Invoices, attempts and events in parts, a month each. Not a migration yet: one
-- server with ten million subscriptions does without. docs/scale.md says when, and
-- what it costs; a test applies this file, sweeps, charges, and tries to bill twice.
--
-- Run it in one transaction while no daemon runs. What is there becomes the first
-- part as it is. The one long step is billed_periods: 20 µs a period or so.
--
-- The parts of invoices and attempts are ranges of the invoice's id, which begins
-- with the millisecond it was made in: so the primary key stays one. Events are cut
-- by their number.

SET LOCAL search_path = singil, public;

-- The least UUIDv7 of an instant.
CREATE FUNCTION first_id(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid $$;

-- A part cannot know the periods of another. So they move to a table of their own,
-- which is never cut: 16 + 4 + 22 bytes a period. It refuses what it refused, by
-- the same names, and invoices are updated without writing the GiST index again.
DROP TRIGGER periods_do_not_overlap ON invoices;
ALTER TABLE invoices DROP CONSTRAINT period_billed_once;
CREATE TABLE billed_periods (
  subscription_id uuid NOT NULL,
  period_no       integer NOT NULL,
  period          tstzrange NOT NULL,
  CONSTRAINT period_billed_once UNIQUE (subscription_id, period_no),
  CONSTRAINT periods_do_not_overlap EXCLUDE USING gist (subscription_id WITH =, period WITH &&)
);
INSERT INTO billed_periods SELECT subscription_id, period_no, period FROM invoices;
CREATE FUNCTION bill_periods() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO singil.billed_periods SELECT n.subscription_id, n.period_no, n.period FROM n;
  RETURN NULL;
END $$;

-- Invoices -------------------------------------------------------------------

ALTER TABLE payments DROP CONSTRAINT payments_invoice_id_fkey;
ALTER TABLE invoices RENAME TO invoices_first;
DROP TRIGGER guard_new_invoices ON invoices_first;
DROP TRIGGER guard_invoices ON invoices_first;
DROP TRIGGER id_is_forever ON invoices_first;
DROP TRIGGER append_only ON invoices_first;
CREATE TABLE invoices (LIKE invoices_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING COMMENTS) PARTITION BY RANGE (id);
ALTER TABLE invoices
  ADD FOREIGN KEY (livemode) REFERENCES instance (livemode),
  ADD FOREIGN KEY (payment_method_id) REFERENCES payment_methods ON DELETE RESTRICT;
ALTER TABLE invoices ATTACH PARTITION invoices_first FOR VALUES FROM (MINVALUE) TO ('{cut}');
ALTER TABLE payments ADD FOREIGN KEY (invoice_id) REFERENCES invoices ON DELETE RESTRICT;
CREATE TRIGGER guard_new_invoices AFTER INSERT ON invoices
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_new_invoices();
CREATE TRIGGER guard_invoices AFTER UPDATE ON invoices
  REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_invoices();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON invoices FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON invoices FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER bill_periods AFTER INSERT ON invoices
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION bill_periods();

-- Attempts -------------------------------------------------------------------

-- Cut by their invoice, all of an invoice's attempts are in one part. An intent has
-- one invoice, which guard_new_attempts holds, so that a unique index on both is as
-- good as one on the intent. Lost is that an attempt's id alone is unique; it is made
-- of 74 random bits, and nothing refers to it.
ALTER TABLE attempts RENAME TO attempts_first;
DROP TRIGGER guard_new_attempts ON attempts_first;
DROP TRIGGER guard_attempts ON attempts_first;
DROP TRIGGER id_is_forever ON attempts_first;
DROP TRIGGER append_only ON attempts_first;
ALTER TABLE attempts_first DROP CONSTRAINT attempts_pkey;
DROP INDEX one_open_attempt, one_successful_attempt;
CREATE TABLE attempts (LIKE attempts_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING COMMENTS) PARTITION BY RANGE (invoice_id);
ALTER TABLE attempts ADD PRIMARY KEY (id, invoice_id);
CREATE UNIQUE INDEX one_open_attempt ON attempts (payment_intent_id, invoice_id) WHERE state IN ('armed', 'review', 'needs_action');
CREATE UNIQUE INDEX one_successful_attempt ON attempts (payment_intent_id, invoice_id) WHERE state = 'succeeded';
ALTER TABLE attempts ATTACH PARTITION attempts_first FOR VALUES FROM (MINVALUE) TO ('{cut}');
CREATE TRIGGER guard_new_attempts AFTER INSERT ON attempts
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_new_attempts();
CREATE TRIGGER guard_attempts AFTER UPDATE ON attempts
  REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_attempts();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON attempts FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON attempts FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- Events ---------------------------------------------------------------------

-- Lost is that an event's id is unique over all parts. It is made as an attempt's is.
ALTER TABLE event_deliveries DROP CONSTRAINT event_deliveries_seq_fkey;
ALTER TABLE events RENAME TO events_first;
DROP TRIGGER fan_out_events ON events_first;
ALTER TABLE events_first DROP CONSTRAINT events_id_key, ALTER COLUMN seq DROP IDENTITY;
CREATE TABLE events (LIKE events_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING COMMENTS) PARTITION BY RANGE (seq);
CREATE SEQUENCE events_seq OWNED BY events.seq;
SELECT setval('events_seq', COALESCE((SELECT max(seq) FROM events_first), 0) + 1, false);
ALTER TABLE events ALTER COLUMN seq SET DEFAULT nextval('singil.events_seq'), ADD UNIQUE (id, seq);
DO $$ BEGIN
  EXECUTE format('ALTER TABLE singil.events ATTACH PARTITION singil.events_first FOR VALUES FROM (MINVALUE) TO (%s)',
                 (SELECT last_value FROM singil.events_seq));
END $$;
ALTER TABLE event_deliveries ADD FOREIGN KEY (seq) REFERENCES events ON DELETE RESTRICT;
CREATE TRIGGER fan_out_events AFTER INSERT ON events
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION fan_out_events();

-- A month's parts, to be made before it begins. The default parts take what comes
-- when nobody did: nothing is refused for want of a part, and rows there page.
CREATE FUNCTION add_month(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  part text;
BEGIN
  FOREACH part IN ARRAY ARRAY['invoices', 'attempts'] LOOP
    EXECUTE format('CREATE TABLE singil.%I PARTITION OF singil.%I FOR VALUES FROM (%L) TO (%L)', part || to_char(month, '_YYYY_MM'), part,
                   singil.first_id(month::timestamp AT TIME ZONE 'UTC'), singil.first_id((month + interval '1 month') AT TIME ZONE 'UTC'));
  END LOOP;
END $$;
CREATE TABLE invoices_rest PARTITION OF invoices DEFAULT;
CREATE TABLE attempts_rest PARTITION OF attempts DEFAULT;
CREATE TABLE events_rest PARTITION OF events DEFAULT;
