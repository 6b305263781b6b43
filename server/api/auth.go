package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/singil/singil/billing"
)

const challenge = `Bearer realm="singil"`

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

// authenticate finds whose token it is. Whoever has the secret of one that is
// expired or revoked is told so: they are no forger.
func (a *api) authenticate(ctx context.Context, secret string) (billing.APIToken, error) {
	unauthorized := func(detail string) error {
		return newProblem(kindUnauthorized, detail).with("WWW-Authenticate", challenge+`, error="invalid_token"`)
	}
	const create = " Whoever runs the daemon makes one: singil tokens create."
	if secret == "" {
		return billing.APIToken{}, newProblem(kindUnauthorized, "Send Authorization: Bearer and a token, which begins with singil_."+create).
			with("WWW-Authenticate", challenge)
	}
	now := a.cfg.Now()
	token, err := billing.Authenticate(ctx, a.cfg.Pool, secret, now)
	switch {
	case errors.Is(err, billing.ErrTokenUnknown):
		return billing.APIToken{}, unauthorized("The token is not known here. Check that it is whole, and of this environment.")
	case errors.Is(err, billing.ErrTokenExpired):
		return billing.APIToken{}, unauthorized("The token has expired." + create)
	case errors.Is(err, billing.ErrTokenRevoked):
		return billing.APIToken{}, unauthorized("The token was revoked." + create)
	case err != nil:
		return billing.APIToken{}, err
	}
	return token, billing.TouchToken(ctx, a.cfg.Pool, token, now)
}
