-- +goose Up

-- The money core. Two sorts of rows: intentions (what we are about to do) are
-- constrained hard and refused if in doubt; observations (what the provider
-- did) are never refused.
--
-- Guards that look at other rows are statement triggers over transition
-- tables: one check for a whole batch, not one call a row.

CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE SCHEMA IF NOT EXISTS singil;
SET LOCAL search_path = singil, public;

CREATE TABLE instance (
  only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  environment       text NOT NULL CHECK (environment IN ('dev', 'staging', 'production')),
  livemode          boolean NOT NULL UNIQUE,
  provider_account  text,
  system_identifier numeric NOT NULL,
  timeline_id       integer NOT NULL,
  frozen            boolean NOT NULL DEFAULT false,
  frozen_reason     text,
  frozen_at         timestamptz,
  frozen_by         text,
  virtual_now       timestamptz,
  day_max_count     integer NOT NULL DEFAULT 1000000 CHECK (day_max_count >= 0),
  day_max_minor     bigint NOT NULL DEFAULT 100000000000 CHECK (day_max_minor >= 0),
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT live_only_in_production CHECK (environment = 'production' OR NOT livemode),
  CONSTRAINT frozen_has_a_reason CHECK (frozen = (frozen_reason IS NOT NULL)),
  CONSTRAINT no_virtual_clock_with_live_money CHECK (virtual_now IS NULL OR NOT livemode)
);
COMMENT ON TABLE instance IS 'This installation: one row that binds the database to one environment, mode, account and physical cluster.';

CREATE TABLE customers (
  id                   uuid PRIMARY KEY,
  external_id          text NOT NULL UNIQUE CHECK (length(external_id) BETWEEN 1 AND 200),
  provider_customer_id text UNIQUE,
  name                 text NOT NULL DEFAULT '' CHECK (length(name) <= 500),
  email                text NOT NULL DEFAULT '' CHECK (length(email) <= 500),
  metadata             jsonb NOT NULL DEFAULT '{}',
  last_catch_up_at     timestamptz,
  created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN customers.last_catch_up_at IS 'The last day given to the charge of a missed period: a customer gets one of those a day.';
COMMENT ON TABLE customers IS 'A payer.';

CREATE TABLE payment_methods (
  id                         uuid PRIMARY KEY,
  customer_id                uuid NOT NULL REFERENCES customers ON DELETE RESTRICT,
  provider_payment_method_id text NOT NULL UNIQUE CHECK (length(provider_payment_method_id) BETWEEN 1 AND 200),
  brand                      text NOT NULL DEFAULT '',
  last4                      text NOT NULL DEFAULT '' CHECK (last4 ~ '^[0-9]{0,4}$'),
  exp_month                  smallint CHECK (exp_month BETWEEN 1 AND 12),
  exp_year                   smallint CHECK (exp_year BETWEEN 2000 AND 9999),
  session_type               text NOT NULL DEFAULT '',
  position                   integer NOT NULL DEFAULT 0,
  status                     text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'blocked', 'removed')),
  blocked_code               text,
  expiry_notified_at         timestamptz,
  created_at                 timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at                 timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT blocked_has_a_code CHECK ((status = 'blocked') = (blocked_code IS NOT NULL)),
  CONSTRAINT expiry_is_whole CHECK ((exp_month IS NULL) = (exp_year IS NULL))
);
CREATE INDEX payment_methods_customer ON payment_methods (customer_id, position);
COMMENT ON TABLE payment_methods IS 'A saved card: what may be shown of it and where the provider keeps it. Never a number, never a CVC.';

CREATE TABLE plans (
  id             uuid PRIMARY KEY,
  external_id    text NOT NULL UNIQUE CHECK (length(external_id) BETWEEN 1 AND 200),
  name           text NOT NULL DEFAULT '' CHECK (length(name) <= 500),
  amount_minor   bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
  currency       text NOT NULL CHECK (currency = 'PHP'),
  interval_unit  text NOT NULL CHECK (interval_unit IN ('day', 'week', 'month', 'year')),
  interval_count integer NOT NULL CHECK (interval_count BETWEEN 1 AND 1000),
  dunning        jsonb NOT NULL,
  catch_up       text NOT NULL CHECK (catch_up IN ('bill_all', 'bill_current', 'ask')),
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE plans IS 'A price an interval and what to do when it is not paid. Copied onto subscriptions; never joined when charging.';

CREATE TABLE subscriptions (
  id             uuid PRIMARY KEY,
  external_id    text NOT NULL UNIQUE CHECK (length(external_id) BETWEEN 1 AND 200),
  customer_id    uuid NOT NULL REFERENCES customers ON DELETE RESTRICT,
  plan_id        uuid NOT NULL REFERENCES plans ON DELETE RESTRICT,
  status         text NOT NULL CHECK (status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused', 'cancelled')),
  quantity       integer NOT NULL DEFAULT 1 CHECK (quantity BETWEEN 1 AND 1000000),
  amount_minor   bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
  currency       text NOT NULL CHECK (currency = 'PHP'),
  interval_unit  text NOT NULL CHECK (interval_unit IN ('day', 'week', 'month', 'year')),
  interval_count integer NOT NULL CHECK (interval_count BETWEEN 1 AND 1000),
  anchor_at      timestamptz NOT NULL,
  anchor_no      integer NOT NULL DEFAULT 0 CHECK (anchor_no >= 0),
  time_zone      text NOT NULL,
  next_period_no integer NOT NULL CHECK (next_period_no >= 0),
  next_due_at    timestamptz,
  bill_from      timestamptz NOT NULL,
  last_charge_at timestamptz,
  pauses         jsonb NOT NULL DEFAULT '[]',
  trial_end      timestamptz,
  cancel_at      timestamptz,
  cancelled_at   timestamptz,
  paused_at      timestamptz,
  next_plan_id   uuid REFERENCES plans ON DELETE RESTRICT,
  dunning        jsonb NOT NULL,
  catch_up       text NOT NULL CHECK (catch_up IN ('bill_all', 'bill_current', 'ask')),
  catch_up_once  text CHECK (catch_up_once IN ('bill_all', 'bill_current')),
  metadata       jsonb NOT NULL DEFAULT '{}',
  parked_reason  text,
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT cancelled_has_a_time CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL)),
  CONSTRAINT paused_has_a_time CHECK ((status = 'paused') = (paused_at IS NOT NULL)),
  -- What is billed has a next wake-up: nothing can be forgotten.
  CONSTRAINT billed_is_due_some_day CHECK (next_due_at IS NOT NULL AND isfinite(next_due_at) OR status IN ('paused', 'cancelled') OR parked_reason IS NOT NULL)
) WITH (fillfactor = 85);
CREATE INDEX subscriptions_due ON subscriptions (next_due_at) WHERE next_due_at IS NOT NULL;
CREATE INDEX subscriptions_customer ON subscriptions (customer_id);
COMMENT ON COLUMN subscriptions.anchor_no IS 'The number of the period that begins at anchor_at: a change of interval sets a new anchor and goes on counting.';
COMMENT ON COLUMN subscriptions.catch_up_once IS 'What a person decided about the periods that are due now, in place of catch_up.';
COMMENT ON TABLE subscriptions IS 'The agreement to bill a customer every period, counted from its anchor.';

CREATE TABLE skipped_periods (
  subscription_id uuid NOT NULL REFERENCES subscriptions ON DELETE RESTRICT,
  first_no        integer NOT NULL CHECK (first_no >= 0),
  last_no         integer NOT NULL,
  reason          text NOT NULL,
  written_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (subscription_id, first_no),
  CHECK (last_no >= first_no)
);
COMMENT ON TABLE skipped_periods IS 'Periods that get no invoice, and why: a trial, a pause, a catch-up policy.';

CREATE TABLE invoices (
  id                 uuid PRIMARY KEY,
  subscription_id    uuid NOT NULL REFERENCES subscriptions ON DELETE RESTRICT,
  customer_id        uuid NOT NULL REFERENCES customers ON DELETE RESTRICT,
  period_no          integer NOT NULL CHECK (period_no >= 0),
  -- 'infinity' is a value, which lower_inf and upper_inf do not see.
  period             tstzrange NOT NULL CHECK (NOT isempty(period) AND lower_inc(period) AND NOT upper_inc(period)
                                               AND NOT lower_inf(period) AND NOT upper_inf(period)
                                               AND isfinite(lower(period)) AND isfinite(upper(period))),
  amount_minor       bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
  currency           text NOT NULL CHECK (currency = 'PHP'),
  livemode           boolean NOT NULL REFERENCES instance (livemode),
  status             text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'paid', 'void', 'uncollectible', 'review')),
  due_at             timestamptz NOT NULL,
  next_attempt_at    timestamptz,
  claimed            boolean NOT NULL DEFAULT false,
  waiting_for        text NOT NULL DEFAULT 'schedule' CHECK (waiting_for IN ('schedule', 'provider', 'customer')),
  attempt_count      integer NOT NULL DEFAULT 0 CHECK (attempt_count >= 0),
  first_attempt_at   timestamptz,
  poll_count         integer NOT NULL DEFAULT 0 CHECK (poll_count >= 0),
  look_back_at       timestamptz,
  look_backs         smallint NOT NULL DEFAULT 0,
  attempt_trigger    text NOT NULL DEFAULT 'schedule' CHECK (attempt_trigger IN ('schedule', 'dunning', 'manual', 'card_update')),
  payment_method_id  uuid REFERENCES payment_methods ON DELETE RESTRICT,
  decline_code       text,
  reason             text,
  action_url         text,
  paid_at            timestamptz,
  payment_id         text,
  created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT open_has_a_next_attempt CHECK (status <> 'open' OR next_attempt_at IS NOT NULL AND isfinite(next_attempt_at)),
  CONSTRAINT paid_has_a_time CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
  CONSTRAINT paid_has_a_payment CHECK (status <> 'paid' OR payment_id IS NOT NULL),
  CONSTRAINT ended_has_a_reason CHECK (status NOT IN ('void', 'uncollectible', 'review') OR reason IS NOT NULL),
  CONSTRAINT period_billed_once UNIQUE (subscription_id, period_no),
  CONSTRAINT periods_do_not_overlap EXCLUDE USING gist (subscription_id WITH =, period WITH &&),
  CONSTRAINT invoice_price UNIQUE (id, amount_minor, currency, livemode)
) WITH (fillfactor = 70);
CREATE INDEX invoices_next_attempt ON invoices (next_attempt_at) WHERE status = 'open';
CREATE INDEX invoices_customer ON invoices (customer_id);
COMMENT ON TABLE invoices IS 'One debt for one period of one subscription.';
CREATE INDEX invoices_look_back ON invoices (look_back_at) WHERE look_back_at IS NOT NULL;
COMMENT ON COLUMN invoices.look_back_at IS 'When to ask the provider once more about an invoice that was given up, or is in front of a human: it may have been paid since.';
COMMENT ON COLUMN invoices.claimed IS 'A sweep found it due and enqueued a job; next_attempt_at is then the end of the lease. Only a claimed invoice may be armed.';

CREATE TABLE payment_intents (
  id                 uuid PRIMARY KEY,
  invoice_id         uuid NOT NULL,
  amount_minor       bigint NOT NULL,
  currency           text NOT NULL,
  livemode           boolean NOT NULL,
  generation         integer NOT NULL CHECK (generation BETWEEN 1 AND 100),
  create_key         text NOT NULL UNIQUE CHECK (length(create_key) BETWEEN 1 AND 240),
  create_failures    smallint NOT NULL DEFAULT 0 CHECK (create_failures BETWEEN 0 AND 29),
  provider_intent_id text UNIQUE CHECK (length(provider_intent_id) BETWEEN 1 AND 200),
  state              text NOT NULL DEFAULT 'creating' CHECK (state IN ('creating', 'ready', 'succeeded', 'dead', 'review')),
  death_proof        jsonb,
  fence              bigint NOT NULL DEFAULT 0 CHECK (fence >= 0),
  created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT price_of_the_invoice FOREIGN KEY (invoice_id, amount_minor, currency, livemode)
    REFERENCES invoices (id, amount_minor, currency, livemode) ON DELETE RESTRICT,
  CONSTRAINT generation_once UNIQUE (invoice_id, generation),
  CONSTRAINT creating_has_no_id CHECK (state = 'dead' OR (state = 'creating') = (provider_intent_id IS NULL)),
  CONSTRAINT death_has_a_proof CHECK ((state = 'dead') = (death_proof IS NOT NULL)),
  -- What the provider knows dies only as the provider shows it: cancelled. A second intent follows.
  CONSTRAINT death_was_seen CHECK (state <> 'dead' OR provider_intent_id IS NULL
    OR COALESCE(death_proof #>> '{provider_intent,ID}' = provider_intent_id AND death_proof #>> '{provider_intent,Status}' = 'cancelled', false))
) WITH (fillfactor = 80);
-- At most one intent of an invoice that has moved, or could still move, money.
CREATE UNIQUE INDEX one_intent_not_dead ON payment_intents (invoice_id) WHERE state <> 'dead';
COMMENT ON TABLE payment_intents IS 'One payment intent asked for on behalf of an invoice. A second one needs proof that the first is dead.';

CREATE TABLE attempts (
  id                         uuid PRIMARY KEY,
  payment_intent_id          uuid NOT NULL REFERENCES payment_intents ON DELETE RESTRICT,
  invoice_id                 uuid NOT NULL REFERENCES invoices ON DELETE RESTRICT,
  no                         integer NOT NULL CHECK (no BETWEEN 1 AND 200),
  fence                      bigint NOT NULL,
  payment_method_id          uuid NOT NULL REFERENCES payment_methods ON DELETE RESTRICT,
  provider_payment_method_id text NOT NULL,
  trigger                    text NOT NULL CHECK (trigger IN ('schedule', 'dunning', 'manual', 'card_update')),
  state                      text NOT NULL DEFAULT 'armed'
                             CHECK (state IN ('armed', 'succeeded', 'declined', 'needs_action', 'no_effect', 'review')),
  armed_at                   timestamptz NOT NULL,
  send_before                timestamptz NOT NULL,
  settled_after              timestamptz NOT NULL,
  settled_at                 timestamptz,
  decline_code               text,
  payment_id                 text,
  evidence                   jsonb,
  written_at                 timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT attempt_no_once UNIQUE (invoice_id, no),
  CONSTRAINT times_in_order CHECK (send_before > armed_at AND settled_after > send_before AND isfinite(armed_at) AND isfinite(settled_after)),
  CONSTRAINT settled_has_a_time CHECK ((state IN ('armed', 'review', 'needs_action')) = (settled_at IS NULL)),
  CONSTRAINT settled_has_evidence CHECK (state = 'armed' OR evidence IS NOT NULL),
  -- COALESCE: evidence without a kind is null here, and a CHECK lets null pass.
  CONSTRAINT no_effect_is_proven CHECK (state <> 'no_effect' OR COALESCE(evidence ->> 'kind' IN ('never_sent', 'refused'), false) OR settled_at >= settled_after)
) WITH (fillfactor = 70);
-- At most one attach whose outcome is open, and at most one that succeeded.
CREATE UNIQUE INDEX one_open_attempt ON attempts (payment_intent_id) WHERE state IN ('armed', 'review', 'needs_action');
CREATE UNIQUE INDEX one_successful_attempt ON attempts (payment_intent_id) WHERE state = 'succeeded';
CREATE INDEX attempts_payment_method ON attempts (payment_method_id, armed_at);
CREATE INDEX attempts_armed ON attempts USING brin (armed_at) WITH (pages_per_range = 16, autosummarize = on);
COMMENT ON TABLE attempts IS 'One attach, written and committed before it is sent. Append-only.';

CREATE TABLE payments (
  payment_id         text PRIMARY KEY,
  provider_intent_id text,
  invoice_id         uuid REFERENCES invoices ON DELETE RESTRICT,
  status             text NOT NULL, -- the provider's word: pending, paid, failed, or one that is new to us
  amount_minor       bigint NOT NULL,
  currency           text NOT NULL,
  livemode           boolean NOT NULL,
  failed_code        text,
  refunded_minor     bigint NOT NULL DEFAULT 0,
  source             text NOT NULL CHECK (source IN ('attach', 'retrieve', 'webhook', 'list')),
  provider_at        timestamptz,
  seen_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX payments_invoice ON payments (invoice_id);
CREATE INDEX payments_provider_intent ON payments (provider_intent_id);
COMMENT ON TABLE payments IS 'Money the provider says it took or refused. An observation: unique by its own id only, so that a double charge could be recorded.';

CREATE TABLE webhook_events (
  event_id     text PRIMARY KEY CHECK (length(event_id) BETWEEN 1 AND 200),
  type         text NOT NULL,
  livemode     boolean NOT NULL,
  resource_id  text NOT NULL DEFAULT '',
  provider_intent_id text NOT NULL DEFAULT '',
  stale        boolean NOT NULL DEFAULT false,
  body         bytea NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  next_try_at  timestamptz DEFAULT clock_timestamp(),
  tries        integer NOT NULL DEFAULT 0,
  processed_at timestamptz,
  result       text,
  CONSTRAINT unprocessed_has_a_next_try CHECK ((processed_at IS NULL) = (next_try_at IS NOT NULL) AND COALESCE(isfinite(next_try_at), true)),
  CONSTRAINT processed_has_a_result CHECK ((processed_at IS NULL) = (result IS NULL))
);
CREATE INDEX webhook_events_processed ON webhook_events (processed_at) WHERE processed_at IS NOT NULL;
CREATE INDEX webhook_events_unprocessed ON webhook_events (next_try_at) WHERE processed_at IS NULL;
COMMENT ON TABLE webhook_events IS 'The inbox: what the provider delivered, once each.';

CREATE TABLE events (
  seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id              uuid NOT NULL UNIQUE,
  type            text NOT NULL,
  subscription_id uuid,
  customer_id     uuid,
  data            jsonb NOT NULL,
  occurred_at     timestamptz NOT NULL,
  written_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE events IS 'The outbox: what happened, written with the change itself.';

CREATE TABLE charge_budget (
  day        date NOT NULL,
  livemode   boolean NOT NULL,
  max_count  integer NOT NULL CHECK (max_count >= 0),
  max_minor  bigint NOT NULL CHECK (max_minor >= 0),
  used_count integer NOT NULL DEFAULT 0 CHECK (used_count >= 0),
  used_minor bigint NOT NULL DEFAULT 0 CHECK (used_minor >= 0),
  PRIMARY KEY (day, livemode),
  CONSTRAINT within_count CHECK (used_count <= max_count),
  CONSTRAINT within_minor CHECK (used_minor <= max_minor)
) WITH (fillfactor = 50);
COMMENT ON TABLE charge_budget IS 'How much may still be charged on a day (UTC). The database itself refuses the charge that is one too many.';

CREATE TABLE provider_state (
  only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  blocked_until timestamptz,
  next_slot_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  breaker_open  boolean NOT NULL DEFAULT false,
  breaker_reason text,
  breaker_at    timestamptz,
  watched_from  timestamptz NOT NULL DEFAULT '-infinity',
  CONSTRAINT open_breaker_has_a_reason CHECK (breaker_open = (breaker_reason IS NOT NULL))
);
INSERT INTO provider_state DEFAULT VALUES;
COMMENT ON COLUMN provider_state.watched_from IS 'When the breaker was last closed, in business time: what was before does not trip it again.';
COMMENT ON TABLE provider_state IS 'What every daemon must know of the provider: a 429 of one slows all, a 401 of one stops all.';
COMMENT ON COLUMN provider_state.next_slot_at IS 'Up to when the daemons have shared out the time for their calls: together they stay under one rate.';

CREATE TABLE audit_log (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor   text NOT NULL CHECK (actor <> ''),
  action  text NOT NULL CHECK (action <> ''),
  subject text NOT NULL,
  reason  text NOT NULL,
  before  jsonb,
  after   jsonb
);
COMMENT ON TABLE audit_log IS 'Who did what and why. Append-only.';

-- Guards ---------------------------------------------------------------------

-- +goose StatementBegin
CREATE FUNCTION guard_payment_intents() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  SELECT o.id, o.state AS was, n.state AS is INTO bad FROM o JOIN n USING (id)
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
  SELECT n.id INTO bad FROM o JOIN n USING (id)
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
CREATE TRIGGER guard_payment_intents AFTER UPDATE ON payment_intents
  REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_payment_intents();

-- +goose StatementBegin
CREATE FUNCTION guard_new_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
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
     OR pi.invoice_id <> n.invoice_id OR i.status <> 'open' OR ins.frozen IS DISTINCT FROM false
     OR pm.customer_id <> i.customer_id OR pm.provider_payment_method_id <> n.provider_payment_method_id
     OR EXISTS (SELECT FROM singil.attempts a
                WHERE a.invoice_id = n.invoice_id AND a.payment_intent_id = n.payment_intent_id AND a.fence >= n.fence AND a.id <> n.id)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'attempt % may not be armed: attempt %, intent %, invoice %, frozen % (the card is the payer''s, each attempt has a fence of its own)', bad.id, bad.attempt, bad.intent, bad.invoice, bad.frozen
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER guard_new_attempts AFTER INSERT ON attempts
  REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_new_attempts();

-- +goose StatementBegin
CREATE FUNCTION guard_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  -- Late truth may turn a negative into a success; nothing else moves back, and
  -- what is settled is not written again.
  SELECT o.id, o.state AS was, n.state AS is INTO bad FROM o JOIN n USING (id)
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
CREATE TRIGGER guard_attempts AFTER UPDATE ON attempts
  REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_attempts();

-- +goose StatementBegin
CREATE FUNCTION guard_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  SELECT o.id, o.status AS was, n.status AS is INTO bad FROM o JOIN n USING (id)
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
CREATE TRIGGER guard_invoices AFTER UPDATE ON invoices
  REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION guard_invoices();

-- +goose StatementBegin
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- +goose StatementEnd

-- The guards join what was to what is by the id: a new one would pass unseen.
-- +goose StatementBegin
CREATE FUNCTION id_is_forever() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'an id of % is written once', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- +goose StatementEnd
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON attempts FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON invoices FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();
CREATE TRIGGER id_is_forever BEFORE UPDATE OF id ON payment_intents FOR EACH STATEMENT EXECUTE FUNCTION id_is_forever();

CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON attempts FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON payments FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON payment_intents FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION append_only();
