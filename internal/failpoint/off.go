//go:build !failpoint

package failpoint

// Hit does nothing: there are no failpoints in this build.
func Hit(string) {}
