package billing

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
)

func TestHasCardNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"4343434343434345": true, "x4343434343434345y": true, "4343 4343 4343 4345": true, "4343-4343-4343-4345 12/30 123": true,
		"2223000048400011": true, "30569309025904": true, "378282246310005": true, "6011 1111 1111 1117": true, "3782 822463 10005": true,
		"4343434343434346": false, "1769846400000": false, "20260131120004": false, "2026013112000000001": false, "": false, "434343434343": false,
		"abcd2345-6789-7012-8123-aaaaaaaaaaaa": false, "inv_ABCD4000-4343-7343-8343-AAAAAAAAAAAA": true, // no UUID: more stands before it
		"aaaaaaaa-aaaa-aaaa-aaaa-4343434343434345": true, "id abcd2345-6789-7012-8123-aaaaaaaaaaaa, card 4343434343434345": true,
	} {
		if got := HasCardNumber(text); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	for range 20_000 {
		if id := uuid.New().String(); HasCardNumber(id) {
			t.Fatalf("the id %s is taken for a card's number", id)
		}
	}
}

// An id of ours, or of anybody who names things by UUIDs, is let in.
func TestImportTakesUUIDs(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"abcd2345-6789-7012-8123-aaaaaaaaaaaa", "20260131120004"} {
		if _, problems := parseImportLine([]byte(fmt.Sprintf(`{"type":"customer","external_id":%q}`, id))); len(problems) > 0 {
			t.Errorf("%s: %v", id, problems)
		}
	}
}
