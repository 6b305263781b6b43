package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const rulesFile = "../../prometheus/rules.yaml"

type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []rule }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var out []rule
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) < 20 {
		t.Fatalf("only %d alerts: the test looks at the wrong place", len(out))
	}
	return out
}

// TestAlerts: every alert names what a daemon has, says how urgent it is, and
// leads to its runbook, which agrees.
func TestAlerts(t *testing.T) {
	t.Parallel()
	known := registry(t)
	seen := map[string]bool{}
	for _, r := range readRules(t) {
		if seen[r.Alert] {
			t.Errorf("two alerts %s", r.Alert)
		}
		seen[r.Alert] = true
		if e := parse(t, r.Expr); e != nil {
			for _, wrong := range speaksOf(e, known) {
				t.Errorf("%s: %s", r.Alert, wrong)
			}
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s has the severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s does not say what it is", r.Alert)
		}
		if want := "https://github.com/singil/singil/blob/main/docs/runbooks/" + r.Alert + ".md"; r.Annotations["runbook_url"] != want {
			t.Errorf("%s leads to %s", r.Alert, r.Annotations["runbook_url"])
		}
		text, err := os.ReadFile("../../../docs/runbooks/" + r.Alert + ".md")
		if err != nil {
			t.Errorf("%s has no runbook: %v", r.Alert, err)
			continue
		}
		if !strings.HasPrefix(string(text), "# "+r.Alert+"\n\nSeverity: "+r.Labels["severity"]+".\n") {
			t.Errorf("the runbook of %s does not begin with its name and severity", r.Alert)
		}
	}
}

// TestAlertsAreTested: promtool has a case in which it fires, and one in which it does not.
func TestAlertsAreTested(t *testing.T) {
	t.Parallel()
	fires, quiet := map[string]bool{}, map[string]bool{}
	name := regexp.MustCompile(`alertname="(\w+)"`)
	for _, file := range []string{"rules.test.yaml", "rules.week.test.yaml"} {
		text, err := os.ReadFile("../../prometheus/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var cases struct {
			Tests []struct {
				Expr []struct {
					Expr    string
					Samples []struct{ Labels string } `yaml:"exp_samples"`
				} `yaml:"promql_expr_test"`
			}
		}
		if err := yaml.Unmarshal(text, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases.Tests {
			for _, e := range c.Expr {
				alert := name.FindStringSubmatch(e.Expr)
				switch {
				case alert == nil:
					t.Errorf("%s: no alert in %s", file, e.Expr)
				case len(e.Samples) > 0:
					fires[alert[1]] = true
				case strings.HasPrefix(e.Expr, "count_over_time("):
					quiet[alert[1]] = true
				}
			}
		}
	}
	for _, r := range readRules(t) {
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("%s: fires %t, is quiet %t; it needs a case of each", r.Alert, fires[r.Alert], quiet[r.Alert])
		}
	}
}
