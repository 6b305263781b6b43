package paymongo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestForms reads one intent in every form in which a resource comes.
func TestForms(t *testing.T) {
	t.Parallel()
	attributes := `"amount":2000,"status":"processing","payments":[{"id":"pay_1","type":"payment","attributes":{"amount":2000,"status":"failed"}}]`
	want := &PaymentIntent{ID: "pi_1", Amount: 2000, Status: PaymentIntentStatusProcessing, Payments: []*Payment{{ID: "pay_1", Amount: 2000, Status: PaymentStatusFailed}}}
	for name, in := range map[string]string{
		"Answer":   `{"data":{"id":"pi_1","type":"payment_intent","attributes":{` + attributes + `}}}`,
		"Entity":   `{"id":"pi_1","type":"payment_intent","attributes":{` + attributes + `}}`,
		"Flat":     `{"id":"pi_1",` + attributes + `}`,
		"FlatData": `{"data":{"id":"pi_1",` + attributes + `}}`,
		"OtherID":  `{"data":{"id":"pi_1","type":"payment_intent","attributes":{"id":"pi_2",` + attributes + `}}}`,
		"Reversed": `{"data":{"attributes":{` + attributes + `},"type":"payment_intent","id":"pi_1"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := new(PaymentIntent)
			if err := json.Unmarshal([]byte(in), got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			data, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			again := new(PaymentIntent)
			if err := json.Unmarshal(data, again); err != nil {
				t.Fatalf("%v in %s", err, data)
			}
			if again.ID != want.ID || again.Status != want.Status || len(again.Payments) != 1 {
				t.Errorf("encoded and decoded again: %+v", again)
			}
		})
	}
	for name, in := range map[string]string{
		"Array":              `[]`,
		"EmptyID":            `{"data":{"id":"","type":"payment_intent","attributes":{` + attributes + `}}}`,
		"FlatOfAnother":      `{"data":{"id":"pi_1","type":"payment","status":"paid"}}`,
		"NestedNull":         `{"id":"pi_1","status":"processing","payments":[null]}`,
		"NestedOther":        `{"id":"pi_1","status":"processing","payments":[{"id":"ref_1","type":"refund","attributes":{"status":"failed"}}]}`,
		"NestedWithoutID":    `{"id":"pi_1","status":"processing","payments":[{"type":"payment","attributes":{"status":"paid"}}]}`,
		"Null":               `null`,
		"NullAttributes":     `{"data":{"id":"pi_1","type":"payment_intent","attributes":null}}`,
		"TypeEmpty":          `{"data":{"id":"pi_1","type":"","attributes":{` + attributes + `}}}`,
		"WithoutAttributes":  `{"data":{"id":"pi_1","type":"payment_intent"}}`,
		"WithoutTypeOrState": `{"data":{"id":"pi_1"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := new(PaymentIntent)
			if err := got.UnmarshalJSON([]byte(in)); err == nil {
				t.Errorf("read as %+v", got)
			}
		})
	}
}

// TestUnknownValues shows that a word nobody told us of is kept, and that parts
// which decide nothing may have any shape.
func TestUnknownValues(t *testing.T) {
	t.Parallel()
	in := `{"data":{"id":"pi_1","type":"payment_intent","attributes":{"status":"brand_new","capture_type":"later","last_payment_error":"declined",
		"next_action":{"type":"dance","redirect":7},"payment_method_options":[],"setup_future_usage":"on_session","metadata":{"n":7,"s":"x","o":{"a":1}},
		"brand_new":{"a":[1]},"payments":[{"id":"pay_1","type":"payment","attributes":{"status":"odd","source":"card_1","billing":"Ana","payout":{"id":"po_1"}}}]}}}`
	var got PaymentIntent
	if err := json.Unmarshal([]byte(in), &got); err != nil {
		t.Fatal(err)
	}
	if got.Status != "brand_new" || got.CaptureType != "later" || got.NextAction.Type != "dance" || got.Payments[0].Status != "odd" ||
		string(got.Payments[0].Payout) != `{"id":"po_1"}` {
		t.Errorf("got %+v", got)
	}
	if diff := cmp.Diff(Metadata{"n": "7", "s": "x", "o": `{"a":1}`}, got.Metadata); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestPaymentIntentPayments(t *testing.T) {
	t.Parallel()
	at := func(second int64) Timestamp { return Timestamp{time.Unix(second, 0)} }
	failed1 := &Payment{ID: "pay_1", Status: PaymentStatusFailed, CreatedAt: at(100)}
	failed2 := &Payment{ID: "pay_2", Status: PaymentStatusFailed, CreatedAt: at(200)}
	paid := &Payment{ID: "pay_3", Status: PaymentStatusPaid, CreatedAt: at(200)}
	for _, tt := range []struct {
		name               string
		payments           []*Payment
		paid, latest, fail *Payment // fail: since second 150 and a half
	}{
		{"FailedInTheSecond", []*Payment{{ID: "pay_4", Status: PaymentStatusFailed, CreatedAt: at(150)}}, nil, nil, nil},
		{"FailedBefore", []*Payment{failed1}, nil, failed1, nil},
		{"FailedTwice", []*Payment{failed2, failed1}, nil, failed2, failed2},
		{"None", nil, nil, nil, nil},
		{"PaidAfterFailure", []*Payment{failed2, paid}, paid, paid, nil},
		{"PaidBeforeFailure", []*Payment{paid, failed2}, paid, failed2, failed2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.name == "FailedInTheSecond" {
				tt.latest, tt.fail = tt.payments[0], tt.payments[0]
			}
			p := &PaymentIntent{Payments: tt.payments}
			if got := p.PaidPayment(); got != tt.paid {
				t.Errorf("paid %+v", got)
			}
			if got := p.LatestPayment(); got != tt.latest {
				t.Errorf("latest %+v", got)
			}
			if got := p.FailedSince(time.Unix(150, 500_000_000)); got != tt.fail {
				t.Errorf("failed %+v", got)
			}
		})
	}
}

func TestTimestamp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want time.Time
		out  string
	}{
		{`null`, time.Time{}, `null`},
		{`0`, time.Unix(0, 0), `0`},
		{`1749679577`, time.Unix(1749679577, 0), `1749679577`},
		{`1710000000000`, time.Unix(1710000000, 0), `1710000000`},
		{`1710000000123`, time.UnixMilli(1710000000123), `1710000000123`},
		{`100000000000`, time.Unix(100000000000, 0), `100000000000`},
		{`253402300799999`, time.UnixMilli(253402300799999), `253402300799999`},
		{`"2026-08-02T23:05:37Z"`, time.Date(2026, 8, 2, 23, 5, 37, 0, time.UTC), `1785711937`},
		{`"2026-08-03T07:05:37+08:00"`, time.Date(2026, 8, 2, 23, 5, 37, 0, time.UTC), `1785711937`},
	} {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			var got Timestamp
			if err := json.Unmarshal([]byte(tt.in), &got); err != nil || !got.Equal(tt.want) || !got.IsZero() && got.Location() != time.UTC {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
			if out, err := json.Marshal(got); string(out) != tt.out || err != nil {
				t.Errorf("encoded as %s, %v, want %s", out, err, tt.out)
			}
		})
	}
	for _, in := range []string{`1e2`, `100.0`, `-1`, `9223372036854775808`, `253402300800000`, `"soon"`, `""`, `"1749679577"`, `true`, `{}`, `[]`} {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			var got Timestamp
			if err := json.Unmarshal([]byte(in), &got); err == nil {
				t.Errorf("read as %v", got)
			}
		})
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"DataIsAnObject": `{"data":{},"has_more":false}`,
		"DataIsNull":     `{"data":null,"has_more":false}`,
		"NoData":         `{"has_more":false}`,
		"NullInData":     `{"data":[null]}`,
		"OtherResource":  `{"data":[{"id":"ref_1","type":"refund","attributes":{"status":"pending"}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := inMemory(t, answering(200, body))
			_, err := c.Payments.List(t.Context(), nil)
			if v, reason := VerdictOf(err); v != VerdictUnknown {
				t.Errorf("payments: %v (%s)", err, reason)
			}
			_, err = c.Customers.ListPaymentMethods(t.Context(), "cus_1", nil)
			if v, reason := VerdictOf(err); v != VerdictUnknown && name != "OtherResource" {
				t.Errorf("saved payment methods: %v (%s)", err, reason)
			}
		})
	}
}

// pages serves three pages of two payments, and then what end says.
func pages(t *testing.T, end string) *Client {
	return inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
		after := r.URL.Query().Get("after")
		if got := r.URL.Query().Get("limit"); got != "2" {
			t.Errorf("limit %q", got)
		}
		n := 0
		if after != "" {
			if _, err := fmt.Sscanf(after, "pay_%d", &n); err != nil {
				t.Error(err)
			}
		}
		if n >= 4 {
			return response(r, 200, end), nil
		}
		return response(r, 200, page(n+1, n+2, true)), nil
	}))
}

func page(a, b int, more bool) string {
	one := `{"id":"pay_%d","type":"payment","attributes":{"status":"paid"}}`
	return fmt.Sprintf(`{"has_more":%v,"data":[`+one+`,`+one+`]}`, more, a, b)
}

func TestPaymentsAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  string
		want []string
		fail bool
	}{
		{"EmptyLastPage", emptyList, []string{"pay_1", "pay_2", "pay_3", "pay_4"}, false},
		{"EmptyPageWithMore", `{"data":[],"has_more":true}`, []string{"pay_1", "pay_2", "pay_3", "pay_4"}, true},
		{"Circle", page(1, 2, true), []string{"pay_1", "pay_2", "pay_3", "pay_4", "pay_1", "pay_2"}, true},
		{"LastPage", page(5, 6, false), []string{"pay_1", "pay_2", "pay_3", "pay_4", "pay_5", "pay_6"}, false},
		{"Repeated", page(3, 4, true), []string{"pay_1", "pay_2", "pay_3", "pay_4", "pay_3", "pay_4"}, true},
		{"ServerFault", "<html>", []string{"pay_1", "pay_2", "pay_3", "pay_4"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			var failed error
			for payment, err := range pages(t, tt.end).Payments.All(t.Context(), &PaymentListParams{Limit: 2}) {
				if err != nil {
					failed = err
					continue
				}
				got = append(got, payment.ID)
			}
			if !slices.Equal(got, tt.want) || (failed != nil) != tt.fail {
				t.Errorf("got %v, %v", got, failed)
			}
		})
	}
	t.Run("BeforeIsRefused", func(t *testing.T) {
		t.Parallel()
		for _, err := range inMemory(t, untouchable(t)).Payments.All(t.Context(), &PaymentListParams{Before: "pay_1"}) {
			checkVerdict(t, "All", err, VerdictNeverSent, reasonBadParams)
		}
	})
	t.Run("DefaultLimit", func(t *testing.T) {
		t.Parallel()
		c, mux := setup(t)
		mux.HandleFunc("GET /payments", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "limit=100" {
				t.Errorf("query %s", r.URL.RawQuery)
			}
			_, _ = io.WriteString(w, emptyList)
		})
		for _, err := range c.Payments.All(t.Context(), nil) {
			t.Error(err)
		}
	})
	t.Run("StopsWhenAsked", func(t *testing.T) {
		t.Parallel()
		n := 0
		for _, err := range pages(t, "").Payments.All(t.Context(), &PaymentListParams{Limit: 2}) {
			if n++; n == 3 || err != nil {
				break
			}
		}
		if n != 3 {
			t.Errorf("%d payments", n)
		}
	})
}

func TestCustomerPaymentMethodShapes(t *testing.T) {
	t.Parallel()
	want := CustomerPaymentMethod{PaymentMethodID: "pm_1", SessionType: SessionTypeOnSession, Type: "card", Livemode: true,
		CreatedAt: Timestamp{time.Unix(1710000000, 0).UTC()}}
	for name, in := range map[string]string{
		"A": `{"id":"cus_pm_1","type":"customer_payment_method","attributes":{"livemode":true,"payment_method_id":"pm_1","payment_method_type":"card","session_type":"on_session","created_at":1710000000}}`,
		"B": `{"id":"cpm_1","type":"customer_payment_method","attributes":{"livemode":true,"payment_method_id":"pm_1","payment_method_type":"card","session_type":"on_session","created_at":1710000000}}`,
		"C": `{"customer_id":"cus_1","payment_method_id":"pm_1","session_type":"on_session","source_type":"card","live_mode":true,"created_at":1710000000000}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got CustomerPaymentMethod
			if err := json.Unmarshal([]byte(in), &got); err != nil {
				t.Fatal(err)
			}
			want := want
			want.ID, want.CustomerID = got.ID, got.CustomerID
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if (got.ID == "") == (got.CustomerID == "") {
				t.Errorf("id %q, customer %q", got.ID, got.CustomerID)
			}
		})
	}
	var got CustomerPaymentMethod
	if err := json.Unmarshal([]byte(`{"type":"customer_payment_method","attributes":{}}`), &got); !errors.Is(err, errOtherResource) {
		t.Errorf("without an id: %v", err)
	}
	if err := json.Unmarshal([]byte(`{"id":"cus_pm_1","attributes":{"payment_method_id":7}}`), &got); err == nil || !strings.Contains(err.Error(), "payment_method_id") {
		t.Errorf("with a number for an id: %v", err)
	}
}
