package paymongo

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	defaultBaseURL   = "https://api.paymongo.com/v1"
	defaultUserAgent = "singil-paymongo-go"
)

// Client talks to PayMongo with one API key. It is safe for concurrent use, and
// meant to be shared: the rate limit and the connections belong to it.
type Client struct {
	Customers        *CustomersService
	PaymentMethods   *PaymentMethodsService
	PaymentIntents   *PaymentIntentsService
	Payments         *PaymentsService
	Refunds          *RefundsService
	Webhooks         *WebhooksService
	CheckoutSessions *CheckoutSessionsService

	authorization Secret
	livemode      bool
	public        bool
	base          *url.URL
	userAgent     string
	timeouts      Timeouts
	maxElapsed    time.Duration
	pmUpdate      PaymentMethodUpdate
	transport     http.RoundTripper
	limiter       *rate.Limiter // our own; nil for none
	shared        Limiter       // in its place; nil for none
	observe       func(context.Context, Exchange)
	hold          hold
}

// Exchange is one HTTP round trip, as an observer sees it.
type Exchange struct {
	Op         string        // the call, such as payment_intents.attach
	Method     string        // GET, POST, PUT, PATCH or DELETE
	Attempt    int           // 1 for the first try of a call
	Wait       time.Duration // spent waiting for the rate limit and for a hold before this try
	Duration   time.Duration // from handing the request over to the last byte of the answer
	StatusCode int           // zero when there was no answer
	Err        error         // what this try came to, nil for a success
}

// service gives every service its client. The services are this one struct under other names.
type service struct{ client *Client }

var keyPattern = regexp.MustCompile(`^(sk|pk)_(test|live)_[A-Za-z0-9_-]{1,200}$`)

// NewClient returns a client for an API key: sk_test_..., sk_live_..., or a
// public pk_ key, which may only create payment methods, and retrieve and
// attach payment intents together with their client key. White space around the
// key is ignored. No error of it shows the key.
func NewClient(key string, opts ...Option) (*Client, error) {
	parts := keyPattern.FindStringSubmatch(strings.TrimSpace(key))
	if parts == nil {
		return nil, errors.New("paymongo: not an API key: it must start with sk_test_, sk_live_, pk_test_ or pk_live_, followed by letters and digits; copy it from the PayMongo dashboard")
	}
	c := &Client{
		authorization: NewSecret("Basic " + base64.StdEncoding.EncodeToString([]byte(parts[0]+":"))),
		public:        parts[1] == "pk",
		livemode:      parts[2] == "live",
		userAgent:     defaultUserAgent,
		timeouts:      defaultTimeouts,
		maxElapsed:    15 * time.Second,
		pmUpdate:      UpdatePatchCard,
		limiter:       rate.NewLimiter(80, 10),
	}
	for _, opt := range append([]Option{WithBaseURL(defaultBaseURL)}, opts...) {
		if opt == nil {
			return nil, errors.New("paymongo: an option is nil")
		}
		if err := opt(c); err != nil {
			return nil, fmt.Errorf("paymongo: %w", err)
		}
	}
	if c.livemode && c.base.Scheme != "https" && !loopback(c.base.Hostname()) {
		return nil, errors.New("paymongo: a live key only leaves this machine over https; use a test key with this base URL")
	}
	if c.transport == nil {
		c.transport = newTransport(c.timeouts.Connect)
	}
	common := &service{client: c}
	c.Customers = (*CustomersService)(common)
	c.PaymentMethods = (*PaymentMethodsService)(common)
	c.PaymentIntents = (*PaymentIntentsService)(common)
	c.Payments = (*PaymentsService)(common)
	c.Refunds = (*RefundsService)(common)
	c.Webhooks = (*WebhooksService)(common)
	c.CheckoutSessions = (*CheckoutSessionsService)(common)
	return c, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newTransport returns the transport of a client.
//
// It speaks HTTP/1.1 only: what this package proves about requests that were
// never sent, and about requests that net/http does not send twice, was shown
// for HTTP/1.1. It takes no proxy from the environment, because a proxy may
// repeat a POST.
func newTransport(connect time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols:              protocols,
		DialContext:            (&net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    connect,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		MaxIdleConns:           0, // bounded by MaxIdleConnsPerHost: there is one host
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        45 * time.Second, // shorter than usual servers', who then close it under a request
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // answers are small
	}
}

// Livemode reports whether the key moves real money.
func (c *Client) Livemode() bool { return c.livemode }

// BaseURL returns the URL that paths are relative to, without a trailing slash.
func (c *Client) BaseURL() string { return c.base.String() }

// CloseIdleConnections closes connections that are kept for later calls.
func (c *Client) CloseIdleConnections() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
