# One virtual environment for everything; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check format bench clean

demo: $(VENV)/installed  ## install, and sweep 64 networks on digits
	$(BIN)/caviar sweep digits --trials 64

test: $(VENV)/tested  ## all tests
	$(BIN)/python -m pytest

check: $(VENV)/checked  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: $(VENV)/checked  ## format the source
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed  ## the benchmarks; see benchmarks/README.md
	$(BIN)/python benchmarks/training_step.py

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "caviar needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/checked: $(VENV)/tested
	$(BIN)/python -m pip install --quiet --editable '.[check]'
	touch $@

clean:  ## remove the virtual environment
	rm -rf $(VENV)
