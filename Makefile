# `make` lists the targets. Those that need Python make a virtual environment and install first.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Two processes of one thread each: networks this small run slower on two threads than on one.
TESTS = -m pytest --numprocesses 2 --dist loadfile
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python $(TESTS)
BIN := $(VENV)/bin
NOTEBOOKS = $(wildcard notebooks/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help venv install app test quick lowest lint format lab notebooks bench site

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo "Variables: PYTHON (3.11 or newer), VENV, ARGS (options for app, test and bench)"

# A stamp for each set of packages, so that pip runs again only after pyproject.toml has changed.
venv: $(BIN)/python ## make the virtual environment
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

install: $(VENV)/.installed ## install the package and what it needs
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable ".[$*]"
	@touch $@

app: install ## the app in the browser, with the checkpoint that ships
	$(BIN)/als app $(ARGS)

test: $(VENV)/.installed-test ## the whole test suite
	$(PYTEST) $(ARGS)

quick: $(VENV)/.installed-test ## the quick tests, in under two minutes
	$(PYTEST) -m "not slow" $(ARGS)

lowest: ## the quick tests on the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install uv
	$(VENV)-lowest/bin/uv pip install --python $(VENV)-lowest/bin/python \
		--resolution lowest-direct --editable ".[test]"
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python $(TESTS) -m "not slow" $(ARGS)

lint: $(VENV)/.installed-test ## style, format and types, changing nothing
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ty check
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.installed-test ## mend what ruff can mend
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

lab: $(VENV)/.installed-lab ## JupyterLab on the notebooks
	$(BIN)/python -m jupyter lab --notebook-dir=.

notebooks: $(VENV)/.installed-lab ## execute every notebook in place
	PYTHONPATH=notebooks $(BIN)/python -m jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.store_widget_state=False \
		--NotebookExporter.preprocessors=still.Still $(NOTEBOOKS)

site: $(VENV)/.installed-docs ## the documentation as a site, in site/; a broken link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.installed-test ## the benchmarks: a table, a figure and a record
	$(BIN)/python -m benchmarks $(ARGS)
