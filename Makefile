# refstudy: `make study` and `make test` do everything, from a fresh clone on.
# PYTHON names the interpreter (3.11 to 3.14); without it tools/find_python.sh looks for one.
# ARGS is handed to the command, e.g. make study ARGS=--train

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
UV_VERSION := 0.13.8
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup study rendered test test-all test-long lab bench lock check

help:
	@echo "make study      set up, run every notebook, write results/scenes (4 to 10 minutes on 2 cores)"
	@echo "make rendered   make study, and then write the notebooks with their outputs to results/scenes/rendered"
	@echo "make test       set up, run the fast tests (under 5 minutes on 2 cores)"
	@echo "make test-all   these and the slow ones, the smoke study among them (under 30 minutes)"
	@echo "make test-long  only those that take longer still"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make bench      measure speed and memory, into benchmarks/results and docs/performance.md"
	@echo "make check      style and types"
	@echo "make lock       renew requirements.lock and environment.yml from pyproject.toml"

setup: $(STAMP)

$(BIN)/uv:
	@python=$$(sh tools/find_python.sh $(if $(PYTHON),"$(PYTHON)")) || exit 1; \
	if [ "$$python" = uv ]; then uv venv --quiet --allow-existing --seed --python 3.13 $(VENV); else "$$python" -m venv $(VENV); fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): requirements.lock pyproject.toml | $(BIN)/uv
	@echo "setting up $(VENV) (takes about 6 GB, mostly PyTorch; minutes, once)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
	@echo "ready; next: make study, make test, or: . $(BIN)/activate && refstudy predict examples/scene.jpg \"animal on left\""

study: setup
	@$(BIN)/refstudy run --profile scenes $(ARGS)

rendered: study
	@$(BIN)/python tools/rendered.py

test: setup
	@$(PYTEST) -m "not slow and not long" $(ARGS)

test-all: setup
	@$(PYTEST) $(ARGS)

test-long: setup
	@$(PYTEST) -m long $(ARGS)

lab: setup
	@$(BIN)/jupyter lab notebooks

bench: setup
	@$(BIN)/python benchmarks/all.py

check: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lock: $(BIN)/uv
	@$(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --extra dev --generate-hashes --no-header --no-annotate pyproject.toml --output-file requirements.lock
	@$(BIN)/python tools/environment_yml.py
