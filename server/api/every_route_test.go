package api

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
)

var pathName = regexp.MustCompile(`\{\w+\}`)

// TestEveryRoute does to each operation there is what must be refused whatever it
// is for. A route that is added is in it by itself.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	p := setup(t)
	tokens := map[billing.Role]string{}
	for _, role := range billing.Roles() {
		tokens[role] = p.token(role)
	}
	admin := tokens[billing.RoleAdmin]
	day := 0
	// call asks on the next day: the bucket of a token is full again.
	call := func(token, method, path string, body any, headers ...string) *reply {
		t.Helper()
		day++
		p.set(noon.AddDate(0, 0, day))
		return p.call(token, method, path, body, headers...)
	}
	var state string
	// What any change leaves behind, but for the use of tokens.
	const left = `SELECT concat((SELECT count(*) FROM singil.audit_log), ' ', (SELECT count(*) FROM singil.events), ' ', (SELECT count(*) FROM singil.customers), ' ',
		(SELECT count(*) FROM singil.plans), ' ', (SELECT count(*) FROM singil.subscriptions), ' ', (SELECT count(*) FROM singil.invoices), ' ',
		(SELECT count(*) FROM singil.api_requests WHERE status IS NOT NULL))`
	if err := p.pool.QueryRow(t.Context(), left).Scan(&state); err != nil {
		t.Fatal(err)
	}
	for _, route := range slices.Sorted(maps.Keys(p.api.operations)) {
		op := p.api.operations[route]
		var body any
		if op.changes() {
			body = `{}`
		}
		with := func(value string) string { return pathName.ReplaceAllLiteralString(op.path, value) }
		call("", op.method, with("nobody"), body).wantProblem(kindUnauthorized)
		for _, role := range billing.Roles() {
			if !role.May(op.role) {
				call(tokens[role], op.method, with("nobody"), body).wantProblem(kindForbidden, string(op.role))
			}
		}
		call(admin, op.method, with("nobody")+"?colour=blue", body, "Idempotency-Key: "+uuid.NewString()).wantProblem(kindInvalidFields, "query.colour")
		call(admin, op.method, with("nobody")+"?after=4343434343434345", body).wantProblem(kindCardNumber)
		if op.path != with("") {
			call(admin, op.method, with("4343-4343-4343-4345"), body).wantProblem(kindCardNumber)
		}
		wants := func(got *reply, what string) {
			t.Helper()
			// Behind a change without a path there may be a provider that is asked for nothing.
			if got.status >= http.StatusInternalServerError || op.changes() && got.status < http.StatusBadRequest {
				t.Errorf("%s with %s: %d %s", route, what, got.status, got.body)
			}
		}
		for _, id := range []string{"nobody", uuid.NewString(), strings.Repeat("n", 300), "%F0%9F%92%B3", "..%2F..%2Fetc", "'; DROP TABLE singil.invoices; --", "null"} {
			if op.path == with("") {
				continue
			}
			for _, content := range []any{body, `{"cvc":"123"}`, `{"reason":"test"}`} {
				if !op.changes() {
					content = nil
				}
				wants(call(admin, op.method, with(strings.ReplaceAll(id, " ", "%20")), content, "Idempotency-Key: "+uuid.NewString()), fmt.Sprintf("id %.40q and %v", id, content))
			}
		}
		if op.changes() {
			call(admin, op.method, with("nobody"), body, "Sec-Fetch-Site: cross-site").wantProblem(kindCrossSite)
			if op.needsKey {
				call(admin, op.method, with("nobody"), body).wantProblem(kindKeyNeeded)
			}
			for _, content := range []string{`{"cvc":"123"}`, `[]`, `"text"`, `{"amount_minor":-1}`, `nonsense`, `{"amount_minor":1e300}`, `{"a":{"b":{"c":[null]}}}`} {
				wants(call(admin, op.method, with("nobody"), content, "Idempotency-Key: "+uuid.NewString()), content)
			}
			continue
		}
		for _, query := range []string{"after=nobody", "after=" + uuid.NewString(), "after=-1", "limit=0", "limit=x", "after=%27", "limit=100&after=9223372036854775808"} {
			wants(call(admin, op.method, with("nobody")+"?"+query, nil), query)
		}
	}
	p.want(state, left)
	for _, secret := range tokens {
		if strings.Contains(p.log.String(), secret) {
			t.Error("a token is in the log")
		}
	}
}
