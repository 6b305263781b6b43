package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/singil/singil/bench/scale"
)

// Part c: the same thousand due subscriptions, among few and among many. Each size is a database of its own, which is
// filled first. Ten million take hours to fill: make bench-scale keeps them.

// Sweeping is how long a sweep takes that finds a thousand due subscriptions, opens their invoices and enqueues their jobs.
type Sweeping struct {
	Subscriptions int           `json:"subscriptions"`
	OldInvoices   int           `json:"old_invoices"`
	Rounds        []scale.Swept `json:"rounds"`
}

const sweepRounds = 5

func sweepPart(ctx context.Context, r *rig, report *Report) error {
	for _, n := range r.options.sweep {
		s, err := r.sweeping(ctx, scale.Size{Subscriptions: n, Periods: 5, Due: 1000})
		if err != nil {
			return fmt.Errorf("sweep among %d: %w", n, err)
		}
		report.Sweeps = append(report.Sweeps, s)
		r.log.Info("sweep", "subscriptions", n, "thousand_ms", s.wall().median)
	}
	return nil
}

func (r *rig) sweeping(ctx context.Context, size scale.Size) (s Sweeping, err error) {
	w, err := scale.Open(ctx, scale.Config{Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		return s, err
	}
	defer func() {
		if failed := w.Close(); err == nil {
			err = failed
		}
	}()
	if err := w.Fill(ctx, size); err != nil {
		return s, err
	}
	if err := w.Warm(ctx); err != nil {
		return s, err
	}
	s = Sweeping{Subscriptions: size.Subscriptions, OldInvoices: size.Subscriptions * size.Periods}
	s.Rounds, err = w.Thousand(ctx, size, 0, sweepRounds)
	return s, err
}

// wall is in milliseconds.
func (s Sweeping) wall() spread {
	return s.of(func(swept scale.Swept) float64 { return float64(swept.Spent.Wall.Microseconds()) / 1e3 })
}

func (s Sweeping) of(what func(scale.Swept) float64) spread {
	var values []float64
	for _, swept := range s.Rounds {
		values = append(values, what(swept))
	}
	return spreadOf(values)
}

func writeSweeps(w io.Writer, list []Sweeping) {
	if len(list) == 0 {
		return
	}
	fmt.Fprint(w, "\n## A thousand due subscriptions, among few and among many\n\nFound, their invoices opened, their jobs enqueued. "+
		"CPU is in microseconds an invoice.\n\n| subscriptions | old invoices | ms | CPU worker | CPU PostgreSQL | WAL bytes an invoice |\n|---|---|---|---|---|---|\n")
	for _, s := range list {
		each := func(what func(scale.Swept) int64) string {
			return s.of(func(swept scale.Swept) float64 { return float64(what(swept)) / float64(swept.Invoices) }).figure(0)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", number(float64(s.Subscriptions), 0), number(float64(s.OldInvoices), 0), s.wall().figure(0),
			each(func(swept scale.Swept) int64 { return swept.Spent.Worker.Microseconds() }),
			each(func(swept scale.Swept) int64 { return swept.Spent.Database.Microseconds() }),
			each(func(swept scale.Swept) int64 { return swept.Spent.WAL }))
	}
}
