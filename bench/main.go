// Command bench measures singil: how many charges a second, at what cost, and what bounds it. Everything runs on this
// machine in one go: a private PostgreSQL that waits for its disk, a provider that does nothing but answer, singil as it
// is built from this tree, and a textbook worker beside it. See bench -help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/singil/singil/bench/stub"
)

// The names of the environment through which this program tells itself what to be.
const (
	roleName     = "BENCH_ROLE"
	databaseName = "BENCH_DATABASE"
	providerName = "BENCH_PROVIDER"
	countName    = "BENCH_COUNT"
)

// roles are what this program is in the processes that it starts.
var roles = map[string]func(context.Context) error{
	"stub": runStub, "textbook": runTextbook, "calls": runCalls, "jobs": runEmptyJobs,
}

// parts are the subjects, in the order in which they are measured: each a file of its own, with what it adds to the report.
var parts = []part{
	{"charges", chargesPart},
	{"waiting", waitingPart},
	{"sweep", sweepPart},
	{"lag", lagPart},
	{"daemons", daemonsPart},
	{"intake", intakePart},
}

type part struct {
	name string
	run  func(context.Context, *rig, *Report) error
}

type options struct {
	only, sides          []string
	rounds               int
	charges, slowCharges int
	waiting              []int // invoices
	sweep                []int // subscriptions
	dueAtOnce, imports   int
	latencies            []time.Duration
	profiles, report     string
	settings             []string // of singil
	statements, quick    bool
}

// takes tells whether a side is wanted.
func (o options) takes(side string) bool { return len(o.sides) == 0 || slices.Contains(o.sides, side) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	run := func(ctx context.Context) error { return bench(ctx, os.Args[1:]) }
	if name := os.Getenv(roleName); name != "" {
		ctx, run = context.Background(), roles[name] // ended by whoever started it
	}
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, args []string) (err error) {
	o, err := readOptions(args)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	r, err := openRig(ctx, o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	report, err := newReport(ctx, r)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if len(o.only) > 0 && !slices.Contains(o.only, part.name) {
			continue
		}
		began := time.Now()
		if err := part.run(ctx, r, report); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		log.Info("measured", "part", part.name, "took", time.Since(began).Round(time.Second))
	}
	report.PutOff = r.putOffs
	report.finish()
	if err := report.write(os.Stdout); err != nil {
		return err
	}
	if o.report != "" {
		return report.save(o.report)
	}
	return nil
}

func readOptions(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "measure only these `parts`: charges, waiting, sweep, lag, daemons, intake")
	sides := flags.String("sides", "", "of charges only these `sides`: singil, limited, textbook, calls, jobs")
	flags.BoolVar(&o.quick, "quick", false, "small numbers: whether it works, not how fast it is")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of everything that is repeated")
	flags.IntVar(&o.charges, "n", 20_000, "charges of a round")
	flags.IntVar(&o.slowCharges, "slow-n", 3_000, "charges of a round with a slow provider")
	latency := flags.String("latency", "0s,300ms", "how long each call of the provider takes")
	waiting := flags.String("waiting", "10000,100000,1000000", "how many invoices wait while memory is measured")
	sweep := flags.String("sweep", "10000,1000000", "among how many subscriptions a thousand due ones are found")
	flags.IntVar(&o.dueAtOnce, "due", 100_000, "subscriptions that fall due at one instant; half of them after an outage")
	flags.IntVar(&o.imports, "import", 50_000, "subscriptions to import, each with a customer and a card")
	flags.Func("setting", "a further setting of singil, `NAME=VALUE`; may be given again", func(pair string) error {
		if !strings.Contains(pair, "=") {
			return errors.New("it looks like NAME=VALUE")
		}
		o.settings = append(o.settings, pair)
		return nil
	})
	flags.StringVar(&o.profiles, "cpuprofile-dir", "", "write CPU and heap profiles of singil into this `directory`, which slows it a little")
	flags.BoolVar(&o.statements, "statements", false, "tell what PostgreSQL spent its time on, with pg_stat_statements, which slows it a little")
	flags.StringVar(&o.report, "report", "", "write the report to `PREFIX`.json and PREFIX.md")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if o.quick {
		o.rounds, o.charges, o.slowCharges, o.dueAtOnce, o.imports = 1, min(o.charges, 1500), min(o.slowCharges, 600), 1000, 1000
		*waiting, *sweep = "1200,3000", "10000"
	}
	if o.waiting, err = counts(*waiting); err != nil {
		return o, err
	}
	if o.sweep, err = counts(*sweep); err != nil {
		return o, err
	}
	o.only, o.sides = words(*only), words(*sides)
	for _, name := range o.only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return o, fmt.Errorf("there is no part %q", name)
		}
	}
	for _, name := range o.sides {
		if _, known := sideNames[name]; !known {
			return o, fmt.Errorf("there is no side %q", name)
		}
	}
	for _, word := range words(*latency) {
		d, err := time.ParseDuration(word)
		if err != nil {
			return o, err
		}
		o.latencies = append(o.latencies, d)
	}
	if o.profiles != "" {
		if o.profiles, err = filepath.Abs(o.profiles); err != nil {
			return o, err
		}
		return o, os.MkdirAll(o.profiles, 0o755)
	}
	return o, nil
}

func counts(list string) (ns []int, err error) {
	for _, word := range words(list) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		ns = append(ns, n)
	}
	return ns, nil
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// runStub is the role: the provider until it is told to go.
func runStub(context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// Longer than a client keeps a connection it does not use. A connection that was dialled and never used is closed
	// after the time for a header, too: with 5 s, a warm-up's fell under the first requests of its round.
	server := &http.Server{Handler: &stub.Stub{Now: time.Now}, ReadHeaderTimeout: 2 * time.Minute}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(stop, func() { _ = server.Close() }) // nothing is lost with it
	fmt.Fprintf(os.Stderr, "listening on http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
