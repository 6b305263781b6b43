package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Slots is a stretch of time that was reserved for calls to the provider. No
// other daemon has any part of it.
type Slots struct {
	// In is how long after the reservation the stretch begins, by the database's
	// clock. It counts from the answer on one's own clock: then no difference
	// between the clocks matters, and the way of the answer can only make a call
	// late, never early.
	In time.Duration
	// From and Until bound the stretch, [From, Until), by the database's clock.
	From, Until time.Time
}

// Stretches follow one another. Where the last one ended before now, the time in
// between is lost: nobody saves it up. One that ends much later than any number
// of daemons can have reserved is what a clock that was set back has left, and
// is not waited for.
//
// Of two daemons at once the second waits for the first one's row and computes
// with what that one stored.
const sqlReserveSlots = `
UPDATE singil.provider_state
SET next_slot_at = CASE WHEN next_slot_at BETWEEN clock_timestamp() AND clock_timestamp() + greatest(interval '1 minute', 100 * $1::interval)
                        THEN next_slot_at ELSE clock_timestamp() END + $1::interval
RETURNING next_slot_at - $1::interval, next_slot_at, next_slot_at - $1::interval - clock_timestamp()`

// ReserveSlots reserves the next free stretch of time for calls to the provider,
// in one statement. span is how long it is, in whole microseconds: calls / rate.
// After an error the stretch may be reserved all the same; it is then lost.
func ReserveSlots(ctx context.Context, q Querier, span time.Duration) (Slots, error) {
	rows, err := q.Query(ctx, sqlReserveSlots, span)
	if err != nil {
		return Slots{}, fmt.Errorf("reserve slots: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (s Slots, err error) {
		err = row.Scan(&s.From, &s.Until, &s.In)
		return s, err
	})
	if err != nil {
		return Slots{}, fmt.Errorf("reserve slots: %w", err)
	}
	return s, nil
}
