# `make demo` and `make test` do all of their own set-up, once: infra/setup/venv.sh keeps .venv
# as requirements.lock says. Another interpreter: make PYTHON=/path/to/python3.11 demo
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

python := .venv/bin/python
rooms := flows tasks model_zoo schemas infra

# No tool of the house reports home.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1
export PYTHON MAKECMDGOALS

.PHONY: help setup demo test test-quick test-all lint format lock clean distclean

help: ## Say what there is to make
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 18

setup: ## Make the virtual environment as requirements.lock says
	@infra/setup/venv.sh

demo: setup ## Web pages to pictures, with a report (9 minutes on two cores)
	@.venv/bin/tapir demo

test: setup ## Every test
	@$(python) -m pytest

test-quick: setup ## Every test that takes less than a minute
	@$(python) -m pytest -m "not slow"

test-all: setup ## Every test, with 10,000 cases of each fuzz test
	@TAPIR_FUZZ_EXAMPLES=10000 $(python) -m pytest -o timeout=3600

lint: setup ## Style, types, direction of imports
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy
	@.venv/bin/lint-imports

format: setup ## Lay the code out as `make lint` wants it
	@$(python) -m ruff format .
	@$(python) -m ruff check --fix .

lock: setup ## Resolve pyproject.toml again; UPGRADE="NAME ..." or UPGRADE=all moves pins
	@$(python) infra/setup/lock.py $(UPGRADE)
	@infra/setup/venv.sh

clean: ## Remove caches and build outputs; .venv and .tapir stay
	@rm -rf build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find $(rooms) tests -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove .venv and the state in .tapir, too
	@rm -rf .venv .tapir
