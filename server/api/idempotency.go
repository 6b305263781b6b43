package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

const (
	keyHeader    = "Idempotency-Key"
	replayHeader = "Idempotency-Replayed"
	maxKey       = 255

	// claimLease is how long a request that vanished keeps its key: longer than any
	// request may take.
	claimLease = 2 * requestTimeout
)

// request is what is known of one request behind the gate.
type request struct {
	op    operation
	token billing.APIToken
	key   string
	hash  [sha256.Size]byte
	// row is the request's row. Without a key there is none, but for an id.
	row      billing.APIRequest
	answered bool
}

type requestKey struct{}

// requestOf is the request that ctx belongs to; outside of one an empty one.
func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return &request{}
}

// requestID is what provider calls made for this request derive their own
// idempotency keys from. It is the same when the request is repeated with its key.
func requestID(ctx context.Context) uuid.UUID { return requestOf(ctx).row.ID }

// fingerprint is what makes two requests the same: method, path with query, body.
func fingerprint(r *http.Request, body []byte) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", r.Method, r.URL.RequestURI())
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// keyOf reads the key of a change.
func keyOf(r *http.Request, op operation) (string, error) {
	values := r.Header.Values(keyHeader)
	switch {
	case !op.changes():
		return "", nil
	case len(values) == 0 && op.needsKey:
		return "", newProblem(kindKeyNeeded, "Send "+keyHeader+" with a name of yours for this request, such as a UUID, and repeat it with the same one if no answer comes.")
	case len(values) == 0:
		return "", nil
	case len(values) > 1 || len(values[0]) < 1 || len(values[0]) > maxKey:
		return "", newProblem(kindInvalidRequest, fmt.Sprintf("%s is sent once, with 1 to %d characters.", keyHeader, maxKey))
	}
	for _, c := range []byte(values[0]) {
		if c <= ' ' || c > '~' {
			return "", newProblem(kindInvalidRequest, keyHeader+" takes visible ASCII characters and nothing else.")
		}
	}
	return values[0], nil
}

// once runs an operation, or finds what it answered before.
func (a *api) once(ctx context.Context, run func(context.Context) (any, error)) error {
	r := requestOf(ctx)
	if !r.op.changes() {
		_, err := run(ctx)
		return err
	}
	if r.key == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		r.row.ID = id
		_, err = run(ctx)
		return err
	}
	row, err := billing.ClaimRequest(ctx, a.cfg.Pool, r.token.ID, r.key, r.hash, claimLease)
	if err != nil {
		return err
	}
	if row.Status != 0 {
		return &replayed{row}
	}
	r.row = row
	done := false
	defer func() { // a panic comes by here too
		if !done {
			a.release(ctx, row)
		}
	}()
	out, err := run(ctx)
	if r.op.rerun {
		return err
	}
	if err == nil && !r.answered {
		err = a.keep(ctx, a.cfg.Pool, out)
	}
	done = err == nil
	return err
}

// release runs behind what went wrong, which may be the request's own time.
func (a *api) release(ctx context.Context, row billing.APIRequest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := billing.ReleaseRequest(ctx, a.cfg.Pool, row); err != nil {
		logFailure(ctx, a.cfg.Log, "", err) // the lease ends by itself
	}
}

const releaseTimeout = 3 * time.Second

// keep stores the answer of a request with a key.
func (a *api) keep(ctx context.Context, q billing.Executor, out any) error {
	r := requestOf(ctx)
	if r.key == "" {
		return nil
	}
	var body bytes.Buffer
	if err := encode(&body, out); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return billing.AnswerRequest(ctx, q, r.row, r.op.success(), body.String())
}

// errNoAnswer is a mistake of a handler's: what is stored must be an answer.
var errNoAnswer = errors.New("the operation has no answer")

// change makes a change in one transaction, with the answer of the request in it:
// do returns both. It is the last step of an operation.
//
// reason is for the audit log; empty, it is the name of the operation.
func change[Out any](ctx context.Context, a *api, reason string, do func(tx pgx.Tx, act billing.Act) (*Out, error)) (*Out, error) {
	if requestOf(ctx).op.rerun {
		return nil, errors.New("the answer of this operation is not stored")
	}
	var out *Out
	err := a.step(ctx, reason, func(tx pgx.Tx, act billing.Act) (err error) {
		if out, err = do(tx, act); err != nil {
			return err
		}
		if out == nil {
			return errNoAnswer
		}
		return a.keep(ctx, tx, out)
	})
	if err != nil {
		return nil, err
	}
	requestOf(ctx).answered = true
	return out, nil
}

// step makes a change in one transaction, before the last one: what it does is
// durable though the request may still fail. Repeated, it comes here again.
func (a *api) step(ctx context.Context, reason string, do func(tx pgx.Tx, act billing.Act) error) error {
	r := requestOf(ctx)
	if !r.op.changes() {
		return errors.New("a GET changes nothing")
	}
	return pgx.BeginFunc(ctx, a.cfg.Pool, func(tx pgx.Tx) error {
		now, err := a.businessNow(ctx, tx)
		if err != nil {
			return err
		}
		return do(tx, billing.Act{Actor: "api:" + r.token.Name, Reason: cmp.Or(reason, r.op.id), Now: now})
	})
}

// businessNow is the virtual clock's time if there is one.
func (a *api) businessNow(ctx context.Context, q billing.Querier) (time.Time, error) {
	instance, err := billing.LoadInstance(ctx, q)
	if err != nil {
		return time.Time{}, err
	}
	return instance.Now(a.cfg.Now()).UTC().Truncate(time.Microsecond), nil
}

// replayed is the answer of the first time. To huma it is an error: that is the
// only answer which may have another shape than the operation's.
type replayed struct{ row billing.APIRequest }

func (r *replayed) Error() string                { return "answered before" }
func (r *replayed) GetStatus() int               { return r.row.Status }
func (r *replayed) ContentType(string) string    { return "application/json" }
func (r *replayed) MarshalJSON() ([]byte, error) { return []byte(r.row.Answer), nil }
func (r *replayed) GetHeaders() http.Header      { return http.Header{replayHeader: {"true"}} }

// encode is the one way in which answers are written, stored and repeated.
func encode(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
