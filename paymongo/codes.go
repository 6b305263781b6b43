package paymongo

// meaning is what an error code says about whether the call was executed.
type meaning int

const (
	unlisted    meaning = iota // nobody has told us: the outcome is unknown
	nothingDone                // PayMongo looked at the call and did not do it
	notCertain                 // it, or another delivery of it, may have been done
	declined                   // done or not, the sub_code decides; without one nothing was done
)

// errorCodes is every value of errors[].code that a source mentions. A code that
// is missing here is never taken for a refusal.
//
// Sources: [cass] recorded traffic of 2020; [errors] the API error page and its
// successor for payment intents and methods; [refund] the refund error page;
// [public] code of integrators; [money] the money movement page.
var errorCodes = map[string]meaning{
	// The request was found wanting before anything was tried.
	"parameter_invalid":           nothingDone, // [errors]
	"parameter_required":          nothingDone, // [errors]
	"parameter_blank":             nothingDone, // [public] attach without a payment method
	"parameter_data_type_invalid": nothingDone, // [cass]
	"parameter_format_invalid":    nothingDone, // [errors]
	"parameter_below_minimum":     nothingDone, // [errors] [refund]
	"parameter_above_maximum":     nothingDone, // [errors] [refund]
	"allowed_amount_exceeded":     nothingDone, // [errors] capture of more than the intent holds
	"livemode_mismatched":         nothingDone, // [public] [refund] also a real card with a test key
	"resource_not_found":          nothingDone, // [cass]

	// The account may not do this.
	"api_key_invalid":            nothingDone, // [errors]
	"organization_not_allowed":   nothingDone, // [errors]
	"payment_method_not_allowed": nothingDone, // [errors] [refund]

	// Refunds that PayMongo will not make.
	"resource_disputed_state":        nothingDone, // [refund]
	"allowed_date_exceeded":          nothingDone, // [refund]
	"available_balance_insufficient": nothingDone, // [refund]
	"refund_not_allowed":             nothingDone, // [refund]

	// A decline of the card; also a refund of a payment that was not paid, and a
	// cancel the processor refused.
	"resource_failed_state": declined, // [public] [refund]

	// The resource has moved on, and what moved it may be this very call,
	// delivered a second time by something between us and PayMongo.
	"resource_succeeded_state":  notCertain, // [public] attach on a succeeded intent
	"resource_processing_state": notCertain, // [refund], by analogy for attach
	"resource_pending_state":    notCertain, // [refund]

	// Faults behind PayMongo, and calls that collided.
	"provider_processing_error": notCertain, // [refund]
	"resource_processing_error": notCertain, // [refund]
	"idempotency_in_progress":   notCertain, // [money]
	"too_many_requests":         notCertain, // [errors] the older text of the rate limit page
}

// declineCodes is every card decline of the common card errors page and of the
// test card page, as errors[].sub_code and as failed_code of a payment. The
// page's own words make six of them uncertain: they tell of a timeout or a
// fault after which the card may have been charged.
var declineCodes = map[string]meaning{
	"acquirer_declined":                     nothingDone,
	"amount_allowed_exceeded":               nothingDone,
	"authentication_error":                  nothingDone,
	"avs_failed":                            nothingDone,
	"blocked":                               nothingDone,
	"call_card_issuer":                      nothingDone,
	"card_expired":                          nothingDone, // test card page only
	"card_not_accepted":                     nothingDone,
	"card_not_supported":                    nothingDone,
	"card_number_invalid":                   nothingDone,
	"card_type_mismatch":                    nothingDone,
	"card_unauthorized":                     nothingDone,
	"config_invalid_or_missing":             nothingDone,
	"credit_limit_exceeded":                 nothingDone,
	"currency_not_supported_by_card_issuer": nothingDone,
	"customer_blacklisted":                  nothingDone,
	"cvc_incorrect":                         nothingDone,
	"cvc_invalid":                           nothingDone,
	"debit_card_usage_limit_exceeded":       nothingDone,
	"do_not_honor":                          nothingDone,
	"fraudulent":                            nothingDone,
	"generic_decline":                       nothingDone,
	"highest_risk_level":                    nothingDone,
	"insufficient_funds":                    nothingDone,
	"issuer_declined":                       nothingDone,
	"issuer_not_available":                  nothingDone,
	"lost_card":                             nothingDone,
	"merchant_configuration_invalid":        nothingDone,
	"payment_refused":                       nothingDone,
	"pickup_card":                           nothingDone,
	"processor_blocked":                     nothingDone,
	"processor_declined":                    nothingDone,
	"processor_unavailable":                 nothingDone, // test card page only
	"restricted_card":                       nothingDone,
	"stolen_card":                           nothingDone,

	"processing_error":  notCertain,
	"processor_timeout": notCertain,
	"server_timeout":    notCertain,
	"service_timeout":   notCertain,
	"system_error":      notCertain,
	"unknown_error":     notCertain,
}
