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
	return list
}
