package sandbox

import (
	"slices"
	"time"
)

// Ledger is the truth: what the sandbox received and what it did.
type Ledger struct {
	Intents []LedgerIntent `json:"intents"`
}

// LedgerIntent is one payment intent with everything that happened to it.
type LedgerIntent struct {
	ID        string            `json:"id"`
	Status    string            `json:"status"`
	Amount    int64             `json:"amount"` // centavos
	Currency  string            `json:"currency"`
	Metadata  map[string]string `json:"metadata"`
	CreatedAt time.Time         `json:"created_at"`
	Attaches  []LedgerAttach    `json:"attaches"`
	Payments  []LedgerPayment   `json:"payments"`
}

// LedgerAttach is one attach as received and as executed.
type LedgerAttach struct {
	ReceivedAt     time.Time `json:"received_at"`
	ExecutedAt     time.Time `json:"executed_at,omitzero"` // zero: not executed, or not yet
	PaymentMethod  string    `json:"payment_method"`
	IdempotencyKey string    `json:"idempotency_key,omitempty"`
	OffSession     bool      `json:"off_session"`
	Fault          string    `json:"fault,omitempty"` // what was done to the call
	// Outcome is "paid", "held", "needs_action", "processing", "late",
	// "declined: CODE", "refused: CODE", "replayed" (to its Idempotency-Key),
	// "at work" (the acquirer is being asked) or "not executed".
	Outcome string `json:"outcome"`
	Payment string `json:"payment,omitempty"`
}

// LedgerPayment is one payment, paid or failed.
type LedgerPayment struct {
	ID         string    `json:"id"`
	Status     string    `json:"status"`
	Amount     int64     `json:"amount"`   // centavos
	Refunded   int64     `json:"refunded"` // centavos, refunds that succeeded
	FailedCode string    `json:"failed_code,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
}

// Ledger returns all of it, in order of creation.
func (s *Sandbox) Ledger() Ledger {
	l := Ledger{Intents: []LedgerIntent{}}
	_ = s.eachIntent(func(entry LedgerIntent) error { // the function never fails
		l.Intents = append(l.Intents, entry)
		return nil
	})
	return l
}

// eachIntent hands out the ledger intent by intent, without the lock, so that
// a slow reader does not stop the traffic. Each entry is consistent in itself.
func (s *Sandbox) eachIntent(do func(LedgerIntent) error) error {
	s.mu.Lock()
	s.catchUp(s.clock.Now())
	intents := s.st.Intents[:len(s.st.Intents):len(s.st.Intents)]
	s.mu.Unlock()
	for _, pi := range intents {
		s.mu.Lock()
		entry := pi.ledger()
		s.mu.Unlock()
		if err := do(entry); err != nil {
			return err
		}
	}
	return nil
}

func (pi *intent) ledger() LedgerIntent {
	entry := LedgerIntent{
		ID: pi.ID, Status: pi.Status, Amount: pi.Amount, Currency: pi.Currency, Metadata: pi.Metadata.asMap(),
		CreatedAt: time.Unix(pi.CreatedAt, 0).UTC(),
		Attaches:  make([]LedgerAttach, 0, len(pi.Attaches)),
		Payments:  make([]LedgerPayment, 0, len(pi.Payments)),
	}
	for _, at := range pi.Attaches {
		entry.Attaches = append(entry.Attaches, LedgerAttach{
			ReceivedAt: at.ReceivedAt, ExecutedAt: at.ExecutedAt, PaymentMethod: at.Method, IdempotencyKey: at.IdempotencyKey,
			OffSession: at.OffSession, Fault: at.Fault, Outcome: at.Outcome, Payment: at.Payment,
		})
	}
	for _, pay := range pi.Payments {
		p := LedgerPayment{
			ID: pay.ID, Status: pay.Status, Amount: pay.Amount, FailedCode: pay.FailedCode, CreatedAt: time.Unix(pay.CreatedAt, 0).UTC(),
		}
		for _, r := range pay.Refunds {
			if r.Status == "succeeded" {
				p.Refunded += r.Amount
			}
		}
		entry.Payments = append(entry.Payments, p)
	}
	return entry
}

// Summary answers the one question: was anything charged twice?
type Summary struct {
	Key              string `json:"key"`
	Intents          int    `json:"intents"`
	Attaches         int    `json:"attaches"`          // received
	AttachesExecuted int    `json:"attaches_executed"` // reached the acquirer
	PaidPayments     int    `json:"paid_payments"`
	PaidAmount       int64  `json:"paid_amount"` // centavos
	FailedPayments   int    `json:"failed_payments"`
	// PaidByValue counts the paid payments for each value of the metadata key,
	// also those that have none.
	PaidByValue map[string]int `json:"paid_by_value"`
	// PaidWithoutKey counts paid payments whose metadata lacks the key.
	PaidWithoutKey int `json:"paid_without_key"`
	// PaidMoreThanOnce lists the values with more than one paid payment.
	PaidMoreThanOnce []Double `json:"paid_more_than_once"`
	// IntentsPaidMoreThanOnce lists intents with more than one paid payment,
	// whatever their metadata.
	IntentsPaidMoreThanOnce []string `json:"intents_paid_more_than_once"`
}

// Double is one value of the metadata key that was charged more than once.
type Double struct {
	Value    string   `json:"value"`
	Payments []string `json:"payments"`
	Intents  []string `json:"intents"`
}

// Summary counts paid payments by the value of a metadata key, such as
// "invoice". Refunded payments count: they were charged.
func (s *Sandbox) Summary(key string) Summary {
	sum := Summary{Key: key, PaidByValue: map[string]int{}, PaidMoreThanOnce: []Double{}, IntentsPaidMoreThanOnce: []string{}}
	doubles := map[string]*Double{}
	first := map[string][2]string{}
	_ = s.eachIntent(func(pi LedgerIntent) error { // the function never fails
		sum.Intents++
		sum.Attaches += len(pi.Attaches)
		for _, at := range pi.Attaches {
			if !at.ExecutedAt.IsZero() {
				sum.AttachesExecuted++
			}
		}
		value, keyed := pi.Metadata[key]
		if keyed {
			sum.PaidByValue[value] += 0
		}
		paid := 0
		for _, pay := range pi.Payments {
			if pay.Status != "paid" {
				sum.FailedPayments++
				continue
			}
			paid++
			sum.PaidPayments++
			sum.PaidAmount += pay.Amount
			if !keyed {
				sum.PaidWithoutKey++
				continue
			}
			sum.PaidByValue[value]++
			switch earlier, again := first[value]; {
			case !again:
				first[value] = [2]string{pay.ID, pi.ID}
			case doubles[value] == nil:
				doubles[value] = &Double{Value: value, Payments: []string{earlier[0], pay.ID}, Intents: []string{earlier[1]}}
			default:
				doubles[value].Payments = append(doubles[value].Payments, pay.ID)
			}
			if d := doubles[value]; d != nil && !slices.Contains(d.Intents, pi.ID) {
				d.Intents = append(d.Intents, pi.ID)
			}
		}
		if paid > 1 {
			sum.IntentsPaidMoreThanOnce = append(sum.IntentsPaidMoreThanOnce, pi.ID)
		}
		return nil
	})
	for _, d := range doubles {
		sum.PaidMoreThanOnce = append(sum.PaidMoreThanOnce, *d)
	}
	slices.SortFunc(sum.PaidMoreThanOnce, func(a, b Double) int {
		if a.Value < b.Value {
			return -1
		}
		return 1
	})
	return sum
}

// Counters tell how much has happened.
type Counters struct {
	Requests          int64 `json:"requests"`   // with a key that is accepted
	Deliveries        int64 `json:"deliveries"` // tries, also those that failed
	DeliveriesFailed  int64 `json:"deliveries_failed"`
	WebhooksLost      int64 `json:"webhooks_lost"`      // to a fault
	WebhooksExhausted int64 `json:"webhooks_exhausted"` // events whose tries were used up
	WebhooksDropped   int64 `json:"webhooks_dropped"`   // too many waited
}

// Counters returns the counts since the state began or was reset.
func (s *Sandbox) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.Counters
}
