package migrations_test

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
)

// legalChanges are the changes of state, written down once more, from the
// design and not from the triggers. To stay as it is is always legal.
var legalChanges = map[string]map[string][]string{
	"invoices": {
		"open":          {"paid", "void", "uncollectible", "review"},
		"review":        {"open", "paid", "void", "uncollectible"},
		"uncollectible": {"paid"}, // late money
		"void":          {},       // late money is recorded, and a human decides
		"paid":          {},
	},
	"payment_intents": {
		"creating":  {"ready", "dead", "review"},
		"ready":     {"succeeded", "dead", "review"},
		"review":    {"ready", "succeeded", "dead"},
		"succeeded": {},
		"dead":      {},
	},
	"attempts": {
		"armed":        {"succeeded", "declined", "needs_action", "no_effect", "review"},
		"needs_action": {"succeeded", "declined", "no_effect", "review"},
		"review":       {"succeeded", "declined", "needs_action", "no_effect"},
		"declined":     {"succeeded"},
		"no_effect":    {"succeeded"},
		"succeeded":    {},
	},
	"card_setups": {
		"creating":  {"open"},
		"open":      {"paid", "saved", "cancelled", "review"},
		"paid":      {"saved"},
		"review":    {"paid", "saved", "cancelled"},
		"saved":     {},
		"cancelled": {},
	},
}

// stateOf tells how row 1 of a table gets into a state, and how it changes to
// the next, with everything else as that state wants it.
var stateOf = map[string]struct {
	column string
	into   func(state string) []string
	change func(from, to string) string
}{
	"invoices": {
		column: "status",
		into:   func(status string) []string { return []string{set("invoices", 1, asInvoice(status))} },
		change: func(_, to string) string { return set("invoices", 1, asInvoice(to)) },
	},
	"payment_intents": {
		column: "state",
		// Of its own invoice, so that it can be born in any state.
		into: func(state string) []string {
			row := put("payment_intents", "invoice_id="+id(9), "state='"+state+"'", "provider_intent_id='pi_9'")
			switch state {
			case "creating":
				row = put("payment_intents", "invoice_id="+id(9))
			case "dead":
				row = put("payment_intents", "invoice_id="+id(9), "state='dead'", "provider_intent_id='pi_9'", "death_proof="+proofOf9)
			}
			return []string{put("invoices"), row}
		},
		change: func(from, to string) string {
			switch {
			case to == from:
				return set("payment_intents", 9, "updated_at = now()")
			case to == "creating":
				return set("payment_intents", 9, "state = 'creating', provider_intent_id = NULL, death_proof = NULL")
			case to == "dead":
				return set("payment_intents", 9, "state = 'dead', provider_intent_id = 'pi_9', death_proof = "+proofOf9)
			}
			return set("payment_intents", 9, fmt.Sprintf("state = '%s', provider_intent_id = 'pi_9', death_proof = NULL", to))
		},
	},
	"attempts": {
		column: "state",
		into:   func(state string) []string { return attempt(1, state) },
		change: func(_, to string) string { return set("attempts", 101, asAttempt(to)) },
	},
	"card_setups": {
		column: "state",
		into:   func(state string) []string { return []string{put("card_setups"), bornAs(state)} },
		change: func(_, to string) string { return set("card_setups", 9, asSetup(to)) },
	},
}

const proofOf9 = `'{"kind":"retrieve","provider_intent":{"ID":"pi_9","Status":"cancelled"}}'`

var quoted = regexp.MustCompile(`'(\w+)'::text`)

// states reads from the schema which states a table knows.
func states(t *testing.T, pool *pgxpool.Pool, table, column string) (list []string) {
	t.Helper()
	var check string
	err := pool.QueryRow(t.Context(), `SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1`,
		fmt.Sprintf("%s_%s_check", table, column)).Scan(&check)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range quoted.FindAllStringSubmatch(check, -1) {
		list = append(list, match[1])
	}
	return list
}

// TestEveryChangeOfState tries all pairs of states: the legal ones are taken,
// all others refused.
func TestEveryChangeOfState(t *testing.T) {
	t.Parallel()
	pool := attacked(t)
	for table, legal := range legalChanges {
		of := stateOf[table]
		all := states(t, pool, table, of.column)
		if len(all) != len(legal) {
			t.Errorf("%s has the states %v, and the test knows %d", table, all, len(legal))
		}
		for _, from := range all {
			for _, to := range all {
				t.Run(table+"/"+from+"/"+to, func(t *testing.T) {
					err := undone(t, pool, append(of.into(from), of.change(from, to))...)
					want := from == to || slices.Contains(legal[from], to)
					rule, _ := broken(err)
					switch {
					case want && err != nil:
						t.Errorf("refused: %v", err)
					case !want && err == nil:
						t.Error("accepted")
					case !want && rule != "guard_"+table:
						t.Errorf("refused by %s: %v", rule, err)
					}
				})
			}
		}
	}
}
