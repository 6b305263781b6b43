package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/worker"
)

const payMongoURL = "https://api.paymongo.com/v1"

// mostInFlight is far more than the provider's rate can use.
const mostInFlight = 5000

// config is all configuration there is: the environment, and nothing else.
type config struct {
	DatabaseURL string `env:"DATABASE_URL,unset"`

	SecretKey     string  `env:"PAYMONGO_SECRET_KEY,unset"`
	SecretKeyFile string  `env:"PAYMONGO_SECRET_KEY_FILE"`
	WebhookSecret string  `env:"PAYMONGO_WEBHOOK_SECRET,unset"` // one or two, by comma
	BaseURL       string  `env:"PAYMONGO_BASE_URL" envDefault:"https://api.paymongo.com/v1"`
	Rate          float64 `env:"PAYMONGO_RATE" envDefault:"80"`

	Environment billing.Environment `env:"SINGIL_ENVIRONMENT" envDefault:"dev"`
	Listen      string              `env:"SINGIL_LISTEN" envDefault:"127.0.0.1:8080"`
	Schedule    string              `env:"SINGIL_SCHEDULE" envDefault:"* * * * *"`
	TimeZone    string              `env:"SINGIL_TIME_ZONE" envDefault:"Asia/Manila"`
	// InFlight bounds the charges under way. A charge waits for the provider most of
	// its time, about a second: 200 keep up with 80 requests a second.
	InFlight int    `env:"SINGIL_IN_FLIGHT" envDefault:"200"`
	Watch    bool   `env:"SINGIL_WATCH" envDefault:"true"`
	Witness  string `env:"SINGIL_WITNESS"` // a file; without one, memory

	API            bool   `env:"SINGIL_API" envDefault:"true"`  // on SINGIL_LISTEN
	APIDatabaseURL string `env:"SINGIL_API_DATABASE_URL,unset"` // as singil_operator; without one, DATABASE_URL
}

// readConfig reads the environment. A misspelt SINGIL_ name is refused, not
// ignored: it would change nothing where somebody thinks it does.
func readConfig() (config, error) {
	var c config
	if err := env.Parse(&c); err != nil {
		return config{}, configError{err}
	}
	known := map[string]bool{}
	params, err := env.GetFieldParams(&c)
	if err != nil {
		return config{}, configError{err}
	}
	for _, p := range params {
		known[p.Key] = true
	}
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "SINGIL_") && !known[name] {
			return config{}, configError{fmt.Errorf("%s is not a setting of singil; singil config lists them", name)}
		}
	}
	if c.SecretKeyFile != "" {
		if c.SecretKey != "" {
			return config{}, configError{errors.New("PAYMONGO_SECRET_KEY and PAYMONGO_SECRET_KEY_FILE are both set; keep one")}
		}
		key, err := os.ReadFile(c.SecretKeyFile)
		if err != nil {
			return config{}, configError{fmt.Errorf("PAYMONGO_SECRET_KEY_FILE: %w", err)}
		}
		c.SecretKey = strings.TrimSpace(string(key))
	}
	switch c.Environment {
	case billing.EnvironmentDev, billing.EnvironmentStaging, billing.EnvironmentProduction:
	default:
		return config{}, configError{fmt.Errorf("SINGIL_ENVIRONMENT is %q; it takes dev, staging or production", c.Environment)}
	}
	if c.InFlight < 1 || c.InFlight > mostInFlight {
		return config{}, configError{fmt.Errorf("SINGIL_IN_FLIGHT is %d; it takes 1 to %d charges", c.InFlight, mostInFlight)}
	}
	if _, err := billing.LoadZone(c.TimeZone); err != nil {
		return config{}, configError{fmt.Errorf("SINGIL_TIME_ZONE: %w", err)}
	}
	return c, nil
}

// configError is a mistake in the environment: exit code 7.
type configError struct{ err error }

func (e configError) Error() string { return e.err.Error() }
func (e configError) Unwrap() error { return e.err }

// payMongo makes the client, and refuses what does not go together.
func (c config) payMongo(opts ...paymongo.Option) (*paymongo.Client, error) {
	if c.SecretKey == "" {
		return nil, configError{errors.New("PAYMONGO_SECRET_KEY is not set; copy the secret key from the PayMongo dashboard, or run: singil sandbox")}
	}
	if !strings.HasPrefix(c.SecretKey, "sk_") {
		return nil, configError{errors.New("PAYMONGO_SECRET_KEY must be a secret key (sk_)")}
	}
	opts = append([]paymongo.Option{paymongo.WithBaseURL(c.BaseURL), paymongo.WithRate(c.Rate, 10)}, opts...)
	client, err := paymongo.NewClient(c.SecretKey, opts...)
	if err != nil {
		return nil, configError{err}
	}
	switch {
	case client.Livemode() && c.BaseURL != payMongoURL:
		return nil, configError{fmt.Errorf("PAYMONGO_BASE_URL is not PayMongo's, and the key is a live one; live keys go to %s only", payMongoURL)}
	case client.Livemode() != (c.Environment == billing.EnvironmentProduction):
		return nil, configError{fmt.Errorf("SINGIL_ENVIRONMENT is %s and the key's livemode is %t; live keys belong in production, and nothing else does", c.Environment, client.Livemode())}
	}
	return client, nil
}

// sharedRate is one rate for all daemons on the database of pool, which is there
// once the first call is made.
func (c config) sharedRate(pool func() *pgxpool.Pool, log *slog.Logger) paymongo.Option {
	return func(client *paymongo.Client) error {
		if math.IsInf(c.Rate, 1) {
			return nil
		}
		limiter, err := worker.NewRateLimiter(worker.RateLimiterConfig{
			PerSecond: c.Rate, Now: time.Now, Log: log,
			Reserve: func(ctx context.Context, span time.Duration) (billing.Slots, error) {
				return billing.ReserveSlots(ctx, pool(), span)
			},
		})
		if err != nil {
			return err
		}
		return paymongo.WithLimiter(limiter)(client)
	}
}

// open connects to the database and refuses a schema that is behind.
func (c config) open(ctx context.Context, application string) (*pgxpool.Pool, error) {
	if c.DatabaseURL == "" {
		return nil, configError{errors.New("DATABASE_URL is not set; it looks like postgres://user@host/database")}
	}
	pool, err := connect(ctx, c.DatabaseURL, application, planAnew)
	if err != nil {
		return nil, err
	}
	if err := migrations.Check(ctx, pool); err != nil {
		pool.Close()
		var behind *migrations.BehindError
		if errors.As(err, &behind) {
			return nil, configError{err}
		}
		var ahead *migrations.AheadError
		if !errors.As(err, &ahead) {
			return nil, fmt.Errorf("check the schema: %w", poolerHint(err))
		}
		return connect(ctx, c.DatabaseURL, application, planAnew) // an older program on a newer schema goes on
	}
	return pool, nil
}

// Statements work on arrays of any length and on tables that may have been empty
// a minute ago: a plan that was made then must not be kept. The one way out is to
// make it anew each time. The other, for what touches rows by their ids and is
// asked thousands of times a second, is to leave no choice: then the plan may be
// kept, and with it those of the checks of foreign keys, which otherwise cost more
// than the rows themselves.
var (
	planAnew = map[string]string{"plan_cache_mode": "force_custom_plan"}
	planOnce = map[string]string{"plan_cache_mode": "auto", "enable_seqscan": "off", "jit": "off"}
)

// connect makes a pool and tries it. adjust has the last word.
func connect(ctx context.Context, dsn, application string, planning map[string]string, adjust ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, configError{fmt.Errorf("DATABASE_URL cannot be read: %w", redactDSN(err))}
	}
	if err := checkExecMode(pc.ConnConfig); err != nil {
		return nil, err
	}
	params := pc.ConnConfig.RuntimeParams
	params["application_name"] = cmp.Or(params["application_name"], application)
	if !throughPooler(pc.ConnConfig) {
		for _, settings := range []map[string]string{sessionSettings, planning} {
			for name, value := range settings {
				params[name] = cmp.Or(params[name], value)
			}
		}
	}
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap()) // without it each id goes through a text
		return nil
	}
	if pc.MaxConns < 20 {
		pc.MaxConns = 20
	}
	pc.MaxConnLifetime = 30 * time.Minute // a failed-over primary is left behind in time
	for _, a := range adjust {
		a(pc)
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", redactDSN(err))
	}
	ping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := pool.Ping(ping); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to the database: %w", poolerHint(redactDSN(err)))
	}
	return pool, nil
}

// redactDSN drops what may hold the password.
func redactDSN(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
