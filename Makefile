# make repro, make test: all the set-up a fresh machine with Python, git and make needs.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
UV_VERSION := 0.13.8

export PATH := $(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-browser check lock ui app app-https docs clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## the virtual environment, every package pinned by hash

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	pip install --quiet uv==$(UV_VERSION)
	uv pip install --quiet --python $(VENV)/bin/python --require-hashes --compile-bytecode -r requirements.lock
	uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	touch $@

repro: setup  ## the pipeline: runs what changed since the last time
	[ -e .git ] || dvc config --local core.no_scm true
	dvc repro

test: setup  ## the tests, a file of them on each of two cores
	pytest -n 2 --dist loadfile --no-loadscope-reorder

test-browser: setup  ## the app in Chromium, where there is one; some minutes
	pytest tests/browser

check: setup  ## style and types
	ruff check
	ruff format --check
	mypy

lock: setup  ## requirements.lock anew from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --extra dev --upgrade pyproject.toml -o requirements.lock

ui: setup  ## MLflow on http://127.0.0.1:5000, two states side by side
	@echo 'Open http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning'
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --workers 1 \
		--backend-store-uri sqlite:///$(CURDIR)/mlflow.db

app: setup  ## the privacy app on http://localhost:8501
	visor app

app-https: setup  ## the same, encrypted
	visor app --https

docs: setup  ## every command of the pages, in a clone; after make repro
	python docs/run_commands.py

clean:  ## delete what the pipeline made, the cache included; Git's files stay
	rm -rf artifacts data plots checkpoints dvc_plots .dvc/cache .dvc/tmp mlflow.db* mlruns
