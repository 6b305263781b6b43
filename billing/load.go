package billing

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Querier runs statements: a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Collection is everything a worker has to know to collect one invoice, read
// in one snapshot.
type Collection struct {
	Standing

	InvoiceID      uuid.UUID
	SubscriptionID uuid.UUID
	CustomerID     uuid.UUID
	SubscriptionNo string // the merchant's name for the subscription
	PeriodNo       int
	Status         string
	Paused         bool // the subscription is: nothing of it is charged
	DueAt          time.Time
	NextAttemptAt  time.Time
	HeldUntil      time.Time // until then the customer may have the page open; zero: not held
	WaitingFor     WaitingFor
	FirstAttemptAt time.Time // zero: never attempted
	AttemptCount   int
	PollCount      int
	Trigger        Trigger
	ChosenMethod   uuid.UUID // by an operator, for the next attempt; zero: the first that will do
	TimeZone       string
	Dunning        []byte // the policy, as JSON

	IntentID   uuid.UUID
	Generation int
	CreateKey  string
	// CreateFailures counts the creates that the provider answered with a failure.
	CreateFailures int
	Fence          int64

	Cards    []Card        // the customer's, in order of preference
	Attempts []PastAttempt // on this invoice, oldest first

	parsed *parsedPolicy // Dunning, of which there are few; nil: not yet
}

type parsedPolicy struct {
	policy DunningPolicy
	err    error
}

// Copy is a collection that its owner may write to: what a run finds out of the
// intent and its payments is not seen in the other.
func (c *Collection) Copy() *Collection {
	own := *c
	own.Known = maps.Clone(c.Known)
	return &own
}

// Card is a saved payment method.
type Card struct {
	ID         uuid.UUID
	ProviderID string
	Brand      string
	Last4      string
	ExpMonth   int // 0: not known
	ExpYear    int
	Status     string // active, blocked, removed
	Blocked    DeclineCode
	Past       []CardAttempt // on any invoice, in the last 30 days
}

// PastAttempt is an attempt on record.
type PastAttempt struct {
	ID          uuid.UUID
	No          int
	CardID      uuid.UUID
	State       AttemptState
	ArmedAt     time.Time
	DeclineCode DeclineCode
}

// Trigger says why an attempt is made.
type Trigger string

// The triggers.
const (
	TriggerSchedule   Trigger = "schedule"
	TriggerDunning    Trigger = "dunning"
	TriggerManual     Trigger = "manual"
	TriggerCardUpdate Trigger = "card_update"
)

const sqlLoadInvoices = `
SELECT i.id, i.subscription_id, i.customer_id, s.external_id, i.period_no, i.status, i.due_at,
       COALESCE(i.next_attempt_at, i.due_at), i.waiting_for, i.first_attempt_at, i.attempt_count, i.poll_count,
       i.attempt_trigger, i.payment_method_id, s.time_zone, s.dunning::text,
       i.amount_minor, i.currency, i.livemode,
       pi.id, pi.generation, pi.create_key, pi.create_failures, pi.fence, pi.state, COALESCE(pi.provider_intent_id, ''), pi.adopted,
       s.status = 'paused', pi.shared_at IS NOT NULL, i.held_until, COALESCE(pi.checkout_session_id, '')
FROM singil.invoices i
JOIN singil.subscriptions s ON s.id = i.subscription_id
JOIN LATERAL (
  SELECT * FROM singil.payment_intents WHERE invoice_id = i.id ORDER BY generation DESC LIMIT 1
) pi ON true
WHERE i.id = ANY ($1)`

// LATERAL and OFFSET 0 leave one way to go, by the index, row by row: a join is
// also done by going through all cards there are.
const sqlLoadCards = `
SELECT c.customer_id, pm.*
FROM (SELECT DISTINCT i.customer_id FROM singil.invoices i WHERE i.id = ANY ($1)) c
CROSS JOIN LATERAL (
  SELECT pm.id, pm.provider_payment_method_id, pm.brand, pm.last4,
         COALESCE(pm.exp_month, 0), COALESCE(pm.exp_year, 0), pm.status, COALESCE(pm.blocked_code, '')
  FROM singil.payment_methods pm
  WHERE pm.customer_id = c.customer_id
  ORDER BY pm.position, pm.id
  OFFSET 0
) pm`

const sqlLoadAttempts = `
SELECT a.invoice_id, a.payment_intent_id, a.id, a.no, a.payment_method_id, a.state, a.armed_at, a.settled_after, COALESCE(a.decline_code, '')
FROM singil.attempts a
WHERE a.invoice_id = ANY ($1)
ORDER BY a.invoice_id, a.no`

// Attempts on the same cards, of whatever invoice: the networks count them.
const sqlLoadCardUse = `
SELECT a.payment_method_id, a.armed_at, a.state IN ('declined', 'armed', 'review')
FROM (SELECT DISTINCT i.customer_id FROM singil.invoices i WHERE i.id = ANY ($1)) c
CROSS JOIN LATERAL (SELECT pm.id FROM singil.payment_methods pm WHERE pm.customer_id = c.customer_id OFFSET 0) pm
CROSS JOIN LATERAL (SELECT a.* FROM singil.attempts a WHERE a.payment_method_id = pm.id AND a.armed_at > $2 OFFSET 0) a`

const sqlLoadPayments = `
SELECT p.invoice_id, p.payment_id
FROM singil.payments p
WHERE p.invoice_id = ANY ($1)`

// Load reads collections in one round trip, by invoice id. An id that is not
// there is left out. Call it in a transaction where the rows are locked, or
// outside of one for a look that a later Arm checks again.
func Load(ctx context.Context, q Querier, invoices []uuid.UUID, now time.Time) (map[uuid.UUID]*Collection, error) {
	batch := &pgx.Batch{}
	found := make(map[uuid.UUID]*Collection, len(invoices))
	customers := map[uuid.UUID][]*Collection{}
	used := map[uuid.UUID][]CardAttempt{}
	policies := map[string]*parsedPolicy{}

	batch.Queue(sqlLoadInvoices, invoices).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			c := &Collection{}
			var first, held *time.Time
			var chosen *uuid.UUID
			if err := rows.Scan(&c.InvoiceID, &c.SubscriptionID, &c.CustomerID, &c.SubscriptionNo, &c.PeriodNo, &c.Status, &c.DueAt,
				&c.NextAttemptAt, &c.WaitingFor, &first, &c.AttemptCount, &c.PollCount,
				&c.Trigger, &chosen, &c.TimeZone, &c.Dunning,
				&c.Amount.Minor, &c.Amount.Currency, &c.Livemode,
				&c.IntentID, &c.Generation, &c.CreateKey, &c.CreateFailures, &c.Fence, &c.IntentState, &c.ProviderIntentID, &c.Attempted, &c.Paused, &c.Shared, &held, &c.Checkout); err != nil {
				return err
			}
			c.FirstAttemptAt, c.HeldUntil, c.Attempted = orZero(first), orZero(held), c.Attempted || c.Shared
			if chosen != nil {
				c.ChosenMethod = *chosen
			}
			if c.parsed = policies[string(c.Dunning)]; c.parsed == nil {
				c.parsed = &parsedPolicy{}
				c.parsed.policy, c.parsed.err = ParseDunningPolicy(c.Dunning)
				policies[string(c.Dunning)] = c.parsed
			}
			c.InvoiceOpen = c.Status == InvoiceOpen
			found[c.InvoiceID] = c
			customers[c.CustomerID] = append(customers[c.CustomerID], c)
		}
		return rows.Err()
	})
	batch.Queue(sqlLoadCards, invoices).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var customer uuid.UUID
			var card Card
			if err := rows.Scan(&customer, &card.ID, &card.ProviderID, &card.Brand, &card.Last4,
				&card.ExpMonth, &card.ExpYear, &card.Status, &card.Blocked); err != nil {
				return err
			}
			for _, c := range customers[customer] {
				c.Cards = append(c.Cards, card)
			}
		}
		return rows.Err()
	})
	batch.Queue(sqlLoadAttempts, invoices).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var invoice, intent uuid.UUID
			var a PastAttempt
			var settledAfter time.Time
			if err := rows.Scan(&invoice, &intent, &a.ID, &a.No, &a.CardID, &a.State, &a.ArmedAt, &settledAfter, &a.DeclineCode); err != nil {
				return err
			}
			c := found[invoice]
			if c == nil {
				continue
			}
			c.Attempts = append(c.Attempts, a)
			if intent == c.IntentID {
				c.Attempted = true
				if a.State.open() {
					c.Open = &OpenAttempt{ID: a.ID, State: a.State, ArmedAt: a.ArmedAt, SettledAfter: settledAfter}
				} else {
					c.Earlier++
				}
			}
		}
		return rows.Err()
	})
	batch.Queue(sqlLoadCardUse, invoices, now.Add(-window30d)).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var card uuid.UUID
			var past CardAttempt
			if err := rows.Scan(&card, &past.At, &past.Declined); err != nil {
				return err
			}
			used[card] = append(used[card], past)
		}
		return rows.Err()
	})
	batch.Queue(sqlLoadPayments, invoices).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var invoice uuid.UUID
			var payment string
			if err := rows.Scan(&invoice, &payment); err != nil {
				return err
			}
			if c := found[invoice]; c != nil {
				if c.Known == nil {
					c.Known = map[string]bool{}
				}
				c.Known[payment] = true
			}
		}
		return rows.Err()
	})
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("load %d invoices: %w", len(invoices), err)
	}
	for _, c := range found {
		for i := range c.Cards {
			c.Cards[i].Past = used[c.Cards[i].ID]
		}
	}
	return found, nil
}
