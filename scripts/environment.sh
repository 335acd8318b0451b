#!/usr/bin/env bash
# Makes the virtual environment $1 from the pinned versions in $2 and puts this clone into it.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 pins=$2

python=""
for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(command -v "$candidate")
        break
    fi
done
if [ -z "$python" ]; then
    echo "lateen needs Python 3.11 or newer: apt-get install -y python3 python3-venv" >&2
    exit 1
fi

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python cannot make virtual environments: apt-get install -y python3-venv" >&2
        exit 1
    fi
    echo "making the environment in $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
echo "installing the versions pinned in $pins"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --requirement "$pins"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --no-deps --no-build-isolation --editable .
