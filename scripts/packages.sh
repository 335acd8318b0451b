#!/usr/bin/env bash
# For each PROGRAM:PACKAGE: as root installs the Debian package of a missing program, saying so first; as an
# ordinary user names what is missing in one line. Programs in /usr/sbin count.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
missing=()
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
command="apt-get install -y ${missing[*]}"
if [ "$(id -u)" -ne 0 ]; then
    echo "missing on this machine, install as root: $command" >&2
    exit 1
fi
echo "installing from Debian: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "could not be installed, try: apt-get update && $command" >&2
    exit 1
fi
