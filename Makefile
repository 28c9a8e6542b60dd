.PHONY: check test long docs schema bench

check: ## what CI checks first
	ruff format --check .
	ruff check .
	mypy
	python -m pytest

long: ## tests that take minutes
	python -m pytest -m long

docs: ## the site, in build/site; a warning is an error
	rm -rf docs/api build/site # pages of modules that are gone
	python -m sphinx --quiet --fail-on-warning --keep-going -c docs/site -d build/doctrees . build/site
	cp build/site/README.html build/site/index.html

schema: ## what may stand in result.json, in docs/result.schema.json
	python -c "from duo.report.schema import schema_text; print(schema_text(), end='')" > docs/result.schema.json

bench: ## ratios of this machine, in benchmarks/RESULTS.md (hours; QUICK=--quick: minutes)
	python benchmarks/results.py $(QUICK)
