package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/singil/singil/paymongo/sandbox"
)

type sandboxFlags struct {
	listen  string
	keys    []string
	seed    uint64
	faults  []string
	profile []string
	start   string
	factor  float64
	state   string
	records int
	hang    time.Duration
	scale   float64
	log     string
}

func sandboxCommand() *cobra.Command {
	var f sandboxFlags
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a PayMongo that can fail on demand",
		Long: `Run a PayMongo to test against: its resources, test cards, 3-D Secure page
and signed webhooks, with faults on demand and a ledger that tells what was
really charged. It knows no real cards and takes no live keys.

Faults, profile and clock can be changed while it runs: GET /_sandbox.`,
		Example: `  singil sandbox
  singil sandbox --fault timeout_after=0.3,endpoint=payment_intents.attach --seed 7
  singil sandbox --profile off_session=three_ds --profile cvc_required=true
  singil sandbox --clock-factor 3600 --state sandbox.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := f.options(cmd.ErrOrStderr())
			if err != nil {
				return usageError{cmd, err}
			}
			var factor *float64 // nil leaves it to the state file
			if cmd.Flags().Changed("clock-factor") {
				factor = &f.factor
			}
			return runSandbox(cmd.Context(), f.listen, opts, factor, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.listen, "listen", "127.0.0.1:4010", "address to listen on; port 0 takes a free one")
	fl.StringArrayVar(&f.keys, "key", nil, "accept only this test key (repeatable; default any test key)")
	fl.StringArrayVar(&f.faults, "fault", nil, "a fault: KIND[=PROBABILITY][,NAME=VALUE...] (repeatable; \"help\" lists them)")
	fl.StringArrayVar(&f.profile, "profile", nil, "how the account behaves: NAME=VALUE (repeatable; \"help\" lists them)")
	fl.Uint64Var(&f.seed, "seed", 0, "seed of ids and chance, to repeat a run (default random)")
	fl.StringVar(&f.start, "start", "", "first time of the sandbox's clock, RFC 3339 (default now)")
	fl.Float64Var(&f.factor, "clock-factor", 1, "how fast the clock runs; 0 stands still and is moved over the API")
	fl.StringVar(&f.state, "state", "", "file that keeps the state over a restart")
	fl.IntVar(&f.records, "max-records", 0, "most records kept in memory (default 4000000)")
	fl.DurationVar(&f.hang, "hang", time.Minute, "how long a timed-out call is held open")
	fl.Float64Var(&f.scale, "webhook-time-scale", 1, "divide the delays between webhook retries by this")
	fl.StringVar(&f.log, "log", "text", "request log on stderr: text, json or off")
	return cmd
}

func (f sandboxFlags) options(stderr io.Writer) (sandbox.Options, error) {
	opts := sandbox.Options{
		Keys: f.keys, Seed: f.seed, StateFile: f.state, MaxRecords: f.records, Hang: f.hang, WebhookTimeScale: f.scale,
		StopClock: f.factor == 0,
	}
	if slices.Contains(f.faults, "help") {
		return opts, fmt.Errorf("kinds of faults: %s\nnames: endpoint, metadata.KEY, payment_method, nth, times, status, retry_after, code, for, then",
			strings.Join(sandbox.FaultKinds(), ", "))
	}
	for _, line := range f.faults {
		fault, err := sandbox.ParseFault(line)
		if err != nil {
			return opts, err
		}
		opts.Faults = append(opts.Faults, fault)
	}
	if len(f.profile) > 0 {
		profile, err := parseProfile(f.profile)
		if err != nil {
			return opts, err
		}
		opts.Profile = &profile
	}
	if f.start != "" {
		start, err := time.Parse(time.RFC3339, f.start)
		if err != nil {
			return opts, fmt.Errorf("--start %q is not RFC 3339, such as 2026-01-31T09:00:00+08:00", f.start)
		}
		opts.Start = start
	}
	switch f.log {
	case "text":
		opts.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	case "json":
		opts.Logger = slog.New(slog.NewJSONHandler(stderr, nil))
	case "off":
	default:
		return opts, fmt.Errorf("--log %q is none of text, json, off", f.log)
	}
	return opts, nil
}

// parseProfile reads NAME=VALUE lines over the default profile.
func parseProfile(lines []string) (sandbox.Profile, error) {
	profile := sandbox.DefaultProfile()
	for _, line := range lines {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			known, err := json.MarshalIndent(sandbox.DefaultProfile(), "", "  ")
			return profile, cmp.Or(err, fmt.Errorf("--profile takes NAME=VALUE; names and their defaults:\n%s", known))
		}
		raw := []byte(value)
		if !json.Valid(raw) || name == "saved_method_shape" {
			raw, _ = json.Marshal(value) // a string always encodes
		}
		doc, _ := json.Marshal(map[string]json.RawMessage{name: raw}) // valid JSON by now
		dec := json.NewDecoder(strings.NewReader(string(doc)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&profile); err != nil {
			return profile, fmt.Errorf("--profile %s: %w (--profile help lists the names)", line, err)
		}
	}
	return profile, nil
}

func runSandbox(ctx context.Context, listen string, opts sandbox.Options, factor *float64, stdout, stderr io.Writer) error {
	box, err := sandbox.New(opts)
	if err != nil {
		return err
	}
	if factor != nil {
		if err := box.Clock().Run(*factor); err != nil {
			return errors.Join(err, box.Close())
		}
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w; choose another address with --listen", err), box.Close())
	}
	server := &http.Server{
		Handler:           box,
		ReadHeaderTimeout: time.Minute, // longer than a client keeps a connection it dialled and does not use
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.NewTextHandler(stderr, nil), slog.LevelWarn),
	}
	banner(stdout, listener.Addr(), opts, box.Seed())

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return errors.Join(err, box.Close())
	case <-ctx.Done():
	}
	// Calls under way get a second; those that hang on purpose are cut off.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // Shutdown's error has been dealt with by this
	}
	return box.Close()
}

// banner says what to export. The line that starts with "listening" is for
// programs.
func banner(w io.Writer, addr net.Addr, opts sandbox.Options, seed uint64) {
	base := "http://" + addr.String()
	key := "sk_test_sandbox"
	for _, k := range opts.Keys {
		if strings.HasPrefix(k, "sk_") {
			key = k
			break
		}
	}
	fmt.Fprintf(w, `PayMongo sandbox. No money moves here.

listening %[1]s/v1

  export PAYMONGO_BASE_URL=%[1]s/v1
  export PAYMONGO_SECRET_KEY=%[2]s

  faults, clock, profile:  curl %[1]s/_sandbox
  charged twice?           curl '%[1]s/_sandbox/ledger/summary?key=invoice'
  this run again:          --seed %[3]d

`, base, key, seed)
	if host, _, err := net.SplitHostPort(addr.String()); err == nil && !net.ParseIP(host).IsLoopback() {
		fmt.Fprintln(w, "Warning: the controls below /_sandbox need no key, and this address is not only yours.")
	}
}
