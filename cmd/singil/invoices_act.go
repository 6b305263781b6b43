package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func voidCommand(o *output) *cobra.Command {
	return invoiceAct(o, "void ID", "Take a debt back: it is never charged again, and that is final",
		"It is refused while an outcome is open, because money may be on its way, and while PayMongo holds money for it: refund that first.",
		billing.VoidInvoice)
}

func markUncollectibleCommand(o *output) *cobra.Command {
	return invoiceAct(o, "mark-uncollectible ID", "Give a debt up: it is not charged any more, and still owed",
		"The subscription goes on as it is. Money that comes late makes the invoice paid. It is refused while an outcome is open.",
		billing.MarkUncollectible)
}

// invoiceAct is a command that changes one invoice and shows it as it is then.
func invoiceAct(o *output, use, short, long string, do func(context.Context, pgx.Tx, string, billing.Act) error) *cobra.Command {
	var a acting
	cmd := &cobra.Command{
		Use: use + " --reason WHY", Short: short, Long: short + ". " + long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				var after shownInvoice
				err := a.change(ctx, pool, func(tx pgx.Tx, act billing.Act) (err error) {
					if err := do(ctx, tx, args[0], act); err != nil {
						return err
					}
					after, err = showInvoice(ctx, tx, args[0])
					return err
				})
				if err != nil {
					return err
				}
				a.told(cmd, "Invoice %s is %s.", after.ID, after.Status)
				return o.print(cmd.OutOrStdout(), after, func(w io.Writer) { invoiceTable(w, after, zone) })
			})
		},
	}
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}

// shownInvoice is an invoice with the story of its attempts.
type shownInvoice struct {
	billing.InvoiceDetails
	Timeline []billing.TimelineEntry `json:"timeline"`
}

func showInvoice(ctx context.Context, q billing.Querier, id string) (i shownInvoice, err error) {
	if i.InvoiceDetails, err = billing.ShowInvoice(ctx, q, id); err != nil {
		return i, err
	}
	i.Timeline, err = billing.Timeline(ctx, q, i.ID)
	return i, err
}

// timelineRows draws what was tried, what came of it and how that is known, the
// oldest first, and ends with what comes next.
func timelineRows(w io.Writer, i shownInvoice, zone *time.Location) {
	if len(i.Timeline) > 0 {
		fmt.Fprintln(w, "\nTIME\tATTEMPT\tCARD\tTRIGGER\tOUTCOME\tDECLINE\tEVIDENCE")
	}
	for _, e := range i.Timeline {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", local(e.ArmedAt.Time, zone), e.No, timelineCard(e), e.Trigger, e.State, dash(e.DeclineCode), timelineEvidence(e))
	}
	next := local(i.NextAttemptAt.Time, zone)
	switch {
	case i.Status != billing.InvoiceOpen:
		next = i.Status + ": nothing comes next"
		if i.Status == billing.InvoiceReview {
			next = "a human decides"
		}
	case i.WaitingFor == string(billing.WaitingForProvider):
		next += ", PayMongo is asked for the outcome"
	case i.WaitingFor == string(billing.WaitingForCustomer):
		next += ", the customer has to act until then"
	default:
		next += ", it is attempted"
	}
	fmt.Fprintf(w, "next\t%s\n", next)
}

func timelineCard(e billing.TimelineEntry) string {
	if e.Last4 == "" {
		return e.PaymentMethod
	}
	return e.Brand + " " + e.Last4
}

func timelineEvidence(e billing.TimelineEntry) string {
	if e.EvidenceKind == nil {
		return "none yet"
	}
	return fmt.Sprintf("%s: %s", *e.EvidenceKind, dash(e.EvidenceReason))
}
