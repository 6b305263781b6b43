package api

import (
	"context"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// A trial is a change of a test's own: it leaves an entry in the audit log, and
// does in between what the test tells it.
type trial struct {
	ID   string `path:"id" maxLength:"40"`
	Body struct {
		Amount int64    `json:"amount_minor" minimum:"1" maximum:"100000000"`
		Reason string   `json:"reason,omitempty" maxLength:"200"`
		Email  string   `json:"email,omitempty" format:"email"`
		Kind   string   `json:"kind,omitempty" enum:"one,two"`
		Tags   []string `json:"tags,omitempty"`
		More   any      `json:"more,omitempty"`
	}
}

type tried struct {
	Request uuid.UUID `json:"request"`
	Amount  int64     `json:"amount_minor"`
	Reason  string    `json:"reason"`
}

const trialPath = "/v1/trials/one"

// addTrial registers it at the plant's API. before runs in the handler, within in
// the transaction of the change.
func (p *plant) addTrial(needsKey bool, before func(ctx context.Context) error, within func(ctx context.Context, tx pgx.Tx) error) {
	register(p.api, operation{
		id: "make-trial", method: http.MethodPost, path: "/v1/trials/{id}", tag: "trials", role: billing.RoleOperator,
		summary: "Make a trial", status: http.StatusCreated, needsKey: needsKey,
	}, func(ctx context.Context, in *trial) (*tried, error) {
		if before != nil {
			if err := before(ctx); err != nil {
				return nil, err
			}
		}
		return change(ctx, p.api, in.Body.Reason, func(tx pgx.Tx, act billing.Act) (*tried, error) {
			err := billing.Audit(ctx, tx, billing.AuditEntry{Actor: act.Actor, Action: "freeze", Subject: in.ID, Reason: act.Reason})
			if err == nil && within != nil {
				err = within(ctx, tx)
			}
			return &tried{requestID(ctx), in.Body.Amount, in.Body.Reason}, err
		})
	})
}

// trials is how often a trial was made.
const trials = `SELECT count(*) FROM singil.audit_log WHERE action = 'freeze'`
