# Every target works from a bare checkout: Python 3.11 or newer and make are enough.
# Options go in ARGS, for example: make test ARGS="tests/unit -k conditions"
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; PYTHON=… overrides.
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$each; break; }; done)
ifndef HOME
export HOME := $(CURDIR)/$(VENV)/home
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# Two environments in one folder: what the product needs, and on top what its tests need.
CORE := $(VENV)/.core
DEV := $(VENV)/.dev

.PHONY: help setup demo test bench chaos e2e docs lint lock wheel clean

help: ## list the targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-7s %s\n' "$$name" "$$text"; done

setup: $(DEV) ## create .venv with everything that development needs

demo: $(CORE) ## run the whole job on generated leads: ARGS="--leads N --no-serve --out DIR"
	$(BIN)/nexus-marketing demo $(ARGS)

test: $(DEV) ## run the tests on servers they start themselves; COVERAGE=1 also holds coverage to its gates
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=worksteal --ignore=tests/e2e $(if $(COVERAGE),--cov --cov-report=) \
		$(if $(strip $(ARGS)),$(ARGS),--requirements-report=docs/reference/requirements.md)
ifdef COVERAGE
	$(BIN)/coverage report --skip-covered --sort=cover --fail-under=85
	$(BIN)/coverage report --format=total --include='nexus_marketing/core/*' --fail-under=95
endif

bench: $(DEV) ## measure against hand-written references: ARGS="[NAME …] [--list] [--small] [--json FILE]"
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(DEV) ## break processes, servers and wires mid-send and count: ARGS="[FAULT …] [--faults N] [--small] [--seed S] [--json FILE]"
	@$(BIN)/python -m tests.common.servers.packages libfaketime
	$(BIN)/python -m tests.chaos $(ARGS)

e2e: $(DEV) ## run the end-to-end tests: real processes, real mail, real HTTP; without ARGS also the whole tenant fuzz
	@$(BIN)/python -m tests.common.servers.packages
	$(BIN)/python -m pytest $(or $(strip $(ARGS)),tests/e2e)
	$(if $(strip $(ARGS)),,NEXUS_S01_REQUESTS=$${NEXUS_S01_REQUESTS:-20000} $(BIN)/python -m pytest -n auto --maxprocesses=2 tests/functional/api/test_isolation.py -k foreign_id)

docs: $(CORE) ## render docs/ to build/docs and fail on a broken link
	$(BIN)/python docs/build.py $(ARGS)

lint: $(DEV) ## check style, format, types and import layers
	@status=0; for each in "ruff check ." "ruff format --check ." mypy "lint-imports --no-logo --no-cache"; do \
		echo "$(BIN)/$$each"; $(BIN)/$$each || status=1; done; exit $$status

lock: ## resolve the dependencies of setup.cfg again (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes --upgrade \
		--extra test --output-file requirements/dev.txt setup.cfg
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
		--constraint requirements/dev.txt --output-file requirements/core.txt setup.cfg

wheel: $(DEV) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist $(ARGS)

clean: ## remove everything that the targets make, .venv included
	rm -rf $(VENV) build dist demo-out htmlcov .coverage .coverage.* .hypothesis \
		.pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed is exactly what the lock's hashes say; only this project itself is not in it. The lock is complete, so
# nothing is resolved again (--no-deps): pip would look past a pin for an extra (coverage[toml]) and refuse the newer release.
define install
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if command -v uv >/dev/null; then installer="uv pip install --quiet --python $(BIN)/python"; \
	else installer="$(BIN)/python -m pip install --quiet"; fi; \
	echo "installing $(1) into $(VENV)"; \
	$$installer --no-deps --require-hashes -r $(1) && $$installer --no-deps --no-build-isolation -e .
	@touch $@
endef

$(CORE): requirements/core.txt setup.cfg pyproject.toml
	$(call install,requirements/core.txt)

$(DEV): requirements/dev.txt requirements/core.txt setup.cfg pyproject.toml
	$(call install,requirements/dev.txt)
	@touch $(CORE)
