package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func auditCommand() *cobra.Command {
	var o output
	var f billing.AuditFilter
	var since string
	var follow bool
	list := &cobra.Command{
		Use: "list", Short: "Show who did what and why, newest first, and the head of the chain",
		Long: `Show who did what and why, newest first, and at the end the head of the chain that
stands for all entries: one that you keep elsewhere tells if the log was made anew.
singil check goes through the whole chain. --follow goes on with new entries.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if since != "" {
				if f.Since, err = billing.ParseInstant(since); err != nil {
					return usageError{cmd, fmt.Errorf("--since: %w", err)}
				}
			}
			switch {
			case f.Limit < 1 || f.Limit > listLimit:
				return usageError{cmd, fmt.Errorf("--limit is %d; it takes 1 to %d", f.Limit, listLimit)}
			case f.Before < 0:
				return usageError{cmd, fmt.Errorf("--after is %d; it takes the id of an entry", f.Before)}
			case follow && o == outputJSON:
				return usageError{cmd, errors.New("--follow has no end; it takes -o jsonl")}
			}
			return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				return auditList(ctx, cmd, pool, o, f, follow, zone)
			})
		},
	}
	flags := list.Flags()
	flags.StringVar(&f.Actor, "actor", "", "only this person's; singil is the daemon")
	flags.StringVar(&f.Action, "action", "", "only this action, such as retry_invoice")
	flags.StringVar(&f.Subject, "subject", "", "only about this: an invoice's id, your name for a subscription, ...")
	flags.StringVar(&since, "since", "", "only at this instant or later: 2026-01-31T09:00:00+08:00")
	flags.IntVar(&f.Limit, "limit", 50, "how many")
	flags.Int64Var(&f.Before, "after", 0, "go on behind this entry, the last one of the page before")
	flags.BoolVar(&follow, "follow", false, "go on with new entries until Ctrl-C")
	cmd := group("audit", "Show the audit log", list)
	o.addTo(cmd)
	return cmd
}

// followEvery is how often the log is looked at.
const followEvery = time.Second

func auditList(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool, o output, f billing.AuditFilter, follow bool, zone *time.Location) error {
	list, err := billing.BrowseAudit(ctx, pool, f)
	if err != nil {
		return err
	}
	print := func(list []billing.AuditLine, head bool) error {
		return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			if head {
				fmt.Fprintln(w, "ID\tTIME\tACTOR\tACTION\tSUBJECT\tREASON\tBEFORE\tAFTER")
			}
			for _, a := range list {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.ID, local(a.At.Time, zone), a.Actor, a.Action, a.Subject, a.Reason, a.Before, a.After)
			}
		})
	}
	if err := print(list, true); err != nil {
		return err
	}
	head, err := billing.LoadAuditHead(ctx, pool)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "head of the chain: link %d %s\n", head.Links, head.Hash)
	f.Before = 0
	if len(list) > 0 {
		f.Behind = list[0].ID
	}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for follow {
		select {
		case <-ctx.Done():
			return nil // that is how it ends
		case <-ticker.C:
		}
		news, err := billing.BrowseAudit(ctx, pool, f)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case len(news) == 0:
			continue
		case f.Behind == 0:
			news = news[:1] // the log was empty: these are the newest first
		}
		f.Behind = news[len(news)-1].ID
		if err := print(news, false); err != nil {
			return err
		}
	}
	return nil
}

func webhooksCommand() *cobra.Command {
	var o output
	cmd := group("webhooks", "Look after PayMongo's webhooks: our inbox, and where they are sent",
		listWebhooksCommand(&o), replayWebhookCommand(&o), registerWebhookCommand(&o))
	o.addTo(cmd)
	return cmd
}

func listWebhooksCommand(o *output) *cobra.Command {
	var page listing
	var f billing.InboxFilter
	cmd := &cobra.Command{
		Use: "list", Short: "List what PayMongo has delivered, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := page.check(cmd); err != nil {
				return err
			}
			f.After, f.Limit = page.after, page.limit
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				list, err := billing.BrowseInbox(ctx, pool, f)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					defer page.more(cmd, len(list), list[len(list)-1].ID)
				}
				return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
					fmt.Fprintln(w, "EVENT\tTYPE\tRECEIVED\tTRIES\tRESULT\tNEXT TRY\tPAYMENT INTENT")
					for _, e := range list {
						fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", e.ID, e.Type, local(e.ReceivedAt.Time, zone), e.Tries, dash(e.Result),
							local(e.NextTryAt.Time, zone), dash(&e.ProviderIntentID))
					}
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Type, "type", "", "only of this type, such as payment.paid")
	flags.StringVar(&f.Result, "result", "", "only with this result, such as applied or unreadable")
	flags.BoolVar(&f.Unprocessed, "unprocessed", false, "only what is not processed yet")
	page.addTo(cmd, "event")
	return cmd
}

func replayWebhookCommand(o *output) *cobra.Command {
	var a acting
	cmd := &cobra.Command{
		Use: "replay EVENT --reason WHY", Short: "Process a delivery again, with the next sweep",
		Long: "Process a delivery again, with the next sweep. It is a wake-up like the first time: what is true is asked of PayMongo.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, _ *time.Location) error {
				err := a.change(ctx, pool, func(tx pgx.Tx, act billing.Act) error { return billing.ReplayInbox(ctx, tx, args[0], act) })
				if err != nil {
					return err
				}
				a.told(cmd, "%s is processed again with the next sweep.", args[0])
				return nil
			})
		},
	}
	a.addTo(cmd)
	a.addDryRun(cmd)
	return cmd
}

func registerWebhookCommand(o *output) *cobra.Command {
	var a acting
	cmd := &cobra.Command{
		Use: "register URL --reason WHY", Short: "Have PayMongo deliver to a URL; prints the secret that signs deliveries, once",
		Long: `Have PayMongo deliver to a URL: that of a daemon, with the path /webhooks/paymongo.
The secret that signs deliveries goes to the standard output, once; put it in
PAYMONGO_WEBHOOK_SECRET of every daemon, and start them again. It is kept nowhere
else here.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			if at, err := url.Parse(args[0]); err != nil || at.Scheme != "https" && at.Scheme != "http" || at.Host == "" {
				return usageError{cmd, fmt.Errorf("%.80q is not a URL such as https://billing.example.com/webhooks/paymongo", args[0])}
			}
			return withProvider(cmd, *o, func(ctx context.Context, p provider) error {
				have, err := p.gateway.Webhooks(ctx)
				if err != nil {
					return err
				}
				for _, w := range have {
					if w.URL == args[0] {
						return exitCode{4, fmt.Errorf("PayMongo delivers there already (%s, enabled: %t); its secret is in PayMongo's dashboard", w.ID, w.Enabled)}
					}
				}
				// Before it is sent: an answer that gets lost must have been asked for by somebody.
				err = a.change(ctx, p.pool, func(tx pgx.Tx, act billing.Act) error {
					return billing.Audit(ctx, tx, billing.AuditEntry{Actor: act.Actor, Action: "register_webhook", Subject: args[0], Reason: act.Reason})
				})
				if err != nil {
					return err
				}
				made, secret, err := p.gateway.RegisterWebhook(ctx, args[0])
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "Put the secret in PAYMONGO_WEBHOOK_SECRET of every daemon and start them again. It is not shown again here.")
				return o.print(cmd.OutOrStdout(), map[string]string{"id": made.ID, "url": made.URL, "secret": secret}, func(w io.Writer) {
					details(w, [2]string{"id", made.ID}, [2]string{"url", made.URL}, [2]string{"secret", secret})
				})
			})
		},
	}
	a.addTo(cmd)
	return cmd
}
