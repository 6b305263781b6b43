package devpg

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
)

// watchdog outlives us by a moment, to do what a process cannot do after SIGKILL: it ends the child that it was told
// of last and removes our directory. It learns of our end from the pipe that only we hold open.
//
// Linux could end the child without it, but would leave the directory; others have nothing like it.
type watchdog struct {
	process *process
	tell    io.WriteCloser

	mu sync.Mutex
}

// A pid cannot be another process's by now: while we live, the watchdog hears of a child's end from us, and after us
// there is no time. Where orphans are never buried (a container whose first process does not care), kill -0 keeps
// finding them, hence the limit.
const watchdogScript = `
pid=0
while read -r line; do pid=$line; done
if [ "$pid" -gt 0 ] && kill -s "$2" "$pid" 2>/dev/null; then
	tries=0
	while kill -s 0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	kill -s KILL "$pid" 2>/dev/null
fi
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
`

func startWatchdog(dir string, orderly bool) (*watchdog, error) {
	name := "QUIT"
	if orderly {
		name = "INT"
	}
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "singil-devpg-watchdog", dir, name)
	cmd.Dir = "/"
	tell, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	detach(cmd)
	process, err := launch(cmd)
	if err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{process: process, tell: tell}, nil
}

// watch names the child to end. 0 is none.
func (w *watchdog) watch(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// It only fails when somebody has killed the watchdog. Then there is nobody to tell, and on Linux no harm.
	_, _ = fmt.Fprintf(w.tell, "%d\n", pid)
}

// dismiss is for when nothing is left to do.
func (w *watchdog) dismiss() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.tell.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("dismiss the watchdog: %w", err)
	}
	<-w.process.ended
	return nil
}
