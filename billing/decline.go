package billing

import (
	"maps"
	"slices"
)

// DeclineCode is the provider's reason for a decline, word for word. It is kept
// as it came, also when no table knows it.
type DeclineCode string

// DeclineCodeOther stands for every unlisted code where the set must be closed:
// in metric labels. It is never stored.
const DeclineCodeOther DeclineCode = "other"

// DeclineCodeNotAllowed is no decline of a card: this account may not charge one
// with nobody at the keyboard. The customer can still pay in person.
const DeclineCodeNotAllowed DeclineCode = "organization_not_allowed"

// declineNotAuthorised is what PayMongo calls a customer who did not pass 3-D Secure.
const declineNotAuthorised DeclineCode = "authentication_error"

// DeclineClass says what kind of trouble a decline is, for a charge with nobody
// at the keyboard.
type DeclineClass string

// The classes of declines.
const (
	// DeclineClassHard: this card will never pay.
	DeclineClassHard DeclineClass = "hard"
	// DeclineClassSoft: the same card may pay later.
	DeclineClassSoft DeclineClass = "soft"
	// DeclineClassAction: the card may live, but its holder has to do something.
	DeclineClassAction DeclineClass = "action"
	// DeclineClassConfig: the merchant's account is set up wrongly. No card is to blame.
	DeclineClassConfig DeclineClass = "config"
	// DeclineClassUnknown: the card may have been charged. Decline.Confirmed says
	// what the code means once PayMongo was asked and knows of no success.
	DeclineClassUnknown DeclineClass = "unknown"
	// DeclineClassGateway: somebody between us and the issuer was down.
	DeclineClassGateway DeclineClass = "gateway"
)

// Advice is what our table makes of a decline code: what to do next.
type Advice string

// The advice the table gives.
const (
	AdviceRetry        Advice = "retry"         // the same card, on the days of the dunning policy
	AdvicePayday       Advice = "payday"        // the same card, when there is money on it again
	AdviceSoon         Advice = "soon"          // the same card, in minutes to hours
	AdviceUpdateMethod Advice = "update_method" // never this card again: another one
	AdviceCustomer     Advice = "customer"      // its holder must act; this card is not retried by itself
	AdviceAsk          Advice = "ask"           // ask PayMongo what happened, before anything else
	AdviceStop         Advice = "stop"          // charge nothing at all until the merchant has mended it
)

// Decline is what is known of a decline code.
type Decline struct {
	Code   DeclineCode // as it came
	Class  DeclineClass
	Advice Advice
	// Listed is false for codes of no table: treated with caution, and worth an alert.
	Listed bool
	// Mask means the payer must be shown a generic decline: the truth would help
	// a thief (PayMongo's common card errors page, mask_as_generic).
	Mask bool
	// Cap is how many attempts of one invoice on one card may end with this code
	// before its holder has to act. 0 leaves it to the dunning policy.
	Cap int
	// once is what DeclineClassUnknown turns into when it was confirmed.
	once DeclineClass
}

// Caps, a judgement: PayMongo's pages say "few tries" and "one or two".
const (
	capFew  = 3
	capLow  = 2
	capNone = 0
)

func hard() Decline { return Decline{Class: DeclineClassHard, Advice: AdviceUpdateMethod} }
func masked() Decline {
	return Decline{Class: DeclineClassHard, Advice: AdviceUpdateMethod, Mask: true}
}
func action() Decline { return Decline{Class: DeclineClassAction, Advice: AdviceCustomer} }
func config() Decline { return Decline{Class: DeclineClassConfig, Advice: AdviceStop} }
func gateway() Decline {
	return Decline{Class: DeclineClassGateway, Advice: AdviceSoon}
}

func soft(advice Advice, most int) Decline {
	return Decline{Class: DeclineClassSoft, Advice: advice, Cap: most}
}

func unknown(once DeclineClass, most int) Decline {
	return Decline{Class: DeclineClassUnknown, Advice: AdviceAsk, once: once, Cap: most}
}

// declines is the table. The codes and their groups are PayMongo's: the pages
// common-card-errors and payment-acceptance-errors-card, and for the two marked
// so the page of test cards. The classes are a judgement for unattended charges.
var declines = map[DeclineCode]Decline{
	// Declined by the issuer.
	"generic_decline":                       soft(AdviceRetry, capFew), // also Maya's
	"do_not_honor":                          soft(AdviceRetry, capFew),
	"payment_refused":                       soft(AdviceRetry, capLow),
	"insufficient_funds":                    soft(AdvicePayday, capNone),
	"credit_limit_exceeded":                 soft(AdvicePayday, capNone),
	"debit_card_usage_limit_exceeded":       soft(AdviceRetry, capNone), // limits end with the day
	"amount_allowed_exceeded":               soft(AdviceRetry, capLow),  // the next day, but its holder if it stays so
	"issuer_declined":                       soft(AdviceRetry, capFew),
	"issuer_not_available":                  gateway(), // the page says: again in minutes
	"call_card_issuer":                      action(),
	"card_not_supported":                    hard(),
	"card_type_mismatch":                    hard(), // listed in two groups
	"card_unauthorized":                     hard(),
	"card_expired":                          hard(), // test card page only
	"currency_not_supported_by_card_issuer": hard(),

	// Blocked. To the payer all of them are one generic decline.
	"fraudulent":         masked(),
	"highest_risk_level": masked(),
	"lost_card":          masked(),
	"stolen_card":        masked(),
	"pickup_card":        masked(),
	"restricted_card":    masked(),
	"processor_blocked":  masked(),
	"blocked":            masked(), // by PayMongo itself; the merchant may ask its support

	// The processor.
	"avs_failed":                     action(), // the billing address
	declineNotAuthorised:             action(), // 3DS, with the customer present
	DeclineCodeNotAllowed:            action(), // ours: the customer may still pay in person
	"card_not_accepted":              hard(),
	"customer_blacklisted":           hard(),
	"config_invalid_or_missing":      config(),
	"merchant_configuration_invalid": config(),
	"processor_declined":             soft(AdviceRetry, capFew),
	"acquirer_declined":              soft(AdviceRetry, capFew),
	"processor_unavailable":          gateway(), // test card page only

	// The pages tell of a timeout or a fault, after which money may have moved.
	"processing_error":  unknown(DeclineClassSoft, capFew),
	"system_error":      unknown(DeclineClassGateway, capNone),
	"processor_timeout": unknown(DeclineClassGateway, capNone),
	"server_timeout":    unknown(DeclineClassGateway, capNone),
	"service_timeout":   unknown(DeclineClassGateway, capNone),
	"unknown_error":     unknown(DeclineClassSoft, capFew), // also Maya's

	// The details of the card.
	"card_number_invalid": hard(),
	"cvc_invalid":         action(), // where a saved card that needs its CVC would land
	"cvc_incorrect":       action(),

	// Failed codes of GCash and QR Ph, which PayMongo lists without a meaning. By
	// their names two may have moved money. The others are treated as if unlisted:
	// not as config, because one odd wallet must not stop every other charge.
	"CLOSED":                  soft(AdviceRetry, capLow),
	"AMOUNT_EXCEED_LIMIT":     soft(AdviceRetry, capLow),
	"PARAM_MISSING":           soft(AdviceRetry, capLow),
	"RJCT":                    soft(AdviceRetry, capLow),
	"REPEAT_REQ_INCONSISTENT": unknown(DeclineClassSoft, capLow),
	"SYSTEM_ERROR":            unknown(DeclineClassGateway, capNone),
}

// Classify looks a code up. A code of no table is soft with a low cap: never hard
// in silence, for that would lose a paying customer, and never more than a few
// attempts, for it may be hard.
func Classify(code DeclineCode) Decline {
	d, listed := declines[code]
	if !listed {
		d = soft(AdviceRetry, capLow)
	}
	d.Code, d.Listed = code, listed
	return d
}

// Confirmed is the decline once PayMongo was asked and shows that no money moved:
// what was unknown becomes what it is worth trying. Other declines stay.
func (d Decline) Confirmed() Decline {
	switch d.once {
	case DeclineClassSoft:
		d.Class, d.Advice = DeclineClassSoft, AdviceRetry
	case DeclineClassGateway:
		d.Class, d.Advice = DeclineClassGateway, AdviceSoon
	}
	d.once = ""
	return d
}

// DeclineCodes is every listed code and DeclineCodeOther, sorted: the closed set
// of values a metric label may have.
func DeclineCodes() []DeclineCode {
	return slices.Sorted(func(yield func(DeclineCode) bool) {
		for code := range maps.Keys(declines) {
			if !yield(code) {
				return
			}
		}
		yield(DeclineCodeOther)
	})
}

// Label is the code if it is listed, and DeclineCodeOther if it is not.
func (c DeclineCode) Label() DeclineCode {
	if _, listed := declines[c]; listed {
		return c
	}
	return DeclineCodeOther
}
