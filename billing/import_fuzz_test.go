package billing

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var importSeeds = []string{
	`{"type":"plan","external_id":"pro","name":"Pro","amount_minor":49900,"currency":"PHP","interval":"month","interval_count":1,"dunning":{"offsets_days":[1,3],"hour":9,"end":"cancel"},"catch_up":"ask"}`,
	`{"type":"customer","external_id":"u1","paymongo_customer_id":"cus_1","name":"Ana","email":"ana@example.com","metadata":{"a":[1,2.5,null,{"b":"c"}]}}`,
	`{"type":"payment_method","customer":"u1","paymongo_payment_method_id":"pm_1","brand":"visa","last4":"4345","exp_month":12,"exp_year":2030}`,
	`{"type":"subscription","external_id":"s1","customer":"u1","plan":"pro","anchor":"2026-01-31T09:00:00+08:00","time_zone":"Asia/Manila","bill_from":"2026-02-28T09:00:00.000001+08:00","trial_end":"2026-02-28T00:00:00Z","quantity":3,"status":"trialing"}`,
	`{"type":"customer","external_id":"u2","name":"4343 4343 4343 4345 123"}`,
	`{"type":"customer","external_id":"u2","metadata":{"a":4343434343434345}}`,
	`{"type":"customer","external_id":"\u0034343434343434345"}`,
	`{"type":"customer","external_id":"u3","4343434343434345":1,"4343434343434345":2}`,
	`{"type":"plan","amount_minor":1e2}`, `{"type":"coupon"}`, `{"type":["plan"]}`, `{}`, `[]`, `null`, `"`, `{"type":"plan"`, `{"type":"plan"}{}`, "\xff", "\ufeff{}", "",
	`{"type":"customer","external_id":"u4","metadata":` + strings.Repeat(`{"a":`, 12) + "1" + strings.Repeat("}", 12) + `}`,
}

// panOracle finds card numbers as they are written, by other means than the
// import: digits in a row, or four groups with one sign between them.
var panOracle = regexp.MustCompile(`(?:^|[^0-9])([2-6](?:[0-9]{12,18}|[0-9]{3} [0-9]{4} [0-9]{4} [0-9]{4}|[0-9]{3}-[0-9]{4}-[0-9]{4}-[0-9]{4}))(?:$|[^0-9])`)

// cardNumbersIn is the card numbers of a document's names, texts and numbers.
func cardNumbersIn(line []byte) (found []string) {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if err != nil {
			return found
		}
		text := regexp.MustCompile(`(?i)\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`).ReplaceAllString(fmt.Sprint(token), "uuid")
		for _, match := range panOracle.FindAllStringSubmatch(text, -1) {
			digits := strings.NewReplacer(" ", "", "-", "").Replace(match[1])
			if strings.HasPrefix(digits, "20") { // a year
				continue
			}
			sum := 0
			for i := range digits { // the check digit, from the right
				d := int(digits[len(digits)-1-i] - '0')
				sum += d + i%2*(d-9*(d/5))
			}
			if sum%10 == 0 {
				found = append(found, match[1])
			}
		}
	}
}

// written is the line that a record came from, as the import would have liked it.
func (r *importRecord) written() []byte {
	line := map[string]any{"type": r.kind}
	put := func(name string, value any) {
		if v := reflect.ValueOf(value); v.Kind() != reflect.Pointer || !v.IsNil() {
			line[name] = value
		}
	}
	document := func(name string, s *string) {
		if s != nil {
			line[name] = json.RawMessage(*s)
		}
	}
	document("dunning", r.dunning)
	document("metadata", r.metadata)
	put("catch_up", r.catchUp)
	put("name", r.name)
	put("email", r.email)
	put("paymongo_customer_id", r.providerCustomer)
	put("brand", r.brand)
	put("last4", r.last4)
	put("exp_month", r.expMonth)
	put("exp_year", r.expYear)
	put("bill_from", r.billFrom)
	put("trial_end", r.trialEnd)
	put("quantity", r.quantity)
	put("status", r.status)
	switch r.kind {
	case importPlan:
		put("external_id", r.id)
		put("amount_minor", r.terms.Amount.Minor)
		put("currency", r.terms.Amount.Currency)
		put("interval", r.terms.Interval.Unit)
		put("interval_count", r.terms.Interval.Count)
	case importCustomer:
		put("external_id", r.id)
	case importPaymentMethod:
		put("paymongo_payment_method_id", r.id)
		put("customer", r.customer)
	case importSubscription:
		put("external_id", r.id)
		put("customer", r.customer)
		put("plan", r.plan)
		put("anchor", r.anchor.At)
		put("time_zone", r.zone)
	}
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err) // plain values
	}
	return encoded
}

// FuzzImportLine: a line is refused with its field and its problem, or is an
// object that holds, means the same when it is written again, can be stored, and
// has no card number in it. No message repeats one.
func FuzzImportLine(f *testing.F) {
	for _, seed := range importSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, problems := parseImportLine(line)
		pans := cardNumbersIn(line)
		for _, p := range problems {
			text := LineError{1, p.Field, p.Problem}.Error()
			if p.Problem == "" || !utf8.ValidString(text) || len(text) > 1000 {
				t.Fatalf("refused with %q", text)
			}
			for _, pan := range pans {
				if strings.Contains(text, pan) {
					t.Fatalf("the message repeats a card number: %s", text)
				}
			}
		}
		if len(problems) > 0 {
			return
		}
		if len(pans) > 0 {
			t.Fatalf("%q was let in with %v", line, pans)
		}
		switch {
		case r.id == "":
			t.Fatal("no id")
		case r.kind == importPlan:
			if _, err := NewMoney(r.terms.Amount.Minor, r.terms.Amount.Currency); err != nil || r.terms.Interval.Validate() != nil {
				t.Fatalf("%+v: %v", r.terms, err)
			}
		case r.kind == importSubscription:
			if err := r.anchor.Validate(); err != nil || r.customer == "" || r.plan == "" {
				t.Fatalf("%+v: %v", r, err)
			}
		}
		for _, s := range []*string{&r.id, &r.customer, &r.plan, r.name, r.email, r.brand, r.last4, r.catchUp, r.status, r.providerCustomer} {
			if s != nil && (strings.ContainsRune(*s, 0) || !utf8.ValidString(*s) || len(*s) > 4*500) {
				t.Fatalf("%q cannot be stored", *s)
			}
		}
		again, problems := parseImportLine(r.written())
		if len(problems) > 0 {
			t.Fatalf("%s was let in, and as %s is refused: %v", line, r.written(), problems)
		}
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("%s means %+v, and as %s it means %+v", line, r, r.written(), again)
		}
	})
}

// FuzzImportFile: every line of a file is either a record or refused, under its
// own number, and means what it means alone.
func FuzzImportFile(f *testing.F) {
	f.Add([]byte(strings.Join(importSeeds, "\n")))
	f.Add([]byte("\ufeff" + strings.Join(importSeeds[:4], "\r\n") + "\r\n\r\n"))
	f.Add([]byte("\n\n\n"))
	f.Add([]byte(strings.Repeat("{}\n", 150)))
	f.Fuzz(func(t *testing.T, file []byte) {
		im := &importer{options: ImportOptions{Partial: true, Now: time.Unix(0, 0)}}
		lines := &lineReader{r: bufio.NewReaderSize(bytes.NewReader(file), importLineLimit)}
		var records []*importRecord
		for {
			batch, err := im.read(lines)
			records = append(records, batch...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		parts := bytes.Split(bytes.TrimPrefix(file, []byte("\ufeff")), []byte("\n"))
		solid := 0
		for _, part := range parts {
			if len(bytes.TrimSpace(part)) > 0 {
				solid++
			}
		}
		if im.result.Lines != solid || len(records)+im.result.Refused != solid {
			t.Fatalf("%d lines: %d records and %d refused, of %d", solid, len(records), im.result.Refused, im.result.Lines)
		}
		if len(im.result.Errors) > importErrorLimit || im.result.Refused > 0 && len(im.result.Errors) == 0 {
			t.Fatalf("%d errors for %d refused lines", len(im.result.Errors), im.result.Refused)
		}
		for _, e := range im.result.Errors {
			if e.Line < 1 || e.Line > len(parts) || e.Problem == "" {
				t.Fatalf("%+v of %d lines", e, len(parts))
			}
		}
		last := 0
		for _, r := range records {
			if r.line <= last || r.line > len(parts) {
				t.Fatalf("line %d behind line %d of %d", r.line, last, len(parts))
			}
			last = r.line
			alone, problems := parseImportLine(parts[r.line-1])
			if len(problems) > 0 {
				t.Fatalf("line %d alone is refused: %v", r.line, problems)
			}
			if alone.line = r.line; !reflect.DeepEqual(r, alone) {
				t.Fatalf("line %d alone means %+v, in the file %+v", r.line, alone, r)
			}
		}
	})
}
