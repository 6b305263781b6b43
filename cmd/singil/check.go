package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// checkResult is what singil check prints.
type checkResult struct {
	CheckedAt    time.Time          `json:"checked_at"`
	BusinessTime time.Time          `json:"business_time"`
	Invariants   []checkedInvariant `json:"invariants"`
	AuditHead    billing.AuditHead  `json:"audit_head"`
}

type checkedInvariant struct {
	Name    string              `json:"name"`
	Meaning string              `json:"meaning"`
	Count   int                 `json:"count"`
	Capped  bool                `json:"capped,omitempty"` // there may be more than count
	Error   string              `json:"error,omitempty"`  // not checked
	First   []billing.Violation `json:"first"`
}

func checkCommand() *cobra.Command {
	var o output
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that the books hold together: what must be true whatever happened",
		Long: `Check that the books hold together: what must be true whatever happened.

Everything is read in one snapshot, from end to end, and nothing is changed. It
may run beside the daemons, or on a standby; with tens of millions of invoices it
takes minutes. The exit code is 1 if anything is broken or could not be checked.

When something is broken:

  double_payment, double_intent, open_although_paid, foreign_intent,
  payment_without_invoice, wrong_payment, armed_while_frozen
      Money. Run singil freeze --reason ... first. Then singil invoices show ID, and
      PayMongo's dashboard for the payments named: what was taken twice, or from
      nobody we know, is refunded there. A payment refunded in full counts no more.
  missing_period, paid_without_payment, open_attempt_of_paid, budget_drift
      The books were changed by hand, or restored. Freeze, and compare with a backup.
  uninvoiced_period, unclaimed_invoice, unprocessed_webhook
      Nobody works: is a singil run up, may it charge, and what does its log say? A
      virtual clock that was just moved waits for the next sweep.
  stale_attempt
      PayMongo has given no outcome. singil invoices show ID, then its dashboard.
  card_limit, invoice_limit
      Stop retrying by hand. The networks fine merchants for this.
  stuck_events
      The merchant's endpoint refuses what it is sent: singil events endpoints.
  audit_chain
      Somebody with a superuser's rights changed the log. The head in the last line
      stands for all entries so far: one that you kept elsewhere tells if the chain
      was made anew.

Not checked here, because it takes asking PayMongo: that its list of payments and
ours are the same.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			if timeout < time.Second {
				return usageError{cmd, fmt.Errorf("--timeout is %s; it takes 1s or more", timeout)}
			}
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				result, err := checkBooks(ctx, pool, time.Now(), timeout)
				if err != nil {
					return err
				}
				if err := o.print(cmd.OutOrStdout(), result, result.table); err != nil {
					return err
				}
				return result.verdict()
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Minute, "how long one invariant may take")
	o.addTo(cmd)
	return cmd
}

func checkBooks(ctx context.Context, pool *pgxpool.Pool, realNow time.Time, timeout time.Duration) (result checkResult, err error) {
	result.CheckedAt = realNow.UTC().Truncate(time.Microsecond)
	var broken []billing.Broken
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", timeout.Milliseconds()))
		if err != nil {
			return err
		}
		if result.BusinessTime, err = businessNow(ctx, tx); err != nil {
			return err
		}
		if result.AuditHead, err = billing.LoadAuditHead(ctx, tx); err != nil {
			return err
		}
		broken, err = billing.Invariants(ctx, tx, realNow)
		return err
	})
	if err != nil {
		return checkResult{}, err
	}
	for _, i := range billing.AllInvariants() {
		checked := checkedInvariant{Name: i.Name, Meaning: i.Meaning, First: []billing.Violation{}}
		for _, b := range broken {
			if b.Name != i.Name {
				continue
			}
			checked.Count, checked.Capped = b.Count, b.Count == billing.ViolationsCounted
			checked.First = append(checked.First, b.First...)
			if b.Err != nil {
				checked.Error = b.Err.Error()
			}
		}
		result.Invariants = append(result.Invariants, checked)
	}
	return result, nil
}

func (r checkResult) table(w io.Writer) {
	fmt.Fprintln(w, "INVARIANT\tBROKEN BY\tMEANING")
	for _, i := range r.Invariants {
		count := fmt.Sprint(i.Count)
		switch {
		case i.Error != "":
			count = "not checked"
		case i.Capped:
			count += " or more"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", i.Name, count, i.Meaning)
	}
	for _, i := range r.Invariants {
		if i.Error == "" && i.Count == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", i.Name)
		if i.Error != "" {
			fmt.Fprintf(w, "  %s\n", i.Error)
		}
		for _, v := range i.First {
			fmt.Fprintf(w, "  %s\t%s\n", v.ID, v.What)
		}
		if more := i.Count - len(i.First); more > 0 {
			fmt.Fprintf(w, "  and %d more\n", more)
		}
	}
	fmt.Fprintf(w, "\naudit log\tlink %d\t%s\n", r.AuditHead.Links, r.AuditHead.Hash)
}

// verdict is the exit code, and the last line for people.
func (r checkResult) verdict() error {
	var broken, unchecked []string
	for _, i := range r.Invariants {
		switch {
		case i.Error != "":
			unchecked = append(unchecked, i.Name)
		case i.Count > 0:
			broken = append(broken, i.Name)
		}
	}
	var parts []string
	if len(broken) > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d invariants are broken: %s", len(broken), len(r.Invariants), strings.Join(broken, ", ")))
	}
	if len(unchecked) > 0 {
		parts = append(parts, fmt.Sprintf("%d could not be checked: %s", len(unchecked), strings.Join(unchecked, ", ")))
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, "; ") + "; what to do: singil check --help")
}
