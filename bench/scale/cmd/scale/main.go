// Scale runs the measurements of package scale one by one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"time"

	"github.com/singil/singil/bench/scale"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir := flag.String("dir", "", "keep the cluster here; an empty directory is filled, another is used as it is")
	subscriptions := flag.Int("subscriptions", 300000, "how many")
	periods := flag.Int("periods", 2, "old invoices of each")
	due := flag.Int("due", 1000, "subscriptions due at the start")
	rounds := flag.Int("rounds", 3, "sweeps")
	each := flag.Int("each", 100000, "subscriptions that fall due for each sweep")
	settled := flag.Int("settled", 0, "old invoices with an intent, an attempt and a payment")
	fill := flag.Bool("fill", true, "fill the database first")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the sweeps")
	flag.Parse()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	settings := scale.Settings()
	if *dir != "" && *fill {
		settings["wal_level"], settings["max_wal_senders"], settings["shared_buffers"] = "minimal", "0", "4GB"
	}
	w, err := scale.Open(ctx, scale.Config{Dir: *dir, Log: log, Now: time.Now, Settings: settings})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	size := scale.Size{Subscriptions: *subscriptions, Periods: *periods, Settled: *settled, Due: *due}
	if *fill {
		if err := w.Fill(ctx, size); err != nil {
			return err
		}
	}
	if *rounds == 0 {
		return nil
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // a profile
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	first, err := w.Sweep(ctx, scale.Start)
	if err != nil {
		return err
	}
	show("first", first)
	if err := w.Settle(ctx); err != nil {
		return err
	}
	for i := range *rounds {
		s, err := w.Sweep(ctx, size.When((2*i+1)**each))
		if err != nil {
			return err
		}
		show("both", s)
		if err := w.Settle(ctx); err != nil {
			return err
		}
		open, enqueue, err := w.SweepInHalves(ctx, size.When((2*i+2)**each))
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
	fmt.Printf("%-8s %7d opened %7d enqueued %8.0f/s  CPU each: database %6.1f µs, worker %5.1f µs  WAL each %d B\n",
		name, s.Invoices, s.Jobs, s.PerSecond(), each(s.Spent.Database), each(s.Spent.Worker), s.Spent.WAL/int64(n))
}
