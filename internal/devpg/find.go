package devpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNotFound says what to do about it.
var ErrNotFound = errors.New("no PostgreSQL 14 or newer here: install it with `apt-get install -y postgresql` (Debian, Ubuntu) " +
	"or `brew install postgresql@17` (macOS), or name its bin directory in PGBIN, or set DATABASE_URL to a database that is already there")

// What tools/need-postgres.sh looks for too: a change here is a change there.
const oldest = 14

var places = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // PGDG on Red Hat and its like
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin", // Homebrew on Intel
}

// Find names the directory of PostgreSQL's server programs: $PGBIN, which must be right if it is set, else where
// initdb on PATH really is, else the newest in the places where packages put them.
func Find() (bin string, err error) { return find(os.Getenv("PGBIN"), exec.LookPath, places) }

func find(pgbin string, lookPath func(string) (string, error), places []string) (string, error) {
	if pgbin != "" {
		bin, err := usable(pgbin)
		if err != nil {
			return "", fmt.Errorf("PGBIN=%s: %w", pgbin, err)
		}
		return bin, nil
	}
	if initdb, err := lookPath("initdb"); err == nil {
		// On PATH may be a link out of another directory, and initdb looks for postgres beside itself.
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil {
			if bin, err := usable(filepath.Dir(initdb)); err == nil {
				return bin, nil
			}
		}
	}
	for _, place := range places {
		found, err := filepath.Glob(place)
		if err != nil {
			return "", fmt.Errorf("look in %s: %w", place, err)
		}
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(numberIn(b), numberIn(a)) })
		for _, dir := range found {
			if bin, err := usable(dir); err == nil {
				return bin, nil
			}
		}
	}
	return "", ErrNotFound
}

// usable resolves a bin directory that has what we need, new enough.
func usable(dir string) (string, error) {
	bin, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return "", err
	}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(bin, name)); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask for the version of %s: %w", filepath.Join(bin, "postgres"), err)
	}
	version := strings.TrimSpace(string(out))
	if numberIn(version) < oldest {
		return "", fmt.Errorf("%s is too old, PostgreSQL %d or newer is needed", version, oldest)
	}
	return bin, nil
}

var number = regexp.MustCompile(`\d+`)

// numberIn is the first number in a path or in the answer to --version, 0 if there is none.
func numberIn(s string) int {
	n, err := strconv.Atoi(number.FindString(s))
	if err != nil {
		return 0
	}
	return n
}
