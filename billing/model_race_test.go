//go:build race

package billing

// The race detector makes the search ten times slower, and it looks for races
// in a test that has one goroutine: a small world will do.
const modelRace = true
