//go:build !race

package billing

const modelRace = false
