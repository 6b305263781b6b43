package api

import (
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

// How many requests a second a token may make of one daemon, and how many at once
// after a pause. It keeps one program from taking a daemon's connections, and no
// more: daemons do not share the count.
const (
	perSecond = 50
	burst     = 100
)

// rates has a bucket for each token. Tokens are few: each was made by hand.
type rates struct {
	mu      sync.Mutex
	buckets map[uuid.UUID]*rate.Limiter
}

// take spends one request of a token, or refuses it.
func (r *rates) take(token uuid.UUID, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	bucket, found := r.buckets[token]
	if !found {
		if r.buckets == nil {
			r.buckets = map[uuid.UUID]*rate.Limiter{}
		}
		bucket = rate.NewLimiter(perSecond, burst)
		r.buckets[token] = bucket
	}
	if !bucket.AllowN(now, 1) {
		return newProblem(kindTooMany, "A token may make 50 requests a second of a daemon, and 100 at once. "+askAgain).again(1)
	}
	return nil
}
