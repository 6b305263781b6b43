package billing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Role is what the bearer of an API token may do. Each may do what the one before
// may.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // read
	RoleOperator Role = "operator" // and change what belongs to a customer
	RoleAdmin    Role = "admin"    // and everything else
)

// Roles are all of them, the least first.
func Roles() []Role { return []Role{RoleViewer, RoleOperator, RoleAdmin} }

// May tells whether this role includes another. One that is not known includes
// nothing, and nothing includes it.
func (r Role) May(needed Role) bool {
	rank := map[Role]int{RoleViewer: 1, RoleOperator: 2, RoleAdmin: 3}
	return rank[r] > 0 && rank[needed] > 0 && rank[r] >= rank[needed]
}

// APIToken is who may call the HTTP API. The secret is not in it.
type APIToken struct {
	ID         uuid.UUID `json:"id"`
	Name       string    `json:"name"`
	Role       Role      `json:"role"`
	CreatedAt  Stamp     `json:"created_at"`
	ExpiresAt  Stamp     `json:"expires_at"`
	RevokedAt  Stamp     `json:"revoked_at"`
	LastUsedAt Stamp     `json:"last_used_at"` // to the minute
}

// Why a token does not open anything.
var (
	ErrTokenUnknown = errors.New("the token is not known here")
	ErrTokenExpired = errors.New("the token has expired")
	ErrTokenRevoked = errors.New("the token was revoked")
)

const (
	tokenPrefix = "singil_"
	tokenBytes  = 32

	// tokenTouch is how exactly the last use is known.
	tokenTouch = time.Minute
)

var tokenName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

const sqlTokenCreate = `
INSERT INTO singil.api_tokens (id, name, role, hash, expires_at)
VALUES ($1, $2, $3, $4, $5)
RETURNING created_at`

// CreateToken makes a token and returns its secret, which nothing can show again.
// A zero expiry is none. A name that is in use is refused: the audit log tells
// tokens apart by it.
func CreateToken(ctx context.Context, tx pgx.Tx, name string, role Role, expiresAt time.Time, act Act) (token APIToken, secret string, err error) {
	switch {
	case !tokenName.MatchString(name):
		return APIToken{}, "", refused("%q is no name for a token: it takes small letters, digits, dots, dashes and underscores, at most 63", clip(name))
	case !role.May(RoleViewer):
		return APIToken{}, "", refused("%q is no role: it is viewer, operator or admin", clip(string(role)))
	}
	bits := make([]byte, tokenBytes)
	if _, err := rand.Read(bits); err != nil {
		return APIToken{}, "", fmt.Errorf("create token %s: %w", name, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return APIToken{}, "", fmt.Errorf("create token %s: %w", name, err)
	}
	secret = tokenPrefix + base64.RawURLEncoding.EncodeToString(bits)
	token = APIToken{ID: id, Name: name, Role: role}
	var expires *time.Time
	if !expiresAt.IsZero() {
		utc := expiresAt.UTC()
		expires, token.ExpiresAt.Time = &utc, utc
	}
	err = tx.QueryRow(ctx, sqlTokenCreate, id, name, role, hashToken(secret), expires).Scan(&token.CreatedAt)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.ConstraintName == "api_tokens_one_of_a_name":
		return APIToken{}, "", refused("there is a token %s; revoke it first, or take another name", name)
	case err != nil:
		return APIToken{}, "", fmt.Errorf("create token %s: %w", name, err)
	}
	after := fields{"role": role}
	if expires != nil {
		after["expires_at"] = *expires
	}
	return token, secret, Audit(ctx, tx, AuditEntry{Actor: act.Actor, Action: "create_token", Subject: name, Reason: act.Reason, After: after})
}

// hashToken is what is stored of a secret. It has 256 random bits: a slow hash
// would protect nothing more.
func hashToken(secret string) []byte {
	hash := sha256.Sum256([]byte(secret))
	return hash[:]
}

const sqlTokenColumns = `
SELECT t.id, t.name, t.role, t.created_at, t.expires_at, t.revoked_at, t.last_used_at
FROM singil.api_tokens t`

const sqlTokenFind = sqlTokenColumns + `
WHERE t.hash = $1`

// Authenticate finds whose token a secret is: ErrTokenUnknown, ErrTokenExpired or
// ErrTokenRevoked if it opens nothing at now, by the real clock. It looks the hash
// up, so that how long it takes tells nothing about any secret.
func Authenticate(ctx context.Context, q Querier, secret string, now time.Time) (APIToken, error) {
	if len(secret) != len(tokenPrefix)+base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return APIToken{}, ErrTokenUnknown
	}
	rows, err := q.Query(ctx, sqlTokenFind, hashToken(secret))
	if err != nil {
		return APIToken{}, fmt.Errorf("find the token: %w", err)
	}
	token, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[APIToken])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return APIToken{}, ErrTokenUnknown
	case err != nil:
		return APIToken{}, fmt.Errorf("find the token: %w", err)
	case !token.RevokedAt.IsZero():
		return token, ErrTokenRevoked
	case !token.ExpiresAt.IsZero() && !now.Before(token.ExpiresAt.Time):
		return token, ErrTokenExpired
	}
	return token, nil
}

const sqlTokenTouch = `
UPDATE singil.api_tokens SET last_used_at = $2
WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $2::timestamptz - $3::interval)`

// TouchToken notes that a token was used at now, by the real clock, at most once a
// minute.
func TouchToken(ctx context.Context, q Executor, token APIToken, now time.Time) error {
	if now.Sub(token.LastUsedAt.Time) < tokenTouch {
		return nil
	}
	if _, err := q.Exec(ctx, sqlTokenTouch, token.ID, now, tokenTouch); err != nil {
		return fmt.Errorf("note the use of token %s: %w", token.Name, err)
	}
	return nil
}

const sqlTokens = sqlTokenColumns + `
ORDER BY t.revoked_at IS NOT NULL, t.name, t.id`

// ListTokens are all tokens, those that were revoked last.
func ListTokens(ctx context.Context, q Querier) ([]APIToken, error) {
	return browse[APIToken](ctx, q, "tokens", sqlTokens)
}

const sqlTokenRevoke = `
UPDATE singil.api_tokens SET revoked_at = clock_timestamp()
WHERE name = $1 AND revoked_at IS NULL`

// RevokeToken closes a token for good, from the moment tx commits; ErrNotFound if
// no token of that name is open.
func RevokeToken(ctx context.Context, tx pgx.Tx, name string, act Act) error {
	if !tokenName.MatchString(name) {
		return fmt.Errorf("token %q: %w", clip(name), ErrNotFound)
	}
	tag, err := tx.Exec(ctx, sqlTokenRevoke, name)
	switch {
	case err != nil:
		return fmt.Errorf("revoke token %s: %w", name, err)
	case tag.RowsAffected() == 0:
		return fmt.Errorf("token %q: %w", name, ErrNotFound)
	}
	return Audit(ctx, tx, AuditEntry{Actor: act.Actor, Action: "revoke_token", Subject: name, Reason: act.Reason})
}
