package billing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// importRecord is a line that is right by itself. A nil field was not given: on
// a new row it takes its default, and on one that exists it stays as it is.
type importRecord struct {
	line int
	kind string
	id   string // external_id, and of a payment method the provider's id

	name, email      *string
	providerCustomer *string
	metadata         *string
	dunning          *string
	catchUp          *string

	terms planTerms // of a plan

	customer           string
	brand, last4       *string
	expMonth, expYear  *int64
	plan               string
	anchor             Anchor
	zone               string
	billFrom, trialEnd *time.Time
	quantity           *int64
	status             *string

	exists bool
	start  *subscriptionStart // of a new subscription
}

// subscriptionStart is what a new subscription begins with.
type subscriptionStart struct {
	status    string
	quantity  int64
	terms     planTerms // the amount with the quantity
	billFrom  time.Time
	nextNo    int
	nextDue   *time.Time
	pausedAt  *time.Time
	cancelled *time.Time
	pauses    string
}

// The bounds of what a merchant hangs onto a row.
const (
	metadataLimit = 16 << 10
	metadataDepth = 8
)

// parseImportLine checks all that can be checked without another line. The card
// number comes first: no other message may repeat what it found.
func parseImportLine(line []byte) (*importRecord, []FieldError) {
	if !validText(line) {
		return nil, []FieldError{{Problem: "is not UTF-8"}}
	}
	f, problem := splitLine(line)
	if problem == nil && suspicious(line) {
		for _, name := range slices.Sorted(maps.Keys(f.fields)) {
			if problem = inspect(name, f.fields[name]); problem != nil {
				break
			}
		}
	}
	if problem != nil {
		return nil, []FieldError{*problem}
	}
	r := &importRecord{}
	switch r.kind, _ = f.text("type", true, 40); r.kind {
	case importPlan:
		f.plan(r)
	case importCustomer:
		f.customer(r)
	case importPaymentMethod:
		f.paymentMethod(r)
	case importSubscription:
		f.subscription(r)
	default:
		if len(f.problems) == 0 {
			f.refuse("type", "%q is not one of plan, customer, payment_method, subscription", clip(r.kind))
		}
		return nil, f.problems
	}
	for _, name := range slices.Sorted(maps.Keys(f.fields)) {
		f.refuse(clip(name), "is not a field of a %s", r.kind)
	}
	return r, f.problems
}

// lineFields is the fields of a line that are not read yet.
type lineFields struct {
	fields   map[string]json.RawMessage
	problems []FieldError
}

// splitLine takes an object apart. Names count as they are written, and only
// once: encoding/json would take Amount_Minor too, and the last of two.
func splitLine(line []byte) (*lineFields, *FieldError) {
	decoder := json.NewDecoder(bytes.NewReader(line))
	broken := func(err error) (*lineFields, *FieldError) {
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &syntax):
			return nil, &FieldError{Problem: fmt.Sprintf("is not valid JSON at byte %d", syntax.Offset)}
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, &FieldError{Problem: "is not valid JSON: it ends too early"}
		}
		return nil, &FieldError{Problem: "is not valid JSON"}
	}
	token, err := decoder.Token()
	if err != nil {
		return broken(err)
	}
	if token != json.Delim('{') {
		return nil, &FieldError{Problem: "is not a JSON object"}
	}
	f := &lineFields{fields: map[string]json.RawMessage{}}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return broken(err)
		}
		name, isName := token.(string)
		if !isName {
			return broken(nil)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return broken(err)
		}
		if _, twice := f.fields[name]; twice {
			if cardNumber(name) {
				name = "a name"
			}
			return nil, &FieldError{Field: clip(name), Problem: "is there twice"}
		}
		f.fields[name] = value
	}
	if _, err := decoder.Token(); err != nil {
		return broken(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, &FieldError{Problem: "has something after the object"}
	}
	return f, nil
}

func (f *lineFields) refuse(field, format string, args ...any) {
	f.problems = append(f.problems, FieldError{field, fmt.Sprintf(format, args...)})
}

// take is a field's value. null is as good as nothing.
func (f *lineFields) take(name string, required bool) (json.RawMessage, bool) {
	value, found := f.fields[name]
	delete(f.fields, name)
	if !found || string(value) == "null" {
		if required {
			f.refuse(name, "is missing")
		}
		return nil, false
	}
	return value, true
}

func (f *lineFields) text(name string, required bool, most int) (string, bool) {
	value, found := f.take(name, required)
	if !found {
		return "", false
	}
	var s string
	if value[0] != '"' || json.Unmarshal(value, &s) != nil {
		f.refuse(name, "is not a string")
		return "", false
	}
	switch {
	case required && s == "":
		f.refuse(name, "is empty")
	case len([]rune(s)) > most:
		f.refuse(name, "is longer than %d characters", most)
	case strings.ContainsFunc(s, unicode.IsControl):
		f.refuse(name, "contains a control character")
	default:
		return s, true
	}
	return "", false
}

func (f *lineFields) optionalText(name string, most int) *string {
	if s, found := f.text(name, false, most); found {
		return &s
	}
	return nil
}

// whole is a number without fraction or exponent.
func (f *lineFields) whole(name string, least, most int64) *int64 {
	value, found := f.take(name, false)
	if !found {
		return nil
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < least || n > most {
		f.refuse(name, "%s is not a whole number from %d to %d", clip(string(value)), least, most)
		return nil
	}
	return &n
}

func (f *lineFields) instant(name string, required bool) *time.Time {
	s, found := f.text(name, required, 60)
	if !found {
		return nil
	}
	t, err := ParseInstant(s)
	if err != nil {
		f.refuse(name, "%s", err)
		return nil
	}
	return &t
}

// provided is an id that PayMongo gave.
func (f *lineFields) provided(name, prefix string, required bool) *string {
	s, found := f.text(name, required, 200)
	if !found {
		return nil
	}
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || rest == "" || strings.ContainsFunc(rest, func(c rune) bool {
		return c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '_' && c != '-'
	}) {
		f.refuse(name, "%q does not look like %s...", clip(s), prefix)
		return nil
	}
	return &s
}

func (f *lineFields) metadata() *string {
	value, found := f.take("metadata", false)
	if !found {
		return nil
	}
	var document map[string]any
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	switch err := decoder.Decode(&document); {
	case err != nil:
		f.refuse("metadata", "is not a JSON object")
	case len(value) > metadataLimit:
		f.refuse("metadata", "is longer than %d bytes", metadataLimit)
	default:
		if why := badMetadata(document, 0); why != "" {
			f.refuse("metadata", "%s", why)
			return nil
		}
		plain, err := json.Marshal(document)
		if err != nil {
			f.refuse("metadata", "is not a JSON object")
			return nil
		}
		s := string(plain)
		return &s
	}
	return nil
}

// badMetadata finds what PostgreSQL would not store.
func badMetadata(v any, depth int) string {
	if depth > metadataDepth {
		return fmt.Sprintf("is nested deeper than %d", metadataDepth)
	}
	switch v := v.(type) {
	case json.Number:
		if _, err := v.Float64(); err != nil || len(v) > 40 {
			return "has a number that is too long"
		}
	case string:
		if strings.ContainsRune(v, 0) {
			return "has a text with a NUL in it"
		}
	case []any:
		for _, e := range v {
			if why := badMetadata(e, depth+1); why != "" {
				return why
			}
		}
	case map[string]any:
		for name, e := range v {
			if strings.ContainsRune(name, 0) {
				return "has a name with a NUL in it"
			}
			if why := badMetadata(e, depth+1); why != "" {
				return why
			}
		}
	}
	return ""
}

// policies reads how a subscription is dunned and what it catches up with.
func (f *lineFields) policies(r *importRecord) {
	if value, found := f.take("dunning", false); found {
		policy, err := ParseDunningPolicy(value)
		var wrong *FieldError
		switch {
		case errors.As(err, &wrong) && wrong.Field != "dunning":
			f.refuse("dunning."+wrong.Field, "%s", wrong.Problem)
		case errors.As(err, &wrong):
			f.refuse("dunning", "%s", wrong.Problem)
		case err != nil:
			f.refuse("dunning", "%s", err)
		default:
			s := policy.document()
			r.dunning = &s
		}
	}
	if s := f.optionalText("catch_up", 40); s != nil {
		if _, err := ParseCatchUp(*s); err != nil {
			f.refuse("catch_up", "%s", err)
		}
		r.catchUp = s
	}
}

// document is the policy as it is stored: whole, so that other defaults of a
// later version change nobody's terms.
func (p DunningPolicy) document() string {
	document, err := json.Marshal(p)
	if err != nil {
		panic(err) // plain values only
	}
	return string(document)
}

func (f *lineFields) plan(r *importRecord) {
	r.id, _ = f.text("external_id", true, 200)
	r.name = f.optionalText("name", 500)
	if value, found := f.take("amount_minor", true); found {
		minor, err := ParseMinor(string(value))
		if err != nil {
			f.refuse("amount_minor", "%s", err)
		}
		r.terms.Amount.Minor = minor
	}
	if s, found := f.text("currency", true, 40); found {
		currency, err := ParseCurrency(s)
		if err != nil {
			f.refuse("currency", "%s", err)
		}
		r.terms.Amount.Currency = currency
	}
	r.terms.Interval.Count = 1
	if n := f.whole("interval_count", 1, 1000); n != nil {
		r.terms.Interval.Count = int(*n)
	}
	if unit, found := f.text("interval", true, 40); found {
		r.terms.Interval.Unit = IntervalUnit(unit)
		if err := r.terms.Interval.Validate(); err != nil {
			f.refuse("interval", "%s", err)
		}
	}
	f.policies(r)
}

func (f *lineFields) customer(r *importRecord) {
	r.id, _ = f.text("external_id", true, 200)
	r.providerCustomer = f.provided("paymongo_customer_id", "cus_", false)
	r.name = f.optionalText("name", 500)
	r.email = f.optionalText("email", 500)
	r.metadata = f.metadata()
}

func (f *lineFields) paymentMethod(r *importRecord) {
	if id := f.provided("paymongo_payment_method_id", "pm_", true); id != nil {
		r.id = *id
	}
	r.customer, _ = f.text("customer", true, 200)
	r.brand = f.optionalText("brand", 40)
	if r.last4 = f.optionalText("last4", 19); r.last4 != nil && (len(*r.last4) != 4 || strings.Trim(*r.last4, "0123456789") != "") {
		f.refuse("last4", "is not four digits")
	}
	r.expMonth, r.expYear = f.whole("exp_month", 1, 12), f.whole("exp_year", 2000, 9999)
	if (r.expMonth == nil) != (r.expYear == nil) && len(f.problems) == 0 {
		f.refuse("exp_month", "goes with exp_year: give both or none")
	}
}

func (f *lineFields) subscription(r *importRecord) {
	r.id, _ = f.text("external_id", true, 200)
	r.customer, _ = f.text("customer", true, 200)
	r.plan, _ = f.text("plan", true, 200)
	at := f.instant("anchor", true)
	zone, zoned := f.text("time_zone", true, 100)
	if zoned {
		if _, err := LoadZone(zone); err != nil {
			f.refuse("time_zone", "%s", err)
		} else if at != nil {
			r.zone = zone
			if r.anchor, err = NewAnchor(*at, zone); err != nil {
				f.refuse("anchor", "%s", err)
			}
		}
	}
	r.billFrom, r.trialEnd = f.instant("bill_from", false), f.instant("trial_end", false)
	r.quantity = f.whole("quantity", 1, 1_000_000)
	if r.status = f.optionalText("status", 40); r.status != nil {
		switch *r.status {
		case SubscriptionActive, SubscriptionTrialing, SubscriptionPaused, SubscriptionCancelled:
		case SubscriptionPastDue, SubscriptionUnpaid:
			f.refuse("status", "%s is about debts that are not here; import it as active, with bill_from at the first period to charge", *r.status)
		default:
			f.refuse("status", "%q is not one of active, trialing, paused, cancelled", clip(*r.status))
		}
	}
	r.metadata = f.metadata()
	f.policies(r)
}

// suspicious tells whether a line can hold a card number or a NUL at all: most
// have no thirteen digits near each other, and need no closer look.
func suspicious(line []byte) bool {
	digits := 0
	for _, c := range line {
		switch {
		case isDigit(c):
			if digits++; digits >= 13 {
				return true
			}
		case c == '\\': // may stand for anything
			return true
		case c == '"', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z':
			digits = 0
		}
	}
	return false
}

// inspect looks for card numbers in names, texts and numbers. It names the field
// and never the number.
func inspect(name string, value json.RawMessage) *FieldError {
	const problem = "looks like a card number; Singil never takes one: save the card at PayMongo and import its pm_ id"
	if HasCardNumber(name) {
		return &FieldError{"a field's name", problem}
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if err != nil {
			return nil
		}
		var text string
		switch token := token.(type) {
		case string:
			text = token
		case json.Number:
			text = token.String()
		}
		if HasCardNumber(text) {
			return &FieldError{clip(name), problem}
		}
	}
}

// cardNumber finds 13 to 19 digits in a row, or in groups with single blanks or
// dashes between them, that begin like a card and pass its check digit.
func cardNumber(s string) bool {
	for i := 0; i < len(s); {
		if !isDigit(s[i]) {
			i++
			continue
		}
		digits, end := run13(s, i)
		if n := len(digits); n >= 13 && n <= 19 && beginsLikeCard(string(digits)) && luhn(digits) {
			return true
		}
		// A run with separators may have a number without any inside of it.
		for part := range strings.FieldsFuncSeq(s[i:end], func(c rune) bool { return c < '0' || c > '9' }) {
			if n := len(part); n >= 13 && n <= 19 && beginsLikeCard(part) && luhn([]byte(part)) {
				return true
			}
		}
		i = end
	}
	return groupedCard(s)
}

// digitGroup is digits with what may stand between the groups of a card number.
var digitGroup = regexp.MustCompile(`[0-9]+([\s\x{a0}._/\x{2010}-\x{2015}-]{1,2})?`)

// cardShapes are how card numbers are printed.
var cardShapes = [][]int{{4, 4, 4, 4}, {4, 4, 4, 4, 3}, {4, 6, 5}, {4, 6, 4}, {4, 4, 5}}

// groupedCard finds a card number in groups among others: an expiry or a CVC
// often stands beside it.
func groupedCard(s string) bool {
	var lengths []int
	var digits []byte
	end := 0
	for _, at := range digitGroup.FindAllStringSubmatchIndex(s, -1) {
		group := s[at[0]:at[1]]
		if at[2] >= 0 {
			group = s[at[0]:at[2]]
		}
		if at[0] != end {
			lengths, digits = lengths[:0], digits[:0]
		}
		if end = at[1]; at[2] < 0 {
			end = -1 // what follows does not belong to it
		}
		lengths, digits = append(lengths, len(group)), append(digits, group...)
		for _, shape := range cardShapes {
			n := len(lengths) - len(shape)
			if n < 0 || !slices.Equal(lengths[n:], shape) {
				continue
			}
			size := 0
			for _, length := range shape {
				size += length
			}
			if number := digits[len(digits)-size:]; beginsLikeCard(string(number)) && luhn(number) {
				return true
			}
		}
	}
	return false
}

// run13 is the digits from i on, over single separators, and where they end.
func run13(s string, i int) (digits []byte, end int) {
	for i < len(s) {
		switch {
		case isDigit(s[i]):
			digits = append(digits, s[i])
			i++
		case (s[i] == ' ' || s[i] == '-') && i+1 < len(s) && isDigit(s[i+1]):
			i++
		default:
			return digits, i
		}
	}
	return digits, i
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func luhn(digits []byte) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
