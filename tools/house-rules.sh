#!/bin/sh
# The rules that no linter knows, over every Go file of the module. Prints what breaks them.
set -eu
cd "$(dirname "$0")/.."
broken=0

# search PATTERN FILES: like grep, but finding nothing is no error.
search() {
	find . -name node_modules -prune -o -name .git -prune -o -type f -name "$2" -print0 |
		xargs -0 grep -nE "$1" /dev/null || true
}

report() {
	[ -z "$2" ] && return
	printf '%s\n%s\n' "$1" "$2" >&2
	broken=1
}

report "A test that sleeps is slow on a fast machine and fails on a slow one. Wait for a condition, or use testing/synctest:" \
	"$(search 'time\.Sleep' '*_test.go')"

report "An open end needs an issue and the condition for its removal, as in TODO(#12): when ...:" \
	"$(search '(TODO|FIXME|XXX)' '*.go' | grep -vE 'TODO\(#[0-9]+\):' || true)"

exit $broken
