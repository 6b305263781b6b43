package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// NewCustomer is a payer who is known to the provider.
type NewCustomer struct {
	ID         uuid.UUID // the same for the same request: asking again finds the first one
	ExternalID string    // the merchant's name
	ProviderID string    // cus_...
	Name       string
	Email      string
	Metadata   map[string]string
	Act
}

// KnownCustomer is what is on record under the merchant's name for a customer.
type KnownCustomer struct {
	ID         uuid.UUID
	ExternalID string
	ProviderID string // empty: the provider does not know them yet
	Deleted    bool
}

const sqlCustomerKnown = `
SELECT c.id, c.external_id, COALESCE(c.provider_customer_id, ''), c.deleted_at IS NOT NULL
FROM singil.customers c
WHERE c.external_id = $1`

// CustomerNamed looks a customer up by the merchant's name alone.
func CustomerNamed(ctx context.Context, q Querier, externalID string) (known KnownCustomer, found bool, err error) {
	list, err := browse[KnownCustomer](ctx, q, "customers", sqlCustomerKnown, externalID)
	if err != nil || len(list) == 0 {
		return KnownCustomer{}, false, err
	}
	return list[0], true, nil
}

// MayAdd says why a customer of this name may not be added, created or linked
// with the provider's id, which may be empty: not known yet.
func (k KnownCustomer) MayAdd(id uuid.UUID, providerID string) error {
	switch {
	case k.Deleted:
		return refused("customer %s was deleted; take another name for a new one", clip(k.ExternalID))
	case k.ProviderID != "" && k.ID != id && k.ProviderID != providerID:
		return refused("customer %s exists already, as PayMongo's %s", clip(k.ExternalID), k.ProviderID)
	}
	return nil
}

const sqlCustomerOwner = `
SELECT c.external_id FROM singil.customers c WHERE c.provider_customer_id = $1 AND c.external_id <> $2`

const sqlCustomerLock = `
SELECT c.id, c.external_id, COALESCE(c.provider_customer_id, ''), c.deleted_at IS NOT NULL
FROM singil.customers c
WHERE c.external_id = $1
FOR NO KEY UPDATE`

const sqlCustomerAdd = `
INSERT INTO singil.customers (id, external_id, provider_customer_id, name, email, metadata)
VALUES ($1, $2, $3, $4, $5, $6::jsonb)
ON CONFLICT DO NOTHING`

const sqlCustomerLink = `
UPDATE singil.customers
SET provider_customer_id = $2, name = COALESCE(NULLIF($3, ''), name), email = COALESCE(NULLIF($4, ''), email), updated_at = clock_timestamp()
WHERE id = $1`

// AddCustomer stores a customer that the provider knows. One of that name that
// the provider did not know yet is linked; one that is linked so already is left
// as it is. Another customer under the name, or under the provider's id, is a
// *RefusedError.
func AddCustomer(ctx context.Context, tx pgx.Tx, n NewCustomer) (id uuid.UUID, err error) {
	if !storable(n.ExternalID) || !storable(n.ProviderID) {
		return uuid.Nil, refused("a customer needs a name of at most 200 bytes")
	}
	var owner string
	switch err := tx.QueryRow(ctx, sqlCustomerOwner, n.ProviderID, n.ExternalID).Scan(&owner); {
	case err == nil:
		return uuid.Nil, refused("PayMongo's customer %s is customer %s here already", n.ProviderID, owner)
	case !errors.Is(err, pgx.ErrNoRows):
		return uuid.Nil, fmt.Errorf("look for customer %s: %w", n.ProviderID, err)
	}
	metadata, err := json.Marshal(n.Metadata)
	if n.Metadata == nil {
		metadata = []byte("{}")
	}
	if err != nil {
		return uuid.Nil, fmt.Errorf("metadata of customer %s: %w", clip(n.ExternalID), err)
	}
	after := fields{"paymongo_customer_id": n.ProviderID}
	tag, err := tx.Exec(ctx, sqlCustomerAdd, n.ID, n.ExternalID, n.ProviderID, n.Name, n.Email, metadata)
	switch {
	case err != nil:
		return uuid.Nil, fmt.Errorf("add customer %s: %w", clip(n.ExternalID), err)
	case tag.RowsAffected() == 1:
		return n.ID, Audit(ctx, tx, AuditEntry{Actor: n.Actor, Action: "create_customer", Subject: n.ExternalID, Reason: n.Reason, After: after})
	}
	var known KnownCustomer
	switch err := tx.QueryRow(ctx, sqlCustomerLock, n.ExternalID).Scan(&known.ID, &known.ExternalID, &known.ProviderID, &known.Deleted); {
	case errors.Is(err, pgx.ErrNoRows): // another has just taken the provider's id, or ours
		return uuid.Nil, refused("PayMongo's customer %s is another customer's here already", n.ProviderID)
	case err != nil:
		return uuid.Nil, fmt.Errorf("lock customer %s: %w", clip(n.ExternalID), err)
	}
	if err := known.MayAdd(n.ID, n.ProviderID); err != nil || known.ProviderID != "" {
		return known.ID, err
	}
	if _, err := tx.Exec(ctx, sqlCustomerLink, known.ID, n.ProviderID, n.Name, n.Email); err != nil {
		return uuid.Nil, fmt.Errorf("link customer %s: %w", clip(n.ExternalID), err)
	}
	return known.ID, Audit(ctx, tx, AuditEntry{Actor: n.Actor, Action: "link_customer", Subject: n.ExternalID, Reason: n.Reason, After: after})
}

// A subscription that is made at this moment waits for the lock, and is refused.
const sqlDeleteCustomerLock = `
SELECT c.external_id, COALESCE(c.provider_customer_id, ''), c.deleted_at IS NOT NULL
FROM singil.customers c
WHERE c.id = $1
FOR UPDATE`

const sqlDeleteCustomerUses = `
SELECT (SELECT string_agg(s.external_id, ', ' ORDER BY s.id) FROM (
          SELECT s.id, s.external_id FROM singil.subscriptions s WHERE s.customer_id = $1 AND s.status <> 'cancelled' ORDER BY s.id LIMIT 5) s),
       (SELECT i.id FROM singil.invoices i WHERE i.customer_id = $1 AND i.status IN ('open', 'review') ORDER BY i.id LIMIT 1)`

const sqlDeleteCustomer = `
UPDATE singil.customers SET deleted_at = $2, updated_at = clock_timestamp() WHERE id = $1`

// A card that was declined for good stays so.
const sqlDeleteCustomerCards = `
UPDATE singil.payment_methods pm SET status = 'removed', updated_at = clock_timestamp()
FROM (SELECT c.id FROM singil.payment_methods c WHERE c.customer_id = $1 AND c.status = 'active' ORDER BY c.id FOR NO KEY UPDATE) locked
WHERE pm.id = locked.id`

// DeleteCustomer ends a customer, by any of their names: nothing is charged to
// them any more, and no subscription is made for them. It returns the provider's
// id, empty if there is none, for deleting them there too once tx is committed.
// One who is deleted already is no error. It is a *RefusedError while a
// subscription is not cancelled, or an invoice not settled.
func DeleteCustomer(ctx context.Context, tx pgx.Tx, name string, act Act) (providerCustomer string, err error) {
	id, err := FindCustomer(ctx, tx, name)
	if err != nil {
		return "", err
	}
	var external string
	var deleted bool
	if err := tx.QueryRow(ctx, sqlDeleteCustomerLock, id).Scan(&external, &providerCustomer, &deleted); err != nil {
		return "", fmt.Errorf("lock customer %s: %w", id, err)
	}
	if deleted {
		return providerCustomer, nil
	}
	var subscriptions *string
	var invoice *uuid.UUID
	if err := tx.QueryRow(ctx, sqlDeleteCustomerUses, id).Scan(&subscriptions, &invoice); err != nil {
		return "", fmt.Errorf("look what customer %s owes: %w", external, err)
	}
	switch {
	case subscriptions != nil:
		return "", refused("customer %s has subscriptions that are not cancelled (%s): cancel them first", external, *subscriptions)
	case invoice != nil:
		return "", refused("customer %s still owes invoice %s: have it paid, or void it or mark it uncollectible first", external, *invoice)
	}
	if _, err := tx.Exec(ctx, sqlDeleteCustomer, id, act.Now); err != nil {
		return "", fmt.Errorf("delete customer %s: %w", external, err)
	}
	if _, err := tx.Exec(ctx, sqlDeleteCustomerCards, id); err != nil {
		return "", fmt.Errorf("remove the cards of %s: %w", external, err)
	}
	return providerCustomer, Audit(ctx, tx, AuditEntry{
		Actor: act.Actor, Action: "delete_customer", Subject: external, Reason: act.Reason, Before: fields{"paymongo_customer_id": providerCustomer},
	})
}

const sqlMethodOwner = `
SELECT pm.customer_id FROM singil.payment_methods pm WHERE pm.provider_payment_method_id = $1`

// One that is not charged any more is nobody's last.
const sqlMethodUses = `
SELECT NOT EXISTS (SELECT FROM singil.payment_methods o
                   WHERE o.customer_id = $1 AND o.status = 'active' AND o.provider_payment_method_id = $2)
         OR EXISTS (SELECT FROM singil.payment_methods o
                    WHERE o.customer_id = $1 AND o.status = 'active' AND o.provider_payment_method_id <> $2),
       (SELECT string_agg(s.external_id, ', ' ORDER BY s.id) FROM (
          SELECT s.id, s.external_id FROM singil.subscriptions s WHERE s.customer_id = $1 AND s.status <> 'cancelled' ORDER BY s.id LIMIT 5) s),
       (SELECT i.id FROM singil.invoices i WHERE i.customer_id = $1 AND i.status = 'open' ORDER BY i.id LIMIT 1)`

// RemoveUnusedMethod is RemoveMethod, but refuses to take the last card that
// subscriptions, or an open invoice, could be charged with. It returns the
// customer too.
func RemoveUnusedMethod(ctx context.Context, tx pgx.Tx, method string, act Act) (customer uuid.UUID, providerCustomer string, err error) {
	if customer, err = ownerOf(ctx, tx, method); err != nil {
		return uuid.Nil, "", err
	}
	var name, provider string
	if err := tx.QueryRow(ctx, sqlMethodsLock, customer).Scan(&name, &provider); err != nil {
		return customer, "", fmt.Errorf("lock customer %s: %w", customer, err)
	}
	var spared bool
	var subscriptions *string
	var invoice *uuid.UUID
	if err := tx.QueryRow(ctx, sqlMethodUses, customer, method).Scan(&spared, &subscriptions, &invoice); err != nil {
		return customer, "", fmt.Errorf("look what card %s is for: %w", method, err)
	}
	switch {
	case spared:
	case subscriptions != nil:
		return customer, "", refusedAs(RefusalLastMethod, "card %s is the last one that %s can be charged with (%s): save another card first, or cancel what it pays for", method, name, *subscriptions)
	case invoice != nil:
		return customer, "", refusedAs(RefusalLastMethod, "card %s is the last one that %s can be charged with, and invoice %s is open: save another card first, or void the invoice", method, name, *invoice)
	}
	providerCustomer, err = RemoveMethod(ctx, tx, method, act)
	return customer, providerCustomer, err
}

func ownerOf(ctx context.Context, tx pgx.Tx, method string) (uuid.UUID, error) {
	missing := fmt.Errorf("payment method %q: %w", clip(method), ErrNotFound)
	if !storable(method) {
		return uuid.Nil, missing
	}
	var customer uuid.UUID
	switch err := tx.QueryRow(ctx, sqlMethodOwner, method).Scan(&customer); {
	case errors.Is(err, pgx.ErrNoRows):
		return uuid.Nil, missing
	case err != nil:
		return uuid.Nil, fmt.Errorf("find card %s: %w", method, err)
	}
	return customer, nil
}

const sqlMethodPlaces = `
UPDATE singil.payment_methods pm
SET position = r.place - 1, updated_at = clock_timestamp()
FROM unnest($1::text[]) WITH ORDINALITY AS r (method, place)
WHERE pm.provider_payment_method_id = r.method AND pm.position <> r.place - 1`

// PreferMethod makes a card the first one that its customer is charged with; the
// others keep their order behind it. A card that is removed or declined for good
// is a *RefusedError. It returns the customer.
func PreferMethod(ctx context.Context, tx pgx.Tx, method string, act Act) (customer uuid.UUID, err error) {
	if customer, err = ownerOf(ctx, tx, method); err != nil {
		return uuid.Nil, err
	}
	var name, provider string
	if err := tx.QueryRow(ctx, sqlMethodsLock, customer).Scan(&name, &provider); err != nil {
		return customer, fmt.Errorf("lock customer %s: %w", customer, err)
	}
	rows, err := tx.Query(ctx, sqlMethodsKnown, customer)
	if err != nil {
		return customer, fmt.Errorf("read the cards of %s: %w", name, err)
	}
	before, order, state := []string{}, []string{method}, ""
	var id, status string
	if _, err := pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		before = append(before, id)
		if id == method {
			state = status
		} else {
			order = append(order, id)
		}
		return nil
	}); err != nil {
		return customer, fmt.Errorf("read the cards of %s: %w", name, err)
	}
	switch {
	case state != "active":
		return customer, refused("card %s is %s: it is not charged at all", method, state)
	case before[0] == method:
		return customer, nil
	}
	if _, err := tx.Exec(ctx, sqlMethodPlaces, order); err != nil {
		return customer, fmt.Errorf("order the cards of %s: %w", name, err)
	}
	return customer, Audit(ctx, tx, AuditEntry{
		Actor: act.Actor, Action: "prefer_payment_method", Subject: method, Reason: act.Reason,
		Before: fields{"order": strings.Join(before, ", ")}, After: fields{"order": strings.Join(order, ", ")},
	})
}
