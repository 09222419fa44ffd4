# Tollgate. Everything goes through here: `make up` runs it, `make test` proves it.
# Only Python 3.11+, make and the package registries are needed.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
TOLLGATE := $(VENV)/bin/tollgate
ARGS ?=
LOCKS := functions serving storage spark training local dev
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help up test lint bench lock clean
help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

up: $(VENV)/.local  ## start everything and watch transactions being decided (ARGS="--transactions 5000")
	@$(TOLLGATE) up $(ARGS)

test: lint  ## every test, on real Kafka, Postgres, Spark and Envoy
	@$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/.dev  ## format, types, layers
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: $(VENV)/.dev  ## one benchmark: make bench NAME=end_to_end [QUICK=1]
	@$(VENV)/bin/python -m bench.run $(NAME) $(if $(QUICK),--quick)

lock: .tools/uv  ## resolve requirements/*.txt again from pyproject.toml
	@for extra in $(LOCKS); do echo "requirements/$$extra.txt"; \
	  $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-annotate --no-header --extra "$$extra" $(if $(UPGRADE),--upgrade) pyproject.toml -o "requirements/$$extra.txt"; done

clean:  ## remove what was installed and built (data of a running platform: tollgate down --purge)
	rm -rf $(VENV) .tools .tollgate/env .tollgate/jars .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

# uv: the one on PATH, else installed beside the checkout with pip.
UV := $(or $(shell command -v uv),.tools/bin/uv)
.PHONY: .tools/uv
.tools/uv:
	@command -v uv >/dev/null || [ -x .tools/bin/uv ] || { echo "installing uv into .tools (once)"; \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools uv; }

$(VENV)/.%: requirements/%.txt pyproject.toml | .tools/uv
	@[ -x $(VENV)/bin/python ] || $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	@echo "installing requirements/$*.txt into $(VENV)"; start=$$SECONDS; \
	  $(UV) pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements/$*.txt; \
	  $(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .; \
	  echo "installed in $$((SECONDS - start)) s"
	@touch $(VENV)/.$*
