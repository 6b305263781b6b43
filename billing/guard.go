package billing

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Memory is what a host remembers of the database, outside of it: a few attempts
// whose commit was acknowledged, and the recovery they come after.
//
// Ids of rows, and no counter: a counter that a restored database has lost is
// counted up again by whoever charges on it first, and then nobody can tell. A
// row that was committed and is not there is proof, whatever came later.
type Memory struct {
	Recovery uuid.UUID // zero: before the first one
	Attempts []uuid.UUID
}

// DatabaseStanding is a database compared with its binding and with a host's memory.
type DatabaseStanding struct {
	// Older tells why this database is not the one that was bound, or is older
	// than what the host has seen; empty: it is neither.
	Older string
	// Now is what the host should remember from here on: the newest attempt and
	// the latest recovery.
	Now Memory
}

// Err is an ErrOtherCluster that says what to do, or nil.
func (s DatabaseStanding) Err() error {
	if s.Older == "" {
		return nil
	}
	return fmt.Errorf("%w: %s; charging is frozen: run singil recover", ErrOtherCluster, s.Older)
}

// The timeline is the one that WAL is written on. The control file's has been
// seen to lag: after a promotion it keeps the old one until the first checkpoint
// is done, minutes later on a busy server. On a standby this is an error.
const sqlCluster = `
SELECT (SELECT system_identifier FROM pg_control_system())::numeric AS system_identifier,
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer AS timeline_id`

const sqlGuard = `
SELECT c.system_identifier::text, c.timeline_id, i.system_identifier::text, i.timeline_id,
       (SELECT r.id FROM singil.recoveries r ORDER BY r.id DESC LIMIT 1),
       EXISTS (SELECT FROM singil.recoveries r WHERE r.id = $1),
       (SELECT count(*) FROM unnest($2::uuid[]) AS seen (id)
        WHERE NOT EXISTS (SELECT FROM singil.attempts a WHERE a.id = seen.id)),
       (SELECT a.id FROM singil.attempts a ORDER BY a.id DESC LIMIT 1)
FROM singil.instance i CROSS JOIN (` + sqlCluster + `) AS c`

// Guard compares the database with its binding (cluster and timeline) and with
// what the host remembers. If it is another one, or older, charging is frozen in
// tx and a recovery is needed; that is no error, so commit it. An Arm behind a
// Guard in one transaction refuses what it should: no failover or restore can
// come between the two.
//
// Two clusters of the same identity, such as a copy of the data files that runs
// beside the original, are told apart by the memory of a host that has seen what
// the copy lacks, and by nothing else.
func Guard(ctx context.Context, tx pgx.Tx, memory Memory) (DatabaseStanding, error) {
	var system, wasSystem string
	var timeline, wasTimeline int32
	var latest, newest *uuid.UUID
	var known bool
	var missing int
	err := tx.QueryRow(ctx, sqlGuard, memory.Recovery, memory.Attempts).Scan(&system, &timeline, &wasSystem, &wasTimeline, &latest, &known, &missing, &newest)
	if err != nil {
		return DatabaseStanding{}, fmt.Errorf("compare the database with its binding: %w", err)
	}
	var s DatabaseStanding
	if latest != nil {
		s.Now.Recovery = *latest
	}
	if newest != nil {
		s.Now.Attempts = []uuid.UUID{*newest}
	}
	switch {
	case wasSystem != system || wasTimeline != timeline:
		s.Older = fmt.Sprintf("cluster %s timeline %d instead of %s timeline %d", system, timeline, wasSystem, wasTimeline)
	case memory.Recovery != uuid.Nil && !known:
		s.Older = fmt.Sprintf("this host knows of recovery %s, and the database does not: it is older than what this host has seen", memory.Recovery)
	case memory.Recovery == s.Now.Recovery && missing > 0:
		s.Older = fmt.Sprintf("%d of the last %d attempts that this host has seen are not in the database: it is older than that", missing, len(memory.Attempts))
	default:
		return s, nil
	}
	return s, needRecovery(ctx, tx, "singil", s.Older)
}

// Without any attempt everything may be forgotten that was ever due.
const sqlNeedRecovery = `
UPDATE singil.instance
SET recovery_needed = $1,
    recovery_noticed_at = COALESCE(virtual_now, clock_timestamp()),
    recovery_from = COALESCE((SELECT a.armed_at FROM singil.attempts a ORDER BY a.id DESC LIMIT 1),
                             (SELECT min(s.bill_from) FROM singil.subscriptions s), created_at),
    frozen = true, frozen_reason = COALESCE(frozen_reason, $1), frozen_by = COALESCE(frozen_by, $2),
    frozen_at = COALESCE(frozen_at, clock_timestamp())
WHERE recovery_needed IS NULL`

// needRecovery freezes, and keeps it so until the provider was asked. The first
// reason stays.
func needRecovery(ctx context.Context, tx pgx.Tx, actor, reason string) error {
	if err := lockInstance(ctx, tx); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, sqlNeedRecovery, reason, actor)
	if err != nil {
		return fmt.Errorf("freeze for a recovery: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return Audit(ctx, tx, AuditEntry{Actor: actor, Action: "freeze", Subject: "instance", Reason: reason})
}

const sqlRecoveryNeeded = `SELECT COALESCE(recovery_needed, '') FROM singil.instance FOR UPDATE`

func recoveryNeeded(ctx context.Context, tx pgx.Tx) (needed string, err error) {
	err = tx.QueryRow(ctx, sqlRecoveryNeeded).Scan(&needed)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look whether a recovery is needed: %w", err)
	}
	return needed, nil
}
