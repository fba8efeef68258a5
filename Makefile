# Two commands are enough on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# pip's own configuration decides where torch comes from (the default build has CUDA; PyTorch's CPU index is smaller).
STAMP  := $(VENV)/.olfl-$(shell cat pyproject.toml requirements.lock | cksum | cut -d' ' -f1)

.PHONY: bench chaos clean cluster-demo demo lint modules mutants setup test
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, run sweeps/digits.yaml, print the result"
	@echo "make test   set up, run all checks and tests"
	@echo "make bench  set up, time the online step against its peers; writes benchmarks/engine"
	@echo "make modules [COUNT=5000 SEED=0]  set up, compare the engine with a plain loop on random modules"
	@echo "make mutants [PACKAGE=all COUNT=150 SEED=1]  set up, change random lines of the core; which changes do the tests find?"
	@echo "make cluster-demo  set up, run sweeps/digits.yaml on a two-node cluster here that loses a node; with MLflow's page"
	@echo "make chaos  set up, kill sweeps at every edge and at random, some 150 times, and compare (needs PostgreSQL)"

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	rm -f $(VENV)/.olfl-*
	touch $@

demo: setup
	$(BIN)/olfl sweep run sweeps/digits.yaml

bench: setup
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[bench]'
	$(BIN)/olfl bench engine

cluster-demo: setup
	$(BIN)/python cluster/local/cluster.py demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder

COUNT ?= 5000
SEED  ?= 0
modules: setup
	$(BIN)/python benchmarks/modules/check.py --count $(COUNT) --seed $(SEED)

mutants: COUNT = 150
mutants: SEED = 1
mutants: setup
	$(BIN)/python benchmarks/mutants/measure.py $(or $(PACKAGE),all) --count $(COUNT) --seed $(SEED)

chaos: setup
	$(BIN)/olfl bench chaos

clean:
	rm -rf $(VENV)
