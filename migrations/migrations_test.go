package migrations_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/migrations"
)

// empty is a database in which Up never ran.
func empty(t *testing.T) (string, *pgxpool.Pool) {
	t.Helper()
	dsn := pgtest.DSN(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	do(t, pool, "DROP SCHEMA singil, river CASCADE")
	do(t, pool, "DROP EXTENSION IF EXISTS btree_gist")
	return dsn, pool
}

func do(t *testing.T, pool *pgxpool.Pool, statement string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// up applies all and returns what it told the log.
func up(t *testing.T, dsn string) string {
	t.Helper()
	var said bytes.Buffer
	if err := migrations.Up(t.Context(), dsn, slog.New(slog.NewTextHandler(&said, nil))); err != nil {
		t.Fatal(err)
	}
	return said.String()
}

func status(t *testing.T, dsn string) []migrations.Migration {
	t.Helper()
	all, err := migrations.Status(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestUp(t *testing.T) {
	t.Parallel()
	dsn, pool := empty(t)

	before := status(t, dsn)
	latest := migrations.Latest()
	if len(before) != latest.River+latest.Singil || latest.River < 8 || latest.Singil < 1 {
		t.Fatalf("%d migrations of %s", len(before), latest)
	}
	for _, m := range before {
		if !m.Pending() || m.Name == "" {
			t.Errorf("before Up: %+v", m)
		}
	}
	var behind *migrations.BehindError
	if err := migrations.Check(t.Context(), pool); !errors.As(err, &behind) {
		t.Errorf("before Up: %v", err)
	} else if want := (migrations.BehindError{Want: latest}); *behind != want || !strings.Contains(err.Error(), "run: singil migrate up") {
		t.Errorf("before Up: %v", err)
	}

	if n := strings.Count(up(t, dsn), "migration applied"); n != len(before) {
		t.Errorf("the log tells of %d migrations, want %d", n, len(before))
	}
	if err := migrations.Check(t.Context(), pool); err != nil {
		t.Error(err)
	}
	after := status(t, dsn)
	for i, m := range after {
		if age := time.Since(m.AppliedAt); age < -time.Minute || age > time.Minute || m.AppliedAt.Location() != time.UTC {
			t.Errorf("after Up: %+v, applied %s ago", m, age)
		}
		after[i].AppliedAt = time.Time{}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("Status before and after Up:\n%s", diff)
	}

	t.Run("AgainDoesNothing", func(t *testing.T) {
		before := status(t, dsn)
		if said := up(t, dsn); !strings.Contains(said, "up to date") || strings.Contains(said, "applied") {
			t.Errorf("the log says %s", said)
		}
		if diff := cmp.Diff(before, status(t, dsn)); diff != "" {
			t.Errorf("the second Up changed:\n%s", diff)
		}
	})
	t.Run("LeavesNothingElsewhere", func(t *testing.T) {
		rows, err := pool.Query(t.Context(), `
			SELECT relnamespace::regnamespace::text || '.' || relname FROM pg_class
			WHERE relkind = 'r' AND relnamespace::regnamespace::text NOT IN ('river', 'singil', 'pg_catalog', 'information_schema')`)
		if err != nil {
			t.Fatal(err)
		}
		if tables, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(tables) > 0 {
			t.Errorf("tables outside of our schemas: %v, %v", tables, err)
		}
	})
}

func TestUpTogether(t *testing.T) {
	t.Parallel()
	dsn, pool := empty(t)
	const many = 6
	failed := make(chan error, many)
	for range many {
		go func() { failed <- migrations.Up(t.Context(), dsn, slog.New(slog.DiscardHandler)) }()
	}
	for range many {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if err := migrations.Check(t.Context(), pool); err != nil {
		t.Error(err)
	}
	var rows int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM singil.goose_db_version WHERE version_id > 0").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if want := migrations.Latest().Singil; rows != want {
		t.Errorf("%d migrations are noted, want %d", rows, want)
	}
}

func TestUpWaitsItsTurn(t *testing.T) {
	t.Parallel()
	dsn, pool := empty(t)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('singil migrate', 0))"); err != nil {
		t.Fatal(err)
	}

	waits := make(chan string, 1)
	log := slog.New(slog.NewTextHandler(writer(func(line string) {
		if strings.Contains(line, "waiting for it") {
			waits <- line
		}
	}), nil))
	done := make(chan error, 1)
	go func() { done <- migrations.Up(t.Context(), dsn, log) }()
	select {
	case <-waits:
	case err := <-done:
		t.Fatalf("Up did not wait: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan error, 1)
	go func() { cancelled <- migrations.Up(ctx, dsn, log) }()
	<-waits
	cancel()
	if err := <-cancelled; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another singil") {
		t.Errorf("the Up that gave up: %v", err)
	}

	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type writer func(line string)

func (w writer) Write(line []byte) (int, error) {
	w(string(line))
	return len(line), nil
}

func TestCheck(t *testing.T) {
	t.Parallel()
	latest := migrations.Latest()
	ahead := func(v migrations.Versions) *migrations.AheadError {
		return &migrations.AheadError{Have: v, Want: latest}
	}
	behind := func(v migrations.Versions) *migrations.BehindError {
		return &migrations.BehindError{Have: v, Want: latest}
	}

	for _, tt := range []struct {
		name   string
		change string
		want   error
	}{
		{
			name:   "Ahead",
			change: "INSERT INTO singil.goose_db_version (version_id, is_applied) VALUES (9001, true)",
			want:   ahead(migrations.Versions{River: latest.River, Singil: 9001}),
		},
		{
			name:   "AheadInTheQueue",
			change: "INSERT INTO river.river_migration (line, version) VALUES ('main', 9001)",
			want:   ahead(migrations.Versions{River: 9001, Singil: latest.Singil}),
		},
		{
			name:   "AnotherLineOfTheQueueIsNotOurs",
			change: "INSERT INTO river.river_migration (line, version) VALUES ('pro', 9001)",
		},
		{
			name:   "Behind",
			change: fmt.Sprintf("DELETE FROM singil.goose_db_version WHERE version_id = %d", latest.Singil),
			want:   behind(migrations.Versions{River: latest.River, Singil: latest.Singil - 1}),
		},
		{
			name: "BehindAndAhead",
			change: `DELETE FROM river.river_migration WHERE version > 5;
				INSERT INTO singil.goose_db_version (version_id, is_applied) VALUES (9001, true)`,
			want: behind(migrations.Versions{River: 5, Singil: 9001}),
		},
		{
			name:   "OneInBetweenIsMissing",
			change: "DELETE FROM river.river_migration WHERE version = 3",
			want:   behind(migrations.Versions{River: 2, Singil: latest.Singil}),
		},
		{
			name:   "WithoutTheQueue",
			change: "DROP SCHEMA river CASCADE",
			want:   behind(migrations.Versions{Singil: latest.Singil}),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.DB(t)
			do(t, pool, tt.change)
			got := migrations.Check(t.Context(), pool)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Check (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpLeavesANewerDatabaseAlone(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	do(t, pool, "INSERT INTO singil.goose_db_version (version_id, is_applied) VALUES (9001, true)")

	var ahead *migrations.AheadError
	if err := migrations.Up(t.Context(), dsn, slog.New(slog.DiscardHandler)); !errors.As(err, &ahead) {
		t.Errorf("Up: %v", err)
	}
	all := status(t, dsn)
	if last := all[len(all)-1]; last.Version != 9001 || last.Name != "" || last.Pending() {
		t.Errorf("the migration from the future is %+v", last)
	}
}

// TestUpFromAnOldQueue is of a database whose River knows no lines yet.
func TestUpFromAnOldQueue(t *testing.T) {
	t.Parallel()
	dsn, pool := empty(t)
	do(t, pool, "CREATE SCHEMA river")
	old, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{
		Schema: migrations.RiverSchema, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Migrate(t.Context(), rivermigrate.DirectionUp, &rivermigrate.MigrateOpts{TargetVersion: 4}); err != nil {
		t.Fatal(err)
	}
	var behind *migrations.BehindError
	if err := migrations.Check(t.Context(), pool); !errors.As(err, &behind) || behind.Have.River != 4 {
		t.Errorf("Check: %v", err)
	}
	up(t, dsn)
	if err := migrations.Check(t.Context(), pool); err != nil {
		t.Error(err)
	}
}

// TestUpAsTheOwnerOfTheDatabase is how it is where somebody else runs the server: no superuser.
func TestUpAsTheOwnerOfTheDatabase(t *testing.T) {
	t.Parallel()
	if os.Getenv("TEST_DATABASE_URL") != "" {
		t.Skip("NOT TESTED: roles are of the whole server, and this one is not ours")
	}
	dsn, pool := empty(t)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	database := config.Database
	role := strings.Replace(database, "singil_test_", "singil_test_role_", 1)
	do(t, pool, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() {
		for _, statement := range []string{
			"REASSIGN OWNED BY " + role + " TO CURRENT_USER", "DROP OWNED BY " + role, "DROP ROLE " + role,
		} {
			if _, err := pool.Exec(context.Background(), statement); err != nil {
				t.Errorf("%s: %v", statement, err)
			}
		}
	})
	theirs := strings.Replace(dsn, "//"+config.User, "//"+role, 1)

	err = migrations.Up(t.Context(), theirs, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "GRANT CREATE ON DATABASE") {
		t.Errorf("Up of a role that may nothing: %v", err)
	}
	do(t, pool, "ALTER DATABASE "+database+" OWNER TO "+role)
	up(t, theirs)
	if err := migrations.Check(t.Context(), pool); err != nil {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if want := fmt.Sprintf("%04d_", i+1); !strings.HasPrefix(name, want) {
			t.Errorf("%s should begin with %s: without gaps one sees that none is missing", name, want)
		}
		text, err := migrations.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "+goose Down") {
			t.Errorf("%s goes down: a migration that was applied is put right by the next one", name)
		}
		if strings.Contains(string(text), "NO TRANSACTION") && !strings.HasPrefix(string(text), "-- +goose NO TRANSACTION") {
			t.Errorf("%s says only further down that it is in no transaction", name)
		}
	}
}
