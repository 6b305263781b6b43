package sandbox

import (
	"fmt"
	"html/template"
	"net/http"
)

// The pages a customer sees: 3-D Secure, and checkout.

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:30rem;margin:4rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.25rem}
button{font:inherit;padding:.6rem 1rem;margin:.25rem .5rem .25rem 0;border:1px solid #1b1f24;border-radius:.4rem;background:#fff;cursor:pointer}
button.go{background:#1b1f24;color:#fff}
small{color:#57606a}
</style></head><body>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{if .Buttons}}<form method="post"><input type="hidden" name="id" value="{{.ID}}">
{{range .Buttons}}<button name="press" value="{{.Value}}"{{if .Go}} class="go"{{end}}>{{.Label}}</button>
{{end}}</form>{{end}}
<p><small>PayMongo sandbox. No money moves here.</small></p>
</body></html>
`))

type htmlPage struct {
	Title, Text, ID string
	Buttons         []button
}

type button struct {
	Value, Label string
	Go           bool
}

func (p htmlPage) show(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *")
	w.WriteHeader(status)
	_ = pageTemplate.Execute(w, p) // the browser may have gone
}

var (
	gonePage = htmlPage{Title: "Nothing to do here", Text: "This page is used up, expired, or never was."}
	donePage = htmlPage{Title: "Done", Text: "The merchant gave no address to return to. You may close this page."}
)

func pesos(centavos int64) string {
	return fmt.Sprintf("PHP %d.%02d", centavos/100, centavos%100)
}

func (s *Sandbox) showSource(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	s.mu.Lock()
	s.catchUp(s.clock.Now())
	pi := s.st.sources[id]
	var amount int64
	if pi != nil {
		amount = pi.Amount
	}
	s.mu.Unlock()
	if pi == nil {
		gonePage.show(w, http.StatusNotFound)
		return
	}
	htmlPage{
		Title: "3-D Secure", Text: "Pay " + pesos(amount) + "?", ID: id,
		Buttons: []button{{"authorize", "Authorize Test Payment", true}, {"fail", "Fail Test Payment", false}},
	}.show(w, http.StatusOK)
}

func (s *Sandbox) pressSource(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	id, press := r.FormValue("id"), r.PostFormValue("press")
	if press != "authorize" && press != "fail" {
		htmlPage{Title: "Press a button", Text: "Go back and press one of the two."}.show(w, http.StatusBadRequest)
		return
	}
	target, page, status := s.answerSource(id, press == "authorize")
	sendCustomer(w, r, target, page, status)
}

// answerSource takes a press on the 3DS page.
func (s *Sandbox) answerSource(id string, authorised bool) (target string, page htmlPage, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	s.catchUp(now)
	pi := s.st.sources[id]
	if pi == nil || s.shut {
		return "", gonePage, http.StatusNotFound
	}
	target = pi.NextAction.Redirect.ReturnURL
	s.queue(s.customerAnswered(pi, authorised, now), now)
	s.dirty = true
	return target, donePage, http.StatusOK
}

// sendCustomer sends the browser on, or shows a page when there is no target.
func sendCustomer(w http.ResponseWriter, r *http.Request, target string, page htmlPage, status int) {
	if target == "" {
		page.show(w, status)
		return
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
}

func (s *Sandbox) showCheckout(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	s.mu.Lock()
	s.catchUp(s.clock.Now())
	cs := s.st.checkouts[id]
	var amount int64
	payable := cs != nil && cs.Status == "active" && cs.PaidAt == nil
	if payable {
		amount = s.st.intents[cs.Intent].Amount
	}
	s.mu.Unlock()
	if !payable {
		gonePage.show(w, http.StatusNotFound)
		return
	}
	htmlPage{
		Title: "Checkout", Text: "Pay " + pesos(amount) + "?", ID: id,
		Buttons: []button{
			{"pay", "Pay with a test card", true},
			{"three_ds", "Pay with 3-D Secure", false},
			{"decline", "Pay with a card that is declined", false},
			{"cancel", "Go back", false},
		},
	}.show(w, http.StatusOK)
}

var checkoutCards = map[string]string{"pay": "4343434343434345", "three_ds": "4120000000000007", "decline": "5100000000000198"}

func (s *Sandbox) pressCheckout(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	target, page, status := s.answerCheckout(r.FormValue("id"), r.PostFormValue("press"), baseURL(r))
	sendCustomer(w, r, target, page, status)
}

// answerCheckout takes a press on the checkout page.
func (s *Sandbox) answerCheckout(id, press, base string) (target string, page htmlPage, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	s.catchUp(now)
	cs := s.st.checkouts[id]
	if cs == nil || cs.Status != "active" || cs.PaidAt != nil || s.shut {
		return "", gonePage, http.StatusNotFound
	}
	back := cs.SuccessURL
	if press == "cancel" {
		back = cs.CancelURL
	} else {
		number, known := checkoutCards[press]
		pi := s.st.intents[cs.Intent]
		if _, refused := s.lookAtIntent(pi); refused || !known {
			return "", htmlPage{Title: "Not now", Text: "Press one of the buttons, and only once."}, http.StatusBadRequest
		}
		if err := s.full(); err != nil {
			return "", htmlPage{Title: "Full", Text: err.Error()}, http.StatusServiceUnavailable
		}
		out := s.payCheckout(cs, number, base, now)
		s.queue(out.events, now)
		s.dirty = true
		if out.refusal.status != 0 {
			return "", htmlPage{Title: "Declined", Text: out.refusal.errs[0].Detail + " Go back and try another card."}, http.StatusOK
		}
		if pi.NextAction != nil {
			back = &pi.NextAction.Redirect.URL
		}
	}
	if back == nil {
		return "", donePage, http.StatusOK
	}
	return *back, page, http.StatusOK
}
