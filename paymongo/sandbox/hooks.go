package sandbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"time"
)

// eventTypes an endpoint may subscribe to: the classic names and the newer
// catalogue, which disagree. Those of PayMongo's own recurring engine, payouts
// and the like are accepted and never sent.
var eventTypes = []string{
	"payment.paid", "payment.failed", "payment.refunded", "payment.refund.updated",
	"payment_intent.succeeded", "payment_intent.awaiting_payment_method", "refund.succeeded",
	"checkout_session.payment.paid", "link.payment.paid", "source.chargeable",
	"qrph.expired", "qr.paid", "qr.expired", "dispute.created", "dispute.resolved", "payout.deposited", "payout.returned",
	"subscription.activated", "subscription.past_due", "subscription.unpaid", "subscription.updated",
	"subscription.invoice.created", "subscription.invoice.finalized", "subscription.invoice.paid",
	"subscription.invoice.payment_failed", "subscription.invoice.updated",
}

const maxHooks = 100

func createHook(c *call) answer {
	p := c.params()
	p.require("url", "events")
	h := &hook{Status: "enabled"}
	c.readHook(p, h)
	if len(c.s.st.Hooks) >= maxHooks {
		p.fail("url", "parameter_invalid", "There are %d webhooks already.", maxHooks)
	}
	if a, refused := p.refused(); refused {
		return a
	}
	h.ID, h.Secret = c.s.newID("hook_"), c.s.newID("whsk_")
	h.CreatedAt, h.UpdatedAt = c.now.Unix(), c.now.Unix()
	c.s.st.Hooks = append(c.s.st.Hooks, h)
	c.s.st.hooks[h.ID] = h
	return ok(h.wire())
}

func (c *call) readHook(p params, h *hook) {
	if p.has("url") {
		h.URL = p.text("url")
		if !isWebURL(h.URL) {
			p.fail("url", "parameter_format_invalid", "url is not a valid URL.")
		}
		// One URL once an account.
		if slices.ContainsFunc(c.s.st.Hooks, func(o *hook) bool { return o.ID != h.ID && o.URL == h.URL }) {
			p.fail("url", "parameter_invalid", "A webhook with this url already exists.")
		}
	}
	if p.has("events") {
		h.Events = p.texts("events")
		for _, e := range h.Events {
			if !slices.Contains(eventTypes, e) {
				p.fail("events", "parameter_invalid", "events has the unknown event %s.", e)
				break
			}
		}
	}
}

func (c *call) hook() (*hook, answer, bool) {
	h := c.s.st.hooks[c.id]
	if h == nil {
		return nil, notFound("webhook", c.id), false
	}
	return h, answer{}, true
}

func listHooks(c *call) answer {
	out := []wireResource{}
	for _, h := range slices.Backward(c.s.st.Hooks) {
		out = append(out, h.wire())
	}
	return answer{status: 200, doc: wireList{Data: out}}
}

func retrieveHook(c *call) answer {
	h, a, found := c.hook()
	if !found {
		return a
	}
	return ok(h.wire())
}

func updateHook(c *call) answer {
	h, a, found := c.hook()
	if !found {
		return a
	}
	p := c.params()
	next := *h
	c.readHook(p, &next)
	if a, refused := p.refused(); refused {
		return a
	}
	next.UpdatedAt = c.now.Unix()
	*h = next
	return ok(h.wire())
}

func enableHook(c *call) answer {
	return c.switchHook("enabled", "")
}

func disableHook(c *call) answer {
	return c.switchHook("disabled", "disabled_by_merchant")
}

func (c *call) switchHook(status, reason string) answer {
	h, a, found := c.hook()
	if !found {
		return a
	}
	h.Status, h.DisabledReason, h.Exhausted, h.UpdatedAt = status, reason, 0, c.now.Unix()
	return ok(h.wire())
}

func (h *hook) wants(eventType string) bool {
	return h.Status == "enabled" && slices.Contains(h.Events, eventType)
}

func (h *hook) wire() wireResource {
	return wireResource{h.ID, "webhook", wireWebhook{
		SecretKey: h.Secret, Status: h.Status, DisabledReason: h.DisabledReason, URL: h.URL, Events: h.Events,
		CreatedAt: h.CreatedAt, UpdatedAt: h.UpdatedAt,
	}}
}

// pendingEvent is an event that happened and is not yet on its way.
type pendingEvent struct {
	kind     string
	resource wireResource
	about    subject
}

// event adds an event to a list, if there is an endpoint that wants it.
func (s *Sandbox) event(list []pendingEvent, kind string, about subject, resource func() wireResource) []pendingEvent {
	if slices.ContainsFunc(s.st.Hooks, func(h *hook) bool { return h.wants(kind) }) {
		list = append(list, pendingEvent{kind, resource(), about})
	}
	return list
}

// about is what an intent's calls and events are about.
func (pi *intent) about(method string) subject {
	return subject{name: pi.subject(), metadata: pi.Metadata, method: method}
}

func (pi *intent) subject() string {
	if len(pi.Metadata) > 0 {
		return pi.Metadata.subject()
	}
	return pi.ID
}

// signature makes the header of a delivery: t=..,te=..,li=.., an HMAC-SHA256
// over t + "." + body under the endpoint's secret.
func signature(secret string, body []byte, at time.Time, both bool) string {
	t := strconv.FormatInt(at.Unix(), 10)
	sum := func(key string) string {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(t + "."))
		mac.Write(body)
		return hex.EncodeToString(mac.Sum(nil))
	}
	header := "t=" + t + ",te=" + sum(secret) + ",li="
	if both {
		// Some other secret's: who compares the wrong field must fail.
		header += sum(secret + "_live")
	}
	return header
}
