package scale

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notPortable is what YugabyteDB (2.25, of PostgreSQL 15) has not, or has otherwise,
// and how it looks in our SQL. docs/scale.md says what would take its place.
var notPortable = map[string]*regexp.Regexp{
	"exclusion constraint":              regexp.MustCompile(`EXCLUDE USING gist`),
	"transition table":                  regexp.MustCompile(`REFERENCING (OLD|NEW) TABLE`),
	"deferred constraint trigger":       regexp.MustCompile(`CREATE CONSTRAINT TRIGGER`),
	"BRIN index":                        regexp.MustCompile(`USING brin`),
	"lock of a table":                   regexp.MustCompile(`LOCK TABLE`),
	"advisory lock":                     regexp.MustCompile(`pg_(try_)?advisory_`),
	"identity of the cluster":           regexp.MustCompile(`pg_control_(system|checkpoint)|pg_walfile|timeline_id\b.*pg_`),
	"storage parameters and autovacuum": regexp.MustCompile(`(?i)fillfactor|autovacuum_`),
}

// TestWhatDoesNotPort: docs/scale.md names every statement that would not run on
// YugabyteDB as it is, and none that is not there.
func TestWhatDoesNotPort(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	statements, err := Statements("../..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		sql, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		statements["migrations/"+filepath.Base(file)] = string(sql)
	}
	_, table, found := strings.Cut(string(page), "| what | where | in its place |")
	if !found {
		t.Fatal("docs/scale.md has lost its table")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for what, looks := range notPortable {
		var where []string
		for name, sql := range statements {
			if looks.MatchString(sql) {
				where = append(where, "`"+name+"`")
			}
		}
		slices.Sort(where)
		if want := "| " + what + " | " + strings.Join(where, ", ") + " |"; !strings.Contains(table, want) {
			t.Errorf("docs/scale.md should have the row\n%s", want)
		}
	}
}
