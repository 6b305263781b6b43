package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Environment is where this installation runs.
type Environment string

// The environments. Live money moves in production only.
const (
	EnvironmentDev        Environment = "dev"
	EnvironmentStaging    Environment = "staging"
	EnvironmentProduction Environment = "production"
)

// Instance is what binds a database to one installation.
type Instance struct {
	Environment  Environment
	Livemode     bool
	Frozen       bool
	FrozenReason string
	// VirtualNow is the virtual clock, which stands still until it is moved;
	// zero: real time. Never with livemode.
	VirtualNow time.Time

	BlockedUntil  time.Time // a 429 that one daemon saw and all respect
	BreakerOpen   bool
	BreakerReason string
}

// Now is the business time: the virtual clock's if there is one.
func (i Instance) Now(realNow time.Time) time.Time {
	if i.VirtualNow.IsZero() {
		return realNow
	}
	return i.VirtualNow
}

// MayCharge tells why nothing may be charged at the moment, or nothing.
func (i Instance) MayCharge(realNow time.Time) error {
	switch {
	case i.Frozen:
		return fmt.Errorf("%w: %s", ErrFrozen, i.FrozenReason)
	case i.BreakerOpen:
		return fmt.Errorf("%w: %s", ErrBreakerOpen, i.BreakerReason)
	case realNow.Before(i.BlockedUntil):
		return fmt.Errorf("%w until %s", ErrBlocked, i.BlockedUntil.UTC().Format(time.RFC3339))
	}
	return nil
}

// What keeps this installation from charging.
var (
	ErrFrozen      = errors.New("frozen")
	ErrBreakerOpen = errors.New("the breaker is open")
	ErrBlocked     = errors.New("the provider has blocked us")
)

// Wrong bindings. The daemon refuses to start on them.
var (
	ErrOtherInstallation = errors.New("this database belongs to another installation")
	ErrOtherCluster      = errors.New("this is not the database that was bound: restored, failed over, or copied")
)

const sqlLoadInstance = `
SELECT i.environment, i.livemode, i.frozen, COALESCE(i.frozen_reason, ''), i.virtual_now,
       p.blocked_until, p.breaker_open, COALESCE(p.breaker_reason, '')
FROM singil.instance i CROSS JOIN singil.provider_state p`

// LoadInstance reads the instance row. pgx.ErrNoRows means that nothing was
// bound yet.
func LoadInstance(ctx context.Context, q Querier) (Instance, error) {
	rows, err := q.Query(ctx, sqlLoadInstance)
	if err != nil {
		return Instance{}, fmt.Errorf("load instance: %w", err)
	}
	i, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Instance, error) {
		var i Instance
		var virtual, blocked *time.Time
		err := row.Scan(&i.Environment, &i.Livemode, &i.Frozen, &i.FrozenReason, &virtual, &blocked, &i.BreakerOpen, &i.BreakerReason)
		if virtual != nil {
			i.VirtualNow = *virtual
		}
		if blocked != nil {
			i.BlockedUntil = *blocked
		}
		return i, err
	})
	if err != nil {
		return Instance{}, fmt.Errorf("load instance: %w", err)
	}
	return i, nil
}

const sqlBind = `
INSERT INTO singil.instance (environment, livemode, system_identifier, timeline_id)
SELECT $1, $2::boolean, system_identifier, timeline_id FROM (` + sqlCluster + `) AS cluster
ON CONFLICT (only_row) DO NOTHING`

const sqlBound = `
SELECT environment, livemode
FROM singil.instance`

// Bind binds a new database to this installation, and checks a bound one.
// Another environment or mode is ErrOtherInstallation. Another cluster or
// timeline freezes charging and is ErrOtherCluster: what happened since the
// backup must be asked of the provider first. The freeze is durable when tx
// commits, so commit it on that error too.
func Bind(ctx context.Context, tx pgx.Tx, environment Environment, livemode bool) error {
	var wasEnvironment Environment
	var wasLive bool
	bound := func() error {
		return tx.QueryRow(ctx, sqlBound).Scan(&wasEnvironment, &wasLive)
	}
	// A daemon that starts where others charge only reads.
	err := bound()
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := tx.Exec(ctx, sqlBind, environment, livemode); err != nil {
			return fmt.Errorf("bind the database: %w", err)
		}
		err = bound()
	}
	if err != nil {
		return fmt.Errorf("read the binding: %w", err)
	}
	if wasEnvironment != environment || wasLive != livemode {
		return fmt.Errorf("%w: it was bound to %s with livemode %t, and this is %s with livemode %t; check DATABASE_URL, SINGIL_ENVIRONMENT and the key",
			ErrOtherInstallation, wasEnvironment, wasLive, environment, livemode)
	}
	standing, err := Guard(ctx, tx, Memory{})
	if err != nil {
		return err
	}
	return standing.Err()
}

const sqlFreeze = `
UPDATE singil.instance
SET frozen = true, frozen_reason = $1, frozen_by = $2, frozen_at = clock_timestamp()
WHERE NOT frozen`

// Armings share a lock on the row, and where many charge there is always one: a
// change of the row would wait for a moment without any. The table's lock is given
// in turn, so armings that come later wait for us.
const sqlLockInstance = `LOCK TABLE singil.instance IN EXCLUSIVE MODE`

// lockInstance waits for the armings under way, and only for those.
func lockInstance(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, sqlLockInstance); err != nil {
		return fmt.Errorf("lock the instance: %w", err)
	}
	return nil
}

// Freeze stops all charging, in every daemon, from the moment tx commits. A
// frozen instance keeps its first reason.
func Freeze(ctx context.Context, tx pgx.Tx, actor, reason string) error {
	if err := lockInstance(ctx, tx); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, sqlFreeze, reason, actor)
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return Audit(ctx, tx, AuditEntry{Actor: actor, Action: "freeze", Subject: "instance", Reason: reason})
}

const sqlUnfreeze = `
UPDATE singil.instance
SET frozen = false, frozen_reason = NULL, frozen_by = NULL, frozen_at = NULL
WHERE frozen`

// Unfreeze lets charging go on. While a recovery is needed it is refused, with a
// *RefusedError: WaiveRecovery comes first, if somebody answers for it.
func Unfreeze(ctx context.Context, tx pgx.Tx, actor, reason string) error {
	if err := lockInstance(ctx, tx); err != nil {
		return err
	}
	needed, err := recoveryNeeded(ctx, tx)
	if err != nil {
		return err
	}
	if needed != "" {
		return refused("a recovery is needed first: %s; run singil recover", needed)
	}
	if _, err := tx.Exec(ctx, sqlUnfreeze); err != nil {
		return fmt.Errorf("unfreeze: %w", err)
	}
	return Audit(ctx, tx, AuditEntry{Actor: actor, Action: "unfreeze", Subject: "instance", Reason: reason})
}

const sqlSetVirtualClock = `
UPDATE singil.instance SET virtual_now = $1 WHERE NOT livemode`

// SetVirtualClock moves the virtual clock. It is refused with livemode.
func SetVirtualClock(ctx context.Context, tx pgx.Tx, now time.Time) error {
	if err := lockInstance(ctx, tx); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, sqlSetVirtualClock, now)
	if err != nil {
		return fmt.Errorf("set the virtual clock: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return errors.New("set the virtual clock: there is none with live money, nor before the first singil run")
	}
	return nil
}

const sqlBlock = `
UPDATE singil.provider_state
SET blocked_until = greatest(blocked_until, $1)`

// Block keeps every daemon from charging until a time of the real clock: the
// provider told one of them to slow down. It never shortens a block.
func Block(ctx context.Context, tx pgx.Tx, until time.Time) error {
	if _, err := tx.Exec(ctx, sqlBlock, until); err != nil {
		return fmt.Errorf("note the provider's block: %w", err)
	}
	return nil
}

const sqlTripBreaker = `
UPDATE singil.provider_state
SET breaker_open = true, breaker_reason = $1, breaker_at = clock_timestamp()
WHERE NOT breaker_open`

// TripBreaker stops all charging because the provider refuses us, not our
// customers, or because what comes back is far from what is usual. An operator
// closes it again. An open breaker keeps its first reason.
func TripBreaker(ctx context.Context, tx pgx.Tx, reason string) error {
	tag, err := tx.Exec(ctx, sqlTripBreaker, reason)
	if err != nil {
		return fmt.Errorf("trip the breaker: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return Audit(ctx, tx, AuditEntry{Actor: "singil", Action: "trip_breaker", Subject: "provider", Reason: reason})
}

const sqlCloseBreaker = `
UPDATE singil.provider_state
SET breaker_open = false, breaker_reason = NULL, breaker_at = NULL, blocked_until = NULL,
    watched_from = COALESCE((SELECT i.virtual_now FROM singil.instance i), clock_timestamp())`

// CloseBreaker lets charging go on. What was before does not trip it again.
func CloseBreaker(ctx context.Context, tx pgx.Tx, actor, reason string) error {
	if _, err := tx.Exec(ctx, sqlCloseBreaker); err != nil {
		return fmt.Errorf("close the breaker: %w", err)
	}
	return Audit(ctx, tx, AuditEntry{Actor: actor, Action: "close_breaker", Subject: "provider", Reason: reason})
}

const sqlDatabaseIdentity = `
SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' || current_database()`

// DatabaseIdentity is the same for two connections if they lead to the same
// database, whatever their roles and addresses.
func DatabaseIdentity(ctx context.Context, q Querier) (string, error) {
	rows, err := q.Query(ctx, sqlDatabaseIdentity)
	if err != nil {
		return "", fmt.Errorf("identify the database: %w", err)
	}
	identity, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		return "", fmt.Errorf("identify the database: %w", err)
	}
	return identity, nil
}
