# Every task of the project. `make` alone prints this list.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?=

# The tests start some two hundred processes, and each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-preferences test serve check lint types contract proto proto-check client-check bench bench-full soak clean

help:  ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# Two environments in one: what the demo needs, and on top of it what developers need. The stamps
# make the second run quick. uv is only a faster pip; without it pip does the same.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Batchwork needs Python 3.11 or newer; name one with PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)
	-@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

define install
	@echo "Installing $(PACKAGES)"
	@if [ -x $(BIN)/uv ]; \
	then $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt $(PACKAGES) || \
	     $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PACKAGES); \
	else $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PACKAGES); fi
endef

# A variable of the target, because `call` would take the commas of the extras for its own.
$(VENV)/.runtime: PACKAGES := --editable '.[cli,server,postgres]' --editable ./examples/publisher
$(VENV)/.runtime: pyproject.toml constraints.txt examples/publisher/pyproject.toml | $(BIN)/python
	$(install)
	@touch $@

$(VENV)/.dev: PACKAGES := --editable '.[dev]'
$(VENV)/.dev: $(VENV)/.runtime
	$(install)
	@touch $@

demo: $(VENV)/.runtime  ## run the main job on 200 real accounts, from nothing to results
	@$(BIN)/python -m examples.demo

demo-preferences: $(VENV)/.runtime  ## serve 1,000 users in five zones at the times they wish, two days in seconds
	@$(BIN)/python -m examples.demo_preferences

# The example jobs need the example templates: who brings templates brings jobs, too, or none.
ifndef BATCHWORK_TEMPLATES_DIR
serve: export BATCHWORK_TEMPLATES_DIR := examples/templates
ifndef BATCHWORK_JOBS_FILE
serve: export BATCHWORK_JOBS_FILE := examples/jobs/jobs.json
endif
endif
serve: $(VENV)/.runtime  ## run the server with batchwork.db in this folder, the example templates and jobs
	$(BIN)/batchwork-server serve

test: $(VENV)/.dev  ## run the tests on SQLite and on a real PostgreSQL
	$(BIN)/pytest -n auto --dist worksteal $(EXTRA)

lint: $(VENV)/.dev  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## check types
	$(BIN)/mypy

contract: $(VENV)/.dev  ## check the protos: lint, format, and nothing broken against main
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@if git rev-parse --verify --quiet origin/main >/dev/null && git ls-tree -r origin/main --name-only | grep -q '^protos/'; \
	then $(BIN)/buf breaking --against '.git#ref=refs/remotes/origin/main'; \
	else echo 'contract: no origin/main with protos to compare with'; fi

proto: $(VENV)/.dev  ## write generated/ from protos/
	bash protos/generate.sh $(BIN)/python generated

proto-check: $(VENV)/.dev  ## tell whether generated/ is what the protos say
	@rm -rf $(VENV)/generated && mkdir -p $(VENV)/generated
	@bash protos/generate.sh $(BIN)/python $(VENV)/generated
	diff -r --exclude __pycache__ generated $(VENV)/generated

client-check: $(VENV)/.dev  ## build the wheel and use it alone, at the lowest supported versions
	bash tests/client_check.sh $(BIN)/python

check: lint types contract proto-check test demo client-check  ## all that CI runs

bench: $(VENV)/.dev  ## measure against the limits of this machine, small sizes
	$(BIN)/python -m bench

bench-full: $(VENV)/.dev  ## the same on the sizes of the targets
	$(BIN)/python -m bench --full

soak: $(VENV)/.dev  ## load one server for MINUTES (10) on DATABASE (sqlite), and tell whether it stays well
	$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),10) --database $(or $(DATABASE),sqlite)

clean:  ## remove what the targets above made
	rm -rf $(VENV) .demo .client-check dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
