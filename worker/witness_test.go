package worker_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/pgtest"
	"github.com/singil/singil/worker"
)

func openWitness(t testing.TB, path string) *worker.Witness {
	t.Helper()
	w, err := worker.OpenWitness(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() }) // closed by the test already, perhaps
	return w
}

// check is why the database is not the one that the witness knows.
func (p *plant) check(w *worker.Witness) (older string) {
	p.t.Helper()
	if err := pgx.BeginFunc(p.t.Context(), p.pool, func(tx pgx.Tx) error {
		standing, err := w.Check(p.t.Context(), tx)
		older = standing.Older
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	return older
}

func TestWitness(t *testing.T) {
	t.Parallel()
	p := setup(t)
	for _, name := range []string{"s1", "s2", "s3"} {
		p.subscribe(name, paysAlways)
	}
	path := filepath.Join(t.TempDir(), "witness")
	w := openWitness(t, path)
	if older := p.check(w); older != "" {
		t.Fatalf("a new one: %s", older)
	}
	p.tick()
	if older := p.check(w); older != "" { // remembers the newest
		t.Fatal(older)
	}
	for range 20 { // more than it keeps
		if err := w.Note(uuid.MustParse(p.text(`SELECT max(id::text) FROM singil.attempts`))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = openWitness(t, path)
	if older := p.check(w); older != "" {
		t.Errorf("nothing is missing: %s", older)
	}
	if err := w.Note(uuid.New()); err != nil { // of a commit that is lost
		t.Fatal(err)
	}
	w = openWitness(t, path) // as after SIGKILL
	if older := p.check(w); !strings.Contains(older, "1 of the last 8 attempts") {
		t.Errorf("an attempt is missing: %q", older)
	}
	if p.number(`SELECT count(*) FROM singil.instance WHERE frozen AND recovery_needed IS NOT NULL AND recovery_from = '2026-01-31 04:00Z'`) != 1 {
		t.Errorf("not frozen for a recovery: %s", p.text(`SELECT i::text FROM singil.instance i`))
	}

	// A recovery ends it, and is remembered itself.
	p.tx(func(tx pgx.Tx) error { return billing.WaiveRecovery(t.Context(), tx, "ana", "drill") })
	for range 2 {
		if older := p.check(w); older != "" {
			t.Errorf("behind the recovery: %s", older)
		}
	}
	p.tx(func(tx pgx.Tx) error {
		for _, sql := range []string{`SET LOCAL session_replication_role = replica`, `DELETE FROM singil.recoveries`} {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				return err
			}
		}
		return nil
	})
	if older := p.check(w); !strings.Contains(older, "this host knows of recovery") {
		t.Errorf("older than the recovery: %q", older)
	}
}

func TestWitnessThatCannotBeBelieved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "witness")
	w := openWitness(t, path)
	if err := w.Note(uuid.New()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := worker.OpenWitness(path); !errors.Is(err, worker.ErrBadWitness) {
			t.Fatalf("byte %d is another one: %v", i, err)
		}
	}
	for _, bad := range []string{"x", string(good) + " ", string(good[:len(good)-1])} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := worker.OpenWitness(path); !errors.Is(err, worker.ErrBadWitness) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

// An attempt that the witness cannot be told of is not sent.
func TestUnwrittenWitnessSendsNothing(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.subscribe("s1", paysAlways)
	var invoice uuid.UUID
	p.tx(func(tx pgx.Tx) error {
		if _, err := billing.OpenDue(t.Context(), tx, billing.EnvironmentDev, false, noon, 10); err != nil {
			return err
		}
		due, err := billing.ClaimDue(t.Context(), tx, noon, 10, false)
		if len(due) == 1 {
			invoice = due[0].InvoiceID
		}
		return err
	})
	w := openWitness(t, filepath.Join(t.TempDir(), "witness"))
	if older := p.check(w); older != "" {
		t.Fatal(older)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := worker.NewCollector(worker.Config{
		Pool: p.pool, Gateway: worker.NewPayMongo(p.client), Environment: billing.EnvironmentDev, Log: slog.New(slog.DiscardHandler),
		Now: time.Now, Witness: w,
	})
	if err := c.Charge(t.Context(), invoice); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v, want what the file says", err)
	}
	if n := p.number(`SELECT count(*) FROM singil.attempts WHERE state = 'armed'`); n != 1 {
		t.Errorf("%d attempts are armed, want the one that was committed", n)
	}
	if sum := p.box.Summary("invoice"); sum.Attaches != 0 {
		t.Errorf("%d attaches", sum.Attaches)
	}
}

// BenchmarkWitnessCheck is what every arm transaction pays, however many rows it
// has: one statement, with all that a witness remembers.
func BenchmarkWitnessCheck(b *testing.B) {
	if testing.Short() {
		b.Skip("measures the database")
	}
	pool := pgtest.DB(b)
	w := openWitness(b, filepath.Join(b.TempDir(), "witness"))
	if err := pgx.BeginFunc(b.Context(), pool, func(tx pgx.Tx) error {
		if err := billing.Bind(b.Context(), tx, billing.EnvironmentDev, false); err != nil {
			return err
		}
		if _, err := tx.Exec(b.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
			return err
		}
		for range 8 {
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			if _, err := tx.Exec(b.Context(), `INSERT INTO singil.attempts (id, payment_intent_id, invoice_id, no, fence, payment_method_id,
				provider_payment_method_id, trigger, armed_at, send_before, settled_after)
				VALUES ($1, $1, $1, 1, 1, $1, 'pm_1', 'schedule', now(), now() + interval '1 s', now() + interval '2 s')`, id); err != nil {
				return err
			}
			if err := w.Note(id); err != nil {
				return err
			}
		}
		b.ResetTimer()
		for range b.N {
			standing, err := w.Check(b.Context(), tx)
			if err != nil || standing.Older != "" {
				return fmt.Errorf("%s %w", standing.Older, err)
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkWitnessNote(b *testing.B) {
	w := openWitness(b, filepath.Join(b.TempDir(), "witness"))
	id := uuid.New()
	for b.Loop() {
		if err := w.Note(id); err != nil {
			b.Fatal(err)
		}
	}
}
