package scale

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Day is what the tables that change look like at the end of a simulated day.
type Day struct {
	Day     int           `json:"day"`
	Charged int           `json:"charged"` // invoices paid so far
	Took    time.Duration `json:"took_ns"`
	WAL     int64         `json:"wal_bytes"`
	Tables  []Table       `json:"tables"`
}

// Table is one of them.
type Table struct {
	Name    string `json:"name"`
	Rows    int64  `json:"rows"`
	Dead    int64  `json:"dead"`
	Heap    int64  `json:"heap_bytes"`
	Indexes int64  `json:"index_bytes"`
	Updates int64  `json:"updates"`     // so far
	HOT     int64  `json:"hot_updates"` // of them, those that wrote no index
	Vacuums int64  `json:"vacuums"`     // by autovacuum
}

const sqlTables = `
SELECT s.relname, pg_stat_get_live_tuples(s.relid), pg_stat_get_dead_tuples(s.relid), pg_table_size(s.relid), pg_indexes_size(s.relid),
       s.n_tup_upd, s.n_tup_hot_upd, s.autovacuum_count
FROM pg_stat_user_tables s
WHERE s.schemaname = 'singil' AND s.relname IN ('subscriptions', 'invoices', 'payment_intents', 'attempts', 'payments', 'events', 'charge_budget', 'customers')
   OR s.relname = 'river_job'
ORDER BY s.relname`

// Days bills so many daily subscriptions day after day, by the worker itself and
// the virtual clock, and looks at the tables every evening. River's jobs are
// deleted at the end of a day, as its cleaner does after an hour.
//
// A simulated day takes seconds. For autovacuum to come as often a day as it would,
// open the world with DaysSettings.
func (w *World) Days(ctx context.Context, subscriptions, days int, report func(Day)) error {
	if err := w.Fill(ctx, Size{Subscriptions: subscriptions}); err != nil {
		return err
	}
	// All of them by the day, over ten hours from noon on.
	if err := w.exec(ctx, `
		UPDATE singil.subscriptions
		SET interval_unit = 'day', anchor_at = at, next_due_at = at, bill_from = at, last_charge_at = NULL
		FROM (SELECT id AS of, $1::timestamptz + (next_due_at - $1::timestamptz) * (10.0 / 24 / 27) AS at FROM singil.subscriptions) d
		WHERE id = of`, Start); err != nil {
		return err
	}
	if err := w.exec(ctx, `VACUUM (FULL, ANALYZE) singil.subscriptions`); err != nil {
		return err
	}
	if err := w.jobs.Start(ctx); err != nil {
		return err
	}
	for day := range days {
		spent, err := w.measure(ctx, func() error { return w.oneDay(ctx, Start.AddDate(0, 0, day)) })
		if err != nil {
			return err
		}
		d := Day{Day: day + 1, Took: spent.Wall, WAL: spent.WAL}
		if err := w.Pool.QueryRow(ctx, `SELECT count(*) FROM singil.invoices WHERE status = 'paid'`).Scan(&d.Charged); err != nil {
			return err
		}
		if want := (day + 1) * subscriptions; d.Charged != want {
			return fmt.Errorf("day %d: %d invoices are paid, want %d", day+1, d.Charged, want)
		}
		rows, err := w.Pool.Query(ctx, sqlTables)
		if err != nil {
			return err
		}
		if d.Tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Table]); err != nil {
			return err
		}
		report(d)
	}
	return w.jobs.Stop(ctx)
}

// oneDay sweeps ten times, an hour apart, and charges what it finds.
func (w *World) oneDay(ctx context.Context, begins time.Time) error {
	for hour := range 11 {
		if err := w.SetClock(ctx, begins.Add(time.Duration(hour)*time.Hour)); err != nil {
			return err
		}
		if _, err := w.collector.Sweep(ctx, w.jobs); err != nil {
			return err
		}
		if err := w.finish(ctx); err != nil {
			return err
		}
	}
	return w.exec(ctx, `DELETE FROM river.river_job WHERE state = 'completed'`)
}

// DaysSettings are Settings with an autovacuum that is as hurried as the days are.
func DaysSettings() map[string]string {
	s := Settings()
	s["autovacuum_naptime"], s["autovacuum_vacuum_cost_delay"] = "1s", "0"
	return s
}
