# make demo     sets up an environment of its own and runs the main job on the built-in data
# make test     sets up an environment of its own and runs the tests
# make lint     ruff and mypy
# make bench    the short benchmark, against whatever can be measured here
# make core     builds and tests the C core alone, without Python
# make clean    removes all of this
#
# PYTHON=python3.12 chooses an interpreter; the first suitable one is taken otherwise.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

NATIVE := pyproject.toml setup.py fastnn/version.py $(wildcard csrc/* fastnn/backends/native/*.pyx)
PIP := bin/python -m pip install --quiet --disable-pip-version-check

demo: .venv/installed
	.venv/bin/fastnn train --out demo-run

test: .venv-test/installed
	.venv-test/bin/python -m pytest $(PYTEST_ARGS)

lint: .venv-test/installed
	.venv-test/bin/python -m ruff check .
	.venv-test/bin/python -m mypy

bench: .venv/installed
	.venv/bin/fastnn bench

core:
	$(MAKE) -C csrc test

clean:
	rm -rf .venv .venv-test build demo-run *.egg-info fastnn/backends/native/_native*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache

# An installation for using it. It is made again when any file of the package has changed.
.venv/installed: $(NATIVE) $(shell find fastnn -name '*.py') | .venv/bin/python
	.venv/$(PIP) '.[tables]'
	@touch $@

# An installation for working on it: Python files are used where they are.
.venv-test/installed: $(NATIVE) | .venv-test/bin/python
	.venv-test/$(PIP) --editable '.[dev]'
	@touch $@

.venv/bin/python .venv-test/bin/python:
	@test -n "$(PYTHON)" || { echo "fastnn needs Python 3.11 or newer; say where it is: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(@:%/bin/python=%) || { rm -rf $(@:%/bin/python=%); \
		echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

.PHONY: demo test lint bench core clean
