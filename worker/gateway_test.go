package worker

import (
	"errors"
	"testing"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/paymongo"
)

func TestAnswerOf(t *testing.T) {
	t.Parallel()
	said := func(status int, code, sub string) error {
		return &paymongo.Error{Op: "payment_intents.attach", StatusCode: status, Code: code, SubCode: sub}
	}
	for _, tt := range []struct {
		name string
		err  error
		want billing.AnswerKind
		code billing.DeclineCode
	}{
		{"CardGone", said(404, "resource_not_found", ""), billing.AnswerCardGone, ""},
		{"CardTypeNotAllowed", said(400, "payment_method_not_allowed", ""), billing.AnswerCardGone, ""},
		{"Declined", said(400, "resource_failed_state", "insufficient_funds"), billing.AnswerDeclined, "insufficient_funds"},
		{"DeclinedWith402", said(402, "resource_failed_state", "lost_card"), billing.AnswerDeclined, "lost_card"},
		{"DeclineThatIsNotCertain", said(400, "resource_failed_state", "processor_timeout"), billing.AnswerUnknown, ""},
		{"DeclineThatIsNotListed", said(400, "resource_failed_state", "brand_new"), billing.AnswerUnknown, ""},
		{"Foreign", errors.New("something"), billing.AnswerUnknown, ""},
		{"Forbidden", said(403, "payment_method_not_allowed_here", ""), billing.AnswerUnknown, ""},
		{"NeverSent", &paymongo.CallError{Verdict: paymongo.VerdictNeverSent, Reason: "dns"}, billing.AnswerNeverSent, ""},
		{"NotAllowedHere", said(403, "organization_not_allowed", ""), billing.AnswerNotHere, ""},
		{"RateLimited", said(429, "", ""), billing.AnswerUnknown, ""},
		{"RefusedParameter", said(400, "parameter_invalid", ""), billing.AnswerFault, ""},
		{"ServerError", said(500, "internal_server_error", ""), billing.AnswerUnknown, ""},
		{"Succeeded", said(400, "resource_succeeded_state", ""), billing.AnswerUnknown, ""},
		{"Timeout", &paymongo.CallError{Verdict: paymongo.VerdictUnknown, Reason: "timeout"}, billing.AnswerUnknown, ""},
		{"Unauthorized", said(401, "api_key_invalid", ""), billing.AnswerFault, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := answerOf(tt.err)
			if got.Kind != tt.want || got.Code != tt.code {
				t.Errorf("%+v, want %s %s", got, tt.want, tt.code)
			}
		})
	}
}
