package paymongo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// The golden vectors were made with: printf '%s.%s' "$t" "$body" | openssl dgst -sha256 -hmac "$secret"
const (
	goldenSecret = "whsk_goldenVectorSecret01"
	goldenOther  = "whsk_goldenVectorSecret02"
	goldenTime   = 1763687799
	goldenBody   = `{"data":{"id":"evt_1","type":"event","attributes":{"type":"payment.paid","note":"a & b < c"}}}`
	goldenMAC    = "7a7c3ce18b6e5f9a0f85dedef88aa40469f2b21c6296713df74334643db046b4"
	goldenMAC2   = "bc471dc0ace77bcd082bc750492e62fb8dfa0e002af781bbd247338625578b55"
)

func sign(secret string, at int64, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = fmt.Fprintf(mac, "%d.%s", at, body)
	return hex.EncodeToString(mac.Sum(nil))
}

func mustSecrets(t testing.TB, secrets ...string) WebhookSecrets {
	t.Helper()
	w, err := NewWebhookSecrets(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestVerifySignature(t *testing.T) {
	t.Parallel()
	now := time.Unix(goldenTime, 0)
	one, two := mustSecrets(t, goldenSecret), mustSecrets(t, goldenOther, goldenSecret)
	good := fmt.Sprintf("t=%d,te=%s,li=", goldenTime, goldenMAC)
	zeros := strings.Repeat("0", 64)
	const minute5 = 5 * time.Minute
	other := errors.New("some other error")

	for _, tt := range []struct {
		name      string
		header    string
		body      string
		secrets   WebhookSecrets
		mode      Mode
		now       time.Time
		tolerance time.Duration
		want      error
	}{
		{"AnyAge", good, goldenBody, one, ModeTest, now.AddDate(50, 0, 0), AnyAge, nil},
		{"AnyAgeAtTheEndOfTime", good, goldenBody, one, ModeTest, time.Unix(math.MaxInt64/2, 0), AnyAge, nil},
		{"AnyAgeAtTheStartOfTime", good, goldenBody, one, ModeTest, time.Time{}, AnyAge, nil},
		{"BodyCut", good, goldenBody[:len(goldenBody)-1], one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"BodyEmpty", good, "", one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"BodyReordered", good, `{"data":{"type":"event","id":"evt_1","attributes":{"type":"payment.paid","note":"a & b < c"}}}`, one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"BodyReserialised", good, strings.ReplaceAll(goldenBody, "&", `\u0026`), one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"BodyWithSpace", good, goldenBody + " ", one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"BothFilled", fmt.Sprintf("t=%d,te=%s,li=%s", goldenTime, goldenMAC, zeros), goldenBody, one, ModeTest, now, minute5, nil},
		{"BothFilledOtherMode", fmt.Sprintf("t=%d,te=%s,li=%s", goldenTime, goldenMAC, zeros), goldenBody, one, ModeLive, now, minute5, ErrSignatureMismatch},
		{"Empty", "", goldenBody, one, ModeTest, now, minute5, ErrSignatureMissing},
		{"EmptyBlank", "  ", goldenBody, one, ModeTest, now, minute5, ErrSignatureMissing},
		{"Future", good, goldenBody, one, ModeTest, now.Add(-minute5 - time.Second), minute5, ErrSignatureStale},
		{"FutureWithin", good, goldenBody, one, ModeTest, now.Add(-minute5), minute5, nil},
		{"Good", good, goldenBody, one, ModeTest, now, minute5, nil},
		{"GoodLive", fmt.Sprintf("t=%d,te=,li=%s", goldenTime, goldenMAC), goldenBody, one, ModeLive, now, minute5, nil},
		{"HexUpperCase", fmt.Sprintf("t=%d,te=%s,li=", goldenTime, strings.ToUpper(goldenMAC)), goldenBody, one, ModeTest, now, minute5, nil},
		{"ModeEmpty", good, goldenBody, one, "", now, minute5, other},
		{"ModeOfTheOther", good, goldenBody, one, ModeLive, now, minute5, ErrSignatureMissing},
		{"ModeUnknown", good, goldenBody, one, "prod", now, minute5, other},
		{"NameMissing", fmt.Sprintf("t=%d,te=%s", goldenTime, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"NameTwice", good + ",te=" + zeros, goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"NameUnknown", good + ",v2=abc", goldenBody, one, ModeTest, now, minute5, nil},
		{"NoSecrets", good, goldenBody, WebhookSecrets{}, ModeTest, now, minute5, other},
		{"OrderAndSpaces", fmt.Sprintf(" li= , te=%s, t=%d", goldenMAC, goldenTime), goldenBody, one, ModeTest, now, minute5, nil},
		{"OtherModeMalformed", fmt.Sprintf("t=%d,te=%s,li=zz", goldenTime, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"SecretOfAnother", good, goldenBody, mustSecrets(t, goldenOther), ModeTest, now, minute5, ErrSignatureMismatch},
		{"SecretWithSpaces", good, goldenBody, mustSecrets(t, " "+goldenSecret+"\n"), ModeTest, now, minute5, nil},
		{"SecretsTwoFirst", fmt.Sprintf("t=%d,te=%s,li=", goldenTime, goldenMAC2), goldenBody, two, ModeTest, now, minute5, nil},
		{"SecretsTwoSecond", good, goldenBody, two, ModeTest, now, minute5, nil},
		{"SignatureLong", fmt.Sprintf("t=%d,te=%s00,li=", goldenTime, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"SignatureNoHex", fmt.Sprintf("t=%d,te=%s,li=", goldenTime, strings.Repeat("g", 64)), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"SignatureShort", fmt.Sprintf("t=%d,te=%s,li=", goldenTime, goldenMAC[:62]), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"SignatureZeros", fmt.Sprintf("t=%d,te=%s,li=", goldenTime, zeros), goldenBody, one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"Stale", good, goldenBody, one, ModeTest, now.Add(minute5 + time.Second), minute5, ErrSignatureStale},
		{"StaleAndForged", fmt.Sprintf("t=%d,te=%s,li=", goldenTime, zeros), goldenBody, one, ModeTest, now.AddDate(1, 0, 0), minute5, ErrSignatureMismatch},
		{"StaleWithin", good, goldenBody, one, ModeTest, now.Add(minute5), minute5, nil},
		{"TimeChanged", fmt.Sprintf("t=%d,te=%s,li=", goldenTime+1, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"TimeEmpty", "t=,te=" + goldenMAC + ",li=", goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"TimeFraction", fmt.Sprintf("t=%d.0,te=%s,li=", goldenTime, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"TimeHex", "t=0x1,te=" + goldenMAC + ",li=", goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"TimeNegative", "t=-1,te=" + goldenMAC + ",li=", goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"TimeOverflow", "t=99999999999999999999,te=" + goldenMAC + ",li=", goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"TimePlus", fmt.Sprintf("t=+%d,te=%s,li=", goldenTime, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"TimeZeroPadded", fmt.Sprintf("t=0%d,te=%s,li=", goldenTime, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMismatch},
		{"ToleranceNegative", good, goldenBody, one, ModeTest, now, -1, other},
		{"ToleranceZero", good, goldenBody, one, ModeTest, now, 0, other},
		{"TooLong", good + "," + strings.Repeat("x=,", 1000), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"WithoutEquals", good + ",x", goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
		{"WithoutNames", fmt.Sprintf("%d,%s,", goldenTime, goldenMAC), goldenBody, one, ModeTest, now, minute5, ErrSignatureMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := VerifySignature(tt.header, []byte(tt.body), tt.secrets, tt.mode, tt.now, tt.tolerance)
			switch {
			case errors.Is(tt.want, other):
				for _, known := range []error{nil, ErrSignatureMissing, ErrSignatureMalformed, ErrSignatureMismatch, ErrSignatureStale} {
					if errors.Is(err, known) {
						t.Errorf("got %v, which is about the signature", err)
					}
				}
			case !errors.Is(err, tt.want):
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				for _, hint := range []string{goldenSecret, goldenMAC, zeros} {
					if strings.Contains(err.Error(), hint) {
						t.Errorf("%v tells too much", err)
					}
				}
			}
			var stale *StaleError
			if errors.As(err, &stale) && (stale.SignedAt.Unix() != goldenTime || stale.Age != tt.now.Sub(stale.SignedAt)) {
				t.Errorf("signed at %s, %s ago", stale.SignedAt, stale.Age)
			}
		})
	}
}

func TestGoldenVectors(t *testing.T) {
	t.Parallel()
	if got := sign(goldenSecret, goldenTime, goldenBody); got != goldenMAC {
		t.Errorf("got %s", got)
	}
	if got := sign(goldenOther, goldenTime, goldenBody); got != goldenMAC2 {
		t.Errorf("got %s", got)
	}
}

func TestNewWebhookSecrets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		secrets []string
		ok      bool
	}{
		{"Blank", []string{" \n"}, false},
		{"Empty", []string{""}, false},
		{"None", nil, false},
		{"One", []string{"whsk_a"}, true},
		{"SecondEmpty", []string{"whsk_a", ""}, false},
		{"Three", []string{"whsk_a", "whsk_b", "whsk_c"}, false},
		{"Twice", []string{"whsk_a", " whsk_a"}, false},
		{"Two", []string{"whsk_a", "whsk_b"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := NewWebhookSecrets(tt.secrets...); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			} else if err != nil && strings.Contains(err.Error(), "whsk_") {
				t.Errorf("%v shows a secret", err)
			}
		})
	}
}
