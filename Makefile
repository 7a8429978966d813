# refstudy: `make study` and `make test` do everything, from a fresh clone on.
# PYTHON chooses the interpreter (3.11 or 3.12); ARGS is handed to the command, e.g. make study ARGS=--train

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
UV_VERSION := 0.13.8

.PHONY: help setup study test lab bench lock check

help:
	@echo "make study   set up, run every notebook, write results/scenes (about 10 minutes on 2 cores)"
	@echo "make test    set up, run the tests and the smoke study"
	@echo "make lab     open the notebooks in JupyterLab"
	@echo "make bench   measure speed and memory, into benchmarks/results and docs/performance.md"
	@echo "make check   style and types"
	@echo "make lock    renew requirements.lock from pyproject.toml"

setup: $(STAMP)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 12) else "refstudy needs Python 3.11 or 3.12, but $(PYTHON) is %d.%d; try: make PYTHON=python3.11 setup" % v)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): requirements.lock pyproject.toml | $(BIN)/uv
	@echo "setting up $(VENV) (takes about 6 GB, mostly PyTorch; minutes, once)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

study: setup
	@$(BIN)/refstudy run --profile scenes $(ARGS)

test: setup
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lab: setup
	@$(BIN)/jupyter lab notebooks

bench: setup
	@for script in benchmarks/bench_*.py benchmarks/page.py; do $(BIN)/python $$script || exit 1; done

check: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lock: $(BIN)/uv
	@$(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --extra dev --no-header --no-annotate pyproject.toml --output-file requirements.lock
