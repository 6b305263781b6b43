// Package devpg runs a private PostgreSQL: for `singil demo` and for tests. It owns finding the server's programs,
// a cluster of their own on a port of their own, and that nothing of it is left behind, however the process ends.
//
// It does not own databases that matter. Whoever reaches 127.0.0.1 is superuser of such a cluster, and unless
// Options.Durable is set, it gives up durability for speed.
package devpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options may be left empty.
type Options struct {
	// Log hears what is started and stopped. Nil is silence.
	Log *slog.Logger
	// DataDir keeps the cluster: it is initialized if it is empty, and Stop, or the end of this process, is an orderly
	// shutdown and leaves it alone. Empty is a fresh directory that goes with the server.
	DataDir string
	// InMemory keeps a cluster without a DataDir off the disk, where there is a /dev/shm with room for it. A database is
	// then made in a tenth of the time, but all that is written takes memory: it is for tests.
	InMemory bool
	// Durable makes a committed transaction survive Kill, at the price of waiting for the disk.
	Durable bool
	// Settings are further ones of postgresql.conf, and win over those of this package.
	Settings map[string]string

	// Leaves out what only Linux does, so that a test there can see what others rely on.
	watchdogOnly bool
}

// Server is a running cluster. Its methods may be called from any goroutine.
type Server struct {
	log      *slog.Logger
	bin      string
	run      string // ours alone and gone with us: socket, log, and data unless it is to be kept
	data     string
	port     int
	settings map[string]string
	as       identity
	keep     bool // the data
	watchdog *watchdog

	mu      sync.Mutex
	main    *process // the postmaster, nil while there is none
	stopped bool
}

const (
	// Recovery after Kill is part of a start. More than this means that something else is wrong.
	startLimit = time.Minute
	// An orderly shutdown writes a checkpoint, the other takes milliseconds.
	stopLimit = 30 * time.Second
	pollEvery = 5 * time.Millisecond
	portTries = 10
	superuser = "postgres"
)

var errStopped = errors.New("the private PostgreSQL is stopped")

// Start returns when the server takes connections. The context bounds the start and not the life of the server,
// which ends with Stop or, at the latest, with this process: on Ctrl-C, after a panic, after SIGKILL.
//
// The error wraps ErrNotFound where there is no PostgreSQL. What the server had to say is in any other.
func Start(ctx context.Context, options Options) (_ *Server, err error) {
	began := time.Now()
	s := &Server{log: options.Log, settings: settings(options), keep: options.DataDir != ""}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.bin, err = Find(); err != nil {
		return nil, err
	}
	if s.as, err = whoRuns(options.DataDir); err != nil {
		return nil, fmt.Errorf("start a private PostgreSQL: %w", err)
	}
	s.as.watchdogOnly = options.watchdogOnly
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start a private PostgreSQL from %s: %w", s.bin, err), s.Stop())
		}
	}()
	if err = s.as.mayEnter(s.bin); err != nil {
		return nil, err
	}
	if s.run, err = s.as.tempDir(options.InMemory && !s.keep); err != nil {
		return nil, err
	}
	if s.watchdog, err = startWatchdog(s.run, s.keep); err != nil {
		return nil, err
	}
	if err = s.initialize(ctx, options.DataDir); err != nil {
		return nil, err
	}
	if err = s.startAnywhere(ctx); err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "private PostgreSQL ready", "bin", s.bin, "data", s.data, "port", s.port,
		"pid", s.main.pid(), "took", time.Since(began).Round(time.Millisecond))
	return s, nil
}

// DSN is the address of a database, as its superuser. The empty name is the database that is always there.
func (s *Server) DSN(database string) string {
	return (&url.URL{
		Scheme:   "postgres",
		User:     url.User(superuser),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + cmp.Or(database, "postgres"),
		RawQuery: "sslmode=disable",
	}).String()
}

// Log names the file with what the server has to say. It goes with Stop.
func (s *Server) Log() string { return filepath.Join(s.run, "server.log") }

// Kill ends the server as a crash would: SIGKILL to the postmaster and to all that it started. When it returns none of
// them is left, so nothing can be committed any more. Restart brings the server back, with every transaction that was
// committed if it is Durable, else without those of the last moments.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errStopped
	}
	if s.main == nil {
		return nil
	}
	pid := s.main.pid()
	if err := s.main.killFamily(); err != nil {
		return fmt.Errorf("kill the private PostgreSQL: %w", err)
	}
	if err := s.reap(); err != nil {
		return fmt.Errorf("kill the private PostgreSQL: %w", err)
	}
	s.log.Info("private PostgreSQL killed", "pid", pid)
	return nil
}

// Restart starts the server again, on the same port and with the same data; one that still runs is shut down first,
// in order. After an error there is no server, and Restart may be tried again.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errStopped
	}
	if err := s.shutDown(true); err != nil {
		return fmt.Errorf("restart the private PostgreSQL: %w", err)
	}
	began := time.Now()
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("restart the private PostgreSQL: %w", err)
	}
	s.log.InfoContext(ctx, "private PostgreSQL ready again", "port", s.port, "pid", s.main.pid(),
		"took", time.Since(began).Round(time.Millisecond))
	return nil
}

// Stop shuts down at once, whoever is connected, and removes what Start made, except a DataDir that was given. It
// may be called again.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	if err := s.shutDown(s.keep); err != nil {
		return fmt.Errorf("stop the private PostgreSQL: %w", err)
	}
	s.stopped = true
	var err error
	if s.run != "" {
		err = os.RemoveAll(s.run)
	}
	if s.watchdog != nil {
		err = errors.Join(err, s.watchdog.dismiss())
	}
	if err != nil {
		return fmt.Errorf("stop the private PostgreSQL: %w", err)
	}
	s.log.Info("private PostgreSQL stopped")
	return nil
}

func settings(options Options) map[string]string {
	durable := "off"
	if options.Durable {
		durable = "on"
	}
	all := map[string]string{
		"fsync":              durable,
		"synchronous_commit": durable,
		"full_page_writes":   durable,
		"max_connections":    "200",
		// In the data directory, so that it goes with it: in /dev/shm it would outlive Kill, and a container has little.
		"dynamic_shared_memory_type": "mmap",
		// Whatever the machine is set to, two of them print the same instant the same way.
		"timezone":     "UTC",
		"log_timezone": "UTC",
	}
	if options.InMemory {
		// What is never read again would be the biggest part.
		all["min_wal_size"], all["max_wal_size"] = "32MB", "128MB"
	}
	maps.Copy(all, options.Settings)
	return all
}

// initialize finds or makes the data directory.
func (s *Server) initialize(ctx context.Context, given string) error {
	s.data = filepath.Join(s.run, "data")
	if given != "" {
		path, err := s.as.dataDir(given)
		if err != nil {
			return err
		}
		s.data = path
	}
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); err == nil {
		return nil
	}

	cmd := s.command("initdb", "--no-sync", "-A", "trust", "--locale=C", "-E", "UTF8", "-U", superuser, "-D", s.data)
	initdb, err := s.launch(cmd)
	if err != nil {
		return err
	}
	defer s.watchdog.watch(0)
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case <-initdb.ended:
		if initdb.err != nil {
			return fmt.Errorf("initdb: %w: %s", initdb.err, s.lastWords())
		}
		return nil
	case <-ctx.Done():
		initdb.kill()
		<-initdb.ended
		return fmt.Errorf("initdb: %w", ctx.Err())
	}
}

// startAnywhere picks ports until one is free. The system says which is, and somebody else may take it before the
// server does.
func (s *Server) startAnywhere(ctx context.Context) error {
	for try := 1; ; try++ {
		port, err := freePort(ctx)
		if err != nil {
			return err
		}
		s.port = port
		err = s.start(ctx)
		if !errors.Is(err, errPortTaken) || try == portTries {
			return err
		}
		s.log.DebugContext(ctx, "port taken, trying another", "port", port)
	}
}

var errPortTaken = errors.New("the port is taken")

// start starts the postmaster on the port that was picked and waits for it to take connections.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	// The log is read for the reason of a failure: of this one.
	if err := os.Truncate(s.Log(), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	args := []string{
		"-D", s.data, "-k", s.run, "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_permissions=0700",
	}
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		args = append(args, "-c", name+"="+s.settings[name])
	}
	main, err := s.launch(s.command("postgres", args...))
	if err != nil {
		return err
	}
	s.main = main

	// Over the socket, which is in our own directory: on the port somebody else's server may answer. Ours has bound
	// the port before it makes the socket.
	config, err := pgx.ParseConfig(s.DSN(""))
	if err != nil {
		return errors.Join(err, s.shutDown(false))
	}
	config.Host = s.run
	config.ConnectTimeout = 5 * time.Second
	again := time.NewTicker(pollEvery)
	defer again.Stop()
	for {
		conn, err := pgx.ConnectConfig(ctx, config)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-main.ended:
			words := s.lastWords()
			if err := s.reap(); err != nil {
				return err
			}
			if strings.Contains(words, "Address already in use") {
				return fmt.Errorf("%w: %s", errPortTaken, words)
			}
			return fmt.Errorf("postgres ended at once (%w): %s", cmp.Or(main.err, errors.New("without an error")), words)
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for postgres (%w), last answer: %w: %s", ctx.Err(), err, s.lastWords()), s.shutDown(false))
		case <-again.C:
		}
	}
}

// launch starts a program of PostgreSQL, and has the watchdog see to its end.
func (s *Server) launch(cmd *exec.Cmd) (*process, error) {
	output, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close() //nolint:errcheck // only the child writes to it
	cmd.Stdout, cmd.Stderr = output, output
	p, err := launch(cmd)
	if err != nil {
		return nil, err
	}
	s.watchdog.watch(p.pid())
	return p, nil
}

// shutDown ends the postmaster, if there is one, with what PostgreSQL calls a fast shutdown if it is to be in order,
// and else an immediate one. That forgets what was committed a moment ago, unless the server is durable.
func (s *Server) shutDown(orderly bool) error {
	if s.main == nil {
		return nil
	}
	s.main.quit(orderly)
	patience := time.NewTimer(stopLimit)
	defer patience.Stop()
	select {
	case <-s.main.ended:
	case <-patience.C:
		if err := s.main.killFamily(); err != nil {
			return err
		}
	}
	return s.reap()
}

// reap waits for the end of a postmaster that was told to go, or went by itself.
func (s *Server) reap() error {
	patience := time.NewTimer(stopLimit)
	defer patience.Stop()
	select {
	case <-s.main.ended:
		s.watchdog.watch(0)
		s.main = nil
		return nil
	case <-patience.C:
		return fmt.Errorf("process %d does not end; see %s", s.main.pid(), s.Log())
	}
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	// Not the working directory: the other user may not be allowed to be there, and PostgreSQL insists.
	cmd.Dir = s.run
	// PGDATA, PGPORT and their like are meant for another server, and a language would change the messages we look for.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "LC_") && !strings.HasPrefix(v, "LANG") && !strings.HasPrefix(v, "TZ=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	s.as.apply(cmd, quitSignal(s.keep))
	return cmd
}

// lastWords is the end of the log, in a line.
func (s *Server) lastWords() string {
	const enough = 1000
	words, err := os.ReadFile(s.Log())
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(words))
	if len(text) > enough {
		text = "..." + text[len(text)-enough:]
	}
	return strings.ReplaceAll(text, "\n", " | ")
}

func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}

// process is a child that somebody waits for.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of its end, once ended is closed
}

// launch starts a child that goes with us.
//
// Linux sends the signal for that (see attributes) when the thread ends that started the child, not the process, and
// Go ends threads as it likes. So this goroutine keeps its thread for as long as the child lives.
func launch(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill may find that the process is gone, which is what it wants. So may quit.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

func (p *process) quit(orderly bool) { _ = p.cmd.Process.Signal(quitSignal(orderly)) }

// killFamily kills a process and its children, and returns when no child is left. PostgreSQL's are in no process
// group that could be killed as one (each makes its own), and left alone they may finish a statement, and commit it,
// before they see that the postmaster is gone.
func (p *process) killFamily() error {
	// Stopped, it can neither start another child nor bury one whose pid would then be free for a stranger.
	if err := p.cmd.Process.Signal(stopSignal); err != nil {
		<-p.ended // what other reason is there?
		return nil
	}
	var children []int
	err := poll(func() (bool, error) {
		all, err := processes()
		if err != nil {
			return false, err
		}
		stopped := false
		children = children[:0]
		for _, other := range all {
			stopped = stopped || other.pid == p.pid() && strings.ContainsRune("TtZ", other.state)
			if other.parent == p.pid() {
				children = append(children, other.pid)
			}
		}
		return stopped, nil
	})
	p.kill()
	if err != nil {
		return fmt.Errorf("stop process %d: %w", p.pid(), err)
	}
	for _, pid := range children {
		killPID(pid)
	}
	err = poll(func() (bool, error) {
		all, err := processes()
		if err != nil {
			return false, err
		}
		return !slices.ContainsFunc(all, func(other relative) bool {
			return other.state != 'Z' && slices.Contains(children, other.pid)
		}), nil
	})
	if err != nil {
		return fmt.Errorf("kill the children of process %d: %w", p.pid(), err)
	}
	return nil
}

// relative is a process as the system lists it. The state is a letter of ps: T is stopped, Z is dead and not buried.
type relative struct {
	pid, parent int
	state       rune
}

// poll asks until the answer is yes, for no longer than stopLimit.
func poll(done func() (bool, error)) error {
	patience := time.NewTimer(stopLimit)
	defer patience.Stop()
	again := time.NewTicker(pollEvery)
	defer again.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-patience.C:
			return fmt.Errorf("not within %s", stopLimit)
		}
	}
}
