package api

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/billing"
)

// waits is a job that nobody works.
type waits struct {
	Invoice string `json:"invoice"`
}

func (waits) Kind() string { return "waits" }

func TestRiverPage(t *testing.T) {
	t.Parallel()
	p := setup(t)
	all, err := river.NewClient(riverpgxv5.New(p.pool), &river.Config{Schema: "river"})
	if err != nil {
		t.Fatal(err)
	}
	job, err := all.Insert(t.Context(), waits{"inv_1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	readOnly := p.pool.Config()
	readOnly.MaxConns = 2
	readOnly.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	pool, err := pgxpool.NewWithConfig(t.Context(), readOnly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: "river"})
	if err != nil {
		t.Fatal(err)
	}
	page, err := NewRiver(RiverConfig{Pool: p.pool, Jobs: jobs, Now: p.clock, Log: slog.New(slog.NewJSONHandler(p.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(page)
	t.Cleanup(web.Close)
	viewer, operator := p.token(billing.RoleViewer), p.token(billing.RoleOperator)

	ask := func(token, method, path string, headers ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.SetBasicAuth("ana", token)
		}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}

	res, html := ask(operator, "GET", "/river/", "Accept: text/html")
	if res.StatusCode != 200 || !strings.Contains(html, `<div id="root"`) {
		t.Fatalf("the page: %d %s", res.StatusCode, html)
	}
	policy := res.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe-eval") || strings.Contains(policy, "script-src 'self' 'unsafe") || strings.Contains(policy, "http") {
		t.Errorf("its policy is %q", policy)
	}
	scripts := regexp.MustCompile(`(?:src|href)="([^"]*assets/[^"]*)"`).FindAllStringSubmatch(html, -1)
	if len(scripts) < 2 {
		t.Fatalf("the page loads %v", scripts)
	}
	for _, s := range scripts {
		if res, body := ask(operator, "GET", s[1]); res.StatusCode != 200 || len(body) < 1000 || !strings.HasPrefix(s[1], RiverPath) {
			t.Errorf("%s: %d, %d bytes", s[1], res.StatusCode, len(body))
		}
	}
	for _, path := range []string{"/river/api/jobs", "/river/api/states", "/river/api/queues", "/river/api/features"} {
		if res, body := ask(operator, "GET", path); res.StatusCode != 200 || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	if _, body := ask(operator, "GET", "/river/api/jobs?state=available"); !strings.Contains(body, "inv_1") {
		t.Errorf("the job is not listed: %s", body)
	}
	if res, _ := ask("", "GET", "/river/api/jobs", "Authorization: Bearer "+operator); res.StatusCode != 200 {
		t.Errorf("a bearer token: %d", res.StatusCode)
	}

	for _, path := range []string{"/river/", "/river/api/jobs", scripts[0][1]} {
		for name, tt := range map[string]struct {
			token  string
			status int
		}{"nobody": {"", 401}, "a guess": {"singil_" + strings.Repeat("A", 43), 401}, "a viewer": {viewer, 403}} {
			res, body := ask(tt.token, "GET", path)
			if res.StatusCode != tt.status || strings.Contains(body, "inv_1") {
				t.Errorf("%s: %s: %d %s", path, name, res.StatusCode, body)
			}
			if asks := strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Basic "); asks != (tt.status == 401) {
				t.Errorf("%s: %s: WWW-Authenticate is %q", path, name, res.Header.Get("WWW-Authenticate"))
			}
		}
	}
	for _, change := range []string{
		"POST /river/api/jobs/cancel", "POST /river/api/jobs/delete", "POST /river/api/jobs/retry", "PUT /river/api/queues/charge/pause",
		"PATCH /river/api/queues/charge", "DELETE /river/api/jobs", "OPTIONS /river/api/jobs",
	} {
		method, path, _ := strings.Cut(change, " ")
		if res, body := ask(operator, method, path); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %s", change, res.StatusCode, body)
		}
		if res, body := ask(operator, method, path, "Sec-Fetch-Site: cross-site"); method != "OPTIONS" && res.StatusCode != 403 {
			t.Errorf("%s from another site: %d %s", change, res.StatusCode, body)
		}
	}
	// The second lock: whatever the page may come to do, its connections only read.
	if _, err := jobs.JobCancel(t.Context(), job.Job.ID); err == nil || !strings.Contains(err.Error(), "25006") {
		t.Errorf("its client cancels: %v", err)
	}
	p.want("available", `SELECT state FROM river.river_job`)
	if strings.Contains(p.log.String(), operator) || strings.Contains(p.log.String(), viewer) {
		t.Error("a token is in the log")
	}
}
