package sandbox

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// delivery is one event on its way to one endpoint.
type delivery struct {
	Event, Kind string
	Hook        string
	Body        []byte
	Try         int       // retries so far
	SignedAt    time.Time // of the first try
	Forged      bool      // signed with a wrong secret, never retried
}

// maxQueue bounds what waits for delivery. Beyond it events are lost, counted,
// and logged: PayMongo drops events too, and the ledger keeps the truth.
const maxQueue = 1 << 20

// postman delivers. Its lock is taken after Sandbox.mu, never before.
type postman struct {
	s      *Sandbox
	client *http.Client
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	moved  *sync.Cond
	queue  []*delivery
	busy   int
	closed bool
}

func newPostman(s *Sandbox) *postman {
	p := &postman{s: s}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.moved = sync.NewCond(&p.mu)
	p.client = &http.Client{
		Timeout:       s.opts.WebhookTimeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: s.opts.WebhookWorkers, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for range s.opts.WebhookWorkers {
		p.done.Add(1)
		go p.work()
	}
	return p
}

func (p *postman) send(list []*delivery) {
	for _, d := range list {
		p.push(d)
	}
}

func (p *postman) push(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) >= maxQueue {
		p.s.log.Warn("webhook queue full, event lost", slog.String("event", d.Event))
		return
	}
	p.queue = append(p.queue, d)
	p.moved.Broadcast()
}

// deliverNow tries each delivery once, in order, before it returns.
func (p *postman) deliverNow(list []*delivery) {
	for _, d := range list {
		p.s.delivered(d, p.try(d))
	}
}

func (p *postman) work() {
	defer p.done.Done()
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.moved.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		d := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.busy++
		p.mu.Unlock()

		p.s.delivered(d, p.try(d))

		p.mu.Lock()
		p.busy--
		p.moved.Broadcast()
		p.mu.Unlock()
	}
}

// try makes one delivery, in the way a real one was captured in 2025-11.
func (p *postman) try(d *delivery) (accepted bool) {
	s := p.s
	s.mu.Lock()
	h := s.st.hooks[d.Hook]
	if h == nil || h.Status != "enabled" {
		s.mu.Unlock()
		return true // nobody to deliver to; nothing to retry
	}
	url, secret := h.URL, h.Secret
	if d.Forged {
		secret = "whsk_forged"
	}
	signedAt := s.clock.Now()
	if d.SignedAt.IsZero() || !s.profile.SignOnce {
		d.SignedAt = signedAt
	}
	header := signature(secret, d.Body, d.SignedAt, s.profile.SignBoth)
	s.mu.Unlock()

	req, err := http.NewRequestWithContext(p.ctx, http.MethodPost, url, bytes.NewReader(d.Body))
	if err != nil {
		return false
	}
	req.Header.Set("User-Agent", "Ruby")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Paymongo-Signature", header)
	status := 0
	if resp, err := p.client.Do(req); err == nil {
		status = resp.StatusCode
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // only the status counts
		_ = resp.Body.Close()
	}
	s.log.LogAttrs(p.ctx, slogLevel(status), "webhook", slog.String("event", d.Event), slog.String("type", d.Kind),
		slog.String("hook", d.Hook), slog.Int("status", status), slog.Int("try", d.Try+1), slog.Bool("forged", d.Forged))
	return status >= 200 && status <= 299
}

// drain waits until nothing is queued or under way.
func (p *postman) drain(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.moved.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 || p.busy > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.moved.Wait()
	}
	return nil
}

func (p *postman) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = nil
	p.moved.Broadcast()
}

// close stops the workers; what waits or was cut off becomes a timer, so that
// a state file keeps it.
func (p *postman) close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	waiting := p.queue
	p.queue = nil
	p.moved.Broadcast()
	p.mu.Unlock()
	p.done.Wait()
	p.client.CloseIdleConnections()
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for _, d := range waiting {
		p.s.schedule(&timer{At: p.s.clock.Now(), Kind: timerDeliver, ID: d.Event, Delivery: d})
	}
}
