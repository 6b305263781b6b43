package billing

// The states of an invoice.
const (
	InvoiceOpen          = "open"
	InvoicePaid          = "paid"
	InvoiceVoid          = "void"
	InvoiceUncollectible = "uncollectible"
	InvoiceReview        = "review"
)

// The states of a subscription.
const (
	SubscriptionTrialing  = "trialing"
	SubscriptionActive    = "active"
	SubscriptionPastDue   = "past_due"
	SubscriptionUnpaid    = "unpaid"
	SubscriptionPaused    = "paused"
	SubscriptionCancelled = "cancelled"
)
