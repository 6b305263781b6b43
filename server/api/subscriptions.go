package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// newSubscription has the fields of billing.NewSubscription.
type newSubscription struct {
	ExternalID string          `json:"external_id" minLength:"1" maxLength:"200" doc:"Your own name for it. It stays."`
	Customer   string          `json:"customer" minLength:"1" maxLength:"200" doc:"Who pays: your name for them, our id, or PayMongo's."`
	Plan       string          `json:"plan" minLength:"1" maxLength:"200" doc:"Your name for the plan, or our id. Its price and interval are copied."`
	Anchor     string          `json:"anchor,omitempty" format:"date-time" doc:"Periods are counted from here: from 31 January, monthly, they begin on 28 February and 31 March. Left out, it is now, and the first period is charged at once."`
	TimeZone   string          `json:"time_zone,omitempty" maxLength:"100" default:"Asia/Manila" doc:"The zone of the calendar that periods are counted in, by its name in the tz database."`
	BillFrom   string          `json:"bill_from,omitempty" format:"date-time" doc:"No period that began earlier is charged. Left out, it is now: of an anchor in the past, the period that runs is not charged."`
	TrialEnd   string          `json:"trial_end,omitempty" format:"date-time" doc:"A period that begins before is free, as a whole. For a trial that is no whole period make its end the anchor."`
	Quantity   int64           `json:"quantity,omitempty" minimum:"1" maximum:"1000000" default:"1" doc:"How many times the plan's price is charged."`
	CatchUp    string          `json:"catch_up,omitempty" enum:"bill_all,bill_current,ask" doc:"Instead of the plan's."`
	Dunning    json.RawMessage `json:"dunning,omitempty" doc:"Instead of the plan's."`
	Metadata   json.RawMessage `json:"metadata,omitempty" doc:"An object of yours, at most 16 KiB. Nothing here looks into it, but for card numbers."`
}

type subscriptionFilter struct {
	Page
	Status   string `query:"status" enum:"trialing,active,past_due,unpaid,paused,cancelled"`
	Customer string `query:"customer" maxLength:"200" doc:"Only this customer's, by your name for them."`
	Plan     string `query:"plan" maxLength:"200" doc:"Only of this plan, by your name for it."`
	Parked   bool   `query:"parked" doc:"Only what waits for a person's decision."`
}

func (a *api) subscriptions() {
	const tag = "subscriptions"
	register(a, operation{
		id: "list-subscriptions", method: http.MethodGet, path: "/v1/subscriptions", tag: tag, role: billing.RoleViewer,
		summary: "List subscriptions, the newest first",
	}, func(ctx context.Context, in *subscriptionFilter) (*list[billing.ExportedSubscription], error) {
		rows, err := billing.BrowseSubscriptions(ctx, a.cfg.Pool, billing.SubscriptionFilter{
			Status: in.Status, Customer: in.Customer, Plan: in.Plan, Parked: in.Parked, After: in.After, Limit: in.fetch(),
		})
		if err != nil {
			return nil, at("query.after", err)
		}
		page := newList(rows, in.Page, func(s billing.ExportedSubscription) string { return s.ExternalID })
		if page.HasMore { // a name may have what must be escaped in a query
			id, err := billing.FindSubscription(ctx, a.cfg.Pool, page.Next)
			if err != nil {
				return nil, err
			}
			page.Next = id.String()
		}
		return page, nil
	})
	register(a, operation{
		id: "create-subscription", method: http.MethodPost, path: "/v1/subscriptions", tag: tag, role: billing.RoleOperator,
		status: http.StatusCreated, needsKey: true,
		summary: "Create a subscription",
		description: "Nothing is charged by this request: periods that have begun are opened and charged within a minute or so, with the customer's first saved card. " +
			"next_due_at tells when. A name that is taken is a 409.",
	}, func(ctx context.Context, in *struct{ Body newSubscription }) (*billing.SubscriptionDetails, error) {
		return change(ctx, a, "", func(tx pgx.Tx, act billing.Act) (*billing.SubscriptionDetails, error) {
			made, err := billing.CreateSubscription(ctx, tx, billing.NewSubscription(in.Body), act)
			return &made, notCreated(err)
		})
	})
	register(a, operation{
		id: "get-subscription", method: http.MethodGet, path: "/v1/subscriptions/{id}", tag: tag, role: billing.RoleViewer,
		summary: "Read a subscription, with its latest invoices and its customer's cards",
	}, func(ctx context.Context, in *Named) (*billing.SubscriptionDetails, error) {
		s, err := billing.ShowSubscription(ctx, a.cfg.Pool, in.ID)
		return &s, err
	})
	register(a, operation{
		id: "explain-subscription", method: http.MethodGet, path: "/v1/subscriptions/{id}/why", tag: tag, role: billing.RoleViewer,
		summary:     "Explain why the next charge is when it is, or why there is none",
		description: "reasons with holds keep it from being charged; each says what to do.",
	}, func(ctx context.Context, in *Named) (*billing.Why, error) {
		var why billing.Why
		err := a.snapshot(ctx, func(tx pgx.Tx) (err error) {
			why, err = billing.Explain(ctx, tx, in.ID, a.cfg.Now(), billing.DefaultCardLimits(), billing.BankHolidays())
			return err
		})
		return &why, err
	})
	a.subscriptionActs(tag)
}

// subscriptionActs are what is done to one subscription.
func (a *api) subscriptionActs(tag string) {
	act := func(word, summary, description string) operation {
		return operation{
			id: word + "-subscription", method: http.MethodPost, path: "/v1/subscriptions/{id}/" + word, tag: tag, role: billing.RoleOperator,
			summary: summary, description: description,
		}
	}
	simple := func(op operation, do func(context.Context, pgx.Tx, uuid.UUID, billing.Act) error) {
		register(a, op, func(ctx context.Context, in *struct {
			Named
			Body *Reasoned
		},
		) (*billing.SubscriptionDetails, error) {
			return a.changeSubscription(ctx, in.ID, in.Body.text(), do)
		})
	}
	simple(act("pause", "Stop billing until it is resumed",
		"Open invoices wait too. What is being charged at this moment has its outcome recorded."), billing.PauseSubscription)
	simple(act("resume", "Go on with a paused subscription", "Periods that began during the pause are skipped."), billing.ResumeSubscription)
	simple(act("uncancel", "Take back a cancellation that has not come yet", "What is cancelled already begins as a new subscription."), billing.UnscheduleCancel)

	type cancellation struct {
		When billing.Cancellation `json:"when,omitempty" enum:"period_end,now" default:"period_end" doc:"With the period that runs, which is then the last one, or at once. At once also voids open invoices that were never attempted; what was declined stays a debt."`
		Reasoned
	}
	register(a, act("cancel", "End a subscription: with the period that runs, or now", ""), func(ctx context.Context, in *struct {
		Named
		Body *cancellation
	},
	) (*billing.SubscriptionDetails, error) {
		if in.Body == nil {
			in.Body = &cancellation{When: billing.CancelAtPeriodEnd}
		}
		return a.changeSubscription(ctx, in.ID, in.Body.Reason, func(ctx context.Context, tx pgx.Tx, id uuid.UUID, act billing.Act) error {
			return billing.CancelSubscription(ctx, tx, id, in.Body.When, act)
		})
	})

	register(a, act("change-plan", "Take another plan from the next period on", "The plan that is held already takes back a change that was to come."),
		func(ctx context.Context, in *struct {
			Named
			Body struct {
				Plan string `json:"plan" minLength:"1" maxLength:"200" doc:"Your name for the plan, or our id."`
				Reasoned
			}
		},
		) (*billing.SubscriptionDetails, error) {
			return a.changeSubscription(ctx, in.ID, in.Body.Reason, func(ctx context.Context, tx pgx.Tx, id uuid.UUID, act billing.Act) error {
				plan, err := billing.FindPlan(ctx, tx, in.Body.Plan)
				if err != nil {
					return at("body.plan", err)
				}
				return billing.ChangePlan(ctx, tx, id, plan, act)
			})
		})

	type unparking struct {
		Missed billing.CatchUp `json:"missed,omitempty" enum:"bill_all,bill_current" doc:"What to do about several periods that are due, this once. Left out, the subscription's policy says it."`
		Reasoned
	}
	register(a, act("unpark", "Give a parked subscription back to billing, once what stopped it is mended", "parked_reason says what stopped it."),
		func(ctx context.Context, in *struct {
			Named
			Body *unparking
		},
		) (*billing.SubscriptionDetails, error) {
			if in.Body == nil {
				in.Body = &unparking{}
			}
			return a.changeSubscription(ctx, in.ID, in.Body.Reason, func(ctx context.Context, tx pgx.Tx, id uuid.UUID, act billing.Act) error {
				return billing.UnparkSubscription(ctx, tx, id, in.Body.Missed, act)
			})
		})
}

// changeSubscription changes a subscription by any of its names, and answers with
// what it is then.
func (a *api) changeSubscription(ctx context.Context, name, reason string, do func(context.Context, pgx.Tx, uuid.UUID, billing.Act) error) (*billing.SubscriptionDetails, error) {
	return change(ctx, a, reason, func(tx pgx.Tx, act billing.Act) (*billing.SubscriptionDetails, error) {
		id, err := billing.FindSubscription(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if err := do(ctx, tx, id, act); err != nil {
			return nil, err
		}
		s, err := billing.ShowSubscription(ctx, tx, id.String())
		return &s, err
	})
}

// snapshot runs do in one snapshot, in which nothing can be changed.
func (a *api) snapshot(ctx context.Context, do func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, a.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, do)
}
