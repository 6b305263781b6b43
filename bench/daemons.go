package main

import (
	"context"
	"fmt"
	"io"
)

// Part e: one, two and four daemons on one database. They share two processors or as many as there are: more daemons are
// for staying up, and the question is what they cost.

func daemonsPart(ctx context.Context, r *rig, report *Report) (err error) {
	p, err := newProduct(ctx, r, "daemons")
	if err != nil {
		return err
	}
	defer func() { err = p.drop(ctx, err) }()
	for range min(r.options.rounds, 3) {
		for _, daemons := range []int{1, 2, 4} {
			c, err := r.round(ctx, p, r.options.charges, daemons, 0)
			if err != nil {
				return err
			}
			report.Daemons = append(report.Daemons, c)
			r.log.Info("daemons", "daemons", daemons, "per_second", int(c.PerSecond))
		}
	}
	return p.pool.QueryRow(ctx, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&report.Deadlocks)
}

func writeDaemons(out io.Writer, list []Charges, deadlocks int64) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(out, `
## Several daemons on one database

After each round books and ledger agreed: nothing lost, nothing twice. Deadlocks in all of it: %d. CPU is in seconds per
1,000 charges.

| daemons | charges/s | CPU daemons | CPU PostgreSQL | transactions | WAL bytes | peak memory of one |
|---|---|---|---|---|---|---|
`, deadlocks)
	for _, r := range rowsOf(list) {
		fmt.Fprintf(out, "| %d | %s | %s | %s | %s | %s | %s MB |\n", r.processes, r.perSecond().figure(0),
			r.of(func(c Charges) float64 { return c.WorkerCPU }).figure(2),
			r.of(func(c Charges) float64 { return c.PostgresCPU }).figure(2),
			r.of(func(c Charges) float64 { return c.Transactions }).figure(3),
			r.of(func(c Charges) float64 { return c.WAL }).figure(0),
			r.of(func(c Charges) float64 { return float64(c.PeakBytes) / 1e6 }).figure(0))
	}
}
