package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/failpoint"
)

// Gateway is what a charge needs of the provider.
type Gateway interface {
	Create(ctx context.Context, r CreateRequest) (billing.ProviderIntent, error)
	Retrieve(ctx context.Context, id string) (billing.ProviderIntent, error)
	Attach(ctx context.Context, armed billing.Armed, sendBefore time.Time) billing.Answer
	CheckoutCloser
	// HeldUntil is until when the provider wants us to wait; zero: not at all.
	HeldUntil() time.Time
}

// sendWithin is how long after its arming began an attach may leave, by the
// monotonic clock. It ends well before billing.SendWindow, which is by another
// clock.
const sendWithin = billing.SendWindow / 2

// collection is one run over one invoice.
type collection struct {
	*Collector
	*billing.Collection
	now    time.Time // business time of the run
	looked bool
	// lookOnly: a reconcile, which neither creates nor arms.
	lookOnly bool
	may      error  // why nothing may be charged, as of the load
	source   string // what made us look: poll or webhook
	leave    func() // gives this run's place among those under way to another
	closing  int    // what the hosted checkout was asked so far
}

// Charge collects one invoice as far as it goes now: it creates the intent,
// looks at what was attempted before, arms, attaches once, and settles. It
// returns an error only for trouble of our own; the invoice's next wake-up is
// stored in every case, by this run or by the sweep that claimed it.
func (w *Collector) Charge(ctx context.Context, invoice uuid.UUID) error {
	return w.collect(ctx, invoice, true, lookPoll, func() {})
}

// chargeInTurn is Charge when fewer charges are under way than may be. One is
// under way until the attach is answered: storing the outcome takes no place, so
// that as many are with the provider as may be.
func (w *Collector) chargeInTurn(ctx context.Context, invoice uuid.UUID) error {
	select {
	case w.inFlight <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := w.metrics.jobs.work(QueueCharge)
	leave := sync.OnceFunc(func() {
		done()
		<-w.inFlight
	})
	defer leave()
	return w.collect(ctx, invoice, true, lookPoll, leave)
}

func (w *Collector) collect(ctx context.Context, invoice uuid.UUID, mayCharge bool, source string, leave func()) error {
	loaded, err := w.load.Do(ctx, invoice)
	if err != nil {
		return err
	}
	if loaded.Collection == nil {
		return fmt.Errorf("invoice %s does not exist", invoice)
	}
	c := &collection{
		Collector: w, Collection: loaded.Collection, now: loaded.now, may: loaded.may, source: source, lookOnly: !mayCharge, leave: leave,
	}
	for {
		step := c.Next(c.looked)
		if !mayCharge {
			step = c.LookInstead(step, c.looked)
		}
		if mayCharge && c.Paused && c.InvoiceOpen && c.Open == nil {
			return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: c.hold(24*time.Hour, billing.ReasonPaused)})
		}
		closes := step == billing.StepExpire && c.may == nil && c.ClosesCheckout(c.now)
		if !mayCharge && step != billing.StepLook && !closes {
			if !c.InvoiceOpen || c.WaitingFor != billing.WaitingForProvider {
				return nil // its next wake-up stands as it is
			}
			// Nothing is open here: what is left is a charge's to do.
			return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: &billing.Decision{
				Action: billing.DunningActionRetryAt, At: c.now, Reason: "nothing is open at the provider",
			}})
		}
		if held := c.HeldUntil.Sub(c.now); mayCharge && c.InvoiceOpen && c.Open == nil && held > 0 {
			return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: c.hold(held, billing.ReasonHeld)})
		}
		switch step {
		case billing.StepCreate:
			if done, err := c.create(ctx); done || err != nil {
				return err
			}
		case billing.StepLook:
			if done, err := c.look(ctx); done || err != nil {
				return err
			}
		case billing.StepExpire:
			if done, err := c.expire(ctx); done || err != nil {
				return err
			}
		case billing.StepArm:
			return c.charge(ctx)
		default:
			return nil
		}
	}
}

// create asks for the invoice's payment intent. Its id is stored with the
// arming, in one transaction, before anything is attached to it.
func (c *collection) create(ctx context.Context) (done bool, err error) {
	if c.may != nil {
		return true, c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: c.hold(time.Minute, c.may.Error())})
	}
	failpoint.Hit("cp07")
	intent, err := c.gateway.Create(ctx, createRequest(c.Collection, c.environment))
	if err != nil {
		return true, c.gatewayTrouble(ctx, err)
	}
	if err := c.Check(intent); err != nil {
		return true, c.put(ctx, billing.Settlement{Judgement: billing.Parked(err)})
	}
	c.ProviderIntentID = intent.ID
	failpoint.Hit("cp09")
	return false, nil
}

// createRequest is the same whenever it is made: a recovery makes it again.
func createRequest(c *billing.Collection, environment billing.Environment) CreateRequest {
	return CreateRequest{
		Amount: c.Amount, Key: c.IdempotencyKey(),
		Metadata: map[string]string{
			"invoice": c.InvoiceID.String(), "subscription": c.SubscriptionNo, "period": fmt.Sprint(c.PeriodNo),
			"generation": fmt.Sprint(c.Generation), "environment": string(environment),
		},
	}
}

// look retrieves the intent and settles what it shows. done is false when
// nothing is open and an attach may follow.
func (c *collection) look(ctx context.Context) (done bool, err error) {
	failpoint.Hit("cp10")
	seen, err := c.gateway.Retrieve(ctx, c.ProviderIntentID)
	if err != nil {
		return true, c.gatewayTrouble(ctx, err)
	}
	judgement := c.Judge(seen, c.now)
	if judgement.Ruling == billing.Free {
		c.looked = true
		failpoint.Hit("cp11")
		return false, c.recordSeen(ctx, judgement, seen)
	}
	if judgement.Ruling == billing.Dead && c.Checkout != "" {
		if judgement, err = c.buried(ctx, judgement); err != nil {
			return true, c.gatewayTrouble(ctx, err)
		}
	}
	failpoint.Hit("cp25")
	s := billing.Settlement{Judgement: judgement, Seen: &seen, Source: "retrieve", Fence: c.Fence}
	if c.Open != nil {
		s.Attempt = c.Open.ID
	}
	return true, c.put(ctx, s)
}

// recordSeen puts the payments on record that the provider shows before the next
// attach. A declined attach is answered without its payment's id; unrecorded, that
// payment would pass for the outcome of the attempt that comes now.
func (c *collection) recordSeen(ctx context.Context, j billing.Judgement, seen billing.ProviderIntent) error {
	if !slices.ContainsFunc(seen.Payments, func(p billing.ProviderPayment) bool { return !c.Known[p.ID] }) {
		return nil
	}
	if _, err := c.settle(ctx, billing.Settlement{Judgement: j, Seen: &seen, Source: "retrieve", Fence: c.Fence}); err != nil {
		return err
	}
	if c.Known == nil {
		c.Known = map[string]bool{}
	}
	for _, p := range seen.Payments {
		c.Known[p.ID] = true
	}
	return nil
}

// charge arms and sends: between the two lies an acknowledged commit.
func (c *collection) charge(ctx context.Context) error {
	if c.may != nil {
		return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: c.hold(time.Minute, c.may.Error())})
	}
	choice, err := c.Choose(c.now, c.limits, c.holidays)
	if err != nil {
		return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Park, Reason: err.Error()}})
	}
	if choice.Decision != nil {
		return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred, Reason: choice.Decision.Reason}, Decision: choice.Decision})
	}
	// Counted from before the arming: a process that is stopped anywhere behind
	// this line finds the time over when it goes on.
	sendBefore := c.realNow().Add(sendWithin)
	result, err := c.arm.Do(ctx, billing.ArmRequest{
		InvoiceID: c.InvoiceID, IntentID: c.IntentID, ProviderIntentID: c.ProviderIntentID, Fence: c.Fence,
		CardID: choice.Card.ID, ProviderCardID: choice.Card.ProviderID, Trigger: c.Trigger,
	})
	if err != nil {
		// The commit was not acknowledged: it may have happened. Send nothing; the
		// next run finds an armed attempt, or none, and looks.
		c.metrics.notArmed(err)
		return fmt.Errorf("arm invoice %s: %w", c.InvoiceID, err)
	}
	if result.Err != nil {
		return c.notArmed(ctx, result.Err)
	}

	// Past this line money may move. A shutdown lets the attach finish.
	c.metrics.started(c.Collection, c.now)
	begun := c.realNow()
	failpoint.Hit("cp14")
	answer := c.gateway.Attach(context.WithoutCancel(ctx), result.Armed, sendBefore)
	c.leave()
	failpoint.Hit("cp18")
	judgement := c.Settle(answer, c.now)
	s := billing.Settlement{Judgement: judgement, Attempt: result.Armed.AttemptID, Fence: result.Armed.Fence, Source: "attach"}
	if answer.Kind == billing.AnswerIntent {
		s.Seen = &answer.Intent
	}
	settled, err := c.settle(context.WithoutCancel(ctx), s)
	failpoint.Hit("cp19")
	c.shareHold(context.WithoutCancel(ctx))
	c.report(result.Armed, answer, judgement, settled, err, c.realNow().Sub(begun))
	return err
}

// notArmed deals with an attempt that the database did not allow.
func (c *collection) notArmed(ctx context.Context, reason error) error {
	c.metrics.notArmed(reason)
	switch {
	case errors.Is(reason, billing.ErrNotOpen), errors.Is(reason, billing.ErrInFlight):
		return nil // somebody else has dealt with it, or will
	case errors.Is(reason, billing.ErrOverBudget):
		return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: c.hold(time.Hour, reason.Error())})
	}
	return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: c.hold(time.Minute, reason.Error())})
}

// gatewayTrouble stores when to come back after a create or a look that gave
// nothing. It never counts against the customer.
func (c *collection) gatewayTrouble(ctx context.Context, err error) error {
	var e *GatewayError
	if !errors.As(err, &e) {
		return err
	}
	c.shareHold(ctx)
	switch {
	case e.Fault:
		c.tell(slog.LevelError, "the provider refuses us", slog.String("reason", e.Reason), slog.Any("error", e))
		if err := c.trip(ctx, e.Error()); err != nil {
			return err
		}
	case e.Refused:
		// A 404 of a stored intent proves nothing; a refused create is a bug.
		return c.put(ctx, billing.Settlement{Judgement: billing.Judgement{Ruling: billing.Park, Reason: e.Error()}, Attempt: c.openAttempt(), Fence: c.Fence})
	case c.Open != nil:
		return c.put(ctx, billing.Settlement{
			Judgement: billing.Judgement{Ruling: billing.Unknown, Reason: e.Reason, Evidence: "retrieve"}, Attempt: c.Open.ID, Fence: c.Fence,
		})
	}
	if c.lookOnly && c.WaitingFor != billing.WaitingForProvider {
		return nil // its next wake-up stands as it is: an attempt is not made any earlier
	}
	createFailed := c.ProviderIntentID == "" && e.Failed
	d := c.hold(time.Minute, e.Reason)
	if createFailed {
		d.At = c.now.Add(min(time.Minute<<min(c.CreateFailures, 6), time.Hour))
	}
	if until := e.RetryAt.Sub(c.realNow()); until > d.At.Sub(c.now) {
		d.At = c.now.Add(until)
	}
	return c.put(ctx, billing.Settlement{
		Judgement: billing.Judgement{Ruling: billing.Deferred}, Decision: d, Attempt: c.openAttempt(), Fence: c.Fence, CreateFailed: createFailed,
	})
}

func (c *collection) openAttempt() uuid.UUID {
	if c.Open == nil {
		return uuid.Nil
	}
	return c.Open.ID
}

func (c *collection) hold(d time.Duration, reason string) *billing.Decision {
	return &billing.Decision{Action: billing.DunningActionHold, At: c.now.Add(d), Reason: reason}
}

// put settles and reports.
func (c *collection) put(ctx context.Context, s billing.Settlement) error {
	if s.Attempt == uuid.Nil {
		s.Fence = c.Fence
	}
	settled, err := c.settle(ctx, s)
	if err != nil {
		return err
	}
	c.metrics.settled(s, settled, c.Collection, c.source)
	c.tell(slog.LevelInfo, "settled", slog.String("ruling", string(s.Judgement.Ruling)), slog.String("reason", settled.Reason),
		slog.Bool("applied", settled.Applied), slog.String("invoice_status", settled.InvoiceStatus), slog.Time("next_attempt_at", settled.NextAttemptAt))
	return nil
}

func (c *collection) settle(ctx context.Context, s billing.Settlement) (billing.Settled, error) {
	s.Collection = c.Collection
	settled, err := c.Collector.settled.Do(ctx, s)
	if err != nil {
		return settled, fmt.Errorf("settle invoice %s: %w", c.InvoiceID, err)
	}
	return settled, nil
}

// tell writes a line about this invoice.
func (c *collection) tell(level slog.Level, message string, more ...slog.Attr) {
	attrs := append(make([]slog.Attr, 0, 3+len(more)), // ids as texts: any other way they cost more than the line
		slog.String("invoice", c.InvoiceID.String()), slog.String("subscription", c.SubscriptionNo), slog.Int("period_no", c.PeriodNo))
	c.log.LogAttrs(context.Background(), level, message, append(attrs, more...)...)
}

// report writes the one wide line of an attempt.
func (c *collection) report(armed billing.Armed, answer billing.Answer, j billing.Judgement, settled billing.Settled, err error, took time.Duration) {
	level := slog.LevelInfo
	if err != nil || j.Ruling == billing.Unknown || j.Ruling == billing.Fault || j.Ruling == billing.Park {
		level = slog.LevelWarn
	}
	c.metrics.attempted(c.Collection, j, settled, took)
	c.tell(level, "attempt", slog.String("attempt", armed.AttemptID.String()), slog.Int("no", armed.No), slog.String("payment_intent", armed.ProviderIntentID),
		slog.String("payment_method", armed.ProviderCardID), slog.String("trigger", string(c.Trigger)), slog.Int64("amount_minor", c.Amount.Minor),
		slog.String("answer", string(answer.Kind)), slog.String("ruling", string(j.Ruling)), slog.String("reason", j.Reason),
		slog.String("decline_code", string(j.Code)), slog.String("payment", j.Payment.ID), slog.String("invoice_status", settled.InvoiceStatus),
		slog.Time("next_attempt_at", settled.NextAttemptAt), slog.Duration("took", took), slog.Any("error", err))
}
