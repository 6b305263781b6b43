package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Backup is a copy of a cluster's files. Start takes its Dir as a DataDir. Remove it when no server uses it any more.
type Backup struct {
	Dir  string
	root string
}

// Remove removes the files.
func (b *Backup) Remove() error { return os.RemoveAll(b.root) }

// Signal makes the server that starts on these files do what the name of a signal file says, such as recovery.signal:
// recover to the end of what is there, and begin a new timeline.
func (b *Backup) Signal(name string) error {
	// The owner may be another user, who removes it: that is a right on the directory.
	return os.WriteFile(filepath.Join(b.Dir, name), nil, 0o644) //nolint:gosec // nothing is in it
}

// Backup takes a base backup of the running server. With standby, a server that starts on it follows this one, until it
// is promoted.
func (s *Server) Backup(ctx context.Context, standby bool) (*Backup, error) {
	return s.copyTo(func(dir string) *exec.Cmd {
		args := []string{"-D", dir, "-h", s.run, "-p", fmt.Sprint(s.port), "-U", superuser, "-c", "fast", "-X", "stream", "--no-sync"}
		if standby {
			args = append(args, "-R")
		}
		return s.commandContext(ctx, filepath.Join(s.bin, "pg_basebackup"), args...)
	})
}

// CopyFiles copies the files of a server that is not running, as a snapshot of its disk would.
func (s *Server) CopyFiles(ctx context.Context) (*Backup, error) {
	if err := s.mustRest(); err != nil {
		return nil, err
	}
	return s.copyTo(func(dir string) *exec.Cmd { return s.commandContext(ctx, "cp", "-a", s.data+"/.", dir) })
}

// PutBack replaces the files of a server that is not running by a copy, which stays as it is.
func (s *Server) PutBack(ctx context.Context, b *Backup) error {
	if err := s.mustRest(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.data); err != nil {
		return err
	}
	if out, err := s.commandContext(ctx, "cp", "-a", b.Dir, s.data).CombinedOutput(); err != nil {
		return fmt.Errorf("put the files back: %w: %s", err, out)
	}
	return nil
}

func (s *Server) mustRest() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.main != nil {
		return errors.New("the private PostgreSQL is running: Kill it first")
	}
	return nil
}

func (s *Server) copyTo(command func(dir string) *exec.Cmd) (_ *Backup, err error) {
	b := &Backup{}
	if b.root, err = s.as.tempDir(false); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("copy the private PostgreSQL: %w", err), b.Remove())
		}
	}()
	if b.Dir, err = s.as.dataDir(filepath.Join(b.root, "data")); err != nil {
		return nil, err
	}
	if out, err := command(b.Dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return b, nil
}

// commandContext is a program that runs as the server does and ends soon.
func (s *Server) commandContext(ctx context.Context, path string, args ...string) *exec.Cmd {
	like := s.command("postgres")
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = like.Dir, like.Env, like.SysProcAttr
	return cmd
}
