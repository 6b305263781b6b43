package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// shownClock is what singil clock prints.
type shownClock struct {
	Now     time.Time `json:"now"`
	Virtual bool      `json:"virtual"`
}

func clockCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "clock",
		Short: "Show and move the virtual clock",
		Long: `Show and move the virtual clock, which every daemon on the database follows
within a second. There is none with live money, and it does not go back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o.addTo(cmd)
	show := &cobra.Command{
		Use: "show", Short: "Show the business time", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.clock(cmd, acting{}, func(context.Context, pgx.Tx, billing.Act) error { return nil })
		},
	}
	var a acting
	set := &cobra.Command{
		Use: "set T", Short: "Set the clock to an instant", Example: "  singil clock set 2026-02-28T09:00:00+08:00", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := billing.ParseInstant(args[0])
			if err != nil {
				return usageError{cmd, err}
			}
			return o.clock(cmd, a, func(ctx context.Context, tx pgx.Tx, act billing.Act) error {
				return billing.MoveClock(ctx, tx, to, act)
			})
		},
	}
	advance := &cobra.Command{
		Use: "advance D", Short: "Move the clock on", Example: "  singil clock advance 31d\n  singil clock advance 1d12h", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			by, err := parseSpan(args[0])
			if err != nil {
				return usageError{cmd, err}
			}
			return o.clock(cmd, a, func(ctx context.Context, tx pgx.Tx, act billing.Act) error {
				return advanceClock(ctx, tx, by, act, time.Now())
			})
		},
	}
	a.addOptional(set, clockReason)
	a.addOptional(advance, clockReason)
	cmd.AddCommand(show, set, advance)
	return cmd
}

// clockReason is why a clock is moved that nobody's money hangs on.
const clockReason = "virtual clock"

func (o output) clock(cmd *cobra.Command, a acting, move func(ctx context.Context, tx pgx.Tx, act billing.Act) error) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	return withDatabase(cmd, func(ctx context.Context, c config, pool *pgxpool.Pool) error {
		var now shownClock
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := move(ctx, tx, billing.Act{Actor: a.actor, Reason: cmp.Or(a.reason, clockReason)}); err != nil {
				return err
			}
			instance, err := billing.LoadInstance(ctx, tx)
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			now = shownClock{instance.Now(time.Now()).UTC(), !instance.VirtualNow.IsZero()}
			return nil
		})
		if err != nil {
			return coded(err)
		}
		zone, err := billing.LoadZone(c.TimeZone)
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), now, func(w io.Writer) {
			kind := "real"
			if now.Virtual {
				kind = "virtual"
			}
			fmt.Fprintf(w, "%s\t%s\t(%s)\n", now.Now.Format(time.RFC3339), local(now.Now, zone), kind)
		})
	})
}

// Locked, so that two that advance at once add up; as a whole, so that the many
// that charge and share the row do not keep us waiting.
const sqlLockClock = `LOCK TABLE singil.instance IN EXCLUSIVE MODE`

// advanceClock moves the clock on from where it stands; one that is not virtual
// yet begins at the real time.
func advanceClock(ctx context.Context, tx pgx.Tx, by time.Duration, act billing.Act, realNow time.Time) error {
	if _, err := tx.Exec(ctx, sqlLockClock); err != nil {
		return fmt.Errorf("lock the clock: %w", err)
	}
	instance, err := billing.LoadInstance(ctx, tx)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return billing.MoveClock(ctx, tx, instance.Now(realNow).Add(by).UTC().Truncate(time.Microsecond), act)
}

// parseSpan reads a duration as Go writes it, with days of 24 hours in front: 31d, 1d12h, 90m.
func parseSpan(s string) (time.Duration, error) {
	var span time.Duration
	rest := s
	if days, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > 36525 {
			return 0, fmt.Errorf("%q is not a duration like 31d, 1d12h or 90m", s)
		}
		span, rest = time.Duration(n)*24*time.Hour, after
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration like 31d, 1d12h or 90m", s)
		}
		span += d
	}
	if span <= 0 {
		return 0, fmt.Errorf("%q: the clock only moves on", s)
	}
	return span, nil
}
