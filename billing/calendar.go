package billing

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

//go:embed holidays.txt
var holidaysText string

// bankHolidays is parsed once. A file that does not parse is a programmer's error
// and stops every program that has this package, and so every test.
var bankHolidays = func() Holidays {
	h, err := ParseHolidays(holidaysText)
	if err != nil {
		panic("billing/holidays.txt: " + err.Error())
	}
	return h
}()

// Holidays is when banks are closed beside weekends. The zero value knows no
// year, and falls back on fixedHolidays in all of them.
type Holidays struct {
	days  map[civilDate]struct{}
	years map[int]struct{}
}

// civilDate is a day on the calendar, in no zone.
type civilDate struct {
	year  int
	month time.Month
	day   int
}

func dateOf(t time.Time) civilDate {
	year, month, day := t.Date()
	return civilDate{year, month, day}
}

// at is the wall time of the day at an hour and a minute; days beyond a month's
// end are carried.
func (d civilDate) at(hour, minute int) time.Time {
	return time.Date(d.year, d.month, d.day, hour, minute, 0, 0, time.UTC)
}

func (d civilDate) plus(days int) civilDate {
	return dateOf(civilDate{d.year, d.month, d.day + days}.at(0, 0))
}

func (d civilDate) before(e civilDate) bool { return d.at(0, 0).Before(e.at(0, 0)) }

// fixedHolidays have the same date every year by law: RA 9492 and RA 10966, and
// by the yearly proclamation Ninoy Aquino Day, All Saints and the last day of the
// year. A proclamation may move or add some: too many here move a retry to an
// earlier day, which does no harm.
var fixedHolidays = map[civilDate]struct{}{
	{0, time.January, 1}:   {},
	{0, time.April, 9}:     {},
	{0, time.May, 1}:       {},
	{0, time.June, 12}:     {},
	{0, time.August, 21}:   {},
	{0, time.November, 1}:  {},
	{0, time.November, 30}: {},
	{0, time.December, 8}:  {},
	{0, time.December, 25}: {},
	{0, time.December, 30}: {},
	{0, time.December, 31}: {},
}

// BankHolidays is the Philippine calendar in holidays.txt. LastYear tells how far
// it reaches.
func BankHolidays() Holidays { return bankHolidays }

// ParseHolidays reads one date a line, as 2025-12-30; empty lines and lines that
// begin with # are skipped. A year with one date is taken to be complete.
func ParseHolidays(text string) (Holidays, error) {
	h := Holidays{days: map[civilDate]struct{}{}, years: map[int]struct{}{}}
	no := 0
	for line := range strings.Lines(text) {
		no++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		day, err := time.Parse(time.DateOnly, line)
		if err != nil {
			return Holidays{}, fmt.Errorf("line %d: %q is not a date such as 2025-12-30", no, clip(line))
		}
		date := dateOf(day)
		if _, twice := h.days[date]; twice {
			return Holidays{}, fmt.Errorf("line %d: %s stands here twice", no, line)
		}
		h.days[date], h.years[date.year] = struct{}{}, struct{}{}
	}
	return h, nil
}

// LastYear is the last year the calendar knows, 0 for none. A program should warn
// its operator when the current year is beyond it.
func (h Holidays) LastYear() int {
	if len(h.years) == 0 {
		return 0
	}
	return slices.Max(slices.Collect(maps.Keys(h.years)))
}

// BankingDay reports whether banks work on the civil day that t has in its own
// location.
func (h Holidays) BankingDay(t time.Time) bool { return h.bankingDay(dateOf(t)) }

func (h Holidays) bankingDay(d civilDate) bool {
	if weekday := d.at(0, 0).Weekday(); weekday == time.Saturday || weekday == time.Sunday {
		return false
	}
	days, key := h.days, d
	if _, known := h.years[d.year]; !known {
		days, key = fixedHolidays, civilDate{0, d.month, d.day}
	}
	_, holiday := days[key]
	return !holiday
}

// Paydays of a month are the 15th and the last day, as is usual in the
// Philippines, each moved to the last banking day before it if banks are closed:
// employers pay ahead. The times are the midnights of the days, in UTC.
func (h Holidays) Paydays(year int, month time.Month) [2]time.Time {
	var paydays [2]time.Time
	for i, day := range [2]int{15, lastDay(year, month)} {
		date := dateOf(civilDate{year, month, day}.at(0, 0)) // month 13 is January
		// Two weeks without a banking day do not exist; the bound is for calendars
		// that say so.
		for range 14 {
			if h.bankingDay(date) {
				break
			}
			date = date.plus(-1)
		}
		paydays[i] = date.at(0, 0)
	}
	return paydays
}

// NextPayday is the first payday after the civil day that t has in its own
// location. It is the midnight of that day, in UTC.
func (h Holidays) NextPayday(t time.Time) time.Time { return h.nextPayday(dateOf(t)).at(0, 0) }

func (h Holidays) nextPayday(after civilDate) civilDate {
	for month := after.month; ; month++ {
		for _, payday := range h.Paydays(after.year, month) {
			if date := dateOf(payday); after.before(date) {
				return date
			}
		}
	}
}
