package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/singil/singil/billing"
)

const (
	// maxBody is far more than any request here needs.
	maxBody = 64 << 10
	// maxURL bounds the path with its query.
	maxURL = 8 << 10

	// requestTimeout is how long a request may take, with what it asks of the
	// provider: shorter than the server's time to write the answer.
	requestTimeout = 20 * time.Second

	// maxInFlight requests are worked on at a time; the database's pool is smaller.
	maxInFlight = 100
)

// Config of the API. All of it is required, but for MayCharge.
type Config struct {
	// Pool is logged in as a role that may do what operators do. It is the API's
	// own: a flood of requests must not keep charges waiting for a connection.
	Pool        *pgxpool.Pool
	Gateway     Gateway
	Now         func() time.Time // the real clock
	Environment billing.Environment
	Livemode    bool
	// TimeZone is the zone in which days are counted where nothing else tells.
	TimeZone *time.Location
	// CallsPerMinute is what the rate to the provider allows, 1 or more.
	CallsPerMinute int64
	// MayCharge is the interlock of this process, beside those in the database.
	MayCharge func() error
	Log       *slog.Logger
	Registry  prometheus.Registerer
}

// api is the handler.
type api struct {
	cfg        Config
	mux        *http.ServeMux
	huma       huma.API
	operations map[string]operation // by the pattern of the mux
	document   []byte
	cross      *http.CrossOriginProtection
	gate       gate
	inFlight   chan struct{}
	timeout    time.Duration
	metrics    *metrics
}

// New makes the handler of /v1/ and /openapi.json. It panics on a config that
// lacks what is required.
func New(cfg Config) http.Handler {
	if cfg.Pool == nil || cfg.Gateway == nil || cfg.Now == nil || cfg.Environment == "" || cfg.TimeZone == nil || cfg.CallsPerMinute < 1 || cfg.Log == nil || cfg.Registry == nil {
		panic("api: Config needs Pool, Gateway, Now, Environment, TimeZone, CallsPerMinute, Log and Registry")
	}
	return newAPI(cfg)
}

// newAPI is New for those who only want the document.
func newAPI(cfg Config) *api {
	a := &api{
		cfg: cfg, mux: http.NewServeMux(), operations: map[string]operation{}, cross: http.NewCrossOriginProtection(),
		gate: gate{pool: cfg.Pool, now: cfg.Now}, inFlight: make(chan struct{}, maxInFlight), timeout: requestTimeout,
	}
	a.huma = humago.New(a.mux, documentConfig())
	a.instance()
	a.customers()
	a.paymentMethods()
	a.cardSetups()
	a.plans()
	a.subscriptions()
	a.invoices()
	a.pay()
	a.checkout()
	a.events()
	a.forecast()
	a.document = a.finishDocument()
	a.metrics = newMetrics(cfg.Registry, a.operations)
	return a
}

// ServeHTTP answers any request, in our form whatever goes wrong.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == documentPath {
		a.serveDocument(w, r)
		return
	}
	started := a.cfg.Now()
	ctx, cancel := context.WithTimeout(r.Context(), a.timeout)
	defer cancel()
	_, pattern := a.mux.Handler(r)
	op := a.operations[pattern]
	asked := &request{op: op}
	r = r.WithContext(context.WithValue(ctx, requestKey{}, asked))

	answer := newAnswer()
	if err := a.serveSafely(answer, r); err != nil {
		answer = newAnswer() // nothing of it has left yet
		problemOf(r.Context(), a.cfg.Log, err).write(answer)
	}
	answer.send(w)
	took := a.cfg.Now().Sub(started)
	a.metrics.count(op.route(), answer.status, took)
	if op.id != "" && op.changes() && asked.token.Name != "" {
		a.cfg.Log.Info("api", "operation", op.id, "token", asked.token.Name, "status", answer.status,
			"replayed", answer.header.Get(replayHeader) != "", "took", took)
	}
}

// serveSafely makes an error of a panic.
func (a *api) serveSafely(w *answer, r *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return a.serve(w, r)
}

// serve lets through to the operation what may get there. Nothing is stored or
// logged of a request before inspect.
func (a *api) serve(w *answer, r *http.Request) error {
	select {
	case a.inFlight <- struct{}{}:
		defer func() { <-a.inFlight }()
	default:
		return newProblem(kindUnavailable, "Too many requests are under way. "+askAgain).again(1)
	}
	if len(r.URL.RequestURI()) > maxURL {
		return newProblem(kind{kindTooLarge.slug, http.StatusRequestURITooLong, kindTooLarge.title}, fmt.Sprintf("The path with its query is longer than %d bytes. Use fewer filters.", maxURL))
	}
	if err := a.cross.Check(r); err != nil {
		return newProblem(kindCrossSite, "A browser sent this from a page of another site. Call the API from your server: a token in a page is everybody's.")
	}
	asked := requestOf(r.Context())
	var err error
	if asked.token, err = a.gate.admit(r.Context(), bearer(r), bearerChallenge); err != nil {
		return err
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if err := a.inspect(r, body); err != nil {
		return err
	}
	if asked.op.id == "" {
		return a.nothingThere(r)
	}
	if !asked.token.Role.May(asked.op.role) {
		return newProblem(kindForbidden, fmt.Sprintf("This needs the role %s, and the token %s is a %s. Whoever runs the daemon makes another: singil tokens create.", asked.op.role, asked.token.Name, asked.token.Role)).
			with("WWW-Authenticate", bearerChallenge+`, error="insufficient_scope"`)
	}
	if asked.key, err = keyOf(r, asked.op); err != nil {
		return err
	}
	asked.hash = fingerprint(r, body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	a.mux.ServeHTTP(w, r)
	return nil
}

// nothingThere tells a path that is none from a method that it does not take.
func (a *api) nothingThere(r *http.Request) error {
	handler, _ := a.mux.Handler(r)
	probe := newAnswer()
	handler.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); probe.status == http.StatusMethodNotAllowed && allow != "" {
		return newProblem(kindMethod, "It takes "+allow+".").with("Allow", allow)
	}
	return newProblem(kindNotFound, "There is no such path. "+documentPath+" has all of them.")
}

// readBody reads all of the body there may be.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, newProblem(kindTooLarge, fmt.Sprintf("The body is longer than %d bytes.", maxBody))
	case err != nil:
		return nil, newProblem(kindTimeout, "The body ended early, or came too slowly. "+askAgain)
	}
	return body, nil
}

// answer is an answer before it is sent: until then it can become another.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{header: http.Header{}} }

func (w *answer) Header() http.Header { return w.header }

func (w *answer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *answer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *answer) send(to http.ResponseWriter) {
	w.WriteHeader(http.StatusOK)
	for name, values := range w.header {
		to.Header()[name] = values
	}
	to.WriteHeader(w.status)
	_, _ = to.Write(w.body.Bytes()) // who asked is gone: nothing to be done
}
