// Package contract holds HTTP exchanges to an OpenAPI 3.1 document, and the
// document to the specification's own JSON Schema. It shares no code with the API
// that makes the document: what writes it cannot be its own witness.
package contract

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pb33f/libopenapi/datamodel"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Where the schemas and the document stand for the compiler; nothing is fetched.
const (
	specification = "https://spec.openapis.org/oas/3.1/schema"
	document      = "contract:document"
)

// Contract is a document that was found good. It may be used by many at once.
type Contract struct {
	operations []operation
}

type operation struct {
	method   string
	path     []string // between slashes; {name} stands for anything
	params   map[string]parameter
	body     *jsonschema.Schema // nil: it takes none
	bodyMust bool
	answers  map[string]map[string]*jsonschema.Schema // by status, or default; by media type
}

// parameter is one of the path or the query, under "path name" or "query name".
type parameter struct {
	kind     string // integer, boolean, array, or else a text
	required bool
	schema   *jsonschema.Schema
}

var pathName = regexp.MustCompile(`^\{(\w+)\}$`)

// Read checks a document by the specification, and each schema in it as a schema.
// The error names every place that is wrong.
func Read(data []byte) (*Contract, error) {
	root, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	official, err := jsonschema.UnmarshalJSON(strings.NewReader(datamodel.OpenAPI31SchemaData))
	if err != nil {
		return nil, fmt.Errorf("read the specification: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := errors.Join(compiler.AddResource(specification, official), compiler.AddResource(document, root)); err != nil {
		return nil, err
	}
	spec, err := compiler.Compile(specification)
	if err != nil {
		return nil, fmt.Errorf("the specification: %w", err)
	}
	if err := spec.Validate(root); err != nil {
		return nil, fmt.Errorf("the document is no OpenAPI 3.1: %w", err)
	}
	r := reader{compiler: compiler}
	top := node{value: root}
	for _, s := range top.in("components").in("schemas").each() {
		r.schema(s)
	}
	for _, path := range top.in("paths").each() {
		for _, op := range path.each() {
			r.operation(path.name(), op)
		}
	}
	return &Contract{operations: r.operations}, errors.Join(r.wrong...)
}

// node is a place in the document.
type node struct {
	at    []string
	value any
}

func (n node) name() string { return n.at[len(n.at)-1] }

// in is a member; what is not there has no members and no value.
func (n node) in(name string) node {
	object, _ := n.value.(map[string]any)
	return node{append(slices.Clone(n.at), name), object[name]}
}

func (n node) each() (members []node) {
	switch value := n.value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			members = append(members, n.in(name))
		}
	case []any:
		for i, item := range value {
			members = append(members, node{append(slices.Clone(n.at), strconv.Itoa(i)), item})
		}
	}
	return members
}

func (n node) text() string { s, _ := n.value.(string); return s }
func (n node) yes() bool    { b, _ := n.value.(bool); return b }

// pointer is the place as a fragment has it.
func (n node) pointer() string {
	var b strings.Builder
	for _, name := range n.at {
		b.WriteString("/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name)))
	}
	return b.String()
}

type reader struct {
	compiler   *jsonschema.Compiler
	operations []operation
	wrong      []error
}

func (r *reader) schema(n node) *jsonschema.Schema {
	if n.value == nil {
		return nil
	}
	s, err := r.compiler.Compile(document + "#" + n.pointer())
	if err != nil {
		r.wrong = append(r.wrong, fmt.Errorf("the schema at %s: %w", n.pointer(), err))
	}
	return s
}

func (r *reader) operation(path string, n node) {
	op := operation{
		method: strings.ToUpper(n.name()), path: strings.Split(path, "/"), params: map[string]parameter{}, answers: map[string]map[string]*jsonschema.Schema{},
		body: r.schema(n.in("requestBody").in("content").in("application/json").in("schema")), bodyMust: n.in("requestBody").in("required").yes(),
	}
	for _, p := range n.in("parameters").each() {
		name := p.in("in").text() + " " + p.in("name").text()
		if _, twice := op.params[name]; twice {
			r.wrong = append(r.wrong, fmt.Errorf("%s %s: %s is there twice", op.method, path, name))
		}
		op.params[name] = parameter{p.in("schema").in("type").text(), p.in("required").yes(), r.schema(p.in("schema"))}
	}
	for _, part := range op.path {
		if name := pathName.FindStringSubmatch(part); name != nil && op.params["path "+name[1]].schema == nil {
			r.wrong = append(r.wrong, fmt.Errorf("%s %s: the path's %s is no parameter", op.method, path, name[1]))
		}
	}
	for _, answer := range n.in("responses").each() {
		media := map[string]*jsonschema.Schema{}
		for _, content := range answer.in("content").each() {
			media[content.name()] = r.schema(content.in("schema"))
		}
		op.answers[answer.name()] = media
	}
	r.operations = append(r.operations, op)
}
