package scale

import (
	"bufio"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Plan is what auto_explain told of one statement.
type Plan struct {
	Name string // of the constant, of River's query, or of what asked
	SQL  string
	Runs int
	Rows int    // the most that one run brought or changed, as far as the plan tells
	Text string // of the run with the most rows
	// Faults are what a plan on the path of a charge must not have.
	Faults []string

	ms float64
}

// batch is the most rows that a plan may sort: those of one sweep transaction.
const batch = 1000

// Plans runs a sweep of due subscriptions and the charges that come of it by the
// worker itself, while auto_explain writes down every plan, and returns one of
// each statement. source is the repository: the statements are named as there.
func (w *World) Plans(ctx context.Context, source string, at time.Time) ([]Plan, error) {
	for _, set := range []string{"log_min_duration = 0", "log_analyze = on", "log_buffers = on", "log_nested_statements = on", "log_timing = on"} {
		if err := w.exec(ctx, "ALTER SYSTEM SET auto_explain."+set); err != nil {
			return nil, err
		}
	}
	if err := w.exec(ctx, `SELECT pg_reload_conf()`); err != nil {
		return nil, err
	}
	w.Pool.Reset()
	if err := w.SetClock(ctx, at); err != nil {
		return nil, err
	}
	if _, err := w.collector.Sweep(ctx, w.jobs); err != nil {
		return nil, err
	}
	if err := w.jobs.Start(ctx); err != nil {
		return nil, err
	}
	if err := w.finish(ctx); err != nil {
		return nil, err
	}
	if err := w.jobs.Stop(ctx); err != nil {
		return nil, err
	}
	names, err := statementNames(source)
	if err != nil {
		return nil, err
	}
	return readPlans(w.Server.Log(), names)
}

const sqlUnfinished = `
SELECT EXISTS (SELECT FROM river.river_job WHERE state = 'available') OR EXISTS (SELECT FROM river.river_job WHERE state = 'running')
    OR EXISTS (SELECT FROM river.river_job WHERE state = 'retryable')`

// finish waits until no job is left.
func (w *World) finish(ctx context.Context) error {
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for left := true; left; {
		if err := w.Pool.QueryRow(ctx, sqlUnfinished).Scan(&left); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
	return nil
}

var (
	planned  = regexp.MustCompile(`LOG:  duration: ([0-9.]+) ms  plan:`)
	ofRiver  = regexp.MustCompile(`-- name: (\w+)`)
	actual   = regexp.MustCompile(`actual time=[0-9.]+\.\.[0-9.]+ rows=([0-9]+) loops=([0-9]+)`)
	ofKey    = regexp.MustCompile(`^SELECT 1 FROM ONLY "singil"\."(\w+)" x`)
	sortNode = regexp.MustCompile(`^\s*(->  )?(Incremental )?Sort `)
)

func readPlans(log string, names map[string]string) ([]Plan, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	byName := map[string]*Plan{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	var ms float64
	var body []string
	flush := func() {
		if body != nil {
			note(byName, names, ms, body)
		}
		body = nil
	}
	for lines.Scan() {
		line := lines.Text()
		if m := planned.FindStringSubmatch(line); m != nil {
			flush()
			ms, _ = strconv.ParseFloat(m[1], 64)
			body = []string{}
		} else if body != nil && strings.HasPrefix(line, "\t") {
			body = append(body, line[1:])
		} else {
			flush()
		}
	}
	flush()
	var plans []Plan
	for _, p := range byName {
		plans = append(plans, *p)
	}
	slices.SortFunc(plans, func(a, b Plan) int { return strings.Compare(a.Name, b.Name) })
	return plans, lines.Err()
}

var space = regexp.MustCompile(`\s+`)

func squeeze(sql string) string { return strings.TrimSpace(space.ReplaceAllString(sql, " ")) }

// note keeps a run if it is the one with the most rows.
func note(byName map[string]*Plan, names map[string]string, ms float64, body []string) {
	start := slices.IndexFunc(body, func(s string) bool { return strings.Contains(s, "(cost=") })
	if start < 0 {
		return
	}
	sql := strings.TrimPrefix(strings.Join(body[:start], "\n"), "Query Text: ")
	name, known := names[squeeze(sql)]
	switch river := ofRiver.FindStringSubmatch(sql); {
	case known:
	case river != nil:
		name = "river " + river[1]
	case ofKey.MatchString(sql):
		name = "foreign key to " + ofKey.FindStringSubmatch(sql)[1]
	case strings.Contains(sql, "FROM o FULL JOIN n") || strings.Contains(sql, "FROM n\n") || strings.Contains(sql, "FROM n "):
		name = "guard " + fmt.Sprintf("%.60s", squeeze(sql))
	case !strings.Contains(sql, "singil.") && !strings.Contains(sql, "river"), squeeze(sql) == squeeze(sqlUnfinished):
		return
	default:
		name = "other " + fmt.Sprintf("%.70s", squeeze(sql))
	}
	p := byName[name]
	if p == nil {
		p = &Plan{Name: name, SQL: strings.TrimSpace(sql), Rows: -1}
		byName[name] = p
	}
	p.Runs++
	rows := 0
	for _, m := range actual.FindAllStringSubmatch(strings.Join(body[start:], "\n"), -1) {
		n, _ := strconv.Atoi(m[1])
		loops, _ := strconv.Atoi(m[2])
		rows = max(rows, n*loops)
	}
	for _, fault := range faults(body[start:]) {
		if !slices.Contains(p.Faults, fault) {
			p.Faults = append(p.Faults, fault)
		}
	}
	if rows > p.Rows || rows == p.Rows && ms > p.ms {
		p.Rows, p.ms, p.Text = rows, ms, fmt.Sprintf("%.3f ms\n%s", ms, strings.Join(body[start:], "\n"))
	}
}

// small are the tables of a few rows, which one reads from end to end.
var small = []string{"instance", "provider_state", "plans", "charge_budget", "endpoints", "river_queue", "river_leader", "river_client", "river_migration"}

var seqScan = regexp.MustCompile(`Seq Scan on (\w+)`)

func faults(plan []string) (found []string) {
	for _, line := range plan {
		if m := seqScan.FindStringSubmatch(line); m != nil && !slices.Contains(small, m[1]) {
			found = append(found, "sequential scan of "+m[1])
		}
		if sortNode.MatchString(line) {
			if m := actual.FindStringSubmatch(line); m != nil {
				if n, _ := strconv.Atoi(m[1]); n > batch {
					found = append(found, fmt.Sprintf("sort of %d rows", n))
				}
			}
		}
	}
	return found
}

// statementNames reads the SQL constants of the packages that have any.
func statementNames(source string) (map[string]string, error) {
	statements, err := Statements(source)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for name, sql := range statements {
		names[squeeze(sql)] = name
	}
	return names, nil
}

// Statements are the SQL constants in the source of this module, by their names:
// billing.sqlClaimDue.
func Statements(source string) (map[string]string, error) {
	found := map[string]string{}
	for _, pkg := range []string{"billing", "worker", "server", "cmd/singil", "migrations"} {
		files, err := filepath.Glob(filepath.Join(source, pkg, "*.go"))
		if err != nil {
			return nil, err
		}
		consts := map[string]ast.Expr{}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				return nil, err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if v, ok := n.(*ast.ValueSpec); ok {
					for i, name := range v.Names {
						if i < len(v.Values) {
							consts[name.Name] = v.Values[i]
						}
					}
				}
				return true
			})
		}
		for name, value := range consts {
			if sql, ok := text(consts, value); ok && strings.HasPrefix(name, "sql") {
				found[pkg+"."+name] = sql
			}
		}
	}
	if len(found) < 100 {
		return nil, fmt.Errorf("only %d statements in %s", len(found), source)
	}
	return found, nil
}

func text(consts map[string]ast.Expr, e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		value, ok := consts[e.Name]
		if !ok || value == e {
			return "", false
		}
		return text(consts, value)
	case *ast.BinaryExpr:
		x, okX := text(consts, e.X)
		y, okY := text(consts, e.Y)
		return x + y, okX && okY && e.Op == token.ADD
	}
	return "", false
}

// WritePlans writes plans as a page.
func WritePlans(out io.Writer, plans []Plan) {
	faulty := 0
	for _, p := range plans {
		if len(p.Faults) > 0 {
			faulty++
		}
	}
	fmt.Fprintf(out, "%d statements, %d with a sequential scan of a table that grows or a sort of more than %d rows.\n\n", len(plans), faulty, batch)
	fmt.Fprintf(out, "| statement | runs | most rows | fault |\n|---|---|---|---|\n")
	for _, p := range plans {
		fmt.Fprintf(out, "| %s | %d | %d | %s |\n", strings.ReplaceAll(p.Name, "|", "\\|"), p.Runs, p.Rows, strings.Join(p.Faults, ", "))
	}
	for _, p := range plans {
		fmt.Fprintf(out, "\n## %s\n\n```\n%s\n```\n", p.Name, clip(p.Text))
	}
}

// clip cuts the lines of a plan that print a whole batch of ids.
func clip(plan string) string {
	lines := strings.Split(plan, "\n")
	for i, line := range lines {
		if len(line) > 220 {
			lines[i] = line[:200] + " ..."
		}
	}
	return strings.Join(lines, "\n")
}
