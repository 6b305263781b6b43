package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/worker"
)

// withProvider runs a command that asks PayMongo, under the rate that all
// daemons share.
func withProvider(cmd *cobra.Command, o output, do func(ctx context.Context, p provider) error) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	return withDatabase(cmd, func(ctx context.Context, c config, pool *pgxpool.Pool) error {
		zone, err := billing.LoadZone(c.TimeZone)
		if err != nil {
			return err
		}
		client, err := c.payMongo(c.sharedRate(func() *pgxpool.Pool { return pool }, slog.New(slog.DiscardHandler)))
		if err != nil {
			return err
		}
		defer client.CloseIdleConnections()
		p := provider{pool: pool, gateway: worker.NewPayMongo(client), environment: c.Environment, zone: zone}
		if err := p.belongs(ctx); err != nil {
			return err
		}
		return upstream(coded(do(ctx, p)))
	})
}

type provider struct {
	pool        *pgxpool.Pool
	gateway     *worker.PayMongo
	environment billing.Environment
	zone        *time.Location
}

// belongs refuses a key of another world than the database's.
func (p provider) belongs(ctx context.Context) error {
	instance, err := billing.LoadInstance(ctx, p.pool)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return exitCode{4, errors.New("this database belongs to no installation yet; start singil run once")}
	case err != nil:
		return err
	case instance.Environment != p.environment || instance.Livemode != p.gateway.Livemode():
		return configError{fmt.Errorf("%w: it is %s with livemode %t, and the key and SINGIL_ENVIRONMENT are %s with livemode %t",
			billing.ErrOtherInstallation, instance.Environment, instance.Livemode, p.environment, p.gateway.Livemode())}
	}
	return nil
}

// upstream gives trouble with PayMongo its exit code.
func upstream(err error) error {
	var gateway *worker.GatewayError
	var code exitCode
	switch {
	case errors.As(err, &code), !errors.As(err, &gateway):
		return err
	case gateway.Fault:
		return configError{fmt.Errorf("PayMongo refuses the key: %w; singil doctor looks into it", err)}
	case gateway.Refused:
		return exitCode{4, fmt.Errorf("PayMongo refuses it: %w", err)}
	}
	return exitCode{6, fmt.Errorf("PayMongo gave no answer that helps: %w; the same command again is harmless", err)}
}

const reconcileLimit = 10_000

// reconciled is what a look at one invoice came to.
type reconciled struct {
	Invoice string `json:"invoice"`
	Was     string `json:"was"` // status, and what it waited for
	Is      string `json:"is"`
	Error   string `json:"error,omitempty"`
}

func reconcileCommand() *cobra.Command {
	var o output
	var a acting
	var limit int
	cmd := &cobra.Command{
		Use: "reconcile [ID...] --reason WHY", Short: "Ask PayMongo now what became of open outcomes: of these invoices, or of all",
		Long: `Ask PayMongo now what became of open outcomes: of these invoices, or of all. What it
shows is recorded, and nothing is ever charged by it. The daemons do the same by
themselves, only later.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			if limit < 1 || limit > reconcileLimit {
				return usageError{cmd, fmt.Errorf("--limit is %d; it takes 1 to %d", limit, reconcileLimit)}
			}
			return withProvider(cmd, o, func(ctx context.Context, p provider) error {
				results, err := p.reconcile(ctx, a, args, limit)
				if err != nil {
					return err
				}
				failed := 0
				err = o.print(cmd.OutOrStdout(), results, func(w io.Writer) {
					for _, r := range results {
						fmt.Fprintf(w, "%s\t%s\t-> %s\n", r.Invoice, r.Was, r.Is)
					}
				})
				for _, r := range results {
					if r.Error != "" {
						failed++
						fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", r.Invoice, r.Error)
					}
				}
				switch {
				case err != nil:
					return err
				case failed > 0 && failed == len(results):
					return exitCode{6, fmt.Errorf("none of %d outcomes could be asked for", failed)}
				case failed > 0:
					return exitCode{5, fmt.Errorf("%d of %d outcomes could not be asked for", failed, len(results))}
				}
				return nil
			})
		},
	}
	a.addTo(cmd)
	cmd.Flags().IntVar(&limit, "limit", 1000, "without ids: at most so many, the oldest first")
	o.addTo(cmd)
	return cmd
}

func (p provider) reconcile(ctx context.Context, a acting, names []string, limit int) ([]reconciled, error) {
	var ids []uuid.UUID
	for _, name := range names {
		found, err := billing.ShowInvoice(ctx, p.pool, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, found.ID)
	}
	if len(names) == 0 {
		var err error
		if ids, err = billing.OpenOutcomes(ctx, p.pool, limit); err != nil {
			return nil, err
		}
	}
	results := []reconciled{}
	if len(ids) == 0 {
		return results, nil
	}
	err := a.change(ctx, p.pool, func(tx pgx.Tx, act billing.Act) error {
		return billing.Audit(ctx, tx, billing.AuditEntry{
			Actor: act.Actor, Action: "reconcile", Subject: "invoices", Reason: act.Reason, After: map[string]any{"invoices": ids},
		})
	})
	if err != nil {
		return nil, err
	}
	collector := worker.NewCollector(worker.Config{
		Pool: p.pool, Gateway: p.gateway, Environment: p.environment, Livemode: p.gateway.Livemode(), Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	for _, id := range ids {
		if ctx.Err() != nil {
			return results, exitCode{130, fmt.Errorf("interrupted after %d of %d", len(results), len(ids))}
		}
		r := reconciled{Invoice: id.String(), Was: p.standing(ctx, id)}
		if err := collector.Reconcile(ctx, id); err != nil {
			r.Error = err.Error()
		}
		r.Is = p.standing(ctx, id)
		results = append(results, r)
	}
	return results, nil
}

// standing is an invoice in a few words.
func (p provider) standing(ctx context.Context, id uuid.UUID) string {
	i, err := showInvoice(ctx, p.pool, id.String())
	if err != nil {
		return err.Error()
	}
	words := []string{i.Status}
	if i.Status == billing.InvoiceOpen {
		words = append(words, "waiting for "+i.WaitingFor)
	}
	if n := len(i.Timeline); n > 0 {
		words = append(words, "last attempt "+i.Timeline[n-1].State)
	}
	return strings.Join(words, ", ")
}

func refundCommand() *cobra.Command {
	var o output
	var a acting
	var amount, kind string
	var look, again bool
	cmd := &cobra.Command{
		Use: "refund PAYMENT --amount PESOS --reason WHY", Short: "Give money of a payment back, through PayMongo",
		Long: `Give money of a payment back, through PayMongo. It is written down before it is
sent, and never sent twice: the same amount again within 15 minutes is refused, and
so is any other while the answer to the first is not known. If that is so, --look
asks PayMongo what became of it. The invoice stays paid.

Exit code 6 tells that the answer is not known.`,
		Example: "  singil refund pay_9d3Hh2QFbXY5rHwTvC4aLmEz --amount 499.00 --reason \"billed after the cancellation\"\n  singil refund pay_9d3Hh2QFbXY5rHwTvC4aLmEz --look",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := billing.RefundRequest{Payment: args[0], Again: again}
			switch {
			case look:
			case !slices.Contains(worker.RefundReasons(), kind):
				return usageError{cmd, fmt.Errorf("--as is %.40q; it takes %s", kind, strings.Join(worker.RefundReasons(), ", "))}
			case amount == "":
				return usageError{cmd, errors.New("--amount is needed: pesos, or all for what is left")}
			default:
				if err := a.check(cmd); err != nil {
					return err
				}
				if amount != "all" {
					var err error
					if request.AmountMinor, err = pesos(amount); err != nil {
						return usageError{cmd, fmt.Errorf("--amount: %w", err)}
					}
				}
			}
			return withProvider(cmd, o, func(ctx context.Context, p provider) error {
				now, err := businessNow(ctx, p.pool)
				if err != nil {
					return err
				}
				request.Act = billing.Act{Actor: a.actor, Reason: a.reason, Now: now}
				refunder := worker.Refunder{Pool: p.pool, Gateway: p.gateway, Now: time.Now}
				var refund billing.Refund
				if look {
					refund, err = refunder.Look(ctx, args[0], request.Act)
				} else {
					refund, err = refunder.Refund(ctx, request, kind)
				}
				if refund.ID != uuid.Nil {
					err = errors.Join(err, o.print(cmd.OutOrStdout(), refund, func(w io.Writer) { refundTable(w, refund) }))
				}
				switch {
				case err != nil:
					return err
				case refund.State == billing.RefundAsked:
					return exitCode{6, fmt.Errorf("it is not known whether PayMongo has given it back: do not send it another way, "+
						"but ask with singil refund %s --look until it is known, a quarter of an hour at the most", args[0])}
				case refund.State == billing.RefundRefused:
					return exitCode{4, fmt.Errorf("nothing was given back: %s", dash(refund.Result))}
				}
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&amount, "amount", "", "pesos, such as 499.00, or all for what is left")
	flags.StringVar(&kind, "as", worker.RefundReasons()[0], "the reason that PayMongo is told: "+strings.Join(worker.RefundReasons(), ", "))
	flags.BoolVar(&look, "look", false, "give nothing back, and ask what became of a refund whose answer was lost")
	flags.BoolVar(&again, "again", false, "give the same amount back that was given back minutes ago")
	a.addTo(cmd)
	o.addTo(cmd)
	return cmd
}

func refundTable(w io.Writer, r billing.Refund) {
	details(w, [][2]string{
		{"refund", r.ID.String()},
		{"payment", r.Payment},
		{"amount", billing.Money{Minor: r.AmountMinor, Currency: r.Currency}.Display()},
		{"state", r.State},
		{"PayMongo", dash(r.Provider)},
		{"result", dash(r.Result)},
	}...)
}

func paymentMethodsCommand() *cobra.Command {
	var o output
	cmd := group("payment-methods", "List saved cards, and keep them as PayMongo has them",
		listMethodsCommand(&o), refreshMethodsCommand(&o), removeMethodCommand(&o))
	o.addTo(cmd)
	return cmd
}

func listMethodsCommand(o *output) *cobra.Command {
	var page listing
	var customer, status string
	cmd := &cobra.Command{
		Use: "list", Short: "List saved cards: of a customer in the order in which they are charged, or of all, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", "active", "blocked", "removed"}, status) {
				return usageError{cmd, fmt.Errorf("--status is %.40q; it takes active, blocked or removed", status)}
			}
			if err := page.check(cmd); err != nil {
				return err
			}
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, _ *time.Location) error {
				var list []billing.ListedPaymentMethod
				var err error
				if customer != "" {
					list, err = billing.PaymentMethodsOf(ctx, pool, customer)
					list = slices.DeleteFunc(list, func(m billing.ListedPaymentMethod) bool { return status != "" && m.Status != status })
				} else {
					list, err = billing.BrowsePaymentMethods(ctx, pool, status, page.after, page.limit)
				}
				if err != nil {
					return err
				}
				if len(list) > 0 && customer == "" {
					defer page.more(cmd, len(list), list[len(list)-1].PaymentMethod)
				}
				return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
					fmt.Fprintln(w, "CUSTOMER\tCARD")
					for _, m := range list {
						fmt.Fprintf(w, "%s\t%s\n", m.Customer, cardLine(m))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&customer, "customer", "", "only this customer's")
	cmd.Flags().StringVar(&status, "status", "", "active, blocked (declined for good) or removed")
	page.addTo(cmd, "card")
	return cmd
}

func refreshMethodsCommand(o *output) *cobra.Command {
	var a acting
	cmd := &cobra.Command{
		Use: "refresh CUSTOMER --reason WHY", Short: "Ask PayMongo for a customer's saved cards: add what is new, do not charge what is gone",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return withProvider(cmd, *o, func(ctx context.Context, p provider) error {
				customer, providerID, err := billing.ProviderCustomer(ctx, p.pool, args[0])
				if err != nil {
					return err
				}
				saved, err := p.gateway.SavedCards(ctx, providerID)
				if err != nil {
					return err
				}
				var r billing.RefreshedMethods
				err = a.change(ctx, p.pool, func(tx pgx.Tx, act billing.Act) (err error) {
					r, err = billing.RefreshMethods(ctx, tx, customer, saved, act)
					return err
				})
				if err != nil {
					return err
				}
				a.told(cmd, "%d cards of %s are as PayMongo has them.", len(saved), r.Customer)
				if len(r.Removed) > 0 && len(r.Added)+len(r.Restored)+len(r.Kept) == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), "The customer has no card left: open invoices wait for them.")
				}
				return o.print(cmd.OutOrStdout(), r, func(w io.Writer) {
					details(w, [2]string{"customer", r.Customer}, [2]string{"added", strings.Join(r.Added, ", ")}, [2]string{"restored", strings.Join(r.Restored, ", ")},
						[2]string{"removed", strings.Join(r.Removed, ", ")}, [2]string{"kept", strings.Join(r.Kept, ", ")})
				})
			})
		},
	}
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}

func removeMethodCommand(o *output) *cobra.Command {
	var a acting
	var last bool
	cmd := &cobra.Command{
		Use: "remove PAYMENT_METHOD --reason WHY", Short: "Take a card out of use, here and at PayMongo",
		Long: `Take a card out of use, here and then at PayMongo. From the first on it is not
charged any more; if the second fails, the same command again does it.

The last card that a subscription, or an open invoice, could be charged with is
refused, unless --last says that it is meant: invoices then wait for the customer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return withProvider(cmd, *o, func(ctx context.Context, p provider) error {
				var customer string
				err := a.change(ctx, p.pool, func(tx pgx.Tx, act billing.Act) (err error) {
					if last {
						customer, err = billing.RemoveMethod(ctx, tx, args[0], act)
						return err
					}
					_, customer, err = billing.RemoveUnusedMethod(ctx, tx, args[0], act)
					return err
				})
				var refused *billing.RefusedError
				switch {
				case errors.As(err, &refused) && refused.Kind == billing.RefusalLastMethod:
					return fmt.Errorf("%w; or --last, to go on without a card", err)
				case err != nil || a.dryRun:
					return err
				}
				if customer != "" {
					if err := p.gateway.RemoveCard(ctx, customer, args[0]); err != nil {
						return fmt.Errorf("it is not charged any more, and at PayMongo it may still be saved: %w", err)
					}
				}
				return o.print(cmd.OutOrStdout(), map[string]string{"paymongo_payment_method_id": args[0], "status": "removed"}, func(w io.Writer) {
					fmt.Fprintf(w, "%s\tremoved\n", args[0])
				})
			})
		},
	}
	cmd.Flags().BoolVar(&last, "last", false, "even if nothing else is left to charge what the customer owes and will owe")
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}
