package billing

import (
	"strings"
	"testing"
	"time"
)

func TestBankHolidays(t *testing.T) {
	t.Parallel()
	h := BankHolidays()

	t.Run("BankingDays", func(t *testing.T) {
		t.Parallel()
		for day, want := range map[string]bool{
			"2025-12-29": true,
			"2025-12-30": false, // Rizal Day
			"2025-12-27": false, // Saturday
			"2025-04-17": false, // Maundy Thursday, only in the list
			"2024-08-23": false, // moved from the 21st, only in the list
			"2024-08-21": true,  // and so not a holiday that year
			"2026-04-02": true,  // Maundy Thursday of a year nobody has listed
			"2026-06-12": false, // Independence Day is always
			"2026-11-30": false,
			"2026-12-01": true,
			"2019-12-25": false,
		} {
			at, err := time.Parse(time.DateOnly, day)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.BankingDay(at); got != want {
				t.Errorf("%s: got %t", day, got)
			}
		}
	})

	t.Run("CountsTheLocalDay", func(t *testing.T) {
		t.Parallel()
		at := time.Date(2025, 12, 29, 16, 0, 0, 0, time.UTC) // already the 30th in Manila
		if !h.BankingDay(at) || h.BankingDay(at.In(mustZone(t, "Asia/Manila"))) {
			t.Error("the day is not that of the time's own location")
		}
	})

	t.Run("EveryYearOfTheListIsWhole", func(t *testing.T) {
		t.Parallel()
		count := map[int]int{}
		for day := range h.days {
			count[day.year]++
		}
		for year := 2020; year <= h.LastYear(); year++ {
			// The regular holidays alone are ten.
			if count[year] < 14 || count[year] > 25 {
				t.Errorf("%d has %d holidays", year, count[year])
			}
		}
		if len(h.days) != 115 || h.LastYear() != 2025 || (Holidays{}).LastYear() != 0 {
			t.Errorf("%d days until %d", len(h.days), h.LastYear())
		}
	})
}

func TestParseHolidays(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		"2025-13-01":                       "line 1",
		"# fine\n\n2025-02-30":             "line 3",
		"2025-01-01\n2025-01-01":           "twice",
		"2025-01-01 # no":                  "is not a date",
		strings.Repeat("2025-01-01x", 999): "is not a date",
	} {
		if _, err := ParseHolidays(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v; want %s", clip(text), err, why)
		}
	}
}

func TestPaydays(t *testing.T) {
	t.Parallel()
	h := BankHolidays()
	for after, want := range map[string]string{
		"2025-01-01": "2025-01-15",
		"2025-01-15": "2025-01-31",
		"2025-01-31": "2025-02-14", // the 15th is a Saturday
		"2025-02-14": "2025-02-28",
		"2025-08-15": "2025-08-29", // the 31st is a Sunday
		"2025-12-15": "2025-12-29", // the 30th and 31st are holidays
		"2025-12-29": "2026-01-15", // into a year that is not listed
		"2026-02-27": "2026-03-13", // the 28th is a Saturday, the 15th a Sunday
		"2024-02-15": "2024-02-29",
	} {
		at, err := time.Parse(time.DateOnly, after)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.NextPayday(at).Format(time.DateOnly); got != want {
			t.Errorf("after %s: got %s, want %s", after, got, want)
		}
	}

	t.Run("ComeTwiceAMonthAndNeverOnAClosedDay", func(t *testing.T) {
		t.Parallel()
		at := time.Date(2019, 12, 31, 0, 0, 0, 0, time.UTC)
		for range 24 * 30 {
			next := h.NextPayday(at)
			if !h.BankingDay(next) || next.Sub(at) < 8*24*time.Hour || next.Sub(at) > 22*24*time.Hour {
				t.Fatalf("%s after %s", next, at)
			}
			at = next
		}
		if at.Year() != 2049 {
			t.Errorf("thirty years of paydays end %s", at)
		}
	})

	t.Run("AreFoundInACalendarWithoutBankingDays", func(t *testing.T) {
		t.Parallel()
		var text strings.Builder
		for day := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() == 2025; day = day.AddDate(0, 0, 1) {
			text.WriteString(day.Format(time.DateOnly) + "\n")
		}
		closed, err := ParseHolidays(text.String())
		if err != nil {
			t.Fatal(err)
		}
		if got := closed.NextPayday(time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)); got.Year() != 2025 {
			t.Errorf("got %s", got)
		}
	})
}
