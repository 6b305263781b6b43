package worker_test

import (
	"net/http"
	"net/url"
	"testing"
)

// The customer goes back to the page of the card's bank after dunning has given
// up, and no webhook tells of it.
func TestPaidAfterItWasGivenUp(t *testing.T) {
	t.Parallel()
	p := setup(t)
	profile := p.box.Profile()
	profile.ActionLifetime = 0 // the page stays
	if err := p.box.SetProfile(profile); err != nil {
		t.Fatal(err)
	}
	p.subscribe("s1", "4120000000000007")
	p.tick()
	page := p.text(`SELECT action_url FROM singil.invoices`)
	for day := 1; p.text(`SELECT status FROM singil.invoices WHERE period_no = 0`) == "open"; day++ {
		if day > 60 {
			t.Fatal("still open after two months")
		}
		p.until(noon.AddDate(0, 0, day))
	}
	if got := p.text(`SELECT status FROM singil.invoices WHERE period_no = 0`); got != "uncollectible" {
		t.Fatal(got)
	}
	resp, err := http.PostForm(page, url.Values{"press": {"authorize"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if n := p.box.Summary("invoice").PaidPayments; n != 1 {
		t.Fatalf("%d payments, status %d of %s: the sandbox does not let the customer pay", n, resp.StatusCode, page)
	}
	p.until(p.now.AddDate(0, 0, 2))
	p.tick()
	if got := p.text(`SELECT status FROM singil.invoices WHERE period_no = 0`); got != "paid" {
		t.Errorf("%s two days after the customer has paid", got)
	}
	p.checkBooks()
}

// TestLooksBackEnd: nobody is asked about for ever.
func TestLooksBackEnd(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", "4400000000000016")
	p.until(noon.AddDate(0, 0, 20))
	for day := range 60 {
		p.set(noon.AddDate(0, 0, 21+day))
		p.tick()
	}
	if got := p.text(`SELECT status || ' ' || look_backs || ' ' || (look_back_at IS NULL) FROM singil.invoices WHERE period_no = 0`); got != "uncollectible 5 true" {
		t.Error(got)
	}
}
