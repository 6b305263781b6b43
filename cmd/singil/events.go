package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// eventLine is one event as a program reads it.
type eventLine struct {
	Seq        int64           `json:"seq"`
	ID         uuid.UUID       `json:"id"`
	Type       string          `json:"type"`
	Data       json.RawMessage `json:"data"`
	OccurredAt time.Time       `json:"occurred_at"`
}

func eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "What happened: list, deliver again, and to whom",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listEventsCommand(), replayEventsCommand(), resumeStreamsCommand(), endpointsCommand())
	return cmd
}

func listEventsCommand() *cobra.Command {
	var since int64
	var limit int
	var kind string
	var out output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List events in the order of writing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(cmd); err != nil {
				return err
			}
			if limit < 1 || limit > 10_000 {
				return usageError{cmd, errors.New("--limit takes 1 to 10000")}
			}
			return withDatabase(cmd, func(ctx context.Context, c config, pool *pgxpool.Pool) error {
				events, err := billing.ListEvents(ctx, pool, since, limit, kind)
				if err != nil {
					return err
				}
				zone, err := billing.LoadZone(c.TimeZone)
				if err != nil {
					return err
				}
				lines := make([]eventLine, len(events))
				for i, e := range events {
					lines[i] = eventLine{e.Seq, e.ID, e.Type, e.Data, e.OccurredAt}
				}
				return out.print(cmd.OutOrStdout(), lines, func(w io.Writer) {
					fmt.Fprintln(w, "SEQ\tTYPE\tWHEN\tDATA")
					for _, e := range lines {
						fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", e.Seq, e.Type, local(e.OccurredAt, zone), e.Data)
					}
				})
			})
		},
	}
	cmd.Flags().Int64Var(&since, "since", 0, "only events behind this number")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many")
	cmd.Flags().StringVar(&kind, "type", "", "only events of this type, such as invoice.paid")
	out.addTo(cmd)
	return cmd
}

func replayEventsCommand() *cobra.Command {
	var a acting
	var endpoint, kind string
	cmd := &cobra.Command{
		Use:   "replay FIRST[-LAST] --endpoint ID --reason WHY",
		Short: "Deliver events again to an endpoint",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			first, last, err := eventRange(args[0])
			if err != nil {
				return usageError{cmd, err}
			}
			if _, err := uuid.Parse(endpoint); err != nil {
				return usageError{cmd, errors.New("--endpoint takes the id of an endpoint; singil events endpoints lists them")}
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				var n int64
				err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
					e, err := endpointOf(ctx, tx, endpoint)
					if err != nil {
						return err
					}
					if n, err = billing.Replay(ctx, tx, e.ID, first, last, kind, time.Now()); err != nil {
						return err
					}
					return billing.Audit(ctx, tx, billing.AuditEntry{
						Actor: a.actor, Action: "replay_events", Subject: e.ID.String(), Reason: a.reason,
						After: map[string]any{"first": first, "last": last, "type": kind, "events": n},
					})
				})
				if err != nil {
					return coded(err)
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%d events will be delivered again.\n", n)
				return nil
			})
		},
	}
	addEndpoint(cmd, &endpoint)
	cmd.Flags().StringVar(&kind, "type", "", "only events of this type")
	a.addTo(cmd)
	return cmd
}

// eventRange reads "17" or "17-40".
func eventRange(text string) (first, last int64, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if first, err = strconv.ParseInt(from, 10, 64); err != nil || first < 1 {
		return 0, 0, fmt.Errorf("%q is no event number, nor a range such as 17-40", text)
	}
	if !isRange {
		return first, first, nil
	}
	if to == "" {
		return first, math.MaxInt64, nil
	}
	if last, err = strconv.ParseInt(to, 10, 64); err != nil || last < first {
		return 0, 0, fmt.Errorf("%q is no range of events such as 17-40", text)
	}
	return first, last, nil
}

func endpointsCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "endpoints",
		Short: "List the URLs that events are delivered to, and switch them on and off",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(cmd); err != nil {
				return err
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				list, err := billing.ListEndpoints(ctx, pool)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), list, func(w io.Writer) { endpointRows(w, list) })
			})
		},
	}
	out.addTo(cmd)

	var a acting
	add := &cobra.Command{
		Use:     "add URL --reason WHY",
		Short:   "Deliver events to a URL, from now on; prints the secret that signs them, once",
		Example: `  singil events endpoints add https://you.example/singil --reason "the shop wants to know"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				var added billing.Endpoint
				err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
					if added, err = billing.AddEndpoint(ctx, tx, args[0], ""); err != nil {
						return err
					}
					return billing.Audit(ctx, tx, billing.AuditEntry{
						Actor: a.actor, Action: "add_endpoint", Subject: added.ID.String(), Reason: a.reason, After: added,
					})
				})
				if err != nil {
					return exitCode{4, err}
				}
				return out.print(cmd.OutOrStdout(), map[string]string{"id": added.ID.String(), "url": added.URL, "secret": added.Secret}, func(w io.Writer) {
					fmt.Fprintf(w, "id\t%s\nurl\t%s\nsecret\t%s\n", added.ID, added.URL, added.Secret)
				})
			})
		},
	}
	a.addTo(add)
	cmd.AddCommand(add, enableEndpointCommand(&out), disableEndpointCommand(&out))
	return cmd
}
