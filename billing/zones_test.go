package billing

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the process with an environment of its own:
// package time reads ZONEINFO once.
func TestMain(m *testing.M) {
	if name := os.Getenv("BILLING_TEST_ZONE"); name != "" {
		pinned, err := LoadZone(name)
		if err != nil {
			panic(err)
		}
		machines, err := time.LoadLocation(name)
		if err != nil {
			panic(err)
		}
		at := time.Date(2026, 1, 31, 4, 0, 0, 0, time.UTC)
		fmt.Printf("%s %s", at.In(pinned).Format(time.RFC3339), at.In(machines).Format(time.RFC3339))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestZonesAreNotTheMachines: what a machine takes for Manila's time is no matter.
func TestZonesAreNotTheMachines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, err := zoneFiles()["Asia/Tokyo"].Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "Asia"), 0o755); err != nil {
		t.Fatal(err)
	}
	wrong, err := os.Create(filepath.Join(dir, "Asia", "Manila"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.ReadFrom(file); err != nil {
		t.Fatal(err)
	}
	if err := wrong.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "ZONEINFO="+dir, "BILLING_TEST_ZONE=Asia/Manila")
	out, err := cmd.CombinedOutput()
	if want := "2026-01-31T12:00:00+08:00 2026-01-31T13:00:00+09:00"; err != nil || string(out) != want {
		t.Errorf("%v: LoadZone and time.LoadLocation say %s, want %s", err, out, want)
	}
}

func TestZoneVersion(t *testing.T) {
	t.Parallel()
	if v := ZoneVersion(); !regexp.MustCompile(`^20\d\d[a-z]$`).MatchString(v) {
		t.Errorf("%q", v)
	}
}

// TestZoneListIsWhole compares the list in testdata with the zones that there are.
func TestZoneListIsWhole(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, name := range zoneNames(t) {
		listed[name] = true
	}
	for name := range zoneFiles() {
		if !strings.HasSuffix(name, "/") && name != "Factory" && !listed[name] {
			t.Errorf("%s is missing in testdata/zones.txt", name)
		}
	}
}
