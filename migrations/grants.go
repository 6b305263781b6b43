package migrations

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgconn"
)

//go:embed grants/grants.sql
var grants string

// Grants gives the roles of deploy/sql/roles.sql what they need on this schema and takes everything else from them, in
// one transaction: a daemon that runs notices nothing. The role is the owner of the schema. A schema that is behind or
// ahead of this program is refused, with the errors of Check: the grants would be those of another schema.
func Grants(ctx context.Context, dsn string, log *slog.Logger) error {
	pool, err := open(ctx, dsn)
	if err != nil {
		return fmt.Errorf("migrate grants: %w", err)
	}
	defer pool.Close()
	turn, err := takeTurn(ctx, pool, log)
	if err != nil {
		return fmt.Errorf("migrate grants: %w", err)
	}
	defer turn.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit there is nothing to roll back
	if err := Check(ctx, pool); err != nil {
		return fmt.Errorf("migrate grants: %w", err)
	}
	if _, err := turn.Exec(ctx, grants); err != nil {
		return fmt.Errorf("migrate grants: %w", hintRoles(err))
	}
	if err := turn.Commit(ctx); err != nil {
		return fmt.Errorf("migrate grants: %w", err)
	}
	log.InfoContext(ctx, "the roles have what they need", "river", Latest().River, "singil", Latest().Singil)
	return nil
}

func hintRoles(err error) error {
	var postgres *pgconn.PgError
	if !errors.As(err, &postgres) {
		return err
	}
	switch postgres.Code {
	case "42704": // undefined_object
		return fmt.Errorf("%w; run deploy/sql/roles.sql first, once for this server", err)
	case "42501": // insufficient_privilege
		return fmt.Errorf("%w; run this as the role that ran singil migrate up", err)
	}
	return err
}
