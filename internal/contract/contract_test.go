package contract_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/singil/singil/internal/contract"
)

const good = `{
  "openapi": "3.1.0", "info": {"title": "Cats", "version": "1"},
  "paths": {
    "/cats/{name}": {"post": {
      "parameters": [
        {"name": "name", "in": "path", "required": true, "schema": {"type": "string", "maxLength": 5}},
        {"name": "lives", "in": "query", "schema": {"type": "integer", "maximum": 9}},
        {"name": "tame", "in": "query", "schema": {"type": "boolean"}},
        {"name": "colour", "in": "query", "schema": {"type": "array", "items": {"enum": ["black", "white"]}}}
      ],
      "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Cat"}}}},
      "responses": {
        "200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Cat"}}}},
        "default": {"description": "no", "content": {"application/problem+json": {"schema": {"type": "object", "required": ["title"]}}}}
      }
    }},
    "/cats/all": {"get": {"responses": {"200": {"description": "OK", "content": {"application/json": {"schema": {"type": "array"}}}}}}}
  },
  "components": {"schemas": {"Cat": {"type": "object", "required": ["born"], "additionalProperties": false,
    "properties": {"born": {"type": "string", "format": "date-time"}, "owner": {"type": ["string", "null"]}}}}}
}`

func TestDocumentsThatAreNone(t *testing.T) {
	t.Parallel()
	if _, err := contract.Read([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"a field that does not exist":       {`"title": "Cats"`, `"title": "Cats", "tittle": "Cats"`},
		"a field that is needed":            {`"version": "1"`, `"summary": "1"`},
		"a version of the past":             {`"3.1.0"`, `"3.0.3"`},
		"a parameter of nowhere":            {`"in": "query"`, `"in": "body"`},
		"a path's parameter that may lack":  {`"in": "path", "required": true`, `"in": "path"`},
		"a path's parameter that is none":   {`"name": "name"`, `"name": "nom"`},
		"a parameter twice":                 {`"name": "tame"`, `"name": "lives"`},
		"a method that does not exist":      {`"get"`, `"fetch"`},
		"an answer without a description":   {`"description": "no", `, ``},
		"a type that does not exist":        {`"type": "boolean"`, `"type": "bool"`},
		"a keyword with the wrong kind":     {`"maxLength": 5`, `"maxLength": "5"`},
		"a reference to nothing":            {`{"$ref": "#/components/schemas/Cat"}}}}`, `{"$ref": "#/components/schemas/Dog"}}}}`},
		"a path without a slash":            {`"/cats/all"`, `"cats"`},
		"a schema's name with a space":      {`"schemas": {"Cat"`, `"schemas": {"A cat": {}, "Cat"`},
		"what is no JSON":                   {`"openapi"`, `openapi`},
		"a regular expression that is none": {`"maxLength": 5`, `"pattern": "("`},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if text == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := contract.Read([]byte(text)); err == nil {
			t.Errorf("%s is not seen", name)
		}
	}
}

func TestExchanges(t *testing.T) {
	t.Parallel()
	c, err := contract.Read([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	const cat = `{"born": "2026-01-31T09:00:00Z", "owner": null}`
	exchange := func(method, path, request string, status int, media, answer string) error {
		to, err := url.Parse("http://cats.example" + path)
		if err != nil {
			t.Fatal(err)
		}
		return c.Check(contract.Exchange{Method: method, URL: to, Request: []byte(request), Status: status, Media: media, Answer: []byte(answer)})
	}
	const json, problem = "application/json", "application/problem+json"
	for _, err := range []error{
		exchange("POST", "/cats/tom", cat, 200, json, cat),
		exchange("POST", "/cats/t%2Fm", cat, 200, "application/json; charset=utf-8", cat),
		exchange("POST", "/cats/tom?lives=9&tame=true&colour=black,white", cat, 200, json, cat),
		exchange("POST", "/cats/tommy-the-cat?lives=x&dog=1", `{`, 422, problem, `{"title": "No"}`), // it was refused
		exchange("GET", "/cats/all", "", 200, json, `[]`),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	for name, err := range map[string]error{
		"a field more is answered":        exchange("POST", "/cats/tom", cat, 200, json, `{"born": "2026-01-31T09:00:00Z", "tail": 1}`),
		"a field less is answered":        exchange("POST", "/cats/tom", cat, 200, json, `{}`),
		"no instant is answered":          exchange("POST", "/cats/tom", cat, 200, json, `{"born": "soon"}`),
		"no JSON is answered":             exchange("POST", "/cats/tom", cat, 200, json, `born`),
		"another type is answered":        exchange("POST", "/cats/tom", cat, 200, "text/plain", cat),
		"another problem is answered":     exchange("POST", "/cats/tom", cat, 500, problem, `{}`),
		"an answer without a default":     exchange("GET", "/cats/all", "", 500, problem, `{"title": "No"}`),
		"a name that is too long":         exchange("POST", "/cats/tommy-the-cat", cat, 200, json, cat),
		"too many lives":                  exchange("POST", "/cats/tom?lives=10", cat, 200, json, cat),
		"no number of lives":              exchange("POST", "/cats/tom?lives=x", cat, 200, json, cat),
		"no yes and no no":                exchange("POST", "/cats/tom?tame=rather", cat, 200, json, cat),
		"a colour of dogs":                exchange("POST", "/cats/tom?colour=black,brown", cat, 200, json, cat),
		"a filter that is not documented": exchange("POST", "/cats/tom?dog=1", cat, 200, json, cat),
		"a body that does not fit":        exchange("POST", "/cats/tom", `{"owner": 7}`, 200, json, cat),
		"no body":                         exchange("POST", "/cats/tom", "", 200, json, cat),
	} {
		if err == nil {
			t.Errorf("%s: that is not seen", name)
		}
	}
	for _, path := range []string{"/cats", "/cats/", "/cats/tom/kittens", "/dogs/rex"} {
		if err := exchange("POST", path, "", 404, problem, `{}`); !errors.Is(err, contract.ErrNoOperation) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestBetween(t *testing.T) {
	t.Parallel()
	c, err := contract.Read([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	cats := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`[` + r.URL.Query().Get("say")))
	}))
	defer cats.Close()
	to, err := url.Parse(cats.URL)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var told []error
	between := httptest.NewServer(c.Between(to, "/cats/", func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err)
	}))
	defer between.Close()
	for _, path := range []string{"/dogs", "/cats/all", "/cats/all?say=%5D"} {
		res, err := http.Get(between.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 2 || told[0] == nil || !strings.Contains(told[0].Error(), "no JSON") || told[1] == nil || !strings.Contains(told[1].Error(), "say is not documented") {
		t.Errorf("%v", told)
	}
}
