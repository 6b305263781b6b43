package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/singil/singil/bench/stub"
)

// TestMain is the program itself in the processes that it starts.
func TestMain(m *testing.M) {
	if name := os.Getenv(roleName); name != "" {
		if err := roles[name](context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestBench measures everything once with numbers that tell nothing, so that what make bench runs keeps running.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds singil and charges with it")
	}
	if runtime.GOOS != "linux" {
		t.Skip("CPU and memory are read from Linux's /proc")
	}
	r, err := openRig(t.Context(), options{
		rounds: 1, charges: 60, slowCharges: 30, latencies: []time.Duration{0, 20 * time.Millisecond}, waiting: []int{200}, sweep: []int{7000, 8000}, imports: 20,
		settings: []string{"SINGIL_TIME_ZONE=UTC"},
	}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	report, err := newReport(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if err := part.run(t.Context(), r, report); err != nil {
			t.Fatalf("%s: %v", part.name, err)
		}
	}
	report.finish()
	prefix := t.TempDir() + "/reports/bench"
	if err := report.save(prefix); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(prefix + ".md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| singil | 0 ms | 60 |", "| textbook River worker | 20 ms | 30 |", "| ceiling: empty River jobs | 0 ms | 120 |", "| singil, limited to 400 calls/s | 20 ms |",
		"| 200 |", "| 4 |", ", SINGIL_TIME_ZONE=UTC.", "From the start of the process to the first charge", "| singil export invoices, from start to end | 60 |",
		"| charges/s against the textbook worker | ≥ 5× |", "| peak memory while 200 wait | ≤ 100 MB |",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
	for _, c := range report.Charges {
		if c.PerSecond <= 0 || c.Seconds <= 0 {
			t.Errorf("%+v", c)
		}
		if c.Side == "singil" && (c.PeakBytes < 1<<20 || c.WAL <= 0 || c.Transactions <= 0 || c.Calls.Creates != int64(c.Charges) || c.Calls.Attaches != int64(c.Charges)) {
			t.Errorf("%+v", c)
		}
	}
}

func TestAgree(t *testing.T) {
	t.Parallel()
	a, b := stub.Payment{Invoice: "a", Payment: "pay_1", Amount: 100}, stub.Payment{Invoice: "b", Payment: "pay_2", Amount: 100}
	again, other := b, b
	again.Payment, other.Amount = "pay_3", 99
	for _, tt := range []struct {
		name          string
		ledger, books []stub.Payment
		want          string
	}{
		{"Agreed", []stub.Payment{a, b}, []stub.Payment{b, a}, ""},
		{"Lost", []stub.Payment{a}, []stub.Payment{a}, "of 2 invoices"},
		{"NotInTheBooks", []stub.Payment{a, b}, []stub.Payment{a}, "of 2 invoices"},
		{"NotInTheLedger", []stub.Payment{a}, []stub.Payment{a, b}, "the books have"},
		{"OtherAmount", []stub.Payment{a, b}, []stub.Payment{a, other}, "the books have"},
		{"PaidTwice", []stub.Payment{a, b, again}, []stub.Payment{a, b}, "paid twice"},
		{"TwiceInTheBooks", []stub.Payment{a, b}, []stub.Payment{a, a}, "the books have"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := agree(tt.ledger, tt.books, 2)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestStub(t *testing.T) {
	t.Parallel()
	provider := &stub.Stub{Now: time.Now}
	server := httptest.NewServer(provider)
	defer server.Close()
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/v1/payment_intents"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(content)
	}
	status, created := call(http.MethodPost, "", `{"data":{"attributes":{"metadata":{"invoice":"inv-1"},"amount":49900}}}`)
	id := intentID.FindStringSubmatch(created)
	if status != 200 || id == nil || !strings.Contains(created, `"status":"awaiting_payment_method"`) || !strings.Contains(created, `"amount":49900`) {
		t.Fatalf("create: %d %s", status, created)
	}
	for _, want := range []int{200, 400} { // the money moves once
		if status, answer := call(http.MethodPost, "/"+id[1]+"/attach", attachBody); status != want {
			t.Errorf("attach: %d %s, want %d", status, answer, want)
		}
	}
	if _, shown := call(http.MethodGet, "/"+id[1], ""); !strings.Contains(shown, `"status":"paid"`) || strings.Contains(shown, "{no}") {
		t.Errorf("retrieve: %s", shown)
	}
	if status, _ := call(http.MethodGet, "/pi_7", ""); status != 400 {
		t.Errorf("an intent that is not there: %d", status)
	}
	if got, want := provider.Counts(), (stub.Counts{Creates: 1, Retrieves: 2, Attaches: 2, Refused: 1, Paid: 1}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	if ledger := provider.Ledger(); len(ledger) != 1 || ledger[0].Invoice != "inv-1" || ledger[0].Amount != 49900 {
		t.Errorf("ledger %+v", ledger)
	}
	provider.Reset(0)
	if _, again := call(http.MethodPost, "", createBody); strings.Contains(again, id[1]) || len(provider.Ledger()) != 0 {
		t.Errorf("after a reset: %s, ledger %v", again, provider.Ledger())
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values   []float64
		decimals int
		want     string
	}{
		{nil, 0, "0"},
		{[]float64{1234567.4}, 0, "1,234,567"},
		{[]float64{3, 1, 2}, 1, "2.0 (1.0–3.0)"},
		{[]float64{4000, 1000}, 0, "2,500 (1,000–4,000)"},
		{[]float64{-999}, 0, "-999"},
	} {
		if got := spreadOf(tt.values).figure(tt.decimals); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.values, got, tt.want)
		}
	}
}
