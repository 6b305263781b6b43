package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

func tokensCommand() *cobra.Command {
	var o output
	cmd := group("tokens", "Create, list and revoke tokens of the HTTP API", createTokenCommand(&o), listTokensCommand(&o), revokeTokenCommand())
	o.addTo(cmd)
	return cmd
}

// createdToken is what is shown of a token once.
type createdToken struct {
	billing.APIToken
	Token string `json:"token"`
}

func createTokenCommand(o *output) *cobra.Command {
	var a acting
	var name, role string
	var expiresIn time.Duration
	cmd := &cobra.Command{
		Use: "create --name NAME --role ROLE --reason WHY", Short: "Create a token, and show it this once", Args: cobra.NoArgs,
		Long: `Create a token, and show it this once: only its hash is stored. A program sends it as
Authorization: Bearer TOKEN. A viewer reads; an operator changes what belongs to customers;
an admin may do everything. Give each program a token of its own: the audit log has its name.
It may make 50 requests a second of each daemon, 100 at once: daemons do not share the count.`,
		Example: `  singil tokens create --name shop --role operator --expires-in 2160h --reason "the web shop"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case name == "":
				return usageError{cmd, errors.New("--name is needed: what will use it, such as shop")}
			case !slices.Contains(billing.Roles(), billing.Role(role)):
				return usageError{cmd, fmt.Errorf("--role is %q; it takes viewer, operator or admin", role)}
			case expiresIn < 0:
				return usageError{cmd, errors.New("--expires-in is negative")}
			}
			if err := errors.Join(o.check(cmd), a.check(cmd)); err != nil {
				return err
			}
			return withDatabase(cmd, func(ctx context.Context, c config, pool *pgxpool.Pool) error {
				zone, err := billing.LoadZone(c.TimeZone)
				if err != nil {
					return err
				}
				var expires time.Time
				if expiresIn > 0 {
					expires = time.Now().Add(expiresIn).Truncate(time.Second) // the real clock, as tokens are checked by
				}
				var created createdToken
				err = a.change(ctx, pool, func(tx pgx.Tx, act billing.Act) (err error) {
					created.APIToken, created.Token, err = billing.CreateToken(ctx, tx, name, billing.Role(role), expires, act)
					return err
				})
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "Keep it now: it is not shown again.")
				return o.print(cmd.OutOrStdout(), created, func(w io.Writer) {
					details(w, [][2]string{
						{"token", created.Token}, {"name", created.Name}, {"role", string(created.Role)}, {"expires", local(created.ExpiresAt.Time, zone)},
					}...)
				})
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what will use it: small letters, digits, dots, dashes and underscores")
	cmd.Flags().StringVar(&role, "role", "", strings.Join([]string{"viewer", "operator", "admin"}, ", "))
	cmd.Flags().DurationVar(&expiresIn, "expires-in", 0, "for how long it is valid, such as 2160h; none: until it is revoked")
	// Only a flag that is not there is refused.
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	a.addTo(cmd)
	return cmd
}

func listTokensCommand(o *output) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tokens; those that were revoked last", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return view(cmd, *o, func(ctx context.Context, pool *pgxpool.Pool, zone *time.Location) error {
				list, err := billing.ListTokens(ctx, pool)
				if err != nil {
					return err
				}
				return o.print(cmd.OutOrStdout(), list, func(w io.Writer) {
					fmt.Fprintln(w, "NAME\tROLE\tCREATED\tEXPIRES\tLAST USED\tREVOKED")
					for _, t := range list {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, t.Role, local(t.CreatedAt.Time, zone), local(t.ExpiresAt.Time, zone),
							local(t.LastUsedAt.Time, zone), local(t.RevokedAt.Time, zone))
					}
				})
			})
		},
	}
}

func revokeTokenCommand() *cobra.Command {
	var a acting
	cmd := &cobra.Command{
		Use: "revoke NAME --reason WHY", Short: "Close a token for good, at once in every daemon", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				err := a.change(ctx, pool, func(tx pgx.Tx, act billing.Act) error { return billing.RevokeToken(ctx, tx, args[0], act) })
				if err != nil {
					return err
				}
				a.told(cmd, "Token %s opens nothing any more.", args[0])
				return nil
			})
		},
	}
	a.addTo(cmd)
	return cmd
}
