.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: help env tools dev format lint types check test bench lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: ## Install everything for development into .venv
	@./deploy/environment.sh dev

tools: env ## Install Helm, kubectl and kubernetes.core where this machine lacks them
	@$(PY) -m devstack.tools --quiet

dev: ## Start the service on this machine (see deploy/start_dev.sh --help)
	@./deploy/start_dev.sh

format: env ## Format the code
	@$(PY) -m ruff check --fix --quiet . ; $(PY) -m ruff format --quiet .

lint: env ## Check style and import direction
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && .venv/bin/lint-imports

types: env ## Check types
	@$(PY) -m mypy

check: lint types ## The fast part: style, types, and the tests that take seconds
	@$(PY) -m pytest -n 2 -q -m "not slow"

test: tools ## Install what is needed and run every test this machine can run
	@$(PY) -m pytest -n 2 -rs

bench: env ## Print measured ratios against the obvious alternatives
	@$(PY) -m benchmarks

lock: env ## Resolve the lock files anew
	@for profile in runtime sandbox dev; do \
	  extras=; [ $$profile = runtime ] || extras="--extra sandbox"; [ $$profile != dev ] || extras="$$extras --extra dev"; \
	  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    $$extras pyproject.toml -o requirements/$$profile.txt || exit 1; done
	@echo uv | .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header - -o requirements/bootstrap.txt
