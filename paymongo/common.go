package paymongo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// SessionType says whether the payer is present when a saved card is charged.
type SessionType string

// The session types. No published request shows off_session; see PayMongo about enabling it.
const (
	SessionTypeOnSession  SessionType = "on_session"
	SessionTypeOffSession SessionType = "off_session"
)

// Billing is who pays, as far as PayMongo was told.
type Billing struct {
	Name    string   `json:"name"`
	Email   string   `json:"email"`
	Phone   string   `json:"phone"`
	Address *Address `json:"address"`
}

// Address is a postal address; Country is ISO 3166-1 alpha-2.
type Address struct {
	Line1      string `json:"line1"`
	Line2      string `json:"line2"`
	City       string `json:"city"`
	State      string `json:"state"`
	PostalCode string `json:"postal_code"`
	Country    string `json:"country"`
}

// UnmarshalJSON reads an object, ignoring parts of another shape.
func (b *Billing) UnmarshalJSON(data []byte) error {
	type plain Billing
	return ignoreTypeErrors(json.Unmarshal(data, (*plain)(b)))
}

// wire is the billing of a request: only what is set.
func (b *Billing) wire() any {
	if b == nil {
		return nil
	}
	type address struct {
		Line1      string `json:"line1,omitempty"`
		Line2      string `json:"line2,omitempty"`
		City       string `json:"city,omitempty"`
		State      string `json:"state,omitempty"`
		PostalCode string `json:"postal_code,omitempty"`
		Country    string `json:"country,omitempty"`
	}
	return struct {
		Name    string   `json:"name,omitempty"`
		Email   string   `json:"email,omitempty"`
		Phone   string   `json:"phone,omitempty"`
		Address *address `json:"address,omitempty"`
	}{b.Name, b.Email, b.Phone, (*address)(b.Address)}
}

// ListParams selects a page. Limit is 1 to 100, 10 if zero; After and Before are ids.
type ListParams struct {
	Limit  int
	After  string
	Before string
}

// query returns the query of a list, and what is wrong with the parameters.
func (p *ListParams) query() (query url.Values, fault string) {
	query = url.Values{}
	if p == nil {
		return query, ""
	}
	if p.Limit < 0 || p.Limit > 100 {
		return query, "limit must be 1 to 100, or 0 for PayMongo's default of 10"
	}
	if p.Limit > 0 {
		query.Set("limit", strconv.Itoa(p.Limit))
	}
	for name, id := range map[string]string{"after": p.After, "before": p.Before} {
		if id == "" {
			continue
		}
		if !isID(id) {
			return query, name + " is not an id"
		}
		query.Set(name, id)
	}
	return query, ""
}

// Deleted is the answer to a delete.
type Deleted struct {
	ID      string `json:"id"`
	Deleted bool   `json:"deleted"`
}

// remove sends a DELETE for the last segment of path.
func (c *Client) remove(ctx context.Context, op string, path ...string) (*Deleted, error) {
	d := &Deleted{ID: path[len(path)-1], Deleted: true}
	if err := c.perform(ctx, call{op: op, method: http.MethodDelete, path: path}, d.decode); err != nil {
		return nil, err
	}
	return d, nil
}

// decode reads the answers PayMongo is known to give: a deleted_entity,
// {"data":null}, and on v2 the record itself with its deleted_at. All of them
// say that it is gone.
func (d *Deleted) decode(answer []byte) error {
	var doc struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(answer, &doc); err != nil {
		return err
	}
	if doc.Data == nil {
		return fmt.Errorf("%w: no data", errOtherResource)
	}
	var record struct {
		ID              string `json:"id"`
		Type            string `json:"type"`
		PaymentMethodID string `json:"payment_method_id"`
		Attributes      struct {
			Deleted *bool `json:"deleted"`
		} `json:"attributes"`
	}
	if err := json.Unmarshal(doc.Data, &record); err != nil {
		return err
	}
	// A saved payment method may be answered under the id of its wrapper
	// (cus_pm_...), so an id is only compared where it must be the one asked for.
	wrapped := strings.HasPrefix(d.ID, "pm_")
	if got := record.PaymentMethodID; got != "" && got != d.ID || !wrapped && record.ID != "" && record.ID != d.ID {
		return fmt.Errorf("%w: another id", errOtherResource)
	}
	if record.Attributes.Deleted != nil {
		d.Deleted = *record.Attributes.Deleted
	}
	return nil
}
