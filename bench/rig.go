package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/bench/stub"
	"github.com/singil/singil/internal/devpg"
)

// postgresSettings are the server's for all that is measured, beside what devpg sets: every commit is on the disk before
// it is acknowledged.
var postgresSettings = map[string]string{
	"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
	"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min", "max_connections": "300",
}

// rig is what every part measures on: one PostgreSQL, one provider, and singil as it is built from this tree.
type rig struct {
	options  options
	dir      string // ours alone
	root     string // of the module
	singil   string // the program
	provider string // its base URL
	pg       *devpg.Server
	pgPID    int
	admin    *pgxpool.Pool
	log      *slog.Logger

	statements []Statement
	processes  []*process
	started    int
	putOffs    []string // what did not come when it was due
}

func openRig(ctx context.Context, o options, log *slog.Logger) (_ *rig, err error) {
	r := &rig{options: o, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dir, err = os.MkdirTemp("", "singil-bench-"); err != nil {
		return nil, err
	}
	if err := r.build(ctx); err != nil {
		return nil, err
	}
	settings := maps.Clone(postgresSettings)
	if o.statements {
		settings["shared_preload_libraries"] = "pg_stat_statements"
	}
	if r.pg, err = devpg.Start(ctx, devpg.Options{Durable: true, Settings: settings}); err != nil {
		return nil, err
	}
	if r.admin, err = pgxpool.New(ctx, r.pg.DSN("")); err != nil {
		return nil, err
	}
	if err := r.admin.QueryRow(ctx, `SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int`).Scan(&r.pgPID); err != nil {
		return nil, fmt.Errorf("find the postmaster: %w", err)
	}
	provider, err := r.role("stub")
	if err != nil {
		return nil, err
	}
	r.provider, err = provider.says(ctx, regexp.MustCompile(`listening on (\S+)\n`))
	return r, err
}

// build builds singil. With profiles it is singil with a switch for them, and otherwise the same.
func (r *rig) build(ctx context.Context) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	r.root, r.singil = strings.TrimSpace(string(root)), filepath.Join(r.dir, "singil")
	args := []string{"build", "-trimpath", "-o", r.singil}
	if r.options.profiles != "" {
		args = append(args, "-tags", "pprof")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/singil")...)
	cmd.Dir = r.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build singil: %w: %s", err, out)
	}
	return nil
}

// close ends everything that was started, and takes it away.
func (r *rig) close() error {
	var errs []error
	for _, p := range slices.Backward(r.processes) {
		select {
		case <-p.ended: // whoever wanted to know has looked
		default:
			errs = append(errs, p.stop())
		}
	}
	if r.admin != nil {
		r.admin.Close()
	}
	if r.pg != nil {
		errs = append(errs, r.pg.Stop())
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// database makes a copy of another and connects to it.
func (r *rig) database(ctx context.Context, name, template string) (*pgxpool.Pool, error) {
	if _, err := r.admin.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+pgx.Identifier{template}.Sanitize()); err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(ctx, r.pg.DSN(name))
	if err == nil && r.options.statements {
		_, err = pool.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
	}
	return pool, err
}

// resetProvider begins a new ledger, and has every call take so long.
func (r *rig) resetProvider(ctx context.Context, latency time.Duration) error {
	return r.ask(ctx, http.MethodPost, "/bench/reset?latency="+url.QueryEscape(latency.String()), nil)
}

// calls are those since the last reset.
func (r *rig) calls(ctx context.Context) (c stub.Counts, err error) {
	return c, r.ask(ctx, http.MethodGet, "/bench/counts", &c)
}

// ledger is the money since the last reset.
func (r *rig) ledger(ctx context.Context) (list []stub.Payment, err error) {
	return list, r.ask(ctx, http.MethodGet, "/bench/ledger", &list)
}

func (r *rig) ask(ctx context.Context, method, path string, answer any) (err error) {
	req, err := http.NewRequestWithContext(ctx, method, r.provider+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", path, resp.Status)
	case answer == nil:
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
