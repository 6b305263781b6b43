// Package pgtest gives each test a PostgreSQL database with Singil's schema, in some tens of milliseconds.
//
// The server is the one of TEST_DATABASE_URL, whose role must be able to create databases, or a private one of this
// test binary, which goes with the binary: see internal/devpg. The schema is built once, in a template. Nothing
// outside of tests imports this package.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/internal/devpg"
	"github.com/singil/singil/migrations"
)

const (
	// A test that waits for longer hangs.
	setupLimit   = 2 * time.Minute
	cleanupLimit = 20 * time.Second
	// The databases of a run that was killed are dropped by a later one.
	staleAfter = 2 * time.Hour
	// Enough for a test with some workers; a cluster has 200 connections for all tests of a binary that run at once.
	maxConns = 10

	prefix = "singil_test_"
)

// DB is a pool on a database that the test has to itself. What the pool lent must be back when the test ends: then the
// database is dropped.
func DB(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := open(t.Context(), t.Name(), DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			pool.Close()
			close(closed)
		}()
		patience := time.NewTimer(cleanupLimit)
		defer patience.Stop()
		select {
		case <-closed:
		case <-patience.C:
			t.Errorf("%d connections were not given back to the pool of pgtest.DB within %s of the test's end",
				pool.Stat().AcquiredConns(), cleanupLimit)
		}
	})
	return pool
}

// DSN is the address of a database that the test has to itself, for a program or a pool of the test's own. Whoever is
// connected at the end of the test is thrown out.
func DSN(t testing.TB) string {
	t.Helper()
	s := theServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	name, err := s.clone(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's context has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := s.drop(ctx, name); err != nil {
			t.Error(err)
		}
	})
	return s.dsn(name)
}

// Tx is a transaction that is rolled back when the test ends, on one database that the tests of the binary share. It
// is the fastest of the three, and for one goroutine. Two such transactions that write the same unique key wait for
// one another: a test that uses it makes up keys of its own.
func Tx(t testing.TB) pgx.Tx {
	t.Helper()
	s := theServer(t)
	pool, err := s.shared()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), setupLimit)
	defer cancel()
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := tx.Rollback(ctx); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("roll back the test's transaction: %v", err)
		}
	})
	return tx
}

// server is the one that all tests of the binary use.
type server struct {
	dsn      func(database string) string
	admin    *pgxpool.Pool
	template string
	shared   func() (*pgxpool.Pool, error)
}

var (
	connected = sync.OnceValues(connect)
	clones    atomic.Int64
	// One of the binaries that share a server, perhaps from several machines.
	run = strings.ToLower(rand.Text()[:8])
)

func theServer(t testing.TB) *server {
	t.Helper()
	s, err := connected()
	if err != nil {
		giveUp(t, err, testing.Short())
	}
	return s
}

// giveUp fails the test. A test of money that does not run is no better than one that fails, so where there is no
// PostgreSQL only those who ask for less get less.
func giveUp(t testing.TB, err error, short bool) {
	t.Helper()
	switch {
	case errors.Is(err, devpg.ErrNotFound) && short:
		t.Skipf("NOT TESTED, because of -short: %v", err)
	case errors.Is(err, devpg.ErrNotFound):
		t.Fatalf("%v (for tests that is TEST_DATABASE_URL)", err)
	default:
		t.Fatalf("no database for tests: %v", err)
	}
}

func connect() (*server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setupLimit)
	defer cancel()

	s := &server{template: "singil_template_" + schemaHash()}
	s.shared = sync.OnceValues(s.openShared)
	admin := os.Getenv("TEST_DATABASE_URL")
	if admin != "" {
		var err error
		if s.dsn, err = inServer(admin); err != nil {
			return nil, err
		}
	} else {
		// Nobody stops it: that it goes with this process is what it is made for.
		own, err := devpg.Start(ctx, devpg.Options{InMemory: true})
		if err != nil {
			return nil, err
		}
		s.dsn, admin = own.DSN, own.DSN("")
	}
	var err error
	if s.admin, err = open(ctx, "pgtest", admin); err != nil {
		return nil, err
	}
	if err := s.makeTemplate(ctx); err != nil {
		return nil, fmt.Errorf("make the template database %s: %w", s.template, err)
	}
	return s, nil
}

// inServer returns the addresses of other databases on the server of a DSN.
func inServer(dsn string) (func(database string) string, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("TEST_DATABASE_URL must look like postgres://user:password@host:5432/postgres")
	}
	return func(database string) string {
		other := *u
		other.Path = "/" + database
		return other.String()
	}, nil
}

// schemaHash names a schema by what builds it, so that a server that stays keeps one template for each.
func schemaHash() string {
	hash := sha256.New()
	fmt.Fprintln(hash, migrations.Latest())
	err := fs.WalkDir(migrations.FS, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := migrations.FS.ReadFile(path)
		fmt.Fprintf(hash, "%s %d\n%s", path, len(content), content)
		return err
	})
	if err != nil {
		panic(err) // the files are in the program
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

const (
	// Binaries that share a server clean up and make a template one after the other. The lock goes with the connection.
	sqlLockTemplate   = `SELECT pg_advisory_lock(hashtextextended(@name, 0))`
	sqlUnlockTemplate = `SELECT pg_advisory_unlock(hashtextextended(@name, 0))`
	// It becomes a template only once it is complete.
	sqlTemplateState = `SELECT datistemplate FROM pg_database WHERE datname = @name`
)

func (s *server) makeTemplate(ctx context.Context) (err error) {
	conn, err := s.admin.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	name := pgx.StrictNamedArgs{"name": s.template}
	if _, err := conn.Exec(ctx, sqlLockTemplate, name); err != nil {
		return err
	}
	defer func() {
		_, unlockErr := conn.Exec(ctx, sqlUnlockTemplate, name)
		err = errors.Join(err, unlockErr)
	}()

	if err := s.dropStale(ctx); err != nil {
		return err
	}
	var complete bool
	switch err := conn.QueryRow(ctx, sqlTemplateState, name).Scan(&complete); {
	case complete:
		return nil
	case err == nil: // somebody was killed while making it
		if err := s.drop(ctx, s.template); err != nil {
			return err
		}
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	quoted := pgx.Identifier{s.template}.Sanitize()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quoted+" TEMPLATE template0"); err != nil {
		return err
	}
	if err := migrations.Up(ctx, s.dsn(s.template), slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+quoted+" IS_TEMPLATE true")
	return err
}

// clone puts the time into the name, for dropStale.
func (s *server) clone(ctx context.Context) (string, error) {
	name := fmt.Sprintf("%s%d_%s_%d", prefix, time.Now().Unix(), run, clones.Add(1))
	_, err := s.admin.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+pgx.Identifier{s.template}.Sanitize())
	if err != nil {
		return "", fmt.Errorf("create a database for the test: %w", err)
	}
	return name, nil
}

func (s *server) drop(ctx context.Context, name string) error {
	if _, err := s.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop the test's database: %w", err)
	}
	return nil
}

const sqlTestDatabases = `SELECT datname FROM pg_database WHERE starts_with(datname, @prefix)`

// dropStale is for a server that stays: a process that is killed cleans nothing up.
func (s *server) dropStale(ctx context.Context) error {
	rows, err := s.admin.Query(ctx, sqlTestDatabases, pgx.StrictNamedArgs{"prefix": prefix})
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		made, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "_")
		unix, err := strconv.ParseInt(made, 10, 64)
		if err != nil || time.Since(time.Unix(unix, 0)) < staleAfter {
			continue
		}
		if err := s.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// openShared makes the database that the transactions of Tx share.
func (s *server) openShared() (*pgxpool.Pool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setupLimit)
	defer cancel()
	name, err := s.clone(ctx)
	if err != nil {
		return nil, err
	}
	return open(ctx, "pgtest.Tx", s.dsn(name))
}

func open(ctx context.Context, who, dsn string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = maxConns
	config.ConnConfig.ConnectTimeout = 10 * time.Second
	for name, value := range map[string]string{
		// In pg_stat_activity and in the server's log one sees whose statement it is. PostgreSQL cuts it at 63 bytes.
		"application_name": who,
		// A test that is stuck says where, instead of running into the limit of the whole binary.
		"statement_timeout":                   "30s",
		"lock_timeout":                        "20s",
		"idle_in_transaction_session_timeout": "60s",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	config.AfterConnect = scanUTC
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return pool, nil
}

// scanUTC makes instants come back in UTC: as they are, they come in the time zone of the machine, and print and
// compare (by ==) differently on the next one.
func scanUTC(_ context.Context, conn *pgx.Conn) error {
	types := conn.TypeMap()
	instant := &pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	}
	span := &pgtype.Type{Name: "tstzrange", OID: pgtype.TstzrangeOID, Codec: &pgtype.RangeCodec{ElementType: instant}}
	types.RegisterTypes([]*pgtype.Type{
		instant,
		span,
		// Those that are made of others hold on to the ones they were made of.
		{Name: "_timestamptz", OID: pgtype.TimestamptzArrayOID, Codec: &pgtype.ArrayCodec{ElementType: instant}},
		{Name: "_tstzrange", OID: pgtype.TstzrangeArrayOID, Codec: &pgtype.ArrayCodec{ElementType: span}},
		{Name: "tstzmultirange", OID: pgtype.TstzmultirangeOID, Codec: &pgtype.MultirangeCodec{ElementType: span}},
	})
	return nil
}
