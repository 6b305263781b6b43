package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Statement is what PostgreSQL spent on one of singil's statements while it charged, in the last round.
type Statement struct {
	Query        string  `json:"query"`
	Calls        int64   `json:"calls"`
	Rows         int64   `json:"rows"`
	Milliseconds float64 `json:"milliseconds"`
	WAL          int64   `json:"wal_bytes"`
}

const sqlStatements = `
SELECT query, calls, rows, total_exec_time + total_plan_time, wal_bytes::bigint
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY total_exec_time + total_plan_time DESC
LIMIT 30`

func (r *rig) forgetStatements(ctx context.Context, c contender) error {
	if !r.options.statements {
		return nil
	}
	_, err := c.books().Exec(ctx, `SELECT pg_stat_statements_reset()`)
	return err
}

// noteStatements keeps those of the last round of singil.
func (r *rig) noteStatements(ctx context.Context, c contender) error {
	if _, ours := c.(*product); !ours || !r.options.statements {
		return nil
	}
	rows, err := c.books().Query(ctx, sqlStatements)
	if err != nil {
		return err
	}
	r.statements, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Statement])
	return err
}

func writeStatements(w io.Writer, list []Statement) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## Where PostgreSQL's time goes\n\n| ms | calls | rows | WAL bytes | statement |\n|---|---|---|---|---|\n")
	for _, s := range list {
		query := []rune(strings.ReplaceAll(strings.Join(strings.Fields(s.Query), " "), "|", `\|`))
		fmt.Fprintf(w, "| %s | %d | %d | %d | `%s` |\n", number(s.Milliseconds, 0), s.Calls, s.Rows, s.WAL, string(query[:min(len(query), 160)]))
	}
}
