package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Status is whether this installation may charge, and what keeps it from it.
type Status struct {
	Environment  Environment `json:"environment"`
	Livemode     bool        `json:"livemode"`
	Now          Stamp       `json:"now"` // business time
	VirtualClock bool        `json:"virtual_clock"`
	// MayCharge: nothing holds all charging. Holds says what does, and what to do.
	MayCharge bool        `json:"may_charge"`
	Holds     []WhyReason `json:"holds"`
	Budget
}

// LookStatus reads the status. pgx.ErrNoRows means that nothing was bound yet.
func LookStatus(ctx context.Context, q Querier, realNow time.Time) (Status, error) {
	instance, err := LoadInstance(ctx, q)
	if err != nil {
		return Status{}, err
	}
	now := instance.Now(realNow)
	e := explanation{instance: instance, s: &dueSubscription{Amount: Money{Minor: MinimumAmount, Currency: CurrencyPHP}}}
	if e.budget, err = BudgetLeft(ctx, q, now); err != nil {
		return Status{}, err
	}
	rows, err := q.Query(ctx, sqlStatusRecovery)
	if err == nil {
		e.recovery, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	}
	if err != nil {
		return Status{}, fmt.Errorf("look whether a recovery is needed: %w", err)
	}
	e.Reasons = []WhyReason{}
	e.everything(realNow)
	return Status{
		Environment: instance.Environment, Livemode: instance.Livemode, Now: Stamp{now.UTC()}, VirtualClock: !instance.VirtualNow.IsZero(),
		MayCharge: len(e.Reasons) == 0, Holds: e.Reasons, Budget: e.budget,
	}, nil
}

const sqlStatusRecovery = `
SELECT COALESCE(i.recovery_needed, '') FROM singil.instance i`
