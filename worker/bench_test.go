package worker

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/singil/singil/paymongo"
)

// Benchmarks of what each charge pays between the queue, the database and the
// client: make bench-micro.

// BenchmarkBatcher has a few hundred callers hand in rows, as many as charge at
// once: for a flush that takes no time, and for one that takes as long as a commit.
func BenchmarkBatcher(b *testing.B) {
	for _, bm := range []struct {
		name  string
		takes time.Duration
	}{{"NoTime", 0}, {"Millisecond", time.Millisecond}} {
		b.Run(bm.name, func(b *testing.B) {
			var flushes atomic.Int64
			batches := newBatcher(200, 2, func(_ context.Context, rows []int) ([]int, error) {
				flushes.Add(1)
				if bm.takes > 0 {
					<-time.After(bm.takes)
				}
				return rows, nil
			})
			b.ReportAllocs()
			b.SetParallelism(100)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if got, err := batches.Do(b.Context(), 7); err != nil || got != 7 {
						b.Error(got, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/float64(flushes.Load()), "rows/flush")
		})
	}
}

// fixture is a body as PayMongo sends it.
func fixture(b *testing.B, name string) []byte {
	b.Helper()
	body, err := os.ReadFile("../paymongo/testdata/" + name)
	if err != nil {
		b.Fatal(err)
	}
	return body
}

// BenchmarkProviderIntent turns the client's words into those of package billing.
func BenchmarkProviderIntent(b *testing.B) {
	var intent paymongo.PaymentIntent
	if err := intent.UnmarshalJSON(fixture(b, "payment_intent_failed.json")); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if seen := providerIntent(&intent); len(seen.Payments) == 0 {
			b.Fatal("no payments")
		}
	}
}

func BenchmarkReadNotice(b *testing.B) {
	body := fixture(b, "event_payment_failed.json")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if n, err := readNotice(body); err != nil || !n.AboutMoney {
			b.Fatalf("%+v %v", n, err)
		}
	}
}
