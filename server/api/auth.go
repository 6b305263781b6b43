package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
)

const bearerChallenge = `Bearer realm="singil"`

// bearer is the token that a request carries, or nothing.
func bearer(r *http.Request) string {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// gate finds whose token it is, and how often they came.
type gate struct {
	pool  *pgxpool.Pool
	now   func() time.Time
	rates rates
}

// admit finds the token of a secret, and spends one of its requests. Whoever has
// the secret of one that is expired or revoked is told so: they are no forger.
// challenge says how to sign in.
func (g *gate) admit(ctx context.Context, secret, challenge string) (billing.APIToken, error) {
	const create = " Whoever runs the daemon makes one: singil tokens create."
	unauthorized := func(detail, more string) error {
		return newProblem(kindUnauthorized, detail).with("WWW-Authenticate", challenge+more)
	}
	if secret == "" {
		return billing.APIToken{}, unauthorized("Send Authorization: Bearer and a token, which begins with singil_."+create, "")
	}
	const wrong = `, error="invalid_token"`
	now := g.now()
	token, err := billing.Authenticate(ctx, g.pool, secret, now)
	switch {
	case errors.Is(err, billing.ErrTokenUnknown):
		return billing.APIToken{}, unauthorized("The token is not known here. Check that it is whole, and of this environment.", wrong)
	case errors.Is(err, billing.ErrTokenExpired):
		return billing.APIToken{}, unauthorized("The token has expired."+create, wrong)
	case errors.Is(err, billing.ErrTokenRevoked):
		return billing.APIToken{}, unauthorized("The token was revoked."+create, wrong)
	case err != nil:
		return billing.APIToken{}, err
	}
	if err := g.rates.take(token.ID, now); err != nil {
		return billing.APIToken{}, err
	}
	return token, billing.TouchToken(ctx, g.pool, token, now)
}
