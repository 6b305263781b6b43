// Scale runs the measurements of package scale one by one.
//
//	scale sweep      opens and enqueues EACH invoices in each of ROUNDS
//	scale thousand   finds and opens a thousand due ones among SUBSCRIPTIONS
//	scale plans      writes the plans of all statements of a sweep and its charges
//	scale days       bills SUBSCRIPTIONS daily ones for DAYS days, and shows the bloat
//	scale fill       only fills the cluster in DIR
//
// With -dir the cluster stays there, and is filled when the directory is empty.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/singil/singil/bench/scale"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) == 0 {
		return errors.New("usage: scale sweep|thousand|plans|days|fill [flags]")
	}
	flags := flag.NewFlagSet("scale "+args[0], flag.ContinueOnError)
	dir := flags.String("dir", "", "keep the cluster in this `directory`; it is filled if it is empty")
	size := scale.Size{}
	flags.IntVar(&size.Subscriptions, "subscriptions", 300000, "how many")
	flags.IntVar(&size.Periods, "periods", 2, "old invoices of each")
	flags.IntVar(&size.Settled, "settled", 0, "old invoices that have an intent, an attempt, a payment and an event")
	flags.IntVar(&size.Due, "due", 1000, "subscriptions due at the start")
	rounds := flags.Int("rounds", 5, "how often")
	each := flags.Int("each", 50000, "subscriptions that fall due for each sweep")
	days := flags.Int("days", 30, "simulated days")
	source := flags.String("source", ".", "the repository, for the names of its statements")
	before := flags.Int("before", 0, "thousands that earlier measurements have swept")
	warm := flags.Bool("warm", false, "read every table and index into memory first")
	settings := flags.String("set", "", "further settings of the server: `a=b,c=d`")
	verbose := flags.Bool("v", false, "tell of each step")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}

	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelInfo
	}
	cfg := scale.Config{Dir: *dir, Now: time.Now, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
	fill := true
	if *dir != "" {
		there, err := os.ReadDir(*dir)
		fill = err != nil || len(there) == 0
	}
	switch {
	case args[0] == "days":
		cfg.Settings, fill = scale.DaysSettings(), false
	case args[0] == "fill":
		cfg.Settings = scale.FillSettings()
	}
	if *settings != "" {
		if cfg.Settings == nil {
			cfg.Settings = scale.Settings()
		}
		for set := range strings.SplitSeq(*settings, ",") {
			key, value, _ := strings.Cut(set, "=")
			cfg.Settings[key] = value
		}
	}
	w, err := scale.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if fill {
		if err := w.Fill(ctx, size); err != nil {
			return err
		}
	}
	switch args[0] {
	case "sweep":
		return sweep(ctx, w, size, *rounds, *each)
	case "thousand":
		if *warm {
			if err := w.Warm(ctx); err != nil {
				return err
			}
		}
		all, err := w.Thousand(ctx, size, *before, *rounds)
		if err != nil {
			return err
		}
		for _, s := range all {
			show("thousand", s)
		}
		text, err := w.Costliest(ctx, 6)
		fmt.Print(text)
		return err
	case "plans":
		plans, err := w.Plans(ctx, *source, size.When(*before*1000))
		scale.WritePlans(os.Stdout, plans)
		return err
	case "days":
		return w.Days(ctx, size.Subscriptions, *days, showDay)
	case "fill":
		return nil
	}
	return fmt.Errorf("no measurement is called %q", args[0])
}

func sweep(ctx context.Context, w *scale.World, size scale.Size, rounds, each int) error {
	for i := range rounds {
		both, err := w.Sweep(ctx, size.When((2*i+1)*each))
		if err != nil {
			return err
		}
		show("both", both)
		if err := w.Settle(ctx); err != nil {
			return err
		}
		open, enqueue, err := w.SweepInHalves(ctx, size.When((2*i+2)*each))
		if err != nil {
			return err
		}
		show("open", open)
		show("enqueue", enqueue)
		if err := w.Settle(ctx); err != nil {
			return err
		}
	}
	text, err := w.Costliest(ctx, 14)
	fmt.Print(text)
	return err
}

func show(name string, s scale.Swept) {
	n := max(s.Invoices, s.Jobs, 1)
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(n) }
	fmt.Printf("%-8s %7d opened %7d enqueued in %8s, %6.0f/s  CPU each: database %6.1f µs, worker %5.1f µs  WAL each %d B\n",
		name, s.Invoices, s.Jobs, s.Spent.Wall.Round(time.Millisecond), s.PerSecond(), each(s.Spent.Database), each(s.Spent.Worker), s.Spent.WAL/int64(n))
}

func showDay(d scale.Day) {
	fmt.Printf("day %d: %d paid, %s, WAL %.1f MB\n", d.Day, d.Charged, d.Took.Round(time.Millisecond), float64(d.WAL)/1e6)
	for _, t := range d.Tables {
		hot := "-"
		if t.Updates > 0 {
			hot = fmt.Sprintf("%.0f %%", 100*float64(t.HOT)/float64(t.Updates))
		}
		fmt.Printf("  %-16s %9d rows %8d dead %8.1f MB %8.1f MB indexes %s HOT %4s %4d vacuums\n", t.Name, t.Rows, t.Dead,
			float64(t.Heap)/1e6, float64(t.Indexes)/1e6, fmt.Sprintf("%9d updates", t.Updates), hot, t.Vacuums)
	}
}
