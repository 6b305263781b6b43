package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start runs singil sandbox until the test ends or stop is called.
func start(t *testing.T, args ...string) (base string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	var stderr bytes.Buffer
	exit := make(chan int, 1)
	go func() {
		code := run(ctx, append([]string{"sandbox", "--listen", "127.0.0.1:0", "--log", "off"}, args...), in, &stderr)
		exit <- code
		_ = in.CloseWithError(fmt.Errorf("singil ended with %d: %s", code, stderr.String()))
	}()
	done := false
	stop = func() int {
		if done {
			return 0
		}
		done = true
		cancel()
		return <-exit
	}
	t.Cleanup(func() { stop() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if base, ok := strings.CutPrefix(lines.Text(), "listening "); ok {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return base, stop
		}
	}
	t.Fatal(lines.Err())
	return "", nil
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("sk_test_sandbox", "")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestSandboxServesUntilStopped(t *testing.T) {
	t.Parallel()
	base, stop := start(t, "--fault", "error_before,endpoint=payments.list,times=1", "--profile", "off_session=three_ds", "--seed", "7",
		"--start", "2026-01-31T09:00:00+08:00", "--clock-factor", "0")
	controls := strings.TrimSuffix(base, "/v1") + "/_sandbox"
	if status, body := get(t, base+"/payments"); status != 500 {
		t.Errorf("the fault does not hit: %d %s", status, body)
	}
	if status, body := get(t, base+"/payments"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	for path, want := range map[string]string{
		"/clock": `"2026-01-31T01:00:00Z"`, "/profile": `"off_session":"three_ds"`, "/faults": `"seed":"7"`,
	} {
		if _, body := get(t, controls+path); !strings.Contains(body, want) {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSandboxKeepsItsStateAndLetsHangingCallsGo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	base, stop := start(t, "--state", file, "--fault", "timeout_after,endpoint=webhooks.create")
	hung := make(chan error, 1)
	go func() {
		req, err := http.NewRequest("POST", base+"/webhooks", strings.NewReader(`{"data":{"attributes":{"url":"http://127.0.0.1:1/","events":["payment.paid"]}}}`))
		if err == nil {
			req.SetBasicAuth("sk_test_sandbox", "")
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		}
		hung <- err
	}()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, body := get(t, base+"/webhooks"); strings.Contains(body, "hook_") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the webhook was not created")
		}
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if err := <-hung; err == nil {
		t.Error("the call that should hang was answered")
	}
	base, _ = start(t, "--state", file)
	if _, body := get(t, base+"/webhooks"); !strings.Contains(body, "hook_") {
		t.Errorf("forgotten over a restart: %s", body)
	}
}

func TestClockFactorOverARestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	for _, tt := range []struct{ flag, want string }{
		{"--clock-factor=3600", `"factor":3600`}, {"--hang=1m", `"factor":3600`}, {"--clock-factor=1", `"factor":1,`}, {"--clock-factor=0", `"factor":0,`},
	} {
		base, stop := start(t, "--state", file, tt.flag)
		if _, body := get(t, strings.TrimSuffix(base, "/v1")+"/_sandbox/clock"); !strings.Contains(body, tt.want) {
			t.Errorf("%s: %s, want %s", tt.flag, body, tt.want)
		}
		if code := stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"--help", 0, "sandbox"},
		{"", 0, "sandbox"},
		{"--version", 0, "singil version"},
		{"charge-everybody", 2, "charge-everybody"},
		{"sandbox now", 2, "now"},
		{"sandbox --no-such-flag", 2, "no-such-flag"},
		{"sandbox --fault help", 2, "timeout_after"},
		{"sandbox --fault timeout", 2, `unknown fault "timeout"`},
		{"sandbox --profile help", 2, "minimum_amount"},
		{"sandbox --profile colour=red", 2, "colour"},
		{"sandbox --profile minimum_amount=lots", 2, "minimum_amount"},
		{"sandbox --start tomorrow", 2, "RFC 3339"},
		{"sandbox --log loud", 2, "loud"},
		{"sandbox --profile off_session=maybe", 1, "off_session"},
		{"sandbox --key sk_live_abc", 1, "test keys"},
		{"sandbox --listen 127.0.0.1:99999", 1, "--listen"},
		{"sandbox --clock-factor -1", 1, "factor"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			code := run(ctx, strings.Fields(tt.args), &stdout, &stderr)
			if all := stdout.String() + stderr.String(); code != tt.code || !strings.Contains(all, tt.want) || strings.Contains(all, "sk_live_abc") {
				t.Errorf("exit code %d, want %d; %q not in:\n%s", code, tt.code, tt.want, all)
			}
		})
	}
}
