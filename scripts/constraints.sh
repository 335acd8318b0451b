#!/usr/bin/env bash
# Pins every version: what lateen runs on in run.txt, what its tests and checks need on top in dev.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header \
        --no-annotate --output-file "$1" "${@:2}"
}
compile constraints/run.txt pyproject.toml --extra mesh constraints/build.in
compile constraints/dev.txt constraints/dev.in --constraint constraints/run.txt
