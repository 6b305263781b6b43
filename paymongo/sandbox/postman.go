package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
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
	seq         uint64    // order of announcing
}

// maxQueue bounds what waits for delivery now, and what waits for a retry.
// Beyond it events are dropped, counted, and logged: PayMongo drops events
// too, and the ledger keeps the truth.
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
	open   map[*delivery]struct{} // announced and not settled: queued, under way, or behind an answer
	seq    uint64
	closed bool
}

func newPostman(s *Sandbox) *postman {
	p := &postman{s: s, open: map[*delivery]struct{}{}}
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

// promise notes deliveries that will be pushed or tried, so that drain waits
// for them and a state file keeps them. Called with Sandbox.mu held.
func (p *postman) promise(list []*delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range list {
		p.note(d)
	}
}

func (p *postman) note(d *delivery) {
	if _, known := p.open[d]; !known {
		p.seq++
		d.seq = p.seq
		p.open[d] = struct{}{}
	}
}

// push queues deliveries. Called with Sandbox.mu held.
func (p *postman) push(list ...*delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return // what was promised is in the state file
	}
	for _, d := range list {
		if len(p.queue) >= maxQueue {
			delete(p.open, d)
			p.s.drop(d)
			continue
		}
		p.note(d)
		p.queue = append(p.queue, d)
	}
	p.moved.Broadcast()
}

// settle ends what was promised. Called with Sandbox.mu held.
func (p *postman) settle(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, d)
	p.moved.Broadcast()
}

// outstanding lists what is not settled, in order. Called with Sandbox.mu held.
func (p *postman) outstanding() []*delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Keys(p.open), func(a, b *delivery) int { return cmp.Compare(a.seq, b.seq) })
}

// deliverNow tries each delivery once, in order, before it returns.
func (p *postman) deliverNow(list []*delivery) {
	for _, d := range list {
		p.deliver(d)
	}
}

// deliver tries once and books what came of it.
func (p *postman) deliver(d *delivery) {
	tried, accepted := p.try(d)
	p.s.delivered(d, tried, accepted)
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
		p.mu.Unlock()
		p.deliver(d)
	}
}

// address tells where a delivery goes and under which signature; false when
// the endpoint is gone or disabled.
func (s *Sandbox) address(d *delivery) (url, header string, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.st.hooks[d.Hook]
	if h == nil || h.Status != "enabled" {
		return "", "", false
	}
	secret := h.Secret
	if d.Forged {
		secret = "whsk_forged"
	}
	if d.SignedAt.IsZero() || !s.profile.SignOnce {
		d.SignedAt = s.clock.Now()
	}
	return h.URL, signature(secret, d.Body, d.SignedAt, s.profile.SignBoth), true
}

// try makes one delivery, in the way a real one was captured in 2025-11.
// Nothing is tried when there is nobody to deliver to.
func (p *postman) try(d *delivery) (tried, accepted bool) {
	s := p.s
	url, header, found := s.address(d)
	if !found {
		return false, false
	}
	req, err := http.NewRequestWithContext(p.ctx, http.MethodPost, url, bytes.NewReader(d.Body))
	if err != nil {
		return true, false
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
	return true, status >= 200 && status <= 299
}

// drain waits until nothing is promised, queued or under way, or the postman
// has closed.
func (p *postman) drain(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.moved.Broadcast()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.open) > 0 && !p.closed {
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
	for _, d := range p.queue {
		delete(p.open, d)
	}
	p.queue = nil
	p.moved.Broadcast()
}

// close stops the workers. What waits stays open, for the state file; what is
// cut off becomes a retry.
func (p *postman) close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	p.queue = nil
	p.moved.Broadcast()
	p.mu.Unlock()
	p.done.Wait()
	p.client.CloseIdleConnections()
}
