package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// spoolLimit bounds what is taken from the standard input: it is kept in a
// temporary file, because it is read twice.
const spoolLimit = 4 << 30

type importFlags struct {
	acting
	partial bool
}

func importCommand() *cobra.Command {
	var f importFlags
	var o output
	cmd := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Import plans, customers, saved cards and subscriptions from JSON Lines",
		Long: `Import plans, customers, saved cards and subscriptions from JSON Lines.

Every line is checked before anything is written. A line that was imported
before changes nothing; a different one updates, except what money depends on.
What a line refers to stands on an earlier line or in the database.`,
		Example: `  {"type":"plan","external_id":"pro","name":"Pro","amount_minor":49900,"currency":"PHP","interval":"month","interval_count":1}
  {"type":"customer","external_id":"u1","paymongo_customer_id":"cus_...","name":"...","email":"..."}
  {"type":"payment_method","customer":"u1","paymongo_payment_method_id":"pm_...","brand":"visa","last4":"4345","exp_month":12,"exp_year":2030}
  {"type":"subscription","external_id":"s1","customer":"u1","plan":"pro","anchor":"2026-01-31T09:00:00+08:00","time_zone":"Asia/Manila","bill_from":"2026-02-28T09:00:00+08:00"}`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			source, done, err := openSource(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			defer done()
			return withDatabase(cmd, func(ctx context.Context, _ config, pool *pgxpool.Pool) error {
				return f.run(ctx, pool, source, args[0], o, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	cmd.Flags().BoolVar(&f.partial, "partial", false, "import the good lines; the exit code is 5 if some were refused")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "check everything and write nothing")
	f.addOptional(cmd, "the lines that were imported, which are told in any case")
	o.addTo(cmd)
	return cmd
}

// openSource is what can be read twice. done closes it, and forgets it if it was
// only kept for that.
func openSource(stdin io.Reader, name string) (source io.ReadSeeker, done func(), err error) {
	if name != "-" {
		file, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil, exitCode{3, err}
		}
		if err != nil {
			return nil, nil, err
		}
		return file, func() { _ = file.Close() }, nil
	}
	file, err := os.CreateTemp("", "singil-import-*.jsonl")
	if err != nil {
		return nil, nil, fmt.Errorf("keep the standard input: %w", err)
	}
	done = func() {
		_ = file.Close()
		os.Remove(file.Name())
	}
	n, err := io.Copy(file, io.LimitReader(stdin, spoolLimit+1))
	if err == nil && n > spoolLimit {
		err = fmt.Errorf("it is longer than %d bytes; give a file", int64(spoolLimit))
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("keep the standard input: %w", err)
	}
	return file, done, nil
}

func (f importFlags) run(ctx context.Context, pool *pgxpool.Pool, source io.ReadSeeker, name string, o output, stdout, stderr io.Writer) error {
	now, err := businessNow(ctx, pool)
	if err != nil {
		return err
	}
	options := billing.ImportOptions{Now: now, Actor: f.actor, Source: filepath.Base(name), Reason: f.reason, Partial: f.partial, DryRun: f.dryRun}
	if terminal(stderr) {
		options.Progress = func(phase string, lines int) { fmt.Fprintf(stderr, "\r%d lines %s", lines, phase) }
	}
	result, failed := billing.Import(ctx, pool, source, options)
	if options.Progress != nil {
		fmt.Fprintln(stderr)
	}
	for _, e := range result.Errors {
		fmt.Fprintln(stderr, e.Error())
	}
	switch more := result.Refused - len(result.Errors); {
	case result.Stopped:
		fmt.Fprintln(stderr, "and perhaps more: the check stopped here")
	case len(result.Errors) > 0 && more > 0 && f.partial:
		fmt.Fprintf(stderr, "and %d more lines\n", more)
	}
	if failed != nil && !errors.Is(failed, billing.ErrImportRefused) {
		return failed
	}
	if err := o.print(stdout, result, func(w io.Writer) { importTable(w, result) }); err != nil {
		return err
	}
	switch {
	case result.Refused > 0 && f.partial && !f.dryRun:
		return exitCode{5, fmt.Errorf("%d of %d lines were refused, the others are imported", result.Refused, result.Lines)}
	case result.Refused > 0:
		return fmt.Errorf("%d of %d lines were refused, nothing was imported; --partial imports the others", result.Refused, result.Lines)
	}
	return failed
}

func importTable(w io.Writer, r billing.ImportResult) {
	fmt.Fprintln(w, "\tCREATED\tUPDATED\tUNCHANGED")
	for _, row := range []struct {
		name  string
		count billing.ImportCount
	}{
		{"plans", r.Plans}, {"customers", r.Customers}, {"payment methods", r.PaymentMethods}, {"subscriptions", r.Subscriptions},
	} {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", row.name, row.count.Created, row.count.Updated, row.count.Unchanged)
	}
	fmt.Fprintf(w, "%d lines read, %d refused, %d periods due at once\n", r.Lines, r.Refused, r.PeriodsDue)
}
