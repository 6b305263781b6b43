package paymongo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// CustomersService keeps customers and their saved payment methods.
type CustomersService service

// Customer is a payer. Its email and phone are unique within the organisation.
type Customer struct {
	ID                     string    `json:"id"`
	FirstName              string    `json:"first_name"`
	LastName               string    `json:"last_name"`
	Email                  string    `json:"email"`
	Phone                  string    `json:"phone"`
	DefaultDevice          string    `json:"default_device"` // phone or email
	DefaultPaymentMethodID string    `json:"default_payment_method_id"`
	OrganizationID         string    `json:"organization_id"`
	Livemode               bool      `json:"livemode"`
	Metadata               Metadata  `json:"metadata"`
	CreatedAt              Timestamp `json:"created_at"`
	UpdatedAt              Timestamp `json:"updated_at"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object.
func (c *Customer) UnmarshalJSON(data []byte) error {
	type plain Customer
	return decodeResource(data, "customer", (*plain)(c), &c.ID)
}

func (c *Customer) resourceID() string { return c.ID }

// CustomerCreateParams describe a new customer. FirstName, LastName, Email and
// DefaultDevice are required by PayMongo; its pages disagree about Phone, so set it.
type CustomerCreateParams struct {
	FirstName     string   `json:"first_name"`
	LastName      string   `json:"last_name"`
	Email         string   `json:"email"`
	Phone         string   `json:"phone,omitempty"` // digits and plus, such as +639171234567
	DefaultDevice string   `json:"default_device"`  // phone or email
	Metadata      Metadata `json:"metadata,omitempty"`

	IdempotencyKey string `json:"-"`
}

// CustomerUpdateParams change what is not empty in them.
type CustomerUpdateParams struct {
	FirstName              string   `json:"first_name,omitempty"`
	LastName               string   `json:"last_name,omitempty"`
	Email                  string   `json:"email,omitempty"`
	Phone                  string   `json:"phone,omitempty"`
	DefaultDevice          string   `json:"default_device,omitempty"`
	DefaultPaymentMethodID string   `json:"default_payment_method_id,omitempty"`
	Metadata               Metadata `json:"metadata,omitempty"`

	IdempotencyKey string `json:"-"`
}

// CustomerSearchParams select customers by exact email, phone, or both, and a page of them.
type CustomerSearchParams struct {
	Email  string
	Phone  string
	Limit  int
	After  string
	Before string
}

// CustomerList is a page of customers.
type CustomerList = List[Customer]

// Create creates a customer. An email or phone that is taken is refused by PayMongo.
func (s *CustomersService) Create(ctx context.Context, params *CustomerCreateParams) (*Customer, error) {
	p := orZero(params)
	return send[Customer](ctx, s.client, call{
		op: "customers.create", method: http.MethodPost, path: []string{"customers"},
		attributes: p, key: p.IdempotencyKey,
	})
}

// Retrieve returns a customer.
func (s *CustomersService) Retrieve(ctx context.Context, id string) (*Customer, error) {
	return send[Customer](ctx, s.client, call{
		op: "customers.retrieve", method: http.MethodGet, path: []string{"customers", id}, wantID: id,
	})
}

// Search returns customers by email or phone.
func (s *CustomersService) Search(ctx context.Context, params *CustomerSearchParams) (*CustomerList, error) {
	p := orZero(params)
	query, fault := (&ListParams{Limit: p.Limit, After: p.After, Before: p.Before}).query()
	if p.Email != "" {
		query.Set("email", p.Email)
	}
	if p.Phone != "" {
		query.Set("phone", p.Phone)
	}
	return send[CustomerList](ctx, s.client, call{
		op: "customers.search", method: http.MethodGet, path: []string{"customers"}, query: query, fault: fault,
	})
}

// Update changes a customer, with PATCH as the documentation has it.
func (s *CustomersService) Update(ctx context.Context, id string, params *CustomerUpdateParams) (*Customer, error) {
	p := orZero(params)
	return send[Customer](ctx, s.client, call{
		op: "customers.update", method: http.MethodPatch, path: []string{"customers", id},
		attributes: p, key: p.IdempotencyKey, wantID: id,
	})
}

// Delete deletes a customer. It sends no idempotency key: net/http may repeat a DELETE that has one.
func (s *CustomersService) Delete(ctx context.Context, id string) (*Deleted, error) {
	return s.client.remove(ctx, "customers.delete", "customers", id)
}

// ListPaymentMethods returns the payment methods saved for a customer.
func (s *CustomersService) ListPaymentMethods(ctx context.Context, customerID string, params *CustomerPaymentMethodListParams) (*CustomerPaymentMethodList, error) {
	query, fault := params.query()
	return send[CustomerPaymentMethodList](ctx, s.client, call{
		op: "customers.list_payment_methods", method: http.MethodGet,
		path: []string{"customers", customerID, "payment_methods"}, query: query, fault: fault,
	})
}

// DeletePaymentMethod removes a saved payment method (pm_...) from a customer.
func (s *CustomersService) DeletePaymentMethod(ctx context.Context, customerID, paymentMethodID string) (*Deleted, error) {
	return s.client.remove(ctx, "customers.delete_payment_method", "customers", customerID, "payment_methods", paymentMethodID)
}

// CustomerPaymentMethod is a payment method saved for a customer. PayMongo
// publishes three shapes of it; this is what they have in common under the
// names of v1. PaymentMethodID is what an attach takes, ID is only the wrapper
// (cus_pm_... or cpm_...), and absent on v2.
type CustomerPaymentMethod struct {
	ID              string                `json:"id"`
	CustomerID      string                `json:"customer_id"` // v2 only
	PaymentMethodID string                `json:"payment_method_id"`
	SessionType     SessionType           `json:"session_type"`
	Type            string                `json:"payment_method_type"` // card, paymaya, ...; source_type on v2
	Details         *PaymentMethodDetails `json:"details"`
	Livemode        bool                  `json:"livemode"` // live_mode on v2
	CreatedAt       Timestamp             `json:"created_at"`
	UpdatedAt       Timestamp             `json:"updated_at"`
	DeletedAt       Timestamp             `json:"deleted_at"` // v2 only
}

// UnmarshalJSON reads any of the three shapes.
func (m *CustomerPaymentMethod) UnmarshalJSON(data []byte) error {
	type plain CustomerPaymentMethod
	type attributes struct {
		plain
		SourceType string `json:"source_type"`
		LiveMode   bool   `json:"live_mode"`
	}
	var doc struct {
		attributes             // flat
		Attributes *attributes `json:"attributes"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	a := doc.attributes
	if doc.Attributes != nil {
		a, a.ID = *doc.Attributes, doc.ID
	}
	if a.ID == "" && a.PaymentMethodID == "" {
		return fmt.Errorf("%w: no id where a customer_payment_method should be", errOtherResource)
	}
	if a.Type == "" {
		a.Type = a.SourceType
	}
	a.Livemode = a.Livemode || a.LiveMode
	*m = CustomerPaymentMethod(a.plain)
	return nil
}

// CustomerPaymentMethodListParams select a page.
type CustomerPaymentMethodListParams = ListParams

// CustomerPaymentMethodList is a page of saved payment methods.
type CustomerPaymentMethodList struct {
	Data          []*CustomerPaymentMethod `json:"data"`
	HasMore       bool                     `json:"has_more"`
	LastEvaluated string                   `json:"last_evaluated_payment_method_id"` // v2's cursor
}

// UnmarshalJSON reads v1's array and v2's object.
func (l *CustomerPaymentMethodList) UnmarshalJSON(data []byte) error {
	var doc struct {
		Data    json.RawMessage `json:"data"`
		HasMore bool            `json:"has_more"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	var page struct {
		Methods       []*CustomerPaymentMethod `json:"customer_payment_methods"`
		LastEvaluated string                   `json:"last_evaluated_payment_method_id"`
	}
	var err error
	if len(doc.Data) > 0 && doc.Data[0] == '[' {
		err = json.Unmarshal(doc.Data, &page.Methods)
	} else if doc.Data != nil {
		err = json.Unmarshal(doc.Data, &page)
	}
	if err != nil {
		return err
	}
	if page.Methods == nil {
		return fmt.Errorf("%w: no list of data", errOtherResource)
	}
	*l = CustomerPaymentMethodList{Data: page.Methods, HasMore: doc.HasMore, LastEvaluated: page.LastEvaluated}
	return noNull(l.Data)
}
