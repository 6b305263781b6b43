// Package billing is the domain: money, periods, subscriptions, invoices,
// attempts, dunning and declines, and the SQL that stores them.
//
// It owns every rule about money and every statement that reads or writes it.
// It knows no queue, no HTTP, no configuration and no provider: package worker
// brings those. Functions that write take the caller's transaction, so that the
// caller decides what is durable together.
//
// # Two promises
//
// A period of a subscription is never charged twice: an invoice has one payment
// intent until the provider itself shows it cancelled, every attach goes to that
// intent, and its id is committed before (protocol.go, arm.go). The constraints
// of migrations/0001_core.sql hold this against any code.
//
// A period that is due is never lost: the cursor of a subscription moves in the
// transaction that opens the invoice (sweep.go), and an open invoice always has
// a next wake-up (a CHECK). What gets no invoice is written down in
// skipped_periods, and what cannot be planned is parked with its reason.
//
// # States
//
//	subscription  trialing -> active -> past_due -> active | unpaid | cancelled; paused
//	invoice       open -> paid | void | uncollectible; open <-> review
//	intent        creating -> ready -> succeeded | dead; <-> review
//	attempt       armed -> succeeded | declined | needs_action | no_effect | review
//	              declined, no_effect -> succeeded, when the provider says so late
//
// # Files
//
//	period, calendar, catchup   which periods are due, computed from the anchor
//	decline, dunning, limits    what a decline means and when to try again
//	protocol                    what to do next, and what an answer means: pure
//	sweep, load, choose         due subscriptions to invoices, invoices to a card
//	arm, settle, writes         the two transactions of a charge, set-wise
//	inbox, outbox, events       what the provider tells us, what we tell merchants
//	import, export, lifecycle   what merchants bring, take away, and change
//	retry                       an operator's attempt, through the same guards
//	instance, audit             the installation, and who did what
//	invariants                  what is true of the books whatever happened
//	guard, recover              a database that is older than what happened
//
// # Times
//
// Business time is an argument: the virtual clock's where there is one, else the
// process's. Columns named written_at, created_at and updated_at are the
// database's, for audits.
package billing
