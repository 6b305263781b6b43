package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/singil/singil/internal/pgtest"
)

// commitFate is what becomes of a COMMIT on its way through a pgProxy.
type commitFate int

const (
	commitPasses   commitFate = iota
	commitUnheard             // it never arrives, and the connection breaks: nothing was committed
	commitUnspoken            // it is done, and the connection breaks before the reply: committed, not acknowledged
	commitHeld                // it is done and answered while something happens to the client: hold runs before the reply goes on
)

// pgProxy is the network between a daemon and PostgreSQL. It knows just enough of
// the protocol to see a COMMIT, and whether an attempt was armed before it.
//
// toxiproxy's limit_data cuts after so many bytes of a connection, and would have
// to be told how many come before a COMMIT. As a library it also brings seven
// modules that nothing else here wants.
type pgProxy struct {
	listener net.Listener
	target   string
	fate     func(arms bool) commitFate
	hold     func()

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	arms  []byte // the name of the prepared statement that arms, once it was seen
}

func newPGProxy(t *testing.T, target string, fate func(arms bool) commitFate, hold func()) *pgProxy {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pgProxy{listener: listener, target: target, fate: fate, hold: hold, conns: map[net.Conn]struct{}{}}
	go p.serve()
	t.Cleanup(func() {
		_ = listener.Close() // serve ends with it
		p.reset()
	})
	return p
}

func (p *pgProxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.connection(client)
	}
}

// reset breaks every connection there is.
func (p *pgProxy) reset() (broken int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		cut(conn)
	}
	return len(p.conns) / 2
}

// cut resets the connection rather than ending it in order.
func cut(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be closed already
	}
	_ = conn.Close()
}

func (p *pgProxy) connection(client net.Conn) {
	server, err := net.DialTimeout("tcp4", p.target, 5*time.Second)
	if err != nil {
		cut(client)
		return
	}
	p.note(client, server)
	defer p.forget(client, server)
	c := &pgConn{proxy: p, client: client, server: server}
	var both sync.WaitGroup
	both.Go(c.upstream)
	both.Go(c.downstream)
	both.Wait()
}

func (p *pgProxy) note(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		p.conns[conn] = struct{}{}
	}
}

func (p *pgProxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		delete(p.conns, conn)
	}
}

type pgConn struct {
	proxy          *pgProxy
	client, server net.Conn
	armed          bool // since the last COMMIT

	mu   sync.Mutex
	fate commitFate // of the reply that comes next
}

// pgx sends COMMIT as a simple query of its own.
var (
	commitMessage = []byte("Q\x00\x00\x00\x0bcommit\x00")
	armsAttempts  = []byte("INSERT INTO singil.attempts")
	cachedName    = []byte("stmtcache_")
)

// upstream is from the client to the server. A chunk that a read has cut in two
// hides what is in it, which costs an opportunity and nothing else.
func (c *pgConn) upstream() {
	defer cut(c.server)
	defer cut(c.client)
	buf := make([]byte, 64<<10)
	for {
		n, err := c.client.Read(buf)
		if err != nil {
			return
		}
		chunk := buf[:n]
		c.armed = c.armed || c.proxy.armsIn(chunk)
		if bytes.Equal(chunk, commitMessage) {
			fate := c.proxy.fate(c.armed)
			c.armed = false
			if fate == commitUnheard {
				return
			}
			c.mu.Lock()
			c.fate = fate
			c.mu.Unlock()
		}
		if _, err := c.server.Write(chunk); err != nil {
			return
		}
	}
}

// downstream is from the server to the client.
func (c *pgConn) downstream() {
	defer cut(c.server)
	defer cut(c.client)
	buf := make([]byte, 64<<10)
	for {
		n, err := c.server.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		fate := c.fate
		c.fate = commitPasses
		c.mu.Unlock()
		switch fate {
		case commitUnspoken:
			return
		case commitHeld:
			c.proxy.hold()
		}
		if _, err := c.client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// armsIn tells whether a chunk arms attempts. The statement's text is sent once a
// connection, and then its name, which is made of the text.
func (p *pgProxy) armsIn(chunk []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.arms != nil {
		return bytes.Contains(chunk, p.arms)
	}
	text := bytes.Index(chunk, armsAttempts)
	if text < 0 {
		return false
	}
	if at := bytes.LastIndex(chunk[:text], cachedName); at >= 0 {
		name, _, _ := bytes.Cut(chunk[at:], []byte{0})
		p.arms = slices.Clone(name)
	}
	return true
}

func addressOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// throughProxy is a DSN by way of the proxy.
func throughProxy(t *testing.T, dsn string, proxy *pgProxy) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = proxy.listener.Addr().String()
	return u.String()
}

// TestCommitOnItsWay is about the proxy itself: a cut that cuts nothing would make
// a soak that proves nothing.
func TestCommitOnItsWay(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	direct, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(context.Background()) //nolint:errcheck // the test is over
	if _, err := direct.Exec(t.Context(), `CREATE TABLE committed (fate int)`); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name         string
		fate         commitFate
		acknowledged bool
		committed    int
		held         int32
	}{
		{"Passes", commitPasses, true, 1, 0},
		{"NeverArrives", commitUnheard, false, 0, 0},
		{"ReplyIsCut", commitUnspoken, false, 1, 0},
		{"IsHeld", commitHeld, true, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) { // not parallel: one connection looks at all
			var held, commits, arming atomic.Int32
			proxy := newPGProxy(t, addressOf(t, dsn), func(arms bool) commitFate {
				commits.Add(1)
				if arms {
					arming.Add(1)
				}
				return tt.fate
			}, func() { held.Add(1) })
			through, err := pgx.Connect(t.Context(), throughProxy(t, dsn, proxy))
			if err != nil {
				t.Fatal(err)
			}
			defer through.Close(context.Background()) //nolint:errcheck // it may be broken, which is the point
			err = pgx.BeginFunc(t.Context(), through, func(tx pgx.Tx) error {
				// Looks like an arming to the proxy, and inserts nothing there.
				_, err := tx.Exec(t.Context(), `WITH arming AS (SELECT 'INSERT INTO singil.attempts') INSERT INTO committed SELECT $1::int FROM arming`, int(tt.fate))
				return err
			})
			if (err == nil) != tt.acknowledged {
				t.Errorf("the client hears %v", err)
			}
			var refused *pgconn.PgError
			if errors.As(err, &refused) {
				t.Errorf("%v is an answer of the server's, and no broken connection", err)
			}
			var n int
			if err := direct.QueryRow(t.Context(), `SELECT count(*) FROM committed WHERE fate = $1`, int(tt.fate)).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != tt.committed || held.Load() != tt.held {
				t.Errorf("%d rows are committed, want %d; held %d times, want %d", n, tt.committed, held.Load(), tt.held)
			}
			if commits.Load() != 1 || arming.Load() != 1 {
				t.Errorf("the proxy saw %d commits, %d of them of an arming, want one", commits.Load(), arming.Load())
			}
		})
	}
}
