package billing

import "time"

// LookInstead makes a look of a step that would do nothing, for a reconcile. An
// invoice that is in front of a human, given up or void may have been paid all
// the same: the provider knows, and a success is believed whenever it comes.
func (c *Collection) LookInstead(step Step, looked bool) Step {
	if step == StepStop && !looked && c.ProviderIntentID != "" && c.Status != InvoicePaid && c.IntentState != IntentSucceeded {
		return StepLook
	}
	return step
}

// ClosesCheckout tells whether a reconcile takes StepExpire too: if a charge has
// begun to, and what came of it is awaited. Else a page that the customer may have
// open is left to the charge that is due after it.
func (c *Collection) ClosesCheckout(now time.Time) bool {
	return c.WaitingFor == WaitingForProvider && !c.HeldUntil.After(now)
}
