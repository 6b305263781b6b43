package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// SavedMethod is a card as the provider has saved it: never a number, never a CVC.
type SavedMethod struct {
	ProviderID  string
	Brand       string
	Last4       string
	ExpMonth    int // 0: not told
	ExpYear     int
	SessionType string
	SavedAt     time.Time // by the provider's clock; zero: not told
}

// RefreshedMethods is what a refresh changed, by the provider's ids.
type RefreshedMethods struct {
	Customer string   `json:"customer"`
	Added    []string `json:"added"`
	Restored []string `json:"restored"` // had been removed and are there
	Removed  []string `json:"removed"`
	Kept     []string `json:"kept"`
}

const sqlMethodsLock = `
SELECT c.external_id, COALESCE(c.provider_customer_id, '')
FROM singil.customers c
WHERE c.id = $1
FOR NO KEY UPDATE`

// Locked by their ids, as settlements that block several of them do, and not
// against the attempts that name them.
const sqlMethodsKnown = `
WITH locked AS (
  SELECT pm.id, pm.position, pm.provider_payment_method_id, pm.status
  FROM singil.payment_methods pm
  WHERE pm.customer_id = $1
  ORDER BY pm.id
  FOR NO KEY UPDATE
)
SELECT l.provider_payment_method_id, l.status FROM locked l ORDER BY l.position, l.id`

const sqlMethodAdd = `
INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, brand, last4, exp_month, exp_year, session_type, position)
SELECT $1, $2, $3, $4, $5, NULLIF($6, 0), NULLIF($7, 0), $8, COALESCE(max(pm.position) + 1, 0)
FROM singil.payment_methods pm WHERE pm.customer_id = $2
ON CONFLICT (provider_payment_method_id) DO NOTHING`

const sqlMethodStatus = `
UPDATE singil.payment_methods
SET status = $2, updated_at = clock_timestamp()
WHERE provider_payment_method_id = $1`

// ProviderCustomer is the provider's id of a customer, by any of their names;
// ErrNotFound, and a *RefusedError for one that the provider does not know.
func ProviderCustomer(ctx context.Context, q Querier, name string) (id uuid.UUID, provider string, err error) {
	if id, err = FindCustomer(ctx, q, name); err != nil {
		return id, "", err
	}
	c, err := ShowCustomer(ctx, q, id.String())
	switch {
	case err != nil:
		return id, "", err
	case c.ProviderCustomerID == nil:
		return id, "", refused("customer %s has no paymongo_customer_id; singil import adds it", c.ExternalID)
	}
	return id, *c.ProviderCustomerID, nil
}

// RefreshMethods makes the customer's cards those that the provider has saved:
// new ones are added behind the others, what is gone is not charged any more. A
// card that was declined for good stays so. saved must be all of them.
func RefreshMethods(ctx context.Context, tx pgx.Tx, customer uuid.UUID, saved []SavedMethod, act Act) (RefreshedMethods, error) {
	r := RefreshedMethods{Added: []string{}, Restored: []string{}, Removed: []string{}, Kept: []string{}}
	var provider string
	switch err := tx.QueryRow(ctx, sqlMethodsLock, customer).Scan(&r.Customer, &provider); {
	case errors.Is(err, pgx.ErrNoRows):
		return r, fmt.Errorf("customer %s: %w", customer, ErrNotFound)
	case err != nil:
		return r, fmt.Errorf("lock customer %s: %w", customer, err)
	}
	rows, err := tx.Query(ctx, sqlMethodsKnown, customer)
	if err != nil {
		return r, fmt.Errorf("read the cards of %s: %w", r.Customer, err)
	}
	known := map[string]string{}
	var id, status string
	if _, err := pgx.ForEachRow(rows, []any{&id, &status}, func() error { known[id] = status; return nil }); err != nil {
		return r, fmt.Errorf("read the cards of %s: %w", r.Customer, err)
	}
	set := func(id, status string) error {
		if _, err := tx.Exec(ctx, sqlMethodStatus, id, status); err != nil {
			return fmt.Errorf("make card %s %s: %w", id, status, err)
		}
		return nil
	}
	for _, s := range saved {
		switch was, here := known[s.ProviderID]; {
		case !here:
			month, year := s.ExpMonth, s.ExpYear
			if month < 1 || month > 12 || year < 2000 || year > 9999 {
				month, year = 0, 0 // not known
			}
			tag, err := tx.Exec(ctx, sqlMethodAdd, newID(), customer, s.ProviderID, clip(s.Brand), lastFour(s.Last4), month, year, clip(s.SessionType))
			if err != nil {
				return r, fmt.Errorf("add card %s: %w", s.ProviderID, err)
			}
			if tag.RowsAffected() == 0 {
				return r, refused("card %s is another customer's here", s.ProviderID)
			}
			r.Added = append(r.Added, s.ProviderID)
		case was == "removed":
			if err := set(s.ProviderID, "active"); err != nil {
				return r, err
			}
			r.Restored = append(r.Restored, s.ProviderID)
		default:
			r.Kept = append(r.Kept, s.ProviderID)
		}
		delete(known, s.ProviderID)
	}
	for id, was := range known {
		if was != "active" {
			continue // removed already, or declined for good, which must not be forgotten
		}
		if err := set(id, "removed"); err != nil {
			return r, err
		}
		r.Removed = append(r.Removed, id)
	}
	slices.Sort(r.Removed)
	if len(r.Added)+len(r.Restored)+len(r.Removed) == 0 {
		return r, nil
	}
	return r, Audit(ctx, tx, AuditEntry{Actor: act.Actor, Action: "refresh_payment_methods", Subject: r.Customer, Reason: act.Reason, After: r})
}

// lastFour is what may be kept of a number.
func lastFour(s string) string {
	if len(s) > 4 {
		s = s[len(s)-4:]
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return ""
		}
	}
	return s
}

const sqlMethodLock = `
SELECT c.external_id, COALESCE(c.provider_customer_id, ''), pm.status
FROM singil.payment_methods pm
JOIN singil.customers c ON c.id = pm.customer_id
WHERE pm.provider_payment_method_id = $1
FOR NO KEY UPDATE OF pm`

// RemoveMethod takes a card out of use, by the provider's id of it. It is charged
// no more when tx commits; what is being charged at this moment has its outcome
// recorded. It returns the provider's customer, for removing it there too. One
// that is removed already is no error: the provider may still have it.
func RemoveMethod(ctx context.Context, tx pgx.Tx, method string, act Act) (providerCustomer string, err error) {
	missing := fmt.Errorf("payment method %q: %w", clip(method), ErrNotFound)
	if !storable(method) {
		return "", missing
	}
	var customer, status string
	switch err := tx.QueryRow(ctx, sqlMethodLock, method).Scan(&customer, &providerCustomer, &status); {
	case errors.Is(err, pgx.ErrNoRows):
		return "", missing
	case err != nil:
		return "", fmt.Errorf("lock card %s: %w", method, err)
	case status == "removed":
		return providerCustomer, nil
	case status == "blocked":
		return "", refused("card %s was declined for good and is not charged any more; that is kept, so that it is not forgotten", method)
	}
	if _, err := tx.Exec(ctx, sqlMethodStatus, method, "removed"); err != nil {
		return "", fmt.Errorf("remove card %s: %w", method, err)
	}
	return providerCustomer, Audit(ctx, tx, AuditEntry{
		Actor: act.Actor, Action: "remove_payment_method", Subject: method, Reason: act.Reason,
		Before: fields{"status": status, "customer": customer}, After: fields{"status": "removed"},
	})
}
