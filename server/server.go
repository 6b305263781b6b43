// Package server is what Singil shows to the network: PayMongo's webhooks,
// metrics, health, and the HTTP API of package api.
//
// It owns routes, limits and status codes. It decides nothing about money: a
// webhook is handed to package worker, raw, and answered by what comes back.
package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/singil/singil/server/api"
	"github.com/singil/singil/worker"
)

const (
	// maxWebhook is far more than any event of PayMongo's.
	maxWebhook = 256 << 10

	signatureHeader = "Paymongo-Signature"

	// checkTimeout bounds each check of readiness: a database that does not answer
	// is one that is away.
	checkTimeout = 2 * time.Second
)

// Inbox takes webhooks. *worker.Inbox does.
type Inbox interface {
	Receive(ctx context.Context, signature string, body []byte) (worker.Receipt, error)
}

// Check is one thing that must be right before this daemon gets work.
type Check struct {
	Name string // is shown to whoever asks; the error is only logged
	Run  func(context.Context) error
}

// Config of the server. Registry and Log are required.
type Config struct {
	// Inbox takes PayMongo's webhooks. nil: no secret is configured, and there is
	// no such route; open outcomes are then found by looking alone.
	Inbox Inbox
	// API answers /v1/ and /openapi.json: api.New makes it. nil: it is switched off,
	// and there are no such routes.
	API http.Handler
	// River answers api.RiverPath: api.NewRiver makes it. nil: there is no such page.
	River    http.Handler
	Registry *prometheus.Registry
	// Checks of readiness, in the order in which they are told of.
	Checks []Check
	// Draining tells that the daemon stops: it takes no new work. nil: never.
	Draining func() bool
	Log      *slog.Logger
}

// New makes the handler. It panics on a config that lacks what is required.
func New(cfg Config) http.Handler {
	if cfg.Registry == nil || cfg.Log == nil {
		panic("server: Config needs Registry and Log")
	}
	s := &server{cfg: cfg}
	s.failing.Store(new(string))
	mux := http.NewServeMux()
	if cfg.Inbox != nil {
		mux.HandleFunc("POST /webhooks/paymongo", s.webhook)
	}
	if cfg.API != nil {
		mux.Handle("/v1/", cfg.API)
		mux.Handle("/openapi.json", cfg.API)
	}
	if cfg.River != nil {
		mux.Handle(api.RiverPath, cfg.River)
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{
		Registry: cfg.Registry, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
		// A scrape that hangs must not pile up.
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.ready)
	return secure(mux)
}

// NewHTTPServer is a server with limits on everything a client may do slowly or
// at length.
func NewHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second, // covers the reading, and a database that is slow
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

type server struct {
	cfg     Config
	failing atomic.Pointer[string] // what was not ready when last asked
}

// secure sets headers that fit an interface for programs: nothing here is a page.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// webhook answers 200 only for what is durable. What PayMongo sends in earnest
// and we cannot store gets a 503, and PayMongo sends it again.
func (s *server) webhook(w http.ResponseWriter, r *http.Request) {
	signatures := r.Header.Values(signatureHeader)
	if len(signatures) != 1 {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "unauthorized"})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhook))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			answer(w, http.StatusRequestEntityTooLarge, map[string]any{"error": "too large"})
			return
		}
		answer(w, http.StatusBadRequest, map[string]any{"error": "bad request"})
		return
	}
	_, err = s.cfg.Inbox.Receive(r.Context(), signatures[0], body)
	switch {
	case err == nil:
		answer(w, http.StatusOK, map[string]any{"received": true})
	case errors.Is(err, worker.ErrNotAuthentic):
		// The same words whatever was wrong: they would help a forger.
		answer(w, http.StatusUnauthorized, map[string]any{"error": "unauthorized"})
	case errors.Is(err, worker.ErrNotAnEvent):
		answer(w, http.StatusBadRequest, map[string]any{"error": "not an event"})
	default:
		w.Header().Set("Retry-After", "30")
		answer(w, http.StatusServiceUnavailable, map[string]any{"error": "try again"})
	}
}

// health tells that the process answers. It asks nobody else: a database that is
// away is no reason to kill the process.
func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"status": "ok"})
}

// ready tells whether work should be sent here, and what is in the way.
func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	var reasons []string
	if s.cfg.Draining != nil && s.cfg.Draining() {
		reasons = append(reasons, "draining")
	}
	errs := make([]error, len(s.cfg.Checks))
	done := make(chan struct{}, len(s.cfg.Checks))
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	for i, check := range s.cfg.Checks {
		go func() {
			errs[i] = check.Run(ctx)
			done <- struct{}{}
		}()
	}
	for range s.cfg.Checks {
		<-done
	}
	for i, err := range errs {
		if err != nil {
			reasons = append(reasons, s.cfg.Checks[i].Name)
		}
	}
	s.noteReadiness(reasons, errors.Join(errs...))
	if len(reasons) > 0 {
		answer(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "reasons": reasons})
		return
	}
	answer(w, http.StatusOK, map[string]any{"ready": true})
}

// noteReadiness logs a change, not every probe. The details stay in the log.
func (s *server) noteReadiness(reasons []string, err error) {
	now := strings.Join(reasons, ", ")
	if before := s.failing.Swap(&now); *before != now {
		s.cfg.Log.Warn("readiness changed", "not_ready", cmp.Or(now, "nothing"), "before", cmp.Or(*before, "nothing"), "error", err)
	}
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who asked is gone: nothing to be done
}
