package paymongo

import (
	"context"
	"net/http"
)

// WebhooksService manages the endpoints that PayMongo delivers events to. To
// receive events, see [VerifySignature] and [ParseEvent].
type WebhooksService service

// WebhookStatus is the state of an endpoint.
type WebhookStatus string

// The states of an endpoint. PayMongo disables one whose deliveries keep failing.
const (
	WebhookStatusEnabled  WebhookStatus = "enabled"
	WebhookStatusDisabled WebhookStatus = "disabled"
)

// Webhook is an endpoint for events.
type Webhook struct {
	ID             string        `json:"id"`
	URL            string        `json:"url"`
	Events         []EventType   `json:"events"`
	Status         WebhookStatus `json:"status"`
	DisabledReason string        `json:"disabled_reason"`     // disabled_by_merchant or max_retries_exceeded
	SecretKey      Secret        `json:"secret_key,omitzero"` // whsk_..., for NewWebhookSecrets
	Livemode       bool          `json:"livemode"`
	CreatedAt      Timestamp     `json:"created_at"`
	UpdatedAt      Timestamp     `json:"updated_at"`
}

// UnmarshalJSON reads PayMongo's envelope or a flat object.
func (w *Webhook) UnmarshalJSON(data []byte) error {
	type plain Webhook
	return decodeResource(data, "webhook", (*plain)(w), &w.ID)
}

func (w *Webhook) resourceID() string { return w.ID }

// WebhookCreateParams describe an endpoint. PayMongo takes one URL once an account.
type WebhookCreateParams struct {
	URL    string      `json:"url"`
	Events []EventType `json:"events"`

	IdempotencyKey string `json:"-"`
}

// WebhookUpdateParams change what is not empty in them.
type WebhookUpdateParams struct {
	URL    string      `json:"url,omitempty"`
	Events []EventType `json:"events,omitempty"`

	IdempotencyKey string `json:"-"`
}

// WebhookEnableParams enable an endpoint.
type WebhookEnableParams struct {
	IdempotencyKey string `json:"-"`
}

// WebhookDisableParams disable an endpoint.
type WebhookDisableParams struct {
	IdempotencyKey string `json:"-"`
}

// WebhookListParams select a page of endpoints.
type WebhookListParams = ListParams

// WebhookList is a page of endpoints.
type WebhookList = List[Webhook]

// Create creates an endpoint. PayMongo has no call to delete one: disable it.
func (s *WebhooksService) Create(ctx context.Context, params *WebhookCreateParams) (*Webhook, error) {
	p := orZero(params)
	k := call{
		op: "webhooks.create", method: http.MethodPost, path: []string{"webhooks"},
		attributes: p, key: p.IdempotencyKey,
	}
	if p.URL == "" || len(p.Events) == 0 {
		k.fault = "a webhook needs a URL and at least one event type"
	}
	return send[Webhook](ctx, s.client, k)
}

// Retrieve returns an endpoint.
func (s *WebhooksService) Retrieve(ctx context.Context, id string) (*Webhook, error) {
	return send[Webhook](ctx, s.client, call{
		op: "webhooks.retrieve", method: http.MethodGet, path: []string{"webhooks", id}, wantID: id,
	})
}

// List returns a page of endpoints.
func (s *WebhooksService) List(ctx context.Context, params *WebhookListParams) (*WebhookList, error) {
	query, fault := params.query()
	return send[WebhookList](ctx, s.client, call{
		op: "webhooks.list", method: http.MethodGet, path: []string{"webhooks"}, query: query, fault: fault,
	})
}

// Update changes the URL or the events of an endpoint.
func (s *WebhooksService) Update(ctx context.Context, id string, params *WebhookUpdateParams) (*Webhook, error) {
	p := orZero(params)
	return send[Webhook](ctx, s.client, call{
		op: "webhooks.update", method: http.MethodPut, path: []string{"webhooks", id},
		attributes: p, key: p.IdempotencyKey, wantID: id,
	})
}

// Enable lets PayMongo deliver to an endpoint, for instance after it gave up on it.
func (s *WebhooksService) Enable(ctx context.Context, id string, params *WebhookEnableParams) (*Webhook, error) {
	return send[Webhook](ctx, s.client, call{
		op: "webhooks.enable", method: http.MethodPost, path: []string{"webhooks", id, "enable"},
		key: orZero(params).IdempotencyKey, wantID: id,
	})
}

// Disable stops the deliveries to an endpoint.
func (s *WebhooksService) Disable(ctx context.Context, id string, params *WebhookDisableParams) (*Webhook, error) {
	return send[Webhook](ctx, s.client, call{
		op: "webhooks.disable", method: http.MethodPost, path: []string{"webhooks", id, "disable"},
		key: orZero(params).IdempotencyKey, wantID: id,
	})
}
