// Package docs holds the documents to the code: what they name has to exist. It
// consists of this test alone.
package docs

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode"
)

const root = "../.."

// What is looked for between backticks.
var (
	fence      = regexp.MustCompile("(?ms)^```.*?^```$")
	span       = regexp.MustCompile("`([^`]+)`")
	makeTarget = regexp.MustCompile(`^make ([a-z-]+)`)
	goTest     = regexp.MustCompile(`go test (\./[\w/]+).* -run '?\^?([\w|/]+)`)
	member     = regexp.MustCompile(`^([a-z][\w/]*)\.(\w+(?:\.\w+)?)((?:/[^/]+)*)$`) // package.Name, package.TestName/Sub, table.rule
	file       = regexp.MustCompile(`^[\w./-]+\.(?:go|sql|md|sh|yml|golden|json|txt)$`)
	word       = regexp.MustCompile(`^\w+$`)
	command    = regexp.MustCompile(`^singil ([a-z-]+)`)
	link       = regexp.MustCompile(`\]\(([^)#:]+)\)`)
)

// code is what there is to be named.
type code struct {
	declared map[string]map[string]bool // by package: functions, types, constants, and methods as Type.Name
	tests    map[string]string          // by package: the text of its tests
	sql      string
	text     string // of all Go files
	words    map[string]bool
	targets  map[string]bool
}

func TestEverythingNamedExists(t *testing.T) {
	t.Parallel()
	c := read(t)
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		blocks := fence.FindAllString(string(text), -1)
		prose := fence.ReplaceAllStringFunc(string(text), func(block string) string { return strings.Repeat("\n", strings.Count(block, "\n")) })
		named := strings.Split(strings.Join(blocks, "\n"), "\n")
		for _, paragraph := range strings.Split(prose, "\n\n") {
			if strings.Count(paragraph, "`")%2 != 0 {
				t.Errorf("%s: a backtick is left open in %q", filepath.Base(path), paragraph)
			}
			for _, m := range span.FindAllStringSubmatch(paragraph, -1) {
				named = append(named, strings.Join(strings.Fields(m[1]), " "))
			}
			for _, m := range link.FindAllStringSubmatch(paragraph, -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
					t.Errorf("%s: %v", filepath.Base(path), err)
				}
			}
		}
		for _, name := range named {
			if missing := c.missing(name); missing != "" {
				t.Errorf("%s: `%s`: %s", filepath.Base(path), name, missing)
			}
		}
	}
}

// TestWhatIsMissingIsSeen keeps the other test from agreeing with everything.
func TestWhatIsMissingIsSeen(t *testing.T) {
	t.Parallel()
	c := read(t)
	for text, exists := range map[string]bool{
		"make crash": true, "make crush": false, "internal/docs.TestWhatIsMissingIsSeen": true, "internal/docs.TestUnheardOf": false,
		"billing.TestModel/A2False": true, "billing.TestModel/A3False": false, "billing.Arm": true, "billing.Disarm": false,
		"billing.Standing.Next": true, "billing.Standing.Previous": false, "attempts.one_open_attempt": true, "attempts.two_open_attempts": false,
		"migrations/0001_core.sql": true, "migrations/0000_nothing.sql": false, "SINGIL_WATCH": true, "SINGIL_SLEEP": false,
		"singil recover": true, "singil forget": false, "go test ./billing -run Model -v": true, "go test ./billing -run Unheard": false,
		"migrations.TestRaces/second intents": true, "migrations.TestRaces/third intents": false,
	} {
		if missing := c.missing(text); exists != (missing == "") {
			t.Errorf("%s exists %t: %q", text, exists, missing)
		}
	}
}

// missing says what of a span is not there; of prose it says nothing.
func (c *code) missing(text string) string {
	switch {
	case makeTarget.MatchString(text):
		return unless(c.targets[makeTarget.FindStringSubmatch(text)[1]], "no such target")
	case goTest.MatchString(text):
		m := goTest.FindStringSubmatch(text)
		for _, pattern := range strings.Split(m[2], "|") {
			name, subs, _ := strings.Cut(pattern, "/")
			tests := c.tests[strings.TrimPrefix(m[1], "./")]
			if !regexp.MustCompile(`(?m)^func \w*`+name).MatchString(tests) || subs != "" && !strings.Contains(tests, subs) {
				return "no such test: " + pattern
			}
		}
	case command.MatchString(text):
		return unless(c.words["Use "+command.FindStringSubmatch(text)[1]], "no such command")
	case file.MatchString(text):
		_, err := os.Stat(filepath.Join(root, text))
		return unless(err == nil, "no such file")
	case member.MatchString(text):
		m := member.FindStringSubmatch(text)
		names, isPackage := c.declared[m[1]]
		if !isPackage {
			rule := strings.Contains(c.sql, "TABLE "+m[1]+" ") && regexp.MustCompile(`\b`+m[2]+`\b`).MatchString(c.sql)
			return unless(rule || strings.Contains(c.text, `"`+text+`"`) || strings.Contains(c.text, text+"("), "no such package, rule, event or call")
		}
		if !names[m[2]] {
			return "no such name"
		}
		for _, sub := range strings.Split(m[3], "/")[1:] {
			if m[3] != "" && !strings.Contains(c.tests[m[1]], `"`+sub+`"`) {
				return "no such subtest"
			}
		}
	case word.MatchString(text):
		return unless(c.words[text], "no such word in the code")
	}
	return ""
}

func unless(there bool, what string) string {
	if there {
		return ""
	}
	return what
}

func read(t *testing.T) *code {
	t.Helper()
	c, err := readOnce()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// readOnce takes in every Go and SQL file, and the Makefile.
var readOnce = sync.OnceValues(func() (*code, error) {
	c := &code{declared: map[string]map[string]bool{}, tests: map[string]string{}, words: map[string]bool{}, targets: map[string]bool{}}
	use := regexp.MustCompile(`(?:Use:\s+|Command\(|group\()"([a-z-]+)`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, extension := d.Name(), filepath.Ext(path)
		switch {
		case d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "docs" && filepath.Dir(path) == root):
			return filepath.SkipDir
		case d.IsDir() || extension != ".go" && extension != ".sql" && name != "Makefile":
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := string(content)
		if path == filepath.Join(root, "internal", "docs", "docs_test.go") { // it names what is not there
			return c.declare(path, text)
		}
		switch extension {
		case ".go":
			c.text += text
			err = c.declare(path, text)
		case ".sql":
			c.sql += text
		default:
			for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(text, -1) {
				c.targets[m[1]] = true
			}
		}
		c.addWords(text)
		for _, m := range use.FindAllStringSubmatch(text, -1) {
			c.words["Use "+m[1]] = true
		}
		return err
	})
	metrics, readErr := os.ReadFile(filepath.Join(root, "cmd", "singil", "testdata", "metrics.golden"))
	c.addWords(string(metrics))
	return c, errors.Join(err, readErr)
})

func (c *code) addWords(text string) {
	for w := range strings.FieldsFuncSeq(text, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		c.words[w] = true
	}
}

func (c *code) declare(path, text string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	dir, err := filepath.Rel(root, filepath.Dir(path))
	if err != nil {
		return err
	}
	dir = filepath.ToSlash(dir)
	names := c.declared[dir]
	if names == nil {
		names = map[string]bool{}
		c.declared[dir] = names
	}
	if strings.HasSuffix(path, "_test.go") {
		c.tests[dir] += text
	}
	for _, d := range parsed.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				receiver := d.Recv.List[0].Type
				if star, ok := receiver.(*ast.StarExpr); ok {
					receiver = star.X
				}
				if generic, ok := receiver.(*ast.IndexListExpr); ok {
					receiver = generic.X
				}
				if of, ok := receiver.(*ast.Ident); ok {
					name = of.Name + "." + name
				}
			}
			names[name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						names[n.Name] = true
					}
				}
			}
		}
	}
	return nil
}
