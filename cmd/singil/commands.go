package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// operatorCommands is what people type; run, sandbox and demo are what runs.
func operatorCommands() []*cobra.Command {
	return []*cobra.Command{
		migrateCommand(), importCommand(), exportCommand(), periodsCommand(), clockCommand(),
		subscriptionsCommand(), customersCommand(), invoicesCommand(), attemptsCommand(), retryCommand(), whyCommand(), runDueCommand(), forecastCommand(),
		reconcileCommand(), refundCommand(), paymentMethodsCommand(), webhooksCommand(), auditCommand(), tokensCommand(), doctorCommand(), freezeCommand(), unfreezeCommand(), checkCommand(), recoverCommand(),
		eventsCommand(), configCommand(), manCommand(), versionCommand(),
	}
}

// withDatabase runs do on the configured database, on a schema that fits.
func withDatabase(cmd *cobra.Command, do func(ctx context.Context, c config, pool *pgxpool.Pool) error) error {
	c, err := readConfig()
	if err != nil {
		return err
	}
	pool, err := c.open(cmd.Context(), "singil "+cmd.Name())
	if err != nil {
		var wrong configError
		if errors.As(err, &wrong) {
			return err
		}
		return exitCode{6, err}
	}
	defer pool.Close()
	return do(cmd.Context(), c, pool)
}

// coded gives the errors of billing their exit codes.
func coded(err error) error {
	var refused *billing.RefusedError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && (pg.Code == "25006" || pg.Code == "42501"): // read-only, or without the right
		return exitCode{4, fmt.Errorf("this database role may not do that: %w", err)}
	case errors.Is(err, billing.ErrNotFound):
		return exitCode{3, err}
	case errors.As(err, &refused):
		return exitCode{4, err}
	}
	return err
}

// businessNow is the virtual clock's time if there is one. Before the first
// singil run there is none.
func businessNow(ctx context.Context, q billing.Querier) (time.Time, error) {
	instance, err := billing.LoadInstance(ctx, q)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, err
	}
	return instance.Now(time.Now()).UTC().Truncate(time.Microsecond), nil
}

// addActor gives a command --actor, for the audit log.
func addActor(cmd *cobra.Command, actor *string) {
	cmd.Flags().StringVar(actor, "actor", cmp.Or(os.Getenv("USER"), os.Getenv("LOGNAME"), "operator"), "who does this, for the audit log")
}

// local is how a table shows an instant: in the configured zone, or a dash.
func local(t time.Time, zone *time.Location) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(zone).Format("2006-01-02 15:04:05 -07:00")
}

// dash is a text of a table, and a dash where there is none.
func dash(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return *s
}

// terminal tells whether somebody is looking.
func terminal(w io.Writer) bool { return isTerminal(w) }

// terminalIn tells whether somebody can answer.
func terminalIn(r io.Reader) bool { return isTerminal(r) }

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
