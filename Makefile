.PHONY: check test long docs benchmarks

check: ## what CI checks first
	ruff format --check .
	ruff check .
	mypy
	python -m pytest

long: ## tests that take minutes
	python -m pytest -m long

FILES := $(wildcard duo/*.py duo/*/*.py duo/*/*/*.py)
docs: ## the API reference, in docs/api
	python -m pdoc --docformat google -o docs/api routers $(sort $(subst /,.,$(patsubst %/__init__,%,$(basename $(FILES)))))

benchmarks:
	python benchmarks/training.py
	python benchmarks/inference.py
	python benchmarks/speculative.py
	python benchmarks/oracle.py
	python benchmarks/approximate.py
	python benchmarks/coverage.py
