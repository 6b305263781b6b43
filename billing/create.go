package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrExists means that there is a row of that name already.
var ErrExists = errors.New("exists already")

// FieldErrors are the mistakes in what somebody wants to have made.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	texts := make([]string, len(e))
	for i := range e {
		texts[i] = e[i].Error()
	}
	return strings.Join(texts, "; ")
}

// An import between the reading of a plan and the writing of who took it would
// change the price in between. Those who create share the lock among themselves.
const sqlCreateTurn = `SELECT pg_advisory_xact_lock_shared(hashtextextended('singil import', 0))`

// createTurn waits for an import's batch. It comes before any lock on a row, as it
// does in an import.
func createTurn(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, sqlCreateTurn); err != nil {
		return fmt.Errorf("wait for an import: %w", err)
	}
	return nil
}

// created reads a document of one kind, checks it against the database and writes
// it, behind createTurn: by the rules of an import, of which it is a single line. A
// mistake in it is FieldErrors, a name that is taken ErrExists. After an error tx
// must be rolled back.
func created(ctx context.Context, tx pgx.Tx, kind string, document any, now time.Time, write func(context.Context, pgx.Tx, []*importRecord) (int, error)) (*importRecord, error) {
	line, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("create a %s: %w", kind, err)
	}
	r, problems := parseImportLine(line)
	if len(problems) > 0 {
		return nil, FieldErrors(problems)
	}
	im := &importer{
		options: ImportOptions{Now: now}, seed: maphash.MakeSeed(), seen: map[importKey]int32{}, customers: map[importKey]struct{}{},
		plans: map[string]*planTerms{}, planUsed: map[string]int{},
	}
	good, err := im.judge(ctx, tx, []*importRecord{r})
	taken := fmt.Errorf("%s %q: %w", kind, clip(r.id), ErrExists)
	switch {
	case err != nil:
		return nil, fmt.Errorf("create %s %s: %w", kind, clip(r.id), err)
	case r.exists:
		return nil, taken
	case len(good) == 0:
		var mistakes FieldErrors
		for _, e := range im.result.Errors {
			mistakes = append(mistakes, FieldError{e.Field, e.Problem})
		}
		return nil, mistakes
	}
	n, err := write(ctx, tx, good)
	var postgres *pgconn.PgError
	switch {
	case errors.As(err, &postgres) && postgres.Code == uniqueViolation:
		return nil, taken // by somebody at the same time
	case err != nil:
		return nil, fmt.Errorf("create %s %s: %w", kind, clip(r.id), err)
	case n != 1:
		return nil, fmt.Errorf("create %s %s: %d rows were written", kind, clip(r.id), n)
	}
	return r, nil
}

const uniqueViolation = "23505"
