//go:build !unix

package devpg

import (
	"errors"
	"os"
	"os/exec"
)

var errNotHere = errors.New("a private PostgreSQL needs Linux, macOS or another Unix: set DATABASE_URL to a database that is already there")

// The rest of this file only lets the package compile where Start says that.

var stopSignal = os.Kill

type identity struct{ watchdogOnly bool }

func whoRuns(string) (identity, error)          { return identity{}, errNotHere }
func (identity) apply(*exec.Cmd, os.Signal)     {}
func (identity) mayEnter(string) error          { return errNotHere }
func (identity) tempDir(bool) (string, error)   { return "", errNotHere }
func (identity) dataDir(string) (string, error) { return "", errNotHere }
func quitSignal(bool) os.Signal                 { return os.Kill }
func detach(*exec.Cmd)                          {}
func killPID(int)                               {}
func processes() ([]relative, error)            { return nil, errNotHere }
