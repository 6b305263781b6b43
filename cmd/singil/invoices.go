package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func invoicesCommand() *cobra.Command {
	var o output
	cmd := group("invoices", "List and show invoices, and decide about them",
		listInvoicesCommand(&o), showInvoiceCommand(&o), retryCommand(), voidCommand(&o), markUncollectibleCommand(&o))
	o.addTo(cmd)
	return cmd
}

func listInvoicesCommand(o *output) *cobra.Command {
	var page listing
	var f billing.InvoiceFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List invoices, newest first; singil export gives all of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.After, f.Limit = page.after, page.limit
			if err := f.Check(); err != nil {
				return usageError{cmd, err}
			}
			if err := page.check(cmd); err != nil {
				return err
			}
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				list, err := billing.BrowseInvoices(ctx, pool, f)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					defer page.more(cmd, len(list), list[len(list)-1].ID.String())
				}
				return o.print(cmd.OutOrStdout(), list, func(w io.Writer) { invoiceRows(w, list, zone) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Status, "status", "", "open, paid, void, uncollectible or review")
	flags.StringVar((*string)(&f.WaitingFor), "waiting-for", "", "only open ones that wait for the schedule, the provider or the customer")
	flags.StringSliceVar(&f.DeclineCodes, "decline-code", nil, "only with one of these as the latest decline")
	flags.StringVar(&f.Plan, "plan", "", "only of this plan")
	flags.StringVar(&f.Subscription, "subscription", "", "only of this subscription")
	flags.StringVar(&f.Customer, "customer", "", "only of this customer")
	page.addTo(cmd, "invoice")
	return cmd
}

func invoiceRows(w io.Writer, list []billing.ExportedInvoice, zone *time.Location) {
	fmt.Fprintln(w, "ID\tSUBSCRIPTION\tPERIOD\tAMOUNT\tSTATUS\tATTEMPTS\tNEXT ATTEMPT\tDECLINE")
	for _, i := range list {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\t%s\t%s\n", i.ID, i.Subscription, i.PeriodNo, price(i), i.Status, i.AttemptCount,
			nextAttempt(i, zone), dash(i.DeclineCode))
	}
}

func showInvoiceCommand(o *output) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show an invoice: what was tried, what came of it, what comes next", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				invoice, err := showInvoice(ctx, pool, args[0])
				if err != nil {
					return err
				}
				return o.print(cmd.OutOrStdout(), invoice, func(w io.Writer) { invoiceTable(w, invoice, zone) })
			})
		},
	}
}

func price(i billing.ExportedInvoice) string {
	return billing.Money{Minor: i.AmountMinor, Currency: i.Currency}.Display()
}

func nextAttempt(i billing.ExportedInvoice, zone *time.Location) string {
	if i.Status != billing.InvoiceOpen {
		return "-"
	}
	return local(i.NextAttemptAt.Time, zone)
}

func invoiceTable(w io.Writer, i shownInvoice, zone *time.Location) {
	details(w, [][2]string{
		{"invoice", i.ID.String()},
		{"subscription", i.Subscription},
		{"customer", i.Customer},
		{"period", fmt.Sprintf("%d, %s to %s", i.PeriodNo, local(i.PeriodStart.Time, zone), local(i.PeriodEnd.Time, zone))},
		{"amount", price(i.ExportedInvoice)},
		{"status", i.Status},
		{"reason", dash(i.Reason)},
		{"waiting for", i.WaitingFor},
		{"decline", dash(i.DeclineCode)},
		{"link", dash(i.ActionURL)},
		{"payment intent", dash(i.PaymentIntentID)},
		{"paid", local(i.PaidAt.Time, zone)},
	}...)
	for _, p := range i.Payments {
		line := fmt.Sprintf("%s\t%s\t%s\t%s", p.PaymentID, p.Status, billing.Money{Minor: p.AmountMinor, Currency: p.Currency}.Display(), dash(p.FailedCode))
		if p.RefundedMinor > 0 {
			line += "\trefunded " + billing.Money{Minor: p.RefundedMinor, Currency: p.Currency}.Display()
		}
		fmt.Fprintf(w, "payment\t%s\n", line)
	}
	timelineRows(w, i, zone)
}

type retryFlags struct {
	paymentMethod, reason, actor string
	bulk                         bulkFlags
}

// retryResult is what became of one invoice; Error is empty if it will be tried.
type retryResult struct {
	Invoice string           `json:"invoice"`
	Retry   *billing.Retried `json:"retry,omitempty"`
	Error   string           `json:"error,omitempty"`

	kind billing.RefusalKind // of a refusal
}

func retryCommand() *cobra.Command {
	var f retryFlags
	var o output
	cmd := &cobra.Command{
		Use:   "retry [ID...] --reason WHY",
		Short: "Charge open invoices once more, now: some by their ids, or many by a filter",
		Long: `Charge open invoices once more, now, by the same path and past the same guards
as ever: the daemons find them at their next sweep. What may not be charged is
refused with its reason: exit code 4, 3 for an invoice that is not there, and 5 if
some of several were refused.

With a filter in place of ids it is a bulk. First it shows how many there are, what
they are worth, how they were declined, and who is left out and why; nothing
happens before you have typed the count, or without --yes. Ctrl-C stops it and
loses nothing: the same command again skips what is enqueued or was attempted
within --rest. It is refused when it is over the day's budget, and while charging
is frozen.`,
		Example: "  singil retry 0198c5d2-7d7c-7a31-9c3e-1f6f0f0f2a11 --reason \"they called\"\n" +
			"  singil retry --decline-code insufficient_funds --older-than 2d --max-amount 50000 --reason payday",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			switch bulk := f.bulk.wanted(cmd); {
			case bulk && len(args) > 0:
				return usageError{cmd, errors.New("ids and a filter do not go together")}
			case bulk:
				return f.runBulk(cmd, o)
			case len(args) == 0:
				return usageError{cmd, errors.New("it takes ids, or a filter such as --decline-code insufficient_funds")}
			}
			if err := f.bulk.none(cmd); err != nil {
				return err
			}
			if err := (acting{actor: f.actor, reason: f.reason}).check(cmd); err != nil {
				return err
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				results, failed := f.run(ctx, pool, args, time.Now())
				err := o.print(cmd.OutOrStdout(), results, func(w io.Writer) { retryRows(w, results) })
				for _, r := range results {
					if r.Error != "" {
						fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", r.Invoice, r.Error)
					}
				}
				return errors.Join(failed, err)
			})
		},
	}
	cmd.Flags().StringVar(&f.paymentMethod, "payment-method", "", "PayMongo's id of a saved card of the customer (default: the first that may be charged)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the audit log (needed)")
	addActor(cmd, &f.actor)
	f.bulk.addTo(cmd)
	o.addTo(cmd)
	return cmd
}

func retryRows(w io.Writer, results []retryResult) {
	for _, r := range results {
		if r.Retry == nil {
			continue // told on the standard error
		}
		fmt.Fprintf(w, "%s\t%s\tperiod %d\t%s\tdue now, with %s\n", r.Invoice, r.Retry.Subscription, r.Retry.PeriodNo,
			billing.Money{Minor: r.Retry.AmountMinor, Currency: r.Retry.Currency}.Display(), r.Retry.PaymentMethod)
	}
}

// run asks for the invoices one by one: one that is refused leaves the others
// alone. What is no refusal ends it.
func (f retryFlags) run(ctx context.Context, pool *pgxpool.Pool, ids []string, realNow time.Time) ([]retryResult, error) {
	results := make([]retryResult, 0, len(ids))
	var last exitCode
	failures := 0
	for _, id := range ids {
		result := retryResult{Invoice: id}
		err := retryTx(ctx, pool, id, func(tx pgx.Tx) error {
			instance, err := billing.LoadInstance(ctx, tx)
			if errors.Is(err, pgx.ErrNoRows) {
				return fmt.Errorf("invoice %s: %w", id, billing.ErrNotFound)
			}
			if err != nil {
				return err
			}
			retried, err := billing.Retry(ctx, tx, billing.RetryRequest{
				Invoice: id, PaymentMethod: f.paymentMethod,
				Act: billing.Act{Actor: f.actor, Reason: f.reason, Now: instance.Now(realNow).Truncate(time.Microsecond)},
			}, billing.DefaultCardLimits(), billing.BankHolidays())
			result.Retry = &retried
			return err
		})
		if err != nil {
			result.Retry = nil
			var code exitCode
			if !errors.As(coded(err), &code) {
				return results, fmt.Errorf("retry %s: %w", id, err)
			}
			result.Error = code.Error()
			var refused *billing.RefusedError
			if errors.As(err, &refused) {
				result.kind = refused.Kind
			}
			if failures++; last.code != 4 {
				last = code
			}
		}
		results = append(results, result)
	}
	switch {
	case failures == 0:
		return results, nil
	case failures < len(ids):
		return results, exitCode{5, fmt.Errorf("%d of %d invoices were refused", failures, len(ids))}
	case len(ids) == 1:
		return results, exitCode{last.code, errors.New("the invoice was refused")}
	}
	return results, exitCode{last.code, fmt.Errorf("all %d invoices were refused", len(ids))}
}

// retryTx asks the database only about what can be an invoice.
func retryTx(ctx context.Context, pool *pgxpool.Pool, id string, do func(pgx.Tx) error) error {
	if _, err := uuid.Parse(id); err != nil {
		return fmt.Errorf("invoice %.40q: %w", id, billing.ErrNotFound)
	}
	return pgx.BeginFunc(ctx, pool, do)
}
