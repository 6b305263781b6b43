package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/singil/singil/billing"
)

func TestProblems(t *testing.T) {
	t.Parallel()
	gone := fmt.Errorf("customer %q: %w", "hunter2", billing.ErrNotFound)
	for name, tt := range map[string]struct {
		err  error
		kind kind
		says string
		logs bool
	}{
		"breaker":          {fmt.Errorf("retry: %w", billing.ErrBreakerOpen), kindNotCharging, "/v1/instance", false},
		"field":            {&billing.FieldError{Field: "dunning.offsets_days[2]", Problem: "is too long"}, kindInvalidFields, "body.dunning.offsets_days[2]", false},
		"frozen":           {fmt.Errorf("retry: %w", billing.ErrFrozen), kindNotCharging, "/v1/instance", false},
		"missing":          {gone, kindNotFound, "Check it", false},
		"missing in body":  {at("body.customer", gone), kindInvalidFields, "body.customer", false},
		"our own":          {fmt.Errorf("x: %w", newProblem(kindProvider, "It was away.")), kindProvider, "away", false},
		"refused":          {fmt.Errorf("x: %w", &billing.RefusedError{Reason: "it is paused"}), kindRefused, "it is paused", false},
		"refused for body": {at("body.plan", &billing.RefusedError{Reason: "it is in USD"}), kindRefused, "body.plan", false},
		"refused retry":    {&billing.RefusedError{Reason: "it waits", Kind: billing.RefusalInFlight}, kindRefused, `"reason":"in_flight"`, false},
		"right":            {fmt.Errorf("hunter2: %w", &pgconn.PgError{Code: "42501"}), kindDatabaseRole, "SINGIL_API_DATABASE_URL", true},
		"deadlock":         {fmt.Errorf("hunter2: %w", &pgconn.PgError{Code: "40P01"}), kindUnavailable, "busy", true},
		"unforeseen":       {errors.New("hunter2"), kindInternal, "log", true},
		"went away":        {context.Canceled, kindUnavailable, "", false},
		"constraint":       {&pgconn.PgError{Code: "23505", Message: "hunter2"}, kindInternal, "log", true},
	} {
		log := &lines{}
		p := problemOf(t.Context(), slog.New(slog.NewJSONHandler(log, nil)), tt.err)
		body, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if p.Type != problemURN(problemType+tt.kind.slug) || p.Status != tt.kind.status || !strings.Contains(string(body), tt.says) || p.Detail == "" {
			t.Errorf("%s: %s", name, body)
		}
		if strings.Contains(string(body), "hunter2") {
			t.Errorf("%s: the answer tells too much: %s", name, body)
		}
		if logged := log.String() != ""; logged != tt.logs || p.ID != "" && !strings.Contains(log.String(), p.ID) {
			t.Errorf("%s: the log has %q", name, log)
		}
	}
	if at("body.plan", nil) != nil {
		t.Error("no error became one")
	}
	slugs := map[string]bool{}
	for _, k := range kinds {
		if slugs[k.slug] || k.status < 400 || k.title == "" {
			t.Errorf("%+v", k)
		}
		slugs[k.slug] = true
	}
}
