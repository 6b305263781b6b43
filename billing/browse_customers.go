package billing

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ListedCustomer is a payer.
type ListedCustomer struct {
	ID                 uuid.UUID `json:"id"`
	ExternalID         string    `json:"external_id"`
	ProviderCustomerID *string   `json:"paymongo_customer_id"`
	Name               string    `json:"name"`
	Email              string    `json:"email"`
	Subscriptions      int       `json:"subscriptions"` // that are not cancelled
	PaymentMethods     int       `json:"payment_methods"`
	OpenInvoices       int       `json:"open_invoices"` // in review too
	OpenMinor          int64     `json:"open_minor"`
	CreatedAt          Stamp     `json:"created_at"`
	DeletedAt          Stamp     `json:"deleted_at"`
}

// ListedPaymentMethod is what may be shown of a saved card.
type ListedPaymentMethod struct {
	PaymentMethod string  `json:"paymongo_payment_method_id"`
	Customer      string  `json:"customer"`
	Brand         string  `json:"brand"`
	Last4         string  `json:"last4"`
	ExpMonth      *int    `json:"exp_month"`
	ExpYear       *int    `json:"exp_year"`
	Status        string  `json:"status"`
	BlockedCode   *string `json:"blocked_code"`
	Position      int     `json:"position"`
	CreatedAt     Stamp   `json:"created_at"`
}

const sqlCustomerColumns = `
SELECT c.id, c.external_id, c.provider_customer_id, c.name, c.email,
       (SELECT count(*) FROM singil.subscriptions s WHERE s.customer_id = c.id AND s.status <> 'cancelled'),
       (SELECT count(*) FROM singil.payment_methods pm WHERE pm.customer_id = c.id AND pm.status = 'active'),
       o.count, o.minor, c.created_at, c.deleted_at
FROM singil.customers c
CROSS JOIN LATERAL (
  SELECT count(*) AS count, COALESCE(sum(i.amount_minor), 0)::bigint AS minor
  FROM singil.invoices i WHERE i.customer_id = c.id AND i.status IN ('open', 'review')
) o`

const sqlBrowseCustomers = sqlCustomerColumns + `
WHERE ($1 = '' OR c.email = $1) AND ($2::uuid IS NULL OR c.id < $2)
ORDER BY c.id DESC
LIMIT $3`

// BrowseCustomers is a page of customers, newest first; email narrows it, and
// after is the last of the page before.
func BrowseCustomers(ctx context.Context, q Querier, email, after string, limit int) ([]ListedCustomer, error) {
	if email != "" && (len(email) > 500 || !browsable(clip(email))) {
		return []ListedCustomer{}, nil
	}
	behind, err := behindCustomer(ctx, q, after)
	if err != nil {
		return nil, err
	}
	return browse[ListedCustomer](ctx, q, "customers", sqlBrowseCustomers, email, behind, limit)
}

func behindCustomer(ctx context.Context, q Querier, after string) (*uuid.UUID, error) {
	if after == "" {
		return nil, nil
	}
	id, err := FindCustomer(ctx, q, after)
	return &id, err
}

// CustomerDetails is a customer with what belongs to them.
type CustomerDetails struct {
	ListedCustomer
	PaymentMethods []ListedPaymentMethod  `json:"payment_methods"`
	Subscriptions  []ExportedSubscription `json:"subscriptions"`
	Invoices       []ExportedInvoice      `json:"invoices"` // the newest
}

const sqlShowCustomer = sqlCustomerColumns + `
WHERE c.id = $1`

const sqlShowCustomerSubscriptions = sqlSubscriptionColumns + `
WHERE s.customer_id = $1
ORDER BY s.id DESC
LIMIT 100`

const sqlShowCustomerInvoices = sqlInvoiceColumns + `
WHERE i.customer_id = $1
ORDER BY i.id DESC
LIMIT $2`

const sqlMethodColumns = `
SELECT pm.provider_payment_method_id, c.external_id, pm.brand, pm.last4, pm.exp_month, pm.exp_year, pm.status, pm.blocked_code, pm.position, pm.created_at
FROM singil.payment_methods pm
JOIN singil.customers c ON c.id = pm.customer_id`

const sqlMethodsOfCustomer = sqlMethodColumns + `
WHERE pm.customer_id = $1
ORDER BY pm.position, pm.id`

const sqlMethodsOfSubscription = sqlMethodColumns + `
JOIN singil.subscriptions s ON s.customer_id = pm.customer_id
WHERE s.id = $1
ORDER BY pm.position, pm.id`

// ShowCustomer is one customer, by any of their names; ErrNotFound.
func ShowCustomer(ctx context.Context, q Querier, name string) (CustomerDetails, error) {
	id, err := FindCustomer(ctx, q, name)
	if err != nil {
		return CustomerDetails{}, err
	}
	d := CustomerDetails{PaymentMethods: []ListedPaymentMethod{}, Subscriptions: []ExportedSubscription{}, Invoices: []ExportedInvoice{}}
	batch := &pgx.Batch{}
	batch.Queue(sqlShowCustomer, id).Query(func(rows pgx.Rows) (err error) {
		d.ListedCustomer, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[ListedCustomer])
		return err
	})
	batch.Queue(sqlMethodsOfCustomer, id).Query(appendRows(&d.PaymentMethods))
	batch.Queue(sqlShowCustomerSubscriptions, id).Query(appendRows(&d.Subscriptions))
	batch.Queue(sqlShowCustomerInvoices, id, shownInvoices).Query(appendRows(&d.Invoices))
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return CustomerDetails{}, fmt.Errorf("show customer %q: %w", clip(name), err)
	}
	return d, nil
}

// PaymentMethodsOf are a customer's cards in the order in which they are charged;
// ErrNotFound.
func PaymentMethodsOf(ctx context.Context, q Querier, customer string) ([]ListedPaymentMethod, error) {
	id, err := FindCustomer(ctx, q, customer)
	if err != nil {
		return nil, err
	}
	return browse[ListedPaymentMethod](ctx, q, "payment methods", sqlMethodsOfCustomer, id)
}

const sqlBrowseMethods = sqlMethodColumns + `
WHERE ($1 = '' OR pm.status = $1) AND ($2 = '' OR pm.id < (SELECT a.id FROM singil.payment_methods a WHERE a.provider_payment_method_id = $2))
ORDER BY pm.id DESC
LIMIT $3`

// BrowsePaymentMethods is a page of saved cards, newest first.
func BrowsePaymentMethods(ctx context.Context, q Querier, status, after string, limit int) ([]ListedPaymentMethod, error) {
	if !browsable(after) {
		return []ListedPaymentMethod{}, nil
	}
	return browse[ListedPaymentMethod](ctx, q, "payment methods", sqlBrowseMethods, status, after, limit)
}
