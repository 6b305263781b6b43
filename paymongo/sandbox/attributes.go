package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// attributes are the arguments of a call, still undecoded.
type attributes map[string]json.RawMessage

// params reads attributes and collects what is wrong with them, all of it:
// PayMongo may answer with several errors.
type params struct {
	attrs  attributes
	prefix string // "details." for the attributes of details
	errs   *[]apiError
}

func (c *call) params() params { return params{attrs: c.attrs, errs: new([]apiError)} }

// refused is the answer to bad arguments, if there are any.
func (p params) refused() (answer, bool) {
	if len(*p.errs) == 0 {
		return answer{}, false
	}
	return answer{status: 400, errs: *p.errs}, true
}

func (p params) fail(name, code, format string, args ...any) {
	*p.errs = append(*p.errs, apiError{
		Code:   code,
		Detail: fmt.Sprintf(format, args...),
		Source: &errorSource{Pointer: p.prefix + name, Attribute: name},
	})
}

func (p params) has(name string) bool {
	raw, ok := p.attrs[name]
	return ok && string(raw) != "null"
}

// require notes a missing argument.
func (p params) require(names ...string) {
	for _, name := range names {
		if !p.has(name) {
			p.fail(name, "parameter_required", "%s%s is required.", p.prefix, name)
		}
	}
}

// text reads a string; "" when absent or wrong.
func (p params) text(name string) string {
	if !p.has(name) {
		return ""
	}
	var s string
	if json.Unmarshal(p.attrs[name], &s) != nil {
		p.fail(name, "parameter_data_type_invalid", "%s%s should be a string.", p.prefix, name)
		return ""
	}
	if len(s) > 4096 {
		p.fail(name, "parameter_invalid", "%s%s is too long.", p.prefix, name)
		return ""
	}
	return s
}

// optional reads a string that is null when absent.
func (p params) optional(name string) *string {
	if !p.has(name) {
		return nil
	}
	s := p.text(name)
	return &s
}

func (p params) choice(name string, allowed ...string) string {
	s := p.text(name)
	if p.has(name) && !slices.Contains(allowed, s) && json.Valid(p.attrs[name]) && p.attrs[name][0] == '"' {
		p.fail(name, "parameter_invalid", "%s%s must be one of %s.", p.prefix, name, strings.Join(allowed, ", "))
	}
	return s
}

// integer reads a JSON integer between lowest and highest. 1e2 and 100.0 are
// none, as "10_000" was none in a recording of 2020.
func (p params) integer(name string, lowest, highest int64) int64 {
	if !p.has(name) {
		return 0
	}
	raw := string(p.attrs[name])
	unsigned := strings.TrimPrefix(raw, "-")
	n, err := strconv.ParseInt(raw, 10, 64) // out of range gives the nearest
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange) || !digits(unsigned):
		p.fail(name, "parameter_data_type_invalid", "%s%s should be an integer.", p.prefix, name)
		return 0
	case n < lowest:
		p.fail(name, "parameter_below_minimum", "The minimum value for the %s%s is %d.", p.prefix, name, lowest)
		return 0
	case n > highest:
		p.fail(name, "parameter_above_maximum", "The value for %s%s cannot be greater than %d.", p.prefix, name, highest)
		return 0
	}
	return n
}

func (p params) boolean(name string, absent bool) bool {
	if !p.has(name) {
		return absent
	}
	var b bool
	if json.Unmarshal(p.attrs[name], &b) != nil {
		p.fail(name, "parameter_data_type_invalid", "%s%s should be a boolean.", p.prefix, name)
	}
	return b
}

// texts reads an array of 1 to 50 strings.
func (p params) texts(name string) []string {
	if !p.has(name) {
		return nil
	}
	var list []string
	if json.Unmarshal(p.attrs[name], &list) != nil {
		p.fail(name, "parameter_data_type_invalid", "%s%s should be an array of strings.", p.prefix, name)
		return nil
	}
	if len(list) == 0 {
		p.fail(name, "parameter_blank", "The value for %s%s cannot be blank.", p.prefix, name)
	}
	if len(list) > 50 {
		p.fail(name, "parameter_invalid", "%s%s has more than 50 elements.", p.prefix, name)
		return nil
	}
	return list
}

// object reads a nested object.
func (p params) object(name string) (params, bool) {
	if !p.has(name) {
		return params{}, false
	}
	var attrs attributes
	if json.Unmarshal(p.attrs[name], &attrs) != nil || attrs == nil {
		p.fail(name, "parameter_data_type_invalid", "%s%s should be an object.", p.prefix, name)
		return params{}, false
	}
	return params{attrs: attrs, prefix: p.prefix + name + ".", errs: p.errs}, true
}

func (p params) metadata() metadata {
	var m metadata
	if p.has("metadata") {
		if err := json.Unmarshal(p.attrs["metadata"], &m); err != nil {
			p.fail("metadata", "parameter_data_type_invalid", "metadata should be a flat object of strings: %v.", err)
		}
	}
	return m
}

func (p params) billing() *billing {
	b, ok := p.object("billing")
	if !ok {
		return nil
	}
	out := &billing{Email: b.optional("email"), Name: b.optional("name"), Phone: b.optional("phone")}
	if a, ok := b.object("address"); ok {
		out.Address = address{
			City: a.optional("city"), Country: a.optional("country"),
			Line1: a.optional("line1"), Line2: a.optional("line2"),
			PostalCode: a.optional("postal_code"), State: a.optional("state"),
		}
	}
	return out
}
