package billing

// utc is how a violation tells an instant.
func utc(column string) string {
	return `to_char(` + column + ` AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')`
}

// kept is a payment that was taken and not given back in full.
const kept = `p.status = 'paid' AND p.refunded_minor < p.amount_minor`

// orAll is before each condition of a window, and is taken out where one is asked
// for. Without one it is true, and the planner drops the condition.
const orAll = `@all::boolean OR `

// invariants is the closed list. Each statement yields an id and what is wrong
// with it. Named arguments are those of invariantArgs.
var invariants = []Invariant{
	{
		Name: "double_payment", Meaning: "An invoice has at most one payment that was not refunded in full.",
		sql: `
SELECT p.invoice_id::text, format('%s payments: %s', count(*), string_agg(p.payment_id, ', ' ORDER BY p.payment_id))
FROM singil.payments p
WHERE ` + kept + ` AND p.invoice_id IS NOT NULL
  AND (` + orAll + `p.invoice_id IN (SELECT n.invoice_id FROM singil.payments n WHERE n.seen_at >= @since))
GROUP BY p.invoice_id
HAVING count(*) > 1`,
	},
	{
		Name: "double_intent", Meaning: "An invoice has at most one payment intent that is not dead.",
		sql: `
SELECT pi.invoice_id::text, format('%s payment intents are not dead: %s', count(*),
       string_agg(COALESCE(pi.provider_intent_id, pi.id::text), ', ' ORDER BY pi.generation))
FROM singil.payment_intents pi
WHERE pi.state <> 'dead'
  AND (` + orAll + `pi.invoice_id IN (SELECT a.invoice_id FROM singil.attempts a WHERE a.id >= @since_id))
GROUP BY pi.invoice_id
HAVING count(*) > 1`,
	},
	{
		Name: "open_although_paid", Meaning: "An open invoice has no payment that was not refunded in full: it would be charged again.",
		sql: `
SELECT i.id::text, format('open, and %s was taken for it', p.payment_id)
FROM singil.payments p
JOIN singil.invoices i ON i.id = p.invoice_id
WHERE ` + kept + ` AND i.status = 'open' AND (` + orAll + `p.seen_at >= @since)`,
	},
	{
		Name: "open_attempt_of_paid", Meaning: "A paid invoice has no attempt whose outcome is open.",
		sql: `
SELECT a.id::text, format('attempt %s of the paid invoice %s is %s', a.no, i.id, a.state)
FROM singil.attempts a
JOIN singil.invoices i ON i.id = a.invoice_id
WHERE a.state IN ('armed', 'review', 'needs_action') AND i.status = 'paid' AND (` + orAll + `a.id >= @since_id)`,
	},
	{
		Name: "foreign_intent", Meaning: "An attempt is on a payment intent of its own invoice.",
		sql: `
SELECT a.id::text, format('attempt %s of invoice %s is on an intent of invoice %s', a.no, a.invoice_id, pi.invoice_id)
FROM singil.attempts a
JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
WHERE a.invoice_id <> pi.invoice_id AND (` + orAll + `a.id >= @since_id)`,
	},
	{
		// A record goes from 0 to the cursor; the row of the cursor itself closes it.
		Name: "missing_period", Meaning: "Every period before a subscription's next one has an invoice or is recorded as skipped.",
		sql: `
SELECT s.id::text, format('%s: neither an invoice nor a skip for period %s to %s', s.external_id, r.before + 1, r.first_no - 1)
FROM (
  SELECT c.subscription_id, c.first_no,
         COALESCE(max(c.last_no) OVER (PARTITION BY c.subscription_id ORDER BY c.first_no
                                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), -1) AS before
  FROM (
    SELECT i.subscription_id, i.period_no AS first_no, i.period_no AS last_no FROM singil.invoices i
    WHERE ` + orAll + `i.subscription_id IN (SELECT n.subscription_id FROM singil.invoices n WHERE n.id >= @since_id)
    UNION ALL
    SELECT k.subscription_id, k.first_no, k.last_no FROM singil.skipped_periods k
    WHERE ` + orAll + `k.subscription_id IN (SELECT n.subscription_id FROM singil.invoices n WHERE n.id >= @since_id)
    UNION ALL
    SELECT s.id, s.next_period_no, s.next_period_no FROM singil.subscriptions s
    WHERE ` + orAll + `s.id IN (SELECT n.subscription_id FROM singil.invoices n WHERE n.id >= @since_id)
  ) c
) r
JOIN singil.subscriptions s ON s.id = r.subscription_id
WHERE r.first_no > r.before + 1 AND r.first_no <= s.next_period_no`,
	},
	{
		// What is parked, paused or cancelled is not due. Freezing stops no invoice.
		Name: "uninvoiced_period", Meaning: "A period that has been due for 10 minutes has its invoice.",
		sql: `
SELECT s.id::text, format('%s: period %s has been due since %s', s.external_id, s.next_period_no, ` + utc("s.next_due_at") + `)
FROM singil.subscriptions s
WHERE s.next_due_at <= @now::timestamptz - interval '10 minutes'`,
	},
	{
		// An interlock that holds charging explains it and does not excuse it: the
		// reason is told with it.
		Name: "unclaimed_invoice", Meaning: "An open invoice is claimed by a sweep within 15 minutes of its next attempt, or of the end of a lease.",
		sql: `
SELECT i.id::text, format('its next attempt was to be at %s%s', ` + utc("i.next_attempt_at") + `, @held::text)
FROM singil.invoices i
WHERE i.status = 'open' AND i.next_attempt_at <= @now::timestamptz - interval '15 minutes'`,
	},
	{
		// One that is being asked about may be processing at the provider: it is parked
		// by the first look behind PatienceWithProvider.
		Name: "stale_attempt", Meaning: "An attempt has an outcome within 24 hours, or within 4 days while the provider is being asked.",
		sql: `
SELECT a.id::text, format('armed at %s; invoice %s is %s, waits for the %s and was looked at %s times', ` + utc("a.armed_at") + `,
       i.id, i.status, i.waiting_for, i.poll_count)
FROM singil.attempts a
JOIN singil.invoices i ON i.id = a.invoice_id
WHERE a.state = 'armed' AND a.armed_at <= @now::timestamptz - interval '24 hours'
  AND NOT (i.status = 'open' AND i.waiting_for = 'provider' AND i.poll_count > 0 AND a.armed_at > @now::timestamptz - @patience::interval)`,
	},
	{
		Name: "paid_without_payment", Meaning: "A paid invoice has its payment on record, paid.",
		sql: `
SELECT i.id::text, format('paid by %s, which is %s', i.payment_id,
       CASE WHEN p.payment_id IS NULL THEN 'not on record' WHEN p.status <> 'paid' THEN p.status ELSE 'of another invoice, or of none' END)
FROM singil.invoices i
LEFT JOIN singil.payments p ON p.payment_id = i.payment_id
WHERE i.status = 'paid' AND (p.payment_id IS NULL OR p.status <> 'paid' OR p.invoice_id IS DISTINCT FROM i.id)
  AND (` + orAll + `i.id IN (SELECT a.invoice_id FROM singil.attempts a WHERE a.id >= @since_id))`,
	},
	{
		// What other programs of the merchant take on the same account is not on record.
		Name: "payment_without_invoice", Meaning: "A payment of ours that was not refunded in full belongs to an invoice, or is the sale of a card setup.",
		sql: `
SELECT p.payment_id, format('%s %s, seen at %s, of intent %s', p.amount_minor, p.currency, ` + utc("p.seen_at") + `, COALESCE(p.provider_intent_id, 'unknown'))
FROM singil.payments p
WHERE ` + kept + ` AND p.invoice_id IS NULL AND p.card_setup_id IS NULL
  AND NOT EXISTS (SELECT FROM singil.card_setups cs WHERE cs.provider_intent_id = p.provider_intent_id)`,
	},
	{
		Name: "wrong_payment", Meaning: "A payment that was not refunded in full has its invoice's amount, currency and mode.",
		sql: `
SELECT p.payment_id, format('%s %s (livemode %s) for invoice %s over %s %s (livemode %s)', p.amount_minor, p.currency, p.livemode,
       i.id, i.amount_minor, i.currency, i.livemode)
FROM singil.payments p
JOIN singil.invoices i ON i.id = p.invoice_id
WHERE ` + kept + ` AND (p.amount_minor, p.currency, p.livemode) IS DISTINCT FROM (i.amount_minor, i.currency, i.livemode)
  AND (` + orAll + `p.seen_at >= @since)`,
	},
	{
		// As CardLimits.Permit counts. A decline exactly a window ago has left it.
		Name: "card_limit", Meaning: "A card has no more declines in 24 hours and 30 days than its network allows.",
		sql: `
SELECT pm.id::text, format('%s (%s): %s declines in 30 days, %s in 24 hours', pm.provider_payment_method_id, pm.brand, max(u.in_30d), max(u.in_24h))
FROM (
  SELECT a.id, a.payment_method_id, count(*) OVER long AS in_30d, count(*) OVER short AS in_24h
  FROM singil.attempts a
  WHERE a.state IN ('declined', 'armed', 'review')
    AND (` + orAll + `a.payment_method_id IN (SELECT n.payment_method_id FROM singil.attempts n
                                                  WHERE n.id >= @since_id AND n.state IN ('declined', 'armed', 'review')))
  WINDOW long AS (PARTITION BY a.payment_method_id ORDER BY a.armed_at RANGE BETWEEN interval '719:59:59.999999' PRECEDING AND CURRENT ROW),
         short AS (PARTITION BY a.payment_method_id ORDER BY a.armed_at RANGE BETWEEN interval '23:59:59.999999' PRECEDING AND CURRENT ROW)
) u
JOIN singil.payment_methods pm ON pm.id = u.payment_method_id
WHERE ` + orAll + `u.id >= @since_id
GROUP BY pm.id
HAVING lower(btrim(pm.brand)) NOT IN ('mastercard', 'master_card') AND max(u.in_30d) > @visa
    OR lower(btrim(pm.brand)) <> 'visa' AND (max(u.in_30d) > @mastercard_long OR max(u.in_24h) > @mastercard_short)`,
	},
	{
		Name: "invoice_limit", Meaning: "An invoice has no more attempts that may have reached a card than our own limit.",
		sql: `
SELECT a.invoice_id::text, format('%s attempts', count(*))
FROM singil.attempts a
WHERE a.state <> 'no_effect'
  AND a.invoice_id IN (SELECT n.invoice_id FROM singil.attempts n WHERE n.no > @invoice_attempts AND (` + orAll + `n.id >= @since_id))
GROUP BY a.invoice_id
HAVING count(*) > @invoice_attempts`,
	},
	{
		// Freezing waits for the armings under way, and both write their times behind
		// that: by the audit log, not by instance.frozen_at, which is taken before.
		Name: "armed_while_frozen", Meaning: "No attempt was armed between a freeze and the unfreeze behind it, by the audit log.",
		sql: `
SELECT a.id::text, format('written at %s; frozen from %s to %s', ` + utc("a.written_at") + `, ` + utc("f.at") + `, COALESCE(` + utc("f.until") + `, 'now'))
FROM (
  SELECT f.at, (SELECT min(u.at) FROM singil.audit_log u WHERE u.action = 'unfreeze' AND u.id > f.id) AS until
  FROM singil.audit_log f
  WHERE f.action = 'freeze'
) f
JOIN singil.attempts a ON a.written_at > f.at AND (f.until IS NULL OR a.written_at < f.until)
WHERE ` + orAll + `a.id >= @since_id`,
	},
	{
		Name: "budget_drift", Meaning: "What was spent of a day's budget is what was armed on that day.",
		sql: `
SELECT COALESCE(b.day, a.day)::text, format('the budget counts %s attempts over %s, armed were %s over %s', COALESCE(b.used_count, 0),
       COALESCE(b.used_minor, 0), COALESCE(a.number, 0), COALESCE(a.minor, 0))
FROM (
  SELECT (a.armed_at AT TIME ZONE 'UTC')::date AS day, pi.livemode, count(*) AS number, sum(pi.amount_minor) AS minor
  FROM singil.attempts a
  JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
  WHERE @all_days::boolean OR a.id >= @since_id AND a.armed_at >= @since_day::timestamptz
  GROUP BY 1, 2
) a
FULL JOIN (
  SELECT * FROM singil.charge_budget
  WHERE @all_days::boolean OR day >= (@since_day::timestamptz AT TIME ZONE 'UTC')::date
) b ON b.day = a.day AND b.livemode = a.livemode
WHERE COALESCE(b.used_count, 0) <> COALESCE(a.number, 0) OR COALESCE(b.used_minor, 0) <> COALESCE(a.minor, 0)`,
	},
	{
		// A delivery may be ahead of our books: it is put off, for hours at most.
		Name: "unprocessed_webhook", Meaning: "A webhook is tried within 10 minutes, and processed within 8 hours.",
		sql: `
SELECT w.event_id, format('%s, received at %s, tried %s times', w.type, ` + utc("w.received_at") + `, w.tries)
FROM singil.webhook_events w
WHERE w.processed_at IS NULL AND w.received_at <= @now::timestamptz - interval '10 minutes'
  AND (w.next_try_at <= @now::timestamptz - @lease::interval OR w.received_at <= @now::timestamptz - interval '8 hours')`,
	},
	{
		Name: "stuck_events", Meaning: "What a merchant's endpoint must know of a subscription is not refused by it for 24 hours.",
		sql: `
SELECT s.stream::text, format('endpoint %s has not acknowledged since %s', s.endpoint_id, ` + utc("s.failing_since") + `)
FROM singil.event_streams s
JOIN singil.endpoints e ON e.id = s.endpoint_id
WHERE e.enabled AND s.failing_since <= @real_now::timestamptz - interval '24 hours'`,
	},
	{
		// The window is the last thousand links: the log is short, and it is read whole
		// by a check of everything.
		Name: "audit_chain", Meaning: "No entry of the audit log was changed, removed or slipped in since it was written.",
		sql: `
SELECT c.audit_id::text, CASE
         WHEN c.entry_id IS NULL THEN format('link %s: the entry is gone', c.no)
         WHEN c.no <> COALESCE(c.before_no, 0) + 1 THEN format('link %s: the link before is gone', c.no)
         ELSE format('link %s: the entry was changed, or the chain', c.no) END
FROM (
  SELECT l.no, l.audit_id, l.hash, e AS entry, e.id AS entry_id,
         lag(l.no) OVER (ORDER BY l.no) AS before_no, lag(l.hash) OVER (ORDER BY l.no) AS before_hash
  FROM singil.audit_chain l
  LEFT JOIN singil.audit_log e ON e.id = l.audit_id
  WHERE ` + orAll + `l.no >= (SELECT max(m.no) FROM singil.audit_chain m) - 1000
) c
WHERE c.entry_id IS NULL
   OR (` + orAll + `c.no = 1 OR c.before_no IS NOT NULL)
      AND (c.no <> COALESCE(c.before_no, 0) + 1 OR c.hash <> singil.audit_hash(c.before_hash, c.no, c.entry))
UNION ALL
SELECT e.id::text, 'the entry has no link'
FROM singil.audit_log e
WHERE NOT EXISTS (SELECT FROM singil.audit_chain l WHERE l.audit_id = e.id)
  AND (` + orAll + `e.id >= (SELECT max(m.id) FROM singil.audit_log m) - 1000)`,
	},
}
