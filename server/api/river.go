package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"riverqueue.com/riverui"

	"github.com/singil/singil/billing"
)

// RiverPath is where River's page is mounted. Its links begin with it.
const RiverPath = "/river/"

// RiverConfig configures River's page. All of it is required.
type RiverConfig struct {
	// Pool finds the tokens.
	Pool *pgxpool.Pool
	// Jobs works nothing. Its connections are the page's own, and read-only: that
	// is the second lock, behind the methods.
	Jobs *river.Client[pgx.Tx]
	Now  func() time.Time // the real clock
	Log  *slog.Logger
}

// What River's page loads: its own scripts, what its messages style themselves
// with, its own pictures and those inside of its styles, and its own data.
const riverPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const riverChallenge = `Basic realm="singil: any name, and a token as the password", charset="UTF-8"`

// NewRiver makes the handler of RiverPath: River UI, for reading only, to whoever
// has the token of an operator. It runs nothing in the background: counts are
// taken when somebody looks. Jobs carry ids and nothing else, so that there is
// nothing in them to hide.
func NewRiver(cfg RiverConfig) (http.Handler, error) {
	if cfg.Pool == nil || cfg.Jobs == nil || cfg.Now == nil || cfg.Log == nil {
		panic("api: RiverConfig needs Pool, Jobs, Now and Log")
	}
	page, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: riverui.NewEndpoints(cfg.Jobs, nil), Logger: cfg.Log, Prefix: strings.TrimSuffix(RiverPath, "/"),
	})
	if err != nil {
		return nil, fmt.Errorf("make River's page: %w", err)
	}
	r := &riverPage{page: page, gate: gate{pool: cfg.Pool, now: cfg.Now}, cross: http.NewCrossOriginProtection(), log: cfg.Log}
	return r, nil
}

type riverPage struct {
	page  http.Handler
	gate  gate
	cross *http.CrossOriginProtection
	log   *slog.Logger
}

func (p *riverPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	h := w.Header()
	h.Set("Content-Security-Policy", riverPolicy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin") // a browser that has signed in asks for anybody
	if err := p.admit(r); err != nil {
		problemOf(ctx, p.log, err).write(w)
		return
	}
	r.Header.Del("Authorization") // the page has no use for it
	p.page.ServeHTTP(w, r)
}

// admit lets readers through who are operators. A browser cannot be told to send a
// bearer token, so the token may also be the password of Basic authentication.
func (p *riverPage) admit(r *http.Request) error {
	if err := p.cross.Check(r); err != nil {
		return newProblem(kindCrossSite, "Open this page by itself.")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return newProblem(kindMethod, "This page is for reading. Jobs are retried and cancelled with singil.").with("Allow", "GET, HEAD")
	}
	secret := bearer(r)
	if _, password, ok := r.BasicAuth(); ok {
		secret = password
	}
	token, err := p.gate.admit(r.Context(), secret, riverChallenge)
	if err != nil {
		return err
	}
	if !token.Role.May(billing.RoleOperator) {
		return newProblem(kindForbidden, "This page needs the role operator. Whoever runs the daemon makes a token: singil tokens create.")
	}
	return nil
}
