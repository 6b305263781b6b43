// Package naive is the billing worker that a textbook has: one River job an invoice, one connection from a pool for each
// statement, a row before the money moves, and the end of the charge and of the job in one transaction. It is what singil
// is measured against, and is as fast as such a worker can be: see Client for its settings.
//
// It is no worker to use: it does not ask what became of a charge whose answer was lost, and would charge it again.
package naive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// Schema is all that it needs beside River's tables.
const Schema = `
CREATE TABLE cards (
  id          bigint PRIMARY KEY,
  provider_id text NOT NULL UNIQUE
);
CREATE TABLE invoices (
  id        bigint PRIMARY KEY,
  card_id   bigint NOT NULL REFERENCES cards,
  amount    bigint NOT NULL CHECK (amount > 0),
  status    text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'paid', 'failed')),
  intent_id text UNIQUE,
  payment_id text UNIQUE,
  paid_at   timestamptz
);
CREATE INDEX invoices_open ON invoices (id) WHERE status = 'open';
CREATE TABLE attempts (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  invoice_id bigint NOT NULL REFERENCES invoices,
  intent_id  text NOT NULL,
  state      text NOT NULL DEFAULT 'sent' CHECK (state IN ('sent', 'succeeded', 'failed')),
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX attempts_invoice ON attempts (invoice_id);`

// ChargeArgs asks to charge one invoice.
type ChargeArgs struct {
	InvoiceID int64 `json:"invoice_id"`
}

// Kind implements river.JobArgs.
func (ChargeArgs) Kind() string { return "charge" }

// Worker charges. Provider is the base URL of the provider's API.
type Worker struct {
	river.WorkerDefaults[ChargeArgs]
	Pool     *pgxpool.Pool
	HTTP     *http.Client
	Provider string
}

// Connections of the pool: more or fewer are slower on two cores.
const Connections = 40

// Workers are how many charges are under way at once.
const Workers = 200

// Client makes a River client for a Worker. River's defaults fetch ten times a second, at most Workers jobs each time,
// which would be its limit; so it may fetch as often as it likes.
func Client(pool *pgxpool.Pool, provider string) (*river.Client[pgx.Tx], error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = Workers, Workers // else connections are not kept
	workers := river.NewWorkers()
	river.AddWorker(workers, &Worker{
		Pool: pool, Provider: provider, HTTP: &http.Client{Transport: transport, Timeout: 30 * time.Second},
	})
	return river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: Workers}},
		FetchCooldown: 5 * time.Millisecond, FetchPollInterval: 100 * time.Millisecond,
		Workers: workers,
	})
}

// Work charges one invoice.
func (w *Worker) Work(ctx context.Context, job *river.Job[ChargeArgs]) error {
	var amount int64
	var card, status string
	err := w.Pool.QueryRow(ctx, `
		SELECT i.amount, i.status, c.provider_id FROM invoices i JOIN cards c ON c.id = i.card_id WHERE i.id = $1`,
		job.Args.InvoiceID).Scan(&amount, &status, &card)
	if err != nil {
		return err
	}
	if status != "open" {
		return nil
	}
	intent, err := w.call(ctx, "/payment_intents", map[string]any{
		"amount": amount, "currency": "PHP", "payment_method_allowed": []string{"card"},
		"metadata": map[string]string{"invoice": fmt.Sprint(job.Args.InvoiceID)},
	})
	if err != nil {
		return err
	}
	var attempt int64
	err = w.Pool.QueryRow(ctx, `
		INSERT INTO attempts (invoice_id, intent_id) VALUES ($1, $2) RETURNING id`,
		job.Args.InvoiceID, intent.Data.ID).Scan(&attempt)
	if err != nil {
		return err
	}
	paid, err := w.call(ctx, "/payment_intents/"+intent.Data.ID+"/attach", map[string]any{"payment_method": card})
	if err != nil {
		return err
	}
	if paid.Data.Attributes.Status != "succeeded" || len(paid.Data.Attributes.Payments) == 0 {
		return fmt.Errorf("intent %s is %s", intent.Data.ID, paid.Data.Attributes.Status)
	}
	return pgx.BeginFunc(ctx, w.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE attempts SET state = 'succeeded' WHERE id = $1`, attempt); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			UPDATE invoices SET status = 'paid', intent_id = $2, payment_id = $3, paid_at = now() WHERE id = $1`,
			job.Args.InvoiceID, intent.Data.ID, paid.Data.Attributes.Payments[0].ID); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		return err
	})
}

// intent is what it reads of an answer.
type intent struct {
	Data struct {
		ID         string
		Attributes struct {
			Status   string
			Payments []struct{ ID string }
		}
	}
}

func (w *Worker) call(ctx context.Context, path string, attributes map[string]any) (answer intent, err error) {
	body, err := json.Marshal(map[string]any{"data": map[string]any{"attributes": attributes}})
	if err != nil {
		return answer, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.Provider+path, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth("sk_test_bench", "")
	resp, err := w.HTTP.Do(req)
	if err != nil {
		return answer, err
	}
	content, err := io.ReadAll(resp.Body) // to its end, or the connection is not kept
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return answer, err
	}
	if resp.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s: %s: %s", path, resp.Status, content)
	}
	return answer, json.Unmarshal(content, &answer)
}
