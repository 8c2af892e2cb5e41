# Two commands to know: `make demo` and `make test`. Everything runs in .venv, which is made when missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
PORT   ?= 7410
SECONDS ?= 60
# Tests of one file share what they compile, so a file stays with one of the processes, at most one a core.
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-fast bench fuzz lint format proto clean

help:
	@echo 'make demo       two agents checked by a real service: the Challenger launch and the exploding bandit'
	@echo 'make test       the whole test suite'
	@echo 'make test-fast  the suite without its slow tests'
	@echo 'make serve      the service on 127.0.0.1:$(PORT) with the shipped policies (PORT=...)'
	@echo 'make bench      every benchmark, as ratios measured within one run'
	@echo 'make fuzz       every fuzz target, guided by coverage (SECONDS=... for each)'
	@echo 'make lint       formatting, lint, strict types, wire contract'
	@echo 'make format     rewrite the sources in the standard format'
	@echo 'make proto      generate the stubs from proto/'
	@echo 'make clean      remove .venv and caches'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("guardrail needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# What the demo, the service and the benchmarks need.
$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[server,sim,models,postgres]'
	@touch $@

# What tests and linters need besides.
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[server,sim,models,torch,postgres,otel,dev]'
	@touch $(VENV)/.installed-run $@

demo: $(VENV)/.installed-run
	@$(BIN)/python -m simulations.demo

serve: $(VENV)/.installed-run
	$(BIN)/guardrail serve --listen 127.0.0.1:$(PORT) --policies policies --store var/guardrail.db

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(SPREAD)

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(SPREAD) -m 'not slow'

bench: $(VENV)/.installed-run
	$(BIN)/python -m benchmarks

fuzz: $(VENV)/.installed-dev
	for target in reply request policy expression snapshot; do $(BIN)/python tools/fuzz.py $$target --seconds $(SECONDS) || exit 1; done

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/buf_lint.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(VENV)/.installed-dev
	$(BIN)/python tools/generate_stubs.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis var
