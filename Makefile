# Everything a fresh Debian 12 machine needs is set up here, in the open and only once:
# `make demo` and `make test` work as root on a clean checkout, and need no network the second time.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PY   := .venv/bin/python
# What runs kproxy itself: bcc's bindings, and ip for the demo's namespaces, curl as its client.
APT_RUN   := python3 python3-venv python3-bpfcc iproute2 curl bpftool
# What the tests run beside that: a real server, load, promtool, conntrack-free NAT, other languages' HTTP stacks.
APT_TEST  := nginx-light wrk prometheus nodejs golang-go
# What the benchmark runs beside that.
APT_BENCH := nginx-light wrk

# $(call apt,PACKAGES): install those that dpkg does not have; touches no network when all are there.
define apt
	@missing=; for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

.PHONY: help
help:
	@echo "make demo   Gordon's story on real sockets (root)"
	@echo "make test   every test, real kernel included (root)"
	@echo "make lint   ruff, mypy, layering"
	@echo "make bench  kproxy against Envoy and no proxy; writes benchmarks/results (root)"
	@echo "make bench-policy  what judging and compiling costs with many rules; no root, no network"
	@echo "make lock   renew the lock files from pyproject.toml and requirements*.in"

.venv/bin/python:
	$(call apt,$(APT_RUN))
	/usr/bin/python3 -m venv --system-site-packages .venv

# The stamp is newer than the lock once everything in the lock is installed.
.venv/.installed: requirements.lock pyproject.toml | .venv/bin/python
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

.venv/.bench-installed: requirements-bench.lock | .venv/.installed
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

.PHONY: setup setup-test setup-bench
setup: .venv/.installed
	$(call apt,$(APT_RUN))
setup-test: setup
	$(call apt,$(APT_TEST))
setup-bench: setup .venv/.bench-installed
	$(call apt,$(APT_BENCH))

.PHONY: demo test lint bench bench-policy lock
demo: setup
	@.venv/bin/kproxy demo

test: setup-test
	$(PY) -m pytest $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

bench: setup-bench
	$(PY) -m benchmarks $(ARGS)

bench-policy: setup
	$(PY) -m benchmarks.policy_engine

# pip-tools lives in an environment of its own, as its pins are nobody's business here.
lock: | .venv/bin/python
	test -x .venv/lock/bin/pip-compile || { $(PY) -m venv .venv/lock && .venv/lock/bin/pip install -q pip-tools; }
	.venv/lock/bin/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header -o requirements.lock pyproject.toml requirements.in
	.venv/lock/bin/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header -o requirements-bench.lock requirements-bench.in
