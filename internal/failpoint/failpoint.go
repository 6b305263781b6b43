// Package failpoint names the places at which a process is made to die in tests.
//
// A normal build has none of them: Hit is empty there. A build with the tag
// failpoint kills itself at the place that the environment variable FAILPOINT
// names. What is left behind at each, and how that ends, is in the map of
// cmd/singil/crash_test.go.
package failpoint
