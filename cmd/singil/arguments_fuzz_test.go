package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
)

// FuzzArguments: whatever is typed, without a database and without keys, ends
// with one of the documented exit codes, with a word about it on the standard
// error, and with nothing on the standard output that a program could take for
// an answer.
func FuzzArguments(f *testing.F) {
	for _, line := range []string{
		"", "--help", "--version", "help retry", "version -o json", "version -o xml", "config -o json", "completion bash", "__complete retry ''",
		"migrate status", "migrate up", "import no-such-file --partial", "import - --dry-run", "export subscriptions --status active", "export --since yesterday invoices",
		"periods --anchor 2026-01-31T09:00:00+08:00 -n 3", "periods --anchor 2026-01-31T09:00:00+08:00 --at 9999-12-31T23:59:59Z -o json",
		"periods --anchor 2026-01-31T09:00:00+08:00 --interval day --count 1000 -n 100000", "periods --anchor 2026-01-31T09:00:00+08:00 --count -1",
		"clock show", "clock set tomorrow", "clock advance 99999999999d", "invoices list --limit -1", "invoices show x", "retry x --reason y", "retry",
		"freeze", "freeze --reason drill --actor ana", "unfreeze --reason over", "check", "recover --help", "events", "run now", "run", "charge-everybody", "-- -x", "-o", "--no-such-flag=\x00",
	} {
		f.Add(strings.Join(strings.Fields(line), "\n"))
	}
	for _, name := range []string{"DATABASE_URL", "PAYMONGO_SECRET_KEY", "PAYMONGO_SECRET_KEY_FILE", "PAYMONGO_WEBHOOK_SECRET"} {
		f.Setenv(name, "")
	}
	f.Chdir(f.TempDir())
	over, cancel := context.WithCancel(context.Background())
	cancel() // whatever would go on for ever ends at once
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\n")
		if slices.Contains(args, "demo") || slices.Contains(args, "sandbox") {
			t.Skip("they need no database, listen on addresses and write files")
		}
		var stdout, stderr bytes.Buffer
		code := run(over, args, &stdout, &stderr)
		if code < 0 || code > 7 {
			t.Fatalf("%q: exit code %d", args, code)
		}
		if code == 0 {
			return
		}
		if stdout.Len() > 0 {
			t.Fatalf("%q: exit code %d, and on the standard output: %s", args, code, stdout.String())
		}
		if !strings.Contains("\n"+stderr.String(), "\nsingil: ") {
			t.Fatalf("%q: exit code %d, and on the standard error: %s", args, code, stderr.String())
		}
	})
}
