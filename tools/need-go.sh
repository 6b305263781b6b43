#!/bin/sh
# Stops with a sentence about what to do when Go is missing or is older than go.mod asks for.
set -eu
cd "$(dirname "$0")/.."

want=$(sed -n 's/^go //p' go.mod)
how="Install Go $want or newer (https://go.dev/doc/install), put its bin folder on PATH, and run this again."

if ! command -v go >/dev/null 2>&1; then
	echo "Go is not on PATH. $how" >&2
	exit 1
fi

# go1.26.8 -> 1026; a development version says "devel go1.27-1a2b3c ...".
number() { echo "${1##*go}" | awk -F '[^0-9]' '{ print $1 * 1000 + $2 }'; }

have=$(go env GOVERSION)
if [ "$(number "$have")" -lt "$(number "$want")" ]; then
	echo "This is $have; the module needs Go $want. $how" >&2
	exit 1
fi
