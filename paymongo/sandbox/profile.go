package sandbox

import (
	"fmt"
	"time"
)

// Profile is how one merchant's account behaves. Real accounts differ, and
// PayMongo's pages contradict each other; every such point is a switch here.
// [DefaultProfile] is an account that may charge off-session, on a gateway
// that ignores Idempotency-Key.
type Profile struct {
	// OffSession says what an attach of a saved card does when nobody is
	// there: "allowed", "not_allowed" (403 organization_not_allowed) or
	// "three_ds" (awaiting_next_action). An attach counts as off-session when
	// the card was saved by an earlier payment, no fresh CVC was given since
	// its last use, and the attach comes with a secret key and no return_url.
	// No source documents an off-session attach; PayMongo's pages disagree
	// whether it is allowed.
	OffSession string `json:"off_session"`

	// CVCRequired declines a saved card without a fresh CVC as cvc_invalid.
	CVCRequired bool `json:"cvc_required"`

	// MinimumAmount of an intent in centavos: 2000 in the reference and in
	// real output, 100 in a newer table.
	MinimumAmount int64 `json:"minimum_amount"`

	// Idempotency says what Idempotency-Key does on a POST that creates:
	// "off" (an independent probe of 2026-09), "replay" (the first success is
	// answered again for 24 h) or "replay_failures" (the first outcome, also a
	// failure, PayMongo's reference).
	Idempotency string `json:"idempotency"`
	// IdempotencyEverywhere honours the key on attach, capture and cancel too.
	IdempotencyEverywhere bool `json:"idempotency_everywhere"`
	// IdempotencyConflict answers 409 idempotency_in_progress while the first
	// call with the key is still at work. Otherwise the second one runs too.
	IdempotencyConflict bool `json:"idempotency_conflict"`
	// IdempotencyMismatch says what another body under a known key gets:
	// "refuse" (400) or "replay" (the first answer).
	IdempotencyMismatch string `json:"idempotency_mismatch"`

	// DeclineStatus is the HTTP status of a decline: 400 in evidence, 402 in
	// one library.
	DeclineStatus int `json:"decline_status"`

	// LastPaymentError fills last_payment_error after a failed payment. A
	// PayMongo sample shows null.
	LastPaymentError bool `json:"last_payment_error"`

	// SavedMethodShape of a customer's saved methods on /v1: "a" (ids
	// cus_pm_), "b" (ids cpm_) or "c" (the flat v2 shape). /v2 answers c.
	SavedMethodShape string `json:"saved_method_shape"`

	// SignBoth fills te and li of the signature header, as one sample shows.
	// Otherwise li is empty in test mode, as in real traffic.
	SignBoth bool `json:"sign_both"`
	// SignOnce keeps the t of the first delivery on every retry. No source
	// says whether a retry is signed anew.
	SignOnce bool `json:"sign_once"`

	// SerialAttach refuses an attach while another one on the same intent is
	// at work, with resource_processing_state, and never lets an intent be
	// paid twice. Switched off, both go through: no source promises otherwise.
	SerialAttach bool `json:"serial_attach"`
	// ReattachDuringAction lets a new attach take the place of one that waits
	// for the customer. No source.
	ReattachDuringAction bool `json:"reattach_during_action"`

	// DisableWebhookAfter is how many events in a row must exhaust their
	// retries until the endpoint is disabled: 3, or 1 on an older page.
	DisableWebhookAfter int `json:"disable_webhook_after"`

	// RateLimit blocks the caller with a plain-text 429 for the rest of the
	// minute after more than so many requests in one second; 0 never does.
	RateLimit int `json:"rate_limit"`

	// How long things take, on the sandbox's clock. Zero is at once for
	// AcquirerLatency (which is real time) and RefundDelay, never for the
	// lifetimes.
	AcquirerLatency Duration `json:"acquirer_latency"`
	RefundDelay     Duration `json:"refund_delay"`
	HoldLifetime    Duration `json:"hold_lifetime"`   // 7 days
	IntentLifetime  Duration `json:"intent_lifetime"` // "a set period"
	ActionLifetime  Duration `json:"action_lifetime"` // of a 3DS page
}

// DefaultProfile returns the profile of a new sandbox.
func DefaultProfile() Profile {
	return Profile{
		OffSession:           "allowed",
		MinimumAmount:        2000,
		Idempotency:          "off",
		IdempotencyMismatch:  "refuse",
		DeclineStatus:        400,
		LastPaymentError:     true,
		SavedMethodShape:     "b",
		SerialAttach:         true,
		ReattachDuringAction: true,
		DisableWebhookAfter:  3,
		RefundDelay:          Duration(5 * time.Second),
		HoldLifetime:         Duration(7 * 24 * time.Hour),
		ActionLifetime:       Duration(24 * time.Hour),
	}
}

func (p Profile) validate() error {
	oneOf := func(name, value string, allowed ...string) error {
		for _, a := range allowed {
			if value == a {
				return nil
			}
		}
		return fmt.Errorf("sandbox: profile %s is %q; it takes one of %q", name, value, allowed)
	}
	for _, err := range []error{
		oneOf("off_session", p.OffSession, "allowed", "not_allowed", "three_ds"),
		oneOf("idempotency", p.Idempotency, "off", "replay", "replay_failures"),
		oneOf("idempotency_mismatch", p.IdempotencyMismatch, "refuse", "replay"),
		oneOf("saved_method_shape", p.SavedMethodShape, "a", "b", "c"),
		oneOf("decline_status", fmt.Sprint(p.DeclineStatus), "400", "402"),
	} {
		if err != nil {
			return err
		}
	}
	switch {
	case p.MinimumAmount < 1 || p.MinimumAmount > maxAmount:
		return fmt.Errorf("sandbox: profile minimum_amount is %d; it takes 1 to %d centavos", p.MinimumAmount, maxAmount)
	case p.DisableWebhookAfter < 1:
		return fmt.Errorf("sandbox: profile disable_webhook_after is %d; it takes 1 or more", p.DisableWebhookAfter)
	case p.RateLimit < 0:
		return fmt.Errorf("sandbox: profile rate_limit is %d; it takes 0 (none) or more", p.RateLimit)
	case min(p.AcquirerLatency, p.RefundDelay, p.HoldLifetime, p.IntentLifetime, p.ActionLifetime) < 0:
		return fmt.Errorf("sandbox: a duration of the profile is negative")
	}
	return nil
}
