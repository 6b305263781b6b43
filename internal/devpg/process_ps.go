//go:build unix && !linux

package devpg

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// goWithParent is for Linux. Elsewhere the watchdog does it alone.
func goWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// hasRoom is for Linux, too.
func hasRoom(string) bool { return false }

func processes() ([]relative, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-A", "-o", "pid=,ppid=,state=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	var all []relative
	for line := range bytes.Lines(out) {
		var p relative
		var state string
		if _, err := fmt.Sscan(string(line), &p.pid, &p.parent, &state); err != nil {
			return nil, fmt.Errorf("ps says %q: %w", line, err)
		}
		p.state = rune(state[0])
		all = append(all, p)
	}
	return all, nil
}
