package api

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// secretField is the name of a field which opens something to whoever has it.
var secretField = regexp.MustCompile(`(^|_)(client_key|token|secret|redirect_url)$`)

// TestNoOperationStoresASecret walks the answers of all operations, as they are
// documented: one with a secret in it is not stored.
func TestNoOperationStoresASecret(t *testing.T) {
	t.Parallel()
	a := newAPI(Config{})
	schemas := a.huma.OpenAPI().Components.Schemas
	var found []string
	for _, route := range slices.Sorted(maps.Keys(a.operations)) {
		op := a.operations[route]
		path := a.huma.OpenAPI().Paths[op.path]
		for _, documented := range []*huma.Operation{path.Post, path.Put, path.Patch, path.Delete} {
			if documented == nil || documented.OperationID != op.id {
				continue
			}
			answer := documented.Responses[strconv.Itoa(op.success())].Content["application/json"].Schema
			secrets := fieldsLike(schemas, answer, secretField, map[string]bool{})
			if len(secrets) == 0 {
				continue
			}
			found = append(found, op.id)
			if !op.rerun {
				t.Errorf("%s answers with %s, and its answer is stored: it needs rerun", op.id, secrets)
			}
		}
	}
	for _, known := range []string{"start-card-setup", "pay-invoice", "check-invoice"} {
		if !slices.Contains(found, known) {
			t.Errorf("%s is not seen to answer with a secret: %v", known, found)
		}
	}
}

// fieldsLike are the fields of a schema, at any depth, that are called like that.
func fieldsLike(schemas huma.Registry, s *huma.Schema, name *regexp.Regexp, seen map[string]bool) (found []string) {
	if s == nil || s.Ref != "" && seen[s.Ref] {
		return nil
	}
	if s.Ref != "" {
		seen[s.Ref] = true
		return fieldsLike(schemas, schemas.SchemaFromRef(s.Ref), name, seen)
	}
	for field, inner := range s.Properties {
		if name.MatchString(field) {
			found = append(found, field)
		}
		found = append(found, fieldsLike(schemas, inner, name, seen)...)
	}
	return append(found, fieldsLike(schemas, s.Items, name, seen)...)
}

// keepsNoSecret looks behind every test for client keys, tokens and signing
// secrets among the stored answers, whatever the test was about.
func (p *plant) keepsNoSecret() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rows, err := p.pool.Query(ctx, `SELECT r.answer FROM singil.api_requests r WHERE r.answer ~ '_client_|client_key|singil_[0-9A-Za-z]{20}|whsec_'`)
	if err != nil {
		p.t.Errorf("look for secrets: %v", err)
		return
	}
	stored, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(stored) > 0 {
		p.t.Errorf("a stored answer has a secret: %v %q", err, stored)
	}
}

// TestSecretsAreLookedUpAnew: with a key these are repeated, make nothing twice,
// and answer with the client key each time though nobody has stored it.
func TestSecretsAreLookedUpAnew(t *testing.T) {
	t.Parallel()
	p := setupPage(t)
	p.call(p.operator, "POST", "/v1/customers", ana, key("c")).want(201)
	p.subscribe("ana", "s1")
	p.tx(func(tx pgx.Tx) error {
		_, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, noon, 10)
		return err
	})
	var invoice string
	if err := p.pool.QueryRow(t.Context(), `SELECT id::text FROM singil.invoices`).Scan(&invoice); err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{"/v1/customers/ana/card-setups": 201, "/v1/invoices/" + invoice + "/pay": 200} {
		body := `{"reason":"at the counter"}`
		if status == 201 {
			body = `{"amount_minor":2000}`
		}
		var first, second struct {
			Intent    string `json:"payment_intent_id"`
			ClientKey string `json:"client_key"`
		}
		p.call(p.operator, "POST", path, body, key(path)).want(status, &first)
		again := p.call(p.operator, "POST", path, body, key(path)).want(status, &second)
		if first != second || first.Intent == "" || first.ClientKey == "" || again.header.Get(replayHeader) != "" {
			t.Errorf("%s: %+v, and then %+v", path, first, second)
		}
	}
	var checked billing.PayPage
	p.call(p.operator, "POST", "/v1/invoices/"+invoice+"/check", nil, key("check")).want(200, &checked)
	if checked.ClientKey == "" {
		t.Errorf("%+v", checked)
	}
	p.want("2", `SELECT (SELECT count(*) FROM singil.card_setups) + (SELECT count(*) FROM singil.payment_intents)`)
	p.want("create-customer", `SELECT string_agg(CASE WHEN strpos(answer, 'ana@example.com') > 0 THEN 'create-customer' ELSE answer END, ', ') FROM singil.api_requests WHERE status IS NOT NULL`)
}
