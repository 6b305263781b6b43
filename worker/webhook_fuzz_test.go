package worker

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

const fuzzSecret = "whsk_fuzz"

// fuzzInbox is an inbox in front of no database: whatever is to be stored ends
// with an error that is neither of the two refusals.
func fuzzInbox(f *testing.F) *Inbox {
	f.Helper()
	pool, err := pgxpool.New(context.Background(), "postgres://nobody@127.0.0.1:1/none")
	if err != nil {
		f.Fatal(err)
	}
	pool.Close() // so that nobody dials
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: "river", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	webhooks, err := NewPayMongoWebhooks(false, fuzzSecret)
	if err != nil {
		f.Fatal(err)
	}
	return NewInbox(InboxConfig{Pool: pool, Jobs: jobs, Webhooks: webhooks, Log: slog.New(slog.DiscardHandler), Now: time.Now})
}

func fuzzHeader(at string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(fuzzSecret))
	_, _ = mac.Write(append([]byte(at+"."), body...))
	return "t=" + at + ",te=" + hex.EncodeToString(mac.Sum(nil)) + ",li="
}

// FuzzWebhook: any body under a right signature is refused as no event, or is
// one that the database takes, about one mode and with one id; under any other
// signature it is refused before anything of it is read.
func FuzzWebhook(f *testing.F) {
	const event = `{"data":{"id":"evt_1","type":"event","attributes":{"type":"payment.paid","livemode":false,"data":{"id":"pay_1","type":"payment","attributes":{` +
		`"amount":49900,"currency":"PHP","status":"paid","livemode":false,"payment_intent_id":"pi_1","metadata":{"environment":"dev","invoice":"0198c5a0-0000-7000-8000-000000000000"},` +
		`"refunds":[{"id":"ref_1","type":"refund","attributes":{"amount":100,"status":"succeeded","payment_id":"pay_1"}}],"created_at":1769832000}},"created_at":1769832000}}}`
	for _, body := range []string{
		event, "", "{}", "null", "[]", `{"data":{"id":"evt_1","type":"event","attributes":{"type":"x"}}}`,
		strings.Replace(event, `"livemode":false`, `"livemode":true`, 1), strings.Replace(event, "evt_1", `evt_\u0000`, 1),
		strings.Replace(event, "payment.paid", `\u0000`, 1), strings.Replace(event, "pay_1", `pay_\u0000`, 2), strings.Replace(event, "pi_1", `pi_\u0000`, 1),
		strings.Replace(event, "PHP", `\u0000`, 1), strings.Replace(event, "dev", `\u0000`, 1), strings.Replace(event, "49900", "1e400", 1),
		strings.Replace(event, `"amount":100`, `"amount":9223372036854775807`, 1), strings.Replace(event, "1769832000", "-1", 1),
		strings.Replace(event, `"data":{"id"`, `"data":{"id":"evt_2","id"`, 1), event + event, strings.Repeat("[", 20000),
		strings.Replace(event, `"type":"payment"`, `"type":"payment_intent"`, 1), strings.Replace(event, `"type":"payment"`, `"type":"refund"`, 1),
	} {
		f.Add("1769832000", []byte(body))
	}
	f.Add("-1", []byte(event))
	f.Add("99999999999", []byte(event))
	inbox := fuzzInbox(f)
	f.Fuzz(func(t *testing.T, at string, body []byte) {
		_, _, err := inbox.receive(t.Context(), fuzzHeader(at, body)[:20], body)
		if !errors.Is(err, ErrNotAuthentic) {
			t.Fatalf("half a header: %v", err)
		}
		if _, _, err := inbox.receive(t.Context(), fuzzHeader(at, body), append(bytes.Clone(body), ' ')); !errors.Is(err, ErrNotAuthentic) {
			t.Fatalf("another body: %v", err)
		}
		_, n, err := inbox.receive(t.Context(), fuzzHeader(at, body), body)
		switch {
		case errors.Is(err, ErrNotAuthentic), errors.Is(err, ErrNotAnEvent):
			if strings.ContainsAny(err.Error(), "\x00\n") {
				t.Fatalf("%q cannot be logged", err)
			}
			return
		case err == nil:
			t.Fatal("stored without a database")
		}
		// From here on it would be stored: a body that the database refuses would come again for hours.
		if n.Livemode {
			t.Fatalf("a live event is let in: %s", body)
		}
		again, err := readNotice(body)
		if err != nil || again.EventID != n.EventID {
			t.Fatalf("read as %s, and again as %s, %v", n.EventID, again.EventID, err)
		}
		if n.EventID == "" || len(n.EventID) > 200 || n.Type == "" || n.Paid && !n.AboutMoney {
			t.Fatalf("%+v", n)
		}
		texts := []string{n.EventID, n.Type, n.ResourceID, n.IntentID, n.RefundOf, n.Environment}
		for _, p := range n.Payments {
			texts = append(texts, p.ID, string(p.Amount.Currency))
			if p.ID == "" || p.Status != "paid" {
				t.Fatalf("a payment %+v", p)
			}
		}
		for _, text := range texts {
			if strings.ContainsRune(text, 0) || !utf8.ValidString(text) || len(text) > 256 {
				t.Fatalf("%q cannot be stored", text)
			}
		}
		if n.RefundedMinor < 0 {
			t.Fatalf("%d was given back", n.RefundedMinor)
		}
		if n.Unreadable != nil && n.Paid {
			t.Fatalf("unreadable, and paid: %s", body)
		}
	})
}

// An answer of the provider's that no database takes would keep the outcome of a
// charge open for ever: it is stored as what can be.
func TestPlainIsWhatADatabaseTakes(t *testing.T) {
	t.Parallel()
	if got := plain("pay_1"); got != "pay_1" {
		t.Error(got)
	}
	for word, want := range map[string]string{"": "", "pay_\x00": `"pay_\x00"`, "ab c": `"ab c"`, "₱": `"\u20b1"`} {
		if got := plain(word); got != want {
			t.Errorf("%q becomes %s, want %s", word, got, want)
		}
	}
	if n := len(plain(strings.Repeat("\x00", 1<<20))); n > 1000 {
		t.Errorf("%d bytes", n)
	}
}
