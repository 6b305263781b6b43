package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// InvoiceWithTimeline is an invoice with what was tried about it, the oldest first.
type InvoiceWithTimeline struct {
	billing.InvoiceDetails
	Timeline []billing.TimelineEntry `json:"timeline" doc:"What was tried, with which card, what came of it and where that was seen; the oldest first."`
}

type invoiceFilter struct {
	Page
	Status       string             `query:"status" enum:"open,paid,void,uncollectible,review"`
	WaitingFor   billing.WaitingFor `query:"waiting_for" enum:"schedule,provider,customer" doc:"Only open ones that wait for their next attempt, for PayMongo's answer, or for the customer to act."`
	DeclineCodes []string           `query:"decline_code" maxItems:"20" doc:"Only with one of these as the latest decline, by commas."`
	Plan         string             `query:"plan" maxLength:"200" doc:"Only of this plan, by your name for it."`
	Subscription string             `query:"subscription" maxLength:"200" doc:"Only of this subscription, by your name for it."`
	Customer     string             `query:"customer" maxLength:"200" doc:"Only of this customer, by your name for them."`
	DueBefore    time.Time          `query:"due_before" doc:"Only what was due before this instant."`
}

func (a *api) invoices() {
	const tag = "invoices"
	register(a, operation{
		id: "list-invoices", method: http.MethodGet, path: "/v1/invoices", tag: tag, role: billing.RoleViewer,
		summary: "List invoices, the newest first",
	}, func(ctx context.Context, in *invoiceFilter) (*list[billing.ExportedInvoice], error) {
		f := billing.InvoiceFilter{
			Status: in.Status, WaitingFor: in.WaitingFor, DeclineCodes: in.DeclineCodes, Plan: in.Plan, Subscription: in.Subscription, Customer: in.Customer,
			DueBefore: in.DueBefore, After: in.After, Limit: in.fetch(),
		}
		if err := f.Check(); err != nil {
			return nil, invalid("query", err.Error())
		}
		rows, err := billing.BrowseInvoices(ctx, a.cfg.Pool, f)
		if err != nil {
			return nil, err
		}
		return newList(rows, in.Page, func(i billing.ExportedInvoice) string { return i.ID.String() }), nil
	})
	register(a, operation{
		id: "get-invoice", method: http.MethodGet, path: "/v1/invoices/{id}", tag: tag, role: billing.RoleViewer,
		summary: "Read an invoice, with everything that was tried about it",
	}, func(ctx context.Context, in *InvoiceID) (*InvoiceWithTimeline, error) {
		return showInvoice(ctx, a.cfg.Pool, in.ID)
	})
	register(a, operation{
		id: "retry-invoice", method: http.MethodPost, path: "/v1/invoices/{id}/retry", tag: tag, role: billing.RoleOperator, status: http.StatusAccepted,
		summary: "Charge an open invoice once more, now",
		description: "It is due from then on, and charged within a minute or so by the same path as ever: read the invoice to see what came of it. " +
			"What may not be charged is a 409 that says why and what to do: while charging is frozen, when the day's budget is spent, " +
			"when a retry was asked for already, when an outcome is not known yet, or when a card network's limit is reached.",
	}, func(ctx context.Context, in *struct {
		InvoiceID
		Body *struct {
			PaymentMethod string `json:"payment_method,omitempty" maxLength:"200" doc:"PayMongo's id of a saved card of the customer. Left out, the first that may be charged."`
			Reasoned
		}
	},
	) (*billing.Retried, error) {
		request := billing.RetryRequest{Invoice: in.ID}
		var reason string
		if in.Body != nil {
			request.PaymentMethod, reason = in.Body.PaymentMethod, in.Body.Reason
		}
		return change(ctx, a, reason, func(tx pgx.Tx, act billing.Act) (*billing.Retried, error) {
			request.Act = act
			retried, err := billing.Retry(ctx, tx, request, billing.DefaultCardLimits(), billing.BankHolidays())
			return &retried, notRetried(err)
		})
	})
	a.giveUp("void", "Take a debt back: it is never charged again, and that is final",
		"It is refused while an outcome is open, because money may be on its way, and while PayMongo holds money for it: refund that first.", billing.VoidInvoice)
	a.giveUp("mark-uncollectible", "Give a debt up: it is not charged any more, and still owed",
		"The subscription goes on as it is. Money that comes late makes the invoice paid. It is refused while an outcome is open, unless the invoice is in review and nothing was proven for 72 hours behind the attempt.", billing.MarkUncollectible)
}

// notRetried tells what holds all charging from what is about this invoice.
func notRetried(err error) error {
	var refused *billing.RefusedError
	if errors.As(err, &refused) && (refused.Kind == billing.RefusalFrozen || refused.Kind == billing.RefusalBreaker) {
		p := newProblem(kindNotCharging, refused.Reason)
		p.Reason = string(refused.Kind)
		return p
	}
	return err
}

// InvoiceID is an invoice in the path.
type InvoiceID struct {
	ID string `path:"id" maxLength:"200" doc:"The invoice's id."`
}

// giveUp is an act after which an invoice is not charged any more.
func (a *api) giveUp(word, summary, description string, do func(context.Context, pgx.Tx, string, billing.Act) error) {
	register(a, operation{
		id: word + "-invoice", method: http.MethodPost, path: "/v1/invoices/{id}/" + word, tag: "invoices", role: billing.RoleOperator,
		summary: summary, description: description,
	}, func(ctx context.Context, in *struct {
		InvoiceID
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why: it is kept with the invoice and in the audit log."`
		}
	},
	) (*InvoiceWithTimeline, error) {
		return change(ctx, a, in.Body.Reason, func(tx pgx.Tx, act billing.Act) (*InvoiceWithTimeline, error) {
			if err := do(ctx, tx, in.ID, act); err != nil {
				return nil, err
			}
			return showInvoice(ctx, tx, in.ID)
		})
	})
}

func showInvoice(ctx context.Context, q billing.Querier, id string) (*InvoiceWithTimeline, error) {
	details, err := billing.ShowInvoice(ctx, q, id)
	if err != nil {
		return nil, err
	}
	timeline, err := billing.Timeline(ctx, q, details.ID)
	return &InvoiceWithTimeline{details, timeline}, err
}
