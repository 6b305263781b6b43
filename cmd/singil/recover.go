package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/worker"
)

type recoverFlags struct {
	apply, acceptUnproven bool
	since, actor          string
	verbose               bool
}

func recoverCommand() *cobra.Command {
	var f recoverFlags
	var o output
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Ask PayMongo what a restored, copied or failed over database has forgotten",
		Long: `Ask PayMongo what a database has forgotten that is older than what happened: a
backup that was put back, a standby that missed the last commits, a copy. Periods
that are due are opened, payments listed, payment intents found by their metadata
or by their key, and the books put right. What cannot be told goes in review.
Nothing is charged.

Without --apply nothing is changed here. PayMongo is asked the same, which may
leave it with a few payment intents that nothing is ever attached to.

Charging is frozen before and after: singil unfreeze lets it go on. Doing it again
is harmless. Exit codes: 0 nothing is left to a human, 1 something is, 5 an attach
sent at the last moment may still be executed, so do it once more later.`,
		Example: "  singil recover\n  singil recover --apply\n  singil recover --since 2026-02-28T09:00:00+08:00 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			var since time.Time
			if f.since != "" {
				var err error
				if since, err = billing.ParseInstant(f.since); err != nil {
					return usageError{cmd, fmt.Errorf("--since: %w", err)}
				}
			}
			return withDatabase(cmd, func(ctx context.Context, c config, pool *pgxpool.Pool) error {
				return f.run(cmd, ctx, c, pool, o, since)
			})
		},
	}
	cmd.Flags().BoolVar(&f.apply, "apply", false, "put the books right; without it, only tell")
	cmd.Flags().BoolVar(&f.acceptUnproven, "accept-unproven", false,
		"leave open what nothing proves uncharged, and open again what went in review for that")
	cmd.Flags().StringVar(&f.since, "since", "", "how far back to list payments (default: an hour before the newest attempt in the database)")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "tell of each invoice on stderr as it is found")
	addActor(cmd, &f.actor)
	o.addTo(cmd)
	return cmd
}

func (f recoverFlags) run(cmd *cobra.Command, ctx context.Context, c config, pool *pgxpool.Pool, o output, since time.Time) error {
	client, err := c.payMongo()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	log := slog.New(slog.DiscardHandler)
	if f.verbose {
		log = newLogger(cmd.ErrOrStderr())
	}
	report, err := worker.Recover(ctx, worker.RecoverConfig{
		Pool: pool, Gateway: worker.NewPayMongo(client), Environment: c.Environment, Livemode: client.Livemode(), Log: log, Now: time.Now,
		Actor: f.actor, Since: since, Apply: f.apply, AcceptUnproven: f.acceptUnproven,
	})
	var gateway *worker.GatewayError
	switch {
	case errors.Is(err, billing.ErrOtherInstallation):
		return configError{err}
	case errors.As(err, &gateway):
		return exitCode{6, fmt.Errorf("%w; what was written stays, do it again when PayMongo answers", err)}
	case err != nil:
		return coded(err)
	}
	zone, err := billing.LoadZone(c.TimeZone)
	if err != nil {
		return err
	}
	if err := o.print(cmd.OutOrStdout(), report, func(w io.Writer) { recoveryTable(w, report, zone) }); err != nil {
		return err
	}
	switch n := report.Review(); {
	case f.apply && !report.Complete:
		return exitCode{5, fmt.Errorf("an attach sent at the last moment may still be executed: do it once more after %s", local(report.ConclusiveAt, zone))}
	case n > 0:
		return fmt.Errorf("%d are left to a human", n)
	}
	return nil
}

func recoveryTable(w io.Writer, r worker.RecoveryReport, zone *time.Location) {
	fmt.Fprintf(w, "reason\t%s\n", r.Needed)
	fmt.Fprintf(w, "payments\t%d since %s, %d of others\n", r.Listed, local(r.Since, zone), r.Foreign)
	fmt.Fprintf(w, "opened\t%d periods\n", r.Opened)
	keys := "not tried: every payment intent was found without"
	if r.KeysHonoured != nil {
		keys = "ignored by the provider"
		if *r.KeysHonoured {
			keys = "honoured by the provider"
		}
	}
	fmt.Fprintf(w, "keys\t%s\n", keys)
	if len(r.Items) > 0 {
		fmt.Fprintln(w, "\nACTION\tSUBSCRIPTION\tPERIOD\tAMOUNT\tINVOICE\tPAYMENT INTENT\tPAYMENT\tFOUND")
	}
	for _, i := range r.Items {
		invoice := i.Invoice.String()
		if i.Action == worker.RecoveryRecord {
			invoice = ""
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", i.Action, dash(&i.Subscription), i.PeriodNo,
			billing.Money{Minor: i.AmountMinor, Currency: i.Currency}.Display(), dash(&invoice), dash(&i.PaymentIntent), dash(&i.Payment), i.Found)
	}
	fmt.Fprintln(w)
	for _, s := range r.Sums {
		fmt.Fprintf(w, "%s\t%d\t%s\n", s.Action, s.Count, billing.Money{Minor: s.AmountMinor, Currency: billing.CurrencyPHP}.Display())
	}
	switch {
	case !r.Applied:
		fmt.Fprintln(w, "Nothing was changed. To do it: singil recover --apply")
	case r.Complete:
		fmt.Fprintln(w, "Done. Charging stays frozen until: singil unfreeze --reason ...")
	}
}
