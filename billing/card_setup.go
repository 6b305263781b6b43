package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A card is saved by a sale of the merchant's own: the customer pays an amount in
// the browser, on a payment intent that is no invoice's, and PayMongo saves the
// card with it. Its money belongs to the setup.

// The states of a card setup.
const (
	CardSetupCreating  = "creating"  // the provider's id of its intent is not known
	CardSetupOpen      = "open"      // the customer may pay
	CardSetupPaid      = "paid"      // the provider does not show the card yet
	CardSetupSaved     = "saved"     // the card is here
	CardSetupCancelled = "cancelled" // the provider has cancelled its intent
	CardSetupReview    = "review"    // what the provider shows is not what was asked for
)

// How a saved card may be used, in the provider's words.
const (
	SessionOnSession  = "on_session"
	SessionOffSession = "off_session"
)

// setupLadder is how long to wait between the looks at a setup that nobody
// finishes: the browser never came back, and the webhook was lost.
var setupLadder = []time.Duration{15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour}

// CardSetup is a sale by which a customer saves a card.
type CardSetup struct {
	ID              uuid.UUID `json:"id"`
	Customer        string    `json:"customer"`
	AmountMinor     int64     `json:"amount_minor"`
	Currency        Currency  `json:"currency"`
	Description     string    `json:"description"`
	SessionType     string    `json:"session_type"`
	Status          string    `json:"status"`
	PaymentIntentID *string   `json:"payment_intent_id"`
	PaymentID       *string   `json:"payment_id"`
	PaymentMethod   *string   `json:"paymongo_payment_method_id"`
	Reason          *string   `json:"reason"`
	CreatedAt       Stamp     `json:"created_at"`
	UpdatedAt       Stamp     `json:"updated_at"`

	CustomerID       uuid.UUID `json:"-"`
	ProviderCustomer string    `json:"-"`
	Livemode         bool      `json:"-"`
	Looks            int       `json:"-"`
}

// Amount of the sale.
func (s CardSetup) Amount() Money { return Money{s.AmountMinor, s.Currency} }

// CreateKey is the Idempotency-Key of the setup's payment intent.
func (s CardSetup) CreateKey(environment Environment) string {
	return fmt.Sprintf("singil/%s/card_setup/%s", environment, s.ID)
}

// NewCardSetup asks for a card setup.
type NewCardSetup struct {
	ID          uuid.UUID // the same for the same request: asking again finds the first one
	Customer    string    // any of their names
	Amount      Money
	Description string
	SessionType string // empty: off_session
	Act
}

const sqlSetupColumns = `
SELECT cs.id, c.external_id, cs.amount_minor, cs.currency, cs.description, cs.session_type, cs.state, cs.provider_intent_id, cs.payment_id,
       pm.provider_payment_method_id, cs.reason, cs.created_at, cs.updated_at, c.id, COALESCE(c.provider_customer_id, ''), cs.livemode, cs.looks
FROM singil.card_setups cs
JOIN singil.customers c ON c.id = cs.customer_id
LEFT JOIN singil.payment_methods pm ON pm.id = cs.payment_method_id`

const sqlSetupShow = sqlSetupColumns + `
WHERE cs.id = $1`

const sqlSetupLock = sqlSetupColumns + `
WHERE cs.id = $1
FOR UPDATE OF cs`

const sqlSetupsOfCustomer = sqlSetupColumns + `
WHERE cs.customer_id = $1 AND ($2::uuid IS NULL OR cs.id < $2)
ORDER BY cs.id DESC
LIMIT $3`

const sqlSetupPayer = `
SELECT c.external_id, COALESCE(c.provider_customer_id, ''), c.deleted_at IS NOT NULL, i.livemode, i.frozen, COALESCE(i.frozen_reason, '')
FROM singil.customers c CROSS JOIN singil.instance i
WHERE c.id = $1
FOR SHARE OF c`

const sqlSetupStart = `
INSERT INTO singil.card_setups (id, customer_id, amount_minor, currency, livemode, description, session_type)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO NOTHING`

// StartCardSetup writes a setup down that the provider is about to be asked for;
// commit it before. Asked again under the same id it is the one that is there,
// wherever that has come to. A customer that the provider does not know, or who
// was deleted, is a *RefusedError; ErrNotFound, ErrFrozen.
func StartCardSetup(ctx context.Context, tx pgx.Tx, n NewCardSetup) (CardSetup, error) {
	customer, err := FindCustomer(ctx, tx, n.Customer)
	if err != nil {
		return CardSetup{}, err
	}
	if n.SessionType == "" {
		n.SessionType = SessionOffSession
	}
	switch {
	case n.SessionType != SessionOffSession && n.SessionType != SessionOnSession:
		return CardSetup{}, refused("a card is saved for off_session or on_session use, not %q", clip(n.SessionType))
	case n.Amount.Currency != CurrencyPHP || n.Amount.Minor > MaxAmountMinor:
		return CardSetup{}, refused("%s cannot be sold: it must be pesos, up to %s", n.Amount, Money{MaxAmountMinor, CurrencyPHP}.Display())
	case n.Amount.Minor < MinimumAmount:
		return CardSetup{}, refused("%s is below the provider's minimum of %s; sell at least that, and give it back afterwards if you like", n.Amount.Display(), Money{MinimumAmount, CurrencyPHP}.Display())
	}
	var name, provider, frozenReason string
	var deleted, livemode, frozen bool
	if err := tx.QueryRow(ctx, sqlSetupPayer, customer).Scan(&name, &provider, &deleted, &livemode, &frozen, &frozenReason); err != nil {
		return CardSetup{}, fmt.Errorf("lock customer %s: %w", customer, err)
	}
	switch {
	case deleted:
		return CardSetup{}, refused("customer %s was deleted", name)
	case provider == "":
		return CardSetup{}, refused("customer %s has no PayMongo customer; create or link one first", name)
	case frozen:
		return CardSetup{}, fmt.Errorf("%w: %s", ErrFrozen, frozenReason)
	}
	tag, err := tx.Exec(ctx, sqlSetupStart, n.ID, customer, n.Amount.Minor, string(n.Amount.Currency), livemode, n.Description, n.SessionType)
	if err != nil {
		return CardSetup{}, fmt.Errorf("start a card setup of %s: %w", name, err)
	}
	s, err := lockSetup(ctx, tx, n.ID)
	switch {
	case err != nil:
		return CardSetup{}, err
	case s.CustomerID != customer || s.Amount() != n.Amount || s.SessionType != n.SessionType || s.Description != n.Description:
		return CardSetup{}, refused("there is another card setup under this request")
	case tag.RowsAffected() == 0:
		return s, nil
	}
	return s, Audit(ctx, tx, AuditEntry{
		Actor: n.Actor, Action: "start_card_setup", Subject: n.ID.String(), Reason: n.Reason,
		After: fields{"customer": name, "amount_minor": n.Amount.Minor, "currency": n.Amount.Currency, "session_type": n.SessionType},
	})
}

func lockSetup(ctx context.Context, tx pgx.Tx, id uuid.UUID) (CardSetup, error) {
	return oneSetup(ctx, tx, sqlSetupLock, id)
}

// ShowCardSetup is one card setup; ErrNotFound.
func ShowCardSetup(ctx context.Context, q Querier, id uuid.UUID) (CardSetup, error) {
	return oneSetup(ctx, q, sqlSetupShow, id)
}

func oneSetup(ctx context.Context, q Querier, sql string, id uuid.UUID) (CardSetup, error) {
	found, err := browse[CardSetup](ctx, q, "card setups", sql, id)
	switch {
	case err != nil:
		return CardSetup{}, err
	case len(found) == 0:
		return CardSetup{}, fmt.Errorf("card setup %s: %w", id, ErrNotFound)
	}
	return found[0], nil
}

// BrowseCardSetups is a page of a customer's card setups, newest first.
func BrowseCardSetups(ctx context.Context, q Querier, customer string, after *uuid.UUID, limit int) ([]CardSetup, error) {
	id, err := FindCustomer(ctx, q, customer)
	if err != nil {
		return nil, err
	}
	return browse[CardSetup](ctx, q, "card setups", sqlSetupsOfCustomer, id, after, limit)
}

const sqlSetupOpen = `
UPDATE singil.card_setups
SET state = 'open', provider_intent_id = $2, next_look_at = $3, updated_at = clock_timestamp()
WHERE id = $1 AND state = 'creating'`

// OpenCardSetup stores the provider's id of a setup's payment intent, write-once,
// and returns the setup with the id that is stored: the page is told of no other
// one, and of none before tx is committed.
func OpenCardSetup(ctx context.Context, tx pgx.Tx, id uuid.UUID, providerIntentID string, now time.Time) (CardSetup, error) {
	if _, err := tx.Exec(ctx, sqlSetupOpen, id, providerIntentID, now.Add(setupLadder[0])); err != nil {
		return CardSetup{}, fmt.Errorf("store the intent of card setup %s: %w", id, err)
	}
	return ShowCardSetup(ctx, tx, id)
}

// SeenSetup is a card setup's payment intent as the provider shows it.
type SeenSetup struct {
	Intent   ProviderIntent
	Customer string // that it saves the card for; empty: not shown
	Last4    string // of the card that has paid; empty: not shown
}

// judge says what the intent means for the setup: one of the states, and why.
// open stands for whatever may still come.
func (s CardSetup) judge(seen SeenSetup) (state, reason string, paid ProviderPayment) {
	if s.PaymentIntentID == nil || seen.Intent.ID != *s.PaymentIntentID {
		return CardSetupReview, fmt.Sprintf("the provider answered with intent %q", seen.Intent.ID), paid
	}
	paid, found := seen.Intent.Paid()
	switch {
	case seen.Intent.Amount != s.Amount() || seen.Intent.Livemode != s.Livemode:
		return CardSetupReview, fmt.Sprintf("the provider's intent %s is over %s (livemode %t) instead of %s (livemode %t)",
			seen.Intent.ID, seen.Intent.Amount, seen.Intent.Livemode, s.Amount(), s.Livemode), paid
	case seen.Customer != "" && seen.Customer != s.ProviderCustomer:
		return CardSetupReview, fmt.Sprintf("the provider's intent %s saves the card for customer %s instead of %s", seen.Intent.ID, seen.Customer, s.ProviderCustomer), paid
	case found && (paid.Amount != s.Amount() || paid.Livemode != s.Livemode):
		return CardSetupReview, fmt.Sprintf("payment %s is over %s instead of %s", paid.ID, paid.Amount, s.Amount()), paid
	case found:
		return CardSetupPaid, "", paid
	case seen.Intent.Status == ProviderCancelled:
		return CardSetupCancelled, "", paid
	}
	return CardSetupOpen, "", paid
}

const sqlSetupSale = `
INSERT INTO singil.payments (payment_id, provider_intent_id, card_setup_id, status, amount_minor, currency, livemode, failed_code, source, provider_at)
VALUES ($1, NULLIF($2, ''), $3, $4, $5, $6, $7, NULLIF($8, ''), $9, $10)
ON CONFLICT (payment_id) DO UPDATE
SET status = CASE WHEN payments.status = 'paid' THEN 'paid' ELSE excluded.status END,
    card_setup_id = excluded.card_setup_id`

// RecordSale records money of a card setup: the merchant's own, and no invoice's.
// An observation, never refused. source is retrieve or list.
func RecordSale(ctx context.Context, tx pgx.Tx, setup uuid.UUID, p ProviderPayment, providerIntentID, source string) error {
	if _, err := tx.Exec(ctx, sqlSetupSale, p.ID, providerIntentID, setup, p.Status, p.Amount.Minor, string(p.Amount.Currency), p.Livemode,
		string(p.FailedCode), source, orNull(p.At)); err != nil {
		return fmt.Errorf("record payment %s of card setup %s: %w", p.ID, setup, err)
	}
	return nil
}

const sqlSetupWrite = `
UPDATE singil.card_setups
SET state = $2, payment_id = COALESCE(payment_id, NULLIF($3, '')), payment_method_id = $4, reason = NULLIF($5, ''),
    next_look_at = $6, looks = looks + 1, updated_at = clock_timestamp()
WHERE id = $1`

const sqlSetupCards = `
SELECT pm.provider_payment_method_id, pm.id, pm.status, pm.customer_id,
       EXISTS (SELECT FROM singil.card_setups cs WHERE cs.payment_method_id = pm.id AND cs.id <> $3)
FROM singil.payment_methods pm
WHERE pm.provider_payment_method_id = ANY ($1) OR pm.customer_id = $2
ORDER BY pm.id
FOR NO KEY UPDATE OF pm`

// FinishCardSetup stores what the provider shows of a setup: the money, and the
// card among saved, which are all the cards that the provider has of the
// customer; nil if they were not asked for. Whoever asks, and however often, it
// comes to the same. With the card, the invoices that wait for their customer
// become due.
func FinishCardSetup(ctx context.Context, tx pgx.Tx, id uuid.UUID, seen SeenSetup, saved []SavedMethod, act Act) (CardSetup, error) {
	s, err := lockSetup(ctx, tx, id)
	if err != nil {
		return s, err
	}
	state, reason, paid := s.judge(seen)
	for _, p := range seen.Intent.Payments {
		if err := RecordSale(ctx, tx, id, p, seen.Intent.ID, "retrieve"); err != nil {
			return s, err
		}
	}
	if s.Status == CardSetupSaved || s.Status == CardSetupCancelled || s.Status == CardSetupCreating {
		return s, nil
	}
	var card *uuid.UUID
	if state == CardSetupPaid {
		// Invoices come before cards, as everywhere.
		if _, err := tx.Exec(ctx, sqlLockWaiting, s.CustomerID); err != nil {
			return s, fmt.Errorf("lock the invoices of %s: %w", s.Customer, err)
		}
		if card, err = s.keepCard(ctx, tx, seen, saved); err != nil {
			return s, err
		}
		if card != nil {
			state = CardSetupSaved
		}
	}
	if s.Status == CardSetupPaid && state != CardSetupSaved {
		state, reason = CardSetupPaid, "" // money does not go back
	}
	var next *time.Time
	if state == CardSetupOpen || state == CardSetupPaid {
		if s.Looks+1 < len(setupLadder) {
			next = orNull(act.Now.Add(setupLadder[s.Looks+1]))
		}
	}
	if s.Status == CardSetupReview && state == CardSetupOpen {
		state, reason = CardSetupReview, *s.Reason
	}
	if _, err := tx.Exec(ctx, sqlSetupWrite, id, state, paid.ID, card, reason, next); err != nil {
		return s, fmt.Errorf("write card setup %s: %w", id, err)
	}
	was := s.Status
	if s, err = ShowCardSetup(ctx, tx, id); err != nil || s.Status == was {
		return s, err
	}
	after := fields{"status": s.Status, "customer": s.Customer}
	for name, value := range map[string]*string{"payment": s.PaymentID, "payment_method": s.PaymentMethod, "reason": s.Reason} {
		if value != nil {
			after[name] = *value
		}
	}
	if err := Audit(ctx, tx, AuditEntry{
		Actor: act.Actor, Action: "finish_card_setup", Subject: id.String(), Reason: act.Reason, Before: fields{"status": was}, After: after,
	}); err != nil || s.Status != CardSetupSaved {
		return s, err
	}
	if err := tryNewCard(ctx, tx, s.CustomerID, *card, act.Now); err != nil {
		return s, err
	}
	return s, WriteEvents(ctx, tx, []Event{{
		Type: "payment_method.saved", CustomerID: s.CustomerID, OccurredAt: act.Now,
		Data: fields{"customer": s.Customer, "payment_method_id": *s.PaymentMethod, "card_setup_id": id, "payment_id": *s.PaymentID},
	}})
}

// keepCard finds the card that the setup has saved and stores it behind the
// customer's others; nil: the provider does not show it yet.
func (s CardSetup) keepCard(ctx context.Context, tx pgx.Tx, seen SeenSetup, saved []SavedMethod) (*uuid.UUID, error) {
	var customer, provider string
	if err := tx.QueryRow(ctx, sqlMethodsLock, s.CustomerID).Scan(&customer, &provider); err != nil {
		return nil, fmt.Errorf("lock customer %s: %w", s.Customer, err)
	}
	ids := make([]string, len(saved))
	for i, m := range saved {
		ids[i] = m.ProviderID
	}
	type kept struct {
		id       uuid.UUID
		status   string
		customer uuid.UUID
		taken    bool // another setup has saved it
	}
	known := map[string]kept{}
	rows, err := tx.Query(ctx, sqlSetupCards, ids, s.CustomerID, s.ID)
	if err != nil {
		return nil, fmt.Errorf("read the cards of %s: %w", s.Customer, err)
	}
	var name string
	var k kept
	if _, err := pgx.ForEachRow(rows, []any{&name, &k.id, &k.status, &k.customer, &k.taken}, func() error { known[name] = k; return nil }); err != nil {
		return nil, fmt.Errorf("read the cards of %s: %w", s.Customer, err)
	}
	// The newest of those that may be it; one that is not here yet before one that a refresh has brought.
	var best *SavedMethod
	for i, m := range saved {
		k, here := known[m.ProviderID]
		if here && (k.taken || k.customer != s.CustomerID) || seen.Last4 != "" && lastFour(m.Last4) != "" && lastFour(m.Last4) != lastFour(seen.Last4) {
			continue
		}
		if best != nil {
			_, bestHere := known[best.ProviderID]
			if bestHere != here && here || bestHere == here && m.SavedAt.Before(best.SavedAt) {
				continue
			}
		}
		best = &saved[i]
	}
	if best == nil {
		return nil, nil
	}
	if k, here := known[best.ProviderID]; here {
		if k.status == "removed" {
			if _, err := tx.Exec(ctx, sqlMethodStatus, best.ProviderID, "active"); err != nil {
				return nil, fmt.Errorf("restore card %s: %w", best.ProviderID, err)
			}
		}
		return &k.id, nil
	}
	month, year := best.ExpMonth, best.ExpYear
	if month < 1 || month > 12 || year < 2000 || year > 9999 {
		month, year = 0, 0 // not known
	}
	id := newID()
	if _, err := tx.Exec(ctx, sqlMethodAdd, id, s.CustomerID, best.ProviderID, clip(best.Brand), lastFour(best.Last4), month, year, clip(best.SessionType)); err != nil {
		return nil, fmt.Errorf("add card %s: %w", best.ProviderID, err)
	}
	return &id, nil
}

const sqlLockWaiting = `
SELECT FROM singil.invoices WHERE customer_id = $1 AND status = 'open' AND waiting_for = 'customer' ORDER BY id FOR UPDATE`

// An invoice that waits for its customer because no card could be charged. One
// whose attempt the customer has to authorise is asked about, not tried again.
const sqlTryNewCard = `
UPDATE singil.invoices i
SET next_attempt_at = $3, attempt_trigger = 'card_update', payment_method_id = $2, waiting_for = 'schedule', claimed = false, updated_at = clock_timestamp()
WHERE i.customer_id = $1 AND i.status = 'open' AND i.waiting_for = 'customer'
  AND NOT EXISTS (SELECT FROM singil.attempts a WHERE a.invoice_id = i.id AND a.state IN ('armed', 'review', 'needs_action'))`

func tryNewCard(ctx context.Context, tx pgx.Tx, customer, card uuid.UUID, now time.Time) error {
	if _, err := tx.Exec(ctx, sqlTryNewCard, customer, card, now); err != nil {
		return fmt.Errorf("make what waits for a card due: %w", err)
	}
	return nil
}

const sqlSetupClaim = `
UPDATE singil.card_setups cs
SET next_look_at = $2
FROM (
  SELECT id FROM singil.card_setups
  WHERE next_look_at <= $1
  ORDER BY next_look_at
  LIMIT $3
  FOR UPDATE SKIP LOCKED
) due
WHERE cs.id = due.id
RETURNING cs.id`

// ClaimCardSetups takes setups whose next look has come and moves it one lease on:
// enqueue a job for each in the same transaction.
func ClaimCardSetups(ctx context.Context, tx pgx.Tx, now time.Time, limit int) ([]uuid.UUID, error) {
	rows, err := tx.Query(ctx, sqlSetupClaim, now, now.Add(Lease), limit)
	if err != nil {
		return nil, fmt.Errorf("claim card setups: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("claim card setups: %w", err)
	}
	return ids, nil
}

const sqlSetupOf = `
SELECT cs.id FROM singil.card_setups cs
WHERE cs.provider_intent_id = $1 OR cs.id = $2
ORDER BY cs.provider_intent_id = $1 DESC NULLS LAST
LIMIT 1`

// CardSetupOf is the setup of a payment intent, else the one that metadata names;
// uuid.Nil: there is none.
func CardSetupOf(ctx context.Context, q Querier, providerIntentID string, named uuid.UUID) (uuid.UUID, error) {
	rows, err := q.Query(ctx, sqlSetupOf, providerIntentID, named)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find the card setup of intent %s: %w", providerIntentID, err)
	}
	id, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[uuid.UUID])
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return uuid.Nil, fmt.Errorf("find the card setup of intent %s: %w", providerIntentID, err)
	}
	return id, nil
}

const sqlSetupWake = `
UPDATE singil.card_setups SET next_look_at = $2 WHERE id = $1 AND state IN ('open', 'paid', 'review')`

// WakeCardSetup has the next sweep look at a setup: a webhook told of its money.
func WakeCardSetup(ctx context.Context, tx pgx.Tx, id uuid.UUID, now time.Time) error {
	if _, err := tx.Exec(ctx, sqlSetupWake, id, now); err != nil {
		return fmt.Errorf("wake card setup %s: %w", id, err)
	}
	return nil
}

const sqlSetupAdopt = `
INSERT INTO singil.card_setups (id, customer_id, amount_minor, currency, livemode, session_type, state, provider_intent_id, next_look_at)
SELECT $1, $2, $3, $4, $5, $6, 'open', $7, $8
ON CONFLICT DO NOTHING`

// AdoptCardSetup writes a setup down that the books have lost: a recovery has
// found its money, whose metadata names it. The next look stores the card.
func AdoptCardSetup(ctx context.Context, tx pgx.Tx, id, customer uuid.UUID, seen ProviderIntent, actor string, now time.Time) error {
	tag, err := tx.Exec(ctx, sqlSetupAdopt, id, customer, seen.Amount.Minor, string(seen.Amount.Currency), seen.Livemode, SessionOffSession, seen.ID, now)
	if err != nil {
		return fmt.Errorf("adopt card setup %s: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return Audit(ctx, tx, AuditEntry{
		Actor: actor, Action: "adopt_card_setup", Subject: id.String(), Reason: "found at the provider by a recovery",
		After: fields{"payment_intent": seen.ID, "amount_minor": seen.Amount.Minor},
	})
}
