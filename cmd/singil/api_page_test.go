package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/contract"
	"github.com/singil/singil/internal/pgtest"
)

// apiPagePatience is for the whole page. It waits for three charges.
const apiPagePatience = 3 * time.Minute

// pageBlock is a ```sh block of a page, and the block behind it, which is what it
// prints.
type pageBlock struct {
	line         int
	script       string
	kind, prints string // json, text, or empty: it prints nothing
}

// readPage finds the blocks of a page.
func readPage(t *testing.T, page string) (blocks []pageBlock) {
	t.Helper()
	var fence string
	var began int
	var text strings.Builder
	fresh := false // nothing but blank lines since the last ```sh block
	for i, line := range strings.Split(page, "\n") {
		switch {
		case fence == "" && strings.HasPrefix(line, "```"):
			fence, began = strings.TrimPrefix(line, "```"), i+2
			text.Reset()
		case fence == "":
			fresh = fresh && line == ""
		case line != "```":
			text.WriteString(line + "\n")
		case fence == "sh":
			blocks = append(blocks, pageBlock{line: began, script: text.String()})
			fence, fresh = "", true
		case fresh && (fence == "json" || fence == "text"):
			blocks[len(blocks)-1].kind, blocks[len(blocks)-1].prints = fence, text.String()
			fence, fresh = "", false
		default:
			t.Errorf("line %d: a block of %q that no block of sh prints", began, fence)
			fence = ""
		}
	}
	return blocks
}

// differs says where what was printed is not what the page says. The page's JSON
// is a part of the answer; … stands for anything.
func (b pageBlock) differs(printed string) string {
	if b.kind != "json" {
		if want := wildcard(b.prints); !want.MatchString(printed) {
			return "it does not look like it"
		}
		return ""
	}
	var want, got any
	if err := json.Unmarshal([]byte(b.prints), &want); err != nil {
		return fmt.Sprintf("the page's JSON is none: %v", err)
	}
	if err := json.Unmarshal([]byte(printed), &got); err != nil {
		return fmt.Sprintf("it is no JSON: %v", err)
	}
	return lacks("", want, got)
}

func wildcard(s string) *regexp.Regexp {
	return regexp.MustCompile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(s), "…", `[^\n]*`) + `\z`)
}

// lacks compares what the page shows with what there is.
func lacks(path string, want, got any) string {
	switch want := want.(type) {
	case string:
		text, isText := got.(string)
		if want != "…" && (!isText || !wildcard(want).MatchString(text)) {
			return fmt.Sprintf("%s is %v, want %s", path, got, want)
		}
	case map[string]any:
		object, _ := got.(map[string]any)
		for name, value := range want {
			found, ok := object[name]
			if !ok {
				return fmt.Sprintf("%s.%s is missing", path, name)
			}
			if why := lacks(path+"."+name, value, found); why != "" {
				return why
			}
		}
	case []any:
		list, _ := got.([]any)
		if n := len(want); n > 0 && want[n-1] == "…" && len(list) >= n-1 {
			want, list = want[:n-1], list[:n-1]
		}
		if len(list) != len(want) {
			return fmt.Sprintf("%s has %d elements, want %d", path, len(list), len(want))
		}
		for i := range want {
			if why := lacks(fmt.Sprintf("%s[%d]", path, i), want[i], list[i]); why != "" {
				return why
			}
		}
	default:
		if want != got {
			return fmt.Sprintf("%s is %v, want %v", path, got, want)
		}
	}
	return ""
}

// TestPageIsCompared: a page that says something else is found out.
func TestPageIsCompared(t *testing.T) {
	t.Parallel()
	blocks := readPage(t, "text\n```sh\necho 1\n```\n\n```json\n{\"a\": [1, \"…\"], \"b\": \"pi_…\"}\n```\n```sh\ntrue\n```\nprose\n")
	if len(blocks) != 2 || blocks[0].script != "echo 1\n" || blocks[0].kind != "json" || blocks[1].kind != "" || blocks[1].line != 10 {
		t.Fatalf("%+v", blocks)
	}
	for printed, same := range map[string]bool{
		`{"a": [1], "b": "pi_1"}`: true, `{"a": [1, 2, 3], "b": "pi_1", "c": 1}`: true,
		`{"a": [2], "b": "pi_1"}`: false, `{"a": [], "b": "pi_1"}`: false, `{"a": [1]}`: false, `{"a": [1], "b": "pay_1"}`: false, `{"a": 1, "b": "pi_1"}`: false,
		`1`: false, ``: false, `{"a": [1], "b": "pi_1"} x`: false,
	} {
		if why := blocks[0].differs(printed); (why == "") != same {
			t.Errorf("%s: %q", printed, why)
		}
	}
	if blocks[1].differs("") != "" || blocks[1].differs("something\n") == "" {
		t.Error("what prints nothing")
	}
	text := pageBlock{kind: "text", prints: "HTTP/1.1 …\n401\n"}
	if text.differs("HTTP/1.1 Unauthorized\n401\n") != "" || text.differs("HTTP/1.1 Unauthorized\n403\n") == "" || text.differs("HTTP/1.1\n401\n") == "" {
		t.Error("what is text")
	}
}

// hurry has a daemon look every second what is due, until the returned function is
// called: it does when a virtual clock was moved, and this one is the machine's.
func hurry(t *testing.T, dsn string) (stop func()) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var moving sync.WaitGroup
	moving.Go(func() {
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for {
			err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return billing.SetVirtualClock(ctx, tx, time.Now()) })
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("move the clock: %v", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		moving.Wait()
		pool.Close()
	}
}

// underContract stands between a client and the daemon that listens at an address,
// and fails the test for what is not as openapi.json has it. It counts what it saw.
func underContract(t *testing.T, listens string) (address string, exchanges *atomic.Int64) {
	t.Helper()
	data, err := os.ReadFile("../../server/api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := contract.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(listens)
	if err != nil {
		t.Fatal(err)
	}
	exchanges = &atomic.Int64{}
	between := httptest.NewServer(document.Between(to, "/v1/", func(err error) {
		exchanges.Add(1)
		if err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(between.Close)
	return between.URL, exchanges
}

// TestAPIPage does what docs/api.md says, with the real binary and the sandbox:
// every ```sh block in order, in one shell. Each must end well and print what the
// page says, and all that the API is asked and answers is as its document has it.
func TestAPIPage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	for _, program := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the page is for readers with %s: %v", program, err)
		}
	}
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := readPage(t, string(page))
	if len(blocks) < 15 {
		t.Fatalf("%d blocks: this looks at the wrong page", len(blocks))
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "singil")
	build(t, binary)
	dsn := pgtest.DSN(t)
	paymongo, _ := start(t)
	daemon, log := daemonOf(t, binary, dsn, "PAYMONGO_SECRET_KEY=sk_test_page", "PAYMONGO_BASE_URL="+paymongo, "PAYMONGO_RATE=500",
		"SINGIL_LISTEN=127.0.0.1:0")
	patience, tick := time.After(badDayPatience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for log.listens() == "" {
		select {
		case <-patience:
			_ = daemon.Process.Kill() // its log is the answer
			t.Fatalf("it does not listen:\n%s", log)
		case <-tick.C:
		}
	}

	defer hurry(t, dsn)()
	between, exchanges := underContract(t, log.listens())
	driver := "set -eu\n"
	for i, block := range blocks {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.sh", i)), []byte(block.script), 0o600); err != nil {
			t.Fatal(err)
		}
		driver += fmt.Sprintf(". ./%d.sh > %[1]d.out 2> %[1]d.err\ntouch %[1]d.done\n", i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), apiPagePatience)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-c", driver)
	shell.Dir = dir
	shell.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "DATABASE_URL="+dsn,
		"SINGIL="+between, "PAYMONGO="+paymongo)
	ended := shell.Run()
	read := func(i int, ending string) string {
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.%s", i, ending)))
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	for i, block := range blocks {
		if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%d.done", i))); err != nil {
			t.Fatalf("docs/api.md, line %d: it ended with %v:\n%s\nit printed:\n%s%s", block.line, ended, block.script, read(i, "out"), read(i, "err"))
		}
		if why := block.differs(read(i, "out")); why != "" {
			t.Errorf("docs/api.md, line %d: %s:\n%s\nit printed:\n%s%s", block.line, why, block.script, read(i, "out"), bytes.TrimSpace([]byte(read(i, "err"))))
		}
	}
	if n := exchanges.Load(); n < int64(len(blocks)) {
		t.Errorf("%d exchanges were seen: fewer than there are blocks", n)
	}
}
