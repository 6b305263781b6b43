//go:build unix

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo/sandbox"
)

// checked is what one comparison of the ledger with the books found.
type checked struct {
	sum                     sandbox.Summary
	doubles, lost, unknown  int
	statuses                map[string]int
	inReview                int // for a lie that PayMongo told: a human has to look
	events                  map[string]int
	ages, agesAfterRecovery ages // of outcomes that were unknown
	days                    int
}

// books are the invoices as the database has them.
type books struct {
	status, reason map[string]string
}

// check compares the ledger with the books, both ways. While things go wrong only
// what must hold at every moment is checked; the ends are loose until final.
func (s *soak) check(final bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 2*time.Minute)
	defer cancel()
	// Money moves before the books say so, and the id is stored before money may
	// move: so what was paid is read from the books before the ledger, and what was
	// attached from the ledger before the books.
	before, err := s.books(ctx)
	if err != nil {
		if final {
			s.errorf("read the books: %v", err)
		}
		return // the database is away: next time
	}
	ledger := s.box.Ledger()
	found := checked{sum: s.box.Summary("invoice"), statuses: map[string]int{}}
	found.doubles = len(found.sum.PaidMoreThanOnce) + len(found.sum.IntentsPaidMoreThanOnce)
	if found.doubles > 0 {
		s.errorf("CHARGED TWICE: %v %v", found.sum.PaidMoreThanOnce, found.sum.IntentsPaidMoreThanOnce)
	}
	for id, status := range before.status {
		found.statuses[status]++
		if status == billing.InvoicePaid && found.sum.PaidByValue[id] != 1 {
			s.errorf("invoice %s is paid in the books, and has %d payments in the ledger", id, found.sum.PaidByValue[id])
		}
	}
	stored, err := s.texts(ctx, `SELECT provider_intent_id FROM singil.payment_intents WHERE provider_intent_id IS NOT NULL`)
	if err != nil && !final {
		return
	}
	for _, pi := range ledger.Intents {
		if len(pi.Attaches) > 0 && !stored[pi.ID] && err == nil {
			s.errorf("intent %s of invoice %s was attached to, and its id is not stored", pi.ID, pi.Metadata["invoice"])
		}
	}
	if final {
		s.checkEnd(ctx, before, ledger, &found)
	}
	s.checks++
	s.last = found
}

func (s *soak) books(ctx context.Context) (b books, err error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text, status, COALESCE(reason, '') FROM singil.invoices`)
	if err != nil {
		return b, err
	}
	b.status, b.reason = map[string]string{}, map[string]string{}
	var id, status, reason string
	_, err = pgx.ForEachRow(rows, []any{&id, &status, &reason}, func() error {
		b.status[id], b.reason[id] = status, reason
		return nil
	})
	return b, err
}

func (s *soak) texts(ctx context.Context, sql string) (map[string]bool, error) {
	rows, err := s.pool.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	set := map[string]bool{}
	var text string
	_, err = pgx.ForEachRow(rows, []any{&text}, func() error {
		set[text] = true
		return nil
	})
	return set, err
}

// lied tells an invoice that PayMongo told a lie about, wrong_amount or
// wrong_livemode: nothing more is charged, and a human has to look. Whether it was
// paid the books may never learn.
func (b books) lied(invoice string) bool {
	return b.status[invoice] == billing.InvoiceReview && strings.Contains(b.reason[invoice], "instead of")
}

// checkEnd is what must hold when everything is settled.
func (s *soak) checkEnd(ctx context.Context, b books, ledger sandbox.Ledger, found *checked) {
	found.days = int(s.recovered.Sub(tortureStart).Hours() / 24)
	for id, status := range b.status {
		paid := found.sum.PaidByValue[id] > 0
		switch {
		case b.lied(id):
			found.inReview++
		case status == billing.InvoiceOpen, status == billing.InvoiceReview:
			found.unknown++
			s.errorf("invoice %s is still %s: %s", id, status, b.reason[id])
		case paid && status != billing.InvoicePaid:
			found.lost++
			s.errorf("LOST MONEY: invoice %s is paid in the ledger, and %s in the books: %s", id, status, b.reason[id])
		}
	}
	if found.sum.PaidWithoutKey > 0 {
		s.errorf("%d payments are of no invoice", found.sum.PaidWithoutKey)
	}
	known, err := s.texts(ctx, `SELECT payment_id FROM singil.payments WHERE status = 'paid'`)
	if err != nil {
		s.errorf("%v", err)
	}
	inLedger := map[string]bool{}
	for _, pi := range ledger.Intents {
		for _, pay := range pi.Payments {
			if pay.Status != "paid" {
				continue
			}
			inLedger[pay.ID] = true
			if !known[pay.ID] && !b.lied(pi.Metadata["invoice"]) {
				found.lost++
				s.errorf("LOST MONEY: payment %s of intent %s is not on record", pay.ID, pi.ID)
			}
		}
	}
	for id := range known {
		if !inLedger[id] {
			s.errorf("payment %s is on record, and not in the ledger", id)
		}
	}
	if n := s.number(ctx, `SELECT count(*) FROM singil.attempts a JOIN singil.invoices i ON i.id = a.invoice_id
		WHERE a.state = 'armed' OR a.state = 'review' AND (i.status <> 'review' OR i.reason NOT LIKE '%instead of%')`); n > 0 {
		found.unknown += n
		s.errorf("%d outcomes are still unknown", n)
	}
	if n := s.number(ctx, `SELECT count(*) FROM (
			SELECT (a.armed_at AT TIME ZONE 'UTC')::date AS day, count(*) AS armed FROM singil.attempts a GROUP BY 1) AS a
		FULL JOIN singil.charge_budget b USING (day) WHERE COALESCE(a.armed, 0) <> COALESCE(b.used_count, 0)`); n > 0 {
		s.errorf("on %d days the budget is not what was armed", n)
	}
	if n := s.number(ctx, `SELECT count(*) FROM singil.webhook_events WHERE processed_at IS NULL`); n > 0 {
		s.errorf("%d webhooks are not processed", n)
	}
	found.events = map[string]int{}
	rows, err := s.pool.Query(ctx, `SELECT COALESCE(result, 'not processed'), count(*) FROM singil.webhook_events GROUP BY 1`)
	if err == nil {
		var result string
		var n int
		_, err = pgx.ForEachRow(rows, []any{&result, &n}, func() error {
			found.events[result] = n
			return nil
		})
	}
	if err != nil {
		s.errorf("%v", err)
	}
	s.checkAges(ctx, ledger, found)
	for _, what := range s.mustHappen() {
		if s.counted(what) == 0 {
			s.errorf("%q never happened: the run was too short to prove anything", what)
		}
	}
	if fates := s.faults.snapshot(); fates["webhook: FORGED AND TAKEN"] > 0 {
		s.errorf("%d forged webhooks were taken", fates["webhook: FORGED AND TAKEN"])
	}
	if found.sum.AttachesExecuted == 0 || len(found.events) == 0 {
		s.errorf("%d attaches, webhooks %v: nothing was proven", found.sum.AttachesExecuted, found.events)
	}
}

// Boundary n of a subscription, by PostgreSQL's own arithmetic: n intervals after
// the anchor's local time, the day clamped to the month's end. A period that began
// has an invoice, or is recorded as skipped; one of a cancelled subscription if the
// sweep had come to it.
const sqlSoakLost = `
SELECT s.external_id, n.no
FROM singil.subscriptions s
CROSS JOIN LATERAL generate_series(0, s.next_period_no + 3) AS n (no)
CROSS JOIN LATERAL (SELECT (s.anchor_at AT TIME ZONE s.time_zone + n.no * s.interval_count * ('1 ' || s.interval_unit)::interval) AT TIME ZONE s.time_zone AS at) AS b
WHERE (b.at <= $1 AND s.status <> 'cancelled' AND (s.cancel_at IS NULL OR b.at < s.cancel_at) OR n.no < s.next_period_no)
  AND NOT EXISTS (SELECT FROM singil.invoices i WHERE i.subscription_id = s.id AND i.period_no = n.no)
  AND NOT EXISTS (SELECT FROM singil.skipped_periods k WHERE k.subscription_id = s.id AND n.no BETWEEN k.first_no AND k.last_no)`

// checkPeriods looks for periods that were lost. Call it when nothing is paused and
// nothing waits to be opened.
func (s *soak) checkPeriods() {
	ctx := context.WithoutCancel(s.t.Context())
	rows, err := s.pool.Query(ctx, sqlSoakLost, s.clock())
	if err != nil {
		s.errorf("%v", err)
		return
	}
	var subscription string
	var no int
	if _, err := pgx.ForEachRow(rows, []any{&subscription, &no}, func() error {
		s.count(lostPeriods)
		s.errorf("LOST: period %d of subscription %s has no invoice", no, subscription)
		return nil
	}); err != nil {
		s.errorf("%v", err)
	}
	if n := s.number(ctx, `SELECT count(*) FROM singil.subscriptions WHERE parked_reason IS NOT NULL`); n > 0 {
		s.errorf("%d subscriptions are parked", n)
	}
}

const lostPeriods = "periods without an invoice"

// ages are how long something took, in virtual time.
type ages []time.Duration

func (a ages) String() string {
	if len(a) == 0 {
		return "none"
	}
	slices.Sort(a)
	at := func(share float64) time.Duration { return a[min(len(a)-1, int(share*float64(len(a))))] }
	return fmt.Sprintf("p50 %s, p99 %s, max %s (of %d)", at(0.5), at(0.99), a[len(a)-1], len(a))
}

// longestUnknown bounds how long an outcome may stay unknown once PayMongo is well:
// the longest step of the ladder, and what moving the clock adds.
const longestUnknown = 26 * time.Hour

// checkAges tells how long outcomes were unknown. What PayMongo itself did not know
// yet, because the payment was processing or waited for the customer, is not unknown.
func (s *soak) checkAges(ctx context.Context, ledger sandbox.Ledger, found *checked) {
	open := map[string]bool{}
	for _, pi := range ledger.Intents {
		for _, at := range pi.Attaches {
			if strings.Contains(at.Fault, string(sandbox.Processing)) || strings.Contains(at.Fault, string(sandbox.ThreeDS)) {
				open[pi.ID] = true
			}
		}
	}
	rows, err := s.pool.Query(ctx, `SELECT pi.provider_intent_id, a.armed_at, a.settled_at FROM singil.attempts a
		JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
		WHERE a.settled_at > a.armed_at AND a.evidence ->> 'kind' = 'retrieve'`)
	if err != nil {
		s.errorf("%v", err)
		return
	}
	var intent string
	var armed, settled time.Time
	if _, err := pgx.ForEachRow(rows, []any{&intent, &armed, &settled}, func() error {
		if open[intent] {
			return nil
		}
		found.ages = append(found.ages, settled.Sub(armed))
		if !armed.After(s.recovered) && settled.After(s.recovered) {
			found.agesAfterRecovery = append(found.agesAfterRecovery, settled.Sub(s.recovered))
		}
		return nil
	}); err != nil {
		s.errorf("%v", err)
	}
	for _, age := range found.agesAfterRecovery {
		if age > longestUnknown {
			s.errorf("an outcome was unknown for %s after everything was well again", age)
		}
	}
}

// Memory and goroutines of the daemon that is never ended: the last third may take
// so much more than the first. A leak of one of each a charge is far beyond it.
const (
	growthFactor     = 1.5
	memoryGrowth     = 24 << 20
	goroutinesGrowth = 60
	judgedSamples    = 30 // fewer say nothing
)

// usageThirds are the medians of the first and the last third.
func (s *soak) usageThirds() (first, last usage, samples int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.usages)
	if n < 3 {
		return usage{}, usage{}, n
	}
	median := func(part []usage, of func(usage) float64) float64 {
		values := make([]float64, len(part))
		for i, u := range part {
			values[i] = of(u)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	of := func(part []usage) usage {
		return usage{
			memory:     median(part, func(u usage) float64 { return u.memory }),
			goroutines: median(part, func(u usage) float64 { return u.goroutines }),
		}
	}
	return of(s.usages[:n/3]), of(s.usages[n-n/3:]), n
}

func (s *soak) judgeUsage() {
	first, last, samples := s.usageThirds()
	if samples < judgedSamples {
		return
	}
	if last.memory > first.memory*growthFactor+memoryGrowth {
		s.errorf("LEAK: %.0f MB in the first third, %.0f MB in the last", first.memory/1e6, last.memory/1e6)
	}
	if last.goroutines > first.goroutines*growthFactor+goroutinesGrowth {
		s.errorf("LEAK: %.0f goroutines in the first third, %.0f in the last", first.goroutines, last.goroutines)
	}
}
