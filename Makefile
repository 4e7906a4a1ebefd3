# Braidflow: `make` or `make help` lists what there is.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup market telemetry telemetry-tree replica test lint format bench soak mutants browser nftables clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything pinned (does nothing when it is up to date)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] < (3,13))' || \
	  { echo "Python 3.11 or 3.12 is needed ($(PYTHON) is not): set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

market: $(READY) ## Run the main job: causal market-crash discovery on real daily prices
	$(PY) -m bytewax.run jobs.market

telemetry: $(READY) ## Answer questions about a million generated agents in a tree, with stated error
	$(PY) -m bytewax.run jobs.telemetry

telemetry-tree: $(READY) ## The same as 13 processes linked by QUIC (kill any of them)
	$(PY) -m jobs.telemetry_tree

replica: $(READY) ## Replicate a store among four processes that bear a liar (kill any of them)
	$(PY) -m bytewax.run jobs.replica

test: $(READY) ## Run the tests, two files at a time
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(READY) ## Check style, types and the floors of the house
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(READY) ## Format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(READY) ## Run every benchmark, one after the other (NAB=path adds the Numenta benchmark, TRACES=path recorded texts)
	@for name in $$(grep -l '^if __name__' benchmarks/*.py | sed 's|.*/||; s|\.py$$||' | grep -vxE 'nab|link_process|tree_hosts'); do \
	  echo "== benchmarks.$$name"; $(PY) -m benchmarks.$$name || exit 1; done
	@if [ -n "$(TRACES)" ]; then echo "== benchmarks.sequence --data"; $(PY) -m benchmarks.sequence --data "$(TRACES)"; fi
	@if [ -n "$(NAB)" ]; then echo "== benchmarks.nab"; $(PY) -m benchmarks.nab --data "$(NAB)"; fi

soak: $(READY) ## Run the long tests
	$(PY) -m pytest -m soak $(ARGS)

mutants: $(READY) ## Put deliberate bugs into the agreement protocol, one by one; the tests must catch each
	$(PY) -m tests.simulation.mutants $(ARGS)

browser: ## Install Chromium, without which the browser tests skip (Debian, as root)
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

nftables: ## Install nftables, without which links are not measured over a lossy kernel (Debian, as root)
	@command -v nft >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nftables; }

clean: ## Remove the virtual environment, caches and runs
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
