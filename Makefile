# Two commands from a clean clone: `make study` and `make test`. Everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: study test lint oracle slow ddp wheel-check bench clean

study: .venv/.study study/cohort/cohort.json
	$(BIN)/nigradat study study/cohort study/quick --scale quick

study/cohort/cohort.json: | .venv/.study
	$(BIN)/nigradat simulate study/cohort --patients 260 --preset easy --seed 1

# one torch thread a worker: two workers of two threads each take twice as long on two cores
test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not oracle"

slow: .venv/.test
	$(BIN)/python -m pytest -m slow

lint: .venv/.dev
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ddp: .venv/.test
	$(BIN)/python -m pytest -m slow tests/training/test_ddp.py

oracle: .venv/.test .venv/.oracle
	$(BIN)/python -m pytest -m oracle

wheel-check: .venv/.dev
	$(BIN)/python .ci/wheel_check.py

bench: .venv/.study
	$(BIN)/python benchmarks/speed.py

# a stamp a set of packages, made again when what is asked for changes
.venv/.base:
	$(PYTHON) -m venv .venv
	touch $@
.venv/.study: .venv/.base pyproject.toml constraints.txt
	$(PIP) -e '.[train,report]'
	touch $@
.venv/.test: .venv/.base pyproject.toml constraints.txt
	$(PIP) -e '.[test,tb]'
	touch $@
.venv/.dev: .venv/.base pyproject.toml constraints.txt
	$(PIP) -e '.[dev,tb]'
	touch $@
.venv/.oracle: .venv/.test
	$(PIP) -e '.[oracle]'
	touch $@

clean:
	rm -rf .venv build dist study src/*.egg-info
