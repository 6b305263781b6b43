package billing

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The merchant's name goes before our id: a name may look like an id.
const (
	sqlFindSubscription = `
SELECT s.id FROM singil.subscriptions s WHERE s.external_id = $1 OR s.id = $2 ORDER BY s.external_id = $1 DESC LIMIT 1`
	sqlFindCustomer = `
SELECT c.id FROM singil.customers c WHERE c.external_id = $1 OR c.id = $2 OR c.provider_customer_id = $1 ORDER BY c.external_id = $1 DESC LIMIT 1`
	sqlFindPlan = `
SELECT p.id FROM singil.plans p WHERE p.external_id = $1 OR p.id = $2 ORDER BY p.external_id = $1 DESC LIMIT 1`
)

// FindSubscription is the id of a subscription by the merchant's name for it, or
// by ours; ErrNotFound.
func FindSubscription(ctx context.Context, q Querier, name string) (uuid.UUID, error) {
	return find(ctx, q, sqlFindSubscription, "subscription", name)
}

// FindCustomer is the id of a customer by the merchant's name, by ours or by the
// provider's; ErrNotFound.
func FindCustomer(ctx context.Context, q Querier, name string) (uuid.UUID, error) {
	return find(ctx, q, sqlFindCustomer, "customer", name)
}

// FindPlan is the id of a plan by the merchant's name for it, or by ours;
// ErrNotFound.
func FindPlan(ctx context.Context, q Querier, name string) (uuid.UUID, error) {
	return find(ctx, q, sqlFindPlan, "plan", name)
}

func find(ctx context.Context, q Querier, sql, kind, name string) (uuid.UUID, error) {
	missing := fmt.Errorf("%s %q: %w", kind, clip(name), ErrNotFound)
	if !storable(name) {
		return uuid.Nil, missing
	}
	id, _ := uuid.Parse(name) // zero: no row has it
	rows, err := q.Query(ctx, sql, name, id)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find %s %q: %w", kind, clip(name), err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	switch {
	case err != nil:
		return uuid.Nil, fmt.Errorf("find %s %q: %w", kind, clip(name), err)
	case len(found) == 0:
		return uuid.Nil, missing
	}
	return found[0], nil
}

// storable tells whether a name can be in the database at all: asking for
// another would be an error of the database's.
func storable(name string) bool {
	return name != "" && utf8.RuneCountInString(name) <= 200 && utf8.ValidString(name) && !strings.ContainsRune(name, 0)
}
