package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func attemptsCommand() *cobra.Command {
	var o output
	var page listing
	var f billing.AttemptFilter
	var since string
	list := &cobra.Command{
		Use: "list", Short: "List attempts, newest first; singil export gives all of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if since != "" {
				if f.Since, err = billing.ParseInstant(since); err != nil {
					return usageError{cmd, fmt.Errorf("--since: %w", err)}
				}
			}
			f.After, f.Limit = page.after, page.limit
			if err := f.Check(); err != nil {
				return usageError{cmd, err}
			}
			if err := page.check(cmd); err != nil {
				return err
			}
			return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				list, err := billing.BrowseAttempts(ctx, pool, f)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					defer page.more(cmd, len(list), list[len(list)-1].ID.String())
				}
				return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
					fmt.Fprintln(w, "ID\tTIME\tSUBSCRIPTION\tPERIOD\tNO\tCARD\tTRIGGER\tOUTCOME\tDECLINE\tINVOICE")
					for _, a := range list {
						fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", a.ID, local(a.ArmedAt.Time, zone), a.Subscription, a.PeriodNo, a.No,
							a.PaymentMethod, a.Trigger, a.State, dash(a.DeclineCode), a.Invoice)
					}
				})
			})
		},
	}
	flags := list.Flags()
	flags.StringVar(&f.State, "state", "", "armed, succeeded, declined, needs_action, no_effect or review")
	flags.StringVar(&f.DeclineCode, "decline-code", "", "only with this decline code")
	flags.StringVar(&f.Invoice, "invoice", "", "only of this invoice")
	flags.StringVar(&since, "since", "", "only at this instant or later: 2026-01-31T09:00:00+08:00")
	page.addTo(list, "attempt")
	show := &cobra.Command{
		Use: "show ID", Short: "Show an attempt with the evidence of its outcome", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				a, err := billing.ShowAttempt(ctx, pool, args[0])
				if err != nil {
					return err
				}
				return o.print(cmd.OutOrStdout(), a, func(w io.Writer) {
					details(w, [][2]string{
						{"attempt", a.ID.String()},
						{"invoice", a.Invoice.String()},
						{"subscription", fmt.Sprintf("%s, period %d, attempt %d", a.Subscription, a.PeriodNo, a.No)},
						{"trigger", a.Trigger},
						{"card", a.PaymentMethod},
						{"payment intent", dash(a.PaymentIntentID)},
						{"armed", local(a.ArmedAt.Time, zone)},
						{"may be sent until", local(a.SendBefore.Time, zone)},
						{"conclusive after", local(a.SettledAfter.Time, zone)},
						{"settled", local(a.SettledAt.Time, zone)},
						{"outcome", a.State},
						{"decline", dash(a.DeclineCode)},
						{"payment", dash(a.PaymentID)},
						{"evidence", string(a.Evidence)},
					}...)
				})
			})
		},
	}
	cmd := group("attempts", "List and show attempts", list, show)
	o.addTo(cmd)
	return cmd
}

func customersCommand() *cobra.Command {
	var o output
	var page listing
	var email string
	list := &cobra.Command{
		Use: "list", Short: "List customers, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := page.check(cmd); err != nil {
				return err
			}
			return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, _ *time.Location) error {
				list, err := billing.BrowseCustomers(ctx, pool, email, page.after, page.limit)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					defer page.more(cmd, len(list), list[len(list)-1].ExternalID)
				}
				return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
					fmt.Fprintln(w, "CUSTOMER\tNAME\tEMAIL\tPAYMONGO\tSUBSCRIPTIONS\tCARDS\tOPEN INVOICES\tOWED")
					for _, c := range list {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", c.ExternalID, dash(&c.Name), dash(&c.Email), dash(c.ProviderCustomerID),
							c.Subscriptions, c.PaymentMethods, c.OpenInvoices, owed(c))
					}
				})
			})
		},
	}
	list.Flags().StringVar(&email, "email", "", "only with this e-mail address")
	page.addTo(list, "customer")
	show := &cobra.Command{
		Use: "show ID", Short: "Show a customer with cards, subscriptions and latest invoices; ID is your name for them or PayMongo's", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				c, err := billing.ShowCustomer(ctx, pool, args[0])
				if err != nil {
					return err
				}
				return o.print(cmd.OutOrStdout(), c, func(w io.Writer) { customerTable(w, c, zone) })
			})
		},
	}
	cmd := group("customers", "List and show customers", list, show)
	cmd.Long = `List and show customers. They come by singil import, and none can be removed: what
was charged belongs to somebody. Cancel the subscriptions of one who leaves.`
	o.addTo(cmd)
	return cmd
}

func owed(c billing.ListedCustomer) string {
	return billing.Money{Minor: c.OpenMinor, Currency: billing.CurrencyPHP}.Display()
}

func customerTable(w io.Writer, c billing.CustomerDetails, zone *time.Location) {
	details(w, [][2]string{
		{"customer", c.ExternalID},
		{"name", c.Name},
		{"email", c.Email},
		{"PayMongo", dash(c.ProviderCustomerID)},
		{"since", local(c.CreatedAt.Time, zone)},
		{"owes", fmt.Sprintf("%s in %d invoices", owed(c.ListedCustomer), c.OpenInvoices)},
	}...)
	for _, m := range c.PaymentMethods {
		fmt.Fprintf(w, "card\t%s\n", cardLine(m))
	}
	if len(c.Subscriptions) > 0 {
		fmt.Fprintln(w)
		subscriptionRows(w, c.Subscriptions, zone)
	}
	if len(c.Invoices) > 0 {
		fmt.Fprintln(w)
		invoiceRows(w, c.Invoices, zone)
	}
}
