.PHONY: check test long docs benchmarks

check: ## what CI checks first
	ruff format --check .
	ruff check .
	mypy
	python -m pytest

long: ## tests that take minutes
	python -m pytest -m long

docs: ## the API reference, in docs/api
	python -m pdoc --docformat google -o docs/api duo routers

benchmarks:
	python benchmarks/training.py
