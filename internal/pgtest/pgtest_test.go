package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/singil/singil/internal/devpg"
	"github.com/singil/singil/migrations"
)

func TestDB(t *testing.T) {
	t.Parallel()

	t.Run("BelongsToItsTest", func(t *testing.T) {
		t.Parallel()
		one, other := DB(t), DB(t)
		if _, err := one.Exec(t.Context(), "CREATE TABLE singil.mine ()"); err != nil {
			t.Fatal(err)
		}
		var seen bool
		if err := other.QueryRow(t.Context(), "SELECT to_regclass('singil.mine') IS NOT NULL").Scan(&seen); err != nil {
			t.Fatal(err)
		}
		if seen {
			t.Error("a table of one database is in the other")
		}
	})
	t.Run("HasTheSchema", func(t *testing.T) {
		t.Parallel()
		if err := migrations.Check(t.Context(), DB(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("ScansInstantsInUTC", func(t *testing.T) {
		t.Parallel()
		var at time.Time
		var many []time.Time
		var span pgtype.Range[time.Time]
		var spans pgtype.Multirange[pgtype.Range[time.Time]]
		if err := DB(t).QueryRow(t.Context(), `
			SELECT t, ARRAY[t], tstzrange(t, NULL), tstzmultirange(tstzrange(t, NULL))
			FROM (VALUES (timestamptz '2026-01-31 09:00+08')) AS v (t)`,
		).Scan(&at, &many, &span, &spans); err != nil {
			t.Fatal(err)
		}
		want := time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC)
		for name, got := range map[string]time.Time{"timestamptz": at, "array": many[0], "range": span.Lower, "multirange": spans[0].Lower} {
			if got != want { // not Equal: the location matters here
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
	})
	t.Run("SaysWhoseItIsAndDoesNotHang", func(t *testing.T) {
		t.Parallel()
		db := DB(t)
		for setting, want := range map[string]string{
			"application_name":                    "TestDB/SaysWhoseItIsAndDoesNotHang",
			"statement_timeout":                   "30s",
			"lock_timeout":                        "20s",
			"idle_in_transaction_session_timeout": "1min",
		} {
			var got string
			if err := db.QueryRow(t.Context(), "SHOW "+setting).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("%s is %q, want %q", setting, got, want)
			}
		}
	})
}

func TestDSNIsDroppedAfterTheTest(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("User", func(t *testing.T) { // not parallel: what follows is after it
		conn, err := pgx.Connect(t.Context(), DSN(t)) // and never closed
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	var left int
	if err := theServer(t).admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if name == "" || left != 0 {
		t.Errorf("the database %q is still there", name)
	}
}

func TestTxIsRolledBack(t *testing.T) {
	t.Parallel()
	for range 2 {
		t.Run("MakesTheSameTable", func(t *testing.T) { // not parallel: the second after the first
			if _, err := Tx(t).Exec(t.Context(), "CREATE TABLE singil.mine ()"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("MayEndItself", func(t *testing.T) {
		t.Parallel()
		if err := Tx(t).Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDropsWhatAKilledRunLeft(t *testing.T) {
	t.Parallel()
	s := theServer(t)
	stale := fmt.Sprintf("%s%d_killed_%s", prefix, time.Now().Add(-staleAfter-time.Minute).Unix(), run)
	fresh := fmt.Sprintf("%s%d_alive_%s", prefix, time.Now().Unix(), run)
	for _, name := range []string{stale, fresh} {
		if _, err := s.admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.dropStale(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := s.admin.Query(t.Context(), "SELECT datname FROM pg_database WHERE datname = ANY($1)", []string{stale, fresh})
	if err != nil {
		t.Fatal(err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0] != fresh {
		t.Errorf("left are %v, want %s alone", left, fresh)
	}
	if err := s.drop(t.Context(), fresh); err != nil {
		t.Error(err)
	}
}

// verdict is a test that only notes how it ended.
type verdict struct {
	testing.TB
	failed, skipped string
}

func (v *verdict) Helper()                      {}
func (v *verdict) Fatalf(f string, args ...any) { v.failed = fmt.Sprintf(f, args...) }
func (v *verdict) Skipf(f string, args ...any)  { v.skipped = fmt.Sprintf(f, args...) }

func TestWithoutPostgreSQL(t *testing.T) {
	t.Parallel()
	var v verdict
	giveUp(&v, devpg.ErrNotFound, false)
	if v.skipped != "" || !strings.Contains(v.failed, "apt-get install -y postgresql") || !strings.Contains(v.failed, "TEST_DATABASE_URL") {
		t.Errorf("%+v", v)
	}
	v = verdict{}
	giveUp(&v, devpg.ErrNotFound, true)
	if v.failed != "" || !strings.Contains(v.skipped, "NOT TESTED") {
		t.Errorf("with -short: %+v", v)
	}
	v = verdict{}
	giveUp(&v, errors.New("it is there and does not start"), true)
	if v.skipped != "" || v.failed == "" {
		t.Errorf("with -short, another error: %+v", v)
	}
}

const childEnv = "PGTEST_TEST_CHILD"

func TestChild(t *testing.T) { // not parallel: it is a process of TestServerGoesWithTheBinary
	if os.Getenv(childEnv) == "" {
		t.Skip("run by TestServerGoesWithTheBinary")
	}
	db := DB(t)
	var dir string
	if err := db.QueryRow(t.Context(), "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("child %s %s\n", dir, theServer(t).dsn(""))
}

// TestServerGoesWithTheBinary is why no package needs a TestMain.
func TestServerGoesWithTheBinary(t *testing.T) {
	t.Parallel()
	if _, err := devpg.Find(); errors.Is(err, devpg.ErrNotFound) && os.Getenv("TEST_DATABASE_URL") != "" {
		t.Skipf("NOT TESTED: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), childEnv+"=1", "TEST_DATABASE_URL=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, said, _ := strings.Cut(string(out), "child ")
	var dir, dsn string
	if _, err := fmt.Sscan(said, &dir, &dsn); err != nil {
		t.Fatalf("the binary says %q: %v", out, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		conn, connectErr := pgx.Connect(ctx, dsn)
		if connectErr == nil {
			if err := conn.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
		_, statErr := os.Stat(dir)
		if connectErr != nil && errors.Is(statErr, fs.ErrNotExist) {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("the binary has ended, but its server answers (%v) or its directory is there (%v)", connectErr, statErr)
		}
	}
}

func BenchmarkDB(b *testing.B) {
	s := theServer(b)
	for b.Loop() {
		name, err := s.clone(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := s.drop(b.Context(), name); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTx(b *testing.B) {
	pool, err := theServer(b).shared()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		tx, err := pool.Begin(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := tx.Rollback(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
