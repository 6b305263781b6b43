package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const adminHelp = `PayMongo sandbox. Controls below /_sandbox/ (no key needed):

GET    /_sandbox/ledger                every intent, attach and payment, as JSON
GET    /_sandbox/ledger/summary?key=K  paid payments by metadata key K, and what was paid twice
GET    /_sandbox/faults                the faults there are, and the kinds there can be
POST   /_sandbox/faults                add one: {"kind":"timeout_after","endpoint":"payment_intents.attach","probability":0.3}
DELETE /_sandbox/faults                take all away, the script too
DELETE /_sandbox/faults/ID             take one away
GET    /_sandbox/script                the steps that are left
PUT    /_sandbox/script                [{"kind":"reset_after","endpoint":"payment_intents.attach"},{"kind":"none"}, ...]
GET    /_sandbox/profile               how the account behaves
PATCH  /_sandbox/profile               change some of it: {"off_session":"not_allowed"}
GET    /_sandbox/clock                 the sandbox's time
POST   /_sandbox/clock                 {"now":"2026-01-31T09:00:00+08:00"} or {"advance":"720h"} and/or {"factor":3600}
GET    /_sandbox/counters              requests and deliveries so far
POST   /_sandbox/events/ID/resend      deliver a webhook event again
POST   /_sandbox/drain                 wait until no webhook is due or under way
POST   /_sandbox/reset                 forget everything but profile, faults and clock
`

func (s *Sandbox) adminRoutes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_sandbox", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, adminHelp) })
	mux.HandleFunc("GET /_sandbox/{$}", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, adminHelp) })
	mux.HandleFunc("/_sandbox/", func(w http.ResponseWriter, _ *http.Request) {
		text(w, http.StatusNotFound, "No such control. "+adminHelp)
	})

	mux.HandleFunc("GET /_sandbox/ledger", s.streamLedger)
	mux.HandleFunc("GET /_sandbox/ledger/summary", func(w http.ResponseWriter, r *http.Request) {
		key := r.URL.Query().Get("key")
		if key == "" {
			key = "invoice"
		}
		reply(w, s.Summary(key))
	})

	mux.HandleFunc("GET /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"faults": s.Faults(), "kinds": FaultKinds(), "endpoints": operations, "seed": strconv.FormatUint(s.Seed(), 10)})
	})
	mux.HandleFunc("POST /_sandbox/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		if !receive(w, r, &f) {
			return
		}
		id, err := s.AddFault(f)
		replyOr(w, err, map[string]string{"id": id})
	})
	mux.HandleFunc("DELETE /_sandbox/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		reply(w, map[string]any{"faults": s.Faults()})
	})
	mux.HandleFunc("DELETE /_sandbox/faults/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !s.RemoveFault(r.PathValue("id")) {
			refuseAdmin(w, http.StatusNotFound, errors.New("no fault with this id; GET /_sandbox/faults lists them"))
			return
		}
		reply(w, map[string]any{"faults": s.Faults()})
	})
	mux.HandleFunc("GET /_sandbox/script", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Script()) })
	mux.HandleFunc("PUT /_sandbox/script", func(w http.ResponseWriter, r *http.Request) {
		var steps []Fault
		if receive(w, r, &steps) {
			err := s.SetScript(steps)
			replyOr(w, err, s.Script())
		}
	})

	mux.HandleFunc("GET /_sandbox/profile", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Profile()) })
	mux.HandleFunc("PATCH /_sandbox/profile", func(w http.ResponseWriter, r *http.Request) {
		p := s.Profile()
		if receive(w, r, &p) {
			err := s.SetProfile(p)
			replyOr(w, err, s.Profile())
		}
	})

	mux.HandleFunc("GET /_sandbox/clock", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.clockState()) })
	mux.HandleFunc("POST /_sandbox/clock", func(w http.ResponseWriter, r *http.Request) {
		var change struct {
			Now     *time.Time `json:"now"`
			Advance *Duration  `json:"advance"`
			Factor  *float64   `json:"factor"`
		}
		if !receive(w, r, &change) {
			return
		}
		if change.Factor != nil {
			if err := s.clock.Run(*change.Factor); err != nil {
				refuseAdmin(w, http.StatusBadRequest, err)
				return
			}
		}
		if change.Now != nil {
			s.clock.Set(*change.Now)
		}
		if change.Advance != nil {
			s.clock.Advance(time.Duration(*change.Advance))
		}
		s.Settle()
		reply(w, s.clockState())
	})

	mux.HandleFunc("GET /_sandbox/counters", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Counters()) })
	mux.HandleFunc("POST /_sandbox/events/{id}/resend", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Resend(r.PathValue("id")); err != nil {
			refuseAdmin(w, http.StatusNotFound, err)
			return
		}
		reply(w, map[string]bool{"resent": true})
	})
	mux.HandleFunc("POST /_sandbox/drain", func(w http.ResponseWriter, r *http.Request) {
		err := s.Drain(r.Context())
		replyOr(w, err, s.Counters())
	})
	mux.HandleFunc("POST /_sandbox/reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		reply(w, map[string]bool{"reset": true})
	})

	mux.HandleFunc("GET /_sandbox/sources", s.showSource)
	mux.HandleFunc("POST /_sandbox/sources", s.pressSource)
	mux.HandleFunc("GET /_sandbox/checkout", s.showCheckout)
	mux.HandleFunc("POST /_sandbox/checkout", s.pressCheckout)
	return mux
}

func (s *Sandbox) clockState() any {
	return map[string]any{"now": s.clock.Now(), "factor": s.clock.Factor()}
}

// streamLedger writes {"intents":[...]}, one intent a line.
func (s *Sandbox) streamLedger(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = contentJSON
	out := bufio.NewWriterSize(w, 64<<10)
	_, _ = out.WriteString("{\"intents\":[\n") // a failed write shows in Flush
	separator := ""
	err := s.eachIntent(func(pi LedgerIntent) error {
		_, _ = out.WriteString(separator)
		separator = ",\n"
		_, err := out.Write(encode(pi))
		return err
	})
	if err == nil {
		_, _ = out.WriteString("\n]}\n")
		_ = out.Flush() // the reader has gone; there is nobody to tell
	}
}

// receive reads a control's JSON. Unknown fields are refused: a misspelt fault
// would test nothing.
func receive(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil && dec.More() {
		err = errors.New("there is more than one JSON value")
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuseAdmin(w, http.StatusRequestEntityTooLarge, errors.New("the body is larger than 1 MiB"))
	case errors.Is(err, io.EOF):
		refuseAdmin(w, http.StatusBadRequest, errors.New("the body is empty; GET /_sandbox shows what to send"))
	case err != nil:
		refuseAdmin(w, http.StatusBadRequest, fmt.Errorf("the body is not what this control takes: %w", err))
	}
	return err == nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header()["Content-Type"] = contentJSON
	_, _ = w.Write(append(encode(v), '\n')) // the caller may have gone
}

func replyOr(w http.ResponseWriter, err error, v any) {
	if err != nil {
		refuseAdmin(w, http.StatusBadRequest, err)
		return
	}
	reply(w, v)
}

func refuseAdmin(w http.ResponseWriter, status int, err error) {
	w.Header()["Content-Type"] = contentJSON
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(map[string]string{"error": err.Error()}), '\n'))
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}
