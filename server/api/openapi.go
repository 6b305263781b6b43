package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/singil/singil/billing"
)

const (
	documentPath   = "/openapi.json"
	securityScheme = "token"
	schemaPrefix   = "#/components/schemas/"

	// documentVersion is the version of the API, not of the program: it changes when
	// what was promised does.
	documentVersion = "1"

	documentDescription = `Subscriptions of a merchant, charged off-session through PayMongo.

Amounts are minor units with their currency: 49900 PHP is ₱499.00. Instants are RFC 3339. An id in a path may be ours,
or your own name for the thing. Card numbers and CVCs are not taken anywhere: they go from the customer's browser to
PayMongo. Ignore fields that you do not know: there will be more.

Errors are problem documents (RFC 9457): "type" is one of a closed list, "detail" says what to do.`
)

// uuidSchema describes ids.
type uuidSchema string

// Schema is what huma asks a type for.
func (uuidSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid"}
}

// schemaName leaves out of a type's name what matters in its package only. What has
// no name is called after its operation.
func schemaName(t reflect.Type, hint string) string {
	words := strings.Split(hint, "-")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:min(1, len(w))]) + w[min(1, len(w)):]
	}
	name := huma.DefaultSchemaNamer(t, strings.Join(words, ""))
	for _, prefix := range []string{"Exported", "Listed"} {
		name = strings.Replace(name, prefix, "", 1)
	}
	return name
}

// documentConfig serves nothing by itself: no page, no schemas, no links.
func documentConfig() huma.Config {
	schemas := huma.NewMapRegistry(schemaPrefix, schemaName)
	schemas.RegisterTypeAlias(reflect.TypeFor[billing.Stamp](), reflect.TypeFor[*time.Time]()) // null where there is none
	schemas.RegisterTypeAlias(reflect.TypeFor[uuid.UUID](), reflect.TypeFor[uuidSchema]())
	format := huma.Format{Marshal: encode, Unmarshal: json.Unmarshal}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Singil", Version: documentVersion, Description: documentDescription},
			Components: &huma.Components{
				Schemas: schemas,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					securityScheme: {Type: "http", Scheme: "bearer", BearerFormat: "singil_…", Description: "Made by: singil tokens create"},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
	}
}

// finishDocument writes the document, when all operations are there.
func (a *api) finishDocument() []byte {
	a.openAnswers()
	var document bytes.Buffer
	encoder := json.NewEncoder(&document)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(a.huma.OpenAPI()); err != nil {
		panic(err) // it is made of our own types
	}
	return document.Bytes()
}

// openAnswers lets answers have more fields some day. A request with a field that
// is not known stays refused.
func (a *api) openAnswers() {
	schemas := a.huma.OpenAPI().Components.Schemas
	asked := map[string]bool{}
	var reach func(s *huma.Schema)
	reach = func(s *huma.Schema) {
		if s == nil || s.Ref != "" && asked[s.Ref] {
			return
		}
		if s.Ref != "" {
			asked[s.Ref] = true
			reach(schemas.SchemaFromRef(s.Ref))
			return
		}
		reach(s.Items)
		for _, p := range s.Properties {
			reach(p)
		}
		if additional, ok := s.AdditionalProperties.(*huma.Schema); ok {
			reach(additional)
		}
	}
	for _, path := range a.huma.OpenAPI().Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Put, path.Patch, path.Delete} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, content := range op.RequestBody.Content {
				reach(content.Schema)
			}
		}
	}
	for name, schema := range schemas.Map() {
		if _, closed := schema.AdditionalProperties.(bool); closed && !asked[schemaPrefix+name] {
			schema.AdditionalProperties = nil
		}
	}
}

// serveDocument needs no token: the document is as public as this program.
func (a *api) serveDocument(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		newProblem(kindMethod, "It takes GET.").with("Allow", "GET, HEAD").write(w)
		return
	}
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(a.document) // who asked is gone: nothing to be done
}
