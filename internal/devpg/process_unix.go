//go:build unix

package devpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

const stopSignal = syscall.SIGSTOP

// quitSignal is PostgreSQL's fast shutdown if it is to be in order, else its immediate one. Neither waits for those who
// are connected.
func quitSignal(orderly bool) syscall.Signal {
	if orderly {
		return syscall.SIGINT
	}
	return syscall.SIGQUIT
}

// identity is who PostgreSQL runs as. It refuses to be root, so root gives itself up for somebody else.
type identity struct {
	other    bool
	name     string
	uid, gid uint32

	watchdogOnly bool
}

func whoRuns(dataDir string) (identity, error) {
	if os.Geteuid() != 0 {
		return identity{}, nil
	}
	// A cluster that is there already opens to its owner only.
	if dataDir != "" {
		if info, err := os.Stat(dataDir); err == nil {
			if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 {
				return identity{other: true, name: "with uid " + strconv.Itoa(int(stat.Uid)), uid: stat.Uid, gid: stat.Gid}, nil
			}
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return identity{}, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return identity{}, fmt.Errorf("user %s: %w", name, err)
		}
		return identity{other: true, name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return identity{}, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody: run this as an ordinary user")
}

// apply makes cmd a process of the identity, and of no terminal: Ctrl-C is for us, and we may need the database to
// shut down in order. The signal is for when we are gone.
func (i identity) apply(cmd *exec.Cmd, signal syscall.Signal) {
	detach(cmd)
	if !i.watchdogOnly {
		goWithParent(cmd.SysProcAttr, signal)
	}
	if i.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: i.uid, Gid: i.gid}
	}
}

func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// mayEnter tells whether the identity can get at what is in a directory, and names the directory that is in the way.
func (i identity) mayEnter(dir string) error {
	if !i.other {
		return nil
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		needed := fs.FileMode(0o001)
		switch {
		case stat.Uid == i.uid:
			needed = 0o100
		case stat.Gid == i.gid:
			needed = 0o010
		}
		if info.Mode()&needed == 0 {
			return fmt.Errorf("root runs PostgreSQL as the user %s, who may not enter %s: use another directory, or chmod a+x that one", i.name, dir)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

// tempDir makes a directory that the identity owns and can reach, with a name short enough for a socket in it.
func (i identity) tempDir(inMemory bool) (string, error) {
	// Of the 104 bytes of macOS, with room for /.s.PGSQL.65535 and the digits that MkdirTemp adds.
	const longest = 104 - 16 - len("/singil-pg-") - 10
	parents := []string{os.TempDir(), "/tmp", "/var/tmp"}
	if shm := "/dev/shm"; inMemory && hasRoom(shm) {
		parents = slices.Insert(parents, 0, shm)
	}
	var reasons []error
	for _, parent := range parents {
		if len(parent) > longest {
			reasons = append(reasons, fmt.Errorf("%s is too long a path for a socket", parent))
			continue
		}
		if err := i.mayEnter(parent); err != nil {
			reasons = append(reasons, err)
			continue
		}
		dir, err := os.MkdirTemp(parent, "singil-pg-")
		if err != nil {
			reasons = append(reasons, err)
			continue
		}
		if err := i.own(dir); err != nil {
			return "", errors.Join(err, os.Remove(dir))
		}
		return dir, nil
	}
	return "", fmt.Errorf("no directory for a private PostgreSQL, set TMPDIR: %w", errors.Join(reasons...))
}

// dataDir makes the directory, unless it is there, and gives it to the identity, unless there is something in it.
func (i identity) dataDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// The other user must get through these, and into the last one nobody else.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	content, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(content) == 0 {
		if err := i.own(dir); err != nil {
			return "", err
		}
	}
	return dir, i.mayEnter(dir)
}

func (i identity) own(dir string) error {
	if !i.other {
		return nil
	}
	return os.Chown(dir, int(i.uid), int(i.gid))
}

// killPID may find the process gone.
func killPID(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }
