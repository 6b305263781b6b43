#!/bin/sh
# need-postgres.sh [VARIABLE]: sees to it that there are PostgreSQL's server programs, in the places where
# internal/devpg looks for them, or a database in the environment variable VARIABLE. Debian's package is installed
# where root runs this; elsewhere it stops and prints the line that installs it.
set -eu

if [ $# -gt 0 ] && [ -n "$(printenv "$1" || true)" ]; then
	exit 0
fi

# usable DIRECTORY: has the programs, of a version that will do.
usable() {
	[ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
	version=$("$1/postgres" --version | tr -c '0-9' ' ' | awk '{ print $1 }')
	[ "${version:-0}" -ge 14 ]
}

# resolve FILE: follows symbolic links, which readlink -f does not do everywhere.
resolve() {
	file=$1
	while link=$(readlink "$file"); do
		case $link in
		/*) file=$link ;;
		*) file=$(dirname "$file")/$link ;;
		esac
	done
	echo "$file"
}

found() {
	if [ -n "${PGBIN:-}" ]; then
		usable "$PGBIN" && return
		echo "PGBIN=$PGBIN has no initdb and postgres of version 14 or newer. Unset it, or name the right directory." >&2
		exit 1
	fi
	if initdb=$(command -v initdb) && usable "$(dirname "$(resolve "$initdb")")"; then
		return
	fi
	for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
		if usable "$dir"; then return; fi
	done
	return 1
}

if found; then
	exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo 'PostgreSQL is needed and not here: installing it.' >&2
	apt-get update -q >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -qy postgresql >&2
	if found; then
		exit 0
	fi
fi

case $(uname -s) in
Darwin) how='brew install postgresql@17' ;;
*) how='sudo apt-get install -y postgresql' ;;
esac
echo "PostgreSQL 14 or newer is needed, its programs and not a server that runs. Install it ($how)," >&2
echo "or name the directory of initdb and postgres in PGBIN${1:+, or a database in $1}. Then run this again." >&2
exit 1
