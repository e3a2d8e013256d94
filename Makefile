# Every target sets itself up: Python 3.11 or newer is enough, and no environment need be active.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# uv, where there is one, finds or fetches a Python that pyproject.toml allows by itself.
ifneq ($(shell command -v uv 2>/dev/null),)
CREATE := uv venv .venv
INSTALL := uv pip install --quiet --python $(BIN)/python
else
CREATE := $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer \
is needed, $(PYTHON) is " + sys.version.split()[0] + "; name another with PYTHON=...")' \
	&& $(PYTHON) -m venv .venv
INSTALL := $(BIN)/python -m pip install --quiet
endif

.PHONY: help race test test-all lint docs claims bench

help:
	@echo "make race       race methods on real data and write the report"
	@echo "make test       the quick tests"
	@echo "make test-all   all tests"
	@echo "make lint       formatting, lint, types"
	@echo "make docs       build the documentation into site/"
	@echo "make claims     check what the papers claim, on small budgets"
	@echo "make bench      Raphson against its peers"

$(INSTALLED): pyproject.toml
	@test -x $(BIN)/python || { echo "setting up .venv"; $(CREATE); }
	$(INSTALL) --editable '.[test,docs]'
	@touch $@

# What XLA compiled is kept between runs; the benchmarks time compilation and so keep nothing.
race test test-all claims: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
race test test-all claims: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.1
# As in raphson/compiled.py, for what tests and claims compile themselves.
test-all claims: export XLA_FLAGS ?= --xla_cpu_use_fusion_emitters=false
# The quick tests' programs run for a millisecond: compiling them is what takes time, so XLA
# optimizes them less. An XLA that does not know a flag says so and stops: take the flag away then.
test: export XLA_FLAGS ?= --xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 \
--xla_cpu_parallel_codegen_split_count=1

race: $(INSTALLED)
	$(BIN)/raphson race

# A test process holds its compiled programs, so more of them cost memory; four is plenty.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: $(INSTALLED)
	$(PYTEST)

test-all: $(INSTALLED)
	$(PYTEST) -m ''

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

claims: $(INSTALLED)
	$(BIN)/raphson claims --quick --jobs 2

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks
