# Two commands matter: `make demo` and `make test`. Everything else is a part of one of them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODELS := models

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check format types lint protos bench bench-gpu calibrations models clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv and install the pinned dependencies

$(STAMP): constraints.txt pyproject.toml client/pyproject.toml export/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "pxserve needs Python 3.11 or later"'
	$(BIN)/python -m pip install -q --upgrade -c constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e 'client[cli]' -e export -e '.[cpu,dev]'
	touch $@

$(MODELS)/.exported: $(STAMP) $(shell find export -name '*.py' -o -name "*.xz" -o -name '*.safetensors' 2>/dev/null)
	$(BIN)/pxserve-export zoo --to $(MODELS)
	touch $@

models: $(MODELS)/.exported  ## export the reference models to models/

demo: $(MODELS)/.exported  ## serve the nine models, ask everything, write pictures to demo/
	$(BIN)/python -m deploy.demo --models $(MODELS) --out demo

serve: $(MODELS)/.exported  ## serve the reference models until Ctrl-C
	$(BIN)/python -m deploy.demo --models $(MODELS) --serve-only

check: $(STAMP)  ## format, lint, types, import contracts, protos
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos

test: $(STAMP) check $(MODELS)/.exported  ## all checks and tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	$(BIN)/python -m pytest -m slow tests/client/test_client_installs.py
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels -m interpret -n 2

protos: $(STAMP)  ## regenerate the stubs in client/
	$(BIN)/python protos/generate.py

calibrations: $(STAMP)  ## after a change of the reference models: score their calibration splits again
	rm -f export/zoo/calibration/*.json $(MODELS)/*/calibration-*.json
	$(BIN)/pxserve-export zoo --to $(MODELS)
	$(BIN)/pxserve-export zoo --data build/data
	for name in $$(ls $(MODELS)); do \
	  $(BIN)/pxserve-server calibrate $$name --models $(MODELS) \
	    --data build/data/$${name%%-*}-calibration.npz && \
	  cp $(MODELS)/$$name/calibration-1.json export/zoo/calibration/$$name.json || exit 1; \
	done

bench: $(MODELS)/.exported  ## measure, and write docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks

bench-gpu:  ## on a machine with CUDA, torch, triton and numpy
	python3 -m tests.benchmarks.bench_gpu

format: $(STAMP)  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what can be made again
	rm -rf $(VENV) $(MODELS) demo build
