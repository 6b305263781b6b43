//go:build pprof && unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"
)

// With the tag pprof, which no build that ships has, SIGUSR1 begins a CPU
// profile in $PPROF_DIR, and the next one ends it and adds one of the heap.
func init() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for no := 1; ; no++ {
			<-signals
			if err := profile(no, signals); err != nil {
				fmt.Fprintln(os.Stderr, "profile:", err)
			}
		}
	}()
}

func profile(no int, end <-chan os.Signal) error {
	name := func(kind string) string {
		return filepath.Join(os.Getenv("PPROF_DIR"), fmt.Sprintf("%s-%d-%d.pprof", kind, os.Getpid(), no))
	}
	cpu, err := os.Create(name("cpu"))
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	<-end
	pprof.StopCPUProfile()
	if err := cpu.Close(); err != nil {
		return err
	}
	heap, err := os.Create(name("allocs"))
	if err != nil {
		return err
	}
	if err := pprof.Lookup("allocs").WriteTo(heap, 0); err != nil {
		return err
	}
	return heap.Close()
}
