//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	target string       // where to die; "": nowhere
	left   atomic.Int64 // hits of it to go
)

func init() {
	name, n, counted := strings.Cut(os.Getenv("FAILPOINT"), ":")
	hits := 1
	if counted {
		var err error
		if hits, err = strconv.Atoi(n); err != nil || hits < 1 {
			panic("failpoint: FAILPOINT must look like cp12 or cp12:3")
		}
	}
	target = name
	left.Store(int64(hits))
}

// Hit kills this process with SIGKILL if FAILPOINT=name, or at the nth hit if
// FAILPOINT=name:n. It says so on standard error first, and then never returns.
func Hit(name string) {
	if name != target || left.Add(-1) != 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "failpoint %s: SIGKILL\n", name)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing behind this line may run
}
