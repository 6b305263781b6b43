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

func subscriptionsCommand() *cobra.Command {
	var o output
	cmd := group("subscriptions", "List, show and change subscriptions",
		listSubscriptionsCommand(&o), showSubscriptionCommand(&o),
		subscriptionAct(&o, "pause ID", "Stop billing until it is resumed",
			"Open invoices wait too. What is being charged at this moment has its outcome recorded.", billing.PauseSubscription),
		subscriptionAct(&o, "resume ID", "Go on with a paused subscription",
			"Periods that started during the pause are skipped.", billing.ResumeSubscription),
		cancelSubscriptionCommand(&o),
		subscriptionAct(&o, "uncancel ID", "Take back a cancellation that has not come yet",
			"What is cancelled already begins as a new subscription.", billing.UnscheduleCancel),
		changePlanCommand(&o), unparkCommand(&o))
	o.addTo(cmd)
	return cmd
}

func listSubscriptionsCommand(o *output) *cobra.Command {
	var page listing
	var f billing.SubscriptionFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List subscriptions, newest first; singil export gives all of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.Check(); err != nil {
				return usageError{cmd, err}
			}
			if err := page.check(cmd); err != nil {
				return err
			}
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				f.After, f.Limit = page.after, page.limit
				list, err := billing.BrowseSubscriptions(ctx, pool, f)
				if err != nil {
					return err
				}
				err = o.print(cmd.OutOrStdout(), list, func(w io.Writer) { subscriptionRows(w, list, zone) })
				if len(list) > 0 {
					page.more(cmd, len(list), list[len(list)-1].ExternalID)
				}
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Status, "status", "", "trialing, active, past_due, unpaid, paused or cancelled")
	flags.StringVar(&f.Customer, "customer", "", "only this customer's, by your name for them")
	flags.StringVar(&f.Plan, "plan", "", "only of this plan")
	flags.BoolVar(&f.Parked, "parked", false, "only what waits for a decision")
	page.addTo(cmd, "subscription")
	return cmd
}

func subscriptionRows(w io.Writer, list []billing.ExportedSubscription, zone *time.Location) {
	fmt.Fprintln(w, "SUBSCRIPTION\tCUSTOMER\tPLAN\tAMOUNT\tSTATUS\tNEXT PERIOD\tDUE\tNOTE")
	for _, s := range list {
		note := dash(s.ParkedReason)
		switch {
		case s.ParkedReason != nil:
			note = "parked: " + note
		case !s.CancelAt.IsZero() && s.CancelledAt.IsZero():
			note = "ends " + local(s.CancelAt.Time, zone)
		case s.NextPlan != nil:
			note = "next plan " + *s.NextPlan
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", s.ExternalID, s.Customer, s.Plan,
			billing.Money{Minor: s.AmountMinor, Currency: s.Currency}.Display(), s.Status, s.NextPeriodNo, local(s.NextDueAt.Time, zone), note)
	}
}

func showSubscriptionCommand(o *output) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a subscription with its cards and latest invoices", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				d, err := billing.ShowSubscription(ctx, pool, args[0])
				if err != nil {
					return err
				}
				return o.print(cmd.OutOrStdout(), d, func(w io.Writer) { subscriptionTable(w, d, zone) })
			})
		},
	}
}

func subscriptionTable(w io.Writer, d billing.SubscriptionDetails, zone *time.Location) {
	s := d.ExportedSubscription
	details(w, [][2]string{
		{"subscription", s.ExternalID},
		{"customer", s.Customer},
		{"plan", s.Plan},
		{"next plan", dash(s.NextPlan)},
		{"amount", billing.Money{Minor: s.AmountMinor, Currency: s.Currency}.Display()},
		{"every", fmt.Sprintf("%d %s", s.IntervalCount, s.Interval)},
		{"anchor", fmt.Sprintf("%s, counted in %s", local(s.Anchor.Time, zone), s.TimeZone)},
		{"status", s.Status},
		{"parked", dash(s.ParkedReason)},
		{"next period", fmt.Sprintf("%d, due %s", s.NextPeriodNo, local(s.NextDueAt.Time, zone))},
		{"trial ends", local(s.TrialEnd.Time, zone)},
		{"paused", local(s.PausedAt.Time, zone)},
		{"ends", local(s.CancelAt.Time, zone)},
		{"cancelled", local(s.CancelledAt.Time, zone)},
	}...)
	for _, m := range d.PaymentMethods {
		fmt.Fprintf(w, "card\t%s\n", cardLine(m))
	}
	for _, k := range d.Skipped {
		fmt.Fprintf(w, "no invoice\tperiods %d to %d: %s\n", k.First, k.Last, k.Reason)
	}
	for _, i := range d.Invoices {
		fmt.Fprintf(w, "period %d\t%s\t%s\t%s\t%d attempts\t%s\n", i.PeriodNo, i.ID, price(i), i.Status, i.AttemptCount, dash(i.DeclineCode))
	}
}

// cardLine is a card as a person knows it.
func cardLine(m billing.ListedPaymentMethod) string {
	line := fmt.Sprintf("%s %s %s", m.PaymentMethod, m.Brand, m.Status)
	if m.Last4 != "" {
		line = fmt.Sprintf("%s %s ending in %s, %s", m.PaymentMethod, m.Brand, m.Last4, m.Status)
	}
	if m.BlockedCode != nil {
		line += " (" + *m.BlockedCode + ")"
	}
	if m.ExpMonth != nil && m.ExpYear != nil {
		line += fmt.Sprintf(", expires %02d/%d", *m.ExpMonth, *m.ExpYear)
	}
	return line
}

// subscriptionAct is a command that changes one subscription and shows it as it
// is then.
func subscriptionAct(o *output, use, short, long string,
	do func(context.Context, pgx.Tx, uuid.UUID, billing.Act) error,
) *cobra.Command {
	var a acting
	cmd := &cobra.Command{
		Use: use + " --reason WHY", Short: short, Long: short + ". " + long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSubscription(cmd, *o, args[0], do)
		},
	}
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}

func (a acting) changeSubscription(cmd *cobra.Command, o output, name string, do func(context.Context, pgx.Tx, uuid.UUID, billing.Act) error) error {
	if err := a.check(cmd); err != nil {
		return err
	}
	return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
		var after billing.SubscriptionDetails
		err := a.change(ctx, pool, func(tx pgx.Tx, act billing.Act) error {
			id, err := billing.FindSubscription(ctx, tx, name)
			if err != nil {
				return err
			}
			if err := do(ctx, tx, id, act); err != nil {
				return err
			}
			after, err = billing.ShowSubscription(ctx, tx, id.String())
			return err
		})
		if err != nil {
			return err
		}
		a.told(cmd, "Subscription %s is %s.", after.ExternalID, after.Status)
		return o.print(cmd.OutOrStdout(), after, func(w io.Writer) { subscriptionTable(w, after, zone) })
	})
}

func cancelSubscriptionCommand(o *output) *cobra.Command {
	var now bool
	cmd := subscriptionAct(o, "cancel ID", "End a subscription: with the period that is running, or now",
		"Now also voids the open invoices that were never attempted. One that was declined stays a debt, and one whose attempt is open keeps its outcome.",
		func(ctx context.Context, tx pgx.Tx, id uuid.UUID, act billing.Act) error {
			when := billing.CancelAtPeriodEnd
			if now {
				when = billing.CancelNow
			}
			return billing.CancelSubscription(ctx, tx, id, when, act)
		})
	cmd.Flags().BoolVar(&now, "now", false, "at once, instead of with the period that is running")
	return cmd
}

func changePlanCommand(o *output) *cobra.Command {
	var a acting
	cmd := &cobra.Command{
		Use: "change-plan ID PLAN --reason WHY", Short: "Take another plan from the next period on",
		Long: "Take another plan from the next period on. The plan that is held already takes back a change that was to come.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSubscription(cmd, *o, args[0], func(ctx context.Context, tx pgx.Tx, id uuid.UUID, act billing.Act) error {
				plan, err := billing.FindPlan(ctx, tx, args[1])
				if err != nil {
					return err
				}
				return billing.ChangePlan(ctx, tx, id, plan, act)
			})
		},
	}
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}

func unparkCommand(o *output) *cobra.Command {
	var missed string
	cmd := subscriptionAct(o, "unpark ID", "Give a parked subscription back to the sweep, once what stopped it is mended",
		"--missed decides about several periods that are due, this once.",
		func(ctx context.Context, tx pgx.Tx, id uuid.UUID, act billing.Act) error {
			return billing.UnparkSubscription(ctx, tx, id, billing.CatchUp(missed), act)
		})
	cmd.Flags().StringVar(&missed, "missed", "", "bill_all or bill_current, for the periods that are due (default: the plan's policy)")
	return cmd
}
