package billing_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

func (l *ledger) retry(invoice, method string, now time.Time) (billing.Retried, error) {
	return l.retryWithin(billing.DefaultCardLimits(), invoice, method, now)
}

func (l *ledger) retryWithin(limits billing.CardLimits, invoice, method string, now time.Time) (r billing.Retried, err error) {
	err = pgx.BeginFunc(context.Background(), l.pool, func(tx pgx.Tx) (err error) {
		r, err = billing.Retry(context.Background(), tx, billing.RetryRequest{Invoice: invoice, PaymentMethod: method, Act: act(now)},
			limits, billing.BankHolidays())
		return err
	})
	return r, err
}

func (l *ledger) declined() (id uuid.UUID) {
	l.t.Helper()
	id = l.open(noon)[0]
	c := l.load(id, noon)
	armed := l.arm(c, "pi_1", noon).Armed
	l.settle(billing.Settlement{
		Collection: c, Attempt: armed.AttemptID, Fence: armed.Fence, Source: "attach",
		Judgement: billing.Judgement{Ruling: billing.Declined, Code: "do_not_honor", Evidence: "attach"},
	}, noon)
	return id
}

func TestRetryByHandIsDueNow(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.exec(`INSERT INTO singil.payment_methods (id, customer_id, provider_payment_method_id, position) VALUES ($1, $2, 'pm_2', 1)`, uuid.New(), l.customer)
	id := l.declined()
	now := noon.Add(time.Minute)
	if due := l.open(now); len(due) != 0 {
		t.Fatalf("due by itself: %v", due)
	}
	r, err := l.retry(id.String(), "pm_2", now)
	if err != nil || r.PaymentMethod != "pm_2" || !r.NextAttemptAt.Equal(now) {
		t.Fatalf("%+v %v", r, err)
	}
	if due := l.open(now); len(due) != 1 {
		t.Fatalf("not claimed: %v", due)
	}
	c := l.load(id, now)
	choice, err := c.Choose(now, billing.DefaultCardLimits(), billing.BankHolidays())
	if err != nil || choice.Decision != nil || choice.Card.ProviderID != "pm_2" || c.Trigger != billing.TriggerManual {
		t.Errorf("%+v %v %s", choice, err, c.Trigger)
	}
	l.want("ana asked by the customer pm_2 dunning", `
		SELECT concat_ws(' ', actor, reason, after ->> 'payment_method', before ->> 'trigger') FROM singil.audit_log WHERE action = 'retry_invoice'`)
}

func TestRetryByHandIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil  string // SQL, or a word for what is done
		method string
		want   string
	}{
		"paid":          {`UPDATE singil.invoices SET status = 'paid', paid_at = now(), payment_id = 'pay_1'`, "", "is paid"},
		"in review":     {`UPDATE singil.invoices SET status = 'review', reason = 'odd'`, "", "in review: odd"},
		"frozen":        {`UPDATE singil.instance SET frozen = true, frozen_reason = 'drill'`, "", "frozen: drill"},
		"breaker":       {`UPDATE singil.provider_state SET breaker_open = true, breaker_reason = '401'`, "", "breaker is open"},
		"day is spent":  {`UPDATE singil.charge_budget SET max_count = used_count`, "", "0 charges and ₱999,999,501.00 left, and this is ₱499.00; retry it after 2026-02-01T00:00:00Z"},
		"over the day":  {`UPDATE singil.charge_budget SET max_minor = used_minor + 49899`, "", "₱498.99 left, and this is ₱499.00"},
		"paused":        {`UPDATE singil.subscriptions SET status = 'paused', paused_at = now()`, "", "resume it first"},
		"in flight":     {"arm", "", "not known yet"},
		"card blocked":  {`UPDATE singil.payment_methods SET status = 'blocked', blocked_code = 'lost_card'`, "pm_1", "blocked: lost_card"},
		"card removed":  {`UPDATE singil.payment_methods SET status = 'removed'`, "pm_1", "removed"},
		"card expired":  {`UPDATE singil.payment_methods SET exp_month = 12, exp_year = 2025`, "pm_1", "expired 12/2025"},
		"other's card":  {``, "pm_9", "none of this customer's"},
		"no card":       {`UPDATE singil.payment_methods SET status = 'removed'`, "", "no card can be charged"},
		"network limit": {"limit", "", "1 declines on this card in 30 days are the limit; possible again at 2026-03-02T04:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			id := l.declined()
			now, limits := noon.Add(time.Minute), billing.DefaultCardLimits()
			switch tt.spoil {
			case "":
			case "limit":
				limits.VisaDeclines = 1
			case "arm":
				if _, err := l.retry(id.String(), "", now); err != nil {
					t.Fatal(err)
				}
				if due := l.open(now); len(due) != 1 {
					t.Fatal(due)
				}
				if r := l.arm(l.load(id, now), "pi_1", now); r.Err != nil {
					t.Fatal(r.Err)
				}
			default:
				l.exec(tt.spoil)
			}
			before := l.one(`SELECT next_attempt_at::text FROM singil.invoices`)
			_, err := l.retryWithin(limits, id.String(), tt.method, now)
			var refused *billing.RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			l.want(before, `SELECT next_attempt_at::text FROM singil.invoices`)
		})
	}
}

func TestRetryOfNothing(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for _, id := range []string{"", "1", uuid.NewString()} {
		if _, err := l.retry(id, "", noon); !errors.Is(err, billing.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestClockDoesNotGoBack(t *testing.T) {
	t.Parallel()
	l := setup(t)
	move := func(to time.Time) func(pgx.Tx) error {
		return func(tx pgx.Tx) error {
			return billing.MoveClock(t.Context(), tx, to, billing.Act{Actor: "ana", Reason: "test"})
		}
	}
	l.declined()
	l.refused(move(noon.Add(-time.Second))) // behind an attempt
	l.tx(move(noon.Add(time.Hour)))
	l.refused(move(noon.Add(time.Minute)))
	l.tx(move(noon.Add(2 * time.Hour)))
	l.want("2", `SELECT count(*)::text FROM singil.audit_log WHERE action = 'set_clock'`)
}

func TestExport(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.declined()
	l.exec(`INSERT INTO singil.payments (payment_id, status, amount_minor, currency, livemode, source) VALUES ('pay_9', 'paid', 100, 'PHP', false, 'list')`)
	for kind, wants := range map[string][]string{
		"invoices": {
			`"subscription":"s1","customer":"u1","period_no":0,"period_start":"2026-01-31T04:00:00Z","period_end":"2026-02-28T04:00:00Z","amount_minor":49900,"currency":"PHP","status":"open","attempt_count":1,"next_attempt_at":"2026-02-`,
			`"payment_intent_id":"pi_1","payment_id":null,"paid_at":null,"decline_code":"do_not_honor"}`,
		},
		"attempts":      {`"subscription":"s1"`, `"no":1,"trigger":"schedule","state":"declined","payment_method":"pm_1"`, `"armed_at":"2026-01-31T04:00:00Z"`},
		"subscriptions": {`{"external_id":"s1","customer":"u1","plan":"pro","next_plan":null,"status":"past_due"`, `"anchor":"2026-01-31T04:00:00Z"`, `"metadata":{}`},
		"payments":      {`{"payment_id":"pay_9","payment_intent_id":null,"invoice":null,"subscription":null`},
		"events":        {`"seq":1,`, `"subscription":"s1","customer":"u1","data":{`},
	} {
		var lines []string
		export := func(f billing.ExportFilter) error {
			lines = nil
			return billing.Export(t.Context(), l.pool, kind, f, func(row any) error {
				line, err := json.Marshal(row)
				lines = append(lines, string(line))
				return err
			})
		}
		if err := export(billing.ExportFilter{}); err != nil || len(lines) == 0 {
			t.Errorf("%s: %v %v", kind, err, lines)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(lines[0], want) {
				t.Errorf("%s: %s, want %s", kind, lines[0], want)
			}
		}
		if err := export(billing.ExportFilter{Since: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}); err != nil || len(lines) != 0 {
			t.Errorf("%s since 2100: %v %v", kind, err, lines)
		}
		if err := export(billing.ExportFilter{Status: "lost"}); err == nil {
			t.Errorf("%s: an unknown status was taken", kind)
		}
	}
	list, err := billing.BrowseInvoices(t.Context(), l.pool, billing.InvoiceFilter{Status: billing.InvoiceOpen, Limit: 10})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	details, err := billing.ShowInvoice(t.Context(), l.pool, list[0].ID.String())
	if err != nil || len(details.Attempts) != 1 || details.WaitingFor != "schedule" {
		t.Errorf("%+v %v", details, err)
	}
	if _, err := billing.ShowInvoice(t.Context(), l.pool, uuid.NewString()); !errors.Is(err, billing.ErrNotFound) {
		t.Error(err)
	}
}
