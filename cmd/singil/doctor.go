package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/worker"
)

// finding is what the doctor has to say about one thing.
type finding struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, note (worth knowing) or wrong
	Found string `json:"found"`
	Next  string `json:"next,omitempty"` // the next step
}

const (
	findingOK    = "ok"
	findingNote  = "note"
	findingWrong = "wrong"
)

// doctorPatience is how long a single question may take.
const doctorPatience = 15 * time.Second

func doctorCommand() *cobra.Command {
	var o output
	var probe bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look into everything that charging needs, and say what to do",
		Long: `Look into everything that charging needs, and say what to do: the configuration,
the database and its schema, the clocks, whether key, environment and database
belong together, what stops charging, what PayMongo lets the account do, and its
webhooks. No money is moved. The exit code is 1 if something is wrong.

With --probe PayMongo is also asked for a payment intent that nothing is ever
attached to: whether the account may take cards through the API at all.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			d := doctor{probe: probe, now: time.Now, findings: []finding{}}
			d.examine(cmd.Context())
			err := o.print(cmd.OutOrStdout(), d.findings, func(w io.Writer) {
				for _, f := range d.findings {
					fmt.Fprintf(w, "%s\t%s\t%s\n", f.State, f.Name, f.Found)
					if f.Next != "" {
						fmt.Fprintf(w, "\t\t-> %s\n", f.Next)
					}
				}
			})
			wrong := 0
			for _, f := range d.findings {
				if f.State == findingWrong {
					wrong++
				}
			}
			if err == nil && wrong > 0 {
				return fmt.Errorf("%d of %d things are wrong", wrong, len(d.findings))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&probe, "probe", false, "also ask PayMongo for a payment intent that nothing is attached to")
	o.addTo(cmd)
	return cmd
}

type doctor struct {
	probe    bool
	now      func() time.Time
	findings []finding
}

func (d *doctor) say(name, state, next, found string, args ...any) {
	if state == findingOK {
		next = ""
	}
	d.findings = append(d.findings, finding{name, state, fmt.Sprintf(found, args...), next})
}

func (d *doctor) examine(ctx context.Context) {
	c, err := readConfig()
	if err != nil {
		d.say("configuration", findingWrong, "mend it; singil config lists the settings", "%s", err)
		return
	}
	d.say("configuration", findingOK, "", "environment %s, %.0f calls a second, days in %s", c.Environment, c.Rate, c.TimeZone)
	if c.Witness == "" {
		d.say("witness", findingNote, "set SINGIL_WITNESS to a file that outlives the process", "none on disk: a database that is put back while no daemon runs is not noticed")
	} else {
		d.say("witness", findingOK, "", "%s", c.Witness)
	}
	pool := d.database(ctx, c)
	if pool != nil {
		defer pool.Close()
	}
	d.payMongo(ctx, c, pool)
}

// database looks at the database, and returns it if it can be worked with.
func (d *doctor) database(ctx context.Context, c config) *pgxpool.Pool {
	if c.DatabaseURL == "" {
		d.say("database", findingWrong, "set DATABASE_URL, such as postgres://user@host/database", "DATABASE_URL is not set")
		return nil
	}
	pool, err := connect(ctx, c.DatabaseURL, "singil doctor", planAnew)
	if err != nil {
		d.say("database", findingWrong, "check DATABASE_URL and that the server is up and lets this host in", "%s", err)
		return nil
	}
	d.say("database", findingOK, "", "it answers")
	var ahead *migrations.AheadError
	switch err := migrations.Check(ctx, pool); {
	case errors.As(err, &ahead):
		d.say("schema", findingNote, "let all daemons have the newer program", "%s", err)
	case err != nil:
		d.say("schema", findingWrong, "singil migrate up", "%s", err)
		pool.Close()
		return nil
	default:
		d.say("schema", findingOK, "", "as this program wants it")
	}
	d.books(ctx, pool)
	return pool
}

func (d *doctor) books(ctx context.Context, pool *pgxpool.Pool) {
	instance, err := billing.LoadInstance(ctx, pool)
	bound := !errors.Is(err, pgx.ErrNoRows)
	if err != nil && bound {
		d.say("books", findingWrong, "has this database role the right to read them?", "%s", err)
		return
	}
	before := d.now()
	facts, err := billing.LookDoctor(ctx, pool, instance.Now(before))
	if err != nil {
		d.say("books", findingWrong, "has this database role the right to read them?", "%s", err)
		return
	}
	took := d.now().Sub(before)
	off := facts.DatabaseNow.Sub(before.Add(took / 2)).Abs()
	state := findingOK
	if off > clockTolerance+took/2 {
		state = findingWrong
	}
	d.say("clock", state, "set this machine's clock by NTP: daemons charge nothing while it is off", "%s off the database's", off.Round(time.Millisecond))
	if facts.ReadOnly {
		d.say("rights", findingNote, "daemons need a role that may write", "this is a standby, or a role that only reads")
	}
	if !bound {
		d.say("installation", findingNote, "start singil run once", "the database belongs to no installation yet")
		return
	}
	switch {
	case facts.Recovery != "":
		d.say("charging", findingWrong, "singil recover", "a recovery is needed: %s", facts.Recovery)
	case instance.Frozen:
		d.say("charging", findingWrong, "singil unfreeze --reason ..., when the reason is gone", "frozen: %s", instance.FrozenReason)
	case instance.BreakerOpen:
		d.say("charging", findingWrong, "mend that, then singil unfreeze --reason ...", "the breaker is open: %s", instance.BreakerReason)
	case before.Before(instance.BlockedUntil):
		d.say("charging", findingNote, "wait; is PAYMONGO_RATE too high, or does another program use the key?", "PayMongo wants us to wait until %s", instance.BlockedUntil.UTC().Format(time.RFC3339))
	default:
		d.say("charging", findingOK, "", "nothing stops it")
	}
	d.work(ctx, pool, facts)
}

// work looks at what the last weeks tell.
func (d *doctor) work(ctx context.Context, pool *pgxpool.Pool, facts billing.DoctorFacts) {
	stats, err := billing.LookStats(ctx, pool, d.now())
	switch {
	case err != nil:
		d.say("work", findingNote, "", "%s", err)
	case stats.OldestDue > time.Hour:
		d.say("work", findingWrong, "is a singil run up, and what does its log say?", "%d charges are due, the oldest for %s", stats.Due, stats.OldestDue.Round(time.Minute))
	default:
		d.say("work", findingOK, "", "%d charges are due", stats.Due)
	}
	if err == nil && stats.OldestUnknown > time.Hour {
		d.say("outcomes", findingWrong, "singil reconcile --reason ..., then singil invoices list --waiting-for provider", "%d are not known, the oldest for %s", stats.Unknown, stats.OldestUnknown.Round(time.Minute))
	}
	wanted := facts.WantedCVC + facts.WantedCustomer
	switch {
	case facts.Refused > 0:
		d.say("off-session", findingWrong, "ask PayMongo for card vaulting and off-session charges for this account", "%d of %d attempts in 30 days: the account may not", facts.Refused, facts.Attempts)
	case facts.Attempts > 0 && wanted*2 > facts.Attempts:
		d.say("off-session", findingWrong, "ask PayMongo for off-session charges without CVC and 3-D Secure for this account",
			"of %d attempts in 30 days %d wanted a CVC and %d the customer", facts.Attempts, facts.WantedCVC, facts.WantedCustomer)
	case facts.Attempts > 0:
		d.say("off-session", findingOK, "", "of %d attempts in 30 days %d wanted a CVC and %d the customer", facts.Attempts, facts.WantedCVC, facts.WantedCustomer)
	default:
		d.say("off-session", findingNote, "charge one card of your own first; singil doctor --probe tells whether an intent can be made", "nothing was attempted in 30 days: no answer tells")
	}
	switch {
	case facts.LastWebhook == nil:
		d.say("inbox", findingNote, "outcomes are found by asking, only later", "no webhook has ever come")
	case facts.Unprocessed > 100:
		d.say("inbox", findingWrong, "is a singil run up? singil webhooks list --unprocessed", "%d are not processed", facts.Unprocessed)
	default:
		d.say("inbox", findingOK, "", "the last webhook came at %s, %d are not processed", facts.LastWebhook.UTC().Format(time.RFC3339), facts.Unprocessed)
	}
}

func (d *doctor) payMongo(ctx context.Context, c config, pool *pgxpool.Pool) {
	client, err := c.payMongo()
	if err != nil {
		d.say("key", findingWrong, "set PAYMONGO_SECRET_KEY and SINGIL_ENVIRONMENT to what belong together", "%s", err)
		return
	}
	defer client.CloseIdleConnections()
	gateway := worker.NewPayMongo(client)
	d.say("key", findingOK, "", "livemode %t, as environment %s wants it", client.Livemode(), c.Environment)
	if pool != nil {
		p := provider{pool: pool, gateway: gateway, environment: c.Environment}
		var other configError
		if err := p.belongs(ctx); errors.As(err, &other) {
			d.say("installation", findingWrong, "check DATABASE_URL, SINGIL_ENVIRONMENT and the key", "%s", err)
		}
	}
	ask := func(name, good, next string, do func(context.Context) error) bool {
		ctx, cancel := context.WithTimeout(ctx, doctorPatience)
		defer cancel()
		err := do(ctx)
		var answer *worker.GatewayError
		switch {
		case err == nil:
			d.say(name, findingOK, "", "%s", good)
		case errors.As(err, &answer) && answer.Fault:
			d.say(name, findingWrong, "copy the secret key from PayMongo's dashboard anew; ask PayMongo whether the account is activated", "%s", err)
		default:
			d.say(name, findingWrong, next, "%s", err)
		}
		return err == nil
	}
	if !ask("account", "PayMongo answers, and takes the key", "is PayMongo up, and does this host reach "+c.BaseURL+"?", gateway.Reach) {
		return // a bad key that goes on asking is blocked by PayMongo
	}
	ask("vault", "customers can be asked for", "ask PayMongo for card vaulting for this account", gateway.MayVault)
	if d.probe {
		ask("intent", "a payment intent can be made", "ask PayMongo for card payments through the API for this account",
			func(ctx context.Context) error { return gateway.MayCreate(ctx, c.Environment, d.now()) })
	}
	d.webhooks(ctx, c, gateway)
}

func (d *doctor) webhooks(ctx context.Context, c config, gateway *worker.PayMongo) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	list, err := gateway.Webhooks(ctx)
	if err != nil {
		d.say("webhooks", findingWrong, "try again; PayMongo's dashboard shows them too", "%s", err)
		return
	}
	enabled := 0
	for _, w := range list {
		switch missing := w.Missing(); {
		case !w.Enabled:
			d.say("webhook", findingNote, "enable it in PayMongo's dashboard once the URL answers", "%s is disabled: %s", w.URL, w.DisabledReason)
		case len(missing) > 0:
			d.say("webhook", findingNote, "add them in PayMongo's dashboard", "%s does not get %v", w.URL, missing)
		default:
			enabled++
			d.say("webhook", findingOK, "", "%s is enabled", w.URL)
		}
	}
	secret := c.WebhookSecret != ""
	switch {
	case enabled == 0 && !secret:
		d.say("webhooks", findingNote, "singil webhooks register URL: outcomes are known sooner", "none is enabled: outcomes are found by asking alone")
	case enabled == 0:
		d.say("webhooks", findingWrong, "singil webhooks register URL, or enable it in PayMongo's dashboard", "PAYMONGO_WEBHOOK_SECRET is set, and none is enabled")
	case !secret:
		d.say("webhooks", findingWrong, "set PAYMONGO_WEBHOOK_SECRET to the secret of the webhook: without it no delivery is taken, and PayMongo turns the webhook off", "one is enabled, and PAYMONGO_WEBHOOK_SECRET is not set")
	}
}
