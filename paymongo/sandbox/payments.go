package sandbox

import "time"

func (s *Sandbox) addPayment(pi *intent, at *attach, amount int64, status string, now time.Time) *payment {
	m := s.st.methods[at.Method]
	pay := &payment{
		Index: len(s.st.Payments), ID: s.newID("pay_"), Intent: pi.ID, Amount: amount, Currency: pi.Currency,
		Status: status, Method: m.ID, Billing: m.Billing, Description: pi.Description, Descriptor: pi.StatementDescriptor,
		Metadata: pi.Metadata, CreatedAt: now.Unix(), UpdatedAt: now.Unix(),
	}
	if m.Type == "card" {
		pay.SourceID, pay.Brand, pay.Last4 = s.newID("card_"), cardBrand(m.Number), m.last4()
	} else {
		pay.SourceID, pay.Brand = s.newID("src_"), m.Type
	}
	s.st.Payments = append(s.st.Payments, pay)
	s.st.payments[pay.ID] = pay
	pi.Payments = append(pi.Payments, pay)
	return pay
}

func retrievePayment(c *call) answer {
	pay := c.s.st.payments[c.id]
	if pay == nil {
		return notFound("Payment", c.id) // with a capital, as recorded
	}
	return ok(c.s.payment(pay))
}

func listPayments(c *call) answer {
	return page(c, c.s.st.Payments, func(id string) (int, bool) {
		pay := c.s.st.payments[id]
		if pay == nil {
			return 0, false
		}
		return pay.Index, true
	}, func(pay *payment) (wireResource, bool) { return c.s.payment(pay), true })
}

// fee of a card in test output: 3.5 % and 15 pesos, 10000 -> 1850.
func fee(amount int64) int64 { return min(amount, (amount*35+500)/1000+1500) }

func (s *Sandbox) payment(pay *payment) wireResource {
	at := wirePayment{
		Amount: pay.Amount, Billing: pay.Billing, Currency: pay.Currency, Description: pay.Description,
		FailedCode: pay.FailedCode, FailedMessage: pay.FailedMessage, Origin: "api", PaymentIntentID: pay.Intent,
		Source: wireSource{ID: pay.SourceID, Type: pay.Brand}, StatementDescriptor: pay.Descriptor, Status: pay.Status,
		Metadata: pay.Metadata, Refunds: make([]wireResource, 0, len(pay.Refunds)), Taxes: []struct{}{},
		CreatedAt: pay.CreatedAt, PaidAt: pay.CreatedAt, UpdatedAt: pay.UpdatedAt,
	}
	if pay.Last4 != "" {
		at.Source = wireSource{ID: pay.SourceID, Type: "card", Brand: pay.Brand, Country: "PH", Last4: pay.Last4}
	}
	if pay.Status == "paid" {
		balance := "bal_txn_" + pay.ID[len("pay_"):]
		credited := pay.CreatedAt + 7*24*3600
		at.BalanceTransactionID, at.CreditedAt, at.AvailableAt = &balance, &credited, pay.CreatedAt+4*24*3600
		at.Fee = fee(pay.Amount)
		at.NetAmount = pay.Amount - at.Fee
	}
	for _, r := range pay.Refunds {
		at.Refunds = append(at.Refunds, r.wire())
	}
	return wireResource{pay.ID, "payment", at}
}
