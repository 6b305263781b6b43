package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/singil/singil/internal/pgtest"
)

// What is thrown at every input, and must be nowhere afterwards.
const (
	leakedKey    = "sk_test_leakedLeakedLeaked"
	leakedLive   = "sk_live_leakedLeakedLeaked"
	leakedHook   = "whsk_leakedLeakedLeaked"
	leakedClient = "pi_x_client_leakedLeakedLeaked"
)

// leakedCards is one card in the ways that people write it, and one of fifteen digits.
var leakedCards = []string{
	"4343434343434345", "4343 4343 4343 4345", "4343-4343-4343-4345", "card4343434343434345x", "4343 4343 4343 4345 737",
	"378282246310005", "3782 822463 10005", "30569309025904",
}

func leakedText() string {
	return strings.Join(append([]string{"leak:", leakedKey, leakedLive, leakedHook, leakedClient}, leakedCards...), " , ")
}

// wantNoLeak scans what somebody may read.
func wantNoLeak(t *testing.T, what, text string) {
	t.Helper()
	plain := strings.NewReplacer(" ", "", "-", "").Replace(text)
	for _, secret := range []string{"leakedLeakedLeaked", "4343434343434345", "378282246310005", "30569309025904"} {
		if at := strings.Index(plain, secret); at >= 0 {
			t.Errorf("%s has %s in it: ...%s...", what, secret, plain[max(0, at-300):min(len(plain), at+100)])
		}
	}
}

// TestNothingLeaks throws card numbers and keys at the daemon from every side:
// the provider's answers of every kind, webhooks, authentic and not, requests,
// imports. Neither log, metrics, audit log nor outbox has any of them afterwards.
func TestNothingLeaks(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary for a while")
	}
	binary := filepath.Join(t.TempDir(), "singil")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	d := newBadDay(t, binary, pgtest.DSN(t))
	d.subscribe(6)

	// In front of the sandbox stands somebody who answers attaches and looks in its place.
	answers := []struct {
		status int
		body   string
	}{
		{400, `{"errors":[{"code":"resource_failed_state","sub_code":%q,"detail":%[1]q,"source":{"pointer":%[1]q}}]}`},
		{400, `{"errors":[{"code":%q,"detail":%[1]q}]}`},
		{502, `<html>%s`},
		{200, `{"data":{"id":"pi_1","type":%q,"attributes":{"status":%[1]q}}}`},
		{500, `%s`},
	}
	var turn atomic.Int64
	var refuse atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		looks := r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/payment_intents/")
		switch {
		case refuse.Load():
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"errors":[{"code":"api_key_invalid","detail":%q}]}`, leakedText())
		case strings.HasSuffix(r.URL.Path, "/attach"), looks && turn.Load()%3 != 0:
			answer := answers[turn.Add(1)%int64(len(answers))]
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(answer.status)
			fmt.Fprintf(w, answer.body, leakedText())
		case looks:
			turn.Add(1)
			id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
			fmt.Fprintf(w, `{"data":{"id":%q,"type":"payment_intent","attributes":{"amount":49900,"currency":"PHP","status":"awaiting_payment_method","livemode":false,`+
				`"description":%[2]q,"payments":[{"id":"pay_%[3]d","type":"payment","attributes":{"amount":49900,"currency":"PHP","status":"failed","livemode":false,`+
				`"failed_code":%[2]q,"failed_message":%[2]q}}]}}}`, id, leakedText(), turn.Load())
		default:
			d.box.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	p := d.launch("PAYMONGO_BASE_URL="+front.URL+"/v1", "PAYMONGO_SECRET_KEY="+leakedKey, "PAYMONGO_WEBHOOK_SECRET="+leakedHook)
	d.await("attaches were answered", func() bool { return turn.Load() >= 6 })

	request := func(method, path, signature, body string) (string, int) {
		t.Helper()
		req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Paymongo-Signature", signature)
		req.Header.Set("User-Agent", leakedText())
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		all, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(all), resp.StatusCode
	}
	intent := ""
	if err := d.pool.QueryRow(t.Context(), `SELECT provider_intent_id FROM singil.payment_intents WHERE provider_intent_id IS NOT NULL LIMIT 1`).Scan(&intent); err != nil {
		t.Fatal(err)
	}
	for i, metadata := range []string{`{"environment":%q}`, `{"environment":"dev","invoice":%q,"name":%[1]q}`, `{%q:%[1]q}`} {
		body := fmt.Sprintf(`{"data":{"id":"evt_%d","type":"event","attributes":{"type":"payment.failed","livemode":false,"data":{"id":"pay_x","type":"payment","attributes":{`+
			`"amount":49900,"currency":"PHP","status":"failed","livemode":false,"payment_intent_id":%q,"description":%q,"failed_code":%[3]q,"billing":{"name":%[3]q},"metadata":%s}}}}}`,
			i, intent, leakedText(), fmt.Sprintf(metadata, leakedText()))
		mac := hmac.New(sha256.New, []byte(leakedHook))
		fmt.Fprintf(mac, "1769832000.%s", body)
		answer, status := request(http.MethodPost, "/webhooks/paymongo", "t=1769832000,te="+hex.EncodeToString(mac.Sum(nil))+",li=", body)
		if status != 200 {
			t.Errorf("an authentic event: %d", status)
		}
		wantNoLeak(t, "an answer", answer)
		for _, signature := range []string{leakedText(), "t=" + leakedText() + ",te=,li=", leakedText() + "=1"} {
			answer, status := request(http.MethodPost, "/webhooks/paymongo", signature, body)
			if status != 401 {
				t.Errorf("a forged event: %d", status)
			}
			wantNoLeak(t, "an answer", answer)
		}
	}
	request(http.MethodGet, "/readyz?card=4343434343434345&key="+leakedLive, "", "")
	request(http.MethodGet, "/4343434343434345/"+leakedLive, "", "")
	request("4343434343434345", "/healthz", "", "")

	// Imports: in every field.
	file := filepath.Join(t.TempDir(), leakedCards[0]+".jsonl")
	var lines strings.Builder
	for _, card := range leakedCards {
		for _, line := range []string{
			`{"type":"customer","external_id":%q}`, `{"type":"customer","external_id":"c","name":%q}`, `{"type":"customer","external_id":"c","metadata":{"a":[%q]}}`,
			`{"type":"customer","external_id":"c","metadata":{%q:1}}`, `{"type":"payment_method","customer":"c","paymongo_payment_method_id":%q}`, `{%q:1}`, `{"type":%q}`,
		} {
			fmt.Fprintf(&lines, line+"\n", card)
		}
	}
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"import", file}, {"import", file, "--partial"}} {
		imported := d.begin(args)
		if code := imported.wait(); code == 0 {
			t.Error("card numbers were imported")
		}
		said := strings.ReplaceAll(imported.log.String(), file, "") // as it was typed
		wantNoLeak(t, "what the import said", said)
	}

	// The outcomes are open: they are looked at, and looked at again.
	for range 3 {
		d.settled()
		d.set(d.now.Add(20 * time.Minute))
	}
	d.await("looks were answered", func() bool { return turn.Load() >= 12 })
	// In the end the provider refuses us, with our own key in its words.
	d.settled()
	refuse.Store(true)
	d.subscription("the last one")
	d.set(d.now.Add(26 * time.Hour))
	d.await("the breaker trips", func() bool {
		return d.number(`SELECT count(*) FROM singil.audit_log WHERE action = 'trip_breaker'`) > 0
	})
	metrics, status := request(http.MethodGet, "/metrics", "", "")
	if status != 200 || !strings.Contains(metrics, "singil_") {
		t.Errorf("metrics: %d", status)
	}
	p.stop()

	wantNoLeak(t, "the log", p.log.String())
	wantNoLeak(t, "the metrics", metrics)
	for _, table := range []string{"audit_log", "events", "invoices", "attempts", "payments", "payment_intents", "customers", "payment_methods", "instance", "provider_state"} {
		var rows string
		if err := d.pool.QueryRow(t.Context(), `SELECT COALESCE(string_agg(x::text, E'\n'), '') FROM singil.`+table+` x`).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		wantNoLeak(t, "singil."+table, rows)
	}
	// The proof that it was thrown at all.
	if !strings.Contains(p.log.String(), "webhook refused") || !strings.Contains(p.log.String(), "the provider refuses us") {
		t.Errorf("%d answers, and this log:\n%s", turn.Load(), p.log)
	}
}
