package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// completionPatience is how long somebody who has pressed Tab waits for the
// database. Without an answer there is nothing to choose from, and no error.
const completionPatience = 500 * time.Millisecond

// completed are the commands that take an id, and of what.
var completed = map[string]string{
	"subscriptions show": "subscription", "subscriptions pause": "subscription", "subscriptions resume": "subscription",
	"subscriptions cancel": "subscription", "subscriptions uncancel": "subscription", "subscriptions unpark": "subscription",
	"subscriptions change-plan": "subscription", "why": "subscription",
	"customers show": "customer", "payment-methods refresh": "customer", "payment-methods remove": "payment_method",
	"invoices show": "invoice", "invoices retry": "invoice", "invoices void": "invoice", "invoices mark-uncollectible": "invoice",
	"retry": "invoice", "reconcile": "invoice", "attempts show": "attempt", "refund": "payment", "webhooks replay": "webhook_event",
	"events endpoints enable": "endpoint", "events endpoints disable": "endpoint",
}

// completeIDs gives them the newest ids to choose from.
func completeIDs(root *cobra.Command) {
	for path, kind := range completed {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 {
			panic("there is no command " + path) // a mistake of the program
		}
		cmd.ValidArgsFunction = completer(kind)
	}
}

func completer(kind string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 && cmd.Args != nil && cmd.Args(cmd, args) == nil && cmd.Args(cmd, append(args[:len(args):len(args)], prefix)) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // it takes no more
		}
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionPatience)
		defer cancel()
		c, err := readConfig()
		if err != nil || c.DatabaseURL == "" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		pool, err := connect(ctx, c.DatabaseURL, "singil completion", planAnew)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer pool.Close()
		found, err := billing.Complete(ctx, pool, kind, prefix)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var choices []cobra.Completion
		for _, f := range found {
			choices = append(choices, cobra.CompletionWithDesc(f.ID, f.About))
		}
		return choices, cobra.ShellCompDirectiveNoFileComp
	}
}
