// Package failpoint names the places at which a process is made to die in tests.
//
// A normal build has none of them: Hit is empty there. A build with the tag
// failpoint kills itself at the place that FAILPOINT names.
package failpoint
