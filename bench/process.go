package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs beside this one, so that what it needs of the machine can be told apart.
type process struct {
	name  string
	log   string // a file: all that it says
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended; read behind ended
}

// launch starts a program. Its environment is env and nothing of ours but what Go and its libraries need.
func (r *rig) launch(name, path string, args, env []string) (*process, error) {
	r.started++
	p := &process{name: name, log: filepath.Join(r.dir, fmt.Sprintf("%s-%d.log", name, r.started)), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // only the process writes to it
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.Getenv("TMPDIR")}, env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	r.processes = append(r.processes, p)
	return p, nil
}

// role starts this program again in one of its roles.
func (r *rig) role(name string, env ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return r.launch(name, self, nil, append(env, roleName+"="+name))
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends it as a supervisor would, and is an error if it does not end well. It may have ended already.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s does not end: %s", p.name, p.lastWords())
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w: %s", p.name, p.err, p.lastWords())
	}
	return nil
}

// kill ends it whatever it does. It may have ended already.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// says waits until its log matches, and gives the first group of the match.
func (p *process) says(ctx context.Context, pattern *regexp.Regexp) (string, error) {
	var said string
	err := until(ctx, 2*time.Millisecond, time.Minute, func() (bool, error) {
		content, err := os.ReadFile(p.log)
		if match := pattern.FindSubmatch(content); match != nil {
			said = string(match[1])
			return true, nil
		}
		select {
		case <-p.ended:
			return false, fmt.Errorf("%s has ended: %w: %s", p.name, errors.Join(err, p.err), p.lastWords())
		default:
			return false, err
		}
	})
	if err != nil {
		return "", fmt.Errorf("wait for %s to say %s: %w", p.name, pattern, err)
	}
	return said, nil
}

func (p *process) lastWords() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-2000):])
}

// warnings are the last few lines of its log that are no mere information.
func (p *process) warnings() []string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`) {
			found = append(found, p.name+": "+strings.TrimSpace(line))
		}
	}
	return found[max(0, len(found)-3):]
}

// until asks again and again, until the answer is yes.
func until(ctx context.Context, every, patience time.Duration, done func() (bool, error)) error {
	again := time.NewTicker(every)
	defer again.Stop()
	for over := time.After(patience); ; {
		if yes, err := done(); yes || err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-over:
			return fmt.Errorf("not within %s", patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
