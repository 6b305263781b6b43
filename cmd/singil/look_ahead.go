package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// lookOnce runs do in one snapshot, in which nothing can be changed.
func lookOnce(ctx context.Context, pool *pgxpool.Pool, do func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, do)
}

func whyCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use: "why SUBSCRIPTION", Short: "Explain why the next charge of a subscription is when it is, or why there is none", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				var why billing.Why
				err := lookOnce(ctx, pool, func(tx pgx.Tx) (err error) {
					why, err = billing.Explain(ctx, tx, args[0], time.Now(), billing.DefaultCardLimits(), billing.BankHolidays())
					return err
				})
				if err != nil {
					return err
				}
				return o.print(cmd.OutOrStdout(), why, func(w io.Writer) {
					details(w, [2]string{"subscription", why.Subscription}, [2]string{"status", why.Status}, [2]string{"now", local(why.Now.Time, zone)})
					next := local(why.Next.Time, zone)
					if why.Next.IsZero() {
						next = "none is to come"
					}
					fmt.Fprintf(w, "next charge\t%s\n", next)
					for _, r := range why.Reasons {
						kind := r.Kind
						if r.Holds {
							kind = "! " + kind
						}
						fmt.Fprintf(w, "%s\t%s\n", kind, r.Text)
					}
				})
			})
		},
	}
	o.addTo(cmd)
	return cmd
}

const runDueLimit = 100_000

func runDueCommand() *cobra.Command {
	var o output
	var asOf string
	var dryRun bool
	var limit int
	cmd := &cobra.Command{
		Use: "run-due --dry-run", Short: "Show what the next sweep would do, now or at another time",
		Long: `Show what the next sweep would do: which periods it opens, which invoices it
charges with which card, which outcomes it asks for, and what is held and why.
Nothing is changed or locked; it may run on a standby. The daemons do the work
themselves, so there is nothing but the dry run.

With --as-of it plans from the books as they are now: attempts that are made until
then are not foreseen.`,
		Example: "  singil run-due --dry-run\n  singil run-due --dry-run --as-of 2026-02-28T09:00:00+08:00 -o csv",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var at time.Time
			var err error
			switch {
			case !dryRun:
				return usageError{cmd, errors.New("it takes --dry-run: singil run is what does it")}
			case limit < 1 || limit > runDueLimit:
				return usageError{cmd, fmt.Errorf("--limit is %d; it takes 1 to %d", limit, runDueLimit)}
			case asOf != "":
				if at, err = billing.ParseInstant(asOf); err != nil {
					return usageError{cmd, fmt.Errorf("--as-of: %w", err)}
				}
			}
			return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				run := billing.DryRun{Steps: []billing.DryStep{}}
				err := lookOnce(ctx, pool, func(tx pgx.Tx) error {
					now, err := businessNow(ctx, tx)
					if err != nil {
						return err
					}
					if !at.IsZero() {
						now = at
					}
					run, err = billing.LookDue(ctx, tx, now, time.Now(), billing.DefaultCardLimits(), billing.BankHolidays(), limit)
					if errors.Is(err, pgx.ErrNoRows) {
						return nil // nothing was bound yet: nothing is due
					}
					return err
				})
				if err != nil {
					return err
				}
				var data any = run
				if o == outputCSV || o == outputJSONL {
					data = run.Steps
				}
				return o.print(cmd.OutOrStdout(), data, func(w io.Writer) { dryRunTable(w, run, zone) })
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show it, and do nothing (needed)")
	cmd.Flags().StringVar(&asOf, "as-of", "", "as if it were this instant: 2026-01-31T09:00:00+08:00 (default: now)")
	cmd.Flags().IntVar(&limit, "limit", 1000, "look at so many subscriptions and as many invoices")
	o.addTo(cmd)
	return cmd
}

func dryRunTable(w io.Writer, run billing.DryRun, zone *time.Location) {
	fmt.Fprintln(w, "ACTION\tSUBSCRIPTION\tPERIOD\tAMOUNT\tCARD\tAT\tINVOICE\tREASON")
	for _, s := range run.Steps {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", s.Action, s.Subscription, s.PeriodNo, billing.Money{Minor: s.AmountMinor, Currency: s.Currency}.Display(),
			dash(&s.Card), local(s.At.Time, zone), dash(&s.Invoice), dash(&s.Reason))
	}
	fmt.Fprintf(w, "\n%s\t%d charges\t%s\n", local(run.AsOf.Time, zone), run.Charges, billing.Money{Minor: run.ChargeMinor, Currency: billing.CurrencyPHP}.Display())
	if run.Stopped != "" {
		fmt.Fprintf(w, "Nothing is charged: %s\n", run.Stopped)
	}
	if run.More {
		fmt.Fprintln(w, "There is more than was looked at: --limit")
	}
}

func forecastCommand() *cobra.Command {
	var o output
	var days int
	cmd := &cobra.Command{
		Use: "forecast", Short: "Show what is expected to be charged on the days to come, and how long each day takes",
		Long: `Show what is expected to be charged on the days to come: the periods that begin,
and the next attempts of invoices that are open. It expects each charge to be paid
at the first attempt. How long a day's charges take is reckoned with two calls each
at PAYMONGO_RATE. Days are those of SINGIL_TIME_ZONE.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			if days < 1 || days > 366 {
				return usageError{cmd, fmt.Errorf("--days is %d; it takes 1 to 366", days)}
			}
			return withDatabase(cmd, func(ctx context.Context, c config, pool *pgxpool.Pool) error {
				zone, err := billing.LoadZone(c.TimeZone)
				if err != nil {
					return err
				}
				var f billing.Forecast
				err = lookOnce(ctx, pool, func(tx pgx.Tx) error {
					now, err := businessNow(ctx, tx)
					if err == nil {
						f, err = billing.LookAhead(ctx, tx, now, days, zone, callsPerMinute(c.Rate))
					}
					return err
				})
				if err != nil {
					return err
				}
				var data any = f
				if o == outputCSV || o == outputJSONL {
					data = f.Days
				}
				return o.print(cmd.OutOrStdout(), data, func(w io.Writer) { forecastTable(w, f) })
			})
		},
	}
	cmd.Flags().IntVar(&days, "days", 30, "how many days, today included")
	o.addTo(cmd)
	return cmd
}

// callsPerMinute is a rate as whole calls, one at the least.
func callsPerMinute(rate float64) int64 {
	return int64(min(max(rate*60, 1), math.MaxInt32))
}

func forecastTable(w io.Writer, f billing.Forecast) {
	fmt.Fprintln(w, "DAY\tCHARGES\tAMOUNT\tRETRIES\tTAKES")
	var charges int
	var minor int64
	for _, d := range f.Days {
		charges += d.Charges
		minor += d.AmountMinor
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\n", d.Day, d.Charges, billing.Money{Minor: d.AmountMinor, Currency: billing.CurrencyPHP}.Display(), d.Retries,
			time.Duration(d.Seconds)*time.Second)
	}
	fmt.Fprintf(w, "together\t%d\t%s\n", charges, billing.Money{Minor: minor, Currency: billing.CurrencyPHP}.Display())
	if f.Held > 0 {
		fmt.Fprintf(w, "%d subscriptions are parked or will be, and are not in it\n", f.Held)
	}
}
