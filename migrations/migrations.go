// Package migrations owns the schema: River's tables in the schema river, then ours in the schema singil, by the files
// NNNN_what.sql beside this one. They go forward only, each in a transaction of its own, and a file that was released
// is not edited any more: what it got wrong, the next one puts right.
//
// It owns no statement that reads or writes a row of business. Those are in billing.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// RiverSchema is where River's tables are. River's client must be told the same.
const RiverSchema = "river"

// FS holds our files, River's are in its module.
//
//go:embed *.sql
var FS embed.FS

// The lines of a Migration: who wrote it.
const (
	LineRiver  = "river"
	LineSingil = "singil"
)

// Migration is one step, applied or pending.
type Migration struct {
	Line    string `json:"line"`
	Version int    `json:"version"`
	// Name is empty where the database has a migration that this program does not know: it is of a newer one.
	Name string `json:"name,omitempty"`
	// AppliedAt is zero while the migration is pending.
	AppliedAt time.Time `json:"applied_at,omitzero"`
}

// Pending tells whether Up would apply it.
func (m Migration) Pending() bool { return m.AppliedAt.IsZero() }

// Versions is a state of the schema: for each line, the last version up to which nothing is missing.
type Versions struct {
	River  int `json:"river"`
	Singil int `json:"singil"`
}

func (v Versions) String() string { return fmt.Sprintf("river %d, singil %d", v.River, v.Singil) }

// Latest is the schema that this program is written for.
func Latest() Versions {
	var latest Versions
	for _, m := range known() {
		switch m.Line {
		case LineRiver:
			latest.River = max(latest.River, m.Version)
		case LineSingil:
			latest.Singil = max(latest.Singil, m.Version)
		}
	}
	return latest
}

// BehindError is of a database that lacks migrations. This program must not run on it.
type BehindError struct{ Have, Want Versions }

func (e *BehindError) Error() string {
	return fmt.Sprintf("the database schema is at %s and this program needs %s: run: singil migrate up", e.Have, e.Want)
}

// AheadError is of a database with migrations that this program does not know, and with all that it does. A newer
// program has applied them. That is the middle of every rolling upgrade: migrations are written so that the program
// before them goes on running, so a daemon that runs need not stop for this. Up refuses.
type AheadError struct{ Have, Want Versions }

func (e *AheadError) Error() string {
	return fmt.Sprintf("the database schema is at %s and this program only knows %s: a newer singil has migrated it, run that one",
		e.Have, e.Want)
}

const (
	// Two ups at once take turns. More than this means that one of them hangs.
	turnLimit = 10 * time.Minute
	turnPoll  = 100 * time.Millisecond
	// A migration that waits for a lock makes everybody wait who comes after it. Better that it fails and is run again.
	lockLimit = 5 * time.Second

	versionTable = "singil.goose_db_version"
)

// Up applies what is pending, River's and then ours, and tells the log of each. Any number may be started at once, they
// take turns. After an error, the migrations before the one that failed are applied and committed, and the next Up goes
// on from there. A database that is newer than this program is an *AheadError and is left alone.
//
// The role needs CREATE on the database, and the connection must be one to PostgreSQL itself, without a pooler.
func Up(ctx context.Context, dsn string, log *slog.Logger) error {
	pool, err := open(ctx, dsn)
	if err != nil {
		return fmt.Errorf("migrate up: %w", err)
	}
	defer pool.Close()

	turn, err := takeTurn(ctx, pool, log)
	if err != nil {
		return fmt.Errorf("migrate up: %w", hint(err))
	}
	// Nothing was written in this transaction: it is there for its lock.
	defer turn.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // the pool closes the connection, if need be

	var behind *BehindError
	switch err := Check(ctx, pool); {
	case err == nil:
		log.InfoContext(ctx, "the schema is up to date", "river", Latest().River, "singil", Latest().Singil)
		return nil
	case !errors.As(err, &behind):
		return fmt.Errorf("migrate up: %w", err)
	}
	for _, schema := range []string{RiverSchema, "singil"} {
		if err := createSchema(ctx, pool, schema); err != nil {
			return fmt.Errorf("migrate up: %w", hint(err))
		}
	}
	if err := upRiver(ctx, pool, log); err != nil {
		return fmt.Errorf("migrate up: river: %w", hint(err))
	}
	if err := upSingil(ctx, pool, log); err != nil {
		return fmt.Errorf("migrate up: %w", hint(err))
	}
	return nil
}

// Status lists the migrations of this program and of the database, River's and then ours, in the order of their
// versions. It changes nothing, and a database in which Up never ran is no error.
func Status(ctx context.Context, dsn string) ([]Migration, error) {
	pool, err := open(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("migration status: %w", err)
	}
	defer pool.Close()
	return status(ctx, pool)
}

// Check returns nil if the schema is the one that this program is written for, else a *BehindError or an *AheadError,
// or what kept it from looking. It is three small queries.
func Check(ctx context.Context, pool *pgxpool.Pool) error {
	all, err := status(ctx, pool)
	if err != nil {
		return err
	}
	want := Latest()
	var have Versions
	behind := map[string]bool{}
	unknown := false
	for _, m := range all {
		switch {
		case m.Pending():
			behind[m.Line] = true
		case behind[m.Line]:
			// Applied after one that is missing: somebody merged them in another order.
		case m.Line == LineRiver:
			have.River = m.Version
		case m.Line == LineSingil:
			have.Singil = m.Version
		}
		unknown = unknown || m.Name == ""
	}
	switch {
	case len(behind) > 0:
		return &BehindError{Have: have, Want: want}
	case unknown:
		return &AheadError{Have: have, Want: want}
	}
	return nil
}

// known lists River's migrations, then ours.
var known = sync.OnceValue(func() []Migration {
	river, err := riverMigrator(nil, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err) // only a line that River does not have
	}
	var all []Migration
	for _, m := range river.AllVersions() {
		all = append(all, Migration{Line: LineRiver, Version: m.Version, Name: m.Name})
	}
	files, err := FS.ReadDir(".")
	if err != nil {
		panic(err) // there is nothing to read, it is in the program
	}
	for _, file := range files {
		digits, name, _ := strings.Cut(strings.TrimSuffix(file.Name(), ".sql"), "_")
		version, err := strconv.Atoi(digits)
		if err != nil {
			panic("migrations: " + file.Name() + " is not named NNNN_what.sql")
		}
		all = append(all, Migration{Line: LineSingil, Version: version, Name: name})
	}
	return all
})

const (
	sqlHasTables = `
		SELECT to_regclass('river.river_migration') IS NOT NULL,
		       to_regclass('singil.goose_db_version') IS NOT NULL`

	// The column line came with River's fifth migration. What has less is River's only line.
	sqlRiverApplied = `
		SELECT version::int, created_at
		FROM river.river_migration AS m
		WHERE coalesce(to_jsonb(m) ->> 'line', 'main') = 'main'
		ORDER BY version`

	// goose writes the local time of its session, which open sets to UTC, and a row for version 0.
	sqlSingilApplied = `
		SELECT version_id::int, max(tstamp) AT TIME ZONE 'UTC'
		FROM singil.goose_db_version
		WHERE is_applied AND version_id > 0
		GROUP BY version_id
		ORDER BY version_id`
)

func status(ctx context.Context, pool *pgxpool.Pool) ([]Migration, error) {
	var hasRiver, hasSingil bool
	if err := pool.QueryRow(ctx, sqlHasTables).Scan(&hasRiver, &hasSingil); err != nil {
		return nil, fmt.Errorf("migration status: %w", err)
	}
	all := slices.Clone(known())
	for _, line := range []struct {
		name string
		has  bool
		sql  string
	}{
		{LineRiver, hasRiver, sqlRiverApplied},
		{LineSingil, hasSingil, sqlSingilApplied},
	} {
		if !line.has {
			continue
		}
		rows, err := pool.Query(ctx, line.sql)
		if err != nil {
			return nil, fmt.Errorf("migration status of %s: %w", line.name, err)
		}
		var version int
		var at time.Time
		if _, err := pgx.ForEachRow(rows, []any{&version, &at}, func() error {
			i := slices.IndexFunc(all, func(m Migration) bool { return m.Line == line.name && m.Version == version })
			if i < 0 {
				all = append(all, Migration{Line: line.name, Version: version, AppliedAt: at.UTC()})
				return nil
			}
			all[i].AppliedAt = at.UTC()
			return nil
		}); err != nil {
			return nil, fmt.Errorf("migration status of %s: %w", line.name, err)
		}
	}
	slices.SortFunc(all, func(a, b Migration) int {
		if a.Line != b.Line {
			return strings.Compare(a.Line, b.Line)
		}
		return a.Version - b.Version
	})
	return all, nil
}

func open(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	// One for the lock, one for goose or River, and one to spare.
	config.MaxConns = 3
	config.MinConns = 0
	config.MinIdleConns = 0
	config.ConnConfig.ConnectTimeout = 10 * time.Second
	for name, value := range map[string]string{
		"application_name": "singil migrate",
		"timezone":         "UTC",
		"lock_timeout":     strconv.FormatInt(lockLimit.Milliseconds(), 10),
		// A big table takes as long as it takes; the caller has a context.
		"statement_timeout":                   "0",
		"idle_in_transaction_session_timeout": "0",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// A pooler may refuse these settings, or leave them out: lock_timeout tells for all of them.
	var limit string
	err = pool.QueryRow(ctx, `SELECT setting FROM pg_settings WHERE name = 'lock_timeout'`).Scan(&limit)
	var postgres *pgconn.PgError
	switch {
	case errors.As(err, &postgres) && postgres.Code == "08P01": // protocol_violation
		err = fmt.Errorf("%w; migrations need PostgreSQL itself, without a pooler in front of it", err)
	case err == nil && limit != config.ConnConfig.RuntimeParams["lock_timeout"]:
		err = errors.New("a pooler has dropped the settings of the session; migrations need PostgreSQL itself")
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// The hash of a name, so that no other program has it by accident.
const sqlTakeTurn = `SELECT pg_try_advisory_xact_lock(hashtextextended('singil migrate', 0))`

// takeTurn waits for the other ups. It asks again and again, for whoever waits inside of a statement holds a snapshot,
// and an index that the other one builds concurrently would wait for that.
func takeTurn(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) (pgx.Tx, error) {
	ctx, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	tx, err := pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(turnPoll)
	defer again.Stop()
	for waiting := false; ; waiting = true {
		var taken bool
		if err := tx.QueryRow(ctx, sqlTakeTurn).Scan(&taken); err != nil {
			return nil, errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
		}
		if taken {
			return tx, nil
		}
		if !waiting {
			log.InfoContext(ctx, "another singil migrates this database, waiting for it")
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, errors.Join(
				fmt.Errorf("wait for another singil that migrates this database: %w", ctx.Err()),
				tx.Rollback(context.WithoutCancel(ctx)))
		}
	}
}

const sqlHasSchema = `SELECT to_regnamespace(@name) IS NOT NULL`

// createSchema asks first: IF NOT EXISTS wants the right to create even where there is nothing to do, and a role
// without it may have been given the schemas by somebody else.
func createSchema(ctx context.Context, pool *pgxpool.Pool, name string) error {
	var exists bool
	if err := pool.QueryRow(ctx, sqlHasSchema, pgx.StrictNamedArgs{"name": name}).Scan(&exists); err != nil {
		return fmt.Errorf("look for schema %s: %w", name, err)
	}
	if exists {
		return nil
	}
	if _, err := pool.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create schema %s: %w", name, err)
	}
	return nil
}

func riverMigrator(pool *pgxpool.Pool, log *slog.Logger) (*rivermigrate.Migrator[pgx.Tx], error) {
	return rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: RiverSchema, Logger: log})
}

func upRiver(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	// It would tell of every version that there is nothing to do, in its own words.
	migrator, err := riverMigrator(pool, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	result, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	if err != nil {
		return err
	}
	for _, m := range result.Versions {
		logApplied(ctx, log, Migration{Line: LineRiver, Version: m.Version, Name: m.Name}, m.Duration)
	}
	return nil
}

func upSingil(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close() //nolint:errcheck // it has no connection of its own
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	results, err := provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results, err = partial.Applied, fmt.Errorf("%s: %w", path.Base(partial.Failed.Source.Path), partial.Err)
	}
	for _, r := range results {
		i := slices.IndexFunc(known(), func(m Migration) bool {
			return m.Line == LineSingil && int64(m.Version) == r.Source.Version
		})
		logApplied(ctx, log, known()[i], r.Duration)
	}
	return err
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, db, FS,
		goose.WithTableName(versionTable),
		// The line of another package in this program is none of ours.
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(slog.New(slog.DiscardHandler)))
}

func logApplied(ctx context.Context, log *slog.Logger, m Migration, took time.Duration) {
	log.InfoContext(ctx, "migration applied", "line", m.Line, "version", m.Version, "name", m.Name,
		"took", took.Round(time.Millisecond))
}

// hint adds what to do to the errors that an operator can do something about.
func hint(err error) error {
	var postgres *pgconn.PgError
	if !errors.As(err, &postgres) {
		return err
	}
	switch postgres.Code {
	case "42501": // insufficient_privilege
		return fmt.Errorf("%w; the role must be able to create schemas and extensions: GRANT CREATE ON DATABASE ... TO ..., or run this as the owner of the database", err)
	case "55P03": // lock_not_available
		return fmt.Errorf("%w; a transaction held a table for more than %s: nothing is lost, run it again", err, lockLimit)
	case "0A000", "58P01": // feature_not_supported, undefined_file
		return fmt.Errorf("%w; the server needs PostgreSQL's contrib extensions (Red Hat: postgresql-contrib)", err)
	}
	return err
}
