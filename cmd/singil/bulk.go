package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

// bulkFlags select what a bulk retry is about, and how it goes.
type bulkFlags struct {
	status, plan string
	codes        []string
	olderThan    string
	maxAmount    string
	limit        int
	rest         string
	perSecond    int
	yes, dryRun  bool
}

// bulkLimit keeps one mistake from being about everybody.
const bulkLimit = 10_000

func (f *bulkFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.status, "status", "", "in bulk: open invoices are what can be retried; another status shows why not")
	flags.StringSliceVar(&f.codes, "decline-code", nil, "in bulk: only with one of these as the latest decline")
	flags.StringVar(&f.plan, "plan", "", "in bulk: only of this plan")
	flags.StringVar(&f.olderThan, "older-than", "", "in bulk: only what has been due for longer, such as 3d or 12h")
	flags.IntVar(&f.limit, "limit", 1000, "in bulk: at most so many, the oldest first")
	flags.StringVar(&f.maxAmount, "max-amount", "", "in bulk: at most so many pesos together, such as 50000.00")
	flags.StringVar(&f.rest, "rest", "8h", "in bulk: leave out what was attempted so shortly ago")
	flags.IntVar(&f.perSecond, "per-second", 20, "in bulk: enqueue at most so many a second")
	flags.BoolVar(&f.yes, "yes", false, "in bulk: do it without asking")
	flags.BoolVar(&f.dryRun, "dry-run", false, "in bulk: only show what would be done")
}

// wanted tells whether a bulk is meant: some filter was given.
func (f bulkFlags) wanted(cmd *cobra.Command) bool {
	for _, name := range []string{"status", "decline-code", "plan", "older-than", "limit", "max-amount"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// none refuses what only a bulk heeds. Somebody who dry-runs ids would charge them.
func (f bulkFlags) none(cmd *cobra.Command) error {
	for _, name := range []string{"dry-run", "rest", "per-second"} {
		if cmd.Flags().Changed(name) {
			return usageError{cmd, fmt.Errorf("--%s is heeded in bulk only: it does not go with ids", name)}
		}
	}
	return nil
}

func (f bulkFlags) filter(now time.Time) (billing.RetryFilter, error) {
	out := billing.RetryFilter{InvoiceFilter: billing.InvoiceFilter{
		Status: f.status, DeclineCodes: f.codes, Plan: f.plan, Limit: f.limit,
	}}
	if out.Status == "" {
		out.Status = billing.InvoiceOpen
	}
	if err := out.Check(); err != nil {
		return out, err
	}
	if f.limit < 1 || f.limit > bulkLimit {
		return out, fmt.Errorf("--limit is %d; it takes 1 to %d", f.limit, bulkLimit)
	}
	if f.perSecond < 1 || f.perSecond > 1000 {
		return out, fmt.Errorf("--per-second is %d; it takes 1 to 1000", f.perSecond)
	}
	if f.olderThan != "" {
		age, err := parseSpan(f.olderThan)
		if err != nil {
			return out, fmt.Errorf("--older-than: %w", err)
		}
		out.DueBefore = now.Add(-age)
	}
	if f.rest != "0" {
		rest, err := parseSpan(f.rest)
		if err != nil {
			return out, fmt.Errorf("--rest: %w", err)
		}
		out.Rest = rest
	}
	if f.maxAmount != "" {
		minor, err := pesos(f.maxAmount)
		if err != nil {
			return out, fmt.Errorf("--max-amount: %w", err)
		}
		out.MaxMinor = minor
	}
	return out, nil
}

// shown is the filter for the audit log.
func (f bulkFlags) shown() map[string]any {
	return map[string]any{
		"status": f.status, "decline_codes": f.codes, "plan": f.plan, "older_than": f.olderThan, "limit": f.limit, "max_amount": f.maxAmount, "rest": f.rest,
	}
}

// pesos reads an amount as people write it: 499, 499.00 or 1,499.00.
func pesos(s string) (int64, error) {
	units, cents, _ := strings.Cut(strings.ReplaceAll(strings.TrimPrefix(s, "₱"), ",", ""), ".")
	if cents == "" {
		cents = "00"
	}
	minor, err := strconv.ParseInt(units+cents, 10, 64)
	if err != nil || len(cents) != 2 || minor <= 0 || strings.ContainsAny(units+cents, "+-") {
		return 0, fmt.Errorf("%.40q is not an amount in pesos such as 1499.00", s)
	}
	return minor, nil
}

// bulkResult is what singil retry prints of a bulk.
type bulkResult struct {
	Bulk string `json:"bulk,omitempty"` // names it in the audit log
	billing.RetryPlan
	Results []retryResult `json:"results"`
	Done    int           `json:"done"` // how far it got
}

// runBulk shows what a bulk retry would do, asks, and does it one by one. What was
// enqueued stays so whatever happens: the same command again goes on.
func (f retryFlags) runBulk(cmd *cobra.Command, o output) error {
	if strings.TrimSpace(f.reason) == "" && !f.bulk.dryRun {
		return usageError{cmd, errors.New("--reason is needed: somebody will ask")}
	}
	if f.paymentMethod != "" {
		return usageError{cmd, errors.New("--payment-method is about one customer, not about many")}
	}
	if _, err := f.bulk.filter(time.Time{}); err != nil {
		return usageError{cmd, err}
	}
	return view(cmd, o, func(ctx context.Context, pool *pgxpool.Pool, _ *time.Location) error {
		var result bulkResult
		if err := f.planBulk(ctx, pool, &result); err != nil {
			return err
		}
		bulkTable(cmd.ErrOrStderr(), result.RetryPlan)
		over := result.OverBudget()
		if over != nil || f.bulk.dryRun || len(result.Retries) == 0 {
			return errors.Join(coded(over), o.print(cmd.OutOrStdout(), result, func(io.Writer) {}))
		}
		if err := f.bulk.confirm(cmd, len(result.Retries)); err != nil {
			return err
		}
		failed := f.carryOut(ctx, pool, cmd.ErrOrStderr(), &result)
		return errors.Join(failed, o.print(cmd.OutOrStdout(), result, func(w io.Writer) { retryRows(w, result.Results) }))
	})
}

func (f retryFlags) planBulk(ctx context.Context, pool *pgxpool.Pool, result *bulkResult) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		now, err := businessNow(ctx, tx)
		if err != nil {
			return err
		}
		filter, err := f.bulk.filter(now)
		if err != nil {
			return err
		}
		result.RetryPlan, err = billing.PlanRetries(ctx, tx, filter, now, billing.DefaultCardLimits(), billing.BankHolidays())
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // nothing was bound yet: there is no invoice
		}
		return err
	})
}

// bulkTable is the preview.
func bulkTable(w io.Writer, p billing.RetryPlan) {
	peso := func(minor int64) string { return billing.Money{Minor: minor, Currency: billing.CurrencyPHP}.Display() }
	_ = outputTable.print(w, nil, func(w io.Writer) { // nobody reads a preview that cannot be written
		fmt.Fprintf(w, "To be retried\t%d\t%s\n", len(p.Retries), peso(p.AmountMinor))
		for _, g := range p.ByDecline {
			name := g.Name
			if name == "" {
				name = "never declined"
			}
			fmt.Fprintf(w, "  %s\t%d\t%s\n", name, g.Count, peso(g.AmountMinor))
		}
		if len(p.LeftOut) > 0 {
			fmt.Fprintln(w, "Left out")
		}
		for _, g := range p.LeftOut {
			fmt.Fprintf(w, "  %s\t%d\t%s\t%s\n", g.Name, g.Count, peso(g.AmountMinor), g.Example)
		}
		fmt.Fprintf(w, "Left of the day's budget\t%d\t%s\n", p.LeftCount, peso(p.LeftMinor))
		if p.More {
			fmt.Fprintln(w, "There are more: --limit or --max-amount is reached. The same command again goes on.")
		}
	})
}

// confirm has a person type the count. A program says --yes.
func (f bulkFlags) confirm(cmd *cobra.Command, count int) error {
	if f.yes {
		return nil
	}
	if !terminal(cmd.ErrOrStderr()) || !terminalIn(cmd.InOrStdin()) {
		return exitCode{4, errors.New("nothing was done: it takes --yes where nobody can be asked")}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Type %d to retry them: ", count)
	return confirmed(cmd.InOrStdin(), count)
}

func confirmed(in io.Reader, count int) error {
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" {
		return exitCode{4, errors.New("nothing was done: nobody has answered")}
	}
	if strings.TrimSpace(line) != strconv.Itoa(count) {
		return exitCode{4, fmt.Errorf("nothing was done: that was not %d", count)}
	}
	return nil
}

// carryOut enqueues what was planned, paced, until it is done, ctx ends, or
// nothing may be charged any more.
func (f retryFlags) carryOut(ctx context.Context, pool *pgxpool.Pool, progress io.Writer, result *bulkResult) error {
	bulk, err := uuid.NewV7()
	if err != nil {
		return err
	}
	result.Bulk, result.Results = bulk.String(), []retryResult{}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		return billing.BeginBulkRetry(ctx, tx, bulk, f.bulk.shown(), result.RetryPlan, billing.Act{Actor: f.actor, Reason: f.reason})
	})
	if err != nil {
		return err
	}
	one := f
	one.reason = fmt.Sprintf("%s (bulk %s)", f.reason, bulk)
	pace := time.NewTicker(time.Second / time.Duration(f.bulk.perSecond))
	defer pace.Stop()
	bar := progressBar{w: progress, total: len(result.Retries), live: terminal(progress)}
	defer bar.end()
	refused := 0
	for _, planned := range result.Retries {
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // also when both have come
			return stoppedAt(result)
		}
		// An invoice is enqueued as a whole or not at all, also when Ctrl-C comes now.
		results, err := one.run(context.WithoutCancel(ctx), pool, []string{planned.Invoice}, time.Now())
		var code exitCode
		if err != nil && (!errors.As(err, &code) || len(results) == 0) {
			return fmt.Errorf("%w; %d of %d were looked at, the same command again goes on", err, result.Done, len(result.Retries))
		}
		result.Results = append(result.Results, results...)
		if result.Done++; results[0].Error != "" {
			refused++
			fmt.Fprintf(progress, "%s: %s\n", planned.Invoice, results[0].Error)
		}
		if kind := results[0].kind; kind == billing.RefusalFrozen || kind == billing.RefusalBreaker {
			return exitCode{4, fmt.Errorf("stopped after %d of %d: %s; when charging goes on, the same command again goes on too", result.Done-1, len(result.Retries), results[0].Error)}
		}
		bar.step(result.Done)
	}
	if refused > 0 {
		return exitCode{5, fmt.Errorf("%d of %d invoices were refused", refused, len(result.Retries))}
	}
	return nil
}

func stoppedAt(result *bulkResult) error {
	return exitCode{130, fmt.Errorf("interrupted: %d of %d are enqueued; the same command again skips them and goes on", result.Done, len(result.Retries))}
}

// progressBar is for whoever watches.
type progressBar struct {
	w     io.Writer
	total int
	live  bool
	drawn int
}

const progressWidth = 30

func (b *progressBar) step(done int) {
	if !b.live || done*progressWidth/b.total == b.drawn && done != b.total {
		return
	}
	b.drawn = done * progressWidth / b.total
	fmt.Fprintf(b.w, "\r[%s%s] %d of %d", strings.Repeat("#", b.drawn), strings.Repeat(".", progressWidth-b.drawn), done, b.total)
}

func (b *progressBar) end() {
	if b.live && b.drawn > 0 {
		fmt.Fprintln(b.w)
	}
}
