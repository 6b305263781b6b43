package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sessions is how many do the same at once; the pool of a test has two more.
const sessions = 8

// together lets every session run its statement in a transaction of its own,
// all begun before the first statement, and returns what became of each.
func together(t *testing.T, pool *pgxpool.Pool, statement func(session int) string) []error {
	t.Helper()
	results := make([]error, sessions)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range sessions {
		ready.Add(1)
		done.Go(func() {
			tx, err := pool.Begin(t.Context())
			ready.Done()
			if err != nil {
				results[i] = err
				return
			}
			<-start
			if _, results[i] = tx.Exec(t.Context(), statement(i)); results[i] != nil {
				_ = tx.Rollback(context.WithoutCancel(t.Context()))
				return
			}
			results[i] = tx.Commit(t.Context())
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return results
}

// onlyOne wants one winner, and the others to have been refused by one of the
// rules. Sessions that wait for each other at an exclusion constraint may also
// be told of a deadlock: then one of them is let through.
func onlyOne(t *testing.T, results []error, rules ...string) {
	t.Helper()
	winners := 0
	for _, err := range results {
		rule, code := broken(err)
		switch {
		case err == nil:
			winners++
		case !slices.Contains(rules, rule) && (code != "40P01" || !slices.Contains(rules, "deadlock")):
			t.Errorf("refused by %s: %v", rule, err)
		}
	}
	if winners != 1 {
		t.Errorf("%d of %d have won", winners, len(results))
	}
}

func isTrue(t *testing.T, pool *pgxpool.Pool, query string) {
	t.Helper()
	var yes bool
	if err := pool.QueryRow(t.Context(), query).Scan(&yes); err != nil || !yes {
		t.Errorf("%s: %t %v", query, yes, err)
	}
}

func TestRaces(t *testing.T) {
	t.Parallel()
	own := func(session int) string { return "id=" + id(200+session) }
	for _, tt := range []struct {
		name  string
		legal []string
		each  func(session int) string
		rules []string
		want  string
	}{
		{
			name: "the same period",
			each: func(i int) string { return put("invoices", own(i)) },
			// The first of the two that is checked.
			rules: []string{"invoices.period_billed_once", "periods_do_not_overlap", "deadlock"},
			want:  `SELECT count(*) = 1 FROM singil.invoices WHERE period_no = 9`,
		},
		{
			name: "periods that overlap",
			each: func(i int) string {
				return put("invoices", own(i), fmt.Sprintf("period_no=%d", 20+i),
					fmt.Sprintf("period=tstzrange('2027-01-01Z'::timestamptz + interval '%d days', '2027-02-01Z')", i))
			},
			rules: []string{"periods_do_not_overlap", "deadlock"},
			want:  `SELECT count(*) = 1 FROM singil.invoices WHERE period_no >= 20`,
		},
		{
			name:  "second intents",
			legal: []string{set("payment_intents", 1, asIntent("dead"))},
			each: func(i int) string {
				return put("payment_intents", own(i), fmt.Sprintf("generation=%d", 2+i), fmt.Sprintf("create_key='again%d'", i))
			},
			rules: []string{"payment_intents.one_intent_not_dead"},
			want:  `SELECT count(*) = 1 FROM singil.payment_intents WHERE state <> 'dead' AND invoice_id = ` + id(1),
		},
		{
			name:  "arms on one intent, under the same fence",
			each:  func(i int) string { return put("attempts", own(i), fmt.Sprintf("no=%d", 1+i)) },
			rules: []string{"attempts.one_open_attempt"},
			want:  `SELECT count(*) = 1 FROM singil.attempts`,
		},
		{
			name:  "attempts of the same number",
			each:  func(i int) string { return put("attempts", own(i)) },
			rules: []string{"attempts.one_open_attempt", "attempts.attempt_no_once"},
			want:  `SELECT count(*) = 1 FROM singil.attempts`,
		},
		{
			name:  "spends of the last budget",
			legal: []string{put("charge_budget", "used_count=9")},
			each:  func(int) string { return `UPDATE singil.charge_budget SET used_count = used_count + 1` },
			rules: []string{"charge_budget.within_count"},
			want:  `SELECT used_count = 10 FROM singil.charge_budget`,
		},
		{
			name:  "spends of the last money",
			legal: []string{put("charge_budget", "used_minor=499")},
			each:  func(int) string { return `UPDATE singil.charge_budget SET used_minor = used_minor + 501` },
			rules: []string{"charge_budget.within_minor"},
			want:  `SELECT used_minor = 1000 FROM singil.charge_budget`,
		},
		{
			name: "successes of one intent",
			legal: func() (all []string) {
				for i := range sessions {
					all = append(all, attempt(1+i, "declined")...)
				}
				return all
			}(),
			each:  func(i int) string { return set("attempts", 101+i, asAttempt("succeeded")) },
			rules: []string{"attempts.one_successful_attempt"},
			want:  `SELECT count(*) = 1 FROM singil.attempts WHERE state = 'succeeded'`,
		},
		{
			name:  "intents of the provider on two invoices",
			legal: []string{put("invoices")},
			each: func(i int) string {
				return put("payment_intents", own(i), fmt.Sprintf("create_key='again%d'", i), "invoice_id="+id(9), "generation="+fmt.Sprint(1+i),
					"state='ready'", "provider_intent_id='pi_twice'")
			},
			rules: []string{"payment_intents.one_intent_not_dead", "payment_intents.payment_intents_provider_intent_id_key"},
			want:  `SELECT count(*) = 1 FROM singil.payment_intents WHERE provider_intent_id = 'pi_twice'`,
		},
		{
			name:  "recordings of one payment",
			each:  func(int) string { return put("payments") },
			rules: []string{"payments.payments_pkey"},
			want:  `SELECT count(*) = 1 FROM singil.payments`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := attacked(t)
			for _, statement := range tt.legal {
				do(t, pool, statement)
			}
			onlyOne(t, together(t, pool, tt.each), tt.rules...)
			isTrue(t, pool, tt.want)
		})
	}
}

// TestWebhookOfEight: a delivery that comes eight times is stored once, and
// nobody is refused.
func TestWebhookOfEight(t *testing.T) {
	t.Parallel()
	pool := attacked(t)
	for i, err := range together(t, pool, func(int) string { return put("webhook_events") + " ON CONFLICT (event_id) DO NOTHING" }) {
		if err != nil {
			t.Errorf("session %d: %v", i, err)
		}
	}
	isTrue(t, pool, `SELECT count(*) = 1 FROM singil.webhook_events`)
}

// TestAppendOnlyOfEight: of eight that delete or truncate none succeeds.
func TestAppendOnlyOfEight(t *testing.T) {
	t.Parallel()
	pool := attacked(t)
	for _, statement := range slices.Concat(attempt(1, "armed"), []string{put("payments"), put("audit_log")}) {
		do(t, pool, statement)
	}
	verbs := []string{"DELETE FROM", "TRUNCATE"}
	tables := []string{"attempts", "payments", "audit_log", "payment_intents"}
	for i, err := range together(t, pool, func(i int) string {
		statement := verbs[i%2] + " singil." + tables[i/2]
		if i%2 == 1 {
			statement += " CASCADE"
		}
		return statement
	}) {
		// Two that truncate with what hangs on it may wait for one another.
		if rule, code := broken(err); rule != "append_only" && code != "40P01" {
			t.Errorf("session %d: %s, %v", i, rule, err)
		}
	}
	for _, table := range tables {
		isTrue(t, pool, "SELECT count(*) > 0 FROM singil."+table)
	}
}

// TestWhatAnArmWaitsFor: who inserts an attempt by hand, without any of the
// locks of billing.Arm, and whoever takes away at the same time what it rests
// on, do not pass each other unseen, in whatever order they come.
func TestWhatAnArmWaitsFor(t *testing.T) {
	t.Parallel()
	for name, against := range map[string]string{
		"freeze": `UPDATE singil.instance SET frozen = true, frozen_reason = 'drill'`,
		"void":   set("invoices", 1, asInvoice("void")),
		"paid":   set("invoices", 1, asInvoice("paid")),
		"review": set("payment_intents", 1, "state = 'review'"),
		"dead":   set("payment_intents", 1, asIntent("dead")),
		"fence":  set("payment_intents", 1, "fence = fence + 1"),
	} {
		t.Run(name+" before arm", func(t *testing.T) {
			t.Parallel()
			pool := attacked(t)
			first, second := overlap(t, pool, against, put("attempts"))
			if rule, _ := broken(second); first != nil || rule != "guard_new_attempts" {
				t.Errorf("%v, then %v", first, second)
			}
			isTrue(t, pool, `SELECT count(*) = 0 FROM singil.attempts`)
		})
		t.Run("arm before "+name, func(t *testing.T) {
			t.Parallel()
			pool := attacked(t)
			first, second := overlap(t, pool, put("attempts"), against)
			// An intent does not die under an open attempt; the rest comes after the arm.
			if rule, _ := broken(second); first != nil || (name == "dead") != (rule == "guard_payment_intents") {
				t.Errorf("%v, then %v", first, second)
			}
			isTrue(t, pool, `SELECT count(*) = 1 FROM singil.attempts`)
		})
	}
}

const sqlWaits = `SELECT count(*) > 0 FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))`

// overlap runs one statement, begins another in a second session, waits until
// that waits for the first, and commits both.
func overlap(t *testing.T, pool *pgxpool.Pool, first, second string) (firstErr, secondErr error) {
	t.Helper()
	ctx := t.Context()
	one, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = one.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := one.Exec(ctx, first); err != nil {
		return err, nil
	}
	done := make(chan error, 1)
	go func() {
		done <- pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, second)
			return err
		})
	}()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for waits := false; !waits; {
		select {
		case err := <-done:
			return errors.Join(errors.New("the second did not wait for the first"), one.Commit(ctx)), err
		case <-look.C:
			if err := pool.QueryRow(ctx, sqlWaits, one.Conn().PgConn().PID()).Scan(&waits); err != nil {
				t.Fatal(err)
			}
		}
	}
	return one.Commit(ctx), <-done
}

// TestFreezeAgainstArms: seven arm by hand, one freezes, round after round.
// The one that freezes counts what is there behind its lock, and that stays all.
func TestFreezeAgainstArms(t *testing.T) {
	t.Parallel()
	pool := attacked(t)
	armed, refused := 0, 0
	const rounds = 25
	for round := range rounds {
		do(t, pool, `UPDATE singil.instance SET frozen = false, frozen_reason = NULL`)
		for i := range sessions {
			n := 1000 + round*sessions + i
			do(t, pool, put("invoices", "id="+id(n), fmt.Sprintf("period_no=%d", n), "period="+month(n)))
			do(t, pool, put("payment_intents", "id="+id(n), "invoice_id="+id(n), fmt.Sprintf("create_key='k%d'", n), "state='ready'",
				fmt.Sprintf("provider_intent_id='pi_r%d'", n)))
		}
		freezer := round % sessions // the one that goes first is not always the same
		results := together(t, pool, func(i int) string {
			n := id(1000 + round*sessions + i)
			if i == freezer {
				return `UPDATE singil.instance SET frozen = true, frozen_reason = 'drill';
				        UPDATE singil.instance SET day_max_count = (SELECT count(*) FROM singil.attempts)`
			}
			return put("attempts", "id="+n, "payment_intent_id="+n, "invoice_id="+n)
		})
		for i, err := range results {
			rule, _ := broken(err)
			switch {
			case err == nil && i != freezer:
				armed++
			case err != nil && (i == freezer || rule != "guard_new_attempts"):
				t.Errorf("session %d: %v", i, err)
			case err != nil:
				refused++
			}
		}
		isTrue(t, pool, `SELECT day_max_count = (SELECT count(*) FROM singil.attempts) FROM singil.instance`)
	}
	t.Logf("%d armed, %d refused", armed, refused)
	if armed+refused != rounds*(sessions-1) {
		t.Errorf("%d armed and %d refused of %d", armed, refused, rounds*(sessions-1))
	}
}
