package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/singil/singil/migrations"
)

func grantsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "grants",
		Short: "Give the database roles what they need, after migrate up",
		Long: `Give the database roles of deploy/sql/roles.sql (singil_worker, singil_operator,
singil_readonly) what they need on this schema, and take everything else from
them. Run it after each migrate up, as the same role. Daemons go on running.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dsn, err := databaseURL()
			if err != nil {
				return err
			}
			return migrateError(migrations.Grants(cmd.Context(), dsn, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))))
		},
	}
}
