// Package stub is a payment provider for measuring: as fast as net/http allows, it creates payment intents, shows them,
// and takes one payment for each. It knows no declines, no faults and no webhooks; that is the sandbox's business.
//
// Its answers have the fields and the size of PayMongo's. It keeps the ledger that the books of whoever is measured are
// compared with, and refuses a second success on an intent.
package stub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Stub is the provider, an http.Handler. Now is required.
type Stub struct {
	Now func() time.Time

	latency atomic.Int64 // of each call, in nanoseconds
	counts  [4]atomic.Int64

	mu      sync.Mutex
	first   int64 // the number of intents[0]: numbers are never given twice
	intents []intent
}

type intent struct {
	amount  int64
	invoice string
	paid    bool
}

// The calls that are counted.
const (
	creates = iota
	retrieves
	attaches
	refused
)

// Counts are the calls since the last reset. Paid counts successes; Refused are attaches to what was paid already.
type Counts struct {
	Creates, Retrieves, Attaches, Refused, Paid int64
}

// Payment is a line of the ledger.
type Payment struct {
	Invoice string `json:"invoice"`
	Payment string `json:"payment"`
	Amount  int64  `json:"amount"`
}

const intents = "/v1/payment_intents"

// ServeHTTP takes three calls of PayMongo's, and three of its own below /bench.
func (s *Stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, isIntent := strings.CutPrefix(r.URL.Path, intents)
	switch {
	case isIntent && path == "" && r.Method == http.MethodPost:
		s.create(w, r)
	case isIntent && strings.HasSuffix(path, "/attach") && r.Method == http.MethodPost:
		s.attach(w, r, strings.TrimSuffix(path[1:], "/attach"))
	case isIntent && path != "" && r.Method == http.MethodGet:
		s.retrieve(w, r, path[1:])
	case r.URL.Path == "/bench/counts":
		reply(w, s.Counts())
	case r.URL.Path == "/bench/ledger":
		reply(w, s.Ledger())
	case r.URL.Path == "/bench/reset" && r.Method == http.MethodPost:
		latency, err := time.ParseDuration(r.URL.Query().Get("latency"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.Reset(latency)
	default:
		http.NotFound(w, r)
	}
}

// Counts of the calls since the last reset.
func (s *Stub) Counts() Counts {
	c := Counts{
		Creates: s.counts[creates].Load(), Retrieves: s.counts[retrieves].Load(),
		Attaches: s.counts[attaches].Load(), Refused: s.counts[refused].Load(),
	}
	c.Paid = c.Attaches - c.Refused
	return c
}

// Ledger is the money that was taken since the last reset.
func (s *Stub) Ledger() []Payment {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []Payment{}
	for i, pi := range s.intents {
		if pi.paid {
			list = append(list, Payment{pi.invoice, fmt.Sprintf("pay_%024d", s.first+int64(i)), pi.amount})
		}
	}
	return list
}

// Reset forgets intents, ledger and counts, and sets the latency of each call.
func (s *Stub) Reset(latency time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.intents = s.first+int64(len(s.intents)), nil
	for i := range s.counts {
		s.counts[i].Store(0)
	}
	s.latency.Store(int64(latency))
}

var errNotHere = errors.New("no such payment intent")

func (s *Stub) create(w http.ResponseWriter, r *http.Request) {
	body := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(body)
	body.Reset()
	if _, err := body.ReadFrom(r.Body); err != nil {
		refuse(w, err)
		return
	}
	amount, err := strconv.ParseInt(after(body.Bytes(), `"amount":`, ",}"), 10, 64)
	if err != nil {
		refuse(w, err)
		return
	}
	pi := intent{amount: amount, invoice: after(body.Bytes(), `"invoice":"`, `"`)}
	s.mu.Lock()
	no := s.first + int64(len(s.intents))
	s.intents = append(s.intents, pi)
	s.mu.Unlock()
	s.counts[creates].Add(1)
	s.answer(w, r, no, pi)
}

func (s *Stub) attach(w http.ResponseWriter, r *http.Request, id string) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		refuse(w, err)
		return
	}
	var second bool
	no, pi, err := s.find(id, func(pi *intent) { second, pi.paid = pi.paid, true })
	s.counts[attaches].Add(1)
	if second {
		err = errors.New("the payment intent has succeeded already")
	}
	if err != nil {
		s.counts[refused].Add(1)
		refuse(w, err)
		return
	}
	s.answer(w, r, no, pi)
}

func (s *Stub) retrieve(w http.ResponseWriter, r *http.Request, id string) {
	s.counts[retrieves].Add(1)
	no, pi, err := s.find(id, func(*intent) {})
	if err != nil {
		refuse(w, err)
		return
	}
	s.answer(w, r, no, pi)
}

// find changes an intent and gives what it is then.
func (s *Stub) find(id string, change func(*intent)) (no int64, _ intent, _ error) {
	digits, isIntent := strings.CutPrefix(id, "pi_")
	no, err := strconv.ParseInt(digits, 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := no - s.first
	if !isIntent || err != nil || i < 0 || i >= int64(len(s.intents)) {
		return 0, intent{}, errNotHere
	}
	change(&s.intents[i])
	return no, s.intents[i], nil
}

// answer shows an intent, when the latency is over.
func (s *Stub) answer(w http.ResponseWriter, r *http.Request, no int64, pi intent) {
	if latency := time.Duration(s.latency.Load()); latency > 0 {
		select {
		case <-time.After(latency):
		case <-r.Context().Done():
			return
		}
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	buf.Reset()
	if pi.paid {
		paid.write(buf, no, pi, s.Now().Unix())
	} else {
		unpaid.write(buf, no, pi, s.Now().Unix())
	}
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(buf.Bytes()) // whoever asked may have gone
}

var (
	jsonType = []string{"application/json; charset=utf-8"}
	buffers  = sync.Pool{New: func() any { return new(bytes.Buffer) }}
)

// after is the text between a mark and the first of the ends behind it; nothing, if the mark is not there.
func after(body []byte, mark, ends string) string {
	_, rest, found := bytes.Cut(body, []byte(mark))
	if end := bytes.IndexAny(rest, ends); found && end >= 0 {
		return string(rest[:end])
	}
	return ""
}

func refuse(w http.ResponseWriter, err error) {
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"errors":[{"code":"parameter_invalid","detail":%q}]}`, err)
}

func reply(w http.ResponseWriter, v any) {
	w.Header()["Content-Type"] = jsonType
	_ = json.NewEncoder(w).Encode(v) // whoever asked may have gone
}
