package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options of a sandbox. The zero value is a good one: the default profile, no
// faults, real time, any test key, everything in memory.
type Options struct {
	// Profile of the account; nil is DefaultProfile.
	Profile *Profile
	// Faults to begin with.
	Faults []Fault
	// Seed of ids and of chance; 0 takes a random one, see Sandbox.Seed.
	Seed uint64
	// Start is the clock's first time; zero is now.
	Start time.Time
	// StopClock starts with a clock that stands still.
	StopClock bool
	// Keys that are accepted, sk_test_ and pk_test_. Empty accepts every well
	// formed test key. Live keys never are.
	Keys []string
	// MaxRecords bounds the memory: customers, methods, intents, attaches,
	// payments, refunds, endpoints and checkouts together. Beyond it creating
	// and attaching answer 503: a ledger that forgets would be no oracle. Zero
	// is 4,000,000, about 3 GiB.
	MaxRecords int
	// Hang is how long a timed-out call is held open when the caller does not
	// give up first. Zero is a minute.
	Hang time.Duration
	// WebhookTimeScale divides the delays between the tries of a webhook
	// (2, 4, ... 4096 s on the sandbox's clock). Zero is 1.
	WebhookTimeScale float64
	// WebhookTimeout of one delivery, real time. Zero is 30 s, PayMongo's.
	WebhookTimeout time.Duration
	// WebhookWorkers deliver at the same time. Zero is 4; 1 keeps the order.
	WebhookWorkers int
	// StateFile keeps the state over a restart: read by New if it exists,
	// written every two seconds when something changed, and by Close. A kill
	// may cost the last two seconds. The seed, profile, faults and clock of the
	// file hold unless these options say otherwise; faults given here replace
	// those of the file. What Idempotency-Keys have stored is not kept.
	StateFile string
	// Logger gets one line a request and a delivery. nil logs nothing.
	Logger *slog.Logger
}

// Sandbox is one PayMongo account to run against. It is an http.Handler that
// serves the API below /v1 and /v2 and its own controls below /_sandbox/.
// Safe for concurrent use.
type Sandbox struct {
	opts  Options
	clock *Clock
	log   *slog.Logger
	api   *http.ServeMux
	admin *http.ServeMux
	post  *postman

	mu      sync.Mutex // guards everything below
	st      *store
	rng     *rand.Rand
	pcg     *rand.PCG
	profile Profile
	faults  faultBook
	replays replayBook
	limiter secondCounter
	dirty   bool // the state file is behind
	shut    bool // Close has begun

	wake    chan struct{}
	done    chan struct{}
	running sync.WaitGroup // the sandbox's own goroutines
	working sync.WaitGroup // calls at their effect; added to with mu held and shut false
	closed  sync.Once
}

// New starts a sandbox. Close it to stop its clock and its deliveries.
//
// It fails on an invalid profile, fault or key, and on a state file that
// cannot be read.
func New(opts Options) (*Sandbox, error) {
	for _, key := range opts.Keys {
		if !isTestKey(key) {
			return nil, errors.New("sandbox: keys must be test keys: sk_test_ or pk_test_ and what follows")
		}
	}
	if opts.WebhookTimeScale != 0 && !(opts.WebhookTimeScale >= 1e-6 && opts.WebhookTimeScale <= 1e9) {
		return nil, errors.New("sandbox: the webhooks' time scale must be between 0.000001 and 1000000000")
	}
	if opts.MaxRecords < 0 || opts.Hang < 0 || opts.WebhookTimeout < 0 || opts.WebhookWorkers < 0 {
		return nil, errors.New("sandbox: an option is negative")
	}
	opts.MaxRecords = cmp.Or(opts.MaxRecords, 4_000_000)
	opts.Hang = cmp.Or(opts.Hang, time.Minute)
	opts.WebhookTimeScale = cmp.Or(opts.WebhookTimeScale, 1)
	opts.WebhookTimeout = cmp.Or(opts.WebhookTimeout, 30*time.Second)
	opts.WebhookWorkers = cmp.Or(opts.WebhookWorkers, 4)

	s := &Sandbox{
		opts:    opts,
		log:     opts.Logger,
		profile: DefaultProfile(),
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	factor := 1.0
	if opts.StopClock {
		factor = 0
	}
	s.clock = newClock(opts.Start, factor, s.clockMoved)
	s.replays.reset()
	saved, err := s.readState()
	if err != nil {
		return nil, err
	}
	if s.opts.Seed == 0 && saved != nil {
		s.opts.Seed = saved.Seed
	}
	for s.opts.Seed == 0 {
		s.opts.Seed = rand.Uint64()
	}
	s.pcg = rand.NewPCG(s.opts.Seed, 0)
	s.rng = rand.New(s.pcg)
	s.faults.seed = s.opts.Seed
	s.st = newStore()
	s.st.OrganizationID = s.newID("org_")
	if saved != nil {
		if err := s.restore(saved); err != nil {
			return nil, fmt.Errorf("sandbox: state file %s: %w; move it away to start anew", opts.StateFile, err)
		}
	}
	if opts.Profile != nil {
		s.profile = *opts.Profile
	}
	if err := s.profile.validate(); err != nil {
		return nil, err
	}
	for _, f := range opts.Faults {
		if _, err := s.AddFault(f); err != nil {
			return nil, err
		}
	}
	if saved != nil {
		s.faults.recount(saved.Faults)
	}
	s.post = newPostman(s)
	s.api = s.apiRoutes()
	s.admin = s.adminRoutes()

	s.running.Add(1)
	go s.run()
	if opts.StateFile != "" {
		s.running.Add(1)
		go s.saveEverySoOften()
	}
	return s, nil
}

// Seed gives the seed of this run, to repeat it.
func (s *Sandbox) Seed() uint64 { return s.opts.Seed }

// Clock gives the sandbox's clock.
func (s *Sandbox) Clock() *Clock { return s.clock }

// Close stops the clock and the deliveries and writes the state file, if there
// is one. Calls that hang are let go, attaches at work are executed, and what
// comes later is answered 503. The ledger stays readable. A second Close does
// nothing.
func (s *Sandbox) Close() error {
	var err error
	s.closed.Do(func() {
		s.mu.Lock()
		s.shut = true
		s.mu.Unlock()
		close(s.done)
		s.running.Wait()
		s.working.Wait()
		s.post.close()
		err = s.save()
	})
	return err
}

// Settle makes everything happen that is due at the clock's present time. It
// is only needed after the clock was moved, by who cannot wait a moment.
func (s *Sandbox) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchUp(s.clock.Now())
}

// Drain waits until no webhook is due or under way at the clock's present
// time. Retries that are due later do not count.
func (s *Sandbox) Drain(ctx context.Context) error {
	s.Settle()
	return s.post.drain(ctx)
}

// Profile returns the account's present profile.
func (s *Sandbox) Profile() Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.profile
}

// SetProfile replaces the profile; it holds from the next call on.
func (s *Sandbox) SetProfile(p Profile) error {
	if err := p.validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profile, s.dirty = p, true
	return nil
}

// Reset forgets everything but the profile, the faults and the clock.
func (s *Sandbox) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	org := s.st.OrganizationID
	s.st = newStore()
	s.st.OrganizationID = org
	s.replays.reset()
	s.post.forget()
	s.dirty = true
}

// ServeHTTP implements http.Handler.
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/_sandbox"):
		s.admin.ServeHTTP(w, r)
	case strings.Contains(path, "//") || strings.Contains(path, "/.") || !strings.HasPrefix(path, "/v"):
		// ServeMux would redirect; PayMongo does not.
		w.WriteHeader(http.StatusNotFound)
	default:
		s.api.ServeHTTP(w, r)
	}
}

// clockMoved is told of every change of the clock.
func (s *Sandbox) clockMoved() {
	s.mu.Lock()
	s.dirty = true
	s.mu.Unlock()
	s.poke()
}

// newID makes an id the way PayMongo's look. Called with mu held, or by New.
func (s *Sandbox) newID(prefix string) string { return prefix + randomSuffix(s.rng) }

func isTestKey(key string) bool {
	for _, prefix := range []string{"sk_test_", "pk_test_"} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			return rest != "" && len(key) <= 200 && strings.Trim(rest, base58+"0OIl_") == ""
		}
	}
	return false
}

// full tells why nothing more can be created. Called with mu held.
func (s *Sandbox) full() error {
	if n := s.st.records(); n >= s.opts.MaxRecords {
		return fmt.Errorf("the sandbox holds %d records, its limit; raise MaxRecords (--max-records) or reset it", n)
	}
	return nil
}
