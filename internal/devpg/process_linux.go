package devpg

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// goWithParent has the kernel end the child when the thread that started it ends: see launch, and watchdog for where
// this is not enough.
func goWithParent(attributes *syscall.SysProcAttr, signal syscall.Signal) {
	attributes.Pdeathsig = signal
}

// hasRoom tells whether a directory is memory, and enough for the tests of some packages at once. A container may have
// 64 MB.
func hasRoom(dir string) bool {
	const (
		tmpfs  = 0x01021994
		enough = 1 << 30
	)
	var stat syscall.Statfs_t
	return syscall.Statfs(dir, &stat) == nil && int64(stat.Type) == tmpfs && stat.Bavail*uint64(stat.Bsize) >= enough
}

// processes lists what runs. ps may not be installed.
func processes() ([]relative, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var all []relative
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended since
		}
		// pid (name) state parent ..., and a name may hold spaces and parentheses.
		name := strings.LastIndex(string(text), ") ")
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || name < 0 {
			return nil, fmt.Errorf("%s is %q", path, text)
		}
		var p relative
		var state string
		if _, err := fmt.Sscan(string(text[name+2:]), &state, &p.parent); err != nil {
			return nil, fmt.Errorf("%s is %q: %w", path, text, err)
		}
		p.pid, p.state = pid, rune(state[0])
		all = append(all, p)
	}
	return all, nil
}
