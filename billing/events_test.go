package billing_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// TestEventsOfOneStreamInOneStatement: a batch of settlements writes several events
// of a subscription at once, and no endpoint may make that fail.
func TestEventsOfOneStreamInOneStatement(t *testing.T) {
	t.Parallel()
	l := setup(t)
	events := make([]billing.Event, 200)
	for i := range events {
		events[i] = billing.Event{Type: "test", SubscriptionID: l.subscription, CustomerID: l.customer, Data: map[string]any{}, OccurredAt: noon}
	}
	l.tx(func(tx pgx.Tx) error {
		if _, err := billing.AddEndpoint(t.Context(), tx, "https://example.com/hook", ""); err != nil {
			return err
		}
		return billing.WriteEvents(t.Context(), tx, events)
	})
	l.want("1 200", `SELECT concat_ws(' ', (SELECT count(*) FROM singil.event_streams), (SELECT count(*) FROM singil.event_deliveries))`)
}
