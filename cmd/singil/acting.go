package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// acting is who does something that the audit log keeps, and why.
type acting struct {
	actor, reason string
	dryRun        bool
}

// addTo gives a command --actor and --reason.
func (a *acting) addTo(cmd *cobra.Command) {
	addActor(cmd, &a.actor)
	cmd.Flags().StringVar(&a.reason, "reason", "", "why, for the audit log (needed)")
}

// addOptional is addTo for what tells by itself why it is done, more often than not.
func (a *acting) addOptional(cmd *cobra.Command, otherwise string) {
	addActor(cmd, &a.actor)
	cmd.Flags().StringVar(&a.reason, "reason", "", "why, for the audit log (default: "+otherwise+")")
}

// addDryRun gives a command --dry-run: everything is checked and taken back.
func (a *acting) addDryRun(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.dryRun, "dry-run", false, "check and show what would be, and change nothing")
}

func (a acting) check(cmd *cobra.Command) error {
	switch {
	case strings.TrimSpace(a.reason) == "":
		return usageError{cmd, errors.New("--reason is needed: somebody will ask")}
	case strings.TrimSpace(a.actor) == "":
		return usageError{cmd, errors.New("--actor is empty")}
	}
	return nil
}

// errTakenBack ends a transaction whose changes were only to be shown.
var errTakenBack = errors.New("taken back")

// change runs do in one transaction at business time, and commits it unless this
// is a dry run.
func (a acting) change(ctx context.Context, pool *pgxpool.Pool, do func(tx pgx.Tx, act billing.Act) error) error {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		now, err := businessNow(ctx, tx)
		if err != nil {
			return err
		}
		if err := do(tx, billing.Act{Actor: a.actor, Reason: a.reason, Now: now}); err != nil {
			return err
		}
		if a.dryRun {
			return errTakenBack
		}
		return nil
	})
	if errors.Is(err, errTakenBack) {
		return nil
	}
	return coded(err)
}

// told is the last line of a command that changed something, for people.
func (a acting) told(cmd *cobra.Command, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.dryRun {
		text = "Dry run, nothing was changed. Otherwise: " + text
	}
	fmt.Fprintln(cmd.ErrOrStderr(), text)
}

// view runs a command that reads: with the output checked, the database open
// and the zone that its tables are in.
func view(cmd *cobra.Command, o output, do func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	return withDatabase(cmd, func(ctx context.Context, c config, pool *pgxpool.Pool) error {
		zone, err := billing.LoadZone(c.TimeZone)
		if err != nil {
			return err
		}
		return coded(do(ctx, pool, zone))
	})
}

// listing is what every list takes.
type listing struct {
	limit int
	after string
}

const listLimit = 10_000

func (l *listing) addTo(cmd *cobra.Command, last string) {
	cmd.Flags().IntVar(&l.limit, "limit", 50, "how many")
	cmd.Flags().StringVar(&l.after, "after", "", "go on behind this "+last+", the last one of the page before")
}

func (l listing) check(cmd *cobra.Command) error {
	if l.limit < 1 || l.limit > listLimit {
		return usageError{cmd, fmt.Errorf("--limit is %d; it takes 1 to %d", l.limit, listLimit)}
	}
	return nil
}

// more tells a person how to go on when the page was full.
func (l listing) more(cmd *cobra.Command, got int, last string) {
	if got == l.limit && terminal(cmd.ErrOrStderr()) {
		fmt.Fprintf(cmd.ErrOrStderr(), "There may be more: --after %s\n", last)
	}
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}
