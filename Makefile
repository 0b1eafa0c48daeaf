# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test lint benchmark clean

demo: $(VENV)/.installed
	$(BIN)/minetrace demo --out $(DEMO)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist loadscope

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# An environment of its own: one of the peers is under the GPL.
benchmark: $(VENV)-benchmark/.installed
	$(VENV)-benchmark/bin/python -m pytest benchmarks --benchmark-only -q -o addopts= -o filterwarnings=

$(VENV)-benchmark/.installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)-benchmark
	$(VENV)-benchmark/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]" --requirement benchmarks/requirements.txt
	touch $@

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-benchmark $(DEMO)
