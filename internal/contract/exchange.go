package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Exchange is a request and its answer.
type Exchange struct {
	Method  string
	URL     *url.URL
	Request []byte
	Status  int
	Media   string // the answer's Content-Type
	Answer  []byte
}

// ErrNoOperation means that the document has none of that method and path.
var ErrNoOperation = errors.New("the document has no such operation")

// Check says what of an exchange is not as the document has it. What a request
// carries is looked at if it was accepted: refusing what does not fit is right.
func (c *Contract) Check(x Exchange) error {
	op, values := c.find(x)
	if op == nil {
		return fmt.Errorf("%s %s: %w", x.Method, x.URL.Path, ErrNoOperation)
	}
	err := op.answered(x)
	if x.Status < http.StatusMultipleChoices {
		err = errors.Join(err, op.asked(x, values))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %d: %w", x.Method, x.URL.Path, x.Status, err)
	}
	return nil
}

// find takes the operation with the fewest names in its path, and what stands for
// them.
func (c *Contract) find(x Exchange) (best *operation, values map[string]string) {
	parts := strings.Split(x.URL.EscapedPath(), "/")
	for i, op := range c.operations {
		if op.method != x.Method || len(op.path) != len(parts) {
			continue
		}
		found := map[string]string{}
		fits := true
		for j, part := range op.path {
			value, err := url.PathUnescape(parts[j])
			if name := pathName.FindStringSubmatch(part); name != nil && value != "" && err == nil {
				found[name[1]] = value
			} else if part != value {
				fits = false
			}
		}
		if fits && (best == nil || len(found) < len(values)) {
			best, values = &c.operations[i], found
		}
	}
	return best, values
}

func (op *operation) answered(x Exchange) error {
	media, _, err := mime.ParseMediaType(x.Media)
	if err != nil {
		return fmt.Errorf("the answer's type %q: %w", x.Media, err)
	}
	documented, found := op.answers[strconv.Itoa(x.Status)]
	if !found {
		documented = op.answers["default"]
	}
	schema := documented[media]
	if schema == nil {
		return fmt.Errorf("an answer in %s is not documented", media)
	}
	return fits("the answer", schema, x.Answer)
}

func (op *operation) asked(x Exchange, values map[string]string) error {
	var wrong []error
	one := func(name, value string) {
		p, found := op.params[name]
		if !found {
			wrong = append(wrong, fmt.Errorf("%s is not documented", name))
			return
		}
		if err := p.schema.Validate(p.read(value)); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
		}
	}
	for name, value := range values {
		one("path "+name, value)
	}
	query := x.URL.Query()
	for name, all := range query {
		for _, value := range all {
			one("query "+name, value)
		}
	}
	for name, p := range op.params {
		if in, bare, _ := strings.Cut(name, " "); in == "query" && p.required && !query.Has(bare) {
			wrong = append(wrong, fmt.Errorf("%s is required", name))
		}
	}
	switch sent := len(bytes.TrimSpace(x.Request)) > 0; {
	case sent && op.body != nil:
		wrong = append(wrong, fits("the request", op.body, x.Request))
	case !sent && op.bodyMust:
		wrong = append(wrong, errors.New("the request's body is required"))
	}
	return errors.Join(wrong...)
}

// read is a value as its schema wants it; what is not of the type stays a text,
// and the schema refuses it.
func (p parameter) read(value string) any {
	switch p.kind {
	case "integer":
		if _, err := strconv.ParseInt(value, 10, 64); err == nil {
			return json.Number(value)
		}
	case "boolean":
		if b, err := strconv.ParseBool(value); err == nil {
			return b
		}
	case "array":
		list := []any{}
		for item := range strings.SplitSeq(value, ",") {
			list = append(list, item)
		}
		return list
	}
	return value
}

func fits(what string, schema *jsonschema.Schema, data []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s is no JSON: %w", what, err)
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
