package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCompletionOfIDs(t *testing.T) {
	d := newDesk(t, 3)
	for _, tt := range []struct{ args, want, not string }{
		{"subscriptions pause s", "s1\tactive", "u1"},
		{"subscriptions show %", "", "s1"},
		{"subscriptions show s1 ", "", "s2"}, // it takes one
		{"customers show u", "u2", "s1"},
		{"retry ", d.invoice("s0"), "u1"},
		{"invoices list -o ", "jsonl", "s1"},
	} {
		args := append([]string{"__complete"}, strings.Split(tt.args, " ")...)
		code, stdout, stderr := command(t, d.dsn, args...)
		if code != 0 || !strings.Contains(stdout, tt.want) || strings.Contains(stdout, tt.not) {
			t.Errorf("%s: %d %s %s", tt.args, code, stdout, stderr)
		}
	}
	// Without a database there is nothing to choose from, soon.
	begun := time.Now()
	if code, stdout, _ := command(t, "postgres://nobody@192.0.2.1/none", "__complete", "why", "s"); code != 0 || strings.Contains(stdout, "s1") || time.Since(begun) > 5*time.Second {
		t.Errorf("%d %s after %s", code, stdout, time.Since(begun))
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, _ := command(t, "", "completion", shell); code != 0 || !strings.Contains(stdout, "singil") {
			t.Errorf("%s: %d", shell, code)
		}
	}
}

func TestManPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"man", dir}, &stdout, &stderr); code != 0 {
		t.Fatalf("%d %s", code, stderr.String())
	}
	page, err := os.ReadFile(filepath.Join(dir, "singil-retry.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`.TH "SINGIL\-RETRY" 1`, `\-\-older\-than`, "130 interrupted", ".SH EXAMPLES"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%s is not in the page", want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "singil-subscriptions-pause.1")); err != nil {
		t.Error(err)
	}
}
