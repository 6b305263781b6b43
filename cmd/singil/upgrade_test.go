package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// beforeNewestMigration is the newest commit that has all migrations but the
// newest: the last program of the schema before this one. Without the history
// there is none.
func beforeNewestMigration(t *testing.T) string {
	t.Helper()
	git := func(args ...string) []string {
		out, err := exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
		if err != nil {
			t.Skipf("NOT TESTED: git %s: %v", strings.Join(args, " "), err)
		}
		return strings.Fields(string(out))
	}
	files, err := filepath.Glob("../../migrations/[0-9]*.sql")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	var want []string
	for _, file := range files[:len(files)-1] { // in the order of their numbers
		want = append(want, "migrations/"+filepath.Base(file))
	}
	for _, commit := range git("rev-list", "HEAD") {
		have := slices.DeleteFunc(git("ls-tree", "--name-only", commit, "migrations/"), func(name string) bool { return !strings.HasSuffix(name, ".sql") })
		if slices.Equal(have, want) {
			return commit
		}
	}
	t.Skipf("NOT TESTED: no commit here has the migrations up to %s and no more", want[len(want)-1])
	return ""
}

// TestOlderProgramOnNewerSchema is the middle of an upgrade: the schema is
// migrated, the program of before still runs, at first alone, then beside the new
// one, and is then gone. Nothing is charged twice and nothing lost.
func TestOlderProgramOnNewerSchema(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs two binaries for a while")
	}
	t.Parallel()
	commit := beforeNewestMigration(t)
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
