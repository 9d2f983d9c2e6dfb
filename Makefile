# The only task runner. Every target works without an activated environment.
#   make study                     the whole study, profile demo
#   make study PROFILE=smoke ARGS="--only 02,03"
#   make test WORKERS=4            all tests, their files spread over four processes
# On Linux `torch==2.13.0` is the CUDA build; for the small CPU build:
#   make setup TORCH="torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu"
# A torch that the site provides: make setup VENV_FLAGS=--system-site-packages TORCH=

PYTHON ?= python3
VENV ?= .venv
VENV_FLAGS ?=
TORCH ?= torch==2.13.0
EXTRAS ?= test
CONSTRAINTS ?= -c constraints.txt
PROFILE ?= demo
ARGS ?=
NB ?=
WORKERS ?= 2
BIN := $(VENV)/bin
# byte code, without packages' own tests and large parts that nothing here imports
COMPILE = $(BIN)/python -m compileall -q \
    -x 'site-packages.*[\\/](tests?|_inductor|torch.testing|networkx|dask.array|dask.dataframe)[\\/]'

export TORCH CONSTRAINTS VENV_FLAGS

# What is installed depends on these files and choices; the stamp carries their checksum.
INSTALLED := $(shell { cat pyproject.toml constraints.txt; \
    echo "$(TORCH)|$(EXTRAS)|$(CONSTRAINTS)|$(VENV_FLAGS)"; } | cksum | tr ' ' '-')
STAMP := $(VENV)/.stamp-$(INSTALLED)
# What the tests see; unchanged since they passed, they need not run again (FORCE=1 runs them).
SOURCES := motionlib tests notebooks data_manifests benchmarks results Makefile pyproject.toml setup.py \
    constraints.txt environment.yml README.md CONTRIBUTING.md CHANGELOG.md docs mkdocs.yml .github .ci .pre-commit-config.yaml
TESTED = $(VENV)/.tested-$(INSTALLED)-$(shell { find $(SOURCES) -type f ! -path '*/__pycache__/*' \
    ! -path '*/.ipynb_checkpoints/*' 2>/dev/null | LC_ALL=C sort | xargs cksum; \
    echo "$(MOTIONLIB_DATA)|$(MOTIONLIB_REFERENCE)"; } | cksum | tr ' ' '-')

.DEFAULT_GOAL := help
.PHONY: help setup study smoke nb test lab browser bench chaos licences lint text notebook student model results doctor docs clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' \
	    | awk -F'|' '{ printf "  make %-9s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## make .venv and install everything (nothing to do the second time)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "motionlib needs Python 3.11 to 3.13; name one: make setup PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $$VENV_FLAGS $(VENV)
	@# torch first, so that a site can choose its build; unquoted, so that it may carry options
	@if [ -n "$$TORCH" ]; then set -x; $(BIN)/python -m pip install --no-compile $$CONSTRAINTS $$TORCH; fi
	@# what came with torch is compiled on one processor while pip unpacks the rest on another
	@$(COMPILE) $(VENV)/lib/python*/site-packages/*/ >/dev/null 2>&1 & set -x; \
	    $(BIN)/python -m pip install --no-compile $$CONSTRAINTS -e ".[$(EXTRAS)]"; \
	    { installed=$$?; set +x; } 2>/dev/null; wait; exit $$installed
	@# then the rest on all processors
	@$(COMPILE) -j 0 $(VENV) motionlib >/dev/null 2>&1 || true
	@# the news pop-up of JupyterLab would ask for a network call
	@$(BIN)/jupyter labextension disable --level=sys_prefix \
	    "@jupyterlab/apputils-extension:announcements" >/dev/null 2>&1 || true
	@rm -f $(VENV)/.stamp-*
	@touch $(STAMP)

study: $(STAMP)  ## run the notebooks of PROFILE (demo) and build the report
	@$(BIN)/python -m motionlib.cli study --profile $(PROFILE) $(ARGS)

smoke: $(STAMP)  ## run the smallest profile
	@$(BIN)/python -m motionlib.cli study --profile smoke $(ARGS)

nb: PROFILE = smoke
nb: $(STAMP)  ## run one notebook: make nb NB=02 PROFILE=demo
	@test -n "$(NB)" || { echo "name the notebook: make nb NB=02" >&2; exit 2; }
	@$(BIN)/python -m motionlib.cli study --profile $(PROFILE) --only $(NB) $(ARGS)

# one thread a process: as many processes run side by side as there are WORKERS
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP)  ## run all tests, the smoke study among them
	@if [ -z "$(FORCE)$(ARGS)" ] && [ -f "$(TESTED)" ]; then \
	    echo "nothing has changed since all tests passed; make test FORCE=1 runs them again"; \
	else \
	    $(BIN)/python -m pytest $(or $(ARGS),-n $(WORKERS) --dist loadfile) || exit 1; \
	    if [ -z "$(ARGS)" ]; then rm -f $(VENV)/.tested-*; touch "$(TESTED)"; fi; \
	fi

lab: $(STAMP)  ## open JupyterLab on this computer, at notebooks/00_start.ipynb
	$(BIN)/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" \
	    --LabApp.default_url=/lab/tree/notebooks/00_start.ipynb $(ARGS)

browser: $(STAMP)  ## try notebooks and report in Chromium, if there is one
	@$(BIN)/python -c "import playwright" 2>/dev/null \
	    || $(BIN)/python -m pip install $$CONSTRAINTS -e ".[browser]"
	@$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

bench: $(STAMP)  ## run the benchmarks, side by side, into benchmarks/results/
	@for file in benchmarks/bench_*.py; do \
	    echo "== $$file"; $(BIN)/python "$$file" $(ARGS) || exit 1; \
	done

chaos: $(STAMP)  ## kill every command, damage every kind of file, ask for the same bytes twice
	@for file in fuzz_readers kill_commands determinism; do \
	    echo "== benchmarks/$$file.py"; $(BIN)/python benchmarks/$$file.py $(ARGS) || exit 1; \
	done
	@$(BIN)/python benchmarks/chaos_tables.py

licences: $(STAMP)  ## check the environment, and list the licence of every package in it
	$(BIN)/python -m pip check
	@$(BIN)/python .ci/licences.py

lint: $(STAMP)  ## check style and that no notebook carries output
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

text: $(STAMP)  ## write a notebook as text beside it: make text NB=03
	@test -n "$(NB)" || { echo "name the notebook: make text NB=03" >&2; exit 2; }
	@test -x $(BIN)/jupytext || { echo "jupytext is missing: $(BIN)/pip install jupytext" >&2; exit 2; }
	$(BIN)/jupytext --to py:percent notebooks/$(NB)_*.ipynb

notebook: $(STAMP)  ## take the text back into the notebook, keeping its cell ids: make notebook NB=03
	@test -n "$(NB)" || { echo "name the notebook: make notebook NB=03" >&2; exit 2; }
	@test -x $(BIN)/jupytext || { echo "jupytext is missing: $(BIN)/pip install jupytext" >&2; exit 2; }
	$(BIN)/jupytext --to ipynb --update notebooks/$(NB)_*.py
	rm notebooks/$(NB)_*.py

student: $(STAMP)  ## copy the notebooks without their solutions to runs/student/
	@mkdir -p runs/student
	cp notebooks/[0-9]*.ipynb notebooks/pages.py runs/student/
	$(BIN)/nbstripout --keep-id --drop-tagged-cells "solution" runs/student/*.ipynb

model: $(STAMP)  ## train the shipped model again from MOTIONLIB_DATA
	@$(BIN)/python benchmarks/make_model.py $(ARGS)

results: $(STAMP)  ## copy tables, figures and provenance of a finished PROFILE to results/
	@$(BIN)/python -m motionlib.study.publish --profile $(PROFILE) $(ARGS)

doctor: $(STAMP)  ## say what is installed, seen and missing
	@$(BIN)/python -m motionlib.cli doctor $(ARGS)

docs: $(STAMP)  ## build the documentation, offline, into runs/site (with the demo's report if there is one)
	@$(BIN)/python -m mkdocs --version >/dev/null 2>&1 \
	    || $(BIN)/python -m pip install --no-compile $$CONSTRAINTS -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "runs/site/index.html"

clean:  ## delete runs and caches; the environment stays
	rm -rf runs .pytest_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
