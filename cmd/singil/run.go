package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/worker"
)

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the billing daemon",
		Long: `Run the billing daemon: it opens an invoice for every period that is due, and
charges the customer's saved card until it is paid or somebody has to look.
Any number of daemons may run on one database. Settings are environment
variables; singil config lists them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDaemon(cmd.Context(), cmd.ErrOrStderr())
		},
	}
}

// garbage is how much a daemon may let lie before it collects, in percent of what
// it uses. It uses little, about 10 MB, and at Go's 100 would spend a tenth of a
// billing day's time on collecting.
const garbage = 200

func runDaemon(ctx context.Context, stderr io.Writer) error {
	cfg, err := readConfig()
	if err != nil {
		return err
	}
	log := newLogger(stderr)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	log.Info("time zones", "database", "embedded", "version", billing.ZoneVersion())
	metrics := worker.NewMetrics()
	var d *daemon
	client, err := cfg.payMongo(paymongo.WithObserver(metrics.ObservePayMongo), cfg.sharedRate(func() *pgxpool.Pool { return d.pool }, log))
	if err != nil {
		return err
	}
	d, err = newDaemon(ctx, cfg, worker.NewPayMongo(client), client.Livemode(), metrics, log)
	if err != nil {
		return err
	}
	defer d.close()
	d.super = findSupervisor(os.Getenv, log)
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return configError{fmt.Errorf("SINGIL_LISTEN: %w", err)}
	}
	return d.run(ctx, listener)
}

// newLogger writes text for a person and JSON for a machine.
func newLogger(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
