package migrations_test

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// checkReleased compares files with the list of those that were released.
func checkReleased(files fs.FS, list string) error {
	var errs []error
	lines := bufio.NewScanner(strings.NewReader(list))
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		want, name, _ := strings.Cut(line, "  ")
		content, err := fs.ReadFile(files, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is released and must stay: %w", name, err))
		} else if got := fmt.Sprintf("%x", sha256.Sum256(content)); got != want {
			errs = append(errs, fmt.Errorf("%s is released and must not be edited, add a migration instead: %s, released as %s", name, got, want))
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}

func TestReleasedMigrationsAreAsReleased(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("released.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if err := checkReleased(os.DirFS("."), string(list)); err != nil {
		t.Error(err)
	}

	const hash = "b4e0497804e46e0a0b0b8c31975b062152d551bac49c3c2e80932567b4085dcd  0001_core.sql\n" // of "SELECT 1;\n"
	for content, want := range map[string]string{"SELECT 1;\n": "", "SELECT 2;\n": "must not be edited", "": "must stay"} {
		files := fstest.MapFS{}
		if content != "" {
			files["0001_core.sql"] = &fstest.MapFile{Data: []byte(content)}
		}
		err := checkReleased(files, "# released\n\n"+hash)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}
