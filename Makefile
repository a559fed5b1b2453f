# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set up all that they need, in $(VENV); nothing is written elsewhere.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo

BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# the pin stands in pyproject.toml alone
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo test test-slow test-device fuzz check fmt golden clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    train a small network on digits, compress it for rpi4 and stm32h7 (minutes)'
	@echo 'make test    all tests but the slow ones'
	@echo 'make test-slow    the slow ones: the demo, kills in every stage, all of tests/architectures'
	@echo 'make test-device   on an emulated Raspberry Pi behind sshd; as root on Debian, skipped elsewhere'
	@echo 'make fuzz    minutes of broken models, tickets, artifacts, data, manifests and TOML; SEED=1 breaks the same ones again'
	@echo 'make check   lint, format, types, import rules'
	@echo 'make setup   only the environment, in $(VENV); the others do it by themselves'
	@echo 'make fmt     format the code;  make golden  rewrite tests/golden;  make clean'

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgeprune needs Python 3.11 \
	or newer, and this is %d.%d; try: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo 'setting up $(VENV) (minutes; torch is the larger part)'
	@rm -rf $(STAMP)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet '$(TORCH)'
	@$(BIN)/python -m pip install --quiet --editable '.[compress,dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/edgeprune demo --out $(DEMO)

test: setup
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -q -n 2 -m slow

test-device: setup
	$(BIN)/python -m pytest -q -m device tests/device

fuzz: setup
	$(BIN)/python -m pytest -q -m fuzz tests/fuzz $(if $(SEED),--fuzz-seed $(SEED))

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: setup
	$(BIN)/python -m pytest -q tests/unit --regen-golden

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find edgeprune tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
