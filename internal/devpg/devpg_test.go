//go:build unix

package devpg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func start(t *testing.T, options Options) *Server {
	t.Helper()
	needPostgres(t)
	s, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// needPostgres fails the test where there is none, unless the other tests were given a server from elsewhere.
func needPostgres(t *testing.T) {
	t.Helper()
	if _, err := Find(); errors.Is(err, ErrNotFound) && os.Getenv("TEST_DATABASE_URL") != "" {
		t.Skipf("NOT TESTED: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The server may be gone, on purpose.
		_ = conn.Close(context.Background())
	})
	return conn
}

func ask[T any](t *testing.T, conn *pgx.Conn, query string) T {
	t.Helper()
	var answer T
	if err := conn.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

func do(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("still not so: %s", what)
		}
	}
}

func runs(t *testing.T, pid int) bool {
	t.Helper()
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(p relative) bool { return p.pid == pid && p.state != 'Z' })
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestServer(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Settings: map[string]string{"deadlock_timeout": "10ms", "max_connections": "17"}})
	conn := connect(t, s.DSN(""))

	for setting, want := range map[string]string{
		"listen_addresses":           "127.0.0.1",
		"server_encoding":            "UTF8",
		"TimeZone":                   "UTC",
		"fsync":                      "off",
		"synchronous_commit":         "off",
		"full_page_writes":           "off",
		"deadlock_timeout":           "10ms",
		"dynamic_shared_memory_type": "mmap",
		"max_connections":            "17",
	} {
		if got := ask[string](t, conn, "SHOW "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}

	t.Run("AnswersOnItsSocket", func(t *testing.T) {
		t.Parallel()
		config, err := pgx.ParseConfig(s.DSN(""))
		if err != nil {
			t.Fatal(err)
		}
		config.Host = s.run
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("EscapesTheNameOfADatabase", func(t *testing.T) {
		t.Parallel()
		conn := connect(t, s.DSN(""))
		name := "a/b? c"
		do(t, conn, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
		if got := ask[string](t, connect(t, s.DSN(name)), "SELECT current_database()"); got != name {
			t.Errorf("connected to %q, want %q", got, name)
		}
	})
	t.Run("HasANeighbour", func(t *testing.T) {
		t.Parallel()
		other := start(t, Options{InMemory: true})
		if other.DSN("") == s.DSN("") {
			t.Errorf("two servers at %s", s.DSN(""))
		}
		connect(t, other.DSN(""))
	})
}

func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, Options{InMemory: true})
	connect(t, s.DSN("")) // somebody who is connected does not delay it
	pid, dog := s.main.pid(), s.watchdog.process.pid()

	for range 2 {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if runs(t, pid) {
		t.Errorf("the postmaster, %d, still runs", pid)
	}
	if runs(t, dog) {
		t.Errorf("the watchdog, %d, still runs", dog)
	}
	if exists(t, s.run) {
		t.Errorf("%s is still there", s.run)
	}
	if err := s.Restart(t.Context()); !errors.Is(err, errStopped) {
		t.Errorf("Restart after Stop: %v", err)
	}
	if err := s.Kill(); !errors.Is(err, errStopped) {
		t.Errorf("Kill after Stop: %v", err)
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	dir := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := Start(ctx, Options{DataDir: enterable(t, dir)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Start: %v, %v", s, err)
	}
}

func TestKeepsAGivenDirectory(t *testing.T) {
	t.Parallel()
	dir := enterable(t, filepath.Join(t.TempDir(), "new", "data"))

	s := start(t, Options{DataDir: dir})
	do(t, connect(t, s.DSN("")), "CREATE TABLE kept AS SELECT 7 AS n")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, Options{DataDir: dir})
	if n := ask[int](t, connect(t, s.DSN("")), "SELECT n FROM kept"); n != 7 {
		t.Errorf("n is %d, want 7", n)
	}

	_, err := Start(t.Context(), Options{DataDir: dir})
	if err == nil || !strings.Contains(err.Error(), "postmaster.pid") {
		t.Errorf("a second server on the same data: %v", err)
	}
}

// enterable lets another user into the directories that t.TempDir makes.
func enterable(t *testing.T, dir string) string {
	t.Helper()
	for at := dir; at != filepath.Dir(at) && at != filepath.Clean(os.TempDir()); at = filepath.Dir(at) {
		if exists(t, at) {
			if err := os.Chmod(at, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestKill(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Durable: true})
	dsn := s.DSN("")
	conn := connect(t, dsn)
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if got := ask[string](t, conn, "SHOW "+setting); got != "on" {
			t.Errorf("%s is %s in a durable server", setting, got)
		}
	}
	do(t, conn, "CREATE TABLE money (n int)")

	for round := range 3 {
		conn := connect(t, dsn)
		do(t, conn, fmt.Sprintf("INSERT INTO money VALUES (%d)", round))

		// A statement that would commit in a moment, if its process were left alone.
		late := connect(t, dsn)
		backend := ask[int](t, late, "SELECT pg_backend_pid()")
		failed := make(chan error, 1)
		go func() {
			_, err := late.Exec(context.Background(), "WITH w AS (SELECT pg_sleep(0.3)) INSERT INTO money SELECT -1 FROM w")
			failed <- err
		}()
		eventually(t, "the late statement runs", func() bool {
			return ask[bool](t, conn, fmt.Sprintf("SELECT wait_event = 'PgSleep' IS TRUE FROM pg_stat_activity WHERE pid = %d", backend))
		})

		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if runs(t, backend) {
			t.Errorf("backend %d runs after Kill", backend)
		}
		if err := <-failed; err == nil {
			t.Error("a statement succeeded through Kill")
		}
		if err := s.Kill(); err != nil {
			t.Errorf("Kill of what is dead: %v", err)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.DSN(""); got != dsn {
			t.Fatalf("after Restart the server is at %s, before at %s", got, dsn)
		}
		if n := ask[int](t, connect(t, dsn), "SELECT count(*) FROM money WHERE n >= 0"); n != round+1 {
			t.Errorf("%d rows after Kill %d, want %d", n, round, round+1)
		}
	}
	if n := ask[int](t, connect(t, dsn), "SELECT count(*) FROM money WHERE n < 0"); n != 0 {
		t.Errorf("%d rows of statements that failed", n)
	}
}

func TestRestartOfWhatRuns(t *testing.T) {
	t.Parallel()
	s := start(t, Options{InMemory: true})
	before := ask[time.Time](t, connect(t, s.DSN("")), "SELECT pg_postmaster_start_time()")
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := ask[time.Time](t, connect(t, s.DSN("")), "SELECT pg_postmaster_start_time()"); !after.After(before) {
		t.Errorf("started %s, and before Restart %s", after, before)
	}

	t.Run("WaitsForItsPort", func(t *testing.T) {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		taken, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(t.Context()); !errors.Is(err, errPortTaken) {
			t.Errorf("Restart on a port that is taken: %v", err)
		}
		if err := taken.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		connect(t, s.DSN(""))
	})
}

// TestSettingThatIsWrong shows that the reason is in the error and not in a file that is gone.
func TestSettingThatIsWrong(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	_, err := Start(t.Context(), Options{InMemory: true, Settings: map[string]string{"shared_buffers": "many"}})
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("Start: %v", err)
	}
}

// TestOutlivesItsThread is for the trap in Linux's parent death signal: the parent is a thread.
func TestOutlivesItsThread(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	type result struct {
		s   *Server
		err error
	}
	started := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocks: Go ends the thread with the goroutine
		s, err := Start(context.Background(), Options{InMemory: true})
		started <- result{s, err}
	}()
	r := <-started
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer func() {
		if err := r.s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	for range 20 { // threads come and go
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(done)
		}()
		<-done
	}
	if got := ask[int](t, connect(t, r.s.DSN("")), "SELECT 1"); got != 1 {
		t.Errorf("got %d", got)
	}
}

// What TestChild does when this says so: this package, in a process that comes to an end.
const childEnv = "DEVPG_TEST_CHILD"

type child struct {
	Run        string
	Postmaster int
	Watchdog   int
}

func TestChild(t *testing.T) { // not parallel: it is a process of another test
	how := os.Getenv(childEnv)
	if how == "" {
		t.Skip("run by TestGoneWithTheProcess")
	}
	s, err := Start(t.Context(), Options{InMemory: true, watchdogOnly: strings.Contains(how, "watchdog-only")})
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(child{Run: s.run, Postmaster: s.main.pid(), Watchdog: s.watchdog.process.pid()})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("child %s\n", line)
	switch how {
	case "return":
	case "exit":
		os.Exit(3)
	case "panic":
		go panic("on purpose")
		<-t.Context().Done()
	default:
		<-t.Context().Done() // until it is killed
	}
}

func TestGoneWithTheProcess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		how  string
		end  func(t *testing.T, parent *os.Process, c child)
	}{
		{name: "Exit", how: "exit"},
		{name: "Interrupt", how: "wait", end: signal(os.Interrupt)},
		{name: "InterruptFromTheTerminal", how: "wait", end: signalGroup(syscall.SIGINT)},
		{name: "Kill", how: "wait", end: signal(os.Kill)},
		{name: "KillOfTheWholeGroup", how: "wait", end: signalGroup(syscall.SIGKILL)},
		{name: "KillWhereTheKernelDoesNotHelp", how: "wait watchdog-only", end: signal(os.Kill)},
		{name: "KillWithoutWatchdog", how: "wait", end: func(t *testing.T, parent *os.Process, c child) {
			t.Helper()
			if runtime.GOOS != "linux" {
				t.Skip("only Linux can do without")
			}
			killPID(c.Watchdog)
			eventually(t, "the watchdog is dead", func() bool { return !runs(t, c.Watchdog) })
			signal(os.Kill)(t, parent, c)
		}},
		{name: "Panic", how: "panic"},
		{name: "Return", how: "return"},
		{name: "Terminate", how: "wait", end: signal(syscall.SIGTERM)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			needPostgres(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.timeout=1m")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			parent, c := startChild(t, cmd, tt.how)
			if tt.end != nil {
				if !runs(t, c.Postmaster) || !exists(t, c.Run) {
					t.Fatal("nothing runs before the end")
				}
				tt.end(t, parent, c)
			}
			_ = cmd.Wait() // most of these ends are failures
			expectGone(t, c)
		})
	}
}

func signal(s os.Signal) func(*testing.T, *os.Process, child) {
	return func(t *testing.T, parent *os.Process, _ child) {
		t.Helper()
		if err := parent.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
}

// signalGroup is how a terminal sends Ctrl-C.
func signalGroup(s syscall.Signal) func(*testing.T, *os.Process, child) {
	return func(t *testing.T, parent *os.Process, _ child) {
		t.Helper()
		if err := syscall.Kill(-parent.Pid, s); err != nil {
			t.Fatal(err)
		}
	}
}

func startChild(t *testing.T, cmd *exec.Cmd, how string) (*os.Process, child) {
	t.Helper()
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
	})
	var said []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if line, ok := strings.CutPrefix(lines.Text(), "child "); ok {
			var c child
			if err := json.Unmarshal([]byte(line), &c); err != nil {
				t.Fatal(err)
			}
			return cmd.Process, c
		}
		said = append(said, lines.Text())
	}
	t.Fatalf("the child did not start a server: %s", strings.Join(said, "\n"))
	return nil, child{}
}

func expectGone(t *testing.T, c child) {
	t.Helper()
	eventually(t, fmt.Sprintf("the postmaster, %d, is gone", c.Postmaster), func() bool { return !runs(t, c.Postmaster) })
	eventually(t, fmt.Sprintf("the watchdog, %d, is gone", c.Watchdog), func() bool { return !runs(t, c.Watchdog) })
	if _, err := os.Stat(c.Run); err == nil && runtime.GOOS == "linux" && strings.HasSuffix(t.Name(), "WithoutWatchdog") {
		if err := os.RemoveAll(c.Run); err != nil {
			t.Error(err)
		}
		return
	}
	if exists(t, c.Run) {
		t.Errorf("%s is still there", c.Run)
	}
}

func TestAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	if os.Geteuid() != 0 {
		t.Skip("the other tests are that already")
	}
	as, err := whoRuns("")
	if err != nil {
		t.Fatal(err)
	}
	// What `go test` builds is in a directory of root's.
	copied := enterable(t, filepath.Join(t.TempDir(), "devpg.test"))
	// By another process: a file that this one has written is busy as long as a
	// child of another test holds it.
	if out, err := exec.Command("cp", os.Args[0], copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	enterable(t, copied)

	cmd := exec.Command(copied, "-test.run=^TestChild$", "-test.timeout=1m")
	cmd.Dir = "/"
	as.watchdogOnly = true
	as.apply(cmd, syscall.SIGKILL)
	parent, c := startChild(t, cmd, "wait")
	info, err := os.Stat(c.Run)
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != as.uid {
		t.Errorf("the directory is of uid %d, want %d", uid, as.uid)
	}
	signal(os.Kill)(t, parent, c)
	_ = cmd.Wait()
	expectGone(t, c)
}

func TestRootSaysWhichDirectoryIsInTheWay(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	if os.Geteuid() != 0 {
		t.Skip("this is root's trouble")
	}
	closed := filepath.Join(t.TempDir(), "closed")
	enterable(t, closed)
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{DataDir: filepath.Join(closed, "data")})
	if err == nil || !strings.Contains(err.Error(), "may not enter "+closed+":") {
		t.Errorf("Start: %v", err)
	}
}
