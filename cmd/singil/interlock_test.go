package main

import (
	"fmt"
	"log/slog"
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// TestOnlyWhatAgreesOnLivemodeStarts tries the key, the environment and the
// database in every combination of test and live.
func TestOnlyWhatAgreesOnLivemodeStarts(t *testing.T) {
	t.Parallel()
	pool := pgtest.DB(t)
	for n := range 8 {
		keyLive, environmentLive, databaseLive := n&1 != 0, n&2 != 0, n&4 != 0
		t.Run(fmt.Sprintf("key=%t,environment=%t,database=%t", keyLive, environmentLive, databaseLive), func(t *testing.T) { // not parallel: one database
			environment := map[bool]billing.Environment{true: billing.EnvironmentProduction, false: billing.EnvironmentDev}
			cfg := config{BaseURL: payMongoURL, SecretKey: "sk_test_matrix", Rate: 1, Environment: environment[environmentLive]}
			if keyLive {
				cfg.SecretKey = "sk_live_matrix"
			}
			client, err := cfg.payMongo()
			if err == nil {
				defer client.CloseIdleConnections()
				tx, beginErr := pool.Begin(t.Context())
				if beginErr != nil {
					t.Fatal(beginErr)
				}
				defer tx.Rollback(t.Context()) //nolint:errcheck // the next one wants a database that nobody has bound
				if err := billing.Bind(t.Context(), tx, environment[databaseLive], databaseLive); err != nil {
					t.Fatal(err)
				}
				err = billing.Bind(t.Context(), tx, cfg.Environment, client.Livemode())
			}
			if agree := keyLive == environmentLive && keyLive == databaseLive; agree != (err == nil) {
				t.Errorf("agree %t: %v", agree, err)
			}
		})
	}
}

// TestClockThatIsOffChargesNothing gives a daemon a clock that is ten minutes
// ahead of the database's.
func TestClockThatIsOffChargesNothing(t *testing.T) {
	t.Parallel()
	box, err := sandbox.New(sandbox.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewServer(box)
	defer provider.Close()
	cfg := config{
		DatabaseURL: pgtest.DSN(t), BaseURL: provider.URL + "/v1", SecretKey: "sk_test_clock", Rate: math.Inf(1),
		Environment: billing.EnvironmentDev, Listen: "127.0.0.1:0", Schedule: "* * * * *", TimeZone: "Asia/Manila",
	}
	client, err := paymongo.NewClient(cfg.SecretKey, paymongo.WithBaseURL(cfg.BaseURL))
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	d, err := newDaemon(t.Context(), cfg, worker.NewPayMongo(client), false, worker.NewMetrics(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	card, err := client.PaymentMethods.Create(t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret("4343434343434345"), ExpMonth: 12, ExpYear: 2040, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	batch := &pgx.Batch{}
	customer, plan, due := uuid.New(), uuid.New(), time.Now().Add(-time.Minute)
	batch.Queue(`INSERT INTO singil.customers (id, external_id) VALUES ($1, 'u')`, customer)
	batch.Queue(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id) VALUES ($1, $2, $3)`, uuid.New(), customer, card.ID)
	batch.Queue(`INSERT INTO singil.plans (id, external_id, amount_minor, currency, interval_unit, interval_count, dunning, catch_up)
		VALUES ($1, 'p', 49900, 'PHP', 'month', 1, '{"offsets_days":[1],"hour":9,"end":"cancel"}', 'bill_all')`, plan)
	batch.Queue(`INSERT INTO singil.subscriptions (id, external_id, customer_id, plan_id, status, amount_minor, currency, interval_unit, interval_count,
			anchor_at, time_zone, next_period_no, next_due_at, bill_from, dunning, catch_up)
		SELECT $1, 's', $2, id, 'active', 49900, 'PHP', 'month', 1, $3, 'Asia/Manila', 0, $3, $3, dunning, 'bill_all' FROM singil.plans`, uuid.New(), customer, due)
	if err := d.pool.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.jobs.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.jobs.StopAndCancel(t.Context()) //nolint:errcheck // the test is over

	// sweep is one second of the timer and one tick.
	sweep := func() {
		t.Helper()
		if _, err := d.woken(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	status := func() (s string) {
		t.Helper()
		if err := d.pool.QueryRow(t.Context(), `SELECT COALESCE(string_agg(status, ' '), 'none') FROM singil.invoices`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		d.now = func() time.Time { return time.Now().Add(off) }
		sweep()
		if may := d.mayCharge(); may == nil {
			t.Errorf("a clock that is %s off may charge", off)
		}
		if got, intents := status(), len(box.Ledger().Intents); got != "open" || intents > 0 {
			t.Errorf("a clock that is %s off: invoice %s, %d intents", off, got, intents)
		}
	}
	d.now = time.Now
	deadline, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for sweep(); status() != "paid"; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("invoice %s when the clock was right again", status())
		}
	}
}
