package billing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// readEvents is what a reader gets behind a number.
func (l *ledger) readEvents(after int64, limit int) string {
	l.t.Helper()
	page, more, err := billing.ReadEvents(l.t.Context(), l.pool, after, limit)
	if err != nil {
		l.t.Fatal(err)
	}
	var types []string
	for _, e := range page {
		types = append(types, fmt.Sprintf("%d %s", e.Seq, e.Type))
	}
	return fmt.Sprint(strings.Join(types, ", "), " ", more)
}

func writeEvent(l *ledger, tx pgx.Tx, kind string) {
	l.t.Helper()
	err := billing.WriteEvents(l.t.Context(), tx, []billing.Event{{Type: kind, SubscriptionID: l.subscription, CustomerID: l.customer, OccurredAt: noon}})
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestNoEventIsPassedOver: a transaction that is open has a number that others have
// gone past.
func TestNoEventIsPassedOver(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(pgx.Tx) error
		want string
	}{
		"Committed": {func(tx pgx.Tx) error { return tx.Commit(t.Context()) }, "2 late, 3 early, 4 early false"},
		"TakenBack": {func(tx pgx.Tx) error { return tx.Rollback(t.Context()) }, "3 early, 4 early false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t)
			early := func() { l.tx(func(tx pgx.Tx) error { writeEvent(l, tx, "early"); return nil }) }
			early()
			late, err := l.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer late.Rollback(t.Context()) //nolint:errcheck // it has ended
			writeEvent(l, late, "late")
			early()
			early()
			if got := l.readEvents(0, 10); got != "1 early false" {
				t.Errorf("while it is open: %s", got)
			}
			if got := l.readEvents(1, 10); got != " false" {
				t.Errorf("behind that: %s", got)
			}
			if err := tt.end(late); err != nil {
				t.Fatal(err)
			}
			if got := l.readEvents(1, 10); got != tt.want {
				t.Errorf("when it has ended: %s", got)
			}
			// A later one that is open has nothing to do with that number.
			later, err := l.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer later.Rollback(t.Context()) //nolint:errcheck // taken back in any case
			writeEvent(l, later, "later")
			if got := l.readEvents(1, 10); got != tt.want {
				t.Errorf("while a later one is open: %s", got)
			}
		})
	}
}

func TestEventsInPages(t *testing.T) {
	t.Parallel()
	l := setup(t)
	if got := l.readEvents(0, 1); got != " false" {
		t.Errorf("of none: %s", got)
	}
	for i := range 3 {
		l.tx(func(tx pgx.Tx) error { writeEvent(l, tx, fmt.Sprint("e", i)); return nil })
	}
	for _, tt := range []struct {
		after int64
		limit int
		want  string
	}{{0, 2, "1 e0, 2 e1 true"}, {0, 3, "1 e0, 2 e1, 3 e2 false"}, {2, 2, "3 e2 false"}, {3, 2, " false"}, {99, 2, " false"}} {
		if got := l.readEvents(tt.after, tt.limit); got != tt.want {
			t.Errorf("%d behind %d: %s, want %s", tt.limit, tt.after, got, tt.want)
		}
	}
	l.exec(`DELETE FROM singil.events WHERE seq < 3`) // past its retention
	if got := l.readEvents(0, 2); got != "3 e2 false" {
		t.Errorf("when the first are gone: %s", got)
	}
}
