# Every target sets up its own virtual environment in .venv; nothing else is needed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS ?= test,train,torch-sim

.PHONY: demo test lint check-generated clean

demo: $(STAMP)
	$(BIN)/tensorgraph build specs/hiphop5.yaml
	$(BIN)/python -m examples.au6
	$(BIN)/tensorgraph train examples/gold.yaml --overwrite
	$(BIN)/python -m examples.gold

# One thread per process: the tests already run on every core.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=8

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every package in generated/ must be what its spec gives; a package without a spec fails, and so does a missing one.
REQUIRED := hiphop5 hiphop4 flexible5 hipnn

check-generated: $(STAMP)
	@status=0; \
	for name in $(REQUIRED); do \
		test -f "generated/$$name/manifest.json" || { echo "generated/$$name is missing"; status=1; }; \
	done; \
	for package in generated/*/manifest.json; do \
		test -f "$$package" || continue; \
		name=$$(basename "$$(dirname "$$package")"); \
		echo "checking generated/$$name"; \
		$(BIN)/tensorgraph build "specs/$$name.yaml" --check || status=1; \
	done; \
	exit $$status

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What was tested is pinned in constraints.txt; `make CONSTRAINTS= …` takes the newest releases instead.
CONSTRAINTS ?= -c constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	touch $@
