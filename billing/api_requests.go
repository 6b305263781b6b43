package billing

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Executor is a pool or a transaction that a statement is run on.
type Executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// APIRequest is a change that somebody asked for with an Idempotency-Key.
type APIRequest struct {
	// ID stays the same however often the request is repeated: what the provider
	// is asked for on its behalf has this as its key.
	ID    uuid.UUID
	claim int
	// Status and Answer are what was answered before; 0: the caller is to do it now.
	Status int
	Answer string
}

// What keeps a request from being done.
var (
	ErrKeyReused  = errors.New("the key belongs to another request")
	ErrKeyRunning = errors.New("a request with this key is under way")
)

const sqlRequestClaim = `
INSERT INTO singil.api_requests AS r (id, token_id, key, request_hash, claimed_until)
VALUES ($1, $2, $3, $4, clock_timestamp() + $5::interval)
ON CONFLICT (token_id, key) DO UPDATE
SET claimed_until = excluded.claimed_until, claims = r.claims + 1
WHERE r.request_hash = excluded.request_hash AND r.status IS NULL
  AND (r.claimed_until IS NULL OR r.claimed_until < clock_timestamp())
RETURNING r.id, r.claims`

const sqlRequestFind = `
SELECT r.id, r.request_hash = $3, COALESCE(r.status, 0), COALESCE(r.answer, '')
FROM singil.api_requests r
WHERE r.token_id = $1 AND r.key = $2`

// ClaimRequest takes a key for a request, for at most the given time, or finds
// what was answered before. ErrKeyReused: it was used for another request.
// ErrKeyRunning: somebody is at it. The claim is durable on return: q is no
// transaction.
func ClaimRequest(ctx context.Context, q Querier, token uuid.UUID, key string, hash [sha256.Size]byte, lease time.Duration) (APIRequest, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return APIRequest{}, fmt.Errorf("claim a request: %w", err)
	}
	rows, err := q.Query(ctx, sqlRequestClaim, id, token, key, hash[:], lease)
	if err != nil {
		return APIRequest{}, fmt.Errorf("claim a request: %w", err)
	}
	var r APIRequest
	claimed, err := pgx.ForEachRow(rows, []any{&r.ID, &r.claim}, func() error { return nil })
	if err != nil {
		return APIRequest{}, fmt.Errorf("claim a request: %w", err)
	}
	if claimed.RowsAffected() == 1 {
		return r, nil
	}
	rows, err = q.Query(ctx, sqlRequestFind, token, key, hash[:])
	if err != nil {
		return APIRequest{}, fmt.Errorf("find a request: %w", err)
	}
	var same bool
	if _, err := pgx.ForEachRow(rows, []any{&r.ID, &same, &r.Status, &r.Answer}, func() error { return nil }); err != nil {
		return APIRequest{}, fmt.Errorf("find a request: %w", err)
	}
	switch {
	case r.ID != uuid.Nil && !same:
		return APIRequest{}, ErrKeyReused
	case r.Status == 0:
		return APIRequest{}, ErrKeyRunning
	}
	return r, nil
}

const sqlRequestAnswer = `
UPDATE singil.api_requests
SET status = $3, answer = $4, claimed_until = NULL
WHERE id = $1 AND claims = $2 AND status IS NULL`

// AnswerRequest stores the answer, in the transaction that makes the change if
// there is one. ErrKeyRunning: the claim ran out and somebody else took it; roll
// back.
func AnswerRequest(ctx context.Context, q Executor, r APIRequest, status int, answer string) error {
	tag, err := q.Exec(ctx, sqlRequestAnswer, r.ID, r.claim, status, answer)
	switch {
	case err != nil:
		return fmt.Errorf("store the answer: %w", err)
	case tag.RowsAffected() != 1:
		return ErrKeyRunning
	}
	return nil
}

const sqlRequestRelease = `
UPDATE singil.api_requests
SET claimed_until = NULL
WHERE id = $1 AND claims = $2 AND status IS NULL`

// ReleaseRequest gives a claim back: the request failed, and may be repeated at
// once. One that was answered stays as it is.
func ReleaseRequest(ctx context.Context, q Executor, r APIRequest) error {
	if _, err := q.Exec(ctx, sqlRequestRelease, r.ID, r.claim); err != nil {
		return fmt.Errorf("release a request: %w", err)
	}
	return nil
}
