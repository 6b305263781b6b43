package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// noon is the business time that tests begin at.
var noon = time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)

// plant is the API over HTTP on a real database and a sandbox of the provider.
type plant struct {
	t        *testing.T
	pool     *pgxpool.Pool
	box      *sandbox.Sandbox
	client   *paymongo.Client
	registry *prometheus.Registry
	api      *api
	url      string
	log      *lines

	now atomic.Int64 // the API's clock, in nanoseconds
}

func setup(t *testing.T) *plant {
	t.Helper()
	p := &plant{t: t, pool: pgtest.DB(t), registry: prometheus.NewRegistry(), log: &lines{}}
	p.set(noon)
	var err error
	if p.box, err = sandbox.New(sandbox.Options{Seed: 7, Start: noon, StopClock: true, Hang: 5 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewServer(p.box)
	t.Cleanup(provider.Close)
	p.client, err = paymongo.NewClient("sk_test_api", paymongo.WithBaseURL(provider.URL+"/v1"),
		paymongo.WithRate(math.Inf(1), 0), paymongo.WithMaxElapsedTime(0))
	if err != nil {
		t.Fatal(err)
	}
	p.tx(func(tx pgx.Tx) error { return billing.Bind(t.Context(), tx, billing.EnvironmentDev, false) })
	zone, err := billing.LoadZone("Asia/Manila")
	if err != nil {
		t.Fatal(err)
	}
	p.api = New(Config{
		Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Now: p.clock, Environment: billing.EnvironmentDev, TimeZone: zone, CallsPerMinute: 4800,
		Log: slog.New(slog.NewJSONHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Registry: p.registry,
	}).(*api)
	server := httptest.NewServer(p.api)
	t.Cleanup(server.Close)
	t.Cleanup(p.keepsNoSecret)
	p.url = server.URL
	return p
}

func (p *plant) clock() time.Time  { return time.Unix(0, p.now.Load()).UTC() }
func (p *plant) set(now time.Time) { p.now.Store(now.UnixNano()) }

// tx runs do in a transaction of its own.
func (p *plant) tx(do func(tx pgx.Tx) error) {
	p.t.Helper()
	if err := pgx.BeginFunc(p.t.Context(), p.pool, do); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) exec(sql string, args ...any) {
	p.t.Helper()
	if _, err := p.pool.Exec(p.t.Context(), sql, args...); err != nil {
		p.t.Fatal(err)
	}
}

// want compares what a query finds, as text.
func (p *plant) want(want, sql string, args ...any) {
	p.t.Helper()
	var got *string
	if err := p.pool.QueryRow(p.t.Context(), `SELECT (`+sql+`)::text`, args...).Scan(&got); err != nil {
		p.t.Fatal(err)
	}
	if got == nil {
		got = new(string)
	}
	if *got != want {
		p.t.Errorf("%s:\n%s, want %s", sql, *got, want)
	}
}

// token makes a token of that role, which is its name.
func (p *plant) token(role billing.Role) (secret string) {
	p.t.Helper()
	p.tx(func(tx pgx.Tx) (err error) {
		_, secret, err = billing.CreateToken(p.t.Context(), tx, string(role), role, time.Time{}, billing.Act{Actor: "ana", Reason: "test", Now: p.clock()})
		return err
	})
	return secret
}

// reply is what came back.
type reply struct {
	t      *testing.T
	asked  string
	status int
	header http.Header
	body   []byte
}

// call asks the API. A body is JSON text, or becomes JSON. Headers are "Name: value".
func (p *plant) call(token, method, path string, body any, headers ...string) *reply {
	p.t.Helper()
	var content io.Reader
	var sent []byte
	switch body := body.(type) {
	case nil:
	case string:
		sent = []byte(body)
		content = strings.NewReader(body)
	default:
		var err error
		if sent, err = json.Marshal(body); err != nil {
			p.t.Fatal(err)
		}
		content = bytes.NewReader(sent)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, content)
	if err != nil {
		p.t.Fatal(err)
	}
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	r := &reply{t: p.t, asked: method + " " + path, status: res.StatusCode, header: res.Header}
	if r.body, err = io.ReadAll(res.Body); err != nil {
		p.t.Fatal(err)
	}
	p.conforms(req, r)
	p.keepsContract(req, sent, r)
	return r
}

// want checks the status, and reads the body into the first of into.
func (r *reply) want(status int, into ...any) *reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s: %d, want %d\n%s", r.asked, r.status, status, r.body)
	}
	if len(into) > 0 {
		if err := json.Unmarshal(r.body, into[0]); err != nil {
			r.t.Fatalf("%s: %v\n%s", r.asked, err, r.body)
		}
	}
	return r
}

// wantProblem checks that the answer is a problem of that kind, which says something.
func (r *reply) wantProblem(k kind, says ...string) problem {
	r.t.Helper()
	var got problem
	r.want(k.status, &got)
	if got.Type != problemURN(problemType+k.slug) || got.Status != k.status || got.Title == "" || got.Detail == "" {
		r.t.Errorf("%s: %s, want the problem %s", r.asked, r.body, k.slug)
	}
	if kind := r.header.Get("Content-Type"); kind != "application/problem+json" {
		r.t.Errorf("%s: Content-Type %q", r.asked, kind)
	}
	for _, s := range says {
		if !strings.Contains(string(r.body), s) {
			r.t.Errorf("%s: %s does not say %q", r.asked, r.body, s)
		}
	}
	return got
}

// lines is a log that tests read.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wantMetric compares one value, with its labels in order: name{a="b"} or name.
func (p *plant) wantMetric(name string, want float64) {
	p.t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			full := f.GetName()
			if len(labels) > 0 {
				full += "{" + strings.Join(labels, ",") + "}"
			}
			if full == name {
				if got := m.GetCounter().GetValue(); got != want {
					p.t.Errorf("%s is %v, want %v", name, got, want)
				}
				return
			}
			all = append(all, full)
		}
	}
	p.t.Errorf("no metric %s among %s", name, strings.Join(all, " "))
}
