package billing

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// MaxEndpoints bounds what one event may be sent to.
const MaxEndpoints = 20

// Endpoint is a URL of the merchant that wants to know what happened.
type Endpoint struct {
	ID        uuid.UUID `json:"id"`
	URL       string    `json:"url"`
	Enabled   bool      `json:"enabled"`
	CreatedAt time.Time `json:"created_at"`
	Pending   int64     `json:"pending"` // events it has not acknowledged
	Parked    int64     `json:"parked"`  // streams that wait for a human
	Secret    string    `json:"-"`       // whsec_ and the key in base64
}

// Errors about endpoints.
var (
	ErrBadEndpoint     = errors.New("not an endpoint")
	ErrTooManyEndpoint = fmt.Errorf("there are %d endpoints already", MaxEndpoints)
	ErrNoEndpoint      = errors.New("no such endpoint")
)

// EndpointKey reads the key in a Standard Webhooks secret.
func EndpointKey(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, fmt.Errorf("%w: the secret must be whsec_ and 24 to 64 bytes in base64", ErrBadEndpoint)
	}
	return key, nil
}

const sqlAddEndpoint = `
INSERT INTO singil.endpoints (id, url, secret)
SELECT $1, $2, $3
WHERE (SELECT count(*) FROM singil.endpoints) < $4
RETURNING created_at`

// AddEndpoint adds a URL, to which events are delivered that are written from
// now on. An empty secret makes a new one; it is in the result, to be shown once.
func AddEndpoint(ctx context.Context, tx pgx.Tx, address, secret string) (Endpoint, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(address) > 2000 {
		return Endpoint{}, fmt.Errorf("%w: the URL must be http:// or https://, without user, password and fragment", ErrBadEndpoint)
	}
	if secret == "" {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		secret = "whsec_" + base64.StdEncoding.EncodeToString(key)
	}
	if _, err := EndpointKey(secret); err != nil {
		return Endpoint{}, err
	}
	e := Endpoint{ID: newID(), URL: address, Secret: secret, Enabled: true}
	err = tx.QueryRow(ctx, sqlAddEndpoint, e.ID, e.URL, e.Secret, MaxEndpoints).Scan(&e.CreatedAt)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Endpoint{}, ErrTooManyEndpoint
	case err != nil:
		return Endpoint{}, fmt.Errorf("add endpoint: %w", err)
	}
	return e, nil
}

const sqlEnableEndpoint = `
UPDATE singil.endpoints SET enabled = $2 WHERE id = $1`

// EnableEndpoint turns an endpoint on or off. Events that are written while it is
// off do not come later by themselves: see Replay. What was pending stays.
func EnableEndpoint(ctx context.Context, tx pgx.Tx, id uuid.UUID, enabled bool) error {
	tag, err := tx.Exec(ctx, sqlEnableEndpoint, id, enabled)
	switch {
	case err != nil:
		return fmt.Errorf("enable endpoint %s: %w", id, err)
	case tag.RowsAffected() == 0:
		return fmt.Errorf("enable endpoint %s: %w", id, ErrNoEndpoint)
	}
	return nil
}

const sqlListEndpoints = `
SELECT e.id, e.url, '', e.enabled, e.created_at,
       (SELECT count(*) FROM singil.event_deliveries d WHERE d.endpoint_id = e.id),
       (SELECT count(*) FROM singil.event_streams s WHERE s.endpoint_id = e.id AND s.parked_at IS NOT NULL)
FROM singil.endpoints e
ORDER BY e.created_at, e.id`

// ListEndpoints shows all endpoints with what they still have to get, and without
// their secrets: who may only read sees it too.
func ListEndpoints(ctx context.Context, q Querier) ([]Endpoint, error) {
	return endpoints(ctx, q, sqlListEndpoints)
}

const sqlEnabledEndpoints = `
SELECT id, url, secret, enabled, created_at, 0::bigint, 0::bigint
FROM singil.endpoints
WHERE enabled
ORDER BY created_at, id`

// EnabledEndpoints are those to deliver to, without the counts.
func EnabledEndpoints(ctx context.Context, q Querier) ([]Endpoint, error) {
	return endpoints(ctx, q, sqlEnabledEndpoints)
}

func endpoints(ctx context.Context, q Querier, sql string) ([]Endpoint, error) {
	rows, err := q.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Endpoint, err error) {
		err = row.Scan(&e.ID, &e.URL, &e.Secret, &e.Enabled, &e.CreatedAt, &e.Pending, &e.Parked)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return list, nil
}

// Written is an event as it is on record.
type Written struct {
	Seq        int64
	ID         uuid.UUID
	Type       string
	Data       []byte // JSON
	OccurredAt time.Time
	WrittenAt  time.Time
}

const sqlListEvents = `
SELECT seq, id, type, data::text, occurred_at, written_at
FROM singil.events
WHERE seq > $1 AND ($3 = '' OR type = $3)
ORDER BY seq
LIMIT $2`

// ListEvents shows at most limit events behind a number, in the order of writing.
// An empty type is all types. A transaction that is still open may put an event
// in front of the last one shown.
func ListEvents(ctx context.Context, q Querier, since int64, limit int, kind string) ([]Written, error) {
	return written(ctx, q, sqlListEvents, since, limit, kind)
}

func written(ctx context.Context, q Querier, sql string, args ...any) ([]Written, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w Written, err error) {
		var data string
		err = row.Scan(&w.Seq, &w.ID, &w.Type, &data, &w.OccurredAt, &w.WrittenAt)
		w.Data = []byte(data)
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return list, nil
}

const sqlReplayStreams = `
INSERT INTO singil.event_streams AS s (endpoint_id, stream, next_try_at)
SELECT DISTINCT $1::uuid, COALESCE(e.subscription_id, e.customer_id, '00000000-0000-0000-0000-000000000000'), $5::timestamptz
FROM singil.events e
WHERE e.seq BETWEEN $2 AND $3 AND ($4 = '' OR e.type = $4)
ORDER BY 2
ON CONFLICT (endpoint_id, stream) DO UPDATE
SET next_try_at = CASE WHEN s.parked_at IS NULL THEN COALESCE(s.next_try_at, excluded.next_try_at) END`

const sqlReplay = `
INSERT INTO singil.event_deliveries (endpoint_id, stream, seq)
SELECT $1, COALESCE(e.subscription_id, e.customer_id, '00000000-0000-0000-0000-000000000000'), e.seq
FROM singil.events e
WHERE e.seq BETWEEN $2 AND $3 AND ($4 = '' OR e.type = $4)
ON CONFLICT DO NOTHING`

// Replay delivers events again that have a number from first to last, oldest
// first and before what is pending. What is pending anyway stays so. It tells
// how many come again. A parked stream stays parked: see ResumeStreams.
func Replay(ctx context.Context, tx pgx.Tx, endpoint uuid.UUID, first, last int64, kind string, now time.Time) (int64, error) {
	if _, err := tx.Exec(ctx, sqlReplayStreams, endpoint, first, last, kind, now); err != nil {
		return 0, fmt.Errorf("replay events %d to %d: %w", first, last, err)
	}
	tag, err := tx.Exec(ctx, sqlReplay, endpoint, first, last, kind)
	if err != nil {
		return 0, fmt.Errorf("replay events %d to %d: %w", first, last, err)
	}
	return tag.RowsAffected(), nil
}

const sqlResumeStreams = `
UPDATE singil.event_streams
SET parked_at = NULL, failing_since = NULL, tries = 0, next_try_at = $2
WHERE endpoint_id = $1 AND (parked_at IS NOT NULL OR tries > 0)`

// ResumeStreams tries again at once what is parked or waits after failures: the
// merchant has mended the endpoint. It tells how many streams.
func ResumeStreams(ctx context.Context, tx pgx.Tx, endpoint uuid.UUID, now time.Time) (int64, error) {
	tag, err := tx.Exec(ctx, sqlResumeStreams, endpoint, now)
	if err != nil {
		return 0, fmt.Errorf("resume the streams of endpoint %s: %w", endpoint, err)
	}
	return tag.RowsAffected(), nil
}

// Stream is what one daemon delivers of one subscription to one endpoint, as
// long as it holds the lease.
type Stream struct {
	EndpointID   uuid.UUID
	Key          uuid.UUID // of the subscription, else of the customer, else zero
	Lease        uuid.UUID
	Tries        int
	FailingSince time.Time // zero: it does not fail
}

// ErrLeaseLost is of a stream that another daemon has taken over meanwhile.
var ErrLeaseLost = errors.New("the lease of the stream is lost")

const sqlClaimStreams = `
UPDATE singil.event_streams s
SET next_try_at = $3, lease = $4
FROM (
  SELECT endpoint_id, stream FROM singil.event_streams
  WHERE endpoint_id = $1 AND next_try_at <= $2
  ORDER BY next_try_at
  LIMIT $5
  FOR UPDATE SKIP LOCKED
) due
WHERE s.endpoint_id = due.endpoint_id AND s.stream = due.stream
RETURNING s.stream, s.tries, s.failing_since`

// ClaimStreams takes streams that have something to deliver. They are this
// daemon's until the lease is over, or until FinishStream or FailStream.
func ClaimStreams(ctx context.Context, tx pgx.Tx, endpoint uuid.UUID, now, leaseEnd time.Time, limit int) ([]Stream, error) {
	lease := newID()
	rows, err := tx.Query(ctx, sqlClaimStreams, endpoint, now, leaseEnd, lease, limit)
	if err != nil {
		return nil, fmt.Errorf("claim event streams: %w", err)
	}
	streams, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Stream, error) {
		s := Stream{EndpointID: endpoint, Lease: lease}
		var failing *time.Time
		err := row.Scan(&s.Key, &s.Tries, &failing)
		s.FailingSince = orZero(failing)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("claim event streams: %w", err)
	}
	return streams, nil
}

const sqlPendingEvents = `
SELECT e.seq, e.id, e.type, e.data::text, e.occurred_at, e.written_at
FROM singil.event_deliveries d
JOIN singil.events e ON e.seq = d.seq
WHERE d.endpoint_id = $1 AND d.stream = $2
ORDER BY d.seq
LIMIT $3`

// PendingEvents are the next events of a stream, in order.
func PendingEvents(ctx context.Context, q Querier, s Stream, limit int) ([]Written, error) {
	return written(ctx, q, sqlPendingEvents, s.EndpointID, s.Key, limit)
}

const sqlRenewStream = `
UPDATE singil.event_streams
SET next_try_at = $4, tries = 0, failing_since = NULL, last_error = NULL
WHERE endpoint_id = $1 AND stream = $2 AND lease = $3`

const sqlDelivered = `
DELETE FROM singil.event_deliveries WHERE endpoint_id = $1 AND stream = $2 AND seq = $3`

// Delivered notes that the endpoint has acknowledged an event, and renews the lease.
func Delivered(ctx context.Context, tx pgx.Tx, s Stream, seq int64, leaseEnd time.Time) error {
	tag, err := tx.Exec(ctx, sqlRenewStream, s.EndpointID, s.Key, s.Lease, leaseEnd)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrLeaseLost
	}
	if err == nil {
		_, err = tx.Exec(ctx, sqlDelivered, s.EndpointID, s.Key, seq)
	}
	if err != nil {
		return fmt.Errorf("note event %d as delivered: %w", seq, err)
	}
	return nil
}

const sqlLockStream = `
SELECT FROM singil.event_streams
WHERE endpoint_id = $1 AND stream = $2 AND lease = $3
FOR UPDATE`

// A statement of its own, behind the lock: an event that was written while we
// waited for it must be seen, or nobody would ever wake the stream.
const sqlFinishStream = `
UPDATE singil.event_streams s
SET lease = NULL,
    next_try_at = CASE WHEN EXISTS (SELECT FROM singil.event_deliveries d WHERE d.endpoint_id = s.endpoint_id AND d.stream = s.stream)
                       THEN $3::timestamptz END
WHERE s.endpoint_id = $1 AND s.stream = $2`

// FinishStream gives a stream back. What is pending meanwhile is due at once.
func FinishStream(ctx context.Context, tx pgx.Tx, s Stream, now time.Time) error {
	tag, err := tx.Exec(ctx, sqlLockStream, s.EndpointID, s.Key, s.Lease)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrLeaseLost
	}
	if err == nil {
		_, err = tx.Exec(ctx, sqlFinishStream, s.EndpointID, s.Key, now)
	}
	if err != nil {
		return fmt.Errorf("finish stream %s: %w", s.Key, err)
	}
	return nil
}

const sqlFailStream = `
UPDATE singil.event_streams
SET lease = NULL, tries = tries + 1, failing_since = COALESCE(failing_since, $5), last_error = $6,
    next_try_at = $4, parked_at = CASE WHEN $4::timestamptz IS NULL THEN $5::timestamptz END
WHERE endpoint_id = $1 AND stream = $2 AND lease = $3`

// FailStream gives a stream back after a delivery that was not acknowledged. It
// waits until nextTry, and the other streams do not. Zero parks it: it waits for
// ResumeStreams.
func FailStream(ctx context.Context, tx pgx.Tx, s Stream, reason string, now, nextTry time.Time) error {
	var next *time.Time
	if !nextTry.IsZero() {
		next = &nextTry
	}
	tag, err := tx.Exec(ctx, sqlFailStream, s.EndpointID, s.Key, s.Lease, next, now, reason)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("fail stream %s: %w", s.Key, err)
	}
	return nil
}

// Backlog is what the outbox has not delivered yet.
type Backlog struct {
	OldestWrittenAt time.Time // zero: nothing is pending
	Parked          int64
}

const sqlBacklog = `
SELECT (SELECT min(ev.written_at)
        FROM singil.endpoints e
        JOIN LATERAL (SELECT d.seq FROM singil.event_deliveries d WHERE d.endpoint_id = e.id ORDER BY d.seq LIMIT 1) first ON true
        JOIN singil.events ev ON ev.seq = first.seq
        WHERE e.enabled),
       (SELECT count(*) FROM singil.event_streams s JOIN singil.endpoints e ON e.id = s.endpoint_id WHERE e.enabled AND s.parked_at IS NOT NULL)`

// LookBacklog costs one index look an endpoint.
func LookBacklog(ctx context.Context, q Querier) (Backlog, error) {
	rows, err := q.Query(ctx, sqlBacklog)
	if err != nil {
		return Backlog{}, fmt.Errorf("look at the outbox: %w", err)
	}
	b, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (b Backlog, err error) {
		var oldest *time.Time
		err = row.Scan(&oldest, &b.Parked)
		b.OldestWrittenAt = orZero(oldest)
		return b, err
	})
	if err != nil {
		return Backlog{}, fmt.Errorf("look at the outbox: %w", err)
	}
	return b, nil
}
