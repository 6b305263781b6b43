package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/worker"
)

var update = flag.Bool("update", false, "write the golden file anew")

// Whom a label must not name.
var (
	forbidden = map[string]bool{"id": true, "invoice": true, "subscription": true, "customer": true, "card": true, "email": true}
	idPattern = regexp.MustCompile(`^(pi|pay|pm|cus|evt|ref)_|[0-9a-f]{8}-[0-9a-f]{4}-|@`)
)

// TestMetricsOfADaemon holds the names, types and labels that dashboards and
// alerts are written against. Everything in it is there before anything has
// happened.
func TestMetricsOfADaemon(t *testing.T) {
	t.Parallel()
	cfg := config{
		DatabaseURL: pgtest.DSN(t), BaseURL: "http://127.0.0.1:9/v1", SecretKey: "sk_test_metrics", Rate: 1,
		Environment: billing.EnvironmentDev, Listen: "127.0.0.1:0", Schedule: "* * * * *", TimeZone: "Asia/Manila", API: true,
	}
	metrics := worker.NewMetrics()
	client, err := cfg.payMongo(paymongo.WithObserver(metrics.ObservePayMongo))
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(t.Context(), cfg, worker.NewPayMongo(client), client.Livemode(), metrics, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	var got strings.Builder
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "singil_") {
			continue // Go's and the process's
		}
		var names []string
		for _, l := range f.GetMetric()[0].GetLabel() { // those of all its series: Gather sees to that
			names = append(names, l.GetName())
			if forbidden[l.GetName()] || strings.HasSuffix(l.GetName(), "_id") {
				t.Errorf("%s has the label %s", f.GetName(), l.GetName())
			}
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if idPattern.MatchString(l.GetValue()) {
					t.Errorf("%s has the label %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
		fmt.Fprintf(&got, "%s %s{%s}\n    %s\n", strings.ToLower(f.GetType().String()), f.GetName(), strings.Join(names, ","), f.GetHelp())
	}
	path := filepath.Join("testdata", "metrics.golden")
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("other metrics than in %s (-want +got); -update writes it anew:\n%s", path, diff)
	}
}
