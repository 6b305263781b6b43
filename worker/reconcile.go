package worker

import (
	"context"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
)

// Reconcile turns an open outcome into a known one by asking the provider. It
// records what it finds and decides when to look again; it never creates, arms
// or attaches anything.
func (w *Collector) Reconcile(ctx context.Context, invoice uuid.UUID) error {
	return w.reconcile(ctx, invoice, lookPoll)
}

// reconcile is Reconcile with what made us look.
func (w *Collector) reconcile(ctx context.Context, invoice uuid.UUID, source string) error {
	return w.collect(ctx, invoice, false, source)
}

// lookInstead makes a look of a step that would do nothing. An invoice that is in
// front of a human, given up or void may have been paid all the same: the
// provider knows, and a success is believed whenever it comes.
func (c *collection) lookInstead(step billing.Step) billing.Step {
	if step == billing.StepStop && !c.looked && c.ProviderIntentID != "" && c.Status != billing.InvoicePaid && c.IntentState != billing.IntentSucceeded {
		return billing.StepLook
	}
	return step
}
