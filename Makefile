# `make demo` and `make test` need Python 3.11 or newer and make; they set up .venv themselves.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check traces clean

demo: .venv/ready
	$(BIN)/raftworthy demo

test: .venv/ready check
	$(BIN)/pytest -n auto

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/ready: pyproject.toml constraints.txt
	@echo "setting up .venv, once"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv
