package main

import "github.com/grafana/grafana-foundation-sdk/go/units"

// engineBoard is for whoever keeps it running.
var engineBoard = board{
	uid: "singil-engine", title: "Singil: Engine",
	about: "PayMongo, open outcomes, queue and workers, webhooks and outbox, process and database, and the invariants of the books.",
	other: link{"singil-billing", "Singil: Billing"},
	rows: []row{
		{"PayMongo", []panel{
			{
				title: "Requests by status", unit: units.RequestsPerSecond,
				shows:   "Tries, per second. 4xx is mostly declines; none: no answer came.",
				bad:     "5xx or none for minutes: PayMongo's status page, runbook SingilProviderErrors. 429: another program uses the same key.",
				queries: []query{{"{{status_class}}", `sum by (status_class) (rate(singil_psp_requests_total{@}[$__rate_interval]))`}},
			},
			{
				title: "What went wrong", unit: units.RequestsPerSecond,
				shows:   "Tries that came to neither a success nor a decline, by what they came to.",
				bad:     "api_key_invalid: runbook SingilKeyRefused. timeout and connection_lost after an attach leave outcomes open, which are asked for.",
				queries: []query{{"{{code}}", `topk(8, sum by (code) (rate(singil_psp_requests_total{@,code!~"ok|declined"}[$__rate_interval])))`}},
			},
			{
				title: "Time of a request", unit: units.Seconds,
				shows:   "95 of 100 were no slower, by call. An attach may take 20 s, then its outcome is unknown.",
				bad:     "Attaches near 20 s: expect unknown outcomes. singil freeze if they pile up.",
				queries: []query{{"{{op}}", `histogram_quantile(0.95, sum by (le, op) (rate(singil_psp_request_duration_seconds_bucket{@}[$__rate_interval])))`}},
			},
			{
				title: "Repeated requests", unit: units.RequestsPerSecond,
				shows:   "By what the try before came to. Only what cannot move money is repeated.",
				bad:     "Many: see What went wrong. They count against the rate limit.",
				queries: []query{{"{{reason}}", `sum by (reason) (rate(singil_psp_retries_total{@}[$__rate_interval]))`}},
			},
			{
				title: "Wait for our own rate limit", unit: units.Seconds,
				shows:   "95 of 100 requests waited no longer. All daemons share PAYMONGO_RATE.",
				bad:     "Seconds: the wave is larger than the rate. It is caught up with; more daemons do not help.",
				queries: []query{{"wait", `histogram_quantile(0.95, sum by (le) (rate(singil_psp_ratelimit_wait_seconds_bucket{@}[$__rate_interval])))`}},
			},
			{
				title: "Interlock", unit: units.Short,
				shows: "1 for the state of all daemons: closed, blocked (a 429, or the watch's pause), open (until an operator closes it); and whether charging is frozen.",
				bad:   "open: runbook SingilBreakerOpen. blocked for long: runbook SingilChargingPaused. recovery needed: runbook SingilRecoveryNeeded.",
				queries: []query{
					{"{{state}}", `max by (state) (singil_psp_circuit_state{@})`},
					{"frozen", `max(singil_frozen{@})`},
					{"recovery needed", `max(singil_recovery_needed{@})`},
				},
			},
		}},
		{"Open outcomes", []panel{
			{
				title: "Outcomes not known", unit: units.Short, red: 1,
				shows:   "Attempts that may have moved money.",
				bad:     "runbook SingilUnknownOutcomeOld.",
				queries: []query{{"unknown", `max(singil_unknown_outcomes{@})`}},
			},
			{
				title: "Age of the oldest", unit: units.Seconds, red: 1800,
				shows:   "In business time. A lost request is known to have had no effect after some 20 minutes.",
				bad:     "Above half an hour PayMongo is still processing, or does not answer: runbook SingilUnknownOutcomeOld.",
				queries: []query{{"oldest", `max(singil_oldest_unknown_age_seconds{@})`}},
			},
			{
				title: "Looks at open outcomes", unit: units.CountsPerSecond,
				shows:   "What asking PayMongo found, and whether the schedule (poll) or a webhook made us ask.",
				bad:     "wait alone, for long: PayMongo does not decide. park: singil invoices list --status review.",
				queries: []query{{"{{result}} by {{source}}", `sum by (result, source) (rate(singil_reconcile_resolutions_total{@}[$__rate_interval]))`}},
			},
			{
				title: "From arming to the outcome", unit: units.Seconds,
				shows:   "95 of 100 attempts were settled no later, by outcome.",
				bad:     "Compare with Time of a request: what is longer is our own database.",
				queries: []query{{"{{outcome}}", `histogram_quantile(0.95, sum by (le, outcome) (rate(singil_charge_duration_seconds_bucket{@}[$__rate_interval])))`}},
			},
			{
				title: "Second charges that were prevented", unit: units.CountsPerSecond,
				shows:   "By the guard that held. state and idempotency are everyday life with several daemons.",
				bad:     "db is the last guard: runbook SingilDuplicatesPrevented.",
				queries: []query{{"{{guard}}", `sum by (guard) (rate(singil_duplicate_charge_prevented_total{@}[$__rate_interval]))`}},
			},
			{
				title: "Payments nobody asked for", unit: units.CountsPerSecond,
				shows:   "Payments PayMongo took that we did not ask for. none: made by another program of yours, such as a checkout page.",
				bad:     "ours: money with our name on it that our books do not know: runbook SingilUnknownPayment.",
				queries: []query{{"metadata: {{metadata}}", `sum by (metadata) (rate(singil_unknown_payments_total{@}[$__rate_interval]))`}},
			},
		}},
		{"Queue and workers", []panel{
			{
				title: "Jobs that are not finished", unit: units.Short,
				shows:   "Those that wait for a worker and those that are worked on, by queue.",
				bad:     "available grows and running does not: runbook SingilQueueOld. The queue may be emptied at any time; the next sweep makes it anew.",
				queries: []query{{"{{queue}} {{state}}", `max by (queue, state) (singil_job_queue_depth{@,state=~"available|running"})`}},
			},
			{
				title: "Age of the oldest job that waits", unit: units.Seconds, red: 600,
				shows:   "By queue.",
				bad:     "runbook SingilQueueOld.",
				queries: []query{{"{{queue}}", `max by (queue) (singil_job_queue_oldest_age_seconds{@})`}},
			},
			{
				title: "Workers at work", unit: units.PercentUnit,
				shows:   "Share of the workers of all daemons that are busy, by queue.",
				bad:     "charge at 100 % with PayMongo below its rate limit: start another daemon.",
				queries: []query{{"{{queue}}", `sum by (queue) (singil_workers_busy{@}) / sum by (queue) (singil_workers_max{@})`}},
			},
			{
				title: "Wait of a job", unit: units.Seconds,
				shows:   "95 of 100 waited no longer for a worker, by kind.",
				bad:     "See Workers at work, and the rate limit above.",
				queries: []query{{"{{kind}}", `histogram_quantile(0.95, sum by (le, kind) (rate(singil_job_wait_seconds_bucket{@}[$__rate_interval])))`}},
			},
			{
				title: "Time of a job", unit: units.Seconds,
				shows: "95 of 100 ran no longer, by kind; and of the sweeps.",
				bad:   "charge waits for PayMongo most of its time. sweep and reconcile slow: the database.",
				queries: []query{
					{"{{kind}}", `histogram_quantile(0.95, sum by (le, kind) (rate(singil_job_run_seconds_bucket{@}[$__rate_interval])))`},
					{"sweep, any caller", `histogram_quantile(0.95, sum by (le) (rate(singil_scheduler_run_duration_seconds_bucket{@}[$__rate_interval])))`},
				},
			},
			{
				title: "Jobs by result", unit: units.CountsPerSecond,
				shows:   "How runs ended. This is River's retrying of jobs, which has nothing to do with dunning.",
				bad:     "discarded: runbook SingilJobsDiscarded. retry for minutes: the log of singil run.",
				queries: []query{{"{{result}}", `sum by (result) (rate(singil_jobs_total{@}[$__rate_interval]))`}},
			},
		}},
		{"Webhooks and outbox", []panel{
			{
				title: "Webhooks by result", unit: units.CountsPerSecond,
				shows:   "Deliveries, counted when they were refused or processed.",
				bad:     "bad_signature: runbook SingilWebhooksRefused. None at all while charges succeed: runbook SingilWebhooksSilent.",
				queries: []query{{"{{result}}", `sum by (result) (rate(singil_webhook_events_total{@}[$__rate_interval]))`}},
			},
			{
				title: "From the event to its webhook", unit: units.Seconds,
				shows:   "95 of 100 arrived no later. PayMongo repeats for 2.3 hours.",
				bad:     "Hours: our endpoint was not reached. Outcomes are asked for all the same.",
				queries: []query{{"lag", `histogram_quantile(0.95, sum by (le) (rate(singil_webhook_lag_seconds_bucket{@}[$__rate_interval])))`}},
			},
			{
				title: "Since the last webhook", unit: units.Seconds,
				shows:   "Nothing is drawn until a daemon has received one.",
				bad:     "Growing while charges succeed: PayMongo may have disabled the endpoint: runbook SingilWebhooksSilent.",
				queries: []query{{"since", `time() - (max(singil_webhook_last_received_timestamp_seconds{@}) > 0)`}},
			},
			{
				title: "Deliveries to the merchant", unit: units.CountsPerSecond,
				shows:   "Events sent to your endpoints, by result.",
				bad:     "refused: your endpoint answers with an error. unreachable: it does not answer. singil events endpoints lists what waits.",
				queries: []query{{"{{result}}", `sum by (result) (rate(singil_outbox_deliveries_total{@}[$__rate_interval]))`}},
			},
			{
				title: "Age of the oldest event not delivered", unit: units.Seconds, red: 3600,
				shows:   "That an enabled endpoint has not acknowledged.",
				bad:     "runbook SingilOutboxLate.",
				queries: []query{{"oldest", `max(singil_outbox_oldest_undelivered_age_seconds{@})`}},
			},
			{
				title: "Streams given up", unit: units.Short, red: 1,
				shows:   "Subscriptions whose events an endpoint refused for a week.",
				bad:     "runbook SingilOutboxParked.",
				queries: []query{{"parked", `max(singil_outbox_parked_streams{@})`}},
			},
		}},
		{"HTTP API", []panel{
			{
				title: "API requests by status", unit: units.RequestsPerSecond,
				shows:   "Requests to /v1, per second. 4xx: what the caller has to mend.",
				bad:     "401: a token has expired or was revoked; singil tokens list. 429: a program asks too often. 500: the log has the id that the answer tells.",
				queries: []query{{"{{status}}", `sum by (status) (rate(singil_api_requests_total{@}[$__rate_interval]))`}},
			},
			{
				title: "Time of an API request", unit: units.Seconds,
				shows:   "95 of 100 were no slower, by route. Some ask PayMongo; none may take longer than 20 s.",
				bad:     "All of them slow: the database; see Database connections in use, pool api. One route: PayMongo, see Time of a request.",
				queries: []query{{"{{route}}", `topk(8, histogram_quantile(0.95, sum by (le, route) (rate(singil_api_request_seconds_bucket{@}[$__rate_interval]))))`}},
			},
			{
				title: "Card numbers refused", unit: units.Short, red: 1,
				shows:   "Requests in this range in which something looked like a card's number. Nothing of them is stored.",
				bad:     "A program sends cards to us: mend it. They go from the customer's browser to PayMongo.",
				queries: []query{{"refused", `sum(increase(singil_card_numbers_refused_total{@}[$__range]))`}},
			},
		}},
		{"Process and database", []panel{
			{
				kind: figure, title: "Daemons", unit: units.Short, red: 1, redBelow: true,
				shows:   "How many are scraped and answer.",
				bad:     "0: runbook SingilDown.",
				queries: []query{{"daemons", `count(singil_build_info{@})`}},
			},
			{
				kind: figure, title: "Leaders", unit: units.Short,
				shows:   "How many lead River's maintenance: one, whatever the number of daemons.",
				bad:     "For minutes 0 or 2: runbook SingilLeaderCount.",
				queries: []query{{"leaders", `sum(singil_leader{@})`}},
			},
			{
				kind: figure, title: "Clocks off", unit: units.Short, red: 1,
				shows:   "Machines whose clock is too far off the database's to charge by.",
				bad:     "runbook SingilClockOff.",
				queries: []query{{"off", `sum(singil_clock_off{@})`}},
			},
			{
				kind: figure, title: "Versions", unit: units.Short, red: 2, width: 6,
				shows:   "Different builds that run. Two during a deployment.",
				bad:     "For longer: a daemon was not deployed.",
				queries: []query{{"versions", `count(count by (version) (singil_build_info{@}))`}},
			},
			{
				kind: figure, title: "Environments and modes", unit: units.Short, red: 2, width: 6,
				shows:   "Different environments and key modes in this job.",
				bad:     "More than one: runbook SingilMixedModes.",
				queries: []query{{"modes", `count(count by (environment, mode) (singil_config_info{@}))`}},
			},
			{
				title: "Database connections", unit: units.PercentUnit, red: 0.9,
				shows:   "Share in use, by pool and daemon. The database allows so many to each daemon.",
				bad:     "runbook SingilPoolExhausted.",
				queries: []query{{"{{pool}} {{instance}}", `singil_db_pool_acquired_connections{@} / singil_db_pool_max_connections{@}`}},
			},
			{
				title: "Waiting for a connection", unit: units.Seconds,
				shows:   "Seconds waited per second, by pool, while none was free; connections that wait for use are beside it.",
				bad:     "Above 1 somebody always waits: runbook SingilPoolExhausted.",
				queries: []query{{"{{pool}}", `sum by (pool) (rate(singil_db_pool_acquire_wait_seconds_total{@}[$__rate_interval]))`}},
			},
			{
				title: "Idle connections", unit: units.Short,
				shows:   "By pool and daemon.",
				bad:     "0 for long under load: as above.",
				queries: []query{{"{{pool}} {{instance}}", `singil_db_pool_idle_connections{@}`}},
			},
			{
				title: "Looks at the database that failed", unit: units.CountsPerSecond,
				shows:   "While they fail, everything here that the database knows is missing.",
				bad:     "runbook SingilBlind.",
				queries: []query{{"failed", `sum(rate(singil_stats_errors_total{@}[$__rate_interval]))`}},
			},
			{
				title: "CPU", unit: units.Short,
				shows:   "Cores in use, by daemon.",
				bad:     "A daemon waits most of its time. A whole core without charges is a bug: take a goroutine dump (SIGQUIT) and report it.",
				queries: []query{{"{{instance}}", `rate(process_cpu_seconds_total{@}[$__rate_interval])`}},
			},
			{
				title: "Memory", unit: units.BytesIEC,
				shows:   "Resident, by daemon.",
				bad:     "Growing from day to day is a leak: report it with the graph of goroutines.",
				queries: []query{{"{{instance}}", `process_resident_memory_bytes{@}`}},
			},
			{
				title: "Goroutines", unit: units.Short, width: 24,
				shows:   "By daemon. Each charge under way has a few.",
				bad:     "Growing without charges is a leak.",
				queries: []query{{"{{instance}}", `go_goroutines{@}`}},
			},
		}},
		{"Invariants of the books", []panel{
			{
				title: "Rows that break an invariant", unit: units.Short, red: 1, width: 16,
				shows:   "By invariant: of what was written in the last 24 hours, and of all that is due or waits.",
				bad:     "singil check tells which rows and what to do; runbook SingilMoneyInvariantBroken, or SingilInvariantBroken.",
				queries: []query{{"{{invariant}}", `max by (invariant) (singil_invariant_violations{@})`}},
			},
			{
				title: "Checks that failed", unit: units.CountsPerSecond,
				shows:   "They took too long, or the database did not answer.",
				bad:     "An invariant that cannot be checked may be broken: runbook SingilInvariantsUnchecked.",
				queries: []query{{"failed", `sum(rate(singil_invariant_check_errors_total{@}[$__rate_interval]))`}},
			},
		}},
	},
}
