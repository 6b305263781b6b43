package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const sqlImportFindPlans = `
SELECT p.external_id, p.amount_minor, p.currency, p.interval_unit, p.interval_count
FROM singil.plans p
WHERE p.external_id = ANY ($1)`

const sqlImportFindCustomers = `
SELECT c.external_id, COALESCE(c.provider_customer_id, '')
FROM singil.customers c
WHERE c.external_id = ANY ($1) OR c.provider_customer_id = ANY ($2)`

const sqlImportFindCards = `
SELECT pm.provider_payment_method_id, c.external_id
FROM singil.payment_methods pm
JOIN singil.customers c ON c.id = pm.customer_id
WHERE pm.provider_payment_method_id = ANY ($1)`

const sqlImportFindSubscriptions = `
SELECT s.external_id, c.external_id, p.external_id, COALESCE(np.external_id, ''), s.status, s.quantity,
       s.anchor_at, s.anchor_no, s.time_zone, s.bill_from, s.trial_end
FROM singil.subscriptions s
JOIN singil.customers c ON c.id = s.customer_id
JOIN singil.plans p ON p.id = s.plan_id
LEFT JOIN singil.plans np ON np.id = s.next_plan_id
WHERE s.external_id = ANY ($1)`

const sqlImportPlanUse = `
SELECT EXISTS (SELECT 1 FROM singil.subscriptions s
               JOIN singil.plans p ON p.id IN (s.plan_id, s.next_plan_id)
               WHERE p.external_id = $1)`

// importFound is what the database has of a batch.
type importFound struct {
	customers     map[string]string // external id to the provider's
	owners        map[string]string // the provider's customer id to the external one
	cards         map[string]string // the provider's id to the customer's external one
	subscriptions map[string]foundSubscription
	plans         map[string]planTerms
}

type foundSubscription struct {
	Customer, Plan, NextPlan, Status string
	Quantity                         int64
	AnchorAt                         time.Time
	AnchorNo                         int
	Zone                             string
	BillFrom                         time.Time
	TrialEnd                         *time.Time
}

func importFind(ctx context.Context, q Querier, batch []*importRecord) (importFound, error) {
	var plans, customers, providers, cards, subscriptions []string
	for _, r := range batch {
		switch r.kind {
		case importPlan:
			plans = append(plans, r.id)
		case importCustomer:
			customers = append(customers, r.id)
			if r.providerCustomer != nil {
				providers = append(providers, *r.providerCustomer)
			}
		case importPaymentMethod:
			cards, customers = append(cards, r.id), append(customers, r.customer)
		case importSubscription:
			subscriptions, customers, plans = append(subscriptions, r.id), append(customers, r.customer), append(plans, r.plan)
		}
	}
	found := importFound{
		customers: map[string]string{}, owners: map[string]string{}, cards: map[string]string{},
		subscriptions: map[string]foundSubscription{}, plans: map[string]planTerms{},
	}
	requests := &pgx.Batch{}
	requests.Queue(sqlImportFindPlans, plans).Query(func(rows pgx.Rows) error {
		var id string
		var t planTerms
		_, err := pgx.ForEachRow(rows, []any{&id, &t.Amount.Minor, &t.Amount.Currency, &t.Interval.Unit, &t.Interval.Count}, func() error {
			found.plans[id] = t
			return nil
		})
		return err
	})
	requests.Queue(sqlImportFindCustomers, customers, providers).Query(func(rows pgx.Rows) error {
		var id, provider string
		_, err := pgx.ForEachRow(rows, []any{&id, &provider}, func() error {
			found.customers[id] = provider
			if provider != "" {
				found.owners[provider] = id
			}
			return nil
		})
		return err
	})
	requests.Queue(sqlImportFindCards, cards).Query(func(rows pgx.Rows) error {
		var id, customer string
		_, err := pgx.ForEachRow(rows, []any{&id, &customer}, func() error {
			found.cards[id] = customer
			return nil
		})
		return err
	})
	requests.Queue(sqlImportFindSubscriptions, subscriptions).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id string
			var s foundSubscription
			if err := rows.Scan(&id, &s.Customer, &s.Plan, &s.NextPlan, &s.Status, &s.Quantity, &s.AnchorAt, &s.AnchorNo, &s.Zone, &s.BillFrom, &s.TrialEnd); err != nil {
				return err
			}
			found.subscriptions[id] = s
		}
		return rows.Err()
	})
	if err := q.SendBatch(ctx, requests).Close(); err != nil {
		return importFound{}, fmt.Errorf("look up %d lines of an import: %w", len(batch), err)
	}
	return found, nil
}

// judge checks lines against the database and the lines before them, in the
// order of the file, and returns those that hold.
func (im *importer) judge(ctx context.Context, q Querier, batch []*importRecord) ([]*importRecord, error) {
	found, err := importFind(ctx, q, batch)
	if err != nil {
		return nil, err
	}
	good := batch[:0:0]
	for _, r := range batch {
		if im.result.Stopped {
			break
		}
		var problems []FieldError
		refuse := func(field, format string, args ...any) {
			problems = append(problems, FieldError{field, fmt.Sprintf(format, args...)})
		}
		name := "external_id"
		if r.kind == importPaymentMethod {
			name = "paymongo_payment_method_id"
		}
		if first, twice := im.seen[im.key(r.kind, r.id)]; twice {
			refuse(name, "%q was on line %d already", clip(r.id), first)
		} else {
			im.seen[im.key(r.kind, r.id)] = int32(r.line)
			switch r.kind {
			case importPlan:
				err = im.judgePlan(ctx, q, r, found, refuse)
			case importCustomer:
				im.judgeCustomer(r, found, refuse)
			case importPaymentMethod:
				im.judgeCard(r, found, refuse)
			case importSubscription:
				im.judgeSubscription(r, found, refuse)
			}
			if err != nil {
				return nil, err
			}
		}
		if len(problems) > 0 {
			im.refuse(r.line, problems...)
			continue
		}
		good = append(good, r)
	}
	return good, nil
}

type refuser func(field, format string, args ...any)

func (im *importer) judgePlan(ctx context.Context, q Querier, r *importRecord, found importFound, refuse refuser) error {
	var was planTerms
	was, r.exists = found.plans[r.id]
	if r.exists && was != r.terms {
		used := im.planUsed[r.id] > 0
		if !used {
			rows, err := q.Query(ctx, sqlImportPlanUse, r.id)
			if err != nil {
				return fmt.Errorf("look for the subscriptions of a plan: %w", err)
			}
			if used, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool]); err != nil {
				return fmt.Errorf("look for the subscriptions of a plan: %w", err)
			}
		}
		field := "amount_minor"
		if was.Interval != r.terms.Interval {
			field = "interval"
		}
		if used {
			refuse(field, "the plan is %s %s and has subscriptions, which keep the price they began with; import the new price as another plan and change their plan", was.Amount, was.Interval)
		}
	}
	im.plans[r.id] = &r.terms
	return nil
}

func (im *importer) judgeCustomer(r *importRecord, found importFound, refuse refuser) {
	var provider string
	provider, r.exists = found.customers[r.id]
	if id := r.providerCustomer; id != nil {
		if first, twice := im.seen[im.key("cus", *id)]; twice {
			refuse("paymongo_customer_id", "%q was on line %d already, for another customer", clip(*id), first)
		}
		im.seen[im.key("cus", *id)] = int32(r.line)
		if owner := found.owners[*id]; owner != "" && owner != r.id {
			refuse("paymongo_customer_id", "%q is the customer %q", clip(*id), clip(owner))
		}
		if provider != "" && provider != *id {
			refuse("paymongo_customer_id", "is %q already, and the saved cards are that one's; import a new customer", clip(provider))
		}
	}
	im.customers[im.key("customer", r.id)] = struct{}{}
}

// customer tells whether a customer is there, in the database or on a good line.
func (im *importer) hasCustomer(id string, found importFound) bool {
	if _, ok := found.customers[id]; ok {
		return true
	}
	_, ok := im.customers[im.key("customer", id)]
	return ok
}

func (im *importer) judgeCard(r *importRecord, found importFound, refuse refuser) {
	if !im.hasCustomer(r.customer, found) {
		refuse("customer", "%q is not known: it must be on an earlier line or imported before", clip(r.customer))
	}
	var owner string
	if owner, r.exists = found.cards[r.id]; r.exists && owner != r.customer {
		refuse("customer", "the card is saved for %q, and a card does not change its owner", clip(owner))
	}
}

func (im *importer) judgeSubscription(r *importRecord, found importFound, refuse refuser) {
	if !im.hasCustomer(r.customer, found) {
		refuse("customer", "%q is not known: it must be on an earlier line or imported before", clip(r.customer))
	}
	terms := im.plans[r.plan]
	if terms == nil {
		if stored, ok := found.plans[r.plan]; ok {
			terms = &stored
		}
	}
	if terms == nil {
		refuse("plan", "%q is not known: it must be on an earlier line or imported before", clip(r.plan))
		return
	}
	im.planUsed[r.plan] = r.line
	if was, exists := found.subscriptions[r.id]; exists {
		r.exists = true
		r.compare(was, refuse)
		return
	}
	r.begin(*terms, im.options.Now, refuse)
}

// compare refuses what a line would change of an existing subscription although
// money depends on it. Other fields are simply written.
func (r *importRecord) compare(was foundSubscription, refuse refuser) {
	if r.customer != was.Customer {
		refuse("customer", "is %q and stays: end the subscription and import a new one", clip(was.Customer))
	}
	if r.plan != was.Plan && r.plan != was.NextPlan {
		refuse("plan", "is %q, and an import does not change what is charged: change the plan of the subscription, from its next period", clip(was.Plan))
	}
	// A change of interval moves the anchor on; the one of the beginning is as good.
	moved := was.AnchorNo > 0 && r.anchor.At.Before(was.AnchorAt)
	if !r.anchor.At.Equal(was.AnchorAt) && !moved {
		refuse("anchor", "is %s, and moving it would move every period: end the subscription and import a new one", rfc3339(was.AnchorAt))
	}
	if r.zone != was.Zone {
		refuse("time_zone", "is %q, and another zone would move every period: end the subscription and import a new one", clip(was.Zone))
	}
	if r.billFrom != nil && !r.billFrom.Equal(was.BillFrom) {
		refuse("bill_from", "is %s and stays: the periods before it were counted out when the subscription was made", rfc3339(was.BillFrom))
	}
	if r.trialEnd != nil && (was.TrialEnd == nil || !r.trialEnd.Equal(*was.TrialEnd)) {
		refuse("trial_end", "was set when the subscription was made and stays")
	}
	if r.quantity != nil && *r.quantity != was.Quantity {
		refuse("quantity", "is %d, and an import does not change what is charged: end the subscription and import a new one", was.Quantity)
	}
	if r.status == nil {
		return
	}
	// Between trialing, active and overdue a subscription moves by itself.
	stopped := was.Status == SubscriptionPaused || was.Status == SubscriptionCancelled
	stop := *r.status == SubscriptionPaused || *r.status == SubscriptionCancelled
	if (stopped || stop) && *r.status != was.Status {
		refuse("status", "is %s; an import does not pause, resume or cancel, leave the field out", was.Status)
	}
}

// begin computes what a new subscription starts with.
func (r *importRecord) begin(terms planTerms, now time.Time, refuse refuser) {
	s := &subscriptionStart{status: SubscriptionActive, quantity: 1, terms: terms, billFrom: now, pauses: "[]"}
	if r.quantity != nil {
		s.quantity = *r.quantity
	}
	amount, err := terms.Amount.Mul(s.quantity)
	if err != nil {
		refuse("quantity", "%s", err)
		return
	}
	s.terms.Amount = amount
	if r.billFrom != nil {
		s.billFrom = *r.billFrom
	}
	trial := r.trialEnd != nil && r.trialEnd.After(now)
	if trial {
		s.status = SubscriptionTrialing
	}
	if r.status != nil {
		switch {
		case *r.status == SubscriptionTrialing && !trial:
			refuse("status", "is trialing without a trial_end in the future")
			return
		case *r.status == SubscriptionActive && trial:
			refuse("status", "is active with a trial_end in the future; that is trialing")
			return
		}
		s.status = *r.status
	}
	schedule := Schedule{Anchor: r.anchor, Interval: terms.Interval}
	if s.nextNo, err = schedule.FirstNo(s.billFrom); err != nil {
		refuse("bill_from", "%s", err)
		return
	}
	due, err := schedule.Boundary(s.nextNo)
	if err != nil {
		refuse("bill_from", "%s", err)
		return
	}
	switch s.status {
	case SubscriptionCancelled:
		s.cancelled = &now
	case SubscriptionPaused:
		s.pausedAt, s.pauses = &now, pausesDocument([]Pause{{From: now}})
	default:
		s.nextDue = &due
	}
	r.start = s
}

// periodsDue is how many periods the next sweep opens.
func (r *importRecord) periodsDue(now time.Time) int {
	if r.start.nextDue == nil || r.start.nextDue.After(now) || r.start.status == SubscriptionTrialing {
		return 0
	}
	p, ok := Schedule{Anchor: r.anchor, Interval: r.start.terms.Interval}.PeriodAt(now)
	if !ok {
		return 0
	}
	return p.No - r.start.nextNo + 1
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// write stores the good lines of a batch. References are on earlier lines, so
// the order of the tables will do.
func (im *importer) write(ctx context.Context, tx pgx.Tx, good []*importRecord) error {
	byKind := map[string][]*importRecord{}
	for _, r := range good {
		byKind[r.kind] = append(byKind[r.kind], r)
	}
	changed := map[string]ImportCount{}
	for _, step := range []struct {
		kind     string
		new, old func(context.Context, pgx.Tx, []*importRecord) (int, error)
	}{
		{importPlan, importNewPlans, importOldPlans},
		{importCustomer, importNewCustomers, importOldCustomers},
		{importPaymentMethod, importNewCards, importOldCards},
		{importSubscription, importNewSubscriptions, importOldSubscriptions},
	} {
		var fresh, old []*importRecord
		for _, r := range byKind[step.kind] {
			if r.exists {
				old = append(old, r)
			} else {
				fresh = append(fresh, r)
			}
		}
		var count ImportCount
		var err error
		if len(fresh) > 0 {
			if count.Created, err = step.new(ctx, tx, fresh); err != nil {
				return fmt.Errorf("import %d new %ss from line %d on: %w", len(fresh), step.kind, fresh[0].line, err)
			}
			if count.Created != len(fresh) {
				return fmt.Errorf("import %d new %ss from line %d on: only %d could be written, the database changed meanwhile; run it again",
					len(fresh), step.kind, fresh[0].line, count.Created)
			}
		}
		if len(old) > 0 {
			if count.Updated, err = step.old(ctx, tx, old); err != nil {
				return fmt.Errorf("import %d known %ss from line %d on: %w", len(old), step.kind, old[0].line, err)
			}
			count.Unchanged = len(old) - count.Updated
		}
		total := im.result.count(step.kind)
		total.Created, total.Updated, total.Unchanged = total.Created+count.Created, total.Updated+count.Updated, total.Unchanged+count.Unchanged
		if count.Created > 0 || count.Updated > 0 {
			changed[step.kind+"s"] = count
		}
	}
	for _, r := range byKind[importSubscription] {
		if !r.exists {
			im.result.PeriodsDue += r.periodsDue(im.options.Now)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	reason := fmt.Sprintf("lines %d to %d", good[0].line, good[len(good)-1].line)
	if im.options.Reason != "" {
		reason = im.options.Reason + ": " + reason
	}
	return Audit(ctx, tx, AuditEntry{Actor: im.options.Actor, Action: "import", Subject: im.options.Source, Reason: reason, After: changed})
}

const sqlImportNewPlans = `
INSERT INTO singil.plans (id, external_id, name, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
SELECT r.id, r.external_id, r.name, r.amount, r.currency, r.unit, r.count, r.dunning::jsonb, r.catch_up
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::int[], $8::text[], $9::text[])
  AS r (id, external_id, name, amount, currency, unit, count, dunning, catch_up)`

func importNewPlans(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	n := len(list)
	ids, external, names, amounts, currencies := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]int64, n), make([]string, n)
	units, counts, dunning, catchUps := make([]string, n), make([]int32, n), make([]string, n), make([]string, n)
	for i, r := range list {
		ids[i], external[i], names[i], amounts[i], currencies[i] = newID(), r.id, or(r.name, ""), r.terms.Amount.Minor, string(r.terms.Amount.Currency)
		units[i], counts[i] = string(r.terms.Interval.Unit), int32(r.terms.Interval.Count)
		dunning[i], catchUps[i] = or(r.dunning, DefaultDunningPolicy().document()), or(r.catchUp, string(CatchUpBillAll))
	}
	return affected(tx.Exec(ctx, sqlImportNewPlans, ids, external, names, amounts, currencies, units, counts, dunning, catchUps))
}

const sqlImportOldPlans = `
UPDATE singil.plans p
SET name = COALESCE(r.name, p.name), amount_minor = r.amount, interval_unit = r.unit, interval_count = r.count,
    dunning = COALESCE(r.dunning::jsonb, p.dunning), catch_up = COALESCE(r.catch_up, p.catch_up), updated_at = clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::int[], $6::text[], $7::text[])
  AS r (external_id, name, amount, unit, count, dunning, catch_up)
WHERE p.external_id = r.external_id
  AND (p.name, p.amount_minor, p.interval_unit, p.interval_count, p.dunning, p.catch_up)
      IS DISTINCT FROM (COALESCE(r.name, p.name), r.amount, r.unit, r.count, COALESCE(r.dunning::jsonb, p.dunning), COALESCE(r.catch_up, p.catch_up))`

func importOldPlans(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	n := len(list)
	external, names, amounts, units, counts := make([]string, n), make([]*string, n), make([]int64, n), make([]string, n), make([]int32, n)
	dunning, catchUps := make([]*string, n), make([]*string, n)
	for i, r := range list {
		external[i], names[i], amounts[i], units[i], counts[i] = r.id, r.name, r.terms.Amount.Minor, string(r.terms.Interval.Unit), int32(r.terms.Interval.Count)
		dunning[i], catchUps[i] = r.dunning, r.catchUp
	}
	return affected(tx.Exec(ctx, sqlImportOldPlans, external, names, amounts, units, counts, dunning, catchUps))
}

const sqlImportNewCustomers = `
INSERT INTO singil.customers (id, external_id, provider_customer_id, name, email, metadata)
SELECT r.id, r.external_id, r.provider, COALESCE(r.name, ''), COALESCE(r.email, ''), COALESCE(r.metadata::jsonb, '{}')
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
  AS r (id, external_id, provider, name, email, metadata)`

func importNewCustomers(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	ids := make([]uuid.UUID, len(list))
	for i := range ids {
		ids[i] = newID()
	}
	return affected(tx.Exec(ctx, sqlImportNewCustomers, append([]any{ids}, customerColumns(list)...)...))
}

const sqlImportOldCustomers = `
UPDATE singil.customers c
SET provider_customer_id = COALESCE(r.provider, c.provider_customer_id), name = COALESCE(r.name, c.name),
    email = COALESCE(r.email, c.email), metadata = COALESCE(r.metadata::jsonb, c.metadata), updated_at = clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
  AS r (external_id, provider, name, email, metadata)
WHERE c.external_id = r.external_id
  AND (c.provider_customer_id, c.name, c.email, c.metadata)
      IS DISTINCT FROM (COALESCE(r.provider, c.provider_customer_id), COALESCE(r.name, c.name), COALESCE(r.email, c.email), COALESCE(r.metadata::jsonb, c.metadata))`

func importOldCustomers(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	return affected(tx.Exec(ctx, sqlImportOldCustomers, customerColumns(list)...))
}

func customerColumns(list []*importRecord) []any {
	n := len(list)
	external, providers, names, emails, metadata := make([]string, n), make([]*string, n), make([]*string, n), make([]*string, n), make([]*string, n)
	for i, r := range list {
		external[i], providers[i], names[i], emails[i], metadata[i] = r.id, r.providerCustomer, r.name, r.email, r.metadata
	}
	return []any{external, providers, names, emails, metadata}
}

// A card comes behind those that its customer has already: the order of the
// lines is the order in which they are charged.
const sqlImportNewCards = `
INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, last4, exp_month, exp_year, position)
SELECT r.id, c.id, r.provider, COALESCE(r.brand, ''), COALESCE(r.last4, ''), r.month, r.year,
       COALESCE((SELECT max(pm.position) + 1 FROM singil.payment_methods pm WHERE pm.customer_id = c.id), 0)
         + row_number() OVER (PARTITION BY c.id ORDER BY r.n) - 1
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::smallint[]) WITH ORDINALITY
  AS r (id, provider, customer, brand, last4, month, year, n)
JOIN singil.customers c ON c.external_id = r.customer`

func importNewCards(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	n := len(list)
	ids, customers := make([]uuid.UUID, n), make([]string, n)
	for i, r := range list {
		ids[i], customers[i] = newID(), r.customer
	}
	c := cardColumns(list)
	return affected(tx.Exec(ctx, sqlImportNewCards, ids, c[0], customers, c[1], c[2], c[3], c[4]))
}

// A card with another expiry is announced again before it ends.
const sqlImportOldCards = `
UPDATE singil.payment_methods pm
SET brand = COALESCE(r.brand, pm.brand), last4 = COALESCE(r.last4, pm.last4),
    exp_month = COALESCE(r.month, pm.exp_month), exp_year = COALESCE(r.year, pm.exp_year),
    expiry_notified_at = CASE WHEN r.month IS NULL OR (r.month, r.year) IS NOT DISTINCT FROM (pm.exp_month, pm.exp_year) THEN pm.expiry_notified_at END,
    updated_at = clock_timestamp()
FROM (
  SELECT c.id, n.brand, n.last4, n.month, n.year
  FROM singil.payment_methods c
  JOIN unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::smallint[])
    AS n (provider, brand, last4, month, year) ON c.provider_payment_method_id = n.provider
  ORDER BY c.id
  FOR NO KEY UPDATE OF c
) r
WHERE pm.id = r.id
  AND (pm.brand, pm.last4, pm.exp_month, pm.exp_year)
      IS DISTINCT FROM (COALESCE(r.brand, pm.brand), COALESCE(r.last4, pm.last4), COALESCE(r.month, pm.exp_month), COALESCE(r.year, pm.exp_year))`

func importOldCards(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	return affected(tx.Exec(ctx, sqlImportOldCards, cardColumns(list)...))
}

func cardColumns(list []*importRecord) []any {
	n := len(list)
	providers, brands, last4, months, years := make([]string, n), make([]*string, n), make([]*string, n), make([]*int64, n), make([]*int64, n)
	for i, r := range list {
		providers[i], brands[i], last4[i], months[i], years[i] = r.id, r.brand, r.last4, r.expMonth, r.expYear
	}
	return []any{providers, brands, last4, months, years}
}

const sqlImportNewSubscriptions = `
WITH made AS (
  INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, quantity, amount_minor, currency, interval_unit, interval_count,
                                    anchor_at, time_zone, next_period_no, next_due_at, bill_from, pauses, trial_end, cancelled_at, paused_at,
                                    dunning, catch_up, metadata)
  SELECT r.id, r.external_id, c.id, p.id, r.status, r.quantity, r.amount, p.currency, r.unit, r.count,
         r.anchor_at, r.zone, r.next_no, r.next_due, r.bill_from, r.pauses::jsonb, r.trial_end, r.cancelled_at, r.paused_at,
         COALESCE(r.dunning::jsonb, p.dunning), COALESCE(r.catch_up, p.catch_up), COALESCE(r.metadata::jsonb, '{}')
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::text[], $9::int[],
              $10::timestamptz[], $11::text[], $12::int[], $13::timestamptz[], $14::timestamptz[], $15::text[], $16::timestamptz[],
              $17::timestamptz[], $18::timestamptz[], $19::text[], $20::text[], $21::text[])
    AS r (id, external_id, customer, plan, status, quantity, amount, unit, count, anchor_at, zone, next_no, next_due, bill_from, pauses, trial_end,
          cancelled_at, paused_at, dunning, catch_up, metadata)
  JOIN singil.customers c ON c.external_id = r.customer
  JOIN singil.plans p ON p.external_id = r.plan
  RETURNING id, next_period_no
), skipped AS (
  INSERT INTO singil.skipped_periods (subscription_id, first_no, last_no, reason)
  SELECT id, 0, next_period_no - 1, $22 FROM made WHERE next_period_no > 0
)
SELECT count(*) FROM made`

func importNewSubscriptions(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	n := len(list)
	ids, external, customers, plans, statuses := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	quantities, amounts, units, counts := make([]int64, n), make([]int64, n), make([]string, n), make([]int32, n)
	anchors, zones, nos, due, from := make([]time.Time, n), make([]string, n), make([]int32, n), make([]*time.Time, n), make([]time.Time, n)
	pauses, trials, cancelled, paused := make([]string, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n)
	dunning, catchUps, metadata := make([]*string, n), make([]*string, n), make([]*string, n)
	for i, r := range list {
		s := r.start
		ids[i], external[i], customers[i], plans[i], statuses[i] = newID(), r.id, r.customer, r.plan, s.status
		quantities[i], amounts[i], units[i], counts[i] = s.quantity, s.terms.Amount.Minor, string(s.terms.Interval.Unit), int32(s.terms.Interval.Count)
		anchors[i], zones[i], nos[i], due[i], from[i] = r.anchor.At, r.zone, int32(s.nextNo), s.nextDue, s.billFrom
		pauses[i], trials[i], cancelled[i], paused[i] = s.pauses, r.trialEnd, s.cancelled, s.pausedAt
		dunning[i], catchUps[i], metadata[i] = r.dunning, r.catchUp, r.metadata
	}
	var made int
	err := tx.QueryRow(ctx, sqlImportNewSubscriptions, ids, external, customers, plans, statuses, quantities, amounts, units, counts,
		anchors, zones, nos, due, from, pauses, trials, cancelled, paused, dunning, catchUps, metadata, string(SkipReasonBillFrom)).Scan(&made)
	return made, err
}

// The rows are locked in the order in which a settlement locks them.
const sqlImportOldSubscriptions = `
WITH r AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS r (external_id, dunning, catch_up, metadata)
), changed AS (
  SELECT s.id, r.dunning, r.catch_up, r.metadata
  FROM singil.subscriptions s
  JOIN r ON r.external_id = s.external_id
  WHERE (s.dunning, s.catch_up, s.metadata)
        IS DISTINCT FROM (COALESCE(r.dunning::jsonb, s.dunning), COALESCE(r.catch_up, s.catch_up), COALESCE(r.metadata::jsonb, s.metadata))
  ORDER BY s.id
  FOR NO KEY UPDATE OF s
)
UPDATE singil.subscriptions s
SET dunning = COALESCE(changed.dunning::jsonb, s.dunning), catch_up = COALESCE(changed.catch_up, s.catch_up),
    metadata = COALESCE(changed.metadata::jsonb, s.metadata), updated_at = clock_timestamp()
FROM changed
WHERE s.id = changed.id`

func importOldSubscriptions(ctx context.Context, tx pgx.Tx, list []*importRecord) (int, error) {
	n := len(list)
	external, dunning, catchUps, metadata := make([]string, n), make([]*string, n), make([]*string, n), make([]*string, n)
	for i, r := range list {
		external[i], dunning[i], catchUps[i], metadata[i] = r.id, r.dunning, r.catchUp, r.metadata
	}
	return affected(tx.Exec(ctx, sqlImportOldSubscriptions, external, dunning, catchUps, metadata))
}

// or is what a pointer points to, or a default.
func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func affected(tag pgconn.CommandTag, err error) (int, error) {
	return int(tag.RowsAffected()), err
}
