package billing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
)

// TestNobodyDeadlocks: sweeps, arms, settlements, webhooks, retries, cancels,
// pauses, freezes and deliveries, all on the same few invoices, from eight
// goroutines, in batches of any order. Who takes the locks in the order of the
// house, instance, subscription, invoice, intent, attempt, and many of a kind by
// their ids, waits for nobody who waits for him.
func TestNobodyDeadlocks(t *testing.T) {
	t.Parallel()
	each := 400
	if testing.Short() {
		each = 60
	}
	seed := uint64(20260201)
	t.Logf("seed %d", seed)
	c := newCrowd(t)
	var all sync.WaitGroup
	for i := range sessions {
		all.Go(func() {
			m := &member{crowd: c, Rand: rand.New(rand.NewPCG(seed, uint64(i)))}
			for range each {
				m.act()
			}
		})
	}
	all.Wait()
	c.pool.Close() // the sessions have reported all their deadlocks

	t.Logf("done: %v", c.counted())
	l := c.ledger
	l.want("0", `SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()`)
	for name, n := range c.counted() {
		if n == 0 {
			t.Errorf("nobody did %s", name)
		}
	}
	// Nothing is lost, and nothing told twice.
	l.want("true", `SELECT (sum(used_count) = (SELECT count(*) FROM singil.attempts))::text FROM singil.charge_budget`)
	l.want("0", `SELECT count(*)::text FROM singil.invoices i WHERE i.attempt_count <> (SELECT count(*) FROM singil.attempts a WHERE a.invoice_id = i.id)`)
	l.want("0", `SELECT count(*)::text FROM singil.invoices i
	             WHERE (i.status = 'paid')::int <> (SELECT count(*) FROM singil.events e WHERE e.type = 'invoice.paid' AND e.data ->> 'invoice_id' = i.id::text)`)
	l.want("0", `SELECT count(*)::text FROM singil.invoices i
	             WHERE i.status = 'paid' AND NOT EXISTS (SELECT FROM singil.payments p WHERE p.payment_id = i.payment_id AND p.status = 'paid')`)
	c.recorded.Range(func(payment, _ any) bool {
		l.want("1", `SELECT count(*)::text FROM singil.payments WHERE payment_id = $1`, payment)
		return true
	})
}

// crowd is everybody who works on one database.
type crowd struct {
	*ledger
	pool     *pgxpool.Pool // of sessions that look for deadlocks after 10 ms
	cards    []uuid.UUID
	minutes  atomic.Int64 // of business time since noon
	payments atomic.Int64
	recorded sync.Map // ids of payments whose settlement was committed

	mu   sync.Mutex
	done map[string]int
}

func newCrowd(t *testing.T) *crowd {
	l := setup(t)
	c := &crowd{ledger: l, cards: []uuid.UUID{l.card}, done: map[string]int{}}
	config := l.pool.Config()
	config.MaxConns = sessions + 4
	config.ConnConfig.RuntimeParams["deadlock_timeout"] = "10ms"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err == nil {
		err = pool.Ping(t.Context())
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" {
		t.Skip("NOT TESTED: this role may not set deadlock_timeout")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	c.pool = pool
	for i := range 3 {
		card := uuid.New()
		l.exec(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, exp_month, exp_year, position) VALUES ($1, $2, $3, 2, 2026, $4)`,
			card, l.customer, fmt.Sprintf("pm_%d", i+2), i+1)
		c.cards = append(c.cards, card)
	}
	for i := range 2 {
		l.exec(`INSERT INTO singil.endpoints (id, url, secret) VALUES ($1, $2, 'whsec_' || repeat('A', 32))`, uuid.New(), fmt.Sprintf("https://example.com/%d", i))
	}
	// A year of days: there is always something due.
	l.exec(`UPDATE singil.subscriptions SET interval_unit = 'day'`)
	for range 5 {
		l.another()
	}
	return c
}

func (c *crowd) counted() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// member is one goroutine of the crowd.
type member struct {
	*crowd
	*rand.Rand
	now  time.Time
	paid []string // payments of the settlement that is being stored
}

// act does one thing at random. A refusal is an answer; an error of the
// database is not.
func (m *member) act() {
	m.paid = nil
	m.now = noon.Add(time.Duration(m.minutes.Add(7)) * time.Minute)
	acts := []struct {
		name  string
		often int
		do    func(ctx context.Context, tx pgx.Tx) error
	}{
		{"sweep", 4, m.sweep}, {"arm", 8, m.arm}, {"settle", 10, m.settle}, {"webhook", 5, m.webhook}, {"retry", 4, m.retry},
		{"cancel", 1, m.cancel}, {"pause", 1, m.pause}, {"resume", 2, m.resume}, {"freeze", 1, m.freeze}, {"unfreeze", 3, m.unfreeze},
		{"mend", 3, m.mend}, {"prefer", 3, m.prefer}, {"notify", 1, m.notify}, {"deliver", 4, m.deliver},
	}
	total := 0
	for _, a := range acts {
		total += a.often
	}
	pick := m.IntN(total)
	for _, a := range acts {
		if pick -= a.often; pick >= 0 {
			continue
		}
		err := pgx.BeginFunc(context.Background(), m.pool, func(tx pgx.Tx) error { return a.do(context.Background(), tx) })
		var refused *billing.RefusedError
		switch {
		case err == nil:
			for _, payment := range m.paid {
				m.recorded.Store(payment, true)
			}
			m.mu.Lock()
			m.done[a.name]++
			m.mu.Unlock()
		case errors.As(err, &refused), errors.Is(err, errNothing), errors.Is(err, billing.ErrLeaseLost):
		default:
			m.t.Errorf("%s: %v", a.name, err)
		}
		return
	}
}

var errNothing = errors.New("nothing to do")

// some picks rows by a query over ids, in random order.
func (m *member) some(ctx context.Context, q billing.Querier, most int, query string) ([]uuid.UUID, error) {
	rows, err := q.Query(ctx, query+fmt.Sprintf(" ORDER BY random() LIMIT %d", 1+m.IntN(most)))
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err == nil && len(ids) == 0 {
		err = errNothing
	}
	return ids, err
}

func (m *member) sweep(ctx context.Context, tx pgx.Tx) error {
	if _, err := billing.OpenDue(ctx, tx, billing.EnvironmentDev, false, m.now, 1+m.IntN(4)); err != nil {
		return err
	}
	_, err := billing.ClaimDue(ctx, tx, m.now, 1+m.IntN(6), false)
	return err
}

func (m *member) arm(ctx context.Context, tx pgx.Tx) error {
	ids, err := m.some(ctx, m.pool, 5, `SELECT id FROM singil.invoices WHERE status = 'open' AND claimed AND waiting_for = 'schedule'`)
	if err != nil {
		return err
	}
	found, err := billing.Load(ctx, m.pool, ids, m.now)
	if err != nil {
		return err
	}
	var requests []billing.ArmRequest
	for _, id := range ids {
		c := found[id]
		provider := c.ProviderIntentID
		if provider == "" {
			provider = "pi_" + c.IntentID.String()
		}
		card := m.IntN(len(m.cards))
		requests = append(requests, billing.ArmRequest{
			InvoiceID: id, IntentID: c.IntentID, ProviderIntentID: provider, Fence: c.Fence,
			CardID: m.cards[card], ProviderCardID: fmt.Sprintf("pm_%d", card+1), Trigger: c.Trigger,
		})
	}
	_, err = billing.Arm(ctx, tx, requests, m.now)
	return err
}

// settle judges what the provider shows, which is anything.
func (m *member) settle(ctx context.Context, tx pgx.Tx) error {
	ids, err := m.some(ctx, m.pool, 5, `SELECT i.id FROM singil.invoices i WHERE i.attempt_count > 0 AND i.status <> 'paid'`)
	if err != nil {
		return err
	}
	found, err := billing.Load(ctx, m.pool, ids, m.now)
	if err != nil {
		return err
	}
	var list []billing.Settlement
	var paid []string
	for _, id := range ids {
		c := found[id]
		if c.ProviderIntentID == "" {
			continue
		}
		pay := paidPayment(fmt.Sprintf("pay_%d", m.payments.Add(1)))
		seen := billing.ProviderIntent{ID: c.ProviderIntentID, Amount: c.Amount}
		switch m.IntN(7) {
		case 0, 1:
			seen.Status, seen.Payments = billing.ProviderSucceeded, []billing.ProviderPayment{pay}
			paid = append(paid, pay.ID)
		case 2, 3:
			pay.Status, pay.FailedCode = "failed", []billing.DeclineCode{"insufficient_funds", "do_not_honor", "lost_card", "stolen_card"}[m.IntN(4)]
			seen.Status, seen.Payments = billing.ProviderAwaitingMethod, []billing.ProviderPayment{pay}
		case 4:
			seen.Status, seen.ActionURL = billing.ProviderAwaitingAction, "https://example.com/3ds"
		case 5:
			seen.Status = billing.ProviderCancelled
		case 6:
			seen.Status = billing.ProviderProcessing
		}
		s := billing.Settlement{Collection: c, Judgement: c.Judge(seen, m.now), Seen: &seen, Source: "retrieve", Fence: c.Fence}
		if c.Open != nil {
			s.Attempt = c.Open.ID
		}
		list = append(list, s)
	}
	m.paid = paid
	_, err = billing.Settle(ctx, tx, list, m.now, billing.BankHolidays())
	return err
}

// webhook does what the worker does with a delivery about money.
func (m *member) webhook(ctx context.Context, tx pgx.Tx) error {
	ids, err := m.some(ctx, tx, 1, `SELECT id FROM singil.invoices`)
	if err != nil {
		return err
	}
	var provider string
	if err := tx.QueryRow(ctx, `SELECT COALESCE(max(provider_intent_id), '') FROM singil.payment_intents WHERE invoice_id = $1`, ids[0]).Scan(&provider); err != nil {
		return err
	}
	var events []billing.InboxEvent
	var deliveries []string
	for range 3 {
		id := fmt.Sprintf("evt_%d", m.IntN(200)) // some come again
		deliveries = append(deliveries, id)
		events = append(events, billing.InboxEvent{ID: id, Type: "payment.paid", Body: []byte("{}"), ReceivedAt: m.now})
	}
	if _, err := billing.StoreInbox(ctx, tx, events); err != nil {
		return err
	}
	taken, err := billing.TakeInbox(ctx, tx, deliveries)
	if err != nil || len(taken) == 0 {
		return err
	}
	mentioned, _, found, err := billing.FindMentioned(ctx, tx, provider, ids[0])
	if err != nil || !found {
		return err
	}
	if err := billing.Wake(ctx, tx, mentioned, m.now); err != nil {
		return err
	}
	if mentioned.Superseded || mentioned.Status == billing.InvoicePaid {
		pay := paidPayment(fmt.Sprintf("pay_%d", m.payments.Add(1)))
		if err := billing.RecordUnasked(ctx, tx, pay, provider, &mentioned.InvoiceID); err != nil {
			return err
		}
		if err := billing.ParkMentioned(ctx, tx, mentioned, "money that nobody asked for", m.now); err != nil {
			return err
		}
	}
	var marks []billing.InboxMark
	for _, e := range taken {
		marks = append(marks, billing.InboxMark{ID: e.ID, Result: "applied"})
	}
	return billing.MarkInbox(ctx, tx, marks, m.now)
}

func (m *member) by() billing.Act { return billing.Act{Actor: "ana", Reason: "test", Now: m.now} }

func (m *member) retry(ctx context.Context, tx pgx.Tx) error {
	ids, err := m.some(ctx, tx, 1, `SELECT id FROM singil.invoices WHERE status = 'open'`)
	if err != nil {
		return err
	}
	_, err = billing.Retry(ctx, tx, billing.RetryRequest{Invoice: ids[0].String(), Act: m.by()}, billing.CardLimits{VisaDeclines: 1e6, MastercardShort: 1e6, MastercardLong: 1e6, InvoiceAttempts: 1e6}, billing.BankHolidays())
	return err
}

func (m *member) subscription(ctx context.Context, tx pgx.Tx, status string) (uuid.UUID, error) {
	ids, err := m.some(ctx, tx, 1, `SELECT id FROM singil.subscriptions WHERE status `+status)
	if err != nil {
		return uuid.Nil, err
	}
	return ids[0], nil
}

// cancel ends a subscription, and begins another in its place.
func (m *member) cancel(ctx context.Context, tx pgx.Tx) error {
	id, err := m.subscription(ctx, tx, `<> 'cancelled'`)
	if err != nil {
		return err
	}
	m.another()
	return billing.CancelSubscription(ctx, tx, id, billing.CancelNow, m.by())
}

func (m *member) pause(ctx context.Context, tx pgx.Tx) error {
	id, err := m.subscription(ctx, tx, `NOT IN ('cancelled', 'paused')`)
	if err != nil {
		return err
	}
	return billing.PauseSubscription(ctx, tx, id, m.by())
}

func (m *member) resume(ctx context.Context, tx pgx.Tx) error {
	id, err := m.subscription(ctx, tx, `= 'paused'`)
	if err != nil {
		return err
	}
	return billing.ResumeSubscription(ctx, tx, id, m.by())
}

func (m *member) freeze(ctx context.Context, tx pgx.Tx) error {
	return billing.Freeze(ctx, tx, "ana", "drill")
}

func (m *member) unfreeze(ctx context.Context, tx pgx.Tx) error {
	return billing.Unfreeze(ctx, tx, "ana", "drill over")
}

// mend takes back what hard declines have done to the cards, so that they can be
// blocked once more, and what they have told.
func (m *member) mend(ctx context.Context, tx pgx.Tx) error {
	for _, card := range slices.SortedFunc(slices.Values(m.cards), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }) {
		_, err := tx.Exec(ctx, `UPDATE singil.payment_methods SET status = 'active', blocked_code = NULL, expiry_notified_at = NULL WHERE id = $1`, card)
		if err != nil {
			return err
		}
	}
	return nil
}

// prefer makes another card the first.
func (m *member) prefer(ctx context.Context, tx pgx.Tx) error {
	_, err := billing.PreferMethod(ctx, tx, fmt.Sprintf("pm_%d", 1+m.IntN(len(m.cards))), m.by())
	return err
}

func (m *member) notify(ctx context.Context, tx pgx.Tx) error {
	_, err := billing.NotifyExpiring(ctx, tx, m.now, 1+m.IntN(4))
	return err
}

// deliver acknowledges the oldest event of some streams.
func (m *member) deliver(ctx context.Context, tx pgx.Tx) error {
	endpoints, err := billing.EnabledEndpoints(ctx, tx)
	if err != nil {
		return err
	}
	far := m.now.AddDate(10, 0, 0)
	streams, err := billing.ClaimStreams(ctx, tx, endpoints[m.IntN(len(endpoints))].ID, far, far, 3)
	if err != nil {
		return err
	}
	for _, s := range streams {
		pending, err := billing.PendingEvents(ctx, tx, s, 1)
		if err != nil {
			return err
		}
		for _, e := range pending {
			if err := billing.Delivered(ctx, tx, s, e.Seq, far); err != nil {
				return err
			}
		}
		if err := billing.FinishStream(ctx, tx, s, m.now); err != nil {
			return err
		}
	}
	return nil
}

// TestCardsAreBlockedInOneOrder: two settlements block the same cards, each
// naming them in another order. Nothing but the cards is common to them.
func TestCardsAreBlockedInOneOrder(t *testing.T) {
	t.Parallel()
	c := newCrowd(t)
	l, ctx := c.ledger, context.Background()
	for range 2*sessions - 6 {
		l.another()
	}
	// So many that a card is looked up by its id, in the order of the batch.
	other := uuid.New()
	l.exec(`INSERT INTO singil.customers (id, external_id) VALUES ($1, 'u2')`, other)
	l.exec(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id)
	        SELECT gen_random_uuid(), $1, 'pm_more_' || n FROM generate_series(1, 5000) n`, other)
	l.exec(`ANALYZE singil.payment_methods`)
	claimed := l.open(noon)
	if len(claimed) != 2*sessions {
		t.Fatalf("%d invoices", len(claimed))
	}
	now := noon
	for range 30 {
		l.exec(`UPDATE singil.payment_methods SET status = 'active', blocked_code = NULL WHERE status = 'blocked'`)
		l.exec(`UPDATE singil.invoices SET status = 'open', next_attempt_at = $1, claimed = true, waiting_for = 'schedule', reason = NULL`, now)
		found, err := billing.Load(ctx, l.pool, claimed, now)
		if err != nil {
			t.Fatal(err)
		}
		requests := make([]billing.ArmRequest, len(claimed))
		for i, id := range claimed {
			card := (i + i/2) % 2 // the sessions alternate: first and second, second and first
			requests[i] = l.request(found[id], "pi_"+id.String())
			requests[i].CardID, requests[i].ProviderCardID = c.cards[card], fmt.Sprintf("pm_%d", card+1)
		}
		batches := make([][]billing.Settlement, sessions)
		l.tx(func(tx pgx.Tx) error {
			results, err := billing.Arm(ctx, tx, requests, now)
			for i, r := range results {
				if r.Err != nil {
					return r.Err
				}
				batches[i/2] = append(batches[i/2], billing.Settlement{
					Collection: found[claimed[i]], Attempt: r.Armed.AttemptID, Fence: r.Armed.Fence, Source: "attach",
					Judgement: billing.Judgement{Ruling: billing.Declined, Code: "lost_card", Evidence: "attach"},
				})
			}
			return err
		})
		crowd := *l
		crowd.pool = c.pool
		l.none(crowd.together(func(i int, tx pgx.Tx) error {
			_, err := billing.Settle(ctx, tx, batches[i], now, billing.BankHolidays())
			return err
		}))
		l.want("2", `SELECT count(*)::text FROM singil.payment_methods WHERE status = 'blocked'`)
		now = now.Add(time.Hour)
	}
}
