package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	stateVersion = 1
	saveInterval = 2 * time.Second
)

// stateFile is what Options.StateFile holds.
type stateFile struct {
	Version    int
	Seed       uint64
	Now        time.Time
	SavedAt    time.Time // real time
	Factor     float64
	RNG        []byte
	Profile    Profile
	Faults     []savedRule
	Script     []Fault
	Store      *store
	Deliveries []*delivery // announced and not settled
}

// savedRule is a fault and how often it has been asked and has hit.
type savedRule struct {
	Fault
	Matched int
	Fired   int
	Tosses  map[uint64]uint32
}

// readState reads the state file; nil when there is none.
func (s *Sandbox) readState() (*stateFile, error) {
	if s.opts.StateFile == "" {
		return nil, nil
	}
	data, err := os.ReadFile(s.opts.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox: read state: %w", err)
	}
	var state stateFile
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fmt.Errorf("sandbox: state file %s cannot be read; move it away to start anew: %w", s.opts.StateFile, err)
	}
	if state.Version != stateVersion {
		return nil, fmt.Errorf("sandbox: state file %s has version %d, this program reads %d; move it away to start anew", s.opts.StateFile, state.Version, stateVersion)
	}
	return &state, nil
}

// restore takes over a saved state. What New was told wins over it. Called by
// New, before anything runs.
func (s *Sandbox) restore(state *stateFile) error {
	if state.Store == nil || state.Now.IsZero() {
		return errors.New("it is not complete")
	}
	if err := s.pcg.UnmarshalBinary(state.RNG); err != nil {
		return err
	}
	if err := state.Store.index(); err != nil {
		return err
	}
	s.st = state.Store
	s.profile = state.Profile
	if s.opts.Start.IsZero() {
		if err := s.clock.Run(state.Factor); err != nil {
			return err
		}
		now := state.Now
		if state.Factor == 1 {
			// Time went on while nobody was here. A clock with another factor
			// goes on where it stopped: at 3600 a night would be a year.
			now = now.Add(max(0, time.Since(state.SavedAt)))
		}
		s.clock.Set(now)
		if s.opts.StopClock {
			_ = s.clock.Run(0) // which is always allowed
		}
	}
	if len(s.opts.Faults) == 0 {
		for _, r := range state.Faults {
			if _, err := s.AddFault(r.Fault); err != nil {
				return err
			}
		}
	}
	for _, d := range state.Deliveries {
		if d == nil {
			return errors.New("a delivery is null")
		}
		s.schedule(&timer{At: s.clock.Now(), Kind: timerDeliver, ID: d.Event, Delivery: d})
	}
	return s.SetScript(state.Script)
}

// save writes the state file beside itself and moves it into place, so that a
// crash leaves the old one whole.
func (s *Sandbox) save() error {
	if s.opts.StateFile == "" {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(s.opts.StateFile), filepath.Base(s.opts.StateFile)+".*")
	if err != nil {
		return fmt.Errorf("sandbox: save state: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails when it was moved, as it should
	err = s.writeState(tmp)
	if err == nil {
		err = tmp.Sync() // slow, so without the lock
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), s.opts.StateFile)
	}
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return fmt.Errorf("sandbox: save state: %w", err)
	}
	return nil
}

func (s *Sandbox) writeState(to io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rng, err := s.pcg.MarshalBinary()
	if err != nil {
		return err
	}
	state := stateFile{
		Version: stateVersion, Seed: s.opts.Seed, Now: s.clock.Now(), SavedAt: time.Now(), Factor: s.clock.Factor(), RNG: rng,
		Profile: s.profile, Script: s.faults.script, Store: s.st, Deliveries: s.post.outstanding(),
	}
	for _, r := range s.faults.rules {
		state.Faults = append(state.Faults, savedRule{r.Fault, r.matched, r.fired, r.tosses})
	}
	out := bufio.NewWriter(to)
	if err := errors.Join(json.NewEncoder(out).Encode(state), out.Flush()); err != nil {
		return err
	}
	s.dirty = false
	return nil
}

func (s *Sandbox) saveEverySoOften() {
	defer s.running.Done()
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
			if !s.changed() {
				continue
			}
			if err := s.save(); err != nil {
				s.log.Error("state not saved", "error", err)
			}
		}
	}
}

func (s *Sandbox) changed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dirty
}
