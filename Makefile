# `make bench` compares every family; `make test` checks the project. Both make .venv when it is missing.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Processes that share the tests, whole files each. Most tests wait for processes of their own.
JOBS ?= 3

.PHONY: bench test lint types pytest clean

bench: $(VENV)/.installed
	$(PY) -m bench $(ARGS)

test: lint types pytest

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed-dev
	$(VENV)/bin/mypy

pytest: $(VENV)/.installed-dev
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

$(PY):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q -c constraints.txt -e ".[fast]"
	$(PY) -m models.kernels.warm
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q -c constraints.txt -e ".[dev]"
	$(PY) -m models.kernels.warm
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
