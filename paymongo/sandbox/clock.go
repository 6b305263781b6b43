package sandbox

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// Clock is the sandbox's time. It runs at a factor of real time: 1 is real,
// 3600 makes an hour pass every second, 0 stands still and is moved by hand.
// Safe for concurrent use.
type Clock struct {
	mu      sync.Mutex
	base    time.Time // the sandbox's time at anchor
	anchor  time.Time // real time, with its monotonic reading
	factor  float64
	changed func() // called after every change, without the lock
}

func newClock(start time.Time, factor float64, changed func()) *Clock {
	now := time.Now()
	if start.IsZero() {
		start = now
	}
	return &Clock{base: within(start.UTC().Round(0)), anchor: now, factor: factor, changed: changed}
}

// Now is the sandbox's current time, in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Clock) now() time.Time {
	elapsed := time.Since(c.anchor)
	if c.factor == 1 {
		return within(c.base.Add(elapsed))
	}
	// In steps: what passes at a high factor soon is more than a Duration holds.
	const step = 1 << 62
	now, left := c.base, float64(elapsed)*c.factor
	for ; left > step && now.Before(latest); left -= step {
		now = now.Add(step)
	}
	return within(now.Add(time.Duration(min(left, step))))
}

// JSON writes no year above 9999, and unix seconds begin in 1970: the clock
// stops at either end.
var earliest, latest = time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

func within(t time.Time) time.Time {
	switch {
	case t.Before(earliest):
		return earliest
	case t.After(latest):
		return latest
	}
	return t
}

// Factor tells how fast the clock runs.
func (c *Clock) Factor() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.factor
}

// Set moves the clock to t, within the years 1970 to 9999. What was due until
// then happens at once, in order, each at its own time. A clock set back undoes
// nothing.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	c.base, c.anchor = within(t.UTC().Round(0)), time.Now()
	c.mu.Unlock()
	c.changed()
}

// Advance moves the clock on by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	c.base, c.anchor = within(c.now().Add(d)), time.Now()
	c.mu.Unlock()
	c.changed()
}

// Run lets time pass at factor times real time from now on; 0 stops it.
// A factor that is negative, above 100,000, or not a number is refused.
func (c *Clock) Run(factor float64) error {
	if math.IsNaN(factor) || factor < 0 || factor > maxFactor {
		return fmt.Errorf("sandbox: the clock's factor must be between 0 (stopped) and %d", maxFactor)
	}
	c.mu.Lock()
	c.base, c.anchor, c.factor = c.now(), time.Now(), factor
	c.mu.Unlock()
	c.changed()
	return nil
}

// maxFactor lets a day pass in a second.
const maxFactor = 100_000

// wait is how long in real time until the clock reaches t, at most an hour;
// false when it stands still before t.
func (c *Clock) wait(t time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := t.Sub(c.now())
	switch {
	case left <= 0:
		return 0, true
	case c.factor == 0:
		return 0, false
	}
	// Rounded up, so that the timer is due when the wait is over.
	return time.Duration(min(float64(left)/c.factor, float64(time.Hour))) + time.Microsecond, true
}
