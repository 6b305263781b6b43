package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/worker"
)

func TestTokens(t *testing.T) {
	d := newDesk(t, 0)
	why := []string{"--actor", "ana", "--reason", "the shop"}
	create := func(more ...string) []string { return append(append([]string{"tokens", "create"}, more...), why...) }
	d.step(2, "--reason is needed", "tokens", "create", "--name", "shop", "--role", "viewer")
	d.step(2, "--name is needed", create("--role", "viewer")...)
	d.step(2, "viewer, operator or admin", create("--name", "shop", "--role", "owner")...)
	d.step(2, "negative", create("--name", "shop", "--role", "viewer", "--expires-in", "-1h")...)
	d.step(4, "no name for a token", create("--name", "The Shop", "--role", "viewer")...)

	var created struct{ Token, Name, Role, ExpiresAt string }
	out := d.step(0, "not shown again", create("--name", "shop", "--role", "operator", "--expires-in", "2160h", "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &created); err != nil || !strings.HasPrefix(created.Token, "singil_") || created.Name != "shop" || created.Role != "operator" {
		t.Errorf("%v: %s", err, out)
	}
	d.step(4, "revoke it first", create("--name", "shop", "--role", "viewer")...)
	if shown := d.step(0, "shop", "tokens", "list"); strings.Contains(shown, created.Token) {
		t.Error("a list shows the token")
	}
	d.step(3, "not found", append([]string{"tokens", "revoke", "web"}, why...)...)
	d.step(2, "--reason is needed", "tokens", "revoke", "shop")
	d.step(0, "opens nothing any more", append([]string{"tokens", "revoke", "shop"}, why...)...)
	d.step(3, "not found", append([]string{"tokens", "revoke", "shop"}, why...)...)
	d.step(0, "not shown again", create("--name", "shop", "--role", "viewer")...)
	for action, want := range map[string]string{"create_token": "ana: the shop >, ana: the shop >", "revoke_token": "ana: the shop >"} {
		if got := d.audited(action); got != want {
			t.Errorf("%s: %s, want %s", action, got, want)
		}
	}
	if n := d.text(`SELECT count(*)::text FROM singil.audit_log a WHERE strpos(a::text, $1) > 0`, created.Token); n != "0" {
		t.Error("the audit log has the token")
	}
}

// TestDaemonServesTheAPI, under the least of roles, and not where it is switched
// off.
func TestDaemonServesTheAPI(t *testing.T) {
	d := newDesk(t, 0)
	giveRoles(t, d.pool, d.dsn)
	operator := login(t, d.pool, d.dsn, "singil_operator")
	code, out, errs := command(t, operator, "tokens", "create", "--name", "shop", "--role", "operator", "--reason", "test", "-o", "json")
	var created struct{ Token string }
	if err := json.Unmarshal([]byte(out), &created); code != 0 || err != nil {
		t.Fatalf("%d %v %s %s", code, err, out, errs)
	}
	cfg := config{
		DatabaseURL: login(t, d.pool, d.dsn, "singil_worker"), BaseURL: "http://127.0.0.1:9/v1", SecretKey: "sk_test_api", Rate: 1,
		Environment: billing.EnvironmentDev, Listen: "127.0.0.1:0", Schedule: "* * * * *", TimeZone: "Asia/Manila",
	}
	ask := func(api bool, database, path string) (status int, body string) {
		t.Helper()
		cfg.API, cfg.APIDatabaseURL = api, database
		client, err := cfg.payMongo()
		if err != nil {
			t.Fatal(err)
		}
		d, err := newDaemon(t.Context(), cfg, worker.NewPayMongo(client), false, worker.NewMetrics(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		web := httptest.NewServer(d.handler)
		defer web.Close()
		req, err := http.NewRequestWithContext(t.Context(), "GET", web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+created.Token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		content, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(content)
	}
	for _, database := range []string{"", operator} {
		for path, says := range map[string]string{
			"/v1/instance": `"environment":"dev"`, "/openapi.json": `"openapi": "3.1.0"`, "/river/": `id="root"`, "/river/api/states": `"available"`, "/river/api/jobs": `"data"`,
		} {
			if status, body := ask(true, database, path); status != http.StatusOK || !strings.Contains(body, says) {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
	}
	for _, path := range []string{"/v1/instance", "/openapi.json", "/river/"} {
		if status, body := ask(false, "", path); status != http.StatusNotFound {
			t.Errorf("switched off, %s: %d %s", path, status, body)
		}
	}

	cfg.API, cfg.APIDatabaseURL = true, pgtest.DSN(t)
	client, err := cfg.payMongo()
	if err != nil {
		t.Fatal(err)
	}
	_, err = newDaemon(t.Context(), cfg, worker.NewPayMongo(client), false, worker.NewMetrics(), slog.New(slog.DiscardHandler))
	var wrong configError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "another database") {
		t.Errorf("another database for the API: %v", err)
	}
}
