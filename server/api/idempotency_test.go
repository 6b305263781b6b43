package api

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

const one = `{"amount_minor":49900,"reason":"<b>₱</b>"}`

func TestKeyRepeatsTheAnswer(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator, admin := p.token(billing.RoleOperator), p.token(billing.RoleAdmin)
	first := p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").want(201)
	if first.header.Get(replayHeader) != "" {
		t.Error("the first is no repetition")
	}
	for range 2 {
		again := p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").want(201)
		if !bytes.Equal(again.body, first.body) || again.header.Get(replayHeader) != "true" || again.header.Get("Content-Type") != "application/json" {
			t.Errorf("%v %s, want %s", again.header, again.body, first.body)
		}
	}
	p.want("1", trials)
	// Neither another key nor another token nor no key has anything to do with it.
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: k2").want(201)
	p.call(admin, "POST", trialPath, one, "Idempotency-Key: k1").want(201)
	p.call(operator, "POST", trialPath, one).want(201)
	p.call(operator, "POST", trialPath, one).want(201)
	p.want("5", trials)
	p.want("3", `SELECT count(*) FROM singil.api_requests WHERE status = 201 AND claimed_until IS NULL AND claims = 1`)
	p.wantMetric(`singil_api_requests_total{route="POST /v1/trials/{id}",status="201"}`, 7)
}

func TestKeyOfAnotherRequest(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(false, nil, nil)
	operator := p.token(billing.RoleOperator)
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").want(201)
	for name, got := range map[string]*reply{
		"body": p.call(operator, "POST", trialPath, `{"amount_minor":49901}`, "Idempotency-Key: k1"),
		"path": p.call(operator, "POST", "/v1/trials/two", one, "Idempotency-Key: k1"),
	} {
		t.Log(name)
		got.wantProblem(kindKeyReused, "new one")
	}
	p.want("1", trials)
}

func TestKeyFormat(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(true, nil, nil)
	operator := p.token(billing.RoleOperator)
	p.call(operator, "POST", trialPath, one).wantProblem(kindKeyNeeded, "Idempotency-Key")
	for _, key := range []string{"with a blank", "né", strings.Repeat("k", 256)} {
		p.call(operator, "POST", trialPath, one, "Idempotency-Key: "+key).wantProblem(kindInvalidRequest, "Idempotency-Key")
	}
	p.want("0", trials)
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: "+strings.Repeat("k", 255)).want(201)
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: "+uuid.NewString()).want(201)
}

func TestTwoWithOneKeyAtOnce(t *testing.T) {
	t.Parallel()
	p := setup(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.addTrial(true, func(context.Context) error {
		once.Do(func() { close(begun); <-goOn })
		return nil
	}, nil)
	operator := p.token(billing.RoleOperator)
	first := make(chan *reply, 1)
	go func() { first <- p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1") }()
	<-begun
	got := p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1")
	got.wantProblem(kindKeyRunning, "Ask again")
	if got.header.Get("Retry-After") == "" {
		t.Error("it does not say when")
	}
	p.call(operator, "POST", trialPath, `{"amount_minor":1}`, "Idempotency-Key: k1").wantProblem(kindKeyReused)
	close(goOn)
	done := (<-first).want(201)
	if again := p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").want(201); !bytes.Equal(again.body, done.body) {
		t.Errorf("%s, want %s", again.body, done.body)
	}
	p.want("1", trials)
}

func TestManyWithOneKeyAtOnce(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(true, nil, nil)
	operator := p.token(billing.RoleOperator)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got := p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1"); got.status != 201 && got.status != 409 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	all.Wait()
	p.want("1", trials)
}

// What failed is done anew, under the same id: the provider must not create twice.
func TestFailureGivesTheKeyBack(t *testing.T) {
	t.Parallel()
	p := setup(t)
	var ids []uuid.UUID
	p.addTrial(true, func(ctx context.Context) error {
		ids = append(ids, requestID(ctx))
		switch len(ids) {
		case 1:
			return newProblem(kindProvider, "It did not answer.")
		case 2:
			return errors.New("the secret of life")
		case 3:
			panic("the secret of life")
		}
		return nil
	}, nil)
	operator := p.token(billing.RoleOperator)
	ask := func() *reply { return p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1") }
	ask().wantProblem(kindProvider)
	for range 2 {
		got := ask()
		id := got.wantProblem(kindInternal).ID
		if strings.Contains(string(got.body), "secret") {
			t.Errorf("it tells of our inside: %s", got.body)
		}
		if log := p.log.String(); !strings.Contains(log, "secret of life") || id == "" || !strings.Contains(log, id) {
			t.Errorf("the log does not have %s: %s", id, log)
		}
	}
	p.call(operator, "POST", trialPath, `{"amount_minor":1}`, "Idempotency-Key: k1").wantProblem(kindKeyReused)
	p.want("0", trials)
	ask().want(201)
	p.want("1", trials)
	ask().want(201)
	if len(ids) != 4 || ids[0] != ids[3] || ids[0] != ids[1] || ids[0] == uuid.Nil {
		t.Errorf("the ids were %v", ids)
	}
}

// A daemon that died holds its keys for a while, and no longer.
func TestClaimRunsOut(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(true, nil, nil)
	operator := p.token(billing.RoleOperator)
	id := uuid.New()
	hash := requestHash(t, p, one)
	p.exec(`INSERT INTO singil.api_requests (id, token_id, key, request_hash, claimed_until)
	        SELECT $1, t.id, 'k1', $2, clock_timestamp() + interval '1 hour' FROM singil.api_tokens t`, id, hash)
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").wantProblem(kindKeyRunning)
	p.exec(`UPDATE singil.api_requests SET claimed_until = clock_timestamp() - interval '1 second'`)
	var got tried
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").want(201, &got)
	if got.Request != id {
		t.Errorf("it was done as %s, and was begun as %s", got.Request, id)
	}
	p.want("2", `SELECT claims FROM singil.api_requests`)
}

// requestHash is what a trial is told apart by.
func requestHash(t *testing.T, p *plant, body string) (hash []byte) {
	t.Helper()
	operator := ""
	p.tx(func(tx pgx.Tx) (err error) {
		_, operator, err = billing.CreateToken(t.Context(), tx, "hash", billing.RoleOperator, noon.AddDate(1, 0, 0), billing.Act{Actor: "ana", Reason: "test", Now: noon})
		return err
	})
	p.call(operator, "POST", trialPath, body, "Idempotency-Key: hash").want(201)
	if err := p.pool.QueryRow(t.Context(), `SELECT request_hash FROM singil.api_requests WHERE key = 'hash'`).Scan(&hash); err != nil {
		t.Fatal(err)
	}
	p.exec(`DELETE FROM singil.api_requests`)
	p.exec(`ALTER TABLE singil.api_tokens DISABLE TRIGGER append_only`)
	p.exec(`DELETE FROM singil.api_tokens WHERE name = 'hash'`)
	return hash
}

// One that was thought dead and is not comes too late: its change is taken back.
func TestLateOneChangesNothing(t *testing.T) {
	t.Parallel()
	p := setup(t)
	n := 0
	var operator string
	var inner *reply
	p.addTrial(true, func(context.Context) error {
		if n++; n > 1 {
			return nil
		}
		p.exec(`UPDATE singil.api_requests SET claimed_until = clock_timestamp() - interval '1 second'`)
		inner = p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1")
		return nil
	}, nil)
	operator = p.token(billing.RoleOperator)
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").wantProblem(kindKeyRunning)
	inner.want(201)
	p.want("1", trials)
	if again := p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").want(201); !bytes.Equal(again.body, inner.body) {
		t.Errorf("%s, want %s", again.body, inner.body)
	}
}

// A change that fails in its transaction leaves nothing, nor an answer.
func TestChangeIsWhole(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.addTrial(true, nil, func(ctx context.Context, tx pgx.Tx) error {
		return &billing.RefusedError{Reason: "it is paused already"}
	})
	operator := p.token(billing.RoleOperator)
	p.call(operator, "POST", trialPath, one, "Idempotency-Key: k1").wantProblem(kindRefused, "it is paused already")
	p.want("0", trials)
	p.want("", `SELECT answer FROM singil.api_requests WHERE claimed_until IS NULL`)
}

// An answer that must not be stored is made again, under the same id.
func TestRerun(t *testing.T) {
	t.Parallel()
	p := setup(t)
	n := int64(0)
	register(p.api, operation{
		id: "start-trial", method: "POST", path: "/v1/starts", tag: "trials", summary: "Start a trial", role: billing.RoleOperator, rerun: true,
	}, func(ctx context.Context, _ *struct{}) (*tried, error) {
		n++
		return &tried{Request: requestID(ctx), Amount: n, Reason: "pi_1_client_hunter2"}, nil
	})
	operator := p.token(billing.RoleOperator)
	var first, second tried
	p.call(operator, "POST", "/v1/starts", `{}`, "Idempotency-Key: k1").want(200, &first)
	again := p.call(operator, "POST", "/v1/starts", `{}`, "Idempotency-Key: k1").want(200, &second)
	if first.Request != second.Request || first.Request == uuid.Nil || second.Amount != 2 || again.header.Get(replayHeader) != "" {
		t.Errorf("%+v, and then %+v", first, second)
	}
	p.call(operator, "POST", "/v1/starts", `{"a":1}`, "Idempotency-Key: k1").wantProblem(kindKeyReused)
	p.want("0", `SELECT count(*) FROM singil.api_requests r WHERE strpos(r::text, 'hunter2') > 0 OR claimed_until IS NOT NULL`)
}
