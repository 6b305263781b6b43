package api

import (
	"cmp"
	"context"
	"errors"
	"math"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/worker"
)

// What the flows with the customer present have in common. They are several
// transactions with calls of the provider in between; each of them can be done
// again, and a request that is repeated does so.

func (a *api) onSession() worker.OnSession {
	return worker.NewOnSession(worker.OnSession{
		Pool: a.cfg.Pool, Gateway: a.cfg.Gateway, Environment: a.cfg.Environment, Livemode: a.cfg.Livemode, Now: a.cfg.Now, Log: a.cfg.Log,
	})
}

// act is who asks, for flows that have transactions of their own.
func (a *api) act(ctx context.Context, reason string) (billing.Act, error) {
	now, err := a.businessNow(ctx, a.cfg.Pool)
	r := requestOf(ctx)
	return billing.Act{Actor: "api:" + r.token.Name, Reason: cmp.Or(reason, r.op.id), Now: now}, err
}

// asked makes a problem of what the provider, or an attempt on its way, has kept
// from being done.
func (a *api) asked(err error) error {
	var e *worker.GatewayError
	switch {
	case errors.Is(err, billing.ErrInFlight), errors.Is(err, billing.ErrPayMoved):
		return newProblem(kindUnavailable, "An attempt on this invoice is on its way. "+askAgain).again(5)
	case errors.Is(err, billing.ErrOtherMode):
		return newProblem(kindProvider, "PayMongo answers with live money where a test was asked for, or the other way round. Check the daemon's key.")
	case !errors.As(err, &e):
		return err
	case e.Fault:
		return newProblem(kindProvider, "PayMongo does not let this account, or its key, do that. Whoever runs the daemon finds out why: singil doctor.")
	case e.Refused:
		return newProblem(kindProvider, "PayMongo refuses it as it is. Check what was sent; the log of the daemon has its words.")
	}
	p := newProblem(kindProvider, "PayMongo's answer is missing, and what it has done is not known. Repeat it with the same "+keyHeader+": nothing is made twice.")
	if wait := e.RetryAt.Sub(a.cfg.Now()); wait > 0 {
		return p.again(int(math.Ceil(wait.Seconds())))
	}
	return p.again(5)
}

// told is asked, with the error in the log: the answer has nothing of it.
func (a *api) told(ctx context.Context, err error) error {
	said := a.asked(err)
	var p *problem
	if errors.As(said, &p) && p.Status == kindProvider.status {
		logFailure(ctx, a.cfg.Log, "", err)
	}
	return said
}

// Reasoned is the reason that a change carries.
type Reasoned struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit log."`
}

// text of a body that may be left out.
func (w *Reasoned) text() string {
	if w == nil {
		return ""
	}
	return w.Reason
}

// Payer names a customer.
type Payer struct {
	Customer string `path:"customer" minLength:"1" maxLength:"200" doc:"Your name for the customer, our id, or PayMongo's."`
}
