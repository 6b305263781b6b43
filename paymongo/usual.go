package paymongo

import (
	"bytes"
	"encoding/json"
)

// The usual answer to a charge is read here in one pass. encoding/json scans a
// value three times if its type has an UnmarshalJSON: to find its end, to check
// it, and to read it; and in an intent such types are four deep. The types
// below have the same fields without those methods.
//
// They know no leniency and no second form. What they cannot read is read again
// the long way, which alone says what is an error: both ways come to the same.

type (
	plainIntent           PaymentIntent
	plainPayment          Payment
	plainLastPaymentError LastPaymentError
	plainNextAction       NextAction
	plainMethodOptions    PaymentMethodOptions
	plainFutureUsage      SetupFutureUsage
	plainSource           PaymentSource
	plainBilling          Billing
)

// usualIntent is a payment intent's attributes; its own fields stand before those of the plain intent.
type usualIntent struct {
	plainIntent
	ClientKey            *string                  `json:"client_key"`
	LastPaymentError     *plainLastPaymentError   `json:"last_payment_error"`
	NextAction           *plainNextAction         `json:"next_action"`
	PaymentMethodOptions *plainMethodOptions      `json:"payment_method_options"`
	Payments             []document[usualPayment] `json:"payments"`
	SetupFutureUsage     *plainFutureUsage        `json:"setup_future_usage"`
}

// usualPayment is a payment's attributes.
type usualPayment struct {
	plainPayment
	Source  *plainSource  `json:"source"`
	Billing *plainBilling `json:"billing"`
}

// readUsualIntent reads an intent in its usual form, or returns nil.
func readUsualIntent(data []byte) *PaymentIntent {
	if mayRepeat(data, "payments") {
		return nil // the second list would be read into the payments of the first
	}
	var doc document[usualIntent]
	if json.Unmarshal(data, &doc) != nil {
		return nil
	}
	e := doc.usual("payment_intent")
	if e == nil {
		return nil
	}
	in := e.Attributes
	p := (*PaymentIntent)(&in.plainIntent)
	p.ID = e.ID
	if in.ClientKey != nil && *in.ClientKey != "" {
		p.ClientKey = Secret{value: in.ClientKey}
	}
	p.LastPaymentError = (*LastPaymentError)(in.LastPaymentError)
	p.NextAction = (*NextAction)(in.NextAction)
	p.PaymentMethodOptions = (*PaymentMethodOptions)(in.PaymentMethodOptions)
	p.SetupFutureUsage = (*SetupFutureUsage)(in.SetupFutureUsage)
	if in.Payments != nil {
		p.Payments = make([]*Payment, len(in.Payments))
	}
	for i := range in.Payments {
		if p.Payments[i] = usualPaymentOf(&in.Payments[i]); p.Payments[i] == nil {
			return nil
		}
	}
	if p.check() != nil {
		return nil
	}
	return p
}

// readUsualPayment reads a payment in its usual form, or returns nil.
func readUsualPayment(data []byte) *Payment {
	var doc document[usualPayment]
	if json.Unmarshal(data, &doc) != nil {
		return nil
	}
	return usualPaymentOf(&doc)
}

func usualPaymentOf(doc *document[usualPayment]) *Payment {
	e := doc.usual("payment")
	if e == nil {
		return nil
	}
	in := e.Attributes
	p := (*Payment)(&in.plainPayment)
	p.ID, p.Source, p.Billing = e.ID, (*PaymentSource)(in.Source), (*Billing)(in.Billing)
	if p.check() != nil {
		return nil
	}
	return p
}

// usual returns the envelope of that kind in an answer, or nil.
func (d *document[A]) usual(kind string) *entity[A] {
	e := &d.entity
	if d.Data != nil && e.ID == "" {
		e = d.Data
	}
	if e.ID == "" || e.Attributes == nil || e.Type != kind {
		return nil
	}
	return e
}

// mayRepeat reports whether key can be in data twice, in any spelling that encoding/json takes for it.
func mayRepeat(data []byte, key string) bool {
	n := 0
	for text := range bytes.SplitSeq(data, []byte{'"'}) {
		if bytes.EqualFold(text, []byte(key)) {
			n++
		}
	}
	return n > 1 || bytes.Contains(data, []byte(`\u`))
}
