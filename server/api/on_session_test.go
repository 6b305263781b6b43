package api

import (
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
)

// page is the customer's browser: it has the merchant's public key alone.
type page struct {
	*plant
	browser  *paymongo.Client
	viewer   string
	operator string
	admin    string
}

func setupPage(t *testing.T) *page {
	t.Helper()
	p := &page{plant: setup(t)}
	server := httptest.NewServer(p.box)
	t.Cleanup(server.Close)
	var err error
	p.browser, err = paymongo.NewClient("pk_test_browser", paymongo.WithBaseURL(server.URL+"/v1"), paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.browser.CloseIdleConnections)
	p.viewer, p.operator, p.admin = p.token(billing.RoleViewer), p.token(billing.RoleOperator), p.token(billing.RoleAdmin)
	return p
}

// pays attaches a new card in the browser.
func (p *page) pays(intent, key, number string) (method string, err error) {
	p.t.Helper()
	m, err := p.browser.PaymentMethods.Create(p.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = p.browser.PaymentIntents.Attach(p.t.Context(), intent, &paymongo.PaymentIntentAttachParams{
		PaymentMethod: m.ID, ClientKey: paymongo.NewSecret(key), ReturnURL: "https://shop.example/back",
	})
	return m.ID, err
}

func (p *page) fault(f sandbox.Fault) {
	p.t.Helper()
	if _, err := p.box.AddFault(f); err != nil {
		p.t.Fatal(err)
	}
}

func key(name string) string { return "Idempotency-Key: " + name }

const goodCard = "4343434343434345"

const ana = `{"external_id":"ana","first_name":"Ana","last_name":"Cruz","email":"ana@example.com","phone":"+639171234567"}`

func TestSaveACard(t *testing.T) {
	t.Parallel()
	p := setupPage(t)
	p.call(p.operator, "POST", "/v1/customers", ana).wantProblem(kindKeyNeeded)
	p.call(p.viewer, "POST", "/v1/customers", ana, key("c1")).wantProblem(kindForbidden)

	// The first answer of PayMongo is lost: repeated, the customer is found again.
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "customers.create", Times: 1})
	p.fault(sandbox.Fault{Kind: sandbox.ErrorBefore, Endpoint: "customers.search", Times: 1})
	p.call(p.operator, "POST", "/v1/customers", ana, key("c1")).wantProblem(kindProvider, "same Idempotency-Key")
	var customer billing.CustomerDetails
	p.call(p.operator, "POST", "/v1/customers", ana, key("c1")).want(201, &customer)
	if customer.ExternalID != "ana" || customer.ProviderCustomerID == nil || customer.Name != "Ana Cruz" {
		t.Errorf("%+v", customer)
	}
	p.call(p.operator, "POST", "/v1/customers", ana, key("c2")).wantProblem(kindRefused, "exists already")
	p.call(p.operator, "POST", "/v1/customers", `{"external_id":"ben","last_name":"Diaz"}`, key("c3")).want(422)
	p.call(p.operator, "POST", "/v1/customers", `{"external_id":"ben","first_name":"Ben","last_name":"Diaz","email":"ana@example.com"}`, key("c4")).
		wantProblem(kindRefused, "link that one")
	p.call(p.operator, "POST", "/v1/customers", `{"external_id":"4343 4343 4343 4345","first_name":"Ben","last_name":"Diaz","email":"b@example.com"}`, key("c5")).
		wantProblem(kindCardNumber)

	var started StartedCardSetup
	body := `{"amount_minor":10000,"description":"first month"}`
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.create", Times: 1})
	p.call(p.operator, "POST", "/v1/customers/ana/card-setups", body, key("s1")).wantProblem(kindProvider)
	p.call(p.operator, "POST", "/v1/customers/ana/card-setups", body, key("s1")).want(201, &started)
	if started.ClientKey == "" || started.PaymentIntentID == nil || started.Status != "open" || started.SessionType != "off_session" {
		t.Fatalf("%+v", started)
	}
	path := "/v1/customers/ana/card-setups/" + started.ID.String()
	var again StartedCardSetup
	if p.call(p.operator, "POST", "/v1/customers/ana/card-setups", body, key("s1")).want(201, &again); again.ID != started.ID || again.ClientKey != started.ClientKey {
		t.Errorf("%+v", again)
	}
	p.call(p.operator, "POST", "/v1/customers/ana/card-setups", `{"amount_minor":100}`, key("s2")).want(422)
	p.call(p.operator, "POST", "/v1/customers/nobody/card-setups", body, key("s3")).wantProblem(kindNotFound)

	method, err := p.pays(*started.PaymentIntentID, started.ClientKey, goodCard)
	if err != nil {
		t.Fatal(err)
	}
	var done billing.CardSetup
	p.call(p.viewer, "POST", path+"/finish", nil).wantProblem(kindForbidden)
	p.call(p.operator, "POST", path+"/finish", nil).want(200, &done)
	if done.Status != "saved" || *done.PaymentMethod != method {
		t.Errorf("%+v", done)
	}
	p.call(p.viewer, "GET", path, nil).want(200, &done)
	p.call(p.viewer, "GET", "/v1/customers/ana/card-setups/"+uuid.NewString(), nil).wantProblem(kindNotFound)
	var setups list[billing.CardSetup]
	p.call(p.viewer, "GET", "/v1/customers/ana/card-setups", nil).want(200, &setups)
	if len(setups.Data) != 1 || setups.HasMore {
		t.Errorf("%+v", setups)
	}
	if log := p.log.String(); strings.Contains(log, started.ClientKey) || strings.Contains(log, "ana@example.com") {
		t.Error("the log has what belongs to the customer")
	}
}

func TestCustomersAndCards(t *testing.T) {
	t.Parallel()
	p := setupPage(t)
	p.call(p.operator, "POST", "/v1/customers", ana, key("c")).want(201)
	var cards methods
	for i := range 2 {
		var s StartedCardSetup
		p.call(p.operator, "POST", "/v1/customers/ana/card-setups", `{"amount_minor":2000}`, key(fmt.Sprint("s", i))).want(201, &s)
		if _, err := p.pays(*s.PaymentIntentID, s.ClientKey, goodCard); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			p.call(p.operator, "POST", "/v1/customers/ana/card-setups/"+s.ID.String()+"/finish", `{"reason":"signed up"}`).want(200)
			continue
		}
		var refreshed billing.RefreshedMethods // the other way to get there
		p.call(p.operator, "POST", "/v1/customers/ana/payment-methods/refresh", nil).want(200, &refreshed)
		if len(refreshed.Added) != 1 {
			t.Errorf("%+v", refreshed)
		}
	}
	p.call(p.viewer, "GET", "/v1/customers/ana/payment-methods", nil).want(200, &cards)
	if len(cards.Data) != 2 || cards.Data[0].Last4 != "4345" {
		t.Fatalf("%+v", cards)
	}
	first, second := cards.Data[0].PaymentMethod, cards.Data[1].PaymentMethod
	p.call(p.operator, "POST", "/v1/payment-methods/"+second+"/make-default", nil).want(200, &cards)
	if cards.Data[0].PaymentMethod != second {
		t.Errorf("%+v", cards)
	}
	p.call(p.operator, "POST", "/v1/payment-methods/pm_nobody/make-default", nil).wantProblem(kindNotFound)

	p.subscribe("ana", "s1")
	p.call(p.operator, "DELETE", "/v1/payment-methods/"+second, nil).want(200, &cards)
	p.call(p.operator, "DELETE", "/v1/payment-methods/"+first, nil).wantProblem(kindRefused, "save another card first", "s1")
	p.call(p.operator, "DELETE", "/v1/customers/ana", nil).wantProblem(kindForbidden)
	p.call(p.admin, "DELETE", "/v1/customers/ana", nil).wantProblem(kindRefused, "cancel them first")
	p.exec(`UPDATE singil.subscriptions SET status = 'cancelled', cancelled_at = now(), next_due_at = NULL`)
	var gone billing.CustomerDetails
	p.call(p.admin, "DELETE", "/v1/customers/ana", nil).want(200, &gone)
	if gone.DeletedAt.IsZero() || len(gone.PaymentMethods) != 2 {
		t.Errorf("%+v", gone)
	}
	p.want("api:admin delete_customer ana", `SELECT actor || ' ' || action || ' ' || subject FROM singil.audit_log ORDER BY id DESC LIMIT 1`)
	var all list[billing.ListedCustomer]
	p.call(p.viewer, "GET", "/v1/customers?email=ana@example.com", nil).want(200, &all)
	if len(all.Data) != 1 {
		t.Errorf("%+v", all)
	}
}

// subscribe makes a monthly subscription of a customer from noon on.
func (p *page) subscribe(customer, name string) {
	p.t.Helper()
	p.exec(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
		VALUES ($1, $2, 49900, 'PHP', 'month', 1, '{"offsets_days":[1,3,5,7]}', 'bill_all')`, uuid.New(), "plan of "+name)
	p.exec(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
		SELECT $1, $2, c.id, p.id, 'active', amount_minor, 'PHP', 'month', 1, $4, 'Asia/Manila', 0, $4, $4, dunning, 'bill_all'
		FROM singil.plans p, singil.customers c WHERE p.external_id = 'plan of ' || $2 AND c.external_id = $3`, uuid.New(), name, customer, noon)
}

func TestPayAnInvoice(t *testing.T) {
	t.Parallel()
	p := setupPage(t)
	p.call(p.operator, "POST", "/v1/customers", ana, key("c")).want(201)
	p.subscribe("ana", "s1")
	p.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, noon, 10)
		return err
	})
	var id string
	if err := p.pool.QueryRow(t.Context(), `SELECT id::text FROM singil.invoices`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	path := "/v1/invoices/" + id
	var got billing.PayPage
	p.call(p.viewer, "POST", path+"/pay", nil).wantProblem(kindForbidden)
	p.call(p.operator, "POST", "/v1/invoices/"+uuid.NewString()+"/pay", nil).wantProblem(kindNotFound)
	p.fault(sandbox.Fault{Kind: sandbox.Unauthorized, Endpoint: "payment_intents.create", Times: 1})
	p.call(p.operator, "POST", path+"/pay", nil).wantProblem(kindProvider, "singil doctor")
	p.call(p.operator, "POST", path+"/pay", nil).want(200, &got)
	if got.Step != billing.PayCard || got.ClientKey == "" || got.AmountMinor != 49900 {
		t.Fatalf("%+v", got)
	}
	if _, err := p.pays(got.PaymentIntentID, got.ClientKey, goodCard); err != nil {
		t.Fatal(err)
	}
	p.call(p.operator, "POST", path+"/check", nil).want(200, &got)
	if got.Step != billing.PayDone || got.Status != "paid" {
		t.Errorf("%+v", got)
	}
	p.call(p.operator, "POST", path+"/pay", nil).want(200, &got)
	if got.Step != billing.PayDone || got.ClientKey != "" || len(got.PaymentMethods) != 0 {
		t.Errorf("%+v", got)
	}
	p.want("api:operator", `SELECT string_agg(DISTINCT actor, ', ') FROM singil.audit_log WHERE action = 'open_payment_page'`)

	p.subscribe("ana", "s2")
	p.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, noon, 10)
		return errors.Join(err, billing.Freeze(t.Context(), tx, "ana", "drill"))
	})
	if err := p.pool.QueryRow(t.Context(), `SELECT id::text FROM singil.invoices WHERE status = 'open'`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	p.call(p.operator, "POST", "/v1/invoices/"+id+"/pay", nil).wantProblem(kindNotCharging)
	p.call(p.operator, "POST", "/v1/invoices/"+id+"/check", nil).want(200, &got) // looking goes on
	if got.Step != billing.PayCard || got.ClientKey != "" {
		t.Errorf("%+v", got)
	}
}
