package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// supervisor is systemd, if it has started this process with Type=notify. It is
// told when work begins and ends, and, with WatchdogSec=, again and again that
// work goes on: a daemon that hangs is killed and started anew, which loses
// nothing. Without NOTIFY_SOCKET nobody is told anything. nil tells nobody.
type supervisor struct {
	socket string
	every  time.Duration // 0: no watchdog
	log    *slog.Logger
}

// findSupervisor reads what systemd has put in the environment. A watchdog that
// waits for another process is none of ours.
func findSupervisor(getenv func(string) string, log *slog.Logger) *supervisor {
	socket := getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	if strings.HasPrefix(socket, "@") {
		socket = "\x00" + socket[1:] // Linux's names without a file
	}
	s := &supervisor{socket: socket, log: log}
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return s
	}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		// A third: two may be late before systemd takes action.
		s.every = time.Duration(usec) * time.Microsecond / 3
	}
	return s
}

// tell sends one state, such as READY=1. That nobody listens is logged and stops
// nothing: work is more important than being watched.
func (s *supervisor) tell(state string) {
	if s == nil {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		s.log.Warn("telling systemd failed", "state", state, "error", err)
	}
}

// watch tells the watchdog that work goes on, for as long as alive agrees, until
// ctx is done.
func (s *supervisor) watch(ctx context.Context, alive func(context.Context) error) {
	if s == nil || s.every == 0 {
		return
	}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asking, cancel := context.WithTimeout(ctx, s.every)
		err := alive(asking)
		cancel()
		switch {
		case err == nil:
			s.tell("WATCHDOG=1")
		case ctx.Err() == nil:
			s.log.Warn("the watchdog is not told that work goes on", "error", err)
		}
	}
}

// pulse is when something last showed that it lives.
type pulse struct{ at atomic.Int64 }

func (p *pulse) beat(now time.Time) { p.at.Store(now.UnixNano()) }

// within is an error if the last beat is longer ago than limit.
func (p *pulse) within(now time.Time, limit time.Duration) error {
	if ago := now.Sub(time.Unix(0, p.at.Load())); ago > limit {
		return fmt.Errorf("the timer has not come round for %s", ago.Round(time.Second))
	}
	return nil
}
