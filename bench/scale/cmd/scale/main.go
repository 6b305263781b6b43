// Scale runs the measurements of package scale one by one.
package main

import (
	"context"
	"encoding/json"
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
	profile := flag.String("cpuprofile", "", "write a CPU profile of the sweeps")
	flag.Parse()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	w, err := scale.Open(ctx, scale.Config{Dir: *dir, Log: log, Now: time.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	size := scale.Size{Subscriptions: *subscriptions, Periods: *periods, Settled: 0, Due: *due}
	if err := w.Fill(ctx, size); err != nil {
		return err
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
	out := json.NewEncoder(os.Stdout)
	_ = out
	first, err := w.Sweep(ctx, scale.Start)
	if err != nil {
		return err
	}
	show("first", first)
	for i := range *rounds {
		s, err := w.Sweep(ctx, size.When((i+1)**each))
		if err != nil {
			return err
		}
		show(fmt.Sprint(i), s)
	}
	text, err := w.Statements(ctx, 14)
	fmt.Print(text)
	return err
}

func show(name string, s scale.Swept) {
	per := func(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(max(n, 1)) }
	fmt.Printf("%-6s %d opened %.0f/s (µs each: db %.1f worker %.1f, WAL %d B)  %d enqueued %.0f/s (db %.1f worker %.1f, WAL %d B)  both %.0f/s\n", name,
		s.Invoices, float64(s.Invoices)/s.Open.Wall.Seconds(), per(s.Open.Database, s.Invoices), per(s.Open.Worker, s.Invoices), s.Open.WAL/int64(max(s.Invoices, 1)),
		s.Jobs, float64(s.Jobs)/s.Enqueue.Wall.Seconds(), per(s.Enqueue.Database, s.Jobs), per(s.Enqueue.Worker, s.Jobs), s.Enqueue.WAL/int64(max(s.Jobs, 1)), s.PerSecond())
}
