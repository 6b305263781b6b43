package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

// billingBoard is for whoever answers for the money. What only the database knows
// is the same in every daemon: the highest is taken, never the sum.
var billingBoard = board{
	uid: "singil-billing", title: "Singil: Billing",
	about: "Is money collected, what is refused and why, what do retries bring in, is anything late. The engine below it has a dashboard of its own.",
	other: link{"singil-engine", "Singil: Engine"},
	rows: []row{
		{"Money now", []panel{
			{
				kind: figure, title: "Collected", unit: units.PhilippinePeso,
				shows:   "Money of the invoices that became paid in the time range, at once or found out later.",
				bad:     "Lower than the same day of last month? Look at the declines below, then at Due now.",
				queries: []query{{"collected", `sum(increase(singil_collected_amount_centavos_total{@}[$__range])) / 100`}},
			},
			{
				kind: figure, title: "Approval of first attempts", unit: units.PercentUnit, red: 0.7, redBelow: true,
				shows:   "Paid, of the first attempts that were paid or declined in the time range.",
				bad:     "See which codes decline. One code for many cards is PayMongo's or your account's trouble, not your customers': runbook SingilApprovalDropped.",
				queries: []query{{"approval", `sum(increase(singil_charge_attempts_total{@,outcome="paid",trigger="schedule"}[$__range])) / sum(increase(singil_charge_attempts_total{@,outcome=~"paid|declined",trigger="schedule"}[$__range]))`}},
			},
			{
				kind: figure, title: "Outcomes not known", unit: units.Short, red: 1,
				shows:   "Attempts that may have moved money, without a known outcome. A few for some minutes are everyday life.",
				bad:     "If it stays, PayMongo does not answer: runbook SingilUnknownOutcomeOld. Never charge such a customer by other means.",
				queries: []query{{"unknown", `max(singil_unknown_outcomes{@})`}},
			},
			{
				kind: figure, title: "Charging", unit: units.Short, red: 1, words: map[string]string{"0": "goes on", "1": "stopped", "2": "stopped"},
				shows:   "Whether anything is charged: not while frozen, and not while the breaker is open or PayMongo holds us back.",
				bad:     "Who stopped it, and why, stands in the database; the runbooks say how to look: SingilFrozen, SingilBreakerOpen, SingilChargingPaused.",
				queries: []query{{"stopped", `max(singil_frozen{@}) + max(singil_psp_circuit_state{@,state!="closed"})`}},
			},
			{
				kind: figure, title: "Due now", unit: units.Short,
				shows:   "Invoices to be attempted and subscriptions to be looked at, whose time has come.",
				bad:     "A wave at the hour of billing goes down again. If it does not: runbook SingilDueNotCharged.",
				queries: []query{{"due", `max(singil_due_charges{@})`}},
			},
			{
				kind: figure, title: "Money in dunning", unit: units.PhilippinePeso,
				shows:   "Invoices that were not paid at the first attempt and are not given up.",
				bad:     "See below who moves next: the retries, or your customers.",
				queries: []query{{"in dunning", `sum(max by (stage, currency) (singil_dunning_backlog_centavos{@})) / 100`}},
			},
			{
				title: "Money by what the attempt came to", unit: units.PhilippinePeso, width: 16,
				shows:   "Per hour, as attaches were answered: paid with a success, wait is being processed by PayMongo, unknown had no answer that helps. Found paid later, these two stay here and count as Collected.",
				bad:     "Declined above paid: see the decline codes. Unknown above paid: PayMongo has a bad hour, and the watch pauses charging by itself.",
				queries: []query{{"{{outcome}}", `sum by (outcome) (rate(singil_charge_amount_centavos_total{@}[$__rate_interval])) * 36`}},
			},
			{
				title: "Day's budget", unit: units.PercentUnit, red: 0.8,
				shows:   "Share of what may be charged on one day (UTC) that is spent. At 100 % charging stops until the next day.",
				bad:     "On a day without a billing wave, something charges that should not: runbook SingilBudgetSpent.",
				queries: []query{{"{{limit}}", `max by (limit) (singil_charge_budget_used_ratio{@})`}},
			},
		}},
		{"Approval and declines", []panel{
			{
				title: "Attempts by outcome", unit: units.CountsPerSecond,
				shows:   "What attaches came to when they were answered, per second.",
				bad:     "fault: PayMongo refuses us, not a customer, and the breaker opens. unknown: answers are lost.",
				queries: []query{{"{{outcome}}", `sum by (outcome) (rate(singil_charge_attempts_total{@}[$__rate_interval]))`}},
			},
			{
				title: "Approval by trigger", unit: units.PercentUnit,
				shows:   "Paid, of what was paid or declined: first attempts (schedule), retries (dunning), by hand (manual), after a new card (card_update).",
				bad:     "First attempts fall: the cards or PayMongo. Only retries fall: the dunning days do not fit your customers' paydays.",
				queries: []query{{"{{trigger}}", `sum by (trigger) (rate(singil_charge_attempts_total{@,outcome="paid"}[$__rate_interval])) / sum by (trigger) (rate(singil_charge_attempts_total{@,outcome=~"paid|declined"}[$__rate_interval]))`}},
			},
			{
				title: "Declines by class", unit: units.CountsPerSecond,
				shows:   "hard: never this card again; soft: later; action: the customer must act; config: the account is set up wrongly; gateway: somebody in between was down.",
				bad:     "Any config: nothing is charged until it is mended with PayMongo. hard on the rise: ask customers for new cards.",
				queries: []query{{"{{class}}", `sum by (class) (rate(singil_charge_declines_total{@}[$__rate_interval]))`}},
			},
			{
				kind: bars, title: "Decline codes", unit: units.Short, width: 24,
				shows:   "The ten most frequent codes of the time range. other: PayMongo sends a code that our table does not know.",
				bad:     "singil invoices list --status open shows the codes by invoice. other calls for a report: runbook SingilDeclineUnlisted.",
				queries: []query{{"{{code}}", `topk(10, sum by (code) (increase(singil_charge_declines_total{@}[$__range])))`}},
			},
		}},
		{"Dunning and recovery", []panel{
			{
				title: "Invoices in dunning", unit: units.Short,
				shows:   "By who moves next: our retries, or the customer.",
				bad:     "waiting_for_customer grows: do your customers get the links? See events of type invoice.needs_action.",
				queries: []query{{"{{stage}}", `max by (stage) (singil_dunning_invoices{@})`}},
			},
			{
				title: "Money in dunning, by who moves next", unit: units.PhilippinePeso,
				shows:   "The same in money.",
				bad:     "Growing from month to month: the recovery below does not keep up with the declines.",
				queries: []query{{"{{stage}}", `max by (stage) (singil_dunning_backlog_centavos{@}) / 100`}},
			},
			{
				title: "Money recovered", unit: units.PhilippinePeso,
				shows:   "Per hour, of invoices paid after a decline, by which retry it was.",
				bad:     "If late retries bring nothing, fewer of them spare the cards and the networks' limits.",
				queries: []query{{"retry {{stage}}", `sum by (stage) (rate(singil_recovered_amount_centavos_total{@}[$__rate_interval])) * 36`}},
			},
			{
				kind: bars, title: "Recovered invoices", unit: units.Short, width: 12,
				shows:   "In the time range, by which retry paid them.",
				bad:     "Compare with the given up ones beside it. Dunning policies are data of the plan.",
				queries: []query{{"retry {{stage}}", `sum by (stage) (increase(singil_recovered_charges_total{@}[$__range]))`}},
			},
			{
				kind: bars, title: "Given up", unit: units.Short, width: 12,
				shows:   "Invoices that became uncollectible in the time range, by cause.",
				bad:     "no_card and hard_decline call for a new card; customer_did_not_act for a better message; retries_exhausted for other days.",
				queries: []query{{"{{reason}}", `sum by (reason) (increase(singil_invoices_uncollectible_total{@}[$__range]))`}},
			},
		}},
		{"Schedule health", []panel{
			{
				title: "Due and not charged", unit: units.Short,
				shows:   "What is due now.",
				bad:     "A saw-tooth is healthy. A plateau: charging is stopped, or the workers do not keep up: runbook SingilDueNotCharged.",
				queries: []query{{"due", `max(singil_due_charges{@})`}},
			},
			{
				title: "Age of the oldest that is due", unit: units.Seconds, red: 3600,
				shows:   "In business time.",
				bad:     "Above an hour somebody's period is late: runbook SingilDueNotCharged.",
				queries: []query{{"oldest", `max(singil_oldest_due_age_seconds{@})`}},
			},
			{
				title: "From due to the first attempt", unit: units.Seconds,
				shows: "Half of the first attempts, and 95 of 100, were no later than this.",
				bad:   "Minutes are the spreading of a wave. Hours are an outage that was caught up with, or too few workers.",
				queries: []query{
					{"half", `histogram_quantile(0.5, sum by (le) (rate(singil_schedule_lag_seconds_bucket{@}[$__rate_interval])))`},
					{"95 of 100", `histogram_quantile(0.95, sum by (le) (rate(singil_schedule_lag_seconds_bucket{@}[$__rate_interval])))`},
				},
			},
			{
				title: "Since the last sweep", unit: units.Seconds, red: 600,
				shows:   "Since any daemon last swept with success. The schedule's interval is the usual height.",
				bad:     "runbook SingilSweepStalled.",
				queries: []query{{"since", `time() - max(singil_scheduler_last_success_timestamp_seconds{@})`}},
			},
			{
				title: "Sweeps", unit: units.CountsPerSecond,
				shows:   "By result, per second, and how long 95 of 100 took is on the engine's dashboard.",
				bad:     "error: the log of singil run has the reason, mostly the database.",
				queries: []query{{"{{result}}", `sum by (result) (rate(singil_scheduler_runs_total{@}[$__rate_interval]))`}},
			},
			{
				title: "Opened, enqueued, put in front of a human", unit: units.CountsPerSecond,
				shows: "Invoices opened, jobs enqueued, and what was parked for review, per second.",
				bad:   "Any parked: singil invoices list --status review, runbook SingilParked.",
				queries: []query{
					{"invoices opened", `sum(rate(singil_invoices_opened_total{@}[$__rate_interval]))`},
					{"jobs enqueued", `sum(rate(singil_scheduler_enqueued_total{@}[$__rate_interval]))`},
					{"parked", `sum(rate(singil_parked_total{@}[$__rate_interval]))`},
				},
			},
			{
				kind: bars, title: "Operators' actions", unit: units.Short, width: 24,
				shows:   "What people did in the time range, from the audit log.",
				bad:     "A freeze nobody told you of: the table singil.audit_log has the name and the reason.",
				queries: []query{{"{{action}}", `max by (action) (increase(singil_operator_actions_total{@}[$__range]))`}},
			},
		}},
	},
}
