# Two commands matter: `make demo` and `make test`. Everything else is a part of one of them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODELS := models
PROMETHEUS := build/prometheus

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check format types lint protos bench bench-gpu check-gpu reliability soak sizing
.PHONY: calibrations models clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv and install the pinned dependencies

$(STAMP): constraints.txt pyproject.toml client/pyproject.toml export/pyproject.toml $(wildcard kernels/cpu/*)
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

$(PROMETHEUS)/promtool:
	sh deploy/prometheus/fetch.sh $(PROMETHEUS) || echo "no Prometheus: the tests that need it are skipped"

test: $(STAMP) check $(MODELS)/.exported $(PROMETHEUS)/promtool  ## all checks and tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow tests/client/test_client_installs.py tests/export/test_export_installs.py tests/kserve \
		tests/e2e/test_latent_folders.py
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

check-gpu:  ## on a machine with CUDA: kernels, graphs, the engine; in the environment that is active
	python3 -m pytest tests/gpu -m gpu

bench-gpu:  ## on a machine with CUDA, torch, triton and numpy
	python3 -m tests.benchmarks.bench_gpu

reliability: $(MODELS)/.exported  ## minutes of overload, faults, bad clients and fuzzing; write docs/reliability.md
	$(BIN)/python -m pytest tests/reliability -m reliability

soak: $(MODELS)/.exported  ## half an hour of everything at once; write docs/reliability.md
	$(BIN)/python -m pytest tests/reliability -m soak

sizing: $(MODELS)/.exported  ## what each reference model asks of one core; write it into docs/operations.md
	$(BIN)/python -m tests.benchmarks.sizing

format: $(STAMP)  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what can be made again
	rm -rf $(VENV) $(MODELS) demo build
