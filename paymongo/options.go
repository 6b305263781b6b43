package paymongo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Option configures a [Client]. A bad value is reported by [NewClient].
type Option func(*Client) error

// Timeouts bound the parts of one round trip. They hold for every try of a
// call; the context bounds the whole.
type Timeouts struct {
	Connect time.Duration // TCP connect, and again TLS handshake; the default transport only. Default 2 s.
	Read    time.Duration // a GET, up to the last byte of the answer. Default 5 s.
	Write   time.Duration // any other method but an attach. Default 10 s.
	Attach  time.Duration // an attach, behind which a bank answers. Default 20 s.
}

var defaultTimeouts = Timeouts{
	Connect: 2 * time.Second,
	Read:    5 * time.Second,
	Write:   10 * time.Second,
	Attach:  20 * time.Second,
}

// PaymentMethodUpdate is the way to send a CVC for a saved card. PayMongo's
// pages and the libraries of others disagree, so it can be chosen.
type PaymentMethodUpdate string

// The ways in which others call it: method, and place of the CVC in the attributes.
const (
	UpdatePatchCard    PaymentMethodUpdate = "PATCH details.card.cvc" // the save-card guides; the default
	UpdatePutCard      PaymentMethodUpdate = "PUT details.card.cvc"
	UpdatePatchDetails PaymentMethodUpdate = "PATCH details.cvc"
	UpdatePutDetails   PaymentMethodUpdate = "PUT details.cvc"
)

// WithBaseURL directs the client elsewhere than https://api.paymongo.com/v1,
// such as to a sandbox. The URL may have a path. A live key is only accepted
// with https, or with http to this machine.
func WithBaseURL(base string) Option {
	return func(c *Client) error {
		u, err := url.Parse(base)
		if err != nil {
			return errors.New("base URL cannot be parsed; write it like https://api.paymongo.com/v1")
		}
		switch {
		case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
			return errors.New("base URL needs http or https and a host; write it like https://api.paymongo.com/v1")
		case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
			return errors.New("base URL must not have a user, a query or a fragment; the key goes to NewClient")
		case u.EscapedPath() != u.Path:
			return errors.New("base URL must not have escapes in its path")
		}
		c.base = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
		return nil
	}
}

// WithRate limits the calls of this client to perSecond, with bursts of at most
// burst. The default is 80 and 10: PayMongo blocks callers above 100 a second.
// math.Inf(1) means no limit; 0 would never send and is refused.
func WithRate(perSecond float64, burst int) Option {
	return func(c *Client) error {
		switch {
		case math.IsInf(perSecond, 1):
			c.limiter, c.shared = nil, nil
			return nil
		case math.IsNaN(perSecond) || perSecond <= 0:
			return fmt.Errorf("rate %v would never send; use a positive number of calls a second, or math.Inf(1) for no limit", perSecond)
		case burst < 1:
			return fmt.Errorf("burst %d would never send; use at least 1", burst)
		}
		c.limiter, c.shared = rate.NewLimiter(rate.Limit(perSecond), burst), nil
		return nil
	}
}

// Limiter is a rate limit that is kept elsewhere, such as one that several
// processes share.
type Limiter interface {
	// Wait returns nil when one call may go, within its turn. An error means that
	// it may not, so nothing is sent. It must return when ctx ends, and should
	// return an error that wraps context.DeadlineExceeded as soon as it knows that
	// the turn comes after ctx's deadline. It is called concurrently.
	Wait(ctx context.Context) error
}

// WithLimiter has every try of a call wait for l, in place of the client's own
// rate limit: of this and [WithRate] the last one counts. A call's SendBefore is
// a deadline of the context that l gets.
func WithLimiter(l Limiter) Option {
	return func(c *Client) error {
		if l == nil {
			return errors.New("limiter is nil; use WithRate, with math.Inf(1) for no limit")
		}
		c.limiter, c.shared = nil, l
		return nil
	}
}

// WithTransport sends requests through rt instead of the client's own
// transport. The verdict "never sent" rests on rt reading a request's body only
// to send it, and on HTTP/1.1; give an http.Transport no proxy and no HTTP/2.
func WithTransport(rt http.RoundTripper) Option {
	return func(c *Client) error {
		if rt == nil {
			return errors.New("transport is nil; leave WithTransport out for the default")
		}
		c.transport = rt
		return nil
	}
}

// WithTimeouts replaces the timeouts that are not zero in t.
func WithTimeouts(t Timeouts) Option {
	return func(c *Client) error {
		for _, f := range []struct {
			name string
			from time.Duration
			to   *time.Duration
		}{
			{"Connect", t.Connect, &c.timeouts.Connect},
			{"Read", t.Read, &c.timeouts.Read},
			{"Write", t.Write, &c.timeouts.Write},
			{"Attach", t.Attach, &c.timeouts.Attach},
		} {
			if f.from < 0 {
				return fmt.Errorf("timeout %s is negative (%s)", f.name, f.from)
			}
			if f.from > 0 {
				*f.to = f.from
			}
		}
		return nil
	}
}

// WithMaxElapsedTime bounds the time after which a call is not tried again,
// from its first try. The default is 15 s; 0 means that nothing is tried twice.
func WithMaxElapsedTime(d time.Duration) Option {
	return func(c *Client) error {
		if d < 0 {
			return fmt.Errorf("max elapsed time is negative (%s); use 0 for no second try", d)
		}
		c.maxElapsed = d
		return nil
	}
}

// WithObserver has fn called after every HTTP round trip, in the goroutine of
// the call, so at times concurrently. It is for metrics and logs, and must not block.
func WithObserver(fn func(context.Context, Exchange)) Option {
	return func(c *Client) error {
		if fn == nil {
			return errors.New("observer is nil; leave WithObserver out for none")
		}
		c.observe = fn
		return nil
	}
}

// WithPaymentMethodUpdate chooses how [PaymentMethodsService.UpdateCVC] asks.
func WithPaymentMethodUpdate(style PaymentMethodUpdate) Option {
	return func(c *Client) error {
		switch style {
		case UpdatePatchCard, UpdatePutCard, UpdatePatchDetails, UpdatePutDetails:
			c.pmUpdate = style
			return nil
		}
		return fmt.Errorf("payment method update %q is unknown; use one of the Update constants", style)
	}
}

// WithUserAgent replaces the User-Agent header.
func WithUserAgent(agent string) Option {
	return func(c *Client) error {
		if agent == "" || !printable(agent) || len(agent) > 255 {
			return errors.New("user agent must be 1 to 255 printable ASCII characters")
		}
		c.userAgent = agent
		return nil
	}
}
