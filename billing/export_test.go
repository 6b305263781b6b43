package billing_test

import (
	"encoding/json"
	"runtime"
	"testing"

	"github.com/singil/singil/billing"
)

// TestExportHoldsOneRow: 64 MB go through, and next to nothing is kept.
func TestExportHoldsOneRow(t *testing.T) { // not parallel: the heap is everybody's
	l := setup(t)
	const rows, size = 640, 100_000
	l.exec(`INSERT INTO singil.events (id, type, data, occurred_at)
	        SELECT gen_random_uuid(), 'test', jsonb_build_object('text', repeat('x', $2)), $3 FROM generate_series(1, $1::int)`, rows, size, noon)
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, seen, most := live(), 0, uint64(0)
	err := billing.Export(t.Context(), l.pool, "events", billing.ExportFilter{}, func(row any) error {
		line, err := json.Marshal(row)
		if len(line) < size {
			t.Errorf("a line of %d bytes", len(line))
		}
		if seen++; seen%128 == 0 {
			most = max(most, live())
		}
		return err
	})
	if err != nil || seen != rows {
		t.Fatalf("%d rows, %v", seen, err)
	}
	if grown := int64(most) - int64(before); grown > rows*size/4 {
		t.Errorf("the heap grew by %d bytes over an export of %d", grown, rows*size)
	}
}
