package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// DefaultTimeZone is where the periods of a subscription are counted whose zone
// nobody has named.
const DefaultTimeZone = "Asia/Manila"

// NewSubscription is a subscription to be made. Customer and Plan may be any of
// their names. Instants are RFC 3339 with an offset. What is empty takes its
// default: the anchor is now, and billing begins with the period that starts
// there; else it begins with the first period that starts from now on.
type NewSubscription struct {
	ExternalID string          `json:"external_id"`
	Customer   string          `json:"customer"`
	Plan       string          `json:"plan"`
	Anchor     string          `json:"anchor"`
	TimeZone   string          `json:"time_zone"`
	BillFrom   string          `json:"bill_from,omitempty"`
	TrialEnd   string          `json:"trial_end,omitempty"`
	Quantity   int64           `json:"quantity,omitempty"`
	CatchUp    string          `json:"catch_up,omitempty"`
	Dunning    json.RawMessage `json:"dunning,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
}

// CreateSubscription makes a subscription, with its audit entry and its event.
// Nothing is charged by it: the next sweep opens the periods that have begun.
// Mistakes, a customer and a plan that are not there among them, are FieldErrors;
// a name that is taken is ErrExists. After an error tx must be rolled back.
func CreateSubscription(ctx context.Context, tx pgx.Tx, s NewSubscription, act Act) (SubscriptionDetails, error) {
	if err := createTurn(ctx, tx); err != nil {
		return SubscriptionDetails{}, err
	}
	if s.TimeZone == "" {
		s.TimeZone = DefaultTimeZone
	}
	if s.Anchor == "" {
		s.Anchor = act.Now.UTC().Truncate(time.Second).Format(time.RFC3339)
		if s.BillFrom == "" {
			s.BillFrom = s.Anchor
		}
	}
	customer, err := s.resolve(ctx, tx)
	if err != nil {
		return SubscriptionDetails{}, err
	}
	document := struct {
		Type string `json:"type"`
		NewSubscription
	}{importSubscription, s}
	r, err := created(ctx, tx, importSubscription, document, act.Now, importNewSubscriptions)
	if err != nil {
		return SubscriptionDetails{}, err
	}
	d, err := ShowSubscription(ctx, tx, r.id)
	if err != nil {
		return SubscriptionDetails{}, err
	}
	if d.AmountMinor < MinimumAmount {
		return SubscriptionDetails{}, FieldErrors{{"plan", fmt.Sprintf("%s a period is below the provider's minimum of %s; take a plan or a quantity that comes to more",
			Money{d.AmountMinor, d.Currency}.Display(), Money{MinimumAmount, d.Currency}.Display())}}
	}
	made := fields{
		"customer": d.Customer, "plan": d.Plan, "status": d.Status, "quantity": d.Quantity, "amount_minor": d.AmountMinor, "currency": d.Currency,
		"anchor": d.Anchor, "time_zone": d.TimeZone, "bill_from": d.BillFrom, "next_period_no": d.NextPeriodNo, "next_due_at": d.NextDueAt,
	}
	if err := Audit(ctx, tx, AuditEntry{Actor: act.Actor, Action: "create_subscription", Subject: r.id, Reason: act.Reason, After: made}); err != nil {
		return SubscriptionDetails{}, err
	}
	return d, WriteEvents(ctx, tx, []Event{{
		Type: "subscription.created", SubscriptionID: d.ID, CustomerID: customer, OccurredAt: act.Now,
		Data: fields{
			"subscription": d.ExternalID, "status": d.Status, "plan": d.Plan, "amount_minor": d.AmountMinor, "currency": d.Currency, "next_due_at": d.NextDueAt,
		},
	}})
}

// A customer who is deleted at this moment comes first, or waits for us and sees
// the subscription.
const sqlCreateLockCustomer = `SELECT c.external_id, c.deleted_at IS NOT NULL FROM singil.customers c WHERE c.id = $1 FOR SHARE`

const sqlCreatePlanName = `SELECT p.external_id, false FROM singil.plans p WHERE p.id = $1`

// resolve puts the merchant's names in the place of other names of the customer
// and the plan. What is not there is a mistake in its field.
func (s *NewSubscription) resolve(ctx context.Context, tx pgx.Tx) (customer uuid.UUID, err error) {
	var mistakes FieldErrors
	for _, reference := range []struct {
		field string
		name  *string
		find  func(context.Context, Querier, string) (uuid.UUID, error)
		sql   string
	}{
		{"customer", &s.Customer, FindCustomer, sqlCreateLockCustomer},
		{"plan", &s.Plan, FindPlan, sqlCreatePlanName},
	} {
		if *reference.name == "" {
			continue // it is told with the other mistakes
		}
		id, err := reference.find(ctx, tx, *reference.name)
		switch {
		case errors.Is(err, ErrNotFound):
			mistakes = append(mistakes, FieldError{reference.field, fmt.Sprintf("there is no %s of that name; create it first", reference.field)})
			continue
		case err != nil:
			return uuid.Nil, err
		}
		var deleted bool
		if err := tx.QueryRow(ctx, reference.sql, id).Scan(reference.name, &deleted); err != nil {
			return uuid.Nil, fmt.Errorf("read %s %s: %w", reference.field, id, err)
		}
		if deleted {
			mistakes = append(mistakes, FieldError{reference.field, "was deleted; create another"})
		}
		if reference.field == "customer" {
			customer = id
		}
	}
	if len(mistakes) > 0 {
		return uuid.Nil, mistakes
	}
	return customer, nil
}
