# Two commands set up everything themselves: `make up` runs the mesh, `make test` passes the tests.
SHELL := /bin/bash
export PATH := $(PATH):/usr/sbin:/sbin
.DEFAULT_GOAL := help
.PHONY: help up down test test-long test-kube check bench soak stubs constraints clean

VENV := .venv
BIN := $(VENV)/bin
# Arguments of `lateen up` and `lateen down`: make up ARGS="--name two --gateway-port 8090"
ARGS ?=
# How long `make soak` goes on
MINUTES ?= 30
# What `make bench` does with its results: it compares them with those in bench/results; `make bench SAVE=1` replaces those
BENCH := --results bench/results $(if $(SAVE),--save)
# Which tests run two at a time; those of tests/e2e follow, alone on the machine, since they measure under load
PYTEST ?= tests
# PROGRAM:PACKAGE of Debian that benchmarks start, and tests
BENCH_PACKAGES := h2load:nghttp2-client nghttpd:nghttp2-server
TEST_PACKAGES := nft:nftables ip:iproute2 nsenter:util-linux redis-server:redis-server openssl:openssl setpriv:util-linux curl:curl $(BENCH_PACKAGES)

# The same for what only long tests start
LONG_TEST_PACKAGES := chromium:chromium

help:
	@echo "make up         start the mesh with the demo on http://localhost:8080/productpage"
	@echo "make down       stop it; configuration and root certificate are kept"
	@echo "make test       the tests that must pass, in minutes"
	@echo "make test-long  the tests that take long"
	@echo "make test-kube  the tests against a real Kubernetes and kubectl, built from source (minutes, once)"
	@echo "make check      ruff, basedpyright, import-linter"
	@echo "make bench      benchmarks, side by side, with ratios to earlier results"
	@echo "make soak       half an hour of churn (MINUTES=30): is memory flat?"

up: $(VENV)/.run
	@scripts/packages.sh nft:nftables
	@$(BIN)/lateen up $(ARGS)

down: $(VENV)/.run
	@$(BIN)/lateen down $(ARGS)

test: $(VENV)/.dev typings
	@scripts/packages.sh $(TEST_PACKAGES)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not long and not kube" $(PYTEST) --ignore tests/e2e
	@$(BIN)/python -m pytest -q -m "not long and not kube" tests/e2e

test-long: $(VENV)/.dev typings
	@scripts/packages.sh $(TEST_PACKAGES) $(LONG_TEST_PACKAGES)
	@$(BIN)/python -m pytest -q -m long $(PYTEST)

test-kube: $(VENV)/.dev typings
	@scripts/packages.sh $(TEST_PACKAGES)
	@programs=$$(scripts/kube/build.sh cluster) && LATEEN_KUBE_BIN=$$programs $(BIN)/python -m pytest -q -m kube $(PYTEST)

check: $(VENV)/.dev typings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright --warnings
	@$(BIN)/lint-imports

bench: $(VENV)/.run
	@scripts/packages.sh nft:nftables ip:iproute2 curl:curl $(BENCH_PACKAGES)
	@$(BIN)/python -m lateen.bench.loop_lag --streams 200 --seconds 15
	@for shape in "1000 200 --churn 60" "1000 200 --source api" "1000 200 --eager" "5000 40"; do \
	  set -- $$shape; \
	  $(BIN)/lateen bench xds --services $$1 --sidecars $$2 $${@:3} --confirm $(BENCH) || exit; \
	done
	@$(BIN)/lateen bench proxy $(BENCH)
	@$(BIN)/lateen bench envoy $(BENCH)
	@$(BIN)/lateen bench truth $(BENCH)
	@$(BIN)/lateen bench api $(BENCH)

soak: $(VENV)/.run
	@$(BIN)/lateen bench soak --minutes $(MINUTES)

typings: $(VENV)/.dev scripts/stubs.py
	@echo "making type stubs of the xDS messages"
	@$(BIN)/python scripts/stubs.py
	@touch typings

constraints: $(VENV)/.dev
	@scripts/constraints.sh

$(VENV)/.run: constraints/run.txt pyproject.toml
	@scripts/environment.sh $(VENV) constraints/run.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run constraints/dev.txt
	@scripts/environment.sh $(VENV) constraints/dev.txt
	@touch $@

clean:
	rm -rf $(VENV) typings dist .pytest_cache .ruff_cache .hypothesis
