package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The watch compares the last minutes of charging with what is usual here, and
// stops charging when they are far apart: a broken card processor, a wrong
// price list and a bug of our own all look like that first. Ratios are whole
// percentages.
const (
	// WatchWindow is how far back unknown outcomes and declines are counted.
	WatchWindow = time.Hour
	// WatchBaseline is how far back the usual ratio of declines is taken from.
	WatchBaseline = 7 * 24 * time.Hour
	// WatchPause is how long charging rests after too many unknown outcomes. It
	// goes on by itself: what is unknown is mostly the provider's bad hour.
	WatchPause = 15 * time.Minute

	watchSettling   = time.Minute // an attach may still be under way for so long
	unknownMinimum  = 50          // attempts, before a ratio means anything
	unknownPercent  = 20
	declineMinimum  = 100
	declinePercent  = 50 // trips never below, whatever is usual
	declineFactor   = 2  // times what is usual
	declineUnusual  = 90 // where nothing is known of what is usual
	baselineMinimum = 200
	volumeMinimum   = 1000 // attempts on a day
	volumeFactor    = 3    // times the busiest of the last days
	volumeDays      = 35   // so that every billing day of a month is among them
	volumeHistory   = 7    // days with charges, before there is a busiest one
)

// Watched is what the watch judges from.
type Watched struct {
	Recent  Outcomes // first attempts of the last WatchWindow
	Usual   Outcomes // first attempts of the WatchBaseline before it
	Unknown Share    // of all attempts of the last WatchWindow that had time to settle: what no answer tells of

	Today       int // attempts since the day began (UTC)
	BusiestDay  int // attempts, of the volumeDays before today
	HistoryDays int // days with attempts among them
}

// Outcomes counts settled first attempts: later ones are of cards that have
// declined before, and most decline again.
type Outcomes struct{ Declined, Succeeded int }

// Share is a part of a whole.
type Share struct{ Part, Whole int }

func (s Share) above(percent int) bool { return s.Part*100 > s.Whole*percent }

func (o Outcomes) declines() Share { return Share{o.Declined, o.Declined + o.Succeeded} }

// Anomaly is what the watch found. Zero: nothing.
type Anomaly struct {
	Pause  bool // rest for WatchPause; else an operator must close the breaker
	Reason string
}

// Judge compares. It never looks at single customers.
func (w Watched) Judge() Anomaly {
	recent, usual := w.Recent.declines(), w.Usual.declines()
	limit := declineUnusual
	if usual.Whole >= baselineMinimum {
		limit = max(declinePercent, declineFactor*100*usual.Part/usual.Whole)
	}
	switch {
	case w.Unknown.Whole >= unknownMinimum && w.Unknown.above(unknownPercent):
		return Anomaly{Pause: true, Reason: fmt.Sprintf("%d of the last %d attempts have an unknown outcome, more than %d %%",
			w.Unknown.Part, w.Unknown.Whole, unknownPercent)}
	case recent.Whole >= declineMinimum && recent.above(limit):
		return Anomaly{Reason: fmt.Sprintf("%d of the last %d first attempts were declined, more than %d %%; in the %d days before it were %d of %d",
			recent.Part, recent.Whole, limit, int(WatchBaseline/(24*time.Hour)), usual.Part, usual.Whole)}
	case w.HistoryDays >= volumeHistory && w.Today >= volumeMinimum && w.Today > volumeFactor*w.BusiestDay:
		return Anomaly{Reason: fmt.Sprintf("%d attempts today, more than %d times the %d of the busiest of the last %d days",
			w.Today, volumeFactor, w.BusiestDay, volumeDays)}
	}
	return Anomaly{}
}

// The index on armed_at is small and coarse (brin): rows come in its order.
//
// An open outcome is unknown, unless the latest answer of the provider was that
// it is at work, or that it is done: $3. That is slow, and not lost. No attach
// more or less changes it, and resting would only make it slower for everybody.
// Such an attempt is in the whole, for it was answered. If it stays so it goes the
// way of all open outcomes: it is looked at, it is in the age that is alerted on,
// and in the end a human looks. A look that fails makes it unknown again.
//
// The reason is read by a subquery that gives one value: only attempts that are
// open are looked up, and the planner cannot make a scan of all invoices of it.
const sqlWatchRecent = `
SELECT count(*) FILTER (WHERE a.no = 1 AND a.state = 'declined'), count(*) FILTER (WHERE a.no = 1 AND a.state = 'succeeded'),
       count(*) FILTER (WHERE a.armed_at < $2 AND a.state = 'armed'
                          AND COALESCE((SELECT i.reason FROM singil.invoices i WHERE i.id = a.invoice_id), '') <> ALL ($3::text[])),
       count(*) FILTER (WHERE a.armed_at < $2)
FROM singil.attempts a
WHERE a.armed_at > greatest($1, (SELECT p.watched_from FROM singil.provider_state p))`

// Today counts for nothing once an operator has looked at it and closed the
// breaker: the day's budget is what holds then.
const sqlWatchVolume = `
SELECT COALESCE(sum(b.used_count) FILTER (WHERE b.day = $1::date
         AND $1::date > COALESCE((SELECT (p.watched_from AT TIME ZONE 'UTC')::date FROM singil.provider_state p), '-infinity')), 0),
       COALESCE(max(b.used_count) FILTER (WHERE b.day < $1::date), 0),
       count(*) FILTER (WHERE b.day < $1::date AND b.used_count > 0)
FROM singil.charge_budget b
WHERE b.day >= $1::date - $2::int AND b.day <= $1::date`

// LookWatched reads everything but Usual.
func LookWatched(ctx context.Context, q Querier, now time.Time) (w Watched, err error) {
	batch := &pgx.Batch{}
	batch.Queue(sqlWatchRecent, now.Add(-WatchWindow), now.Add(-watchSettling), []string{ReasonProcessing, ReasonPaymentToCome}).QueryRow(func(row pgx.Row) error {
		return row.Scan(&w.Recent.Declined, &w.Recent.Succeeded, &w.Unknown.Part, &w.Unknown.Whole)
	})
	batch.Queue(sqlWatchVolume, now.UTC().Format(time.DateOnly), volumeDays).QueryRow(func(row pgx.Row) error {
		return row.Scan(&w.Today, &w.BusiestDay, &w.HistoryDays)
	})
	if err := q.SendBatch(ctx, batch).Close(); err != nil {
		return Watched{}, fmt.Errorf("look at the last hour's attempts: %w", err)
	}
	return w, nil
}

const sqlWatchUsual = `
SELECT count(*) FILTER (WHERE a.state = 'declined'), count(*) FILTER (WHERE a.state = 'succeeded')
FROM singil.attempts a
WHERE a.no = 1 AND a.armed_at > $1 AND a.armed_at <= $2`

// LookUsual reads what is usual. It reads a week's attempts: keep the answer
// for a while.
func LookUsual(ctx context.Context, q Querier, now time.Time) (o Outcomes, err error) {
	rows, err := q.Query(ctx, sqlWatchUsual, now.Add(-WatchWindow-WatchBaseline), now.Add(-WatchWindow))
	if err == nil {
		o, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Outcomes])
	}
	if err != nil {
		return Outcomes{}, fmt.Errorf("look at the last week's attempts: %w", err)
	}
	return o, nil
}
