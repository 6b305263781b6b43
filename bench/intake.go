package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/singil/singil/bench/stub"
)

// Part f: what comes in and goes out in numbers: webhooks, imports, exports.

// Intake is what part f came to, in rows or events a second.
type Intake struct {
	Events      int     `json:"events"`
	Accepted    float64 `json:"events_accepted_per_second"`  // signature checked, stored, durable, answered
	Processed   float64 `json:"events_processed_per_second"` // and the books compared with what each says
	ImportLines int     `json:"import_lines"`
	Imported    float64 `json:"import_lines_per_second"`
	Exports     []struct {
		Kind      string  `json:"kind"`
		Rows      int     `json:"rows"`
		PerSecond float64 `json:"per_second"`
	} `json:"exports"`
}

func intakePart(ctx context.Context, r *rig, report *Report) (err error) {
	p, err := newProduct(ctx, r, "intake")
	if err != nil {
		return err
	}
	defer func() { err = p.drop(ctx, err) }()
	in := &Intake{Events: r.options.charges, ImportLines: 3 * r.options.imports}
	report.Intake = in
	if err := in.webhooks(ctx, p); err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	if err := in.imports(ctx, p); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	for _, kind := range []string{"subscriptions", "invoices", "attempts", "payments"} {
		if err := in.export(ctx, p, kind); err != nil {
			return fmt.Errorf("export %s: %w", kind, err)
		}
	}
	r.log.Info("intake", "events_accepted_per_second", int(in.Accepted), "events_processed_per_second", int(in.Processed),
		"import_lines_per_second", int(in.Imported), "exports", in.Exports)
	return nil
}

const webhookSecret = "whsk_bench"

// webhooks charges, and then delivers an event for every payment, fifty at a time.
func (in *Intake) webhooks(ctx context.Context, p *product) (err error) {
	if err := p.resetProvider(ctx, 0); err != nil {
		return err
	}
	daemon, err := p.daemon(ctx, "PAYMONGO_WEBHOOK_SECRET="+webhookSecret)
	if err != nil {
		return err
	}
	defer daemon.kill()
	if err := p.prepare(ctx, in.Events); err != nil {
		return err
	}
	if err := p.charged(ctx, p, in.Events, 0); err != nil {
		return err
	}
	payments, err := p.ledger(ctx)
	if err != nil {
		return err
	}
	deliveries := make([]*http.Request, len(payments))
	for i, payment := range payments {
		if deliveries[i], err = delivery(ctx, p, payment); err != nil {
			return err
		}
	}

	const senders = 50
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	var next atomic.Int64
	errs := make(chan error, senders)
	var all sync.WaitGroup
	began := time.Now()
	for range senders {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(deliveries)); i = next.Add(1) - 1 {
				if err := deliver(client, deliveries[i]); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	in.Accepted = float64(in.Events) / time.Since(began).Seconds()
	err = until(ctx, 20*time.Millisecond, 5*time.Minute, func() (yes bool, err error) {
		err = p.pool.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM singil.webhook_events WHERE processed_at IS NULL)`).Scan(&yes)
		return yes, err
	})
	if err != nil {
		return fmt.Errorf("process them: %w", err)
	}
	in.Processed = float64(in.Events) / time.Since(began).Seconds()
	var applied int
	if err := p.pool.QueryRow(ctx, `SELECT count(*) FROM singil.webhook_events WHERE result = 'applied'`).Scan(&applied); err != nil {
		return err
	}
	if applied != in.Events {
		return fmt.Errorf("%d of %d events are applied", applied, in.Events)
	}
	return daemon.stop()
}

// delivery is a payment.paid as PayMongo sends it, signed.
func delivery(ctx context.Context, p *product, payment stub.Payment) (*http.Request, error) {
	now := p.now.Unix()
	body := fmt.Appendf(nil, `{"data":{"id":"evt_%[1]s","type":"event","attributes":{"type":"payment.paid","livemode":false,"data":{"id":"%[1]s",`+
		`"type":"payment","attributes":{"access_url":null,"amount":%[2]d,"balance_transaction_id":"bal_txn_%[1]s","billing":null,"currency":"PHP",`+
		`"description":null,"disputed":false,"external_reference_number":null,"fee":3247,"foreign_fee":100,"livemode":false,"net_amount":%[2]d,`+
		`"origin":"api","payment_intent_id":"%[3]s","payout":null,"source":{"id":"card_%[1]s","type":"card","brand":"visa","country":"PH","last4":"4345"},`+
		`"statement_descriptor":null,"status":"paid","tax_amount":null,"metadata":{"invoice":"%[4]s"},"promotion":null,"refunds":[],"taxes":[],`+
		`"available_at":%[5]d,"created_at":%[5]d,"credited_at":null,"paid_at":%[5]d,"updated_at":%[5]d}},"previous_data":{},`+
		`"pending_webhooks":1,"created_at":%[5]d,"updated_at":%[5]d}}}`,
		payment.Payment, payment.Amount, "pi_"+strings.TrimPrefix(payment.Payment, "pay_"), payment.Invoice, now)
	mac := hmac.New(sha256.New, []byte(webhookSecret))
	fmt.Fprintf(mac, "%d.%s", now, body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.address+"/webhooks/paymongo", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Paymongo-Signature", fmt.Sprintf("t=%d,te=%s,li=", now, hex.EncodeToString(mac.Sum(nil))))
	return req, nil
}

func deliver(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}

// imports has singil import a customer, a card and a subscription, many times.
func (in *Intake) imports(ctx context.Context, p *product) error {
	path := filepath.Join(p.dir, "import.jsonl")
	var lines bytes.Buffer
	due := p.now.AddDate(0, 1, 0).Format(time.RFC3339)
	for i := range in.ImportLines / 3 {
		fmt.Fprintf(&lines, `{"type":"customer","external_id":"i%[1]d","paymongo_customer_id":"cus_i%[1]d","name":"Customer %[1]d","email":"customer%[1]d@example.com"}
{"type":"payment_method","customer":"i%[1]d","paymongo_payment_method_id":"pm_i%[1]d","brand":"visa","last4":"4345","exp_month":12,"exp_year":2040}
{"type":"subscription","external_id":"i%[1]d","customer":"i%[1]d","plan":"bench","anchor":"%[2]s","time_zone":"Asia/Manila","bill_from":"%[2]s"}
`, i, due)
	}
	if err := os.WriteFile(path, lines.Bytes(), 0o600); err != nil {
		return err
	}
	began := time.Now()
	if _, err := p.command(ctx, "import", path, "--actor", "bench"); err != nil {
		return err
	}
	in.Imported = float64(in.ImportLines) / time.Since(began).Seconds()
	return nil
}

func (in *Intake) export(ctx context.Context, p *product, kind string) error {
	began := time.Now()
	out, err := p.command(ctx, "export", kind)
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	rows := bytes.Count(out, []byte{'\n'})
	in.Exports = append(in.Exports, struct {
		Kind      string  `json:"kind"`
		Rows      int     `json:"rows"`
		PerSecond float64 `json:"per_second"`
	}{kind, rows, float64(rows) / took})
	return nil
}

// command runs a command of singil to its end, and gives what it wrote.
func (p *product) command(ctx context.Context, args ...string) ([]byte, error) {
	run, err := p.launch("command", p.singil, args, []string{"DATABASE_URL=" + p.pg.DSN(p.database), "PAYMONGO_SECRET_KEY=sk_test_bench"})
	if err != nil {
		return nil, err
	}
	select {
	case <-run.ended:
	case <-ctx.Done():
		run.kill()
		return nil, ctx.Err()
	}
	if run.err != nil {
		return nil, fmt.Errorf("singil %s: %w: %s", args[0], run.err, run.lastWords())
	}
	return os.ReadFile(run.log)
}

func writeIntake(out io.Writer, in *Intake) {
	if in == nil {
		return
	}
	fmt.Fprintf(out, `
## In and out

| | rows | a second |
|---|---|---|
| webhooks: signature checked, stored, durable, answered | %[1]s | %[2]s |
| webhooks: and the books compared with what each says | %[1]s | %[3]s |
| singil import, from start to end | %[4]s | %[5]s |
`, number(float64(in.Events), 0), number(in.Accepted, 0), number(in.Processed, 0), number(float64(in.ImportLines), 0), number(in.Imported, 0))
	for _, e := range in.Exports {
		fmt.Fprintf(out, "| singil export %s, from start to end | %s | %s |\n", e.Kind, number(float64(e.Rows), 0), number(e.PerSecond, 0))
	}
}
