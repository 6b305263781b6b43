// Package mutants tests the tests. It has a table of deliberate bugs, each a
// short change of a source file, and of the tests that are expected to catch
// them. It consists of tests alone: see TestMutants.
package mutants

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/singil/singil/internal/pgtest"
)

var (
	all  = flag.Bool("mutants", false, "run every mutant in TestMutants; it takes minutes")
	only = flag.String("mutant", "", "run the mutants of TestMutants whose names match this regular expression, and show what the tests said")
)

// patience is how long one layer may take. What is caught later is caught too late.
const patience = time.Minute

// A mutant is one deliberate bug.
type mutant struct {
	name  string
	what  string // the bug, in a sentence
	edits []edit
	// layers are the tests that may catch it, the cheapest first.
	layers []layer
	// harmless tells what makes the bug one that no test can see; then net is the
	// test of that. Both are empty with any other mutant.
	harmless string
	net      layer
}

// An edit of a source file.
type edit struct {
	file string // from the module's root
	old  string // stands there exactly once
	new  string
}

// A layer is some tests of one package.
type layer struct {
	name string
	pkg  string
	run  string
	args []string // flags of the test binary
}

func (l layer) with(run string) layer {
	l.run = run
	return l
}

// root is where the module is, seen from here.
const root = "../.."

// TestEveryMutantFits holds the table to the source: a text that was changed, or
// that stands there twice, makes a mutant of something else.
func TestEveryMutantFits(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, m := range mutants {
		if known[m.name] {
			t.Errorf("two mutants are called %s", m.name)
		}
		known[m.name] = true
		if len(m.edits) == 0 || len(m.layers) == 0 || m.what == "" || (m.harmless == "") != (m.net.run == "") {
			t.Errorf("%s: a mutant needs a sentence, an edit and a layer, and one that is harmless the test of what makes it so", m.name)
		}
		if _, err := m.mutated(); err != nil {
			t.Error(err)
		}
		for _, l := range append(slices.Clone(m.layers), m.net) {
			if err := l.exists(); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
	}
}

// exists looks for each test of the pattern in the package's files: a pattern
// that matches nothing passes.
func (l layer) exists() error {
	for _, pattern := range strings.Split(l.run, "|") {
		name, _, _ := strings.Cut(pattern, "/")
		name = strings.Trim(name, "^$")
		if name == "" {
			continue
		}
		files, err := filepath.Glob(filepath.Join(root, l.pkg, "*_test.go"))
		if err != nil {
			return err
		}
		found := false
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			found = found || bytes.Contains(source, []byte("\nfunc "+name+"(t *testing.T)"))
		}
		if !found {
			return fmt.Errorf("%s has no test %s", l.pkg, name)
		}
	}
	return nil
}

// mutated is the text of every file that the mutant changes.
func (m mutant) mutated() (map[string]string, error) {
	files := map[string]string{}
	for _, e := range m.edits {
		if _, read := files[e.file]; !read {
			source, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, fmt.Errorf("mutant %s: %w", m.name, err)
			}
			files[e.file] = string(source)
		}
		if n := strings.Count(files[e.file], e.old); n != 1 {
			return nil, fmt.Errorf("mutant %s is stale: this stands %d times in %s, and must stand there once:\n%s", m.name, n, e.file, e.old)
		}
		files[e.file] = strings.Replace(files[e.file], e.old, e.new, 1)
	}
	return files, nil
}

// overlay writes the changed files aside, and the file that makes the go command
// take them in place of the module's own, which stay as they are.
func (m mutant) overlay(dir string) (string, error) {
	files, err := m.mutated()
	if err != nil {
		return "", err
	}
	base, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range files {
		aside := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(aside, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(base, file)] = aside
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}

// result of a mutant.
type result struct {
	verdict string // the test that caught it, or SURVIVED, or harmless, or why that is not known
	bad     bool
	took    time.Duration
}

// TestMutants makes every mutant in turn, and looks for a test that fails. The
// tests are run without any mutant first: one that fails anyway catches nothing.
func TestMutants(t *testing.T) {
	if !*all && *only == "" {
		t.Skip("make mutants")
	}
	names, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	chosen := slices.DeleteFunc(slices.Clone(mutants), func(m mutant) bool { return !names.MatchString(m.name) })
	if len(chosen) == 0 {
		t.Fatalf("no mutant is called %s", *only)
	}
	// One server for all: what each test binary would start for itself.
	database := pgtest.DSN(t)
	for _, l := range baseline(chosen) {
		if v := l.try(t.Context(), database, ""); v.verdict != "" {
			t.Fatalf("%s -run %s does not pass without a mutant: %s\n%s", l.pkg, l.run, v.verdict, v.output)
		}
	}
	var mu sync.Mutex
	results := map[string]result{}
	t.Run("Each", func(t *testing.T) {
		for _, m := range chosen {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				r := m.run(t, database)
				mu.Lock()
				defer mu.Unlock()
				results[m.name] = r
				if r.bad {
					t.Errorf("%s\n%s", m.what, r.verdict)
				} else {
					t.Log(r.verdict)
				}
			})
		}
	})
	t.Log("\n" + table(chosen, results))
}

// baseline is the layers of all mutants, a package once.
func baseline(chosen []mutant) []layer {
	var out []layer
	for _, m := range chosen {
		for _, l := range append(slices.Clone(m.layers), m.net) {
			if l.run == "" {
				continue
			}
			i := slices.IndexFunc(out, func(o layer) bool { return o.pkg == l.pkg && slices.Equal(o.args, l.args) })
			if i < 0 {
				out = append(out, l)
				continue
			}
			if !slices.Contains(strings.Split(out[i].run, "|"), l.run) {
				out[i].run += "|" + l.run
			}
		}
	}
	return out
}

func (m mutant) run(t *testing.T, database string) result {
	overlay, err := m.overlay(t.TempDir())
	if err != nil {
		return result{verdict: err.Error(), bad: true}
	}
	begun := time.Now()
	var trouble outcome
	for _, l := range m.layers {
		o := l.try(t.Context(), database, overlay)
		if o.verdict != "" && o.test == "" {
			trouble = o // a cheap layer that hangs leaves it to the next
		}
		if o.test == "" {
			continue
		}
		if *only != "" {
			t.Log(o.output)
		}
		r := result{verdict: l.name + ": " + o.test, took: time.Since(begun)}
		if m.harmless != "" {
			r.verdict, r.bad = "CAUGHT by "+r.verdict+", and the table says harmless: "+m.harmless, true
		}
		return r
	}
	r := result{took: time.Since(begun)}
	switch {
	case trouble.verdict != "":
		r.verdict, r.bad = "ERROR: "+trouble.verdict+"\n"+trouble.output, true
	case m.harmless != "":
		r.verdict = "harmless: " + m.harmless
	default:
		r.verdict, r.bad = "SURVIVED", true
	}
	return r
}

// outcome of a layer: nothing, or the test that failed, or why there is none.
type outcome struct {
	verdict, test, output string
}

// failed is a test in the output of go test -v, the subtest before its test.
var failed = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)

// try runs the tests of a layer on what the overlay makes of the module. Only a
// test that fails by itself counts; code that does not compile, or a test binary
// that hangs or dies, says nothing about the tests.
func (l layer) try(ctx context.Context, database, overlay string) outcome {
	args := slices.Concat([]string{
		"test", "-vet=off", "-count=1", "-failfast", "-timeout", patience.String(), "-run", l.run, "./" + l.pkg,
	}, l.args)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "TEST_DATABASE_URL="+database)
	if overlay != "" { // in the environment, for the tests that build a program
		cmd.Env = append(cmd.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if len(text) > 4000 {
		text = text[:4000] + " ..."
	}
	o := outcome{output: text}
	switch {
	case err == nil:
		return outcome{}
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		o.verdict = "it does not compile"
	case bytes.Contains(out, []byte("panic: test timed out")):
		o.verdict = "a test did not end within " + patience.String()
	default:
		o.verdict = cmp.Or(err.Error(), "failed")
		if names := failed.FindAllSubmatch(out, -1); len(names) > 0 {
			longest := slices.MaxFunc(names, func(a, b [][]byte) int { return len(a[1]) - len(b[1]) })
			o.test = string(longest[1])
		}
	}
	return o
}

func table(chosen []mutant, results map[string]result) string {
	var b strings.Builder
	bad := 0
	fmt.Fprintf(&b, "%-32s %7s  %s\n", "mutant", "seconds", "caught by")
	for _, m := range chosen {
		r := results[m.name]
		verdict, _, _ := strings.Cut(r.verdict, "\n")
		fmt.Fprintf(&b, "%-32s %7.1f  %s\n", m.name, r.took.Seconds(), verdict)
		if r.bad {
			bad++
		}
	}
	fmt.Fprintf(&b, "%d mutants, %d of them not as expected\n", len(chosen), bad)
	return b.String()
}
