package devpg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// install makes a bin directory whose postgres says that it is of this version.
func install(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"initdb", "postgres"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %s'\n", name, version)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

func TestFind(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	old := install(t, filepath.Join(root, "lib/9/bin"), "9.6.24")
	install(t, filepath.Join(root, "lib/13/bin"), "13.22")
	fifteen := install(t, filepath.Join(root, "lib/15/bin"), "15.18 (Debian 15.18-0+deb12u1)")
	beta := install(t, filepath.Join(root, "pgsql-19/bin"), "19beta1")
	if err := os.MkdirAll(filepath.Join(root, "lib/17/bin"), 0o755); err != nil { // a client alone
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "path"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"new": fifteen, "old": old} {
		if err := os.Symlink(filepath.Join(target, "initdb"), filepath.Join(root, "path", name)); err != nil {
			t.Fatal(err)
		}
	}
	nowhere := func(string) (string, error) { return "", exec.ErrNotFound }
	onPath := func(name string) func(string) (string, error) {
		return func(string) (string, error) { return filepath.Join(root, "path", name), nil }
	}
	lib, pgsql := filepath.Join(root, "lib/*/bin"), filepath.Join(root, "pgsql-*/bin")

	for _, tt := range []struct {
		name     string
		pgbin    string
		lookPath func(string) (string, error)
		places   []string
		want     string
	}{
		{name: "NewestWithAServer", lookPath: nowhere, places: []string{lib}, want: fifteen},
		{name: "PGBINFirst", pgbin: beta, lookPath: onPath("new"), places: []string{lib}, want: beta},
		{name: "PathBeforePlaces", lookPath: onPath("new"), places: []string{pgsql}, want: fifteen},
		{name: "PathIsTooOld", lookPath: onPath("old"), places: []string{pgsql}, want: beta},
		{name: "PlacesInTheirOrder", lookPath: nowhere, places: []string{filepath.Join(root, "none/*"), lib, pgsql}, want: fifteen},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := find(tt.pgbin, tt.lookPath, tt.places)
			if got != tt.want || err != nil {
				t.Errorf("found %q, %v, want %q", got, err, tt.want)
			}
		})
	}

	t.Run("NoneSaysHowToGetOne", func(t *testing.T) {
		t.Parallel()
		_, err := find("", nowhere, nil)
		if !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		for _, want := range []string{"apt-get install -y postgresql", "brew install postgresql@17", "PGBIN", "DATABASE_URL"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	})
	t.Run("WrongPGBINIsNotPassedOver", func(t *testing.T) {
		t.Parallel()
		for pgbin, want := range map[string]string{
			old:                               "is too old",
			filepath.Join(root, "lib/17/bin"): "initdb",
			filepath.Join(root, "nothing"):    "no such file",
		} {
			_, err := find(pgbin, onPath("new"), []string{lib})
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "PGBIN="+pgbin) {
				t.Errorf("PGBIN=%s: %v, want %q in it", pgbin, err, want)
			}
		}
	})
}

// TestScriptLooksInTheSamePlaces keeps `make test` from installing what Find would have found, and from passing over
// what it would not.
func TestScriptLooksInTheSamePlaces(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../../tools/need-postgres.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range places {
		if !strings.Contains(string(script), place) {
			t.Errorf("tools/need-postgres.sh does not look in %s", place)
		}
	}
	if want := fmt.Sprintf("-ge %d", oldest); !strings.Contains(string(script), want) {
		t.Errorf("tools/need-postgres.sh does not ask for a version %s", want)
	}
}
