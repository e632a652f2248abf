# One virtual environment for everything; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
COMPOSE ?= docker compose
WORKERS ?= 2
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check format bench bench-compare cluster-env up sweep-cluster down pictures pins clean

demo: $(VENV)/installed  ## install, and sweep 64 networks on digits
	$(BIN)/caviar sweep digits --trials 64

test: $(VENV)/tested  ## all tests, in two processes: much of the time goes into waiting for others
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/checked  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(VENV)/checked  ## format the source
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/tested  ## all benchmarks, or PROGRAMS="training_step sweep"; see benchmarks/README.md
	$(BIN)/python benchmarks/run.py $(PROGRAMS)

bench-compare: $(VENV)/installed  ## the latest results against those before, or WITH=FILE
	$(BIN)/python benchmarks/compare.py $(WITH)

cluster-env: .env  ## the secrets of the cluster in containers, made once

.env:
	umask 077 && $(PYTHON) -c 'from secrets import token_hex; \
		print(f"POSTGRES_PASSWORD={token_hex(24)}\nRAY_AUTH_TOKEN={token_hex(32)}")' > $@

up: .env  ## a cluster in containers, with WORKERS=2 workers
	$(COMPOSE) up --build --detach --wait --scale worker=$(WORKERS)

sweep-cluster: up  ## sweep 64 networks on it
	$(COMPOSE) run --rm caviar sweep digits --trials 64

down:  ## end the cluster; its trials stay
	$(COMPOSE) down

pictures: $(VENV)/installed  ## draw the pictures of the README
	$(BIN)/python docs/pictures/draw.py

pins:  ## pin what the image of a node installs
	$(PYTHON) -m venv $(VENV)-pins
	$(VENV)-pins/bin/python -m pip install --quiet .
	(echo '# What the image of a node installs, written by `make pins`.'; \
		$(VENV)-pins/bin/python -m pip freeze --exclude caviar) > workers/requirements.txt
	rm -rf $(VENV)-pins

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
