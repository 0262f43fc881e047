# Two commands do everything on a machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where there is no GPU a CPU build of torch saves gigabytes; set TORCH_INDEX= (empty) to take pip's default build.
ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
TORCH_INDEX ?= --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu
endif

.PHONY: help install demo test lint types floors unit alone slow real clean

help:
	@echo "make demo     the whole loop on a synthetic cohort: train, segment, evaluate, report (minutes)"
	@echo "make test     everything that must hold: ruff, mypy, import-linter, pytest"
	@echo "make alone    exported bundles in an environment of their own, which is made for it"
	@echo "make slow     the tests that take longer"
	@echo "make real     the tests on real scans, below the folder named by BRATS_PIPELINE_DATA"

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt $(TORCH_INDEX) torch
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	@touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/brats-pipeline demo --out demo

test: lint types floors unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

floors: install
	$(BIN)/lint-imports

unit: install
	$(BIN)/pytest -q

alone: install
	$(BIN)/pytest -q -m slow tests/brats_pipeline/bundles/test_alone.py

slow: install
	$(BIN)/pytest -q -m slow

real: install
	$(BIN)/pytest -q -m real

clean:
	rm -rf $(VENV) build dist *.egg-info demo
