package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Part b: the memory of a daemon, whatever waits for it. And, of part c, how fast it opens invoices and enqueues their
// jobs, which is what it does first.

// Waiting is a daemon that finds so many subscriptions due.
type Waiting struct {
	Invoices  int     `json:"invoices"`
	Opened    float64 `json:"opened_per_second"`
	Enqueued  float64 `json:"enqueued_per_second"`
	Both      float64 `json:"opened_and_enqueued_per_second"`
	PeakBytes int64   `json:"peak_memory_bytes"` // from the start of the daemon, through all that, and some seconds of charging
}

// waitingPart has more and more fall due at once.
func waitingPart(ctx context.Context, r *rig, report *Report) error {
	for i, n := range r.options.waiting {
		w, err := r.wait(ctx, fmt.Sprintf("waiting%d", i), n)
		if err != nil {
			return fmt.Errorf("%d invoices wait: %w", n, err)
		}
		report.Waiting = append(report.Waiting, w)
		r.log.Info("waiting", "invoices", n, "opened_per_second", int(w.Opened), "enqueued_per_second", int(w.Enqueued), "peak_mb", w.PeakBytes/1e6)
	}
	return nil
}

// When the first invoice was opened, the last one was, and the last was given to its job.
const sqlSwept = `SELECT min(created_at), max(created_at), max(updated_at) FROM singil.invoices WHERE due_at = $1`

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
	var first, opened, enqueued time.Time
	if err := p.pool.QueryRow(ctx, sqlSwept, due).Scan(&first, &opened, &enqueued); err != nil {
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
	count := float64(n)
	w = Waiting{
		Invoices: n, Opened: count / opened.Sub(first).Seconds(), Enqueued: count / enqueued.Sub(opened).Seconds(),
		Both: count / enqueued.Sub(first).Seconds(),
	}
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

| invoices | opened/s | enqueued/s | both/s | peak memory |
|---|---|---|---|---|
`)
	for _, w := range list {
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s MB |\n", number(float64(w.Invoices), 0), number(w.Opened, 0), number(w.Enqueued, 0), number(w.Both, 0),
			number(float64(w.PeakBytes)/1e6, 0))
	}
}
