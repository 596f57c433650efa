.DEFAULT_GOAL := help
UV = $(or $(shell command -v uv),.venv-uv/bin/uv)
.PHONY: help setup demo test lowest soak check format

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install everything in .venv (llama.cpp is compiled once)
	python3 bootstrap.py setup

demo:  ## set up, then answer a question from the example handbook within a budget
	python3 bootstrap.py demo

test:  ## set up, then run the tests
	python3 bootstrap.py test

lowest: setup  ## the tests with the oldest versions that pyproject.toml admits, in .venv-lowest (compiles llama.cpp, too)
	$(UV) venv --quiet --allow-existing --python .venv/bin/python .venv-lowest
	$(UV) pip compile --quiet --no-config --resolution lowest-direct --extra all pyproject.toml -o .venv-lowest/oldest.txt
	$(UV) pip install --no-config --python .venv-lowest -c .venv-lowest/oldest.txt -e '.[all]' --group dev
	.venv-lowest/bin/python -m pytest --deselect tests/test_house.py::test_strict_types_hold  # types of today

soak: setup  ## the long proof of the ledger: 100,000 operations, hundreds of kills (about half an hour)
	.venv/bin/python -m tests.soak

check: setup  ## ruff and basedpyright
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/basedpyright

format: setup  ## let ruff format and mend
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
