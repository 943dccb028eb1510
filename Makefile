# `make demo` and `make test` work from a fresh clone; each sets itself up first.
# Where the package index has GPU builds of torch and another build is wanted, say which:
#   make test TORCH="torch==2.13.0 --index-url ADDRESS_OF_AN_INDEX_WITH_CPU_BUILDS"

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
JOBS ?= 2

BIN := .venv/bin
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# One thread each: the tests run in several processes, and threads that outnumber the cores slow all of them.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
COMPILE := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-annotate \
	--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo screens test drills databases bench lint lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## generate a catalog, learn it, judge it and use it, without a network; see demo/
	$(BIN)/shelver demo --out demo

screens: $(READY) ## pictures of every page of the web application, into docs/screens/; needs Chromium
	$(BIN)/python tests/e2e/screens.py --demo demo

test: $(READY) ## run the tests, all but the drills
	$(ONE_THREAD) $(BIN)/python -m pytest -m 'not drill' -n $(JOBS) --dist loadfile

drills: $(READY) ## run the long drills: hostile inputs, kills, load
	$(ONE_THREAD) $(BIN)/python -m pytest -m drill --timeout 3600

databases: $(READY) ## run all tests of the service on PostgreSQL, then on MariaDB
	for database in postgresql mariadb; do \
		SHELVER_TEST_DATABASE=$$database $(ONE_THREAD) $(BIN)/python -m pytest -m 'not drill' -n $(JOBS) --dist loadfile \
			tests/service || exit 1; \
	done

bench: $(READY) ## ours beside SVM, fastText and frozen lite0, in one run; hours
	$(INSTALL) --no-deps --no-build-isolation --require-hashes -r requirements/bench.lock
	$(BIN)/python -m benchmarks.run $(BENCH)
	$(BIN)/python -m benchmarks.run --table

lint: $(READY) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(READY) ## take the newest versions that fit pyproject.toml into requirements/*.lock
	$(BIN)/python requirements/inputs.py | $(COMPILE) --output-file requirements/.dev.new -
	$(BIN)/python requirements/inputs.py --core | $(COMPILE) --output-file requirements/.core.new -
	$(BIN)/python requirements/inputs.py --write requirements/.dev.new requirements/dev.lock
	$(BIN)/python requirements/inputs.py --write requirements/.core.new requirements/core.lock
	$(BIN)/python requirements/inputs.py --alone
	rm -f requirements/.dev.new requirements/.core.new

clean: ## remove what make has made: the environment, the demo, caches
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shelver needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(INSTALL) --no-deps --require-hashes -r requirements/dev.lock
	$(INSTALL) $(TORCH)
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@
