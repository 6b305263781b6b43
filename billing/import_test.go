package billing_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
)

const (
	planLine     = `{"type":"plan","external_id":"pro","name":"Pro","amount_minor":49900,"currency":"PHP","interval":"month","interval_count":1}`
	customerLine = `{"type":"customer","external_id":"u1","paymongo_customer_id":"cus_1","name":"Ana","email":"ana@example.com"}`
	cardLine     = `{"type":"payment_method","customer":"u1","paymongo_payment_method_id":"pm_1","brand":"visa","last4":"4345","exp_month":12,"exp_year":2030}`
	subLine      = `{"type":"subscription","external_id":"s1","customer":"u1","plan":"pro","anchor":"2026-01-31T09:00:00+08:00","time_zone":"Asia/Manila","bill_from":"2026-02-28T09:00:00+08:00"}`
)

// empty is a database without a row of business.
func empty(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{t: t, pool: pgtest.DB(t)}
	l.tx(func(tx pgx.Tx) error { return billing.Bind(t.Context(), tx, billing.EnvironmentDev, false) })
	return l
}

func (l *ledger) importLines(options billing.ImportOptions, lines ...string) (billing.ImportResult, error) {
	l.t.Helper()
	if options.Now.IsZero() {
		options.Now = noon
	}
	options.Actor, options.Source = "ana", "test.jsonl"
	return billing.Import(l.t.Context(), l.pool, strings.NewReader(strings.Join(lines, "\n")), options)
}

func (l *ledger) imported(lines ...string) billing.ImportResult {
	l.t.Helper()
	result, err := l.importLines(billing.ImportOptions{}, lines...)
	if err != nil {
		l.t.Fatalf("%v: %v", err, result.Errors)
	}
	return result
}

// with is a line with some fields replaced: a value of "" drops the field.
func with(line string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		at := strings.Index(line, `"`+pairs[i]+`":`)
		if at < 0 {
			line = strings.TrimSuffix(line, "}") + `,"` + pairs[i] + `":` + pairs[i+1] + "}"
			continue
		}
		end := at + strings.IndexAny(line[at:], ",}")
		field := `"` + pairs[i] + `":` + pairs[i+1]
		if pairs[i+1] == "" {
			field = ""
			if line[end] == ',' {
				end++
			} else {
				at--
			}
		}
		line = line[:at] + field + line[end:]
	}
	return line
}

func TestImportAndImportAgain(t *testing.T) {
	t.Parallel()
	l := empty(t)
	first := l.imported("\ufeff"+planLine+"\r", "", customerLine, cardLine, with(cardLine, "paymongo_payment_method_id", `"pm_2"`), subLine)
	want := billing.ImportResult{
		Lines: 5, Plans: billing.ImportCount{Created: 1}, Customers: billing.ImportCount{Created: 1}, PaymentMethods: billing.ImportCount{Created: 2},
		Subscriptions: billing.ImportCount{Created: 1}, Errors: []billing.LineError{},
	}
	if fmt.Sprint(first) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", first, want)
	}
	l.want("active 1 49900 2026-02-28 01:00:00+00 bill_all 9", `
		SELECT concat_ws(' ', status, next_period_no, amount_minor, next_due_at AT TIME ZONE 'UTC' || '+00', catch_up, dunning ->> 'hour') FROM singil.subscriptions`)
	l.want("0 0 before_bill_from", `SELECT concat_ws(' ', first_no, last_no, reason) FROM singil.skipped_periods`)
	l.want("pm_1 0, pm_2 1", `SELECT string_agg(provider_payment_method_id || ' ' || position, ', ' ORDER BY position) FROM singil.payment_methods`)
	l.want("ana import test.jsonl 1", `SELECT concat_ws(' ', actor, action, subject, after #>> '{subscriptions,created}') FROM singil.audit_log`)

	again := l.imported(planLine, customerLine, cardLine, subLine)
	if again.Subscriptions.Unchanged != 1 || again.Plans.Unchanged != 1 || again.Customers.Unchanged != 1 || again.PaymentMethods.Unchanged != 1 {
		t.Errorf("the same lines: %+v", again)
	}
	l.want("1", `SELECT count(*)::text FROM singil.audit_log`)

	changed := l.imported(
		with(planLine, "name", `"Pro 2"`), with(customerLine, "email", `"a@example.com"`), with(cardLine, "exp_year", "2031"),
		with(subLine, "metadata", `{"seat":"7"}`, "catch_up", `"ask"`, "bill_from", ""))
	if changed.Subscriptions.Updated != 1 || changed.Plans.Updated != 1 || changed.Customers.Updated != 1 || changed.PaymentMethods.Updated != 1 {
		t.Errorf("different lines: %+v", changed)
	}
	l.want("7 ask", `SELECT metadata ->> 'seat' || ' ' || catch_up FROM singil.subscriptions`)
	l.want("Ana a@example.com", `SELECT name || ' ' || email FROM singil.customers`)
	l.want("2", `SELECT count(*)::text FROM singil.audit_log`)
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	l := empty(t)
	l.imported(planLine, customerLine, cardLine, subLine, with(planLine, "external_id", `"idle"`), with(customerLine, "external_id", `"u2"`, "paymongo_customer_id", ""))
	newPlan := with(planLine, "external_id", `"p2"`)
	newSub := with(subLine, "external_id", `"s2"`)
	for name, tt := range map[string]struct{ line, field, want string }{
		"no JSON":           {`{"type":"plan",`, "", "not valid JSON"},
		"an array":          {`[]`, "", "not a JSON object"},
		"two objects":       {planLine + planLine, "", "after the object"},
		"not UTF-8":         {with(customerLine, "name", "\"\xff\""), "", "UTF-8"},
		"a NUL":             {with(customerLine, "name", `"\u0000"`), "name", "control character"},
		"a NUL in metadata": {with(customerLine, "metadata", `{"a":"\u0000"}`), "metadata", "NUL"},
		"long line":         {with(customerLine, "name", `"`+strings.Repeat("x", 1<<20)+`"`), "", "longer than"},
		"long name":         {with(customerLine, "name", `"`+strings.Repeat("x", 501)+`"`), "name", "longer than 500"},
		"deep metadata":     {with(customerLine, "metadata", strings.Repeat(`{"a":`, 20)+"1"+strings.Repeat("}", 20)), "metadata", "deeper"},
		"huge number":       {with(customerLine, "metadata", `{"a":1e999}`), "metadata", "number"},

		"unknown type":      {`{"type":"coupon"}`, "type", "coupon"},
		"no type":           {`{}`, "type", "missing"},
		"unknown field":     {with(newPlan, "discount", "5"), "discount", "not a field of a plan"},
		"field by its case": {with(newPlan, "amount_minor", "", "Amount_Minor", "49900"), "amount_minor", "missing"},
		"a field twice":     {strings.Replace(newPlan, "{", `{"amount_minor":1,`, 1), "amount_minor", "twice"},
		"id is empty":       {with(newPlan, "external_id", `""`), "external_id", "empty"},
		"id is a number":    {with(newPlan, "external_id", `5`), "external_id", "not a string"},

		"amount 0":             {with(newPlan, "amount_minor", "0"), "amount_minor", "nothing to charge"},
		"amount negative":      {with(newPlan, "amount_minor", "-1"), "amount_minor", "negative"},
		"amount fractional":    {with(newPlan, "amount_minor", "49900.5"), "amount_minor", "whole centavos"},
		"amount 1e3":           {with(newPlan, "amount_minor", "1e3"), "amount_minor", "whole centavos"},
		"amount too large":     {with(newPlan, "amount_minor", "1000000000"), "amount_minor", "maximum"},
		"amount as text":       {with(newPlan, "amount_minor", `"49900"`), "amount_minor", "text"},
		"USD":                  {with(newPlan, "currency", `"USD"`), "currency", "USD"},
		"an hour":              {with(newPlan, "interval", `"hour"`), "interval", "hour"},
		"0 months":             {with(newPlan, "interval_count", "0"), "interval_count", "0"},
		"dunning":              {with(newPlan, "dunning", `{"hour":25}`), "dunning.hour", "25"},
		"catch-up":             {with(newPlan, "catch_up", `"some"`), "catch_up", "some"},
		"price of a used plan": {with(planLine, "amount_minor", "59900"), "amount_minor", "import the new price as another plan"},

		"whose cus_ is another's": {with(customerLine, "external_id", `"u3"`), "paymongo_customer_id", `is the customer "u1"`},
		"another cus_":            {with(customerLine, "paymongo_customer_id", `"cus_9"`), "paymongo_customer_id", "already"},
		"not a cus_":              {with(customerLine, "external_id", `"u3"`, "paymongo_customer_id", `"1"`), "paymongo_customer_id", "cus_"},

		"card of nobody":     {with(cardLine, "paymongo_payment_method_id", `"pm_9"`, "customer", `"u9"`), "customer", "not known"},
		"card changes hands": {with(cardLine, "customer", `"u2"`), "customer", "does not change its owner"},
		"last4":              {with(cardLine, "last4", `"43453"`), "last4", "four digits"},
		"half an expiry":     {with(cardLine, "exp_month", ""), "exp_month", "both or none"},
		"month 13":           {with(cardLine, "exp_month", "13"), "exp_month", "13"},

		"unknown plan":        {with(newSub, "plan", `"gold"`), "plan", "not known"},
		"unknown customer":    {with(newSub, "customer", `"u9"`), "customer", "not known"},
		"anchor without zone": {with(newSub, "anchor", `"2026-01-31T09:00:00"`), "anchor", "no zone offset"},
		"anchor is a date":    {with(newSub, "anchor", `"2026-01-31"`), "anchor", "no zone offset"},
		"anchor in 1215":      {with(newSub, "anchor", `"1215-06-15T09:00:00Z"`), "anchor", "1215"},
		"unknown zone":        {with(newSub, "time_zone", `"Asia/Manilla"`), "time_zone", "tz database"},
		"no zone":             {with(newSub, "time_zone", ""), "time_zone", "missing"},
		"quantity 0":          {with(newSub, "quantity", "0"), "quantity", "0"},
		"too many":            {with(newSub, "quantity", "900000"), "quantity", "above"},
		"past due":            {with(newSub, "status", `"past_due"`), "status", "import it as active"},
		"trialing for ever":   {with(newSub, "status", `"trialing"`), "status", "without a trial_end"},
		"active in a trial":   {with(newSub, "status", `"active"`, "trial_end", `"2027-01-01T00:00:00Z"`), "status", "trialing"},

		"other plan":      {with(subLine, "plan", `"idle"`), "plan", "change the plan"},
		"other customer":  {with(subLine, "customer", `"u2"`), "customer", "stays"},
		"other anchor":    {with(subLine, "anchor", `"2026-01-30T09:00:00+08:00"`), "anchor", "move every period"},
		"other zone":      {with(subLine, "time_zone", `"Asia/Tokyo"`), "time_zone", "move every period"},
		"other bill_from": {with(subLine, "bill_from", `"2026-01-31T09:00:00+08:00"`), "bill_from", "stays"},
		"other quantity":  {with(subLine, "quantity", "2"), "quantity", "does not change what is charged"},
		"other status":    {with(subLine, "status", `"cancelled"`), "status", "does not pause, resume or cancel"},

		"card number":                {with(customerLine, "name", `"4343434343434345"`), "name", "card number"},
		"card number in groups":      {with(customerLine, "name", `"Ana 4343 4343 4343 4345"`), "name", "card number"},
		"card number with dashes":    {with(customerLine, "email", `"4343-4343-4343-4345"`), "email", "card number"},
		"card number in metadata":    {with(customerLine, "metadata", `{"a":["pan4343434343434345"]}`), "metadata", "card number"},
		"card number as a number":    {with(customerLine, "metadata", `{"a":4343434343434345}`), "metadata", "card number"},
		"card number as a name":      {with(customerLine, "4343434343434345", `1`), "a field's name", "card number"},
		"card number behind escapes": {with(customerLine, "name", `"\u0034343434343434345"`), "name", "card number"},
		"card number before a CVC":   {with(customerLine, "name", `"4343 4343 4343 4345 123"`), "name", "card number"},
		"card number after a phone":  {with(customerLine, "name", `"0917 123 4567 4343-4343-4343-4345 12/30"`), "name", "card number"},
		"card number with dots":      {with(customerLine, "name", `"4343.4343.4343.4345"`), "name", "card number"},
		"card number, hard blanks":   {with(customerLine, "name", "\"4343\u00a04343\u00a04343\u00a04345\""), "name", "card number"},
		"card number with tabs":      {with(customerLine, "metadata", `{"a":"4343\t4343\t4343\t4345"}`), "metadata", "card number"},
		"card number of fifteen":     {with(customerLine, "name", `"3782 822463 10005, 1234"`), "name", "card number"},
		"card number as last4":       {with(cardLine, "last4", `"4343434343434345"`), "last4", "card number"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result, err := l.importLines(billing.ImportOptions{DryRun: true}, tt.line)
			if err != nil || result.Refused != 1 {
				t.Fatalf("%v %+v", err, result)
			}
			found := false
			for _, e := range result.Errors {
				found = found || e.Line == 1 && e.Field == tt.field && strings.Contains(e.Problem, tt.want)
				if strings.Contains(e.Error(), "434343434343") {
					t.Errorf("the message repeats the card number: %v", e)
				}
			}
			if !found {
				t.Errorf("%v, want %s: %s", result.Errors, tt.field, tt.want)
			}
		})
	}
}

func TestImportKeepsWhatIsNoCardNumber(t *testing.T) {
	t.Parallel()
	l := empty(t)
	result, err := l.importLines(billing.ImportOptions{DryRun: true},
		with(customerLine, "external_id", `"1769821200000"`), // milliseconds, which pass the check digit one time in ten
		with(customerLine, "external_id", `"u2"`, "paymongo_customer_id", "", "name", `"4343434343434346"`),
		with(customerLine, "external_id", `"u3"`, "paymongo_customer_id", "", "name", `"+63 917 123 4567"`),
		with(customerLine, "external_id", `"u5"`, "paymongo_customer_id", "", "name", `"2020, 2021, 2022, 2025 and 4343.4343 4343"`),
		with(customerLine, "external_id", `"u4"`, "paymongo_customer_id", "", "metadata", `{"id":"018f4343-4343-7434-9345-000000000000"}`),
		with(planLine, "amount_minor", "999999999"))
	if err != nil || result.Refused != 0 {
		t.Errorf("%v %v", err, result.Errors)
	}
}

func TestImportIsAllOrNothingUnlessPartial(t *testing.T) {
	t.Parallel()
	l := empty(t)
	lines := []string{
		planLine, customerLine, with(customerLine, "external_id", `"u2"`, "paymongo_customer_id", `"x"`),
		subLine, with(subLine, "external_id", `"s2"`, "customer", `"u2"`), subLine,
	}
	result, err := l.importLines(billing.ImportOptions{}, lines...)
	if !errors.Is(err, billing.ErrImportRefused) || result.Refused != 3 {
		t.Errorf("%v %+v", err, result)
	}
	for i, want := range []string{"line 3: paymongo_customer_id", "line 5: customer", `line 6: external_id: "s1" was on line 4`} {
		if !strings.HasPrefix(result.Errors[i].Error(), want) {
			t.Errorf("%v, want %s", result.Errors[i], want)
		}
	}
	l.want("0", `SELECT count(*)::text FROM singil.plans`)
	result, err = l.importLines(billing.ImportOptions{Partial: true}, lines...)
	if err != nil || result.Refused != 3 || result.Subscriptions.Created != 1 {
		t.Errorf("%v %+v", err, result)
	}
	l.want("s1", `SELECT string_agg(external_id, ' ') FROM singil.subscriptions`)
}

func TestImportStopsAfterAHundredErrors(t *testing.T) {
	t.Parallel()
	l := empty(t)
	lines := strings.Split(strings.Repeat("{}\n", 5000), "\n")
	result, err := l.importLines(billing.ImportOptions{}, lines...)
	if !errors.Is(err, billing.ErrImportRefused) || len(result.Errors) != 100 || !result.Stopped || result.Lines != 100 {
		t.Errorf("%v: %d errors of %d lines", err, len(result.Errors), result.Lines)
	}
	result, err = l.importLines(billing.ImportOptions{Partial: true}, append(lines, planLine)...)
	if err != nil || len(result.Errors) != 100 || result.Refused != 5000 || result.Plans.Created != 1 {
		t.Errorf("%v: %d errors, %d refused", err, len(result.Errors), result.Refused)
	}
}

func TestImportNeverBillsThePast(t *testing.T) {
	t.Parallel()
	l := empty(t)
	result := l.imported(planLine, customerLine, cardLine,
		with(subLine, "anchor", `"2020-01-31T12:00:00+08:00"`, "bill_from", ""), // noon: a boundary is now
		with(subLine, "external_id", `"later"`, "anchor", `"2020-01-31T12:00:01+08:00"`, "bill_from", ""),
		with(subLine, "external_id", `"asked"`, "anchor", `"2020-01-31T12:00:00+08:00"`, "bill_from", `"2025-11-30T12:00:00+08:00"`),
		with(subLine, "external_id", `"future"`, "anchor", `"2027-01-31T12:00:00+08:00"`, "bill_from", ""),
		with(subLine, "external_id", `"trial"`, "anchor", `"2026-01-31T12:00:00+08:00"`, "bill_from", "", "trial_end", `"2026-02-28T12:00:00+08:00"`),
		with(subLine, "external_id", `"paused"`, "status", `"paused"`), with(subLine, "external_id", `"gone"`, "status", `"cancelled"`),
		with(subLine, "external_id", `"three"`, "quantity", "3"))
	if result.PeriodsDue != 4 {
		t.Errorf("periods due %d, want 1 of s1 and 3 of asked", result.PeriodsDue)
	}
	l.want("active 72, active 72, active 70, active 0, trialing 0, paused 1, cancelled 1, active 1", `
		SELECT string_agg(status || ' ' || next_period_no, ', ' ORDER BY id) FROM singil.subscriptions`)
	l.want("149700", `SELECT amount_minor::text FROM singil.subscriptions WHERE external_id = 'three'`)
	l.open(noon)
	l.want("asked 70, asked 71, asked 72, s1 72", `
		SELECT string_agg(s.external_id || ' ' || i.period_no, ', ' ORDER BY s.external_id, i.period_no) FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`)
	l.want("trialing 2026-02-28 04:00:00", `SELECT concat_ws(' ', status, next_due_at AT TIME ZONE 'UTC') FROM singil.subscriptions WHERE external_id = 'trial'`)
	l.want("1", `SELECT jsonb_array_length(pauses)::text FROM singil.subscriptions WHERE external_id = 'paused'`)
}

// manyLines is a file of n customers, each with a card and a subscription.
func manyLines(n int) []byte {
	var file bytes.Buffer
	fmt.Fprintln(&file, planLine)
	for i := range n {
		fmt.Fprintf(&file, `{"type":"customer","external_id":"u%d","paymongo_customer_id":"cus_%d","name":"N","email":"n@example.com"}`+"\n", i, i)
		fmt.Fprintf(&file, `{"type":"payment_method","customer":"u%d","paymongo_payment_method_id":"pm_%d","brand":"visa","last4":"4345","exp_month":12,"exp_year":2030}`+"\n", i, i)
		fmt.Fprintf(&file, `{"type":"subscription","external_id":"s%d","customer":"u%d","plan":"pro","anchor":"2026-01-31T09:00:00+08:00","time_zone":"Asia/Manila","bill_from":"2026-02-28T09:00:00+08:00"}`+"\n", i, i)
	}
	return file.Bytes()
}

// TestImportOfMany takes more than one batch, and then the same again.
func TestImportOfMany(t *testing.T) {
	t.Parallel()
	l := empty(t)
	const n = 3000
	file := manyLines(n)
	options := billing.ImportOptions{Now: noon, Actor: "ana", Source: "many.jsonl"}
	for _, step := range []string{"new", "again"} {
		result, err := billing.Import(t.Context(), l.pool, bytes.NewReader(file), options)
		counts := result.Subscriptions
		if err != nil || step == "new" && counts.Created != n || step == "again" && counts.Unchanged != n {
			t.Fatalf("%s: %v %+v", step, err, result)
		}
	}
}

// BenchmarkImport imports a file for the first time; one op is one subscription
// with its customer and its card.
//
//	go test ./billing -run '^$' -bench Import -benchtime 20000x
func BenchmarkImport(b *testing.B) {
	if testing.Short() {
		b.Skip("measures the database")
	}
	pool := pgtest.DB(b)
	file := manyLines(b.N)
	b.ResetTimer()
	if _, err := billing.Import(b.Context(), pool, bytes.NewReader(file), billing.ImportOptions{Now: noon, Actor: "ana", Source: "many.jsonl"}); err != nil {
		b.Fatal(err)
	}
}
