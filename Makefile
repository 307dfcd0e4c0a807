# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Both make .venv, install what they need at the tested versions, and are quick the second time.

# The first Python on the PATH that is new enough; another one with `make test PYTHON=...`.
PYTHON ?= $(shell for each in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$each -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$each && break; done)

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# Torch's own threads and pytest's workers would fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test lint format bench bench-evo data-checks clean help

help:  ## show this text
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 16

demo: $(VENV)/.installed-demo  ## train on a bacterial genome, compare, and write demo/report.html
	$(BIN)/lexome demo

test: lint  ## check style and types, then run every test that needs no download
	$(PYTEST) -n 2

lint: $(VENV)/.installed-dev  ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(VENV)/.installed-dev  ## bring the code into the house's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-dev  ## time lexome against its references, one benchmark after the other
	set -e; for each in $(filter-out %/evo_full_size.py,$(wildcard benchmarks/*.py)); do \
	echo "== $$each"; $(BIN)/python $$each; done

bench-evo: $(VENV)/.installed-dev  ## open Evo at its real size and time it (13 GB of disk)
	$(BIN)/python benchmarks/evo_full_size.py

data-checks: $(VENV)/.installed-dev  ## the slow tests on real data (see CONTRIBUTING.md)
	$(PYTEST) -m slow

clean:  ## remove the environment, caches and what the demo wrote
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.11 or newer with venv was found on the PATH.' \
		'Install one, or name it: make PYTHON=/path/to/python3' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'installing into $(VENV); this takes a few minutes the first time'
	$(INSTALL) -e '.[train,report]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'installing into $(VENV); this takes a few minutes the first time'
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo
