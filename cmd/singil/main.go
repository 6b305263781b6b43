// Command singil is the off-session recurring billing worker for PayMongo.
//
// singil run is the daemon, singil demo the daemon with everything around it,
// singil sandbox a PayMongo to run against; the other commands are for the
// people who operate it. Settings are environment variables: config.go.
//
// Exit codes: 0 done, 1 failed, 2 the command line was wrong, 3 not found,
// 4 not allowed in this state, 5 partly done, 6 the provider or the database is
// away, 7 wrong configuration, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker; a plain go build says what go knows.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: what tests call.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "singil",
		Short:         "Off-session recurring billing for PayMongo",
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{cmd, err} })
	root.AddCommand(runCommand(), demoCommand(), sandboxCommand())
	root.AddCommand(operatorCommands()...)
	root.AddCommand(healthcheckCommand())
	completeIDs(root)

	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var usage usageError
	if errors.As(err, &usage) || !started {
		fmt.Fprintf(stderr, "singil: %v\n\nSee: %s --help\n", err, cmd.CommandPath())
		return 2
	}
	fmt.Fprintf(stderr, "singil: %v\n", err)
	var code exitCode
	var wrong configError
	switch {
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &wrong):
		return 7
	}
	return 1
}

// exitCode is an error that ends with a code of its own: 3 not found, 4 not
// allowed in this state, 5 partly done, 6 the provider or the database is away.
type exitCode struct {
	code int
	err  error
}

func (e exitCode) Error() string { return e.err.Error() }
func (e exitCode) Unwrap() error { return e.err }

// usageError is a mistake on the command line, found after cobra's own checks.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
