package main

import (
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo/sandbox"
)

// TestNineInTheMorning is an operator's morning with the real binary: an invoice
// has failed; find it, see why, retry it, watch it be paid, and see it audited and
// counted.
func TestNineInTheMorning(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	binary := filepath.Join(t.TempDir(), "singil")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	d := newBadDay(t, binary, pgtest.DSN(t))
	t.Setenv("USER", "ana")
	if _, err := d.box.AddFault(sandbox.Fault{Kind: sandbox.Decline, Code: "insufficient_funds", Times: 1}); err != nil {
		t.Fatal(err)
	}
	d.subscribe(2)
	daemon := d.launch()
	d.set(d.now.Add(time.Minute))
	d.settled()
	says := func(want int, contains string, args ...string) string {
		t.Helper()
		code, said := d.singil(args...)
		if code != want || !strings.Contains(said, contains) {
			t.Fatalf("singil %s: exit code %d, want %d; %q not in:\n%s", strings.Join(args, " "), code, want, contains, said)
		}
		return said
	}
	counts := func() string {
		t.Helper()
		resp, err := http.Get(daemon.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	counts() // it counts from its first look on

	// One of the two has failed.
	lines := strings.Split(strings.TrimSpace(says(0, "insufficient_funds", "invoices", "list", "--status", "open", "--decline-code", "insufficient_funds", "-o", "csv")), "\n")
	if len(lines) != 2 {
		t.Fatalf("failed: %v", lines)
	}
	fields := strings.Split(lines[1], ",")
	id, subscription := fields[0], fields[1]
	says(0, "attach: insufficient_funds", "invoices", "show", id)
	says(0, "dunning", "why", subscription)
	says(0, "insufficient_funds", "retry", "--decline-code", "insufficient_funds", "--rest", "0", "--dry-run")

	// The customer has called: there is money now.
	d.set(d.now.Add(time.Hour))
	says(0, "due now", "retry", id, "--reason", "there is money now")
	d.await("it is paid", func() bool {
		return d.number(`SELECT count(*) FROM singil.invoices WHERE id = $1 AND status = 'paid'`, id) == 1
	})
	says(0, "succeeded", "invoices", "show", id)
	says(4, "only an open one is charged", "retry", id, "--reason", "there is money now")
	says(4, "final", "invoices", "void", id, "--reason", "too late")
	says(0, "there is money now", "audit", "list", "--actor", "ana", "--action", "retry_invoice")
	d.await("it is counted", func() bool {
		return strings.Contains(counts(), `operator_actions_total{action="retry_invoice",result="done"} 1`)
	})
	says(0, "is paused", "subscriptions", "pause", subscription, "--reason", "a holiday")
	d.await("the pause is counted", func() bool {
		return strings.Contains(counts(), `operator_actions_total{action="pause_subscription",result="done"} 1`)
	})
	daemon.stop()
	d.allPaidOnce(2)
}
