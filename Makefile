# What a person types. Every target makes its own .venv from the lock file where it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help venv demo up down status test check format unit bench eval bench-append bench-projections bench-search bench-metrics soak test-llm lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY) ## Make .venv from the lock file

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "EvoSense needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV) (once; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "no virtual environment could be made: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## See it work on a week of a shop's conversations
	@$(BIN)/evosense demo

up: $(READY) ## Run the whole system until Ctrl-C
	@$(BIN)/evosense up

down: $(READY) ## Stop what `make up` or `make demo` left running
	@$(BIN)/evosense down

status: $(READY) ## Show how the system is
	@$(BIN)/evosense status

test: check unit ## All checks and all tests

unit: $(READY) ## All tests
	@$(BIN)/python -m pytest

check: $(READY) ## Lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY) ## Measure; results belong in docs/benchmarks.md
	@$(BIN)/python -m benchmarks.webhook

bench-append: $(READY) ## Measure appends beside the library, INSERT and COPY
	@$(BIN)/python -m benchmarks.append

bench-projections: $(READY) ## Measure rebuilds and live projection beside COPY and the library
	@$(BIN)/python -m benchmarks.projections

bench-metrics: $(READY) ## Measure the metrics beside the documented view, and what keeping them costs
	@$(BIN)/python -m benchmarks.metrics

bench-search: $(READY) ## Measure the searches beside the documented design (some ten minutes; --vectors 20000 is quick)
	@$(BIN)/python -m benchmarks.search

eval: $(READY) ## Measure how good the configured models are (offline: two minutes, docs/quality.md)
	@$(BIN)/python -m benchmarks.quality

test-llm: $(READY) ## Test a real model server: EVOSENSE_MODEL_URL and EVOSENSE_MODEL, or an Ollama on this machine
	@$(BIN)/python -m pytest -s -o python_files='llm_*.py' tests/llm

soak: $(READY) ## Long runs under fire: the order of the log, random operations, kill -9
	@echo "a million events, many writers, one reader (a few minutes)"
	@$(BIN)/python -m benchmarks.commit_order
	@echo "random operations on the projections, new ones every time (some ten minutes)"
	@STATE_MACHINE_EXAMPLES=100 STATE_MACHINE_STEPS=40 $(BIN)/python -m pytest -k log_says --tb=short --show-capture=no \
	  tests/projections/test_state_machine.py
	@echo "two hundred times kill -9 (some twenty minutes)"
	@$(BIN)/python -m benchmarks.kills

lock: ## Make the lock files anew (needs uv); they hold versions and hashes, no addresses
	uv pip compile --universal --generate-hashes --no-header --python-version 3.11 --quiet pyproject.toml -o requirements.lock
	uv pip compile --universal --generate-hashes --no-header --python-version 3.11 --quiet --extra dev pyproject.toml -o requirements-dev.lock

clean: ## Remove .venv and caches; data in .evosense stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
