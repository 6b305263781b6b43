package sandbox

import (
	"net/mail"
	"slices"
	"strings"
	"time"
)

func createCustomer(c *call) answer {
	p := c.params()
	p.require("first_name", "last_name", "email", "default_device")
	cus := &customer{
		FirstName:     p.text("first_name"),
		LastName:      p.text("last_name"),
		Email:         p.text("email"),
		Phone:         p.optional("phone"),
		DefaultDevice: p.choice("default_device", "phone", "email"),
		Metadata:      p.metadata(),
	}
	if cus.DefaultDevice == "phone" && cus.Phone == nil {
		p.fail("phone", "parameter_required", "phone is required.")
	}
	c.checkContact(p, cus, nil)
	if a, refused := p.refused(); refused {
		return a
	}
	s := c.s
	cus.ID = s.newID("cus_")
	cus.CreatedAt, cus.UpdatedAt = c.now.Unix(), c.now.Unix()
	cus.Index = len(s.st.Customers)
	s.st.Customers = append(s.st.Customers, cus)
	s.st.customers[cus.ID] = cus
	s.st.claimContact(cus)
	return ok(s.customer(cus))
}

// checkContact: e-mail and phone are each unique in an organisation, phone
// digits and plus only. developers.paymongo.com/docs/save-card-test-cases;
// no source for the code of a duplicate.
func (c *call) checkContact(p params, cus, self *customer) {
	if p.has("email") {
		if at, err := mail.ParseAddress(cus.Email); err != nil || at.Address != cus.Email {
			p.fail("email", "parameter_format_invalid", "email format is invalid.")
		} else if other := c.s.st.emails[cus.Email]; other != nil && other != self {
			p.fail("email", "parameter_invalid", "A customer with this email already exists.")
		}
	}
	if cus.Phone != nil {
		digits := strings.TrimPrefix(*cus.Phone, "+")
		if len(digits) < 7 || len(digits) > 15 || strings.Trim(digits, "0123456789") != "" {
			p.fail("phone", "parameter_format_invalid", "phone format is invalid.")
		} else if other := c.s.st.phones[*cus.Phone]; other != nil && other != self {
			p.fail("phone", "parameter_invalid", "A customer with this phone already exists.")
		}
	}
}

func (st *store) claimContact(cus *customer) {
	st.emails[cus.Email] = cus
	if cus.Phone != nil {
		st.phones[*cus.Phone] = cus
	}
}

func (st *store) releaseContact(cus *customer) {
	delete(st.emails, cus.Email)
	if cus.Phone != nil {
		delete(st.phones, *cus.Phone)
	}
}

func (c *call) customer() (*customer, answer, bool) {
	cus := c.s.st.customers[c.id]
	if cus == nil || cus.Deleted {
		return nil, notFound("customer", c.id), false
	}
	return cus, answer{}, true
}

func retrieveCustomer(c *call) answer {
	cus, a, found := c.customer()
	if !found {
		return a
	}
	return ok(c.s.customer(cus))
}

func searchCustomers(c *call) answer {
	q := c.r.URL.Query()
	if email, phone := q.Get("email"), q.Get("phone"); email != "" || phone != "" {
		out := []wireResource{}
		cus := c.s.st.emails[email]
		if email == "" {
			cus = c.s.st.phones[phone]
		}
		if cus != nil && (phone == "" || cus.Phone != nil && *cus.Phone == phone) {
			out = append(out, c.s.customer(cus))
		}
		return answer{status: 200, doc: wireList{Data: out}}
	}
	return page(c, c.s.st.Customers, func(id string) (int, bool) {
		cus := c.s.st.customers[id]
		if cus == nil {
			return 0, false
		}
		return cus.Index, true
	}, func(cus *customer) (wireResource, bool) { return c.s.customer(cus), !cus.Deleted })
}

func updateCustomer(c *call) answer {
	cus, a, found := c.customer()
	if !found {
		return a
	}
	p := c.params()
	next := *cus
	if p.has("first_name") {
		next.FirstName = p.text("first_name")
	}
	if p.has("last_name") {
		next.LastName = p.text("last_name")
	}
	if p.has("email") {
		next.Email = p.text("email")
	}
	if p.has("phone") {
		next.Phone = p.optional("phone")
	}
	if p.has("default_device") {
		next.DefaultDevice = p.choice("default_device", "phone", "email")
	}
	if p.has("metadata") {
		next.Metadata = p.metadata()
	}
	if _, given := c.attrs["default_payment_method_id"]; given {
		next.DefaultMethod = p.optional("default_payment_method_id") // null takes it away
		if next.DefaultMethod != nil && !slices.ContainsFunc(cus.Saved, func(sv *saved) bool { return sv.Method == *next.DefaultMethod }) {
			p.fail("default_payment_method_id", "parameter_invalid", "default_payment_method_id is not a saved payment method of the customer.")
		}
	}
	c.checkContact(p, &next, cus)
	if a, refused := p.refused(); refused {
		return a
	}
	c.s.st.releaseContact(cus)
	*cus = next
	cus.UpdatedAt = c.now.Unix()
	c.s.st.claimContact(cus)
	return ok(c.s.customer(cus))
}

func deleteCustomer(c *call) answer {
	cus, a, found := c.customer()
	if !found {
		return a
	}
	cus.Deleted = true
	for _, sv := range cus.Saved {
		c.s.st.methods[sv.Method].Removed = true
	}
	cus.Saved = nil
	c.s.st.releaseContact(cus)
	return answer{status: 200, doc: wireData{struct {
		Type       string          `json:"type"`
		ID         string          `json:"id"`
		Attributes map[string]bool `json:"attributes"`
	}{"deleted_entity", cus.ID, map[string]bool{"deleted": true}}}}
}

func listSaved(c *call) answer {
	if c.s.profile.SavedMethodShape == "c" {
		return listSavedV2(c)
	}
	cus, a, found := c.customer()
	if !found {
		return a
	}
	prefix := "cpm_"
	if c.s.profile.SavedMethodShape == "a" {
		prefix = "cus_pm_"
	}
	out := []wireResource{}
	for _, sv := range cus.Saved {
		m := c.s.st.methods[sv.Method]
		details := m.cardDetails()
		details.Brand = cardBrand(m.Number)
		out = append(out, wireResource{prefix + sv.ID, "customer_payment_method", wireSavedMethod{
			PaymentMethodID: sv.Method, PaymentMethodType: m.Type, SessionType: sv.SessionType,
			Details: *details, CreatedAt: sv.CreatedAt, UpdatedAt: sv.CreatedAt,
		}})
	}
	return answer{status: 200, doc: wireList{Data: out}}
}

func listSavedV2(c *call) answer {
	cus, a, found := c.customer()
	if !found {
		return a
	}
	var out wireSavedMethodsV2
	out.Data.CustomerPaymentMethods = []wireSavedMethodV2{}
	for _, sv := range cus.Saved {
		out.Data.CustomerPaymentMethods = append(out.Data.CustomerPaymentMethods, cus.savedV2(sv, c.s.st.methods[sv.Method]))
		out.Data.LastEvaluatedPaymentMethodID = &sv.Method
	}
	return answer{status: 200, doc: out}
}

func (cus *customer) savedV2(sv *saved, m *method) wireSavedMethodV2 {
	return wireSavedMethodV2{
		CreatedAt: sv.CreatedAt * 1000, CustomerID: cus.ID, PaymentMethodID: sv.Method,
		SessionType: sv.SessionType, SourceType: m.Type, UpdatedAt: sv.CreatedAt * 1000,
	}
}

func deleteSaved(c *call) answer {
	if _, _, a, removed := c.removeSaved(); !removed {
		return a
	}
	return answer{status: 200, doc: wireData{nil}}
}

func deleteSavedV2(c *call) answer {
	cus, sv, a, removed := c.removeSaved()
	if !removed {
		return a
	}
	out := cus.savedV2(sv, c.s.st.methods[sv.Method])
	out.DeletedAt, out.UpdatedAt = c.now.UnixMilli(), c.now.UnixMilli()
	return answer{status: 200, doc: struct {
		Data    wireSavedMethodV2 `json:"data"`
		HasMore bool              `json:"has_more"`
	}{Data: out}}
}

func (c *call) removeSaved() (*customer, *saved, answer, bool) {
	cus, a, found := c.customer()
	if !found {
		return nil, nil, a, false
	}
	i := slices.IndexFunc(cus.Saved, func(sv *saved) bool { return sv.Method == c.sub })
	if i < 0 {
		return nil, nil, notFound("payment method", c.sub), false
	}
	sv := cus.Saved[i]
	cus.Saved = slices.Delete(cus.Saved, i, i+1)
	c.s.st.methods[sv.Method].Removed = true
	if cus.DefaultMethod != nil && *cus.DefaultMethod == sv.Method {
		cus.DefaultMethod = nil
	}
	return cus, sv, answer{}, true
}

// vault saves the method of a first successful payment for its customer.
func (s *Sandbox) vault(pi *intent, m *method, now time.Time) {
	use := pi.SetupFutureUsage
	if use == nil || m.Customer != "" {
		return
	}
	cus := s.st.customers[use.CustomerID]
	if cus == nil || cus.Deleted {
		return
	}
	m.Customer, m.FreshCVC = cus.ID, false
	cus.Saved = append(cus.Saved, &saved{ID: randomSuffix(s.rng), Method: m.ID, SessionType: use.SessionType, CreatedAt: now.Unix()})
}

func (s *Sandbox) customer(cus *customer) wireResource {
	return wireResource{cus.ID, "customer", wireCustomer{
		DefaultDevice: cus.DefaultDevice, DefaultPaymentMethodID: cus.DefaultMethod, Email: cus.Email,
		FirstName: cus.FirstName, LastName: cus.LastName, OrganizationID: s.st.OrganizationID,
		Phone: cus.Phone, Metadata: cus.Metadata, CreatedAt: cus.CreatedAt, UpdatedAt: cus.UpdatedAt,
	}}
}
