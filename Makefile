.PHONY: check test long docs bench

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

bench: ## ratios of this machine, in benchmarks/RESULTS.md (hours; QUICK=--quick: minutes)
	python benchmarks/results.py $(QUICK)
