//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// What happens, as the report names it.
const (
	sigkills       = "daemons killed (SIGKILL)"
	rollings       = "daemons restarted (SIGTERM)"
	databaseKills  = "PostgreSQL killed (SIGKILL)"
	terminations   = "backends terminated"
	truncations    = "river_job truncated"
	stopsAnywhere  = "daemons stopped (SIGSTOP) anywhere"
	stopsCommit    = "daemons stopped between arm and send"
	stopsCall      = "daemons stopped at a create or an attach"
	stopsLong      = "of these for longer than an attach may wait"
	commitsUnheard = "COMMITs that never arrived"
	repliesCut     = "COMMITs done, reply cut"
	armRepliesCut  = "of these of an arming"
	resets         = "networks reset, daemon to PostgreSQL"
	retries        = "operator: retries"
	pauses         = "operator: pauses"
	resumes        = "operator: resumes"
	cancels        = "operator: cancellations"
	freezes        = "operator: freezes"
	breakers       = "operator: breaker closed"
	refusals       = "operator: refused"
)

// troubleOrder is the order of the report.
var troubleOrder = []string{
	sigkills, rollings, databaseKills, terminations, truncations, stopsAnywhere, stopsCommit, stopsCall, stopsLong,
	commitsUnheard, repliesCut, armRepliesCut, resets, retries, pauses, resumes, cancels, freezes, breakers, refusals,
}

// mustHappen lists what a soak of this length cannot have missed, or it proves less
// than it says.
func (s *soak) mustHappen() []string {
	least := []string{sigkills, databaseKills}
	if s.isShort() {
		return least
	}
	return append(least, rollings, terminations, truncations, stopsAnywhere, stopsCommit, commitsUnheard, armRepliesCut, resets, retries, pauses)
}

// isShort tells a run in which what is rare would not happen.
func (s *soak) isShort() bool { return s.length < time.Minute }

// trouble starts everything that goes wrong until ctx is done.
//
// The first daemon is never ended: memory and goroutines that only grow show in
// one that lives. Everything else happens to it as well.
func (s *soak) trouble(ctx context.Context, all *sync.WaitGroup) {
	every := func(what string, interval time.Duration, do func(context.Context, *dice)) {
		interval = min(interval, s.length/5)
		all.Go(func() {
			dice := s.dice(what)
			for {
				select {
				case <-time.After(dice.between(interval*8/10, interval*12/10)):
					do(ctx, dice)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	every("sigkill", 18*time.Second, func(_ context.Context, dice *dice) {
		if s.mortal(dice).end(syscall.SIGKILL, 10*time.Second) {
			s.count(sigkills)
		}
	})
	every("rolling restart", 75*time.Second, func(context.Context, *dice) {
		for _, d := range s.daemons[1:] {
			if d.end(syscall.SIGTERM, drainTimeout+20*time.Second) {
				s.count(rollings)
			}
		}
	})
	every("postgres", 30*time.Second, s.killDatabase)
	every("backends", 4*time.Second, s.terminateBackends)
	every("truncate", time.Minute, s.truncateQueue)
	every("stop", 12*time.Second, func(_ context.Context, dice *dice) {
		s.stop(dice, s.daemons[dice.below(soakDaemons)], stopsAnywhere)
	})
	every("network", 12*time.Second, func(_ context.Context, dice *dice) {
		if s.daemons[dice.below(soakDaemons)].proxy.reset() > 0 {
			s.count(resets)
		}
	})
	every("vacuum", 20*time.Second, s.vacuum)
	every("operator", 500*time.Millisecond, s.operate)
	all.Go(func() { s.sample(ctx) })
}

// mortal is one of the daemons that are ended.
func (s *soak) mortal(dice *dice) *soakDaemon { return s.daemons[1+dice.below(soakDaemons-1)] }

func (s *soak) killDatabase(ctx context.Context, dice *dice) {
	if err := s.server.Kill(); err != nil {
		s.errorf("%v", err)
		return
	}
	s.count(databaseKills)
	select { // most often it is back at once
	case <-time.After(dice.between(0, 2*time.Second)):
	case <-ctx.Done():
	}
	if err := s.server.Restart(context.WithoutCancel(ctx)); err != nil {
		s.errorf("%v", err)
	}
}

func (s *soak) terminateBackends(ctx context.Context, dice *dice) {
	rows, err := s.pool.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'singil%' ORDER BY pid`)
	if err != nil {
		return // the database is away
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil || len(pids) == 0 {
		return
	}
	for range 1 + dice.below(3) {
		if _, err := s.pool.Exec(ctx, `SELECT pg_terminate_backend($1)`, pids[dice.below(len(pids))]); err == nil {
			s.count(terminations)
		}
	}
}

func (s *soak) truncateQueue(ctx context.Context, _ *dice) {
	s.do(ctx, "truncate the queue", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `TRUNCATE river.river_job`)
		return err
	})
	s.count(truncations)
}

// vacuum does what autovacuum would: PostgreSQL forgets with every crash how much
// has changed, and comes to nothing when it crashes twice a minute.
func (s *soak) vacuum(ctx context.Context, _ *dice) {
	_, _ = s.pool.Exec(ctx, `VACUUM (ANALYZE, SKIP_LOCKED)`) // the database may be away
}

// stop stops a daemon, mostly for a short time: while it is stopped, the others
// wait for its locks and the clock goes no further than shortOfSettled. A few stops
// are so long that what was armed must not be sent any more.
func (s *soak) stop(dice *dice, d *soakDaemon, why string) {
	length := dice.between(200*time.Millisecond, 1500*time.Millisecond)
	switch n := dice.below(100); {
	case n < 1 && !s.isShort():
		length += pastSending
	case n < 20:
		length += 1500 * time.Millisecond
	}
	if !d.stop(length) {
		return
	}
	s.count(why)
	if length >= pastSending {
		s.count(stopsLong)
	}
}

// commitFate is asked for every COMMIT on its way to PostgreSQL.
func (s *soak) commitFate(dice *dice, arms bool) commitFate {
	n := dice.below(10_000)
	if s.calm() {
		return commitPasses
	}
	cut, hold := 15, 0
	if arms {
		cut, hold = 250, 200
	}
	if s.isShort() {
		cut, hold = 5*cut, 5*hold
	}
	switch {
	case n < cut:
		s.count(commitsUnheard)
		return commitUnheard
	case n < 2*cut:
		s.count(repliesCut)
		if arms {
			s.count(armRepliesCut)
		}
		return commitUnspoken
	case n < 2*cut+hold:
		return commitHeld
	}
	return commitPasses
}

// stopAtCall stops a daemon that has just sent a create or an attach.
func (s *soak) stopAtCall(dice *dice, d *soakDaemon, operation string) {
	share := 0.0004
	if operation == "attach" {
		share = 0.0008
	}
	if dice.chance(share) && !s.calm() {
		s.stop(dice, d, stopsCall)
	}
}

// calm tells that nothing is to go wrong any more.
func (s *soak) calm() bool { return time.Since(s.began) > s.length }

// operate is one act of an operator, who knows nothing of all this. The database
// may be away, and many an act is refused.
func (s *soak) operate(ctx context.Context, dice *dice) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s.closeBreaker(ctx)
	act := billing.Act{Actor: "soak", Reason: "soak", Now: s.clock()}
	var what string
	var do func(pgx.Tx) error
	switch n := dice.below(100); {
	case n < 55:
		place := dice.below(1000)
		what, do = retries, func(tx pgx.Tx) error {
			var invoice uuid.UUID
			if err := tx.QueryRow(ctx, `
				WITH open AS (SELECT id, next_attempt_at FROM singil.invoices WHERE status = 'open')
				SELECT id FROM open ORDER BY next_attempt_at OFFSET (SELECT count(*) FROM open) * $1 / 1000 LIMIT 1`, place).Scan(&invoice); err != nil {
				return err
			}
			_, err := billing.Retry(ctx, tx, billing.RetryRequest{Invoice: invoice.String(), Act: act}, billing.DefaultCardLimits(), billing.BankHolidays())
			return err
		}
	case n < 68:
		what, do = pauses, func(tx pgx.Tx) error {
			return s.onSubscription(ctx, tx, dice, func(id uuid.UUID) error { return billing.PauseSubscription(ctx, tx, id, act) })
		}
	case n < 90:
		what, do = resumes, func(tx pgx.Tx) error {
			var id uuid.UUID
			if err := tx.QueryRow(ctx, `SELECT id FROM singil.subscriptions WHERE status = 'paused' ORDER BY paused_at LIMIT 1`).Scan(&id); err != nil {
				return err
			}
			return billing.ResumeSubscription(ctx, tx, id, act)
		}
	case n < 96:
		when := billing.CancelNow
		if n%2 == 0 {
			when = billing.CancelAtPeriodEnd
		}
		what, do = cancels, func(tx pgx.Tx) error {
			return s.onSubscription(ctx, tx, dice, func(id uuid.UUID) error { return billing.CancelSubscription(ctx, tx, id, when, act) })
		}
	case n < 98:
		s.freeze(ctx, dice)
		return
	default:
		return
	}
	var refused *billing.RefusedError
	switch err := pgx.BeginFunc(ctx, s.pool, do); {
	case err == nil:
		s.count(what)
	case errors.As(err, &refused):
		s.count(refusals)
	}
}

func (s *soak) onSubscription(ctx context.Context, tx pgx.Tx, dice *dice, do func(uuid.UUID) error) error {
	var id uuid.UUID
	if err := tx.QueryRow(ctx, `SELECT id FROM singil.subscriptions WHERE external_id = $1`, fmt.Sprint("s", dice.below(s.subscriptions))).Scan(&id); err != nil {
		return err
	}
	return do(id)
}

// closeBreaker is what the operator is called for at once.
func (s *soak) closeBreaker(ctx context.Context) {
	var open bool
	if err := s.pool.QueryRow(ctx, `SELECT breaker_open FROM singil.provider_state`).Scan(&open); err != nil || !open {
		return
	}
	if err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return billing.CloseBreaker(ctx, tx, "soak", "soak") }); err == nil {
		s.count(breakers)
	}
}

// freeze stops all charging for a moment.
func (s *soak) freeze(ctx context.Context, dice *dice) {
	if err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return billing.Freeze(ctx, tx, "soak", "soak") }); err == nil {
		s.count(freezes)
	}
	select {
	case <-time.After(dice.between(100*time.Millisecond, 800*time.Millisecond)):
	case <-ctx.Done():
	}
	// Also after an error: it may have been committed.
	s.do(context.WithoutCancel(ctx), "unfreeze", func(ctx context.Context, tx pgx.Tx) error { return billing.Unfreeze(ctx, tx, "soak", "soak") })
}

func (s *soak) resumeAll(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `SELECT id FROM singil.subscriptions WHERE status = 'paused' ORDER BY id`)
	if err != nil {
		return err
	}
	paused, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return err
	}
	for _, id := range paused {
		if err := billing.ResumeSubscription(ctx, tx, id, billing.Act{Actor: "soak", Reason: "the soak is over", Now: s.clock()}); err != nil {
			return err
		}
	}
	return nil
}

// calmDown brings everything back that was taken away.
func (s *soak) calmDown() {
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	ctx := context.WithoutCancel(s.t.Context())
	for {
		s.closeBreaker(ctx)
		ready := 0
		for _, d := range s.daemons {
			if d.url() != "" && !d.isStopped() {
				ready++
			}
		}
		if ready == soakDaemons && s.pool.Ping(ctx) == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.errorf("%d of %d daemons run a minute after everything was well again", ready, soakDaemons)
			return
		}
	}
}

// sample notes what the daemon takes that is never ended.
func (s *soak) sample(ctx context.Context) {
	tick := time.NewTicker(min(2*time.Second, s.length/20))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if u, err := s.daemons[0].usage(ctx); err == nil { // it may be stopped
			s.mu.Lock()
			s.usages = append(s.usages, u)
			s.mu.Unlock()
		}
	}
}
