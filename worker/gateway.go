package worker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
)

// PayMongo is the gateway to PayMongo. It turns answers into the words of
// package billing and decides nothing.
type PayMongo struct {
	client *paymongo.Client
}

// NewPayMongo makes a gateway of a client.
func NewPayMongo(client *paymongo.Client) *PayMongo { return &PayMongo{client} }

// Livemode tells which world the gateway's key belongs to.
func (g *PayMongo) Livemode() bool { return g.client.Livemode() }

// HeldUntil is until when a 429 holds this client back; zero: not at all.
func (g *PayMongo) HeldUntil() time.Time { return g.client.HeldUntil() }

// CreateRequest asks for a payment intent.
type CreateRequest struct {
	Amount   billing.Money
	Key      string            // Idempotency-Key: derived, so that a re-run sends the same
	Metadata map[string]string // how to find the invoice when all we have is a payment
}

// GatewayError is a call that gave no intent.
type GatewayError struct {
	// Fault: the provider refuses us, not a customer: 401, 403. Stop everything.
	Fault bool
	// Refused: the request itself was wrong, or the thing does not exist. Sending
	// it again would change nothing.
	Refused bool
	// Failed: the provider answered that it failed, a 5xx.
	Failed bool
	// RetryAt is set when the provider asked us to wait.
	RetryAt time.Time
	Reason  string // one word
	Err     error
}

func (e *GatewayError) Error() string { return e.Err.Error() }

// Unwrap gives the client's error.
func (e *GatewayError) Unwrap() error { return e.Err }

// Create creates a payment intent. It moves no money, and an intent whose
// answer was lost is harmless: nothing is ever attached to it.
func (g *PayMongo) Create(ctx context.Context, r CreateRequest) (billing.ProviderIntent, error) {
	intent, err := g.client.PaymentIntents.Create(rememberTries(ctx), &paymongo.PaymentIntentCreateParams{
		Amount: r.Amount.Minor, Currency: string(r.Amount.Currency), PaymentMethodAllowed: []string{"card"},
		Metadata: r.Metadata, IdempotencyKey: r.Key,
	})
	if err != nil {
		return billing.ProviderIntent{}, g.fail(err)
	}
	return providerIntent(intent), nil
}

// Retrieve shows a payment intent.
func (g *PayMongo) Retrieve(ctx context.Context, id string) (billing.ProviderIntent, error) {
	intent, err := g.client.PaymentIntents.Retrieve(rememberTries(ctx), id, nil)
	if err != nil {
		return billing.ProviderIntent{}, g.fail(err)
	}
	return providerIntent(intent), nil
}

// Attach sends the one attach that an armed attempt licenses. Past sendBefore,
// by the monotonic clock, it sends nothing and says so.
func (g *PayMongo) Attach(ctx context.Context, armed billing.Armed, sendBefore time.Time) billing.Answer {
	intent, err := g.client.PaymentIntents.Attach(rememberTries(ctx), armed.ProviderIntentID, &paymongo.PaymentIntentAttachParams{
		PaymentMethod: armed.ProviderCardID, SendBefore: sendBefore,
	})
	if err == nil {
		return billing.Answer{Kind: billing.AnswerIntent, Intent: providerIntent(intent), Reason: plain(string(intent.Status))}
	}
	return answerOf(err)
}

// answerOf classifies the error of an attach. Whatever is not certain is
// unknown.
func answerOf(err error) billing.Answer {
	verdict, reason := paymongo.VerdictOf(err)
	var said *paymongo.Error
	errors.As(err, &said)
	switch {
	case verdict == paymongo.VerdictNeverSent:
		return billing.Answer{Kind: billing.AnswerNeverSent, Reason: reason}
	case verdict != paymongo.VerdictRefused || said == nil:
		return billing.Answer{Kind: billing.AnswerUnknown, Reason: reason}
	case said.Declined():
		return billing.Answer{Kind: billing.AnswerDeclined, Code: billing.DeclineCode(said.SubCode), Reason: said.SubCode}
	case said.Code == "organization_not_allowed":
		return billing.Answer{Kind: billing.AnswerNotHere, Reason: said.Code}
	case said.StatusCode == http.StatusNotFound, said.Code == "payment_method_not_allowed":
		return billing.Answer{Kind: billing.AnswerCardGone, Reason: said.Code}
	}
	return billing.Answer{Kind: billing.AnswerFault, Reason: reason}
}

// Show retrieves a payment intent with the metadata that it was created with.
func (g *PayMongo) Show(ctx context.Context, id string) (billing.ProviderIntent, map[string]string, error) {
	intent, err := g.client.PaymentIntents.Retrieve(rememberTries(ctx), id, nil)
	if err != nil {
		return billing.ProviderIntent{}, nil, g.fail(err)
	}
	return providerIntent(intent), intent.Metadata, nil
}

// Payments lists the account's payments, newest first. It ends after the first
// error.
func (g *PayMongo) Payments(ctx context.Context) iter.Seq2[ListedPayment, error] {
	return func(yield func(ListedPayment, error) bool) {
		for p, err := range g.client.Payments.All(rememberTries(ctx), nil) {
			if err != nil {
				yield(ListedPayment{}, g.fail(err))
				return
			}
			if !yield(ListedPayment{ProviderPayment: providerPayment(p), IntentID: tidy(p.PaymentIntentID), Metadata: p.Metadata}, nil) {
				return
			}
		}
	}
}

func (g *PayMongo) fail(err error) error {
	verdict, reason := paymongo.VerdictOf(err)
	e := &GatewayError{Reason: reason, Err: err, RetryAt: g.client.HeldUntil()}
	var said *paymongo.Error
	if errors.As(err, &said) {
		e.Fault = said.StatusCode == http.StatusUnauthorized || said.StatusCode == http.StatusForbidden
		e.Failed = said.StatusCode >= http.StatusInternalServerError
		e.Refused = verdict == paymongo.VerdictRefused && !e.Fault
	}
	return e
}

// providerIntent is an intent in texts that a database takes: an answer that
// cannot be stored would be asked for without end. One without an id of ours is
// parked.
func providerIntent(intent *paymongo.PaymentIntent) billing.ProviderIntent {
	out := billing.ProviderIntent{
		ID: tidy(intent.ID), Status: billing.ProviderStatus(plain(string(intent.Status))), Livemode: intent.Livemode,
		Amount: billing.Money{Minor: intent.Amount, Currency: billing.Currency(plain(intent.Currency))},
	}
	if next := intent.NextAction; next != nil && next.Redirect != nil && printable(next.Redirect.URL, 2000) {
		out.ActionURL = next.Redirect.URL
	}
	for _, p := range intent.Payments {
		out.Payments = append(out.Payments, providerPayment(p))
	}
	return out
}

func providerPayment(p *paymongo.Payment) billing.ProviderPayment {
	return billing.ProviderPayment{
		ID: plain(p.ID), Status: plain(string(p.Status)), Livemode: p.Livemode, FailedCode: billing.DeclineCode(plain(p.FailedCode)), At: p.CreatedAt.Time,
		Amount: billing.Money{Minor: p.Amount, Currency: billing.Currency(plain(p.Currency))},
	}
}

// ObservePayMongo counts the requests of a client that was made with it as the
// observer.
func (m *Metrics) ObservePayMongo(ctx context.Context, e paymongo.Exchange) {
	code := pspOK
	if e.Err != nil {
		_, code = paymongo.VerdictOf(e.Err)
		var said *paymongo.Error
		if errors.As(e.Err, &said) && said.Declined() {
			code = pspDeclined
		}
	}
	m.psp.observe(ctx, pspTry{
		op: e.Op, status: e.StatusCode, code: code, again: e.Attempt > 1, duration: e.Duration, wait: e.Wait,
	})
}

// PayMongoWebhooks checks the deliveries of PayMongo's webhooks.
type PayMongoWebhooks struct {
	secrets paymongo.WebhookSecrets
	mode    paymongo.Mode
}

// NewPayMongoWebhooks takes the webhook's secret, or two during a rotation. It
// refuses an empty one: anybody could sign with it.
func NewPayMongoWebhooks(livemode bool, secrets ...string) (*PayMongoWebhooks, error) {
	known, err := paymongo.NewWebhookSecrets(secrets...)
	if err != nil {
		return nil, err
	}
	return &PayMongoWebhooks{secrets: known, mode: paymongo.ModeOf(livemode)}, nil
}

// verify tells when an authentic delivery was signed. How old that may be is
// judged by business time, which a database knows; so the epoch is asked about
// here, and the client's answer is the time that was signed.
func (p *PayMongoWebhooks) verify(header string, body []byte) (signedAt time.Time, err error) {
	epoch := time.Unix(0, 0)
	err = paymongo.VerifySignature(header, body, p.secrets, p.mode, epoch, 1)
	var stale *paymongo.StaleError
	switch {
	case err == nil:
		return epoch, nil
	case errors.As(err, &stale):
		return stale.SignedAt, nil
	}
	return time.Time{}, fmt.Errorf("%w: %w", ErrNotAuthentic, err)
}

func (p *PayMongoWebhooks) livemode() bool { return p.mode == paymongo.ModeLive }

// eventLabels are the types that a metric may name.
var eventLabels = []paymongo.EventType{
	paymongo.EventPaymentPaid, paymongo.EventPaymentFailed, paymongo.EventPaymentRefunded, paymongo.EventPaymentRefundUpdated,
	paymongo.EventPaymentIntentSucceeded, paymongo.EventPaymentIntentAwaitingPaymentMethod, paymongo.EventRefundSucceeded,
}

// readNotice reads the body of an authentic delivery. Texts that a database
// would refuse are left out: a delivery that cannot be stored would come again
// and again, until PayMongo turns the webhook off.
func readNotice(body []byte) (notice, error) {
	event, err := paymongo.ParseEvent(body)
	if err != nil {
		return notice{}, fmt.Errorf("%w: %w", ErrNotAnEvent, err)
	}
	n := notice{
		EventID: event.ID, Type: string(event.Type), Label: otherEvent, Livemode: event.Livemode,
		ResourceID: tidy(event.ResourceID), At: event.CreatedAt.Time, Unreadable: event.ResourceErr,
	}
	if slices.Contains(eventLabels, event.Type) {
		n.Label = n.Type
	}
	switch about := event.Resource.(type) {
	case *paymongo.Payment:
		n.AboutMoney, n.IntentID = true, tidy(about.PaymentIntentID)
		n.readMetadata(about.Metadata)
		n.readPayment(about)
		if len(about.Refunds) > 0 {
			n.RefundOf = tidy(about.ID)
		}
		for _, r := range about.Refunds {
			n.readRefund(r)
		}
	case *paymongo.PaymentIntent:
		n.AboutMoney, n.IntentID, n.Paid = true, tidy(about.ID), about.Status == paymongo.PaymentIntentStatusSucceeded
		n.readMetadata(about.Metadata)
		for _, p := range about.Payments {
			n.readPayment(p)
		}
	case *paymongo.CheckoutSession:
		// A wake-up and no more: the payment has a webhook of its own.
		n.readMetadata(about.Metadata)
		if about.PaymentIntent != nil {
			n.AboutMoney, n.IntentID = true, tidy(about.PaymentIntent.ID)
		}
	case *paymongo.Refund:
		n.AboutMoney, n.RefundOf = true, tidy(about.PaymentID)
		n.readRefund(about)
	}
	n.AboutMoney = n.AboutMoney || n.Unreadable != nil
	return n, nil
}

func (n *notice) readMetadata(m paymongo.Metadata) {
	switch e := billing.Environment(m["environment"]); e {
	case "", billing.EnvironmentDev, billing.EnvironmentStaging, billing.EnvironmentProduction:
		n.Environment = string(e)
	default:
		n.Environment = "of no name of ours" // it may be anything, and is logged
	}
	if id, err := uuid.Parse(m["invoice"]); err == nil {
		n.InvoiceID = id
	}
	if id, err := uuid.Parse(m[setupMark]); err == nil && n.Environment != "" {
		n.SetupID = id
	}
}

func (n *notice) readPayment(p *paymongo.Payment) {
	if p.Status != paymongo.PaymentStatusPaid {
		return
	}
	n.Paid = true
	if id := tidy(p.ID); id != "" {
		n.Payments = append(n.Payments, billing.ProviderPayment{
			ID: id, Status: string(p.Status), Livemode: p.Livemode, At: p.CreatedAt.Time,
			Amount: billing.Money{Minor: p.Amount, Currency: billing.Currency(tidy(p.Currency))},
		})
	}
}

// readRefund adds up what was given back for certain.
func (n *notice) readRefund(r *paymongo.Refund) {
	if r.Status == paymongo.RefundStatusSucceeded && r.Amount > 0 && r.Amount <= billing.MaxAmountMinor {
		n.RefundedMinor += r.Amount
	}
}

// tidy is an id that a database takes, or nothing.
func tidy(id string) string {
	if !printable(id, 200) {
		return ""
	}
	return id
}

// plain is a word of the provider's as it came, or, if a database may not take
// it, what stands for it in quotes: money that moved is on record whatever it is called.
func plain(word string) string {
	if printable(word, 200) {
		return word
	}
	return strconv.QuoteToASCII(word[:min(len(word), 200)])
}

// printable tells whether a text is visible ASCII, and no longer than most bytes.
func printable(s string, most int) bool {
	return len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
