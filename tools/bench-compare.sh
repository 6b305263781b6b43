#!/bin/sh
# The benchmarks of some packages here against those of a commit, by benchstat:
#
#	BASE=main BENCH=Period COUNT=10 sh tools/bench-compare.sh ./billing
#
# BASE is the commit before: HEAD while something is not committed, else HEAD~1.
# The two take turns, COUNT times, so that whatever else the machine does is in
# both. Fewer than six tell nothing for certain.
set -eu

if git diff --quiet HEAD; then before=HEAD~1; else before=HEAD; fi
base=${BASE:-$before}
commit=$(git rev-parse --verify --quiet "$base^{commit}") || {
	echo "There is no commit $base here. In a shallow clone: git fetch --unshallow. Or name one: BASE=ref" >&2
	exit 1
}

dir=$(mktemp -d)
clean() {
	git worktree remove --force "$dir/tree" 2>/dev/null || true
	rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT TERM
git worktree add --quiet --detach "$dir/tree" "$commit"

# A package that is not there in one of the two is compared with nothing.
for side in before after; do
	tree=$dir/tree
	if [ "$side" = after ]; then tree=$PWD; fi
	for package in "$@"; do
		if [ -d "$tree/$package" ]; then
			go -C "$tree" test -c -o "$dir/$side/$package/" "$package"
		fi
	done
	: >"$dir/$side.txt"
done

for _ in $(seq "${COUNT:-6}"); do
	for package in "$@"; do
		for side in before after; do
			tree=$dir/tree
			if [ "$side" = after ]; then tree=$PWD; fi
			for binary in "$dir/$side/$package"/*.test; do
				[ -x "$binary" ] || continue
				(cd "$tree/$package" && "$binary" -test.short -test.run '^$' -test.bench "${BENCH:-.}" \
					-test.benchmem -test.benchtime "${BENCHTIME:-100ms}") >>"$dir/$side.txt"
			done
		done
	done
done

echo "before: $(git log -1 --format='%h %s' "$commit")"
go tool -modfile=tools/go.mod benchstat "before=$dir/before.txt" "after=$dir/after.txt"
