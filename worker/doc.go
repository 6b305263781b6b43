// Package worker turns due invoices into paid ones: it sweeps, charges and
// reconciles.
//
// It owns the River jobs, the boundaries of transactions, the batching, and
// the gateway to the provider. What the answers mean is decided in package
// billing, by pure functions; when to look is decided in package scheduler.
//
// # The path of a charge
//
//	sweep.go      due subscriptions become invoices, due invoices become jobs
//	charge.go     load, create, look, arm, send, settle: one invoice
//	reconcile.go  look and settle only; it can never charge
//	webhook.go    the provider's webhooks: checked, stored, and only a wake-up
//	outbox.go     what happened, delivered to the merchant's systems
//	gateway.go    the provider's words, and nothing else here speaks them
//	batcher.go    many goroutines' rows in one transaction
//	witness.go    what this host has seen committed, outside of the database
//	recover.go    asks the provider what a restored database has forgotten
//
// # Why nothing is charged twice
//
// Money moves by an attach alone. An attach goes only to an intent whose id
// was committed before (charge.go, arm), and an invoice has one intent until
// the provider itself reports it cancelled. However many workers, zombies and
// replays there are, they all meet at that one intent, and the provider lets at
// most one of them win. A River job carries an invoice's id and nothing else:
// losing all of them costs a delay, running one twice costs a look.
//
// A database that loses rows breaks all of that: a backup put back, a failover
// that lost the last commits. Every arm transaction therefore begins by comparing
// the database with its binding and with what this host remembers.
package worker
