package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// usage is what was used up to a moment.
type usage struct {
	workers  time.Duration // CPU of the processes that are measured
	postgres time.Duration // CPU of PostgreSQL: the postmaster and all that it started
	writes   int64         // transactions that wrote
	wal      int64         // bytes
}

const sqlUsage = `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, (pg_current_wal_lsn() - '0/0')::bigint`

func (r *rig) usage(ctx context.Context, workers []*process) (u usage, err error) {
	if err := r.admin.QueryRow(ctx, sqlUsage).Scan(&u.writes, &u.wal); err != nil {
		return u, fmt.Errorf("read what PostgreSQL has done: %w", err)
	}
	if u.postgres, err = cpuOfFamily(r.pgPID); err != nil {
		return u, err
	}
	for _, p := range workers {
		cpu, err := cpuOf(p.pid())
		if err != nil {
			return u, err
		}
		u.workers += cpu
	}
	return u, nil
}

// transactions is how many a database has committed, as far as its backends have told.
func transactions(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
	return n, err
}

// tick is the unit of times in /proc, on every Linux there is.
const tick = 10 * time.Millisecond

type procStat struct {
	parent         int
	own, withReaps time.Duration
}

func statOf(pid int) (s procStat, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, fmt.Errorf("CPU and memory are read from Linux's /proc: %w", err)
	}
	// pid (name) state parent ..., and a name may hold spaces and parentheses.
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	var numbers [4]int64 // utime, stime, and those of children that have ended
	for i := range numbers {
		if numbers[i], err = strconv.ParseInt(fields[11+i], 10, 64); err != nil {
			return s, err
		}
	}
	s.parent, err = strconv.Atoi(fields[1])
	s.own = time.Duration(numbers[0]+numbers[1]) * tick
	s.withReaps = s.own + time.Duration(numbers[2]+numbers[3])*tick
	return s, err
}

func cpuOf(pid int) (time.Duration, error) {
	s, err := statOf(pid)
	return s.own, err
}

// cpuOfFamily adds up a process, its children, and those that it has had.
func cpuOfFamily(pid int) (time.Duration, error) {
	s, err := statOf(pid)
	if err != nil {
		return 0, err
	}
	sum := s.withReaps
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, path := range all {
		child, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			return 0, err
		}
		if s, err := statOf(child); err == nil && s.parent == pid { // one that has ended is reaped
			sum += s.withReaps
		}
	}
	return sum, nil
}

// forgetPeak has the kernel begin anew with the peak of a process's memory.
func forgetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// peakMemory is the most memory that a process has had resident, in bytes.
func peakMemory(pid int) (int64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmHWM", pid)
}
