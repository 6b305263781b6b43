package billing

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// The limits of an import.
const (
	// importLineLimit is a mebibyte: no honest line comes near it.
	importLineLimit = 1 << 20
	// importBatch is how many lines share a transaction: few round trips, and
	// locks that are held for milliseconds.
	importBatch = 2000
	// importErrorLimit is how many errors are told before a check gives up.
	importErrorLimit = 100
)

// The types of an import's lines.
const (
	importPlan          = "plan"
	importCustomer      = "customer"
	importPaymentMethod = "payment_method"
	importSubscription  = "subscription"
)

// Database is what an import needs of a pool.
type Database interface {
	Querier
	Begin(ctx context.Context) (pgx.Tx, error)
}

// ImportOptions says how to import.
type ImportOptions struct {
	Now    time.Time // business time
	Actor  string
	Source string // the file's name, for the audit log
	Reason string // for the audit log, in front of the lines' numbers; may be empty
	// Partial imports the good lines and tells of the others.
	Partial bool
	// DryRun checks everything and writes nothing.
	DryRun bool
	// Progress is told now and then how many lines were read; may be nil.
	Progress func(phase string, lines int)
}

// ImportCount is what became of the lines of one type.
type ImportCount struct {
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
}

// LineError is a refused line. Field is empty where it is about the whole line.
type LineError struct {
	Line    int    `json:"line"`
	Field   string `json:"field,omitempty"`
	Problem string `json:"problem"`
}

func (e LineError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("line %d: %s", e.Line, e.Problem)
	}
	return fmt.Sprintf("line %d: %s: %s", e.Line, e.Field, e.Problem)
}

// ImportResult is what an import came to.
type ImportResult struct {
	Lines          int         `json:"lines"` // without blank ones
	Plans          ImportCount `json:"plans"`
	Customers      ImportCount `json:"customers"`
	PaymentMethods ImportCount `json:"payment_methods"`
	Subscriptions  ImportCount `json:"subscriptions"`
	// PeriodsDue counts the periods of new subscriptions that have begun already
	// and are billed by the next sweep, because bill_from asks for it.
	PeriodsDue int `json:"periods_due"`
	// Refused counts lines. Errors tells of the first hundred mistakes in them.
	Refused int         `json:"refused"`
	Errors  []LineError `json:"errors"`
	// Stopped means that the check gave up before the end, after too many errors.
	Stopped bool `json:"stopped"`
}

func (r *ImportResult) count(kind string) *ImportCount {
	switch kind {
	case importPlan:
		return &r.Plans
	case importCustomer:
		return &r.Customers
	case importPaymentMethod:
		return &r.PaymentMethods
	default:
		return &r.Subscriptions
	}
}

// ErrImportRefused means that lines were refused and nothing was imported.
var ErrImportRefused = errors.New("nothing was imported")

// Import reads JSON Lines: plans, customers, payment methods, subscriptions.
// What a line refers to stands on an earlier line or in the database.
//
// The source is read twice: the first time every line is checked, and one
// refused line means that nothing is written, with ErrImportRefused. Partial
// reads it once and leaves the refused lines out. Lines are written in batches,
// each in its own transaction with its entry in the audit log. A line that was
// imported before changes nothing, so that an import that was interrupted is
// simply run again.
func Import(ctx context.Context, db Database, source io.ReadSeeker, options ImportOptions) (ImportResult, error) {
	im := &importer{db: db, options: options, seed: maphash.MakeSeed()}
	if !options.Partial || options.DryRun {
		if err := im.pass(ctx, source, false); err != nil {
			return im.result, err
		}
		if options.DryRun {
			return im.result, nil
		}
		if im.result.Refused > 0 {
			return im.result, ErrImportRefused
		}
		if _, err := source.Seek(0, io.SeekStart); err != nil {
			return im.result, fmt.Errorf("read the import again: %w", err)
		}
	}
	err := im.pass(ctx, source, true)
	return im.result, err
}

// importer is one Import on its way.
type importer struct {
	db      Database
	options ImportOptions
	result  ImportResult
	seed    maphash.Seed

	// What is known of the lines before. A file may be longer than memory, so
	// ids are kept as hashes; plans are few.
	seen      map[importKey]int32
	customers map[importKey]struct{}
	plans     map[string]*planTerms
	planUsed  map[string]int
}

// importKey is two hashes of a type and an id: 128 bits, so that two ids that
// share a key are not met.
type importKey [2]uint64

func (im *importer) key(kind, id string) importKey {
	return importKey{maphash.String(im.seed, kind+"\x00"+id), maphash.String(im.seed, id+"\x01"+kind)}
}

// planTerms is what a subscription copies of its plan.
type planTerms struct {
	Amount   Money
	Interval Interval
}

func (im *importer) pass(ctx context.Context, source io.Reader, write bool) error {
	im.result = ImportResult{Errors: []LineError{}}
	im.seen, im.customers = map[importKey]int32{}, map[importKey]struct{}{}
	im.plans, im.planUsed = map[string]*planTerms{}, map[string]int{}

	phase := "checked"
	if write {
		phase = "imported"
	}
	lines := &lineReader{r: bufio.NewReaderSize(source, importLineLimit)}
	for {
		batch, err := im.read(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read line %d of the import: %w", lines.no, err)
		}
		if err := im.batch(ctx, batch, write); err != nil {
			return err
		}
		if im.options.Progress != nil {
			im.options.Progress(phase, lines.no)
		}
		if im.result.Stopped || errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// read is the next lines, as far as each is right by itself.
func (im *importer) read(lines *lineReader) ([]*importRecord, error) {
	var batch []*importRecord
	for n := 0; n < importBatch; n++ {
		line, err := lines.next()
		switch {
		case errors.Is(err, errLineTooLong):
			im.result.Lines++
			im.refuse(lines.no, FieldError{Problem: fmt.Sprintf("is longer than %d bytes", importLineLimit)})
			continue
		case err != nil:
			return batch, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		im.result.Lines++
		record, problems := parseImportLine(line)
		if len(problems) > 0 {
			im.refuse(lines.no, problems...)
			if im.result.Stopped {
				return batch, nil
			}
			continue
		}
		record.line = lines.no
		batch = append(batch, record)
	}
	return batch, nil
}

func (im *importer) refuse(line int, problems ...FieldError) {
	im.result.Refused++
	for _, p := range problems {
		if len(im.result.Errors) < importErrorLimit {
			im.result.Errors = append(im.result.Errors, LineError{line, p.Field, p.Problem})
		}
	}
	im.result.Stopped = !im.options.Partial && len(im.result.Errors) >= importErrorLimit
}

// batch checks lines against the database and the lines before, and writes those
// that hold.
func (im *importer) batch(ctx context.Context, batch []*importRecord, write bool) error {
	if len(batch) == 0 {
		return nil
	}
	return pgx.BeginFunc(ctx, im.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sqlImportPlanner); err != nil {
			return fmt.Errorf("begin a batch of the import: %w", err)
		}
		if !write {
			_, err := im.judge(ctx, tx, batch)
			return err
		}
		if _, err := tx.Exec(ctx, sqlImportTurn); err != nil {
			return fmt.Errorf("wait for another import: %w", err)
		}
		refused := im.result.Refused
		good, err := im.judge(ctx, tx, batch)
		if err != nil {
			return err
		}
		if im.result.Refused > refused && !im.options.Partial {
			return fmt.Errorf("the file or the database changed during the import (%w); lines before %d are imported, run it again",
				im.result.Errors[len(im.result.Errors)-1], batch[0].line)
		}
		return im.write(ctx, tx, good)
	})
}

// A plan that was made when the tables were empty and is kept reads them from end
// to end for every batch.
const sqlImportPlanner = `SET LOCAL plan_cache_mode = force_custom_plan`

// Two imports take turns, batch by batch.
const sqlImportTurn = `SELECT pg_advisory_xact_lock(hashtextextended('singil import', 0))`

var errLineTooLong = errors.New("line too long")

// lineReader reads lines of bounded length.
type lineReader struct {
	r  *bufio.Reader
	no int
}

// next is the next line, good until the one after it, io.EOF, or errLineTooLong:
// that line was passed over.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if len(line) == 0 && errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	l.no++
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.r.ReadSlice('\n')
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = errLineTooLong
		}
		return nil, err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if l.no == 1 {
		line = bytes.TrimPrefix(line, []byte("\ufeff")) // some editors begin a file with it
	}
	return line, nil
}

// ParseInstant reads RFC 3339. An instant without a zone offset is refused: it
// would be another one on every machine.
func ParseInstant(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err == nil {
		if y := t.UTC().Year(); y < firstAnchorYear || y > lastAnchorYear {
			return time.Time{}, fmt.Errorf("%q is in year %d, want %d to %d", clip(s), y, firstAnchorYear, lastAnchorYear)
		}
		return t.UTC().Truncate(time.Microsecond), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if _, err := time.Parse(layout, s); err == nil {
			return time.Time{}, fmt.Errorf("%q has no zone offset; write it like 2026-01-31T09:00:00+08:00", clip(s))
		}
	}
	return time.Time{}, fmt.Errorf("%q is not an instant like 2026-01-31T09:00:00+08:00", clip(s))
}

func validText(line []byte) bool { return utf8.Valid(line) }
