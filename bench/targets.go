package main

import "fmt"

// Target is something that was promised, and what became of it.
type Target struct {
	Name     string `json:"name"`
	Wanted   string `json:"wanted"`
	Measured string `json:"measured"`
	Met      bool   `json:"met"`
}

// targets judges those that the report has the figures for.
func targets(r *Report) []Target {
	var list []Target
	add := func(name, wanted, measured string, met bool) {
		list = append(list, Target{name, wanted, measured, met})
	}
	rows := map[string]row{}
	for _, row := range rowsOf(r.Charges) {
		if row.processes == 1 {
			rows[fmt.Sprintf("%s/%d", row.side, row.latency)] = row
		}
	}
	singil, measured := rows["singil/0"]
	if textbook, found := rows["textbook/0"]; found && measured {
		times := singil.perSecond().median / textbook.perSecond().median
		add("charges/s against the textbook worker", "≥ 5×", number(times, 2)+"×", times >= 5)
		cpu := func(c Charges) float64 { return c.WorkerCPU + c.PostgresCPU }
		share := singil.of(cpu).median / textbook.of(cpu).median
		add("CPU a charge against the textbook worker", "≤ 0.25", number(share, 2), share <= 0.25)
	}
	if calls, found := rows["calls/0"]; found && measured {
		share := 100 * singil.perSecond().median / calls.perSecond().median
		add("charges/s against the HTTP-only ceiling", "≥ 45 %", number(share, 0)+" %", share >= 45)
	}
	for _, row := range rowsOf(r.Charges) {
		if allowed := row.rounds[0].Allowed; allowed > 0 {
			share := 100 * row.perSecond().median / allowed
			add(fmt.Sprintf("charges/s at %d ms, of the %s that %s allows itself", row.latency, number(allowed, 0), sideNames[row.side]),
				"≥ 95 %", number(share, 0)+" %", share >= 95)
		}
	}
	for _, w := range r.Waiting {
		megabytes := float64(w.PeakBytes) / 1e6
		add(fmt.Sprintf("peak memory while %s wait", number(float64(w.Invoices), 0)), "≤ 100 MB", number(megabytes, 0)+" MB", megabytes <= 100)
	}
	if n := len(r.Waiting); n > 0 {
		w := r.Waiting[n-1]
		add(fmt.Sprintf("sweep of %s, opened and enqueued", number(float64(w.Invoices), 0)), "≥ 20,000/s", number(w.Enqueued, 0)+"/s", w.Enqueued >= 20_000)
	}
	if n := len(r.Sweeps); n > 1 {
		few, many := r.Sweeps[0], r.Sweeps[n-1]
		times := many.wall().median / few.wall().median
		add(fmt.Sprintf("a thousand due among %s, against %s", number(float64(many.Subscriptions), 0), number(float64(few.Subscriptions), 0)), "≤ 1.3×",
			number(times, 2)+"×", times <= 1.3)
	}
	if r.Delays != nil {
		for _, l := range r.Delays.Lags {
			if l.What == "attempt armed" {
				add(fmt.Sprintf("p99 lag of the start of a charge, %s due at once", number(float64(r.Delays.DueAtOnce), 0)), "< 2 s", number(l.P99, 1)+" s", l.P99 < 2)
			}
		}
	}
	return list
}
