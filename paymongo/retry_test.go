package paymongo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script answers one try after the other; the last step serves all that follow.
type script struct {
	mu    sync.Mutex
	steps []roundTripFunc
	at    []time.Duration // when each try came, since the first
	first time.Time
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	if s.first.IsZero() {
		s.first = time.Now()
	}
	s.at = append(s.at, time.Since(s.first))
	step := s.steps[min(len(s.at), len(s.steps))-1]
	s.mu.Unlock()
	return step(r)
}

// unsent fails before reading the request, as a refused connection does.
func unsent(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

func slow(d time.Duration) roundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		swallow(r)
		select {
		case <-time.After(d):
			return response(r, 200, intentAnswer), nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

func cutShort(r *http.Request) (*http.Response, error) {
	swallow(r)
	resp := response(r, 200, intentAnswer[:20])
	resp.Body = io.NopCloser(io.MultiReader(resp.Body, cutOff{}))
	return resp, nil
}

// TestRetry says of every failure whether a read and a write are tried again after it.
func TestRetry(t *testing.T) {
	t.Parallel()
	never := `{"errors":[{"code":"parameter_invalid"}]}`
	for _, tt := range []struct {
		name        string
		failure     roundTripFunc
		read, write bool
	}{
		{"BadRequest", answering(400, never), false, false},
		{"ConnectionLost", failing(io.EOF), true, false},
		{"CutAnswer", cutShort, true, false},
		{"CutAnswerUnnoticed", answering(200, intentAnswer[:50]), true, false},
		{"Forbidden", answering(403, never), false, false},
		{"HTML", answering(200, "<html>"), false, false},
		{"NeverSent", unsent, true, true},
		{"NotFound", answering(404, never), false, false},
		{"OtherResource", answering(200, strings.ReplaceAll(intentAnswer, "pi_1", "pi_2")), false, false},
		{"RateLimited", answering(429, "Too many requests"), true, false},
		{"Redirect", answering(302, "", "Location", "https://elsewhere.example/"), false, false},
		{"RequestTimeout", answering(408, ""), false, false},
		{"ServerFault", answering(500, never), true, false},
		{"Timeout", slow(time.Hour), true, false},
		{"TooLarge", answering(200, strings.Repeat(" ", maxAnswer+1)), false, false},
		{"Unauthorized", answering(401, never), false, false},
		{"Unavailable", answering(503, "<html>"), true, false},
	} {
		check := func(name string, again bool, call func(context.Context, *Client) error) {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &script{steps: []roundTripFunc{tt.failure, answering(200, intentAnswer)}}
					err := call(t.Context(), inMemory(t, s))
					want := 1
					if again {
						want = 2
					}
					if len(s.at) != want || (err == nil) != again {
						t.Errorf("%d tries and %v, want %d tries", len(s.at), err, want)
					}
				})
			})
		}
		check("Read", tt.read, retrieve)
		check("Write", tt.write, func(ctx context.Context, c *Client) error { return attach(ctx, c, "a-key") })
		check("WriteWithoutAttributes", tt.write, func(ctx context.Context, c *Client) error { return cancelIntent(ctx, c, "a-key") })
	}
}

func TestRetryEnds(t *testing.T) {
	t.Parallel()
	bubble := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f)
		})
	}
	bubble("AfterMaxElapsedTime", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(500, "")}}
		start := time.Now()
		err := retrieve(t.Context(), inMemory(t, s, WithMaxElapsedTime(5*time.Second)))
		if took := time.Since(start); took > 5*time.Second || len(s.at) < 3 {
			t.Errorf("%d tries in %s", len(s.at), took)
		}
		checkVerdict(t, "retrieve", err, VerdictUnknown, reasonServerFault)
	})
	bubble("AtOnceWithoutTime", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{unsent}}
		if err := retrieve(t.Context(), inMemory(t, s, once)); err == nil || len(s.at) != 1 {
			t.Errorf("%d tries, %v", len(s.at), err)
		}
	})
	bubble("AtSendBefore", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{unsent}}
		start := time.Now()
		_, err := inMemory(t, s).PaymentIntents.Attach(t.Context(), "pi_1", &PaymentIntentAttachParams{
			PaymentMethod: "pm_1", SendBefore: start.Add(time.Second),
		})
		if !NeverSent(err) || time.Since(start) > time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
	bubble("AtTheContextsDeadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := &script{steps: []roundTripFunc{answering(500, "")}}
		err := retrieve(ctx, inMemory(t, s))
		checkVerdict(t, "retrieve", err, VerdictUnknown, reasonServerFault)
		if ctx.Err() != nil {
			t.Error("it waited for a deadline that no try could meet")
		}
	})
	bubble("WhenCanceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		s := &script{steps: []roundTripFunc{answering(500, "")}}
		start := time.Now()
		err := retrieve(ctx, inMemory(t, s))
		checkVerdict(t, "retrieve", err, VerdictUnknown, reasonServerFault)
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %s to notice", took)
		}
	})
}

// TestTimeouts says which timeout a call gets, by the time at which a try is given up.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		want time.Duration
		call func(context.Context, *Client) error
	}{
		{"Attach", 20 * time.Second, func(ctx context.Context, c *Client) error { return attach(ctx, c, "") }},
		{"Delete", 10 * time.Second, func(ctx context.Context, c *Client) error { _, err := c.Customers.Delete(ctx, "cus_1"); return err }},
		{"Read", 5 * time.Second, retrieve},
		{"Write", 10 * time.Second, func(ctx context.Context, c *Client) error { return cancelIntent(ctx, c, "") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := tt.call(t.Context(), inMemory(t, slow(time.Hour), once))
				checkVerdict(t, tt.name, err, VerdictUnknown, reasonTimeout)
				if took := time.Since(start); took != tt.want {
					t.Errorf("given up after %s, want %s", took, tt.want)
				}
			})
		})
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	limited := answering(429, "Too many requests, please try again later.")
	bubble := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f)
		})
	}
	bubble("EndsAtOnceForWhomItIsTooLong", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(200, intentAnswer)}}
		c := inMemory(t, s)
		c.HoldUntil(time.Now().Add(10 * time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		err := attach(ctx, c, "")
		checkVerdict(t, "attach", err, VerdictNeverSent, reasonHold)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 || len(s.at) != 0 {
			t.Errorf("%v after %s and %d tries", err, time.Since(start), len(s.at))
		}
		_, err = c.PaymentIntents.Attach(t.Context(), "pi_1", &PaymentIntentAttachParams{
			PaymentMethod: "pm_1", SendBefore: time.Now().Add(5 * time.Second),
		})
		checkVerdict(t, "attach with SendBefore", err, VerdictNeverSent, reasonPastSendBefore)
	})
	bubble("GrowsWithoutRetryAfter", func(t *testing.T) {
		c := inMemory(t, &script{steps: []roundTripFunc{
			limited, limited, limited, limited, limited, limited, limited, limited,
			answering(200, intentAnswer), limited,
		}})
		var pauses []time.Duration
		for range 10 {
			_ = attach(t.Context(), c, "")
			if until := c.HeldUntil(); !until.IsZero() {
				pauses = append(pauses, time.Until(until))
			}
		}
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 1}
		if len(pauses) != len(want) {
			t.Fatalf("pauses %v", pauses)
		}
		for i := range want {
			if pauses[i] != want[i]*time.Second {
				t.Errorf("pause %d is %s, want %d s", i, pauses[i], want[i])
			}
		}
	})
	bubble("GrowsOnceForCallsInFlightTogether", func(t *testing.T) {
		c := inMemory(t, roundTripFunc(func(r *http.Request) (*http.Response, error) {
			<-time.After(100 * time.Millisecond)
			return limited(r)
		}))
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { _ = attach(t.Context(), c, "") })
		}
		wg.Wait()
		if pause := time.Until(c.HeldUntil()); pause != time.Second {
			t.Errorf("held for %s after 50 answers at once, want 1 s", pause)
		}
	})
	bubble("HoldsEveryCall", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(429, "", "Retry-After", "7"), answering(200, intentAnswer)}}
		var waited time.Duration
		c := inMemory(t, s, WithObserver(func(_ context.Context, e Exchange) { waited = e.Wait }))
		err := attach(t.Context(), c, "")
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter != 7*time.Second {
			t.Errorf("got %v", err)
		}
		if err := attach(t.Context(), c, ""); err != nil {
			t.Error(err)
		}
		if s.at[1] != 7*time.Second || waited != 7*time.Second {
			t.Errorf("the second call went after %s and was told to have waited %s, want 7 s", s.at[1], waited)
		}
	})
	bubble("IsTakenBack", func(t *testing.T) {
		c := inMemory(t, answering(200, intentAnswer))
		c.HoldUntil(time.Now().Add(time.Hour))
		c.HoldUntil(time.Time{})
		if until := c.HeldUntil(); !until.IsZero() {
			t.Errorf("still held until %s", until)
		}
	})
	bubble("IsWaitedForByARetry", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(429, "", "Retry-After", "12"), answering(200, intentAnswer)}}
		if err := retrieve(t.Context(), inMemory(t, s)); err != nil || len(s.at) != 2 || s.at[1] != 12*time.Second {
			t.Errorf("tries at %v, %v", s.at, err)
		}
	})
	bubble("IsNotWaitedForBeyondTheContext", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		s := &script{steps: []roundTripFunc{answering(429, "", "Retry-After", "12")}}
		start := time.Now()
		err := retrieve(ctx, inMemory(t, s))
		checkVerdict(t, "retrieve", err, VerdictUnknown, reasonRateLimited)
		if time.Since(start) != 0 {
			t.Errorf("told after %s, want at once", time.Since(start))
		}
	})
	bubble("IsNotWaitedForBeyondMaxElapsedTime", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(429, "", "Retry-After", "16")}}
		start := time.Now()
		err := retrieve(t.Context(), inMemory(t, s))
		checkVerdict(t, "retrieve", err, VerdictUnknown, reasonRateLimited)
		if time.Since(start) != 0 || len(s.at) != 1 {
			t.Errorf("%d tries in %s, want 1 at once", len(s.at), time.Since(start))
		}
	})
	bubble("NeverShortens", func(t *testing.T) {
		c := inMemory(t, answering(200, intentAnswer))
		far := time.Now().Add(time.Minute)
		c.HoldUntil(far)
		c.HoldUntil(time.Now().Add(time.Second))
		if got := c.HeldUntil(); !got.Equal(far) {
			t.Errorf("held until %s, want %s", got, far)
		}
		<-time.After(time.Minute)
		if got := c.HeldUntil(); !got.IsZero() {
			t.Errorf("held until %s after the hold", got)
		}
	})
	bubble("ServiceUnavailableWithRetryAfter", func(t *testing.T) {
		c := inMemory(t, answering(503, "", "Retry-After", "20"))
		_ = attach(t.Context(), c, "")
		if pause := time.Until(c.HeldUntil()); pause != 20*time.Second {
			t.Errorf("held for %s, want 20 s", pause)
		}
	})
	bubble("WaitingEndsWithTheContext", func(t *testing.T) {
		c := inMemory(t, untouchable(t))
		c.HoldUntil(time.Now().Add(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		checkVerdict(t, "attach", attach(ctx, c, ""), VerdictNeverSent, reasonContextDone)
	})
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	bubble := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f)
		})
	}
	bubble("EndsAtOnceForWhomItIsTooLong", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(200, intentAnswer)}}
		c := inMemory(t, s, WithRate(1, 1))
		if err := attach(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		start := time.Now()
		checkVerdict(t, "attach", attach(ctx, c, ""), VerdictNeverSent, reasonLimiter)
		if time.Since(start) != 0 || len(s.at) != 1 {
			t.Errorf("%d tries, told after %s", len(s.at), time.Since(start))
		}
		// The turn that was not taken is not lost.
		if err := attach(t.Context(), c, ""); err != nil || time.Since(start) != time.Second {
			t.Errorf("the next call went after %s, %v", time.Since(start), err)
		}
	})
	bubble("HoldsNWorkersTogetherToIt", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(200, intentAnswer)}}
		c := inMemory(t, s, WithRate(80, 10))
		start := time.Now()
		var wg sync.WaitGroup
		for range 250 {
			wg.Go(func() {
				if err := attach(t.Context(), c, ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took < 2990*time.Millisecond || took > 3010*time.Millisecond {
			t.Errorf("250 calls took %s, want 3 s: 10 at once, 240 at 80 a second", took)
		}
	})
	bubble("KeptAfterAHold", func(t *testing.T) {
		s := &script{steps: []roundTripFunc{answering(200, intentAnswer)}}
		c := inMemory(t, s, WithRate(10, 1))
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() { _ = attach(t.Context(), c, "") })
		}
		<-time.After(time.Second)
		c.HoldUntil(time.Now().Add(10 * time.Second))
		wg.Wait()
		perSecond := map[int]int{}
		for _, at := range s.at {
			perSecond[int(at/time.Second)]++
		}
		for second, n := range perSecond {
			if n > 11 {
				t.Errorf("%d calls in second %d, want at most 10 and a burst of 1", n, second)
			}
		}
		if s.at[len(s.at)-1] < 11*time.Second {
			t.Errorf("the last call went after %s, in spite of the hold", s.at[len(s.at)-1])
		}
	})
	bubble("NoLimit", func(t *testing.T) {
		c := inMemory(t, answering(200, intentAnswer))
		start := time.Now()
		for range 1000 {
			if err := attach(t.Context(), c, ""); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("1000 calls took %s", time.Since(start))
		}
	})
	bubble("WaitingEndsWithTheContext", func(t *testing.T) {
		c := inMemory(t, answering(200, intentAnswer), WithRate(0.1, 1))
		_ = attach(t.Context(), c, "")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		checkVerdict(t, "attach", attach(ctx, c, ""), VerdictNeverSent, reasonContextDone)
		if time.Since(start) != time.Second {
			t.Errorf("noticed after %s", time.Since(start))
		}
	})
}

func TestContextDoneBeforehand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := attach(ctx, inMemory(t, untouchable(t)), "")
	checkVerdict(t, "attach", err, VerdictNeverSent, reasonContextDone)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is no context.Canceled", err)
	}
}
