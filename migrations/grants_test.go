package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/migrations"
)

// granted is a database whose roles have what grants.sql gives them.
func granted(t *testing.T) *pgxpool.Pool {
	t.Helper()
	dsn := pgtest.DSN(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	roles, err := os.ReadFile("../deploy/sql/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	do(t, pool, string(roles))
	do(t, pool, string(roles)) // again: nothing
	for range 2 {
		if err := migrations.Grants(t.Context(), dsn, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

// as runs do as a role, in a transaction that is rolled back.
func as(t *testing.T, pool *pgxpool.Pool, role string, do func(tx pgx.Tx)) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+role); err != nil {
		t.Fatal(err)
	}
	do(tx)
}

// forbidden tells whether an error is a lack of a right.
func forbidden(err error) bool {
	var postgres *pgconn.PgError
	return errors.As(err, &postgres) && postgres.Code == "42501"
}

// statements are the constants named sql... of the packages that have any, by
// their names. None of them may be made at run time: it would not be seen here.
func statements(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"billing", "worker", "cmd/singil"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		constants := map[string]ast.Expr{}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range parsed.Decls {
				gen, ok := d.(*ast.GenDecl)
				if !ok || gen.Tok != token.CONST {
					continue
				}
				for _, spec := range gen.Specs {
					value := spec.(*ast.ValueSpec)
					for i, name := range value.Names {
						if i < len(value.Values) {
							constants[name.Name] = value.Values[i]
						}
					}
				}
			}
		}
		for name := range constants {
			if strings.HasPrefix(name, "sql") {
				all[dir+"."+name] = text(t, constants, constants[name])
			}
		}
	}
	if len(all) < 100 {
		t.Fatalf("%d statements: this looks at the wrong place", len(all))
	}
	return all
}

func text(t *testing.T, constants map[string]ast.Expr, e ast.Expr) string {
	t.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		return s
	case *ast.BinaryExpr:
		return text(t, constants, e.X) + text(t, constants, e.Y)
	case *ast.Ident:
		return text(t, constants, constants[e.Name])
	}
	t.Fatalf("a statement is made of %T", e)
	return ""
}

// probe has the server check the rights of a statement, and does not run it.
func probe(t *testing.T, tx pgx.Tx, name, sql string) error {
	t.Helper()
	ctx := t.Context()
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = savepoint.Rollback(context.WithoutCancel(ctx)) }()
	if strings.HasPrefix(strings.TrimSpace(sql), "LOCK") {
		_, err := savepoint.Exec(ctx, sql)
		return err
	}
	// The name is quoted by whoever uses it: it has a dot.
	prepared, err := savepoint.Prepare(ctx, name, sql)
	if err != nil {
		return err
	}
	call := fmt.Sprintf("EXPLAIN EXECUTE %q", name)
	if n := len(prepared.ParamOIDs); n > 0 {
		call += "(" + strings.TrimSuffix(strings.Repeat("NULL,", n), ",") + ")"
	}
	_, err = savepoint.Exec(ctx, call)
	return err
}

// operatorOnly are the statements of commands that people type. The daemon has
// none of their rights.
var operatorOnly = []string{
	"billing.sqlAddEndpoint", "billing.sqlAdopt", "billing.sqlAskRefund", "billing.sqlCloseBreaker", "billing.sqlCloseRefund", "billing.sqlCustomerAdd", "billing.sqlCustomerLink",
	"billing.sqlDeleteCustomer", "billing.sqlEnableEndpoint",
	"billing.sqlImportNewCustomers", "billing.sqlImportNewPlans", "billing.sqlImportNewSubscriptions",
	"billing.sqlImportOldCards", "billing.sqlImportOldCustomers", "billing.sqlImportOldPlans", "billing.sqlImportOldSubscriptions",
	"billing.sqlLifecyclePlan", "billing.sqlLifecycleStore", "billing.sqlMethodPlaces", "billing.sqlPayShare",
	"billing.sqlRecovered", "billing.sqlRequestAnswer", "billing.sqlRequestClaim",
	"billing.sqlSetupAdopt", "billing.sqlSetupOpen", "billing.sqlSetupStart", "billing.sqlTokenCreate", "billing.sqlTokenRevoke",
}

func TestGrantsSuffice(t *testing.T) {
	t.Parallel()
	pool := granted(t)
	all := statements(t)
	for role, want := range map[string][]string{"singil_operator": nil, "singil_worker": operatorOnly} {
		as(t, pool, role, func(tx pgx.Tx) {
			var refused []string
			for name, sql := range all {
				switch err := probe(t, tx, name, sql); {
				case forbidden(err):
					refused = append(refused, name)
				case err != nil:
					t.Errorf("%s: %v", name, err)
				}
			}
			slices.Sort(refused)
			if diff := cmp.Diff(want, refused); diff != "" {
				t.Errorf("statements that %s may not run (-want +got); the rights are in migrations/grants/grants.sql:\n%s", role, diff)
			}
		})
	}
}

// Every right of the two that write, by table and column.
const sqlHeld = `
SELECT grantee, table_name, '', privilege_type FROM information_schema.role_table_grants
WHERE table_schema = 'singil' AND grantee IN ('singil_worker', 'singil_operator') AND privilege_type <> 'SELECT'
UNION ALL
SELECT c.grantee, c.table_name, c.column_name, c.privilege_type FROM information_schema.role_column_grants c
WHERE c.table_schema = 'singil' AND c.grantee IN ('singil_worker', 'singil_operator') AND c.privilege_type = 'UPDATE'
  AND NOT EXISTS (SELECT FROM information_schema.role_table_grants t
                  WHERE t.table_schema = 'singil' AND t.table_name = c.table_name AND t.grantee = c.grantee AND t.privilege_type = 'UPDATE')
ORDER BY 1, 2, 3, 4`

// byTrigger are the rights that triggers use, and with them no statement of ours.
var byTrigger = []string{"INSERT ON audit_chain"}

// TestGrantsAreNeeded takes every right away in turn. Some statement must miss it.
func TestGrantsAreNeeded(t *testing.T) {
	t.Parallel()
	pool := granted(t)
	all := statements(t)
	rows, err := pool.Query(t.Context(), sqlHeld)
	if err != nil {
		t.Fatal(err)
	}
	type right struct{ role, table, column, verb string }
	var held []right
	var r right
	_, err = pgx.ForEachRow(rows, []any{&r.role, &r.table, &r.column, &r.verb}, func() error {
		held = append(held, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(held) < 80 {
		t.Fatalf("%d rights: this looks at the wrong place", len(held))
	}
	for _, r := range held {
		what := r.verb
		if r.column != "" {
			what += " (" + r.column + ")"
		}
		what += " ON " + r.table
		if slices.Contains(byTrigger, what) {
			continue
		}
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), fmt.Sprintf("REVOKE %s FROM %s; SET LOCAL ROLE %[2]s", strings.Replace(what, " ON ", " ON singil.", 1), r.role)); err != nil {
			t.Fatal(err)
		}
		mentions := regexp.MustCompile(`\bsingil\.` + r.table + `\b`)
		missed := false
		for name, sql := range all {
			if !mentions.MatchString(sql) || r.role == "singil_worker" && slices.Contains(operatorOnly, name) {
				continue
			}
			if forbidden(probe(t, tx, name, sql)) {
				missed = true
				break
			}
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !missed {
			t.Errorf("%s has %s, and no statement needs it", r.role, what)
		}
	}
	t.Logf("%d rights, %d statements", len(held), len(all))
}

func TestForbidden(t *testing.T) {
	t.Parallel()
	pool := granted(t)
	for role, list := range map[string][]string{
		"singil_worker": {
			`DELETE FROM singil.invoices`, `DELETE FROM singil.payments`, `DELETE FROM singil.attempts`, `DELETE FROM singil.instance`,
			`DELETE FROM singil.subscriptions`, `DELETE FROM singil.audit_log`, `DELETE FROM singil.recoveries`, `DELETE FROM singil.charge_budget`,
			`TRUNCATE singil.webhook_events`, `TRUNCATE singil.payments CASCADE`, `TRUNCATE river.river_job`,
			`UPDATE singil.invoices SET amount_minor = 1`, `UPDATE singil.invoices SET subscription_id = NULL`, `UPDATE singil.invoices SET period_no = 1`,
			`UPDATE singil.payment_intents SET amount_minor = 1`, `UPDATE singil.payment_intents SET create_key = 'x'`, `UPDATE singil.payment_intents SET adopted = true`,
			`UPDATE singil.attempts SET armed_at = now()`, `UPDATE singil.attempts SET payment_method_id = NULL`,
			`UPDATE singil.payments SET amount_minor = 1`, `UPDATE singil.payments SET payment_id = 'x'`,
			`UPDATE singil.charge_budget SET max_minor = 1`, `UPDATE singil.audit_log SET reason = ''`, `UPDATE singil.audit_chain SET no = 1`,
			`UPDATE singil.subscriptions SET customer_id = NULL`, `UPDATE singil.payment_methods SET provider_payment_method_id = 'pm_mine'`,
			`INSERT INTO singil.subscriptions (id) VALUES (NULL)`, `INSERT INTO singil.endpoints (id) VALUES (NULL)`, `INSERT INTO singil.recoveries (id) VALUES (NULL)`,
			`INSERT INTO singil.api_tokens (id) VALUES (NULL)`,
			`UPDATE singil.api_tokens SET revoked_at = NULL`, `UPDATE singil.api_requests SET answer = ''`, `INSERT INTO river.river_migration (version) VALUES (99)`,
			`INSERT INTO singil.customers (id) VALUES (NULL)`, `INSERT INTO singil.card_setups (id) VALUES (NULL)`, `UPDATE singil.payment_intents SET shared_at = now()`,
			`CREATE TABLE singil.mine (a int)`, `CREATE TABLE river.mine (a int)`, `CREATE TABLE public.mine (a int)`, `CREATE SCHEMA mine`,
			`ALTER TABLE singil.invoices DISABLE TRIGGER ALL`, `ALTER TABLE singil.payments ADD COLUMN a int`, `DROP TABLE singil.attempts`,
			`DROP TRIGGER append_only ON singil.payments`, `CREATE OR REPLACE FUNCTION singil.append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
			`SET LOCAL session_replication_role = replica`, `GRANT singil_owner TO singil_worker`, `UPDATE singil.goose_db_version SET is_applied = false`,
		},
		"singil_operator": {
			`DELETE FROM singil.invoices`, `DELETE FROM singil.api_tokens`, `UPDATE singil.api_tokens SET role = 'admin'`, `DELETE FROM singil.audit_log`, `TRUNCATE singil.payments CASCADE`, `UPDATE singil.invoices SET amount_minor = 1`,
			`UPDATE singil.payments SET amount_minor = 1`, `UPDATE singil.audit_log SET actor = 'x'`, `ALTER TABLE singil.audit_log DISABLE TRIGGER ALL`,
			`UPDATE singil.recoveries SET waived = false`, `UPDATE singil.payment_methods SET provider_payment_method_id = 'pm_mine'`,
			`CREATE TABLE singil.mine (a int)`, `SET LOCAL session_replication_role = replica`,
		},
		"singil_readonly": {
			`SELECT secret FROM singil.endpoints`, `SELECT body FROM singil.webhook_events`, `SELECT hash FROM singil.api_tokens`,
			`SELECT answer FROM singil.api_requests`, `INSERT INTO singil.audit_log (actor) VALUES ('x')`,
			`UPDATE singil.instance SET frozen = false`, `DELETE FROM river.river_job`, `LOCK TABLE singil.instance IN EXCLUSIVE MODE`,
			`SELECT FROM singil.invoices FOR UPDATE`, `SELECT FROM singil.instance FOR SHARE`, `CREATE TABLE public.mine (a int)`, `CREATE SCHEMA mine`,
			`SELECT nextval('river.river_job_id_seq')`, `TRUNCATE singil.events`,
		},
	} {
		for _, sql := range list {
			as(t, pool, role, func(tx pgx.Tx) {
				if _, err := tx.Exec(t.Context(), sql); !forbidden(err) {
					t.Errorf("%s: %s: %v", role, sql, err)
				}
			})
		}
	}
	// What those rights are in the catalogs, also on tables that come later.
	for _, role := range []string{"singil_worker", "singil_operator", "singil_readonly"} {
		isTrue(t, pool, fmt.Sprintf(`
			SELECT count(*) = 0 FROM pg_class c
			WHERE c.relnamespace IN ('singil'::regnamespace, 'river'::regnamespace) AND c.relkind = 'r'
			  AND (has_table_privilege('%[1]s', c.oid, 'TRUNCATE, TRIGGER, REFERENCES') OR pg_has_role('%[1]s', c.relowner, 'MEMBER'))`, role))
		isTrue(t, pool, fmt.Sprintf(`SELECT NOT has_schema_privilege('%[1]s', 'singil', 'CREATE') AND NOT has_schema_privilege('%[1]s', 'river', 'CREATE')
			AND NOT has_schema_privilege('%[1]s', 'public', 'CREATE') AND NOT has_database_privilege('%[1]s', current_database(), 'CREATE, TEMPORARY')`, role))
	}
	isTrue(t, pool, `SELECT count(*) = 0 FROM pg_class c WHERE c.relnamespace IN ('singil'::regnamespace, 'river'::regnamespace) AND c.relkind = 'r'
		AND has_any_column_privilege('singil_readonly', c.oid, 'INSERT, UPDATE')`)
}

// TestOwnerIsEnough: the role that migrates is no superuser.
func TestOwnerIsEnough(t *testing.T) {
	t.Parallel()
	admin := pgtest.DB(t)
	roles, err := os.ReadFile("../deploy/sql/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	// An empty database beside the test's own, whose tables belong to somebody else.
	name := "singil_test_owner_" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_")) + strconv.Itoa(os.Getpid())
	do(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0")
	t.Cleanup(func() {
		if _, err := admin.Exec(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	config := admin.Config()
	config.ConnConfig.Database = name
	super, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer super.Close()
	do(t, super, string(roles))

	dsn := (&url.URL{
		Scheme: "postgres", User: url.UserPassword(config.ConnConfig.User, config.ConnConfig.Password), Path: "/" + name,
		RawQuery: url.Values{
			"host": {config.ConnConfig.Host}, "port": {fmt.Sprint(config.ConnConfig.Port)}, "options": {"-crole=singil_owner"},
		}.Encode(),
	}).String()
	log := slog.New(slog.DiscardHandler)
	var behind *migrations.BehindError
	if err := migrations.Grants(t.Context(), dsn, log); !errors.As(err, &behind) {
		t.Errorf("grants on an empty database: %v", err)
	}
	if err := migrations.Up(t.Context(), dsn, log); err != nil {
		t.Fatal(err)
	}
	if err := migrations.Grants(t.Context(), dsn, log); err != nil {
		t.Fatal(err)
	}
	isTrue(t, super, `SELECT bool_and(relowner = 'singil_owner'::regrole) FROM pg_class WHERE relnamespace = 'singil'::regnamespace`)
	if err := migrations.Grants(t.Context(), strings.ReplaceAll(dsn, "singil_owner", "singil_worker"), log); err == nil || !strings.Contains(err.Error(), "as the role that ran singil migrate up") {
		t.Errorf("grants as the worker: %v", err)
	}
	do(t, super, `INSERT INTO singil.goose_db_version (version_id, is_applied) VALUES (9999, true)`)
	var ahead *migrations.AheadError
	if err := migrations.Grants(t.Context(), dsn, log); !errors.As(err, &ahead) {
		t.Errorf("grants on a newer schema: %v", err)
	}
}
