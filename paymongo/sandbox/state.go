package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
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
	Version int
	Now     time.Time
	Factor  float64
	RNG     []byte
	Profile Profile
	Faults  []Fault
	Script  []Fault
	Store   *store
}

// load reads the state file, if there is one. A profile given in the options
// wins over the saved one.
func (s *Sandbox) load() error {
	if s.opts.StateFile == "" {
		return nil
	}
	data, err := os.ReadFile(s.opts.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sandbox: read state: %w", err)
	}
	state := stateFile{Store: &store{}}
	if err := json.Unmarshal(data, &state); err != nil {
		return fmt.Errorf("sandbox: state file %s cannot be read; move it away to start anew: %w", s.opts.StateFile, err)
	}
	if state.Version != stateVersion {
		return fmt.Errorf("sandbox: state file %s has version %d, this program reads %d; move it away to start anew", s.opts.StateFile, state.Version, stateVersion)
	}
	if err := s.pcg.UnmarshalBinary(state.RNG); err != nil {
		return fmt.Errorf("sandbox: state file %s: %w", s.opts.StateFile, err)
	}
	if s.opts.Profile == nil {
		s.profile = state.Profile
	}
	if s.opts.Start.IsZero() {
		// Time went on while nobody was here, at the clock's own factor.
		s.clock.base = state.Now
		if state.Factor == 1 {
			s.clock.base = time.Now().UTC().Round(0)
		}
		s.clock.factor = state.Factor
	}
	for _, fault := range state.Faults {
		if _, err := s.AddFault(fault); err != nil {
			return err
		}
	}
	if err := s.SetScript(state.Script); err != nil {
		return err
	}
	s.st = state.Store
	s.st.index()
	return nil
}

// save writes the state file beside itself and moves it into place, so that a
// crash leaves the old one whole.
func (s *Sandbox) save() error {
	if s.opts.StateFile == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil
	}
	seed, err := s.pcg.MarshalBinary()
	if err != nil {
		return fmt.Errorf("sandbox: save state: %w", err)
	}
	state := stateFile{
		Version: stateVersion, Now: s.clock.Now(), Factor: s.clock.Factor(), RNG: seed,
		Profile: s.profile, Script: s.faults.script, Store: s.st,
	}
	for _, r := range s.faults.rules {
		state.Faults = append(state.Faults, r.Fault)
	}
	tmp, err := os.CreateTemp(filepath.Dir(s.opts.StateFile), filepath.Base(s.opts.StateFile)+".*")
	if err != nil {
		return fmt.Errorf("sandbox: save state: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails when it was moved, as it should
	out := bufio.NewWriter(tmp)
	err = errors.Join(json.NewEncoder(out).Encode(state), out.Flush(), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), s.opts.StateFile)
	}
	if err != nil {
		return fmt.Errorf("sandbox: save state: %w", err)
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
			if err := s.save(); err != nil {
				s.log.Error("state not saved", "error", err)
			}
		}
	}
}
