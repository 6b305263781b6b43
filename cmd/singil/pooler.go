package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// throughPooler tells whether DATABASE_URL says that a connection is not the same
// session from one transaction to the next: a pooler in transaction mode. Then
// nothing may be left in a session: no prepared statements, no settings, and no
// LISTEN, which would be heard by whoever has it next.
func throughPooler(c *pgx.ConnConfig) bool {
	return c.DefaultQueryExecMode == pgx.QueryExecModeCacheDescribe
}

// checkExecMode refuses the ways to run statements that ours do not run by:
// describe_exec prepares in one session and may execute in another, and without a
// description a document is taken for bytes.
func checkExecMode(c *pgx.ConnConfig) error {
	switch c.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe:
		return nil
	}
	return configError{fmt.Errorf("DATABASE_URL has default_query_exec_mode=%s; singil takes cache_statement, and behind a pooler in transaction mode cache_describe", c.DefaultQueryExecMode)}
}

// poolerHint says what to do about what only a pooler answers.
func poolerHint(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch {
	case pg.Code == "08P01" && strings.Contains(pg.Message, "startup parameter"), // protocol_violation
		pg.Code == "26000", pg.Code == "42P05": // a prepared statement that is not there, or is there already
		return fmt.Errorf("%w; this is a pooler such as PgBouncer: connect to PostgreSQL itself, "+
			"or add default_query_exec_mode=cache_describe to DATABASE_URL, see deploy/README.md", err)
	}
	return err
}

// sessionSettings are what every session has from us, unless the address says
// otherwise, or a pooler takes them away.
var sessionSettings = map[string]string{
	"statement_timeout": "60s", "lock_timeout": "20s", "idle_in_transaction_session_timeout": "10s",
}

// inSession sets what every session of the pool shall have. A pooler in transaction
// mode takes none of it.
func inSession(pc *pgxpool.Config, settings map[string]string) {
	if !throughPooler(pc.ConnConfig) {
		maps.Copy(pc.ConnConfig.RuntimeParams, settings)
	}
}

const sqlWithoutLimits = `
SELECT COALESCE(string_agg(s.name, ', ' ORDER BY s.name), '')
FROM pg_settings s
WHERE s.name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout') AND s.setting = '0'`

// warnWithoutLimits tells when a pooler has taken the limits away and the role has
// none: a daemon that hangs would then hold its locks for good.
func warnWithoutLimits(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	var missing string
	if err := pool.QueryRow(ctx, sqlWithoutLimits).Scan(&missing); err != nil {
		return fmt.Errorf("look at the session's limits: %w", poolerHint(err))
	}
	if missing != "" {
		log.Warn("this session has no limits: a pooler does not hand them on", "missing", missing,
			"next", "ALTER ROLE ... SET statement_timeout = '60s', and so on: deploy/README.md, PgBouncer")
	}
	return nil
}
