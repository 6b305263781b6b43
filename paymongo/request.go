package paymongo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// Request is one call that [Client.Do] can send, any number of times.
type Request struct {
	// Op names the call in errors and to the observer. NewRequest sets it to
	// "custom"; choose a name without ids, so that it can label a metric.
	Op string
	// IdempotencyKey is sent as the Idempotency-Key header, at most 255 printable characters; none if empty.
	IdempotencyKey string
	// SendBefore is the moment after which the call is not sent any more, by this machine's clock; zero for none.
	SendBefore time.Time

	ctx    context.Context
	client *Client
	method string
	path   string
	query  Secret        // may hold a client key
	body   Secret        // may hold a card number; empty for GET, and for DELETE if wanted so
	wait   time.Duration // for one round trip
}

// NewRequest prepares a call that no service covers. The path is relative to
// the base URL and may have a query: "payments?limit=1". It may start with one
// "../" to leave the version: "../v2/customers/cus_1/payment_methods". The body
// is marshalled as it is; most calls want [Attributes]. A POST, PUT or PATCH
// without a body gets empty attributes, because net/http may send a write
// without a body twice.
func (c *Client) NewRequest(ctx context.Context, method, path string, body any) (*Request, error) {
	const op = "custom"
	route, rawQuery, _ := strings.Cut(path, "?")
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, refuse(op, reasonBadParams, "the query of the path cannot be parsed")
	}
	return c.prepare(ctx, op, method, route, query, body)
}

// Attributes wraps v in the envelope of a v1 request, {"data":{"attributes":v}}.
func Attributes(v any) any {
	type data struct {
		Attributes any `json:"attributes"`
	}
	return struct {
		Data data `json:"data"`
	}{data{v}}
}

func (c *Client) prepare(ctx context.Context, op, method, route string, query url.Values, body any) (*Request, error) {
	if ctx == nil {
		return nil, refuse(op, reasonBadParams, "the context is nil")
	}
	if !isRoute(route) {
		return nil, refuse(op, reasonBadParams, "the path must be relative to the base URL, such as payments/pay_1, of letters, digits and ._~- only")
	}
	r := &Request{
		Op: op, ctx: ctx, client: c, method: method, wait: c.timeouts.Write,
		path: path.Clean(c.base.Path + "/" + route), query: NewSecret(query.Encode()),
	}

	switch method {
	case http.MethodGet:
		if body != nil {
			return nil, refuse(op, reasonBadParams, "a GET has no body")
		}
		r.wait = c.timeouts.Read
		return r, nil
	case http.MethodDelete:
		if body == nil {
			return r, nil
		}
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		if body == nil {
			body = Attributes(struct{}{})
		}
	default:
		return nil, refuse(op, reasonBadParams, "method %q is none of GET, POST, PUT, PATCH, DELETE", method[:min(len(method), 20)])
	}
	content, err := json.Marshal(body)
	if err != nil {
		return nil, refuse(op, reasonBadParams, "the body cannot be marshalled: %w", err)
	}
	r.body = NewSecret(string(content))
	return r, nil
}

// call is what a service method says about itself.
type call struct {
	op, method string
	path       []string // segments; every one is checked like an id
	query      url.Values
	attributes any // of the body; nil for none
	key        string
	sendBefore time.Time
	wait       time.Duration // if not the usual one of the method
	publicKey  bool          // a public key may do this
	wantID     string        // that the answer must have; empty for any
	fault      string        // what is wrong with the parameters
}

// send runs a call and decodes its answer into a new T.
func send[T any, P interface {
	*T
	json.Unmarshaler
}](ctx context.Context, c *Client, k call) (*T, error) {
	out, wantID := new(T), k.wantID // not k itself, which would be moved to the heap
	err := c.perform(ctx, k, func(answer []byte) error {
		// Called directly: json.Unmarshal would scan the answer once more before calling it.
		if err := P(out).UnmarshalJSON(answer); err != nil {
			return err
		}
		if got, ok := any(out).(interface{ resourceID() string }); ok && wantID != "" && got.resourceID() != wantID {
			return fmt.Errorf("%w: it has another id", errOtherResource)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// perform checks a call and runs it.
func (c *Client) perform(ctx context.Context, k call, decode func([]byte) error) error {
	if c.public && !k.publicKey {
		return refuse(k.op, reasonNeedsSecretKey, "a public key may not do this, at least not without a client key; use a secret key (sk_)")
	}
	for _, segment := range k.path {
		if !isID(segment) {
			return refuse(k.op, reasonBadParams, "an id is empty, too long, or has other characters than letters, digits, _ and -")
		}
	}
	if k.fault != "" {
		return refuse(k.op, reasonBadParams, "%s", k.fault)
	}
	var body any
	if k.attributes != nil {
		body = Attributes(k.attributes)
	}
	r, err := c.prepare(ctx, k.op, k.method, strings.Join(k.path, "/"), k.query, body)
	if err != nil {
		return err
	}
	r.IdempotencyKey, r.SendBefore = k.key, k.sendBefore
	if k.wait > 0 {
		r.wait = k.wait
	}
	return c.run(r, decode)
}

// check refuses what [Request]'s exported fields must not hold.
func (r *Request) check() error {
	switch key := r.IdempotencyKey; {
	case len(key) > 255:
		return refuse(r.Op, reasonBadParams, "the idempotency key has %d characters; PayMongo takes at most 255", len(key))
	case !printable(key), strings.TrimSpace(key) != key:
		return refuse(r.Op, reasonBadParams, "the idempotency key must be printable ASCII without spaces around it")
	case key != "" && r.body.IsZero():
		// net/http takes the header for a promise that the request may be sent twice.
		return refuse(r.Op, reasonBadParams, "a request without a body must not have an idempotency key")
	}
	return nil
}

// anchored returns r with SendBefore tied to the monotonic clock, so that no
// correction of the wall clock during the call, whatever its tries, puts it off.
func (r *Request) anchored(now time.Time) *Request {
	if r.SendBefore.IsZero() {
		return r
	}
	tied := *r
	tied.SendBefore = now.Add(r.SendBefore.Sub(now))
	return &tied
}

// isRoute reports whether s is a path of plain segments, maybe after one "../".
func isRoute(s string) bool {
	s = strings.TrimPrefix(s, "../")
	for segment := range strings.SplitSeq(s, "/") {
		if !isWord(segment, "._~-") {
			return false
		}
	}
	return !strings.Contains(s, "..")
}

func isID(s string) bool { return len(s) <= 128 && isWord(s, "_-") }

// isWord reports whether s is letters, digits and the given marks, at least one of them.
func isWord(s, marks string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(marks, c) < 0 {
			return false
		}
	}
	return s != ""
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// orZero lets nil stand for parameters nobody wants to set.
func orZero[T any](params *T) T {
	if params == nil {
		var zero T
		return zero
	}
	return *params
}
