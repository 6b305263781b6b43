package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// beforeNewestMigration is the newest commit of a repository that lacks a
// migration of its working tree: the last program of the schema before this one.
// Without the history there is none, and why tells. Numbers are no order: what is
// developed beside each other may come in with the higher one first.
func beforeNewestMigration(repository string) (commit, why string) {
	git := func(args ...string) ([]string, error) {
		out, err := exec.Command("git", append([]string{"-C", repository}, args...)...).Output()
		return strings.Fields(string(out)), err
	}
	have, err := filepath.Glob(filepath.Join(repository, "migrations", "[0-9]*.sql"))
	if err != nil || len(have) == 0 {
		return "", "there are no migrations in " + repository
	}
	commits, err := git("rev-list", "--first-parent", "HEAD")
	if err != nil {
		return "", "there is no git history here: git rev-list: " + err.Error()
	}
	for _, commit := range commits {
		had, err := git("ls-tree", "--name-only", commit, "migrations/")
		if err != nil {
			return "", "git ls-tree " + commit + ": " + err.Error()
		}
		had = slices.DeleteFunc(had, func(name string) bool { return !strings.HasSuffix(name, ".sql") })
		if len(had) == 0 {
			break // from before there was a schema
		}
		if slices.ContainsFunc(have, func(file string) bool { return !slices.Contains(had, "migrations/"+filepath.Base(file)) }) {
			return commit, ""
		}
	}
	return "", fmt.Sprintf("none of the %d commits here lacks one of the %d migrations; a shallow clone?", len(commits), len(have))
}

func TestBeforeNewestMigration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if commit, why := beforeNewestMigration(dir); commit != "" || !strings.Contains(why, "no migrations") {
		t.Errorf("an empty directory: %q %q", commit, why)
	}
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func(file string) string {
		t.Helper()
		file = filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("-- "+file), 0o600)); err != nil {
			t.Fatal(err)
		}
		git("add", "-A")
		git("commit", "-q", "-m", "with "+filepath.Base(file))
		return git("rev-parse", "HEAD")
	}
	if err := os.MkdirAll(filepath.Join(dir, "migrations"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "migrations", "0001_core.sql"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if commit, why := beforeNewestMigration(dir); commit != "" || !strings.Contains(why, "no git history") {
		t.Errorf("a tarball: %q %q", commit, why)
	}
	git("init", "-q")
	commit("migrations/0001_core.sql")
	if commit, why := beforeNewestMigration(dir); commit != "" || !strings.Contains(why, "shallow") {
		t.Errorf("one commit: %q %q", commit, why)
	}
	commit("migrations/0003_third.sql")
	want := commit("main.go") // the last one of that schema
	commit("migrations/0002_second.sql")
	commit("migrations/migrations.go")
	if got, why := beforeNewestMigration(dir); got != want {
		t.Errorf("%q %q, want %q", got, why, want)
	}
}

// TestOlderProgramOnNewerSchema is the middle of an upgrade: the schema is
// migrated, the program of before still runs, at first alone, then beside the new
// one, and is then gone. Nothing is charged twice and nothing lost.
func TestOlderProgramOnNewerSchema(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs two binaries for a while")
	}
	t.Parallel()
	commit, why := beforeNewestMigration("../..")
	if commit == "" {
		t.Skip("NOT TESTED: " + why)
	}
	dir := t.TempDir()
	older, newer := filepath.Join(dir, "older"), filepath.Join(dir, "newer")
	build(t, newer)
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "source.tar")
	for _, c := range []*exec.Cmd{
		exec.Command("git", "-C", "../..", "archive", "--format=tar", "-o", archive, commit),
		exec.Command("tar", "-xf", archive, "-C", source),
		exec.Command("go", "build", "-C", source, "-o", older, "./cmd/singil"),
	} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}

	tt := newTorture(t, newer)
	tt.subscribe(6)
	code, _, said := program(t, older, tt.dsn, []string{"migrate", "up"})
	if code == 0 || !strings.Contains(said, "newer singil") {
		t.Errorf("the older program migrates: %d %s", code, said)
	}
	for _, phase := range []struct {
		programs [2]string
		until    time.Time
	}{
		{[2]string{older, ""}, tortureStart.AddDate(0, 0, 10)},
		{[2]string{older, newer}, tortureStart.AddDate(0, 1, 10)},
		{[2]string{"", newer}, tortureStart.AddDate(0, 2, 10)},
	} {
		for i, binary := range phase.programs {
			switch {
			case binary == "":
				tt.kill(i)
			case tt.daemons[i] == nil:
				tt.binary = binary
				tt.start(i)
			}
		}
		before := tt.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`)
		for tt.now.Before(phase.until) {
			tt.quiet(3 * time.Second)
			tt.set(tt.next(phase.until))
		}
		tt.quiet(10 * time.Second)
		if after := tt.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`); after == before {
			t.Errorf("nothing was paid until %s, with %d daemons", phase.until, len(phase.programs))
		}
	}
	tt.settleAll()
	tt.heedAll()
	tt.report(0)
}
