package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// periodsLimit keeps a typing error from filling a disk.
const periodsLimit = 100_000

type periodsFlags struct {
	anchor, interval, zone, from, at string
	count, n                         int
}

// shownPeriod is a period in UTC.
type shownPeriod struct {
	No    int       `json:"no"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

func periodsCommand() *cobra.Command {
	var f periodsFlags
	var o output
	cmd := &cobra.Command{
		Use:   "periods --anchor T",
		Short: "Show the periods of a schedule",
		Long: `Show the periods of a schedule, by the rule that subscriptions are billed by.
Every boundary is counted from the anchor, in the anchor's time zone; a day that
a month does not have becomes its last one. Times are printed in UTC.`,
		Example: "  singil periods --anchor 2026-01-31T09:00:00+08:00 -n 3",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			list, err := f.periods()
			if err != nil {
				return usageError{cmd, err}
			}
			var data any = list
			if f.at != "" {
				data = list[0]
			}
			return o.print(cmd.OutOrStdout(), data, func(w io.Writer) {
				fmt.Fprintln(w, "NO\tSTART\tEND")
				for _, p := range list {
					fmt.Fprintf(w, "%d\t%s\t%s\n", p.No, p.Start.Format(time.RFC3339Nano), p.End.Format(time.RFC3339Nano))
				}
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.anchor, "anchor", "", "when period 0 starts, with its zone offset: 2026-01-31T09:00:00+08:00")
	flags.StringVar(&f.interval, "interval", "month", "day, week, month or year")
	flags.IntVar(&f.count, "count", 1, "how many of the interval a period has")
	flags.StringVar(&f.zone, "time-zone", "Asia/Manila", "IANA `zone` in which the periods are counted")
	flags.StringVar(&f.from, "from", "", "begin with the period that holds this instant (default: the anchor)")
	flags.IntVarP(&f.n, "number", "n", 12, "how many periods")
	flags.StringVar(&f.at, "at", "", "print the one period that holds this instant; before the anchor its number is negative")
	o.addTo(cmd)
	return cmd
}

func (f periodsFlags) periods() ([]shownPeriod, error) {
	if f.anchor == "" {
		return nil, errors.New("--anchor is missing")
	}
	at, err := billing.ParseInstant(f.anchor)
	if err != nil {
		return nil, fmt.Errorf("--anchor: %w", err)
	}
	anchor, err := billing.NewAnchor(at, f.zone)
	if err != nil {
		return nil, err
	}
	interval, err := billing.NewInterval(billing.IntervalUnit(f.interval), f.count)
	if err != nil {
		return nil, err
	}
	schedule := billing.Schedule{Anchor: anchor, Interval: interval}
	if f.at != "" {
		if f.from != "" {
			return nil, errors.New("--at and --from do not go together")
		}
		t, err := billing.ParseInstant(f.at)
		if err != nil {
			return nil, fmt.Errorf("--at: %w", err)
		}
		p, ok := schedule.PeriodAt(t)
		if !ok {
			return nil, fmt.Errorf("--at: %w", billing.ErrPeriodRange)
		}
		return []shownPeriod{{p.No, p.Start, p.End}}, nil
	}
	if f.n < 1 || f.n > periodsLimit {
		return nil, fmt.Errorf("-n is %d; it takes 1 to %d", f.n, periodsLimit)
	}
	first := 0
	if f.from != "" {
		t, err := billing.ParseInstant(f.from)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		p, ok := schedule.PeriodAt(t)
		if !ok {
			return nil, fmt.Errorf("--from: %w", billing.ErrPeriodRange)
		}
		first = max(0, p.No) // nothing is billed before the anchor
	}
	list := make([]shownPeriod, 0, f.n)
	for no := first; no < first+f.n; no++ {
		p, err := schedule.Period(no)
		if err != nil {
			return nil, err
		}
		list = append(list, shownPeriod{p.No, p.Start, p.End})
	}
	return list, nil
}
