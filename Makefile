# `make demo` and `make test` need nothing but Python 3.11 or 3.12, g++ and make: they set up .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Benchmark files of the field (HumanEval, ...), where they have been put beside the checkout; tests skip without them.
ifneq ($(wildcard ../shared/data),)
TEMPER_DATA ?= $(abspath ../shared/data)
endif
export TEMPER_DATA

.PHONY: help setup demo test check format docs clean

help:
	@echo 'make setup      create $(VENV) and install the exact versions of constraints.txt'
	@echo 'make demo       fine-tune the embedded model, full and QLoRA, and prove the gain (minutes, CPU only)'
	@echo 'make test       the test suite'
	@echo 'make check      lint, format, types, import walls'
	@echo 'make format     apply lint fixes and format'
	@echo 'make docs       write docs/reference from the schema'
	@echo 'make clean      remove caches and demo runs'

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 13) else \
	  "Python %d.%d at %s: Temper needs 3.11 or 3.12; name one with PYTHON=python3.12" % (v[0], v[1], sys.executable))'
	@command -v g++ >/dev/null || { echo 'g++ is missing: DeepSpeed compiles a small part on first use; install it, e.g. apt install g++' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
# torch comes first and alone: a range that meets a newer release would pull gigabytes that a CPU machine cannot use.
	@echo 'Installing torch' && $(PIP) install --quiet "$$(grep '^torch==' constraints.txt)"
	@echo 'Installing Temper and what it needs' && $(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/temper demo

test: setup
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -q $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/house -k 'walls or names or size'

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python -m launch.cli config docs > docs/reference/run.md

clean:
	rm -rf runs/demo .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
