package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func freezeCommand() *cobra.Command {
	return switchCommand("freeze", "Stop all charging in every daemon, from now on",
		"Webhooks are still taken, and outcomes that are open are still asked for.",
		billing.Freeze, "Frozen. Nothing is charged until: singil unfreeze --reason ...")
}

func unfreezeCommand() *cobra.Command {
	var waive bool
	cmd := switchCommand("unfreeze", "Let charging go on: after a freeze, and after the breaker tripped",
		"The breaker trips when PayMongo refuses the key, or declines because the account is set up wrongly. Mend that first.\n"+
			"Behind a restored, copied or failed over database it is refused (exit code 4) until singil recover is done.",
		func(ctx context.Context, tx pgx.Tx, actor, reason string) error {
			if waive {
				if err := billing.WaiveRecovery(ctx, tx, actor, reason); err != nil {
					return err
				}
			}
			if err := billing.Unfreeze(ctx, tx, actor, reason); err != nil {
				return err
			}
			return billing.CloseBreaker(ctx, tx, actor, reason)
		}, "Charging goes on with the next sweep.")
	cmd.Flags().BoolVar(&waive, "without-recovery", false,
		"go on without singil recover: what the database has forgotten may be charged a second time, and --reason says who answers for it")
	return cmd
}

// switchCommand is one of the two, with the reason that the audit log wants.
func switchCommand(name, short, long string, do func(context.Context, pgx.Tx, string, string) error, done string) *cobra.Command {
	var actor, reason string
	cmd := &cobra.Command{
		Use: name + " --reason WHY", Short: short, Long: short + ". " + long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if strings.TrimSpace(reason) == "" {
				return usageError{cmd, errors.New("--reason is needed: somebody will ask")}
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return do(ctx, tx, actor, reason) })
				if err == nil {
					fmt.Fprintln(cmd.ErrOrStderr(), done)
				}
				return coded(err)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log and for whoever finds it stopped")
	addActor(cmd, &actor)
	return cmd
}
