package billing

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Network is the card network a card belongs to.
type Network string

// The networks with rules of their own. Every other card obeys both sets: no
// source tells what its network wants.
const (
	NetworkVisa       Network = "visa"
	NetworkMastercard Network = "mastercard"
	NetworkOther      Network = "other"
)

// NetworkOf reads a card's brand as PayMongo writes it.
func NetworkOf(brand string) Network {
	switch strings.ToLower(strings.TrimSpace(brand)) {
	case "visa":
		return NetworkVisa
	case "mastercard", "master_card":
		return NetworkMastercard
	}
	return NetworkOther
}

// AdviceCode is a Mastercard merchant advice code, two digits. PayMongo passes
// none on as far as its pages tell, so it is mostly empty.
type AdviceCode string

// adviceWait is how long a merchant advice code wants the card left alone. 24 to
// 30 carry their wait; the 72 hours of 02 are what processors recommend. Sources:
// testdata/decline-codes.json, mastercard.
var adviceWait = map[AdviceCode]time.Duration{
	"02": 72 * time.Hour,
	"24": 1 * time.Hour,
	"25": 24 * time.Hour,
	"26": 48 * time.Hour,
	"27": 96 * time.Hour,
	"28": 144 * time.Hour,
	"29": 192 * time.Hour,
	"30": 240 * time.Hour,
}

// adviceNever: do not try again, and the holder has stopped recurring payments.
var adviceNever = map[AdviceCode]struct{}{"03": {}, "21": {}}

// CardAttempt is an attempt on a card in the past, of whatever invoice.
type CardAttempt struct {
	At time.Time
	// Declined is also true while the outcome is not known: it may have been.
	Declined bool
	// VisaCategory is 1 to 4, or 0 where it is not known.
	VisaCategory int
	// AdviceCode is empty where it is not known.
	AdviceCode AdviceCode
}

// CardLimits is how often a card may be asked. The zero value allows nothing;
// start from DefaultCardLimits.
type CardLimits struct {
	// VisaDeclines in 30 days: with as many declines behind it a card rests.
	VisaDeclines int
	// MastercardShort in 24 hours and MastercardLong in 30 days, likewise.
	MastercardShort int
	MastercardLong  int
	// InvoiceAttempts is a limit of our own: attempts of one invoice, on all cards,
	// in its whole life, automatic or not.
	InvoiceAttempts int
}

const (
	window24h = 24 * time.Hour
	window30d = 30 * 24 * time.Hour
)

// DefaultCardLimits are the networks' numbers, as processors publish them
// (testdata/decline-codes.json). Sources word the limit both as N declines and as
// N reattempts after the first decline; the first reading stops one earlier and
// is the one taken. Every decline on the card counts, although Visa's and some of
// Mastercard's texts count the same amount only: the same card is rarely asked
// for two amounts twenty times.
func DefaultCardLimits() CardLimits {
	return CardLimits{
		VisaDeclines:    20,
		MastercardShort: 10,
		MastercardLong:  35,
		InvoiceAttempts: 12,
	}
}

// LimitRule names the rule that denied an attempt, for logs, metrics and the API.
type LimitRule string

// The rules.
const (
	LimitRuleNone              LimitRule = ""
	LimitRuleInvoiceAttempts   LimitRule = "invoice_attempts"
	LimitRuleMastercard24h     LimitRule = "mastercard_24h"
	LimitRuleMastercard30d     LimitRule = "mastercard_30d"
	LimitRuleMastercardAdvice  LimitRule = "mastercard_advice"
	LimitRuleMastercardWait    LimitRule = "mastercard_wait"
	LimitRuleVisa30d           LimitRule = "visa_30d"
	LimitRuleVisaCategoryNever LimitRule = "visa_category_1"
)

// Permit is the answer of the guard.
type Permit struct {
	Allowed bool
	// Until is when the rule lets go. The zero time, with Allowed false, is never.
	Until  time.Time
	Rule   LimitRule
	Reason string
}

// CardUse is what the guard has to know of a charge that is about to be armed.
type CardUse struct {
	Network Network
	// Past is every attempt on this card in the last 30 days, and any older one
	// with a visa category or an advice code, in any order.
	Past []CardAttempt
	// InvoiceAttempts counts the attempts of this invoice so far, on any card,
	// without those that are known not to have reached one.
	InvoiceAttempts int
}

// Permit is the one guard before every attempt, automatic, by hand, in bulk or
// after a card was updated. If several rules deny, it is the one that lasts longest.
func (l CardLimits) Permit(use CardUse, now time.Time) Permit {
	worst := Permit{Allowed: true}
	deny := func(rule LimitRule, until time.Time, format string, args ...any) {
		never := until.IsZero()
		if !worst.Allowed && (worst.Until.IsZero() || !never && !until.After(worst.Until)) {
			return
		}
		worst = Permit{Rule: rule, Until: until, Reason: fmt.Sprintf(format, args...)}
	}
	count := func(rule LimitRule, limit int, window time.Duration, per string) {
		if until, full := fullUntil(use.Past, limit, window, now); full {
			deny(rule, until, "%d declines on this card in %s are the limit", limit, per)
		}
	}

	if use.InvoiceAttempts >= l.InvoiceAttempts {
		deny(LimitRuleInvoiceAttempts, time.Time{}, "%d attempts of one invoice are the limit", l.InvoiceAttempts)
	}
	if use.Network != NetworkMastercard {
		for _, a := range use.Past {
			if a.VisaCategory == 1 {
				deny(LimitRuleVisaCategoryNever, time.Time{}, "the issuer will never approve this card (category 1)")
			}
		}
		count(LimitRuleVisa30d, l.VisaDeclines, window30d, "30 days")
	}
	if use.Network != NetworkVisa {
		for _, a := range use.Past {
			if _, never := adviceNever[a.AdviceCode]; never {
				deny(LimitRuleMastercardAdvice, time.Time{}, "advice code %s: do not try this card again", a.AdviceCode)
			}
			if until := a.At.Add(adviceWait[a.AdviceCode]); until.After(now) && adviceWait[a.AdviceCode] > 0 {
				deny(LimitRuleMastercardWait, until, "advice code %s: wait %s", a.AdviceCode, adviceWait[a.AdviceCode])
			}
		}
		count(LimitRuleMastercard24h, l.MastercardShort, window24h, "24 hours")
		count(LimitRuleMastercard30d, l.MastercardLong, window30d, "30 days")
	}
	return worst
}

// fullUntil reports whether limit declines lie in the window before now, and when
// enough of them will have left it. A decline exactly a window ago has left.
func fullUntil(past []CardAttempt, limit int, window time.Duration, now time.Time) (time.Time, bool) {
	var in []time.Time
	for _, a := range past {
		if a.Declined && a.At.Add(window).After(now) {
			in = append(in, a.At)
		}
	}
	if len(in) < limit {
		return time.Time{}, false
	}
	if limit < 1 {
		return time.Time{}, true // never, by configuration
	}
	slices.SortFunc(in, time.Time.Compare)
	return in[len(in)-limit].Add(window), true
}
