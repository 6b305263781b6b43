// Package arrows holds the arrows between the rooms of this module: which
// package may import which other. It consists of this test alone. The same
// picture stands in CONTRIBUTING.md; a rule that changes, changes in both.
package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/singil/singil"

// A room is a folder with everything below it, unless a folder below it is a
// room of its own.
type room struct {
	path string
	// rooms and modules are what it may import: of ours, and of others'. The
	// standard library is free to all.
	rooms   []string
	modules []string
	// never may not be anywhere below it, however indirectly it got there.
	never []string
	// onlyIn names the files that may import a room, as filepath.Match has it.
	onlyIn map[string]string
	// tests are rooms that its tests may import beside those.
	tests []string
	// testOnly rooms may be in no list above but that of another such room.
	testOnly bool
}

const (
	backoff    = "github.com/cenkalti/backoff/v4"
	cobra      = "github.com/spf13/cobra"
	cron       = "github.com/robfig/cron/v3"
	env        = "github.com/caarlos0/env/v11"
	goose      = "github.com/pressly/goose/v3"
	huma       = "github.com/danielgtaylor/huma/v2"
	jsonschema = "github.com/santhosh-tekuri/jsonschema/v6"
	openapi    = "github.com/pb33f/libopenapi"
	pgx        = "github.com/jackc/pgx/v5"
	pgxuuid    = "github.com/vgarvardt/pgx-google-uuid/v5"
	prometheus = "github.com/prometheus/client_golang"
	rate       = "golang.org/x/time"
	river      = "github.com/riverqueue/river"
	riverUI    = "riverqueue.com/riverui"
	syncs      = "golang.org/x/sync"
	term       = "golang.org/x/term"
	uuid       = "github.com/google/uuid"
)

// rooms also has those that nothing lives in yet: their rules come first.
var rooms = []room{
	{
		path: "cmd/singil",
		rooms: []string{
			"server", "scheduler", "worker", "billing", "paymongo", "paymongo/sandbox", "migrations", "internal/devpg",
		},
		modules: []string{cobra, env, pgx, pgxuuid, prometheus, river, syncs, term, uuid},
	},
	{
		path:    "server",
		rooms:   []string{"worker", "billing"},
		modules: []string{huma, pgx, prometheus, rate, river, riverUI, uuid},
		// A webhook's whole way can be seen only here, and worker's gateway is made
		// of a client.
		tests: []string{"paymongo"},
	},
	{
		path:    "scheduler",
		rooms:   []string{"worker"},
		modules: []string{cron, river},
	},
	{
		path:    "worker",
		rooms:   []string{"billing", "paymongo", "internal/failpoint"},
		modules: []string{pgx, prometheus, river, uuid},
		// Where PayMongo's words and ours meet.
		onlyIn: map[string]string{"paymongo": "gateway*.go"},
	},
	{
		// The domain and its SQL. It knows no queue, no network and no gateway.
		path:    "billing",
		rooms:   []string{"internal/failpoint"},
		modules: []string{pgx, uuid},
		never:   []string{river, "net/http"},
	},
	{
		// Publishable by itself: nothing of ours comes along.
		path:    "paymongo",
		modules: []string{backoff, rate},
	},
	{
		// An independent witness: were it to share code with the client, the
		// two could be wrong in the same way and agree.
		path: "paymongo/sandbox",
	},
	{
		path:    "migrations",
		modules: []string{goose, pgx, river},
	},
	{
		// Where a process dies in tests. A normal build has an empty function of it.
		path: "internal/failpoint",
	},
	{
		path:    "internal/devpg",
		modules: []string{pgx},
	},
	{
		// It measures the program from outside, on a database and a provider of its own.
		path:    "bench",
		rooms:   []string{"billing", "migrations", "internal/devpg", "bench/naive", "bench/scale", "bench/stub"},
		modules: []string{pgx, river},
	},
	{
		// Large tables: the sweep and the charges on them, in one process.
		path:    "bench/scale",
		rooms:   []string{"worker", "billing", "migrations", "internal/devpg"},
		modules: []string{pgx, river, syncs, uuid},
	},
	{
		// What singil is measured against has nothing of singil's.
		path:    "bench/naive",
		modules: []string{pgx, river},
	},
	{
		path: "bench/stub",
	},
	{
		path:     "internal/pgtest",
		rooms:    []string{"internal/devpg", "migrations"},
		modules:  []string{pgx},
		testOnly: true,
	},
	{
		path:     "internal/arrows",
		testOnly: true,
	},
	{
		path:     "internal/contract",
		modules:  []string{openapi, jsonschema},
		testOnly: true,
	},
	{
		path:     "internal/docs",
		testOnly: true,
	},
	{
		path:     "internal/mutants",
		testOnly: true,
	},
}

// A test may import these beside what its room may. The sandbox is no reason to
// import the client: its own tests speak HTTP.
var (
	testRooms   = []string{"paymongo/sandbox", "internal/contract", "internal/pgtest", "internal/devpg"}
	testModules = []string{"github.com/google/go-cmp", "github.com/rogpeppe/go-internal", "pgregory.net/rapid"}
)

// listed is a package as `go list -deps -json` tells of it.
type listed struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string

	fileImports map[string][]string // by the name of the file, without tests
}

func TestArrows(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	readSources(t, root)

	packages := list(t, root)
	if len(packages) == 0 {
		t.Fatal("go list found no package of this module: the test looks at the wrong place")
	}
	for _, broken := range brokenArrows(packages) {
		t.Error(broken)
	}
}

// TestBrokenArrowsAreSeen keeps the test above from being green for the wrong reason.
func TestBrokenArrowsAreSeen(t *testing.T) {
	t.Parallel()
	ours := func(path string) string { return module + "/" + path }

	for _, tt := range []struct {
		name string
		pkg  listed
		want []string
	}{
		{
			name: "BelowARoomItsRuleHolds",
			pkg:  listed{ImportPath: ours("billing/dunning"), Imports: []string{ours("paymongo")}},
			want: []string{"billing/dunning imports paymongo, which billing may not"},
		},
		{
			name: "BillingReachesHTTPThroughOthers",
			pkg:  listed{ImportPath: ours("billing"), Imports: []string{pgx}, Deps: []string{pgx, "net/http"}},
			want: []string{"billing depends on net/http, which may be nowhere below billing"},
		},
		{
			name: "BillingUsesRiver",
			pkg:  listed{ImportPath: ours("billing"), Imports: []string{river + "/rivertype"}},
			want: []string{"billing imports " + river + "/rivertype, which billing may not"},
		},
		{
			name: "ClientUsesSandbox",
			pkg:  listed{ImportPath: ours("paymongo"), Imports: []string{ours("paymongo/sandbox")}},
			want: []string{"paymongo imports paymongo/sandbox, which paymongo may not"},
		},
		{
			name: "ModuleWithTheSameBeginning",
			pkg:  listed{ImportPath: ours("paymongo"), Imports: []string{"golang.org/x/timeless"}},
			want: []string{"paymongo imports golang.org/x/timeless, which paymongo may not"},
		},
		{
			name: "NoRule",
			pkg:  listed{ImportPath: ours("util")},
			want: []string{"util has no rule: say in internal/arrows and CONTRIBUTING.md what it may import and who may import it"},
		},
		{
			name: "Obeyed",
			pkg: listed{
				ImportPath:   ours("paymongo"),
				Imports:      []string{"net/http", backoff, rate + "/rate", ours("paymongo/internal/wire")},
				TestImports:  []string{"github.com/google/go-cmp/cmp"},
				XTestImports: []string{ours("paymongo"), ours("paymongo/sandbox")},
			},
		},
		{
			name: "SandboxTestUsesClient",
			pkg:  listed{ImportPath: ours("paymongo/sandbox"), XTestImports: []string{ours("paymongo")}},
			want: []string{"a test of paymongo/sandbox imports paymongo, which paymongo/sandbox may not"},
		},
		{
			name: "SandboxUsesALibrary",
			pkg:  listed{ImportPath: ours("paymongo/sandbox"), Imports: []string{cobra}},
			want: []string{"paymongo/sandbox imports " + cobra + ", which paymongo/sandbox may not"},
		},
		{
			name: "SandboxUsesClient",
			pkg:  listed{ImportPath: ours("paymongo/sandbox"), Imports: []string{ours("paymongo")}},
			want: []string{"paymongo/sandbox imports paymongo, which paymongo/sandbox may not"},
		},
		{
			name: "ServerTestMakesAClient",
			pkg:  listed{ImportPath: ours("server"), XTestImports: []string{ours("paymongo")}},
		},
		{
			name: "ServerUsesTheClient",
			pkg:  listed{ImportPath: ours("server"), Imports: []string{ours("paymongo")}},
			want: []string{"server imports paymongo, which server may not"},
		},
		{
			name: "TestHelpersInWhatShips",
			pkg:  listed{ImportPath: ours("cmd/singil"), Imports: []string{ours("internal/pgtest")}},
			want: []string{"cmd/singil imports internal/pgtest, which cmd/singil may not"},
		},
		{
			name: "TwoFilesSpeakBothVocabularies",
			pkg: listed{
				ImportPath: ours("worker"),
				Imports:    []string{ours("paymongo"), ours("billing")},
				fileImports: map[string][]string{
					"charge.go":  {ours("paymongo"), ours("billing")},
					"gateway.go": {ours("paymongo"), ours("billing")}, "gateway_x.go": {ours("paymongo")},
				},
			},
			want: []string{"worker/charge.go imports paymongo, which only gateway*.go may"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := brokenArrows([]listed{tt.pkg})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("broken arrows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRulesAgreeWithThemselves(t *testing.T) {
	t.Parallel()
	byPath := map[string]room{}
	for _, r := range rooms {
		if _, twice := byPath[r.path]; twice {
			t.Errorf("%s has two rules", r.path)
		}
		byPath[r.path] = r
	}
	for _, r := range rooms {
		for _, path := range r.tests {
			if _, exists := byPath[path]; !exists {
				t.Errorf("tests of %s may import %s, which is no room", r.path, path)
			}
		}
		for _, path := range r.rooms {
			other, exists := byPath[path]
			if !exists {
				t.Errorf("%s may import %s, which is no room", r.path, path)
			}
			if other.testOnly && !r.testOnly {
				t.Errorf("%s may import %s, which is for tests", r.path, path)
			}
		}
	}
	for _, path := range testRooms {
		if _, exists := byPath[path]; !exists {
			t.Errorf("tests may import %s, which is no room", path)
		}
	}
}

// brokenArrows says in a sentence each what the packages may not do.
func brokenArrows(packages []listed) []string {
	var broken []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		r, found := roomOf(name)
		if !found {
			broken = append(broken, name+" has no rule: say in internal/arrows and CONTRIBUTING.md what it may import and who may import it")
			continue
		}
		for _, path := range p.Imports {
			if !mayImport(path, r.path, r.rooms, r.modules) {
				broken = append(broken, fmt.Sprintf("%s imports %s, which %s may not", name, short(path), r.path))
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if !mayImport(path, r.path, slices.Concat(r.rooms, r.tests, testRooms), slices.Concat(r.modules, testModules)) {
				broken = append(broken, fmt.Sprintf("a test of %s imports %s, which %s may not", name, short(path), r.path))
			}
		}
		for _, never := range r.never {
			if i := slices.IndexFunc(p.Deps, func(path string) bool { return within(path, never) }); i >= 0 {
				broken = append(broken, fmt.Sprintf("%s depends on %s, which may be nowhere below %s", name, p.Deps[i], r.path))
			}
		}
		for path, only := range r.onlyIn {
			for file, imports := range p.fileImports {
				if may, err := filepath.Match(only, file); (!may || err != nil) && slices.Contains(imports, module+"/"+path) {
					broken = append(broken, fmt.Sprintf("%s/%s imports %s, which only %s may", name, file, path, only))
				}
			}
		}
	}
	slices.Sort(broken)
	return broken
}

// mayImport tells whether a package of the room self may import path.
func mayImport(path, self string, ourRooms, modules []string) bool {
	if name, ours := strings.CutPrefix(path, module+"/"); ours {
		r, found := roomOf(name)
		return found && (r.path == self || slices.Contains(ourRooms, r.path))
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(modules, func(m string) bool { return within(path, m) })
}

// roomOf finds the innermost room that a package of this module is in.
func roomOf(name string) (room, bool) {
	var in room
	for _, r := range rooms {
		if within(name, r.path) && len(r.path) > len(in.path) {
			in = r
		}
	}
	return in, in.path != ""
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func short(path string) string { return strings.TrimPrefix(path, module+"/") }

// list asks the go command for every package of this module.
func list(t *testing.T, root string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-json=ImportPath,Dir,GoFiles,CgoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}

	var packages []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("decode the output of %s: %v", cmd, err)
		}
		if !within(p.ImportPath, module) {
			continue
		}
		p.fileImports = map[string][]string{}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
			p.fileImports[name] = importsOf(t, filepath.Join(p.Dir, name))
		}
		packages = append(packages, p)
	}
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, spec := range parsed.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", file, spec.Path.Value, err)
		}
		imports = append(imports, path)
	}
	return imports
}

// readSources reads every Go file of the module, for the sake of `go test`: it
// repeats a cached result unless a file changed that the test itself read, and
// cannot see what the go command reads for us.
func readSources(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" || entry.Name() == "bin") {
			return fs.SkipDir
		}
		if entry.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		_, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
