package paymongo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// SignatureHeader is the header of a webhook delivery that holds its signature.
const SignatureHeader = "Paymongo-Signature"

// AnyAge is the tolerance that accepts deliveries of any age. PayMongo does not
// say whether a repeated delivery, up to 2.3 hours later, is signed anew.
const AnyAge time.Duration = math.MaxInt64

// Errors of [VerifySignature]. Only a stale signature is an authentic one.
var (
	ErrSignatureMissing   = errors.New("paymongo: no webhook signature")
	ErrSignatureMalformed = errors.New("paymongo: malformed webhook signature")
	ErrSignatureMismatch  = errors.New("paymongo: webhook signature does not match: forged, changed on the way, or signed with another secret")
	ErrSignatureStale     = errors.New("paymongo: webhook signature is too old or too new")
)

// StaleError is an [ErrSignatureStale] with the time that was signed. The
// delivery is authentic: it may be a late repetition, or a replay.
type StaleError struct {
	SignedAt time.Time
	Age      time.Duration // negative if signed in the future
}

// Error says how old the signature is.
func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: signed at %s, %s ago", ErrSignatureStale, e.SignedAt.UTC().Format(time.RFC3339), e.Age)
}

// Is makes a StaleError an ErrSignatureStale.
func (e *StaleError) Is(target error) bool { return target == ErrSignatureStale }

// Mode is one of PayMongo's two worlds. A delivery is signed for one of them.
type Mode string

// The modes.
const (
	ModeTest Mode = "test"
	ModeLive Mode = "live"
)

// ModeOf returns the mode of a key or resource with the given livemode.
func ModeOf(livemode bool) Mode {
	if livemode {
		return ModeLive
	}
	return ModeTest
}

// WebhookSecrets are the secrets a delivery may be signed with: one, or two
// while one replaces the other. They print as ***.
type WebhookSecrets struct{ secrets []Secret }

// NewWebhookSecrets takes one or two secrets (whsk_...). White space around them
// is ignored. An empty secret is refused, for anybody can sign with it.
func NewWebhookSecrets(secrets ...string) (WebhookSecrets, error) {
	if len(secrets) < 1 || len(secrets) > 2 {
		return WebhookSecrets{}, fmt.Errorf("paymongo: %d webhook secrets; give one, or two during a rotation", len(secrets))
	}
	var w WebhookSecrets
	for i, s := range secrets {
		if s = strings.TrimSpace(s); s == "" {
			return WebhookSecrets{}, fmt.Errorf("paymongo: webhook secret %d is empty; copy it from the webhook's secret_key", i+1)
		}
		w.secrets = append(w.secrets, NewSecret(s))
	}
	if len(w.secrets) == 2 && w.secrets[0].Equal(w.secrets[1]) {
		return WebhookSecrets{}, errors.New("paymongo: the two webhook secrets are the same; give one, or the old and the new one")
	}
	return w, nil
}

// String returns ***.
func (w WebhookSecrets) String() string { return hidden }

// GoString returns ***.
func (w WebhookSecrets) GoString() string { return hidden }

// Format writes *** for every verb.
func (w WebhookSecrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue returns ***.
func (w WebhookSecrets) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText returns ***.
func (w WebhookSecrets) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// VerifySignature checks the [SignatureHeader] of a webhook delivery against
// its raw body. Only the signature of mode is looked at; PayMongo leaves that of
// the other mode empty, or fills both. The time signed must lie within tolerance
// of now, before or after; see [AnyAge].
//
// Call it before reading anything from the body. Errors are [ErrSignatureMissing],
// [ErrSignatureMalformed], [ErrSignatureMismatch], a *[StaleError], or, for
// arguments that verify nothing, some other error.
func VerifySignature(header string, body []byte, secrets WebhookSecrets, mode Mode, now time.Time, tolerance time.Duration) error {
	switch {
	case len(secrets.secrets) == 0:
		return errors.New("paymongo: no webhook secrets to verify with; make them with NewWebhookSecrets")
	case mode != ModeTest && mode != ModeLive:
		return fmt.Errorf("paymongo: mode is %q; use ModeTest or ModeLive", string(mode))
	case tolerance <= 0:
		return fmt.Errorf("paymongo: tolerance is %s; use a positive one, or AnyAge", tolerance)
	}
	sig, err := parseSignature(header)
	if err != nil {
		return err
	}
	signature := sig.test
	if mode == ModeLive {
		signature = sig.live
	}
	if signature == nil {
		return fmt.Errorf("%w for %s mode; the delivery is of the other mode, or the wrong mode is configured", ErrSignatureMissing, string(mode))
	}
	match := false
	for _, secret := range secrets.secrets {
		mac := hmac.New(sha256.New, []byte(secret.Reveal()))
		_, _ = io.WriteString(mac, sig.time+".")
		_, _ = mac.Write(body)
		// No early exit: how long this takes must not tell which secret is in use.
		match = hmac.Equal(mac.Sum(nil), signature) || match
	}
	if !match {
		return ErrSignatureMismatch
	}
	signedAt := time.Unix(sig.unix, 0)
	// Sub stops at the largest and smallest Duration instead of overflowing.
	if age := now.Sub(signedAt); tolerance != AnyAge && (age > tolerance || age < -tolerance) {
		return &StaleError{SignedAt: signedAt, Age: age}
	}
	return nil
}

// signature is a parsed header.
type signature struct {
	time string // as it was signed
	unix int64
	test []byte // nil if empty
	live []byte
}

// maxSignatureHeader is far more than t, te and li can take, in bytes.
const maxSignatureHeader = 1024

// parseSignature reads "t=..,te=..,li=.." by name: the order carries no
// meaning, and every name must stand there exactly once. Other names are
// ignored, as PayMongo may add some.
func parseSignature(header string) (signature, error) {
	var sig signature
	if strings.TrimSpace(header) == "" {
		return sig, ErrSignatureMissing
	}
	malformed := func(why string) (signature, error) {
		return signature{}, fmt.Errorf("%w: %s", ErrSignatureMalformed, why)
	}
	if len(header) > maxSignatureHeader {
		return malformed("header too long")
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(header, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return malformed("a part without =")
		}
		if _, twice := fields[name]; twice {
			return malformed("a name stands there twice")
		}
		fields[name] = value
	}
	for _, name := range []string{"t", "te", "li"} {
		if _, ok := fields[name]; !ok {
			return malformed(name + " is not there")
		}
	}
	// ParseUint takes digits only; the bound keeps arithmetic with the time far from overflowing.
	unix, err := strconv.ParseUint(fields["t"], 10, 64)
	if err != nil || unix > maxUnixSeconds {
		return malformed("t is no unix time in seconds")
	}
	sig.time, sig.unix = fields["t"], int64(unix)
	for _, f := range []struct {
		name string
		to   *[]byte
	}{{"te", &sig.test}, {"li", &sig.live}} {
		value := fields[f.name]
		if value == "" {
			continue
		}
		decoded, err := hex.DecodeString(value)
		if err != nil || len(decoded) != sha256.Size {
			return malformed(f.name + " is not 64 hexadecimal digits")
		}
		*f.to = decoded
	}
	return sig, nil
}
