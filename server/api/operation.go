package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/singil/singil/billing"
)

// operation is one route. Whatever is not a GET is a change: it may carry an
// Idempotency-Key, and its answer has a body, which is what is stored.
type operation struct {
	id      string // unique, in the document: pause-subscription
	method  string
	path    string // as http.ServeMux has it: /v1/subscriptions/{id}/pause
	tag     string // groups operations in the document: subscriptions
	summary string
	// description may say more: what has to be so before, and what is so after.
	description string
	role        billing.Role
	status      int // of success; 0: 200
	needsKey    bool
	// rerun is for an answer that must not lie in the database, such as one with a
	// client key: repeated with its key the operation runs again, under the same
	// requestID. It has to find by that what it did; it has no change.
	rerun bool
}

// route names the operation to http.ServeMux and in metrics; that of none is other.
func (op operation) route() string {
	if op.id == "" {
		return "other"
	}
	return op.method + " " + op.path
}

func (op operation) changes() bool { return op.method != http.MethodGet }

func (op operation) success() int {
	if op.status == 0 {
		return http.StatusOK
	}
	return op.status
}

// mustValidate panics at the start, with the name of what is missing.
func (op operation) mustValidate() {
	for name, wrong := range map[string]bool{
		"id": op.id == "", "method": op.method == "", "path": !strings.HasPrefix(op.path, "/v1/"), "tag": op.tag == "", "summary": op.summary == "",
		"role":     !op.role.May(billing.RoleViewer) || op.changes() && !op.role.May(billing.RoleOperator),
		"status":   op.success() < 200 || op.success() > 202,
		"needsKey": op.needsKey && !op.changes(),
		"rerun":    op.rerun && !op.changes(),
	} {
		if wrong {
			panic(fmt.Sprintf("api: operation %s %s: %s", op.method, op.path, name))
		}
	}
}

// output is how huma wants an answer.
type output[T any] struct {
	Body T
}

// register adds an operation. In has the parameters, as huma's tags say, and Body
// if there is one; Out is the body of the answer. What handle returns as an error
// goes through problemOf.
//
// A handler that changes something does so in change, and in step what comes
// before it.
func register[In, Out any](a *api, op operation, handle func(ctx context.Context, in *In) (*Out, error)) {
	op.mustValidate()
	a.operations[op.route()] = op
	huma.Register(a.huma, op.documented(), func(ctx context.Context, in *In) (*output[Out], error) {
		var out *Out
		err := a.once(ctx, func(ctx context.Context) (any, error) {
			var err error
			if out, err = handle(ctx, in); err == nil && out == nil {
				err = errNoAnswer
			}
			return out, err
		})
		var before *replayed
		switch {
		case errors.As(err, &before):
			return nil, before
		case err != nil:
			return nil, problemOf(ctx, a.cfg.Log, err)
		}
		return &output[Out]{Body: *out}, nil
	})
}

// documented is the operation as the document has it.
func (op operation) documented() huma.Operation {
	described := strings.TrimSpace(op.description + "\n\nNeeds the role " + string(op.role) + ".")
	o := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Tags: []string{op.tag}, Summary: op.summary, Description: described,
		DefaultStatus: op.success(), MaxBodyBytes: maxBody + 1,
		Security: []map[string][]string{{securityScheme: {}}},
		// A filter that is misspelt would find everything.
		RejectUnknownQueryParameters: true,
	}
	if op.changes() {
		length := maxKey
		means := "Repeated with it, the request is not made again: you get the answer of the first time."
		if op.rerun {
			means = "Repeated with it, nothing is made a second time: you get what there is of the first, as it is then."
		}
		o.Parameters = append(o.Parameters, &huma.Param{
			Name: keyHeader, In: "header", Required: op.needsKey,
			Description: "A name of yours for this request. " + means,
			Schema:      &huma.Schema{Type: huma.TypeString, MaxLength: &length, Pattern: "^[!-~]+$"},
		})
	}
	return o
}
