package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// shop is a plant with a plan, pro, and customers who each have a card.
type shop struct {
	*plant
	viewer, operator, admin string
	collector               *worker.Collector
}

func newShop(t *testing.T, customers ...string) *shop {
	t.Helper()
	p := setup(t)
	s := &shop{plant: p, viewer: p.token(billing.RoleViewer), operator: p.token(billing.RoleOperator), admin: p.token(billing.RoleAdmin)}
	s.call(s.admin, "POST", "/v1/plans", map[string]any{"external_id": "pro", "amount_minor": 49900, "currency": "PHP", "interval": "month"}).want(201)
	for _, c := range customers {
		s.exec(`INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, uuid.New(), c)
		s.card(c, goodCard)
	}
	s.collector = worker.NewCollector(worker.Config{
		Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Log: p.api.cfg.Log, Metrics: worker.NewMetrics(), Now: time.Now,
	})
	s.set(noon)
	return s
}

// set moves the time of the business and of the API. An attach is sent, or not, by
// the machine's clock.
func (s *shop) set(now time.Time) {
	s.t.Helper()
	s.plant.set(now)
	s.tx(func(tx pgx.Tx) error { return billing.SetVirtualClock(s.t.Context(), tx, now) })
}

// card saves a card for a customer, and returns PayMongo's id of it.
func (s *shop) card(customer, number string) string {
	s.t.Helper()
	method, err := s.client.PaymentMethods.Create(s.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.exec(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, last4, exp_month, exp_year, position)
		SELECT $1, c.id, $3, 'visa', '4345', 12, 2030, (SELECT count(*) FROM singil.payment_methods pm WHERE pm.customer_id = c.id)
		FROM singil.customers c WHERE c.external_id = $2`, uuid.New(), customer, method.ID)
	return method.ID
}

// subscribe makes a subscription that is due now.
func (s *shop) subscribe(name, customer string) {
	s.t.Helper()
	s.call(s.operator, "POST", "/v1/subscriptions", map[string]any{"external_id": name, "customer": customer, "plan": "pro"}, "Idempotency-Key: "+uuid.NewString()).want(201)
}

// collect opens and charges what is due.
func (s *shop) collect() {
	s.t.Helper()
	var due []billing.Claimed
	s.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(s.t.Context(), tx, billing.EnvironmentDev, false, s.clock(), 100)
		return err
	})
	s.tx(func(tx pgx.Tx) (err error) {
		due, err = billing.ClaimDue(s.t.Context(), tx, s.clock(), 100, false)
		return err
	})
	for _, c := range due {
		if err := s.collector.Charge(s.t.Context(), c.InvoiceID); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *shop) decline(code string, times int) {
	s.t.Helper()
	if _, err := s.box.AddFault(sandbox.Fault{Kind: sandbox.Decline, Code: code, Times: times}); err != nil {
		s.t.Fatal(err)
	}
}

// declined is an invoice of a subscription that was just declined.
func (s *shop) declined(subscription, customer string) (invoice string) {
	s.t.Helper()
	s.decline("insufficient_funds", 1)
	s.subscribe(subscription, customer)
	s.collect()
	s.set(s.clock().Add(time.Hour))
	return s.invoice(subscription)
}

func (s *shop) invoice(subscription string) string {
	s.t.Helper()
	var page list[billing.ExportedInvoice]
	s.call(s.viewer, "GET", "/v1/invoices?subscription="+subscription, nil).want(200, &page)
	if len(page.Data) != 1 {
		s.t.Fatalf("%d invoices of %s", len(page.Data), subscription)
	}
	return page.Data[0].ID.String()
}

func TestPlans(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	plan := map[string]any{
		"external_id": "basic", "name": "Basic", "amount_minor": 19900, "currency": "PHP", "interval": "week", "interval_count": 2,
		"catch_up": "bill_current", "dunning": map[string]any{"offsets_days": []int{2, 4}},
	}
	with := func(name string, value any) map[string]any {
		other := map[string]any{"external_id": "other"}
		for k, v := range plan {
			if _, set := other[k]; !set {
				other[k] = v
			}
		}
		other[name] = value
		return other
	}
	for _, token := range []string{s.viewer, s.operator} {
		s.call(token, "POST", "/v1/plans", plan).wantProblem(kindForbidden, "admin")
	}
	var made billing.ListedPlan
	s.call(s.admin, "POST", "/v1/plans", plan).want(201, &made)
	if made.Interval != "week" || made.IntervalCount != 2 || made.CatchUp != "bill_current" || !strings.Contains(string(made.Dunning), `"offsets_days":[2,4]`) && !strings.Contains(string(made.Dunning), `"offsets_days": [2, 4]`) {
		t.Errorf("%+v", made)
	}
	s.want("api:admin create-plan", `SELECT actor || ' ' || reason FROM singil.audit_log WHERE action = 'create_plan' AND subject = 'basic'`)
	s.call(s.admin, "POST", "/v1/plans", plan).wantProblem(kindRefused, "body.external_id", "take another")
	for _, name := range []string{"basic", made.ID.String()} {
		var shown billing.ListedPlan
		s.call(s.viewer, "GET", "/v1/plans/"+name, nil).want(200, &shown)
		if shown.ID != made.ID {
			t.Errorf("%s: %+v", name, shown)
		}
	}
	s.call(s.viewer, "GET", "/v1/plans/gold", nil).wantProblem(kindNotFound)

	for location, body := range map[string]map[string]any{
		"body.amount_minor":             with("amount_minor", 0),
		"body.currency":                 with("currency", "USD"),
		"body.interval":                 with("interval", "hour"),
		"body.interval_count":           with("interval_count", 0),
		"body.external_id":              with("external_id", ""),
		"body.dunning.offsets_days[1]":  with("dunning", map[string]any{"offsets_days": []int{5, 3}}),
		"body.dunning.end":              with("dunning", map[string]any{"end": "forgive"}),
		"body.discount":                 with("discount", 10),
		"body.catch_up":                 with("catch_up", "forgive"),
		"body.name":                     with("name", "a\u0007b"),
		"body.dunning.offsets_day":      with("dunning", map[string]any{"offsets_day": 1}),
		"body.interval_count (a point)": with("interval_count", 1.5),
	} {
		got := s.call(s.admin, "POST", "/v1/plans", body).wantProblem(kindInvalidFields)
		location, _, _ = strings.Cut(location, " (")
		if !slices.ContainsFunc(got.Errors, func(f fieldProblem) bool { return f.Location == location }) {
			t.Errorf("%s: %+v", location, got.Errors)
		}
	}
	s.call(s.admin, "POST", "/v1/plans", with("interval_count", 600)).wantProblem(kindInvalidFields, "body.interval")
	s.want("2", `SELECT count(*) FROM singil.plans`)
}

func TestListsGoOn(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	for i := range 4 {
		s.call(s.admin, "POST", "/v1/plans", map[string]any{"external_id": fmt.Sprint("p", i), "amount_minor": 19900, "currency": "PHP", "interval": "month"}).want(201)
		s.subscribe(fmt.Sprint("s&", i), "u1")
	}
	s.collect()
	for i := range 4 {
		s.exec(`INSERT INTO singil.customers (id, external_id) VALUES ($1, $2)`, uuid.Must(uuid.NewV7()), fmt.Sprint("ñ&after=+%2B#/", i))
		s.exec(`INSERT INTO singil.card_setups (id, customer_id, amount_minor, currency, livemode, session_type)
			SELECT $1, id, 2000, 'PHP', false, 'off_session' FROM singil.customers WHERE external_id = 'u1'`, uuid.Must(uuid.NewV7()))
	}
	for path, want := range map[string]int{
		"/v1/plans": 5, "/v1/subscriptions": 4, "/v1/invoices": 4, "/v1/events": 0, "/v1/customers": 5, "/v1/customers/u1/card-setups": 4,
	} {
		seen, after := map[string]int{}, ""
		for pages := 0; ; pages++ {
			var page list[map[string]any]
			s.call(s.viewer, "GET", path+"?limit=2"+after, nil).want(200, &page)
			for _, row := range page.Data {
				name := fmt.Sprint(row["external_id"])
				if row["id"] != nil {
					name = fmt.Sprint(row["id"])
				}
				seen[name]++
			}
			if len(page.Data) > 2 || page.HasMore && len(page.Data) != 2 || pages > 20 {
				t.Fatalf("%s%s: %d rows, page %d", path, after, len(page.Data), pages)
			}
			if !page.HasMore {
				break
			}
			if page.Next != url.QueryEscape(page.Next) {
				t.Errorf("%s: next is %q, which must be escaped", path, page.Next)
			}
			after = "&after=" + page.Next
		}
		for name, n := range seen {
			if n != 1 {
				t.Errorf("%s: %s came %d times", path, name, n)
			}
		}
		if path == "/v1/events" { // it is all there is
			if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM singil.events`).Scan(&want); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) != want || want == 0 {
			t.Errorf("%s: %d rows, want %d", path, len(seen), want)
		}
		for query, location := range map[string]string{
			"limit=0": "query.limit", "limit=101": "query.limit", "limit=x": "query.limit", "colour=red": "query.colour", "after=nobody": "query",
		} {
			got := s.call(s.viewer, "GET", path+"?"+query, nil).wantProblem(kindInvalidFields)
			if len(got.Errors) != 1 || !strings.HasPrefix(got.Errors[0].Location, location) {
				t.Errorf("%s?%s: %+v", path, query, got.Errors)
			}
		}
	}
}

func TestSubscriptionIsCreated(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	body := map[string]any{"external_id": "s1", "customer": "u1", "plan": "pro", "quantity": 2, "metadata": map[string]any{"seat": "7"}}
	s.call(s.viewer, "POST", "/v1/subscriptions", body, "Idempotency-Key: k1").wantProblem(kindForbidden)
	s.call(s.operator, "POST", "/v1/subscriptions", body).wantProblem(kindKeyNeeded)
	var made billing.SubscriptionDetails
	first := s.call(s.operator, "POST", "/v1/subscriptions", body, "Idempotency-Key: k1").want(201, &made)
	if made.Status != "active" || made.AmountMinor != 99800 || !made.NextDueAt.Equal(noon) || made.TimeZone != "Asia/Manila" || len(made.PaymentMethods) != 1 {
		t.Errorf("%+v", made)
	}
	again := s.call(s.operator, "POST", "/v1/subscriptions", body, "Idempotency-Key: k1").want(201)
	if string(again.body) != string(first.body) || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("repeated: %s", again.body)
	}
	s.call(s.operator, "POST", "/v1/subscriptions", body, "Idempotency-Key: k2").wantProblem(kindRefused, "body.external_id")
	body["external_id"] = "s2"
	s.call(s.operator, "POST", "/v1/subscriptions", body, "Idempotency-Key: k1").wantProblem(kindKeyReused)
	for location, change := range map[string]map[string]any{
		"body.customer":   {"customer": "nobody"},
		"body.plan":       {"plan": "gold"},
		"body.anchor":     {"anchor": "2026-01-31"},
		"body.anchor (2)": {"anchor": "2026-01-31T09:00:00"},
		"body.time_zone":  {"time_zone": "Mars/Olympus"},
		"body.quantity":   {"quantity": 20_050},
		"body.metadata":   {"metadata": "seat 7"},
		"body.status":     {"status": "cancelled"},
	} {
		wrong := map[string]any{"external_id": "s3", "customer": "u1", "plan": "pro"}
		for name, value := range change {
			wrong[name] = value
		}
		got := s.call(s.operator, "POST", "/v1/subscriptions", wrong, "Idempotency-Key: "+uuid.NewString()).wantProblem(kindInvalidFields)
		location, _, _ = strings.Cut(location, " (")
		if len(got.Errors) != 1 || got.Errors[0].Location != location {
			t.Errorf("%s: %+v", location, got.Errors)
		}
	}
	s.call(s.operator, "POST", "/v1/subscriptions", map[string]any{"external_id": "s3", "customer": "u1", "plan": "pro", "metadata": map[string]any{"card": goodCard}},
		"Idempotency-Key: k3").wantProblem(kindCardNumber)
	s.want("1 1", `SELECT count(*) || ' ' || (SELECT count(*) FROM singil.events WHERE type = 'subscription.created') FROM singil.subscriptions`)
	s.want("api:operator", `SELECT actor FROM singil.audit_log WHERE action = 'create_subscription'`)

	s.collect()
	var shown billing.SubscriptionDetails
	s.call(s.viewer, "GET", "/v1/subscriptions/s1", nil).want(200, &shown)
	if len(shown.Invoices) != 1 || shown.Invoices[0].Status != "paid" || shown.Invoices[0].AmountMinor != 99800 {
		t.Errorf("%+v", shown.Invoices)
	}
	var why billing.Why
	s.call(s.viewer, "GET", "/v1/subscriptions/s1/why", nil).want(200, &why)
	if !why.Next.Equal(time.Date(2026, 2, 28, 4, 0, 0, 0, time.UTC)) || !slices.ContainsFunc(why.Reasons, func(r billing.WhyReason) bool { return r.Kind == "clamp" }) {
		t.Errorf("%+v", why)
	}
	var f Forecast
	s.call(s.viewer, "GET", "/v1/forecast?days=60", nil).want(200, &f)
	if len(f.Days) != 60 || f.Days[28].Day != "2026-02-28" || f.Days[28].AmountMinor != 99800 || f.Days[28].Charges != 1 || f.Days[28].Seconds != 1 || f.Days[27].Seconds != 0 {
		t.Errorf("%+v", f)
	}
	s.call(s.viewer, "GET", "/v1/forecast?days=367", nil).wantProblem(kindInvalidFields, "query.days")
	for _, path := range []string{"/v1/subscriptions/s9", "/v1/subscriptions/s9/why", "/v1/subscriptions/" + uuid.NewString()} {
		s.call(s.viewer, "GET", path, nil).wantProblem(kindNotFound)
	}
}

func TestSubscriptionIsChanged(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	s.subscribe("s1", "u1")
	s.call(s.admin, "POST", "/v1/plans", map[string]any{"external_id": "year", "amount_minor": 499000, "currency": "PHP", "interval": "year"}).want(201)
	do := func(word string, body any) *reply {
		return s.call(s.operator, "POST", "/v1/subscriptions/s1/"+word, body)
	}
	changed := func(word string, body any) (got billing.SubscriptionDetails) {
		t.Helper()
		do(word, body).want(200, &got)
		return got
	}
	for _, word := range []string{"pause", "resume", "cancel", "uncancel", "unpark"} {
		s.call(s.viewer, "POST", "/v1/subscriptions/s1/"+word, nil).wantProblem(kindForbidden)
		s.call(s.operator, "POST", "/v1/subscriptions/s9/"+word, nil).wantProblem(kindNotFound)
		do(word, map[string]any{"colour": "red"}).wantProblem(kindInvalidFields, "body.colour")
	}
	if got := changed("pause", map[string]any{"reason": "a holiday"}); got.Status != "paused" {
		t.Errorf("%+v", got)
	}
	s.want("api:operator a holiday", `SELECT actor || ' ' || reason FROM singil.audit_log WHERE action = 'pause_subscription'`)
	do("pause", nil).wantProblem(kindRefused, "is paused already")
	if got := changed("resume", nil); got.Status != "active" {
		t.Errorf("%+v", got)
	}
	s.want("resume-subscription", `SELECT reason FROM singil.audit_log WHERE action = 'resume_subscription'`)
	do("resume", nil).wantProblem(kindRefused, "not paused")

	if got := changed("change-plan", map[string]any{"plan": "year"}); got.NextPlan == nil || *got.NextPlan != "year" {
		t.Errorf("%+v", got)
	}
	do("change-plan", map[string]any{"plan": "gold"}).wantProblem(kindInvalidFields, "body.plan")
	do("change-plan", map[string]any{}).wantProblem(kindInvalidFields, "plan")
	do("change-plan", nil).wantProblem(kindInvalidRequest)
	do("change-plan", map[string]any{"plan": "year"}).wantProblem(kindRefused, "has plan year already")
	s.call(s.operator, "POST", "/v1/subscriptions/s9/change-plan", map[string]any{"plan": "year"}).wantProblem(kindNotFound)

	if got := changed("cancel", nil); got.Status != "active" || got.CancelAt.IsZero() {
		t.Errorf("%+v", got)
	}
	if got := changed("uncancel", nil); !got.CancelAt.IsZero() {
		t.Errorf("%+v", got)
	}
	do("uncancel", nil).wantProblem(kindRefused, "not to be cancelled")
	if got := changed("cancel", map[string]any{"reason": "they asked"}); got.Status != "active" || got.CancelAt.IsZero() {
		t.Errorf("%+v", got)
	}
	changed("uncancel", nil)
	do("cancel", map[string]any{"when": "tomorrow"}).wantProblem(kindInvalidFields, "body.when")
	do("unpark", nil).wantProblem(kindRefused, "not parked")
	if got := changed("cancel", map[string]any{"when": "now", "reason": "they left"}); got.Status != "cancelled" || got.CancelledAt.IsZero() {
		t.Errorf("%+v", got)
	}
	for _, word := range []string{"pause", "resume", "cancel", "uncancel", "unpark"} {
		do(word, nil).wantProblem(kindRefused, "cancelled")
	}

	s.exec(`UPDATE singil.customers SET external_id = 'u 1/2'`)
	s.call(s.operator, "POST", "/v1/subscriptions", map[string]any{
		"external_id": "s 2/3", "customer": "u 1/2", "plan": "pro", "anchor": "2025-11-30T09:00:00+08:00", "bill_from": "2025-11-30T09:00:00+08:00", "catch_up": "ask",
	}, "Idempotency-Key: k").want(201)
	s.collect()
	var page list[billing.ExportedSubscription]
	s.call(s.viewer, "GET", "/v1/subscriptions?parked=true", nil).want(200, &page)
	if len(page.Data) != 1 || page.Data[0].ParkedReason == nil {
		t.Fatalf("%+v", page)
	}
	var got billing.SubscriptionDetails
	s.call(s.operator, "POST", "/v1/subscriptions/s%202%2F3/unpark", nil).wantProblem(kindRefused, "bill_all or bill_current")
	s.call(s.operator, "POST", "/v1/subscriptions/s%202%2F3/unpark", map[string]any{"missed": "bill_current"}).want(200, &got)
	if got.ExternalID != "s 2/3" || got.ParkedReason != nil {
		t.Errorf("%+v", got)
	}
	for query, want := range map[string]int{
		"status=cancelled": 1, "status=active": 1, "customer=u+1%2F2": 2, "customer=nobody": 0, "plan=pro": 2, "plan=year": 0, "status=active&plan=pro&customer=u+1%2F2": 1, "": 2,
	} {
		s.call(s.viewer, "GET", "/v1/subscriptions?"+query, nil).want(200, &page)
		if len(page.Data) != want {
			t.Errorf("%s: %d, want %d", query, len(page.Data), want)
		}
	}
}

func TestInvoices(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1", "u2")
	id := s.declined("s1", "u1")
	s.subscribe("s2", "u2")
	s.collect()
	for query, want := range map[string]int{
		"": 2, "status=open": 1, "status=paid": 1, "status=void": 0, "waiting_for=schedule": 1, "waiting_for=customer": 0, "status=open&waiting_for=schedule": 1,
		"decline_code=insufficient_funds": 1, "decline_code=lost_card,insufficient_funds": 1, "decline_code=lost_card": 0,
		"plan=pro": 2, "plan=gold": 0, "subscription=s2": 1, "customer=u1": 1, "customer=u1&subscription=s2": 0,
		"due_before=2026-01-31T12:00:00%2B08:00": 0, "due_before=2026-01-31T12:00:01%2B08:00": 1, "due_before=2026-02-01T00:00:00Z": 2,
	} {
		var page list[billing.ExportedInvoice]
		s.call(s.viewer, "GET", "/v1/invoices?"+query, nil).want(200, &page)
		if len(page.Data) != want {
			t.Errorf("%s: %d, want %d", query, len(page.Data), want)
		}
	}
	for query, says := range map[string]string{
		"status=paid&waiting_for=customer": "only open invoices wait",
		"status=happy":                     "query.status",
		"status=open&status=paid":          "query.status",
		"waiting_for=godot":                "query.waiting_for",
		"due_before=2026-01-31":            "query.due_before",
		"due_before=yesterday":             "query.due_before",
		"statsu=open":                      "query.statsu",
		"after=1":                          "not the id of an invoice",
	} {
		s.call(s.viewer, "GET", "/v1/invoices?"+query, nil).wantProblem(kindInvalidFields, says)
	}
	var shown InvoiceWithTimeline
	s.call(s.viewer, "GET", "/v1/invoices/"+id, nil).want(200, &shown)
	if shown.Status != "open" || len(shown.Attempts) != 1 || len(shown.Timeline) != 1 || *shown.Timeline[0].DeclineCode != "insufficient_funds" || shown.Timeline[0].Last4 != "4345" {
		t.Errorf("%+v", shown)
	}
	for _, wrong := range []string{"1", "s1", uuid.NewString(), "%00", "..%2f", strings.Repeat("x", 200)} {
		k := kindNotFound
		if wrong == "%00" {
			k = kindInvalidRequest
		}
		s.call(s.viewer, "GET", "/v1/invoices/"+wrong, nil).wantProblem(k)
		s.call(s.operator, "POST", "/v1/invoices/"+wrong+"/retry", nil).wantProblem(k)
		s.call(s.operator, "POST", "/v1/invoices/"+wrong+"/void", map[string]any{"reason": "x"}).wantProblem(k)
	}

	s.call(s.viewer, "POST", "/v1/invoices/"+id+"/void", map[string]any{"reason": "x"}).wantProblem(kindForbidden)
	s.call(s.operator, "POST", "/v1/invoices/"+id+"/void", map[string]any{}).wantProblem(kindInvalidFields, "reason")
	s.call(s.operator, "POST", "/v1/invoices/"+id+"/void", map[string]any{"reason": ""}).wantProblem(kindInvalidFields, "body.reason")
	s.call(s.operator, "POST", "/v1/invoices/"+id+"/void", map[string]any{"reason": "a mistake of ours"}).want(200, &shown)
	if shown.Status != "void" || *shown.Reason != "a mistake of ours" {
		t.Errorf("%+v", shown)
	}
	for _, word := range []string{"void", "mark-uncollectible"} {
		s.call(s.operator, "POST", "/v1/invoices/"+id+"/"+word, map[string]any{"reason": "again"}).wantProblem(kindRefused, "void")
	}
	s.call(s.operator, "POST", "/v1/invoices/"+id+"/retry", nil).wantProblem(kindRefused, "only an open one is charged")
	s.call(s.operator, "POST", "/v1/invoices/"+s.invoice("s2")+"/mark-uncollectible", map[string]any{"reason": "x"}).wantProblem(kindRefused, "is paid, and that is final")
}

func TestRetry(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	id := s.declined("s1", "u1")
	path := "/v1/invoices/" + id + "/retry"
	unchanged := func() {
		t.Helper()
		s.want("dunning", `SELECT attempt_trigger FROM singil.invoices WHERE id = $1`, id)
	}
	s.call(s.viewer, "POST", path, nil).wantProblem(kindForbidden, "needs the role operator")
	s.call("", "POST", path, nil).wantProblem(kindUnauthorized)
	s.call(s.operator, "GET", path, nil).wantProblem(kindMethod, "POST")
	s.call(s.operator, "POST", path, nil, "Origin: https://elsewhere.example", "Sec-Fetch-Site: cross-site").wantProblem(kindCrossSite)
	unchanged()

	s.tx(func(tx pgx.Tx) error { return billing.Freeze(t.Context(), tx, "ana", "a drill") })
	s.call(s.operator, "POST", path, nil).wantProblem(kindNotCharging, "frozen: a drill; retry when singil unfreeze", `"reason":"frozen"`)
	s.tx(func(tx pgx.Tx) error { return billing.Unfreeze(t.Context(), tx, "ana", "over") })
	s.exec(`UPDATE singil.charge_budget SET max_count = used_count`)
	s.call(s.operator, "POST", path, nil).wantProblem(kindRefused, "0 charges", "retry it after 2026-02-01T00:00:00Z", `"reason":"budget"`)
	s.exec(`UPDATE singil.charge_budget SET max_count = 100`)
	s.call(s.operator, "POST", path, map[string]any{"payment_method": "pm_nobodys"}).wantProblem(kindRefused, "none of this customer's; name one that is")
	s.call(s.operator, "POST", path, map[string]any{"payment_methods": "pm_1"}).wantProblem(kindInvalidFields, "body.payment_methods")
	s.call(s.operator, "POST", path, map[string]any{"payment_method": goodCard}).wantProblem(kindCardNumber)
	unchanged()

	second := s.card("u1", "4571736000000075")
	var retried billing.Retried
	s.call(s.operator, "POST", path, map[string]any{"payment_method": second, "reason": "they called"}).want(202, &retried)
	if retried.Invoice != id || retried.PaymentMethod != second || !retried.NextAttemptAt.Equal(s.clock()) {
		t.Errorf("%+v", retried)
	}
	s.want("api:operator they called", `SELECT actor || ' ' || reason FROM singil.audit_log WHERE action = 'retry_invoice'`)
	s.call(s.operator, "POST", path, nil).wantProblem(kindRefused, "asked for already", "look at the invoice", `"reason":"enqueued_already"`)
	s.collect()
	var shown InvoiceWithTimeline
	s.call(s.viewer, "GET", "/v1/invoices/"+id, nil).want(200, &shown)
	if shown.Status != "paid" || len(shown.Timeline) != 2 || shown.Timeline[1].Trigger != "manual" || shown.Timeline[1].PaymentMethod != second {
		t.Errorf("%+v", shown)
	}
	s.call(s.operator, "POST", path, nil).wantProblem(kindRefused, "is paid")
}

// TestRetryWhoseOutcomeIsOpen: an answer was lost. Another attempt could charge
// twice.
func TestRetryWhoseOutcomeIsOpen(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	if _, err := s.box.AddFault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.attach", Times: 1}); err != nil {
		t.Fatal(err)
	}
	s.subscribe("s1", "u1")
	s.collect()
	id := s.invoice("s1")
	s.call(s.operator, "POST", "/v1/invoices/"+id+"/retry", nil).wantProblem(kindRefused, "not known yet")
	s.call(s.operator, "POST", "/v1/invoices/"+id+"/void", map[string]any{"reason": "x"}).wantProblem(kindRefused, "money may be on its way")
	if paid := s.box.Summary("invoice").PaidByValue[id]; paid != 1 {
		t.Errorf("paid %d times: this proves nothing", paid)
	}
}

// TestManyRetryAtOnce: operators press the button together. One of them gets it,
// the others are told, those who repeat a key get its answer, and it is charged
// once.
func TestManyRetryAtOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	id := s.declined("s1", "u1")
	const operators = 8
	replies := make([]*reply, operators)
	var all sync.WaitGroup
	for i := range operators {
		secret := s.operator
		s.tx(func(tx pgx.Tx) (err error) {
			_, secret, err = billing.CreateToken(t.Context(), tx, fmt.Sprint("operator-", i), billing.RoleOperator, time.Time{}, billing.Act{Actor: "ana", Reason: "test", Now: s.clock()})
			return err
		})
		all.Go(func() {
			replies[i] = s.call(secret, "POST", "/v1/invoices/"+id+"/retry", nil, fmt.Sprint("Idempotency-Key: click-", i%2))
		})
	}
	all.Wait()
	won := 0
	for _, r := range replies {
		if r.status == 202 {
			won++
			continue
		}
		r.wantProblem(kindRefused, "asked for already")
	}
	if won != 1 {
		t.Errorf("%d of %d got it", won, operators)
	}
	s.want("1", `SELECT count(*) FROM singil.audit_log WHERE action = 'retry_invoice'`)

	// Whatever the queue does with it.
	s.tx(func(tx pgx.Tx) error {
		_, err := billing.ClaimDue(t.Context(), tx, s.clock(), 100, false)
		return err
	})
	for range operators {
		all.Go(func() { _ = s.collector.Charge(context.Background(), uuid.MustParse(id)) }) // all but one find it taken
	}
	all.Wait()
	// One that looked while another attached may be what the batch has stored.
	s.set(s.clock().Add(time.Hour))
	if err := s.collector.Reconcile(t.Context(), uuid.MustParse(id)); err != nil {
		t.Error(err)
	}
	if paid := s.box.Summary("invoice").PaidByValue[id]; paid != 1 {
		t.Errorf("paid %d times", paid)
	}
	s.want("paid 2", `SELECT status || ' ' || attempt_count FROM singil.invoices WHERE id = $1`, id)
}

// TestSameClickTwice: the button was pressed twice with one key.
func TestSameClickTwice(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	id := s.declined("s1", "u1")
	const clicks = 6
	replies := make([]*reply, clicks)
	var all sync.WaitGroup
	for i := range clicks {
		all.Go(func() {
			replies[i] = s.call(s.operator, "POST", "/v1/invoices/"+id+"/retry", nil, "Idempotency-Key: one-click")
		})
	}
	all.Wait()
	same := ""
	for _, r := range replies {
		if r.status == kindKeyRunning.status {
			r.wantProblem(kindKeyRunning)
			continue
		}
		r.want(202)
		if same != "" && same != string(r.body) {
			t.Errorf("%s, and %s", r.body, same)
		}
		same = string(r.body)
	}
	s.want("1", `SELECT count(*) FROM singil.audit_log WHERE action = 'retry_invoice'`)
	again := s.call(s.operator, "POST", "/v1/invoices/"+id+"/retry", nil, "Idempotency-Key: one-click").want(202)
	if same == "" || string(again.body) != same {
		t.Errorf("%s, and %s", again.body, same)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	s := newShop(t, "u1")
	s.subscribe("s1", "u1")
	s.collect()
	var page list[billing.ExportedEvent]
	s.call(s.viewer, "GET", "/v1/events", nil).want(200, &page)
	var types []string
	for _, e := range page.Data {
		types = append(types, e.Type)
	}
	if got := strings.Join(types, ", "); got != "plan.created, subscription.created, invoice.paid" || page.HasMore || page.Next == "" {
		t.Errorf("%s, then %q", got, page.Next)
	}
	last := page.Data[2]
	if last.Subscription == nil || *last.Subscription != "s1" || last.Customer == nil || *last.Customer != "u1" || !json.Valid(last.Data) {
		t.Errorf("%+v", last)
	}
	next := page.Next
	s.call(s.viewer, "GET", "/v1/events?after="+next, nil).want(200, &page)
	if len(page.Data) != 0 || page.HasMore || page.Next != next {
		t.Errorf("behind the last: %+v", page)
	}
	s.call(s.operator, "POST", "/v1/subscriptions/s1/pause", nil).want(200)
	s.call(s.viewer, "GET", "/v1/events?after="+next, nil).want(200, &page)
	if len(page.Data) != 1 || page.Data[0].Type != "subscription.paused" {
		t.Errorf("what came since: %+v", page)
	}
	for _, after := range []string{"-1", "1e3", "9223372036854775808", "%2B1%20", "x"} {
		s.call(s.viewer, "GET", "/v1/events?after="+after, nil).wantProblem(kindInvalidFields, "query.after")
	}
}
