#!/bin/sh
# need-prometheus.sh: sees to it that there are Prometheus and promtool. Debian's package, which has both, is
# installed where root runs this; elsewhere it stops and prints the line that installs it.
set -eu

found() {
	command -v prometheus >/dev/null && command -v promtool >/dev/null
}

if found; then
	exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo 'Prometheus is needed and not here: installing it.' >&2
	apt-get update -q >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends prometheus >&2
	if found; then
		exit 0
	fi
fi

case $(uname -s) in
Darwin) how='brew install prometheus' ;;
*) how='sudo apt-get install -y prometheus' ;;
esac
echo "Prometheus and its promtool are needed. Install them ($how), and run this again." >&2
exit 1
