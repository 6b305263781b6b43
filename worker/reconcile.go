package worker

import (
	"context"

	"github.com/google/uuid"
)

// Reconcile turns an open outcome into a known one by asking the provider. It
// records what it finds and decides when to look again; it never creates, arms
// or attaches anything.
func (w *Collector) Reconcile(ctx context.Context, invoice uuid.UUID) error {
	return w.reconcile(ctx, invoice, lookPoll)
}

// reconcile is Reconcile with what made us look.
func (w *Collector) reconcile(ctx context.Context, invoice uuid.UUID, source string) error {
	return w.collect(ctx, invoice, false, source, func() {})
}
