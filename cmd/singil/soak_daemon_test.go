//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// soakDaemon is one place for a daemon, and whoever keeps one running there, as
// systemd would: one that ends is started again.
type soakDaemon struct {
	s     *soak
	no    int
	env   []string
	proxy *pgProxy

	life sync.Mutex // held while the process is ended on purpose

	mu      sync.Mutex
	cmd     *exec.Cmd
	log     *tail
	ended   chan struct{} // of cmd
	meant   bool          // its end is on purpose
	stopped bool          // by SIGSTOP
	stops   []*soakStop   // that the clock heeds
}

// restartAfter is how long whoever keeps it running waits, as systemd's RestartSec.
const restartAfter = 100 * time.Millisecond

// keep runs the daemon until ctx is done.
func (d *soakDaemon) keep(ctx context.Context) {
	for ctx.Err() == nil {
		d.run(ctx)
		select {
		case <-time.After(restartAfter):
		case <-ctx.Done():
		}
	}
}

// run is the life of one process.
func (d *soakDaemon) run(ctx context.Context) {
	cmd, log, ended := exec.Command(d.s.binary, "run"), &tail{}, make(chan struct{})
	cmd.Env = append(os.Environ(), d.env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		d.s.errorf("start daemon %d: %v", d.no, err)
		return
	}
	d.mu.Lock()
	d.cmd, d.log, d.ended, d.meant, d.stopped = cmd, log, ended, false, false
	d.mu.Unlock()
	kill := context.AfterFunc(ctx, func() {
		d.mean()
		_ = cmd.Process.Kill() // it may have ended
	})
	defer kill()
	err := cmd.Wait()
	d.mu.Lock()
	d.cmd = nil
	meant := d.meant
	d.mu.Unlock()
	close(ended)
	// One that does not get as far as to listen found no database: systemd starts
	// it again, and so do we.
	if !meant && log.listens() != "" {
		d.s.errorf("daemon %d ended by itself: %v\n%s", d.no, err, log)
	}
}

func (d *soakDaemon) mean() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.meant = true
}

// end sends a signal that ends the process and waits for it. It tells whether
// there was one that had come as far as to listen.
func (d *soakDaemon) end(signal syscall.Signal, patience time.Duration) (ended bool) {
	d.life.Lock()
	defer d.life.Unlock()
	d.mu.Lock()
	cmd, log, over := d.cmd, d.log, d.ended
	if cmd == nil || log.listens() == "" {
		d.mu.Unlock()
		return false
	}
	d.meant = true
	_ = cmd.Process.Signal(signal) // it may have ended this moment
	d.mu.Unlock()
	select {
	case <-over:
	case <-time.After(patience):
		d.s.errorf("daemon %d does not end within %s of signal %s\n%s", d.no, patience, signal, log)
		_ = cmd.Process.Kill()
		<-over
	}
	return true
}

// soakStop is a time in which a daemon had no processor.
type soakStop struct {
	virtual time.Time // when it began
	over    time.Time // in real time; zero: not yet
}

const (
	// pastSending is longer than an armed attach may wait before it is sent: a
	// daemon that was stopped for so long sends nothing when it goes on.
	pastSending = 16 * time.Second
	// catchingUp is how long one that was stopped gets to send what it had armed.
	catchingUp = time.Second
	// shortOfSettled is less than billing.SendWindow and billing.SettlePeriod, and
	// more than two leases.
	shortOfSettled = 12 * time.Minute
)

// stop takes the processor away for so long. It returns at once.
func (d *soakDaemon) stop(length time.Duration) (stopped bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil || d.stopped || d.log.listens() == "" {
		return false
	}
	if d.cmd.Process.Signal(syscall.SIGSTOP) != nil {
		return false
	}
	d.stopped = true
	cmd, stop := d.cmd, &soakStop{virtual: d.s.clock()}
	if length < pastSending {
		d.stops = append(d.stops, stop)
	}
	time.AfterFunc(length, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		_ = cmd.Process.Signal(syscall.SIGCONT) // it may have been killed
		stop.over = time.Now()
		if d.cmd == cmd {
			d.stopped = false
		}
	})
	return true
}

// notAfter is how far the virtual clock may go while this daemon is stopped: past
// several leases, so that others take over what it had; but not to where an attach
// that nobody has seen counts as one that never was. A real daemon cannot send so
// late, by its own real clock, and the virtual one is not to make it.
func (d *soakDaemon) notAfter() (limit time.Time, limited bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stops = slices.DeleteFunc(d.stops, func(s *soakStop) bool { return !s.over.IsZero() && time.Since(s.over) > catchingUp })
	if len(d.stops) == 0 {
		return time.Time{}, false
	}
	return d.stops[0].virtual.Add(shortOfSettled), true
}

func (d *soakDaemon) isStopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopped
}

// url is empty while it does not listen.
func (d *soakDaemon) url() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return ""
	}
	return d.log.listens()
}

// usage is what a process takes.
type usage struct {
	memory     float64 // bytes
	goroutines float64
}

var metricsClient = &http.Client{Timeout: 3 * time.Second}

// usage asks /metrics.
func (d *soakDaemon) usage(ctx context.Context) (u usage, err error) {
	base := d.url()
	if base == "" {
		return usage{}, fmt.Errorf("daemon %d does not listen", d.no)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return usage{}, err
	}
	resp, err := metricsClient.Do(req)
	if err != nil {
		return usage{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return usage{}, err
	}
	if u.memory, err = gaugeIn(text, residentMemory); err != nil {
		return usage{}, err
	}
	u.goroutines, err = gaugeIn(text, goroutines)
	return u, err
}

var (
	residentMemory = regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`)
	goroutines     = regexp.MustCompile(`(?m)^go_goroutines (\S+)$`)
)

func gaugeIn(text []byte, gauge *regexp.Regexp) (float64, error) {
	found := gauge.FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("/metrics has nothing like %s", gauge)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}
