package main

import (
	"context"
	"time"
)

// Part a: charges a second from end to end, singil against the textbook worker and the two ceilings. Round by round in
// turn, so that what the machine does meanwhile hits all of them.

// busyInFlight is what singil may have under way when the provider takes no time: the
// best of 200, 400 and 1,000, as the textbook worker has the best of its own.
const busyInFlight = 1000

// limitedRate is a PAYMONGO_RATE that is less than what fits into the latency.
const limitedRate = 400

// chargesPart measures at no latency and at 300 ms.
func chargesPart(ctx context.Context, r *rig, report *Report) error {
	singil, err := newProduct(ctx, r, "singil")
	if err != nil {
		return err
	}
	defer singil.close()
	textbook, err := newTextbook(ctx, r)
	if err != nil {
		return err
	}
	defer textbook.close()
	empty, err := r.database(ctx, "empty", "template1")
	if err != nil {
		return err
	}
	defer empty.Close()
	if err := migrateRiver(ctx, empty); err != nil {
		return err
	}

	for _, latency := range r.options.latencies {
		n, fewer := r.options.charges, (r.options.charges+2)/3 // of the textbook worker, not to wait for it so long
		if latency > 0 {
			n, fewer = r.options.slowCharges, r.options.slowCharges
		}
		for round := range r.options.rounds {
			for _, side := range []struct {
				name string
				run  func() (Charges, error)
			}{
				{"singil", func() (Charges, error) {
					if latency == 0 {
						singil.crowd = busyInFlight
						defer func() { singil.crowd = 0 }()
					}
					return r.round(ctx, singil, n, 1, latency)
				}},
				{"limited", func() (Charges, error) {
					singil.rate = limitedRate
					defer func() { singil.rate = 0 }()
					return r.round(ctx, singil, (n+1)/2, 1, latency)
				}},
				{"textbook", func() (Charges, error) { return r.round(ctx, textbook, fewer, 1, latency) }},
				{"calls", func() (Charges, error) { return r.ceiling(ctx, "calls", n, latency, providerName+"="+r.provider) }},
				{"jobs", func() (Charges, error) {
					return r.ceiling(ctx, "jobs", 2*n, latency, databaseName+"="+r.pg.DSN("empty"))
				}},
			} {
				if !r.options.takes(side.name) || side.name == "jobs" && latency > 0 || side.name == "limited" && latency == 0 {
					continue
				}
				c, err := side.run()
				if err != nil {
					return err
				}
				report.Charges = append(report.Charges, c)
				r.log.Info("round", "no", round+1, "side", c.Side, "latency", latency, "charges", c.Charges,
					"per_second", int(c.PerSecond), "seconds", time.Duration(c.Seconds*float64(time.Second)).Round(time.Millisecond))
			}
		}
	}
	report.Statements = r.statements
	return nil
}
