package worker_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

const paysAlways, declines = "4343434343434345", "5100000000000198"

// recoverable is a plant with a gateway for recoveries.
type recoverable struct {
	*plant
	gateway worker.RecoverGateway
}

func recoverySetup(t *testing.T, change func(*sandbox.Profile)) *recoverable {
	t.Helper()
	p := &recoverable{plant: setup(t)}
	p.gateway = worker.NewPayMongo(p.client)
	profile := p.box.Profile()
	if change != nil {
		change(&profile)
	}
	if err := p.box.SetProfile(profile); err != nil {
		t.Fatal(err)
	}
	return p
}

func honoured(p *sandbox.Profile) { p.Idempotency = "replay" }

// forget takes the charges of an invoice out of the books, and with lost the
// invoice itself, as a backup does that is older. The append-only guards are for
// everybody but a backup.
func (p *recoverable) forget(lost bool) {
	p.t.Helper()
	statements := []string{
		`SET LOCAL session_replication_role = replica`,
		`DELETE FROM singil.attempts`, `DELETE FROM singil.payments`, `DELETE FROM singil.payment_intents WHERE generation > 1`,
		`UPDATE singil.payment_intents SET state = 'creating', provider_intent_id = NULL, death_proof = NULL, fence = 0`,
		`UPDATE singil.invoices SET status = 'open', paid_at = NULL, payment_id = NULL, reason = NULL, next_attempt_at = due_at, claimed = false,
			waiting_for = 'schedule', attempt_count = 0, poll_count = 0, first_attempt_at = NULL, decline_code = NULL, action_url = NULL`,
		`UPDATE singil.subscriptions SET status = 'active'`,
	}
	if lost {
		statements = append(statements, `DELETE FROM singil.payment_intents`, `DELETE FROM singil.invoices`,
			`UPDATE singil.subscriptions SET next_period_no = 0, next_due_at = anchor_at, last_charge_at = NULL`)
	}
	p.exec(statements...)
}

func (p *recoverable) exec(statements ...string) {
	p.t.Helper()
	if err := pgx.BeginFunc(context.Background(), p.pool, func(tx pgx.Tx) error {
		for _, sql := range statements {
			if _, err := tx.Exec(context.Background(), sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *recoverable) recover(change func(*worker.RecoverConfig)) (worker.RecoveryReport, error) {
	cfg := worker.RecoverConfig{
		Pool: p.pool, Gateway: p.gateway, Environment: billing.EnvironmentDev, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Actor: "ana", Apply: true,
	}
	if change != nil {
		change(&cfg)
	}
	return worker.Recover(p.t.Context(), cfg)
}

// recovered recovers for good, and again, and wants the same items both times
// where something is left for a human.
func (p *recoverable) recovered(want ...string) {
	p.t.Helper()
	before := p.box.Summary("invoice").Attaches
	dry, err := p.recover(func(c *worker.RecoverConfig) { c.Apply = false })
	if err != nil {
		p.t.Fatal(err)
	}
	p.wantItems("dry run", dry, want)
	if n := p.number(`SELECT count(*) FROM singil.audit_log WHERE actor = 'ana'`); n > 0 {
		p.t.Errorf("the dry run has left %d entries in the audit log", n)
	}
	report, err := p.recover(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.wantItems("recovery", report, want)
	p.set(p.now.Add(20 * time.Minute))
	again, err := p.recover(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if !again.Complete {
		p.t.Error("not complete, long after nothing can be under way any more")
	}
	left := []string{}
	for _, w := range want {
		if strings.HasPrefix(w, "review") || strings.HasPrefix(w, "record") {
			left = append(left, w)
		}
	}
	p.wantItems("once more", again, left)
	if now := p.box.Summary("invoice").Attaches; now != before {
		p.t.Errorf("the recovery attached %d times", now-before)
	}
	if p.number(`SELECT count(*) FROM singil.instance WHERE frozen AND recovery_needed IS NULL`) != 1 {
		p.t.Error("behind the recovery it is to be frozen, and free to go on")
	}
}

func (p *recoverable) wantItems(which string, report worker.RecoveryReport, want []string) {
	p.t.Helper()
	var got []string
	for _, item := range report.Items {
		got = append(got, fmt.Sprintf("%s %s/%d: %s", item.Action, item.Subscription, item.PeriodNo, item.Found))
	}
	slices.Sort(got)
	ok := len(got) == len(want)
	for i := range got {
		ok = ok && strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		p.t.Errorf("%s:\n%q\nwant\n%q", which, got, want)
	}
}

func (p *recoverable) unfreeze() {
	p.t.Helper()
	if err := pgx.BeginFunc(p.t.Context(), p.pool, func(tx pgx.Tx) error {
		return billing.Unfreeze(p.t.Context(), tx, "ana", "recovered")
	}); err != nil {
		p.t.Fatal(err)
	}
}

// charged makes an intent by hand, as another process of ours would, and charges it.
func (p *recoverable) charged(amount int64, metadata paymongo.Metadata) (intent, payment string) {
	p.t.Helper()
	method, err := p.client.PaymentMethods.Create(p.t.Context(), &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(paysAlways), ExpMonth: 12, ExpYear: 2030, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	pi, err := p.client.PaymentIntents.Create(p.t.Context(), &paymongo.PaymentIntentCreateParams{
		Amount: amount, PaymentMethodAllowed: []string{"card"}, Metadata: metadata,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	pi, err = p.client.PaymentIntents.Attach(p.t.Context(), pi.ID, &paymongo.PaymentIntentAttachParams{PaymentMethod: method.ID})
	if err != nil || pi.PaidPayment() == nil {
		p.t.Fatalf("%v %v", pi, err)
	}
	return pi.ID, pi.PaidPayment().ID
}

// bare lists payments without metadata, as some samples have them.
type bare struct{ worker.RecoverGateway }

func (b bare) Payments(ctx context.Context) iter.Seq2[worker.ListedPayment, error] {
	return func(yield func(worker.ListedPayment, error) bool) {
		for p, err := range b.RecoverGateway.Payments(ctx) {
			p.Metadata = nil
			if !yield(p, err) {
				return
			}
		}
	}
}

func TestRecoverFindsWhatWasForgotten(t *testing.T) {
	t.Parallel()

	t.Run("IntentOfAnOpenInvoice", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", paysAlways)
		p.tick()
		p.forget(false)
		p.recovered("paid s1/0: paid")
		p.checkBooks()
	})

	t.Run("IntentOfAnOpenInvoiceWhosePaymentHasNoMetadata", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.gateway = bare{p.gateway}
		p.subscribe("s1", paysAlways)
		p.tick()
		_, foreign := p.charged(12300, nil) // of another shop on the account
		p.forget(false)
		p.recovered("paid s1/0: paid")
		if got := p.text(`SELECT string_agg(payment_id, ' ') FROM singil.payments`); got == "" || strings.Contains(got, foreign) {
			t.Errorf("on record is %q, and %s is none of ours", got, foreign)
		}
	})

	t.Run("PeriodThatWasNotOpened", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", paysAlways)
		p.tick()
		p.forget(true)
		p.recovered("paid s1/0: paid")
		if got := p.text(`SELECT i.status || ' ' || (p.invoice_id = i.id) FROM singil.invoices i JOIN singil.payments p USING (payment_id)`); got != "paid true" {
			t.Errorf("the books say %q", got)
		}
	})

	t.Run("SuccessorOfADeadIntent", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", declines)
		p.tick()
		first := p.text(`SELECT provider_intent_id FROM singil.payment_intents`)
		if _, err := p.client.PaymentIntents.Cancel(t.Context(), first, nil); err != nil {
			t.Fatal(err)
		}
		invoice := p.text(`SELECT id::text FROM singil.invoices`)
		p.exec(`UPDATE singil.invoices SET next_attempt_at = '2026-01-31'`) // its dunning day
		p.charged(49900, paymongo.Metadata{"invoice": invoice, "subscription": "s1", "period": "0", "generation": "2", "environment": "dev"})
		p.recovered("paid s1/0: paid")
		if got := p.text(`SELECT string_agg(generation || ' ' || state, ', ' ORDER BY generation) FROM singil.payment_intents`); got != "1 dead, 2 succeeded" {
			t.Errorf("the intents are %q", got)
		}
	})

	t.Run("DeclineIsNotTriedAgainAtOnce", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", declines)
		p.tick()
		p.forget(false)
		p.recovered("adopt s1/0: the latest payment failed: ")
		if got := p.text(`SELECT status || ' ' || (next_attempt_at - '2026-01-31 04:00Z')::text FROM singil.invoices`); got != "open 1 day" {
			t.Errorf("the invoice is %q", got)
		}
	})

	t.Run("CustomerWhoMustAct", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, func(profile *sandbox.Profile) { honoured(profile); profile.OffSession = "three_ds" })
		p.fault(sandbox.Fault{Kind: sandbox.ThreeDS, Probability: 1})
		p.subscribe("s1", paysAlways)
		p.tick()
		if got := p.text(`SELECT waiting_for FROM singil.invoices`); got != "customer" {
			t.Fatalf("it waits for the %s", got)
		}
		p.forget(false) // and no payment tells of it: the key does
		p.recovered("settle s1/0: the customer must authorise the payment")
		if got := p.text(`SELECT waiting_for || ' ' || (action_url IS NOT NULL) FROM singil.invoices`); got != "customer true" {
			t.Errorf("it waits for the %s", got)
		}
		p.unfreeze()
		p.set(p.now.Add(2 * time.Hour))
		p.tick()
		if sum := p.box.Summary("invoice"); sum.Intents != 1 {
			t.Errorf("%d intents, want the one that the customer has the link of", sum.Intents)
		}
	})
}

func TestRecoverLeavesToAHuman(t *testing.T) {
	t.Parallel()

	t.Run("MoneyOfAnUnknownSubscription", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.charged(49900, paymongo.Metadata{"invoice": uuid.NewString(), "subscription": "nobody", "period": "3", "environment": "dev"})
		p.charged(49900, paymongo.Metadata{"invoice": uuid.NewString(), "subscription": "nobody", "period": "3", "environment": "staging"})
		p.exec(`UPDATE singil.instance SET created_at = '2026-01-01'`) // on the sandbox's clock
		p.recovered("record nobody/3: money that no invoice is found for")
		if got := p.text(`SELECT string_agg(status || ' ' || source || ' ' || COALESCE(invoice_id::text, 'none'), ', ') FROM singil.payments`); got != "paid list none" {
			t.Errorf("the payments are %q", got)
		}
	})

	t.Run("MoneyOfAnotherInstallation", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", paysAlways)
		p.tick()
		newer, err := uuid.NewV7() // than ours, which was here all the time
		if err != nil {
			t.Fatal(err)
		}
		p.charged(49900, paymongo.Metadata{"invoice": newer.String(), "subscription": "s1", "period": "0", "environment": "dev"})
		p.recovered("record s1/0: money that no invoice is found for")
	})

	t.Run("PaidTwice", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", paysAlways)
		p.tick()
		_, payment := p.charged(49900, paymongo.Metadata{
			"invoice": p.text(`SELECT id::text FROM singil.invoices`), "subscription": "s1", "period": "0", "environment": "dev",
		})
		p.recovered("review s1/0: money on a payment intent that is not")
		if got := p.text(`SELECT count(*) || ' ' || count(DISTINCT invoice_id) FROM singil.payments WHERE status = 'paid'`); got != "2 1" {
			t.Errorf("payments and invoices: %s; %s is to be on record", got, payment)
		}
	})

	t.Run("AnotherAmount", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", paysAlways)
		p.tick()
		p.forget(false)
		p.exec(`SET LOCAL session_replication_role = replica`, `UPDATE singil.payment_intents SET amount_minor = 59900`, `UPDATE singil.invoices SET amount_minor = 59900`)
		p.recovered("review s1/0: the provider's intent")
		if got := p.text(`SELECT status || ' ' || (SELECT count(*) FROM singil.payments WHERE invoice_id = i.id AND status = 'paid') FROM singil.invoices i`); got != "review 1" {
			t.Errorf("the books say %q", got)
		}
	})

	t.Run("NothingProvesAnything", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", paysAlways)
		p.subscribe("s2", paysAlways)
		p.recovered("review s1/0: the provider gives a repeated create another intent", "review s2/0: the provider gives")
		if n := p.box.Summary("invoice").Intents; n != 6 {
			t.Errorf("%d intents were made to find out, want two each time", n)
		}
		report, err := p.recover(func(c *worker.RecoverConfig) { c.AcceptUnproven = true })
		if err != nil {
			t.Fatal(err)
		}
		p.wantItems("accepted", report, []string{"open s1/0: ", "open s2/0: "})
		p.unfreeze()
		p.tick()
		if got := p.text(`SELECT string_agg(status, ' ') FROM singil.invoices`); got != "paid paid" {
			t.Errorf("the invoices are %s", got)
		}
	})

	t.Run("SuccessorOfALostAndDeadIntent", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, nil)
		p.subscribe("s1", declines)
		p.tick()
		if _, err := p.client.PaymentIntents.Cancel(t.Context(), p.text(`SELECT provider_intent_id FROM singil.payment_intents`), nil); err != nil {
			t.Fatal(err)
		}
		p.forget(false)
		p.recovered("review s1/0: the provider gives a repeated create another intent")
		if got := p.text(`SELECT string_agg(generation || ' ' || state, ', ' ORDER BY generation) FROM singil.payment_intents`); got != "1 dead, 2 creating" {
			t.Errorf("the intents are %q", got)
		}
	})

	t.Run("OlderThanTheKeys", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, honoured)
		p.subscribe("s1", paysAlways)
		p.set(noon.Add(25 * time.Hour))
		p.recovered("review s1/0: it was due more than a day ago")
	})

	t.Run("CreateThatIsRefused", func(t *testing.T) {
		t.Parallel()
		p := recoverySetup(t, honoured)
		p.subscribe("s1", paysAlways)
		p.tick()
		p.forget(true) // opened again, the invoice has another id, and so another create
		p.gateway = blind{p.gateway}
		p.recovered("review s1/0: the provider does not repeat its create")
	})
}

// blind lists nothing.
type blind struct{ worker.RecoverGateway }

func (blind) Payments(context.Context) iter.Seq2[worker.ListedPayment, error] {
	return func(func(worker.ListedPayment, error) bool) {}
}

// TestRecoverOfAnotherInstallation asks nobody and changes nothing.
func TestRecoverOfAnotherInstallation(t *testing.T) {
	t.Parallel()
	p := recoverySetup(t, nil)
	if _, err := p.recover(func(c *worker.RecoverConfig) { c.Environment = billing.EnvironmentStaging }); !errors.Is(err, billing.ErrOtherInstallation) {
		t.Errorf("%v, want ErrOtherInstallation", err)
	}
	if p.number(`SELECT count(*) FROM singil.instance WHERE frozen`) > 0 || p.box.Counters().Requests > 0 {
		t.Error("something was done all the same")
	}
}

// TestRefusedCreateIsParked: an intent that never was has nothing to be reviewed.
func TestRefusedCreateIsParked(t *testing.T) {
	t.Parallel()
	p := setup(t)
	profile := p.box.Profile()
	profile.MinimumAmount = 60000 // above what is asked for
	if err := p.box.SetProfile(profile); err != nil {
		t.Fatal(err)
	}
	p.subscribe("s1", paysAlways)
	p.tick()
	if got := p.text(`SELECT status || ' ' || COALESCE(reason, '') FROM singil.invoices`); !strings.HasPrefix(got, "review ") {
		t.Errorf("the invoice is %q, want it in review", got)
	}
}
