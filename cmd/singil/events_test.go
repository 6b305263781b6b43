package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// refuse has an endpoint's streams tried once, in vain, and given up.
func (d *desk) refuse(endpoint uuid.UUID) {
	d.t.Helper()
	d.tx(func(tx pgx.Tx) error {
		now := time.Now()
		streams, err := billing.ClaimStreams(d.t.Context(), tx, endpoint, now, now.Add(time.Minute), 100)
		if err != nil || len(streams) == 0 {
			return fmt.Errorf("%d streams: %w", len(streams), err)
		}
		for _, s := range streams {
			if err := billing.FailStream(d.t.Context(), tx, s, "the endpoint answered 500", now, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestEndpointsByHand: an endpoint is switched off and on, and what was given up
// is asked for again.
func TestEndpointsByHand(t *testing.T) {
	d := newDesk(t, 3)
	why := []string{"--reason", "it is mended", "--actor", "ana"}
	with := func(args ...string) []string { return append(args, why...) }
	add := func(url string) uuid.UUID {
		t.Helper()
		var added struct{ ID uuid.UUID }
		if err := json.Unmarshal([]byte(d.step(0, "", "events", "endpoints", "add", url, "--reason", "test", "-o", "json")), &added); err != nil {
			t.Fatal(err)
		}
		return added.ID
	}
	list := func() map[uuid.UUID]billing.Endpoint {
		t.Helper()
		var all []billing.Endpoint
		if err := json.Unmarshal([]byte(d.step(0, "", "events", "endpoints", "-o", "json")), &all); err != nil {
			t.Fatal(err)
		}
		byID := map[uuid.UUID]billing.Endpoint{}
		for _, e := range all {
			byID[e.ID] = e
		}
		return byID
	}
	audited := func(action string) string {
		t.Helper()
		return d.text(`SELECT COALESCE(string_agg(concat_ws(' ', actor, reason, subject, before, after), ', ' ORDER BY id), '') FROM singil.audit_log WHERE action = $1`, action)
	}
	one, two := add("http://127.0.0.1:1/one"), add("http://127.0.0.1:1/two")
	d.step(2, "--reason", "events", "endpoints", "add", "http://127.0.0.1:1/three")
	if got := audited("add_endpoint"); strings.Count(got, " test ") != 2 {
		t.Error(got)
	}
	d.step(2, "--reason", "events", "endpoints", "disable", one.String())
	d.step(3, "not found", with("events", "endpoints", "disable", uuid.NewString())...)
	d.step(3, "not found", with("events", "endpoints", "enable", "http://127.0.0.1:1/one")...)
	d.step(0, "Dry run", with("events", "endpoints", "disable", one.String(), "--dry-run")...)
	if !list()[one].Enabled {
		t.Error("a dry run has switched it off")
	}
	d.step(0, "do not come", with("events", "endpoints", "disable", one.String())...)
	d.step(0, "is off already", with("events", "endpoints", "disable", one.String())...)
	d.step(0, "is void", "invoices", "void", d.invoice("s0"), "--reason", "a drill") // an event
	if got := list(); got[one].Enabled || got[one].Pending != 0 || !got[two].Enabled || got[two].Pending != 1 {
		t.Errorf("%+v", got)
	}
	d.step(0, "singil events replay", with("events", "endpoints", "enable", one.String())...)
	d.step(0, "is void", "invoices", "void", d.invoice("s1"), "--reason", "a drill")
	if got := list(); !got[one].Enabled || got[one].Pending != 1 || got[two].Pending != 2 {
		t.Errorf("%+v", got)
	}
	if got, want := audited("disable_endpoint"), fmt.Sprintf(`ana it is mended %s {"enabled": true} {"enabled": false}`, one); got != want {
		t.Errorf("audited: %s, want %s", got, want)
	}
	if got, want := audited("enable_endpoint"), fmt.Sprintf(`ana it is mended %s {"enabled": false} {"enabled": true}`, one); got != want {
		t.Errorf("audited: %s, want %s", got, want)
	}

	d.refuse(one)
	d.refuse(two)
	if got := list(); got[one].Parked != 1 || got[two].Parked != 2 {
		t.Errorf("%+v", got)
	}
	d.step(2, "--reason", "events", "resume")
	d.step(3, "not found", with("events", "resume", "--endpoint", uuid.NewString())...)
	d.step(0, "Dry run", with("events", "resume", "--dry-run")...)
	d.step(0, "1 streams", with("events", "resume", "--endpoint", one.String())...)
	if got := list(); got[one].Parked != 0 || got[one].Pending != 1 || got[two].Parked != 2 {
		t.Errorf("%+v", got)
	}
	d.step(0, "is off", with("events", "endpoints", "disable", two.String())...)
	d.step(0, "singil events endpoints enable", with("events", "resume")...) // of all, and one is off
	d.step(0, "Nothing", with("events", "resume")...)
	if got := list(); got[one].Parked != 0 || got[two].Parked != 0 {
		t.Errorf("%+v", got)
	}
	if got := d.text(`SELECT count(*)::text FROM singil.event_streams WHERE next_try_at <= clock_timestamp() AND tries = 0 AND parked_at IS NULL`); got != "3" {
		t.Errorf("%s streams are due", got)
	}
	if got, want := audited("resume_streams"), fmt.Sprintf(`ana it is mended %s {"streams": 1}, ana it is mended %s {"streams": 2}`, one, two); got != want {
		t.Errorf("audited: %s, want %s", got, want)
	}

	d.step(3, "not found", with("events", "replay", "1", "--endpoint", uuid.NewString())...)
	for _, args := range [][]string{{"events", "endpoints", "enable", ""}, {"events", "resume", "--endpoint", ""}, {"events", "replay", "--endpoint", ""}} {
		d.step(0, two.String()+"\thttp://127.0.0.1:1/two, off", append([]string{"__complete"}, args...)...)
	}
}

// TestViewerSeesEndpoints: who may only read sees endpoints and no secret.
func TestViewerSeesEndpoints(t *testing.T) {
	d := newDesk(t, 0)
	d.step(0, "whsec_", "events", "endpoints", "add", "http://127.0.0.1:1/", "--reason", "test")
	giveRoles(t, d.pool, d.dsn)
	d.dsn = login(t, d.pool, d.dsn, "singil_readonly")
	d.step(0, "http://127.0.0.1:1/", "events", "endpoints")
	d.step(4, "may not do that", "events", "endpoints", "disable", d.text(`SELECT id::text FROM singil.endpoints`), "--reason", "x")
}
