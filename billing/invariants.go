package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Invariant is something that is true of the books whatever happened: a
// statement that yields what breaks it.
//
// Two things are left to others. That the provider's list of payments and ours
// are the same takes asking the provider. That debits and credits are equal
// takes a journal of entries, which there is none of: payments are observations,
// and double_payment, wrong_payment and budget_drift hold the sums.
type Invariant struct {
	Name    string // of a closed list; metrics are labelled with it
	Meaning string // what is true, in a sentence
	sql     string
}

// Violation is one row that breaks an invariant.
type Violation struct {
	ID   string `json:"id"`
	What string `json:"what"`
}

// What is told of the rows that break an invariant.
const (
	// ViolationsCounted is how far they are counted; there may be more.
	ViolationsCounted = 10_000
	violationsShown   = 10
)

// Violations are the rows that break one invariant.
type Violations struct {
	Count int         // exact below ViolationsCounted
	First []Violation // at most 10, by id
}

// Broken is an invariant that does not hold, or that nobody knows to hold.
type Broken struct {
	Invariant
	Violations
	Err error // it could not be checked: a timeout, mostly
}

func (b Broken) String() string {
	if b.Err != nil {
		return fmt.Sprintf("%s: not checked: %s", b.Name, b.Err)
	}
	return fmt.Sprintf("%s: %d: %v", b.Name, b.Count, b.First)
}

// AllInvariants lists them in a fixed order.
func AllInvariants() []Invariant { return slices.Clone(invariants) }

// Invariants checks all of them over all rows, and returns those that are
// broken. It reads tables from end to end: minutes where there are 50 million
// invoices. Give it a REPEATABLE READ, READ ONLY transaction: in one snapshot
// nothing is half done. A statement_timeout of that transaction is one for each
// invariant; one that fails leaves the others alone.
//
// Business time is the virtual clock's if there is one. A clock that was just
// moved makes overdue what the next sweep will find.
func Invariants(ctx context.Context, tx pgx.Tx, realNow time.Time) ([]Broken, error) {
	var broken []Broken
	for _, i := range invariants {
		found, err := i.Check(ctx, tx, realNow, time.Time{})
		if ctx.Err() != nil {
			return broken, err
		}
		if err != nil || found.Count > 0 {
			broken = append(broken, Broken{i, found, err})
		}
	}
	return broken, nil
}

// Check checks one invariant. It changes nothing, and an error does not end tx.
//
// Since bounds the work: of what only grows, it leaves out what was written
// before, by the real clock. What is due, open or waiting is found however old it
// is, through an index of its own. The zero time leaves nothing out. Rows are
// told new from old by their UUIDv7 and by the times of their writing: one that
// was written long ago and is changed today is found by a check of everything.
func (i Invariant) Check(ctx context.Context, tx pgx.Tx, realNow, since time.Time) (found Violations, err error) {
	err = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint
		args, err := invariantArgs(ctx, tx, realNow, since)
		if err != nil {
			return err
		}
		sql := i.sql
		if !since.IsZero() {
			// The planner makes a join of an IN only where it stands alone.
			sql = strings.ReplaceAll(sql, orAll, "")
		}
		// Planned for these arguments: a window is a look at an index.
		if _, err := tx.Exec(ctx, `SET LOCAL plan_cache_mode = force_custom_plan`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT v.id, v.what FROM (`+sql+` LIMIT @limit) v (id, what) ORDER BY v.id, v.what`, args)
		if err != nil {
			return err
		}
		var v Violation
		_, err = pgx.ForEachRow(rows, []any{&v.ID, &v.What}, func() error {
			if found.Count++; found.Count <= violationsShown {
				found.First = append(found.First, v)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return Violations{}, fmt.Errorf("check invariant %s: %w", i.Name, err)
	}
	return found, nil
}

func invariantArgs(ctx context.Context, q Querier, realNow, since time.Time) (pgx.NamedArgs, error) {
	instance, err := LoadInstance(ctx, q)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // no row: nothing was bound yet
		return nil, err
	}
	held := ""
	if may := instance.MayCharge(realNow); may != nil {
		held = "; nothing is charged: " + may.Error()
	}
	limits := DefaultCardLimits()
	return pgx.NamedArgs{
		"limit": ViolationsCounted, "now": instance.Now(realNow), "real_now": realNow, "held": held,
		"all": since.IsZero(), "since": since, "since_id": firstID(since),
		// The first whole day behind since, in business time. A virtual clock makes days
		// of any length.
		"all_days": since.IsZero() || !instance.VirtualNow.IsZero(), "since_day": since.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour),
		"lease": Lease, "patience": PatienceWithProvider + pollLadder[len(pollLadder)-1] + Lease,
		"visa": limits.VisaDeclines, "mastercard_short": limits.MastercardShort, "mastercard_long": limits.MastercardLong,
		"invoice_attempts": limits.InvoiceAttempts,
	}, nil
}

// firstID is not behind any UUIDv7 that is made at t or later.
func firstID(t time.Time) (id uuid.UUID) {
	if t.IsZero() {
		return uuid.Nil
	}
	for i, ms := 0, t.UnixMilli(); i < 6; i++ {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
