# Two commands are enough on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Index for torch only; empty: pip's own configuration (the default build has CUDA; PyTorch's CPU index is smaller).
TORCH_INDEX_URL ?=
LOCKS  := requirements.lock requirements-dev.lock requirements-torch.lock
STAMP  := $(VENV)/.olfl-$(shell cat pyproject.toml $(LOCKS) | cksum | cut -d' ' -f1)

.PHONY: audit bench chaos clean cluster-demo demo docs family lint lock modules mutants paper setup test test-fast
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, run sweeps/digits.yaml, print the result"
	@echo "make test   set up, run all checks and tests"
	@echo "make test-fast  set up, run the tests of the packages that need neither Ray nor MLflow"
	@echo "make docs   set up, write the pages made from code, run the notebooks, build the site: docs/build/html"
	@echo "make bench  set up, time the online step against other libraries; writes benchmarks/engine"
	@echo "make modules [COUNT=5000 SEED=0]  set up, compare the engine with a plain torch loop on random modules"
	@echo "make mutants [PACKAGE=all COUNT=150 SEED=1]  set up, change random lines of the core, and list the changes that no test detects"
	@echo "make paper ROW=diabetes  set up, run a benchmark of experiments/paper/rows; writes RESULTS.md there"
	@echo "make family ROW=diabetes  set up, compare task loss, ML3, TaylorGLO, GP, EvoMAL and AdaLFL at equal cost; writes experiments/family"
	@echo "make audit  set up, check installed packages for known vulnerabilities"
	@echo "make lock   write new versions and hashes (needs uv)"
	@echo "make cluster-demo  set up, run sweeps/digits.yaml on a local two-node cluster that loses a node; with MLflow's UI"
	@echo "make chaos  set up, kill sweeps at about 150 fixed and random moments, and compare (needs PostgreSQL)"

setup: $(STAMP)

$(STAMP): pyproject.toml $(LOCKS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) --requirement requirements-torch.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/.olfl-*
	touch $@

demo: setup
	$(BIN)/olfl sweep run sweeps/digits.yaml

bench: setup
	$(BIN)/python -m benchmarks engine

cluster-demo: setup
	$(BIN)/python cluster/local/cluster.py demo

# The site, in docs/build/html. The notebooks run, in about a minute of CPU time; warnings are errors.
docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx -W --keep-going --builder html docs docs/build/html

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder

# The packages that need neither Ray nor MLflow, without the engine's contract suite.
FAST := analysis ledger losses methods models records search spec storage tasks vision test_public_face.py
test-fast: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope $(addprefix tests/,$(FAST))

COUNT ?= 5000
SEED  ?= 0
modules: setup
	$(BIN)/python benchmarks/modules/check.py --count $(COUNT) --seed $(SEED)

mutants: COUNT = 150
mutants: SEED = 1
mutants: setup
	$(BIN)/python benchmarks/mutants/measure.py $(or $(PACKAGE),all) --count $(COUNT) --seed $(SEED)

# One benchmark of the comparison in experiments/paper, or all of them.
paper: setup
	$(BIN)/python -m experiments.paper run $(ROW) $(ARGS)
	$(BIN)/python -m experiments.paper table

# The family of learned losses at an equal number of base-learner passes.
family: setup
	$(BIN)/python -m experiments.family run $(ROW) $(ARGS)

chaos: setup
	$(BIN)/python -m benchmarks chaos

# What is installed, against known vulnerabilities; needs the network.
audit: setup
	test -x $(VENV)-audit/bin/python || $(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --disable-pip --require-hashes --requirement requirements-dev.lock
	$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement requirements-torch.lock

# New locks, with the hashes of all files of each version; needs uv and the network. torch and what its CUDA build brings are
# left out: their files differ by index, so only torch's versions are pinned.
CUDA := triton setuptools cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
	cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
COMPILE = uv pip compile pyproject.toml - --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 \
	--python-platform linux --constraint requirements-torch.lock --extra postgres \
	$(addprefix --no-emit-package ,torch torchvision $(CUDA))
ALSO := 'boto3\neditables\ngoogle-api-python-client\ngoogle-auth-httplib2\nhatchling\n'
lock:
	printf $(ALSO) | $(COMPILE) --extra dev --extra bench --output-file requirements-dev.lock
	printf $(ALSO) | $(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

clean:
	rm -rf $(VENV)
