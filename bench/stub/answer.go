package stub

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
)

// An intent as PayMongo shows one, before and after it is paid.
var (
	unpaid = parse(`{"data":{"id":"pi_{no}","type":"payment_intent","attributes":{"amount":{amount},"capture_type":"automatic",` +
		`"client_key":"pi_{no}_client_Zx81Qm","currency":"PHP","description":null,"livemode":false,"original_amount":{amount},` +
		`"statement_descriptor":null,"status":"awaiting_payment_method","last_payment_error":null,"payment_method_allowed":["card"],` +
		`"payments":[]` + rest)
	paid = parse(`{"data":{"id":"pi_{no}","type":"payment_intent","attributes":{"amount":{amount},"capture_type":"automatic",` +
		`"client_key":"pi_{no}_client_Zx81Qm","currency":"PHP","description":null,"livemode":false,"original_amount":{amount},` +
		`"statement_descriptor":null,"status":"succeeded","last_payment_error":null,"payment_method_allowed":["card"],` +
		`"payments":[{"id":"pay_{no}","type":"payment","attributes":{"access_url":null,"amount":{amount},` +
		`"balance_transaction_id":"bal_txn_{no}","billing":{"address":{"city":null,"country":"PH","line1":null,"line2":null,` +
		`"postal_code":null,"state":null},"email":null,"name":null,"phone":null},"currency":"PHP","description":null,` +
		`"digital_withholding_vat_amount":0,"disputed":false,"external_reference_number":null,"fee":3247,"foreign_fee":100,` +
		`"instant_settlement":null,"livemode":false,"net_amount":{amount},"origin":"api","payment_intent_id":"pi_{no}","payout":null,` +
		`"source":{"id":"card_{no}","type":"card","brand":"visa","country":"PH","last4":"4345"},"statement_descriptor":null,` +
		`"status":"paid","tax_amount":null,"metadata":{"invoice":"{invoice}"},"promotion":null,"refunds":[],"taxes":[],` +
		`"available_at":{now},"created_at":{now},"credited_at":null,"paid_at":{now},"updated_at":{now}}}]` + rest)
)

const rest = `,"next_action":null,"payment_method_options":{"card":{"request_three_d_secure":"any"}},` +
	`"metadata":{"invoice":"{invoice}"},"setup_future_usage":null,"created_at":{now},"updated_at":{now}}}}`

// template is what stands between the names, and the names.
type template struct{ texts, names []string }

var name = regexp.MustCompile(`\{[a-z]+\}`)

func parse(s string) template {
	return template{texts: name.Split(s, -1), names: name.FindAllString(s, -1)}
}

// write fills a template in; fmt would take longer than all the rest of an answer.
func (t template) write(b *bytes.Buffer, no int64, pi intent, now int64) {
	var digits [24]byte
	number := fmt.Appendf(digits[:0], "%024d", no)
	for i, text := range t.texts {
		b.WriteString(text)
		if i == len(t.names) {
			return
		}
		switch t.names[i] {
		case "{no}":
			b.Write(number)
		case "{amount}":
			b.Write(strconv.AppendInt(b.AvailableBuffer(), pi.amount, 10))
		case "{invoice}":
			b.WriteString(pi.invoice)
		case "{now}":
			b.Write(strconv.AppendInt(b.AvailableBuffer(), now, 10))
		}
	}
}
