package sandbox

import "strings"

// testCard is what PayMongo publishes of one of its test cards.
type testCard struct {
	decline      string // sub code of the decline, "" when it pays
	threeDS      bool   // asks the customer first, on- and off-session
	renewalFails bool   // pays once; every later off-session charge is declined
	cancelFails  bool   // cancelling a hold is refused by the processor
}

// testCards: developers.paymongo.com/docs/testing and its newer edition.
var testCards = map[string]testCard{
	"4343434343434345": {}, "4571736000000075": {}, "4009930000001421": {}, "4404520000001439": {},
	"5555444444444457": {}, "5455590000000009": {}, "5339080000000003": {}, "5240050000001440": {},
	"5577510000001446": {},
	"5123000000000002": {}, // newer edition only
	"5123000000000001": {renewalFails: true},

	"4120000000000007": {threeDS: true},
	"4230000000000004": {decline: "generic_decline"},                // before authentication
	"5234000000000106": {decline: "generic_decline", threeDS: true}, // after it

	"4200000000000018": {decline: "card_expired"},
	"4300000000000017": {decline: "cvc_invalid"},
	"4400000000000016": {decline: "generic_decline"}, "4028220000001457": {decline: "generic_decline"},
	"4111111111111111": {decline: "generic_decline"}, // newer edition only
	"4500000000000015": {decline: "fraudulent"},
	"5100000000000198": {decline: "insufficient_funds"}, "5240460000001466": {decline: "insufficient_funds"},
	"5200000000000197": {decline: "processor_blocked"},
	"5300000000000196": {decline: "lost_card"}, "5483530000001462": {decline: "lost_card"},
	"5400000000000195": {decline: "stolen_card"},
	"5500000000000194": {decline: "processor_unavailable"},
	"4600000000000014": {decline: "blocked"},

	"5417881844647288": {cancelFails: true},
	"5417886761138807": {cancelFails: true, threeDS: true},
}

// declineDetails: docs.paymongo.com/docs/payment-acceptance-errors-card, in
// short; the wording of insufficient_funds is PayMongo's own.
var declineDetails = map[string]string{
	"acquirer_declined":                     "The card was declined by the acquirer.",
	"amount_allowed_exceeded":               "The amount is above the card's allowed limit.",
	"authentication_error":                  "The payer could not be authenticated.",
	"avs_failed":                            "The billing address could not be verified.",
	"blocked":                               "The payment was blocked.",
	"call_card_issuer":                      "The card was declined. Contact the card issuer.",
	"card_expired":                          "The card has expired.",
	"card_not_accepted":                     "The card type is not accepted.",
	"card_not_supported":                    "The card does not support this type of purchase.",
	"card_number_invalid":                   "The card number is invalid.",
	"card_type_mismatch":                    "The card type and the card number do not agree.",
	"card_unauthorized":                     "The card is inactive or not authorized for card-not-present transactions.",
	"config_invalid_or_missing":             "The merchant configuration is invalid or missing.",
	"credit_limit_exceeded":                 "The card has reached its credit limit.",
	"currency_not_supported_by_card_issuer": "The currency is not supported by the card issuer.",
	"customer_blacklisted":                  "The customer is on the processor's negative list.",
	"cvc_incorrect":                         "The CVC does not match.",
	"cvc_invalid":                           "The CVC is invalid.",
	"debit_card_usage_limit_exceeded":       "The card has reached its usage limit.",
	"do_not_honor":                          "The card was declined.",
	"fraudulent":                            "The payment is suspected to be fraudulent.",
	"generic_decline":                       "The card was declined.",
	"highest_risk_level":                    "The payment has the highest risk level.",
	"insufficient_funds":                    "The card has insufficient funds to complete the purchase.",
	"issuer_declined":                       "The card was declined by the issuer.",
	"issuer_not_available":                  "The card issuer could not be reached.",
	"lost_card":                             "The card was reported lost.",
	"merchant_configuration_invalid":        "The merchant configuration at the processor is invalid.",
	"payment_refused":                       "The payment was refused.",
	"pickup_card":                           "The card was reported lost or stolen.",
	"processing_error":                      "The payment could not be processed.",
	"processor_blocked":                     "The payment was blocked by the processor.",
	"processor_declined":                    "The card was declined by the processor.",
	"processor_timeout":                     "The processor timed out.",
	"processor_unavailable":                 "The processor is unavailable.",
	"restricted_card":                       "The card is restricted.",
	"server_timeout":                        "The server timed out.",
	"service_timeout":                       "The service did not finish in time.",
	"stolen_card":                           "The card was reported stolen.",
	"system_error":                          "The processor has a system problem.",
	"unknown_error":                         "An unknown error occurred.",
}

// isCardNumber tells whether s is 13 to 19 digits that pass the Luhn check.
func isCardNumber(s string) bool {
	if len(s) < 13 || len(s) > 19 || strings.Trim(s, "0123456789") != "" {
		return false
	}
	sum := 0
	for i := range len(s) {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

func cardBrand(number string) string {
	if strings.HasPrefix(number, "4") {
		return "visa"
	}
	return "mastercard"
}
