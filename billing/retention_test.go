package billing_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func (l *ledger) forget(now time.Time, after int64, limit int) (f billing.Forgotten) {
	l.t.Helper()
	l.tx(func(tx pgx.Tx) (err error) {
		f, err = billing.Forget(l.t.Context(), tx, now, after, limit)
		return err
	})
	return f
}

func TestForgetWebhooks(t *testing.T) {
	t.Parallel()
	l := setup(t)
	// Five that are old and processed, one processed in time, one never.
	l.exec(`INSERT INTO singil.webhook_events (event_id, type, livemode, body, received_at, next_try_at, processed_at, result)
	        SELECT 'evt_' || n, 'payment.paid', false, '', $1, NULL, $1, 'applied' FROM generate_series(1, 5) n`, noon)
	l.exec(`INSERT INTO singil.webhook_events (event_id, type, livemode, body, received_at, next_try_at, processed_at, result)
	        VALUES ('young', 'payment.paid', false, '', $1, NULL, $2, 'applied'), ('open', 'payment.paid', false, '', $1, $1, NULL, NULL)`,
		noon, noon.Add(time.Second))
	now := noon.Add(billing.WebhookRetention)
	if f := l.forget(now, 0, 3); f.Webhooks != 0 {
		t.Errorf("%+v at the last moment", f)
	}
	now = now.Add(time.Second)
	for _, want := range []int64{3, 2, 0} {
		if f := l.forget(now, 0, 3); f.Webhooks != want {
			t.Errorf("%+v, want %d", f, want)
		}
	}
	l.want("open, young", `SELECT string_agg(event_id, ', ' ORDER BY event_id) FROM singil.webhook_events`)
}

func TestForgetEvents(t *testing.T) {
	t.Parallel()
	l := setup(t)
	var endpoint uuid.UUID
	l.tx(func(tx pgx.Tx) error {
		e, err := billing.AddEndpoint(t.Context(), tx, "https://example.com/hook", "")
		endpoint = e.ID
		return err
	})
	write := func(n int, at time.Time) {
		t.Helper()
		l.exec(`INSERT INTO singil.events (id, type, data, occurred_at) SELECT gen_random_uuid(), 'test', '{}', $2 FROM generate_series(1, $1::int)`, n, at)
	}
	write(10, noon)
	write(3, noon.Add(time.Hour))
	// All delivered but the first four, which would fill a window of their own.
	l.exec(`DELETE FROM singil.event_deliveries WHERE seq > 4 AND seq <= 10`)
	left := `SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM singil.events`

	now := noon.Add(billing.EventRetention)
	if f := l.forget(now, 0, 3); f.Events != 0 || f.Next != 0 {
		t.Errorf("%+v at the last moment", f)
	}
	now = now.Add(time.Second)
	after := int64(0)
	for _, want := range []struct{ gone, next int64 }{{0, 3}, {2, 6}, {3, 9}, {1, 0}, {0, 3}, {0, 0}} {
		f := l.forget(now, after, 3)
		if f.Events != want.gone || f.Next != want.next {
			t.Errorf("behind %d: %+v, want %+v", after, f, want)
		}
		after = f.Next
	}
	l.want("1 2 3 4 11 12 13", left)
	l.exec(`DELETE FROM singil.event_deliveries WHERE endpoint_id = $1`, endpoint) // the endpoint is back
	for range 3 {
		after = l.forget(now.Add(2*time.Hour), after, 3).Next
	}
	l.want("none", `SELECT COALESCE((`+left+`), 'none')`)
}

func TestForgetRequests(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.exec(`INSERT INTO singil.api_tokens (id, name, role, hash) VALUES (gen_random_uuid(), 'shop', 'operator', sha256('shop'))`)
	// Five that are old, whatever became of them, and one that is not.
	l.exec(`INSERT INTO singil.api_requests (id, token_id, key, request_hash, created_at)
	        SELECT gen_random_uuid(), t.id, 'old' || n, sha256('x'), clock_timestamp() - $1::interval FROM singil.api_tokens t, generate_series(1, 5) n`,
		billing.RequestRetention+time.Second)
	l.exec(`INSERT INTO singil.api_requests (id, token_id, key, request_hash, created_at)
	        SELECT gen_random_uuid(), t.id, 'young', sha256('x'), clock_timestamp() - $1::interval FROM singil.api_tokens t`,
		billing.RequestRetention-time.Minute)
	for _, want := range []int64{3, 2, 0} {
		// By the database's clock: the virtual one may stand anywhere.
		if f := l.forget(noon, 0, 3); f.Requests != want {
			t.Errorf("%+v, want %d", f, want)
		}
	}
	l.want("young", `SELECT string_agg(key, ', ') FROM singil.api_requests`)
}
