package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/singil/singil/billing"
	"github.com/singil/singil/internal/devpg"
	"github.com/singil/singil/migrations"
	"github.com/singil/singil/paymongo"
	"github.com/singil/singil/paymongo/sandbox"
	"github.com/singil/singil/worker"
)

// The demo's world begins on a day that most months do not have.
var (
	demoStart = time.Date(2026, 1, 28, 1, 0, 0, 0, time.UTC)
	demoEnd   = time.Date(2026, 5, 6, 1, 0, 0, 0, time.UTC)
	demoFirst = time.Date(2026, 1, 31, 1, 0, 0, 0, time.UTC) // nine in the morning in Manila
)

const demoSubscriptions = 200

func demoCommand() *cobra.Command {
	var serve, logs bool
	var listen string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch three months of billing go by, with faults thrown at it",
		Long: `Start a private PostgreSQL, a PayMongo sandbox and the daemon, give them 200
subscriptions with all sorts of cards, and let three months pass in about a
minute while answers are lost, connections die and cards are declined. In the
end the sandbox's ledger is compared with our books, both ways. Needs no keys
and no Docker; nothing of it is left behind.

The exit code is 0 only if no period was charged twice and none was lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), listen, serve, logs)
		},
	}
	cmd.Flags().BoolVar(&serve, "serve", false, "keep everything running afterwards and print the addresses")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "where the daemon serves its metrics, for a Prometheus that watches")
	cmd.Flags().BoolVar(&logs, "logs", false, "show the daemon's log on stderr")
	return cmd
}

// demo is everything that runs for it.
type demo struct {
	out    io.Writer
	live   bool // a terminal: one screen instead of lines
	box    *sandbox.Sandbox
	client *paymongo.Client
	daemon *daemon
	now    time.Time
	drawn  int // lines on the screen
}

func runDemo(ctx context.Context, stdout, stderr io.Writer, listen string, serve, logs bool) (err error) {
	log := slog.New(slog.DiscardHandler)
	if logs {
		log = newLogger(stderr)
	}
	begun := time.Now()
	fmt.Fprintln(stdout, "Starting a private PostgreSQL, a PayMongo sandbox and the daemon.")
	pg, err := devpg.Start(ctx, devpg.Options{Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Stop()) }()
	dsn := pg.DSN("postgres")
	if err := migrations.Up(ctx, dsn, log); err != nil {
		return err
	}
	box, err := sandbox.New(sandbox.Options{Seed: 31, Start: demoStart, StopClock: true, Hang: 50 * time.Millisecond})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	provider, providerURL, err := serveLoopback(box)
	if err != nil {
		return err
	}
	defer provider.Close() //nolint:errcheck // nothing is lost with it

	cfg := config{
		DatabaseURL: dsn, BaseURL: providerURL + "/v1", SecretKey: "sk_test_demo", Rate: 1000,
		Environment: billing.EnvironmentDev, Listen: listen, Schedule: "* * * * *", TimeZone: "Asia/Manila", API: true,
	}
	metrics := worker.NewMetrics()
	var d *daemon
	client, err := cfg.payMongo(paymongo.WithMaxElapsedTime(0), paymongo.WithObserver(metrics.ObservePayMongo),
		cfg.sharedRate(func() *pgxpool.Pool { return d.pool }, log))
	if err != nil {
		return err
	}
	setup, err := paymongo.NewClient(cfg.SecretKey, paymongo.WithBaseURL(cfg.BaseURL), paymongo.WithRate(math.Inf(1), 0))
	if err != nil {
		return err
	}
	d, err = newDaemon(ctx, cfg, worker.NewPayMongo(client), client.Livemode(), metrics, log)
	if err != nil {
		return err
	}
	defer d.close()
	show := &demo{out: stdout, box: box, client: setup, daemon: d, now: demoStart}
	if f, ok := stdout.(*os.File); ok {
		show.live = term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	}
	if err := show.set(ctx, demoStart); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "Saving %d cards and importing %d subscriptions, first due on 31 January.\n", demoSubscriptions, demoSubscriptions)
	if err := show.populate(ctx); err != nil {
		return err
	}
	if err := show.misbehave(); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(running)
	group.Go(func() error { return d.run(running, listener) })
	fmt.Fprintf(stdout, "Three months go by. One call in five goes wrong.\n\n")
	result := show.play(running)
	if result == nil && ctx.Err() == nil {
		result = show.report(ctx, time.Since(begun))
	}
	if serve && ctx.Err() == nil {
		fmt.Fprintf(stdout, "\nStill running. Ctrl-C ends it and takes everything away.\n  metrics   http://%s/metrics\n  sandbox   %s/_sandbox\n  ledger    %s/_sandbox/ledger/summary?key=invoice\n  database  %s\n",
			listener.Addr(), providerURL, providerURL, dsn)
		<-ctx.Done()
	}
	stop()
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		result = errors.Join(result, err)
	}
	return result
}

// serveLoopback serves on a free port of this machine.
func serveLoopback(handler http.Handler) (*http.Server, string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute} // longer than a client keeps an unused connection
	go func() { _ = server.Serve(listener) }()                               // ends with Close
	return server, "http://" + listener.Addr().String(), nil
}

// demoCards is the mix of cards: number, how many in a hundred.
var demoCards = []struct {
	number string
	share  int
}{
	{"4343434343434345", 38}, {"5555444444444457", 28},
	{expiringCard, 4},
	{"5123000000000001", 8}, // pays once, declines every renewal
	{"4120000000000007", 2}, // wants 3-D Secure every time
	{poorCard, 20},
}

// expiringCard is good until the end of March.
const expiringCard = "4009930000001421"

// poorCard has no money on it the first two times.
const poorCard = "4571736000000075"

// populate saves cards the way a merchant's page does, with a first payment in
// person, and imports the subscriptions.
func (d *demo) populate(ctx context.Context) error {
	var lines bytes.Buffer
	line := func(v map[string]any) {
		text, err := json.Marshal(v)
		if err == nil {
			lines.Write(append(text, '\n'))
		}
	}
	line(map[string]any{"type": "plan", "external_id": "pro", "name": "Pro", "amount_minor": 49900, "currency": "PHP", "interval": "month", "interval_count": 1})
	saved := make([]struct{ customer, method string }, demoSubscriptions)
	group, ctx2 := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range saved {
		group.Go(func() (err error) {
			saved[i].customer, saved[i].method, err = d.saveCard(ctx2, i, cardNumber(i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("save the cards: %w", err)
	}
	for i, s := range saved {
		customer := fmt.Sprintf("u%03d", i)
		line(map[string]any{"type": "customer", "external_id": customer, "paymongo_customer_id": s.customer})
		month, year := cardExpiry(cardNumber(i))
		line(map[string]any{"type": "payment_method", "customer": customer, "paymongo_payment_method_id": s.method, "brand": "visa",
			"last4": cardNumber(i)[12:], "exp_month": month, "exp_year": year})
		line(map[string]any{"type": "subscription", "external_id": fmt.Sprintf("s%03d", i), "customer": customer, "plan": "pro",
			"anchor": demoFirst.Format(time.RFC3339), "time_zone": "Asia/Manila", "bill_from": demoFirst.Format(time.RFC3339)})
	}
	result, err := billing.Import(ctx, d.daemon.pool, bytes.NewReader(lines.Bytes()), billing.ImportOptions{Now: demoStart, Actor: "demo", Source: "demo"})
	if err != nil {
		return fmt.Errorf("import: %w %v", err, result.Errors)
	}
	for i, s := range saved {
		if cardNumber(i) != poorCard {
			continue
		}
		if _, err := d.box.AddFault(sandbox.Fault{Kind: sandbox.Decline, Code: "insufficient_funds", PaymentMethod: s.method, Times: 2}); err != nil {
			return err
		}
	}
	return nil
}

func cardNumber(i int) string {
	place := i * 37 % 100 // spreads the kinds over the list
	for _, c := range demoCards {
		if place -= c.share; place < 0 {
			return c.number
		}
	}
	return demoCards[0].number
}

func cardExpiry(number string) (month, year int) {
	if number == expiringCard {
		return 3, 2026
	}
	return 12, 2030
}

func (d *demo) saveCard(ctx context.Context, i int, number string) (customer, method string, err error) {
	c, err := d.client.Customers.Create(ctx, &paymongo.CustomerCreateParams{
		FirstName: "Customer", LastName: fmt.Sprint(i), Email: fmt.Sprintf("customer%d@example.com", i),
		Phone: fmt.Sprintf("+639%09d", i), DefaultDevice: "email",
	})
	if err != nil {
		return "", "", err
	}
	month, year := cardExpiry(number)
	m, err := d.client.PaymentMethods.Create(ctx, &paymongo.PaymentMethodCreateParams{Type: "card", Details: &paymongo.CardDetails{
		Number: paymongo.NewSecret(number), ExpMonth: month, ExpYear: year, CVC: paymongo.NewSecret("123"),
	}})
	if err != nil {
		return "", "", err
	}
	intent, err := d.client.PaymentIntents.Create(ctx, &paymongo.PaymentIntentCreateParams{
		Amount: 2000, PaymentMethodAllowed: []string{"card"},
		SetupFutureUsage: &paymongo.SetupFutureUsage{SessionType: paymongo.SessionTypeOffSession, CustomerID: c.ID},
	})
	if err != nil {
		return "", "", err
	}
	after, err := d.client.PaymentIntents.Attach(ctx, intent.ID, &paymongo.PaymentIntentAttachParams{PaymentMethod: m.ID})
	if err != nil {
		return "", "", err
	}
	if after.Status == paymongo.PaymentIntentStatusAwaitingNextAction {
		err = authorise(ctx, after.NextAction.Redirect.URL)
	}
	return c.ID, m.ID, err
}

// authorise presses the button of the sandbox's 3-D Secure page, as a customer does.
func authorise(ctx context.Context, page string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, page, strings.NewReader("press=authorize"))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// misbehave throws a realistic mix of faults at the daemon.
func (d *demo) misbehave() error {
	minutes := func(n int) sandbox.Duration { return sandbox.Duration(time.Duration(n) * time.Minute) }
	faults := []sandbox.Fault{
		{Kind: sandbox.TimeoutAfter, Probability: 0.04, Endpoint: "payment_intents.attach"},
		{Kind: sandbox.ResetAfter, Probability: 0.04, Endpoint: "payment_intents.*"},
		{Kind: sandbox.ErrorAfter, Probability: 0.03, Endpoint: "payment_intents.*"},
		{Kind: sandbox.ErrorBefore, Probability: 0.03, Endpoint: "payment_intents.*"},
		{Kind: sandbox.CutBody, Probability: 0.02, Endpoint: "payment_intents.*"},
		{Kind: sandbox.LateAttach, Probability: 0.02, For: minutes(10)},
		{Kind: sandbox.Processing, Probability: 0.04, For: minutes(180)},
		{Kind: sandbox.Processing, Probability: 0.02, For: minutes(1800), Then: "insufficient_funds"},
		{Kind: sandbox.ThreeDS, Probability: 0.02},
		{Kind: sandbox.Decline, Probability: 0.06, Codes: map[string]int{"do_not_honor": 3, "issuer_not_available": 2, "lost_card": 1}},
	}
	for _, f := range faults {
		if _, err := d.box.AddFault(f); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) set(ctx context.Context, now time.Time) error {
	d.now = now
	d.box.Clock().Set(now)
	return pgx.BeginFunc(ctx, d.daemon.pool, func(tx pgx.Tx) error { return billing.SetVirtualClock(ctx, tx, now) })
}

// play moves the clock from wake-up to wake-up and waits for the daemon.
func (d *demo) play(ctx context.Context) error {
	day := demoStart.AddDate(0, 0, -1)
	for d.now.Before(demoEnd) {
		if err := d.quiet(ctx); err != nil {
			return err
		}
		figures, err := d.figures(ctx)
		if err != nil {
			return err
		}
		if d.live || d.now.Sub(day) >= 7*24*time.Hour {
			d.draw(figures)
			day = d.now
		}
		next, err := d.next(ctx)
		if err != nil {
			return err
		}
		if err := d.set(ctx, next); err != nil {
			return err
		}
		// The daemon follows the clock within a second; here it need not wait for that.
		if err := d.daemon.sweep(ctx); err != nil {
			return err
		}
	}
	return d.quiet(ctx)
}

const sqlDemoWaiting = `
SELECT (SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1)
     + (SELECT count(*) FROM singil.invoices WHERE status = 'open' AND (claimed OR next_attempt_at <= $1))
     + (SELECT count(*) FROM river.river_job WHERE state IN ('available', 'running'))`

// quiet waits until the daemon has done everything that is due.
func (d *demo) quiet(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for patience := time.After(20 * time.Second); ; {
		var waiting int
		if err := d.daemon.pool.QueryRow(ctx, sqlDemoWaiting, d.now).Scan(&waiting); err != nil {
			return err
		}
		if waiting == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience:
			return nil // a lost job is found again when its lease is over
		case <-tick.C:
		}
	}
}

const sqlDemoNext = `
SELECT least((SELECT min(next_due_at) FROM singil.subscriptions),
             (SELECT min(next_attempt_at) FROM singil.invoices WHERE status = 'open'))`

// next is the next wake-up, at least half an hour on: what comes in between is
// done together.
func (d *demo) next(ctx context.Context) (time.Time, error) {
	var wake *time.Time
	if err := d.daemon.pool.QueryRow(ctx, sqlDemoNext).Scan(&wake); err != nil {
		return time.Time{}, err
	}
	next := d.now.Add(30 * time.Minute)
	if wake != nil && wake.After(next) {
		next = *wake
	}
	if next.After(demoEnd) {
		next = demoEnd
	}
	return next, nil
}

// demoFigures are what the screen shows, from our books.
type demoFigures struct {
	Opened, Paid, First, Recovered, Open, Customer, Uncollectible, Review int
	Unknown, Resolved                                                     int
	Centavos                                                              int64
}

const sqlDemoFigures = `
SELECT count(*), count(*) FILTER (WHERE i.status = 'paid'),
       count(*) FILTER (WHERE i.status = 'paid' AND i.decline_code IS NULL), count(*) FILTER (WHERE i.status = 'paid' AND i.decline_code IS NOT NULL),
       count(*) FILTER (WHERE i.status = 'open' AND i.waiting_for <> 'customer'), count(*) FILTER (WHERE i.status = 'open' AND i.waiting_for = 'customer'),
       count(*) FILTER (WHERE i.status = 'uncollectible'), count(*) FILTER (WHERE i.status = 'review'),
       (SELECT count(*) FROM singil.attempts WHERE state = 'armed'),
       (SELECT count(*) FROM singil.attempts WHERE evidence ->> 'kind' = 'retrieve'),
       COALESCE(sum(i.amount_minor) FILTER (WHERE i.status = 'paid'), 0)
FROM singil.invoices i`

func (d *demo) figures(ctx context.Context) (f demoFigures, err error) {
	err = d.daemon.pool.QueryRow(ctx, sqlDemoFigures).Scan(&f.Opened, &f.Paid, &f.First, &f.Recovered, &f.Open, &f.Customer,
		&f.Uncollectible, &f.Review, &f.Unknown, &f.Resolved, &f.Centavos)
	return f, err
}

// draw shows one line, or redraws the screen of a terminal.
func (d *demo) draw(f demoFigures) {
	date := d.now.In(time.FixedZone("PHT", 8*3600)).Format("Mon 2 Jan 2006")
	if !d.live {
		fmt.Fprintf(d.out, "%-15s  billed %3d  paid %3d (%d after a decline)  retrying %2d  waits for customer %2d  gave up %2d  unknown now %2d  resolved by asking %3d\n",
			date, f.Opened, f.Paid, f.Recovered, f.Open, f.Customer, f.Uncollectible, f.Unknown, f.Resolved)
		return
	}
	if d.drawn > 0 {
		fmt.Fprintf(d.out, "\x1b[%dA\x1b[J", d.drawn)
	}
	done := int(40 * d.now.Sub(demoStart) / demoEnd.Sub(demoStart))
	text := fmt.Sprintf("%s  [%s%s]\n\n%s", date, strings.Repeat("=", done), strings.Repeat(" ", 40-done), f.table())
	d.drawn = strings.Count(text, "\n")
	fmt.Fprint(d.out, text)
}

func (f demoFigures) table() string {
	return fmt.Sprintf(`  periods billed              %6d
  paid at first attempt       %6d
  recovered by dunning        %6d
  retrying                    %6d
  waiting for the customer    %6d
  uncollectible               %6d
  for a human to look at      %6d
  outcomes unknown now        %6d
  unknown, resolved by asking %6d
  collected               %10s
`, f.Opened, f.First, f.Recovered, f.Open, f.Customer, f.Uncollectible, f.Review, f.Unknown, f.Resolved,
		billing.Money{Minor: f.Centavos, Currency: billing.CurrencyPHP})
}

const sqlDemoBooks = `SELECT id::text, status FROM singil.invoices`

const sqlDemoLost = `
SELECT count(*)
FROM singil.subscriptions s
CROSS JOIN LATERAL generate_series(0, s.next_period_no - 1) AS no
WHERE NOT EXISTS (SELECT 1 FROM singil.invoices i WHERE i.subscription_id = s.id AND i.period_no = no)
  AND NOT EXISTS (SELECT 1 FROM singil.skipped_periods k WHERE k.subscription_id = s.id AND no BETWEEN k.first_no AND k.last_no)`

const sqlDemoLate = `
SELECT count(*) FROM singil.subscriptions WHERE next_due_at <= $1`

// report compares the sandbox's ledger with our books, both ways.
func (d *demo) report(ctx context.Context, took time.Duration) error {
	figures, err := d.figures(ctx)
	if err != nil {
		return err
	}
	d.draw(figures)
	if !d.live {
		fmt.Fprintf(d.out, "\n%s", figures.table())
	}
	ledger := d.box.Summary("invoice")
	rows, err := d.daemon.pool.Query(ctx, sqlDemoBooks)
	if err != nil {
		return err
	}
	unrecorded, imagined := 0, 0
	books := map[string]bool{}
	var id, status string
	if _, err := pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		books[id] = true
		paid := ledger.PaidByValue[id] > 0
		if paid && status != billing.InvoicePaid {
			unrecorded++
		}
		if !paid && status == billing.InvoicePaid {
			imagined++
		}
		return nil
	}); err != nil {
		return err
	}
	for invoice := range ledger.PaidByValue {
		if !books[invoice] {
			unrecorded++
		}
	}
	var lost, late int
	if err := d.daemon.pool.QueryRow(ctx, sqlDemoLost).Scan(&lost); err != nil {
		return err
	}
	if err := d.daemon.pool.QueryRow(ctx, sqlDemoLate, d.now).Scan(&late); err != nil {
		return err
	}
	doubles := len(ledger.PaidMoreThanOnce) + len(ledger.IntentsPaidMoreThanOnce)
	fmt.Fprintf(d.out, `
The sandbox's ledger against our books, after %s
  attaches received / executed %d / %d
  paid in the ledger           %d
  paid in the books            %d
  paid, and not in our books   %d
  in our books, and not paid   %d
  double charges               %d
  lost periods                 %d
`, took.Round(time.Second), ledger.Attaches, ledger.AttachesExecuted, ledger.PaidPayments-ledger.PaidWithoutKey, figures.Paid, unrecorded, imagined, doubles, lost+late)
	if doubles+lost+late+unrecorded+imagined > 0 {
		return errors.New("the demo found what must never be; run it again with --logs and report it")
	}
	return nil
}
