package sandbox

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkCharge is what one charge costs over loopback: create an intent,
// attach a card. Two requests an operation; the caller runs on the same cores.
//
//	go test -run '^$' -bench Charge -benchtime 5s ./paymongo/sandbox
func BenchmarkCharge(b *testing.B) {
	box, err := New(Options{Seed: 1, MaxRecords: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(box)
	b.Cleanup(func() {
		server.Close()
		if err := box.Close(); err != nil {
			b.Error(err)
		}
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	post := func(path, attrs string) string {
		req, err := http.NewRequest("POST", server.URL+path, strings.NewReader(`{"data":{"attributes":`+attrs+`}}`))
		if err != nil {
			b.Error(err)
			return ""
		}
		req.SetBasicAuth("sk_test_bench", "")
		resp, err := client.Do(req)
		if err != nil {
			b.Error(err)
			return ""
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Errorf("%d %s %v", resp.StatusCode, body, err)
			return ""
		}
		_, rest, _ := strings.Cut(string(body), `"id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		return id
	}
	card := post("/v1/payment_methods", `{"type":"card","details":{"card_number":"4343434343434345","exp_month":12,"exp_year":2030,"cvc":"123"}}`)
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			pi := post("/v1/payment_intents", `{"amount":10000,"currency":"PHP","payment_method_allowed":["card"],"metadata":{"invoice":"in_1"}}`)
			post("/v1/payment_intents/"+pi+"/attach", `{"payment_method":"`+card+`"}`)
		}
	})
	b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
