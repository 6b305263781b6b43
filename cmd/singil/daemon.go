package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/scheduler"
	"github.com/singil/singil/server"
	"github.com/singil/singil/server/api"
	"github.com/singil/singil/worker"
)

const (
	reconcileWorkers = 20
	webhookWorkers   = 20

	// fetchCooldown is how soon the queue is asked again after it gave jobs. It is
	// asked that often only while jobs end as fast.
	fetchCooldown = 10 * time.Millisecond

	// clockTolerance is how far this process's clock may be off the database's.
	clockTolerance = 2 * time.Second

	// drainTimeout is how long a shutdown waits for attaches under way: longer
	// than the longest attach, shorter than what supervisors grant.
	drainTimeout = 25 * time.Second

	// sweepPatience is how long the timer may be away in one sweep before the
	// watchdog takes it for stuck: a million due subscriptions take less.
	sweepPatience = 15 * time.Minute
)

// daemon is singil run: everything between start and stop.
type daemon struct {
	cfg        config
	log        *slog.Logger
	pool       *pgxpool.Pool // for whoever asks
	chargePool *pgxpool.Pool // the collector's
	riverPool  *pgxpool.Pool // River's: its elections must not wait for our transactions
	apiPool    *pgxpool.Pool // the API's; nil: it is switched off
	pagePool   *pgxpool.Pool // of River's page, to read; nil likewise
	registry   *prometheus.Registry
	metrics    *worker.Metrics
	collector  *worker.Collector
	witness    *worker.Witness
	jobs       *river.Client[pgx.Tx]
	timer      scheduler.Timer
	outbox     *worker.Outbox
	handler    http.Handler
	super      *supervisor
	pulse      pulse // the timer's

	now      func() time.Time // the machine's clock
	virtual  time.Time        // as the timer saw it last
	older    string           // as the witness saw it last
	draining atomic.Bool
	clockOff atomic.Bool
}

// gateways is PayMongo for charging, and for the API.
type gateways interface {
	worker.Gateway
	api.Gateway
}

// newDaemon connects, checks that everything belongs together, and binds a new
// database to this installation. It changes nothing else. The metrics are those
// that the gateway's client is observed with.
func newDaemon(ctx context.Context, cfg config, gateway gateways, livemode bool, metrics *worker.Metrics, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{cfg: cfg, log: log, registry: prometheus.NewRegistry(), metrics: metrics, now: time.Now}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	zone, err := billing.LoadZone(cfg.TimeZone)
	if err != nil {
		return nil, configError{fmt.Errorf("SINGIL_TIME_ZONE: %w", err)}
	}
	schedule, err := scheduler.Parse(cfg.Schedule, zone)
	if err != nil {
		return nil, configError{fmt.Errorf("SINGIL_SCHEDULE: %w", err)}
	}
	if d.witness, err = worker.OpenWitness(cfg.Witness); err != nil {
		return nil, configError{fmt.Errorf("SINGIL_WITNESS: %w", err)}
	}
	if d.pool, err = cfg.open(ctx, "singil"); err != nil {
		return nil, err
	}
	if d.chargePool, err = connect(ctx, cfg.DatabaseURL, "singil-charge", planOnce); err != nil {
		return nil, err
	}
	if d.riverPool, err = connect(ctx, cfg.DatabaseURL, "singil-river", planAnew); err != nil {
		return nil, err
	}
	if err := warnWithoutLimits(ctx, d.pool, log); err != nil {
		return nil, err
	}
	if err := d.bind(ctx, livemode); err != nil {
		return nil, err
	}

	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(livemode), configInfo(cfg.Environment, livemode), clockInfo(&d.clockOff))
	d.registry.MustRegister(metrics.Collectors()...)
	d.collector = worker.NewCollector(worker.Config{
		Pool: d.chargePool, Gateway: gateway, Environment: cfg.Environment, Livemode: livemode, Log: log, Metrics: metrics,
		MayCharge: d.mayCharge, Watch: cfg.Watch, Witness: d.witness, Now: time.Now, InFlight: cfg.InFlight,
	})
	workers := map[string]int{
		worker.QueueCharge: cfg.InFlight, worker.QueueReconcile: reconcileWorkers, worker.QueueSweep: 1, worker.QueueWebhook: webhookWorkers,
	}
	metrics.HasWorkers(workers)
	queues := map[string]river.QueueConfig{}
	for queue, most := range workers {
		queues[queue] = river.QueueConfig{MaxWorkers: most}
	}
	queues[worker.QueueCharge] = river.QueueConfig{MaxWorkers: worker.ChargeJobs(cfg.InFlight)}
	d.jobs, err = river.NewClient(riverpgxv5.New(d.riverPool), &river.Config{
		Schema: migrations.RiverSchema, Logger: log, Workers: d.collector.Workers(), Queues: queues,
		PeriodicJobs: scheduler.PeriodicJobs(schedule),
		JobTimeout:   worker.JobTimeout, RescueStuckJobsAfter: worker.RescueAfter, SoftStopTimeout: drainTimeout,
		FetchOnlyKnownKinds:         true,
		FetchCooldown:               fetchCooldown,
		PollOnly:                    throughPooler(d.riverPool.Config().ConnConfig),
		CompletedJobRetentionPeriod: time.Hour, // the ledger is elsewhere
		ReindexerIndexNames:         worker.ReindexedIndexes(),
	})
	if err != nil {
		return nil, fmt.Errorf("start the queue: %w", err)
	}
	if cfg.API {
		if d.apiPool, err = cfg.openAPI(ctx, d.pool); err != nil {
			return nil, err
		}
		if d.pagePool, err = cfg.openPage(ctx); err != nil {
			return nil, err
		}
	}
	pools := map[string]*pgxpool.Pool{"singil": d.pool, "charge": d.chargePool, "river": d.riverPool}
	if d.apiPool != nil {
		pools["api"] = d.apiPool
	}
	d.registry.MustRegister(worker.NewStats(worker.StatsConfig{Pool: d.pool, Now: time.Now, RiverClient: d.jobs.ID(), Pools: pools}))
	d.outbox = worker.NewOutbox(worker.OutboxConfig{Pool: d.pool, Log: log, Now: time.Now, Metrics: metrics})
	if d.handler, err = d.newHandler(livemode, metrics, gateway, zone); err != nil {
		return nil, err
	}
	d.timer = scheduler.Timer{Schedule: schedule, Sweep: d.sweep, Woken: d.woken, Log: log, Now: time.Now}
	return d, nil
}

// newHandler serves webhooks, the API, metrics and health. Without a webhook secret
// there is no route for webhooks: open outcomes are then found by asking alone.
func (d *daemon) newHandler(livemode bool, metrics *worker.Metrics, gateway api.Gateway, zone *time.Location) (http.Handler, error) {
	cfg := server.Config{
		Registry: d.registry, Log: d.log, Draining: d.draining.Load,
		Checks: []server.Check{
			{Name: "database", Run: d.pool.Ping},
			{Name: "schema", Run: func(ctx context.Context) error {
				err := migrations.Check(ctx, d.pool)
				var ahead *migrations.AheadError
				if errors.As(err, &ahead) {
					return nil // an older program on a newer schema goes on
				}
				return err
			}},
		},
	}
	if d.cfg.WebhookSecret != "" {
		webhooks, err := worker.NewPayMongoWebhooks(livemode, strings.Split(d.cfg.WebhookSecret, ",")...)
		if err != nil {
			return nil, configError{fmt.Errorf("PAYMONGO_WEBHOOK_SECRET: %w", err)}
		}
		cfg.Inbox = worker.NewInbox(worker.InboxConfig{
			Pool: d.pool, Jobs: d.jobs, Webhooks: webhooks, Log: d.log, Now: time.Now, Metrics: metrics,
		})
	}
	if d.apiPool != nil {
		cfg.API = api.New(api.Config{
			Pool: d.apiPool, Gateway: gateway, Now: time.Now, Environment: d.cfg.Environment, Livemode: livemode, TimeZone: zone,
			CallsPerMinute: callsPerMinute(d.cfg.Rate), MayCharge: d.mayCharge, Log: d.log, Registry: d.registry,
		})
		jobs, err := river.NewClient(riverpgxv5.New(d.pagePool), &river.Config{Schema: migrations.RiverSchema, Logger: d.log})
		if err != nil {
			return nil, fmt.Errorf("read the queue: %w", err)
		}
		if cfg.River, err = api.NewRiver(api.RiverConfig{Pool: d.apiPool, Jobs: jobs, Now: time.Now, Log: d.log}); err != nil {
			return nil, err
		}
	}
	return server.New(cfg), nil
}

// bind refuses a database of another installation. Another cluster, or one that
// is older than the witness, freezes charging and is not refused: webhooks and
// reconciling go on.
func (d *daemon) bind(ctx context.Context, livemode bool) error {
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		err := billing.Bind(ctx, tx, d.cfg.Environment, livemode)
		if errors.Is(err, billing.ErrOtherCluster) {
			return nil // commit the freeze; the witness finds the same
		}
		return err
	})
	switch {
	case errors.Is(err, billing.ErrOtherInstallation):
		return configError{err}
	case err != nil:
		return fmt.Errorf("bind the database: %w", err)
	}
	return d.compare(ctx)
}

// compare asks the witness whether this is still the database that it knows, at
// the start and every second. Every arming asks as well: this is for those who
// want to know, and for the disk.
func (d *daemon) compare(ctx context.Context) error {
	var standing billing.DatabaseStanding
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) (err error) {
		standing, err = d.witness.Check(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	if standing.Older != d.older {
		d.older = standing.Older
		if err := standing.Err(); err != nil {
			d.log.Error("charging is frozen", "reason", err)
		} else {
			d.log.Info("the database is the one that is bound")
		}
	}
	return d.witness.Sync()
}

// mayCharge is the interlock of this process, beside those in the database.
func (d *daemon) mayCharge() error {
	if d.clockOff.Load() {
		return fmt.Errorf("this machine's clock is more than %s off the database's", clockTolerance)
	}
	return nil
}

func (d *daemon) sweep(ctx context.Context) error {
	defer func() { d.pulse.beat(d.now()) }()
	swept, err := d.collector.Sweep(ctx, d.jobs)
	if swept.Invoices+swept.Enqueued+swept.Parked > 0 {
		d.log.Info("sweep", "invoices_opened", swept.Invoices, "periods_skipped", swept.Skipped, "enqueued", swept.Enqueued, "parked", swept.Parked)
	}
	return err
}

// woken tells what cannot wait for the schedule, and compares the clocks and the
// databases.
func (d *daemon) woken(ctx context.Context) (bool, error) {
	d.pulse.beat(d.now())
	if err := d.compare(ctx); err != nil {
		return false, err
	}
	before := d.now()
	urgent, err := billing.LookUrgent(ctx, d.pool, before)
	if err != nil {
		return false, err
	}
	took := d.now().Sub(before)
	off := urgent.DatabaseNow.Sub(before.Add(took / 2)).Abs()
	if wasOff := d.clockOff.Swap(off > clockTolerance+took/2); wasOff != d.clockOff.Load() {
		d.log.Error("clock compared with the database's", "off", off, "charging", !d.clockOff.Load())
	}
	moved := !urgent.VirtualNow.Equal(d.virtual)
	d.virtual = urgent.VirtualNow
	return moved || urgent.Manual, nil
}

// run works until ctx is done, then drains: it takes no more work, lets the
// attaches under way finish, and stops.
func (d *daemon) run(ctx context.Context, listener net.Listener) error {
	events, unsubscribe := d.jobs.Subscribe(worker.JobEvents()...)
	var counting sync.WaitGroup
	counting.Go(func() { d.metrics.CountJobs(events) })
	defer counting.Wait()
	defer unsubscribe()
	if err := d.jobs.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start the queue: %w", err)
	}
	web := server.NewHTTPServer(d.handler, d.log)
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(listener) }()

	looping, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	loops.Go(func() { d.timer.Run(looping) })
	loops.Go(func() { d.outbox.Run(looping) })
	d.pulse.beat(d.now())
	loops.Go(func() { d.super.watch(looping, d.alive) })
	d.log.Info("running", "listen", listener.Addr().String(), "environment", d.cfg.Environment, "schedule", d.cfg.Schedule, "time_zone", d.cfg.TimeZone)
	d.super.tell("READY=1")

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	d.draining.Store(true)
	d.log.Info("draining")
	d.super.tell("STOPPING=1")
	stop()
	loops.Wait()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout+10*time.Second)
	defer cancel()
	return errors.Join(err, d.jobs.Stop(drain), web.Shutdown(drain))
}

// alive tells the watchdog whether work goes on: the database answers, and the
// timer comes round.
func (d *daemon) alive(ctx context.Context) error {
	return errors.Join(d.pool.Ping(ctx), d.pulse.within(d.now(), sweepPatience))
}

func (d *daemon) close() {
	if d.witness != nil {
		if err := d.witness.Close(); err != nil {
			d.log.Error("close the witness", "error", err)
		}
	}
	for _, pool := range []*pgxpool.Pool{d.pagePool, d.apiPool, d.riverPool, d.chargePool, d.pool} {
		if pool != nil {
			pool.Close()
		}
	}
}

func buildInfo(livemode bool) prometheus.Collector {
	goVersion := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
	}
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "singil", Name: "build_info", Help: "The running build, and the mode of its key: test or live.",
	}, []string{"version", "go_version", "mode"})
	gauge.WithLabelValues(buildVersion(), goVersion, modeName(livemode)).Set(1)
	return gauge
}

func configInfo(environment billing.Environment, livemode bool) prometheus.Collector {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "singil", Name: "config_info", Help: "The environment of this installation, and the mode of its key: test or live.",
	}, []string{"environment", "mode"})
	gauge.WithLabelValues(string(environment), modeName(livemode)).Set(1)
	return gauge
}

func clockInfo(off *atomic.Bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "singil", Name: "clock_off", Help: "1 while this machine's clock is too far off the database's to charge by it.",
	}, func() float64 {
		if off.Load() {
			return 1
		}
		return 0
	})
}

func modeName(livemode bool) string {
	if livemode {
		return "live"
	}
	return "test"
}
