# Two commands matter: make demo and make test.  Nothing but Python is needed for either.
.DEFAULT_GOAL := help
.PHONY: help install demo test lint clean

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
SCALE ?= 0.01

help:
	@echo "make demo    a sample shop is moved, step by step, on a server of its own"
	@echo "make test    the whole test suite"
	@echo "make install the environment that both are run in, .venv"
	@echo "make lint    formatting, style and types"
	@echo "make clean   remove what these have made here, the demo's server included; backups stay"

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments; type: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# The demo is of the project's own server, whatever .env says.
demo: export DATABASE_URL =
demo: install
	@$(RUN) manage.py load_sample --scale $(SCALE) --if-empty
	@$(RUN) manage.py upgrade
	@echo "(with this environment: . $(VENV)/bin/activate)"
	@test ! -e .env || echo "There is a .env: put DATABASE_URL= before these commands to mean the demo's server."

test: install
	@$(RUN) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --quiet

lint: $(VENV)/.installed-dev
	@$(RUN) -m black --check --quiet . && $(RUN) -m isort --check --quiet . \
	  && $(RUN) -m flake8 && $(RUN) -m mypy .

# A server that still runs notices that its folder is gone, and ends.
clean:
	rm -rf $(VENV) .postgres .postgres-test-* .mypy_cache .pytest_cache .hypothesis
