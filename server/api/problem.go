package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/singil/singil/billing"
)

// problem is an error as RFC 9457 has it. It repeats no value of the request.
type problem struct {
	Type   problemURN     `json:"type" doc:"Which kind of problem: one of a closed list, for programs."`
	Title  string         `json:"title" doc:"The kind, for people."`
	Status int            `json:"status" doc:"The HTTP status."`
	Detail string         `json:"detail" doc:"What is wrong this time, and what to do."`
	Reason string         `json:"reason,omitempty" doc:"Why a retry is refused, or the removal of a card, in one word, for programs."`
	ID     string         `json:"id,omitempty" doc:"Of an error on our side: the log has more under this id."`
	Errors []fieldProblem `json:"errors,omitempty" doc:"Which fields are wrong."`

	header http.Header
}

// fieldProblem is what is wrong with one field.
type fieldProblem struct {
	Location string `json:"location" doc:"The field: body.amount_minor, query.limit, path.id."`
	Message  string `json:"message" doc:"What is wrong with it."`
}

func (p *problem) Error() string {
	text := p.Title + ": " + p.Detail
	for _, f := range p.Errors {
		text += "; " + f.Location + ": " + f.Message
	}
	return text
}

// GetStatus and the next two are what huma asks of an error.
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return "application/problem+json" }
func (p *problem) GetHeaders() http.Header   { return p.header }

// with sets a header of the answer.
func (p *problem) with(name, value string) *problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

// again tells after how many seconds to ask again.
func (p *problem) again(seconds int) *problem { return p.with("Retry-After", strconv.Itoa(seconds)) }

// kind is a kind of problem. There are no others.
type kind struct {
	slug   string
	status int
	title  string
}

// problemType is what all types begin with.
const problemType = "urn:singil:problem:"

// problemURN names a kind, for programs.
type problemURN string

// Schema is what huma asks a type for: the closed list.
func (problemURN) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, k := range kinds {
		s.Enum = append(s.Enum, problemType+k.slug)
	}
	return s
}

// kinds are all of them.
var kinds []kind

func newKind(slug string, status int, title string) kind {
	k := kind{slug, status, title}
	kinds = append(kinds, k)
	return k
}

var (
	kindInvalidRequest = newKind("invalid-request", http.StatusBadRequest, "The request cannot be read")
	kindKeyNeeded      = newKind("key-needed", http.StatusBadRequest, "An Idempotency-Key is needed")
	kindUnauthorized   = newKind("unauthorized", http.StatusUnauthorized, "A valid token is needed")
	kindForbidden      = newKind("forbidden", http.StatusForbidden, "The token's role does not allow this")
	kindCrossSite      = newKind("cross-site", http.StatusForbidden, "Requests from other sites are refused")
	kindNotFound       = newKind("not-found", http.StatusNotFound, "There is no such thing")
	kindMethod         = newKind("method-not-allowed", http.StatusMethodNotAllowed, "This path does not take that method")
	kindTimeout        = newKind("request-timeout", http.StatusRequestTimeout, "The request came too slowly")
	kindRefused        = newKind("refused", http.StatusConflict, "Its state does not allow this")
	kindNotCharging    = newKind("not-charging", http.StatusConflict, "Nothing is charged at the moment")
	kindKeyRunning     = newKind("key-running", http.StatusConflict, "A request with this key is under way")
	kindTooLarge       = newKind("too-large", http.StatusRequestEntityTooLarge, "The request is too large")
	kindMediaType      = newKind("media-type", http.StatusUnsupportedMediaType, "The body is not JSON")
	kindInvalidFields  = newKind("invalid-fields", http.StatusUnprocessableEntity, "Some fields are wrong")
	kindCardNumber     = newKind("card-number", http.StatusUnprocessableEntity, "Card numbers are not taken")
	kindKeyReused      = newKind("key-reused", http.StatusUnprocessableEntity, "The key belongs to another request")
	kindTooMany        = newKind("too-many-requests", http.StatusTooManyRequests, "Too many requests")
	kindInternal       = newKind("internal", http.StatusInternalServerError, "Something went wrong on our side")
	kindDatabaseRole   = newKind("database-role", http.StatusInternalServerError, "The daemon may not do this")
	kindProvider       = newKind("provider", http.StatusBadGateway, "PayMongo did not do what it was asked for")
	kindUnavailable    = newKind("unavailable", http.StatusServiceUnavailable, "Not at the moment")
)

// newProblem makes a problem. The detail says what to do.
func newProblem(k kind, detail string, fields ...fieldProblem) *problem {
	return &problem{Type: problemURN(problemType + k.slug), Title: k.title, Status: k.status, Detail: detail, Errors: fields}
}

// invalid is a field that is wrong.
func invalid(location, message string) *problem {
	return newProblem(kindInvalidFields, fixFields, fieldProblem{location, message})
}

const (
	fixFields  = "Correct the fields under errors and send it again."
	askAgain   = "Ask again in a moment. A change with an Idempotency-Key can be repeated safely."
	nobodyHere = "Nothing has that id or name here. Check it, and that the token is of the right environment."
)

// located is an error about one field of the request.
type located struct {
	location string
	err      error
}

func (l *located) Error() string { return l.location + ": " + l.err.Error() }
func (l *located) Unwrap() error { return l.err }

// at says which field of the body an error is about: a customer that is not there
// is 404 in the path and a wrong field in the body.
func at(location string, err error) error {
	if err == nil {
		return nil
	}
	return &located{location, err}
}

// problemOf is the one place where errors become answers.
func problemOf(ctx context.Context, log *slog.Logger, err error) *problem {
	var known *problem
	var field *located
	var refused *billing.RefusedError
	var wrong *billing.FieldError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, billing.ErrNotFound):
		if errors.As(err, &field) {
			return invalid(field.location, "nothing has that id or name here")
		}
		return newProblem(kindNotFound, nobodyHere)
	case errors.As(err, &wrong):
		return invalid("body."+wrong.Field, wrong.Problem)
	case errors.As(err, &refused):
		p := newProblem(kindRefused, refused.Reason)
		p.Reason = string(refused.Kind)
		if errors.As(err, &field) {
			p.Errors = []fieldProblem{{field.location, refused.Reason}}
		}
		return p
	case errors.Is(err, billing.ErrFrozen), errors.Is(err, billing.ErrBreakerOpen), errors.Is(err, billing.ErrBlocked):
		return newProblem(kindNotCharging, "GET /v1/instance tells why. Nothing was changed; ask again when that is over.")
	case errors.Is(err, billing.ErrKeyReused):
		return newProblem(kindKeyReused, "This "+keyHeader+" was used for another method, path or body. Take a new one for a new request.")
	case errors.Is(err, billing.ErrKeyRunning):
		return newProblem(kindKeyRunning, "Ask again in a moment: you get its answer then.").again(1)
	case errors.As(err, &pg) && (pg.Code == "25006" || pg.Code == "42501"): // read-only, or without the right
		logFailure(ctx, log, "", err)
		return newProblem(kindDatabaseRole, "The daemon's database role may only bill. Whoever runs it sets SINGIL_API_DATABASE_URL to a member of singil_operator.")
	case errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01" || pg.Code == "55P03" || pg.Code == "57014"): // contention, or too slow
		logFailure(ctx, log, "", err)
		return newProblem(kindUnavailable, "The database was too busy, and nothing was changed. "+askAgain).again(1)
	case errors.Is(err, context.Canceled): // nobody reads this
		return newProblem(kindUnavailable, askAgain)
	case errors.Is(err, context.DeadlineExceeded):
		logFailure(ctx, log, "", err)
		return newProblem(kindUnavailable, "It took too long, and may have been done or not. "+askAgain).again(5)
	}
	// The log is told everything and the answer nothing.
	p := newProblem(kindInternal, "Nothing is known of what went wrong but to the log of the daemon, under this id. "+askAgain)
	p.ID = uuid.NewString()
	logFailure(ctx, log, p.ID, err)
	return p
}

func logFailure(ctx context.Context, log *slog.Logger, id string, err error) {
	r := requestOf(ctx)
	log.Error("api request failed", "id", id, "operation", r.op.id, "token", r.token.Name, "error", err)
}

// write answers with a problem.
func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range p.header {
		h[name] = values
	}
	h.Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who asked is gone: nothing to be done
}

// huma makes errors of its own when a request does not fit its schema. They are
// given our form here, for the whole process, before anything is registered.
func init() {
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return humaProblem(status, message, errs)
	}
	huma.NewErrorWithContext = func(_ huma.Context, status int, message string, errs ...error) huma.StatusError {
		return humaProblem(status, message, errs)
	}
	// Some messages end with the error of a parser, which quotes what it was given.
	format := huma.ErrorFormatter
	huma.ErrorFormatter = func(text string, args ...any) string {
		if short, found := strings.CutSuffix(text, ": %v"); found {
			return short
		}
		return format(text, args...)
	}
	huma.DefaultArrayNullable = false
}

func humaProblem(status int, message string, errs []error) *problem {
	kinds := map[int]kind{
		http.StatusBadRequest: kindInvalidRequest, http.StatusRequestTimeout: kindTimeout, http.StatusRequestEntityTooLarge: kindTooLarge,
		http.StatusUnsupportedMediaType: kindMediaType, http.StatusUnprocessableEntity: kindInvalidFields,
	}
	k, found := kinds[status]
	if !found {
		return newProblem(kindInternal, askAgain)
	}
	p := newProblem(k, fixFields)
	switch k {
	case kindInvalidRequest:
		p.Detail = "The body must be one JSON object, as /openapi.json describes it."
		return p
	case kindMediaType:
		p.Detail = "Send Content-Type: application/json."
		return p
	case kindTimeout, kindTooLarge:
		p.Detail = message
		return p
	}
	for _, err := range errs {
		var detail *huma.ErrorDetail
		if !errors.As(err, &detail) {
			continue
		}
		text, _, _ := strings.Cut(detail.Message, ": ") // what comes behind may be a parser's
		if detail.Location == "body" && text != "expected object" && !strings.HasPrefix(text, "expected required") {
			text = "does not fit the schema in /openapi.json"
		}
		p.Errors = append(p.Errors, fieldProblem{detail.Location, text})
	}
	return p
}
