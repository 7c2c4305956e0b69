# Everything a person or a CI does with this checkout. Needs Python 3.11+, make and git.

PYTHON ?= python3
SEEDS ?= 1000
FROM ?= 0
UV_VERSION := 0.13.9

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Much of the time is waiting: for sessions to end, for processes to come up. In the order of the
# folders the longest files, chaos, come first, and nobody waits for them alone at the end.
TEST := $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# An environment of its own: mutmut wants a newer click than faust allows.
MUTATION := $(VENV)/mutation
MUTMUT_VERSION := 3.8.1
# Prefer a uv that is there already; else one of our own, in a nested environment because
# `uv pip sync` removes from .venv whatever is not locked.
UV = $(shell command -v uv || echo $(VENV)/uv/bin/uv)

.DEFAULT_GOAL := help

.PHONY: help setup run demo test check simulate chaos mutate format lock bench bench-sandbox bench-agents bench-fan-out bench-rebalance bench-store docs clean

help: ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(INSTALLED) ## Make .venv with the locked dependencies and the commandcenter command

run: setup ## Run CommandCenter on http://127.0.0.1:8080 until Ctrl-C
	@$(VENV)/bin/commandcenter up

demo: setup ## Run the bundled example from end to end, and end
	@$(VENV)/bin/commandcenter demo

test: setup ## Run the tests, three files at a time (those marked containers need a Docker engine)
	$(TEST)

check: setup ## Format, lint, types, import rules and tests: what must pass before a commit
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(TEST)

simulate: setup ## Play SEEDS random histories of the engine under faults, from seed FROM
	$(PY) tests/simulation/simulator.py --seeds $(SEEDS) --from $(FROM)

mutate: setup ## Break the run core in every small way, and see which tests notice
	@test -x $(MUTATION)/bin/mutmut || { $(UV) venv --quiet --clear $(MUTATION) && \
		$(UV) pip sync --quiet --python $(MUTATION)/bin/python --require-hashes requirements.lock && \
		$(UV) pip install --quiet --python $(MUTATION)/bin/python mutmut==$(MUTMUT_VERSION) && \
		$(UV) pip install --quiet --python $(MUTATION)/bin/python --no-deps \
			--no-build-isolation --editable .; }
	$(MUTATION)/bin/mutmut run
	@$(MUTATION)/bin/mutmut results

format: setup ## Format the code and mend what ruff can mend
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

bench: setup bench-sandbox ## Measure throughput and latency through the real stack
	$(PY) tests/bench/run.py

bench-sandbox: setup ## Measure how quickly a sandbox starts, and its memory
	$(PY) tests/bench/sandbox.py

bench-agents: setup ## Measure what the scanners find of what is planted, and how fast agents are
	$(PY) tests/bench/builtin_agents.py

bench-fan-out: setup ## Measure runs of ever more items: time, CPU and bytes of each item
	$(PY) tests/bench/fan_out.py

bench-rebalance: setup ## Measure what a worker that joins, leaves or dies costs
	$(PY) tests/bench/rebalance.py

bench-store: setup ## Measure the store: ingest, queries, bytes, memory and lag
	$(PY) tests/bench/store.py

chaos: setup ## Kill, stop, fill and confuse the system for some minutes; nothing may be lost
	CHAOS=full $(PY) -m pytest -s tests/chaos

docs: setup ## Write anew what documents take from the code: docs/asyncapi.yaml, columns in docs/sql.md
	$(PY) -m gateway.asyncapi > docs/asyncapi.yaml
	$(PY) -m sinks.column_list docs/sql.md

lock: setup ## Resolve all dependencies anew: Python's and the embedded Kafka's
	$(UV) pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url \
		--universal --python-version 3.11 --upgrade -o requirements.lock
	$(PY) -m infra.kafka_jars

clean: ## Remove what was made here: the environment and caches (not data, not ~/.cache)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "CommandCenter needs Python 3.11 or newer; set it with: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv --without-pip $(VENV)
	@command -v uv >/dev/null || test -x $(VENV)/uv/bin/uv || { \
		echo "Installing uv $(UV_VERSION) into $(VENV)/uv" && \
		$(PYTHON) -m venv $(VENV)/uv && \
		$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	$(UV) pip sync --python $(PY) --require-hashes requirements.lock
	$(UV) pip install --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@
