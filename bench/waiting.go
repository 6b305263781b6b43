package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Part b: the memory of a daemon, whatever waits for it. And how fast the daemon as a whole opens invoices and enqueues
// their jobs, which is what it does first.

// Waiting is a daemon that finds so many subscriptions due.
type Waiting struct {
	Invoices  int     `json:"invoices"`
	Enqueued  float64 `json:"opened_and_enqueued_per_second"` // until there is a job for each
	PeakBytes int64   `json:"peak_memory_bytes"`              // from the start of the daemon, through all that, and some seconds of charging
}

// waitingPart has more and more fall due at once.
func waitingPart(ctx context.Context, r *rig, report *Report) error {
	for i, n := range r.options.waiting {
		w, err := r.wait(ctx, fmt.Sprintf("waiting%d", i), n)
		if err != nil {
			return fmt.Errorf("%d invoices wait: %w", n, err)
		}
		report.Waiting = append(report.Waiting, w)
		r.log.Info("waiting", "invoices", n, "enqueued_per_second", int(w.Enqueued), "peak_mb", w.PeakBytes/1e6)
	}
	return nil
}

// When the first invoice was opened, and when the last one was given to its job.
const sqlSwept = `
SELECT min(created_at), greatest(max(updated_at), (SELECT max(created_at) FROM river.river_job WHERE queue = 'charge'))
FROM singil.invoices WHERE due_at = $1`

func (r *rig) wait(ctx context.Context, database string, n int) (w Waiting, err error) {
	p, err := newProduct(ctx, r, database)
	if err != nil {
		return w, err
	}
	defer func() { err = p.drop(ctx, err) }()
	if err := r.resetProvider(ctx, 0); err != nil {
		return w, err
	}
	daemon, err := p.start(ctx)
	if err != nil {
		return w, err
	}
	defer daemon.kill()
	if err := p.prepare(ctx, 1); err != nil {
		return w, err
	}
	if err := r.charged(ctx, p, 1, 0); err != nil {
		return w, err
	}
	if err := pause(ctx, p.river, p.queue()); err != nil {
		return w, err
	}
	due := p.now.Add(time.Hour)
	if err := p.subscribe(ctx, n, due, due); err != nil {
		return w, err
	}
	if err := p.moveClock(ctx, due); err != nil {
		return w, err
	}
	if err := until(ctx, 100*time.Millisecond, patienceFor(n), func() (bool, error) { return p.enqueued(ctx) }); err != nil {
		return w, fmt.Errorf("enqueue: %w", err)
	}
	var first, last time.Time
	if err := p.pool.QueryRow(ctx, sqlSwept, due).Scan(&first, &last); err != nil {
		return w, err
	}
	if err := p.river.QueueResume(ctx, p.queue(), nil); err != nil {
		return w, err
	}
	charging := int64(min(n, 5000)) + 1 // one came before
	err = until(ctx, 10*time.Millisecond, time.Minute, func() (bool, error) {
		calls, err := r.calls(ctx)
		return calls.Paid >= charging, err
	})
	if err != nil {
		return w, fmt.Errorf("charge %d of them: %w", charging, err)
	}
	w = Waiting{Invoices: n, Enqueued: float64(n) / last.Sub(first).Seconds()}
	w.PeakBytes, err = peakMemory(daemon.pid())
	return w, err
}

func writeWaiting(out io.Writer, list []Waiting) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(out, `
## What waits

So many subscriptions fall due at once: the daemon opens their invoices, enqueues a job for each, and charges. The peak
of its memory is of all of that.

| invoices | opened and enqueued/s | peak memory |
|---|---|---|
`)
	for _, w := range list {
		fmt.Fprintf(out, "| %s | %s | %s MB |\n", number(float64(w.Invoices), 0), number(w.Enqueued, 0), number(float64(w.PeakBytes)/1e6, 0))
	}
}
