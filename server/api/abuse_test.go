package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// A card number in every form and place, and nothing of it anywhere afterwards.
func TestCardNumbersAreRefused(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator := p.token(billing.RoleOperator)
	const pan = "4343434343434345"
	trial := func(body string) *reply { return p.call(operator, "POST", trialPath, body) }
	for name, got := range map[string]*reply{
		"a text":           trial(`{"amount_minor":1,"reason":"` + pan + `"}`),
		"a number":         trial(`{"amount_minor":` + pan + `}`),
		"a number's start": trial(`{"amount_minor":` + pan + `.0}`),
		"in groups":        trial(`{"amount_minor":1,"reason":"card 4343 4343 4343 4345 12/30 123"}`),
		"with dashes":      trial(`{"amount_minor":1,"reason":"4343-4343-4343-4345"}`),
		"escaped":          trial(`{"amount_minor":1,"reason":"\u0034343434343434345"}`),
		"a name":           trial(`{"amount_minor":1,"` + pan + `":1}`),
		"deep":             trial(`{"amount_minor":1,"more":[{"a":[[{"b":"` + pan + `"}]]}]}`),
		"said twice":       trial(`{"reason":"` + pan + `","amount_minor":1,"reason":""}`),
		"no JSON":          trial(`{"amount_minor":1,"reason":"` + pan),
		"behind the JSON":  trial(`{"amount_minor":1}` + pan),
		"a path":           p.call(operator, "POST", "/v1/trials/"+pan, `{"amount_minor":1}`),
		"no path":          p.call(operator, "GET", "/v1/"+pan, nil),
		"an escaped path":  p.call(operator, "POST", "/v1/trials/%34343434343434345", `{"amount_minor":1}`),
		"a filter":         p.call(operator, "GET", "/v1/instance?after=4343+4343+4343+4345", nil),
		"a filter's name":  p.call(operator, "GET", "/v1/instance?"+pan+"=1", nil),
		"the key":          p.call(operator, "POST", trialPath, `{"amount_minor":1}`, "Idempotency-Key: order-"+pan),
	} {
		if got.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, got.status, got.body)
			continue
		}
		got.wantProblem(kindCardNumber, "pm_")
		if digits(string(got.body), pan) {
			t.Errorf("%s: the answer repeats it: %s", name, got.body)
		}
	}
	p.wantMetric("singil_card_numbers_refused_total", 17)
	p.want("0", trials)
	p.want("0", `SELECT count(*) FROM singil.api_requests`)
	if digits(p.log.String(), pan) {
		t.Errorf("it is in the log: %s", p.log)
	}
}

// digits tells whether a text has the digits, whatever stands between them.
func digits(text, number string) bool {
	return strings.Contains(strings.NewReplacer(" ", "", "-", "", "+", "").Replace(text), number)
}

// What only looks like a number of a card, and is our daily bread.
func TestIdsAreNoCardNumbers(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator := p.token(billing.RoleOperator)
	for _, text := range []string{
		"01962345-6789-7012-8123-456789012345", "a2345678-9012-7345-8678-901234567890", // digits of a UUID
		"abcd2345-6789-7012-8123-aaaaaaaaaaaa", "pm_x4GPVDxTZJSkWmL9Cp3NnAVs", "cus_9Vxq4qTTZJYtuWTRwSsLUqBh", "pi_1ABC",
		"20260131120004", "2026013112000000001", // dates that pass the check digit
		"1769846400000", "1769846400000000000", "2026-01-31T12:00:00+08:00", "+639171234567", "ORDER-2026-000123",
	} {
		p.call(operator, "POST", trialPath, fmt.Sprintf(`{"amount_minor":1,"reason":%q}`, text)).want(201)
	}
	p.wantMetric("singil_card_numbers_refused_total", 0)
}

func TestBadBodies(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator := p.token(billing.RoleOperator)
	const secret = "hunter2hunter2"
	deep := strings.Repeat(`[`, 33) + strings.Repeat(`]`, 33)
	veryDeep := strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat(`}`, 10_000)
	for name, tt := range map[string]struct {
		body string
		kind kind
		says string
	}{
		"a field twice":        {`{"amount_minor":1,"Amount_Minor":2}`, kindInvalidRequest, "twice"},
		"a zero byte":          {`{"amount_minor":1,"reason":"\u0000"}`, kindInvalidRequest, "zero byte"},
		"an array":             {`["` + secret + `"]`, kindInvalidFields, "body"},
		"another type":         {`{"amount_minor":"` + secret + `"}`, kindInvalidFields, "body.amount_minor"},
		"another word":         {`{"amount_minor":1,"kind":"` + secret + `"}`, kindInvalidFields, `one, two`},
		"cut":                  {`{"amount_minor":1,"reason":"` + secret, kindInvalidRequest, "JSON"},
		"deep":                 {`{"amount_minor":1,"more":` + deep + `}`, kindInvalidRequest, "deeper"},
		"field nobody knows":   {`{"amount_minor":1,"cvc":"` + secret + `"}`, kindInvalidFields, "body.cvc"},
		"fraction":             {`{"amount_minor":1.5}`, kindInvalidFields, "body.amount_minor"},
		"huge number":          {`{"amount_minor":1e400}`, kindInvalidRequest, "JSON"},
		"nested array":         {`{"amount_minor":1,"tags":[1]}`, kindInvalidFields, "body.tags[0]"},
		"no address":           {`{"amount_minor":1,"email":"` + secret + `"}`, kindInvalidFields, "body.email"},
		"nothing":              {``, kindInvalidRequest, "JSON"},
		"null":                 {`null`, kindInvalidFields, "body"},
		"out of range":         {`{"amount_minor":100000001}`, kindInvalidFields, "body.amount_minor"},
		"required and missing": {`{"reason":"` + secret + `"}`, kindInvalidFields, "amount_minor"},
		"too long":             {`{"amount_minor":1,"reason":"` + strings.Repeat(secret, 20) + `"}`, kindInvalidFields, "body.reason"},
		"two documents":        {`{"amount_minor":1}{"amount_minor":2}`, kindInvalidRequest, "JSON"},
		"very deep":            {veryDeep, kindInvalidRequest, ""},
	} {
		got := p.call(operator, "POST", trialPath, tt.body)
		if got.status != tt.kind.status {
			t.Errorf("%s: %d %s", name, got.status, got.body)
			continue
		}
		got.wantProblem(tt.kind, tt.says)
		if strings.Contains(string(got.body), secret[:8]) {
			t.Errorf("%s: the answer repeats a value: %s", name, got.body)
		}
	}
	p.call(operator, "POST", trialPath, `{"amount_minor":1}`, "Content-Type: text/plain").wantProblem(kindMediaType)
	p.call(operator, "POST", trialPath, `amount_minor=1`, "Content-Type: application/x-www-form-urlencoded").wantProblem(kindInvalidRequest)
	p.want("0", trials)
	if strings.Contains(p.log.String(), secret) {
		t.Error("a value of a request is in the log")
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator := p.token(billing.RoleOperator)
	huge := `{"amount_minor":1,"reason":"` + strings.Repeat("a", 1<<20) + `"}`
	p.call(operator, "POST", trialPath, huge).wantProblem(kindTooLarge, "65536")

	// Without saying how long it is.
	req := httptest.NewRequest("POST", trialPath, io.MultiReader(strings.NewReader(huge)))
	req.Header.Set("Authorization", "Bearer "+operator)
	rec := httptest.NewRecorder()
	p.api.ServeHTTP(rec, req)
	if rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}

	for _, size := range []int{9 << 10, 1 << 20} {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest("GET", "/v1/instance?after="+strings.Repeat("a", size), nil)
		req.Header.Set("Authorization", "Bearer "+operator)
		p.api.ServeHTTP(rec, req)
		if rec.Code != http.StatusRequestURITooLong || !bytes.Contains(rec.Body.Bytes(), []byte("fewer filters")) {
			t.Errorf("%d bytes of filters: %d %s", size, rec.Code, rec.Body)
		}
	}
	p.call(operator, "GET", "/v1/instance?colour=blue", nil).wantProblem(kindInvalidFields, "query.colour")
	p.call(operator, "GET", "/v1/instance?status=open&status=paid", nil).wantProblem(kindInvalidFields, "query.status", "twice")
	p.call(operator, "GET", "/v1/instance?a=%zz", nil).wantProblem(kindInvalidRequest, "query")
	p.call(operator, "GET", "/v1/instance?a=%ff", nil).wantProblem(kindInvalidRequest, "UTF-8")
	p.call(operator, "GET", "/v1/trials/%00", nil).wantProblem(kindInvalidRequest, "zero byte")
	p.want("0", trials)
}

func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator := p.token(billing.RoleOperator)
	p.call(operator, "GET", "/v1/nowhere", nil).wantProblem(kindNotFound, "/openapi.json")
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if got := p.call(operator, method, trialPath, nil); got.header.Get("Allow") != "POST" {
			t.Errorf("Allow is %q", got.header.Get("Allow"))
		} else {
			got.wantProblem(kindMethod, "POST")
		}
	}
	if got := p.call(operator, "HEAD", "/v1/instance", nil).want(200); len(got.body) > 0 {
		t.Errorf("HEAD has the body %s", got.body)
	}
	p.call(operator, "HEAD", trialPath, nil).want(405)
	p.want("0", trials)
	p.wantMetric(`singil_api_requests_total{route="other",status="404"}`, 1)
}

func TestReadsChangeNothing(t *testing.T) {
	t.Parallel()
	p := setup(t)
	register(p.api, operation{
		id: "sly", method: http.MethodGet, path: "/v1/sly", tag: "trials", summary: "Change something by a GET", role: billing.RoleViewer,
	}, func(ctx context.Context, _ *struct{}) (*tried, error) {
		return change(ctx, p.api, "", func(tx pgx.Tx, act billing.Act) (*tried, error) {
			return &tried{}, billing.Audit(ctx, tx, billing.AuditEntry{Actor: act.Actor, Action: "freeze"})
		})
	})
	p.call(p.token(billing.RoleAdmin), "GET", "/v1/sly", nil).wantProblem(kindInternal)
	p.want("0", trials)
}

func TestRate(t *testing.T) {
	t.Parallel()
	p := setup(t)
	viewer, admin := p.token(billing.RoleViewer), p.token(billing.RoleAdmin)
	for range burst {
		p.call(viewer, "GET", "/v1/instance", nil).want(200)
	}
	got := p.call(viewer, "GET", "/v1/instance", nil)
	got.wantProblem(kindTooMany, "50 requests a second")
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
	p.call(admin, "GET", "/v1/instance", nil).want(200)
	p.set(noon.Add(time.Second))
	for range perSecond {
		p.call(viewer, "GET", "/v1/instance", nil).want(200)
	}
	p.call(viewer, "GET", "/v1/instance", nil).wantProblem(kindTooMany)
}

func TestTooManyUnderWay(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.api.inFlight = make(chan struct{}, 1)
	begun, goOn := make(chan struct{}), make(chan struct{})
	p.addTrial(false, func(context.Context) error { close(begun); <-goOn; return nil }, nil)
	operator := p.token(billing.RoleOperator)
	first := make(chan *reply, 1)
	go func() { first <- p.call(operator, "POST", trialPath, one) }()
	<-begun
	if got := p.call(operator, "GET", "/v1/instance", nil); got.header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %s", got.body)
	} else {
		got.wantProblem(kindUnavailable)
	}
	close(goOn)
	(<-first).want(201)
	p.call(operator, "GET", "/v1/instance", nil).want(200)
}

// A request that takes too long is ended, its key is free, and it may be repeated.
func TestTimeout(t *testing.T) {
	t.Parallel()
	p := setup(t)
	n := 0
	p.addTrial(true, func(ctx context.Context) error {
		if n++; n > 1 {
			return nil
		}
		<-ctx.Done()
		return fmt.Errorf("ask the provider: %w", ctx.Err())
	}, nil)
	operator := p.token(billing.RoleOperator)
	p.api.timeout = 300 * time.Millisecond
	got := p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1")
	got.wantProblem(kindUnavailable, "too long")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	p.api.timeout = requestTimeout
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").want(201)
	p.want("1", trials)
}

// A reader that waits for a lock gets an answer, and not a hanging line.
func TestBusyDatabase(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(true, nil, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '50ms'`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT FROM singil.instance FOR UPDATE`)
		return err
	})
	operator := p.token(billing.RoleOperator)
	p.tx(func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT FROM singil.instance FOR UPDATE`); err != nil {
			return err
		}
		p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").wantProblem(kindUnavailable, "busy")
		return nil
	})
	p.want("0", trials)
}
