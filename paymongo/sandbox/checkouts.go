package sandbox

import (
	"encoding/json"
	"net/url"
	"time"
)

func createCheckout(c *call) answer {
	s := c.s
	p := c.params()
	p.require("line_items", "payment_method_types")
	cs := &checkout{
		MethodTypes:     p.texts("payment_method_types"),
		Billing:         p.billing(),
		SuccessURL:      p.optional("success_url"),
		CancelURL:       p.optional("cancel_url"),
		Description:     p.optional("description"),
		Reference:       p.optional("reference_number"),
		SendReceipt:     p.boolean("send_email_receipt", false),
		ShowDescription: p.boolean("show_description", true),
		ShowLineItems:   p.boolean("show_line_items", true),
		Metadata:        p.metadata(),
		Status:          "active",
	}
	total := cs.readItems(p)
	if total > 0 && (total < s.profile.MinimumAmount || total > maxAmount) {
		p.fail("line_items", "parameter_invalid", "The total of line_items must be from %d to %d.", s.profile.MinimumAmount, maxAmount)
	}
	for name, target := range map[string]*string{"success_url": cs.SuccessURL, "cancel_url": cs.CancelURL} {
		if target != nil && !isWebURL(*target) {
			p.fail(name, "parameter_format_invalid", "%s is not a valid URL.", name)
		}
	}
	if a, refused := p.refused(); refused {
		return a
	}
	pi := &intent{
		Amount: total, Currency: "PHP", CaptureType: "automatic", Description: cs.Description,
		Allowed: cs.MethodTypes, Metadata: cs.Metadata, Options: defaultOptions, Status: awaitingPaymentMethod,
	}
	s.addIntent(pi, c.now)
	cs.ID = s.newID("cs_")
	cs.ClientKey = cs.ID + "_client_" + randomSuffix(s.rng)
	cs.Intent, pi.Checkout = pi.ID, cs.ID
	cs.CreatedAt, cs.UpdatedAt = c.now.Unix(), c.now.Unix()
	s.st.Checkouts = append(s.st.Checkouts, cs)
	s.st.checkouts[cs.ID] = cs
	return ok(c.link(s.checkout(cs)))
}

// readItems reads one to a hundred line items and returns their total.
func (cs *checkout) readItems(p params) (total int64) {
	var items []json.RawMessage
	if p.has("line_items") && (json.Unmarshal(p.attrs["line_items"], &items) != nil || len(items) == 0 || len(items) > 100) {
		p.fail("line_items", "parameter_data_type_invalid", "line_items should be an array of 1 to 100 objects.")
		return 0
	}
	for _, raw := range items {
		item, isObject := params{attrs: attributes{"line_item": raw}, prefix: "", errs: p.errs}.object("line_item")
		if !isObject {
			return 0
		}
		item.require("name", "amount", "currency", "quantity")
		li := lineItem{
			Amount: item.integer("amount", 1, maxAmount), Currency: item.choice("currency", "PHP"),
			Description: item.optional("description"), Images: []string{}, Name: item.text("name"),
			Quantity: item.integer("quantity", 1, 10_000),
		}
		if item.has("images") {
			li.Images = item.texts("images")
		}
		total += li.Amount * li.Quantity // at most 100 * 10^9 * 10^4: no overflow
		cs.LineItems = append(cs.LineItems, li)
	}
	return total
}

func isWebURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func retrieveCheckout(c *call) answer {
	cs := c.s.st.checkouts[c.id]
	if cs == nil {
		return notFound("checkout session", c.id)
	}
	return ok(c.link(c.s.checkout(cs)))
}

// expireCheckout also cancels the intent, as a recording of 2023 shows.
func expireCheckout(c *call) answer {
	cs := c.s.st.checkouts[c.id]
	if cs == nil {
		return notFound("checkout session", c.id)
	}
	if cs.PaidAt != nil {
		return refuse(400, "resource_succeeded_state", "The checkout session "+cs.ID+" is already paid.")
	}
	if cs.Status == "expired" {
		return refuse(400, "resource_failed_state", "The checkout session "+cs.ID+" has already expired.")
	}
	cs.Status, cs.UpdatedAt = "expired", c.now.Unix()
	if pi := c.s.st.intents[cs.Intent]; pi.Status == awaitingPaymentMethod || pi.Status == awaitingNextAction {
		c.s.change(pi, cancelled, c.now)
	}
	return ok(c.link(c.s.checkout(cs)))
}

// payCheckout is the customer on the checkout page, paying with a test card.
func (s *Sandbox) payCheckout(cs *checkout, number, base string, now time.Time) executed {
	m := &method{
		ID: s.newID("pm_"), Type: "card", Number: number, ExpMonth: 12, ExpYear: now.Year() + 5,
		Billing: cs.Billing, FreshCVC: true, CreatedAt: now.Unix(), UpdatedAt: now.Unix(),
	}
	s.st.Methods = append(s.st.Methods, m)
	s.st.methods[m.ID] = m
	pi := s.st.intents[cs.Intent]
	at := &attach{ReceivedAt: now, Method: m.ID}
	if cs.SuccessURL != nil {
		at.ReturnURL = *cs.SuccessURL
	}
	return s.executeAttach(pi, s.st.addAttach(pi, at), nil, base, now)
}

// link completes the address of the page, which depends on how the caller
// reaches us.
func (c *call) link(res wireResource) wireResource {
	at := res.Attributes.(wireCheckout)
	at.CheckoutURL = c.base + at.CheckoutURL
	res.Attributes = at
	return res
}

func (s *Sandbox) checkout(cs *checkout) wireResource {
	pi := s.st.intents[cs.Intent]
	at := wireCheckout{
		Billing: cs.Billing, CancelURL: cs.CancelURL, CheckoutURL: "/_sandbox/checkout?id=" + cs.ID, ClientKey: cs.ClientKey,
		Description: cs.Description, LineItems: cs.LineItems, Merchant: "Sandbox", PaidAt: cs.PaidAt,
		Payments: []wireResource{}, PaymentIntent: s.intent(pi), PaymentMethodTypes: cs.MethodTypes,
		ReferenceNumber: cs.Reference, SendEmailReceipt: cs.SendReceipt, ShowDescription: cs.ShowDescription,
		ShowLineItems: cs.ShowLineItems, Status: cs.Status, SuccessURL: cs.SuccessURL,
		CreatedAt: cs.CreatedAt, UpdatedAt: cs.UpdatedAt, Metadata: cs.Metadata,
	}
	for _, pay := range pi.Payments {
		if pay.Status == "paid" {
			kind := s.st.methods[pay.Method].Type
			at.Payments = append(at.Payments, s.payment(pay))
			at.PaymentMethodUsed = &kind
		}
	}
	return wireResource{cs.ID, "checkout_session", at}
}
