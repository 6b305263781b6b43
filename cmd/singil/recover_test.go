package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/singil/singil/internal/devpg"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// The first of the periods that the tests go through, and the next ones.
var (
	february = time.Date(2026, 2, 28, 4, 0, 0, 0, time.UTC)
	march    = time.Date(2026, 3, 31, 4, 0, 0, 0, time.UTC)
	april    = time.Date(2026, 4, 30, 4, 0, 0, 0, time.UTC)
)

// TestRecovery exchanges the database under the real binary for one that has
// forgotten: a backup, a copy of the files, a standby. Nothing may be charged
// before PayMongo was asked, and nothing twice afterwards.
//
//	go test ./cmd/singil -run Recovery -v
func TestRecovery(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the binary, and clusters of its own, for a while")
	}
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "singil")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"BackupRestored", backupRestored},
		{"BackupRestoredInTheMiddleOfCharges", backupRestoredInCharges},
		{"BackupRestoredWithoutRecoveryChargesTwice", backupWithoutRecovery},
		{"CopyRunsBesideTheOriginal", copyBeside},
		{"FilesPutBack", filesPutBack},
		{"StandbyPromoted", standbyPromoted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, binary)
		})
	}
}

func backupRestored(t *testing.T, binary string) {
	d := newRecoveryDay(t, binary, "off")
	const n = 10
	d.backupAndGoOn(n)
	d.restore(d.backup)
	if d.number(sqlProcessed) == 0 {
		t.Fatal("no outcome was open in the backup: the test proves nothing")
	}

	d.set(march.Add(time.Hour))
	p := d.launch("PAYMONGO_WEBHOOK_SECRET=" + recoveryWebhookSecret)
	before := d.box.Summary("invoice").Attaches
	d.await("frozen", d.frozen)
	d.await("the lost periods are opened", func() bool { return d.number(`SELECT count(*) FROM singil.invoices`) == 3*n })
	d.frozenTakesWebhooksAndLooks(p, n)
	d.await("every open outcome was looked at", func() bool {
		return d.number(`SELECT count(*) FROM singil.attempts WHERE state = 'armed'`) == 0
	})

	books := d.everything()
	if code, said := d.singil("recover"); code != 0 || !strings.Contains(said, "Nothing was changed") || strings.Count(said, "\npaid ") < n {
		t.Errorf("dry run: exit code %d:\n%s", code, said)
	} else {
		t.Logf("dry run:\n%s", said)
	}
	if after := d.everything(); after != books {
		t.Errorf("the dry run changed the books:\n%s\n%s", books, after)
	}
	if code, said := d.singil("unfreeze", "--reason", "too early"); code != 4 || !strings.Contains(said, "singil recover") {
		t.Errorf("unfreeze before the recovery: exit code %d: %s", code, said)
	}
	// An attach of the last moment may still be on its way.
	if code, said := d.singil("recover", "--apply"); code != 5 {
		t.Errorf("recover at once: exit code %d:\n%s", code, said)
	}
	if code, _ := d.singil("unfreeze", "--reason", "too early"); code != 4 {
		t.Errorf("unfreeze before the recovery is complete: exit code %d", code)
	}
	d.set(march.Add(2 * time.Hour))
	d.recovered(0)
	books = d.money()
	d.recovered(0) // once more: the same
	if after := d.money(); after != books {
		t.Errorf("the second recovery changed the books:\n%s\n%s", books, after)
	}
	if !d.frozen() {
		t.Error("the recovery has let charging go on")
	}
	if now := d.box.Summary("invoice").Attaches; now != before {
		t.Errorf("%d attaches while it was frozen", now-before)
	}
	d.goOn(n)
	p.stop()
	d.noDoubles(4 * n)
}

// frozenTakesWebhooksAndLooks proves that a frozen daemon still listens and asks.
func (d *recoveryDay) frozenTakesWebhooksAndLooks(p *process, n int) {
	d.t.Helper()
	var intent string
	for _, pi := range d.box.Ledger().Intents {
		if pi.Metadata["period"] == "0" && pi.Status == "succeeded" {
			intent = pi.ID
		}
	}
	body := fmt.Sprintf(`{"data":{"id":"evt_frozen","type":"event","attributes":{"type":"payment.paid","livemode":false,"created_at":%d,"updated_at":%d,
		"data":{"id":"pay_frozen","type":"payment","attributes":{"status":"paid","amount":49900,"currency":"PHP","livemode":false,"payment_intent_id":%q,"created_at":%d}}}}}`,
		d.now.Unix(), d.now.Unix(), intent, d.now.Unix())
	mac := hmac.New(sha256.New, []byte(recoveryWebhookSecret))
	fmt.Fprintf(mac, "%d.%s", d.now.Unix(), body)
	req, err := http.NewRequest("POST", p.url+"/webhooks/paymongo", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Paymongo-Signature", fmt.Sprintf("t=%d,te=%s,li=", d.now.Unix(), hex.EncodeToString(mac.Sum(nil))))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		d.t.Errorf("a webhook got %d while charging is frozen", resp.StatusCode)
	}
	d.await("the webhook was processed", func() bool {
		return d.number(`SELECT count(*) FROM singil.webhook_events WHERE tries > 0 OR processed_at IS NOT NULL`) == 1
	})
	// What was open in the backup is known to the provider by now.
	d.await("open outcomes are looked at", func() bool { return d.number(sqlProcessed) == 0 })
	if d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`) >= 3*n {
		d.t.Error("nothing is left to recover: the test proves nothing")
	}
}

func backupRestoredInCharges(t *testing.T, binary string) {
	d := newRecoveryDay(t, binary, "replay")
	const n = 10
	d.subscribe(n)
	p := d.launch()
	d.await("January is paid", d.paid(n))
	backup := d.takeBackup(false)
	d.latency(400 * time.Millisecond)
	p.stop()
	p = d.launch("PAYMONGO_RATE=12")
	d.set(february)
	d.await("some are charged", func() bool { return d.box.Summary("invoice").PaidPayments >= n+3 })
	p.kill()
	d.await("the acquirer is done", func() bool { return d.atWork() == 0 })
	if paid := d.box.Summary("invoice").PaidPayments; paid >= 2*n {
		t.Fatal("all were charged: the test proves nothing")
	}
	d.latency(0)
	d.restore(backup)

	before := d.box.Summary("invoice").Attaches
	d.set(february.Add(time.Hour))
	p = d.launch()
	d.await("frozen", d.frozen)
	d.await("the lost periods are opened", func() bool { return d.number(`SELECT count(*) FROM singil.invoices`) == 2*n })
	d.set(february.Add(2 * time.Hour))
	report := d.recovered(0)
	if report.KeysHonoured == nil || !*report.KeysHonoured {
		t.Errorf("the keys are honoured, and the recovery says %v", report.KeysHonoured)
	}
	if now := d.box.Summary("invoice").Attaches; now != before {
		t.Errorf("%d attaches before the end of the recovery", now-before)
	}
	d.unfreeze()
	d.await("February is paid", d.paid(2*n))
	p.stop()
	d.noDoubles(2 * n)
}

// backupWithoutRecovery is what the others would be without the guard: it shows
// that they can fail.
func backupWithoutRecovery(t *testing.T, binary string) {
	d := newRecoveryDay(t, binary, "off")
	const n = 6
	d.backupAndGoOn(n)
	d.restore(d.backup)
	d.set(march.Add(time.Hour))
	p := d.launch()
	d.await("frozen", d.frozen)
	if code, said := d.singil("unfreeze", "--without-recovery", "--reason", "to see what happens"); code != 0 {
		t.Fatalf("unfreeze: exit code %d: %s", code, said)
	}
	d.await("it was charged again", func() bool { return len(d.doubles()) > 0 })
	p.stop()
	if n := d.number(`SELECT count(*) FROM singil.recoveries WHERE waived`); n != 1 {
		t.Errorf("%d waived recoveries on record", n)
	}
	t.Logf("%d periods were charged twice", len(d.doubles()))
}

// copyBeside has two clusters of the same identity at the same time.
func copyBeside(t *testing.T, binary string) {
	d := newRecoveryDay(t, binary, "off")
	const n = 5
	witness := "SINGIL_WITNESS=" + filepath.Join(t.TempDir(), "witness")
	d.subscribe(n)
	p := d.launch(witness)
	d.await("January is paid", d.paid(n))
	p.stop()
	d.stopServer()
	files := d.keep(d.server.CopyFiles(t.Context()))
	d.startServer()

	twin, err := devpg.Start(t.Context(), devpg.Options{DataDir: files.Dir, Settings: recoverySettings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := twin.Stop(); err != nil {
			t.Error(err)
		}
	})
	// As another installation it is refused, by whatever comes.
	for _, args := range [][]string{{"run"}, {"recover"}, {"recover", "--apply"}} {
		p := d.begin(args, "DATABASE_URL="+twin.DSN(""), "SINGIL_ENVIRONMENT=staging")
		if code := p.wait(); code != 7 || !strings.Contains(p.log.String(), "bound to dev") {
			t.Errorf("singil %v as staging: exit code %d: %s", args, code, p.log)
		}
	}
	frozen := func() (frozen bool) {
		conn, err := pgx.Connect(t.Context(), twin.DSN(""))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context()) //nolint:errcheck // it only read
		if err := conn.QueryRow(t.Context(), `SELECT frozen FROM singil.instance`).Scan(&frozen); err != nil {
			t.Fatal(err)
		}
		return frozen
	}
	// As the same installation on a host that has seen nothing it cannot be told
	// from the original.
	p = d.launch("DATABASE_URL="+twin.DSN(""), "SINGIL_WITNESS="+filepath.Join(t.TempDir(), "fresh"))
	d.tick(p)
	p.stop()
	if frozen() {
		t.Error("a copy was noticed by a host that has seen neither: then the documentation is wrong")
	}
	// A host that has seen the original go on knows.
	p = d.launch(witness)
	d.set(february)
	d.await("February is paid", d.paid(2*n))
	p.stop()
	before := d.box.Summary("invoice").Attaches
	p = d.launch(witness, "DATABASE_URL="+twin.DSN(""))
	d.await("the copy is frozen", frozen)
	d.tick(p)
	p.stop()
	if now := d.box.Summary("invoice").Attaches; now != before {
		t.Errorf("%d attaches on the copy", now-before)
	}
	// The original does not mind.
	p = d.launch(witness)
	d.set(march)
	d.await("March is paid", d.paid(3*n))
	p.stop()
	d.noDoubles(3 * n)
}

// filesPutBack keeps cluster and timeline: only a memory tells.
func filesPutBack(t *testing.T, binary string) {
	d := newRecoveryDay(t, binary, "off")
	const n = 6
	witness := "SINGIL_WITNESS=" + filepath.Join(t.TempDir(), "witness")
	d.subscribe(n)
	p := d.launch(witness)
	d.await("January is paid", d.paid(n))
	p.stop()
	d.stopServer()
	files := d.keep(d.server.CopyFiles(t.Context()))
	d.startServer()
	later := "SINGIL_WITNESS=" + filepath.Join(t.TempDir(), "later")
	q := d.launch(later)
	p = d.launch() // without a file: its memory is enough as long as it lives
	d.set(february)
	d.await("February is paid", d.paid(2*n))
	for _, daemon := range []*process{p, q} { // whoever has charged, both are to have seen it
		d.looks(daemon)
	}
	q.kill()
	before := d.box.Summary("invoice").Attaches

	d.restore(files)
	d.set(march)
	d.await("frozen", d.frozen)
	d.await("the lost periods are opened", func() bool { return d.number(`SELECT count(*) FROM singil.invoices`) == 3*n })
	d.tick(p)
	p.kill()
	if now := d.box.Summary("invoice").Attaches; now != before {
		t.Errorf("%d attaches on files that were put back under a running daemon", now-before)
	}

	// The file knows as well what was charged before the daemon ended.
	d.restore(files)
	p = d.launch(witness) // which has seen January alone
	d.tick(p)
	if d.frozen() {
		t.Error("frozen, and nothing is missing that this host has seen")
	}
	p.stop()
	if now := d.box.Summary("invoice").Attaches; now != before {
		t.Fatalf("%d attaches, and nothing was due", now-before)
	}
	d.restore(files)
	d.set(march)
	p = d.launch(later)
	d.await("frozen", d.frozen)
	var reason string
	if err := d.pool.QueryRow(t.Context(), `SELECT recovery_needed FROM singil.instance`).Scan(&reason); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(reason, "attempts that this host has seen are not in the database") {
		t.Errorf("the reason is %q", reason)
	}
	d.await("the lost periods are opened", func() bool { return d.number(`SELECT count(*) FROM singil.invoices`) == 3*n })
	if now := d.box.Summary("invoice").Attaches; now != before {
		t.Errorf("%d attaches on files that were put back", now-before)
	}
	// February is found. March was never tried, which a provider that ignores keys
	// cannot confirm.
	d.set(march.Add(2 * time.Hour))
	report := d.recovered(1)
	if got := report.Review(); got != n {
		t.Errorf("%d are in review, want the %d of March", got, n)
	}
	if code, said := d.singil("recover", "--apply", "--accept-unproven"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	d.unfreeze()
	d.await("March is paid", d.paid(3*n))
	p.stop()
	d.noDoubles(3 * n)

	// Behind the recovery the witness has begun anew: nothing is missing.
	p = d.launch(later)
	d.tick(p)
	if d.frozen() {
		t.Error("frozen again, though the recovery is done")
	}
	p.stop()
}

func standbyPromoted(t *testing.T, binary string) {
	d := newRecoveryDay(t, binary, "replay")
	const n = 6
	d.subscribe(n)
	p := d.launch()
	d.await("January is paid", d.paid(n))
	files := d.takeBackup(true)
	standby, err := devpg.Start(t.Context(), devpg.Options{DataDir: files.Dir, Settings: recoverySettings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	other, err := pgxpool.New(t.Context(), standby.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	// It loses the connection, and so what comes now.
	for _, sql := range []string{`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`} {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	d.await("the standby is alone", func() bool {
		var receivers int
		if err := other.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_wal_receiver`).Scan(&receivers); err != nil {
			t.Fatal(err)
		}
		return receivers == 0
	})
	d.set(february)
	d.await("February is paid", d.paid(2*n))
	before := d.box.Summary("invoice").Attaches

	if err := d.server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), `SELECT pg_promote(true)`); err != nil {
		t.Fatal(err)
	}
	// The control file still has the old timeline: it is not what to ask.
	var control, wal int
	if err := other.QueryRow(t.Context(), `SELECT (SELECT timeline_id FROM pg_control_checkpoint()), ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer`).
		Scan(&control, &wal); err != nil {
		t.Fatal(err)
	}
	if wal != 2 {
		t.Errorf("WAL is written on timeline %d, want 2", wal)
	}
	t.Logf("right after the promotion: timeline %d in the control file, %d in the WAL", control, wal)
	d.to.Store(standby.DSN(""))
	d.pool.Reset()
	d.set(february.Add(time.Hour)) // February is due there
	d.await("frozen", d.frozen)
	d.await("the lost periods are opened", func() bool { return d.number(`SELECT count(*) FROM singil.invoices`) == 2*n })
	d.tick(p)
	if now := d.box.Summary("invoice").Attaches; now != before {
		t.Errorf("%d attaches on the new primary", now-before)
	}
	d.set(february.Add(2 * time.Hour))
	d.recovered(0)
	d.unfreeze()
	d.set(march)
	d.await("March is paid", d.paid(3*n))
	p.stop()
	d.noDoubles(3 * n)
}

// recoveryDay is a badDay on a cluster of its own, behind an address that can be
// led elsewhere.
type recoveryDay struct {
	*badDay
	server *devpg.Server
	to     atomic.Value // the address that connections go to
	backup *devpg.Backup
}

const recoveryWebhookSecret = "whsk_recoveryTest"

// Committed is committed when a process dies: only a machine's end may lose it.
var recoverySettings = map[string]string{"synchronous_commit": "on", "restore_command": "false", "max_connections": "100"}

func newRecoveryDay(t *testing.T, binary, idempotency string) *recoveryDay {
	t.Helper()
	server, err := devpg.Start(t.Context(), devpg.Options{InMemory: true, Settings: recoverySettings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := migrations.Up(t.Context(), server.DSN(""), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	d := &recoveryDay{server: server}
	d.to.Store(server.DSN(""))
	d.badDay = newBadDay(t, binary, d.proxy(t))
	profile := d.box.Profile()
	profile.Idempotency, profile.IdempotencyMismatch = idempotency, "replay"
	if err := d.box.SetProfile(profile); err != nil {
		t.Fatal(err)
	}
	return d
}

// proxy is the address of whatever server is the primary, as in front of a pair.
func (d *recoveryDay) proxy(t *testing.T) (dsn string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // it ends the loop
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close() //nolint:errcheck // both sides know
				to, err := url.Parse(d.to.Load().(string))
				if err != nil {
					return
				}
				out, err := net.Dial("tcp", to.Host)
				if err != nil {
					return
				}
				defer out.Close() //nolint:errcheck // both sides know
				go func() {
					_, _ = io.Copy(out, in)
					_ = out.Close()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	address, err := url.Parse(d.to.Load().(string))
	if err != nil {
		t.Fatal(err)
	}
	address.Host = listener.Addr().String()
	return address.String()
}

// keep removes a copy when the test ends.
func (d *recoveryDay) keep(b *devpg.Backup, err error) *devpg.Backup {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := b.Remove(); err != nil {
			d.t.Error(err)
		}
	})
	return b
}

func (d *recoveryDay) takeBackup(standby bool) *devpg.Backup {
	d.t.Helper()
	b := d.keep(d.server.Backup(d.t.Context(), standby))
	if !standby {
		// As a backup is restored: the end of it is the beginning of a new timeline.
		if err := b.Signal("recovery.signal"); err != nil {
			d.t.Fatal(err)
		}
	}
	return b
}

const sqlProcessed = `SELECT count(*) FROM singil.invoices WHERE waiting_for = 'provider' AND poll_count > 0`

// backupAndGoOn takes a backup while January is charged; then February and March
// are charged as well, and everything ends.
func (d *recoveryDay) backupAndGoOn(n int) {
	d.t.Helper()
	d.subscribe(n)
	d.latency(300 * time.Millisecond)
	d.fault(sandbox.Fault{Kind: sandbox.Processing, Times: 1, For: sandbox.Duration(time.Hour)})
	p := d.launch("PAYMONGO_RATE=15")
	d.await("some are charged, and one is being processed", func() bool {
		return d.box.Summary("invoice").PaidPayments >= n/4 && d.number(sqlProcessed) > 0
	})
	d.backup = d.takeBackup(false)
	d.await("January is paid, but for one", d.paid(n-1))
	d.latency(0)
	d.set(tortureStart.Add(2 * time.Hour))
	d.await("January is paid", d.paid(n))
	for i, period := range []time.Time{february, march} {
		d.set(period)
		d.await("the next period is paid", d.paid((i+2)*n))
	}
	p.kill()
}

func (d *recoveryDay) stopServer() {
	d.t.Helper()
	if err := d.server.Kill(); err != nil {
		d.t.Fatal(err)
	}
}

// startServer returns when the server takes writes.
func (d *recoveryDay) startServer() {
	d.t.Helper()
	if err := d.server.Restart(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	d.pool.Reset()
	d.await("the server takes writes", func() bool {
		var standby bool
		err := d.pool.QueryRow(context.Background(), `SELECT pg_is_in_recovery()`).Scan(&standby)
		return err == nil && !standby
	})
}

// restore replaces the database by what it once was.
func (d *recoveryDay) restore(b *devpg.Backup) {
	d.t.Helper()
	d.stopServer()
	if err := d.server.PutBack(d.t.Context(), b); err != nil {
		d.t.Fatal(err)
	}
	d.startServer()
}

// looks waits until a daemon has compared its database from now on, as it does
// before a sweep when the clock was moved. The first sweep that it counts may have
// begun before.
func (d *recoveryDay) looks(p *process) {
	d.t.Helper()
	sweeps := func() float64 {
		resp, err := metricsClient.Get(p.url + "/metrics")
		if err != nil {
			d.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			d.t.Fatal(err)
		}
		n, err := gaugeIn(text, sweepsDone)
		if err != nil {
			d.t.Fatal(err)
		}
		return n
	}
	for range 2 {
		before := sweeps()
		d.set(d.now.Add(time.Second))
		d.await("a sweep", func() bool { return sweeps() > before })
	}
}

var sweepsDone = regexp.MustCompile(`(?m)^singil_scheduler_runs_total{result="ok"} (\S+)$`)

func (d *recoveryDay) frozen() bool {
	return d.number(`SELECT count(*) FROM singil.instance WHERE frozen`) == 1
}

func (d *recoveryDay) paid(n int) func() bool {
	return func() bool { return d.number(`SELECT count(*) FROM singil.invoices WHERE status = 'paid'`) >= n }
}

// recovered runs the recovery for good and wants an exit code.
func (d *recoveryDay) recovered(want int) (report worker.RecoveryReport) {
	d.t.Helper()
	before := d.box.Summary("invoice").Attaches
	cmd := exec.Command(d.binary, "recover", "--apply", "-o", "json")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+d.dsn, "PAYMONGO_SECRET_KEY=sk_test_baddays", "PAYMONGO_BASE_URL="+d.url, "PAYMONGO_RATE=5000")
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != want {
		d.t.Fatalf("recover: exit code %d, want %d: %v\n%s", code, want, err, out)
	}
	if err := json.Unmarshal(out, &report); err != nil {
		d.t.Fatalf("%v:\n%s", err, out)
	}
	if now := d.box.Summary("invoice").Attaches; now != before {
		d.t.Errorf("the recovery attached %d times", now-before)
	}
	d.t.Logf("recovery: %+v, %d listed, %d opened", report.Sums, report.Listed, report.Opened)
	return report
}

func (d *recoveryDay) unfreeze() {
	d.t.Helper()
	if code, said := d.singil("unfreeze", "--reason", "recovered"); code != 0 {
		d.t.Fatalf("unfreeze: exit code %d: %s", code, said)
	}
}

// goOn lets one more period come, on the recovered database.
func (d *recoveryDay) goOn(n int) {
	d.t.Helper()
	d.unfreeze()
	d.await("all that was due is paid", d.paid(3*n))
	d.set(april)
	d.await("April is paid", d.paid(4*n))
}

// doubles are the periods that the ledger has paid more than once. By
// subscription and period: a period that was opened again has a new invoice.
func (d *recoveryDay) doubles() (twice []string) {
	count := map[string]int{}
	for _, intent := range d.box.Ledger().Intents {
		for _, p := range intent.Payments {
			if p.Status == "paid" {
				count[intent.Metadata["subscription"]+"/"+intent.Metadata["period"]]++
			}
		}
	}
	for period, n := range count {
		if n > 1 {
			twice = append(twice, period)
		}
	}
	return twice
}

// noDoubles compares the whole ledger with the books: each period is paid once,
// and each payment is on record for its invoice.
func (d *recoveryDay) noDoubles(n int) {
	d.t.Helper()
	if twice := d.doubles(); len(twice) > 0 {
		d.t.Errorf("CHARGED TWICE: %v", twice)
	}
	var paid []string
	for _, intent := range d.box.Ledger().Intents {
		for _, p := range intent.Payments {
			if p.Status == "paid" {
				paid = append(paid, p.ID)
			}
		}
	}
	if len(paid) != n {
		d.t.Errorf("%d payments, want %d", len(paid), n)
	}
	if known := d.number(`SELECT count(*) FROM singil.payments p JOIN singil.invoices i ON i.id = p.invoice_id AND i.payment_id = p.payment_id
		WHERE p.payment_id = ANY ($1) AND p.status = 'paid' AND i.status = 'paid'`, paid); known != len(paid) {
		d.t.Errorf("the books know %d of %d payments", known, len(paid))
	}
	if all := d.number(`SELECT count(*) FROM singil.invoices`); all != n {
		d.t.Errorf("LOST: %d invoices, want %d: %s", all, n, d.books())
	}
}

// everything is everything that a recovery could change.
func (d *recoveryDay) everything() (all string) {
	d.t.Helper()
	for _, table := range []string{"instance", "subscriptions", "recoveries", "audit_log", "events"} {
		all += d.digest(table)
	}
	return all + d.money()
}

// money is what the money says.
func (d *recoveryDay) money() (all string) {
	d.t.Helper()
	for _, table := range []string{"invoices", "payment_intents", "attempts", "payments"} {
		all += d.digest(table)
	}
	return all
}

func (d *recoveryDay) digest(table string) (digest string) {
	d.t.Helper()
	err := d.pool.QueryRow(d.t.Context(), `SELECT count(*) || ' ' || COALESCE(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM singil.`+table+` AS t`).Scan(&digest)
	if err != nil {
		d.t.Fatal(err)
	}
	return table + " " + digest + "\n"
}
