package sandbox

import (
	"time"
)

func createRefund(c *call) answer {
	s := c.s
	p := c.params()
	p.require("amount", "payment_id", "reason")
	r := &refund{
		Amount:   p.integer("amount", 100, maxAmount),
		Payment:  p.text("payment_id"),
		Reason:   p.choice("reason", "duplicate", "fraudulent", "requested_by_customer", "others"),
		Notes:    p.optional("notes"),
		Metadata: p.metadata(),
		Status:   "pending",
	}
	if r.Notes != nil && len(*r.Notes) > 255 {
		p.fail("notes", "parameter_invalid", "notes is longer than 255 characters.")
	}
	if a, refused := p.refused(); refused {
		return a
	}
	pay := s.st.payments[r.Payment]
	if pay == nil {
		return notFound("Payment", r.Payment)
	}
	if pay.Status != "paid" {
		return refuse(400, "resource_failed_state", "The payment "+pay.ID+" is not paid.")
	}
	left := pay.Amount
	for _, earlier := range pay.Refunds {
		if earlier.Status == "pending" {
			return refuse(400, "resource_processing_state", "A refund of the payment "+pay.ID+" is already being processed.")
		}
		left -= earlier.Amount
	}
	if r.Amount > left {
		p.fail("amount", "parameter_above_maximum", "The value for amount cannot be greater than %d.", left)
		a, _ := p.refused()
		return a
	}
	r.Index = len(s.st.Refunds)
	r.ID, r.Currency = s.newID("ref_"), pay.Currency
	r.CreatedAt, r.UpdatedAt = c.now.Unix(), c.now.Unix()
	s.st.Refunds = append(s.st.Refunds, r)
	s.st.refunds[r.ID] = r
	pay.Refunds = append(pay.Refunds, r)
	pay.UpdatedAt = c.now.Unix()
	s.schedule(&timer{At: c.now.Add(time.Duration(s.profile.RefundDelay)), Kind: timerRefund, ID: r.ID})
	return ok(r.wire())
}

func (s *Sandbox) settleRefund(t *timer) {
	r := s.st.refunds[t.ID]
	if r == nil {
		return
	}
	at := t.At.Unix()
	r.Status, r.RefundedAt, r.UpdatedAt = "succeeded", &at, at
	pay := s.st.payments[r.Payment]
	pay.UpdatedAt = at
	about := s.st.intents[pay.Intent].about(pay.Method)
	// Older pages name the first two events, the newer catalogue the third.
	events := s.event(nil, "payment.refund.updated", about, r.wire)
	events = s.event(events, "payment.refunded", about, func() wireResource { return s.payment(pay) })
	events = s.event(events, "refund.succeeded", about, r.wire)
	s.queue(events, t.At)
}

func retrieveRefund(c *call) answer {
	r := c.s.st.refunds[c.id]
	if r == nil {
		return notFound("refund", c.id)
	}
	return ok(r.wire())
}

func listRefunds(c *call) answer {
	return page(c, c.s.st.Refunds, func(id string) (int, bool) {
		r := c.s.st.refunds[id]
		if r == nil {
			return 0, false
		}
		return r.Index, true
	}, func(r *refund) (wireResource, bool) { return r.wire(), true })
}

func (r *refund) wire() wireResource {
	at := wireRefund{
		Amount: r.Amount, Currency: r.Currency, Metadata: r.Metadata, Notes: r.Notes, PaymentID: r.Payment,
		Reason: r.Reason, Status: r.Status, RefundedAt: r.RefundedAt, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	if r.Status == "succeeded" {
		balance := "bal_txn_" + r.ID[len("ref_"):]
		at.BalanceTransactionID, at.AvailableAt = &balance, r.RefundedAt
	}
	return wireResource{r.ID, "refund", at}
}
