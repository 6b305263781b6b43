package billing

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// story is what happens to one invoice: one outcome an attempt, in order. The
// policy says when, and with which card.
type story struct {
	name     string
	policy   string // JSON, "" for the default
	zone     string // "" for Asia/Manila
	due      string // "2026-01-05 09:00", local
	cards    []SavedCard
	outcomes []string // a decline code, or paid, needs_action, no_effect, armed
	// late delays the settling of an attempt, by its number from 0.
	late map[int]time.Duration
}

var (
	goodCard   = SavedCard{ID: "card_1", ExpMonth: 12, ExpYear: 2030}
	secondCard = SavedCard{ID: "card_2", ExpMonth: 12, ExpYear: 2030}
	oldCard    = SavedCard{ID: "card_old", ExpMonth: 12, ExpYear: 2025}
	shortCard  = SavedCard{ID: "card_short", ExpMonth: 1, ExpYear: 2026}
)

func repeat(outcome string, n int) []string {
	outcomes := make([]string, n)
	for i := range outcomes {
		outcomes[i] = outcome
	}
	return outcomes
}

var stories = []story{
	{name: "SoftUntilTheEnd", outcomes: repeat("debit_card_usage_limit_exceeded", 9)},
	{name: "SoftThenPaid", outcomes: []string{"issuer_declined", "issuer_declined", "paid"}},
	{name: "GenericDeclineIsTriedThreeTimes", outcomes: repeat("generic_decline", 9)},
	{name: "UnlistedIsTriedTwice", outcomes: repeat("brand_new_code", 9)},
	{name: "UnlistedCodesCountAsOne", outcomes: []string{"new_1", "new_2", "new_3"}},
	{name: "InsufficientFundsWaitsForPayday", outcomes: repeat("insufficient_funds", 9)},
	{name: "PaydayMovesBeforeTheYearsEnd", due: "2025-12-16 09:00", outcomes: repeat("insufficient_funds", 9)},
	{name: "PaydayMovesBeforeHolyWeek", due: "2025-04-16 09:00", outcomes: repeat("credit_limit_exceeded", 9)},
	{name: "PaydayItselfMayBeTooEarly", due: "2026-01-15 08:00", outcomes: repeat("insufficient_funds", 9)},
	{name: "HardMovesOnToTheNextCard", cards: []SavedCard{goodCard, secondCard}, outcomes: []string{"stolen_card", "paid"}},
	{name: "HardOnEveryCard", cards: []SavedCard{goodCard, secondCard}, outcomes: []string{"lost_card", "card_expired"}},
	{name: "HardWithOneCard", outcomes: []string{"card_expired"}},
	{name: "HardOnTheLastDayStillLeavesTimeToAct", outcomes: append(repeat("debit_card_usage_limit_exceeded", 4), "card_expired")},
	{name: "SecondCardGoesThroughTheDays", cards: []SavedCard{goodCard, secondCard},
		outcomes: append([]string{"fraudulent"}, repeat("debit_card_usage_limit_exceeded", 9)...)},
	{name: "CapCountsOnOneCard", cards: []SavedCard{goodCard, secondCard},
		outcomes: []string{"do_not_honor", "do_not_honor", "lost_card", "do_not_honor", "paid"}},
	{name: "HolderMustAct", outcomes: []string{"call_card_issuer"}},
	{name: "ThreeDSWanted", cards: []SavedCard{goodCard, secondCard}, outcomes: []string{"needs_action"}},
	{name: "ConfigStopsWithoutADunningStep", outcomes: []string{"config_invalid_or_missing"}},
	{name: "GatewayIsTriedSoon", outcomes: []string{"issuer_not_available", "issuer_not_available", "paid"}},
	{name: "GatewayIsNeverTheCustomersFault", outcomes: repeat("issuer_not_available", 12)},
	{name: "GatewayFaultDoesNotUseUpDays", outcomes: append(repeat("issuer_not_available", 5), repeat("debit_card_usage_limit_exceeded", 9)...)},
	{name: "ConfirmedTimeoutIsTriedSoon", outcomes: []string{"processor_timeout", "paid"}},
	{name: "UnknownIsAskedFor", outcomes: []string{"armed"}},
	{name: "NeverSentIsNoDunningStep", outcomes: append(repeat("no_effect", 6), "issuer_declined", "paid")},
	{name: "NoCardAtAll", cards: []SavedCard{}},
	{name: "OnlyAnExpiredCard", cards: []SavedCard{oldCard}},
	{name: "ExpiredCardIsPassedOver", cards: []SavedCard{oldCard, goodCard}, outcomes: []string{"paid"}},
	{name: "CardExpiresBeforeTheNextAttempt", due: "2026-01-31 09:00", cards: []SavedCard{shortCard}, outcomes: []string{"issuer_declined"}},
	{name: "CardExpiresAndTheNextTakesOver", due: "2026-01-31 09:00", cards: []SavedCard{shortCard, secondCard}, outcomes: []string{"issuer_declined", "paid"}},
	{name: "OutageSkipsDaysWithoutARush", outcomes: repeat("debit_card_usage_limit_exceeded", 9), late: map[int]time.Duration{1: 100 * time.Hour}},
	{name: "OutageOverTheLastDay", outcomes: repeat("debit_card_usage_limit_exceeded", 9), late: map[int]time.Duration{1: 300 * time.Hour}},
	{name: "EveningAttemptIsFollowedInTheMorning", due: "2026-01-05 23:30", outcomes: repeat("debit_card_usage_limit_exceeded", 9)},
	{name: "AttemptRightBeforeTheHourPutsTheNextOff", due: "2026-01-05 23:30", policy: `{"offsets_days":[1,3,4],"hour":0}`,
		outcomes: repeat("debit_card_usage_limit_exceeded", 9)},
	{name: "NoDaysMeansNoSecondChance", policy: `{"offsets_days":[],"end":"mark_unpaid"}`, outcomes: []string{"issuer_declined"}},
	{name: "NoDaysAndACustomerWhoMustAct", policy: `{"offsets_days":[],"end":"leave_past_due"}`, outcomes: []string{"call_card_issuer"}},
	{name: "OwnPolicy", policy: `{"offsets_days":[2,9],"hour":18,"spread_minutes":0,"end":"leave_past_due",
		"overrides":{"insufficient_funds":{"offsets_days":[4,8,12]},"unlisted":{"cap":1},"gateway":{"delays_minutes":[60]}}}`,
		outcomes: []string{"insufficient_funds", "issuer_not_available", "insufficient_funds", "insufficient_funds", "insufficient_funds", "insufficient_funds"}},
	{name: "HourThatDoesNotExist", zone: "America/New_York", policy: `{"hour":2,"spread_minutes":0}`, due: "2026-03-07 12:00",
		outcomes: repeat("debit_card_usage_limit_exceeded", 9)},
}

// tell plays the story and writes down every step, in local time.
func (s story) tell(t *testing.T) string {
	zone := mustZone(t, orElse(s.zone, "Asia/Manila"))
	due, err := time.ParseInLocation("2006-01-02 15:04", orElse(s.due, "2026-01-05 09:00"), zone)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ParseDunningPolicy([]byte(orElse(s.policy, "{}")))
	if err != nil {
		t.Fatal(err)
	}
	f := DunningFacts{InvoiceID: s.name, DueAt: due, Cards: s.cards}
	if s.cards == nil {
		f.Cards = []SavedCard{goodCard}
	}
	var told strings.Builder
	line := func(at time.Time, format string, args ...any) {
		fmt.Fprintf(&told, "  %s  %s\n", at.In(zone).Format("Mon 02 Jan 15:04"), fmt.Sprintf(format, args...))
	}
	now := due
	for step := 0; ; step++ {
		d := policy.NextAttempt(f, now, zone, BankHolidays())
		if d.At.IsZero() || d.At.Before(now) || d.Reason == "" {
			t.Errorf("%s: decision without a time to come or a reason: %+v", s.name, d)
		}
		if again := policy.NextAttempt(f, now, zone, BankHolidays()); again != d {
			t.Errorf("%s: asked twice: %+v and %+v", s.name, d, again)
		}
		if step > 0 {
			line(now, "-> %s%s: %s", d.Action, orElse(" "+d.CardID+string(d.Cause), ""), d.Reason)
		}
		switch d.Action {
		case DunningActionNeedsCustomer:
			if step == 0 {
				line(now, "-> %s: %s", d.Action, d.Reason)
			}
			end := policy.NextAttempt(f, d.At, zone, BankHolidays())
			line(d.At, "-> %s %s: %s", end.Action, end.Cause, end.Reason)
			for _, at := range []time.Time{now, d.At.Add(-1), d.At} {
				if got, may := policy.AttemptNow(f, at, zone, BankHolidays()); may || got != policy.NextAttempt(f, at, zone, BankHolidays()) {
					t.Errorf("%s at %s, while the customer is waited for: %t, %+v", s.name, at, may, got)
				}
			}
			return told.String()
		case DunningActionEnd, DunningActionHold, DunningActionReview:
			return told.String()
		}
		s.checkNow(t, policy, f, d, now, zone)
		if step == len(s.outcomes) {
			t.Errorf("%s: goes on after the last outcome", s.name)
			return told.String()
		}
		now = d.At
		card, found := f.Card(now, zone)
		if !found || d.CardID != "" && d.CardID != card.ID {
			t.Fatalf("%s: decided %+v, but the card is %v", s.name, d, card)
		}
		attempt := DunningAttempt{At: now, CardID: card.ID}
		line(now, "%s: %s", card.ID, s.outcomes[step])
		switch outcome := s.outcomes[step]; outcome {
		case "paid":
			return told.String()
		case "armed", "needs_action", "no_effect":
			attempt.State = AttemptState(outcome)
		default:
			attempt.State, attempt.Code, attempt.Confirmed = AttemptDeclined, DeclineCode(outcome), true
		}
		f.Attempts = append(f.Attempts, attempt)
		now = now.Add(s.late[step])
	}
}

// checkNow: an attempt may be made from the time decided on, and not before.
func (s story) checkNow(t *testing.T, policy DunningPolicy, f DunningFacts, d Decision, now time.Time, zone *time.Location) {
	if _, may := policy.AttemptNow(f, d.At, zone, BankHolidays()); !may {
		t.Errorf("%s: no attempt at %s, although %+v", s.name, d.At, d)
	}
	if d.At.After(now) && len(s.late) == 0 {
		if _, may := policy.AttemptNow(f, d.At.Add(-1), zone, BankHolidays()); may {
			t.Errorf("%s: an attempt before %s", s.name, d.At)
		}
	}
}

func orElse(s, other string) string {
	if strings.TrimSpace(s) == "" {
		return other
	}
	return s
}

func TestDunningStories(t *testing.T) {
	t.Parallel()
	var told strings.Builder
	for _, s := range stories {
		fmt.Fprintf(&told, "%s\n%s\n", s.name, s.tell(t))
	}
	golden(t, "dunning.golden", told.String())
}

func TestNextAttempt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 5, 1, 0, 0, 0, time.UTC)
	manila := mustZone(t, "Asia/Manila")
	declined := func(code DeclineCode) DunningFacts {
		return DunningFacts{DueAt: now, Cards: []SavedCard{goodCard}, Attempts: []DunningAttempt{
			{At: now, CardID: goodCard.ID, State: AttemptDeclined, Code: code},
		}}
	}

	t.Run("EveryCodeIsDecided", func(t *testing.T) {
		t.Parallel()
		want := map[DeclineClass]DunningAction{
			DeclineClassHard: DunningActionNeedsCustomer, DeclineClassAction: DunningActionNeedsCustomer,
			DeclineClassSoft: DunningActionRetryAt, DeclineClassGateway: DunningActionRetryAt,
			DeclineClassConfig: DunningActionHold, DeclineClassUnknown: DunningActionHold,
		}
		for _, code := range append(DeclineCodes(), "", "line\nbreak") {
			d := DefaultDunningPolicy().NextAttempt(declined(code), now, manila, BankHolidays())
			if d.Action != want[Classify(code).Class] {
				t.Errorf("%q: %+v", code, d)
			}
			if strings.ContainsFunc(d.Reason, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q: the reason has control characters: %q", code, d.Reason)
			}
		}
	})

	t.Run("FlaggedCardsAreNotUsed", func(t *testing.T) {
		t.Parallel()
		gone, dead := secondCard, secondCard
		gone.Gone, dead.HardDeclined = true, true
		f := declined("lost_card")
		f.Cards = append(f.Cards, gone, dead)
		if d := DefaultDunningPolicy().NextAttempt(f, now, manila, BankHolidays()); d.Action != DunningActionNeedsCustomer {
			t.Errorf("%+v", d)
		}
	})

	t.Run("SpreadsInvoicesWithinTheHour", func(t *testing.T) {
		t.Parallel()
		minutes := map[int]bool{}
		for i := range 500 {
			f := declined("issuer_declined")
			f.InvoiceID = fmt.Sprint("invoice ", i)
			d := DefaultDunningPolicy().NextAttempt(f, now, manila, BankHolidays())
			local := d.At.In(manila)
			if local.Hour() != 9 || local.Minute() > 30 || local.Day() != 6 {
				t.Fatalf("at %s", local)
			}
			minutes[local.Minute()] = true
		}
		if len(minutes) != 31 {
			t.Errorf("500 invoices share %d minutes", len(minutes))
		}
	})

	t.Run("NothingIsAttemptedWhileTheOutcomeIsUnknown", func(t *testing.T) {
		t.Parallel()
		for _, state := range []AttemptState{AttemptArmed, AttemptReview, AttemptSucceeded} {
			f := declined("")
			f.Attempts[0].State = state
			if d, may := DefaultDunningPolicy().AttemptNow(f, now.AddDate(1, 0, 0), manila, BankHolidays()); may || d.Action != DunningActionHold {
				t.Errorf("%s: %t, %+v", state, may, d)
			}
		}
		unconfirmed := declined("processor_timeout")
		if d, may := DefaultDunningPolicy().AttemptNow(unconfirmed, now.AddDate(1, 0, 0), manila, BankHolidays()); may || d.Action != DunningActionHold {
			t.Errorf("%t, %+v", may, d)
		}
	})

	t.Run("OutageDoesNotTakeAPromisedAttempt", func(t *testing.T) {
		t.Parallel()
		if d, may := DefaultDunningPolicy().AttemptNow(declined("issuer_declined"), now.AddDate(0, 3, 0), manila, BankHolidays()); !may {
			t.Errorf("%+v", d)
		}
	})

	t.Run("ConfigIsTriedAgainOnceMended", func(t *testing.T) {
		t.Parallel()
		f := declined("config_invalid_or_missing")
		if d, may := DefaultDunningPolicy().AttemptNow(f, now.Add(time.Minute), manila, BankHolidays()); may {
			t.Errorf("%+v", d)
		}
		if d, may := DefaultDunningPolicy().AttemptNow(f, now.Add(holdFor), manila, BankHolidays()); !may {
			t.Errorf("%+v", d)
		}
	})

	t.Run("UnlistedCodeCannotNameAnOverride", func(t *testing.T) {
		t.Parallel()
		f := declined("payday")
		if d := DefaultDunningPolicy().NextAttempt(f, now, manila, BankHolidays()); !strings.Contains(d.Reason, "day 1 (1 of 4)") {
			t.Errorf("%+v", d)
		}
	})

	t.Run("UnsettledSuccessIsLeftAlone", func(t *testing.T) {
		t.Parallel()
		f := declined("")
		f.Attempts[0].State = AttemptSucceeded
		if d := DefaultDunningPolicy().NextAttempt(f, now, manila, BankHolidays()); d.Action != DunningActionHold {
			t.Errorf("%+v", d)
		}
	})
}

// TestDunningAlwaysEnds plays random outcomes: no card is asked again after a hard
// decline, attempts stay apart, and every invoice comes to an end.
func TestDunningAlwaysEnds(t *testing.T) {
	t.Parallel()
	zones := []string{"Asia/Manila", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe"}
	policies := []string{
		"{}", `{"offsets_days":[1,2,3,4,5,6,7,8,9,10],"hour":2}`, `{"offsets_days":[90],"overrides":{"gateway":{"delays_minutes":[1]}}}`,
		`{"overrides":{"soft":{"paydays":6,"cap":10},"payday":{"offsets_days":[5]}}}`,
	}
	// Outcomes of ours, config and no_effect, are left out: they rightly go on.
	codes := []string{"insufficient_funds", "do_not_honor", "issuer_not_available", "lost_card", "call_card_issuer", "processor_timeout", "new", "needs_action"}
	rapid.Check(t, func(t *rapid.T) {
		policy, err := ParseDunningPolicy([]byte(rapid.SampledFrom(policies).Draw(t, "policy")))
		if err != nil {
			t.Fatal(err)
		}
		zone, err := LoadZone(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		due := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 20*365*24).Draw(t, "hours")) * time.Hour)
		f := DunningFacts{InvoiceID: rapid.String().Draw(t, "invoice"), DueAt: due}
		for i := range rapid.IntRange(1, 3).Draw(t, "cards") {
			f.Cards = append(f.Cards, SavedCard{ID: fmt.Sprint("card ", i)})
		}
		dead := map[string]bool{}
		for now := due; ; {
			d := policy.NextAttempt(f, now, zone, BankHolidays())
			if d.At.Before(now) || d.At.After(due.AddDate(0, 7, 0)) {
				t.Fatalf("at %s: %+v", now, d)
			}
			switch d.Action {
			case DunningActionEnd, DunningActionReview:
				return
			case DunningActionNeedsCustomer:
				if end := policy.NextAttempt(f, d.At, zone, BankHolidays()); end.Action != DunningActionEnd {
					t.Fatalf("the wait for the customer ends with %+v", end)
				}
				return
			}
			now = d.At
			card, found := f.Card(now, zone)
			if !found || dead[card.ID] {
				t.Fatalf("%+v, and the card is %v", d, card)
			}
			attempt := DunningAttempt{At: now, CardID: card.ID, State: AttemptDeclined, Confirmed: true}
			if code := rapid.SampledFrom(codes).Draw(t, "code"); code == "needs_action" {
				attempt.State = AttemptNeedsAction
			} else {
				attempt.Code = DeclineCode(code)
			}
			dead[card.ID] = attempt.decline().Class == DeclineClassHard
			f.Attempts = append(f.Attempts, attempt)
			if len(f.Attempts) > 40 {
				t.Fatal("forty attempts and no end")
			}
		}
	})
}

func TestParseDunningPolicy(t *testing.T) {
	t.Parallel()

	t.Run("DefaultIsValid", func(t *testing.T) {
		t.Parallel()
		p, err := ParseDunningPolicy([]byte("{}"))
		if err != nil || DefaultDunningPolicy().Validate() != nil {
			t.Error(err)
		}
		if len(p.OffsetsDays) != 4 || p.End != EndActionCancel || p.Overrides["payday"].Paydays != 2 {
			t.Errorf("%+v", p)
		}
	})

	t.Run("OverridesAddToTheDefaults", func(t *testing.T) {
		t.Parallel()
		p, err := ParseDunningPolicy([]byte(`{"overrides":{"unlisted":{"cap":1},"gateway":null}}`))
		if err != nil {
			t.Fatal(err)
		}
		if p.Overrides["payday"].Paydays != 2 || p.Overrides["unlisted"].Cap != 1 || p.Overrides["gateway"].DelaysMinutes != nil {
			t.Errorf("%+v", p.Overrides)
		}
		if len(DefaultDunningPolicy().Overrides) != 2 {
			t.Error("the default was written to")
		}
	})

	t.Run("RefusesWithTheFieldsName", func(t *testing.T) {
		t.Parallel()
		for text, field := range map[string]string{
			``:                       "dunning",
			`null`:                   "dunning",
			`[]`:                     "dunning",
			`{`:                      "dunning",
			`{} {}`:                  "dunning",
			`{"offset_days":[1]}`:    "offset_days",
			`{"offsets_days":[1,1]}`: "offsets_days[1]",
			`{"offsets_days":[0]}`:   "offsets_days[0]",
			`{"offsets_days":[3,2]}`: "offsets_days[1]",
			`{"offsets_days":[91]}`:  "offsets_days[0]",
			`{"offsets_days":[1.5]}`: "offsets_days",
			`{"offsets_days":"1"}`:   "offsets_days",
			`{"offsets_days":[1,2,3,4,5,6,7,8,9,10,11]}`: "offsets_days",
			`{"hour":24}`:                                    "hour",
			`{"hour":-1}`:                                    "hour",
			`{"hour":"9"}`:                                   "hour",
			`{"spread_minutes":60}`:                          "spread_minutes",
			`{"customer_days":91}`:                           "customer_days",
			`{"end":"pause"}`:                                "end",
			`{"end":""}`:                                     "end",
			`{"overrides":{"insuficient_funds":{}}}`:         "overrides.insuficient_funds",
			`{"overrides":{"hard":{}}}`:                      "overrides.hard",
			`{"overrides":{"lost_card":{}}}`:                 "overrides.lost_card",
			`{"overrides":{"config_invalid_or_missing":{}}}`: "overrides.config_invalid_or_missing",
			`{"overrides":{"soft":{"paydays":7}}}`:           "overrides.soft.paydays",
			`{"overrides":{"soft":{"paydays":1,"offsets_days":[1]}}}`:              "overrides.soft",
			`{"overrides":{"soft":{"offsets_days":[2,1]}}}`:                        "overrides.soft.offsets_days[1]",
			`{"overrides":{"gateway":{"delays_minutes":[0]}}}`:                     "overrides.gateway.delays_minutes[0]",
			`{"overrides":{"gateway":{"delays_minutes":[2881]}}}`:                  "overrides.gateway.delays_minutes[0]",
			`{"overrides":{"gateway":{"delays_minutes":[1,1,1,1,1,1,1,1,1,1,1]}}}`: "overrides.gateway.delays_minutes",
			`{"overrides":{"soft":{"cap":11}}}`:                                    "overrides.soft.cap",
			`{"overrides":{"soft":{"caps":1}}}`:                                    "caps",
		} {
			_, err := ParseDunningPolicy([]byte(text))
			var wrong *FieldError
			if !errors.As(err, &wrong) || wrong.Field != field || wrong.Problem == "" {
				t.Errorf("%s: %v; want field %s", text, err, field)
			}
		}
	})
}

// FuzzDunningPolicy: what is taken is valid, survives being stored, and decides.
func FuzzDunningPolicy(f *testing.F) {
	for _, s := range stories {
		f.Add([]byte(orElse(s.policy, "{}")), "insufficient_funds", int64(1767574800))
	}
	f.Add([]byte(`{"overrides":null,"offsets_days":null}`), "new", int64(0))
	f.Fuzz(func(t *testing.T, text []byte, code string, unix int64) {
		policy, err := ParseDunningPolicy(text)
		if err != nil {
			var wrong *FieldError
			if !errors.As(err, &wrong) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		stored, err := json.Marshal(policy)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseDunningPolicy(stored)
		if err != nil {
			t.Fatalf("%s: %v", stored, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(stored) {
			t.Fatalf("%s became %s, %v", stored, twice, err)
		}
		now := time.Unix(unix%4_000_000_000, 0)
		facts := DunningFacts{DueAt: now, Cards: []SavedCard{{ID: "card"}}, Attempts: []DunningAttempt{
			{At: now, CardID: "card", State: AttemptDeclined, Code: DeclineCode(code)},
		}}
		if d := policy.NextAttempt(facts, now, time.UTC, BankHolidays()); d.Action == "" || d.At.Before(now) || d.Reason == "" {
			t.Fatalf("%+v", d)
		}
	})
}
