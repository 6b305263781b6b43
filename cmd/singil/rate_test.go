package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/singil/singil/internal/pgtest"
)

// rateShared has two daemons with more work than the rate allows. Together they
// stay under it: each has its own address of the sandbox, where arrivals are
// written down.
func rateShared(t *testing.T, binary string) {
	d := newBadDay(t, binary, pgtest.DSN(t))
	const n, calls, rate = 260, 2 * 260, 130 // a create and an attach each
	var mu sync.Mutex
	var arrivals [2][]time.Time
	var daemons [2]*process
	for i := range daemons {
		recorder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			arrivals[i] = append(arrivals[i], time.Now())
			mu.Unlock()
			d.box.ServeHTTP(w, r)
		}))
		t.Cleanup(recorder.Close)
		// Few under way at a time, so that neither takes it all.
		daemons[i] = d.launch("PAYMONGO_RATE=130", "SINGIL_IN_FLIGHT=40", "PAYMONGO_BASE_URL="+recorder.URL+"/v1")
	}
	d.subscribe(n)
	start := time.Now()
	d.set(d.now.Add(time.Minute))
	d.await("all is paid", func() bool { return d.box.Summary("invoice").PaidPayments == n })
	for _, p := range daemons {
		p.stop()
	}
	d.allPaidOnce(n)

	all := slices.Concat(arrivals[:]...)
	all = slices.DeleteFunc(all, func(at time.Time) bool { return at.Before(start) }) // of a sweep in between
	slices.SortFunc(all, time.Time.Compare)
	if len(all) < calls/2 {
		t.Fatalf("%d calls are left to look at", len(all))
	}
	took := all[len(all)-1].Sub(all[0])
	t.Logf("%d calls, %d and %d in all, in %s", len(all), len(arrivals[0]), len(arrivals[1]), took)
	if len(arrivals[0]) < calls/10 || len(arrivals[1]) < calls/10 {
		t.Errorf("%d and %d calls: that is no test of two daemons", len(arrivals[0]), len(arrivals[1]))
	}
	// Each for itself they would need half of it. A call may arrive late, which
	// shortens it if it is the first.
	want := time.Duration(len(all)-1) * time.Second / rate
	if took < want*3/4 {
		t.Errorf("%d calls arrived within %s, want %s: faster than the rate of %d", len(all), took, want, rate)
	}
}
