package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/singil/singil/billing"
)

// Witness remembers, outside of the database, attempts that were committed in
// it. A backup put back, a copy of the data files or a standby that missed the
// last commits lacks them, however alike it looks otherwise.
//
// The file is one small block, written in place after every acknowledged arm
// commit and before its attaches are sent: exact, for a system call a batch. It
// is written without waiting for the disk, which survives the end of the process
// and anything that is done to the database; only a crash of this host itself
// loses what Sync has not yet seen to, about a second. What is left then is
// older, and still true.
//
// Without a file it remembers for as long as the process lives, which is enough
// to notice a database that is exchanged under a running daemon.
//
// Each daemon has a file of its own, and each knows a lower bound: the attempts
// of its own, and once a second the newest of the others'. Safe for concurrent
// use.
type Witness struct {
	mu     sync.Mutex
	file   *os.File // nil: in memory only
	memory billing.Memory
	dirty  bool
}

// witnessed is how many attempts are remembered, one of each commit. Commits
// that overlap may be acknowledged in another order than the database has them
// in, and then a restore may lose one and keep the next: so more than one. A
// daemon has two at a time.
const witnessed = 8

const (
	witnessTitle = "singil witness 1"
	witnessSize  = 512 // a sector: written whole, or not
)

// ErrBadWitness is a witness file that cannot be believed.
var ErrBadWitness = errors.New("the witness file is damaged, or none; if it is, remove it: the next start begins a new one from what the database has")

// OpenWitness opens the witness file, or begins one. The empty path is none.
func OpenWitness(path string) (*Witness, error) {
	w := &Witness{}
	if path == "" {
		return w, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the witness: %w", err)
	}
	w.file = file
	block, err := io.ReadAll(io.LimitReader(file, witnessSize+1))
	if err == nil && len(block) > 0 {
		w.memory, err = readWitness(block)
	}
	if err == nil && len(block) == 0 {
		err = w.write(w.memory)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the witness %s: %w", path, err), file.Close())
	}
	return w, nil
}

// Check compares the database with what is remembered, in a transaction that it
// may freeze charging in: see billing.Guard. If all is well, it remembers the
// newest attempt that the database has.
func (w *Witness) Check(ctx context.Context, tx pgx.Tx) (billing.DatabaseStanding, error) {
	w.mu.Lock()
	memory := w.memory
	w.mu.Unlock()
	standing, err := billing.Guard(ctx, tx, memory)
	if err != nil || standing.Older != "" {
		return standing, err
	}
	return standing, w.follow(standing.Now)
}

// follow takes over what the database has. Behind a recovery it begins anew: what
// it remembers of before is what the database was found to have forgotten.
func (w *Witness) follow(now billing.Memory) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := billing.Memory{Recovery: now.Recovery, Attempts: w.memory.Attempts}
	if next.Recovery != w.memory.Recovery {
		next.Attempts = nil
	}
	for _, id := range now.Attempts {
		if !slices.Contains(next.Attempts, id) {
			next.Attempts = remember(next.Attempts, id)
		}
	}
	if next.Recovery == w.memory.Recovery && slices.Equal(next.Attempts, w.memory.Attempts) {
		return nil
	}
	return w.write(next)
}

// Note remembers an attempt whose commit was acknowledged. After an error nothing
// may be sent that was committed with it.
func (w *Witness) Note(attempt uuid.UUID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(billing.Memory{Recovery: w.memory.Recovery, Attempts: remember(w.memory.Attempts, attempt)})
}

// remember leaves the old list as it is: others may be reading it.
func remember(attempts []uuid.UUID, id uuid.UUID) []uuid.UUID {
	return append([]uuid.UUID{id}, attempts[:min(len(attempts), witnessed-1)]...)
}

// Sync has what was written survive a crash of this host. Once a second is enough.
func (w *Witness) Sync() error {
	w.mu.Lock()
	dirty := w.dirty
	w.dirty = false
	w.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync the witness: %w", err)
	}
	return nil
}

// Close syncs and closes the file.
func (w *Witness) Close() error {
	if w.file == nil {
		return nil
	}
	return errors.Join(w.Sync(), w.file.Close())
}

// write is called with mu held.
func (w *Witness) write(memory billing.Memory) error {
	if w.file != nil {
		if _, err := w.file.WriteAt(witnessBlock(memory), 0); err != nil {
			return fmt.Errorf("write the witness: %w", err)
		}
		w.dirty = true
	}
	w.memory = memory
	return nil
}

// witnessBlock is text for people, and for readWitness: a title, the recovery,
// the attempts, newest first, a checksum of all that, and blanks.
func witnessBlock(memory billing.Memory) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%s\n", witnessTitle, memory.Recovery)
	for _, id := range memory.Attempts {
		fmt.Fprintf(&b, "%s\n", id)
	}
	fmt.Fprintf(&b, "%08x\n", crc32.ChecksumIEEE(b.Bytes()))
	return append(b.Bytes(), bytes.Repeat([]byte{' '}, witnessSize-b.Len())...)
}

func readWitness(block []byte) (billing.Memory, error) {
	lines := strings.Split(strings.TrimRight(string(block), " "), "\n")
	if len(block) != witnessSize || lines[0] != witnessTitle || len(lines) < 4 || len(lines) > 4+witnessed {
		return billing.Memory{}, ErrBadWitness
	}
	var ids []uuid.UUID
	for _, line := range lines[1 : len(lines)-2] {
		id, err := uuid.Parse(line)
		if err != nil {
			return billing.Memory{}, ErrBadWitness
		}
		ids = append(ids, id)
	}
	memory := billing.Memory{Recovery: ids[0], Attempts: ids[1:]}
	if !bytes.Equal(block, witnessBlock(memory)) {
		return billing.Memory{}, ErrBadWitness
	}
	return memory, nil
}
