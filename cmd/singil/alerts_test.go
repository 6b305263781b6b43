package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
)

const (
	rulesFile = "../../deploy/prometheus/rules.yaml"
	runbooks  = "../../docs/runbooks"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestAlertsAndRunbooks: who is woken finds what to do, and no runbook is left
// of an alert that is gone.
func TestAlertsAndRunbooks(t *testing.T) {
	t.Parallel()
	var alerts, books []string
	for _, m := range regexp.MustCompile(`(?m)^\s+- alert: (\w+)$`).FindAllStringSubmatch(readText(t, rulesFile), -1) {
		alerts = append(alerts, m[1])
	}
	files, err := filepath.Glob(runbooks + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		books = append(books, strings.TrimSuffix(filepath.Base(file), ".md"))
	}
	slices.Sort(alerts)
	slices.Sort(books)
	if len(alerts) < 20 || !slices.Equal(alerts, books) {
		t.Errorf("alerts and runbooks are not the same:\n%v\n%v", alerts, books)
	}
	for _, name := range books {
		text := readText(t, filepath.Join(runbooks, name+".md"))
		for _, part := range []string{"## What it means\n", "## What is safe to do\n", "## What to run\n", "## When to freeze\n"} {
			if before, after, found := strings.Cut(text, part); !found || strings.TrimSpace(before) == "" || len(strings.TrimSpace(after)) < 3 {
				t.Errorf("%s lacks %q", name, part)
			}
		}
		for _, m := range regexp.MustCompile(`(\w+)\.md`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(books, m[1]) {
				t.Errorf("%s leads to %s, which is not there", name, m[1])
			}
		}
	}
}

// TestRunbooksRunWhatThereIs: the commands and the flags of the runbooks exist.
func TestRunbooksRunWhatThereIs(t *testing.T) {
	t.Parallel()
	root := &cobra.Command{Use: "singil"}
	root.AddCommand(runCommand(), demoCommand(), sandboxCommand())
	root.AddCommand(operatorCommands()...)
	files, err := filepath.Glob(runbooks + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	line := regexp.MustCompile(`(?m)^singil ([^#\n]+)`)
	for _, file := range files {
		for _, m := range line.FindAllStringSubmatch(readText(t, file), -1) {
			seen++
			words := strings.Fields(m[1])
			cmd, rest, err := root.Find(words)
			if cmd == root || err != nil {
				t.Errorf("%s: there is no singil %s", filepath.Base(file), m[1])
				continue
			}
			for _, word := range rest {
				if name, is := strings.CutPrefix(word, "--"); is && name != "help" && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: singil %s has no flag %s", filepath.Base(file), m[1], word)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands: the test looks at the wrong place", seen)
	}
}

// TestAlertsKnowTheInvariants: those that do not page are invariants, and all
// others do.
func TestAlertsKnowTheInvariants(t *testing.T) {
	t.Parallel()
	lists := regexp.MustCompile(`invariant(!~|=~)"([^"]+)"`).FindAllStringSubmatch(readText(t, rulesFile), -1)
	if len(lists) != 2 || lists[0][1] != "!~" || lists[1][1] != "=~" || lists[0][2] != lists[1][2] {
		t.Fatalf("the alerts on invariants do not complement each other: %v", lists)
	}
	var names []string
	for _, i := range billing.AllInvariants() {
		names = append(names, i.Name)
	}
	for _, name := range strings.Split(lists[0][2], "|") {
		if !slices.Contains(names, name) {
			t.Errorf("there is no invariant %s", name)
		}
	}
}

// TestDeployedFilesNameMetricsThatExist needs no parser; make deploy-check has one.
func TestDeployedFilesNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	golden := readText(t, filepath.Join("testdata", "metrics.golden"))
	files, err := filepath.Glob("../../deploy/grafana/dashboards/*.json")
	if err != nil || len(files) != 2 {
		t.Fatalf("dashboards: %v %v", files, err)
	}
	for _, file := range append(files, rulesFile) {
		for _, name := range regexp.MustCompile(`\bsingil_\w+`).FindAllString(readText(t, file), -1) {
			family := strings.TrimSuffix(name, "_bucket")
			if !strings.Contains(golden, " "+family+"{") {
				t.Errorf("%s: there is no metric %s", filepath.Base(file), name)
			}
		}
	}
}
