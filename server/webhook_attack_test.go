package server_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/server"
	"github.com/singil/singil/worker"
)

// doorman is the server in front of a database that is away: it answers 503 to
// what it lets in, and turns everything else away without asking anybody.
func doorman(t *testing.T, livemode bool, log *slog.Logger, secrets ...string) *plant {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: "river", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	webhooks, err := worker.NewPayMongoWebhooks(livemode, secrets...)
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, now: noon, secret: secrets[0]}
	p.handler = server.New(server.Config{
		Inbox:    worker.NewInbox(worker.InboxConfig{Pool: pool, Jobs: jobs, Webhooks: webhooks, Log: log, Now: time.Now}),
		Registry: prometheus.NewRegistry(), Log: log,
	})
	return p
}

// deliver is a delivery with exactly these headers.
func (p *plant) deliver(header http.Header, body io.Reader) (int, string) {
	p.t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/webhooks/paymongo", body)
	req.Header = header
	answer := httptest.NewRecorder()
	p.handler.ServeHTTP(answer, req)
	return answer.Code, answer.Body.String()
}

func signed(values ...string) http.Header { return http.Header{"Paymongo-Signature": values} }

// Only a header whose parts are named, each once, opens the door.
func TestSignatureHeaderIsReadByNameNotByPosition(t *testing.T) {
	t.Parallel()
	p := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_test")
	body := p.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, "{}")
	at, mac := fmt.Sprint(noon.Unix()), p.mac(noon, body)
	zeros := strings.Repeat("0", 64)
	const in, out = http.StatusServiceUnavailable, http.StatusUnauthorized
	for _, tt := range []struct {
		name   string
		header http.Header
		want   int
	}{
		{"AsPayMongoWritesIt", signed("t=" + at + ",te=" + mac + ",li="), in},
		{"InAnotherOrder", signed("li=,te=" + mac + ",t=" + at), in},
		{"WithANameThatIsNew", signed("t=" + at + ",te=" + mac + ",li=,v2=" + zeros), in},
		{"BothModesFilled", signed("t=" + at + ",te=" + mac + ",li=" + zeros), in},
		{"PositionsWithoutNames", signed(at + "," + mac + ","), out},
		{"RightPositionWrongName", signed("t=" + at + ",li=" + mac + ",te="), out},
		{"OtherNames", signed("timestamp=" + at + ",test=" + mac + ",live="), out},
		{"NamesInCapitals", signed("T=" + at + ",TE=" + mac + ",LI="), out},
		{"NameTwiceRightFirst", signed("t=" + at + ",te=" + mac + ",te=" + zeros + ",li="), out},
		{"NameTwiceRightLast", signed("t=" + at + ",te=" + zeros + ",te=" + mac + ",li="), out},
		{"TimeTwice", signed("t=1,t=" + at + ",te=" + mac + ",li="), out},
		{"HeaderTwiceRightFirst", signed("t="+at+",te="+mac+",li=", "t="+at+",te="+zeros+",li="), out},
		{"HeaderTwiceRightLast", signed("t=1,te=,li=", "t="+at+",te="+mac+",li="), out},
		{"HalfOfTheSignature", signed("t=" + at + ",te=" + mac[:32] + ",li="), out},
		{"SignatureAndMore", signed("t=" + at + ",te=" + mac + "00,li="), out},
		{"NotHexadecimal", signed("t=" + at + ",te=" + strings.Repeat("g", 64) + ",li="), out},
		{"EmptySignatures", signed("t=" + at + ",te=,li="), out},
		{"Empty", signed(""), out},
		{"LongHeader", signed("t=" + at + ",te=" + mac + ",li=,x=" + strings.Repeat("x", 2000)), out},
		{"NoHeader", http.Header{}, out},
		{"UnderAnotherName", http.Header{"Stripe-Signature": {"t=" + at + ",te=" + mac + ",li="}}, out},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if status, answer := p.deliver(tt.header, strings.NewReader(body)); status != tt.want {
				t.Errorf("%d %s, want %d", status, answer, tt.want)
			}
		})
	}
}

// A daemon in live mode has no use for the test signature, right as it may be,
// and needs no change of code to read the live one.
func TestSignatureOfTheOwnModeIsTheOneThatCounts(t *testing.T) {
	t.Parallel()
	test, live := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_a"), doorman(t, true, slog.New(slog.DiscardHandler), "whsk_a")
	of := func(livemode string) string {
		return strings.Replace(test.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, "{}"), `"livemode":false`, `"livemode":`+livemode, 1)
	}
	for _, tt := range []struct {
		name, body, header  string
		wantTest, wantLives int
	}{
		{"TestSignature", of("false"), "t=%d,te=%s,li=", 503, 401},
		{"LiveSignature", of("true"), "t=%d,li=%s,te=", 401, 503},
		{"LiveEventUnderTestSignature", of("true"), "t=%d,te=%s,li=", 401, 401},
		{"TestEventUnderLiveSignature", of("false"), "t=%d,li=%s,te=", 401, 401},
		{"BothSignaturesTestEvent", of("false"), "t=%d,te=%[2]s,li=%[2]s", 503, 401},
		{"BothSignaturesLiveEvent", of("true"), "t=%d,te=%[2]s,li=%[2]s", 401, 503},
	} {
		header := fmt.Sprintf(tt.header, noon.Unix(), test.mac(noon, tt.body))
		for p, want := range map[*plant]int{test: tt.wantTest, live: tt.wantLives} {
			if status, answer := p.deliver(signed(header), strings.NewReader(tt.body)); status != want {
				t.Errorf("%s: %d %s, want %d", tt.name, status, answer, want)
			}
		}
	}
}

// What is signed is the bytes as they came. The same document written another
// way is another body.
func TestSignatureIsOverTheRawBody(t *testing.T) {
	t.Parallel()
	p := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_test")
	compact := p.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, "{}")
	for name, raw := range map[string]string{
		"KeyOrder":     strings.Replace(compact, `"id":"evt_1","type":"event",`, `"type":"event","id":"evt_1",`, 1),
		"WhiteSpace":   strings.ReplaceAll(compact, ":", ": "),
		"Newline":      compact + "\n",
		"Escapes":      strings.Replace(compact, `"evt_1"`, `"\u0065vt_1"`, 1),
		"ByteOrder":    "\ufeff" + compact,
		"NumberFormat": strings.Replace(compact, "49900", "4.99e4", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if status, answer := p.deliver(signed(p.header(noon, compact)), strings.NewReader(raw)); status != 401 {
				t.Errorf("the signature of the compact form let another one in: %d %s", status, answer)
			}
			if status, _ := p.deliver(signed(p.header(noon, raw)), strings.NewReader(raw)); status == 401 {
				t.Error("the signature over the raw body was refused")
			}
		})
	}
}

// Who somebody says they are is nothing to us: no header stands in for a
// signature.
func TestNoIdentityFromHeaders(t *testing.T) {
	t.Parallel()
	p := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_test")
	body := p.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, "{}")
	for name, value := range map[string]string{
		"X-Wcpay-Platform-Checkout-User": "1", "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "Authorization": "Basic c2tfdGVzdF9zZXJ2ZXI6",
		"X-Forwarded-User": "admin", "X-Original-Url": "/healthz", "X-Http-Method-Override": "GET", "Cookie": "admin=1",
	} {
		header := http.Header{}
		header.Set(name, value)
		if status, answer := p.deliver(header, strings.NewReader(body)); status != 401 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
}

// counting counts what is read of an endless body.
type counting struct{ n int }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	c.n += len(p)
	return len(p), nil
}

func TestLargeBodyIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	p := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_test")
	for name, tt := range map[string]struct {
		header     http.Header
		want, most int
	}{
		"Signed":    {signed(p.header(noon, "")), http.StatusRequestEntityTooLarge, 300 << 10},
		"NotSigned": {http.Header{}, http.StatusUnauthorized, 0},
	} {
		body := &counting{}
		if status, answer := p.deliver(tt.header, io.LimitReader(body, 10<<20)); status != tt.want || body.n > tt.most {
			t.Errorf("%s: %d %s after %d bytes, want %d after at most %d", name, status, answer, body.n, tt.want, tt.most)
		}
	}
}

// listen serves p's handler as the daemon does, with some limits shortened.
func (p *plant) listen(change func(*http.Server)) string {
	p.t.Helper()
	site := httptest.NewUnstartedServer(nil)
	site.Config = server.NewHTTPServer(p.handler, slog.New(slog.DiscardHandler))
	if change != nil {
		change(site.Config)
	}
	site.Start()
	p.t.Cleanup(site.Close)
	return site.Listener.Addr().String()
}

// One byte at a time holds a connection no longer than ReadTimeout, and that is
// set.
func TestSlowBodyIsCutOff(t *testing.T) {
	t.Parallel()
	p := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_test")
	address := p.listen(func(s *http.Server) {
		if s.ReadTimeout <= 0 || s.ReadTimeout > 15*time.Second || s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > 5*time.Second {
			t.Errorf("a client may take %s, and %s for the headers", s.ReadTimeout, s.ReadHeaderTimeout)
		}
		s.ReadTimeout = 300 * time.Millisecond
	})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "POST /webhooks/paymongo HTTP/1.1\r\nHost: x\r\nPaymongo-Signature: %s\r\nContent-Length: 1000\r\n\r\n", p.header(noon, ""))
	ended := make(chan error, 1)
	go func() {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && resp.StatusCode < 400 {
			err = fmt.Errorf("answered with %d", resp.StatusCode)
		} else {
			err = nil // refused or hung up, both are well
		}
		ended <- err
	}()
	drip := time.NewTicker(20 * time.Millisecond)
	defer drip.Stop()
	patience := time.After(10 * time.Second)
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		case <-drip.C:
			_, _ = conn.Write([]byte("x")) // the other end may have hung up
		case <-patience:
			t.Fatal("the connection is still held")
		}
	}
}

func TestManyHeadersAreRefused(t *testing.T) {
	t.Parallel()
	p := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_test")
	address := p.listen(nil)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var request strings.Builder
	request.WriteString("POST /webhooks/paymongo HTTP/1.1\r\nHost: x\r\n")
	for i := range 5000 {
		fmt.Fprintf(&request, "X-%d: y\r\n", i)
	}
	request.WriteString("Content-Length: 0\r\n\r\n")
	go func() { _, _ = io.WriteString(conn, request.String()) }() // the server stops reading before its end
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", resp, err)
	}
}

// locked is a buffer that many write to.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A forger learns nothing, not even from a log at its most talkative: neither
// what would have been right, nor what was sent.
func TestRefusedDeliveryIsNotLogged(t *testing.T) {
	t.Parallel()
	var out locked
	p := doorman(t, false, slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), "whsk_quiet")
	body := p.event("evt_marked", "payment.paid", "pay_marked", "pi_marked", 49900, `{"name":"marked"}`)
	forged := strings.Repeat("ab", 32)
	broken := `{"data":{"id":"marked","type":"marked","marked":`
	for header, body := range map[string]string{
		fmt.Sprintf("t=%d,te=%s,li=", noon.Unix(), forged):   body,
		fmt.Sprintf("t=%d,te=%s,li=", noon.Unix()+1, forged): body,
		"marked": body,
		"t=marked,te=" + p.mac(noon, body) + ",li=": body,
		p.header(noon, broken):                      broken,
		p.header(noon, `"marked"`):                  `"marked"`,
	} {
		status, answer := p.deliver(signed(header), strings.NewReader(body))
		if status != 401 && status != 400 {
			t.Errorf("%q: %d", header, status)
		}
		for _, secret := range []string{"marked", forged, p.mac(noon, body), "whsk_quiet"} {
			if strings.Contains(answer, secret) {
				t.Errorf("the answer to %q has %q in it: %s", header, secret, answer)
			}
		}
	}
	told := out.String()
	if strings.Count(told, "webhook refused") != 6 {
		t.Errorf("not every refusal is on the log:\n%s", told)
	}
	for _, secret := range []string{"marked", forged, p.mac(noon, body), p.mac(noon.Add(time.Second), body), p.mac(noon, broken), "whsk_quiet"} {
		if strings.Contains(told, secret) {
			t.Errorf("%q is on the log:\n%s", secret, told)
		}
	}
}

// Of a name that stands there twice, one parser takes the first and another the
// last: such a body is none of PayMongo's.
func TestEventWithANameTwiceIsRefused(t *testing.T) {
	t.Parallel()
	p := doorman(t, false, slog.New(slog.DiscardHandler), "whsk_test")
	one := p.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, "{}")
	two := p.event("evt_2", "payment.failed", "pay_2", "pi_2", 100, "{}")
	inner := strings.TrimSuffix(strings.TrimPrefix(two, "{"), "}")
	for name, body := range map[string]string{
		"Data":                strings.TrimSuffix(one, "}") + "," + inner + "}",
		"DataInCapitals":      strings.TrimSuffix(one, "}") + "," + strings.Replace(inner, `"data"`, `"DATA"`, 1) + "}",
		"DataBehindAnEscape":  strings.TrimSuffix(one, "}") + "," + strings.Replace(inner, `"data"`, `"d\u0061ta"`, 1) + "}",
		"ID":                  strings.Replace(one, `"id":"evt_1"`, `"id":"evt_2","id":"evt_1"`, 1),
		"Livemode":            strings.Replace(one, `"livemode":false`, `"livemode":true,"livemode":false`, 1),
		"TheSameTwice":        strings.Replace(one, `"type":"event"`, `"type":"event","type":"event"`, 1),
		"TypeByAnotherCase":   strings.Replace(one, `"type":"payment.paid"`, `"Type":"payment.failed","type":"payment.paid"`, 1),
		"Resource":            strings.Replace(one, `"previous_data"`, `"data":{},"previous_data"`, 1),
		"ResourceID":          strings.Replace(one, `"id":"pay_1"`, `"id":"pay_2","id":"pay_1"`, 1),
		"AmountOfThePayment":  strings.Replace(one, `"amount":49900`, `"amount":1,"amount":49900`, 1),
		"StatusOfThePayment":  strings.Replace(one, `"status":"paid"`, `"status":"failed","\u017ftatus":"paid"`, 1),
		"IntentOfThePayment":  strings.Replace(one, `"payment_intent_id":"pi_1"`, `"payment_intent_id":"pi_2","payment_intent_id":"pi_1"`, 1),
		"MetadataOfAnInvoice": strings.Replace(one, `"metadata":{}`, `"metadata":{"invoice":"x"},"metadata":{}`, 1),
	} {
		if status, answer := p.deliver(signed(p.header(noon, body)), strings.NewReader(body)); status != 400 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	// What a merchant calls the things that belong to nobody but the merchant is no concern of ours.
	body := p.event("evt_1", "payment.paid", "pay_1", "pi_1", 49900, `{"Plan":"a","plan":"b"}`)
	if status, answer := p.deliver(signed(p.header(noon, body)), strings.NewReader(body)); status != 503 {
		t.Errorf("names of metadata that differ by case: %d %s", status, answer)
	}
}

// A delivery that comes again, one after the other and all at once, is one row,
// one job and one effect.
func TestReplayedDeliveryHasOneEffect(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", good)
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.attach", Times: 1})
	p.fault(sandbox.Fault{Kind: sandbox.WebhookLost, Probability: 1})
	p.tick()
	p.want("open provider", `SELECT status || ' ' || waiting_for FROM singil.invoices`)
	intent := p.text(`SELECT provider_intent_id FROM singil.payment_intents`)
	payment := p.taken(intent)
	body := p.event("evt_1", "payment.paid", payment, intent, 49900, "{}")

	var deliveries sync.WaitGroup
	for range 8 {
		deliveries.Go(func() {
			if status, answer := p.post(body); status != 200 {
				t.Errorf("%d %s", status, answer)
			}
		})
	}
	deliveries.Wait()
	p.settle()
	for i := range 5 { // signed anew, as a repetition may be, and with the old signature
		header := p.header(p.now.Add(time.Duration(i)*time.Minute), body)
		if status, answer := p.do(http.MethodPost, "/webhooks/paymongo", header, []byte(body)); status != 200 {
			t.Errorf("%d %s", status, answer)
		}
		p.settle()
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM singil.webhook_events`:                                             1,
		`SELECT count(*) FROM river.river_job WHERE kind = 'webhook'`:                            1,
		`SELECT count(*) FROM river.river_job WHERE kind = 'reconcile'`:                          1,
		`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`:                             1,
		`SELECT count(*) FROM singil.payments`:                                                   1,
		`SELECT count(*) FROM singil.events WHERE type = 'invoice.paid'`:                         1,
		`SELECT count(*) FROM singil.attempts`:                                                   1,
		`SELECT count(*) FROM singil.payments WHERE source = 'webhook' OR amount_minor <> 49900`: 0,
	} {
		if n := p.number(sql); n != want {
			t.Errorf("%s: %d, want %d", sql, n, want)
		}
	}
	p.wantMetric(`singil_webhook_events_total{result="duplicate",type="payment.paid"} 12`)
}

// The id of an event is spent by whoever comes first: another body under it, as
// authentic as it may be, changes nothing.
func TestAnotherBodyUnderTheSameIDIsADuplicate(t *testing.T) {
	t.Parallel()
	p := setup(t)
	for _, amount := range []int{49900, 1} {
		if status, _ := p.post(p.event("evt_1", "payment.failed", "pay_1", "pi_1", amount, "{}")); status != 200 {
			t.Error(status)
		}
	}
	p.settle()
	p.want("1 true", `SELECT count(*) || ' ' || bool_and(encode(body, 'escape') LIKE '%49900%') FROM singil.webhook_events`)
}

// An old signature is authentic still: what it says is asked, and the answer
// counts, not the event.
func TestStaleDeliveryIsAskedNeverTrusted(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.fault(sandbox.Fault{Kind: sandbox.WebhookLost, Probability: 1})
	p.subscribe("lost-answer", good)
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.attach", Times: 1})
	p.tick()
	p.subscribe("nothing-sent", good)
	p.fault(sandbox.Fault{Kind: sandbox.ResetBefore, Endpoint: "payment_intents.attach", Times: 1})
	p.tick()
	p.want("open provider, open provider", `SELECT string_agg(status || ' ' || waiting_for, ', ') FROM singil.invoices`)
	for _, name := range []string{"lost-answer", "nothing-sent"} {
		intent := p.text(`SELECT pi.provider_intent_id FROM singil.payment_intents pi JOIN singil.invoices i ON i.id = pi.invoice_id
			JOIN singil.subscriptions s ON s.id = i.subscription_id WHERE s.external_id = '` + name + `'`)
		body := p.event("evt_"+name, "payment.paid", "pay_said_"+name, intent, 49900, "{}")
		for _, age := range []time.Duration{3 * 24 * time.Hour, -3 * 24 * time.Hour} { // one signed in the future is none the fresher
			if status, answer := p.do(http.MethodPost, "/webhooks/paymongo", p.header(p.now.Add(-age), body), []byte(body)); status != 200 {
				t.Errorf("%d %s", status, answer)
			}
		}
	}
	p.settle()
	p.want("2 true", `SELECT count(*) || ' ' || bool_and(stale) FROM singil.webhook_events`)
	if n := p.number(`SELECT count(*) FROM river.river_job WHERE kind = 'reconcile'`); n != 2 {
		t.Errorf("%d looks, want one for each", n)
	}
	p.want("lost-answer paid, nothing-sent open", `SELECT string_agg(s.external_id || ' ' || i.status, ', ' ORDER BY s.external_id)
		FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`)
	if n := p.number(`SELECT count(*) FROM singil.payments WHERE payment_id LIKE 'pay_said%'`); n != 0 {
		t.Errorf("%d payments are on record that only a webhook told of", n)
	}
}

// An authentic event says that a payment is for our invoice: on the intent of
// another invoice, on one that is not ours, of another installation. None of it
// pays anything.
func TestAuthenticEventPaysNothingByItself(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.fault(sandbox.Fault{Kind: sandbox.WebhookLost, Probability: 1})
	p.subscribe("s1", "4400000000000016") // always declined
	p.subscribe("s2", "4400000000000016")
	p.tick()
	invoice := func(name string) (id, intent string) {
		row := p.text(`SELECT i.id || ' ' || pi.provider_intent_id FROM singil.invoices i JOIN singil.payment_intents pi ON pi.invoice_id = i.id
			JOIN singil.subscriptions s ON s.id = i.subscription_id WHERE s.external_id = '` + name + `'`)
		id, intent, _ = strings.Cut(row, " ")
		return id, intent
	}
	first, firstIntent := invoice("s1")
	second, _ := invoice("s2")
	for name, body := range map[string]string{
		"another-amount":      p.event("evt_a", "payment.paid", "pay_a", firstIntent, 1, "{}"),
		"another-invoice":     p.event("evt_b", "payment.paid", "pay_b", firstIntent, 49900, `{"environment":"dev","invoice":"`+second+`"}`),
		"intent-not-ours":     p.event("evt_c", "payment.paid", "pay_c", "pi_notOurs", 49900, `{"environment":"dev","invoice":"`+first+`"}`),
		"other-environment":   p.event("evt_d", "payment.paid", "pay_d", firstIntent, 49900, `{"environment":"production","invoice":"`+first+`"}`),
		"another-currency":    strings.Replace(p.event("evt_e", "payment.paid", "pay_e", firstIntent, 49900, "{}"), `"PHP"`, `"USD"`, 1),
		"no-intent":           p.event("evt_f", "payment.paid", "pay_f", "", 49900, `{"environment":"dev","invoice":"`+first+`"}`),
		"negative-amount":     p.event("evt_g", "payment.paid", "pay_g", firstIntent, -49900, "{}"),
		"live-payment-inside": strings.Replace(p.event("evt_h", "payment.paid", "pay_h", firstIntent, 49900, "{}"), `"status":"paid","livemode":false`, `"status":"paid","livemode":true`, 1),
	} {
		if status, answer := p.post(body); status != 200 {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	p.settle()
	for after := time.Hour; after <= 8*time.Hour; after += 7 * time.Hour {
		p.set(noon.Add(after))
		p.tick()
	}
	// Money for an open invoice on an intent that the books do not have: nobody is charged before a human has looked.
	p.want("s1 review, s2 open", `SELECT string_agg(s.external_id || ' ' || i.status, ', ' ORDER BY s.external_id)
		FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`)
	if n := p.number(`SELECT count(*) FROM singil.events WHERE type = 'invoice.paid'`); n != 0 {
		t.Errorf("%d invoices were told to be paid", n)
	}
	p.want("ignored", `SELECT result FROM singil.webhook_events WHERE event_id = 'evt_d'`)
	p.want("2", `SELECT count(*)::text FROM singil.attempts`) // and nobody was charged sooner for it
	// Money that is really there and not asked for is on record, as what it is, for no invoice.
	p.want("0", `SELECT count(*)::text FROM singil.payments WHERE invoice_id IS NOT NULL AND payment_id LIKE 'pay__'`)
}

// Four deliveries about one payment, in every order: the end is the same.
func TestEventsInEveryOrderEndTheSame(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.fault(sandbox.Fault{Kind: sandbox.WebhookLost, Probability: 1})
	p.fault(sandbox.Fault{Kind: sandbox.ResetAfter, Endpoint: "payment_intents.attach", Probability: 1})
	orders := permutations([]string{"paid", "failed", "refunded", "processing"})
	for i := range orders {
		p.subscribe(fmt.Sprintf("s%02d", i), good)
	}
	p.tick()
	deliveries := make([]map[string]string, len(orders))
	for i := range orders {
		name := fmt.Sprintf("s%02d", i)
		intent := p.text(`SELECT pi.provider_intent_id FROM singil.payment_intents pi JOIN singil.invoices i ON i.id = pi.invoice_id
			JOIN singil.subscriptions s ON s.id = i.subscription_id WHERE s.external_id = '` + name + `'`)
		payment := p.taken(intent)
		paid := p.event("evt_paid_"+name, "payment.paid", payment, intent, 49900, "{}")
		deliveries[i] = map[string]string{
			"paid":   paid,
			"failed": p.event("evt_failed_"+name, "payment.failed", "pay_failed_"+name, intent, 49900, "{}"),
			"refunded": strings.NewReplacer(`"evt_paid_`, `"evt_refunded_`, `"type":"payment.paid"`, `"type":"payment.refunded"`, `"refunds":[]`,
				`"refunds":[{"id":"ref_1","type":"refund","attributes":{"amount":10000,"currency":"PHP","payment_id":"`+payment+`","status":"succeeded"}}]`).Replace(paid),
			"processing": fmt.Sprintf(`{"data":{"id":"evt_processing_%s","type":"event","attributes":{"type":"payment_intent.processing","livemode":false,"data":`+
				`{"id":%q,"type":"payment_intent","attributes":{"amount":49900,"currency":"PHP","status":"processing","livemode":false,"payments":[]}}}}}`, name, intent),
		}
	}
	for turn := range 4 {
		for i, order := range orders {
			if status, answer := p.post(deliveries[i][order[turn]]); status != 200 {
				t.Errorf("%v: %s: %d %s", order, order[turn], status, answer)
			}
		}
		p.settle()
	}
	for after := 2 * time.Minute; after <= 9*time.Hour; after *= 3 {
		p.set(noon.Add(after))
		p.tick()
	}
	const state = `SELECT string_agg(DISTINCT concat_ws(' ', i.status, i.attempt_count,
			(SELECT string_agg(concat_ws('/', a.state, a.decline_code), ',') FROM singil.attempts a WHERE a.invoice_id = i.id),
			(SELECT string_agg(concat_ws('/', p.status, p.amount_minor, p.refunded_minor, p.source), ',') FROM singil.payments p WHERE p.invoice_id = i.id),
			(SELECT string_agg(type || ' ' || COALESCE(result, 'waits'), ',' ORDER BY type) FROM singil.webhook_events w WHERE w.event_id LIKE '%' || s.external_id),
			(SELECT string_agg(e.type, ',' ORDER BY e.type) FROM singil.events e WHERE e.subscription_id = s.id)), ' and ')
		FROM singil.invoices i JOIN singil.subscriptions s ON s.id = i.subscription_id`
	p.want("paid 1 succeeded paid/49900/10000/retrieve payment.failed applied,payment.paid applied,payment.refunded applied,payment_intent.processing applied invoice.paid", state)
	if len(orders) != 24 {
		t.Errorf("%d orders", len(orders))
	}
}

func permutations(of []string) (all [][]string) {
	if len(of) == 0 {
		return [][]string{nil}
	}
	for i := range of {
		for _, rest := range permutations(slices.Delete(slices.Clone(of), i, i+1)) {
			all = append(all, append([]string{of[i]}, rest...))
		}
	}
	return all
}

// taken is the payment that the provider has on an intent.
func (p *plant) taken(intent string) string {
	p.t.Helper()
	for _, entry := range p.box.Ledger().Intents {
		if entry.ID == intent && len(entry.Payments) == 1 && entry.Payments[0].Status == "paid" {
			return entry.Payments[0].ID
		}
	}
	p.t.Fatalf("the provider has not one payment on %s", intent)
	return ""
}
