# make repro, make test: all the set-up that a fresh machine with Python, git and make needs.

PYTHON ?= python3
VENV := .venv

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup repro photographs test fuzz test-browser check lock ui app app-https docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## create the virtual environment, every package pinned by hash

$(VENV)/.ready: requirements-uv.lock requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --require-hashes -r requirements-uv.lock
	uv pip install --quiet --python $(VENV)/bin/python --require-hashes --compile-bytecode -r requirements.lock
	uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	touch $@

repro: setup  ## run the pipeline: what changed since the last run; compare its numbers with the last commit
	[ -e .git ] || dvc config --local core.no_scm true
	dvc repro
	[ ! -e .git ] || { visor compare --record && visor gate; }

photographs: setup  ## run it on photographs, in downloads/lfw and downloads/wider_face, with published networks: docs/data.md
	[ -e .git ] || (cd photographs && dvc config --local core.no_scm true)
	cd photographs && dvc repro download  # before networks are fetched: it says what is missing
	visor networks fetch all $(if $(YES),--yes)
	cd photographs && dvc repro
	[ ! -e .git ] || { cd photographs && visor compare --record && visor gate; }

test: setup  ## run the tests on two cores
	pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: setup  ## give all readers hostile files for SECONDS (300); what breaks one is kept in tests/fuzz/found
	python -m tests.fuzz.run --seconds $(or $(SECONDS),300)

test-browser: setup  ## test the app in Chromium, if it is installed; takes some minutes
	pytest tests/browser

check: setup  ## style, types, imports
	ruff check
	ruff format --check
	mypy
	lint-imports --no-logo

lock: setup  ## upgrade requirements.lock from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --extra dev --upgrade pyproject.toml -o requirements.lock

ui: setup  ## MLflow on http://127.0.0.1:5000, to compare two states side by side
	@echo 'Open http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning'
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --workers 1 --backend-store-uri sqlite:///mlflow.db

app: setup  ## the privacy app on http://localhost:8501
	visor app

app-https: setup  ## the privacy app, encrypted
	visor app --https

docs: setup  ## run every command of the docs in a clone; after make repro
	python docs/run_commands.py

clean:  ## delete what the pipeline made, the cache included; Git's files stay
	for folder in . photographs; do (cd $$folder && \
		rm -rf artifacts data plots checkpoints dvc_plots .dvc/cache .dvc/tmp mlflow.db* mlruns); done
