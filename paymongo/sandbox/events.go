package sandbox

import (
	"encoding/json"
	"errors"
	"log/slog"
	"time"
)

// maxEvents are kept to be sent again by hand.
const maxEvents = 10_000

// subject is what a call is about. Called with mu held.
func (s *Sandbox) subject(c *call) subject {
	st := s.st
	if pi := st.intents[c.id]; pi != nil {
		about := pi.about("")
		if raw, given := c.attrs["payment_method"]; given {
			_ = json.Unmarshal(raw, &about.method) // wrong types are refused later
		}
		return about
	}
	if pay := st.payments[c.id]; pay != nil {
		return st.intents[pay.Intent].about(pay.Method)
	}
	if r := st.refunds[c.id]; r != nil {
		pay := st.payments[r.Payment]
		return st.intents[pay.Intent].about(pay.Method)
	}
	if cs := st.checkouts[c.id]; cs != nil {
		return st.intents[cs.Intent].about("")
	}
	var about subject
	if raw, given := c.attrs["metadata"]; given {
		_ = json.Unmarshal(raw, &about.metadata) // likewise
	}
	switch {
	case len(about.metadata) > 0:
		about.name = about.metadata.subject()
	case c.key != "":
		about.name = c.key
	default:
		about.name = c.id
	}
	for _, id := range []string{c.id, c.sub} {
		if st.methods[id] != nil {
			about.method = id
		}
	}
	return about
}

// emit notes what has happened in a call; it is announced after the answer.
func (c *call) emit(events ...pendingEvent) { c.pending = append(c.pending, events...) }

// sendLater sends what was announced behind an answer.
func (s *Sandbox) sendLater(late []*delivery) {
	if len(late) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.post.push(late...)
}

// queue announces what a timer made happen. Called with mu held.
func (s *Sandbox) queue(events []pendingEvent, now time.Time) {
	early, late := s.announce(events, now)
	s.post.push(early...)
	s.post.push(late...)
}

// announce makes events and their deliveries, lets the webhook faults at them,
// and tells those that a fault wants delivered before the answer from the
// others. Called with mu held.
func (s *Sandbox) announce(pending []pendingEvent, now time.Time) (early, late []*delivery) {
	if len(pending) == 0 {
		return nil, nil
	}
	for _, p := range pending {
		var hooks []*hook
		for _, h := range s.st.Hooks {
			if h.wants(p.kind) {
				hooks = append(hooks, h)
			}
		}
		ev := s.makeEvent(p.kind, p.resource, len(hooks), now)
		s.keepEvent(ev)
		faults := s.faults.hitEvent(p.kind, p.about)
		held := s.st.HeldBack
		s.st.HeldBack = nil
		for _, h := range hooks {
			d := &delivery{Event: ev.ID, Kind: ev.Type, Body: ev.Body, Hook: h.ID}
			switch {
			case faults[WebhookLost] != nil:
				s.st.Counters.WebhooksLost++
				continue
			case faults[WebhookReorder] != nil:
				s.st.HeldBack = append(s.st.HeldBack, d)
			case faults[WebhookDelay] != nil:
				s.deliverAt(now.Add(time.Duration(faults[WebhookDelay].For)), d)
			case faults[WebhookEarly] != nil:
				early = append(early, d)
			default:
				late = append(late, d)
			}
			if faults[WebhookDuplicate] != nil {
				twin := *d
				late = append(late, &twin)
			}
			if faults[WebhookForged] != nil {
				forged := s.makeEvent("payment.paid", p.resource, len(hooks), now)
				late = append(late, &delivery{Event: forged.ID, Kind: forged.Type, Body: forged.Body, Hook: h.ID, Forged: true})
			}
		}
		// What was held back goes out behind this event. If nothing else ever
		// happens it stays back, as an event that overtakes nobody would.
		late = append(late, held...)
	}
	s.post.promise(early)
	s.post.promise(late)
	return early, late
}

// deliverAt puts a delivery off. Called with mu held.
func (s *Sandbox) deliverAt(at time.Time, d *delivery) {
	if s.st.putOff >= maxQueue {
		s.drop(d)
		return
	}
	s.schedule(&timer{At: at, Kind: timerDeliver, ID: d.Event, Delivery: d})
}

// drop gives a delivery up, since too many wait. Called with mu held.
func (s *Sandbox) drop(d *delivery) {
	s.st.Counters.WebhooksDropped++
	s.log.Warn("too many webhooks wait, one dropped", slog.String("event", d.Event), slog.String("hook", d.Hook))
}

func (s *Sandbox) makeEvent(kind string, res wireResource, hooks int, now time.Time) *event {
	ev := &event{ID: s.newID("evt_"), Type: kind, CreatedAt: now}
	ev.Body = encode(wireData{wireResource{ev.ID, "event", wireEvent{
		Type: kind, Data: res, PendingWebhooks: hooks, CreatedAt: now.Unix(), UpdatedAt: now.Unix(),
	}}})
	return ev
}

func (s *Sandbox) keepEvent(ev *event) {
	if len(s.st.Events) == maxEvents {
		delete(s.st.events, s.st.Events[0].ID)
		s.st.Events[0] = nil
		s.st.Events = s.st.Events[1:]
	}
	s.st.Events = append(s.st.Events, ev)
	s.st.events[ev.ID] = ev
}

// Resend delivers an event again to every endpoint that wants it, as a
// merchant does by hand on PayMongo's dashboard. The newest 10,000 are kept.
func (s *Sandbox) Resend(eventID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ev := s.st.events[eventID]
	if ev == nil {
		return errors.New("sandbox: no such event, or too old to be sent again")
	}
	for _, h := range s.st.Hooks {
		if h.wants(ev.Type) {
			s.post.push(&delivery{Event: ev.ID, Kind: ev.Type, Body: ev.Body, Hook: h.ID})
		}
	}
	return nil
}

// delivered books the end of one try. A delivery fails on anything but a 2xx
// within 30 s; it is then tried up to 12 times more, 2, 4, ... 4096 s later.
// developers.paymongo.com/docs/webhook-retry-logic
func (s *Sandbox) delivered(d *delivery, tried, accepted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.post.settle(d)
	s.dirty = true
	if !tried {
		return
	}
	s.st.Counters.Deliveries++
	h := s.st.hooks[d.Hook]
	if h == nil || d.Forged {
		return
	}
	if accepted {
		h.Exhausted = 0
		return
	}
	s.st.Counters.DeliveriesFailed++
	d.Try++
	if d.Try <= maxWebhookRetries {
		wait := time.Duration(float64(time.Second<<d.Try) / s.opts.WebhookTimeScale)
		s.deliverAt(s.clock.Now().Add(wait), d)
		return
	}
	s.st.Counters.WebhooksExhausted++
	h.Exhausted++
	if h.Exhausted >= s.profile.DisableWebhookAfter {
		h.Status, h.DisabledReason, h.UpdatedAt = "disabled", "max_retries_exceeded", s.clock.Now().Unix()
	}
}

const maxWebhookRetries = 12
