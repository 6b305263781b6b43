package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Part d: how soon. From the start of a daemon to its first charge; how far charges are behind their due time when very
// many fall due at the same instant; how long a day's outage takes to catch up with.

// Lag is how far behind the due time things happened, in seconds.
type Lag struct {
	What   string  `json:"what"`
	Median float64 `json:"median_seconds"`
	P99    float64 `json:"p99_seconds"`
	Most   float64 `json:"most_seconds"`
}

// Delays is what part d came to.
type Delays struct {
	StartToFirst     []float64 `json:"start_to_first_charge_seconds"`
	DueAtOnce        int       `json:"due_at_once"`
	Lags             []Lag     `json:"lags"`
	CatchUp          int       `json:"due_within_a_day_of_outage"`
	CatchUpSeconds   float64   `json:"catch_up_seconds"` // from the start of the daemon to the last invoice that is paid
	CatchUpPerSecond float64   `json:"catch_up_per_second"`
}

func lagPart(ctx context.Context, r *rig, report *Report) error {
	d := &Delays{DueAtOnce: r.options.dueAtOnce, CatchUp: max(50, r.options.dueAtOnce/2)}
	report.Delays = d
	for _, measure := range []func(context.Context, *rig) error{d.start, d.crowd, d.outage} {
		if err := measure(ctx, r); err != nil {
			return err
		}
	}
	r.log.Info("delays", "start_to_first", d.StartToFirst, "lags", d.Lags, "catch_up_seconds", d.CatchUpSeconds)
	return nil
}

// start starts daemons on a database where one invoice is due.
func (d *Delays) start(ctx context.Context, r *rig) (err error) {
	p, err := newProduct(ctx, r, "start")
	if err != nil {
		return err
	}
	defer func() { err = p.drop(ctx, err) }()
	for range r.options.rounds {
		if err := r.resetProvider(ctx, 0); err != nil {
			return err
		}
		if err := p.prepare(ctx, 1); err != nil {
			return err
		}
		took, err := p.chargeAll(ctx, 1)
		if err != nil {
			return err
		}
		d.StartToFirst = append(d.StartToFirst, took.Seconds())
	}
	return nil
}

// outage starts a daemon after a day in which there was none.
func (d *Delays) outage(ctx context.Context, r *rig) (err error) {
	p, err := newProduct(ctx, r, "outage")
	if err != nil {
		return err
	}
	defer func() { err = p.drop(ctx, err) }()
	if err := r.resetProvider(ctx, 0); err != nil {
		return err
	}
	day := p.now.Add(24 * time.Hour)
	if err := p.subscribe(ctx, d.CatchUp, p.now, day); err != nil {
		return err
	}
	if err := p.moveClock(ctx, day); err != nil {
		return err
	}
	took, err := p.chargeAll(ctx, d.CatchUp)
	d.CatchUpSeconds, d.CatchUpPerSecond = took.Seconds(), float64(d.CatchUp)/took.Seconds()
	return err
}

// chargeAll is how long a daemon takes from its start until n invoices are paid.
func (p *product) chargeAll(ctx context.Context, n int) (took time.Duration, err error) {
	began := time.Now()
	daemon, err := p.start(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, daemon.stop()) }()
	if err := p.charged(ctx, p, n, 0); err != nil {
		return 0, err
	}
	took = time.Since(began)
	return took, p.compare(ctx, p, n)
}

// crowd has very many fall due at one instant of real time: the next full minute, when the daemon's schedule ticks.
func (d *Delays) crowd(ctx context.Context, r *rig) (err error) {
	if d.DueAtOnce == 0 {
		return nil // waiting for the minute takes one
	}
	p, err := newProduct(ctx, r, "crowd")
	if err != nil {
		return err
	}
	defer func() { err = p.drop(ctx, err) }()
	if _, err := p.pool.Exec(ctx, `UPDATE singil.instance SET virtual_now = NULL`); err != nil {
		return err
	}
	p.realTime = true
	if err := r.resetProvider(ctx, 0); err != nil {
		return err
	}
	// The instant is set when they are there: nobody knows how long that takes.
	far := time.Now().AddDate(1, 0, 0).Truncate(time.Minute)
	if err := p.subscribe(ctx, d.DueAtOnce, far, far); err != nil {
		return err
	}
	due := time.Now().Add(30 * time.Second).Truncate(time.Minute).Add(time.Minute)
	_, err = p.pool.Exec(ctx, `UPDATE singil.subscriptions SET anchor_at = $1, bill_from = $1, next_due_at = $1`, due)
	if err != nil {
		return err
	}
	if _, err := p.pool.Exec(ctx, "VACUUM (ANALYZE) singil.subscriptions"); err != nil {
		return err
	}
	daemon, err := p.start(ctx)
	if err != nil {
		return err
	}
	defer daemon.kill()
	if time.Now().After(due) {
		return errors.New("it was not there in time")
	}
	if err := until(ctx, 100*time.Millisecond, 3*time.Minute, func() (bool, error) { return time.Now().After(due), nil }); err != nil {
		return err
	}
	if err := r.charged(ctx, p, d.DueAtOnce, 0); err != nil {
		return err
	}
	for _, of := range []struct{ what, table, column string }{
		{"invoice opened", "singil.invoices", "created_at"},
		{"job enqueued", "river.river_job WHERE queue = 'charge'", "created_at"},
		{"attempt armed", "singil.attempts", "written_at"},
		{"paid", "singil.payments", "seen_at"},
	} {
		l := Lag{What: of.what}
		err := p.pool.QueryRow(ctx, fmt.Sprintf(`
			SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY lag), percentile_cont(0.99) WITHIN GROUP (ORDER BY lag), max(lag)
			FROM (SELECT EXTRACT(epoch FROM %s - $1)::float8 AS lag FROM %s) AS lags`, of.column, of.table), due).Scan(&l.Median, &l.P99, &l.Most)
		if err != nil {
			return err
		}
		d.Lags = append(d.Lags, l)
	}
	return r.compare(ctx, p, d.DueAtOnce)
}

func writeDelays(out io.Writer, d *Delays) {
	if d == nil {
		return
	}
	fmt.Fprintf(out, `
## How soon

- From the start of the process to the first charge, paid and durable: %s s.
- %s invoices of a day's outage, found at the start: all paid after %s s, %s a second.
- %s subscriptions due at one instant, in seconds behind it:

| | median | p99 | last |
|---|---|---|---|
`, spreadOf(d.StartToFirst).figure(2), number(float64(d.CatchUp), 0), number(d.CatchUpSeconds, 1), number(d.CatchUpPerSecond, 0),
		number(float64(d.DueAtOnce), 0))
	for _, l := range d.Lags {
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", l.What, number(l.Median, 1), number(l.P99, 1), number(l.Most, 1))
	}
}
