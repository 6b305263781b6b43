package billing_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

var newPlan = billing.NewPlan{ExternalID: "basic", Name: "Basic", AmountMinor: 19900, Currency: "PHP", Interval: "month"}

func (l *ledger) createPlan(p billing.NewPlan) (made billing.ListedPlan, err error) {
	err = pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) (err error) {
		made, err = billing.CreatePlan(context.Background(), tx, p, act(noon))
		return err
	})
	return made, err
}

func (l *ledger) createSubscription(s billing.NewSubscription) (made billing.SubscriptionDetails, err error) {
	err = pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) (err error) {
		made, err = billing.CreateSubscription(context.Background(), tx, s, act(noon))
		return err
	})
	return made, err
}

func TestPlanIsCreated(t *testing.T) {
	t.Parallel()
	l := setup(t)
	made, err := l.createPlan(newPlan)
	if err != nil || made.IntervalCount != 1 || made.CatchUp != "bill_all" || !strings.Contains(string(made.Dunning), `"offsets_days"`) {
		t.Fatalf("%+v %v", made, err)
	}
	l.want("ana create_plan basic asked by the customer 19900", `
		SELECT concat_ws(' ', actor, action, subject, reason, after ->> 'amount_minor') FROM singil.audit_log ORDER BY id DESC LIMIT 1`)
	l.want("plan.created basic month", `SELECT concat_ws(' ', type, data ->> 'plan', data ->> 'interval') FROM singil.events`)
	if _, err := l.createPlan(newPlan); !errors.Is(err, billing.ErrExists) {
		t.Errorf("again: %v", err)
	}
	other := newPlan
	other.AmountMinor++
	if _, err := l.createPlan(other); !errors.Is(err, billing.ErrExists) {
		t.Errorf("with another price: %v", err)
	}
	l.want("19900 1", `SELECT max(amount_minor) || ' ' || count(*) FROM singil.plans WHERE external_id = 'basic'`)

	long := newPlan
	long.ExternalID = strings.Repeat("ñ", 200)
	if made, err := l.createPlan(long); err != nil || made.ExternalID != long.ExternalID {
		t.Errorf("a long name: %v", err)
	}
	l.exec(`DELETE FROM singil.plans WHERE external_id = $1`, long.ExternalID)

	list, err := billing.BrowsePlans(t.Context(), l.pool, "", 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	rest, err := billing.BrowsePlans(t.Context(), l.pool, list[0].ExternalID, 10)
	if err != nil || len(rest) != 1 || rest[0].ID == list[0].ID {
		t.Errorf("behind %s: %v %v", list[0].ExternalID, rest, err)
	}
	if shown, err := billing.ShowPlan(t.Context(), l.pool, made.ID.String()); err != nil || shown.ExternalID != "basic" {
		t.Errorf("%+v %v", shown, err)
	}
	if _, err := billing.ShowPlan(t.Context(), l.pool, "gold"); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
	if _, err := billing.BrowsePlans(t.Context(), l.pool, "gold", 10); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
}

func TestPlanIsRefused(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for name, tt := range map[string]struct {
		spoil       func(*billing.NewPlan)
		field, want string
	}{
		"no name":         {func(p *billing.NewPlan) { p.ExternalID = "" }, "external_id", "is empty"},
		"no amount":       {func(p *billing.NewPlan) { p.AmountMinor = 0 }, "amount_minor", "nothing to charge"},
		"negative":        {func(p *billing.NewPlan) { p.AmountMinor = -1 }, "amount_minor", "negative"},
		"dollars":         {func(p *billing.NewPlan) { p.Currency = "USD" }, "currency", "PHP"},
		"hours":           {func(p *billing.NewPlan) { p.Interval = "hour" }, "interval", "day, week, month or year"},
		"a century":       {func(p *billing.NewPlan) { p.Interval, p.IntervalCount = "year", 100 }, "interval", "1 to 10"},
		"policy":          {func(p *billing.NewPlan) { p.Dunning = json.RawMessage(`{"offsets_days":[5,3]}`) }, "dunning.offsets_days[1]", ""},
		"catch-up":        {func(p *billing.NewPlan) { p.CatchUp = "forgive" }, "catch_up", "bill_current"},
		"a card number":   {func(p *billing.NewPlan) { p.Name = "4343 4343 4343 4345" }, "name", "card number"},
		"a card as an id": {func(p *billing.NewPlan) { p.ExternalID = "4343434343434345" }, "external_id", "card number"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlan
			tt.spoil(&p)
			_, err := l.createPlan(p)
			l.mistaken(t, err, tt.field, tt.want)
		})
	}
	t.Cleanup(func() {
		l.want("1 0", `SELECT count(*) || ' ' || (SELECT count(*) FROM singil.events) FROM singil.plans`)
	})
}

// mistaken holds that an error names one field, and never a card number.
func (l *ledger) mistaken(t *testing.T, err error, field, want string) {
	t.Helper()
	var mistakes billing.FieldErrors
	if !errors.As(err, &mistakes) || len(mistakes) != 1 || mistakes[0].Field != field || !strings.Contains(mistakes[0].Problem, want) || strings.Contains(err.Error(), "4345") {
		t.Errorf("%v, want %s: ... %s", err, field, want)
	}
}

func TestSubscriptionIsCreatedAndBilled(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.exec(`ALTER TABLE singil.subscriptions DISABLE TRIGGER append_only; DELETE FROM singil.subscriptions`)
	l.exec(`UPDATE singil.customers SET provider_customer_id = 'cus_1'`)
	later := noon.Add(5 * time.Minute)
	for name, tt := range map[string]struct {
		s        billing.NewSubscription
		status   string
		amount   int64
		no       int
		due      time.Time
		skipped  int
		invoices string // after a sweep
	}{
		"a now": {
			billing.NewSubscription{Customer: "u1", Plan: "pro"}, "active", 49900, 0, noon, 0, "0",
		},
		"b by other names": {
			billing.NewSubscription{Customer: "cus_1", Plan: l.plan.String(), Quantity: 3, Metadata: json.RawMessage(`{"seat":"7"}`)}, "active", 149700, 0, noon, 0, "0",
		},
		"c moved in": {
			billing.NewSubscription{Customer: l.customer.String(), Plan: "pro", Anchor: "2025-12-15T09:00:00+08:00"}, "active", 49900, 2,
			time.Date(2026, 2, 15, 1, 0, 0, 0, time.UTC), 1, "",
		},
		"d owes from before": {
			billing.NewSubscription{Customer: "u1", Plan: "pro", Anchor: "2025-12-15T09:00:00+08:00", BillFrom: "2026-01-15T09:00:00+08:00"}, "active", 49900, 1,
			time.Date(2026, 1, 15, 1, 0, 0, 0, time.UTC), 1, "1",
		},
		"e trial": {
			billing.NewSubscription{Customer: "u1", Plan: "pro", TrialEnd: "2026-02-14T12:00:00+08:00"}, "trialing", 49900, 0, noon, 0, "",
		},
		"f at midnight in Tokyo": {
			billing.NewSubscription{Customer: "u1", Plan: "pro", Anchor: "2026-02-01T00:00:00+09:00", TimeZone: "Asia/Tokyo"}, "active", 49900, 0,
			time.Date(2026, 1, 31, 15, 0, 0, 0, time.UTC), 0, "",
		},
	} {
		tt.s.ExternalID = name
		d, err := l.createSubscription(tt.s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Status != tt.status || d.AmountMinor != tt.amount || d.NextPeriodNo != tt.no || !d.NextDueAt.Equal(tt.due) || len(d.Skipped) != tt.skipped || d.Customer != "u1" || d.Plan != "pro" {
			t.Errorf("%s: %+v", name, d)
		}
		l.want("ana "+tt.status, `SELECT actor || ' ' || (after ->> 'status') FROM singil.audit_log WHERE action = 'create_subscription' AND subject = $1`, name)
		l.want("subscription.created "+l.customer.String(), `SELECT type || ' ' || customer_id FROM singil.events WHERE subscription_id = $1`, d.ID)
	}
	l.sweep(later)
	l.want("a now 0, b by other names 0, d owes from before 1", `
		SELECT string_agg(s.external_id || ' ' || i.period_no, ', ' ORDER BY s.external_id) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`)
	l.want("7", `SELECT metadata ->> 'seat' FROM singil.subscriptions WHERE external_id = 'b by other names'`)
}

func TestSubscriptionIsRefused(t *testing.T) {
	t.Parallel()
	l := setup(t)
	cheap := newPlan
	cheap.ExternalID, cheap.AmountMinor = "cheap", billing.MinimumAmount/2
	if _, err := l.createPlan(cheap); err != nil {
		t.Fatal(err)
	}
	l.exec(`INSERT INTO singil.customers (id, external_id, deleted_at) VALUES (gen_random_uuid(), 'u2', now())`)
	type s = billing.NewSubscription
	for name, tt := range map[string]struct {
		spoil       func(*s)
		field, want string
	}{
		"no name":       {func(s *s) { s.ExternalID = "" }, "external_id", "is empty"},
		"no customer":   {func(s *s) { s.Customer = "" }, "customer", "is empty"},
		"deleted":       {func(s *s) { s.Customer = "u2" }, "customer", "was deleted"},
		"nobody":        {func(s *s) { s.Customer = "u9" }, "customer", "create it first"},
		"no plan":       {func(s *s) { s.Plan = "gold" }, "plan", "create it first"},
		"no offset":     {func(s *s) { s.Anchor = "2026-01-31T09:00:00" }, "anchor", "no zone offset"},
		"no such zone":  {func(s *s) { s.TimeZone = "Mars/Olympus" }, "time_zone", "tz database"},
		"too many":      {func(s *s) { s.Quantity = 100_000 }, "quantity", "above"},
		"less than one": {func(s *s) { s.Quantity = -1 }, "quantity", "1 to 1000000"},
		"metadata":      {func(s *s) { s.Metadata = json.RawMessage(`[1]`) }, "metadata", "JSON object"},
		"a card number": {func(s *s) { s.Metadata = json.RawMessage(`{"note":"4343434343434345 12/29"}`) }, "metadata", "card number"},
		"too little":    {func(s *s) { s.Plan = "cheap" }, "plan", "₱10.00 a period is below"},
		"no instant":    {func(s *s) { s.BillFrom = "tomorrow" }, "bill_from", "is not an instant"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := billing.NewSubscription{ExternalID: "s2", Customer: "u1", Plan: "pro"}
			tt.spoil(&asked)
			_, err := l.createSubscription(asked)
			l.mistaken(t, err, tt.field, tt.want)
		})
	}
	if _, err := l.createSubscription(billing.NewSubscription{ExternalID: "s1", Customer: "u1", Plan: "pro"}); !errors.Is(err, billing.ErrExists) {
		t.Errorf("a name that is taken: %v", err)
	}
	t.Cleanup(func() { l.want("1", `SELECT count(*)::text FROM singil.subscriptions`) })
}

// TestCreatedOnce: of those who create the same at once one does, and each other
// one is told.
func TestCreatedOnce(t *testing.T) {
	t.Parallel()
	l := setup(t)
	const many = 6
	errs := make([]error, 2*many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() { _, errs[i] = l.createPlan(newPlan) })
		all.Go(func() {
			_, errs[many+i] = l.createSubscription(billing.NewSubscription{ExternalID: "s2", Customer: "u1", Plan: "pro"})
		})
	}
	all.Wait()
	for what, list := range map[string][]error{"plan": errs[:many], "subscription": errs[many:]} {
		made := 0
		for _, err := range list {
			switch {
			case err == nil:
				made++
			case !errors.Is(err, billing.ErrExists):
				t.Errorf("%s: %v", what, err)
			}
		}
		if made != 1 {
			t.Errorf("%d made the %s", made, what)
		}
	}
	l.want("2 2", `SELECT count(*) || ' ' || (SELECT count(*) FROM singil.audit_log WHERE action LIKE 'create%') FROM singil.events`)
}

// TestCreatedBesideImports: an import holds customers while it waits for nobody,
// and whoever creates must not hold any that it wants.
func TestCreatedBesideImports(t *testing.T) {
	t.Parallel()
	l := setup(t)
	const many = 20
	var all sync.WaitGroup
	all.Go(func() {
		for i := range many {
			if _, err := l.importLines(billing.ImportOptions{}, with(customerLine, "email", fmt.Sprintf(`"%d@example.com"`, i))); err != nil {
				t.Error(err)
			}
		}
	})
	for worker := range 2 {
		all.Go(func() {
			for i := range many {
				if _, err := l.createSubscription(billing.NewSubscription{ExternalID: fmt.Sprint(worker, " ", i), Customer: "u1", Plan: "pro"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	l.want(fmt.Sprint(2*many+1), `SELECT count(*)::text FROM singil.subscriptions`)
}
