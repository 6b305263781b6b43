package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func exportCommand() *cobra.Command {
	var since, status string
	cmd := &cobra.Command{
		Use:   "export " + strings.Join(billing.ExportKinds(), "|"),
		Short: "Export as JSON Lines, with your own ids",
		Long: `Export as JSON Lines, with your own ids, all in one snapshot and in constant
memory. Amounts are centavos, instants RFC 3339 in UTC.

--since goes by business time: when an invoice was due, an attempt made, a
payment taken, an event happened; of a subscription, when it was imported.`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: billing.ExportKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter := billing.ExportFilter{Status: status}
			if since != "" {
				t, err := billing.ParseInstant(since)
				if err != nil {
					return usageError{cmd, fmt.Errorf("--since: %w", err)}
				}
				filter.Since = t
			}
			if err := filter.Check(args[0]); err != nil {
				return usageError{cmd, err}
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
				lines := json.NewEncoder(out)
				lines.SetEscapeHTML(false)
				err := billing.Export(ctx, pool, args[0], filter, lines.Encode)
				if err == nil {
					err = out.Flush()
				}
				if errors.Is(err, syscall.EPIPE) {
					return nil // head has seen enough
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "only what happened at this instant or later: 2026-01-31T09:00:00+08:00")
	cmd.Flags().StringVar(&status, "status", "", "only what is in this status")
	return cmd
}
