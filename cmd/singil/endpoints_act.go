package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func enableEndpointCommand(o *output) *cobra.Command {
	return endpointAct(o, "enable ID", "Deliver to an endpoint again, first what was pending",
		"Events that were written while it was off do not come by themselves: singil events replay sends them.",
		true, billing.AuditEntry{Action: "enable_endpoint"})
}

func disableEndpointCommand(o *output) *cobra.Command {
	return endpointAct(o, "disable ID", "Deliver nothing more to an endpoint",
		"What is pending waits for enable. Events that are written meanwhile do not come to it.",
		false, billing.AuditEntry{Action: "disable_endpoint"})
}

// endpointAct is one of the two. A delivery that is under way may still arrive.
func endpointAct(o *output, use, short, long string, enabled bool, entry billing.AuditEntry) *cobra.Command {
	var a acting
	state := map[bool]string{true: "on", false: "off"}[enabled]
	cmd := &cobra.Command{
		Use: use + " --reason WHY", Short: short, Long: short + ". " + long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, _ *time.Location) error {
				var e billing.Endpoint
				told := "is " + state + " already"
				err := a.change(ctx, pool, func(tx pgx.Tx, act billing.Act) (err error) {
					if e, err = endpointOf(ctx, tx, args[0]); err != nil || e.Enabled == enabled {
						return err
					}
					if err := billing.EnableEndpoint(ctx, tx, e.ID, enabled); err != nil {
						return err
					}
					entry.Actor, entry.Reason, entry.Subject = act.Actor, act.Reason, e.ID.String()
					entry.Before, entry.After = map[string]bool{"enabled": e.Enabled}, map[string]bool{"enabled": enabled}
					e.Enabled, told = enabled, "is "+state
					return billing.Audit(ctx, tx, entry)
				})
				if err != nil {
					return err
				}
				a.told(cmd, "Endpoint %s %s. %s", e.ID, told, long)
				return o.print(cmd.OutOrStdout(), e, func(w io.Writer) { endpointRows(w, []billing.Endpoint{e}) })
			})
		},
	}
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}

func endpointRows(w io.Writer, list []billing.Endpoint) {
	fmt.Fprintln(w, "ID\tURL\tENABLED\tPENDING\tPARKED")
	for _, e := range list {
		fmt.Fprintf(w, "%s\t%s\t%t\t%d\t%d\n", e.ID, e.URL, e.Enabled, e.Pending, e.Parked)
	}
}

func resumeStreamsCommand() *cobra.Command {
	var a acting
	var endpoint string
	cmd := &cobra.Command{
		Use: "resume [--endpoint ID] --reason WHY", Short: "Try again at once what was given up or waits after failures: the endpoint is mended",
		Long: `Try again at once what was given up or waits after failures: of one endpoint, or of
all. What is pending comes in order, from the event on that failed; nothing is left
out. singil events endpoints tells how much that is.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				var lines []string
				err := a.change(ctx, pool, func(tx pgx.Tx, act billing.Act) error {
					list, err := billing.ListEndpoints(ctx, tx)
					if endpoint != "" {
						list = make([]billing.Endpoint, 1)
						list[0], err = endpointOf(ctx, tx, endpoint)
					}
					if err != nil {
						return err
					}
					for _, e := range list {
						n, err := billing.ResumeStreams(ctx, tx, e.ID, time.Now())
						if err != nil {
							return err
						}
						if n == 0 {
							continue
						}
						line := fmt.Sprintf("%d streams of endpoint %s are tried again now.", n, e.ID)
						if !e.Enabled {
							line = fmt.Sprintf("%d streams of endpoint %s are tried again when it is on: singil events endpoints enable %[2]s", n, e.ID)
						}
						lines = append(lines, line)
						err = billing.Audit(ctx, tx, billing.AuditEntry{
							Actor: act.Actor, Action: "resume_streams", Subject: e.ID.String(), Reason: act.Reason, After: map[string]int64{"streams": n},
						})
						if err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
				for _, line := range lines {
					a.told(cmd, "%s", line)
				}
				if len(lines) == 0 {
					a.told(cmd, "Nothing was given up, and nothing waits after a failure.")
				}
				return nil
			})
		},
	}
	addEndpoint(cmd, &endpoint)
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}

// addEndpoint gives a command --endpoint, with the ids to choose from.
func addEndpoint(cmd *cobra.Command, endpoint *string) {
	cmd.Flags().StringVar(endpoint, "endpoint", "", "id of the endpoint")
	// Only a flag that is not there is refused.
	_ = cmd.RegisterFlagCompletionFunc("endpoint", func(cmd *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return completer("endpoint")(cmd, nil, prefix)
	})
}

// endpointOf finds an endpoint by its id, in a transaction that changes it.
func endpointOf(ctx context.Context, tx pgx.Tx, name string) (billing.Endpoint, error) {
	list, err := billing.ListEndpoints(ctx, tx)
	if err != nil {
		return billing.Endpoint{}, err
	}
	id, err := uuid.Parse(name)
	for _, e := range list {
		if err == nil && e.ID == id {
			return e, nil
		}
	}
	return billing.Endpoint{}, fmt.Errorf("endpoint %.40q: %w; singil events endpoints lists them", name, billing.ErrNotFound)
}
