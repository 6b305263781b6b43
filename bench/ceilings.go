package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// The ceilings: no worker that makes two calls a charge can be faster than the calls alone, and none that is a job can be
// faster than River with jobs that do nothing. Each runs in a process of its own, as the workers do, and tells what it
// measured on its last line.

// ceiling is a role that measures by itself.
type ceiling struct {
	Charges int     `json:"charges"`
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"`
}

var told = regexp.MustCompile(`(?m)^(\{.*\})$`)

// ceiling runs such a role.
func (r *rig) ceiling(ctx context.Context, role string, n int, latency time.Duration, env ...string) (Charges, error) {
	if err := r.resetProvider(ctx, latency); err != nil {
		return Charges{}, err
	}
	p, err := r.role(role, append(env, countName+"="+strconv.Itoa(n))...)
	if err != nil {
		return Charges{}, err
	}
	line, err := p.says(ctx, told)
	if err != nil {
		return Charges{}, err
	}
	<-p.ended
	var c ceiling
	if err := json.Unmarshal([]byte(line), &c); err != nil {
		return Charges{}, err
	}
	return Charges{
		Side: role, LatencyMS: latency.Milliseconds(), Processes: 1, Charges: c.Charges, Seconds: c.Seconds,
		PerSecond: float64(c.Charges) / c.Seconds, WorkerCPU: c.CPU / float64(c.Charges) * 1000,
	}, nil
}

// runCalls is the role: the two calls of each charge, and nothing else.
func runCalls(ctx context.Context) error {
	n, err := strconv.Atoi(os.Getenv(countName))
	if err != nil {
		return err
	}
	const callers = 200
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = callers, callers
	c := caller{http: &http.Client{Transport: transport}, base: os.Getenv(providerName) + "/v1/payment_intents"}
	if _, err := c.charge(ctx, callers, min(n, warmUpCharges)); err != nil {
		return err
	}
	took, err := c.charge(ctx, callers, n)
	if err != nil {
		return err
	}
	return tell(took)
}

type caller struct {
	http *http.Client
	base string
}

const (
	createBody = `{"data":{"attributes":{"amount":49900,"currency":"PHP","payment_method_allowed":["card"],"metadata":{"invoice":"0"}}}}`
	attachBody = `{"data":{"attributes":{"payment_method":"pm_0"}}}`
)

var intentID = regexp.MustCompile(`"id":"(pi_[0-9]+)"`)

func (c caller) charge(ctx context.Context, callers, n int) (ceiling, error) {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make(chan error, callers)
	var all sync.WaitGroup
	began, cpu := time.Now(), ownCPU()
	for range callers {
		all.Go(func() {
			var answer bytes.Buffer
			for left.Add(-1) >= 0 {
				err := c.call(ctx, c.base, createBody, &answer)
				if err == nil {
					id := intentID.FindSubmatch(answer.Bytes())
					if id == nil {
						err = fmt.Errorf("no intent in %s", answer.Bytes())
					} else {
						err = c.call(ctx, c.base+"/"+string(id[1])+"/attach", attachBody, &answer)
					}
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	result := ceiling{Charges: n, Seconds: time.Since(began).Seconds(), CPU: (ownCPU() - cpu).Seconds()}
	close(errs)
	return result, <-errs
}

func (c caller) call(ctx context.Context, url, body string, answer *bytes.Buffer) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer.Reset()
	if _, err := io.Copy(answer, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}

// runEmptyJobs is the role: River working jobs that do nothing.
func runEmptyJobs(ctx context.Context) error {
	n, err := strconv.Atoi(os.Getenv(countName))
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Getenv(databaseName)+"&pool_max_conns=20")
	if err != nil {
		return err
	}
	defer pool.Close()
	worker := &emptyWorker{}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}},
		FetchCooldown: time.Millisecond, FetchPollInterval: 100 * time.Millisecond,
		Workers: workers, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	if _, err := worker.work(ctx, client, pool, min(n, warmUpCharges), false); err != nil {
		return err
	}
	took, err := worker.work(ctx, client, pool, n, true)
	if err := errors.Join(err, client.Stop(ctx)); err != nil {
		return err
	}
	return tell(took)
}

// work works n jobs. With wait all of them are there when the clock begins.
func (w *emptyWorker) work(ctx context.Context, client *river.Client[pgx.Tx], pool *pgxpool.Pool, n int, wait bool) (took ceiling, err error) {
	w.worked.Store(0)
	if wait {
		if err := pause(ctx, client, river.QueueDefault); err != nil {
			return took, err
		}
	}
	for left := n; left > 0; left -= 10_000 {
		jobs := make([]river.InsertManyParams, min(left, 10_000))
		for i := range jobs {
			jobs[i].Args = emptyArgs{}
		}
		if _, err := client.InsertManyFast(ctx, jobs); err != nil {
			return took, err
		}
	}
	if wait {
		if _, err := pool.Exec(ctx, "VACUUM (ANALYZE)"); err != nil {
			return took, err
		}
	}
	began, cpu := time.Now(), ownCPU()
	if wait {
		if err := client.QueueResume(ctx, river.QueueDefault, nil); err != nil {
			return took, err
		}
	}
	err = until(ctx, time.Millisecond, 5*time.Minute, func() (yes bool, err error) {
		if w.worked.Load() < int64(n) {
			return false, nil
		}
		err = pool.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM river_job WHERE state IN ('available', 'running'))`).Scan(&yes)
		return yes, err
	})
	return ceiling{Charges: n, Seconds: time.Since(began).Seconds(), CPU: (ownCPU() - cpu).Seconds()}, err
}

type emptyArgs struct{}

func (emptyArgs) Kind() string { return "empty" }

type emptyWorker struct {
	river.WorkerDefaults[emptyArgs]
	worked atomic.Int64
}

func (w *emptyWorker) Work(context.Context, *river.Job[emptyArgs]) error {
	w.worked.Add(1)
	return nil
}

func tell(c ceiling) error { return json.NewEncoder(os.Stdout).Encode(c) }

func ownCPU() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
