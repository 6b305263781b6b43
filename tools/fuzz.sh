#!/bin/sh
# Runs every fuzz target of the module in turn, each for $FUZZTIME (1m, or 20000x for a number of inputs).
set -eu
cd "$(dirname "$0")/.."
FUZZTIME=${FUZZTIME:-1m}

log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM

# fuzz PACKAGE TARGET
fuzz() {
	echo "== $1 $2, $FUZZTIME"
	# Making one new input smaller may take a minute by default, which is all there is.
	if go test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 100x "$1" >"$log" 2>&1; then
		tail -n 3 "$log"
		return
	fi
	cat "$log"
	# With a duration, Go's fuzzer can take its own deadline for a failure (golang/go#75804).
	# A real finding always names the file it was written to.
	if grep -q 'context deadline exceeded' "$log" && ! grep -qE 'Failing input|panic:|DATA RACE' "$log"; then
		echo "== the fuzzer tripped over its own deadline and found nothing; once more with a number of inputs"
		go test -run '^$' -fuzz "^$2\$" -fuzztime 20000x "$1"
		return
	fi
	return 1
}

count=0
failed=
for package in $(go list ./...); do
	# A package that does not compile must not pass for one without fuzz targets.
	names=$(go test -list '^Fuzz' "$package") || { echo "$names" >&2; exit 1; }
	for target in $(echo "$names" | grep '^Fuzz' || true); do
		count=$((count + 1))
		fuzz "$package" "$target" || failed="$failed $target"
	done
done

if [ "$count" = 0 ]; then
	echo "No fuzz target in the module: that cannot be right." >&2
	exit 1
fi
if [ -n "$failed" ]; then
	echo "Failed:$failed. The input is in testdata/fuzz of the package: commit it with the fix." >&2
	exit 1
fi
echo "$count fuzz targets, nothing found."
