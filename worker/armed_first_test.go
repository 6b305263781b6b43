package worker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/worker"
)

// bookkeeper is a gateway that looks at the books, over a connection of its own,
// at the moment in which an attach would leave.
type bookkeeper struct {
	worker.Gateway
	t        *testing.T
	pool     *pgxpool.Pool
	attaches int
}

const sqlOnRecord = `
SELECT count(*) FROM singil.attempts a JOIN singil.payment_intents pi ON pi.id = a.payment_intent_id
WHERE a.state = 'armed' AND pi.state = 'ready' AND pi.provider_intent_id = $1 AND a.provider_payment_method_id = $2`

func (b *bookkeeper) Attach(ctx context.Context, armed billing.Armed, sendBefore time.Time) billing.Answer {
	b.attaches++
	var n int
	if err := b.pool.QueryRow(ctx, sqlOnRecord, armed.ProviderIntentID, armed.ProviderCardID).Scan(&n); err != nil {
		b.t.Error(err)
	}
	if n != 1 {
		b.t.Errorf("an attach of %s to %s leaves with %d armed attempts on record, want 1", armed.ProviderCardID, armed.ProviderIntentID, n)
	}
	return b.Gateway.Attach(ctx, armed, sendBefore)
}

// watched is a plant whose collector has a bookkeeper, and its one claimed invoice.
func watched(t *testing.T, numbers ...string) (*plant, *bookkeeper, uuid.UUID) {
	t.Helper()
	var keeper *bookkeeper
	p := setup(t, func(cfg *worker.Config) {
		keeper = &bookkeeper{Gateway: cfg.Gateway, t: t, pool: cfg.Pool}
		cfg.Gateway = keeper
	})
	p.subscribe("s1", numbers...)
	var invoice uuid.UUID
	p.tx(func(tx pgx.Tx) error {
		if _, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, noon, 10); err != nil {
			return err
		}
		due, err := billing.ClaimDue(t.Context(), tx, noon, 10, false)
		if len(due) == 1 {
			invoice = due[0].InvoiceID
		}
		return err
	})
	return p, keeper, invoice
}

func TestNothingIsSentBeforeItIsOnRecord(t *testing.T) {
	t.Parallel()
	p, keeper, invoice := watched(t, paysAlways)
	if err := p.collector.Charge(t.Context(), invoice); err != nil {
		t.Fatal(err)
	}
	if got := p.text(`SELECT status FROM singil.invoices`); got != billing.InvoicePaid || keeper.attaches != 1 {
		t.Errorf("%s after %d attaches", got, keeper.attaches)
	}
}

// TestCommitThatFailsSendsNothing has the database refuse the arming at the very
// end, when every statement of it has succeeded.
func TestCommitThatFailsSendsNothing(t *testing.T) {
	t.Parallel()
	p, keeper, invoice := watched(t, paysAlways)
	p.exec(`CREATE FUNCTION singil.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$`)
	p.exec(`CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON singil.attempts DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION singil.refuse()`)
	var refused *pgconn.PgError
	if err := p.collector.Charge(t.Context(), invoice); !errors.As(err, &refused) || refused.Message != "not today" {
		t.Errorf("%v, want what the commit said", err)
	}
	if keeper.attaches != 0 || p.attaches() != 0 {
		t.Errorf("%d attaches were sent", p.attaches())
	}
	if n := p.number(`SELECT count(*) FROM singil.attempts`); n != 0 {
		t.Errorf("%d attempts", n)
	}
}
