package worker

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/failpoint"
)

const (
	deliveryTimeout = 15 * time.Second
	// streamLease is longer than one delivery; each one that is acknowledged renews it.
	streamLease = time.Minute
	// deliveriesAtOnce are sent at the same time to each endpoint: a slow endpoint
	// delays itself only.
	deliveriesAtOnce = 4
	eventsAtOnce     = 20

	deliveryFirstPause = 5 * time.Second
	deliveryLastPause  = 4 * time.Hour
	// deliveryPatience is how long one event may fail before its stream waits for
	// a human.
	deliveryPatience = 7 * 24 * time.Hour

	outboxTick    = time.Second
	backlogEvery  = 15 // ticks
	releaseWithin = 5 * time.Second
)

// How a delivery ends.
const (
	deliveryOK          = "ok"
	deliveryRefused     = "refused"     // an answer that is not a 2xx
	deliveryUnreachable = "unreachable" // no answer
)

// OutboxConfig configures an Outbox. Pool, Log and Now are required.
type OutboxConfig struct {
	Pool    *pgxpool.Pool
	Log     *slog.Logger
	Now     func() time.Time // the real clock: endpoints live in real time
	Metrics *Metrics         // nil: counted for nobody
	// Timeout of one delivery. 0: 15 seconds, which is also the most.
	Timeout time.Duration
}

// Outbox delivers events to the merchant's endpoints: at least once, and in
// order for each subscription. An event that is not acknowledged holds back the
// ones behind it of the same subscription and no others. Any number of daemons
// share the work.
type Outbox struct {
	cfg    OutboxConfig
	client *http.Client

	mu      sync.Mutex
	running map[uuid.UUID]bool // endpoints that this process delivers to
	done    sync.WaitGroup
}

// NewOutbox makes an Outbox. It panics on a config that lacks what is required.
func NewOutbox(cfg OutboxConfig) *Outbox {
	if cfg.Pool == nil || cfg.Log == nil || cfg.Now == nil {
		panic("worker: OutboxConfig needs Pool, Log and Now")
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	cfg.Timeout = min(cmp.Or(cfg.Timeout, deliveryTimeout), deliveryTimeout)
	return &Outbox{
		cfg: cfg, running: map[uuid.UUID]bool{},
		client: &http.Client{
			Timeout: cfg.Timeout,
			// No proxy of the environment: what is signed goes where it is addressed.
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: deliveriesAtOnce, IdleConnTimeout: time.Minute,
				MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Run delivers until ctx is done, and returns when nothing is under way any
// more. Trouble with the database is logged and comes again.
func (o *Outbox) Run(ctx context.Context) {
	defer o.client.CloseIdleConnections()
	defer o.done.Wait()
	tick := time.NewTicker(outboxTick)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := o.start(ctx); err != nil && ctx.Err() == nil {
			o.cfg.Log.Error("outbox", "error", err)
		}
		if n%backlogEvery == 0 {
			o.measure(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// start begins with every endpoint that is not being delivered to.
func (o *Outbox) start(ctx context.Context) error {
	endpoints, err := billing.EnabledEndpoints(ctx, o.cfg.Pool)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range endpoints {
		if o.running[e.ID] {
			continue
		}
		o.running[e.ID] = true
		o.done.Go(func() {
			defer func() {
				o.mu.Lock()
				defer o.mu.Unlock()
				delete(o.running, e.ID)
			}()
			if err := o.deliverTo(ctx, e); err != nil && ctx.Err() == nil {
				o.cfg.Log.Error("outbox", "endpoint", e.ID, "error", err)
			}
		})
	}
	return nil
}

func (o *Outbox) measure(ctx context.Context) {
	backlog, err := billing.LookBacklog(ctx, o.cfg.Pool)
	if err != nil {
		return // the same database has just been complained about
	}
	age := time.Duration(0)
	if !backlog.OldestWrittenAt.IsZero() {
		age = max(0, o.cfg.Now().Sub(backlog.OldestWrittenAt))
	}
	o.cfg.Metrics.outbox.oldest.Set(age.Seconds())
	o.cfg.Metrics.outbox.parked.Set(float64(backlog.Parked))
}

// deliverTo delivers what is due to one endpoint, until nothing is.
func (o *Outbox) deliverTo(ctx context.Context, e billing.Endpoint) error {
	key, err := billing.EndpointKey(e.Secret)
	if err != nil {
		return err
	}
	errs := make([]error, deliveriesAtOnce)
	var all sync.WaitGroup
	for i := range deliveriesAtOnce {
		all.Go(func() { errs[i] = o.deliverStreams(ctx, e, key) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// deliverStreams takes one stream after the other: a lease begins when the work
// on it does.
func (o *Outbox) deliverStreams(ctx context.Context, e billing.Endpoint, key []byte) error {
	for ctx.Err() == nil {
		var streams []billing.Stream
		err := pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) (err error) {
			now := o.cfg.Now()
			streams, err = billing.ClaimStreams(ctx, tx, e.ID, now, now.Add(streamLease), 1)
			return err
		})
		if err != nil || len(streams) == 0 {
			return err
		}
		if err := o.deliverStream(ctx, e, key, streams[0]); err != nil {
			return err
		}
	}
	return nil
}

// deliverStream sends the pending events of one stream, in order, until one is
// not acknowledged. What it does not get to is due again at once.
func (o *Outbox) deliverStream(ctx context.Context, e billing.Endpoint, key []byte, s billing.Stream) error {
	events, err := billing.PendingEvents(ctx, o.cfg.Pool, s, eventsAtOnce)
	if err != nil && ctx.Err() == nil {
		return err // the lease ends by itself
	}
	for _, event := range events {
		result, reason := o.send(ctx, e, key, event)
		if ctx.Err() != nil && result != deliveryOK {
			break // we stop; the endpoint is not to blame
		}
		o.cfg.Metrics.outbox.deliveries.WithLabelValues(result).Inc()
		if result != deliveryOK {
			return o.fail(ctx, e, s, event, reason)
		}
		failpoint.Hit("cp24")
		// It has been acknowledged: note it even if we stop just now.
		err := o.tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			return billing.Delivered(ctx, tx, s, event.Seq, o.cfg.Now().Add(streamLease))
		})
		if errors.Is(err, billing.ErrLeaseLost) {
			return nil // another daemon goes on with it
		}
		if err != nil {
			return err
		}
		s.Tries, s.FailingSince = 0, time.Time{}
	}
	err = o.tx(ctx, func(ctx context.Context, tx pgx.Tx) error { return billing.FinishStream(ctx, tx, s, o.cfg.Now()) })
	if errors.Is(err, billing.ErrLeaseLost) {
		return nil
	}
	return err
}

// fail puts a stream off, or parks it.
func (o *Outbox) fail(ctx context.Context, e billing.Endpoint, s billing.Stream, event billing.Written, reason string) error {
	now := o.cfg.Now()
	next := now.Add(deliveryPause(s.Tries))
	parked := !s.FailingSince.IsZero() && now.Sub(s.FailingSince) >= deliveryPatience
	if parked {
		next = time.Time{}
	}
	log := o.cfg.Log.With("endpoint", e.ID, "event", event.ID, "type", event.Type, "stream", s.Key, "tries", s.Tries+1, "reason", reason)
	if parked {
		log.Error("events parked: given up until an operator resumes them", "failing_since", s.FailingSince)
	} else {
		log.Warn("event not delivered", "next_try_at", next)
	}
	err := o.tx(ctx, func(ctx context.Context, tx pgx.Tx) error { return billing.FailStream(ctx, tx, s, reason, now, next) })
	if errors.Is(err, billing.ErrLeaseLost) {
		return nil
	}
	return err
}

// tx also commits while we stop, for a moment: what has happened is noted.
func (o *Outbox) tx(ctx context.Context, do func(context.Context, pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer cancel()
	return pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error { return do(ctx, tx) })
}

// deliveryPause doubles, up to a few hours.
func deliveryPause(tries int) time.Duration {
	if tries > 12 {
		return deliveryLastPause
	}
	return min(deliveryFirstPause<<tries, deliveryLastPause)
}

// payload is a body of Standard Webhooks.
type payload struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// send makes one delivery. Only a 2xx acknowledges it.
func (o *Outbox) send(ctx context.Context, e billing.Endpoint, key []byte, event billing.Written) (result, reason string) {
	body, err := json.Marshal(payload{event.Type, event.OccurredAt.UTC(), event.Data})
	if err != nil {
		return deliveryRefused, fmt.Sprintf("event %s: %v", event.ID, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return deliveryUnreachable, short(err.Error())
	}
	id, timestamp := event.ID.String(), strconv.FormatInt(o.cfg.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "singil")
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", timestamp)
	req.Header.Set("webhook-signature", "v1,"+sign(key, id, timestamp, body))
	resp, err := o.client.Do(req)
	if err != nil {
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err // without the URL, which may hold a token
		}
		return deliveryUnreachable, short(err.Error())
	}
	defer resp.Body.Close()
	// The rest is of no interest: the connection is used again, within reason.
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return deliveryRefused, short("the endpoint answered " + resp.Status)
	}
	return deliveryOK, ""
}

// sign makes the signature of Standard Webhooks.
func sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	_, _ = mac.Write(body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// short is a text that fits its column: printable ASCII, at most 400 bytes.
func short(s string) string {
	clean := []byte(s[:min(len(s), 400)])
	for i, b := range clean {
		if b < ' ' || b > '~' {
			clean[i] = '?'
		}
	}
	return string(clean)
}
