package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/billing"
)

// apiConnections is how many the API of one daemon takes at most: its requests
// are short, and there are other daemons.
const apiConnections = 8

// openPage connects for River's page: to read, a little at a time.
func (c config) openPage(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := connect(ctx, cmp.Or(c.APIDatabaseURL, c.DatabaseURL), "singil-page", planAnew, func(pc *pgxpool.Config) {
		pc.MaxConns = 2
		inSession(pc, map[string]string{"statement_timeout": "10s"})
		if throughPooler(pc.ConnConfig) {
			return // what is set there others get too
		}
		pc.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `SET default_transaction_read_only = on`)
			return err
		}
	})
	if err != nil {
		return nil, fmt.Errorf("for River's page: %w", err)
	}
	return pool, nil
}

// openAPI connects for the API, as an operator where the configuration has one,
// and refuses another database than the daemon's.
func (c config) openAPI(ctx context.Context, daemons *pgxpool.Pool) (*pgxpool.Pool, error) {
	pool, err := connect(ctx, cmp.Or(c.APIDatabaseURL, c.DatabaseURL), "singil-api", planAnew, func(pc *pgxpool.Config) {
		pc.MaxConns = apiConnections
		// Who waits for an answer waits no longer than that.
		inSession(pc, map[string]string{"statement_timeout": "15s", "lock_timeout": "5s"})
	})
	if err != nil {
		return nil, fmt.Errorf("for the API: %w", err)
	}
	var ours, theirs string
	if ours, err = billing.DatabaseIdentity(ctx, daemons); err == nil {
		theirs, err = billing.DatabaseIdentity(ctx, pool)
	}
	if err == nil && ours != theirs {
		err = configError{errors.New("SINGIL_API_DATABASE_URL is another database than DATABASE_URL")}
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}
