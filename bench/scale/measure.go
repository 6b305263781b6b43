package scale

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Spent is what something took.
type Spent struct {
	Wall     time.Duration `json:"wall_ns"`
	Worker   time.Duration `json:"worker_cpu_ns"`   // of this process
	Database time.Duration `json:"database_cpu_ns"` // of the server and all its processes
	WAL      int64         `json:"wal_bytes"`
}

// measure runs do and tells what it took.
func (w *World) measure(ctx context.Context, do func() error) (s Spent, err error) {
	before, err := w.meters(ctx)
	if err != nil {
		return s, err
	}
	began := w.now()
	if err := do(); err != nil {
		return s, err
	}
	s.Wall = w.now().Sub(began)
	after, err := w.meters(ctx)
	return Spent{s.Wall, after.Worker - before.Worker, after.Database - before.Database, after.WAL - before.WAL}, err
}

func (w *World) meters(ctx context.Context) (s Spent, err error) {
	if err := w.Pool.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`).Scan(&s.WAL); err != nil {
		return s, err
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return s, err
	}
	s.Worker = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	s.Database, err = w.databaseCPU(ctx)
	return s, err
}

// databaseCPU adds up the postmaster, its children, and those of its children
// that have ended. It is of Linux; elsewhere it is 0.
func (w *World) databaseCPU(ctx context.Context) (time.Duration, error) {
	var backend int
	if err := w.Pool.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&backend); err != nil {
		return 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, nil //nolint:nilerr // another system
	}
	postmaster := statOf(backend).parent
	total := time.Duration(0)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if s := statOf(pid); pid == postmaster {
			total += s.own + s.ended
		} else if s.parent == postmaster {
			total += s.own
		}
	}
	return total, nil
}

type stat struct {
	parent     int
	own, ended time.Duration
}

// statOf reads /proc/PID/stat, in ticks of 10 ms. A process that is gone has none.
func statOf(pid int) (s stat) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s
	}
	// Behind the name, which may hold anything.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	number := func(i int) int { n, _ := strconv.Atoi(fields[i]); return n }
	const tick = 10 * time.Millisecond
	return stat{number(1), time.Duration(number(11)+number(12)) * tick, time.Duration(number(13)+number(14)) * tick}
}

// Swept is what one sweep did.
type Swept struct {
	Invoices int   `json:"invoices"` // opened
	Jobs     int   `json:"jobs"`     // enqueued
	Spent    Spent `json:"spent"`
}

// PerSecond is how many invoices were opened and enqueued, or only one of the two,
// in a second.
func (s Swept) PerSecond() float64 {
	return float64(max(s.Invoices, s.Jobs)) / s.Spent.Wall.Seconds()
}

// Sweep runs the worker's sweep at a business time: what has fallen due gets its
// invoices, and what may be charged its jobs.
func (w *World) Sweep(ctx context.Context, at time.Time) (s Swept, err error) {
	if err := w.SetClock(ctx, at); err != nil {
		return s, err
	}
	s.Spent, err = w.measure(ctx, func() error {
		swept, err := w.collector.Sweep(ctx, w.jobs)
		s.Invoices, s.Jobs = swept.Invoices, swept.Enqueued
		if err == nil && swept.Parked > 0 {
			err = fmt.Errorf("%d parked when nothing was to be", swept.Parked)
		}
		return err
	})
	return s, err
}

// SweepInHalves sweeps while charging is frozen, which opens invoices and enqueues
// nothing, and then again, which enqueues what is there: as it is with retries.
func (w *World) SweepInHalves(ctx context.Context, at time.Time) (open, enqueue Swept, err error) {
	if err := w.exec(ctx, `UPDATE singil.instance SET frozen = true, frozen_reason = 'half a sweep'`); err != nil {
		return open, enqueue, err
	}
	if open, err = w.Sweep(ctx, at); err != nil {
		return open, enqueue, err
	}
	if err := w.exec(ctx, `UPDATE singil.instance SET frozen = false, frozen_reason = NULL`); err != nil {
		return open, enqueue, err
	}
	enqueue, err = w.Sweep(ctx, at)
	return open, enqueue, err
}

// Thousand is how long a sweep takes that finds a thousand due subscriptions,
// opens their invoices and enqueues their jobs: the rounds, the first of which is
// to warm up and is not among them. Of what falls due from Start on, without so many
// thousands that were swept before.
func (w *World) Thousand(ctx context.Context, size Size, before, rounds int) (all []Swept, err error) {
	for i := range rounds + 1 {
		s, err := w.Sweep(ctx, size.When((before+i)*1000))
		if err != nil {
			return nil, err
		}
		if i > 0 && (s.Invoices != 1000 || s.Jobs != 1000) {
			return nil, fmt.Errorf("round %d: %d invoices and %d jobs, want a thousand of each", i, s.Invoices, s.Jobs)
		}
		if i > 0 {
			all = append(all, s)
		}
		if err := w.exec(ctx, `UPDATE singil.invoices SET status = 'void', reason = 'measured', next_attempt_at = NULL WHERE status = 'open'`); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Warm reads every table and every index of ours into the server's memory, as far as
// there is room, and forgets what statements took so far.
func (w *World) Warm(ctx context.Context) error {
	for _, sql := range []string{
		`CREATE EXTENSION IF NOT EXISTS pg_prewarm`,
		`SELECT sum(pg_prewarm(oid)) FROM pg_class WHERE relnamespace = 'singil'::regnamespace AND relkind IN ('r', 'i') AND relpages > 0`,
		`SELECT pg_stat_statements_reset()`,
	} {
		if err := w.exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// Settle takes what is open out of the way of the next sweep, and its jobs.
func (w *World) Settle(ctx context.Context) error {
	for _, sql := range []string{
		`UPDATE singil.invoices SET status = 'void', reason = 'measured', next_attempt_at = NULL WHERE status = 'open'`,
		`TRUNCATE river.river_job`, `VACUUM (ANALYZE) singil.invoices`, `VACUUM (ANALYZE) singil.subscriptions`, `CHECKPOINT`,
	} {
		if err := w.exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// When is the business time by which the first n subscriptions that were not due
// at Start have fallen due.
func (s Size) When(n int) time.Time {
	step := int64(Span/time.Microsecond)/int64(s.Subscriptions) + 1
	return Start.Add(time.Duration(int64(s.Due+n)*step-1) * time.Microsecond)
}

// Costliest are the statements that took longest ones since they were last forgotten.
func (w *World) Costliest(ctx context.Context, n int) (string, error) {
	rows, err := w.Pool.Query(ctx, `
		SELECT calls, total_exec_time, rows, wal_bytes::bigint, shared_blks_hit, shared_blks_read, shared_blks_dirtied,
		       regexp_replace(left(query, 200), '\s+', ' ', 'g')
		FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT $1`, n)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	var calls, count, wal, hit, read, dirtied int64
	var ms float64
	var query string
	_, err = pgx.ForEachRow(rows, []any{&calls, &ms, &count, &wal, &hit, &read, &dirtied, &query}, func() error {
		fmt.Fprintf(&out, "%8d calls %9.1f ms %8d rows %10d WAL %8d hit %7d read %7d dirtied  %.150s\n", calls, ms, count, wal, hit, read, dirtied, query)
		return nil
	})
	return out.String(), err
}
