package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// TestDocument holds the handlers to the document that is committed: a field, a
// route or a limit that changes in one of the two and not in the other is here.
func TestDocument(t *testing.T) { // not parallel: others read what -update writes
	const path = "openapi.json"
	got := newAPI(Config{}).document
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s is not what the handlers are (-file +handlers); if that is meant: go test ./server/api -run TestDocument -update\n%s", path, diff)
	}
}

// TestDocumentIsTheRoutes walks the routes and the committed document, both ways.
func TestDocumentIsTheRoutes(t *testing.T) {
	t.Parallel()
	a := newAPI(Config{})
	data, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Security    []map[string][]string
			Responses   map[string]any
			Parameters  []struct {
				Name     string
				Required bool
			}
		}
	}
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("it is OpenAPI %s", document.OpenAPI)
	}
	documented, ids := map[string]bool{}, map[string]bool{}
	for path, methods := range document.Paths {
		for method, got := range methods {
			route := strings.ToUpper(method) + " " + path
			documented[route] = true
			op, found := a.operations[route]
			if !found {
				t.Errorf("%s is in the document and is no route", route)
				continue
			}
			if ids[op.id] || got.OperationID != op.id {
				t.Errorf("%s: operation %q, documented as %q; ids are unique", route, op.id, got.OperationID)
			}
			ids[op.id] = true
			if len(got.Security) != 1 || got.Security[0][securityScheme] == nil {
				t.Errorf("%s: the document does not say that it needs a token", route)
			}
			if got.Responses[strconv.Itoa(op.success())] == nil || got.Responses["default"] == nil {
				t.Errorf("%s: answers %v", route, slices.Collect(maps.Keys(got.Responses)))
			}
			var key, needed bool
			for _, p := range got.Parameters {
				if p.Name == keyHeader {
					key, needed = true, p.Required
				}
			}
			if key != op.changes() || needed != op.needsKey {
				t.Errorf("%s: %s is documented %t, needed %t", route, keyHeader, key, needed)
			}
			// What the mux makes of the path with a value for each of its names.
			example, err := http.NewRequest(op.method, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, pattern := a.mux.Handler(example); pattern != route {
				t.Errorf("%s is answered by %q", route, pattern)
			}
		}
	}
	for route := range a.operations {
		if !documented[route] {
			t.Errorf("%s is a route and not in the document", route)
		}
	}
}

func TestServedDocument(t *testing.T) {
	t.Parallel()
	p := setup(t)
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	got := p.call("", "GET", "/openapi.json", nil).want(200)
	if !bytes.Equal(got.body, want) || got.header.Get("Content-Type") != "application/openapi+json" {
		t.Errorf("%s %s", got.header.Get("Content-Type"), got.body)
	}
	p.call("", "POST", "/openapi.json", "{}").wantProblem(kindMethod)
	for _, path := range []string{"/openapi.yaml", "/docs", "/schemas/Instance.json", "/openapi-3.0.json"} {
		p.call("", "GET", path, nil).wantProblem(kindUnauthorized)
	}
}

// conforms holds every answer that a test gets to the document.
func (p *plant) conforms(req *http.Request, r *reply) {
	p.t.Helper()
	if req.Method == http.MethodHead || req.URL.Path == documentPath {
		return
	}
	_, pattern := p.api.mux.Handler(req)
	op, found := p.api.operations[pattern]
	if !found {
		return
	}
	path := p.api.huma.OpenAPI().Paths[op.path]
	documented := map[string]*huma.Operation{"GET": path.Get, "POST": path.Post, "PUT": path.Put, "PATCH": path.Patch, "DELETE": path.Delete}[op.method]
	status, media := "default", "application/problem+json"
	if r.status < 300 {
		status, media = strconv.Itoa(r.status), "application/json"
	}
	response := documented.Responses[status]
	if response == nil || response.Content[media] == nil {
		p.t.Errorf("%s: an answer %d with %s is not documented", r.asked, r.status, media)
		return
	}
	var value any
	if err := json.Unmarshal(r.body, &value); err != nil {
		p.t.Errorf("%s: %v: %s", r.asked, err, r.body)
		return
	}
	for _, wrong := range misfits(p.api.huma.OpenAPI().Components.Schemas, response.Content[media].Schema, value) {
		p.t.Errorf("%s: %s, says the document: %s", r.asked, wrong, r.body)
	}
}

// misfits is what is wrong with a value by its schema, surplus fields too.
func misfits(schemas huma.Registry, schema *huma.Schema, value any) (wrong []string) {
	var result huma.ValidateResult
	huma.Validate(schemas, schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, value, &result)
	for _, err := range result.Errors {
		wrong = append(wrong, err.Error())
	}
	var walk func(at string, s *huma.Schema, v any)
	walk = func(at string, s *huma.Schema, v any) {
		for s != nil && s.Ref != "" {
			s = schemas.SchemaFromRef(s.Ref)
		}
		if s == nil {
			return
		}
		switch v := v.(type) {
		case map[string]any:
			for name, field := range v {
				switch open := s.AdditionalProperties.(type) {
				case *huma.Schema:
					walk(at+"."+name, open, field)
					continue
				}
				if s.Type == huma.TypeObject && s.Properties[name] == nil {
					wrong = append(wrong, fmt.Sprintf("%s.%s is not documented", at, name))
				}
				walk(at+"."+name, s.Properties[name], field)
			}
		case []any:
			for i, item := range v {
				walk(fmt.Sprintf("%s[%d]", at, i), s.Items, item)
			}
		}
	}
	walk("body", schema, value)
	return wrong
}

// TestMisfits keeps conforms from being content with anything.
func TestMisfits(t *testing.T) {
	t.Parallel()
	a := newAPI(Config{})
	schemas := a.huma.OpenAPI().Components.Schemas
	schema := &huma.Schema{Ref: schemaPrefix + "Instance"}
	fits := func() map[string]any {
		return map[string]any{
			"environment": "dev", "livemode": false, "frozen": false, "frozen_reason": nil, "may_charge": true, "why_not": nil,
			"now": "2026-01-31T04:00:00Z", "virtual_clock": false,
		}
	}
	if wrong := misfits(schemas, schema, fits()); len(wrong) > 0 {
		t.Error(wrong)
	}
	for name, change := range map[string]func(map[string]any){
		"a field less": func(m map[string]any) { delete(m, "now") },
		"a field more": func(m map[string]any) { m["colour"] = "blue" },
		"another type": func(m map[string]any) { m["livemode"] = "no" },
		"another word": func(m map[string]any) { m["environment"] = "moon" },
		"no instant":   func(m map[string]any) { m["now"] = "soon" },
		"null":         func(m map[string]any) { m["may_charge"] = nil },
	} {
		value := fits()
		change(value)
		if wrong := misfits(schemas, schema, value); len(wrong) == 0 {
			t.Errorf("%s is not seen", name)
		}
	}
}
