package api

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func TestToken(t *testing.T) {
	t.Parallel()
	p := setup(t)
	act := billing.Act{Actor: "ana", Reason: "test", Now: noon}
	var soon, gone string
	p.tx(func(tx pgx.Tx) (err error) {
		if _, soon, err = billing.CreateToken(t.Context(), tx, "soon", billing.RoleAdmin, noon.Add(time.Hour), act); err != nil {
			return err
		}
		_, gone, err = billing.CreateToken(t.Context(), tx, "gone", billing.RoleAdmin, time.Time{}, act)
		return err
	})
	const path = "/v1/instance"
	p.call(soon, "GET", path, nil).want(200)
	p.call(gone, "GET", path, nil).want(200)
	p.tx(func(tx pgx.Tx) error { return billing.RevokeToken(t.Context(), tx, "gone", act) })
	p.set(noon.Add(time.Hour))

	mutilated := []byte(soon)
	mutilated[len(mutilated)-2] ^= 1
	for name, tt := range map[string]struct {
		header string
		says   string
	}{
		"another scheme":    {"Basic " + soon, "Authorization: Bearer"},
		"expired":           {"Bearer " + soon, "expired"},
		"none":              {"", "Authorization: Bearer"},
		"only the scheme":   {"Bearer", "Authorization: Bearer"},
		"revoked":           {"Bearer " + gone, "revoked"},
		"somebody's guess":  {"Bearer singil_" + strings.Repeat("A", 43), "not known"},
		"too short":         {"Bearer singil_", "not known"},
		"with a bit turned": {"Bearer " + string(mutilated), "not known"},
		"without prefix":    {"Bearer " + strings.TrimPrefix(soon, "singil_"), "not known"},
	} {
		got := p.call("", "GET", path, nil, "Authorization: "+tt.header)
		got.wantProblem(kindUnauthorized, tt.says)
		if h := got.header.Get("WWW-Authenticate"); !strings.HasPrefix(h, `Bearer realm="singil"`) {
			t.Errorf("%s: WWW-Authenticate is %q", name, h)
		}
		if text := string(got.body); strings.Contains(text, soon) || strings.Contains(text, gone) {
			t.Errorf("%s: the answer repeats the token: %s", name, text)
		}
	}
	// An unknown path is no way to learn anything without a token.
	p.call("", "GET", "/v1/nowhere", nil).wantProblem(kindUnauthorized)

	for _, secret := range []string{soon, gone, strings.TrimPrefix(soon, "singil_")} {
		if strings.Contains(p.log.String(), secret) {
			t.Error("a token is in the log")
		}
		p.want("0", `SELECT count(*) FROM singil.api_tokens t WHERE strpos(t::text, $1) > 0`, secret)
		p.want("0", `SELECT count(*) FROM singil.audit_log a WHERE strpos(a::text, $1) > 0`, secret)
	}
	p.want("create_token gone ana, create_token soon ana, revoke_token gone ana",
		`SELECT string_agg(action || ' ' || subject || ' ' || actor, ', ' ORDER BY action, subject) FROM singil.audit_log`)
}

func TestTokenUseIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	p := setup(t)
	viewer := p.token(billing.RoleViewer)
	const used = `SELECT last_used_at AT TIME ZONE 'UTC' FROM singil.api_tokens`
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{0, "2026-01-31 04:00:00"}, {59 * time.Second, "2026-01-31 04:00:00"}, {60 * time.Second, "2026-01-31 04:01:00"}, {30 * time.Second, "2026-01-31 04:01:00"}} {
		p.set(noon.Add(tt.after))
		p.call(viewer, "GET", "/v1/instance", nil).want(200)
		p.want(tt.want, used)
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	viewer, operator, admin := p.token(billing.RoleViewer), p.token(billing.RoleOperator), p.token(billing.RoleAdmin)
	// Before the body is looked at: who may not do it learns nothing of how it is done.
	for _, body := range []string{`{"amount_minor":1}`, `{"amount_minor":0}`, `nonsense`} {
		got := p.call(viewer, "POST", trialPath, body)
		if body == `nonsense` {
			got.wantProblem(kindInvalidRequest)
			continue
		}
		got.wantProblem(kindForbidden, "role operator", "singil tokens create")
		if h := got.header.Get("WWW-Authenticate"); !strings.Contains(h, "insufficient_scope") {
			t.Errorf("WWW-Authenticate is %q", h)
		}
	}
	p.want("0", trials)
	p.call(operator, "POST", trialPath, `{"amount_minor":1,"reason":"why not"}`).want(201)
	p.call(admin, "POST", trialPath, `{"amount_minor":1}`).want(201)
	p.want("api:admin make-trial, api:operator why not", `SELECT string_agg(actor || ' ' || reason, ', ' ORDER BY actor) FROM singil.audit_log WHERE action = 'freeze'`)
}

func TestCrossSite(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator := p.token(billing.RoleOperator)
	for _, header := range []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
		p.call(operator, "POST", trialPath, `{"amount_minor":1}`, header).wantProblem(kindCrossSite, "server")
	}
	p.want("0", trials)
	got := p.call(operator, "GET", "/v1/instance", nil, "Origin: https://evil.example").want(200)
	for name := range got.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("%s lets other sites read it", name)
		}
	}
	got = p.call(operator, "OPTIONS", trialPath, nil, "Origin: https://evil.example", "Access-Control-Request-Method: POST")
	if got.status < 400 || got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a preflight is answered %d %v", got.status, got.header)
	}
}
