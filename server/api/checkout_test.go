package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
)

func TestCheckoutAnInvoice(t *testing.T) {
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
	path := "/v1/invoices/" + id + "/checkout"
	const body = `{"success_url":"https://shop.example/thanks","cancel_url":"https://shop.example/cart","reason":"Ana called"}`
	var got, again billing.CheckoutPage
	p.call(p.viewer, "POST", path, nil).wantProblem(kindForbidden)
	p.call(p.operator, "POST", path, `{"success_url":"javascript:alert(1)"}`).wantProblem(kindInvalidFields)
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "checkout_sessions.create", Times: 1})
	p.call(p.operator, "POST", path, body, key("k")).wantProblem(kindProvider, "same Idempotency-Key")
	p.call(p.operator, "POST", path, body, key("k")).want(200, &got)
	if got.Step != billing.PayRedirect || got.URL == "" || got.AmountMinor != 49900 || !strings.HasPrefix(got.CheckoutSessionID, "cs_") || got.HeldUntil.IsZero() {
		t.Fatalf("%+v", got)
	}
	// Repeated it runs again, for its answer is not stored, and comes to the same page.
	if r := p.call(p.operator, "POST", path, body, key("k")).want(200, &again); again != got || r.header.Get(replayHeader) != "" {
		t.Errorf("%+v", again)
	}
	p.call(p.operator, "POST", path, nil).want(200, &again)
	if again != got {
		t.Errorf("%+v", again)
	}
	p.want("0", `SELECT count(*)::text FROM singil.api_requests WHERE answer LIKE '%checkout?id=%'`)
	if strings.Contains(p.log.String(), got.URL) {
		t.Error("the log has the page's address")
	}
	p.want("Ana called", `SELECT reason FROM singil.audit_log WHERE action = 'open_checkout' ORDER BY id LIMIT 1`)

	stay := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := stay.PostForm(got.URL, url.Values{"press": {"pay"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if back := resp.Header.Get("Location"); back != "https://shop.example/thanks" {
		t.Errorf("sent to %q", back)
	}
	var paid billing.PayPage
	p.call(p.operator, "POST", "/v1/invoices/"+id+"/check", nil).want(200, &paid)
	if paid.Step != billing.PayDone || paid.Status != "paid" {
		t.Errorf("%+v", paid)
	}
	p.call(p.operator, "POST", path, nil).want(200, &got)
	if got.Step != billing.PayDone || got.URL != "" {
		t.Errorf("%+v", got)
	}
}
