package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/singil/singil/migrations"
)

func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Make and upgrade the database schema",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	up := &cobra.Command{
		Use:   "up",
		Short: "Apply what is pending, River's migrations and then ours",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dsn, err := databaseURL()
			if err != nil {
				return err
			}
			return migrateError(migrations.Up(cmd.Context(), dsn, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))))
		},
	}
	var o output
	status := &cobra.Command{
		Use:   "status",
		Short: "List the migrations, applied and pending",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			dsn, err := databaseURL()
			if err != nil {
				return err
			}
			all, err := migrations.Status(cmd.Context(), dsn)
			if err != nil {
				return migrateError(err)
			}
			return o.print(cmd.OutOrStdout(), all, func(w io.Writer) {
				fmt.Fprintln(w, "LINE\tVERSION\tNAME\tAPPLIED")
				for _, m := range all {
					applied := "pending"
					if !m.Pending() {
						applied = m.AppliedAt.UTC().Format(time.RFC3339)
					}
					name := m.Name
					if name == "" {
						name = "(of a newer singil)"
					}
					fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", m.Line, m.Version, name, applied)
				}
			})
		},
	}
	o.addTo(status)
	cmd.AddCommand(up, status)
	cmd.AddCommand(grantsCommand())
	return cmd
}

// databaseURL is for the commands that need no fitting schema.
func databaseURL() (string, error) {
	c, err := readConfig()
	if err != nil {
		return "", err
	}
	if c.DatabaseURL == "" {
		return "", configError{errors.New("DATABASE_URL is not set; it looks like postgres://user@host/database")}
	}
	return c.DatabaseURL, nil
}

// migrateError tells a wrong address from a database that is away.
func migrateError(err error) error {
	var parse *pgconn.ParseConfigError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &parse):
		return configError{fmt.Errorf("DATABASE_URL cannot be read: %w", redactDSN(err))}
	case errors.As(err, &connect):
		return exitCode{6, err}
	}
	return err
}
